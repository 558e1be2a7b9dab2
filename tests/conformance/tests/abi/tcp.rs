//! TCP connections.

use bytes::Bytes;
use weir_sdk_testing::{MemoryStream, Worker};
use weir_wasm::stats::Counter;
use weir_wasm::{Close, FailurePolicy, Kind, Side, Stream};

use crate::guest::{Data, Guest, I, S, Step, call};
use crate::story::{Scene, Story};

const ALL: &str =
    "context_create new_connection downstream_data upstream_data downstream_connection_close upstream_connection_close log done delete";

fn start(guest: Guest) -> (Worker, Story) {
    let (worker, story) = Scene::of(guest).binding(0, |binding| (binding.kind, binding.limits.body) = (Kind::Tcp, 8)).start();
    story.clear();
    (worker, story)
}

fn text(stream: &mut Stream<MemoryStream>, side: Side) -> String {
    String::from_utf8_lossy(&stream.take(side).data).into_owned()
}

fn send(stream: &mut Stream<MemoryStream>, side: Side, data: &'static str, end: bool) -> String {
    match side {
        Side::Request => stream.request_body(Bytes::from_static(data.as_bytes()), end),
        Side::Response => stream.response_body(Bytes::from_static(data.as_bytes()), end),
    }
    text(stream, side)
}

#[test]
fn a_connection_from_first_to_last() {
    let (worker, story) = start(Guest::new().watching(ALL));
    let mut stream = worker.stream();
    stream.new_connection();
    assert!(stream.take(Side::Request).head);
    assert_eq!(send(&mut stream, Side::Request, "hello", false), "hello");
    assert_eq!(send(&mut stream, Side::Response, "hi", false), "hi");
    assert_eq!(send(&mut stream, Side::Request, "", true), "");
    stream.connection_closed(Side::Request, Close::Remote);
    stream.connection_closed(Side::Response, Close::Local);
    drop(stream);
    let want = [
        "context_create(2,1)",
        "new_connection(2)",
        "downstream_data(2,5,0)",
        "upstream_data(2,2,0)",
        "downstream_data(2,0,1)",
        "downstream_connection_close(2,2)",
        "upstream_connection_close(2,1)",
        "log(2)",
        "done(2)",
        "delete(2)",
    ];
    assert_eq!(story.callbacks(), want.map(|text| format!("a.{text}")));
}

#[test]
fn data_accumulates_while_paused_and_can_be_changed() {
    let wait = Step::Raw("(if (i32.lt_u (local.get 1) (i32.const 4)) (then (return (i32.const 1))))".into());
    let guest = Guest::new()
        .on("downstream_data", [wait.clone(), call("proxy_set_buffer_bytes", [I(2), I(0), I(2), S("X")])])
        .on("upstream_data", [call("proxy_get_buffer_bytes", [I(3), I(0), I(99), Data])]);
    let (worker, story) = start(guest);
    let mut stream = worker.stream();
    stream.new_connection();
    assert_eq!(send(&mut stream, Side::Request, "ab", false), "");
    assert_eq!(send(&mut stream, Side::Request, "cd", false), "Xcd");
    assert_eq!(send(&mut stream, Side::Response, "ok", false), "ok");
    assert_eq!(story.data("proxy_get_buffer_bytes"), ["ok"]);
}

#[test]
fn a_paused_connection_waits_and_continues() {
    let timer = call("proxy_set_tick_period_milliseconds", [I(1)]);
    let go_on = [call("proxy_set_effective_context", [I(2)]), call("proxy_continue_stream", [I(2)])];
    let guest = Guest::new().on("configure", [timer]).on("new_connection", [Step::Return(1)]).on("tick", go_on).watching("downstream_data");
    let (worker, story) = start(guest);
    let mut stream = worker.stream();
    stream.new_connection();
    assert_eq!(send(&mut stream, Side::Request, "early", false), "");
    assert!(stream.is_paused(Side::Request) && !story.names().contains("downstream_data"));
    worker.host.advance(std::time::Duration::from_secs(1));
    worker.run_timers();
    assert_eq!(stream.host().wakes, 1);
    stream.resume();
    assert_eq!(text(&mut stream, Side::Request), "early");
}

#[test]
fn too_much_paused_data_closes_the_connection() {
    let (worker, _) = start(Guest::new().on("downstream_data", [Step::Return(1)]));
    let mut stream = worker.stream();
    stream.new_connection();
    assert_eq!(send(&mut stream, Side::Request, "12345678", false), "");
    assert!(!stream.is_reset());
    assert_eq!(send(&mut stream, Side::Request, "9", false), "");
    assert!(stream.is_reset());
    assert_eq!(worker.stats().counter(Counter::BodyLimitHits), 1);
}

#[test]
fn a_trap_closes_the_connection_or_lets_it_pass() {
    for policy in [FailurePolicy::Closed, FailurePolicy::Open] {
        let guest = Guest::new().watching(ALL).on("downstream_data", [Step::Raw("unreachable".into())]);
        let (worker, story) =
            Scene::of(guest).binding(0, move |binding| (binding.kind, binding.failure_policy) = (Kind::Tcp, policy)).start();
        let mut stream = worker.stream();
        stream.new_connection();
        let through = send(&mut stream, Side::Request, "hello", false);
        assert_eq!(stream.is_reset(), policy == FailurePolicy::Closed);
        assert_eq!(through, if policy == FailurePolicy::Open { "hello" } else { "" });
        drop(stream);
        assert!(story.names().ends_with("a.downstream_data"), "nothing is called in a dead instance: {}", story.names());
    }
}

#[test]
fn a_filter_closes_its_connection() {
    let (worker, story) = start(Guest::new().on("downstream_data", [call("proxy_close_stream", [I(2)])]).watching("log"));
    let mut stream = worker.stream();
    stream.new_connection();
    assert_eq!(send(&mut stream, Side::Request, "hello", false), "");
    assert!(stream.is_reset());
    drop(stream);
    assert_eq!(story.names(), "a.downstream_data a.log");
}

#[test]
fn a_local_reply_means_nothing_here() {
    let reply = call("proxy_send_local_response", [I(403), S(""), S("no"), S(""), I(u32::MAX)]);
    let (worker, story) = start(Guest::new().on("downstream_data", [reply]));
    let mut stream = worker.stream();
    stream.new_connection();
    assert_eq!(send(&mut stream, Side::Request, "hello", false), "hello");
    assert_eq!((story.statuses("proxy_send_local_response"), stream.local_reply()), (vec![0], None));
}
