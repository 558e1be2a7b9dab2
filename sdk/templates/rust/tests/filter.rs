//! The filter in the production host: its native code, and the module that ships.

use my_filter::MyFilter;
use weir_sdk_testing::{Tester, Worker};

fn both(configuration: &str, check: impl Fn(&Worker)) {
    for tester in [Tester::native::<MyFilter>(), Tester::of_crate(env!("CARGO_MANIFEST_DIR"))] {
        check(&tester.configuration(configuration).start().unwrap_or_else(|error| panic!("{error}")));
    }
}

#[test]
fn paths_are_refused_and_other_answers_marked() {
    both(r#"{"deny": ["/admin"], "greeting": "hi"}"#, |worker| {
        let refused = worker.get("/admin/users").run();
        assert_eq!((refused.status(), refused.reached_upstream()), (403, false));
        let passed = worker.get("/").run();
        assert_eq!((passed.status(), passed.response_header("x-my-filter").as_deref()), (200, Some("hi")));
    });
}

#[test]
fn a_mistake_in_the_configuration_is_named() {
    let error = Tester::native::<MyFilter>().configuration(r#"{"denny": []}"#).start().unwrap_err();
    assert!(error.to_string().contains("did you mean `deny`?"), "{error}");
}

/// Fails when the filter gets costlier: the host calls of one request are exact, the time is generous.
#[test]
fn it_stays_cheap() {
    let tester = Tester::of_crate(env!("CARGO_MANIFEST_DIR")).configuration(r#"{"deny": ["/admin"]}"#);
    let worker = tester.start().unwrap_or_else(|error| panic!("{error}"));
    worker.budget(|worker| worker.get("/").run()).host_calls(2).micros(500.0);
}
