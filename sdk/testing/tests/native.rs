//! Filters of the SDK, run natively in the production host: every part of the SDK's interface at work.

#![allow(clippy::unwrap_used, clippy::panic, reason = "a test that cannot go on should stop")]

use weir_sdk_testing::{Tester, Worker};

fn started<F: weir_sdk::native::Registered>(configuration: &str) -> Worker {
    Tester::native::<F>().configuration(configuration).start().unwrap_or_else(|error| panic!("{error}"))
}

mod deny {
    use weir_sdk::prelude::*;

    /// Refuses requests by path.
    #[config]
    pub(crate) struct Deny {
        /// What a refused path begins with.
        paths: Vec<String>,
        /// The answer's status.
        #[serde(default = "forbidden")]
        status_code: u16,
    }

    fn forbidden() -> u16 {
        403
    }

    #[register]
    impl Filter for Deny {
        fn on_request_headers(&self, stream: &mut Stream<'_>) -> Flow {
            match self.paths.iter().any(|path| stream.path().starts_with(path.as_bytes())) {
                true => stream.reply(self.status_code).header("x-denied", "yes").details("by_path").body("denied").send(),
                false => Flow::Continue,
            }
        }
    }
}

#[test]
fn the_configuration_is_the_filter() {
    let worker = started::<deny::Deny>(r#"{"paths": ["/admin"]}"#);
    let denied = worker.get("/admin/x").run();
    assert_eq!((denied.status(), denied.body().as_str()), (403, "denied"));
    assert_eq!(denied.response_header("x-denied").as_deref(), Some("yes"));
    assert_eq!(denied.local_reply().unwrap().details, "by_path");
    assert!(!denied.reached_upstream());
    let passed = worker.get("/public").run();
    assert_eq!((passed.status(), passed.body().as_str()), (200, "upstream"));
}

#[test]
fn a_refused_configuration_names_the_field_and_what_was_meant() {
    for (configuration, said) in [
        (r#"{"pathes": []}"#, "configuration refused: pathes: unknown field `pathes`"),
        (r#"{"pathes": []}"#, "did you mean `paths`?"),
        (r#"{"paths": ["/a"], "statusCode": "x"}"#, "statusCode: invalid type: string \"x\", expected u16"),
        (r#"{"paths": [1]}"#, "paths[0]: invalid type: integer `1`, expected a string"),
        ("", "missing field `paths`"),
    ] {
        let refused = Tester::native::<deny::Deny>().configuration(configuration).start();
        let error = refused.err().unwrap_or_else(|| panic!("{configuration} was taken"));
        assert!(error.to_string().contains(said), "{configuration}: {error}");
    }
}

mod phases {
    use weir_sdk::prelude::*;

    /// Notes every phase in its state, and shows the notes in the response and the log.
    #[config]
    #[derive(Clone)]
    pub(crate) struct Phases {}

    #[derive(Default)]
    pub(crate) struct Notes(Vec<&'static str>);

    #[register]
    impl Filter for Phases {
        type State = Notes;

        fn on_request_headers(&self, stream: &mut Stream<'_, Notes>) -> Flow {
            stream.state.0.push("request");
            let path = stream.request().text(":path").unwrap_or_default().to_owned();
            stream.request().set("x-path", path).and_then(|()| stream.request().remove("x-gone")).map_or(Flow::Pause, |()| Flow::Continue)
        }

        fn on_request_body(&self, stream: &mut Stream<'_, Notes>) -> Flow {
            stream.state.0.push("body");
            if !stream.end {
                return Flow::Pause;
            }
            let upper = stream.request_body().bytes().to_ascii_uppercase();
            stream.request_body().replace(upper).map_or(Flow::Pause, |()| Flow::Continue)
        }

        fn on_response_headers(&self, stream: &mut Stream<'_, Notes>) -> Flow {
            let count = stream.response().iter().count();
            let notes = format!("{} {count} {:?}", stream.state.0.join(","), stream.status());
            stream.response().add("x-notes", notes).map_or(Flow::Pause, |()| Flow::Continue)
        }

        fn on_response_body(&self, stream: &mut Stream<'_, Notes>) -> Flow {
            stream.response_body().prepend("<").and_then(|()| stream.response_body().append(">")).map_or(Flow::Pause, |()| Flow::Continue)
        }

        fn on_log(&self, stream: &mut Stream<'_, Notes>) {
            weir_sdk::info!("{} {}", stream.state.0.len(), stream.attributes().source_address().unwrap_or("?"));
        }
    }
}

#[test]
fn every_phase_sees_the_stream_and_keeps_its_state() {
    let worker = started::<phases::Phases>("{}");
    let exchange = worker
        .request("POST", "/p")
        .header("x-gone", "1")
        .body(&["ab", "c", "d"])
        .stream(|stream| stream.set_attribute_value("source.address", weir_sdk_testing::Value::Bytes(b"192.0.2.1:5"[..].into())))
        .run();
    assert_eq!(exchange.request_body(), "ABCD");
    assert_eq!((exchange.request_header("x-path").as_deref(), exchange.request_header("x-gone")), (Some("/p"), None));
    assert_eq!(exchange.response_header("x-notes").as_deref(), Some("request,body,body,body 1 Some(200)"));
    assert_eq!(exchange.body(), "<upstream>");
    drop(exchange);
    assert!(worker.host.logged("4 192.0.2.1:5"), "{:?}", worker.host.log_lines());
}

mod ask {
    use weir_sdk::prelude::*;

    /// Asks two peers, one after the other.
    #[config]
    pub(crate) struct Ask {
        cluster: String,
    }

    #[register]
    impl Filter for Ask {
        fn on_request_headers(&self, stream: &mut Stream<'_>) -> Flow {
            let (cluster, token) = (self.cluster.clone(), stream.request().get("x-token").map(<[u8]>::to_vec));
            stream.wait(async move |stream: Handle| {
                let first = stream.get(&cluster, "/first").header("x-token", token.unwrap_or_default()).send().await;
                let second = match &first {
                    Ok(answer) if answer.status() == 200 => stream.post(&cluster, "/second", answer.body()).send().await,
                    _ => first.clone(),
                };
                let verdict = |stream: &mut Stream<'_>| match &second {
                    Ok(answer) if answer.status() == 200 => {
                        stream.request().set("x-user", answer.body()).map_or(Flow::Pause, |()| Flow::Continue)
                    }
                    Ok(answer) => stream.reply(answer.status()).body("refused").send(),
                    Err(error) => stream.reply(503).body(error.to_string()).send(),
                };
                stream.with(verdict).unwrap_or(Flow::Pause)
            })
        }
    }
}

fn asking() -> Worker {
    Tester::native::<ask::Ask>().configuration(r#"{"cluster": "auth"}"#).may_call(&["auth"]).start().unwrap()
}

#[test]
fn callouts_are_awaited_in_sequence() {
    let worker = asking();
    let mut exchange = worker.get("/").header("x-token", "t").run();
    assert!(!exchange.reached_upstream());
    let first = worker.host.take_callout().unwrap();
    assert_eq!((first.upstream.as_str(), first.header(":path"), first.header("x-token")), ("auth", Some("/first"), Some("t")));
    first.respond(200, &[], "anna");
    exchange.go_on();
    let second = worker.host.take_callout().unwrap();
    assert_eq!((second.header(":method"), &second.body[..]), (Some("POST"), &b"anna"[..]));
    second.respond(200, &[], "ANNA");
    assert!(exchange.go_on());
    assert_eq!(exchange.request_header("x-user").as_deref(), Some("ANNA"));
    assert_eq!(exchange.status(), 200);
}

#[test]
fn a_callout_may_refuse_fail_or_never_start() {
    let worker = asking();
    let mut exchange = worker.get("/").run();
    worker.host.take_callout().unwrap().respond(401, &[], "");
    exchange.go_on();
    assert_eq!((exchange.status(), exchange.body().as_str()), (401, "refused"));

    let mut exchange = worker.get("/").run();
    drop(worker.host.take_callout());
    exchange.go_on();
    assert_eq!((exchange.status(), exchange.body().as_str()), (503, "the callout was not answered"));

    worker.host.refuse_callouts(Some(weir_sdk_testing::host_api::CalloutError::UnknownUpstream));
    let exchange = worker.get("/").run();
    assert_eq!(exchange.status(), 503);
    assert!(exchange.body().contains("was not started"), "{}", exchange.body());
}

#[test]
fn a_task_dies_with_its_stream() {
    let worker = asking();
    let exchange = worker.get("/").run();
    let callout = worker.host.take_callout().unwrap();
    drop(exchange);
    callout.respond(200, &[], "too late");
    assert!(worker.host.take_callout().is_none());
    assert_eq!(worker.get("/").run().status(), 0, "the next stream waits for its own callout");
    assert!(worker.host.take_callout().is_some());
}

mod meter {
    use std::time::Duration;

    use weir_sdk::prelude::*;
    use weir_sdk::{add_shared, now_nanos, set_shared, shared};

    #[config]
    #[derive(Default)]
    pub(crate) struct Settings {
        tick_millis: u64,
    }

    pub(crate) struct Meter {
        streams: Counter,
        ticks: Counter,
        sizes: Histogram,
        live: Gauge,
    }

    #[register]
    impl Filter for Meter {
        type Config = Settings;

        fn configure(settings: Settings, plugin: &Plugin) -> Result<Self, Refusal> {
            if settings.tick_millis == 0 {
                return Err(Refusal::at("tickMillis", "must not be 0"));
            }
            plugin.tick_every(Duration::from_millis(settings.tick_millis))?;
            Ok(Self {
                streams: Counter::define("streams", &[])?,
                ticks: Counter::define("ticks", &[("kind", "timer")])?,
                sizes: Histogram::define("sizes", &[])?,
                live: Gauge::define("live", &[])?,
            })
        }

        fn on_tick(&self, plugin: &Plugin) {
            self.ticks.increment();
            let report = plugin.call("collector", "POST", "/report").body(format!("{}", now_nanos())).send();
            plugin.spawn(async move {
                let said = report.await.map(|answer| answer.status());
                weir_sdk::warn!("reported: {said:?}");
            });
        }

        fn on_request_headers(&self, stream: &mut Stream<'_>) -> Flow {
            self.streams.increment();
            self.live.add(1);
            self.sizes.record(stream.path().len() as u64);
            let before = shared("last").map_or(0, |(_, version)| version);
            let stored = set_shared("last", stream.path(), before);
            let total = add_shared("total", 2, None);
            stream.request().set("x-shared", format!("{stored:?} {total:?}")).map_or(Flow::Pause, |()| Flow::Continue)
        }

        fn on_log(&self, _: &mut Stream<'_>) {
            self.live.add(-1);
        }
    }
}

#[test]
fn the_plugin_counts_ticks_shares_and_reports() {
    let tester = Tester::native::<meter::Meter>().configuration(r#"{"tickMillis": 100}"#).may_call(&["collector"]);
    let worker = tester.start().unwrap();
    let exchange = worker.get("/abc").run();
    assert_eq!(exchange.request_header("x-shared").as_deref(), Some("Ok(()) Ok(2)"));
    assert_eq!((worker.metric("streams"), worker.metric("live"), worker.metric("sizes")), (Some(1), Some(1), Some(1)));
    drop(exchange);
    assert_eq!(worker.metric("live"), Some(0));
    worker.host.advance(std::time::Duration::from_millis(150));
    worker.run_timers();
    assert_eq!(worker.metric("ticks"), Some(1));
    let report = worker.host.take_callout().unwrap();
    assert_eq!((report.upstream.as_str(), report.header(":path")), ("collector", Some("/report")));
    report.respond(202, &[], "");
    worker.run_timers();
    assert!(worker.host.logged("reported: Ok(202)"), "{:?}", worker.host.log_lines());

    let refused = Tester::native::<meter::Meter>().configuration(r#"{"tickMillis": 0}"#).start();
    assert!(refused.unwrap_err().to_string().contains("tickMillis: must not be 0"));
}

mod shout {
    use weir_sdk::prelude::*;

    /// A TCP filter.
    #[config]
    pub(crate) struct Shout {}

    #[register]
    impl Filter for Shout {
        fn on_connection(&self, _: &mut Stream<'_>) -> Flow {
            Flow::Continue
        }

        fn on_downstream_data(&self, stream: &mut Stream<'_>) -> Flow {
            let upper = stream.downstream().bytes().to_ascii_uppercase();
            stream.downstream().replace(upper).map_or(Flow::Pause, |()| Flow::Continue)
        }
    }
}

#[test]
fn a_filter_may_be_for_tcp() {
    let tester = Tester::native::<shout::Shout>().binding(|binding| binding.kind = weir_sdk_testing::host_api::Kind::Tcp);
    let worker = tester.start().unwrap();
    let mut stream = worker.stream();
    stream.new_connection();
    stream.request_body(bytes::Bytes::from_static(b"hello"), false);
    assert_eq!(&stream.take(weir_sdk_testing::host_api::Side::Request).data[..], b"HELLO");
}

mod broken {
    use weir_sdk::prelude::*;

    #[config]
    pub(crate) struct Broken {}

    #[register]
    impl Filter for Broken {
        fn on_request_headers(&self, stream: &mut Stream<'_>) -> Flow {
            assert!(stream.path() != b"/panic", "as the test wants it");
            Flow::Continue
        }
    }
}

#[test]
fn a_panic_is_a_trap_of_that_instance_only() {
    let worker = started::<broken::Broken>("{}");
    assert_eq!(worker.get("/panic").run().status(), 503);
    worker.host.advance(std::time::Duration::from_secs(60));
    assert_eq!(worker.get("/").run().status(), 200);
}

mod schema {
    use std::collections::BTreeMap;

    use weir_sdk::prelude::*;

    #[config]
    pub(crate) struct All {
        /// How many "things".
        ///
        /// Not in the schema.
        pub(crate) count: u8,
        pub(crate) maybe: Option<i8>,
        #[serde(default)]
        pub(crate) names: Vec<String>,
        pub(crate) by_name: BTreeMap<String, f64>,
        #[serde(default)]
        pub(crate) mode: Mode,
        pub(crate) choice: Choice,
    }

    /// How much.
    #[config]
    #[derive(Default)]
    pub(crate) enum Mode {
        /// All of it.
        FullOn,
        #[default]
        Off,
    }

    #[config]
    pub(crate) enum Choice {
        Nothing,
        /// That many.
        Number(u16),
        Pair {
            left: bool,
            right: bool,
        },
    }
}

#[test]
fn a_schema_says_what_is_read() {
    use weir_sdk::schema::{Schema, length, render};
    const NODE: weir_sdk::schema::Node = schema::All::NODE;
    let rendered: [u8; length(&NODE)] = render(&NODE);
    let text = std::str::from_utf8(&rendered).unwrap();
    let expected = concat!(
        r#"{"title":"All","allOf":[{"type":"object","additionalProperties":false,"properties":{"#,
        r#""count":{"allOf":[{"type":"integer","minimum":0,"maximum":255}],"description":"How many \"things\"."},"#,
        r#""maybe":{"anyOf":[{"type":"integer","minimum":-128,"maximum":127},{"type":"null"}]},"#,
        r#""names":{"allOf":[{"type":"array","items":{"type":"string"}}],"default":[]},"#,
        r#""byName":{"type":"object","additionalProperties":{"type":"number"}},"#,
        r#""mode":{"allOf":[{"title":"Mode","description":"How much.","allOf":[{"type":"string","oneOf":[{"const":"fullOn","description":"All of it."},{"const":"off"}]}]}],"default":"off"},"#,
        r#""choice":{"title":"Choice","allOf":[{"oneOf":[{"const":"nothing"},"#,
        r#"{"type":"object","additionalProperties":false,"properties":{"number":{"allOf":[{"type":"integer","minimum":0,"maximum":65535}],"description":"That many."}},"required":["number"]},"#,
        r#"{"type":"object","additionalProperties":false,"properties":{"pair":{"type":"object","additionalProperties":false,"properties":{"left":{"type":"boolean"},"right":{"type":"boolean"}},"required":["left","right"]}},"required":["pair"]}]}]}"#,
        r#"},"required":["count","byName","choice"]}]}"#
    );
    assert_eq!(text, expected);
    let read: schema::All =
        weir_sdk::parse(br#"{"count": 3, "byName": {"a": 1.5}, "mode": "fullOn", "choice": {"pair": {"left": true, "right": false}}}"#)
            .unwrap();
    assert!(matches!(read.choice, schema::Choice::Pair { left: true, right: false }) && matches!(read.mode, schema::Mode::FullOn));
    let number: schema::Choice = weir_sdk::parse(br#"{"number": 7}"#).unwrap();
    assert!(matches!(number, schema::Choice::Number(7)));
    assert_eq!((read.count, read.maybe, read.names.len(), read.by_name["a"]), (3, None, 0, 1.5));
}
