//! Spellings of one path, and what becomes of each.

use proptest::prelude::*;

use super::*;

fn rules(change: impl FnOnce(&mut PathNormalization)) -> PathRules {
    let mut config = PathNormalization::default();
    change(&mut config);
    PathRules::new(&config)
}

fn apply(rules: &PathRules, path: &str) -> Result<(Normalized, String), PathError> {
    let mut out = b"left over".to_vec();
    let result = rules.apply(path.as_bytes(), &mut out)?;
    let text = if result == Normalized::AsIs { path.to_owned() } else { String::from_utf8(out).unwrap() };
    assert!(result == Normalized::AsIs || text != path, "{path}");
    Ok((result, text))
}

fn text(rules: &PathRules, path: &str) -> String {
    apply(rules, path).map_or_else(|error| error.detail().to_owned(), |(_, text)| text)
}

/// Spellings that some server somewhere takes for `/admin`, and what they become: that, another path as all would read it, or a refusal.
const ADMIN: &[(&str, &str)] = &[
    ("/admin", "/admin"),
    ("/./admin", "/admin"),
    ("/././admin", "/admin"),
    ("/x/../admin", "/admin"),
    ("/x/y/../../admin", "/admin"),
    ("/../admin", "/admin"),
    ("/../../../admin", "/admin"),
    ("/x/./../admin", "/admin"),
    ("/%2e/admin", "/admin"),
    ("/%2E/admin", "/admin"),
    ("/x/%2e%2e/admin", "/admin"),
    ("/x/%2E%2e/admin", "/admin"),
    ("/x/.%2e/admin", "/admin"),
    ("/x/%2e./admin", "/admin"),
    ("/%61dmin", "/admin"),
    ("/%61%64%6d%69%6e", "/admin"),
    ("/%61%64%6D%69%6E", "/admin"),
    ("/adm%69n", "/admin"),
    ("\\admin", "/admin"),
    ("/x\\..\\admin", "/admin"),
    ("/x/..\\admin", "/admin"),
    ("/.\\admin", "/admin"),
    ("/x\\%2e%2e\\admin", "/admin"),
    ("/admin/.", "/admin/"),
    ("/admin/./", "/admin/"),
    ("/admin/x/..", "/admin/"),
    ("/admin/x/../", "/admin/"),
    ("/admin/%2e", "/admin/"),
    ("/admin/x/%2e%2e", "/admin/"),
    ("/admin?x", "/admin?x"),
    ("/./admin?/../x", "/admin?/../x"),
    ("/x/../admin?%2e", "/admin?%2e"),
    ("//admin", "//admin"),
    ("//./admin", "//admin"),
    ("/x/..//admin", "//admin"),
    ("/..;/admin", "path_ambiguous"),
    ("/x/..;/admin", "path_ambiguous"),
    ("/x/..;y=z/admin", "path_ambiguous"),
    ("/.;/admin", "path_ambiguous"),
    ("/.;x/admin", "path_ambiguous"),
    ("/x/%2e%2e;/admin", "path_ambiguous"),
    ("/x/..%3b/admin", "path_ambiguous"),
    ("/x/%2e.%3Bx/admin", "path_ambiguous"),
    ("/x/..%2fadmin", "path_ambiguous"),
    ("/x/..%2Fadmin", "path_ambiguous"),
    ("/x/%2e%2e%2fadmin", "path_ambiguous"),
    ("/x%2f..%2fadmin", "path_ambiguous"),
    ("/x%2f../admin", "path_ambiguous"),
    ("/x%2f%2e%2e/admin", "path_ambiguous"),
    ("/x/..%5cadmin", "path_ambiguous"),
    ("/x%5c..%5Cadmin", "path_ambiguous"),
    ("/.%2fadmin", "path_ambiguous"),
    ("/x%2f..;y/admin", "path_ambiguous"),
    ("/%00/admin", "path_escape"),
    ("/admin%00", "path_escape"),
    ("/admin%00.html", "path_escape"),
    ("/x/..%00/admin", "path_escape"),
    ("/%c0%ae%c0%ae/admin", "path_escape"),
    ("/x/%C0%AE./admin", "path_escape"),
    ("/x%c0%af..%c0%afadmin", "path_escape"),
    ("/%c1%9cadmin", "path_escape"),
    ("/%u002e%u002e/admin", "path_escape"),
    ("/%/admin", "path_escape"),
    ("/%2/admin", "path_escape"),
    ("/admin%", "path_escape"),
    ("/admin%2", "path_escape"),
    ("/%g1dmin", "path_escape"),
    ("/admin#x", "path_invalid"),
    ("/x#/../admin", "path_invalid"),
    ("/admin?x#y", "path_invalid"),
    ("/admin ", "path_invalid"),
    ("/ad\tmin", "path_invalid"),
    ("/admin\0", "path_invalid"),
    ("/ádmin", "path_invalid"),
    ("admin", "path_invalid"),
    ("./admin", "path_invalid"),
    ("../admin", "path_invalid"),
    ("?/admin", "path_invalid"),
    ("", "path_invalid"),
    ("%2fadmin", "path_invalid"),
    // Other paths, which stay what they are, for the rules and the origin alike.
    ("/%2fadmin", "/%2Fadmin"),
    ("/x%2fadmin", "/x%2Fadmin"),
    ("/%252e%252e/admin", "/%252e%252e/admin"),
    ("/x/%252e%252e/admin", "/x/%252e%252e/admin"),
    ("/%2561dmin", "/%2561dmin"),
    ("/admin;x", "/admin;x"),
    ("/admin;x=..", "/admin;x=.."),
    ("/;/admin", "/;/admin"),
    ("/admin%20", "/admin%20"),
    ("/admin%0a", "/admin%0A"),
    ("/ADMIN", "/ADMIN"),
    ("/.../admin", "/.../admin"),
    ("/..x/admin", "/..x/admin"),
    ("/x../admin", "/x../admin"),
    ("/.admin", "/.admin"),
    ("/admin..", "/admin.."),
    ("/admin/..x%2f", "/admin/..x%2F"),
    ("*", "*"),
];

