//! Names and values of headers that are looked at, set and removed.

use super::At;
use crate::api::istio::virtual_service::{HeaderOperations, Headers};

/// A name of letters, digits, `-` and `_`: all that definitions of kinds let through.
pub(super) fn plain_name(name: &str) -> Result<(), String> {
    let fits = |byte: u8| byte.is_ascii_alphanumeric() || matches!(byte, b'-' | b'_');
    match name {
        "" => Err("the name of a header must not be empty".into()),
        name if name.bytes().all(fits) => Ok(()),
        name => Err(format!("`{name}` cannot be the name of a header")),
    }
}

/// A name as HTTP has it, or one of those with a colon before it.
pub(super) fn name(name: &str) -> Result<(), String> {
    let fits = |byte: u8| byte.is_ascii_alphanumeric() || b"!#$%&'*+-.^_`|~".contains(&byte);
    match name.strip_prefix(':').unwrap_or(name) {
        "" => Err("the name of a header must not be empty".into()),
        token if token.bytes().all(fits) => Ok(()),
        _ => Err(format!("`{name}` cannot be the name of a header")),
    }
}

/// The claim of a token that a name of a header stands for: `@request.auth.claims.` and names with dots between, or names in brackets.
pub(super) fn claim(name: &str) -> Option<Vec<&str>> {
    let lower = name.to_ascii_lowercase();
    let rest = lower.strip_prefix("@request.auth.claims").map(|rest| &name[name.len() - rest.len()..])?;
    if let Some(dotted) = rest.strip_prefix('.') {
        return (!dotted.is_empty()).then(|| dotted.split('.').collect());
    }
    let inner = rest.strip_prefix('[')?.strip_suffix(']')?;
    let claims: Vec<&str> = inner.split("][").collect();
    claims.iter().all(|claim| !claim.is_empty()).then_some(claims)
}

/// A name of a header, or the claim of a token.
pub(super) fn name_or_claim(text: &str) -> Result<(), String> {
    if claim(text).is_some() { Ok(()) } else { name(text) }
}

/// Whether it is the host that a request is for.
fn is_authority(name: &str) -> bool {
    name.eq_ignore_ascii_case(":authority") || name.eq_ignore_ascii_case("host")
}

fn operated(name: &str, authority: bool) -> Result<(), String> {
    if name.is_empty() {
        return Err("the name of a header must not be empty".into());
    }
    if authority && is_authority(name) {
        return Ok(());
    }
    if name.eq_ignore_ascii_case("host") {
        return Err("the host cannot be changed here".into());
    }
    if name.starts_with(':') {
        return Err(format!("`{name}` begins with `:`, and cannot be changed"));
    }
    Ok(())
}

/// A value, in which `%NAME%` stands for something of the request and `%%` for a `%`.
pub(super) fn value(text: &str) -> Result<(), String> {
    if let Some(bad) = text.chars().find(|c| (c.is_ascii_control() && *c != '\t') || *c == '\u{7f}') {
        return Err(format!("the value of a header cannot hold {bad:?}"));
    }
    let refuse = |why: &str| Err(format!("`{text}` is not a value: {why}; write `%%` for a percent sign"));
    let (mut place, mut bytes) = (Place::Text, text.bytes().peekable());
    while let Some(byte) = bytes.next() {
        place = match (place, byte) {
            (Place::Text, b'%') => match bytes.peek() {
                None => return refuse("it ends in a `%`"),
                Some(b'%') => {
                    bytes.next();
                    Place::Text
                }
                Some(_) => Place::Name,
            },
            (Place::Name | Place::End, b'%') => Place::Text,
            (Place::Name, b'(') => Place::Arguments,
            (Place::Arguments, b'[') | (Place::Between, b',') => Place::Item,
            (Place::Item, b'"') => Place::Argument,
            (Place::Argument, b'\\') if bytes.next().is_none() => return refuse("it ends in a backslash"),
            (Place::Argument, b')') | (Place::Closing, b')') => Place::End,
            (Place::Argument, b'"') => Place::Between,
            (Place::Between, b']') => Place::Closing,
            (Place::Text | Place::Name | Place::Argument, _)
            | (Place::Arguments | Place::Between | Place::Item | Place::Closing | Place::End, b' ') => place,
            (Place::Arguments, _) => Place::Argument,
            (Place::Between | Place::Item | Place::Closing | Place::End, _) => {
                return refuse("the arguments of a `%NAME(…)%` are not a list of texts");
            }
        };
    }
    if place == Place::Text { Ok(()) } else { refuse("a `%NAME%` does not end") }
}

