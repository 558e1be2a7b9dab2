//! The filter at work: the same expectations of its native code and of the module that ships. Tokens are made by another library.

#![allow(clippy::unwrap_used, clippy::panic, reason = "a test that cannot go on should stop")]

mod support;

use std::time::Duration;

use serde_json::{Value, json};
use support::*;
use weir_filter_jwt::Authenticator;
use weir_sdk_testing::{Exchange, Tester, Worker};

/// The test's clock, in seconds.
const NOW: i64 = 1_700_000_000;

fn both(configuration: &Value, check: impl Fn(&Worker)) {
    for tester in [Tester::native::<Authenticator>(), Tester::of_crate(env!("CARGO_MANIFEST_DIR"))] {
        let tester = tester.may_call(&["keys"]).configuration(&configuration.to_string());
        check(&tester.start().unwrap_or_else(|error| panic!("{error}")));
    }
}

fn rule(more: &Value) -> Value {
    let mut rule = json!({ "issuer": "https://i" });
    rule.as_object_mut().unwrap().extend(more.as_object().unwrap().clone());
    rule
}

fn rules(rules: &[Value]) -> Value {
    json!({ "jwtRules": rules })
}

fn claims(more: &Value) -> Value {
    let mut claims = json!({ "iss": "https://i", "sub": "ann" });
    claims.as_object_mut().unwrap().extend(more.as_object().unwrap().clone());
    claims
}

fn bearer(worker: &Worker, token: &str) -> Exchange {
    worker.get("/").header("authorization", &format!("Bearer {token}")).run()
}

/// What a filter behind this one reads of a stream.
fn property(exchange: &Exchange, path: &str) -> Option<String> {
    let path = path.replace('.', "\0").into_bytes();
    let set = &exchange.stream.host().set;
    set.iter().find(|(name, _)| *name == path).map(|(_, value)| String::from_utf8(value.clone()).unwrap())
}

#[test]
fn every_algorithm_verifies_what_another_library_signed() {
    let (rsa, p256, p384, p521, ed) = (Signer::rsa(), Signer::ec("P-256"), Signer::ec("P-384"), Signer::ec("P-521"), Signer::ed());
    let keys = [(&rsa, "rsa"), (&p256, "p256"), (&p384, "p384"), (&p521, "p521"), (&ed, "ed")];
    let jwks = set(&keys.map(|(key, id)| key.jwk(&json!({ "kid": id, "use": "sig" }))));
    both(&rules(&[rule(&json!({ "jwks": jwks }))]), |worker| {
        for (key, id, algorithm) in [
            (&rsa, "rsa", "RS256"),
            (&rsa, "rsa", "RS384"),
            (&rsa, "rsa", "RS512"),
            (&rsa, "rsa", "PS256"),
            (&rsa, "rsa", "PS384"),
            (&rsa, "rsa", "PS512"),
            (&p256, "p256", "ES256"),
            (&p384, "p384", "ES384"),
            (&p521, "p521", "ES512"),
            (&ed, "ed", "EdDSA"),
        ] {
            for header in [json!({ "alg": algorithm, "kid": id }), json!({ "alg": algorithm })] {
                let token = key.token(&header, &claims(&json!({})));
                let accepted = bearer(worker, &token);
                assert_eq!(accepted.status(), 200, "{algorithm} {}", accepted.body());
                assert_eq!(property(&accepted, "request.auth.principal").as_deref(), Some("https://i/ann"));
            }
            // One bit of what was signed, or of the signature.
            let token = key.token(&json!({ "alg": algorithm, "kid": id }), &claims(&json!({})));
            let (message, signature) = token.rsplit_once('.').unwrap();
            let other = key.token(&json!({ "alg": algorithm, "kid": id }), &claims(&json!({ "sub": "eve" })));
            let forged = bearer(worker, &format!("{}.{signature}", other.rsplit_once('.').unwrap().0));
            assert_eq!((forged.status(), forged.body().as_str()), (401, "Jwt verification fails"), "{algorithm}");
            for broken in ["", "AAAA", &"A".repeat(signature.len()), &signature[4..]] {
                assert_eq!(bearer(worker, &format!("{message}.{broken}")).status(), 401, "{algorithm} {broken}");
            }
        }
    });
}

