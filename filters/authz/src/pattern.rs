//! How Istio compares texts: exact, `prefix*`, `*suffix`, `*`, path templates, and the parts of an identity.
//!
//! What always holds: what is absent matches nothing here; comparing takes time linear in the text for every pattern but a namespace's, which are short.

use weir_filter_matching::Template;
use weir_sdk::Refusal;

/// A text with a star at one end, or none.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Pattern {
    /// `*`: any text but the empty one.
    Any,
    Exact(Box<[u8]>),
    Prefix(Box<[u8]>),
    Suffix(Box<[u8]>),
}

impl Pattern {
    pub(crate) fn new(text: &str) -> Self {
        Self::with_prefix(text, "")
    }

    /// The same of a text that has `prefix` in front.
    pub(crate) fn with_prefix(text: &str, prefix: &str) -> Self {
        let bytes = |text: &str| [prefix.as_bytes(), text.as_bytes()].concat().into_boxed_slice();
        match (text, text.strip_prefix('*'), text.strip_suffix('*')) {
            ("*", ..) => Self::Any,
            (_, Some(end), _) => Self::Suffix(end.as_bytes().into()),
            (_, _, Some(start)) => Self::Prefix(bytes(start)),
            _ => Self::Exact(bytes(text)),
        }
    }

    pub(crate) fn matches(&self, text: &[u8]) -> bool {
        match self {
            Self::Any => !text.is_empty(),
            Self::Exact(exact) => **exact == *text,
            Self::Prefix(prefix) => text.starts_with(prefix),
            Self::Suffix(suffix) => text.ends_with(suffix),
        }
    }

    /// Without regard to the case of ASCII letters.
    pub(crate) fn matches_ignoring_case(&self, text: &[u8]) -> bool {
        match self {
            Self::Any => !text.is_empty(),
            Self::Exact(exact) => text.eq_ignore_ascii_case(exact),
            Self::Prefix(prefix) => text.get(..prefix.len()).is_some_and(|start| start.eq_ignore_ascii_case(prefix)),
            Self::Suffix(suffix) => {
                text.len().checked_sub(suffix.len()).and_then(|at| text.get(at..)).is_some_and(|end| end.eq_ignore_ascii_case(suffix))
            }
        }
    }
}

/// A pattern for paths: one with a star, or a template.
#[derive(Debug, Clone)]
pub(crate) enum PathPattern {
    Text(Pattern),
    Template(Template),
}

impl PathPattern {
    pub(crate) fn new(text: &str) -> Result<Self, Refusal> {
        match text.contains("{*}") || text.contains("{**}") {
            true => Template::parse(text).map(Self::Template).map_err(Refusal::new),
            false => Ok(Self::Text(Pattern::new(text))),
        }
    }

    pub(crate) fn matches(&self, path: &[u8]) -> bool {
        match self {
            Self::Text(pattern) => pattern.matches(path),
            Self::Template(template) => template.matches(path),
        }
    }
}

/// Whether a text is of a pattern in which each star stands for anything.
pub(crate) fn is_of_glob(glob: &[u8], text: &[u8]) -> bool {
    let mut parts = glob.split(|byte| *byte == b'*');
    let Some(mut rest) = parts.next().and_then(|first| text.strip_prefix(first)) else { return false };
    let mut parts = parts.peekable();
    if parts.peek().is_none() {
        return rest.is_empty();
    }
    while let Some(part) = parts.next() {
        if parts.peek().is_none() {
            return rest.ends_with(part);
        }
        let Some(at) = (0..=rest.len()).find(|at| rest[*at..].starts_with(part)) else { return false };
        rest = &rest[at + part.len()..];
    }
    true
}

/// A service account: its namespace and name.
#[derive(Debug, Clone)]
pub(crate) struct Account {
    namespace: Box<[u8]>,
    name: Box<[u8]>,
}

