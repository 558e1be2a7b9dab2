//! The filter at work: the same expectations of its native code and of the module that ships.

#![allow(clippy::unwrap_used, clippy::panic, reason = "a test that cannot go on should stop")]

use weir_filter_cors::CrossOrigin;
use weir_sdk_testing::{Exchange, Tester, Worker};

fn both(configuration: &str, check: impl Fn(&Worker)) {
    for tester in [Tester::native::<CrossOrigin>(), Tester::of_crate(env!("CARGO_MANIFEST_DIR"))] {
        check(&tester.configuration(configuration).start().unwrap_or_else(|error| panic!("{error}")));
    }
}

const POLICY: &str = r#"{
    "allowOrigins": [{"exact": "https://a.example.com"}, {"prefix": "https://b."}, {"regex": "https://.*\\.c\\.com"}],
    "allowMethods": ["GET", "POST"], "allowHeaders": ["x-foo"], "exposeHeaders": ["x-bar"], "maxAge": "24h", "allowCredentials": true
}"#;

fn preflight(worker: &Worker, origin: &str) -> Exchange {
    worker.request("OPTIONS", "/").header("origin", origin).header("access-control-request-method", "POST").run()
}

fn get(worker: &Worker, origin: &str, upstream: &[(&str, &str)]) -> Exchange {
    worker.get("/").header("origin", origin).upstream(200, upstream, &["upstream"]).run()
}

#[test]
fn preflights_from_allowed_origins_are_answered() {
    both(POLICY, |worker| {
        for origin in ["https://a.example.com", "https://b.anything", "https://x.c.com"] {
            let answered = preflight(worker, origin);
            assert_eq!((answered.status(), answered.reached_upstream()), (200, false), "{origin}");
            for (name, value) in [
                ("access-control-allow-origin", origin),
                ("access-control-allow-methods", "GET,POST"),
                ("access-control-allow-headers", "x-foo"),
                ("access-control-max-age", "86400"),
                ("access-control-allow-credentials", "true"),
            ] {
                assert_eq!(answered.response_header(name).as_deref(), Some(value), "{origin} {name}");
            }
            assert!(answered.response_header("vary").unwrap().contains("origin"));
            assert_eq!(answered.response_header("access-control-expose-headers"), None);
            assert_eq!(answered.local_reply().unwrap().details, "cors_preflight");
        }
        for origin in ["https://a.example.com.evil", "http://a.example.com", "https://c.com", "null", "https://a.example.com, https://evil"]
        {
            let forwarded = preflight(worker, origin);
            assert!(forwarded.reached_upstream(), "{origin}");
            assert_eq!(forwarded.response_header("access-control-allow-origin"), None, "{origin}");
        }
        let plain = worker.request("OPTIONS", "/").header("origin", "https://a.example.com").run();
        assert!(plain.reached_upstream(), "OPTIONS alone is no preflight");
    });
    both(&POLICY.replacen('{', r#"{"unmatchedPreflights": "IGNORE","#, 1), |worker| {
        let ignored = preflight(worker, "https://evil");
        assert_eq!((ignored.status(), ignored.reached_upstream()), (200, false));
        assert_eq!(ignored.response_header("access-control-allow-origin"), None);
    });
}

#[test]
fn responses_say_what_the_policy_says_whatever_the_upstream_said() {
    both(POLICY, |worker| {
        let said = [("access-control-allow-origin", "*"), ("access-control-expose-headers", "x-all"), ("vary", "accept-encoding")];
        let allowed = get(worker, "https://a.example.com", &said);
        for (name, value) in [
            ("access-control-allow-origin", "https://a.example.com"),
            ("access-control-expose-headers", "x-bar"),
            ("access-control-allow-credentials", "true"),
            ("vary", "accept-encoding, origin"),
        ] {
            assert_eq!(allowed.response_header(name).as_deref(), Some(value), "{name}");
        }
        let other = get(worker, "https://evil", &said);
        assert_eq!(other.response_header("access-control-allow-origin").as_deref(), Some("*"), "the upstream's own, as in Envoy");
        let none = worker.get("/").run();
        assert_eq!(none.response_header("access-control-allow-origin"), None);
        assert_eq!(none.response_header("vary").as_deref(), Some("origin"), "caches must not mix them up");
        assert_eq!(get(worker, "https://evil", &[("vary", "Origin")]).response_header("vary").as_deref(), Some("Origin"));
    });
    both(r#"{"allowOrigins": [{"exact": "*"}]}"#, |worker| {
        let allowed = get(worker, "https://any", &[("access-control-allow-credentials", "true")]);
        assert_eq!(allowed.response_header("access-control-allow-origin").as_deref(), Some("https://any"));
        assert_eq!(allowed.response_header("access-control-allow-credentials"), None, "the policy does not say so");
    });
    both("{}", |worker| {
        let untouched = get(worker, "https://a", &[("access-control-allow-origin", "*")]);
        assert_eq!(untouched.response_header("access-control-allow-origin").as_deref(), Some("*"));
        assert_eq!(untouched.response_header("vary"), None);
    });
    both(r#"{"allowOrigin": ["https://old"]}"#, |worker| {
        assert!(get(worker, "https://old", &[]).response_header("access-control-allow-origin").is_some());
    });
}

#[test]
fn a_refusal_names_the_field() {
    for (configuration, said) in [
        (r#"{"allowOrigins": [{}]}"#, "allowOrigins[0]: exactly one of"),
        (r#"{"allowOrigins": [{"exact": "a", "prefix": "b"}]}"#, "allowOrigins[0]: exactly one of"),
        (r#"{"allowOrigins": [{"regex": "("}]}"#, "allowOrigins[0].regex"),
        (r#"{"allowMethods": ["GET", "a b"]}"#, "allowMethods[1]"),
        (r#"{"maxAge": "1ms"}"#, "maxAge: \"1ms\" is no time"),
        (r#"{"allowOrigns": []}"#, "did you mean"),
    ] {
        let error = Tester::native::<CrossOrigin>().configuration(configuration).start().unwrap_err().to_string();
        assert!(error.contains(said), "{configuration}: {error}");
    }
}

#[test]
fn a_request_costs_few_host_calls() {
    let worker = Tester::of_crate(env!("CARGO_MANIFEST_DIR")).configuration(POLICY).start().unwrap();
    // origin; vary read and written.
    worker.budget(|worker| worker.get("/").run()).host_calls(3);
}
