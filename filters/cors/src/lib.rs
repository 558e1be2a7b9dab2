//! The `cors` filter: lets scripts of other origins read responses, as Istio's `corsPolicy` says.
//!
//! A preflight from an allowed origin is answered here. The response to any other request from one says so in its headers, whatever the upstream said; what
//! depends on the origin is marked by `vary`. A route has a policy of its own as a variant of the filter's binding.
//!
//! Always: an origin is named only if it is allowed; for an allowed origin, of the `access-control-*` headers those of the policy are sent and no others. What it
//! does not do: refuse requests. Browsers keep responses from scripts; who sends requests by hand is not kept from anything.

pub mod config;

use config::{Cors, OriginMatch, UnmatchedPreflights};
use weir_filter_matching::{Text, TextMatch};
use weir_sdk::prelude::*;

const ALLOW_ORIGIN: &str = "access-control-allow-origin";
const ALLOW_CREDENTIALS: &str = "access-control-allow-credentials";
const EXPOSE_HEADERS: &str = "access-control-expose-headers";
const PREFLIGHT_VARY: &str = "origin, access-control-request-method, access-control-request-headers";

/// The filter: its policy, compiled.
#[derive(Debug)]
pub struct CrossOrigin {
    origins: Vec<Text>,
    /// Each already joined; empty is not sent.
    methods: String,
    headers: String,
    exposed: String,
    max_age: String,
    credentials: bool,
    answers_unmatched: bool,
    preflights: Counter,
    allowed: Counter,
    other: Counter,
}

#[register]
impl Filter for CrossOrigin {
    type Config = Cors;
    /// The origin, if it is allowed.
    type State = Option<Box<[u8]>>;

    fn configure(config: Cors, _: &Plugin) -> Result<Self, Refusal> {
        let mut origins = Vec::new();
        for (at, origin) in config.allow_origins.iter().enumerate() {
            origins.push(compile(origin).map_err(|refusal| refusal.within(&format!("allowOrigins[{at}]")))?);
        }
        origins.extend(config.allow_origin.iter().map(|origin| Text::exact(origin)));
        for (field, list) in
            [("allowMethods", &config.allow_methods), ("allowHeaders", &config.allow_headers), ("exposeHeaders", &config.expose_headers)]
        {
            let is_name = |text: &String| {
                !text.is_empty() && text.bytes().all(|byte| byte.is_ascii_alphanumeric() || b"!#$%&'*+-.^_`|~".contains(&byte))
            };
            if let Some(at) = list.iter().position(|text| !is_name(text)) {
                return Err(Refusal::at(format!("{field}[{at}]"), format!("{:?} is no name", list[at])));
            }
        }
        let max_age = config.max_age.as_deref().map(|age| {
            seconds(age).ok_or_else(|| Refusal::at("maxAge", format!("{age:?} is no time in whole seconds, such as 24h or 30s")))
        });
        let counter = |verdict: &str| Counter::define("weir_cors_requests_total", &[("verdict", verdict)]);
        Ok(Self {
            origins,
            methods: config.allow_methods.join(","),
            headers: config.allow_headers.join(","),
            exposed: config.expose_headers.join(","),
            max_age: max_age.transpose()?.map(|age| age.to_string()).unwrap_or_default(),
            credentials: config.allow_credentials.unwrap_or(false),
            answers_unmatched: config.unmatched_preflights == UnmatchedPreflights::Ignore,
            preflights: counter("preflight")?,
            allowed: counter("allowed")?,
            other: counter("other_origin")?,
        })
    }

    fn on_request_headers(&self, stream: &mut Stream<'_, Self::State>) -> Flow {
        let Some(origin) = stream.request().get("origin").filter(|origin| !origin.is_empty() && !self.origins.is_empty()) else {
            return Flow::Continue;
        };
        let is_allowed = self.is_allowed(origin);
        let is_preflight = stream.method() == b"OPTIONS" && stream.request().has("access-control-request-method");
        match (is_preflight, is_allowed) {
            (true, true) => {
                self.preflights.increment();
                return self.answer(stream, origin);
            }
            (true, false) if self.answers_unmatched => {
                self.other.increment();
                return stream.reply(200).details("cors_preflight").header("vary", PREFLIGHT_VARY).send();
            }
            (_, true) => self.allowed.increment(),
            (_, false) => self.other.increment(),
        }
        *stream.state = is_allowed.then(|| origin.into());
        Flow::Continue
    }

