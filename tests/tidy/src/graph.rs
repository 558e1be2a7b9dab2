//! The dependency graph as `cargo metadata` tells it, cut down to what the rules ask.
//!
//! Always: a package of the workspace is known by its name; paths are from the root of the tree.
//!
//! Deliberately not here: running cargo, which `tests/tree.rs` does.

use std::collections::{BTreeMap, BTreeSet};

use serde::Deserialize;

/// What a dependency is for.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Kind {
    /// Linked into what ships.
    Normal,
    /// Run while building.
    Build,
    /// Tests, benches and examples only.
    Dev,
}

/// A package, in the workspace or not.
#[derive(Debug, Clone)]
pub struct Package {
    /// Name in its manifest.
    pub name: String,
    /// Version, for messages.
    pub version: String,
    /// SPDX expression, if the manifest has one.
    pub license: Option<String>,
    /// Where it was fetched from; none for a path.
    pub source: Option<String>,
    /// Folder from the root of the tree; none outside the workspace.
    pub folder: Option<String>,
    /// Names of its examples.
    pub examples: Vec<String>,
    /// Indices of what it depends on.
    pub dependencies: Vec<(usize, Vec<Kind>)>,
}

/// All packages of a build.
#[derive(Debug, Default)]
pub struct Graph {
    /// The packages, each referred to by its index.
    pub packages: Vec<Package>,
}

impl Graph {
    /// Reads the output of `cargo metadata --format-version 1`.
    ///
    /// # Errors
    /// What in it is not as expected.
    pub fn parse(json: &str) -> Result<Self, String> {
        let raw: Raw = serde_json::from_str(json).map_err(|error| format!("cargo metadata: {error}"))?;
        let index: BTreeMap<&str, usize> = raw.packages.iter().enumerate().map(|(i, p)| (p.id.as_str(), i)).collect();
        let members: BTreeSet<&str> = raw.workspace_members.iter().map(String::as_str).collect();
        let mut packages: Vec<Package> =
            raw.packages.iter().map(|p| p.package(members.contains(p.id.as_str()), &raw.workspace_root)).collect();
        for node in &raw.resolve.nodes {
            let find = |id: &str| index.get(id).copied().ok_or_else(|| format!("cargo metadata: unknown package {id}"));
            let from = &raw.packages[find(&node.id)?];
            let dependencies = node.deps.iter().filter(|dep| from.needs(dep, &node.features)).map(|dep| {
                let kinds = dep.dep_kinds.iter().map(|k| k.kind.unwrap_or(Kind::Normal)).collect();
                Ok((find(&dep.pkg)?, kinds))
            });
            packages[find(&node.id)?].dependencies = dependencies.collect::<Result<_, String>>()?;
        }
        Ok(Self { packages })
    }

    /// The packages of the workspace with their folders.
    pub fn members(&self) -> impl Iterator<Item = (usize, &Package, &str)> {
        self.packages.iter().enumerate().filter_map(|(i, p)| p.folder.as_deref().map(|folder| (i, p, folder)))
    }

    /// The packages of the workspace and all that they need, for tests and builds too. What a lock file merely mentions is not among them.
    pub fn built(&self) -> impl Iterator<Item = &Package> {
        let mut open: Vec<usize> = self.members().map(|(member, ..)| member).collect();
        let mut seen: BTreeSet<usize> = open.iter().copied().collect();
        while let Some(at) = open.pop() {
            let new = self.packages[at].dependencies.iter().map(|(next, _)| *next).filter(|next| seen.insert(*next));
            open.extend(new.collect::<Vec<_>>());
        }
        self.packages.iter().enumerate().filter(move |(at, _)| seen.contains(at)).map(|(_, package)| package)
    }

    /// Every package that `from` needs to be built, dev-dependencies aside, with the way to it.
    #[must_use]
    pub fn reach(&self, from: usize) -> BTreeMap<usize, Vec<usize>> {
        let mut ways = BTreeMap::from([(from, vec![from])]);
        let mut open = vec![from];
        while let Some(at) = open.pop() {
            let way = ways[&at].clone();
            for (next, kinds) in &self.packages[at].dependencies {
                if kinds.iter().any(|kind| *kind != Kind::Dev) && !ways.contains_key(next) {
                    let mut longer = way.clone();
                    longer.push(*next);
                    ways.insert(*next, longer);
                    open.push(*next);
                }
            }
        }
        ways.remove(&from);
        ways
    }

