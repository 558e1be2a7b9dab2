//! Every template: laid down, tested, built, inspected. What a language's tools are missing for is left out, and says so.

use std::path::Path;

use serde_json::json;

use crate::command::{Done, command, has, run, weir};

/// Lays a project down, and does with it what an author does first.
fn project(folder: &Path, name: &str, template: &str) -> std::path::PathBuf {
    let made = weir(folder, &["filter", "new", name, "--template", template, "--output", "json"]).json();
    assert!(made["files"].as_array().unwrap().len() >= 5, "{made}");
    folder.join(name)
}

fn tested(project: &Path) -> serde_json::Value {
    let tested = weir(project, &["filter", "test", "--output", "json"]);
    assert_eq!(tested.code, 0, "{}\n{}", tested.out, tested.err);
    serde_json::from_str(&tested.out).unwrap_or_else(|error| panic!("{error}: {}", tested.out))
}

fn built(project: &Path, name: &str, kind: &str) {
    weir(project, &["filter", "build"]).ok();
    let module = format!("build/{name}.wasm");
    let inspected = weir(project, &["filter", "inspect", &module, "--output", "json"]).json();
    assert_eq!((&inspected["runs"], &inspected["kind"]), (&json!(true), &json!(kind)), "{inspected}");
    // The sample names that very file, and the proxy takes it.
    weir(project, &["check", "sample.yaml"]).ok();
}

/// A network that is not there is no failure of the template.
fn is_offline(done: &Done) -> bool {
    let said = done.err.clone() + &done.out;
    let offline = ["ENOTFOUND", "EAI_AGAIN", "ECONNREFUSED", "ETIMEDOUT", "dial tcp", "no such host", "ENOTCACHED"]
        .iter()
        .any(|sign| said.contains(sign));
    if offline {
        use std::io::Write as _;
        writeln!(std::io::stderr(), "left out: packages cannot be fetched: {}", said.lines().last().unwrap_or_default()).unwrap();
    }
    offline
}

#[test]
fn a_rust_project_for_http() {
    let folder = tempfile::tempdir().unwrap();
    let project = project(folder.path(), "geo-block", "rust");
    assert_eq!(tested(&project)["own"], true);
    built(&project, "geo-block", "http");
    let text = std::fs::read_to_string(project.join("src/lib.rs")).unwrap();
    assert!(text.contains("pub struct GeoBlock") && text.contains("x-geo-block"));
    let broken = text.replace("Flow::Continue", "Flow::Contniue");
    std::fs::write(project.join("src/lib.rs"), broken).unwrap();
    let failed = weir(&project, &["filter", "build"]).failed();
    assert!(failed.contains("Contniue") && failed.contains("src/lib.rs"), "{failed}");
}

#[test]
fn a_rust_project_for_tcp() {
    let folder = tempfile::tempdir().unwrap();
    let project = project(folder.path(), "gate", "rust-tcp");
    assert_eq!(tested(&project)["own"], true);
    built(&project, "gate", "tcp");
    let refused = weir(&project, &["filter", "bench", "build/gate.wasm", "--config", "{}"]).failed();
    assert!(refused.contains("for TCP"), "{refused}");
}

#[test]
fn a_go_project() {
    if !has("go") {
        return;
    }
    let folder = tempfile::tempdir().unwrap();
    let project = project(folder.path(), "geo", "go");
    let built_once = weir(&project, &["filter", "build"]);
    if built_once.code != 0 && is_offline(&built_once) {
        return;
    }
    let tested = tested(&project);
    assert_eq!((&tested["own"], &tested["failed"]), (&json!(true), &json!(0)));
    assert_eq!(tested["cases"].as_array().unwrap().len(), 3);
    built(&project, "geo", "http");
}

#[test]
fn an_assemblyscript_project() {
    if !has("node") || !has("npm") {
        return;
    }
    let folder = tempfile::tempdir().unwrap();
    let project = project(folder.path(), "marker", "assemblyscript");
    let built_once = weir(&project, &["filter", "build"]);
    if built_once.code != 0 && is_offline(&built_once) {
        return;
    }
    let tested = tested(&project);
    assert_eq!((&tested["own"], &tested["failed"]), (&json!(null), &json!(0)), "{tested}");
    built(&project, "marker", "http");
    // A case that does not hold fails the command.
    let cases = std::fs::read_to_string(project.join("tests/cases.json")).unwrap().replace("403", "404");
    std::fs::write(project.join("tests/cases.json"), cases).unwrap();
    let failed = weir(&project, &["filter", "test"]).failed();
    assert!(failed.contains("FAILED") && failed.contains(r#""403" instead of "404""#), "{failed}");
}

#[test]
fn what_is_there_is_not_overwritten_and_names_are_checked() {
    let folder = tempfile::tempdir().unwrap();
    std::fs::create_dir(folder.path().join("taken")).unwrap();
    std::fs::write(folder.path().join("taken/mine.txt"), "mine").unwrap();
    let refused = weir(folder.path(), &["filter", "new", "taken", "--template", "go"]).failed();
    assert!(refused.contains("there already"), "{refused}");
    assert_eq!(std::fs::read_dir(folder.path().join("taken")).unwrap().count(), 1);
    assert!(weir(folder.path(), &["filter", "new", "../x"]).failed().contains("is no name"));
    assert!(weir(folder.path(), &["filter", "new", "a", "--sdk", "/nonexistent"]).failed().contains("--sdk"));
    let nothing = weir(folder.path(), &["filter", "build"]).failed();
    assert!(nothing.contains("weir filter new"), "{nothing}");
    let elsewhere = run(command(folder.path()).args(["filter", "new", "b", "--template", "go", "--path", "deep/er"])).ok();
    assert!(elsewhere.contains("deep/er") && folder.path().join("deep/er/go.mod").is_file());
}
