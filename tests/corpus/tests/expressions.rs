//! Mixer's expressions against Mixer's own answers: type, value, which attributes were looked at, or that there is an error.

#![allow(clippy::unwrap_used, reason = "a test that cannot go on should stop")]

use std::collections::BTreeMap;
use std::sync::Arc;

use serde_json::Value as Json;
use weir_controller::api::istio::common::Duration;
use weir_controller::mixer::expression::{Expression, Type, Value, timestamp};
use weir_controller::mixer::vocabulary::Vocabulary;
use weir_corpus::{Tally, folder};

#[test]
fn expressions_mean_what_mixer_made_of_them() {
    let Some(folder) = folder() else { return };
    let corpus: Json = serde_json::from_slice(&std::fs::read(folder.join("mixer/expressions.json")).unwrap()).unwrap();
    let mut tally = Tally::default();
    for case in corpus["cases"].as_array().unwrap() {
        let manifest = corpus["manifests"][case["manifest"].as_str().unwrap()].as_object().unwrap();
        let vocabulary = manifest.iter().map(|(name, kind)| (name.as_str(), Type::named(kind.as_str().unwrap()).unwrap())).collect();
        let line = |difference: String| format!("{}: {difference}", case["expression"]);
        tally.count(disagreement(case, &vocabulary).map(line));
    }
    tally.report("corpus.expressions_pct");
    // Other cases than those that were looked at may be given.
    let least = if std::env::var_os("WEIR_CORPUS").is_some() { 95.0 } else { 100.0 };
    assert!(tally.agree > 0 && tally.percent() >= least);
}

fn disagreement(case: &Json, vocabulary: &Vocabulary) -> Option<String> {
    let text = |field: &str| case[field].as_str().unwrap();
    let expression = match (Expression::new(text("expression"), vocabulary), text("compileError")) {
        (Ok(expression), "") => expression,
        (Err(_), wanted) if !wanted.is_empty() => return None,
        (Ok(expression), wanted) => return Some(format!("is a {}, must be refused: {wanted}", expression.kind())),
        (Err(error), _) => return Some(format!("was refused: {error}")),
    };
    if expression.kind().to_string() != text("type") {
        return Some(format!("is a {}, must be a {}", expression.kind(), text("type")));
    }
    let given = case["attributes"].as_object().into_iter().flatten();
    let attributes: BTreeMap<_, _> = given.map(|(name, given)| (name.clone(), value(given))).collect();
    let outcome = expression.evaluate(&attributes);
    if let Some(wanted) = case["referenced"].as_array() {
        let wanted: Vec<_> = wanted.iter().map(|name| name.as_str().unwrap().to_owned()).collect();
        let mut found: Vec<_> = outcome.referenced.iter().map(ToString::to_string).collect();
        found.sort();
        if found != wanted {
            return Some(format!("looked at {found:?}, must look at {wanted:?}"));
        }
    }
    match (outcome.value, text("error")) {
        (Err(_), wanted) if !wanted.is_empty() => None,
        (Err(error), _) => Some(format!("failed: {error}")),
        (Ok(found), "") => {
            let wanted = value(&case["result"]);
            (found != wanted).then(|| format!("came to {found:?}, must come to {wanted:?}"))
        }
        (Ok(found), wanted) => Some(format!("came to {found:?}, must fail: {wanted}")),
    }
}

fn value(given: &Json) -> Value {
    let value = &given["value"];
    let text = || value.as_str().unwrap();
    match Type::named(given["type"].as_str().unwrap()).unwrap() {
        Type::Int64 => Value::Int64(value.as_i64().unwrap()),
        Type::Double => Value::Double(value.as_f64().unwrap()),
        Type::Bool => Value::Bool(value.as_bool().unwrap()),
        Type::Timestamp => Value::Timestamp(timestamp(text()).unwrap()),
        Type::Duration => Value::Duration(Duration::parse(text()).unwrap().nanos),
        Type::IpAddress => Value::IpAddress(text().parse().unwrap()),
        Type::StringMap => {
            let entries = value.as_object().into_iter().flatten();
            Value::StringMap(Arc::new(entries.map(|(key, value)| (key.clone(), value.as_str().unwrap().to_owned())).collect()))
        }
        _ => Value::String(text().into()),
    }
}
