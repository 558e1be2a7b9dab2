//! The filter at work: the same expectations of its native code and of the module that ships.

#![allow(clippy::unwrap_used, clippy::panic, reason = "a test that cannot go on should stop")]

use weir_filter_deny::Denier;
use weir_sdk_testing::{RequestBuilder, Tester, Value, Worker};

fn both(configuration: &str, check: impl Fn(&Worker)) {
    for tester in [Tester::native::<Denier>(), Tester::of_crate(env!("CARGO_MANIFEST_DIR"))] {
        check(&tester.configuration(configuration).start().unwrap_or_else(|error| panic!("{error}")));
    }
}

fn from<'w>(request: RequestBuilder<'w>, address: &str) -> RequestBuilder<'w> {
    request.stream(|stream| stream.set_attribute_value("source.address", Value::Bytes(address.as_bytes().to_vec().into())))
}

#[test]
fn the_first_rule_that_means_a_request_answers_it() {
    let rules = r#"{"rules": [
        {"name": "writes", "when": {"methods": ["POST", "PUT"], "path": {"prefix": "/admin"}},
         "unless": {"headers": [{"name": "x-role", "value": {"exact": "root"}}]},
         "answer": {"status": 451, "body": "no", "headers": {"x-why": "policy"}, "grpcStatus": 7}},
        {"name": "admin", "when": {"path": {"prefix": "/admin"}, "hosts": ["*.example"]}}
    ]}"#;
    both(rules, |worker| {
        let denied = worker.request("POST", "/admin?x=1").run();
        assert_eq!((denied.status(), denied.body().as_str()), (451, "no"));
        assert_eq!(denied.response_header("x-why").as_deref(), Some("policy"));
        assert_eq!(denied.local_reply().unwrap().details, "denied_by{writes}");
        assert_eq!(worker.request("POST", "/admin").header("x-role", "root").run().status(), 403, "the second rule");
        assert_eq!(worker.get("/public").run().status(), 200);
        assert!(!denied.reached_upstream());
    });
}

#[test]
fn a_dry_run_only_counts() {
    both(r#"{"rules": [{"name": "all", "dryRun": true}]}"#, |worker| {
        assert_eq!(worker.get("/").run().status(), 200);
        assert_eq!(worker.metric("weir_deny_requests_total"), Some(1));
        assert!(worker.host.logged("rule \"all\" would refuse this request"));
    });
}

#[test]
fn lists_refuse_what_is_listed_or_what_is_not() {
    let listed =
        r#"{"rules": [{"name": "l", "list": {"of": {"header": "x-user"}, "entries": ["eve", "mallory"], "compare": "ignoreCase"}}]}"#;
    both(listed, |worker| {
        assert_eq!(worker.get("/").header("x-user", "EVE").run().status(), 403);
        assert_eq!(worker.get("/").header("x-user", "anna").run().status(), 200);
        assert_eq!(worker.get("/").run().status(), 200);
    });
    let unlisted = r#"{"rules": [{"name": "l", "list": {"of": "sourceAddress", "entries": ["10.0.0.0/8", "::1"], "compare": "cidr", "refuse": "unlisted"}}]}"#;
    both(unlisted, |worker| {
        assert_eq!(from(worker.get("/"), "10.1.2.3:5000").run().status(), 200);
        assert_eq!(from(worker.get("/"), "[::1]:5000").run().status(), 200);
        assert_eq!(from(worker.get("/"), "192.0.2.1:5000").run().status(), 403);
        assert_eq!(worker.get("/").run().status(), 403, "an unknown client is not listed");
    });
    let patterns = r#"{"rules": [{"name": "l", "list": {"of": {"attribute": "connection.requested_server_name"}, "entries": ["a+", "b"], "compare": "regex"}}]}"#;
    both(patterns, |worker| {
        let with_id = |id: &str| {
            worker.get("/").stream(|stream| {
                stream.set_attribute_value("connection.requested_server_name", Value::Bytes(id.as_bytes().to_vec().into()));
            })
        };
        assert_eq!(with_id("aaa").run().status(), 403);
        assert_eq!(with_id("ab").run().status(), 200);
    });
}

