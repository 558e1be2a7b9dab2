//! `weir-proxy check`: what would keep a configuration from serving, said without serving it.

use std::process::Command;

use serde_json::{Value, json};

use super::support::*;

/// What `check` says of a configuration, and whether that is that nothing is wrong.
fn check(config: &Value) -> (bool, String) {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("weir.yaml");
    std::fs::write(&path, config.to_string()).unwrap();
    let output = Command::new(env!("CARGO_BIN_EXE_weir-proxy")).args(["check", "-c"]).arg(&path).output().unwrap();
    (output.status.success(), String::from_utf8([output.stdout, output.stderr].concat()).unwrap())
}

fn with_deny(rules: &Value) -> Value {
    let mut config = to_origin(([127, 0, 0, 1], 1).into());
    http(&mut config)["filterChain"] = json!("main");
    config["filterChains"] = json!([{ "name": "main", "filters": [{ "name": "deny", "module": { "builtin": "deny" } }] }]);
    config["filterChains"][0]["filters"][0]["config"] = json!({ "rules": rules });
    config
}

#[test]
fn a_configuration_that_a_filter_refuses_is_refused_with_the_filters_words() {
    let (good, said) = check(&with_deny(&json!([{ "name": "a" }])));
    assert!(good && said.contains("no errors"), "{said}");
    let (good, said) = check(&with_deny(&json!([{ "name": "a", "when": { "path": { "regex": "(" } } }])));
    assert!(!good, "{said}");
    for part in ["weir.yaml", "main", "filters[0]", "rules[0].when.path"] {
        assert!(said.contains(part), "{part} is not in: {said}");
    }
}

#[test]
fn no_address_is_taken() {
    let taken = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    let mut config = with_deny(&json!([]));
    config["listeners"][0]["address"] = json!(taken.local_addr().unwrap().to_string());
    let (good, said) = check(&config);
    assert!(good, "{said}");
}

#[test]
fn everything_that_is_wrong_is_said() {
    let mut config = with_deny(&json!([{ "name": "" }]));
    config["secrets"] =
        json!([{ "name": "web", "keyPair": { "certificateChain": { "file": "/nowhere.pem" }, "privateKey": { "file": "/nowhere.key" } } }]);
    let (good, said) = check(&config);
    assert!(!good && said.contains("nowhere") && said.contains("rules[0].name"), "{said}");
}
