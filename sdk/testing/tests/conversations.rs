//! What a filter says to others and hears of them: unary gRPC, gRPC streams, queues. In the production host, natively; `tests/guests` has no part in it.

#![allow(clippy::unwrap_used, clippy::panic, reason = "a test that cannot go on should stop")]

use bytes::Bytes;
use weir_sdk_testing::{Tester, Worker};

mod unary {
    use weir_sdk::prelude::*;

    /// Asks by gRPC.
    #[config]
    pub(crate) struct Unary {}

    #[register]
    impl Filter for Unary {
        fn on_request_headers(&self, stream: &mut Stream<'_>) -> Flow {
            stream.wait(async |stream: Handle| {
                let answer = stream.grpc("auth", "weir.Auth", "Check").metadata("x-a", "1").message("who?").send().await;
                let verdict = |stream: &mut Stream<'_>| match &answer {
                    Ok(answer) => stream.request().set("x-user", answer.body()).map_or(Flow::Pause, |()| Flow::Continue),
                    Err(error) => stream.reply(503).body(error.to_string()).send(),
                };
                stream.with(verdict).unwrap_or(Flow::Pause)
            })
        }
    }
}

#[test]
fn a_unary_call_is_answered_by_its_message_or_its_status() {
    let worker = Tester::native::<unary::Unary>().configuration("{}").may_call(&["auth"]).start().unwrap();
    let mut exchange = worker.get("/").run();
    let call = worker.host.take_callout().unwrap();
    assert_eq!((call.method.as_deref(), call.header("x-a"), &call.body[..]), (Some("weir.Auth/Check"), Some("1"), &b"who?"[..]));
    call.respond_grpc(b"anna");
    assert!(exchange.go_on());
    assert_eq!((exchange.status(), exchange.request_header("x-user").as_deref()), (200, Some("anna")));

    let mut exchange = worker.get("/").run();
    worker.host.take_callout().unwrap().close_grpc(7, "no");
    exchange.go_on();
    assert_eq!((exchange.status(), exchange.body().as_str()), (503, "gRPC status 7: no"));

    let mut exchange = worker.get("/").run();
    worker.host.take_callout().unwrap().fail();
    exchange.go_on();
    assert_eq!(exchange.status(), 503, "{}", exchange.body());
}

mod talk {
    use weir_sdk::CallError;
    use weir_sdk::prelude::*;

    /// Talks until the peer has said "go".
    #[config]
    pub(crate) struct Talk {}

    async fn talk(stream: &Handle) -> Result<String, CallError> {
        let mut talk = stream.grpc_stream("policy", "weir.Policy", "Watch").metadata("x-node", "n").open()?;
        talk.send("hello").map_err(CallError::Refused)?;
        let mut heard = Vec::new();
        while let Some(message) = talk.message().await? {
            let message = String::from_utf8_lossy(&message).into_owned();
            if message == "go" {
                talk.finish().map_err(CallError::Refused)?;
            } else {
                talk.send(format!("{message}?")).map_err(CallError::Refused)?;
            }
            heard.push(message);
        }
        let of = |metadata: Vec<(Vec<u8>, Vec<u8>)>| {
            metadata.iter().map(|(name, _)| String::from_utf8_lossy(name).into_owned()).collect::<String>()
        };
        Ok(format!("{} {} {}", heard.join(","), of(talk.initial_metadata()), of(talk.trailing_metadata())))
    }

    #[register]
    impl Filter for Talk {
        fn on_request_headers(&self, stream: &mut Stream<'_>) -> Flow {
            stream.wait(async |stream: Handle| {
                let heard = talk(&stream).await;
                let verdict = |stream: &mut Stream<'_>| match &heard {
                    Ok(heard) => stream.request().set("x-heard", heard).map_or(Flow::Pause, |()| Flow::Continue),
                    Err(error) => stream.reply(503).body(error.to_string()).send(),
                };
                stream.with(verdict).unwrap_or(Flow::Pause)
            })
        }
    }
}

fn talking() -> Worker {
    Tester::native::<talk::Talk>().configuration("{}").may_call(&["policy"]).start().unwrap()
}

