//! The `jwt` filter: Istio's RequestAuthentication. Verifies JSON Web Tokens, and hands their claims on.
//!
//! A request without a token passes, unless one is required; one with a token that no rule accepts is refused. What a verified token says is left in the
//! properties `request.auth.claims`, `.principal`, `.audiences` and `.presenter`, for the filter `authz` and for any other behind this one.
//!
//! Always: headers that this filter writes are taken off the client's request first; a token is accepted only if its signature, its issuer, its time and its audience
//! are right, by a key whose type allows its algorithm; keys are kept while their server is away. What it does not do: decide who may do what, encrypted
//! tokens, or looking for an issuer's keys where the configuration does not say.

pub mod config;
mod error;
mod key;
mod location;
mod source;
mod token;
mod verified;
mod verify;

use std::cell::RefCell;
use std::rc::Rc;

use config::{Jwt, JwtRule};
use error::TokenError;
use key::Check;
use location::{Locations, check_name};
use source::Source;
use token::{Token, plain_audience};
use verified::{Cache, Outputs, Verified};
use weir_sdk::prelude::*;

/// The filter.
#[derive(Debug)]
pub struct Authenticator(Rc<Inner>);

#[derive(Debug)]
struct Inner {
    rules: Vec<Rule>,
    required: bool,
    skew: f64,
    longest: usize,
    cache: RefCell<Cache>,
    accepted: Counter,
    without: Counter,
    refused: Counter,
}

#[derive(Debug)]
struct Rule {
    issuer: String,
    audiences: Vec<String>,
    locations: Locations,
    source: Rc<Source>,
    forward: bool,
    outputs: Outputs,
}

/// What became of a request's tokens.
enum Outcome {
    /// There are none.
    Nothing,
    /// By the rule of this number.
    Accepted(usize, Rc<Verified>),
    Refused(TokenError),
    /// By the rules of these numbers, once their servers are asked for keys; if that does not help, this is why not.
    Unknown(Vec<usize>, TokenError),
}

/// Why a rule does not accept a token.
enum Failure {
    Final(TokenError),
    /// It might with other keys.
    Keys(TokenError),
}

#[register]
impl Filter for Authenticator {
    type Config = Jwt;

    fn configure(config: Jwt, plugin: &Plugin) -> Result<Self, Refusal> {
        let mut rules = Vec::new();
        for (at, rule) in config.jwt_rules.iter().enumerate() {
            rules.push(Rule::new(rule).map_err(|refusal| refusal.within(&format!("jwtRules[{at}]")))?);
        }
        let counter = |result: &str| Counter::define("weir_jwt_requests_total", &[("result", result)]);
        let inner = Inner {
            required: config.required,
            skew: config.clock_skew_seconds.into(),
            longest: config.max_token_bytes as usize,
            cache: RefCell::new(Cache::new((config.cache_kib as usize) << 10)),
            accepted: counter("accepted")?,
            without: counter("without_token")?,
            refused: counter("refused")?,
            rules,
        };
        inner.rules.iter().filter(|rule| rule.source.is_remote()).for_each(|rule| rule.source.keep_fresh(plugin));
        Ok(Self(Rc::new(inner)))
    }

    fn on_request_headers(&self, stream: &mut Stream<'_>) -> Flow {
        let inner = &self.0;
        if !inner.clean(stream) {
            return stream.reply(500).details("jwt_authn_headers_kept").send();
        }
        // A browser asks without a token whether it may send one.
        let request = stream.request();
        if stream.method() == b"OPTIONS" && request.has("origin") && request.has("access-control-request-method") {
            return Flow::Continue;
        }
        match inner.judge(stream) {
            Outcome::Unknown(rules, error) => {
                let inner = Rc::clone(inner);
                stream.wait(async move |handle: Handle| {
                    for rule in rules {
                        inner.rules[rule].source.ask(&handle).await;
                    }
                    let end = |stream: &mut Stream<'_>| match inner.judge(stream) {
                        Outcome::Unknown(_, _) => inner.end(stream, &Outcome::Refused(error)),
                        outcome => inner.end(stream, &outcome),
                    };
                    handle.with(end).unwrap_or(Flow::Pause)
                })
            }
            outcome => inner.end(stream, &outcome),
        }
    }
}

impl Rule {
    fn new(rule: &JwtRule) -> Result<Self, Refusal> {
        if rule.issuer.is_empty() {
            return Err(Refusal::at("issuer", "it must not be empty"));
        }
        let mut claims = rule.output_claim_to_headers.clone();
        for (at, output) in claims.iter_mut().enumerate() {
            check_name(&output.header).map_err(|refusal| refusal.within(&format!("outputClaimToHeaders[{at}].header")))?;
            output.header.make_ascii_lowercase();
            if output.claim.is_empty() {
                return Err(Refusal::at(format!("outputClaimToHeaders[{at}].claim"), "it must not be empty"));
            }
        }
        let payload = rule.output_payload_to_header.as_ref().map(|name| name.to_ascii_lowercase());
        payload.as_deref().map_or(Ok(()), check_name).map_err(|refusal| refusal.within("outputPayloadToHeader"))?;
        if let Some(at) = rule.audiences.iter().position(String::is_empty) {
            return Err(Refusal::at(format!("audiences[{at}]"), "it must not be empty"));
        }
        Ok(Self {
            issuer: rule.issuer.clone(),
            audiences: rule.audiences.iter().map(|audience| plain_audience(audience).to_owned()).collect(),
            locations: Locations::new(rule)?,
            source: Rc::new(Source::new(rule)?),
            forward: rule.forward_original_token,
            outputs: Outputs { payload, claims, words: rule.space_delimited_claims.clone() },
        })
    }