    /// A way as `a -> b -> c`.
    #[must_use]
    pub fn describe(&self, way: &[usize]) -> String {
        way.iter().map(|i| self.packages[*i].name.as_str()).collect::<Vec<_>>().join(" -> ")
    }
}

#[derive(Deserialize)]
struct Raw {
    packages: Vec<RawPackage>,
    workspace_members: Vec<String>,
    workspace_root: String,
    resolve: RawResolve,
}

#[derive(Deserialize)]
struct RawPackage {
    id: String,
    name: String,
    version: String,
    license: Option<String>,
    source: Option<String>,
    manifest_path: String,
    targets: Vec<RawTarget>,
    #[serde(default)]
    dependencies: Vec<RawDeclared>,
    #[serde(default)]
    features: BTreeMap<String, Vec<String>>,
}

/// A dependency as a manifest declares it.
#[derive(Deserialize)]
struct RawDeclared {
    name: String,
    rename: Option<String>,
    optional: bool,
}

#[derive(Deserialize)]
struct RawTarget {
    name: String,
    kind: Vec<String>,
}

#[derive(Deserialize)]
struct RawResolve {
    nodes: Vec<RawNode>,
}

#[derive(Deserialize)]
struct RawNode {
    id: String,
    deps: Vec<RawDep>,
    #[serde(default)]
    features: Vec<String>,
}

#[derive(Deserialize)]
struct RawDep {
    /// As the code names it: with underscores.
    #[serde(default)]
    name: String,
    pkg: String,
    dep_kinds: Vec<RawKind>,
}

#[derive(Deserialize)]
struct RawKind {
    kind: Option<Kind>,
}

impl RawPackage {
    /// Whether a dependency is really built with these features on. Cargo lists optional ones that a feature mentions weakly
    /// (`name?/feature`) as if they were.
    fn needs(&self, dep: &RawDep, features: &[String]) -> bool {
        let declared = |one: &&RawDeclared| one.rename.as_ref().unwrap_or(&one.name).replace('-', "_") == dep.name;
        let mut found = self.dependencies.iter().filter(declared).peekable();
        if found.peek().is_none() {
            return true;
        }
        let turns_on = |name: &str, entry: &str| {
            entry.strip_prefix("dep:").is_some_and(|entry| entry == name)
                || entry.split_once('/').is_some_and(|(entry, _)| entry == name)
                || entry == name
        };
        found.any(|one| {
            let name = one.rename.as_ref().unwrap_or(&one.name);
            let on =
                |feature: &String| feature == name || self.features.get(feature).into_iter().flatten().any(|entry| turns_on(name, entry));
            !one.optional || features.iter().any(on)
        })
    }

    fn package(&self, member: bool, root: &str) -> Package {
        let folder = self.manifest_path.strip_prefix(root).and_then(|path| path.strip_suffix("/Cargo.toml"));
        let examples = self.targets.iter().filter(|target| target.kind.iter().any(|kind| kind == "example"));
        Package {
            name: self.name.clone(),
            version: self.version.clone(),
            license: self.license.clone(),
            source: self.source.clone(),
            folder: folder.filter(|_| member).map(|folder| folder.trim_start_matches('/').to_owned()),
            examples: examples.map(|target| target.name.clone()).collect(),
            dependencies: Vec::new(),
        }
    }
}

#[cfg(test)]
pub(crate) mod made_up {
    //! Graphs for the tests of the rules.

    use super::{Graph, Kind, Package};