#[test]
fn a_key_verifies_only_by_its_own_algorithm() {
    let (rsa, p256, ed) = (Signer::rsa(), Signer::ec("P-256"), Signer::ed());
    let jwks = set(&[rsa.jwk(&json!({ "kid": "a", "alg": "RS256" })), p256.jwk(&json!({ "kid": "b" })), ed.jwk(&json!({ "kid": "c" }))]);
    both(&rules(&[rule(&json!({ "jwks": jwks }))]), |worker| {
        let said = |token: &str| bearer(worker, token).body();
        let none = "Jwks doesn't have key to match kid or alg from Jwt";
        assert_eq!(said(&rsa.token(&json!({ "alg": "RS512", "kid": "a" }), &claims(&json!({})))), none, "the key says RS256");
        assert_eq!(said(&rsa.token(&json!({ "alg": "PS256", "kid": "a" }), &claims(&json!({})))), none);
        assert_eq!(said(&rsa.token(&json!({ "alg": "RS256", "kid": "b" }), &claims(&json!({})))), none, "that is another key");
        assert_eq!(said(&rsa.token(&json!({ "alg": "RS256", "kid": "z" }), &claims(&json!({})))), none);
        let signed = rsa.token(&json!({ "alg": "RS256", "kid": "a" }), &claims(&json!({})));
        let parts: Vec<&str> = signed.split('.').collect();
        for (header, text) in [
            (json!({ "alg": "none" }), "Jwt header [alg] is not supported"),
            (json!({ "alg": "None", "kid": "a" }), "Jwt header [alg] is not supported"),
            (json!({ "alg": "HS256", "kid": "a" }), "Jwt header [alg] is not supported"),
            (json!({ "alg": "ES256", "kid": "a" }), none),
            (json!({ "alg": "EdDSA", "kid": "b" }), none),
            (json!({ "alg": "ES256", "kid": "b" }), "Jwt verification fails"),
        ] {
            for signature in [parts[2], ""] {
                let token = format!("{}.{}.{signature}", base64url(header.to_string()), parts[1]);
                assert_eq!(said(&token), text, "{header}");
            }
        }
    });
}

#[test]
fn claims_are_judged_and_errors_are_istios() {
    let key = Signer::ed();
    let jwks = set(&[key.jwk(&json!({}))]);
    let configuration = rules(&[rule(&json!({ "jwks": jwks, "audiences": ["https://shop.example"] }))]);
    both(&configuration, |worker| {
        for (more, status, text) in [
            (json!({ "aud": "https://shop.example" }), 200, "upstream"),
            (json!({ "aud": ["x", "shop.example/"] }), 200, "upstream"),
            (json!({ "aud": "x" }), 403, "Audiences in Jwt are not allowed"),
            (json!({}), 403, "Audiences in Jwt are not allowed"),
            (json!({ "aud": 1 }), 401, "Jwt payload [aud] field is not a string or string list"),
            (json!({ "aud": "shop.example", "exp": NOW - 61 }), 401, "Jwt is expired"),
            (json!({ "aud": "shop.example", "exp": NOW - 59 }), 200, "upstream"),
            (json!({ "aud": "shop.example", "nbf": NOW + 61 }), 401, "Jwt not yet valid"),
            (json!({ "aud": "shop.example", "iss": "https://j" }), 401, "Jwt issuer is not configured"),
            (json!({ "aud": "shop.example", "iss": 1 }), 401, "Jwt payload [iss] field is not a string"),
            (json!({ "aud": "shop.example", "sub": [] }), 401, "Jwt payload [sub] field is not a string"),
        ] {
            let judged = bearer(worker, &key.token(&json!({ "alg": "EdDSA" }), &claims(&more)));
            assert_eq!((judged.status(), judged.body().as_str()), (status, text), "{more}");
            if status != 200 {
                let challenge = r#"Bearer realm="http://test.example/", error="invalid_token""#;
                assert_eq!(judged.response_header("www-authenticate").as_deref(), Some(challenge));
                assert_eq!(judged.local_reply().unwrap().details, format!("jwt_authn_access_denied{{{}}}", text.replace(' ', "_")));
            }
        }
        let long = bearer(worker, &"a".repeat(17 << 10));
        assert_eq!(long.body(), "Jwt is too large");
        assert_eq!(bearer(worker, "a.b").status(), 401);
    });
}

