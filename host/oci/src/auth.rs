//! Who the caller is to a registry: what `docker login` and its like left in files, and the tokens that registries hand out for it.
//!
//! Always: credentials are for the host they are written under; a challenge is parsed with bounds. What it does not do: run the programs
//! (`docker-credential-…`) that some machines keep passwords in.

use std::path::{Path, PathBuf};

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use serde_json::Value;

use crate::error::Error;

/// Most that a file of credentials takes.
const MOST: u64 = 1 << 20;

/// A name and a password.
#[derive(Clone, PartialEq, Eq)]
pub(crate) struct Login {
    pub(crate) user: String,
    pub(crate) password: String,
}

impl std::fmt::Debug for Login {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "Login({}, …)", self.user)
    }
}

impl Login {
    /// The value of `Authorization`.
    pub(crate) fn basic(&self) -> String {
        format!("Basic {}", STANDARD.encode(format!("{}:{}", self.user, self.password)))
    }
}

/// Files that may have credentials; the first that has some for a registry counts.
#[derive(Clone, Debug, Default)]
pub struct Credentials {
    files: Vec<PathBuf>,
}

impl Credentials {
    /// Where docker, podman and skopeo keep theirs: `$REGISTRY_AUTH_FILE`, `$DOCKER_CONFIG/config.json`, `~/.docker/config.json`,
    /// `$XDG_RUNTIME_DIR/containers/auth.json`.
    #[must_use]
    pub fn of_this_user() -> Self {
        let of = |name: &str, below: &str| std::env::var_os(name).map(|value| PathBuf::from(value).join(below));
        let file = std::env::var_os("REGISTRY_AUTH_FILE").map(PathBuf::from);
        let docker = of("DOCKER_CONFIG", "config.json").or_else(|| of("HOME", ".docker/config.json"));
        Self { files: [file, docker, of("XDG_RUNTIME_DIR", "containers/auth.json")].into_iter().flatten().collect() }
    }

    /// From this file only.
    #[must_use]
    pub fn from_file(file: impl Into<PathBuf>) -> Self {
        Self { files: vec![file.into()] }
    }

    /// The login for a registry, and what stood in the way of one.
    pub(crate) fn login(&self, registry: &str) -> Result<(Option<Login>, Option<String>), Error> {
        let mut hint = None;
        for file in &self.files {
            let Some(text) = read(file)? else { continue };
            let bad = |cause: String| Error::File { file: file.display().to_string(), cause };
            let config: Value = serde_json::from_slice(&text).map_err(|error| bad(format!("is no JSON: {error}")))?;
            let keys =
                [registry.to_owned(), format!("https://{registry}"), format!("https://{registry}/v1/"), format!("https://{registry}/v2/")];
            let entry = keys.iter().find_map(|key| config["auths"].get(key));
            if let Some(entry) = entry
                && let Some(login) = of_entry(entry).map_err(|why| bad(format!("auths[{registry:?}]: {why}")))?
            {
                return Ok((Some(login), None));
            }
            let helper = config["credHelpers"].get(registry).or_else(|| config.get("credsStore")).and_then(Value::as_str);
            if let Some(helper) = helper {
                let file = file.display();
                hint = Some(format!("{file} keeps credentials in the program docker-credential-{helper}, which is not run from here"));
            }
        }
        Ok((None, hint))
    }
}

fn read(file: &Path) -> Result<Option<Vec<u8>>, Error> {
    use std::io::Read as _;
    let bad = |error: std::io::Error| Error::File { file: file.display().to_string(), cause: error.to_string() };
    let opened = match std::fs::File::open(file) {
        Ok(opened) => opened,
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => return Ok(None),
        Err(error) => return Err(bad(error)),
    };
    let mut text = Vec::new();
    opened.take(MOST).read_to_end(&mut text).map_err(bad)?;
    Ok(Some(text))
}

fn of_entry(entry: &Value) -> Result<Option<Login>, &'static str> {
    let text = |key: &str| entry.get(key).and_then(Value::as_str).filter(|text| !text.is_empty());
    if let Some(auth) = text("auth") {
        let decoded = STANDARD.decode(auth).ok().and_then(|bytes| String::from_utf8(bytes).ok()).ok_or("auth is no base64 of a text")?;
        let (user, password) = decoded.split_once(':').ok_or("auth is not of the form user:password")?;
        return Ok(Some(Login { user: user.to_owned(), password: password.to_owned() }));
    }
    match (text("username"), text("password")) {
        (Some(user), Some(password)) => Ok(Some(Login { user: user.to_owned(), password: password.to_owned() })),
        _ if text("identitytoken").is_some() => Err("an identitytoken is not understood; log in with a password or an access token"),
        _ => Ok(None),
    }
}