    /// A graph of `(name, folder or "" for a crate from elsewhere, normal dependencies, dev-dependencies)`.
    pub(crate) fn graph(packages: &[(&str, &str, &[&str], &[&str])]) -> Graph {
        let find = |name: &str| packages.iter().position(|p| p.0 == name).unwrap();
        let package = |(name, folder, normal, dev): &(&str, &str, &[&str], &[&str])| Package {
            name: (*name).to_owned(),
            version: "1.0.0".to_owned(),
            license: Some("MIT OR Apache-2.0".to_owned()),
            source: folder.is_empty().then(|| "registry+https://example.org/index".to_owned()),
            folder: (!folder.is_empty()).then(|| (*folder).to_owned()),
            examples: vec![],
            dependencies: normal
                .iter()
                .map(|to| (find(to), vec![Kind::Normal]))
                .chain(dev.iter().map(|to| (find(to), vec![Kind::Dev])))
                .collect(),
        };
        Graph { packages: packages.iter().map(package).collect() }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_optional_dependency_counts_only_when_a_feature_turns_it_on() {
        let graph = |feature: &str, entry: &str| {
            let json = r#"{"workspace_root": "/tree", "workspace_members": ["a 1"],
            "packages": [
                {"id": "a 1", "name": "a", "version": "1.0.0", "license": "MIT", "source": null,
                 "manifest_path": "/tree/a/Cargo.toml", "targets": [],
                 "dependencies": [{"name": "b-b", "rename": null, "optional": true}], "features": {"f": ["ENTRY"]}},
                {"id": "b 2", "name": "b-b", "version": "2.0.0", "license": null, "source": "registry+x",
                 "manifest_path": "/cache/b/Cargo.toml", "targets": []}],
            "resolve": {"nodes": [{"id": "a 1", "features": ["FEATURE"], "deps": [{"name": "b_b", "pkg": "b 2", "dep_kinds": [{"kind": null}]}]},
                                  {"id": "b 2", "deps": []}]}}"#;
            Graph::parse(&json.replace("FEATURE", feature).replace("ENTRY", entry)).unwrap().packages[0].dependencies.len()
        };
        assert_eq!(graph("f", "b-b?/fast"), 0, "weakly");
        assert_eq!(graph("f", "dep:b-b"), 1);
        assert_eq!(graph("f", "b-b/fast"), 1);
        assert_eq!(graph("b-b", "x"), 1, "the feature that every optional dependency is");
        assert_eq!(graph("other", "dep:b-b"), 0, "the feature is off");
    }

    #[test]
    fn metadata_is_read() {
        let json = r#"{"workspace_root": "/tree", "workspace_members": ["a 1"],
            "packages": [
                {"id": "a 1", "name": "a", "version": "1.0.0", "license": "MIT", "source": null,
                 "manifest_path": "/tree/host/a/Cargo.toml", "targets": [{"name": "show", "kind": ["example"]}]},
                {"id": "b 2", "name": "b", "version": "2.0.0", "license": null, "source": "registry+x",
                 "manifest_path": "/cache/b/Cargo.toml", "targets": []},
                {"id": "c 3", "name": "c", "version": "3.0.0", "license": null, "source": "registry+x",
                 "manifest_path": "/cache/c/Cargo.toml", "targets": []}],
            "resolve": {"nodes": [
                {"id": "a 1", "deps": [{"pkg": "b 2", "dep_kinds": [{"kind": null}, {"kind": "dev"}]},
                                       {"pkg": "c 3", "dep_kinds": [{"kind": "dev"}]}]},
                {"id": "b 2", "deps": []}, {"id": "c 3", "deps": []}]}}"#;
        let graph = Graph::parse(json).unwrap();
        assert_eq!(graph.members().map(|(_, p, folder)| (p.name.as_str(), folder)).collect::<Vec<_>>(), [("a", "host/a")]);
        assert_eq!(graph.packages[0].examples, ["show"]);
        assert_eq!(graph.reach(0).keys().copied().collect::<Vec<_>>(), [1], "c is only for tests");
        assert_eq!(graph.describe(&graph.reach(0)[&1]), "a -> b");
        assert!(Graph::parse("{}").unwrap_err().starts_with("cargo metadata: missing field"));
        assert!(Graph::parse(&json.replace(r#""pkg": "b 2""#, r#""pkg": "z""#)).unwrap_err().contains("unknown package z"));
    }
}
