use super::*;
use crate::diagnostic::render;

fn read(text: &str) -> Bootstrap {
    let parsed = parse("conf.yaml", text);
    assert!(parsed.diagnostics.is_empty(), "{}", render(&parsed.diagnostics, false));
    parsed.fragment.bootstrap
}

#[test]
fn probe() {
    let b = read("listeners:\n- name: a\n  address: 127.0.0.1:0\n  branches:\n  - http: {timeouts: {idle: 5s}}\n");
    println!("{}", print(&b));
    for t in [
        "a: b: c\n",
        "listeners:\n\t- name: x\n",
        "listeners: [\n",
        "listeners:\n- name: a\n adress: 5\n",
        "{",
        "\"abc",
        "a: *x\n",
        "%YAML 9\n--- a",
        "listeners:\n- name: a\n  detectTimeout: 5\n  adress: x\n  maxConnections: 1_000\n",
    ] {
        println!("{}", render(&parse("conf.yaml", t).diagnostics, false));
    }
}
