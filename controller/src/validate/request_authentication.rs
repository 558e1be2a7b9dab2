//! RequestAuthentication: issuers of tokens, their keys, and where tokens are.

use serde_json::Value as Json;

use super::{At, headers, policy, url, values};
use crate::api::istio::RequestAuthentication;
use crate::api::istio::security::JwtRule;

pub(super) fn check(at: &At<'_>, spec: &RequestAuthentication) {
    policy::check_targets(at, spec.selector.as_ref(), spec.target_ref.as_ref(), &spec.target_refs);
    at.key("jwtRules").at_most(4096, spec.jwt_rules.len());
    at.each("jwtRules", &spec.jwt_rules, check_rule);
}

fn check_rule(at: &At<'_>, rule: &JwtRule) {
    for (key, list) in [
        ("audiences", &rule.audiences),
        ("fromParams", &rule.from_params),
        ("fromCookies", &rule.from_cookies),
        ("spaceDelimitedClaims", &rule.space_delimited_claims),
    ] {
        at.each(key, list, |at, text| {
            if text.is_empty() {
                at.invalid("it must not be empty");
            }
        });
    }
    at.at_most_one(&[("jwksUri", !rule.jwks_uri.is_empty() || !rule.jwks_uri_old.is_empty()), ("jwks", !rule.jwks.is_empty())]);
    for (key, text) in [("jwksUri", &rule.jwks_uri), ("jwks_uri", &rule.jwks_uri_old)] {
        if !text.is_empty() {
            at.key(key).check(keys_address(text));
        }
    }
    if !rule.jwks.is_empty() {
        at.key("jwks").check(key_set(&rule.jwks));
    }
    at.each("fromHeaders", &rule.from_headers, |at, header| {
        if header.name.is_empty() {
            at.missing("name is missing");
        }
    });
    at.each("outputClaimToHeaders", &rule.output_claim_to_headers, |at, output| {
        for (key, text) in [("header", &output.header), ("claim", &output.claim)] {
            if text.is_empty() {
                at.missing(format!("{key} is missing"));
            }
        }
        if !output.header.is_empty() {
            at.key("header").check(headers::plain_name(&output.header));
        }
    });
    values::check_duration(at, "timeout", rule.timeout);
}

fn keys_address(text: &str) -> Result<(), String> {
    if text.len() > 2048 {
        return Err("an address is at most 2048 characters long".into());
    }
    let url = url::parse_request(text)?;
    if !matches!(url.scheme.as_str(), "http" | "https") {
        return Err(format!("`{text}` begins with neither http:// nor https://"));
    }
    Ok(())
}

/// Keys as RFC 7517 writes them: a set of them, or one.
fn key_set(text: &str) -> Result<(), String> {
    let json: Json = serde_json::from_str(text).map_err(|error| format!("it is not JSON: {error}"))?;
    let keys = match (&json, json.get("keys")) {
        (Json::Object(_), Some(Json::Array(keys))) => keys.iter().collect(),
        (Json::Object(_), None) => vec![&json],
        _ => return Err("it is not a set of keys: `{\"keys\": […]}`".into()),
    };
    keys.into_iter().enumerate().try_for_each(|(index, key)| self::key(key).map_err(|why| format!("key {index}: {why}")))
}

fn key(key: &Json) -> Result<(), String> {
    let text = |name: &str| key.get(name).and_then(Json::as_str).filter(|text| !text.is_empty());
    let needed: &[&str] = match text("kty") {
        Some("RSA") => &["n", "e"],
        Some("EC") => &["crv", "x", "y"],
        Some("OKP") => &["crv", "x"],
        Some("oct") => &["k"],
        Some(other) => return Err(format!("`{other}` is not a kind of key")),
        None => return Err("kty is missing".into()),
    };
    for name in needed {
        let value = text(name).ok_or_else(|| format!("{name} is missing"))?;
        let fits = |byte: u8| byte.is_ascii_alphanumeric() || matches!(byte, b'-' | b'_' | b'+' | b'/' | b'=');
        if !value.bytes().all(fits) {
            return Err(format!("{name} is not base64"));
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn key_sets() {
        for (text, fits) in [
            (r#"{"keys": [{"kty": "RSA", "n": "AQAB", "e": "AQAB", "kid": "a"}]}"#, true),
            (r#"{"keys": []}"#, true),
            (r#"{"kty": "oct", "k": "AQ"}"#, true),
            (r#"{"keys": [{"kty": "RSA", "n": "AQAB"}]}"#, false),
            (r#"{"keys": [{"kty": "DSA"}]}"#, false),
            (r#"{"keys": 1}"#, false),
            ("[]", false),
            ("foo", false),
        ] {
            assert_eq!(key_set(text).is_ok(), fits, "{text}");
        }
    }
}
