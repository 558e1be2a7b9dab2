//! Queues between filters, timers, and what the stores keep.

use std::time::Duration;

use crate::guest::{Data, Guest, I, Keep, L, Param, S, Var, call};
use crate::story::{Scene, engine};

const REGISTER: &str = "proxy_register_shared_queue";

#[test]
fn an_item_is_told_once_and_read_by_who_registered() {
    let reader = Guest::new().on("configure", [call(REGISTER, [S("q"), Keep(0)])]);
    let reader = reader.on("queue_ready", [call("proxy_dequeue_shared_queue", [Param(1), Data])]);
    let writer = Guest::new().tag('b').on(
        "request_headers",
        [
            call("proxy_resolve_shared_queue", [S("one"), S("q"), Keep(0)]),
            call("proxy_enqueue_shared_queue", [Var(0), S("one")]),
            call("proxy_enqueue_shared_queue", [Var(0), S("two")]),
        ],
    );
    let same = |binding: &mut weir_wasm::BindingConfig| binding.vm_id = Some("one".into());
    let (worker, story) = Scene::chain([reader, writer]).binding(0, same).binding(1, same).start();
    drop(worker.get("/").run());
    assert!(!story.names().contains("queue_ready"), "not from inside the callback that enqueued");
    worker.run_timers();
    worker.run_timers();
    assert_eq!(story.data("proxy_dequeue_shared_queue"), ["one", "two"]);
}

#[test]
fn a_queue_of_another_vm_id_cannot_be_found() {
    let reader = Guest::new().on("configure", [call(REGISTER, [S("q"), Keep(0)])]);
    let writer = Guest::new().tag('b').on("request_headers", [call("proxy_resolve_shared_queue", [S("a"), S("q"), Keep(0)])]);
    for (vm_id, status) in [("b", 1), ("a", 0)] {
        let scene = Scene::chain([reader.clone(), writer.clone()]);
        let (worker, story) = scene.binding(1, move |binding| binding.vm_id = Some(vm_id.into())).start();
        drop(worker.get("/").run());
        assert_eq!(story.statuses("proxy_resolve_shared_queue"), [status]);
    }
}

#[test]
fn the_newest_to_register_is_told() {
    let reader = |tag| Guest::new().tag(tag).on("configure", [call(REGISTER, [S("q"), Keep(0)])]).watching("queue_ready");
    let writer = reader('b').on("request_headers", [call("proxy_enqueue_shared_queue", [Var(0), S("one")])]);
    let same = |binding: &mut weir_wasm::BindingConfig| binding.vm_id = Some("one".into());
    let (worker, story) = Scene::chain([reader('a'), writer]).binding(0, same).binding(1, same).start();
    drop(worker.get("/").run());
    worker.run_timers();
    assert_eq!(story.names().matches("queue_ready").count(), 1);
    assert!(story.names().ends_with("b.queue_ready"), "{}", story.names());
}

#[test]
fn ticks_neither_pile_up_nor_outlive_their_period() {
    let guest = Guest::new().on("configure", [call("proxy_set_tick_period_milliseconds", [I(100)])]).watching("tick");
    let (worker, story) = Scene::of(guest).start();
    for (advance, ticks) in [(99, 0), (1, 1), (1000, 2), (50, 2), (50, 3)] {
        worker.host.advance(Duration::from_millis(advance));
        worker.run_timers();
        assert_eq!(story.names().matches("tick").count(), ticks, "after {advance} more");
    }
}

#[test]
fn shared_data_and_metrics_outlive_instance_and_binding() {
    let engine = engine();
    let guest = || {
        Guest::new().on(
            "request_headers",
            [
                call("proxy_get_shared_data", [S("k"), Data, Keep(1)]),
                call("proxy_set_shared_data", [S("k"), S("kept"), I(0)]),
                call("proxy_define_metric", [I(0), S("m"), Keep(0)]),
                call("proxy_increment_metric", [Var(0), L(2)]),
            ],
        )
    };
    let (worker, story) = Scene::of(guest()).on(&engine).start();
    drop(worker.get("/").run());
    assert_eq!((story.data("proxy_get_shared_data"), worker.metric("m")), (vec!["-".into()], Some(2)));
    drop(worker);
    let (worker, story) = Scene::of(guest()).on(&engine).start();
    drop(worker.get("/").run());
    assert_eq!((story.data("proxy_get_shared_data"), worker.metric("m")), (vec!["kept".into()], Some(4)));
}

#[test]
fn a_value_under_another_vm_id_is_another() {
    let set = Guest::new().on("request_headers", [call("proxy_set_shared_data", [S("k"), S("v"), I(0)])]);
    let get = Guest::new().tag('b').on("request_headers", [call("proxy_get_shared_data", [S("k"), Data, Keep(0)])]);
    for (vm_id, status) in [("b", 1), ("a", 0)] {
        let (worker, story) =
            Scene::chain([set.clone(), get.clone()]).binding(1, move |binding| binding.vm_id = Some(vm_id.into())).start();
        drop(worker.get("/").run());
        assert_eq!(story.statuses("proxy_get_shared_data"), [status]);
    }
}
