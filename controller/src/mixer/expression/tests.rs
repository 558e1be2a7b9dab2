//! What expressions mean, case by case, and that none of them does harm.

use std::collections::BTreeMap;

use super::*;

fn vocabulary() -> Vocabulary {
    let letters = [("s", Type::String), ("i", Type::Int64), ("b", Type::Bool), ("d", Type::Duration), ("m", Type::StringMap)];
    let others = [("ip", Type::IpAddress), ("t", Type::Timestamp), ("dns", Type::DnsName), ("uri", Type::Uri), ("a.b.c", Type::String)];
    letters.into_iter().chain(others).collect()
}

fn attributes() -> BTreeMap<String, Value> {
    let map = BTreeMap::from([("x".to_owned(), "1".to_owned())]);
    let values = [
        ("s", Value::String("text".into())),
        ("i", Value::Int64(7)),
        ("b", Value::Bool(true)),
        ("m", Value::StringMap(Arc::new(map))),
        ("a.b.c", Value::String("dotted".into())),
        ("t", Value::Timestamp(1_000_000_000)),
    ];
    values.into_iter().map(|(name, value)| (name.to_owned(), value)).collect()
}

fn run(text: &str) -> Result<Value, String> {
    let expression = Expression::new(text, &vocabulary()).map_err(|error| format!("refused: {error}"))?;
    expression.evaluate(&attributes()).value.map_err(|error| error.0)
}

#[test]
fn expressions_come_to_values() {
    let text = |text: &str| Ok(Value::String(text.into()));
    let is = |value| Ok(Value::Bool(value));
    let cases = [
        ("s + a.b.c", text("textdotted")),
        ("\"a\\tb\\x41\\u00e9\\101\"", text("a\tbA\u{e9}A")),
        ("`raw\\n`", text("raw\\n")),
        ("'c'", text("c")),
        ("(s).startsWith(\"te\") && toLower(\"ABC\").endsWith(\"bc\")", is(true)),
        ("\"t.x\".matches(s)", is(true)),
        ("match(s, \"*xt\") == true", is(true)),
        ("i + 010", Ok(Value::Int64(17))),
        ("dns | dnsName(\"a.b\")", text("a.b")),
        ("m[\"x\"] | \"no\"", text("1")),
        ("m[\"y\"] == \"\"", is(true)),
        ("emptyStringMap()[\"y\"] | \"none\"", text("none")),
        ("conditional(i > 5, m, emptyStringMap())[\"x\"]", text("1")),
        ("\"1\" + \".s\" + \"1s2\" + \"99999999h\"", text("1.s1s299999999h")),
        ("d | \"1h2m3.5s\"", Ok(Value::Duration(3_723_500_000_000))),
        ("timestamp(\"1970-01-01T01:00:01.5+01:00\") > t", is(true)),
        ("ip(\"::ffff:1.2.3.4\") == ip(\"1.2.3.4\")", is(true)),
        ("uri(\"HTTP://A.b:80/x?q#f\") == uri(\"http://a.B.:80/x?q#f\")", is(true)),
        ("uri(\"http://a/x\") == uri(\"http://a/X\")", is(false)),
        ("TRUE ||\n FALSE\n", is(true)),
        ("/* why */ i == 7 // seven", is(true)),
        ("size(s) * 2", Err("refused: unknown function: MUL".into())),
        ("s == \"0\"", Err("refused: EQ($s, \"0\") arg 2 (\"0\") typeError got DURATION, expected STRING".into())),
        ("d == \"1s\"", Err("refused: internal compiler error -- equality for type not yet implemented: duration".into())),
        ("!b", Err("refused: unknown function: NOT".into())),
        ("size(s, s)", Err("refused: size($s, $s) arity mismatch. Got 2 arg(s), expected 1 arg(s)".into())),
        ("dns == dnsName(\"a\")", Err("lookup failed: 'dns'".into())),
        ("email(\"A <a@b>\")", Err("error converting 'A <a@b>' to e-mail: 'mail: invalid string'".into())),
    ];
    for (expression, wanted) in cases {
        assert_eq!(run(expression), wanted, "{expression}");
    }
}

#[test]
fn what_is_no_expression_is_refused() {
    for text in [
        "",
        "(",
        ")",
        "s s",
        "s.",
        "s.type",
        "s[",
        "s[1:2]",
        "f(",
        "s,s",
        "\"",
        "'ab'",
        "1.5.2",
        "09",
        "0x10",
        "1i",
        "s\n== s",
        "m[\"x\"].startsWith(\"1\")",
        "s.startsWith",
        "\"a\".b",
        "(s)(s)",
        "m[\"x\"](s)",
        "#",
        "\"\\q\"",
        "f(s",
        "s == = s",
        "unknown",
        "s.EQ(s)",
        "99999999999999999999",
    ] {
        assert!(Expression::new(text, &vocabulary()).is_err(), "{text}");
    }
}

#[test]
fn timestamps_are_read_as_go_reads_them() {
    for (text, wanted) in [
        ("1970-01-01T00:00:00Z", Some(0)),
        ("2000-02-29T12:00:00.25Z", Some(951_825_600_250_000_000)),
        ("1969-12-31T23:59:59-01:00", Some(3_599_000_000_000)),
        ("2001-02-29T12:00:00Z", None),
        ("2001-01-01T24:00:00Z", None),
        ("2001-01-01", None),
        ("2001-01-01T00:00:00", None),
    ] {
        assert_eq!(timestamp(text), wanted, "{text}");
    }
}

#[test]
fn nothing_grows_without_bound() {
    let deep = |open: &str, close: &str| format!("{}s{}", open.repeat(5000), close.repeat(5000));
    for text in
        [deep("(", ")"), deep("m[", "]"), deep("!", ""), deep("toLower(", ")"), "s + ".repeat(4000) + "s", " ".repeat(MAX_LENGTH + 1)]
    {
        assert!(Expression::new(&text, &vocabulary()).is_err());
    }
    let most = "b && ".repeat(MAX_DEPTH - 1) + "b";
    assert_eq!(run(&most), Ok(Value::Bool(true)));
    let nested = format!("{}s{}", "(".repeat(90), ")".repeat(90));
    assert_eq!(run(&nested), Ok(Value::String("text".into())));
    assert!(run("\"(a{900}){900}\".matches(s)").is_err());
}

#[test]
fn no_text_does_harm() {
    let alphabet: Vec<char> = "s.m[\"x\"]()|&=!<>+'`\\\n/*1e,é\u{301}0-@ true".chars().collect();
    let mut state = 7_u64;
    let mut next = || {
        state = state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1);
        usize::try_from(state >> 33).unwrap()
    };
    for _ in 0..3_000 {
        let text: String = (0..next() % 24).map(|_| alphabet[next() % alphabet.len()]).collect();
        let _ = run(&text);
        for function in ["uri", "email", "dnsName", "timestamp", "ip"] {
            let text: String = text.chars().filter(|letter| !matches!(letter, '`')).collect();
            let _ = run(&format!("{function}(`{text}`) == {function}(`{text}x`)"));
        }
    }
}