#[test]
fn spellings_of_one_path() {
    assert!(ADMIN.len() >= 60);
    let rules = PathRules::default();
    for (path, expected) in ADMIN {
        assert_eq!(text(&rules, path), *expected, "{path:?}");
    }
}

#[test]
fn slashes_merge_when_told() {
    let rules = rules(|config| config.merge_slashes = true);
    for (path, expected) in [
        ("//admin", "/admin"),
        ("/a///b//", "/a/b/"),
        ("/a//../b", "/a/b"),
        ("/a?b//c", "/a?b//c"),
        ("/\\/\\admin", "/admin"),
        ("/a/%2f/b", "/a/%2F/b"),
    ] {
        assert_eq!(text(&rules, path), expected, "{path}");
    }
}

#[test]
fn escaped_slashes_have_four_fates() {
    let fate = |escaped: Escaped| rules(|config| config.escaped_slashes = escaped as i32);
    let unescape = fate(Escaped::Unescape);
    for (path, expected) in [
        ("/x%2f..%2Fadmin", "/admin"),
        ("/x%5c..%5Cadmin", "/admin"),
        ("/%2fa", "//a"),
        ("/a%2f", "/a/"),
        ("/a%252f", "/a%252f"),
        ("/a?%2f", "/a?%2f"),
        ("%2fadmin", "/admin"),
    ] {
        assert_eq!(text(&unescape, path), expected, "{path}");
    }
    let reject = fate(Escaped::Reject);
    for path in ["/a%2fb", "/a%2Fb", "/a%5cb", "/a%5Cb", "/%2f", "/a%2f?b"] {
        assert_eq!(text(&reject, path), "path_escaped_slash", "{path}");
    }
    assert_eq!(text(&reject, "/a?%2f%5c"), "/a?%2f%5c");
    let redirect = fate(Escaped::Redirect);
    for (path, expected) in [
        ("/x%2f..%2fadmin?a%2fb", "/admin?a%2fb"),
        ("/a%5cb", "/a/b"),
        // Not to another host.
        ("/%2fevil.example", "/evil.example"),
        ("/%5cevil.example", "/evil.example"),
        ("//a/..%2f%2fevil.example", "/evil.example"),
        ("//evil.example%2f", "/evil.example/"),
    ] {
        assert_eq!(apply(&redirect, path), Ok((Normalized::Redirect, expected.to_owned())), "{path}");
    }
    assert_eq!(apply(&redirect, "/x/../b"), Ok((Normalized::Changed, "/b".to_owned())));
    let no_backslash = rules(|config| {
        config.escaped_slashes = Escaped::Redirect as i32;
        config.backslash_to_slash = Some(false);
    });
    assert_eq!(apply(&no_backslash, "/%5cevil.example"), Ok((Normalized::Redirect, "/evil.example".to_owned())));
    assert_eq!(text(&no_backslash, "/x/..\\admin"), "path_ambiguous");
    assert_eq!(text(&no_backslash, "/x\\admin"), "/x\\admin");
}

