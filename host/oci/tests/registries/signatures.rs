//! Signatures that are not what they seem.

use weir_oci::{Digest, Error, Key};

use crate::server::{MODULE, Server, client, ok, status};

/// Made with `github.com/secure-systems-lab/go-securesystemslib/encrypted`, which cosign encrypts its keys with, and Go's `crypto/ecdsa`, which it signs
/// with. The password is `weir`; the key is for nothing but this test.
const COSIGN_KEY: &str = "-----BEGIN ENCRYPTED SIGSTORE PRIVATE KEY-----\n\
eyJrZGYiOnsibmFtZSI6InNjcnlwdCIsInBhcmFtcyI6eyJOIjo2NTUzNiwiciI6\n\
OCwicCI6MX0sInNhbHQiOiJEWHZ4cUNnNnJtR1lhelYzNGpZRkFnSXJBZzFJOTRM\n\
MmFGQTB2bXFiK0ZJPSJ9LCJjaXBoZXIiOnsibmFtZSI6Im5hY2wvc2VjcmV0Ym94\n\
Iiwibm9uY2UiOiJCVlBNNVJkTXVpaUZabG9LUUhEQk5nWUxHMlU0ZXAzVSJ9LCJj\n\
aXBoZXJ0ZXh0IjoibE45NGNBNXVsN1p0ai8zd2RxaW9pbGdjZjBEdzVoa2wzcHJ3\n\
cE50U21mRDZEN1ZqemRxVjI3MTl5R3g5Y0N1emw3TDBVbFVVMDVSYWtxVUl4MGhp\n\
SXphVm9jY04wTGxMVWFUcUtCYmZDNFJ5T0tSZ1hEcjJobk9WY0dLTUtlMDlacTZY\n\
K0UvYzVwOHBEVkd1ajRmc2RGZmE3dnRPSi9hZDRNdnpIVElJeG1zVlFuQVRNN0ww\n\
b1ZYYXdoRjcyM2NuNng1U0twdU13SUFudFE9PSJ9\n\
-----END ENCRYPTED SIGSTORE PRIVATE KEY-----\n\
";
const COSIGN_PUBLIC: &str = "-----BEGIN PUBLIC KEY-----\n\
MFkwEwYHKoZIzj0CAQYIKoZIzj0DAQcDQgAExyB0L92IGlOmRgwOQX+7x6g2w+eB\n\
BtWLLBqZEJmOnonNqjI1Sxt5JOeP2jFmcIwXkmZAc/aWd/h0PnhGfZ6jDA==\n\
-----END PUBLIC KEY-----\n\
";
const COSIGN_PAYLOAD: &str = r#"{"critical":{"identity":{"docker-reference":"registry.example/a"},"image":{"docker-manifest-digest":"sha256:e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855"},"type":"cosign container image signature"},"optional":null}"#;
const COSIGN_SIGNATURE: &str = "MEYCIQCCHHPmXpxo8YqIBXpZP3nUQ0NszOmAvUtCUwUYTU3x/wIhAJvyzAGKTL52LDxXy27DMxkl46h7o7QwpmQ9Ph/ivCWz";

/// What a client puts there by signing, and what it gets of it: kept in memory, or bent.
async fn registry(bend: impl Fn(&str, Vec<u8>) -> Vec<u8> + Send + Sync + 'static, parts: Vec<(String, Vec<u8>)>) -> Server {
    Server::start(move |asked| {
        let name = asked.target.rsplit('/').next().unwrap();
        match parts.iter().find(|(known, _)| known == name) {
            Some((name, bytes)) => ok(bend(name, bytes.clone())),
            None => status(404),
        }
    })
    .await
}

#[tokio::test]
async fn a_signature_that_was_moved_or_made_up_is_none() {
    let key: Key = Key::from_pem(COSIGN_KEY, b"weir").unwrap();
    let public = key.public().unwrap();
    let digest = Digest::of(MODULE);
    let payload = format!(
        r#"{{"critical":{{"identity":{{"docker-reference":"r/a"}},"image":{{"docker-manifest-digest":"{digest}"}},"type":"cosign container image signature"}},"optional":null}}"#
    );
    let layer = |payload: &str, signature: &str| {
        format!(
            r#"{{"schemaVersion":2,"layers":[{{"mediaType":"application/vnd.dev.cosign.simplesigning.v1+json","digest":"{}","size":{},
            "annotations":{{"dev.cosignproject.cosign/signature":"{signature}"}}}}]}}"#,
            Digest::of(payload.as_bytes()),
            payload.len()
        )
    };
    let tag = |digest: Digest| format!("sha256-{}.sig", digest.hex());
    for (signature, said) in [("", "none of its 1"), ("AAAA", "none of its 1"), ("!!", "none of its 1")] {
        let parts = vec![
            (tag(digest), layer(&payload, signature).into_bytes()),
            (Digest::of(payload.as_bytes()).to_string(), payload.clone().into()),
        ];
        let server = registry(|_, bytes| bytes, parts).await;
        let error = client().verify(&server.reference("a:1"), digest, &public).await.unwrap_err();
        assert!(matches!(error, Error::Signature { .. }) && error.to_string().contains(said), "{error}");
    }
    // A payload that is not the one that its descriptor names.
    let parts =
        vec![(tag(digest), layer(&payload, "AAAA").into_bytes()), (Digest::of(payload.as_bytes()).to_string(), payload.clone().into())];
    let bent = |name: &str, bytes: Vec<u8>| if name.starts_with("sha256:") { bytes.to_ascii_uppercase() } else { bytes };
    let server = registry(bent, parts).await;
    assert!(matches!(client().verify(&server.reference("a:1"), digest, &public).await.unwrap_err(), Error::Digest { .. }));
    // A good signature of another artifact, laid where this one's belongs: what the Go library that cosign is built on has made.
    let parts = vec![
        (tag(digest), layer(COSIGN_PAYLOAD, COSIGN_SIGNATURE).into_bytes()),
        (Digest::of(COSIGN_PAYLOAD.as_bytes()).to_string(), COSIGN_PAYLOAD.into()),
    ];
    let server = registry(|_, bytes| bytes, parts).await;
    let error = client().verify(&server.reference("a:1"), digest, &public).await.unwrap_err();
    assert!(error.to_string().contains("for another artifact"), "{error}");
}

#[tokio::test]
async fn what_cosigns_library_signed_is_verified() {
    let public = Key::from_pem(COSIGN_KEY, b"weir").unwrap().public().unwrap();
    assert_eq!(public.to_pem(), COSIGN_PUBLIC);
    let digest: Digest = "sha256:e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855".parse().unwrap();
    let manifest = format!(
        r#"{{"schemaVersion":2,"mediaType":"application/vnd.oci.image.manifest.v1+json","layers":[{{"mediaType":"application/vnd.dev.cosign.simplesigning.v1+json","digest":"{}","size":{},
        "annotations":{{"dev.cosignproject.cosign/signature":"{COSIGN_SIGNATURE}"}}}}]}}"#,
        Digest::of(COSIGN_PAYLOAD.as_bytes()),
        COSIGN_PAYLOAD.len()
    );
    let parts = vec![
        (format!("sha256-{}.sig", digest.hex()), manifest.into_bytes()),
        (Digest::of(COSIGN_PAYLOAD.as_bytes()).to_string(), COSIGN_PAYLOAD.into()),
    ];
    let server = registry(|_, bytes| bytes, parts).await;
    client().verify(&server.reference("a:1"), digest, &public).await.unwrap();
}
