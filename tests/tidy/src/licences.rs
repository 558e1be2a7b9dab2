//! `deny.toml` over the dependency graph: licences, banned crates, sources.
//!
//! cargo-deny checks the same file in `make lint`, and more closely; this makes it hold wherever the tests run.
//!
//! Always: what the file does not allow is a finding, and a ban without a reason is one too.

use serde::Deserialize;
use spdx::{Expression, ParseMode};

use crate::Finding;
use crate::graph::Graph;

/// What of `deny.toml` is checked here.
#[derive(Debug, Deserialize)]
pub struct Policy {
    licenses: Licenses,
    bans: Bans,
    sources: Sources,
}

#[derive(Debug, Deserialize)]
struct Licenses {
    allow: Vec<String>,
}

#[derive(Debug, Deserialize)]
struct Bans {
    deny: Vec<Ban>,
}

#[derive(Debug, Deserialize)]
struct Ban {
    #[serde(rename = "crate")]
    name: String,
    reason: Option<String>,
}

#[derive(Debug, Deserialize)]
#[serde(rename_all = "kebab-case")]
struct Sources {
    allow_registry: Vec<String>,
}

impl Policy {
    /// Reads `deny.toml`.
    ///
    /// # Errors
    /// What in it is not as expected.
    pub fn parse(text: &str) -> Result<Self, String> {
        toml::from_str(text).map_err(|error| format!("deny.toml: {error}"))
    }

    /// Every package that the policy refuses, and every ban that gives no reason.
    #[must_use]
    pub fn check(&self, graph: &Graph) -> Vec<Finding> {
        let unexplained = self.bans.deny.iter().filter(|ban| ban.reason.is_none());
        let mut findings: Vec<_> =
            unexplained.map(|ban| Finding::whole("deny.toml", format!("the ban of {} gives no reason", ban.name))).collect();
        for package in graph.built() {
            let place = format!("{} {}", package.name, package.version);
            if let Some(ban) = self.bans.deny.iter().find(|ban| ban.name == package.name) {
                findings.push(Finding::whole(&place, format!("banned: {}", ban.reason.as_deref().unwrap_or_default())));
            }
            if let Err(cause) = self.licence(package.license.as_deref()) {
                findings.push(Finding::whole(&place, cause));
            }
            if let Err(cause) = self.source(package.source.as_deref(), package.folder.is_some()) {
                findings.push(Finding::whole(&place, cause));
            }
        }
        findings
    }

    fn licence(&self, licence: Option<&str>) -> Result<(), String> {
        let text = licence.ok_or("its manifest names no licence")?;
        // Lax, because old manifests write `MIT/Apache-2.0`.
        let expression = Expression::parse_mode(text, ParseMode::LAX).map_err(|error| format!("licence {text:?}: {}", error.reason))?;
        let allowed = |requirement: &spdx::LicenseReq| self.licenses.allow.contains(&requirement.to_string());
        if expression.evaluate(allowed) { Ok(()) } else { Err(format!("licence {text:?} is not allowed by deny.toml")) }
    }

    fn source(&self, source: Option<&str>, member: bool) -> Result<(), String> {
        match source.map(|source| (source, source.strip_prefix("registry+"))) {
            None if member => Ok(()),
            None => Err("a path outside the workspace".to_owned()),
            Some((_, Some(registry))) if self.sources.allow_registry.iter().any(|allowed| allowed == registry) => Ok(()),
            Some((source, _)) => Err(format!("its source {source} is not allowed by deny.toml")),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::graph::made_up::graph;

    const POLICY: &str = r#"
        [licenses]
        allow = ["Apache-2.0", "MIT", "Apache-2.0 WITH LLVM-exception"]
        [bans]
        deny = [{ crate = "ring", reason = "one provider" }]
        [sources]
        allow-registry = ["https://example.org/index"]
    "#;

    fn check(change: impl Fn(&mut crate::graph::Package)) -> Vec<String> {
        let mut graph = graph(&[("own", "host/own", &["other"], &[]), ("other", "", &[], &[])]);
        change(&mut graph.packages[1]);
        Policy::parse(POLICY).unwrap().check(&graph).iter().map(ToString::to_string).collect()
    }

    #[test]
    fn what_the_policy_allows_passes() {
        for licence in ["MIT", "MIT/Apache-2.0", "(MIT OR GPL-3.0-only) AND Apache-2.0 WITH LLVM-exception"] {
            assert_eq!(check(|package| package.license = Some(licence.to_owned())), [""; 0]);
        }
    }

    #[test]
    fn what_it_does_not_allow_is_found() {
        for licence in ["GPL-3.0-only", "MIT AND GPL-3.0-only", "MIT WITH LLVM-exception"] {
            let found = check(|package| package.license = Some(licence.to_owned()));
            assert_eq!(found, [format!("other 1.0.0: licence {licence:?} is not allowed by deny.toml")]);
        }
        assert!(check(|package| package.license = Some("Mine".to_owned()))[0].starts_with("other 1.0.0: licence \"Mine\": "));
        assert!(check(|package| package.license = None)[0].contains("names no licence"));
        assert!(check(|package| package.name = "ring".to_owned())[0].contains("banned: one provider"));
        assert!(check(|package| package.source = Some("git+https://example.org/x".to_owned()))[0].contains("its source git+"));
        assert!(check(|package| package.source = None)[0].contains("a path outside"));
    }

    #[test]
    fn a_ban_gives_its_reason() {
        let policy = Policy::parse(&POLICY.replace(", reason = \"one provider\"", "")).unwrap();
        assert_eq!(policy.check(&Graph::default()), [Finding::whole("deny.toml", "the ban of ring gives no reason")]);
        assert!(Policy::parse("[licenses]").unwrap_err().starts_with("deny.toml: "));
    }
}
