//! Modules on their way through a true registry, Debian's, on loopback. Where it is not installed the tests say so and pass.

use std::io::BufRead as _;
use std::path::Path;
use std::process::{Child, Command, Stdio};

use crate::command::{command, has, run, weir};

struct Registry {
    child: Child,
    address: String,
}

impl Drop for Registry {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

fn start(folder: &Path) -> Option<Registry> {
    if !has("docker-registry") {
        return None;
    }
    let config = folder.join("registry.yml");
    let root = folder.join("registry");
    let text = format!(
        "version: 0.1\nlog:\n  accesslog:\n    disabled: true\nstorage:\n  filesystem:\n    rootdirectory: {}\nhttp:\n  addr: 127.0.0.1:0\n",
        root.display()
    );
    std::fs::write(&config, text).unwrap();
    let mut child = Command::new("docker-registry")
        .arg("serve")
        .arg(&config)
        .stdin(Stdio::null())
        .stdout(Stdio::null())
        .stderr(Stdio::piped())
        .spawn()
        .unwrap();
    let mut lines = std::io::BufReader::new(child.stderr.take().unwrap()).lines();
    let address = lines.by_ref().map_while(Result::ok).find_map(|line| {
        let (_, rest) = line.split_once("listening on ")?;
        Some(rest.chars().take_while(|c| c.is_ascii_digit() || ".:[]".contains(*c)).collect::<String>())
    });
    std::thread::spawn(move || lines.for_each(drop));
    Some(Registry { child, address: address.unwrap() })
}

/// A module that this host runs, in a file.
fn module(folder: &Path) -> Vec<u8> {
    let bytes = weir_filters::builtin("headers").unwrap().bytes.to_vec();
    std::fs::write(folder.join("my.wasm"), &bytes).unwrap();
    bytes
}

#[test]
fn a_module_is_pushed_signed_pulled_verified_and_inspected() {
    let folder = tempfile::tempdir().unwrap();
    let here = folder.path();
    let Some(registry) = start(here) else { return };
    let bytes = module(here);
    let keys = run(command(here).args(["filter", "keygen", "mine"]).env("COSIGN_PASSWORD", "secret")).ok();
    assert!(keys.contains("mine.key") && keys.contains("mine.pub"), "{keys}");
    assert!(weir(here, &["filter", "keygen", "mine"]).failed().contains("exists"), "a key is never written over");
    weir(here, &["filter", "keygen", "other"]).ok();
    use std::os::unix::fs::PermissionsExt as _;
    assert_eq!(std::fs::metadata(here.join("mine.key")).unwrap().permissions().mode() & 0o077, 0, "nobody else reads it");

    let reference = format!("oci://{}/team/headers:1.0", registry.address);
    let wrong = weir(here, &["filter", "push", &reference, "my.wasm", "--sign", "mine.key"]).failed();
    assert!(wrong.contains("COSIGN_PASSWORD"), "{wrong}");
    let pushed = run(command(here)
        .args(["filter", "push", &reference, "my.wasm", "--sign", "mine.key", "--output", "json"])
        .env("COSIGN_PASSWORD", "secret"))
    .json();
    let pinned = pushed["pinned"].as_str().unwrap();
    assert!(pinned.contains("@sha256:") && pushed["signed"] == true, "{pushed}");

    let pulled = weir(here, &["filter", "pull", &reference, "--verify", "mine.pub", "--output", "json"]).json();
    assert_eq!((&pulled["layout"], &pulled["digest"]), (&serde_json::json!("cncf"), &pushed["digest"]));
    assert_eq!(std::fs::read(here.join("headers.wasm")).unwrap(), bytes);
    assert_eq!(pulled["annotations"]["dev.weir.filter.abi"], "0.2.1");
    let refused = weir(here, &["filter", "pull", &reference, "--verify", "other.pub", "--out", "x.wasm"]).failed();
    assert!(refused.contains("is not signed by this key") && refused.contains("help:"), "{refused}");
    assert!(!here.join("x.wasm").exists(), "nothing is written that was not verified");
    weir(here, &["filter", "pull", pinned, "--out", "y.wasm"]).ok();
    let other = pinned.replace("@sha256:", "@sha256:0000").split_at(pinned.len()).0.to_owned();
    assert!(weir(here, &["filter", "pull", &other, "--out", "z.wasm"]).failed().contains("has no"));
    let inspected = weir(here, &["filter", "inspect", pinned, "--verify", "mine.pub", "--output", "json"]).json();
    assert!(inspected["runs"] == true && inspected["name"] == "weir-filter-headers", "{inspected}");
}

#[test]
fn a_package_is_a_layout_that_other_tools_read() {
    let folder = tempfile::tempdir().unwrap();
    module(folder.path());
    let packed = weir(folder.path(), &["filter", "package", "my.wasm", "--out", "p.oci", "--tag", "1.0", "--output", "json"]).json();
    let read = |path: &str| -> serde_json::Value {
        serde_json::from_slice(&std::fs::read(folder.path().join("p.oci").join(path)).unwrap()).unwrap()
    };
    assert_eq!(read("oci-layout")["imageLayoutVersion"], "1.0.0");
    let entry = &read("index.json")["manifests"][0];
    assert_eq!(
        (&entry["digest"], &entry["annotations"]["org.opencontainers.image.ref.name"]),
        (&packed["digest"], &serde_json::json!("1.0"))
    );
    let manifest = read(&format!("blobs/sha256/{}", entry["digest"].as_str().unwrap().trim_start_matches("sha256:")));
    assert_eq!(manifest["config"]["mediaType"], "application/vnd.wasm.config.v0+json");
    assert_eq!(manifest["layers"][0]["mediaType"], "application/wasm");
    let config = read(&format!("blobs/sha256/{}", manifest["config"]["digest"].as_str().unwrap().trim_start_matches("sha256:")));
    assert_eq!((&config["architecture"], &config["os"]), (&serde_json::json!("wasm"), &serde_json::json!("wasip1")));
    std::fs::write(folder.path().join("bad.wasm"), b"no module").unwrap();
    assert!(weir(folder.path(), &["filter", "package", "bad.wasm"]).failed().contains("weir filter inspect bad.wasm"));
}

#[test]
fn a_registry_that_is_not_there_is_an_error_with_a_next_step() {
    let folder = tempfile::tempdir().unwrap();
    let listener = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    let gone = format!("oci://{}/a:1", listener.local_addr().unwrap());
    drop(listener);
    let error = weir(folder.path(), &["filter", "pull", &gone]).failed();
    assert!(error.contains("cannot be reached") && error.contains("help:"), "{error}");
    let error = weir(folder.path(), &["filter", "pull", "oci://registry.example/UPPER"]).failed();
    assert!(error.contains("names no artifact"), "{error}");
    let error = weir(folder.path(), &["filter", "pull", &gone, "--output", "json"]);
    let value: serde_json::Value = serde_json::from_str(&error.out).unwrap();
    assert!(value["error"].as_str().unwrap().contains("cannot be reached"), "{value}");
}