    /// Judges a token's claims and signature, but not its time.
    fn verify(&self, text: &[u8]) -> Result<Verified, Failure> {
        let token = Token::parse(text).map_err(Failure::Final)?;
        if token.issuer().map_err(Failure::Final)? != self.issuer {
            return Err(Failure::Final(TokenError::UnknownIssuer));
        }
        let times = token.times().map_err(Failure::Final)?;
        let audiences = token.audiences().map_err(Failure::Final)?;
        let is_ours = |audience: &&str| self.audiences.iter().any(|own| own == plain_audience(audience));
        if !self.audiences.is_empty() && !audiences.iter().any(is_ours) {
            return Err(Failure::Final(TokenError::AudienceNotAllowed));
        }
        let generation = self.source.generation();
        let Some(keys) = self.source.keys() else { return Err(Failure::Keys(TokenError::KeysUnavailable)) };
        match keys.check(token.algorithm, token.key_id.as_deref(), token.message, &token.signature) {
            Check::Good => Verified::new(token, times, &self.outputs, generation).map_err(Failure::Final),
            Check::NoKey => Err(Failure::Keys(TokenError::NoKey)),
            Check::Bad => Err(Failure::Final(TokenError::Unverified)),
        }
    }
}

impl Inner {
    /// Takes off what only this filter may say. False when that failed.
    fn clean(&self, stream: &Stream<'_>) -> bool {
        let request = stream.request();
        let outputs =
            self.rules.iter().flat_map(|rule| rule.outputs.payload.iter().chain(rule.outputs.claims.iter().map(|output| &output.header)));
        outputs.filter(|name| request.has(name)).all(|name| request.remove(name).is_ok())
    }

    fn judge(&self, stream: &Stream<'_>) -> Outcome {
        let (mut error, mut unknown, mut is_any) = (TokenError::Missing, Vec::new(), false);
        let mut found = Vec::new();
        for (at, rule) in self.rules.iter().enumerate() {
            found.clear();
            if let Err(why) = rule.locations.find(stream, &mut found) {
                return Outcome::Refused(why);
            }
            is_any |= !found.is_empty();
            // All tokens in a rule's places have to be good; the first one is handed on.
            let mut accepted = None;
            for token in &found {
                match self.check(at, rule, token) {
                    Ok(verified) => accepted = accepted.or(Some(verified)),
                    Err(failure) => {
                        let (Failure::Final(why) | Failure::Keys(why)) = failure;
                        if matches!(failure, Failure::Keys(_)) && rule.source.may_ask() && !unknown.contains(&at) {
                            unknown.push(at);
                        }
                        error = error.max(why);
                        accepted = None;
                        break;
                    }
                }
            }
            if let Some(verified) = accepted {
                return Outcome::Accepted(at, verified);
            }
        }
        match (is_any, unknown.is_empty()) {
            (false, _) => Outcome::Nothing,
            (true, true) => Outcome::Refused(error),
            (true, false) => Outcome::Unknown(unknown, error),
        }
    }

    fn check(&self, at: usize, rule: &Rule, text: &[u8]) -> Result<Rc<Verified>, Failure> {
        if text.len() > self.longest {
            return Err(Failure::Final(TokenError::TooLarge));
        }
        let known = self.cache.borrow_mut().get(at, text, rule.source.generation());
        let verified = match known {
            Some(verified) => verified,
            None => {
                let verified = Rc::new(rule.verify(text)?);
                self.cache.borrow_mut().put(at, text, &verified);
                verified
            }
        };
        let now = weir_sdk::now_nanos() as f64 / 1e9;
        verified.times.check(now, self.skew).map_err(Failure::Final)?;
        Ok(verified)
    }

    fn end(&self, stream: &Stream<'_>, outcome: &Outcome) -> Flow {
        match outcome {
            Outcome::Nothing if self.required => self.refuse(stream, TokenError::Missing),
            Outcome::Nothing => {
                self.without.increment();
                Flow::Continue
            }
            Outcome::Refused(error) | Outcome::Unknown(_, error) => self.refuse(stream, *error),
            Outcome::Accepted(at, verified) => {
                let rule = &self.rules[*at];
                // What the host keeps from being handed on would be missing where it is decided upon.
                if !(rule.forward || rule.locations.remove(stream)) || !verified.hand_on(stream) {
                    return stream.reply(500).details("jwt_authn_not_handed_on").send();
                }
                self.accepted.increment();
                Flow::Continue
            }
        }
    }

    fn refuse(&self, stream: &Stream<'_>, error: TokenError) -> Flow {
        self.refused.increment();
        let attributes = stream.attributes();
        let scheme = attributes.scheme().unwrap_or("http");
        let path = stream.path().split(|byte| *byte == b'?').next().unwrap_or_default();
        let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).replace(['"', '\\'], "");
        let realm = format!("{scheme}://{}{}", text(stream.authority()), text(path));
        let invalid = if error == TokenError::Missing { "" } else { ", error=\"invalid_token\"" };
        let details = format!("jwt_authn_access_denied{{{}}}", error.text().replace(' ', "_"));
        let reply = stream.reply(error.status()).body(error.text()).details(details);
        reply.header("www-authenticate", format!("Bearer realm=\"{realm}\"{invalid}")).send()
    }
}
