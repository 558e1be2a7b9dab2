//! The `authz` filter: Istio's AuthorizationPolicy, for HTTP and for raw TCP.
//!
//! `CUSTOM` policies are asked first, then any `DENY` that matches refuses, then, where there are `ALLOW` policies, one of them has to match. What a token says
//! is read from where a JWT filter before this one left it: the property `request.auth.claims`.
//!
//! Always: the path is judged in every reading that servers are known to have of it, and all have to be allowed; a policy that could not be understood refuses the
//! configuration, never lets a request pass; what is refused has its policy and rule in the response's code details. What it does not do: verify tokens, or
//! choose which policies concern a workload.

pub mod config;
mod engine;
mod facts;
mod pattern;
mod provider;
mod rules;
mod trust;

use std::rc::Rc;

use config::Authz;
use engine::{Engine, Kind, Verdict};
use facts::Facts;
use provider::{Asked, Said};
use weir_sdk::Decision;
use weir_sdk::prelude::*;

/// Where the rule that allowed a request is left, for the log.
const POLICY: &str = "authz\0policy";

/// The filter: its policies, compiled.
#[derive(Debug)]
pub struct Authorizer {
    engine: Rc<Engine>,
    providers: Vec<Rc<Asked>>,
}

#[register]
impl Filter for Authorizer {
    type Config = Authz;

    fn configure(config: Authz, _: &Plugin) -> Result<Self, Refusal> {
        let engine = Engine::new(&config)?;
        let mut providers: Vec<Rc<Asked>> = Vec::new();
        for (at, provider) in config.providers.into_iter().enumerate() {
            let asked = Asked::new(provider).map_err(|refusal| refusal.within(&format!("providers[{at}]")))?;
            if providers.iter().any(|known| known.name() == asked.name()) {
                return Err(Refusal::at(format!("providers[{at}].name"), "there is one of this name already"));
            }
            providers.push(Rc::new(asked));
        }
        for (at, policy) in config.policies.iter().enumerate() {
            let Some(wanted) = &policy.provider else { continue };
            if !providers.iter().any(|known| known.name() == wanted.name) {
                let known: Vec<&str> = providers.iter().map(|known| known.name()).collect();
                let cause = format!("there is no provider {:?}; there are {known:?}", wanted.name);
                return Err(Refusal::at(format!("policies[{at}].provider.name"), cause));
            }
        }
        Ok(Self { engine: Rc::new(engine), providers })
    }

    fn on_request_headers(&self, stream: &mut Stream<'_>) -> Flow {
        let facts = Facts::of(stream);
        let Some((provider, _)) = self.engine.custom(&facts, Kind::Request) else { return decide(&self.engine, stream, &facts) };
        // Configured, or the configuration was refused.
        let Some(asked) = self.providers.iter().find(|known| known.name() == provider).map(Rc::clone) else { return deny(stream, None) };
        let engine = Rc::clone(&self.engine);
        stream.wait(async move |handle: Handle| match asked.ask(&handle).await {
            Said::Answered(flow) => flow,
            Said::Go => handle.with(|stream| decide(&engine, stream, &Facts::of(stream))).unwrap_or(Flow::Pause),
        })
    }

    fn on_connection(&self, stream: &mut Stream<'_>) -> Flow {
        let facts = Facts::of(stream);
        if let Some((provider, rule)) = self.engine.custom(&facts, Kind::Connection) {
            weir_sdk::warn!("{rule}: the HTTP provider {provider:?} cannot be asked about a TCP connection, which is closed");
            return stream.reset();
        }
        match self.engine.judge(&facts, Kind::Connection) {
            Verdict::Allowed(_) => Flow::Continue,
            Verdict::Denied(rule) => {
                weir_sdk::info!("connection denied by {}", rule.unwrap_or("none"));
                stream.reset()
            }
        }
    }
}

fn decide(engine: &Engine, stream: &Stream<'_>, facts: &Facts<'_>) -> Flow {
    match engine.judge(facts, Kind::Request) {
        Verdict::Allowed(rule) => {
            if let Some(rule) = rule {
                // Only for the log: what cannot be set is not there.
                let _ = stream.attributes().set(POLICY, rule);
            }
            Flow::Continue
        }
        Verdict::Denied(rule) => deny(stream, rule),
    }
}

fn deny(stream: &Stream<'_>, rule: Option<&str>) -> Flow {
    let rule = rule.unwrap_or("none");
    // Only for logs: what cannot be noted is refused all the same.
    let _ = stream.decide(Decision { rule, verdict: "refuse", reason: "" });
    let details = format!("rbac_access_denied_matched_policy[{rule}]");
    stream.reply(403).body("RBAC: access denied").details(details).send()
}
