//! A registry that lies, hangs, floods or sends elsewhere is an error that says so, in time, and nothing else.

use crate::server::{Answer, Asked, MODULE, Server, client, client_with, manifest, ok, status, to};
use std::io::Write as _;
use weir_oci::{Credentials, Digest, Error, Layout};

const SOLO: &str = "application/vnd.module.wasm.content.layer.v1+wasm";
const CNCF: &str = "application/wasm";

/// A registry with one manifest, and this answer for its blobs.
async fn with(manifest: String, blob: impl Fn(&Asked) -> Answer + Send + Sync + 'static) -> Server {
    Server::start(move |asked| match asked.target.contains("/manifests/") {
        true => ok(manifest.clone()),
        false => blob(asked),
    })
    .await
}

async fn refused(server: &Server) -> Error {
    client().pull(&server.reference("a/b:1")).await.unwrap_err()
}

#[tokio::test]
async fn bytes_are_what_their_digest_and_size_say_or_nothing() {
    let honest = manifest("x", SOLO, MODULE, MODULE.len());
    let server = with(honest.clone(), |_| ok(b"\0asm\x01\0\0\0 the rest DOES not matter here".to_vec())).await;
    let error = refused(&server).await;
    assert!(matches!(error, Error::Digest { .. }) && error.help().contains("do not use"), "{error}");

    let server = with(honest.clone(), |_| ok(&MODULE[..10])).await;
    let error = refused(&server).await;
    assert!(matches!(error, Error::Size { found: 10, .. }), "{error}");

    let server = with(honest.clone(), |_| ok([MODULE, b"more"].concat())).await;
    assert!(matches!(refused(&server).await, Error::Size { .. }));

    let server = with(manifest("x", SOLO, MODULE, 1 << 40), |_| panic!("it must not be asked")).await;
    let error = refused(&server).await;
    assert!(matches!(error, Error::TooLarge { .. }), "{error}");
    assert_eq!(server.asked().len(), 1, "no byte of it was asked for");

    let server = with(honest, |_| Answer::Endless("HTTP/1.1 200 OK\r\n\r\n".into())).await;
    assert!(matches!(refused(&server).await, Error::Size { .. }));
}

#[tokio::test]
async fn a_manifest_is_the_one_that_was_pinned() {
    let one = manifest("x", SOLO, MODULE, MODULE.len());
    let server = with(one.clone(), |_| ok(MODULE)).await;
    let good = server.reference(&format!("a/b@{}", Digest::of(one.as_bytes())));
    assert_eq!(client().pull(&good).await.unwrap().layout, Layout::Solo);
    let other = server.reference(&format!("a/b@{}", Digest::of(b"other")));
    assert!(matches!(client().pull(&other).await.unwrap_err(), Error::Digest { .. }));

    let stated =
        Server::start(move |_| Answer::Is(200, vec![("docker-content-digest", Digest::of(b"x").to_string())], one.clone().into())).await;
    assert!(matches!(refused(&stated).await, Error::Digest { .. }));
}

