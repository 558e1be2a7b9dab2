//! What holds for any bytes that a registry, or a file, may have.

#![allow(clippy::unwrap_used, reason = "a test that cannot go on should stop")]

use proptest::prelude::*;

use crate::auth::Challenge;
use crate::http::Url;
use crate::{Digest, Key, PublicKey, Reference, archive};

proptest! {
    #![proptest_config(ProptestConfig { failure_persistence: None, ..ProptestConfig::default() })]

    /// A reference that is taken names one place, in characters that a path may have, and is written as it is read.
    #[test]
    fn references(text in "(oci://)?[a-zA-Z0-9.:\\[\\]-]{1,12}/[a-z0-9._/:@-]{0,20}") {
        if let Ok(reference) = text.parse::<Reference>() {
            prop_assert_eq!(&reference.to_string().parse::<Reference>().unwrap(), &reference);
            prop_assert!(!reference.repository.contains("..") && !reference.repository.contains(['?', '#', '%', ' ', '\\']));
            prop_assert!(Url::of(&reference.registry, true, "/".into()).port != 0);
        }
    }

    #[test]
    fn nothing_that_is_parsed_panics(text in "\\PC{0,60}", bytes in proptest::collection::vec(any::<u8>(), 0..600)) {
        let _ = text.parse::<Reference>();
        let _ = text.parse::<Digest>();
        let _ = Challenge::parse(&text);
        let _ = Challenge::parse(&format!("Bearer {text}"));
        let _ = Url::of("r.example", true, "/".into()).follow(&text);
        let _ = PublicKey::from_pem(&format!("-----BEGIN PUBLIC KEY-----\n{text}\n-----END PUBLIC KEY-----"));
        let _ = Key::from_pem(&format!("-----BEGIN ENCRYPTED SIGSTORE PRIVATE KEY-----\n{text}\n-----END X-----"), b"");
        prop_assert!(archive::module(&bytes, 1 << 16).map_or(true, |module| module.len() <= 1 << 16));
        let _ = archive::module(&[&[0x1f, 0x8b, 8, 0, 0, 0, 0, 0, 0, 0][..], &bytes].concat(), 1 << 16);
    }
}
