//! Names of artifacts: `oci://registry.example:5000/team/filter:1.2@sha256:…`.
//!
//! Always: what parses is safe to put into a path of HTTP: the grammar of the distribution specification has no character that would need escaping.

use std::fmt;
use std::str::FromStr;

use sha2::{Digest as _, Sha256};

/// A SHA-256.
#[derive(Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Digest([u8; 32]);

impl Digest {
    /// The digest of these bytes.
    #[must_use]
    pub fn of(bytes: &[u8]) -> Self {
        Self(Sha256::digest(bytes).into())
    }

    /// The 64 digits.
    #[must_use]
    pub fn hex(&self) -> String {
        self.0.iter().map(|byte| format!("{byte:02x}")).collect()
    }
}

impl fmt::Display for Digest {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "sha256:{}", self.hex())
    }
}

impl fmt::Debug for Digest {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

impl FromStr for Digest {
    type Err = BadReference;

    fn from_str(text: &str) -> Result<Self, BadReference> {
        let bad = || BadReference(format!("{text:?} is no digest of the form sha256:<64 hexadecimal digits>"));
        let hex = text.strip_prefix("sha256:").ok_or_else(bad)?;
        if hex.len() != 64 || !hex.bytes().all(|digit| digit.is_ascii_digit() || (b'a'..=b'f').contains(&digit)) {
            return Err(bad());
        }
        let mut bytes = [0; 32];
        for (byte, digits) in bytes.iter_mut().zip(hex.as_bytes().chunks_exact(2)) {
            let digits = std::str::from_utf8(digits).map_err(|_| bad())?;
            *byte = u8::from_str_radix(digits, 16).map_err(|_| bad())?;
        }
        Ok(Self(bytes))
    }
}

/// A text that names no artifact, and why.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{0}")]
pub struct BadReference(String);

/// Where an artifact is: the registry, the repository in it, and a tag, a digest, or both; then the digest counts.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Reference {
    /// Host, and port where it is not the usual one.
    pub registry: String,
    /// The repository.
    pub repository: String,
    /// The tag: `latest` where there is neither tag nor digest.
    pub tag: Option<String>,
    /// The digest of the manifest, when it is pinned.
    pub digest: Option<Digest>,
}

impl Reference {
    /// What a manifest is asked for by: the digest if there is one.
    pub(crate) fn selector(&self) -> String {
        match (&self.digest, &self.tag) {
            (Some(digest), _) => digest.to_string(),
            (None, Some(tag)) => tag.clone(),
            (None, None) => "latest".to_owned(),
        }
    }

    /// The same artifact by this digest, whatever the tag means later.
    #[must_use]
    pub fn pinned(&self, digest: Digest) -> Self {
        Self { digest: Some(digest), ..self.clone() }
    }

    /// The tag under which cosign keeps signatures of a manifest.
    pub(crate) fn signatures(&self, digest: Digest) -> Self {
        Self { tag: Some(format!("sha256-{}.sig", digest.hex())), digest: None, ..self.clone() }
    }

    /// Registry and repository, as signatures name them.
    pub(crate) fn name(&self) -> String {
        format!("{}/{}", self.registry, self.repository)
    }

    /// The host alone.
    pub(crate) fn host(&self) -> &str {
        host_of(&self.registry)
    }
}

/// The host of `host:port`, without the brackets of an IPv6 address.
pub(crate) fn host_of(authority: &str) -> &str {
    if let Some(rest) = authority.strip_prefix('[') {
        return rest.split(']').next().unwrap_or(rest);
    }
    authority.split(':').next().unwrap_or(authority)
}

impl fmt::Display for Reference {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}", self.name())?;
        if let Some(tag) = &self.tag {
            write!(f, ":{tag}")?;
        }
        self.digest.as_ref().map_or(Ok(()), |digest| write!(f, "@{digest}"))
    }
}

impl FromStr for Reference {
    type Err = BadReference;

    fn from_str(text: &str) -> Result<Self, BadReference> {
        const FORM: &str = "oci://REGISTRY/REPOSITORY[:TAG][@sha256:DIGEST]";
        let bad = |why: &str| BadReference(format!("{text:?} names no artifact: {why} (the form is {FORM})"));
        let rest = text.strip_prefix("oci://").unwrap_or(text);
        let (rest, digest) = match rest.split_once('@') {
            Some((rest, digest)) => (rest, Some(digest.parse()?)),
            None => (rest, None),
        };
        let (registry, path) = rest.split_once('/').ok_or_else(|| bad("it has no `/` after the registry"))?;
        let (repository, tag) = match path.rsplit_once(':') {
            Some((repository, tag)) => (repository, Some(tag)),
            None => (path, None),
        };
        if !is_registry(registry) {
            return Err(bad("the registry is no host, or has a port that is none"));
        }
        if repository.len() > 255 || !repository.split('/').all(is_component) {
            return Err(bad("a repository is lower-case letters, digits, `.`, `_`, `-` and `/`"));
        }
        if tag.is_some_and(|tag| !is_tag(tag)) {
            return Err(bad("a tag is up to 128 letters, digits, `.`, `_` and `-`"));
        }
        let tag = tag.map(str::to_owned).or_else(|| digest.is_none().then(|| "latest".to_owned()));
        Ok(Self { registry: registry.to_ascii_lowercase(), repository: repository.to_owned(), tag, digest })
    }
}