#[tokio::test]
async fn what_is_no_manifest_is_an_error_in_words() {
    for (body, said) in [
        ("<html>", "expected value"),
        ("{}", "missing field"),
        (r#"{"schemaVersion": 1}"#, "schemaVersion is 1"),
        (r#"{"schemaVersion": 2}"#, "it has no layer"),
        (r#"{"schemaVersion": 2, "layers": [{"mediaType": "x", "digest": "y", "size": 1}]}"#, "layout is unknown"),
        (r#"{"schemaVersion": 2, "layers": [{"mediaType": "application/wasm", "digest": "y", "size": 1}]}"#, "no digest"),
        (r#"{"schemaVersion": 2, "layers": [{"mediaType": "application/wasm", "digest": "../../x", "size": -1}]}"#, "invalid value"),
    ] {
        let server = Server::start(move |_| ok(body)).await;
        let error = refused(&server).await.to_string();
        assert!(error.contains(said), "{body}: {error}");
    }
    let two = format!(r#"{{"schemaVersion": 2, "layers": [{0}, {0}]}}"#, r#"{"mediaType": "application/wasm", "digest": "y", "size": 1}"#);
    let server = with(two, |_| status(500)).await;
    assert!(refused(&server).await.to_string().contains("exactly one"));
    let server = Server::start(|_| ok(vec![b' '; 1 << 20])).await;
    assert!(matches!(refused(&server).await, Error::TooLarge { .. }));
}

#[tokio::test]
async fn nobody_is_sent_to_private_addresses() {
    for place in [
        "http://169.254.169.254/latest/meta-data/",
        "http://127.0.0.1:1/",
        "http://localhost:1/",
        "http://[::1]:1/",
        "http://[::ffff:10.0.0.1]/",
        "http://10.0.0.1/x",
    ] {
        let server = with(manifest("x", SOLO, MODULE, MODULE.len()), move |_| to(place)).await;
        let error = refused(&server).await;
        assert!(matches!(error, Error::Private { .. }) && error.help().contains("attack"), "{place}: {error}");
        let realm = format!(r#"Bearer realm="{place}",service="s""#);
        let server = Server::start(move |_| Answer::Is(401, vec![("www-authenticate", realm.clone())], Vec::new())).await;
        let error = refused(&server).await;
        assert!(matches!(error, Error::Private { .. }), "{place}: {error}");
    }
    let server = with(manifest("x", SOLO, MODULE, MODULE.len()), |_| to("file:///etc/passwd")).await;
    assert!(matches!(refused(&server).await, Error::Redirect { .. }));
    let server = with(manifest("x", SOLO, MODULE, MODULE.len()), |asked| to(asked.target.clone())).await;
    assert!(refused(&server).await.to_string().contains("too many redirects"));
    assert!(server.asked().len() < 12);
}

#[tokio::test]
async fn a_redirect_within_the_registry_is_followed() {
    let server = with(manifest("x", SOLO, MODULE, MODULE.len()), |asked| match asked.target.as_str() {
        "/storage?token=1" => ok(MODULE),
        _ => to("/storage?token=1"),
    })
    .await;
    assert_eq!(client().pull(&server.reference("a/b:1")).await.unwrap().module, MODULE);
}

#[tokio::test]
async fn nobody_waits_for_ever() {
    let head = b"HTTP/1.1 200 OK\r\ncontent-length: 100\r\n\r\n{".to_vec();
    for (bytes, what) in [(Vec::new(), "answer"), (b"HTTP/1.1 200".to_vec(), "answer"), (head, "send anything more")] {
        let server = Server::start(move |_| Answer::Hangs(bytes.clone())).await;
        let begun = std::time::Instant::now();
        let error = refused(&server).await;
        assert!(matches!(&error, Error::Slow { what: at, .. } if *at == what), "{error}");
        assert!(begun.elapsed().as_secs() < 10);
    }
    let endless = Server::start(|_| Answer::Endless("HTTP/1.1 200 OK\r\nx: ".into())).await;
    assert!(matches!(refused(&endless).await, Error::Malformed { .. } | Error::Slow { .. }));
    let gone = Server::start(|_| status(200)).await;
    let reference = gone.reference("a/b:1");
    drop(gone);
    tokio::task::yield_now().await;
    let error = client().pull(&reference).await.unwrap_err();
    assert!(matches!(error, Error::Unreachable { .. } | Error::Malformed { .. }), "{error}");
}

#[tokio::test]
async fn statuses_are_told_apart_and_passing_ones_tried_again() {
    for (code, tries, said) in
        [(403, 1, "refuses access"), (404, 1, "has no"), (429, 3, "too many requests"), (503, 3, "503"), (418, 1, "418")]
    {
        let body = r#"{"errors":[{"code":"X","message":"because\nof that"}]}"#;
        let server = Server::start(move |_| Answer::Is(code, vec![("retry-after", "0".into())], body.into())).await;
        let error = refused(&server).await;
        assert!(error.to_string().contains(said) && !error.help().is_empty(), "{code}: {error}");
        assert!(!error.to_string().contains('\n'), "{error}");
        assert_eq!(server.asked().len(), tries, "{code}");
    }
    let count = std::sync::atomic::AtomicUsize::new(0);
    let one = manifest("x", SOLO, MODULE, MODULE.len());
    let server = Server::start(move |asked| {
        match (count.fetch_add(1, std::sync::atomic::Ordering::Relaxed), asked.target.contains("/manifests/")) {
            (0, _) => status(502),
            (_, true) => ok(one.clone()),
            (_, false) => ok(MODULE),
        }
    })
    .await;
    assert!(client().pull(&server.reference("a/b:1")).await.is_ok(), "what passes is waited for");
}

#[tokio::test]
async fn tokens_are_fetched_with_the_login_and_nobody_else_gets_it() {
    let folder = tempfile::tempdir().unwrap();
    let server = Server::start(|asked| {
        let authorized = asked.head.contains("authorization: Bearer tok");
        match asked.target.split('?').next().unwrap() {
            "/token" if asked.head.contains("authorization: Basic YW5uYTpwdw==") => ok(r#"{"token": "tok"}"#),
            "/token" => status(401),
            _ if !authorized => Answer::Is(401, vec![("www-authenticate", r#"Bearer realm="/token",service="s""#.into())], Vec::new()),
            target if target.contains("/manifests/") => ok(manifest("x", SOLO, MODULE, MODULE.len())),
            _ => ok(MODULE),
        }
    })
    .await;
    let error = refused(&server).await;
    assert!(matches!(error, Error::Unauthorized { .. }) && error.help().contains("login"), "{error}");
    let file = folder.path().join("config.json");
    std::fs::write(&file, format!(r#"{{"auths": {{"{}": {{"auth": "YW5uYTpwdw=="}}}}}}"#, server.address)).unwrap();
    let client = client_with(Credentials::from_file(&file));
    client.pull(&server.reference("a/b:1")).await.unwrap();
    let asked = server.asked();
    assert!(asked.iter().any(|one| one.target.contains("scope=repository:a/b:pull")), "{asked:?}");
    assert!(
        asked.iter().filter(|one| one.head.contains("Basic")).all(|one| one.target.starts_with("/token")),
        "the password goes to no other place"
    );
    let tokens = |asked: &[Asked]| asked.iter().filter(|one| one.target.starts_with("/token") && one.head.contains("Basic")).count();
    assert_eq!(tokens(&asked), 1, "a token is asked for once");
}

fn archive(name: &str, bytes: &[u8]) -> Vec<u8> {
    let mut builder = tar::Builder::new(Vec::new());
    let mut header = tar::Header::new_gnu();
    header.set_size(bytes.len() as u64);
    header.set_mode(0o644);
    builder.append_data(&mut header, name, bytes).unwrap();
    let mut writer = flate2::write::GzEncoder::new(Vec::new(), flate2::Compression::fast());
    writer.write_all(&builder.into_inner().unwrap()).unwrap();
    writer.finish().unwrap()
}

#[tokio::test]
async fn the_four_layouts_are_read() {
    const OCI_LAYER: &str = "application/vnd.oci.image.layer.v1.tar+gzip";
    const DOCKER_LAYER: &str = "application/vnd.docker.image.rootfs.diff.tar.gzip";
    let packed = archive("plugin.wasm", MODULE);
    for (layer, bytes, layout) in [
        (CNCF, MODULE.to_vec(), Layout::Cncf),
        (SOLO, MODULE.to_vec(), Layout::Solo),
        (OCI_LAYER, packed.clone(), Layout::Compat),
        (DOCKER_LAYER, packed.clone(), Layout::Docker),
    ] {
        // Without a configuration type of its own: only the CNCF's is looked into.
        let text = manifest("x", layer, &bytes, bytes.len());
        let text = if layout == Layout::Cncf {
            text.replace(r#""config":{"mediaType":"x""#, r#""annotations":null,"ignored":{"mediaType":"x""#)
        } else {
            text
        };
        let server = with(text, move |_| ok(bytes.clone())).await;
        let pulled = client().pull(&server.reference("a/b:1")).await.unwrap_or_else(|error| panic!("{layout:?}: {error}"));
        assert_eq!((pulled.layout, &pulled.module[..]), (layout, MODULE));
    }
    for (bytes, said) in
        [(archive("other.txt", MODULE), "no file plugin.wasm"), (archive("plugin.wasm", b"text"), "does not begin as WebAssembly")]
    {
        let server = with(manifest("x", OCI_LAYER, &bytes, bytes.len()), move |_| ok(bytes.clone())).await;
        let error = refused(&server).await;
        assert!(matches!(error, Error::NotAFilter { .. }) && error.to_string().contains(said), "{error}");
    }
    let bomb = archive("plugin.wasm", &vec![0; 8 << 20]);
    let server = with(manifest("x", OCI_LAYER, &bomb, bomb.len()), move |_| ok(bomb.clone())).await;
    assert!(refused(&server).await.to_string().contains("more than the limit"));
}

#[tokio::test]
async fn an_index_leads_to_the_image_for_wasm() {
    let image = manifest("x", SOLO, MODULE, MODULE.len());
    let entry = |arch: &str, of: &str| {
        let digest = Digest::of(of.as_bytes());
        format!(
            r#"{{"mediaType":"application/vnd.oci.image.manifest.v1+json","digest":"{digest}","size":1,"platform":{{"architecture":"{arch}","os":"linux"}}}}"#
        )
    };
    let index =
        |entries: String| format!(r#"{{"schemaVersion":2,"mediaType":"application/vnd.oci.image.index.v1+json","manifests":[{entries}]}}"#);
    let good = index(format!("{},{}", entry("amd64", "other"), entry("wasm", &image)));
    let server = Server::start(move |asked| match asked.target.as_str() {
        "/v2/a/b/manifests/1" => ok(good.clone()),
        target if target.contains("/manifests/") => ok(image.clone()),
        _ => ok(MODULE),
    })
    .await;
    assert_eq!(client().pull(&server.reference("a/b:1")).await.unwrap().module, MODULE);
    let unclear = index(format!("{},{}", entry("amd64", "x"), entry("arm64", "y")));
    let server = Server::start(move |_| ok(unclear.clone())).await;
    assert!(refused(&server).await.to_string().contains("2 images, of which 0 are for wasm"));
}