impl Account {
    pub(crate) fn new(text: &str, own_namespace: &str) -> Result<Self, Refusal> {
        let (namespace, name) = text.split_once('/').unwrap_or((own_namespace, text));
        if name.is_empty() || namespace.is_empty() || name.contains('/') || text.contains('*') {
            return Err(Refusal::new(format!("{text:?} is neither NAMESPACE/NAME nor a NAME in the policy's namespace")));
        }
        Ok(Self { namespace: namespace.as_bytes().into(), name: name.as_bytes().into() })
    }

    /// Whether an identity is of this account: `spiffe://DOMAIN/ns/NAMESPACE/sa/NAME`, with further pairs anywhere between.
    pub(crate) fn is_of(&self, identity: &[u8]) -> bool {
        let Some(rest) = identity.strip_prefix(b"spiffe://") else { return false };
        let mut segments = rest.split(|byte| *byte == b'/');
        if segments.next().is_none_or(<[u8]>::is_empty) {
            return false;
        }
        let segments: Vec<&[u8]> = segments.collect();
        let pair = |from: usize, key: &[u8], value: &[u8]| {
            segments.windows(2).enumerate().skip(from).find(|(_, two)| *two == [key, value]).map(|(at, _)| at + 2)
        };
        pair(0, b"ns", &self.namespace).and_then(|after| pair(after, b"sa", &self.name)).is_some()
    }
}

/// The namespace of an identity matches: Istio's `.*/ns/NAMESPACE/.*`.
pub(crate) fn is_of_namespace(glob: &[u8], identity: &[u8]) -> bool {
    is_of_glob(&[b"*/ns/", glob, b"/*"].concat(), identity)
}

/// The trust domain of an identity.
pub(crate) fn trust_domain(identity: &[u8]) -> Option<&[u8]> {
    identity.strip_prefix(b"spiffe://")?.split(|byte| *byte == b'/').next()
}

/// Issuer and subject of a token.
#[derive(Debug, Clone)]
pub(crate) struct TokenIdentity {
    issuer: Pattern,
    subject: Pattern,
}

impl TokenIdentity {
    /// Splits at the last slash, because issuers are addresses.
    pub(crate) fn new(text: &str) -> Self {
        let exact = |text: &str| Pattern::Exact(text.as_bytes().into());
        let (issuer, subject) = match (text, text.rsplit_once('/')) {
            ("*", _) => (Pattern::Any, Pattern::Any),
            (_, Some((issuer, subject))) if text.starts_with('*') => (Pattern::new(issuer), exact(subject)),
            (_, None) if text.starts_with('*') => (Pattern::Any, Pattern::new(text)),
            (_, Some((issuer, subject))) if text.ends_with('*') => (exact(issuer), Pattern::new(subject)),
            (_, None) if text.ends_with('*') => (Pattern::new(text), Pattern::Any),
            (_, Some((issuer, subject))) => (exact(issuer), exact(subject)),
            (_, None) => (exact(text), exact("")),
        };
        Self { issuer, subject }
    }

