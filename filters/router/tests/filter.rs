//! The filter at work: the same expectations of its native code and of the module that ships. What the core does with an action is the proxy's own tests' part.

#![allow(clippy::unwrap_used, clippy::panic, reason = "a test that cannot go on should stop")]

use std::sync::{Arc, Mutex};

use weir_filter_router::Chooser;
use weir_sdk_testing::{RequestBuilder, Tester, Worker};
use weir_wasm::Foreign;

/// A host that knows routes: the actions that were defined, in order.
#[derive(Clone, Default)]
struct Core(Arc<Mutex<Vec<String>>>);

impl Core {
    fn on(&self, tester: Tester) -> Tester {
        let definer = self.0.clone();
        let define = move |action: &[u8]| {
            let text = String::from_utf8(action.to_vec()).unwrap();
            if text.contains("bad") {
                return Foreign::BadArgument;
            }
            let mut actions = definer.lock().unwrap();
            let at = actions.iter().position(|known| *known == text).unwrap_or_else(|| {
                actions.push(text);
                actions.len() - 1
            });
            Foreign::Done((at as u32 + 1).to_le_bytes().to_vec())
        };
        let refusal = |_: &[u8]| Foreign::Done(b"forward.clusters: it is not said where to".to_vec());
        tester.provide("weir.route.define", define).provide("weir.route.refusal", refusal)
    }

    /// The action that the request gets.
    fn chosen(&self, request: RequestBuilder<'_>) -> String {
        let exchange = request.run();
        assert!(exchange.reached_upstream());
        self.0.lock().unwrap()[exchange.route().unwrap() as usize - 1].clone()
    }
}

fn both(configuration: &str, check: impl Fn(&Core, &Worker)) {
    for tester in [Tester::native::<Chooser>(), Tester::of_crate(env!("CARGO_MANIFEST_DIR"))] {
        let core = Core::default();
        check(&core, &core.on(tester.configuration(configuration)).start().unwrap_or_else(|error| panic!("{error}")));
    }
}

const TABLE: &str = r#"{
    "actions": {"v1": {"forward":{"clusters":[{"name":"v1"}]}}},
    "virtualHosts": [
        {"hosts": ["reviews", "reviews.default.svc.cluster.local"], "routes": [
            {"match": [{"headers": [{"name": "end-user", "value": {"exact": "jason"}}]}], "action": {"forward":{"clusters":[{"name":"v2"}]}}},
            {"match": [{"path": {"prefix": "/old"}}, {"path": {"exact": "/ancient"}}], "action": {"redirect":{"host":"archive"}}},
            {"action": "v1"}
        ]},
        {"hosts": ["*.shop.example"], "routes": [{"match": [{"path": {"segmentPrefix": "/cart"}, "method": {"exact": "POST"}}], "action": "v1"}]}
    ]
}"#;

#[test]
fn a_request_gets_the_action_of_the_first_route_that_means_it() {
    both(TABLE, |core, worker| {
        let v1 = r#"{"forward":{"clusters":[{"name":"v1"}]}}"#;
        let v2 = r#"{"forward":{"clusters":[{"name":"v2"}]}}"#;
        assert_eq!(core.chosen(worker.get("/").authority("reviews")), v1);
        assert_eq!(core.chosen(worker.get("/").authority("reviews").header("end-user", "jason")), v2);
        assert_eq!(core.chosen(worker.get("/older").authority("REVIEWS:9080")), r#"{"redirect":{"host":"archive"}}"#);
        assert_eq!(core.chosen(worker.get("/ancient?x").authority("reviews")), r#"{"redirect":{"host":"archive"}}"#);
        assert_eq!(core.chosen(worker.request("POST", "/cart/1").authority("a.shop.example")), v1);
        assert_eq!(worker.metric("weir_router_unmatched_total"), Some(0));
        for request in [worker.get("/cart").authority("a.shop.example"), worker.get("/").authority("shop.example")] {
            assert_eq!(core.chosen(request), r#"{"respond":{"status":404}}"#);
        }
        assert_eq!(worker.metric("weir_router_unmatched_total"), Some(2));
        // `v1` stands in `actions` and in two routes.
        assert_eq!(core.0.lock().unwrap().len(), 4);
    });
}

#[test]
fn what_no_route_means_may_be_served_too() {
    both(r#"{"unmatched": {"respond":{"status":421}}}"#, |core, worker| {
        assert_eq!(core.chosen(worker.get("/")), r#"{"respond":{"status":421}}"#);
    });
}

#[test]
fn an_action_that_the_core_refuses_is_named() {
    let routed =
        |action: &str| format!(r#"{{"virtualHosts": [{{"hosts": ["a"], "routes": [{{"action": {{"ok":1}}}}, {{"action": {action}}}]}}]}}"#);
    for (configuration, said) in [
        (routed(r#"{"bad":1}"#), "virtualHosts[0].routes[1].action.forward.clusters: it is not said where to"),
        (routed(r#""nobody""#), "virtualHosts[0].routes[1].action: there is no \"nobody\" in `actions`"),
        (r#"{"actions": {"x": {"bad":1}}}"#.to_owned(), "actions.x.forward.clusters: it is not said where to"),
        (r#"{"unmatched": {"bad":1}}"#.to_owned(), "unmatched.forward.clusters: it is not said where to"),
        (r#"{"virtualHosts": [{"hosts": ["a"], "rotes": []}]}"#.to_owned(), "virtualHosts[0].rotes: unknown field `rotes`"),
    ] {
        for tester in [Tester::native::<Chooser>(), Tester::of_crate(env!("CARGO_MANIFEST_DIR"))] {
            let error = Core::default().on(tester.configuration(&configuration)).start().unwrap_err().to_string();
            assert!(error.contains(said), "{configuration}: {error}");
        }
    }
    let elsewhere = Tester::of_crate(env!("CARGO_MANIFEST_DIR")).start().unwrap_err().to_string();
    assert!(elsewhere.contains("this host cannot choose routes for a filter"), "{elsewhere}");
}
