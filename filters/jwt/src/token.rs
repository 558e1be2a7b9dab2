//! A token taken apart (RFC 7515, RFC 7519), and what is judged of it besides its signature.
//!
//! What always holds: a token is held to its size before anything is read of it; JSON deeper than the parser's own limit is no JSON; the time of a token is
//! judged each time it comes, also when its signature is remembered.

use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use serde_json::Value;

use crate::error::TokenError;
use crate::key::Algorithm;

/// A token, not verified.
#[derive(Debug)]
pub(crate) struct Token<'t> {
    pub(crate) algorithm: Algorithm,
    pub(crate) key_id: Option<String>,
    pub(crate) claims: Value,
    /// As in the token.
    pub(crate) payload: &'t str,
    /// What was signed.
    pub(crate) message: &'t [u8],
    pub(crate) signature: Vec<u8>,
}

/// When a token is valid, in seconds since 1970.
#[derive(Debug, Clone, Copy, PartialEq, Default)]
pub(crate) struct Times {
    expires: Option<f64>,
    not_before: Option<f64>,
    issued_at: Option<f64>,
}

impl<'t> Token<'t> {
    pub(crate) fn parse(text: &'t [u8]) -> Result<Self, TokenError> {
        let text = std::str::from_utf8(text).map_err(|_| TokenError::BadFormat)?;
        let mut parts = text.split('.');
        let (Some(header), Some(payload), Some(signature), None) = (parts.next(), parts.next(), parts.next(), parts.next()) else {
            return Err(TokenError::BadFormat);
        };
        let decode = |text: &str, error| URL_SAFE_NO_PAD.decode(text).map_err(|_| error);
        let object = |bytes: &[u8], error| match serde_json::from_slice(bytes) {
            Ok(Value::Object(object)) => Ok(object),
            _ => Err(error),
        };
        let header_json = object(&decode(header, TokenError::HeaderBase64)?, TokenError::HeaderJson)?;
        let algorithm = header_json.get("alg").and_then(Value::as_str).ok_or(TokenError::HeaderAlgorithm)?;
        let algorithm = Algorithm::named(algorithm).ok_or(TokenError::AlgorithmUnsupported)?;
        // Whoever does not understand all of it has to refuse it, and nothing of it is understood here.
        if header_json.contains_key("crit") {
            return Err(TokenError::HeaderCritical);
        }
        let key_id = match header_json.get("kid") {
            None => None,
            Some(Value::String(id)) => Some(id.clone()),
            Some(_) => return Err(TokenError::HeaderKid),
        };
        let claims = object(&decode(payload, TokenError::PayloadBase64)?, TokenError::PayloadJson)?;
        let signature = decode(signature, TokenError::SignatureBase64)?;
        let message = &text.as_bytes()[..header.len() + 1 + payload.len()];
        Ok(Self { algorithm, key_id, claims: Value::Object(claims), payload, message, signature })
    }

    /// Who signed it, by its own word.
    pub(crate) fn issuer(&self) -> Result<&str, TokenError> {
        match self.claims.get("iss") {
            None => Ok(""),
            Some(issuer) => issuer.as_str().ok_or(TokenError::IssuerNotText),
        }
    }

    /// Who it is about.
    pub(crate) fn subject(&self) -> Result<&str, TokenError> {
        match self.claims.get("sub") {
            None => Ok(""),
            Some(subject) => subject.as_str().ok_or(TokenError::SubjectNotText),
        }
    }

    /// Whom it is for.
    pub(crate) fn audiences(&self) -> Result<Vec<&str>, TokenError> {
        match self.claims.get("aud") {
            None => Ok(Vec::new()),
            Some(Value::String(one)) => Ok(vec![one]),
            Some(Value::Array(list)) => list.iter().map(|one| one.as_str().ok_or(TokenError::AudienceBad)).collect(),
            Some(_) => Err(TokenError::AudienceBad),
        }
    }

    pub(crate) fn times(&self) -> Result<Times, TokenError> {
        let seconds = |name: &str, error| match self.claims.get(name) {
            None => Ok(None),
            Some(value) => value.as_f64().map(Some).ok_or(error),
        };
        Ok(Times {
            expires: seconds("exp", TokenError::ExpirationBad)?,
            not_before: seconds("nbf", TokenError::NotBeforeBad)?,
            issued_at: seconds("iat", TokenError::IssuedAtBad)?,
        })
    }
}

