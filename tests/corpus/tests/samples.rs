//! The YAML that users bring: Istio's samples of today, and those of the age of Mixer.
//!
//! Every file is read, every object of it is one, and each is either right or refused by name: what Weir does not do is never what cannot be read.

#![allow(clippy::unwrap_used, reason = "a test that cannot go on should stop")]

use std::collections::BTreeMap;

use weir_controller::source::folder as source;
use weir_controller::{Code, validate};
use weir_corpus::{folder, say, yaml_files};

#[test]
fn samples_are_read_and_what_is_not_done_is_named() {
    let Some(corpus) = folder() else { return };
    for part in ["samples", "mixer"] {
        let (mut objects, mut others, mut refused) = (0, 0, BTreeMap::<String, usize>::new());
        for file in yaml_files(&corpus.join(part)).unwrap() {
            // Each file by itself: the samples have the same objects in several forms.
            let read = source::read(&file).unwrap();
            for diagnostic in &read.diagnostics {
                // Settings of other tools lie among the samples, and objects in several forms.
                let no_object = diagnostic.message.contains("WEIR-0001");
                assert!(no_object || diagnostic.message.contains("WEIR-0005"), "{diagnostic}");
                others += usize::from(no_object);
            }
            objects += read.objects.len();
            for object in &read.objects {
                for finding in validate(object) {
                    match finding.code {
                        Code::Unsupported => *refused.entry(format!("{} of {}", object.id.kind, object.id.group)).or_default() += 1,
                        _ => assert!(!finding.is_error(), "{}", object.show(&finding)),
                    }
                }
            }
        }
        assert!(objects > 20, "{part}: there are {objects} objects");
        say(&format!("{part}: {objects} objects are read, {others} documents are none; refused by name: {refused:?}"));
    }
}
