//! What `weir filter inspect` and `bench` say of modules: sound ones, and all sorts of others.

use std::path::Path;

use crate::command::weir;

fn write(folder: &Path, name: &str, bytes: &[u8]) {
    std::fs::write(folder.join(name), bytes).unwrap();
}

#[test]
fn a_standard_filter_is_described_whole() {
    let folder = tempfile::tempdir().unwrap();
    let value = weir(folder.path(), &["filter", "inspect", "builtin://deny", "--output", "json"]).json();
    for (key, expected) in
        [("runs", "true"), ("abi", "\"0.2.1\""), ("kind", "\"http\""), ("name", "\"weir-filter-deny\""), ("configured", "false")]
    {
        assert_eq!(value[key].to_string(), expected, "{key}");
    }
    assert!(value["digest"].as_str().unwrap().starts_with("sha256:"));
    assert!(value["capabilities"].as_array().unwrap().iter().any(|one| one == "answer requests"), "{}", value["capabilities"]);
    assert!(value["callbacks"].as_array().unwrap().iter().any(|one| one == "request_headers"));
    assert!(value["schema"].to_string().contains("\"rules\""), "{}", value["schema"]);
    assert!(!value["capabilities"].as_array().unwrap().iter().any(|one| one == "bodies"), "it reads its configuration, and no body");
    assert!(value["imports"].as_array().unwrap().iter().any(|one| one["name"] == "proxy_get_header_map_value"));
    let text = weir(folder.path(), &["filter", "inspect", "builtin://deny"]).ok();
    for said in ["runs here     yes", "ABI           0.2.1", "made with", "\"rules\""] {
        assert!(text.contains(said), "{said}: {text}");
    }
    assert!(!text.contains('\x1b'), "colour is for terminals");
}

#[test]
fn with_a_configuration_it_is_started_as_a_proxy_would() {
    let folder = tempfile::tempdir().unwrap();
    let good = weir(folder.path(), &["filter", "inspect", "builtin://deny", "--config", r#"{"rules": [{"name": "all"}]}"#]).ok();
    assert!(good.contains("yes, with this configuration"), "{good}");
    write(folder.path(), "bad.json", br#"{"ruls": []}"#);
    let bad = weir(folder.path(), &["filter", "inspect", "builtin://deny", "--config", "@bad.json"]).failed();
    assert!(bad.contains("runs here     no") && bad.contains("did you mean `rules`"), "{bad}");
}

#[test]
fn what_this_host_does_not_run_is_said_with_the_hosts_own_words() {
    let folder = tempfile::tempdir().unwrap();
    let wat = |text: &str| wat::parse_str(text).unwrap();
    let marker = r#"(func (export "proxy_abi_version_0_2_1")) (memory (export "memory") 1)"#;
    for (name, bytes, said) in [
        ("none.wasm", wat("(module)"), "it is not a Proxy-Wasm module"),
        ("import.wasm", wat(&format!(r#"(module (import "env" "frobnicate" (func)) {marker})"#)), "frobnicate"),
        ("text.wasm", b"(module)".to_vec(), "WebAssembly text"),
        ("page.wasm", b"<!doctype html><p>".to_vec(), "an HTML page"),
        ("empty.wasm", Vec::new(), "empty"),
        ("cut.wasm", b"\0asm\x01\0\0\0\x01".to_vec(), "module"),
    ] {
        write(folder.path(), name, &bytes);
        let text = weir(folder.path(), &["filter", "inspect", name]).failed();
        assert!(text.contains("runs here     no") && text.contains(said), "{name}: {text}");
        let value: serde_json::Value =
            serde_json::from_str(&weir(folder.path(), &["filter", "inspect", name, "--output", "json"]).out).unwrap();
        assert!(value["runs"] == false && value["error"].as_str().unwrap().contains(said), "{name}: {value}");
    }
    let missing = weir(folder.path(), &["filter", "inspect", "nothing.wasm"]).failed();
    assert!(missing.contains("nothing.wasm"), "{missing}");
    let unknown = weir(folder.path(), &["filter", "inspect", "builtin://nothing"]).failed();
    assert!(unknown.contains("those are: ") && unknown.contains("deny"), "{unknown}");
    let folder_given = weir(folder.path(), &["filter", "inspect", "."]).failed();
    assert!(folder_given.contains("is a folder"), "{folder_given}");
}

#[test]
fn what_a_request_costs_is_a_table_and_figures() {
    let folder = tempfile::tempdir().unwrap();
    let config = r#"{"rules": [{"name": "admin", "when": {"path": {"prefix": "/admin"}}}]}"#;
    let arguments = ["filter", "bench", "builtin://deny", "--config", config, "--requests", "900", "-H", "x-a: 1"];
    let text = weir(folder.path(), &arguments).ok();
    for figure in ["filter.request_us", "filter.guest_us", "filter.host_calls", "filter.memory_bytes", "filter.start_us"] {
        let line =
            text.lines().find_map(|line| line.strip_prefix(&format!("figure {figure} "))).unwrap_or_else(|| panic!("{figure}: {text}"));
        assert!(line.parse::<f64>().is_ok(), "{line}");
    }
    let value = weir(folder.path(), &[&arguments[..], &["--path", "/admin", "--output", "json"]].concat()).json();
    assert_eq!(value["status"], 403);
    assert!(value["hostCalls"].as_f64().unwrap() >= 2.0, "it reads the path and answers: {value}");
    let refused = weir(folder.path(), &["filter", "bench", "builtin://deny", "--config", r#"{"ruls": []}"#]).failed();
    assert!(refused.contains("did you mean `rules`") && refused.contains("--config"), "{refused}");
}
