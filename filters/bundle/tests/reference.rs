//! Every filter has a README; its examples are configurations that the filter takes, and its reference of the configuration says what the schema in the
//! module says. `WEIR_WRITE_REFERENCE=1 cargo test -p weir-filters --test reference` writes the references anew.
//!
//! The reference stands between `<!-- configuration -->` and `<!-- /configuration -->`. An example is a block of `json`.

#![allow(clippy::unwrap_used, clippy::panic, reason = "a test that cannot go on should stop")]

#[path = "reference/page.rs"]
mod page;

use std::env;
use std::fs;
use std::path::{Path, PathBuf};

use weir_filters::Builtin;
use weir_sdk_testing::Tester;
use weir_wasm::Foreign;

const BEGIN: &str = "<!-- configuration -->\n";
const END: &str = "<!-- /configuration -->";
/// What writes the references instead of comparing them.
const WRITE: &str = "WEIR_WRITE_REFERENCE";

fn readme(builtin: &Builtin) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("..").join(builtin.name).join("README.md")
}

#[test]
fn every_readme_says_what_the_schema_says() {
    let mut stale = Vec::new();
    for builtin in weir_filters::all() {
        let path = readme(builtin);
        let text = fs::read_to_string(&path).unwrap_or_else(|error| panic!("{}: {error}", path.display()));
        let (before, rest) = text.split_once(BEGIN).unwrap_or_else(|| panic!("{} has no line {BEGIN}", path.display()));
        let (written, after) = rest.split_once(END).unwrap_or_else(|| panic!("{} has no {END}", path.display()));
        let section = page::reference(builtin.bytes);
        if env::var_os(WRITE).is_some() {
            fs::write(&path, format!("{before}{BEGIN}{section}{END}{after}")).unwrap();
        } else if written != section {
            stale.push(builtin.name);
        }
    }
    assert!(stale.is_empty(), "out of date: {stale:?}; run: {WRITE}=1 cargo test -p weir-filters --test reference");
}

#[test]
fn every_example_is_a_configuration() {
    for builtin in weir_filters::all() {
        let text = fs::read_to_string(readme(builtin)).unwrap();
        let examples: Vec<&str> = text.split("```json\n").skip(1).filter_map(|rest| rest.split("```").next()).collect();
        assert!(!examples.is_empty(), "the README of {} shows no configuration", builtin.name);
        for example in examples {
            // What an action holds is the proxy's to judge, in its own tests.
            let tester = Tester::new(builtin.bytes).provide("weir.route.define", |_| Foreign::Done(vec![1, 0, 0, 0]));
            if let Err(error) = tester.configuration(example).may_log(&["stdout"]).start() {
                panic!("{}: {error}\n{example}", builtin.name);
            }
        }
    }
}
