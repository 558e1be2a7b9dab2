//! Routes and filters: actions that enable, disable and configure filters, and a route that is chosen again because a later filter asked for it.

use serde_json::{Value, json};

use super::guests::*;
use super::support::*;

/// A standard filter that says its configuration in the response header `name`.
fn labels(name: &str, more: Value) -> Value {
    let says = |value: &str| json!({ "response": { "set": { format!("x-{name}"): value } } });
    let mut binding = json!({
        "name": name, "phase": "traffic", "module": { "builtin": "headers" },
        "config": says("own"), "variants": { "other": says("other") },
    });
    with(&mut binding, more);
    binding
}

/// An action that answers with its name, and says what filters do.
fn says(name: &str, filters: Value) -> Value {
    let mut action = json!({ "name": name, "respond": { "status": 200, "body": name } });
    action["filters"] = filters;
    action
}

fn chain(filters: Value, default: Value, actions: Value) -> Value {
    let mut config = config(default, json!([]));
    http(&mut config)["filterChain"] = json!("main");
    http(&mut config)["actions"] = actions;
    config["filterChains"] = json!([{ "name": "main" }]);
    config["filterChains"][0]["filters"] = filters;
    config
}

fn routed(headers: &str) -> String {
    format!("GET / HTTP/1.1\r\nhost: a\r\n{headers}\r\n")
}

async fn ask(proxy: &Proxy, headers: &str) -> Message {
    let mut client = proxy.client().await;
    client.send(routed(headers)).await;
    client.message().await
}

#[tokio::test]
async fn an_action_enables_disables_and_configures_filters() {
    let filters = json!([
        chooser().binding("choose", json!({ "phase": "route" })),
        labels("a", json!({})),
        labels("b", json!({ "disabled": true, "phase": "stats" })),
    ]);
    let actions = json!([
        says("plain", json!({})),
        says("without", json!({ "a": { "state": "disabled", "variant": "other" } })),
        says("with", json!({ "b": { "state": "enabled" } })),
        says("other", json!({ "a": { "variant": "other" }, "b": { "state": "enabled", "variant": "other" } })),
        says("disabled_variant", json!({ "b": { "variant": "other" } })),
    ]);
    let default = says("default", json!({ "a": { "variant": "other" } }));
    let proxy = Proxy::start(&chain(filters, default, actions)).await;
    for (route, a, b) in [
        ("plain", Some("own"), None),
        ("without", None, None),
        ("with", Some("own"), Some("own")),
        ("other", Some("other"), Some("other")),
        ("disabled_variant", Some("own"), None),
    ] {
        let response = ask(&proxy, &format!("x-route: {route}\r\n")).await;
        assert_eq!((response.status(), response.text()), (200, route));
        assert_eq!((response.header("x-a"), response.header("x-b")), (a, b), "{route}");
    }
    // Nobody chooses: the default action's filters.
    let response = ask(&proxy, "").await;
    assert_eq!((response.text(), response.header("x-a"), response.header("x-b")), ("default", Some("other"), None));
}

#[tokio::test]
async fn bodies_pass_a_filter_that_a_route_disables() {
    let origin = Answering::new(|request| ok(request.text())).await;
    let mut guest = Guest::default();
    let replaced = guest.text("replaced");
    let body = format!("(drop (call $proxy_set_buffer_bytes (i32.const 0) (i32.const 0) (i32.const -1) {replaced})) (i32.const 0)");
    let guest = guest.on("proxy_on_request_body", 3, "i32", &body);
    let filters = json!([chooser().binding("choose", json!({ "phase": "route" })), guest.binding("bodies", json!({ "phase": "traffic" }))]);
    let mut without = forward(json!({}));
    without["name"] = json!("without");
    without["filters"] = json!({ "bodies": { "state": "disabled" } });
    let mut config = chain(filters, forward(json!({})), json!([without]));
    config["clusters"] = json!([cluster("origin", &[origin.address])]);
    let proxy = Proxy::start(&config).await;
    for (headers, expected) in [("", "replaced"), ("x-route: without\r\n", "as it was")] {
        let mut client = proxy.client().await;
        client.send(format!("POST / HTTP/1.1\r\nhost: a\r\n{headers}content-length: 9\r\n\r\nas it was")).await;
        assert_eq!(client.message().await.text(), expected);
    }
}

