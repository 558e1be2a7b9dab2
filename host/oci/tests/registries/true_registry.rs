//! Debian's registry, on loopback, with a folder of its own: started by each test, ended with it. Where it is not installed the tests say so and pass:
//! `tests/setup.sh registry` installs it.

use std::collections::BTreeMap;
use std::io::BufRead as _;
use std::process::{Child, Command, Stdio};

use weir_oci::{Client, Error, Key, Layout, Options, Package, Reference};

use crate::server::MODULE;

/// A registry's process. Ends with this value.
struct Registry {
    child: Child,
    address: String,
    _folder: tempfile::TempDir,
}

impl Drop for Registry {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

fn start() -> Option<Registry> {
    let folder = tempfile::tempdir().unwrap();
    let config = folder.path().join("config.yml");
    let root = folder.path().join("data");
    let text = format!(
        "version: 0.1\nlog:\n  level: info\n  accesslog:\n    disabled: true\nstorage:\n  filesystem:\n    rootdirectory: {}\nhttp:\n  addr: 127.0.0.1:0\n",
        root.display()
    );
    std::fs::write(&config, text).unwrap();
    let mut command = Command::new("docker-registry");
    command.arg("serve").arg(&config).stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::piped());
    let Ok(mut child) = command.spawn() else {
        use std::io::Write as _;
        writeln!(std::io::stderr(), "left out: docker-registry is not installed (tests/setup.sh registry)").unwrap();
        return None;
    };
    let mut lines = std::io::BufReader::new(child.stderr.take().unwrap()).lines();
    let address = lines.by_ref().map_while(Result::ok).find_map(|line| {
        let (_, rest) = line.split_once("listening on ")?;
        Some(rest.chars().take_while(|c| c.is_ascii_digit() || ".:[]".contains(*c)).collect::<String>())
    });
    // Read on, so that it never waits for us.
    std::thread::spawn(move || lines.for_each(drop));
    let Some(address) = address else { panic!("the registry did not say where it listens: {:?}", child.wait()) };
    Some(Registry { child, address, _folder: folder })
}

fn package(module: &[u8]) -> Package {
    Package::new(module.to_vec(), BTreeMap::from([("org.opencontainers.image.title".to_owned(), "my-filter".to_owned())])).unwrap()
}

#[tokio::test]
async fn what_is_pushed_is_pulled_by_tag_and_by_digest() {
    let Some(registry) = start() else { return };
    let client = Client::new(Options::default()).unwrap();
    let reference: Reference = format!("oci://{}/team/my-filter:1.0", registry.address).parse().unwrap();
    let error = client.pull(&reference).await.unwrap_err();
    assert!(matches!(error, Error::NotFound { .. }), "{error}");

    let first = package(MODULE);
    let digest = client.push(&reference, &first).await.unwrap();
    assert_eq!(digest, first.digest());
    assert_eq!(client.push(&reference, &first).await.unwrap(), digest, "again is the same");
    let pulled = client.pull(&reference).await.unwrap();
    assert_eq!((&pulled.module[..], pulled.layout, pulled.digest), (MODULE, Layout::Cncf, digest));
    assert_eq!(pulled.annotations["org.opencontainers.image.title"], "my-filter");

    // A tag that moves: who pinned keeps what was pinned.
    let moved = client.push(&reference, &package(b"\0asm\x01\0\0\0 other")).await.unwrap();
    assert_eq!(client.resolve(&reference).await.unwrap(), moved);
    assert_eq!(client.pull(&reference.pinned(digest)).await.unwrap().module, MODULE);
    let error = client.push(&reference.pinned(digest), &package(b"\0asm\x01\0\0\0 third")).await.unwrap_err();
    assert!(matches!(error, Error::Digest { .. }), "{error}");
}

#[tokio::test]
async fn signatures_are_kept_beside_what_they_are_for() {
    let Some(registry) = start() else { return };
    let client = Client::new(Options::default()).unwrap();
    let reference: Reference = format!("oci://{}/my-filter:1", registry.address).parse().unwrap();
    let digest = client.push(&reference, &package(MODULE)).await.unwrap();
    let (first, second, stranger) = (Key::generate().unwrap(), Key::generate().unwrap(), Key::generate().unwrap());
    let error = client.verify(&reference, digest, &first.public().unwrap()).await.unwrap_err();
    assert!(error.to_string().contains("it has no signature"), "{error}");
    client.sign(&reference, digest, &first).await.unwrap();
    client.sign(&reference, digest, &second).await.unwrap();
    for key in [&first, &second] {
        client.verify(&reference, digest, &key.public().unwrap()).await.unwrap();
    }
    let error = client.verify(&reference, digest, &stranger.public().unwrap()).await.unwrap_err();
    assert!(error.to_string().contains("none of its 2 signatures"), "{error}");
    let other = client.push(&reference, &package(b"\0asm\x01\0\0\0 other")).await.unwrap();
    assert!(client.verify(&reference, other, &first.public().unwrap()).await.is_err(), "a moved tag is not signed");
}