fn sent(worker: &Worker) -> Vec<String> {
    worker.host.grpc_sent.borrow().iter().map(|(_, message, _)| String::from_utf8_lossy(message).into_owned()).collect()
}

#[test]
fn a_stream_is_a_conversation() {
    let worker = talking();
    let mut exchange = worker.get("/").run();
    let call = worker.host.take_callout().unwrap();
    assert_eq!((call.method.as_deref(), call.header("x-node")), (Some("weir.Policy/Watch"), Some("n")));
    assert_eq!(sent(&worker), ["hello"]);
    let pair = |name: &'static str| vec![(Bytes::from_static(name.as_bytes()), Bytes::from_static(b"v"))];
    call.reply.grpc_initial_metadata(pair("x-first"));
    call.reply.grpc_message(Bytes::from_static(b"one"));
    assert!(!exchange.go_on());
    assert_eq!(sent(&worker), ["hello", "one?"]);
    call.reply.grpc_message(Bytes::from_static(b"go"));
    call.reply.grpc_message(Bytes::from_static(b""));
    assert!(worker.host.cancelled.borrow().iter().any(|(_, polite)| *polite), "nothing more is sent");
    call.reply.grpc_trailing_metadata(pair("x-last"));
    call.reply.grpc_close(0, "");
    assert!(exchange.go_on());
    assert_eq!((exchange.status(), exchange.request_header("x-heard").as_deref()), (200, Some("one,go, x-first x-last")));
}

#[test]
fn a_stream_may_fail_be_refused_or_be_given_up() {
    let worker = talking();
    let mut exchange = worker.get("/").run();
    worker.host.take_callout().unwrap().close_grpc(14, "gone");
    exchange.go_on();
    assert_eq!((exchange.status(), exchange.body().as_str()), (503, "gRPC status 14: gone"));

    let exchange = worker.get("/").run();
    let call = worker.host.take_callout().unwrap();
    let before = worker.host.cancelled.borrow().len();
    drop(exchange);
    assert!(worker.host.cancelled.borrow().len() > before, "it is cancelled with its stream");
    call.reply.grpc_message(Bytes::from_static(b"too late"));

    worker.host.refuse_callouts(Some(weir_sdk_testing::host_api::CalloutError::UnknownUpstream));
    let exchange = worker.get("/").run();
    assert_eq!(exchange.status(), 503);
    assert!(exchange.body().contains("was not started"), "{}", exchange.body());
}

mod mail {
    use weir_sdk::Queue;
    use weir_sdk::prelude::*;

    #[config]
    pub(crate) struct Settings {}

    /// Puts paths into a queue, and logs what comes out.
    pub(crate) struct Mail(Queue);

    #[register]
    impl Filter for Mail {
        type Config = Settings;

        fn configure(_: Settings, _: &Plugin) -> Result<Self, Refusal> {
            Ok(Self(Queue::register("paths")?))
        }

        fn on_request_headers(&self, stream: &mut Stream<'_>) -> Flow {
            let found = Queue::find("", "paths");
            let absent = Queue::find("", "nothing");
            let sent = found.and_then(|queue| queue.push(stream.path()));
            stream.request().set("x-queue", format!("{sent:?} {absent:?} {}", found == Ok(self.0))).map_or(Flow::Pause, |()| Flow::Continue)
        }

        fn on_queue(&self, queue: Queue, _: &Plugin) {
            while let Ok(Some(item)) = queue.pop() {
                weir_sdk::info!("took {}", String::from_utf8_lossy(&item));
            }
        }
    }
}

#[test]
fn what_is_put_into_a_queue_comes_out_once_and_in_order() {
    let worker = Tester::native::<mail::Mail>().configuration("{}").start().unwrap();
    for path in ["/a", "/b"] {
        let exchange = worker.get(path).run();
        assert_eq!(exchange.request_header("x-queue").as_deref(), Some("Ok(()) Err(NotFound) true"));
    }
    worker.run_timers();
    let took: Vec<String> = worker.host.log_lines().into_iter().map(|line| line.message).filter(|line| line.starts_with("took")).collect();
    assert_eq!(took, ["took /a", "took /b"]);
    worker.run_timers();
    assert_eq!(worker.host.log_lines().iter().filter(|line| line.message.starts_with("took")).count(), 2);
}
