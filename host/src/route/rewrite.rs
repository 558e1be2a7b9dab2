//! Rewriting of paths and hosts.
//!
//! Always: the query stays as it is, unless a regular expression is told to see the path only, which it always is. Matching is linear in the path's
//! length, whatever the pattern.

use regex::bytes::{Regex, RegexBuilder};
use weir_model::config;

use super::ActionError;

/// What a compiled pattern may occupy: a pattern of a megabyte is refused instead of compiled.
const PATTERN_BYTES: usize = 1 << 20;

/// How a path changes.
#[derive(Debug)]
pub enum PathRewrite {
    /// The whole path is replaced.
    Full(Vec<u8>),
    /// What the path begins with is replaced.
    Prefix {
        /// Plain characters, not segments.
        from: Vec<u8>,
        /// May be empty.
        to: Vec<u8>,
    },
    /// Every match is replaced.
    Regex {
        /// The pattern.
        pattern: Regex,
        /// With `$1` for groups.
        substitution: Vec<u8>,
    },
}

impl PathRewrite {
    /// Compiles a rewrite, if there is one.
    ///
    /// # Errors
    /// When a pattern does not compile or is too large.
    pub fn compile(field: &str, rewrite: Option<&config::PathRewrite>) -> Result<Option<Self>, ActionError> {
        use config::path_rewrite::Rewrite;
        Ok(match rewrite.and_then(|rewrite| rewrite.rewrite.as_ref()) {
            None => None,
            Some(Rewrite::Full(path)) => Some(Self::Full(path.clone().into_bytes())),
            Some(Rewrite::Prefix(prefix)) => {
                Some(Self::Prefix { from: prefix.from.clone().into_bytes(), to: prefix.to.clone().into_bytes() })
            }
            Some(Rewrite::Regex(regex)) => {
                let pattern = RegexBuilder::new(&regex.pattern).size_limit(PATTERN_BYTES).build();
                let pattern = pattern.map_err(|error| ActionError::new(format!("{field}.regex.pattern"), error))?;
                Some(Self::Regex { pattern, substitution: groups(&regex.substitution) })
            }
        })
    }

    /// The path after the rewrite; `None` if it stays.
    #[must_use]
    pub fn apply(&self, path: &[u8]) -> Option<Vec<u8>> {
        let end = path.iter().position(|byte| *byte == b'?').unwrap_or(path.len());
        let (path, query) = path.split_at(end);
        let mut out = match self {
            Self::Full(full) => full.clone(),
            Self::Prefix { from, to } => [to, path.strip_prefix(from.as_slice())?].concat(),
            Self::Regex { pattern, substitution } => match pattern.replace_all(path, substitution.as_slice()) {
                std::borrow::Cow::Borrowed(_) => return None,
                std::borrow::Cow::Owned(path) => path,
            },
        };
        if out.first() != Some(&b'/') {
            out.insert(0, b'/');
        }
        // What stands in a request line must stay one word, whatever a substitution says.
        out.retain(|byte| byte.is_ascii_graphic());
        out.extend_from_slice(query);
        Some(out)
    }
}

/// `\1` as `${1}`; the way RE2 writes groups.
fn groups(substitution: &str) -> Vec<u8> {
    let mut out = String::with_capacity(substitution.len() + 8);
    let mut rest = substitution.chars().peekable();
    while let Some(next) = rest.next() {
        match (next, rest.peek()) {
            ('\\', Some(digit)) if digit.is_ascii_digit() => {
                out.push_str("${");
                out.extend(rest.next());
                out.push('}');
            }
            ('\\', Some('\\')) => out.extend(rest.next()),
            _ => out.push(next),
        }
    }
    out.into_bytes()
}

/// How the authority changes.
#[derive(Debug)]
pub struct HostRewrite {
    /// To what.
    pub to: HostSource,
    /// Keep the original in `x-forwarded-host`.
    pub append_forwarded_host: bool,
}

/// Where the new authority comes from.
#[derive(Debug)]
pub enum HostSource {
    /// This one.
    Literal(Vec<u8>),
    /// The host name of the endpoint.
    Endpoint,
    /// A header of the request, if it is there.
    Header(Vec<u8>),
}

impl HostRewrite {
    /// Compiles a rewrite, if there is one.
    ///
    /// # Errors
    /// When the literal is no authority.
    pub fn compile(field: &str, rewrite: Option<&config::HostRewrite>) -> Result<Option<Self>, ActionError> {
        use config::host_rewrite::Rewrite;
        let Some(rewrite) = rewrite else { return Ok(None) };
        let to = match &rewrite.rewrite {
            None | Some(Rewrite::Endpoint(false)) => return Ok(None),
            Some(Rewrite::Endpoint(true)) => HostSource::Endpoint,
            Some(Rewrite::Header(name)) => HostSource::Header(name.to_ascii_lowercase().into_bytes()),
            Some(Rewrite::Literal(host)) => {
                if host.is_empty() || !host.bytes().all(|byte| byte.is_ascii_graphic() && !b"/?#@\\".contains(&byte)) {
                    return Err(ActionError::new(format!("{field}.literal"), format!("{host:?} is not a host")));
                }
                HostSource::Literal(host.clone().into_bytes())
            }
        };
        Ok(Some(Self { to, append_forwarded_host: rewrite.append_forwarded_host }))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn rewrite(rewrite: config::path_rewrite::Rewrite, path: &str) -> Option<String> {
        let rewrite = config::PathRewrite { rewrite: Some(rewrite) };
        let compiled = PathRewrite::compile("path", Some(&rewrite)).expect("compiles").expect("a rewrite");
        compiled.apply(path.as_bytes()).map(|path| String::from_utf8(path).expect("text"))
    }

    #[test]
    fn the_query_stays() {
        use config::path_rewrite::{Prefix, Regex, Rewrite};
        let prefix = |from: &str, to: &str| Rewrite::Prefix(Prefix { from: from.into(), to: to.into() });
        let regex = |pattern: &str, to: &str| Rewrite::Regex(Regex { pattern: pattern.into(), substitution: to.into() });
        assert_eq!(rewrite(Rewrite::Full("/new".into()), "/old/x?q=/old").as_deref(), Some("/new?q=/old"));
        assert_eq!(rewrite(prefix("/old", "/new"), "/old/x?q=1").as_deref(), Some("/new/x?q=1"));
        assert_eq!(rewrite(prefix("/old", ""), "/oldest").as_deref(), Some("/est"), "a prefix is of characters");
        assert_eq!(rewrite(prefix("/old", "/new"), "/other"), None);
        assert_eq!(rewrite(regex("^/v([0-9]+)/(.*)$", r"/\2/v\1"), "/v12/users?x=/v1/a").as_deref(), Some("/users/v12?x=/v1/a"));
        assert_eq!(rewrite(regex("(/+)", "/"), "//a///b").as_deref(), Some("/a/b"));
        assert_eq!(rewrite(regex("a", "\r\n b"), "/a").as_deref(), Some("/b"), "nothing splits the request line");
    }

    #[test]
    fn a_pattern_that_does_not_compile_is_refused() {
        let regex = |pattern: String| {
            let rewrite = config::path_rewrite::Rewrite::Regex(config::path_rewrite::Regex { pattern, substitution: String::new() });
            PathRewrite::compile("path", Some(&config::PathRewrite { rewrite: Some(rewrite) }))
        };
        assert_eq!(regex("(".into()).expect_err("unbalanced").field, "path.regex.pattern");
        assert!(regex("(a{1000}){1000}".into()).is_err(), "too large when compiled");
    }
}
