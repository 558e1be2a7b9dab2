//! The parts that everybody meets first.

use std::path::Path;

use crate::command::weir;

const HERE: &str = env!("CARGO_MANIFEST_DIR");

#[test]
fn help_shows_commands_examples_and_exit_codes() {
    let here = Path::new(HERE);
    let help = weir(here, &["--help"]).ok();
    for said in ["filter", "run", "check", "completions", "Examples:", "Exit codes:", "NO_COLOR"] {
        assert!(help.contains(said), "{said}: {help}");
    }
    let filter = weir(here, &["filter", "--help"]).ok();
    for said in ["new", "build", "test", "bench", "inspect", "package", "push", "pull", "keygen", "builtin://"] {
        assert!(filter.contains(said), "{said}: {filter}");
    }
    assert!(weir(here, &["filter", "push", "--help"]).ok().contains("--sign"));
}

#[test]
fn a_command_line_that_is_not_understood_is_exit_code_2() {
    for arguments in [&["frob"][..], &["filter", "new"], &["filter", "inspect"], &["--output", "xml", "version"]] {
        assert_eq!(weir(Path::new(HERE), arguments).code, 2, "{arguments:?}");
    }
    let near = weir(Path::new(HERE), &["filter", "inspct", "x"]);
    assert!(near.err.contains("inspect"), "{}", near.err);
}

#[test]
fn completions_are_for_the_shells_there_are() {
    for shell in ["bash", "zsh", "fish"] {
        let text = weir(Path::new(HERE), &["completions", shell]).ok();
        assert!(text.contains("weir") && text.contains("inspect"), "{shell}");
    }
}

#[test]
fn versions_are_data_too() {
    let version = weir(Path::new(HERE), &["version", "--output", "json"]).json();
    assert_eq!(version["version"], env!("CARGO_PKG_VERSION"));
    assert!(version["filters"].as_array().unwrap().iter().any(|name| name == "deny"));
    assert!(weir(Path::new(HERE), &["version"]).ok().starts_with("weir "));
}

#[test]
fn a_configuration_is_checked_with_exit_codes_and_as_data() {
    let folder = tempfile::tempdir().unwrap();
    let sample = Path::new(HERE).join("../../manifests/samples/standard.yaml");
    let good = weir(folder.path(), &["check", sample.to_str().unwrap()]).ok();
    assert!(good.contains("no errors"), "{good}");
    std::fs::write(folder.path().join("bad.yaml"), "listeners:\n  - name: web\n    adress: 127.0.0.1:0\n").unwrap();
    let bad = weir(folder.path(), &["check", "bad.yaml"]);
    assert_eq!(bad.code, 1);
    assert!((bad.err + &bad.out).contains("adress"));
    let bad = weir(folder.path(), &["check", "bad.yaml", "--output", "json"]);
    let value: serde_json::Value = serde_json::from_str(&bad.out).unwrap();
    assert_eq!((bad.code, &value["ok"]), (1, &serde_json::json!(false)));
    let problem = &value["problems"][0];
    assert_eq!((&problem["line"], &problem["code"]), (&serde_json::json!(3), &serde_json::json!("unknown-field")), "{value}");
    assert_eq!(weir(folder.path(), &["run", "nothing.yaml"]).code, 1);
}
