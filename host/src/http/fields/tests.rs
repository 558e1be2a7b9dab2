//! Header blocks: order, replacement, bounds; and against a simple model.

use proptest::prelude::*;

use super::*;

fn request() -> Fields {
    [
        (":method", "GET"),
        (":scheme", "http"),
        (":authority", "a.example"),
        (":path", "/x?y"),
        ("accept", "*/*"),
        ("x-one", "1"),
        ("cookie", "a=b"),
        ("x-one", "2"),
    ]
    .into_iter()
    .collect()
}

fn names(fields: &Fields) -> Vec<String> {
    fields.iter().map(|(name, value)| format!("{}={}", name.escape_ascii(), value.escape_ascii())).collect()
}

#[test]
fn finds_values_by_name_and_number() {
    let fields = request();
    assert_eq!(
        (fields.method(), fields.scheme(), fields.authority(), fields.path()),
        (&b"GET"[..], &b"http"[..], &b"a.example"[..], &b"/x?y"[..])
    );
    assert_eq!(fields.get(b"x-one"), Some(&b"1"[..]));
    assert_eq!(fields.get_all(b"x-one").collect::<Vec<_>>(), [b"1", b"2"]);
    assert_eq!(fields.get_all_known(Known::Cookie).collect::<Vec<_>>(), [b"a=b"]);
    assert_eq!(fields.get_all_known(Known::Te).count(), 0);
    assert_eq!((fields.get(b"x-on"), fields.get(b""), fields.get(b"te")), (None, None, None));
    assert_eq!(fields.len(), 8);
    assert_eq!(fields.pseudo().count(), 4);
    assert_eq!(fields.regular().next().map(|field| field.known), Some(Some(Known::Accept)));
    assert_eq!(fields.wire_size(), fields.iter().map(|(name, value)| name.len() + value.len() + 32).sum::<usize>());
    assert_eq!(fields.status(), None);
}

#[test]
fn pseudo_headers_come_first_and_once() {
    let mut fields = Fields::new();
    fields.push(b"accept", b"*/*");
    fields.push(b":path", b"/");
    fields.push_known(Known::Method, b"GET");
    fields.push_known(Known::Path, b"/longer");
    fields.push(b":odd", b"1");
    fields.push(b":odd", b"2");
    assert_eq!(names(&fields), [":path=/longer", ":method=GET", ":odd=2", "accept=*/*"]);
    fields.remove(b":path");
    fields.remove_known(Known::Method);
    assert_eq!((names(&fields), fields.pseudo().count()), (vec![":odd=2".to_owned(), "accept=*/*".to_owned()], 1));
    assert!(!fields.has(Known::Path));
    fields.set_status(404);
    assert_eq!(fields.status(), Some(404));
    for wrong in ["", "20", "2000", "099", "+20", "2 0"] {
        fields.set(b":status", wrong.as_bytes());
        assert_eq!(fields.status(), None, "{wrong}");
    }
}

#[test]
fn sets_in_place_and_removes_the_rest() {
    let mut fields = request();
    fields.set(b"x-one", b"a longer value");
    assert_eq!(names(&fields)[4..], ["accept=*/*", "x-one=a longer value", "cookie=a=b"]);
    fields.set(b"x-one", b"");
    assert_eq!(fields.get(b"x-one"), Some(&b""[..]));
    fields.append_to_list(Known::XForwardedFor, b"1.1.1.1");
    fields.append_to_list(Known::XForwardedFor, b"2.2.2.2");
    assert_eq!(fields.get(b"x-forwarded-for"), Some(&b"1.1.1.1, 2.2.2.2"[..]));
    fields.set_number(Known::ContentLength, u64::MAX);
    assert_eq!(fields.get(b"content-length"), Some(&b"18446744073709551615"[..]));
    fields.set_number(Known::ContentLength, 0);
    assert_eq!(fields.get(b"content-length"), Some(&b"0"[..]));
    fields.retain(|field| field.known == Some(Known::Path) || field.name == b"x-one");
    assert_eq!(names(&fields), [":path=/x?y", "x-one="]);
    assert!(fields.has(Known::Path) && !fields.has(Known::Cookie) && fields.pseudo().count() == 1);
}

#[test]
fn replacing_for_ever_does_not_grow() {
    let mut fields = request();
    for round in 0..20_000_usize {
        fields.set(b"x-one", &vec![b'x'; round % 300]);
        fields.append_to_list(Known::Via, b"weir");
        fields.remove_known(Known::Via);
        fields.push(b"x-two", b"value");
        fields.remove(b"x-two");
        assert!(fields.memory() < 32 << 10, "round {round}: {}", fields.memory());
    }
    assert_eq!(fields.authority(), b"a.example");
}

