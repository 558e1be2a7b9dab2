//! The life of streams, against a model: whatever messages, filters, callouts, clients and traps do, and in whatever order.
//!
//! Every filter of a case is the puppet, which asks the test what to do; the test writes down each callback and each action, and the model, a
//! plain state machine that knows nothing of the host, judges them as they come. What is judged: see [`model`].

#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, reason = "helpers of a test")]

mod driver;
mod model;
mod script;

use proptest::prelude::*;
use proptest::test_runner::{Config, FileFailurePersistence};

proptest! {
    #![proptest_config(Config {
        cases: std::env::var("PROPTEST_CASES").ok().and_then(|cases| cases.parse().ok()).unwrap_or(1000),
        failure_persistence: Some(Box::new(FileFailurePersistence::Off)),
        max_shrink_iters: 20_000,
        ..Config::default()
    })]

    #[test]
    fn nothing_breaks_the_life_of_a_stream(case in script::case()) {
        driver::run(&case).map_err(TestCaseError::fail)?;
    }
}
