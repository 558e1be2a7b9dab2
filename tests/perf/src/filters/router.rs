//! The filter `router` with 10,000 virtual hosts of ten routes, each with an action of its own: configuring it, choosing, memory.
//!
//! The filter runs as the module that ships, and its actions are read and compiled as the proxy does it. Requests go to hosts in an order that no cache can
//! guess; a request is the filter's whole part in it, from context create to delete.

use std::cell::Cell;
use std::rc::Rc;
use std::sync::Arc;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, ensure};
use bytes::Bytes;
use weir_proxy::filter::routes::{Defined, Routes};
use weir_sdk_testing::MemoryHost;
use weir_wasm::{
    Attribute, Binding, BindingConfig, Chain, Engine, EngineOptions, Filter, Foreign, Headers, Kind, LocalReply, MessageMap, Path,
    SharedHost, Side, Stream, StreamHost,
};

use crate::report::{Report, nanos_per_round};

const HOSTS: usize = 10_000;
const ROUTES: usize = 10;
const RUNS: usize = 9;

pub(crate) fn run(report: &mut Report) -> Result<()> {
    let configuration = configuration();
    let engine = Engine::new(EngineOptions::default())?;
    let mut config = BindingConfig::new("router");
    config.configuration = Bytes::from(configuration);
    config.limits.start_deadline = Duration::from_secs(60);
    report.figure("router_configuration_kib", config.configuration.len() as f64 / 1024.0, "the configuration of 100,000 routes, as JSON");
    let router = weir_filters::builtin("router").context("the bundle has a router")?;
    let proof = || -> SharedHost { host(&Arc::default()) };
    let binding = Binding::load(&engine, config, "router", router.bytes, Some(&proof));
    let binding = binding.map_err(|error| anyhow::anyhow!("{error}: {}", error.help()))?;

    let before = resident_kib()?;
    let actions: Arc<Defined> = Arc::default();
    let start = Instant::now();
    let filter = Filter::start(&binding, host(&actions))?;
    report.figure("router_configure_ms", millis(start), "reading it, compiling the routes and their actions: the first to do so");
    report.figure("router_process_kib", resident_kib()? - before, "what the process has grown by: routes and actions");
    let start = Instant::now();
    drop(Filter::start(&binding, host(&actions))?);
    report.figure("router_configure_again_ms", millis(start), "the same on the next worker, which shares the actions");
    let peak = binding.stats().snapshot().peak_instance_memory as f64 / 1024.0;
    report.figure("router_memory_kib", peak, "memory of the filter on that worker, the configuration's text included");
    select(report, filter)
}

/// A worker whose actions are the proxy's.
fn host(actions: &Arc<Defined>) -> Rc<MemoryHost> {
    let host = MemoryHost::default();
    host.be_quiet();
    let routes = Routes::new(Arc::clone(actions));
    host.provide("weir.route.define", move |action| match routes.define(action) {
        Ok(number) => Foreign::Done(number.to_le_bytes().to_vec()),
        Err(_) => Foreign::BadArgument,
    });
    Rc::new(host)
}

fn millis(since: Instant) -> f64 {
    since.elapsed().as_secs_f64() * 1e3
}

fn configuration() -> String {
    let route = |host: usize, nth: usize| {
        let path = if nth + 1 == ROUTES { "/".to_owned() } else { format!("/api/v{nth}/") };
        let action = format!(r#"{{"name":"r{nth}","forward":{{"clusters":[{{"name":"svc-{host}-{nth}"}}],"timeout":"5s"}}}}"#);
        format!(r#"{{"match":[{{"path":{{"prefix":"{path}"}}}}],"action":{action}}}"#)
    };
    let host = |host: usize| {
        let routes: Vec<String> = (0..ROUTES).map(|nth| route(host, nth)).collect();
        format!(r#"{{"hosts":["svc-{host}.shop.svc.cluster.local"],"routes":[{}]}}"#, routes.join(","))
    };
    format!(r#"{{"virtualHosts":[{}]}}"#, (0..HOSTS).map(host).collect::<Vec<_>>().join(","))
}

fn select(report: &mut Report, filter: Rc<Filter>) -> Result<()> {
    let chain = Chain::new(Kind::Http, vec![filter]);
    let mut random = 1u64;
    let mut next = |below: usize| {
        random = random.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        (random >> 33) as usize % below
    };
    let mut requests: Vec<Asked> = (0..HOSTS)
        .map(|_| {
            let (host, nth) = (next(HOSTS), next(ROUTES + 1));
            Asked { authority: format!("svc-{host}.shop.svc.cluster.local:80"), path: format!("/api/v{nth}/users/42?x=1") }
        })
        .collect();
    let chosen = Rc::new(Cell::new(0u32));
    let mut at = 0;
    let time = nanos_per_round(RUNS, 50_000, |rounds| {
        for _ in 0..rounds {
            at = (at + 1) % requests.len();
            chosen.set(0);
            let asked = std::mem::take(&mut requests[at]);
            let mut stream = Stream::new(&chain, Asking { asked, chosen: Rc::clone(&chosen) });
            stream.request_headers(true);
            stream.take(Side::Request);
            stream.finish();
            requests[at] = std::mem::take(&mut stream.host_mut().asked);
            ensure!(chosen.get() > 0, "a route is chosen");
        }
        Ok(())
    })?;
    report.figure("router_select_ns", time, "a request to one of 10,000 virtual hosts, ten routes each: context, choice, end");
    Ok(())
}

/// A request.
#[derive(Default)]
struct Asked {
    authority: String,
    path: String,
}

/// The same as a stream, and the action that was chosen.
struct Asking {
    asked: Asked,
    chosen: Rc<Cell<u32>>,
}

impl Headers for Asked {
    fn count(&self) -> usize {
        3
    }

    fn get(&self, name: &[u8]) -> Option<&[u8]> {
        match name {
            b":authority" => Some(self.authority.as_bytes()),
            b":path" => Some(self.path.as_bytes()),
            b":method" => Some(b"GET"),
            _ => None,
        }
    }

    fn visit(&self, each: &mut dyn FnMut(&[u8], &[u8])) {
        [":authority", ":path", ":method"].iter().for_each(|name| each(name.as_bytes(), self.get(name.as_bytes()).unwrap_or_default()));
    }

    fn add(&mut self, _: &[u8], _: &[u8]) {}

    fn set(&mut self, _: &[u8], _: &[u8]) {}

    fn remove(&mut self, _: &[u8]) {}
}

impl StreamHost for Asking {
    fn headers(&mut self, map: MessageMap) -> Option<&mut dyn Headers> {
        (map == MessageMap::RequestHeaders).then_some(&mut self.asked as &mut dyn Headers)
    }

    fn make_trailers(&mut self, _: Side) -> Option<&mut dyn Headers> {
        None
    }

    fn attribute(&self, _: Path<'_>) -> Option<Attribute<'_>> {
        None
    }

    fn start_local_reply(&mut self, _: &LocalReply) {}

    fn wake(&mut self) {}

    fn foreign(&mut self, _: &str, name: &str, arguments: &[u8]) -> Foreign {
        match (name, arguments.try_into().map(u32::from_le_bytes)) {
            ("weir.route.select", Ok(number)) => {
                self.chosen.set(number);
                Foreign::Done(Vec::new())
            }
            _ => Foreign::Unknown,
        }
    }
}

fn resident_kib() -> Result<f64> {
    let status = std::fs::read_to_string("/proc/self/status")?;
    let line = status.lines().find_map(|line| line.strip_prefix("VmRSS:")).context("no VmRSS")?;
    Ok(line.trim().trim_end_matches(" kB").parse()?)
}
