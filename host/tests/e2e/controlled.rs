//! A proxy with a controller: Istio's resources in a folder become what the proxy does, and changes to them reach it while it serves.

use std::net::SocketAddr;
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};

use serde_json::{Value, json};
use tokio::net::TcpListener;
use tokio::task::JoinHandle;
use weir_controller::serve::{self, Distribution, Proxies};
use weir_controller::source::folder;

use super::support::*;

/// A controller in this process that serves what a folder says.
struct Controller {
    folder: tempfile::TempDir,
    address: SocketAddr,
    distribution: Arc<Distribution>,
    proxies: Arc<Proxies>,
    task: JoinHandle<()>,
}

impl Controller {
    async fn start(yaml: &str) -> Self {
        let folder = tempfile::tempdir().unwrap();
        std::fs::write(folder.path().join("all.yaml"), yaml).unwrap();
        let distribution = Distribution::new(world(folder.path()));
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let (address, proxies) = (listener.local_addr().unwrap(), Arc::<Proxies>::default());
        let served = serve::serve(listener, Arc::clone(&distribution) as _, Arc::clone(&proxies));
        let task = tokio::spawn(async move { served.await.unwrap() });
        Self { folder, address, distribution, proxies, task }
    }

    /// Changes the folder. How many configurations change with it.
    fn rewrite(&self, yaml: &str) -> usize {
        std::fs::write(self.folder.path().join("all.yaml"), yaml).unwrap();
        self.distribution.update(world(self.folder.path()))
    }

    /// Changes the folder, and waits until the proxy has applied what changes with it.
    async fn change(&self, yaml: &str) {
        let before = self.applied();
        assert_eq!(self.rewrite(yaml), 1);
        until("the change to be applied", async || (self.applied() > before).then_some(())).await;
        self.in_sync().await;
    }

    fn applied(&self) -> u64 {
        self.proxies.all().iter().map(|proxy| proxy.applied).sum()
    }

    /// Waits until the proxy has applied everything.
    async fn in_sync(&self) {
        until("a proxy in step with the controller", async || {
            let all = self.proxies.all();
            assert!(all.iter().all(|proxy| proxy.refused.is_empty()), "{all:?}");
            (!all.is_empty() && all.iter().all(|proxy| proxy.in_sync)).then_some(())
        })
        .await;
    }
}

impl Drop for Controller {
    fn drop(&mut self) {
        self.task.abort();
    }
}

fn world(path: &Path) -> weir_controller::translate::World {
    weir_controller::app::world(&folder::read(path).unwrap(), |line| panic!("{line}"))
}

/// A proxy's own file: nothing but where its controller is, and who it is.
fn gateway(controller: SocketAddr) -> Value {
    json!({
        "admin": { "address": "127.0.0.1:0" },
        "workers": 1,
        "node": { "id": "router~127.0.0.1~edge.infra~infra.svc.cluster.local", "labels": { "istio": "ingressgateway" } },
        "discovery": { "addresses": [format!("http://{controller}")] },
    })
}

/// Two versions of a service behind a gateway. `routes` is the virtual service's `http`.
fn resources(port: u16, versions: &[(&str, SocketAddr)], routes: &str) -> String {
    let mut text = format!(
        r#"
apiVersion: networking.istio.io/v1
kind: Gateway
metadata: {{ name: edge, namespace: default }}
spec:
  selector: {{ istio: ingressgateway }}
  servers:
  - port: {{ number: {port}, name: http, protocol: HTTP }}
    bind: 127.0.0.1
    hosts: ["shop.test"]
---
apiVersion: v1
kind: Service
metadata: {{ name: reviews, namespace: default }}
spec:
  clusterIP: 10.96.0.1
  ports: [{{ name: http, port: 9080 }}]
---
apiVersion: networking.istio.io/v1
kind: DestinationRule
metadata: {{ name: reviews, namespace: default }}
spec:
  host: reviews
  subsets:
  - {{ name: v1, labels: {{ version: v1 }} }}
  - {{ name: v2, labels: {{ version: v2 }} }}
---
apiVersion: networking.istio.io/v1
kind: VirtualService
metadata: {{ name: shop, namespace: default }}
spec:
  hosts: ["shop.test"]
  gateways: [edge]
  http: {routes}
"#
    );
    for (version, address) in versions {
        text += &format!(
            r#"---
apiVersion: v1
kind: Pod
metadata: {{ name: reviews-{version}, namespace: default, labels: {{ app: reviews, version: {version} }} }}
---
apiVersion: discovery.k8s.io/v1
kind: EndpointSlice
metadata: {{ name: reviews-{version}, namespace: default, labels: {{ kubernetes.io/service-name: reviews }} }}
addressType: IPv4
ports: [{{ name: http, port: {} }}]
endpoints:
- addresses: ["{}"]
  targetRef: {{ kind: Pod, name: reviews-{version}, namespace: default }}
"#,
            address.port(),
            address.ip()
        );
    }
    text
}

/// A destination with its weight.
fn to(subset: &str, weight: u32) -> String {
    format!("{{ destination: {{ host: reviews, subset: {subset} }}, weight: {weight} }}")
}

/// A port that nobody uses, for a gateway, which must say one.
fn free_port() -> u16 {
    std::net::TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap().port()
}

async fn ask(address: SocketAddr, head: &str) -> Message {
    let mut client = Peer::connect(address).await;
    client.send(format!("{head}\r\n\r\n")).await;
    client.message().await
}

