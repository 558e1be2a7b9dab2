//! The filter in the production host: its native code, and the module that ships.

use my_filter::MyFilter;
use weir_sdk_testing::{Tester, Worker};

fn both(configuration: &str, check: impl Fn(&Worker)) {
    for tester in [Tester::native::<MyFilter>(), Tester::of_crate(env!("CARGO_MANIFEST_DIR"))] {
        check(&tester.tcp().configuration(configuration).start().unwrap_or_else(|error| panic!("{error}")));
    }
}

#[test]
fn the_expected_preface_passes_however_it_is_cut() {
    both(r#"{"preface": "HELLO "}"#, |worker| {
        for size in [1, 3, 64] {
            let mut connection = worker.connect();
            b"HELLO world".chunks(size).for_each(|piece| connection.from_client(piece));
            assert_eq!((connection.to_upstream(), connection.is_closed()), (&b"HELLO world"[..], false), "in pieces of {size}");
            connection.from_upstream(b"welcome");
            assert_eq!(connection.to_client(), b"welcome");
        }
        assert_eq!(worker.metric("my_filter_bytes_total"), Some(33));
    });
}

#[test]
fn another_preface_closes_the_connection() {
    both(r#"{"preface": "HELLO "}"#, |worker| {
        let mut connection = worker.connect();
        connection.from_client(b"HELP");
        assert_eq!((connection.to_upstream(), connection.is_closed()), (&b""[..], true));
        assert_eq!(worker.metric("my_filter_refused_total"), Some(1));
    });
}