    fn on_response_headers(&self, stream: &mut Stream<'_, Self::State>) -> Flow {
        if self.origins.is_empty() {
            return Flow::Continue;
        }
        let response = stream.response();
        vary(stream);
        if let Some(origin) = stream.state.take() {
            let credentials = if self.credentials { "true" } else { "" };
            let own = [(ALLOW_ORIGIN, &origin[..]), (ALLOW_CREDENTIALS, credentials.as_bytes()), (EXPOSE_HEADERS, self.exposed.as_bytes())];
            for (name, value) in own {
                let done = match value {
                    // The upstream's say would be mixed with the policy's.
                    [] if response.has(name) => response.remove(name),
                    [] => Ok(()),
                    value => response.set(name, value),
                };
                if let Err(status) = done {
                    weir_sdk::warn!("the header {name} could not be written: {status}");
                }
            }
        }
        Flow::Continue
    }
}

impl CrossOrigin {
    /// As in Envoy, what means `*` means every origin.
    fn is_allowed(&self, origin: &[u8]) -> bool {
        self.origins.iter().any(|text| text.matches(Some(origin)) || text.matches(Some(b"*")))
    }

    fn answer<S: 'static>(&self, stream: &Stream<'_, S>, origin: &[u8]) -> Flow {
        let credentials = if self.credentials { "true" } else { "" };
        let further = [
            (ALLOW_CREDENTIALS, credentials),
            ("access-control-allow-methods", &self.methods),
            ("access-control-allow-headers", &self.headers),
            ("access-control-max-age", &self.max_age),
        ];
        let reply = stream.reply(200).details("cors_preflight").header(ALLOW_ORIGIN, origin).header("vary", PREFLIGHT_VARY);
        further.into_iter().filter(|(_, value)| !value.is_empty()).fold(reply, |reply, (name, value)| reply.header(name, value)).send()
    }
}

/// Marks a response as depending on the origin.
fn vary<S: 'static>(stream: &Stream<'_, S>) {
    let response = stream.response();
    let known = response.get("vary").unwrap_or_default();
    let has = known.split(|byte| *byte == b',').map(<[u8]>::trim_ascii).any(|name| name == b"*" || name.eq_ignore_ascii_case(b"origin"));
    let done = match known {
        _ if has => Ok(()),
        b"" => response.set("vary", "origin"),
        known => response.set("vary", [known, b", origin"].concat()),
    };
    if let Err(status) = done {
        weir_sdk::warn!("the header vary could not be written: {status}");
    }
}

fn compile(origin: &OriginMatch) -> Result<Text, Refusal> {
    let text =
        TextMatch { exact: origin.exact.clone(), prefix: origin.prefix.clone(), regex: origin.regex.clone(), ..TextMatch::default() };
    if [&text.exact, &text.prefix, &text.regex].iter().filter(|kind| kind.is_some()).count() != 1 {
        return Err(Refusal::new("exactly one of exact, prefix and regex must be written"));
    }
    text.compile()
}

/// Whole seconds of `1h30m`, `10m`, `30s`.
fn seconds(text: &str) -> Option<u64> {
    let (mut total, mut number) = (0_u64, None);
    for letter in text.chars() {
        let unit = match letter {
            '0'..='9' => {
                number = Some(number.unwrap_or(0_u64).checked_mul(10)?.checked_add(u64::from(letter.to_digit(10)?))?);
                continue;
            }
            'h' => 3600,
            'm' => 60,
            's' => 1,
            _ => return None,
        };
        total = total.checked_add(number.take()?.checked_mul(unit)?)?;
    }
    (number.is_none() && !text.is_empty()).then_some(total)
}

#[cfg(test)]
mod tests {
    use super::seconds;

    #[test]
    fn ages_are_whole_seconds() {
        for (text, age) in [
            ("24h", Some(86_400)),
            ("1h1m1s", Some(3661)),
            ("0s", Some(0)),
            ("", None),
            ("1", None),
            ("s", None),
            ("1ms", None),
            ("-1s", None),
        ] {
            assert_eq!(seconds(text), age, "{text}");
        }
    }
}
