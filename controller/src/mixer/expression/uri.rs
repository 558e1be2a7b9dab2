//! URIs: what is one, and which are the same.

use super::{Error, names};

/// The parts of a URI, as they were written.
pub(super) struct Uri<'a> {
    /// In lower case; empty for a relative one.
    scheme: String,
    user: Option<&'a str>,
    authority: Option<&'a str>,
    path: &'a str,
    query: Option<&'a str>,
    fragment: &'a str,
}

/// The parts of a URI.
pub(super) fn read(text: &str) -> Result<Uri<'_>, Error> {
    if text.is_empty() {
        return Err(Error::new("error converting string to uri: empty string"));
    }
    parts(text).map_err(|cause| Error::new(format!("error converting string to uri '{text}': 'parse {text}: {cause}'")))
}

/// Whether two URIs are one: case means nothing in schemes, and hosts of `http` and `https` are compared as DNS names.
pub(super) fn same<'a>(left: &'a str, right: &'a str) -> Result<bool, Error> {
    let either = |text: &'a str| if text.is_empty() { Ok(None) } else { read(text).map(Some) };
    let (Some(left), Some(right)) = (either(left)?, either(right)?) else { return Ok(left == right) };
    if left.scheme != right.scheme {
        return Ok(false);
    }
    if matches!(&*left.scheme, "http" | "https") {
        let ((left_host, left_port), (right_host, right_port)) = (host_and_port(left.authority), host_and_port(right.authority));
        if !names::same_dns(left_host, right_host)? || left_port != right_port {
            return Ok(false);
        }
    } else if left.authority != right.authority {
        return Ok(false);
    }
    Ok((left.user, left.path, left.query, left.fragment) == (right.user, right.path, right.query, right.fragment))
}

fn parts(text: &str) -> Result<Uri<'_>, String> {
    if text.bytes().any(|byte| byte < b' ' || byte == 0x7f) {
        return Err("net/url: invalid control character in URL".into());
    }
    let (text, fragment) = text.split_once('#').unwrap_or((text, ""));
    let (scheme, rest) = scheme(text)?;
    let (rest, query) = rest.split_once('?').map_or((rest, None), |(rest, query)| (rest, Some(query)));
    let opaque = !scheme.is_empty() && !rest.starts_with('/');
    if scheme.is_empty() && rest.split('/').next().is_some_and(|first| first.contains(':')) {
        return Err("first path segment in URL cannot contain colon".into());
    }
    let (authority, path) = match rest.strip_prefix("//") {
        // Three slashes without a scheme are a path.
        Some(rest) if !scheme.is_empty() || !rest.starts_with('/') => {
            let (authority, path) = rest.split_at(rest.find('/').unwrap_or(rest.len()));
            (Some(authority), path)
        }
        _ => (None, rest),
    };
    let (user, authority) = match authority.and_then(|authority| authority.rsplit_once('@')) {
        Some((user, host)) => (Some(user), Some(host)),
        None => (None, authority),
    };
    check_user(user.unwrap_or_default())?;
    check_host(authority.unwrap_or_default())?;
    if !opaque {
        check_escapes(path)?;
    }
    check_escapes(fragment)?;
    Ok(Uri { scheme, user, authority, path, query, fragment })
}

fn scheme(text: &str) -> Result<(String, &str), String> {
    for (at, byte) in text.bytes().enumerate() {
        match byte {
            b'a'..=b'z' | b'A'..=b'Z' => {}
            b'0'..=b'9' | b'+' | b'-' | b'.' if at > 0 => {}
            b':' if at == 0 => return Err("missing protocol scheme".into()),
            b':' => return Ok((text[..at].to_ascii_lowercase(), &text[at + 1..])),
            _ => break,
        }
    }
    Ok((String::new(), text))
}

fn check_user(user: &str) -> Result<(), String> {
    let allowed = |byte: u8| byte.is_ascii_alphanumeric() || b"-._:~!$&'()*+,;=%@".contains(&byte);
    if user.bytes().all(allowed) { check_escapes(user) } else { Err("net/url: invalid userinfo".into()) }
}

fn check_host(host: &str) -> Result<(), String> {
    let port = if host.starts_with('[') {
        let end = host.rfind(']').ok_or("missing ']' in host")?;
        &host[end + 1..]
    } else {
        check_escapes(host)?;
        if let Some(wrong) = host.bytes().find(|byte| b" \\^`{}|".contains(byte)) {
            return Err(format!("invalid character {:?} in host name", char::from(wrong)));
        }
        host.find(':').map_or("", |at| &host[at..])
    };
    match port.strip_prefix(':') {
        _ if port.is_empty() => Ok(()),
        Some(digits) if digits.bytes().all(|byte| byte.is_ascii_digit()) => Ok(()),
        _ => Err(format!("invalid port {port:?} after host")),
    }
}

fn check_escapes(text: &str) -> Result<(), String> {
    let bytes = text.as_bytes();
    for (at, _) in bytes.iter().enumerate().filter(|(_, byte)| **byte == b'%') {
        let is_escape = bytes.get(at + 1..at + 3).is_some_and(|digits| digits.iter().all(u8::is_ascii_hexdigit));
        if !is_escape {
            return Err(format!("invalid URL escape in {text:?}"));
        }
    }
    Ok(())
}

fn host_and_port(authority: Option<&str>) -> (&str, &str) {
    let authority = authority.unwrap_or_default();
    let name_ends = authority.rfind(']').unwrap_or_default();
    match authority[name_ends..].rfind(':') {
        Some(at) => (authority[..name_ends + at].trim_matches(['[', ']']), &authority[name_ends + at + 1..]),
        None => (authority.trim_matches(['[', ']']), ""),
    }
}
