//! The filter at work: the same expectations of its native code and of the module that ships.

#![allow(clippy::unwrap_used, clippy::panic, reason = "a test that cannot go on should stop")]

use weir_filter_authz::Authorizer;
use weir_sdk_testing::{RequestBuilder, Tester, Value, Worker};

fn natively(configuration: &str, check: &dyn Fn(&Worker)) {
    check(&Tester::native::<Authorizer>().configuration(configuration).start().unwrap_or_else(|error| panic!("{error}")));
}

fn both(configuration: &str, check: &dyn Fn(&Worker)) {
    for tester in [Tester::native::<Authorizer>(), Tester::of_crate(env!("CARGO_MANIFEST_DIR"))] {
        check(&tester.may_call(&["authz"]).configuration(configuration).start().unwrap_or_else(|error| panic!("{error}")));
    }
}

fn text(text: &str) -> Value {
    Value::Bytes(text.as_bytes().to_vec().into())
}

/// A request in words: `POST host/path`, then `name=value` for headers, and for attributes with a dot in their names.
fn request<'w>(worker: &'w Worker, words: &str) -> RequestBuilder<'w> {
    let mut words = words.split_whitespace();
    let (method, target) = (words.next().unwrap(), words.next().unwrap());
    let (host, path) = target.split_at(target.find('/').unwrap());
    let mut request = worker.request(method, path).authority(host);
    for word in words {
        let (name, value) = word.split_once('=').unwrap();
        request = match name {
            "destination.port" => request.stream(|stream| stream.set_attribute_value(name, Value::Int(value.parse().unwrap()))),
            _ if name.contains('.') => request.stream(|stream| stream.set_attribute_value(name, text(value))),
            _ => request.header(name, value),
        };
    }
    request
}

const WEB: &str = "connection.uri_san_peer_certificate=spiffe://cluster.local/ns/shop/sa/web";

