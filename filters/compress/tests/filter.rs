//! The filter at work: the same expectations of its native code and of the module that ships.

#![allow(clippy::unwrap_used, clippy::panic, reason = "a test that cannot go on should stop")]

use std::io::Read;

use weir_filter_compress::Compressor;
use weir_sdk_testing::host_api::Side;
use weir_sdk_testing::{Exchange, Tester, Worker};

fn both(configuration: &str, check: impl Fn(&Worker)) {
    for tester in [Tester::native::<Compressor>(), Tester::of_crate(env!("CARGO_MANIFEST_DIR"))] {
        check(&tester.configuration(configuration).start().unwrap_or_else(|error| panic!("{error}")));
    }
}

/// Something that compresses, and in whose pieces nothing repeats by chance.
fn page(bytes: usize) -> String {
    (0_u64..)
        .map(|line| format!("<li>{}</li>\n", line.wrapping_mul(0x9e37_79b9_7f4a_7c15)))
        .flat_map(|line| line.chars().collect::<Vec<_>>())
        .take(bytes)
        .collect()
}

fn run(worker: &Worker, accepted: &str, headers: &[(&str, &str)], pieces: &[&str]) -> Exchange {
    let mut all = vec![("content-type", "text/html; charset=utf-8")];
    all.extend(headers);
    worker.get("/").header("accept-encoding", accepted).upstream(200, &all, pieces).run()
}

fn unpacked(exchange: &Exchange) -> Vec<u8> {
    let (bytes, mut out) = (exchange.body_bytes(), Vec::new());
    match exchange.response_header("content-encoding").as_deref() {
        Some("gzip") => flate2::read::GzDecoder::new(bytes).read_to_end(&mut out).unwrap(),
        Some("br") => brotli::Decompressor::new(bytes, 4096).read_to_end(&mut out).unwrap(),
        other => panic!("{other:?}"),
    };
    out
}

#[test]
fn what_comes_out_is_what_went_in_however_it_was_cut() {
    let page = page(200_000);
    let cuts: [Vec<&str>; 3] = [
        vec![&page],
        page.as_bytes().chunks(9_973).map(|piece| std::str::from_utf8(piece).unwrap()).collect(),
        page.as_bytes()[..600].chunks(1).map(|piece| std::str::from_utf8(piece).unwrap()).collect(),
    ];
    both("{}", |worker| {
        for (accepted, encoding) in [("gzip", "gzip"), ("br", "br"), ("gzip, br", "br")] {
            for pieces in &cuts {
                let compressed = run(worker, accepted, &[], pieces);
                assert_eq!(compressed.response_header("content-encoding").as_deref(), Some(encoding));
                assert_eq!(unpacked(&compressed), pieces.concat().as_bytes());
                if pieces.len() < 600 {
                    assert!(compressed.body_bytes().len() < page.len() / 2, "{encoding}: {}", compressed.body_bytes().len());
                }
            }
        }
    });
}

#[test]
fn headers_say_what_became_of_the_response() {
    let page = page(2_000);
    let length = page.len().to_string();
    let headers =
        [("content-length", length.as_str()), ("etag", "\"a\""), ("vary", "origin"), ("accept-ranges", "bytes"), ("content-md5", "x")];
    both("{}", |worker| {
        let compressed = run(worker, "gzip", &headers, &[&page]);
        for (name, value) in [
            ("content-length", None),
            ("etag", Some("W/\"a\"")),
            ("vary", Some("origin, accept-encoding")),
            ("accept-ranges", None),
            ("content-md5", None),
        ] {
            assert_eq!(compressed.response_header(name).as_deref(), value, "{name}");
        }
        assert_eq!(unpacked(&compressed), page.as_bytes());
        let weak = run(worker, "gzip", &[("etag", "W/\"a\"")], &[&page]);
        assert_eq!(weak.response_header("etag").as_deref(), Some("W/\"a\""));
        let plain = run(worker, "identity", &headers, &[&page]);
        assert_eq!(plain.body(), page);
        assert_eq!(
            (plain.response_header("vary").as_deref(), plain.response_header("etag").as_deref()),
            (Some("origin, accept-encoding"), Some("\"a\""))
        );
    });
}

