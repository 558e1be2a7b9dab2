//! Connections that netfilter turns to the proxy, in network namespaces of this test's own: a client, a router with the proxy, servers behind it.
//!
//! It takes root, `ip` and `nft`. Where one is missing the test says so and passes.

use std::io::Write as _;
use std::net::{IpAddr, SocketAddr, TcpListener, TcpStream};
use std::os::fd::AsFd as _;
use std::process::Command;

use rustix::thread::{LinkNameSpaceType, move_into_link_name_space};
use serde_json::{Value, json};

use super::support::*;

/// A network namespace. Gone with this value.
struct Namespace(String);

fn command(program: &str, args: &[&str]) -> Result<(), String> {
    let ran = Command::new(program).args(args).output().map_err(|error| format!("no {program}: {error}"))?;
    let said = || format!("{program} {}: {}", args.join(" "), String::from_utf8_lossy(&ran.stderr).trim());
    if ran.status.success() { Ok(()) } else { Err(said()) }
}

impl Namespace {
    fn new(name: &str) -> Result<Self, String> {
        let name = format!("weir-{}-{name}", std::process::id());
        command("ip", &["netns", "add", &name])?;
        let new = Self(name);
        new.ip("link set lo up");
        Ok(new)
    }

    fn ip(&self, args: &str) {
        let args: Vec<_> = ["-n", &self.0].into_iter().chain(args.split(' ')).collect();
        command("ip", &args).unwrap();
    }

    /// Runs `inside` with this namespace's network. Sockets that it opens stay there.
    fn within<T: Send>(&self, inside: impl FnOnce() -> T + Send) -> T {
        std::thread::scope(|scope| {
            let thread = scope.spawn(|| {
                let file = std::fs::File::open(format!("/run/netns/{}", self.0)).unwrap();
                move_into_link_name_space(file.as_fd(), Some(LinkNameSpaceType::Network)).unwrap();
                inside()
            });
            thread.join().unwrap_or_else(|panic| std::panic::resume_unwind(panic))
        })
    }
}

impl Drop for Namespace {
    fn drop(&mut self) {
        let _ = command("ip", &["netns", "delete", &self.0]);
    }
}

/// Client and servers in networks of their own, the router between them.
struct World {
    client: Namespace,
    router: Namespace,
    servers: Namespace,
}

const RULES: &str = "
table inet weir {
    chain redirected {
        type nat hook prerouting priority dstnat
        iifname client tcp dport { 80, 5432 } redirect to :15001
    }
    chain transparent {
        type filter hook prerouting priority mangle
        iifname client meta nfproto ipv4 tcp dport { 81, 5433 } tproxy ip to :15002 meta mark set 1 accept
        iifname client meta nfproto ipv6 tcp dport { 81, 5433 } tproxy ip6 to :15002 meta mark set 1 accept
    }
}
";

impl World {
    /// `Err` where this machine cannot have one, and why.
    fn new() -> Result<Self, String> {
        if !rustix::process::geteuid().is_root() {
            return Err("only root may make network namespaces".into());
        }
        command("nft", &["--version"])?;
        let world = Self { client: Namespace::new("client")?, router: Namespace::new("router")?, servers: Namespace::new("servers")? };
        for (side, peer, net) in [("client", &world.client, 1), ("servers", &world.servers, 2)] {
            world.router.ip(&format!("link add {side} type veth peer name router netns {}", peer.0));
            world.router.ip(&format!("link set {side} up"));
            peer.ip("link set router up");
            world.router.ip(&format!("address add 10.200.{net}.1/24 dev {side}"));
            peer.ip(&format!("address add 10.200.{net}.2/24 dev router"));
            peer.ip(&format!("address add 10.200.{net}.3/24 dev router"));
            peer.ip(&format!("route add default via 10.200.{net}.1"));
            world.router.ip(&format!("address add fd00:{net}::1/64 dev {side} nodad"));
            peer.ip(&format!("address add fd00:{net}::2/64 dev router nodad"));
            peer.ip(&format!("-6 route add default via fd00:{net}::1"));
        }
        for family in ["-4", "-6"] {
            world.router.ip(&format!("{family} rule add fwmark 1 lookup 100"));
            world.router.ip(&format!("{family} route add local default dev lo table 100"));
        }
        // A kernel may lack one of them.
        world.router.within(|| command("nft", &[RULES]))?;
        Ok(world)
    }