    pub(crate) fn is(&self, issuer: &[u8], subject: &[u8]) -> bool {
        self.issuer.matches(issuer) && self.subject.matches(subject)
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, reason = "a test that cannot go on should stop")]

    use super::*;

    #[test]
    fn stars_stand_at_the_ends() {
        for (pattern, yes, no) in [
            ("a", vec!["a"], vec!["", "ab", "A"]),
            ("a*", vec!["a", "ab"], vec!["", "ba"]),
            ("*a", vec!["a", "ba"], vec!["", "ab"]),
            ("*", vec!["a", "*"], vec![""]),
            ("a*b", vec!["a*b"], vec!["ab", "axb"]),
            ("*a*", vec!["a*", "xa*"], vec!["a", "xax"]),
        ] {
            yes.iter().for_each(|text| assert!(Pattern::new(pattern).matches(text.as_bytes()), "{pattern} {text}"));
            no.iter().for_each(|text| assert!(!Pattern::new(pattern).matches(text.as_bytes()), "{pattern} {text}"));
        }
        assert!(Pattern::new("*.Example.com").matches_ignoring_case(b"a.EXAMPLE.com"));
        assert!(!Pattern::new("example.com").matches_ignoring_case(b"example.com.evil"));
    }

    #[test]
    fn templates_match_segments() {
        for (template, yes, no) in [
            ("/a/{*}/c", vec!["/a/b/c"], vec!["/a//c", "/a/b/c/", "/a/b/x/c", "/a/c", "/x/b/c"]),
            ("/a/{**}", vec!["/a/", "/a/b", "/a/b/c"], vec!["/a", "/b/c", "/"]),
            ("/{**}/z", vec!["/a/z", "/a/b/z", "//z"], vec!["/z", "/a/z/", "/a"]),
            ("/{*}", vec!["/a"], vec!["/", "/a/b"]),
            ("/a/{*}/{**}", vec!["/a/b/", "/a/b/c/d"], vec!["/a/b", "/a//c"]),
            ("/a/{**}/b/c", vec!["/a/x/b/c", "/a/x/y/b/c"], vec!["/a/b/c", "/a/x/b"]),
        ] {
            let pattern = PathPattern::new(template).unwrap();
            yes.iter().for_each(|path| assert!(pattern.matches(path.as_bytes()), "{template} {path}"));
            no.iter().for_each(|path| assert!(!pattern.matches(path.as_bytes()), "{template} {path}"));
        }
        for wrong in ["a/{*}", "/a{*}", "/{**}/{*}", "/{**}/{**}", "/{*}x", "/{*}/x*"] {
            assert!(PathPattern::new(wrong).is_err(), "{wrong}");
        }
    }

    #[test]
    fn identities_are_taken_apart() {
        let identity = b"spiffe://cluster.local/ns/shop/sa/web";
        for (glob, is) in
            [("shop", true), ("sh*", true), ("*op", true), ("*", true), ("s*p", true), ("sho", false), ("hop", false), ("shop/web", false)]
        {
            assert_eq!(is_of_namespace(glob.as_bytes(), identity), is, "{glob}");
        }
        for (account, own, is) in
            [("web", "shop", true), ("shop/web", "x", true), ("web", "x", false), ("shop/we", "shop", false), ("x/web", "shop", false)]
        {
            assert_eq!(Account::new(account, own).unwrap().is_of(identity), is, "{account} {own}");
        }
        assert!(!Account::new("web", "shop").unwrap().is_of(b"spiffe://cluster.local/ns/shop/sa/web-evil"));
        assert!(!Account::new("web", "shop").unwrap().is_of(b"spiffe:///ns/shop/sa/web"));
        assert!(Account::new("web", "shop").unwrap().is_of(b"spiffe://d/ns/shop/x/y/sa/web/z"));
        assert!(Account::new("*", "shop").is_err() && Account::new("web", "").is_err() && Account::new("a/b/c", "").is_err());
        assert_eq!(trust_domain(identity), Some(&b"cluster.local"[..]));
    }

    #[test]
    fn a_slash_of_a_subject_does_not_make_another_issuer() {
        for (text, issuer, subject, is) in [
            ("https://a/b", "https://a", "b", true),
            ("https://a/b/c", "https://a", "b/c", false),
            ("https://a/b/c", "https://a/b", "c", true),
            ("*", "i", "s", true),
            ("*", "i", "", false),
            ("i/*", "i", "s", true),
            ("i/*", "j", "s", false),
            ("*/s", "i", "s", true),
            ("*.com/s", "x.com", "s", true),
            ("*s", "i", "xs", true),
            ("i*", "ix", "s", true),
            ("i/s*", "i", "st", true),
        ] {
            assert_eq!(TokenIdentity::new(text).is(issuer.as_bytes(), subject.as_bytes()), is, "{text} {issuer} {subject}");
        }
    }
}