/// What a registry wants before it answers.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Challenge {
    /// Name and password with every request.
    Basic,
    /// A token from somewhere else.
    Bearer { realm: String, service: Option<String>, scope: Option<String> },
}

impl Challenge {
    /// What `WWW-Authenticate` says, if it is one of the two.
    pub(crate) fn parse(header: &str) -> Option<Self> {
        let (scheme, rest) = header.trim().split_once(' ').unwrap_or((header.trim(), ""));
        if scheme.eq_ignore_ascii_case("basic") {
            return Some(Self::Basic);
        }
        if !scheme.eq_ignore_ascii_case("bearer") {
            return None;
        }
        let get = |name: &str| parameter(rest, name);
        Some(Self::Bearer { realm: get("realm")?, service: get("service"), scope: get("scope") })
    }
}

/// A parameter of a challenge: `name="value"`, where a value may have commas in it.
fn parameter(list: &str, name: &str) -> Option<String> {
    let mut rest = list;
    loop {
        let (key, after) = rest.split_once('=')?;
        let (value, after) = match after.strip_prefix('"') {
            Some(quoted) => quoted.split_once('"')?,
            None => after.split_once(',').map_or((after, ""), |(value, after)| (value, after)),
        };
        if key.trim().trim_start_matches(',').trim().eq_ignore_ascii_case(name) {
            return Some(value.to_owned());
        }
        rest = after;
    }
}

/// A value in a query.
pub(crate) fn escaped(value: &str) -> String {
    let mut text = String::new();
    for byte in value.bytes() {
        match byte {
            b'A'..=b'Z' | b'a'..=b'z' | b'0'..=b'9' | b'-' | b'.' | b'_' | b'~' | b'/' | b':' | b',' => text.push(byte.into()),
            _ => text += &format!("%{byte:02X}"),
        }
    }
    text
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, reason = "a test that cannot go on should stop")]

    use super::*;

    #[test]
    fn challenges_are_read() {
        let header = r#"Bearer realm="https://auth.example/token",service="registry.example",scope="repository:a/b:pull,push""#;
        let Some(Challenge::Bearer { realm, service, scope }) = Challenge::parse(header) else { unreachable!() };
        assert_eq!((realm.as_str(), service.as_deref()), ("https://auth.example/token", Some("registry.example")));
        assert_eq!(scope.as_deref(), Some("repository:a/b:pull,push"));
        assert_eq!(Challenge::parse("basic realm=\"x\""), Some(Challenge::Basic));
        for none in ["", "Negotiate", "Bearer", "Bearer realm", "Bearer realm=\"open", "Digest realm=\"x\""] {
            assert_eq!(Challenge::parse(none), None, "{none}");
        }
    }

    #[test]
    fn files_of_credentials_are_read_and_their_mistakes_named() {
        let folder = tempfile::tempdir().unwrap();
        let file = folder.path().join("config.json");
        let login = |text: &str, registry: &str| {
            std::fs::write(&file, text).unwrap();
            Credentials::from_file(&file).login(registry)
        };
        let auth = STANDARD.encode("anna:pass:word");
        let (found, _) = login(&format!(r#"{{"auths": {{"https://r.example": {{"auth": "{auth}"}}}}}}"#), "r.example").unwrap();
        assert_eq!(found, Some(Login { user: "anna".into(), password: "pass:word".into() }));
        let (found, hint) = login(r#"{"auths": {}, "credsStore": "desktop"}"#, "r.example").unwrap();
        assert!(found.is_none() && hint.unwrap().contains("docker-credential-desktop"));
        for (text, said) in [
            ("{", "is no JSON"),
            (r#"{"auths": {"r.example": {"auth": "!"}}}"#, "no base64"),
            (r#"{"auths": {"r.example": {"identitytoken": "x"}}}"#, "identitytoken"),
        ] {
            assert!(login(text, "r.example").unwrap_err().to_string().contains(said), "{text}");
        }
        assert_eq!(Credentials::from_file("/nonexistent/x").login("r.example").unwrap(), (None, None));
    }

    #[test]
    fn values_are_escaped_for_a_query() {
        assert_eq!(escaped("repository:a/b:pull x&y"), "repository:a/b:pull%20x%26y");
    }
}