#[tokio::test]
async fn a_cleared_choice_is_made_again_by_the_filters_that_choose() {
    let origin = Answering::new(|_| ok("")).await;
    let filters = json!([
        chooser().binding("choose", json!({ "phase": "route" })),
        changer().binding("change", json!({ "phase": "traffic" })),
        labels("a", json!({ "phase": "stats" })),
    ]);
    let to_origin = |name: &str, filters: Value| {
        let mut action = forward(json!({}));
        (action["name"], action["filters"]) = (json!(name), filters);
        action["responseHeaders"] = json!({ "set": [{ "name": "x-route", "value": "%ROUTE_NAME%" }] });
        action
    };
    let actions = json!([to_origin("first", json!({})), to_origin("second", json!({ "a": { "variant": "other" } }))]);
    let mut config = chain(filters, says("default", json!({})), actions);
    config["clusters"] = json!([cluster("origin", &[origin.address])]);
    let proxy = Proxy::start(&config).await;

    let response = ask(&proxy, "x-route: first\r\n").await;
    assert_eq!((response.header("x-route"), response.header("x-a")), (Some("first"), Some("own")));

    let response = ask(&proxy, "x-route: first\r\nx-then: second\r\n").await;
    assert_eq!(response.header("x-route"), Some("second"));
    let request = origin.last();
    let all = |name: &str| request.headers.iter().filter(|(key, _)| key == name).map(|(_, value)| value.clone()).collect::<Vec<_>>();
    // The filter that chooses saw the head twice and could change it both times; the other one saw it once.
    assert_eq!((all("x-chosen"), all("x-changed")), (vec!["first".into(), "second".into()], vec!["second".into()]));

    // The new choice finds nothing: the default action.
    let response = ask(&proxy, "x-route: first\r\nx-then: nobody\r\n").await;
    assert_eq!(response.text(), "default");
}

#[tokio::test]
async fn a_filter_may_take_its_time_to_choose_again() {
    let decider = Answering::new(|request| {
        format!("HTTP/1.1 200 OK\r\nx-route: {}\r\ncontent-length: 0\r\n\r\n", request.path().trim_start_matches('/'))
    })
    .await;
    let mut guest = Guest::default();
    let (route, name) = (guest.text("x-route"), guest.text("decider"));
    let (select, none) = (guest.text("weir.route.select"), guest.text(""));
    let headers = guest.map(&[(":method", "GET"), (":path", "/second"), (":authority", "decider")]);
    // Without `x-changed` it chooses what `x-route` says; with it, it asks.
    let changed = guest.text("x-changed");
    let body = format!(
        "{REMEMBER} (if (result i32) (call $has (i32.const 0) {changed}) (then
            (drop (call $proxy_http_call {name} {headers} {none} {none} (i32.const 5000) (i32.const 16)))
            (i32.const 1))
          (else
            (drop (call $has (i32.const 0) {route}))
            (drop (call $proxy_call_foreign_function {select} {FOUND} (i32.const 8) (i32.const 12)))
            (i32.const 0)))"
    );
    let answered = format!(
        "{RETURN} (drop (call $has (i32.const 6) {route}))
        (drop (call $proxy_call_foreign_function {select} {FOUND} (i32.const 8) (i32.const 12)))
        (drop (call $proxy_continue_stream (i32.const 0)))"
    );
    let choose = guest.on_request(&body).on("proxy_on_http_call_response", 5, "", &answered);
    let filters = json!([
        choose.binding("choose", json!({ "phase": "route", "upstreams": ["decider"] })),
        changer().binding("change", json!({ "phase": "traffic" })),
    ]);
    let actions = json!([says("first", json!({})), says("second", json!({}))]);
    let mut config = chain(filters, says("default", json!({})), actions);
    config["clusters"] = json!([cluster("decider", &[decider.address])]);
    let proxy = Proxy::start(&config).await;
    assert_eq!(ask(&proxy, "x-route: first\r\n").await.text(), "first");
    assert_eq!(ask(&proxy, "x-route: first\r\nx-then: first\r\n").await.text(), "second");
    assert_eq!(decider.seen().len(), 1);
    // With a body that arrives meanwhile.
    let mut client = proxy.client().await;
    let head = "POST / HTTP/1.1\r\nhost: a\r\nx-route: first\r\nx-then: first\r\n";
    client.send(format!("{head}content-length: 200000\r\n\r\n{}", "b".repeat(200_000))).await;
    assert_eq!(client.message().await.text(), "second");
}

