//! The filter at work: the same expectations of its native code and of the module that ships.

#![allow(clippy::unwrap_used, reason = "a test that cannot go on should stop")]

use weir_filter_headers::HeaderRules;
use weir_sdk_testing::{Tester, Worker};

fn both(configuration: &str, check: impl Fn(&Worker)) {
    for tester in [Tester::native::<HeaderRules>(), Tester::of_crate(env!("CARGO_MANIFEST_DIR"))] {
        check(&tester.configuration(configuration).start().unwrap());
    }
}

#[test]
fn removals_come_first_then_sets_then_additions() {
    let rules = r#"{"request": {"remove": ["x-gone", "x-set"], "set": {"x-set": "1", ":path": "/new"}, "add": {"x-set": "2"}}}"#;
    both(rules, |worker| {
        let exchange = worker.get("/old").header("x-gone", "a").header("x-gone", "b").header("x-set", "0").run();
        assert_eq!(exchange.request_header("x-gone"), None);
        assert_eq!(exchange.request_header(":path").as_deref(), Some("/new"));
        let all: Vec<_> = exchange.request_headers().into_iter().filter(|(name, _)| name == "x-set").map(|(_, value)| value).collect();
        assert_eq!(all, ["1", "2"]);
    });
}

#[test]
fn responses_are_changed_too_replies_included() {
    both(r#"{"response": {"set": {"server": "weir"}, "add": {"via": "1.1 weir"}}}"#, |worker| {
        let exchange = worker.get("/").upstream(200, &[("server", "nginx"), ("via", "1.1 other")], &["body"]).run();
        assert_eq!(exchange.response_header("server").as_deref(), Some("weir"));
        assert_eq!(exchange.body(), "body");
    });
}

#[test]
fn a_refusal_names_the_field() {
    for (rules, said) in [
        (r#"{"request": {"add": {":path": "/"}}}"#, "request.add.:path: a pseudo-header"),
        (r#"{"respones": {}}"#, "did you mean `response`?"),
    ] {
        for tester in [Tester::native::<HeaderRules>(), Tester::of_crate(env!("CARGO_MANIFEST_DIR"))] {
            let error = tester.configuration(rules).start().unwrap_err().to_string();
            assert!(error.contains(said), "{error}");
        }
    }
}