#[test]
fn without_normalisation_a_path_stays() {
    let rules = rules(|config| {
        config.normalize = Some(false);
        config.backslash_to_slash = Some(false);
    });
    for path in ["/x/../admin", "/%2e", "/100%", "/%zz", "/%c0%ae", "/a\\b", "//", "/a%2fb", "/..;/x"] {
        assert_eq!(apply(&rules, path), Ok((Normalized::AsIs, path.to_owned())));
    }
    for (path, expected) in [("/%00", "path_escape"), ("/#", "path_invalid"), ("x", "path_invalid")] {
        assert_eq!(text(&rules, path), expected);
    }
}

#[test]
fn hosts_compare_in_one_spelling() {
    for (authority, is_https, expected) in [
        ("a.example", false, "a.example"),
        ("A.Example", false, "a.example"),
        ("a.example:80", false, "a.example"),
        ("a.example:80", true, "a.example:80"),
        ("a.example:443", true, "a.example"),
        ("a.example.", false, "a.example"),
        ("A.example.:443", true, "a.example"),
        ("a.example.:8080", false, "a.example:8080"),
        ("a.example:8080", false, "a.example:8080"),
        ("a.example:180", false, "a.example:180"),
        ("[::1]:80", false, "[::1]"),
        ("[::1]", false, "[::1]"),
        ("[FE80::1]:81", false, "[fe80::1]:81"),
        ("10.0.0.1:80", false, "10.0.0.1"),
        ("", false, ""),
        (".", false, ""),
    ] {
        let mut scratch = b"left over".to_vec();
        assert_eq!(matching_host(authority.as_bytes(), is_https, &mut scratch).escape_ascii().to_string(), expected, "{authority}");
    }
    for (authority, host, port) in [
        ("a:1", "a", ":1"),
        ("a", "a", ""),
        ("[::1]:1", "[::1]", ":1"),
        ("::1", "::1", ""),
        ("[::1]", "[::1]", ""),
        ("1", "1", ""),
        ("a:", "a", ":"),
    ] {
        assert_eq!(split_port(authority.as_bytes()), (host.as_bytes(), port.as_bytes()), "{authority}");
    }
}

fn odd_path() -> impl Strategy<Value = String> {
    let piece = prop::sample::select(vec![
        "/", "//", ".", "..", "%2e", "%2E", "%2f", "%5c", "\\", "%", "%25", "%00", "a", "bc", ";", "%3b", "?", "#", "%41", "%7e", "é", "~",
        "abcdefgh", "%c3%a9", " ",
    ]);
    prop::collection::vec(piece, 0..12).prop_map(|pieces| format!("/{}", pieces.concat()))
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 2000, ..ProptestConfig::default() })]

    #[test]
    fn what_comes_out_stays_and_has_no_dots(path in odd_path(), merge: bool, escaped in 0..4_i32, normalize: bool, backslash: bool) {
        let rules = rules(|config| {
            config.merge_slashes = merge;
            config.escaped_slashes = escaped;
            config.normalize = Some(normalize);
            config.backslash_to_slash = Some(backslash);
        });
        let Ok((_, result)) = apply(&rules, &path) else { return Ok(()) };
        prop_assert_eq!(apply(&rules, &result), Ok((Normalized::AsIs, result.clone())));
        let before_query = result.split('?').next().unwrap();
        prop_assert!(before_query.starts_with('/') && result.bytes().all(|byte| byte.is_ascii_graphic()));
        prop_assert!(!normalize || before_query.split('/').all(|segment| segment != "." && segment != ".."));
        prop_assert!(!merge || !before_query.contains("//"));
        prop_assert!(!backslash || !before_query.contains('\\'));
    }

    #[test]
    fn the_fast_way_says_what_the_slow_way_says(path in odd_path()) {
        let mut out = Vec::new();
        if is_plain(path.as_bytes()) {
            prop_assert_eq!(PathRules::default().rewrite(path.as_bytes(), &mut out), Ok(Normalized::AsIs));
        }
    }
}

#[test]
fn usual_paths_take_the_fast_way() {
    for path in [
        "/",
        "/a",
        "/index.html",
        "/api/v1/products?id=17&x=../y%20",
        "/a.b/c.d/e_f-g~h",
        "/abcdefg/h",
        "/abcdef/.h/x/y".trim_end_matches("/.h/x/y"),
    ] {
        assert!(is_plain(path.as_bytes()), "{path}");
    }
    // A slash at the end of eight bytes and what follows it.
    for path in ["/abcdef/./x", "/abcdef//x", "/abcdefg/../x", "/abcdef/.", "/abcdefgh\\", "/\u{7f}", "", "a", "/#"] {
        assert!(!is_plain(path.as_bytes()), "{path}");
    }
}
