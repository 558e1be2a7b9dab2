//! What is known of a token that was verified, ready to be handed on; and the last ones, remembered.

use std::collections::HashMap;
use std::rc::Rc;

use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use serde_json::Value;
use weir_sdk::Stream;

use crate::config::ClaimToHeader;
use crate::error::TokenError;
use crate::token::{Times, Token};

/// Claims that are lists of words, whatever the configuration says.
const WORDS: [&str; 2] = ["scope", "permission"];
/// What an entry takes beside its token and what was made of it.
const OVERHEAD: usize = 256;

/// A token that was verified.
#[derive(Debug)]
pub(crate) struct Verified {
    pub(crate) times: Times,
    /// Of the keys that verified it.
    generation: u32,
    principal: String,
    audiences: String,
    presenter: Option<String>,
    claims: Vec<u8>,
    headers: Vec<(String, Vec<u8>)>,
}

/// What a rule makes of a token's claims.
#[derive(Debug)]
pub(crate) struct Outputs {
    pub(crate) payload: Option<String>,
    pub(crate) claims: Vec<ClaimToHeader>,
    pub(crate) words: Vec<String>,
}

impl Verified {
    pub(crate) fn new(token: Token<'_>, times: Times, outputs: &Outputs, generation: u32) -> Result<Self, TokenError> {
        let principal = match (token.issuer()?, token.subject()?) {
            (issuer, "") => issuer.to_owned(),
            (issuer, subject) => format!("{issuer}/{subject}"),
        };
        let audiences = token.audiences()?.join(",");
        let presenter = token.claims.get("azp").and_then(Value::as_str).map(str::to_owned);
        let mut headers = Vec::new();
        headers.extend(outputs.payload.iter().map(|name| (name.clone(), token.payload.as_bytes().to_vec())));
        for output in &outputs.claims {
            let claim = output.claim.split('.').try_fold(&token.claims, |value, name| value.get(name));
            headers.extend(claim.and_then(as_header).map(|value| (output.header.clone(), value)));
        }
        let mut claims = token.claims;
        for name in WORDS.into_iter().chain(outputs.words.iter().map(String::as_str)) {
            if let Some(claim) = claims.get_mut(name)
                && let Some(text) = claim.as_str()
            {
                *claim = text.split(' ').filter(|word| !word.is_empty()).map(Value::from).collect();
            }
        }
        let claims = serde_json::to_vec(&claims).map_err(|_| TokenError::PayloadJson)?;
        Ok(Self { times, generation, principal, audiences, presenter, claims, headers })
    }

    /// Hands it on: attributes for the filters behind this one, headers for the upstream. False when the host refuses something.
    pub(crate) fn hand_on<S: 'static>(&self, stream: &Stream<'_, S>) -> bool {
        let attributes = stream.attributes();
        let mut is_done = attributes.set("request\0auth\0claims", &self.claims).is_ok();
        is_done &= attributes.set("request\0auth\0principal", &self.principal).is_ok();
        if !self.audiences.is_empty() {
            is_done &= attributes.set("request\0auth\0audiences", &self.audiences).is_ok();
        }
        if let Some(presenter) = &self.presenter {
            is_done &= attributes.set("request\0auth\0presenter", presenter).is_ok();
        }
        is_done && self.headers.iter().all(|(name, value)| stream.request().set(name, value).is_ok())
    }

    fn size(&self) -> usize {
        self.claims.len() + self.headers.iter().map(|(name, value)| name.len() + value.len()).sum::<usize>() + OVERHEAD
    }
}

/// Texts, numbers and truth values as they are, anything else as base64url of JSON.
fn as_header(claim: &Value) -> Option<Vec<u8>> {
    match claim {
        Value::Null => None,
        // A claim's text is the issuer's, and its bytes need not be a header's.
        Value::String(text) if text.bytes().all(|byte| matches!(byte, b' '..=b'~')) => Some(text.as_bytes().to_vec()),
        Value::Bool(_) | Value::Number(_) => Some(claim.to_string().into_bytes()),
        _ => Some(URL_SAFE_NO_PAD.encode(claim.to_string()).into_bytes()),
    }
}

/// Verified tokens, by rule and token. Two halves: when the young one is full, the old one is forgotten.
#[derive(Debug)]
pub(crate) struct Cache {
    young: HashMap<(usize, Box<[u8]>), Rc<Verified>>,
    old: HashMap<(usize, Box<[u8]>), Rc<Verified>>,
    /// Bytes in the young half, and the most there may be.
    bytes: usize,
    most: usize,
}

impl Cache {
    pub(crate) fn new(bytes: usize) -> Self {
        Self { young: HashMap::new(), old: HashMap::new(), bytes: 0, most: bytes / 2 }
    }

    /// A token that these keys have verified.
    pub(crate) fn get(&mut self, rule: usize, token: &[u8], generation: u32) -> Option<Rc<Verified>> {
        if self.most == 0 {
            return None;
        }
        let key = (rule, token.into());
        if let Some(found) = self.young.get(&key).filter(|found| found.generation == generation) {
            return Some(Rc::clone(found));
        }
        let found = self.old.remove(&key).filter(|found| found.generation == generation)?;
        self.put(key.0, token, &found);
        Some(found)
    }

    pub(crate) fn put(&mut self, rule: usize, token: &[u8], verified: &Rc<Verified>) {
        let size = token.len() + verified.size();
        if size > self.most {
            return;
        }
        if self.bytes + size > self.most {
            self.old = std::mem::take(&mut self.young);
            self.bytes = 0;
        }
        self.bytes += size;
        self.young.insert((rule, token.into()), Rc::clone(verified));
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn verified(generation: u32) -> Rc<Verified> {
        let (principal, audiences) = (String::new(), String::new());
        Rc::new(Verified {
            times: Times::default(),
            generation,
            principal,
            audiences,
            presenter: None,
            claims: Vec::new(),
            headers: Vec::new(),
        })
    }

    #[test]
    fn the_cache_is_bounded_and_keeps_what_is_used() {
        let mut cache = Cache::new(64 << 10);
        cache.put(0, b"used", &verified(1));
        for number in 0..10_000_u32 {
            cache.put(0, format!("token {number}").as_bytes(), &verified(1));
            assert!(cache.get(0, b"used", 1).is_some(), "{number}");
            assert!(cache.young.len() + cache.old.len() <= 256, "{number}");
        }
        assert!(cache.get(0, b"token 9999", 1).is_some());
        assert!(cache.get(0, b"token 1", 1).is_none());
        assert!(cache.get(1, b"used", 1).is_none(), "another rule");
        assert!(cache.get(0, b"used", 2).is_none(), "other keys");
        let mut none = Cache::new(0);
        none.put(0, b"used", &verified(1));
        assert!(none.get(0, b"used", 1).is_none());
    }

    #[test]
    fn claims_become_headers_that_cannot_break_one() {
        for (claim, header) in [
            (Value::from("ann"), Some("ann")),
            (Value::from("a\r\nb"), Some("ImFcclxuYiI")),
            (Value::from(7), Some("7")),
            (Value::from(true), Some("true")),
            (Value::Null, None),
            (serde_json::json!(["a"]), Some("WyJhIl0")),
        ] {
            assert_eq!(as_header(&claim).as_deref(), header.map(str::as_bytes), "{claim}");
        }
    }
}
