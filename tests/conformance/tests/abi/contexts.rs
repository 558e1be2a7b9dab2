//! Which context a host call acts on, root contexts and their configurations.

use weir_wasm::Variant;

use crate::guest::{Data, Guest, I, Param, S, Step, call};
use crate::story::Scene;

const SWITCH: &str = "proxy_set_effective_context";

#[test]
fn the_effective_context_is_reset_after_each_callback() {
    let path = || call("proxy_get_property", [S("request\0path"), Data]);
    let guest = Guest::new().on("request_headers", [path(), call(SWITCH, [I(1)]), path()]).on("request_body", [path()]).on("log", [path()]);
    let (worker, story) = Scene::of(guest).start();
    drop(worker.request("POST", "/mine").body(&["x"]).run());
    assert_eq!(story.data("proxy_get_property"), ["/mine", "-", "/mine", "/mine"]);
}

#[test]
fn a_root_context_reaches_a_live_stream_and_no_deleted_one() {
    let tick = [
        call(SWITCH, [I(2)]),
        call("proxy_add_header_map_value", [I(0), S("x-late"), S("1")]),
        call("proxy_continue_stream", [I(0)]),
        call(SWITCH, [I(1)]),
        call("proxy_get_header_map_value", [I(0), S("x-late"), Data]),
    ];
    let timer = call("proxy_set_tick_period_milliseconds", [I(100)]);
    let guest = Guest::new().on("configure", [timer]).on("request_headers", [Step::Return(1)]).on("tick", tick);
    let (worker, story) = Scene::of(guest).start();
    let mut exchange = worker.get("/").run();
    assert!(!exchange.reached_upstream());
    worker.host.advance(std::time::Duration::from_secs(1));
    worker.run_timers();
    assert_eq!(story.statuses(SWITCH), [0, 0]);
    assert!(exchange.go_on(), "the continue woke it");
    assert_eq!(exchange.request_header("x-late").as_deref(), Some("1"));
    drop(exchange);
    worker.host.advance(std::time::Duration::from_secs(1));
    worker.run_timers();
    assert_eq!(story.statuses(SWITCH)[2..], [2, 0], "the stream is gone");
}

#[test]
fn a_context_of_another_instance_is_unknown() {
    let stranger = Guest::new().tag('b').on("request_headers", [call(SWITCH, [I(3)]), call(SWITCH, [Param(0)])]);
    let (worker, story) = Scene::chain([Guest::new().watching("request_headers"), stranger]).start();
    // The first guest numbers its contexts from the same 1: an id means nothing beyond its own instance.
    drop(worker.get("/").run());
    assert_eq!(story.statuses(SWITCH), [2, 0]);
}

#[test]
fn variants_have_their_own_root_context_and_configuration() {
    let read = || call("proxy_get_buffer_bytes", [I(7), I(0), I(100), Data]);
    let guest = Guest::new().watching("context_create vm_start").on("configure", [read()]).on("request_headers", [read()]);
    let variant = |name: &str, text: &str| Variant { name: name.into(), configuration: text.to_owned().into() };
    let variants = vec![variant("strict", "no"), variant("loose", "yes, please")];
    let (worker, story) = Scene::of(guest).binding(0, move |binding| binding.variants = variants).start();
    let roots = ["context_create(1,0)", "vm_start(1,6)", "configure(1,4)", "context_create(2,0)", "vm_start(2,6)", "configure(2,2)"];
    assert_eq!(story.callbacks()[..6], roots.map(|text| format!("a.{text}")));
    assert_eq!(story.data("proxy_get_buffer_bytes"), ["conf", "no", "yes, please"]);
    story.clear();
    for (name, found, parent, configuration) in
        [("loose", true, 3, "yes, please"), ("nonsense", false, 1, "conf"), ("strict", true, 2, "no")]
    {
        let mut stream = worker.stream();
        assert_eq!(stream.select_variant(0, name), found);
        stream.host_mut().set_map(weir_wasm::MessageMap::RequestHeaders, &[(":path", "/")]);
        stream.request_headers(true);
        assert!(!stream.select_variant(0, "loose"), "too late");
        assert!(!stream.select_variant(7, "loose"), "no such filter");
        assert!(story.callbacks()[0].ends_with(&format!(",{parent})")), "{:?}", story.callbacks());
        assert_eq!(story.data("proxy_get_buffer_bytes"), [configuration]);
        story.clear();
    }
}

#[test]
fn a_refused_variant_refuses_the_binding_by_name() {
    // Refuses a configuration of two bytes.
    let guest =
        Guest::new().item(r#"(func (export "proxy_on_configure") (param i32 i32) (result i32) (i32.ne (local.get 1) (i32.const 2)))"#);
    let strict = Variant { name: "strict".into(), configuration: "no".into() };
    let error = Scene::of(guest).binding(0, move |binding| binding.variants = vec![strict]).try_start().expect_err("refused").to_string();
    assert!(error.contains("proxy_on_configure") && error.contains("strict"), "{error}");
}

#[test]
fn properties_have_envoys_encodings() {
    for (value, want) in crate::rows::encodings() {
        let guest = Guest::new().on("request_headers", [call("proxy_get_property", [S("x\0y"), Data])]);
        let (worker, story) = Scene::of(guest).start();
        let _ = worker.get("/").stream(|stream| stream.set_attribute_value("x.y", value.clone())).run();
        let answers = story.answers("proxy_get_property");
        assert_eq!((answers[0].status, answers[0].data.as_deref().unwrap_or_default()), (0, &want[..]), "{value:?}");
    }
}
