//! The language by examples, what it says of mistakes, and that nothing makes it panic.

#![allow(clippy::unwrap_used, reason = "a test that cannot go on should stop")]

use std::collections::BTreeMap;

use proptest::prelude::*;

use crate::{Program, Side, Source};

/// A request in memory.
#[derive(Default)]
struct Asked {
    headers: BTreeMap<&'static str, &'static [u8]>,
    attributes: BTreeMap<String, Vec<u8>>,
}

impl Source for Asked {
    fn attribute(&self, path: &[&str]) -> Option<&[u8]> {
        self.attributes.get(&path.join("/")).map(Vec::as_slice)
    }

    fn header(&self, side: Side, name: &str) -> Option<&[u8]> {
        (side == Side::RequestHeaders).then(|| self.headers.get(name).copied())?
    }

    fn headers(&self, side: Side) -> Vec<(&[u8], &[u8])> {
        let all = self.headers.iter().map(|(name, value)| (name.as_bytes(), *value));
        if side == Side::RequestHeaders { all.collect() } else { Vec::new() }
    }
}

fn asked() -> Asked {
    let number = |number: i64| number.to_le_bytes().to_vec();
    let attributes = [
        ("request/path", b"/api/v1/users".to_vec()),
        ("request/method", b"POST".to_vec()),
        ("request/size", number(1000)),
        ("request/time", number(1_795_276_800_000_000_000)),
        ("request/duration", number(1_500_000_000)),
        ("connection/mtls", vec![1]),
        ("source/address", b"10.0.0.1:5000".to_vec()),
        ("metadata/filter_metadata/envoy.lb/tier", b"gold".to_vec()),
        ("xds/route_metadata", [&2u32.to_le_bytes()[..], &[1, 0, 0, 0, 1, 0, 0, 0, 1, 0, 0, 0, 0, 0, 0, 0], b"a\0b\0c\0\0"].concat()),
    ];
    Asked {
        headers: BTreeMap::from([("x-user", &b"anna"[..]), ("x-empty", b""), ("x-bytes", b"\xff")]),
        attributes: attributes.into_iter().map(|(name, value)| (name.to_owned(), value)).collect(),
    }
}

fn value(text: &str) -> Result<String, String> {
    let program = Program::compile(text).map_err(|mistake| mistake.to_string())?;
    let source = asked();
    let value = program.evaluate(&source).map_err(|none| none.to_string())?;
    Ok(value.to_text().map_or_else(|| format!("{value:?}"), |text| text.into_owned()))
}

