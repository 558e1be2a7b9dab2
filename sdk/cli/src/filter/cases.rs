//! `weir filter test`: the project's own tests, then `tests/cases.json`: requests and what is expected of them, through the module in the production host,
//! whatever language it was written in.
//!
//! Always: every case runs, in a worker of its own; one that expects nothing is a mistake and fails. What it does not do: callouts; those are for tests in Rust.

use std::collections::BTreeMap;

use serde::Deserialize;
use serde_json::{Value, json};
use weir_sdk_testing::{Exchange, Tester};
use weir_wasm::{Engine, EngineOptions};

use crate::failure::{Done, Failure, io};
use crate::filter::project::Project;
use crate::filter::source;
use crate::out::{Out, Paint};

/// One case.
#[derive(Debug, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
struct Case {
    name: String,
    /// What the filter is configured with: a text as it is, anything else as JSON.
    #[serde(default)]
    config: Option<Value>,
    #[serde(default)]
    request: Request,
    #[serde(default)]
    upstream: Upstream,
    expect: Expect,
}

#[derive(Debug, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields, default)]
struct Request {
    method: String,
    path: String,
    authority: String,
    headers: BTreeMap<String, String>,
    body: String,
}

impl Default for Request {
    fn default() -> Self {
        let (method, path, authority) = ("GET".into(), "/".into(), "test.example".into());
        Self { method, path, authority, headers: BTreeMap::new(), body: String::new() }
    }
}

#[derive(Debug, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields, default)]
struct Upstream {
    status: u16,
    headers: BTreeMap<String, String>,
    body: String,
}

impl Default for Upstream {
    fn default() -> Self {
        Self { status: 200, headers: BTreeMap::new(), body: "upstream".into() }
    }
}

/// What must be so; what is not said may be anything.
#[derive(Debug, Default, Deserialize, PartialEq)]
#[serde(rename_all = "camelCase", deny_unknown_fields, default)]
struct Expect {
    status: Option<u16>,
    /// Of the response; `null` for one that must not be there.
    headers: BTreeMap<String, Option<String>>,
    body: Option<String>,
    /// Of the request as the upstream got it.
    request_headers: BTreeMap<String, Option<String>>,
    request_body: Option<String>,
    reaches_upstream: Option<bool>,
    /// A piece of a line that was logged.
    logged: Option<String>,
    /// A piece of the error with which the configuration is refused.
    refused: Option<String>,
    /// Host calls of the one request.
    host_calls: Option<u64>,
}

pub(crate) fn test(project: &Project, out: &Out) -> Done {
    let own = project.test()?;
    let file = project.folder.join("tests/cases.json");
    let cases: Vec<Case> = match std::fs::read_to_string(&file) {
        Ok(text) => serde_json::from_str(&text).map_err(|error| Failure::new(format!("{}: {error}", file.display())))?,
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => Vec::new(),
        Err(error) => return Err(io(&file)(error)),
    };
    let mut results = Vec::new();
    if !cases.is_empty() {
        let module = source::file(&project.build(out)?)?;
        let engine = Engine::new(EngineOptions::default()).map_err(|error| Failure::new(format!("no Wasm engine: {error}")))?;
        results.extend(cases.iter().map(|case| (case.name.clone(), run(&engine, &module.bytes, case))));
    }
    if own.is_none() && results.is_empty() {
        return Err(Failure::new("the project has no tests").help(format!("write some into {}", file.display())));
    }
    let failed = results.iter().filter(|(_, result)| result.is_err()).count();
    let cases = results.iter().map(|(name, result)| json!({"name": name, "passed": result.is_ok(), "why": result.as_ref().err()}));
    let value = json!({"own": own, "cases": cases.collect::<Vec<_>>(), "failed": failed});
    out.value(&value, |out| {
        let mut text = String::new();
        for (name, result) in &results {
            text += &match result {
                Ok(()) => format!("case {name} ... {}\n", out.paint(Paint::Green, "ok")),
                Err(why) => format!("case {name} ... {}\n  {}\n", out.paint(Paint::Red, "FAILED"), why.join("\n  ")),
            };
        }
        let own = own.map_or("", |passed| if passed { "own tests passed" } else { "own tests FAILED" });
        let cases = if results.is_empty() { String::new() } else { format!("{} cases, {failed} failed", results.len()) };
        text + &[own, &cases].into_iter().filter(|part| !part.is_empty()).collect::<Vec<_>>().join("; ") + "\n"
    });
    if failed == 0 && own != Some(false) { Ok(()) } else { Err(Failure::told()) }
}