#[test]
fn some_responses_stay_as_they_are() {
    let page = page(2_000);
    both("{}", |worker| {
        let untouched = |exchange: &Exchange, why: &str| {
            assert_eq!(exchange.response_header("content-encoding").filter(|coding| coding != "zstd"), None, "{why}");
            assert_eq!(exchange.response_header("vary"), None, "{why}");
        };
        for (name, value) in [
            ("content-encoding", "zstd"),
            ("cache-control", "public, No-Transform"),
            ("content-range", "bytes 0-9/10"),
            ("content-length", "1023"),
        ] {
            untouched(&run(worker, "gzip", &[(name, value)], &[&page[..1023]]), name);
        }
        for status in [204, 206, 304] {
            untouched(
                &worker.get("/").header("accept-encoding", "gzip").upstream(status, &[("content-type", "text/html")], &[]).run(),
                "status",
            );
        }
        for kind in ["image/png", "application/octet-stream", "application/grpc", "texts/html"] {
            let exchange = worker.get("/").header("accept-encoding", "gzip").upstream(200, &[("content-type", kind)], &[&page]).run();
            untouched(&exchange, kind);
        }
        for kind in ["TEXT/HTML", "application/problem+json", "image/svg+xml", "application/json;charset=utf-8"] {
            let exchange = worker.get("/").header("accept-encoding", "gzip").upstream(200, &[("content-type", kind)], &[&page]).run();
            assert_eq!(exchange.response_header("content-encoding").as_deref(), Some("gzip"), "{kind}");
        }
        let head = worker.request("HEAD", "/").header("accept-encoding", "gzip").upstream(200, &[("content-type", "text/html")], &[]).run();
        assert_eq!(head.response_header("content-encoding"), None);
    });
}

#[test]
fn events_go_out_at_once() {
    both("{}", |worker| {
        for accepted in ["gzip", "br"] {
            let mut stream = worker
                .get("/")
                .header("accept-encoding", accepted)
                .upstream(200, &[("content-type", "text/event-stream")], &["data: 1\n\n", "data: 2\n\n"])
                .run();
            assert!(stream.go_on());
            assert_eq!(unpacked(&stream), b"data: 1\n\ndata: 2\n\n");
        }
    });
}

#[test]
fn a_response_with_trailers_ends_before_them() {
    let page = page(2_000);
    both("{}", |worker| {
        let upstream = worker
            .get("/")
            .header("accept-encoding", "gzip")
            .upstream(200, &[("content-type", "text/html")], &[&page])
            .upstream_trailers(&[("x-sum", "1")]);
        let exchange = upstream.run();
        assert_eq!(unpacked(&exchange), page.as_bytes());
        assert!(exchange.has_trailers(Side::Response));
    });
}

#[test]
fn no_more_run_at_once_than_are_allowed() {
    let page = page(2_000);
    both(r#"{"atOnce": 0}"#, |worker| {
        assert_eq!(run(worker, "gzip", &[], &[&page]).body(), page);
        assert_eq!(worker.metric("weir_compress_responses_total"), Some(0));
    });
    both(r#"{"atOnce": 1}"#, |worker| {
        for _ in 0..3 {
            assert_eq!(unpacked(&run(worker, "gzip", &[], &[&page])), page.as_bytes(), "each has ended before the next");
        }
    });
}

#[test]
fn a_refusal_names_the_field() {
    for (configuration, said) in [
        (r#"{"encodings": []}"#, "encodings: nothing is offered"),
        (r#"{"encodings": ["zstd"]}"#, "unknown variant `zstd`"),
        (r#"{"gzipLevel": 10}"#, "gzipLevel: it is 1 to 9"),
        (r#"{"brotliLevel": 6}"#, "brotliLevel: it is 0 to 5"),
        (r#"{"contentTypes": ["text/*", "html"]}"#, "contentTypes[1]: \"html\" is no content type"),
    ] {
        let error = Tester::native::<Compressor>().configuration(configuration).start().unwrap_err().to_string();
        assert!(error.contains(said), "{configuration}: {error}");
    }
}

#[test]
fn a_piece_fits_a_callback() {
    let page = page(64 << 10);
    let worker = Tester::of_crate(env!("CARGO_MANIFEST_DIR")).start().unwrap();
    for accepted in ["gzip", "br"] {
        let budget = worker.budget(|worker| run(worker, accepted, &[], &[&page]));
        println!("{accepted}: {:.0} µs for 64 KiB, {} KiB of memory", budget.micros, budget.memory >> 10);
        // The deadline of a callback is 20 ms.
        budget.micros(19_000.0).memory(16 << 20);
    }
}
