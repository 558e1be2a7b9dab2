//! Configurations and modules are swapped while every kind of connection is in use, and nobody notices.

use serde_json::{Value, json};

use super::load::*;
use super::support::*;

const SWAPS: usize = 200;
/// Modules that differ in a section without meaning: other bytes, another digest, other instances.
const MODULES: usize = 4;

fn write_modules(folder: &std::path::Path) {
    let headers = weir_filters::all().iter().find(|builtin| builtin.name == "headers").expect("the filter");
    for number in 0..MODULES {
        // A custom section: its kind, its length, the length of its name, its name, its bytes.
        let section = [0, 4, 2, b'n', b'o', u8::try_from(number).unwrap()];
        std::fs::write(folder.join(format!("headers-{number}.wasm")), [headers.bytes, &section].concat()).unwrap();
    }
}

#[tokio::test]
async fn two_hundred_configurations_and_modules_under_load_harm_nobody() {
    let (origin, grpc) = (echoing().await, echoing_grpc().await);
    let with = |mark: usize| -> Value {
        let mut config = marked_with_grpc(origin, grpc, &format!("mark-{mark}"));
        config["workers"] = 2.into();
        config["moduleCache"] = "modules".into();
        config["filterChains"][0]["filters"][0]["module"] = json!({ "file": format!("headers-{}.wasm", mark % MODULES) });
        config
    };
    let folder = tempfile::tempdir().unwrap();
    write_modules(folder.path());
    let proxy = Proxy::start_in(folder, &with(1)).await;
    let web = Target::Tcp(proxy.address("web").await);
    let mut clients = Clients::of_steady_proxy();
    clients.start(2, Way::KeepAlive, &web);
    clients.start(2, Way::Fresh, &web);
    clients.start(1, Way::Http2, &web);
    clients.start(1, Way::Tunnel, &web);
    clients.start(1, Way::Grpc, &Target::Tcp(proxy.address("grpc").await));
    let ways = [Way::KeepAlive, Way::Fresh, Way::Http2, Way::Tunnel, Way::Grpc];
    let mut client = proxy.client().await;
    for mark in 2..=SWAPS + 1 {
        proxy.rewrite(&with(mark));
        let expected = format!("mark-{mark}");
        until("the new configuration", async || {
            client.send(get("/")).await;
            (client.message().await.header("x-mark") == Some(&expected)).then_some(())
        })
        .await;
        clients.go_on(&ways, 1).await;
    }
    for way in ways {
        assert!(clients.answered(way) > 2 * SWAPS, "{way:?}: {}", clients.answered(way));
    }
    clients.finish().await;
    let config = proxy.view("/config").await;
    assert_eq!((&config["generation"], &config["sources"][0]["rejected"]), (&json!(SWAPS + 1), &json!(0)));
    // Streams of older ones have ended, and with them what they held.
    until("the end of old snapshots", async || {
        let live = proxy.view("/config").await["liveSnapshots"].as_u64().unwrap();
        (live <= 2).then_some(())
    })
    .await;
    let modules: Vec<_> = proxy.view("/filters").await.as_array().unwrap().iter().map(|filter| filter["sha256"].clone()).collect();
    assert_eq!(modules.len(), 1, "{modules:?}");
}