/// Runs one, and says everything that is not as expected.
fn run(engine: &Engine, module: &[u8], case: &Case) -> Result<(), Vec<String>> {
    if case.expect == Expect::default() {
        return Err(vec!["it expects nothing".into()]);
    }
    let config = match &case.config {
        None => String::new(),
        Some(Value::String(text)) => text.clone(),
        Some(other) => other.to_string(),
    };
    let started = Tester::with_engine(engine, module).configuration(&config).start();
    let worker = match (started, &case.expect.refused) {
        (Ok(worker), None) => worker,
        (Ok(_), Some(_)) => return Err(vec!["the configuration was taken".into()]),
        (Err(error), None) => return Err(vec![error.to_string()]),
        (Err(error), Some(expected)) => {
            let error = error.to_string();
            return if error.contains(expected) {
                Ok(())
            } else {
                Err(vec![format!("refused with {error:?}, which does not say {expected:?}")])
            };
        }
    };
    let borrow = |headers: &BTreeMap<String, String>| headers.iter().map(|(name, value)| (name.clone(), value.clone())).collect::<Vec<_>>();
    let mut request = worker.request(&case.request.method, &case.request.path).authority(&case.request.authority);
    for (name, value) in &case.request.headers {
        request = request.header(name, value);
    }
    if !case.request.body.is_empty() {
        request = request.body(&[&case.request.body]);
    }
    let headers = borrow(&case.upstream.headers);
    let headers: Vec<(&str, &str)> = headers.iter().map(|(name, value)| (name.as_str(), value.as_str())).collect();
    let body: Vec<&str> = [case.upstream.body.as_str()].into_iter().filter(|body| !body.is_empty()).collect();
    let before = worker.host_calls();
    let mut exchange = request.upstream(case.upstream.status, &headers, &body).run();
    exchange.end_delays();
    let host_calls = worker.host_calls() - before;
    let mut wrong = compare(&case.expect, &exchange);
    if let Some(expected) = case.expect.host_calls.filter(|expected| *expected != host_calls) {
        wrong.push(format!("host calls: {host_calls} instead of {expected}"));
    }
    if let Some(expected) = &case.expect.logged
        && !worker.logged(expected)
    {
        wrong.push(format!("nothing that was logged says {expected:?}"));
    }
    if wrong.is_empty() { Ok(()) } else { Err(wrong) }
}

fn compare(expect: &Expect, exchange: &Exchange) -> Vec<String> {
    let mut wrong = Vec::new();
    let mut same = |what: &str, expected: Option<String>, found: String| {
        if expected.as_ref().is_some_and(|expected| *expected != found) {
            wrong.push(format!("{what}: {found:?} instead of {:?}", expected.unwrap_or_default()));
        }
    };
    same("status", expect.status.map(|status| status.to_string()), exchange.status().to_string());
    same("body", expect.body.clone(), exchange.body());
    same("the request's body", expect.request_body.clone(), exchange.request_body());
    same("reaches the upstream", expect.reaches_upstream.map(|reaches| reaches.to_string()), exchange.reached_upstream().to_string());
    for (name, expected) in &expect.headers {
        let shown = |value: &Option<String>| value.clone().unwrap_or_else(|| "(absent)".into());
        same(name, Some(shown(expected)), shown(&exchange.response_header(name)));
    }
    for (name, expected) in &expect.request_headers {
        let shown = |value: &Option<String>| value.clone().unwrap_or_else(|| "(absent)".into());
        same(&format!("the request's {name}"), Some(shown(expected)), shown(&exchange.request_header(name)));
    }
    wrong
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, reason = "a test that cannot go on should stop")]

    use super::*;

    fn case(text: &str) -> Result<(), Vec<String>> {
        let engine = Engine::new(EngineOptions::default()).unwrap();
        let headers = weir_filters::builtin("headers").unwrap();
        run(&engine, headers.bytes, &serde_json::from_str(text).unwrap())
    }

    #[test]
    fn a_case_passes_or_says_everything_that_is_wrong() {
        let good = r#"{"name": "a", "config": {"response": {"set": {"x-a": "1"}}},
            "expect": {"status": 200, "headers": {"x-a": "1", "x-b": null}, "body": "upstream", "reachesUpstream": true}}"#;
        assert_eq!(case(good), Ok(()));
        let wrong = r#"{"name": "a", "config": {"response": {"set": {"x-a": "1"}}}, "request": {"path": "/x"}, "upstream": {"status": 404},
            "expect": {"status": 200, "headers": {"x-a": "2"}, "requestHeaders": {":path": "/y"}, "hostCalls": 999, "logged": "never"}}"#;
        let why = case(wrong).unwrap_err().join("\n");
        for said in [r#"status: "404" instead of "200""#, r#"x-a: "1" instead of "2""#, r#":path: "/x" instead of "/y""#, "of 999", "never"]
        {
            assert!(why.contains(said), "{said}: {why}");
        }
        assert!(case(r#"{"name": "a", "expect": {}}"#).unwrap_err()[0].contains("expects nothing"));
        assert_eq!(case(r#"{"name": "a", "config": {"responce": {}}, "expect": {"refused": "response"}}"#), Ok(()));
        assert!(case(r#"{"name": "a", "config": {}, "expect": {"refused": "x"}}"#).unwrap_err()[0].contains("was taken"));
        assert!(serde_json::from_str::<Case>(r#"{"name": "a", "expect": {"stat": 1}}"#).is_err());
    }
}
