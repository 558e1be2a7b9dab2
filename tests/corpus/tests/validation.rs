//! Objects that Istio took or refused, and what the validation here says of them.
//!
//! An object counts as refused for what `kubectl apply` with Istio's definitions and webhook would refuse it for: an error, or a field that the kind does
//! not have. That Weir does not do what an object asks for, with everything right about it, is no refusal here: those are listed by name.

#![allow(clippy::unwrap_used, reason = "a test that cannot go on should stop")]

use std::collections::BTreeMap;

use serde_json::Value as Json;
use weir_controller::{Code, Object, validate};
use weir_corpus::{Tally, folder, say, yaml_files};
use weir_model::yaml::document::documents;

#[test]
fn what_istio_takes_is_taken_and_what_it_refuses_is_refused() {
    let Some(tally) = run("validation") else { return };
    tally.report("corpus.validation_pct");
    assert!(tally.agree > 100 && tally.percent() >= 99.0);
}

#[test]
fn what_is_in_documentation_and_samples_is_taken() {
    let Some(tally) = run("docs") else { return };
    tally.report("corpus.docs_pct");
    assert!(tally.agree > 100 && tally.percent() >= 99.0);
}

/// Every case of a part of the corpus.
fn run(part: &str) -> Option<Tally> {
    let (mut tally, mut not_done) = (Tally::default(), BTreeMap::<String, usize>::new());
    for file in yaml_files(&folder()?.join(part)).unwrap() {
        let mut read = documents(&file.display().to_string(), &std::fs::read(&file).unwrap());
        assert!(read.diagnostics.is_empty(), "{:?}", read.diagnostics);
        let cases = read.documents.remove(0).value;
        for (index, case) in cases.as_array().unwrap().iter().enumerate() {
            let object = &case["object"];
            let (refusals, unsupported) = refusals(object);
            if unsupported {
                *not_done.entry(object["kind"].to_string()).or_default() += 1;
            }
            let refused = rejected(&case["expect"]);
            tally.count((refused == refusals.is_empty()).then(|| {
                let theirs = if refused { case["expect"].to_string() } else { "takes it".into() };
                format!("{}[{index}] {} {}: Istio {theirs}; Weir {refusals:?}", file.display(), case["id"], object["kind"])
            }));
        }
    }
    say(&format!("{part}: right, and not done by Weir: {not_done:?}"));
    Some(tally)
}

/// Why an object is refused, if it is, and whether it is one that Weir does not do.
fn refusals(object: &Json) -> (Vec<String>, bool) {
    let object = match Object::read(object) {
        Ok(object) => object,
        Err((way, message)) => return (vec![format!("{way}: {message}")], false),
    };
    let findings = validate(&object);
    let unsupported = findings.iter().any(|finding| finding.code == Code::Unsupported);
    let refused = findings.iter().filter(|finding| match finding.code {
        Code::Unsupported => false,
        Code::UnknownField => true,
        _ => finding.is_error(),
    });
    (refused.map(|finding| format!("{} {}: {}", finding.code, finding.way, finding.message)).collect(), unsupported)
}

fn rejected(expect: &Json) -> bool {
    match expect["overall"].as_str() {
        Some(overall) => overall == "reject",
        None => ["webhook", "crdSchema"].iter().any(|validator| expect[validator] == "reject"),
    }
}
