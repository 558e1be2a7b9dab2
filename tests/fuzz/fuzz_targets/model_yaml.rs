//! Configuration files: whatever the bytes are, reading ends with a value or with reasons, and a file without a reason against it is printed as what it was.
#![no_main]

use libfuzzer_sys::fuzz_target;
use weir_model::diagnostic::render;
use weir_model::validate::{Context, load};
use weir_model::yaml;

fuzz_target!(|data: &[u8]| {
    let context = Context { builtins: Some(vec!["headers".into()]), discovery: data.len().is_multiple_of(2) };
    let (fragment, found) = load([("fuzz.yaml", data)], &context);
    assert!(found.iter().all(|one| !one.message.is_empty()), "a report says what is wrong");
    assert!(render(&found, true).len() < 8 << 20);
    if found.is_empty() {
        let printed = yaml::print(&fragment.bootstrap);
        let again = yaml::parse("printed.yaml", &printed);
        assert!(again.diagnostics.is_empty(), "{}", render(&again.diagnostics, false));
        assert!(again.fragment.bootstrap == fragment.bootstrap, "{printed}");
    }
});
