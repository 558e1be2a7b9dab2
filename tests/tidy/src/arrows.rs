//! Which part of Weir may depend on which: the arrows run one way.
//!
//! ```text
//! filters/* -> sdk                      the guest side; the ABI is the only bridge to the host
//! model <- proxy -> wasm -> wasmtime
//! model <- controller -> kube
//! cli -> proxy, controller, sdk-testing, oci     tests -> everything
//! oci                                            registries, for the cli and whoever fetches filters
//! ```
//!
//! Always: dev-dependencies are free, because tests may run a part against its real neighbour; what ships is not.
//! No crate outside `tests/` depends on one inside it, not even for its tests.

use crate::Finding;
use crate::graph::{Graph, Package};

/// One wall: who must not reach what, directly or through others.
struct Wall {
    who: fn(&Package, folder: &str) -> bool,
    not: fn(&Package) -> bool,
    why: &'static str,
}

const WALLS: [Wall; 5] = [
    Wall {
        who: |package, _| package.name == "weir-model",
        not: |package| named(package, &["tokio", "hyper", "wasmtime", "kube"]) || in_folder(package, "host"),
        why: "the model is values: no I/O, no engine, no Kubernetes",
    },
    Wall {
        who: |package, _| package.name == "weir-wasm",
        not: |package| named(package, &["weir-model", "weir-proxy", "hyper", "tokio"]),
        why: "the Wasm host knows no proxy, no configuration contract and no HTTP library",
    },
    Wall {
        who: |package, _| package.name == "weir-oci",
        not: |package| named(package, &["weir-wasm", "weir-model", "weir-proxy", "weir-controller", "wasmtime", "kube"]),
        why: "fetching from registries is for proxy and controller alike, and links neither",
    },
    Wall {
        who: |package, _| package.name == "weir-controller",
        not: |package| named(package, &["weir-wasm", "weir-proxy", "wasmtime"]),
        why: "the controller links no proxy and no Wasm engine",
    },
    Wall {
        who: |package, folder| package.name == "weir-sdk" || folder.starts_with("filters/"),
        not: |package| named(package, &["wasmtime"]) || in_folder(package, "host"),
        why: "guests meet the host at the ABI only",
    },
];

fn named(package: &Package, names: &[&str]) -> bool {
    names.contains(&package.name.as_str())
}

fn in_folder(package: &Package, top: &str) -> bool {
    package.folder.as_deref().is_some_and(|folder| folder == top || folder.starts_with(&format!("{top}/")))
}

/// Every dependency that runs against the arrows, with the way it takes.
#[must_use]
pub fn check(graph: &Graph) -> Vec<Finding> {
    let mut findings = Vec::new();
    for (at, package, folder) in graph.members() {
        for wall in WALLS.iter().filter(|wall| (wall.who)(package, folder)) {
            for (_, way) in graph.reach(at).iter().filter(|(to, _)| (wall.not)(&graph.packages[**to])) {
                findings.push(Finding::whole(&package.name, format!("{} ({})", graph.describe(way), wall.why)));
            }
        }
        if !in_folder(package, "tests") {
            let backwards = package.dependencies.iter().filter(|(to, _)| in_folder(&graph.packages[*to], "tests"));
            findings.extend(
                backwards
                    .map(|(to, _)| Finding::whole(&package.name, format!("{} (nothing depends on tests)", graph.describe(&[at, *to])))),
            );
        }
    }
    findings
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::graph::made_up::graph;

    const RULED: [(&str, &str, &[&str], &[&str]); 6] = [
        ("wasmtime", "", &[], &[]),
        ("middle", "", &["hyper"], &[]),
        ("hyper", "", &[], &[]),
        ("tokio", "", &[], &[]),
        ("weir-wasm", "host/wasm", &["wasmtime"], &[]),
        ("weir-sdk-testing", "sdk/testing", &["weir-wasm"], &[]),
    ];

    fn with(more: &[(&str, &str, &[&str], &[&str])]) -> Vec<String> {
        check(&graph(&[&RULED, more].concat())).iter().map(ToString::to_string).collect()
    }

    #[test]
    fn the_ways_that_are_meant_to_be_pass() {
        assert_eq!(
            with(&[
                ("weir-model", "host/model", &[], &[]),
                ("weir-proxy", "host", &["weir-model", "weir-wasm", "middle", "tokio"], &[]),
                ("weir-controller", "controller", &["weir-model", "tokio"], &["weir-proxy"]),
                ("weir-sdk", "sdk", &[], &["weir-sdk-testing"]),
                ("weir-filter-a", "filters/a", &["weir-sdk"], &["weir-sdk-testing"]),
                ("weir-perf", "tests/perf", &["weir-proxy", "weir-tidy"], &[]),
                ("weir-tidy", "tests/tidy", &[], &[]),
            ]),
            [""; 0]
        );
    }

    #[test]
    fn each_wall_stands() {
        let model = with(&[("weir-model", "host/model", &["middle"], &[])]);
        assert_eq!(model, ["weir-model: weir-model -> middle -> hyper (the model is values: no I/O, no engine, no Kubernetes)"]);
        assert_eq!(with(&[("weir-model", "host/model", &["weir-wasm"], &[])]).len(), 2, "wasm, and wasmtime behind it");
        let proxy: (&str, &str, &[&str], &[&str]) = ("weir-proxy", "host", &["weir-wasm"], &[]);
        assert_eq!(with(&[proxy, ("weir-controller", "controller", &["weir-proxy"], &[])]).len(), 3);
        assert_eq!(with(&[("weir-oci", "host/oci", &["weir-wasm", "tokio"], &[])]).len(), 2, "wasm, and wasmtime behind it");
        assert_eq!(with(&[("weir-sdk", "sdk", &["weir-sdk-testing"], &[])]).len(), 2);
        assert_eq!(with(&[("weir-filter-a", "filters/a", &["wasmtime"], &[])]).len(), 1);
        let tests: (&str, &str, &[&str], &[&str]) = ("weir-tidy", "tests/tidy", &[], &[]);
        assert!(with(&[tests, ("weir-sdk", "sdk", &[], &["weir-tidy"])])[0].contains("nothing depends on tests"));
    }

    #[test]
    fn the_wasm_host_reaches_no_http_library() {
        let mut packages = RULED;
        packages[4].2 = &["wasmtime", "middle"];
        assert!(check(&graph(&packages))[0].message.starts_with("weir-wasm -> middle -> hyper"));
    }
}