#[test]
fn an_expression_is_a_condition_like_the_others() {
    let rules = r#"{"rules": [
        {"name": "large", "expression": "int(request.headers['x-size']) > 10 && request.path.startsWith('/up') && request.method in ['PUT', 'POST']"},
        {"name": "office", "when": {"path": {"exact": "/office"}}, "expression": "!source.address.startsWith('10.')", "answer": {"status": 401}}
    ]}"#;
    both(rules, |worker| {
        assert_eq!(worker.request("PUT", "/upload").header("x-size", "11").run().status(), 403);
        assert_eq!(worker.request("PUT", "/upload").header("x-size", "9").run().status(), 200);
        assert_eq!(worker.request("GET", "/upload").header("x-size", "11").run().status(), 200);
        assert_eq!(worker.request("PUT", "/upload").run().status(), 200, "it has no value");
        assert_eq!(worker.request("PUT", "/upload").header("x-size", "many").run().status(), 200, "nor here");
        assert_eq!(from(worker.get("/office"), "192.0.2.1:5000").run().status(), 401);
        assert_eq!(from(worker.get("/office"), "10.1.2.3:5000").run().status(), 200);
        assert_eq!(from(worker.get("/elsewhere"), "192.0.2.1:5000").run().status(), 200);
    });
}

#[test]
fn one_path_in_many_spellings_is_one_path() {
    let rules = r#"{"rules": [{"name": "q", "when": {"query": [{"name": "admin", "value": {"exact": "yes"}}]}}, {"name": "h", "when": {"hosts": ["secret.example"]}}]}"#;
    both(rules, |worker| {
        for path in ["/?admin=yes", "/?a=1&admin=yes", "/?%61dmin=yes", "/?admin=%79es"] {
            assert_eq!(worker.get(path).run().status(), 403, "{path}");
        }
        assert_eq!(worker.get("/admin=yes").run().status(), 200);
        for host in ["secret.example", "SECRET.example", "secret.example:8080", "secret.example."] {
            let exchange = worker.get("/").stream(|_| ()).authority(host).run();
            assert_eq!(exchange.status(), 403, "{host}");
        }
    });
}

#[test]
fn a_refusal_names_the_rule_and_the_field() {
    for (rules, said) in [
        (r#"{"rules": [{"name": "a"}, {"name": ""}]}"#, "rules[1].name: a rule needs a name"),
        (r#"{"rules": [{"name": "a", "when": {"path": {"regex": "("}}}]}"#, "rules[0].when.path.regex: \"(\" is no regular expression"),
        (r#"{"rules": [{"name": "a", "when": {"methods": ["GET "]}}]}"#, "rules[0].when.methods[0]"),
        (r#"{"rules": [{"name": "a", "answer": {"status": 99}}]}"#, "rules[0].answer.status: 99"),
        (
            r#"{"rules": [{"name": "a", "list": {"of": "sourceAddress", "entries": ["x"], "compare": "cidr"}}]}"#,
            "rules[0].list.entries[0]: \"x\"",
        ),
        (
            r#"{"rules": [{"name": "a", "expression": "request.headers['a'] = 'b'"}]}"#,
            "rules[0].expression: column 22: `=` alone means nothing; `==` is meant",
        ),
        (
            r#"{"rules": [{"name": "a", "expression": "request.pathh == '/'"}]}"#,
            "rules[0].expression: column 9: there is no attribute `request.pathh`",
        ),
        (r#"{"rules": [{"name": "a", "wen": {}}]}"#, "did you mean `when`?"),
    ] {
        for tester in [Tester::native::<Denier>(), Tester::of_crate(env!("CARGO_MANIFEST_DIR"))] {
            let error = tester.configuration(rules).start().unwrap_err().to_string();
            assert!(error.contains(said), "{rules}: {error}");
        }
    }
}