#[tokio::test]
async fn istios_resources_are_what_a_gateway_does() {
    let (one, two) = (Answering::new(|_| ok("v1")).await, Answering::new(|request| ok(&format!("v2 {}", request.path()))).await);
    let versions = [("v1", one.address), ("v2", two.address)];
    let routes = r#"
  - match: [{ uri: { prefix: /slow } }]
    fault: { abort: { httpStatus: 418, percentage: { value: 100 } } }
    route: [{ destination: { host: reviews, subset: v1 } }]
  - match: [{ headers: { x-canary: { exact: "yes" } } }]
    route: [{ destination: { host: reviews, subset: v2 } }]
  - match: [{ uri: { prefix: /old } }]
    redirect: { uri: /new, authority: new.test }
  - match: [{ uri: { prefix: /api/ } }]
    rewrite: { uri: / }
    route: [{ destination: { host: reviews, subset: v2 } }]
  - match: [{ uri: { prefix: /nowhere } }]
    route: [{ destination: { host: reviews, subset: v3 } }]
  - match: [{ uri: { exact: / } }]
    route: [{ destination: { host: reviews, subset: v1 } }]
"#;
    let port = free_port();
    let controller = Controller::start(&resources(port, &versions, routes)).await;
    let proxy = Proxy::start(&gateway(controller.address)).await;
    controller.in_sync().await;
    let address = SocketAddr::from(([127, 0, 0, 1], port));
    let get = async |path: &str, more: &str| ask(address, &format!("GET {path} HTTP/1.1\r\nhost: shop.test{more}")).await;
    assert_eq!(get("/", "").await.text(), "v1");
    assert_eq!(get("/", "\r\nx-canary: yes").await.text(), "v2 /");
    assert_eq!(get("/api/items", "").await.text(), "v2 /items");
    assert_eq!(get("/slow/x", "").await.status(), 418, "{}", proxy.log());
    let moved = get("/old/x", "").await;
    assert_eq!((moved.status(), moved.header("location")), (301, Some("http://new.test/new")));
    assert_eq!(get("/nowhere", "").await.status(), 503, "a subset that nobody defined");
    assert_eq!(get("/other", "").await.status(), 404, "no route");
    assert_eq!(ask(address, "GET / HTTP/1.1\r\nhost: else.test").await.status(), 404, "no virtual host");
}

#[tokio::test]
async fn weights_move_step_by_step_and_no_request_is_lost() {
    let (one, two) = (Answering::new(|_| ok("v1")).await, Answering::new(|_| ok("v2")).await);
    let versions = [("v1", one.address), ("v2", two.address)];
    let port = free_port();
    let routes = |v1: u32, v2: u32| format!("[{{ route: [{}, {}] }}]", to("v1", v1), to("v2", v2));
    let controller = Controller::start(&resources(port, &versions, &routes(100, 0))).await;
    let _proxy = Proxy::start(&gateway(controller.address)).await;
    controller.in_sync().await;
    let address = SocketAddr::from(([127, 0, 0, 1], port));
    let (stop, served) = (Arc::new(AtomicBool::new(false)), Arc::new([AtomicU64::new(0), AtomicU64::new(0)]));
    let clients: Vec<_> = (0..4)
        .map(|_| {
            let (stop, served) = (Arc::clone(&stop), Arc::clone(&served));
            tokio::spawn(async move {
                let mut client = Peer::connect(address).await;
                while !stop.load(Ordering::Relaxed) {
                    client.send("GET / HTTP/1.1\r\nhost: shop.test\r\n\r\n").await;
                    let response = client.message().await;
                    assert_eq!(response.status(), 200, "{response:?}");
                    served[usize::from(response.text() == "v2")].fetch_add(1, Ordering::Relaxed);
                }
            })
        })
        .collect();
    for step in [10, 50, 90, 100] {
        controller.change(&resources(port, &versions, &routes(100 - step, step))).await;
        let before = served[1].load(Ordering::Relaxed);
        until("requests to the new version", async || (served[1].load(Ordering::Relaxed) > before + 20).then_some(())).await;
    }
    let before = served[0].load(Ordering::Relaxed);
    let so_far = served[1].load(Ordering::Relaxed);
    until("more requests", async || (served[1].load(Ordering::Relaxed) > so_far + 100).then_some(())).await;
    let after = served[0].load(Ordering::Relaxed);
    stop.store(true, Ordering::Relaxed);
    for client in clients {
        client.await.unwrap();
    }
    // What was under way when the last step was applied.
    assert!(after <= before + 4, "the old version gets nothing any more, but got {}", after - before);
    assert_eq!(controller.rewrite(&resources(port, &versions, &routes(0, 100))), 0, "the same is told to nobody");
}

#[tokio::test]
async fn endpoints_come_and_go_and_a_controller_that_is_away_changes_nothing() {
    let (one, two) = (Answering::new(|_| ok("one")).await, Answering::new(|_| ok("two")).await);
    let port = free_port();
    let routes = "[{ route: [{ destination: { host: reviews } }] }]";
    let controller = Controller::start(&resources(port, &[("v1", one.address)], routes)).await;
    let _proxy = Proxy::start(&gateway(controller.address)).await;
    controller.in_sync().await;
    let address = SocketAddr::from(([127, 0, 0, 1], port));
    let get = async || ask(address, "GET / HTTP/1.1\r\nhost: shop.test").await;
    assert_eq!(get().await.text(), "one");
    controller.change(&resources(port, &[("v1", two.address)], routes)).await;
    until("the new endpoint", async || (get().await.text() == "two").then_some(())).await;
    controller.change(&resources(port, &[], routes)).await;
    until("no endpoint", async || (get().await.status() == 503).then_some(())).await;
    controller.change(&resources(port, &[("v2", one.address)], routes)).await;
    until("an endpoint again", async || (get().await.text() == "one").then_some(())).await;
    drop(controller);
    assert_eq!(get().await.text(), "one", "what was applied stays");
}