/// Where in a value one is.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Place {
    /// Outside of everything.
    Text,
    /// In `NAME`.
    Name,
    /// After `NAME(`.
    Arguments,
    /// In an argument, which is a text or a bare word.
    Argument,
    /// Before a text in a list.
    Item,
    /// After a text in a list.
    Between,
    /// After the list.
    Closing,
    /// After `NAME(…)`.
    End,
}

/// Changes to headers.
pub(super) fn check(at: &At<'_>, headers: Option<&Headers>) {
    let Some(headers) = headers else { return };
    let at = at.key("headers");
    at.some("request", headers.request.as_ref(), |at, operations| check_operations(at, operations, true));
    at.some("response", headers.response.as_ref(), |at, operations| check_operations(at, operations, false));
}

fn check_operations(at: &At<'_>, operations: &HeaderOperations, request: bool) {
    for (key, map) in [("set", &operations.set), ("add", &operations.add)] {
        let at = at.key(key);
        for (name, text) in map {
            at.key(name).check(operated(name, request));
            at.key(name).check(value(text));
        }
    }
    at.each("remove", &operations.remove, |at, name| at.check(operated(name, false)));
}

/// The host of a request may be changed once.
pub(super) fn check_authority(at: &At<'_>, rewrite: Option<&str>, headers: Option<&Headers>) {
    let request = headers.and_then(|headers| headers.request.as_ref());
    let changes = request.into_iter().flat_map(|request| request.set.keys().chain(request.add.keys()));
    if changes.filter(|name| is_authority(name)).count() + usize::from(rewrite.is_some_and(|text| !text.is_empty())) > 1 {
        at.conflict("the authority is changed more than once");
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn values() {
        for (text, fits) in [
            ("", true),
            ("plain\ttext", true),
            ("100%%", true),
            ("%HOSTNAME%", true),
            ("a %START_TIME(%s.%3f)% b %%", true),
            ("%DYNAMIC_METADATA(com.test.my_filter)%", true),
            ("%UPSTREAM_METADATA([\"a\", \"b\"])%", true),
            ("%UPSTREAM_METADATA([\"a\" \"b\"])%", false),
            ("abc%123", false),
            ("%START_TIME%%", false),
            ("%START_TIME(", false),
            ("%A(b)", false),
            ("%A(b\\)%", false),
            ("%A()%", false),
            ("%A( b )%", true),
            ("%A([\"a\"]) %", true),
            ("%A([\"a\"]x)%", false),
            ("%", false),
            ("a\nb", false),
        ] {
            assert_eq!(value(text).is_ok(), fits, "{text}");
        }
    }

    #[test]
    fn claims() {
        assert_eq!(claim("@request.auth.claims.a.b"), Some(vec!["a", "b"]));
        assert_eq!(claim("@request.auth.claims[a.b][c]"), Some(vec!["a.b", "c"]));
        assert_eq!(claim("@Request.Auth.Claims.A"), Some(vec!["A"]));
        for bad in ["@request.auth.claims", "@request.auth.claims.", "@request.auth.claims[]", "@request.auth.claimsx", "x-claims"] {
            assert_eq!(claim(bad), None, "{bad}");
        }
    }

    #[test]
    fn names() {
        for (name, request, response) in
            [("x-a", true, true), ("Host", true, false), (":authority", true, false), (":path", false, false), ("", false, false)]
        {
            assert_eq!((operated(name, true).is_ok(), operated(name, false).is_ok()), (request, response), "{name}");
        }
    }
}
