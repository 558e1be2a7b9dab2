//! Addresses of things: what a URL may look like, as Go reads it, which Istio asks.

/// The parts that are looked at.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Url<'a> {
    /// In lower case; empty if there is none.
    pub(super) scheme: String,
    /// Without the port.
    pub(super) host: &'a str,
}

/// Reads it.
pub(super) fn parse(text: &str) -> Result<Url<'_>, String> {
    let refuse = |why: &str| format!("`{text}` is not a URL: {why}");
    if text.bytes().any(|byte| byte.is_ascii_control()) {
        return Err(refuse("it holds a control character"));
    }
    let without_fragment = text.split_once('#').map_or(text, |(before, _)| before);
    let (scheme, rest) = match without_fragment.find(|c: char| !c.is_ascii_alphanumeric() && !matches!(c, '+' | '-' | '.')) {
        Some(0) if without_fragment.starts_with(':') => return Err(refuse("there is nothing before the colon")),
        Some(at) if without_fragment.as_bytes()[at] == b':' && without_fragment.as_bytes()[0].is_ascii_alphabetic() => {
            (&without_fragment[..at], &without_fragment[at + 1..])
        }
        _ => ("", without_fragment),
    };
    let rest = rest.split_once('?').map_or(rest, |(before, _)| before);
    let authority = rest.strip_prefix("//");
    if scheme.is_empty() && authority.is_none() && rest.split('/').next().is_some_and(|first| first.contains(':')) {
        return Err(refuse("there is a colon in the first part of the path"));
    }
    let (authority, path) = match authority {
        Some(after) => after.find('/').map_or((after, ""), |at| after.split_at(at)),
        None => ("", rest),
    };
    percent(path).map_err(|why| refuse(&why))?;
    let host = authority.rsplit_once('@').map_or(authority, |(_, host)| host);
    let host = split_port(host).map_err(|why| refuse(&why))?;
    if let Some(bad) = host.chars().find(|c| matches!(c, ' ' | '<' | '>' | '"' | '\\' | '^' | '`' | '{' | '}' | '|')) {
        return Err(refuse(&format!("the host holds {bad:?}")));
    }
    Ok(Url { scheme: scheme.to_ascii_lowercase(), host })
}

/// Reads one that has a scheme, or is a path from the root: what a request may be for.
pub(super) fn parse_request(text: &str) -> Result<Url<'_>, String> {
    let url = parse(text)?;
    if url.scheme.is_empty() && !text.starts_with('/') {
        return Err(format!("`{text}` is not a URL: it has neither a scheme nor a path from the root"));
    }
    Ok(url)
}

fn split_port(authority: &str) -> Result<&str, String> {
    let (host, port) = if authority.starts_with('[') {
        let end = authority.find(']').ok_or("there is no `]`")?;
        (&authority[..=end], &authority[end + 1..])
    } else {
        authority.find(':').map_or((authority, ""), |at| authority.split_at(at))
    };
    match port.strip_prefix(':') {
        None if port.is_empty() => Ok(host),
        Some(number) if number.bytes().all(|byte| byte.is_ascii_digit()) => Ok(host),
        _ => Err(format!("`{port}` is not a port")),
    }
}

fn percent(path: &str) -> Result<(), String> {
    let mut rest = path;
    while let Some(at) = rest.find('%') {
        let code = rest.as_bytes().get(at + 1..at + 3);
        if !code.is_some_and(|code| code.iter().all(u8::is_ascii_hexdigit)) {
            return Err("a `%` without two digits".into());
        }
        rest = &rest[at + 3..];
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn urls() {
        for (text, expect) in [
            ("https://a.b:443/c?d=%zz#e", Some(("https", "a.b"))),
            ("oci://registry:5000/a:latest", Some(("oci", "registry"))),
            ("file:///opt/x.wasm", Some(("file", ""))),
            ("HTTP://u:p@[::1]:80", Some(("http", "[::1]"))),
            ("/path", Some(("", ""))),
            ("registry/a", Some(("", ""))),
            ("https://foo.com:not-a-number", None),
            ("{{< file >}}/x.json", Some(("", ""))),
            ("registry:5000/a", Some(("registry", ""))),
            ("10.0.0.1:5000/a", None),
            (":x", None),
            ("http://a b/", None),
            ("http://a/%2", None),
            ("http://a/\n", None),
        ] {
            let url = parse(text);
            assert_eq!(url.as_ref().ok().map(|url| (url.scheme.as_str(), url.host)), expect, "{text}");
        }
        assert!(parse_request("registry/a").is_err() && parse_request("/a").is_ok() && parse_request("http://a").is_ok());
    }
}