    /// A server of the servers' side that says where it is.
    fn serve(&self, address: &str) {
        let listener = self.servers.within(|| TcpListener::bind(address)).unwrap();
        listener.set_nonblocking(true).unwrap();
        let listener = tokio::net::TcpListener::from_std(listener).unwrap();
        let at = address.to_owned();
        tokio::spawn(async move {
            loop {
                let (stream, from) = listener.accept().await.unwrap();
                let at = at.clone();
                tokio::spawn(async move {
                    let mut peer = Peer::new(stream);
                    if at.ends_with(":5432") || at.ends_with(":5433") {
                        peer.send(format!("{at}\n")).await;
                        return;
                    }
                    while peer.is_spoken_to().await {
                        peer.message().await;
                        peer.send(ok(&format!("{at} to {}", from.ip()))).await;
                    }
                });
            }
        });
    }

    /// A client's connection.
    fn connect(&self, address: &str) -> Peer {
        let stream = self.client.within(|| TcpStream::connect(address.parse::<SocketAddr>().unwrap())).unwrap();
        stream.set_nonblocking(true).unwrap();
        Peer::new(tokio::net::TcpStream::from_std(stream).unwrap())
    }
}

fn listeners() -> Value {
    let tcp = json!({ "match": { "destinationPorts": [5432, 5433] }, "tcp": { "clusters": [{ "name": "origin" }] } });
    let http = json!({ "http": { "defaultAction": forward(json!({})) } });
    let one = |name: &str, address: &str, original: &str| json!({ "name": name, "address": address, "originalDestination": original, "branches": [tcp], "defaultBranch": http });
    json!([
        one("redirect", "0.0.0.0:15001", "redirect"),
        one("redirect-6", "[::]:15001", "redirect"),
        one("transparent", "0.0.0.0:15002", "transparent"),
        one("transparent-6", "[::]:15002", "transparent"),
    ])
}

#[test]
fn connections_reach_who_they_were_for() {
    let world = match World::new() {
        Ok(world) => world,
        Err(why) => {
            // Past the capture of passing tests: a check that nobody sees missing is none.
            writeln!(std::io::stderr(), "SKIPPED netfilter::connections_reach_who_they_were_for: {why}").unwrap();
            return;
        }
    };
    world.router.within(|| {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
        runtime.block_on(all_reach(&world));
    });
}

async fn all_reach(world: &World) {
    let servers =
        ["10.200.2.2:80", "10.200.2.3:80", "[fd00:2::2]:80", "10.200.2.2:81", "10.200.2.3:81", "[fd00:2::2]:81"].map(str::to_owned);
    let raw = ["10.200.2.2:5432", "10.200.2.2:5433", "[fd00:2::2]:5432", "[fd00:2::2]:5433"].map(str::to_owned);
    servers.iter().chain(&raw).for_each(|address| world.serve(address));
    let mut config = config(json!({}), json!([{ "name": "origin", "originalDestination": {} }]));
    config["listeners"] = listeners();
    // The process is started by this thread, and so in the router's namespace.
    let proxy = Proxy::start(&config).await;
    for server in &servers {
        let mut client = world.connect(server);
        for _ in 0..2 {
            client.send(get("/")).await;
            let response = client.message().await;
            let router = if server.starts_with('[') { "fd00:2::1" } else { "10.200.2.1" };
            assert_eq!((response.status(), response.text()), (200, &*format!("{server} to {router}")), "through the proxy, to the server");
        }
    }
    for server in &raw {
        assert_eq!(String::from_utf8(world.connect(server).rest().await).unwrap(), format!("{server}\n"));
    }
    // Who calls the proxy by its own address was going nowhere, and above all not to the proxy again.
    for own in ["10.200.1.1:15001", "10.200.1.1:15002", "[fd00:1::1]:15001", "[fd00:1::1]:15002"] {
        let mut client = world.connect(own);
        client.send(get("/")).await;
        assert_eq!(client.message().await.status(), 503, "{own}");
    }
    let endpoints = proxy.view("/clusters").await[0]["endpoints"].clone();
    let known: Vec<SocketAddr> =
        endpoints.as_array().unwrap().iter().map(|one| one["address"].as_str().unwrap().parse().unwrap()).collect();
    let of_servers = |ip: IpAddr| ip.to_string().starts_with("10.200.2.") || ip.to_string().starts_with("fd00:2::");
    assert!(known.len() == servers.len() + raw.len() && known.iter().all(|address| of_servers(address.ip())), "{known:?}");
}