impl Times {
    /// Whether it is valid now.
    pub(crate) fn check(&self, now: f64, skew: f64) -> Result<(), TokenError> {
        if self.expires.is_some_and(|expires| expires + skew < now) {
            return Err(TokenError::Expired);
        }
        let is_later = |time: Option<f64>| time.is_some_and(|time| time - skew > now);
        if is_later(self.not_before) || is_later(self.issued_at) { Err(TokenError::NotYetValid) } else { Ok(()) }
    }
}

/// An audience without its scheme and the slash at its end: what differs in these is one.
pub(crate) fn plain_audience(audience: &str) -> &str {
    let audience = audience.strip_prefix("https://").or_else(|| audience.strip_prefix("http://")).unwrap_or(audience);
    audience.strip_suffix('/').unwrap_or(audience)
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, reason = "a test that cannot go on should stop")]

    use super::*;

    fn token(header: &str, payload: &str) -> String {
        format!("{}.{}.c2ln", URL_SAFE_NO_PAD.encode(header), URL_SAFE_NO_PAD.encode(payload))
    }

    #[test]
    fn what_is_no_token_says_why() {
        let good = r#"{"alg":"RS256"}"#;
        let deep = format!(r#"{{"alg":"RS256","x":{}{}}}"#, "[".repeat(10_000), "]".repeat(10_000));
        for (text, error) in [
            (String::new(), TokenError::BadFormat),
            ("a.b".to_owned(), TokenError::BadFormat),
            ("a.b.c.d".to_owned(), TokenError::BadFormat),
            ("é.b.c".to_owned(), TokenError::HeaderBase64),
            ("e30=.e30.".to_owned(), TokenError::HeaderBase64),
            (token("[]", "{}"), TokenError::HeaderJson),
            (token(&deep, "{}"), TokenError::HeaderJson),
            (token("{}", "{}"), TokenError::HeaderAlgorithm),
            (token(r#"{"alg":1}"#, "{}"), TokenError::HeaderAlgorithm),
            (token(r#"{"alg":"none"}"#, "{}"), TokenError::AlgorithmUnsupported),
            (token(r#"{"alg":"HS256"}"#, "{}"), TokenError::AlgorithmUnsupported),
            (token(r#"{"alg":"rs256"}"#, "{}"), TokenError::AlgorithmUnsupported),
            (token(r#"{"alg":"RS256","kid":1}"#, "{}"), TokenError::HeaderKid),
            (token(r#"{"alg":"RS256","crit":["b64"]}"#, "{}"), TokenError::HeaderCritical),
            (token(good, "x"), TokenError::PayloadJson),
            (token(good, "{}").replace(".c2ln", ".c2l+"), TokenError::SignatureBase64),
        ] {
            assert_eq!(Token::parse(text.as_bytes()).unwrap_err(), error, "{}", &text[..text.len().min(80)]);
        }
        assert!(Token::parse(token(good, "{}").as_bytes()).is_ok());
    }

    #[test]
    fn a_token_is_valid_for_a_time() {
        for (claims, error) in [
            ("{}", None),
            (r#"{"exp":1000}"#, None),
            (r#"{"exp":940}"#, None),
            (r#"{"exp":939}"#, Some(TokenError::Expired)),
            (r#"{"exp":939.5}"#, Some(TokenError::Expired)),
            (r#"{"exp":-1}"#, Some(TokenError::Expired)),
            (r#"{"exp":"1000"}"#, Some(TokenError::ExpirationBad)),
            (r#"{"exp":null}"#, Some(TokenError::ExpirationBad)),
            (r#"{"nbf":1060}"#, None),
            (r#"{"nbf":1061}"#, Some(TokenError::NotYetValid)),
            (r#"{"iat":1061}"#, Some(TokenError::NotYetValid)),
            (r#"{"nbf":[]}"#, Some(TokenError::NotBeforeBad)),
            (r#"{"iat":{}}"#, Some(TokenError::IssuedAtBad)),
            (r#"{"exp":1e308}"#, None),
        ] {
            let text = token(r#"{"alg":"RS256"}"#, claims);
            let token = Token::parse(text.as_bytes()).unwrap();
            assert_eq!(token.times().and_then(|times| times.check(1000.0, 60.0)).err(), error, "{claims}");
        }
    }

    #[test]
    fn audiences_are_compared_without_their_scheme() {
        for audience in ["https://a.example/", "http://a.example", "a.example/", "a.example"] {
            assert_eq!(plain_audience(audience), "a.example");
        }
    }
}