#[test]
fn what_is_too_much_is_dropped_and_said() {
    let mut fields = request();
    fields.push(&vec![b'n'; 1 << 16], b"");
    assert!(fields.is_overflowed() && fields.len() == 8);
    fields.clear();
    assert!(!fields.is_overflowed() && fields.is_empty());
    let half = vec![b'v'; MAX_BYTES / 2 + 1];
    fields.push(b"x-a", &half);
    assert!(!fields.is_overflowed());
    fields.push(b"x-b", &half);
    fields.set(b"x-c", &half);
    assert!(fields.is_overflowed() && fields.len() == 1);
    fields.clear();
    assert!(fields.memory() <= 128 << 10);
}

#[test]
fn debug_hides_secrets() {
    let mut fields = request();
    fields.push(b"authorization", b"Bearer s3cret");
    let shown = format!("{fields:?}");
    assert!(!shown.contains("s3cret") && !shown.contains("a=b") && shown.contains("authorization") && shown.contains("a.example"));
}

#[test]
fn filters_know_the_authority_as_host() {
    use weir_wasm::Headers;
    let mut fields = request();
    assert_eq!(Headers::get(&fields, b"host"), Some(&b"a.example"[..]));
    Headers::set(&mut fields, b"host", b"b.example");
    assert_eq!((fields.authority(), fields.get(b"host")), (&b"b.example"[..], None));
    let mut response = Fields::new();
    response.set_status(200);
    Headers::add(&mut response, b"host", b"x");
    assert_eq!(names(&response), [":status=200", "host=x"]);
}

/// What [`Fields`] promises, written the slow way.
#[derive(Default)]
struct Model(Vec<(Vec<u8>, Vec<u8>)>);

impl Model {
    fn add(&mut self, name: &[u8], value: &[u8]) {
        if name.starts_with(b":") {
            return self.set(name, value);
        }
        self.0.push((name.to_vec(), value.to_vec()));
    }

    fn set(&mut self, name: &[u8], value: &[u8]) {
        let pair = (name.to_vec(), value.to_vec());
        match self.0.iter().position(|(other, _)| other == name) {
            Some(at) => {
                self.0[at] = pair;
                let mut index = 0;
                self.0.retain(|(other, _)| {
                    index += 1;
                    other != name || index - 1 <= at
                });
            }
            None if name.starts_with(b":") => {
                let at = self.0.iter().take_while(|(other, _)| other.starts_with(b":")).count();
                self.0.insert(at, pair);
            }
            None => self.0.push(pair),
        }
    }
}

fn name() -> impl Strategy<Value = &'static str> {
    prop::sample::select(vec![":path", ":status", ":odd", "host", "te", "via", "x-a", "x-b", "x-envoy-internal"])
}

proptest! {
    #[test]
    fn behaves_like_a_list_of_pairs(calls in prop::collection::vec((0..5_u8, name(), prop::collection::vec(any::<u8>(), 0..600)), 0..120)) {
        let (mut fields, mut model) = (Fields::new(), Model::default());
        for (call, name, value) in &calls {
            let name = name.as_bytes();
            match call {
                0 => (fields.push(name, value), model.add(name, value)),
                1 => (fields.set(name, value), model.set(name, value)),
                2 => (fields.remove(name), model.0.retain(|(other, _)| other != name)),
                3 => (fields.retain(|field| field.value != value.as_slice() && field.name != name),
                      model.0.retain(|(other, at)| at != value && other != name)),
                _ => {
                    let copy = fields.clone();
                    fields.copy_from(&copy);
                    ((), ())
                }
            };
            prop_assert!(fields.iter().eq(model.0.iter().map(|(name, value)| (name.as_slice(), value.as_slice()))));
            prop_assert_eq!(fields.get(name), model.0.iter().find(|(other, _)| other == name).map(|(_, value)| value.as_slice()));
            prop_assert_eq!(fields.get_all(name).count(), model.0.iter().filter(|(other, _)| other == name).count());
            prop_assert_eq!(Known::of(name).is_some_and(|known| fields.has(known)), Known::of(name).is_some() && fields.get(name).is_some());
            prop_assert_eq!(fields.pseudo().count(), model.0.iter().filter(|(other, _)| other.starts_with(b":")).count());
        }
    }
}
