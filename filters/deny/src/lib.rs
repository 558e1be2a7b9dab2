//! The `deny` filter: refuses requests by rules, with the answer that the operator chose. Mixer's denier and list checker reborn.
//!
//! The rules are tried in the order written; the first that means the request answers it. A rule may only count what it would refuse (`dryRun`).
//!
//! Always: a rule means every reading that servers are known to have of a path, a method or a repeated header, and what it spares has to be spared in all of
//! them; a refused request is answered once, with `denied_by{RULE}` as the response's code details, and counted under the rule's name; a rule that
//! could not be understood refuses the configuration, never lets a request pass. What it does not do: authentication, or anything that needs another
//! service.

pub mod config;
mod list;

use config::{Answer, Deny, Rule};
use list::List;
use weir_filter_cel::Program;
use weir_filter_matching::{Readings, RequestMatcher, Text};
use weir_sdk::Decision;
use weir_sdk::prelude::*;

/// The filter: its rules, compiled.
#[derive(Debug)]
pub struct Denier {
    rules: Vec<Compiled>,
}

#[derive(Debug)]
struct Compiled {
    name: String,
    when: RequestMatcher,
    unless: Option<RequestMatcher>,
    attributes: Vec<(String, Text)>,
    list: Option<List>,
    expression: Option<Program>,
    answer: Answer,
    dry_run: bool,
    refused: Counter,
}

#[register]
impl Filter for Denier {
    type Config = Deny;

    fn configure(config: Deny, _: &Plugin) -> Result<Self, Refusal> {
        if config.rules.is_empty() {
            weir_sdk::warn!("the configuration has no rules, so nothing is refused");
        }
        let compile = |(at, rule): (usize, Rule)| Compiled::new(rule).map_err(|refusal| refusal.within(&format!("rules[{at}]")));
        Ok(Self { rules: config.rules.into_iter().enumerate().map(compile).collect::<Result<_, _>>()? })
    }

    fn on_request_headers(&self, stream: &mut Stream<'_>) -> Flow {
        for rule in self.rules.iter().filter(|rule| rule.means(stream)) {
            rule.refused.increment();
            let verdict = if rule.dry_run { "would_refuse" } else { "refuse" };
            let _ = stream.decide(Decision { rule: &rule.name, verdict, reason: "" });
            if rule.dry_run {
                weir_sdk::info!("rule {:?} would refuse this request", rule.name);
                continue;
            }
            return rule.refuse(stream);
        }
        Flow::Continue
    }
}

impl Compiled {
    fn new(rule: Rule) -> Result<Self, Refusal> {
        let name = if rule.name.is_empty() {
            return Err(Refusal::at("name", "a rule needs a name: it is what is counted and logged"));
        } else {
            rule.name
        };
        rule.answer.check().map_err(|refusal| refusal.within("answer"))?;
        let mut attributes = Vec::new();
        for (at, attribute) in rule.attributes.iter().enumerate() {
            let text = attribute.value.compile().map_err(|refusal| refusal.within(&format!("attributes[{at}].value")))?;
            attributes.push((attribute.name.clone(), text));
        }
        let verdict = if rule.dry_run { "would_refuse" } else { "refused" };
        Ok(Self {
            when: rule.when.compile().map_err(|refusal| refusal.within("when"))?,
            unless: rule.unless.map(|unless| unless.compile().map_err(|refusal| refusal.within("unless"))).transpose()?,
            attributes,
            list: rule.list.map(|list| List::new(list).map_err(|refusal| refusal.within("list"))).transpose()?,
            expression: rule
                .expression
                .map(|text| Program::compile(&text).map_err(|mistake| Refusal::at("expression", mistake)))
                .transpose()?,
            answer: rule.answer,
            dry_run: rule.dry_run,
            refused: Counter::define("weir_deny_requests_total", &[("rule", &name), ("verdict", verdict)])?,
            name,
        })
    }

    fn means(&self, stream: &Stream<'_>) -> bool {
        self.when.matches_in(stream, Readings::Any)
            && self.attributes.iter().all(|(name, text)| text.matches(stream.attributes().get(name)))
            && self.list.as_ref().is_none_or(|list| list.refuses(stream))
            && self.expression.as_ref().is_none_or(|program| holds(&self.name, program, stream))
            && !self.unless.as_ref().is_some_and(|unless| unless.matches_in(stream, Readings::Every))
    }

    fn refuse(&self, stream: &Stream<'_>) -> Flow {
        let mut reply = stream.reply(self.answer.status).details(format!("denied_by{{{}}}", self.name)).body(self.answer.body.clone());
        for (name, value) in &self.answer.headers {
            reply = reply.header(name, value.as_bytes());
        }
        if let Some(status) = self.answer.grpc_status {
            reply = reply.grpc_status(status);
        }
        reply.send()
    }
}

/// Whether a rule's expression is true. One that has no value is not.
fn holds(rule: &str, program: &Program, stream: &Stream<'_>) -> bool {
    program.holds(stream).unwrap_or_else(|cause| {
        weir_sdk::debug!("the expression of rule {rule:?} has no value: {cause}");
        false
    })
}