#[test]
fn a_token_may_be_missing_unless_it_is_required() {
    let key = Signer::ed();
    let mut configuration = rules(&[rule(&json!({ "jwks": set(&[key.jwk(&json!({}))]) }))]);
    both(&configuration, |worker| {
        let without = worker.get("/").run();
        assert_eq!((without.status(), property(&without, "request.auth.principal")), (200, None));
        assert_eq!(worker.get("/").header("authorization", "Basic YTpi").run().status(), 200, "that is no token");
    });
    configuration["required"] = json!(true);
    both(&configuration, |worker| {
        let without = worker.get("/a?b").run();
        assert_eq!((without.status(), without.body().as_str()), (401, "Jwt is missing"));
        assert_eq!(without.response_header("www-authenticate").as_deref(), Some(r#"Bearer realm="http://test.example/a""#));
        let preflight = worker.request("OPTIONS", "/").header("origin", "https://a").header("access-control-request-method", "PUT");
        assert_eq!(preflight.run().status(), 200);
    });
}

#[test]
fn tokens_are_found_where_the_rule_says_and_taken_out() {
    let key = Signer::ed();
    let jwks = set(&[key.jwk(&json!({}))]);
    let token = key.token(&json!({ "alg": "EdDSA" }), &claims(&json!({})));
    both(&rules(&[rule(&json!({ "jwks": jwks }))]), |worker| {
        let by_header = worker.get("/").header("authorization", &format!("bearer {token}")).run();
        assert_eq!((by_header.status(), by_header.request_header("authorization")), (200, None), "origins take bearer for Bearer");
        let by_query = worker.get(&format!("/p?a=1&access_token={token}&b=2")).run();
        assert_eq!(by_query.request_header(":path").as_deref(), Some("/p?a=1&b=2"));
        let alone = worker.get(&format!("/p?access_token={token}")).run();
        assert_eq!(alone.request_header(":path").as_deref(), Some("/p"));
        let twice = worker.get("/").header("authorization", &format!("Bearer {token}")).header("authorization", "Bearer x").run();
        assert_eq!(twice.body(), "Jwt is given more than once");
        let queried = worker.get(&format!("/p?access_token={token}&access_token=x")).run();
        assert_eq!(queried.body(), "Jwt is given more than once");
        let other = worker.get("/p?access_token=bad").header("authorization", &format!("Bearer {token}")).run();
        assert_eq!(other.status(), 401, "each has to be good");
    });
    let places =
        json!({ "jwks": jwks, "fromHeaders": [{ "name": "X-Jwt", "prefix": "jwt:" }], "fromParams": ["t"], "fromCookies": ["session"] });
    both(&rules(&[rule(&places)]), |worker| {
        let accepted = |exchange: &Exchange| property(exchange, "request.auth.principal").is_some();
        let header = worker.get("/").header("x-jwt", &format!("jwt:{token}")).run();
        assert!(accepted(&header) && header.request_header("x-jwt").is_none());
        assert!(accepted(&worker.get(&format!("/?t={token}")).run()));
        let cookie = worker.get("/").header("cookie", &format!("a=b; session={token}; c=d")).run();
        assert!(accepted(&cookie));
        assert_eq!(cookie.request_header("cookie").as_deref(), Some("a=b; c=d"));
        assert!(!accepted(&bearer(worker, &token)), "not here");
    });
    both(&rules(&[rule(&json!({ "jwks": jwks, "forwardOriginalToken": true }))]), |worker| {
        assert!(bearer(worker, &token).request_header("authorization").is_some());
    });
}

#[test]
fn claims_go_to_headers_that_no_client_can_set() {
    let key = Signer::ed();
    let outputs = json!({
        "jwks": set(&[key.jwk(&json!({}))]), "outputPayloadToHeader": "x-payload",
        "outputClaimToHeaders": [{ "header": "X-Sub", "claim": "sub" }, { "header": "x-deep", "claim": "a.b" }, { "header": "x-none", "claim": "none" }],
        "spaceDelimitedClaims": ["roles"],
    });
    both(&rules(&[rule(&outputs)]), |worker| {
        let claims = claims(&json!({ "a": { "b": 7 }, "scope": "read write", "roles": "x y", "azp": "app", "aud": ["p", "q"] }));
        let token = key.token(&json!({ "alg": "EdDSA" }), &claims);
        let names = ["x-payload", "x-sub", "x-deep", "x-none"];
        let request = names.iter().fold(worker.get("/"), |request, name| request.header(name, "spoofed"));
        let accepted = request.header("authorization", &format!("Bearer {token}")).run();
        assert_eq!(accepted.status(), 200);
        let payload = token.split('.').nth(1).map(str::to_owned);
        for (name, value) in [("x-payload", payload), ("x-sub", Some("ann".to_owned())), ("x-deep", Some("7".to_owned())), ("x-none", None)]
        {
            assert_eq!(accepted.request_header(name), value, "{name}");
        }
        let handed: Value = serde_json::from_str(&property(&accepted, "request.auth.claims").unwrap()).unwrap();
        assert_eq!((&handed["scope"], &handed["roles"]), (&json!(["read", "write"]), &json!(["x", "y"])));
        assert_eq!(property(&accepted, "request.auth.audiences").as_deref(), Some("p,q"));
        assert_eq!(property(&accepted, "request.auth.presenter").as_deref(), Some("app"));

        let request = names.iter().fold(worker.get("/"), |request, name| request.header(name, "spoofed"));
        let without = request.run();
        names.iter().for_each(|name| assert_eq!(without.request_header(name), None, "{name}"));
    });
}

#[test]
fn any_rule_may_accept_a_token() {
    let (one, other) = (Signer::ed(), Signer::ec("P-256"));
    let rule_of = |issuer: &str, key: &Signer| json!({ "issuer": issuer, "jwks": set(&[key.jwk(&json!({}))]) });
    both(&rules(&[rule_of("one", &one), rule_of("other", &other)]), |worker| {
        let token = |key: &Signer, algorithm: &str, issuer: &str, exp: i64| {
            key.token(&json!({ "alg": algorithm }), &json!({ "iss": issuer, "sub": "s", "exp": exp }))
        };
        for (token, text) in [
            (token(&one, "EdDSA", "one", NOW), "upstream"),
            (token(&other, "ES256", "other", NOW), "upstream"),
            (token(&other, "ES256", "other", 1), "Jwt is expired"),
            (token(&other, "ES256", "third", NOW), "Jwt issuer is not configured"),
            (token(&other, "ES256", "one", NOW), "Jwks doesn't have key to match kid or alg from Jwt"),
        ] {
            assert_eq!(bearer(worker, &token).body(), text);
        }
    });
}

fn remote() -> Value {
    rules(&[rule(
        &json!({ "jwksUri": "https://login.example:8443/keys?v=1", "jwksCluster": "keys", "timeout": "2s", "jwksRefreshSeconds": 100 }),
    )])
}

#[test]
fn keys_are_fetched_kept_and_fetched_again() {
    let (first, second) = (Signer::ed(), Signer::ed());
    let header = |id: &str| json!({ "alg": "EdDSA", "kid": id });
    let with = |key: &Signer, id: &str| set(&[key.jwk(&json!({ "kid": id }))]);
    both(&remote(), |worker| {
        let callout = worker.host.take_callout().expect("the keys are asked for at once");
        for (name, value) in [(":path", "/keys?v=1"), (":authority", "login.example:8443"), (":method", "GET")] {
            assert_eq!(callout.header(name), Some(value));
        }
        assert_eq!((callout.upstream.as_str(), callout.timeout), ("keys", Some(Duration::from_secs(2))));
        // A request that comes first waits for them.
        let token = first.token(&header("1"), &claims(&json!({})));
        let mut early = bearer(worker, &token);
        assert!(!early.reached_upstream() && early.local_reply().is_none());
        callout.respond(200, &[], &with(&first, "1"));
        worker.host.advance(Duration::from_millis(50));
        worker.run_timers();
        early.go_on();
        assert_eq!(early.status(), 200, "{}", early.body());

        // A key that is not known: asked for once in a while, however often it comes.
        worker.host.advance(Duration::from_secs(11));
        let rotated = second.token(&header("2"), &claims(&json!({})));
        let mut waiting = bearer(worker, &rotated);
        assert!(!waiting.reached_upstream());
        worker.host.take_callout().expect("a question").respond(200, &[], &with(&second, "2"));
        waiting.go_on();
        assert_eq!(waiting.status(), 200);
        assert_eq!(bearer(worker, &token).body(), "Jwks doesn't have key to match kid or alg from Jwt", "not remembered with other keys");
        assert!(worker.host.take_callout().is_none(), "not again so soon");

        // The server is away: what is known stays.
        for seconds in [100, 2, 3] {
            worker.host.advance(Duration::from_secs(seconds));
            worker.run_timers();
            if let Some(callout) = worker.host.take_callout() {
                callout.respond(503, &[], "away");
            }
            assert_eq!(bearer(worker, &rotated).status(), 200);
        }
        assert!(worker.host.logged("status 503; the last keys are kept"));
    });
}

#[test]
fn without_keys_every_token_fails() {
    let key = Signer::ed();
    both(&remote(), |worker| {
        drop(worker.host.take_callout());
        let mut asking = bearer(worker, &key.token(&json!({ "alg": "EdDSA" }), &claims(&json!({}))));
        worker.host.take_callout().expect("it is asked for again").respond(200, &[], "nonsense");
        asking.go_on();
        assert_eq!((asking.status(), asking.body().as_str()), (401, "Jwks remote fetch is failed"));
        assert_eq!(worker.get("/").run().status(), 200, "who shows none needs none");
    });
}

#[test]
fn a_refusal_names_the_field() {
    let jwks = |keys: &str| json!({ "jwks": keys });
    let short = Signer::Rsa(aws_lc_rs::rsa::KeyPair::generate(aws_lc_rs::rsa::KeySize::Rsa2048).unwrap()).jwk(&json!({ "alg": "ES256" }));
    for (rule_of, said) in [
        (json!({ "issuer": "" }), "jwtRules[0].issuer: it must not be empty"),
        (rule(&json!({})), "jwtRules[0]: one of jwks and jwksUri must be written"),
        (rule(&jwks("{")), "jwtRules[0].jwks: this is no JSON Web Key Set"),
        (rule(&jwks(r#"{"keys": []}"#)), "jwtRules[0].jwks: the JSON Web Key Set has no key that can be used"),
        (rule(&jwks(r#"{"keys": [{"kty": "oct", "k": "c2VjcmV0"}]}"#)), "has no key that can be used"),
        (rule(&jwks(&set(&[short]))), "has no key that can be used"),
        (
            rule(&json!({ "jwksUri": "ftp://x", "jwksCluster": "keys" })),
            "jwtRules[0].jwksUri: \"ftp://x\" is no http:// or https:// address",
        ),
        (rule(&json!({ "jwksUri": "https://x:port/", "jwksCluster": "keys" })), "jwtRules[0].jwksUri"),
        (rule(&json!({ "jwksUri": "https://x/" })), "jwtRules[0].jwksCluster: jwksUri needs the cluster"),
        (rule(&json!({ "jwks": "{}", "outputPayloadToHeader": "a b" })), "jwtRules[0].outputPayloadToHeader"),
        (rule(&json!({ "jwks": "{}", "fromParams": ["a=b"] })), "jwtRules[0].fromParams[0]"),
        (rule(&json!({ "jwk": "{}" })), "did you mean `jwks`?"),
    ] {
        let error = Tester::native::<Authenticator>().configuration(&rules(&[rule_of]).to_string()).start().unwrap_err().to_string();
        assert!(error.contains(said), "{said}: {error}");
    }
}

#[test]
fn a_verified_token_is_remembered_and_verifying_one_fits_a_callback() {
    let keys = [
        ("RS256", Signer::rsa()),
        ("ES256", Signer::ec("P-256")),
        ("ES384", Signer::ec("P-384")),
        ("ES512", Signer::ec("P-521")),
        ("EdDSA", Signer::ed()),
    ];
    let jwks = set(&keys.iter().map(|(_, key)| key.jwk(&json!({}))).collect::<Vec<_>>());
    let module = Tester::of_crate(env!("CARGO_MANIFEST_DIR"));
    let mut configuration = rules(&[rule(&json!({ "jwks": jwks }))]);
    configuration["cacheKib"] = json!(0);
    let unremembered = module.configuration(&configuration.to_string()).start().unwrap();
    for (algorithm, key) in &keys {
        let token = key.token(&json!({ "alg": algorithm }), &claims(&json!({})));
        assert_eq!(bearer(&unremembered, &token).status(), 200);
        let budget = unremembered.budget(|worker| bearer(worker, &token));
        println!("{algorithm}: {:.0} µs a token, not remembered", budget.micros);
        // The deadline of a callback is 20 ms.
        budget.micros(19_000.0);
    }
    configuration["cacheKib"] = json!(1024);
    let worker = Tester::of_crate(env!("CARGO_MANIFEST_DIR")).configuration(&configuration.to_string()).start().unwrap();
    let token = keys[0].1.token(&json!({ "alg": "RS256" }), &claims(&json!({})));
    let budget = worker.budget(|worker| bearer(worker, &token));
    println!("remembered: {:.0} µs and {} host calls a token", budget.micros, budget.host_calls);
    assert!(budget.micros(2000.0).host_calls <= 12);
}