#[test]
fn expressions_have_their_values() {
    for (text, expected) in [
        ("1 + 2 * 3 - 4 / 2 % 3", "5"),
        ("(1 + 2) * -3", "-9"),
        ("7 / 2 == 3 && 7.0 / 2.0 == 3.5", "true"),
        ("0x10 + 1", "17"),
        ("-9223372036854775808", "-9223372036854775808"),
        ("1u + 2u", "3"),
        ("1 == 1u && 1 == 1.0 && 1u < 2 && 2.5 > 2", "true"),
        ("9007199254740993 == 9007199254740992.0", "false"),
        ("'a' + \"b\" + r'\\n' + '''c'd'''", "ab\\nc'd"),
        (
            r"'\x41\u00e4\n' == 'Aä' + '''
'''",
            "true",
        ),
        ("b'a' + b'\\xff' == b'\\x61\\xff'", "true"),
        ("true ? 'yes' : 'no'", "yes"),
        ("false || !false && true", "true"),
        ("2 in [1, 2, 3] && !(4 in [1, 2, 3]) && 'a' in {'a': 1}", "true"),
        ("[1, 2] + [3] == [1, 2, 3]", "true"),
        ("{'a': {'b': [5, 6]}}.a.b[1]", "6"),
        ("{'a': 1} == {'a': 1u}", "true"),
        ("null == null && null != 0", "true"),
        ("'a' == 1", "false"),
        ("size('äb') + size([1]) + size({'k': 1}) + size(b'abc')", "7"),
        ("'abc'.size()", "3"),
        ("'Hello'.lowerAscii() + 'x'.upperAscii() + ' y '.trim()", "helloXy"),
        ("'a,b,c'.split(',')[2] + ['x', 'y'].join('-')", "cx-y"),
        ("'a,b,c'.split(',', 2)[1]", "b,c"),
        ("'aXbX'.replace('X', '-') + 'aXbX'.replace('X', '-', 1)", "a-b-a-bX"),
        ("'hällo'.substring(1, 3) + 'hällo'.charAt(4)", "älo"),
        ("'hällo'.indexOf('l') + 'hällo'.lastIndexOf('l') * 10", "32"),
        ("'abc'.contains('b') && 'abc'.startsWith('ab') && 'abc'.endsWith('bc')", "true"),
        ("'abc'.matches('b') && !matches('abc', '^b')", "true"),
        ("int('12') + int(3.9) + int(2u)", "17"),
        ("string(1.5) + string(true) + string(b'x')", "1.5truex"),
        ("double('1.5') + double(1)", "2.5"),
        ("bool('true') && type(1) == 'int'", "true"),
        ("duration('1h30m') > duration('89m') && duration('1.5s') == duration('1500ms')", "true"),
        ("string(duration('90s') + duration('-0.5s'))", "89.5s"),
        ("timestamp('2026-11-21T16:00:00+01:00') - duration('1h')", "2026-11-21T14:00:00Z"),
        ("timestamp('2024-02-29T23:59:59.5Z').getDayOfWeek()", "4"),
        ("timestamp('1969-12-31T23:59:59Z').getFullYear()", "1969"),
        ("[1, 2, 3].all(x, x > 0) && [1, 2].exists(x, x == 2) && [1, 2].exists_one(x, x > 1)", "true"),
        ("[1, 2, 3].filter(x, x > 1).map(x, x * x)[1]", "9"),
        ("[1, 2, 3].map(x, x > 1, x * 10)[0]", "20"),
        ("[[1], [2]].map(x, x.map(y, y + size(x)))[1][0]", "3"),
        ("{'a': 1, 'b': 2}.exists(k, k == 'b')", "true"),
        ("// a comment\n1", "1"),
        ("!!true", "true"),
        ("--1", "1"),
    ] {
        assert_eq!(value(text), Ok(expected.to_owned()), "{text}");
    }
}

#[test]
fn a_request_says_what_it_is() {
    for (text, expected) in [
        ("request.method == 'POST' && request.path.startsWith('/api')", "true"),
        ("request.headers['x-user']", "anna"),
        ("request.headers['X-User']", "anna"),
        ("request.headers[lowerAscii('X-USER')]", "anna"),
        ("request.headers['x-bytes']", "\u{fffd}"),
        ("'x-user' in request.headers && !('x-none' in request.headers)", "true"),
        ("has(request.headers.nope) || has(request.headers['x-user'])", "true"),
        ("has(request.headers.nope)", "false"),
        ("has({'a': 1}.a) && !has({'a': 1}.b)", "true"),
        ("size(request.headers)", "3"),
        ("request.headers.exists(name, name.startsWith('x-e') && request.headers[name] == '')", "true"),
        ("request.size + 1", "1001"),
        ("request.duration > duration('1s') && request.time > timestamp('2026-01-01T00:00:00Z')", "true"),
        ("connection.mtls && source.address.startsWith('10.')", "true"),
        ("metadata.filter_metadata['envoy.lb'].tier", "gold"),
        ("xds.route_metadata['a'] + xds.route_metadata.c", "b"),
        ("has(response.code)", "false"),
        ("response.code == 500 || request.method == 'POST'", "true"),
        ("request.method == 'POST' || response.code == 500", "true"),
        ("response.code == 500 && request.method == 'GET'", "false"),
        ("[500, 200].exists(x, x == response.code || x == 200)", "true"),
        ("[1, 2].map(request, request)[1]", "2"),
    ] {
        assert_eq!(value(text), Ok(expected.to_owned()), "{text}");
    }
    assert_eq!(Program::compile("request.headers['x-user']").unwrap().text(&asked()), Ok("anna".into()));
}

#[test]
fn a_mistake_has_its_column() {
    for (text, expected) in [
        ("", "column 1: the expression ends too early"),
        ("1 +", "column 4: the expression ends too early"),
        ("'ä' + foo", "column 7: nobody knows `foo`"),
        ("request.foo", "column 9: there is no attribute `request.foo`"),
        ("request", "column 1: `request` alone is no value"),
        ("a = b", "column 3: `=` alone means nothing; `==` is meant"),
        ("1 2", "column 3: a value stands where an operator or the end is expected"),
        ("'abc", "column 1: the text does not end"),
        ("'\\q'", "column 1: no such escape sequence"),
        ("[1, 2", "column 6: the expression ends too early"),
        ("foo(1)", "column 1: there is no function `foo`"),
        ("'a'.size(1)", "column 5: `size` does not take 2 values"),
        ("'a'.matches('(')", "column 13: this is no regular expression: found open group"),
        ("'a'.matches(request.path)", "column 21: a regular expression is a literal text"),
        ("[1].all(1, true)", "column 9: the first value of a macro is the name"),
        ("[1].all(x, y)", "column 12: nobody knows `y`"),
        ("has(1)", "column 1: `has` asks for a field"),
        ("9223372036854775808", "column 1: the number is too large"),
        ("1abc", "column 1: a number is followed by no letter"),
        ("#", "column 1: '#' means nothing here"),
        ("x in", "column 5: the expression ends too early"),
    ] {
        let mistake = Program::compile(text).unwrap_err().to_string();
        assert!(mistake.starts_with(expected), "{text}: {mistake}");
    }
    let deep = format!("{}1{}", "(".repeat(1000), ")".repeat(1000));
    assert!(Program::compile(&deep).unwrap_err().cause.contains("nested"));
    assert!(Program::compile(&"1+".repeat(5000)).unwrap_err().cause.contains("bytes"));
    assert!(Program::compile(&format!("{}1", "1+".repeat(1000))).unwrap_err().cause.contains("chain"));
    assert!(Program::compile(&format!("a{}", ".b".repeat(1000))).unwrap_err().cause.contains("nested"));
}

#[test]
fn what_has_no_value_is_an_error() {
    for (text, expected) in [
        ("1 / 0", "the calculation has no result"),
        ("9223372036854775807 + 1", "the calculation has no result"),
        ("1 + 1u", "a number and a number without sign do not calculate"),
        ("1 < 'a'", "a number and a text have no order"),
        ("!1", "`!` of a number"),
        ("1 && true", "a number is neither true nor false"),
        ("request.headers['nope'] == 'a'", "this request has no request.headers[\"nope\"]"),
        ("response.code == 200", "this request has no response.code"),
        ("[1][2]", "the list has no item 2"),
        ("{'a': 1}.b", "the map has no key b"),
        ("{'a': 1, 'a': 2}", "a map has a key twice"),
        ("int('x')", "`int` does not work on a text"),
        ("'a' in 'abc'", "nothing is in a text"),
        ("true && 1 / 0 == 1", "the calculation has no result"),
        ("'ab'.replace('a', 'x').substring(5)", "`substring` does not work on"),
    ] {
        let said = value(text).unwrap_err();
        assert!(said.starts_with(expected), "{text}: {said}");
    }
    assert!(Program::compile("1").unwrap().holds(&asked()).unwrap_err().0.contains("neither true nor false"));
}

#[test]
fn no_expression_takes_for_ever_or_all_memory() {
    let list = format!("[{}]", vec!["1"; 100].join(","));
    let nested = format!("{list}.all(a, {list}.all(b, {list}.all(c, a + b + c > 0)))");
    assert!(value(&nested).unwrap_err().contains("steps"));
    let doubled = "['abcdefghij'].map(a, a+a+a+a+a+a+a+a).map(a, a+a+a+a+a+a+a+a).map(a, a+a+a+a+a+a+a+a).map(a, a+a+a+a+a+a+a+a).map(a, a+a+a+a+a+a+a+a)";
    assert!(value(doubled).unwrap_err().contains("too much"));
    assert!(value(&format!("{nested} || true")).unwrap_err().contains("steps"), "what was given up is not passed over");
}

proptest! {
    #[test]
    fn nothing_panics(text in "\\PC{0,60}") {
        let _ = value(&text);
    }

    #[test]
    fn nothing_that_is_nearly_an_expression_panics(parts in proptest::collection::vec(prop_oneof![
        Just("1"), Just("'a'"), Just("[1,2]"), Just("{'a':1}"), Just("+"), Just("-"), Just("*"), Just("/"), Just("%"), Just("&&"), Just("||"), Just("!"),
        Just("?"), Just(":"), Just("("), Just(")"), Just("."), Just("size"), Just("x"), Just(".map(x,"), Just(".all(x,"), Just("in"), Just("=="), Just("<"),
        Just("request.path"), Just("request.headers"), Just("['a']"), Just("has("), Just("duration('1s')"), Just("request.time"), Just("0.5"), Just("1u"),
        Just("9223372036854775807"), Just("null"), Just("true"), Just(".substring("), Just(","), Just("b'\\xff'"), Just("int("), Just("string(")
    ], 0..24)) {
        let _ = value(&parts.join(" "));
    }
}
