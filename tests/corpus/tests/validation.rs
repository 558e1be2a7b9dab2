//! Objects that Istio took or refused, and what the validation here says of them.
//!
//! An object counts as refused for what `kubectl apply` with Istio's definitions and webhook would refuse it for: an error, or a field that the kind does
//! not have. That Weir does not do what an object asks for, with everything right about it, is no refusal here: those are listed by name.

use std::collections::BTreeMap;
use std::path::Path;

use serde_json::Value as Json;
use weir_controller::{Code, Object, validate};
use weir_corpus::{Tally, cases, files, folder, is_named, must};

/// What is reached on the cases that this was written with: it must not fall.
const REACHED: f64 = 100.0;
/// What must be reached on any others.
const LEAST: f64 = 99.0;

/// Why an object is refused, if it is, and whether it is one that Weir does not do.
fn refusals(object: &Json) -> (Vec<String>, bool) {
    let object = match Object::read(object) {
        Ok(object) => object,
        Err((way, message)) => return (vec![format!("{way}: {message}")], false),
    };
    let findings = validate(&object);
    let unsupported = findings.iter().any(|finding| finding.code == Code::Unsupported);
    let refused =
        findings.iter().filter(|finding| (finding.is_error() && finding.code != Code::Unsupported) || finding.code == Code::UnknownField);
    (refused.map(|finding| format!("{} {}: {}", finding.code, finding.way, finding.message)).collect(), unsupported)
}

fn rejected(expect: &Json) -> bool {
    match expect.get("overall").and_then(Json::as_str) {
        Some(overall) => overall == "reject",
        None => ["webhook", "crdSchema"].iter().any(|validator| expect.get(validator).and_then(Json::as_str) == Some("reject")),
    }
}

fn run(folder: &Path, figure: &str) {
    let (mut tally, mut unsupported) = (Tally::default(), BTreeMap::<String, usize>::new());
    for file in must(files(folder)) {
        for (index, case) in must(cases(&file)).into_iter().enumerate() {
            let (object, expect) = (&case["object"], &case["expect"]);
            let (refusals, not_done) = refusals(object);
            if not_done {
                *unsupported.entry(object["kind"].to_string()).or_default() += 1;
            }
            let expected = rejected(expect);
            tally.count(expected != refusals.is_empty(), || {
                let name = case.get("id").map_or_else(|| format!("{}[{index}] {}", file.display(), case["page"]), Json::to_string);
                let theirs = ["error", "decodeError", "crdError"].iter().filter_map(|key| expect.get(key)).map(Json::to_string);
                let theirs = theirs.collect::<Vec<_>>().join(" / ");
                format!("{name} {}: Istio {}, Weir {refusals:?}", object["kind"], if expected { theirs } else { "takes it".into() })
            });
        }
    }
    for (kind, count) in unsupported {
        tally.note(&format!("right, and not done by Weir: {count} of kind {kind}"));
    }
    tally.hold(figure, if is_named() { LEAST } else { REACHED });
}

#[test]
fn what_istio_takes_is_taken_and_what_it_refuses_is_refused() {
    let Some(folder) = folder() else { return };
    run(&folder.join("validation"), "corpus.validation_pct");
}

#[test]
fn what_is_in_documentation_and_samples_is_taken() {
    let Some(folder) = folder() else { return };
    run(&folder.join("docs"), "corpus.docs_pct");
}