/// One `ALLOW` policy with one rule: which requests it allows. The same rule of a `DENY` policy refuses exactly these.
fn check(rule: &str, yes: &[&str], no: &[&str]) {
    for (action, if_matched, if_not) in [("ALLOW", 200, 403), ("DENY", 403, 200)] {
        let policy = format!(r#"{{"policies": [{{"name": "p", "namespace": "shop", "action": "{action}", "rules": [{rule}]}}]}}"#);
        // Starting many modules takes long; what differs between the actions is not what a rule matches.
        let run = if action == "ALLOW" { both } else { natively };
        run(&policy, &|worker: &Worker| {
            for (words, status) in yes.iter().map(|words| (words, if_matched)).chain(no.iter().map(|words| (words, if_not))) {
                assert_eq!(request(worker, words).run().status(), status, "{action} {rule}: {words}");
            }
        });
    }
}

#[test]
fn sources_are_who_asks() {
    let claims = |claims: &str| format!("GET a/ request.auth.claims={claims}");
    let shop = format!("GET a/ {WEB}");
    let bank = shop.replace("shop", "bank");
    check(r#"{"from": [{"source": {"principals": ["cluster.local/ns/shop/sa/web"]}}]}"#, &[&shop], &[&bank, "GET a/"]);
    check(r#"{"from": [{"source": {"principals": ["*/sa/web"]}}]}"#, &[&shop, &bank], &["GET a/"]);
    check(r#"{"from": [{"source": {"principals": ["*"]}}]}"#, &[&shop], &["GET a/"]);
    check(r#"{"from": [{"source": {"notPrincipals": ["*"]}}]}"#, &["GET a/"], &[&shop]);
    check(r#"{"from": [{"source": {"namespaces": ["shop", "x"]}}]}"#, &[&shop], &[&bank, "GET a/"]);
    check(r#"{"from": [{"source": {"namespaces": ["sh*"], "notNamespaces": ["shopping"]}}]}"#, &[&shop], &[&bank]);
    check(r#"{"from": [{"source": {"serviceAccounts": ["web"]}}]}"#, &[&shop], &[&bank, "GET a/"]);
    check(r#"{"from": [{"source": {"notServiceAccounts": ["shop/web"]}}]}"#, &[&bank, "GET a/"], &[&shop]);
    check(r#"{"from": [{"source": {"trustDomains": ["cluster.local"]}}]}"#, &[&shop], &["GET a/"]);
    check(
        r#"{"from": [{"source": {"requestPrincipals": ["https://i/s", "j/*"]}}]}"#,
        &[&claims(r#"{"iss":"https://i","sub":"s"}"#), &claims(r#"{"iss":"j","sub":"x"}"#)],
        &["GET a/", &claims(r#"{"iss":"https:","sub":"/i/s"}"#), &claims(r#"{"iss":"j"}"#), &claims("nonsense")],
    );
    let (v4, v6) = ("GET a/ source.direct_address=10.1.2.3:99 source.client_address=192.0.2.1", "GET a/ source.address=[2001:db8::1]:9");
    check(r#"{"from": [{"source": {"ipBlocks": ["10.0.0.0/8", "2001:db8::/32"]}}]}"#, &[v4, v6], &["GET a/ source.address=11.0.0.1:1"]);
    check(r#"{"from": [{"source": {"remoteIpBlocks": ["192.0.2.1"]}}]}"#, &[v4], &[v6, "GET a/"]);
    check(r#"{"from": [{"source": {"notIpBlocks": ["10.0.0.0/8"]}}]}"#, &[v6, "GET a/"], &[v4]);
}

#[test]
fn operations_are_what_is_asked_for() {
    let to = |operation: &str| format!(r#"{{"to": [{{"operation": {operation}}}]}}"#);
    check(&to(r#"{"methods": ["GET", "P*"]}"#), &["GET a/", "POST a/"], &["HEAD a/"]);
    check(&to(r#"{"notMethods": ["GET"]}"#), &["POST a/"], &["GET a/"]);
    check(
        &to(r#"{"paths": ["/a", "/b/*", "*.html", "/c/{*}/d", "/e/{**}"]}"#),
        &["GET a/a", "GET a/a?x=/y", "GET a/b/c", "GET a/x.html", "GET a/c/1/d", "GET a/e/f/g"],
        &["GET a/a/", "GET a/b", "GET a/A", "GET a/c/1/2/d", "GET a/e"],
    );
    check(&to(r#"{"notPaths": ["/a*"]}"#), &["GET a/b"], &["GET a/a", "GET a/ab"]);
    check(
        &to(r#"{"hosts": ["a.example", "*.b.example"]}"#),
        &["GET a.example/", "GET A.Example:80/", "GET a.example./", "GET x.b.example/"],
        &["GET b.example/", "GET a.example.evil/"],
    );
    check(&to(r#"{"ports": ["8080"]}"#), &["GET a/ destination.port=8080"], &["GET a/ destination.port=80", "GET a/"]);
    check(&to(r#"{"methods": ["GET"], "paths": ["/a"]}"#), &["GET a/a"], &["POST a/a", "GET a/b"]);
    check(r#"{"to": [{"operation": {"paths": ["/a"]}}, {"operation": {"methods": ["PUT"]}}]}"#, &["GET a/a", "PUT a/b"], &["GET a/b"]);
    check("{}", &["GET a/"], &[]);
}

#[test]
fn every_key_of_a_condition_has_a_meaning() {
    let when = |key: &str, values: &str| format!(r#"{{"when": [{{"key": "{key}", "values": {values}}}]}}"#);
    let claims = |claims: &str| format!("GET a/ request.auth.claims={claims}");
    check(
        &when("request.headers[X-User]", r#"["ann", "b*"]"#),
        &["GET a/ x-user=ann", "GET a/ x-user=bob"],
        &["GET a/", "GET a/ x-user=eve"],
    );
    check(&when("request.headers[x-user]", r#"["*"]"#), &["GET a/ x-user=ann", "GET a/ x-user="], &["GET a/"]);
    check(&when("source.ip", r#"["10.0.0.1"]"#), &["GET a/ source.address=10.0.0.1:1"], &["GET a/"]);
    check(
        &when("remote.ip", r#"["10.0.0.0/8"]"#),
        &["GET a/ source.client_address=10.0.0.1 source.address=1.1.1.1:1"],
        &["GET a/ source.address=1.1.1.1:1"],
    );
    check(&when("source.namespace", r#"["shop"]"#), &[&format!("GET a/ {WEB}")], &["GET a/"]);
    check(&when("source.principal", r#"["cluster.local/ns/shop/sa/web"]"#), &[&format!("GET a/ {WEB}")], &["GET a/"]);
    check(&when("source.serviceAccount", r#"["shop/web"]"#), &[&format!("GET a/ {WEB}")], &["GET a/"]);
    check(&when("source.trustDomain", r#"["cluster*"]"#), &[&format!("GET a/ {WEB}")], &["GET a/"]);
    check(&when("request.auth.principal", r#"["i/s"]"#), &[&claims(r#"{"iss":"i","sub":"s"}"#)], &["GET a/"]);
    check(
        &when("request.auth.audiences", r#"["x"]"#),
        &[&claims(r#"{"aud":"x"}"#), &claims(r#"{"aud":["y","x"]}"#)],
        &["GET a/", &claims(r#"{"aud":["y"]}"#)],
    );
    check(&when("request.auth.presenter", r#"["x"]"#), &[&claims(r#"{"azp":"x"}"#)], &[&claims(r#"{"azp":"y"}"#)]);
    check(
        &when("request.auth.claims[realm][roles]", r#"["admin"]"#),
        &[&claims(r#"{"realm":{"roles":["user","admin"]}}"#), &claims(r#"{"realm":{"roles":"admin"}}"#)],
        &[
            &claims(r#"{"realm":{"roles":["user"]}}"#),
            &claims(r#"{"realm":"admin"}"#),
            &claims(r#"{"realm":{"roles":[["admin"]]}}"#),
            "GET a/",
        ],
    );
    check(&when("destination.ip", r#"["10.0.0.0/8"]"#), &["GET a/ destination.address=10.0.0.1:80"], &["GET a/"]);
    check(&when("destination.port", r#"["80"]"#), &["GET a/ destination.port=80"], &["GET a/ destination.port=81"]);
    check(&when("connection.sni", r#"["*.example"]"#), &["GET a/ connection.requested_server_name=a.example"], &["GET a/"]);
    check(r#"{"when": [{"key": "request.headers[x]", "notValues": ["a"]}]}"#, &["GET a/", "GET a/ x=b"], &["GET a/ x=a"]);
}

#[test]
fn custom_comes_first_then_deny_then_allow() {
    let policies = r#"{"policies": [
        {"name": "open", "namespace": "ns", "rules": [{"to": [{"operation": {"paths": ["/a*"]}}]}]},
        {"name": "shut", "namespace": "ns", "action": "DENY", "rules": [{"to": [{"operation": {"methods": ["PUT"]}}]}, {"to": [{"operation": {"paths": ["/ab"]}}]}]}
    ]}"#;
    both(policies, &|worker| {
        let allowed = request(worker, "GET a/a").run();
        assert_eq!(allowed.status(), 200);
        assert!(allowed.stream.host().set.iter().any(|(name, value)| name == b"authz\0policy" && value == b"ns[ns]-policy[open]-rule[0]"));
        for (words, by) in [("PUT a/a", "ns[ns]-policy[shut]-rule[0]"), ("GET a/ab", "ns[ns]-policy[shut]-rule[1]"), ("GET a/b", "none")] {
            let denied = request(worker, words).run();
            assert_eq!((denied.status(), denied.body().as_str()), (403, "RBAC: access denied"), "{words}");
            assert_eq!(denied.local_reply().unwrap().details, format!("rbac_access_denied_matched_policy[{by}]"));
            assert!(!denied.reached_upstream());
        }
        assert_eq!(worker.metric("weir_authz_policy_matches_total"), Some(1), "of the first policy");
        assert_eq!(worker.metric("weir_authz_requests_total"), Some(0), "allowed by none");
    });
}

#[test]
fn no_policies_allow_everything_and_an_empty_one_nothing() {
    for (configuration, status) in [
        ("{}", 200),
        (r#"{"policies": [{"name": "p"}]}"#, 403),
        (r#"{"policies": [{"name": "p"}, {"name": "q", "rules": [{}]}]}"#, 200),
        (r#"{"policies": [{"name": "q", "rules": [{}]}, {"name": "p", "action": "DENY", "rules": [{}]}]}"#, 403),
        (r#"{"policies": [{"name": "p", "dryRun": true}]}"#, 200),
        (r#"{"policies": [{"name": "p", "action": "DENY", "dryRun": true, "rules": [{}]}]}"#, 200),
        (r#"{"policies": [{"name": "p", "action": "AUDIT", "rules": [{}]}]}"#, 200),
    ] {
        both(configuration, &|worker| assert_eq!(request(worker, "GET a/").run().status(), status, "{configuration}"));
    }
    both(r#"{"policies": [{"name": "p", "action": "DENY", "dryRun": true, "rules": [{}]}]}"#, &|worker| {
        assert!(request(worker, "GET a/").run().reached_upstream());
        assert_eq!(worker.metric("weir_authz_policy_matches_total"), Some(1));
        assert!(worker.host.logged("dry run: matched ns[]-policy[p]-rule[0]"));
    });
}

#[test]
fn a_rule_holds_for_every_reading_of_a_path() {
    let deny = r#"{"policies": [{"name": "p", "action": "DENY", "rules": [{"to": [{"operation": {"paths": ["/admin", "/admin/*"]}}]}]}]}"#;
    let all_but = r#"{"policies": [{"name": "p", "rules": [{"to": [{"operation": {"notPaths": ["/admin", "/admin/*"]}}]}]}]}"#;
    for configuration in [deny, all_but] {
        both(configuration, &|worker| {
            for path in ["/admin", "/admin;x", "/;x/admin", "//admin", "/x/..%2Fadmin", "/%2Fadmin", "/admin%2Fx", "/%2561dmin", "/\\admin"]
            {
                assert_eq!(request(worker, &format!("GET a{path}")).run().status(), 403, "{path}");
            }
            assert_eq!(request(worker, "GET a/public;admin").run().status(), 200);
            assert_eq!(request(worker, "GET a/caf%C3%A9").run().status(), 200);
        });
    }
    both(&deny.replacen('{', r#"{"readings": "AS_IS", "#, 1), &|worker| {
        assert_eq!(request(worker, "GET a/admin").run().status(), 403);
        assert_eq!(request(worker, "GET a/admin;x").run().status(), 200, "as in Istio");
    });
}

#[test]
fn a_refusal_meets_any_reading_of_a_method_or_header_and_an_allowance_all() {
    let policy = |action: &str, rule: &str| format!(r#"{{"policies": [{{"name": "p", "action": "{action}", "rules": [{rule}]}}]}}"#);
    let role = |values: &str| format!(r#"{{"when": [{{"key": "request.headers[x-role]", {values}}}]}}"#);
    for (configuration, words, status) in [
        (policy("DENY", r#"{"to": [{"operation": {"methods": ["DELETE"]}}]}"#), "delete a/", 403),
        (policy("DENY", r#"{"to": [{"operation": {"notMethods": ["GET"]}}]}"#), "get a/", 403),
        (policy("ALLOW", r#"{"to": [{"operation": {"methods": ["GET"]}}]}"#), "get a/", 403),
        (policy("ALLOW", r#"{"to": [{"operation": {"notMethods": ["DELETE"]}}]}"#), "delete a/", 403),
        (policy("DENY", &role(r#""values": ["admin"]"#)), "GET a/ x-role=user x-role=admin", 403),
        (policy("DENY", &role(r#""values": ["admin"]"#)), "GET a/ x-role=user,admin", 403),
        (policy("DENY", &role(r#""notValues": ["user"]"#)), "GET a/ x-role=user x-role=admin", 403),
        (policy("ALLOW", &role(r#""values": ["user*"]"#)), "GET a/ x-role=user x-role=admin", 403),
        (policy("ALLOW", &role(r#""values": ["user*"]"#)), "GET a/ x-role=user x-role=user2", 200),
        (policy("ALLOW", &role(r#""values": ["Mon, *"]"#)), "GET a/ x-role=Mon,", 403),
        (policy("ALLOW", &role(r#""notValues": ["admin"]"#)), "GET a/ x-role=admin x-role=user", 403),
    ] {
        both(&configuration, &|worker| assert_eq!(request(worker, words).run().status(), status, "{configuration} {words}"));
    }
}

#[test]
fn trust_domains_have_aliases() {
    let policy = r#"{"trustDomain": "new", "trustDomainAliases": ["old"], "policies": [{"name": "p", "rules": [{"from": [{"source": {"principals": ["old/ns/a/sa/b"]}}]}]}]}"#;
    both(policy, &|worker| {
        for (domain, status) in [("old", 200), ("new", 200), ("other", 403)] {
            let words = format!("GET a/ connection.uri_san_peer_certificate=spiffe://{domain}/ns/a/sa/b");
            assert_eq!(request(worker, &words).run().status(), status, "{domain}");
        }
    });
}

const CUSTOM: &str = r#"{
    "policies": [
        {"name": "ask", "action": "CUSTOM", "provider": {"name": "ext"}, "rules": [{"to": [{"operation": {"paths": ["/a*"]}}]}]},
        {"name": "deny", "action": "DENY", "rules": [{"to": [{"operation": {"methods": ["PUT"]}}]}]}
    ],
    "providers": [{"name": "ext", "cluster": "authz", "pathPrefix": "/check", "timeout": "250ms", "statusOnError": 503,
        "includeRequestHeadersInCheck": ["X-Ask"], "includeAdditionalHeadersInCheck": {"x-more": "yes"}, "headersToUpstreamOnAllow": ["x-user"],
        "headersToDownstreamOnDeny": ["x-why"]}]
}"#;

#[test]
fn a_provider_is_asked_about_what_a_custom_policy_matches() {
    both(CUSTOM, &|worker| {
        assert_eq!(request(worker, "GET a/b").run().status(), 200, "nobody asks");
        let mut asked = request(worker, "GET a.example/a?b=c x-ask=1 authorization=t x-other=2 x-user=spoofed").run();
        assert!(!asked.reached_upstream());
        let callout = worker.host.take_callout().unwrap();
        assert_eq!((callout.upstream.as_str(), callout.timeout.unwrap().as_millis()), ("authz", 250));
        for (name, value) in [
            (":path", "/check/a?b=c"),
            (":method", "GET"),
            (":authority", "a.example"),
            ("x-ask", "1"),
            ("x-more", "yes"),
            ("authorization", "t"),
        ] {
            assert_eq!(callout.header(name), Some(value), "{name}");
        }
        assert_eq!(callout.header("x-other"), None);
        callout.respond(200, &[("x-user", "ann"), ("x-else", "no")], "");
        asked.go_on();
        assert_eq!(asked.status(), 200);
        assert_eq!(asked.request_header("x-user").as_deref(), Some("ann"));
        assert_eq!(asked.request_header("x-else"), None);
    });
}

#[test]
fn what_a_provider_refuses_is_refused_and_deny_still_counts() {
    both(CUSTOM, &|worker| {
        let mut refused = request(worker, "GET a/a").run();
        worker.host.take_callout().unwrap().respond(
            401,
            &[("x-why", "no"), ("x-secret", "s"), ("content-type", "text/html")],
            "who are you?",
        );
        refused.go_on();
        assert_eq!((refused.status(), refused.body().as_str()), (401, "who are you?"));
        assert_eq!(refused.response_header("x-why").as_deref(), Some("no"));
        assert_eq!(refused.response_header("x-secret"), None);
        assert_eq!(refused.local_reply().unwrap().details, "ext_authz_denied");

        let mut denied = request(worker, "PUT a/a").run();
        worker.host.take_callout().unwrap().respond(200, &[], "");
        denied.go_on();
        assert_eq!(denied.status(), 403);

        let mut failed = request(worker, "GET a/a").run();
        worker.host.take_callout().unwrap().respond(500, &[], "");
        failed.go_on();
        assert_eq!(failed.status(), 503);
        let mut gone = request(worker, "GET a/a").run();
        drop(worker.host.take_callout().unwrap());
        gone.go_on();
        assert_eq!(gone.status(), 503);
        assert_eq!(gone.local_reply().unwrap().details, "ext_authz_error");
    });
    both(&CUSTOM.replace(r#""cluster""#, r#""failOpen": true, "cluster""#), &|worker| {
        let mut failed = request(worker, "GET a/a").run();
        drop(worker.host.take_callout().unwrap());
        failed.go_on();
        assert_eq!(failed.status(), 200);
    });
}

#[test]
fn a_refusal_names_the_policy_and_the_field() {
    let rule = |rule: &str| format!(r#"{{"policies": [{{"name": "a", "rules": [{{}}]}}, {{"name": "p", "rules": [{{}}, {rule}]}}]}}"#);
    for (configuration, said) in [
        (rule(r#"{"from": [{"source": {"ipBlocks": ["x"]}}]}"#), "policies[1].rules[1].from[0].source.ipBlocks[0]: \"x\" is neither"),
        (rule(r#"{"to": [{"operation": {"notPorts": ["0"]}}]}"#), "policies[1].rules[1].to[0].operation.notPorts[0]: \"0\" is no port"),
        (rule(r#"{"to": [{"operation": {"paths": ["/{*}x"]}}]}"#), "to[0].operation.paths[0]: "),
        (
            rule(r#"{"when": [{"key": "experimental.envoy.filters.a.b[c]", "values": ["d"]}]}"#),
            "when[0].key: experimental.envoy.filters.a.b[c] asks for",
        ),
        (rule(r#"{"when": [{"key": "request.headers", "values": ["d"]}]}"#), "when[0].key: \"\" is no name in brackets"),
        (rule(r#"{"from": [{"sauce": {}}]}"#), "did you mean `source`?"),
        (
            r#"{"policies": [{"name": "p", "action": "CUSTOM", "rules": [{}], "provider": {"name": "x"}}]}"#.to_owned(),
            "policies[0].provider.name: there is no provider \"x\"",
        ),
        (r#"{"providers": [{"name": "x", "cluster": "c", "timeout": "1h"}]}"#.to_owned(), "providers[0].timeout"),
    ] {
        for tester in [Tester::native::<Authorizer>(), Tester::of_crate(env!("CARGO_MANIFEST_DIR"))] {
            let error = tester.configuration(&configuration).start().unwrap_err().to_string();
            assert!(error.contains(said), "{configuration}: {error}");
        }
    }
}

#[test]
fn on_tcp_what_only_http_has_widens_a_refusal_and_voids_an_allowance() {
    let connect = |policy: &str, port: i64| {
        let mut answers = Vec::new();
        for tester in [Tester::native::<Authorizer>(), Tester::of_crate(env!("CARGO_MANIFEST_DIR"))] {
            let configuration = format!(r#"{{"policies": [{policy}]}}"#);
            let worker = tester
                .configuration(&configuration)
                .binding(|binding| binding.kind = weir_sdk_testing::host_api::Kind::Tcp)
                .start()
                .unwrap();
            let mut stream = worker.stream();
            stream.host_mut().set_attribute_value("destination.port", Value::Int(port));
            stream.new_connection();
            answers.push(!stream.is_reset());
        }
        assert_eq!(answers[0], answers[1]);
        answers[0]
    };
    let allow = |operation: &str| format!(r#"{{"name": "p", "rules": [{{"to": [{{"operation": {operation}}}]}}]}}"#);
    let deny = |operation: &str| allow(operation).replacen('{', r#"{"action": "DENY","#, 1);
    assert!(connect(&allow(r#"{"ports": ["80"]}"#), 80) && !connect(&allow(r#"{"ports": ["80"]}"#), 81));
    assert!(!connect(&allow(r#"{"ports": ["80"], "methods": ["GET"]}"#), 80), "a rule with HTTP in it allows nothing");
    assert!(!connect(&deny(r#"{"ports": ["80"], "methods": ["GET"]}"#), 80), "the method is ignored");
    assert!(connect(&deny(r#"{"ports": ["80"], "methods": ["GET"]}"#), 81));
    assert!(!connect(&deny(r#"{"methods": ["GET"]}"#), 80), "nothing is left, and matches all");
}

#[test]
fn a_request_costs_few_host_calls() {
    let policies = r#"{"policies": [
        {"name": "no-admin", "action": "DENY", "rules": [{"to": [{"operation": {"paths": ["/admin", "/admin/*"]}}]}]},
        {"name": "web", "rules": [{"from": [{"source": {"namespaces": ["shop"]}}], "to": [{"operation": {"methods": ["GET"]}}]}]}
    ]}"#;
    let worker = Tester::of_crate(env!("CARGO_MANIFEST_DIR")).configuration(policies).start().unwrap();
    let run = |worker: &Worker| request(worker, &format!("GET a/ {WEB}")).run();
    assert_eq!(run(&worker).status(), 200);
    // The path, the peer, the method; the rule for the log; one counter.
    worker.budget(run).host_calls(5).micros(2000.0);
}