fn is_registry(text: &str) -> bool {
    let (host, port) = match text.strip_prefix('[') {
        Some(rest) => match rest.split_once(']') {
            Some((host, "")) => (host, None),
            Some((host, port)) => (host, port.strip_prefix(':').or(Some("bad"))),
            None => return false,
        },
        None => match text.split_once(':') {
            Some((host, port)) => (host, Some(port)),
            None => (text, None),
        },
    };
    let host_fits = match text.starts_with('[') {
        true => host.parse::<std::net::Ipv6Addr>().is_ok(),
        false => {
            let label = |label: &str| {
                !label.is_empty() && label.len() < 64 && label.bytes().all(|byte| byte.is_ascii_alphanumeric() || byte == b'-')
            };
            host.len() < 254 && host.split('.').all(label)
        }
    };
    host_fits && port.is_none_or(|port| port.parse::<u16>().is_ok_and(|port| port != 0))
}

/// One part of a repository's path.
fn is_component(text: &str) -> bool {
    let plain = |byte: u8| byte.is_ascii_lowercase() || byte.is_ascii_digit();
    let bytes = text.as_bytes();
    bytes.first().copied().is_some_and(plain)
        && bytes.last().copied().is_some_and(plain)
        && bytes.iter().all(|byte| plain(*byte) || b"._-".contains(byte))
        && !text.contains("..")
}

fn is_tag(text: &str) -> bool {
    let word = |byte: u8| byte.is_ascii_alphanumeric() || byte == b'_';
    text.len() <= 128 && text.bytes().next().is_some_and(word) && text.bytes().all(|byte| word(byte) || byte == b'.' || byte == b'-')
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, reason = "a test that cannot go on should stop")]

    use super::*;

    #[test]
    fn references_are_read_and_written() {
        let digest = Digest::of(b"x").to_string();
        for (text, registry, repository, tag, pinned) in [
            ("oci://r.example/a/b:1.2", "r.example", "a/b", Some("1.2"), false),
            ("R.example:5000/a", "r.example:5000", "a", Some("latest"), false),
            ("oci://[::1]:5000/a_b-c.d:v", "[::1]:5000", "a_b-c.d", Some("v"), false),
            (&format!("oci://127.0.0.1:5000/a@{digest}"), "127.0.0.1:5000", "a", None, true),
            (&format!("oci://r.example/a:t@{digest}"), "r.example", "a", Some("t"), true),
        ] {
            let read: Reference = text.parse().unwrap();
            assert_eq!((read.registry.as_str(), read.repository.as_str(), read.tag.as_deref()), (registry, repository, tag), "{text}");
            assert_eq!(read.digest.is_some(), pinned);
            assert_eq!(read.to_string().parse::<Reference>().unwrap(), read);
        }
    }

    #[test]
    fn what_could_leave_its_place_in_a_path_is_no_reference() {
        for text in [
            "",
            "a",
            "oci://",
            "oci:///a",
            "r.example/",
            "r.example/A",
            "r.example/a/../b",
            "r.example/a//b",
            "r.example/a?x=1",
            "r.example/a:t/../x",
            "r.example/a b",
            "r.example:0/a",
            "r.example:99999/a",
            "r.example:/a",
            "user@r.example/a",
            "r.example/a:",
            "r.example/a@sha256:00",
            "r.example/a@sha512:00",
            "[::1/a",
            "[zz]/a",
            "r..example/a",
            "r.example/a#b",
            "r.example/.a",
        ] {
            assert!(text.parse::<Reference>().is_err(), "{text} is taken");
        }
    }

    #[test]
    fn a_digest_is_lower_case_and_whole() {
        let digest = Digest::of(b"");
        assert_eq!(digest.to_string(), "sha256:e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855");
        assert_eq!(digest.to_string().parse::<Digest>().unwrap(), digest);
        assert!(digest.to_string().to_uppercase().parse::<Digest>().is_err());
    }
}