#[tokio::test]
async fn filters_that_never_agree_on_a_route_cost_the_request_and_no_more() {
    let mut guest = Guest::default();
    let (then, route) = (guest.text("x-then"), guest.text("x-route"));
    let body = format!(
        "(drop (call $has (i32.const 0) {then})) (drop (call $has (i32.const 0) {route})) (drop (call $proxy_clear_route_cache)) (i32.const 0)"
    );
    let restless = guest.on_request(&body).binding("restless", json!({ "phase": "route" }));
    let proxy = Proxy::start(&chain(json!([restless]), says("default", json!({})), json!([]))).await;
    for line in 1..3 {
        let response = proxy.get("/").await;
        assert_eq!((response.status(), response.text()), (500, "the filters do not agree on a route for this request\n"));
        assert_eq!(proxy.access_log(line).await[line - 1]["response_code_details"], "route_cleared_too_often");
    }
}

#[tokio::test]
async fn a_filter_that_traps_while_it_chooses_again_meets_its_policy() {
    for (policy, expected) in [("closed", 503), ("open", 200)] {
        let mut guest = Guest::default();
        let changed = guest.text("x-changed");
        let body = format!("(if (call $has (i32.const 0) {changed}) (then unreachable)) (i32.const 0)");
        let filters = json!([
            guest.on_request(&body).binding("choose", json!({ "phase": "route", "failurePolicy": policy })),
            changer().binding("change", json!({ "phase": "traffic" })),
        ]);
        let proxy = Proxy::start(&chain(filters, says("default", json!({})), json!([]))).await;
        assert_eq!(ask(&proxy, "x-then: second\r\n").await.status(), expected, "{policy}");
        assert_eq!(ask(&proxy, "").await.status(), 200, "{policy}: the next one is fine");
    }
}

/// A filter that defines a route when it is configured, and chooses it for every request.
fn definer() -> Guest {
    use prost::Message;
    use weir_model::config::{DirectResponse, RouteAction, route_action};
    let mut guest = Guest::default();
    let respond = DirectResponse { status: 201, body: "defined".into(), ..DirectResponse::default() };
    let action = RouteAction { name: "own".into(), action: Some(route_action::Action::Respond(respond)), ..RouteAction::default() };
    let encoded = guest.text(action.encode_to_vec());
    let (define, select) = (guest.text("weir.route.define"), guest.text("weir.route.select"));
    let number = "(i32.load (i32.const 8))";
    guest
        .on(
            "proxy_on_configure",
            2,
            "i32",
            &format!("(i32.eqz (call $proxy_call_foreign_function {define} {encoded} (i32.const 8) (i32.const 12)))"),
        )
        .on_request(&format!(
            "(drop (call $proxy_call_foreign_function {select} {number} (i32.const 4) (i32.const 24) (i32.const 28))) (i32.const 0)"
        ))
}

#[tokio::test]
async fn a_filter_may_define_what_it_chooses() {
    let filters = json!([definer().binding("define", json!({ "phase": "route" }))]);
    let proxy = Proxy::start(&chain(filters, says("default", json!({})), json!([]))).await;
    let response = ask(&proxy, "").await;
    assert_eq!((response.status(), response.text()), (201, "defined"));
}
