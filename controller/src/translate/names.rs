//! Names of hosts: how short ones are completed, and which a pattern covers.

use std::net::IpAddr;

/// A host as a resource of `namespace` means it. A name with a dot, a wildcard or an address is taken as it is: `reviews.prod` is not completed.
#[must_use]
pub fn complete(host: &str, namespace: &str, domain: &str) -> String {
    let whole = host.contains(['.', '*']) || host.is_empty() || host.parse::<IpAddr>().is_ok();
    if whole { host.to_owned() } else { format!("{host}.{namespace}.svc.{domain}") }
}

/// Whether `pattern` covers all hosts that `host` is or covers. `*.a` does not cover `a`.
#[must_use]
pub fn covers(pattern: &str, host: &str) -> bool {
    match pattern.strip_prefix('*') {
        None => pattern.eq_ignore_ascii_case(host),
        Some(end) => {
            let (rest, least) = match host.strip_prefix('*') {
                Some(rest) => (rest, end.len()),
                // The wildcard stands for something.
                None => (host, end.len() + usize::from(!end.is_empty())),
            };
            rest.len() >= least && rest.get(rest.len() - end.len()..).is_some_and(|tail| tail.eq_ignore_ascii_case(end))
        }
    }
}

/// What two patterns have in common: the narrower of them, if one covers the other.
#[must_use]
pub fn common<'a>(one: &'a str, other: &'a str) -> Option<&'a str> {
    if covers(one, other) {
        Some(other)
    } else if covers(other, one) {
        Some(one)
    } else {
        None
    }
}

/// The order in which patterns are asked about a host: exact names, then longer wildcards before shorter ones.
#[must_use]
pub fn specificity(pattern: &str) -> (bool, usize) {
    (!pattern.starts_with('*'), pattern.len())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn short_names_are_completed_and_nothing_else() {
        let of = |host: &str| complete(host, "n", "cluster.local");
        assert_eq!(of("reviews"), "reviews.n.svc.cluster.local");
        for host in ["reviews.prod", "*", "*.com", "10.0.0.1", "::1"] {
            assert_eq!(of(host), host);
        }
    }

    #[test]
    fn wildcards_cover_what_is_below_them() {
        for (pattern, host, expected) in [
            ("a.b", "A.b", true),
            ("*.b", "a.b", true),
            ("*.b", "b", false),
            ("*.b", ".b", false),
            ("*.b", "*.a.b", true),
            ("*.a.b", "*.b", false),
            ("*", "anything", true),
            ("*", "*", true),
            ("*", "*.b", true),
            ("a.b", "*.b", false),
            ("*.b", "*.b", true),
            ("*", "", true),
        ] {
            assert_eq!(covers(pattern, host), expected, "{pattern} {host}");
        }
        assert_eq!(common("*.b", "a.b"), Some("a.b"));
        assert_eq!(common("a.b", "*"), Some("a.b"));
        assert_eq!(common("a.b", "c.b"), None);
    }
}
