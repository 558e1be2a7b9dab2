//! The proxy's configuration for a run: the project's sample, on another address, with the module that was just built and the upstream that was asked for.
//!
//! Always: whatever the sample says beside that is kept: the filter's configuration, its limits, routes.

use std::net::{SocketAddr, TcpListener, ToSocketAddrs as _};
use std::path::{Path, PathBuf};

use weir_model::config::cluster::Discovery;
use weir_model::config::{AccessLog, Admin, Bootstrap, access_log, branch, log, module};
use weir_model::{diagnostic, yaml};

use crate::failure::{Done, Failure, io};

/// What a run's configuration is made of.
pub(crate) struct Setup {
    pub(crate) sample: PathBuf,
    pub(crate) module: PathBuf,
    pub(crate) upstream: SocketAddr,
    pub(crate) listen: SocketAddr,
    /// Where it is written.
    pub(crate) config: PathBuf,
}

impl Setup {
    /// Reads the sample and writes the configuration.
    pub(crate) fn write(&self) -> Done {
        let text = std::fs::read(&self.sample).map_err(|error| {
            io(&self.sample)(error)
                .help("a project needs a configuration with its filter in it, as `weir filter new` lays it down; or name one with --sample")
        })?;
        let name = self.sample.display().to_string();
        let parsed = yaml::parse(&name, &text);
        if diagnostic::any_error(&parsed.diagnostics) {
            return Err(Failure::new(diagnostic::render(&parsed.diagnostics, false).trim_end()));
        }
        let bootstrap = self.change(parsed.fragment.bootstrap)?;
        let partial = self.config.with_extension("partial");
        std::fs::write(&partial, yaml::print(&bootstrap)).map_err(io(&partial))?;
        std::fs::rename(&partial, &self.config).map_err(io(&self.config))
    }

    fn change(&self, mut bootstrap: Bootstrap) -> Done<Bootstrap> {
        bootstrap.admin = Some(Admin { address: "127.0.0.1:0".into(), ..Admin::default() });
        bootstrap.workers = bootstrap.workers.max(1);
        bootstrap.drain_timeout = Some(weir_model::protobuf::Duration { seconds: 2, nanos: 0 });
        bootstrap.log.get_or_insert_default().set_format(log::Format::Json);
        let listener = bootstrap.listeners.first_mut().ok_or_else(|| Failure::new("the sample has no listener"))?;
        listener.address = self.listen.to_string();
        for listener in &mut bootstrap.listeners {
            for branch in listener.branches.iter_mut().chain(&mut listener.default_branch) {
                let mut access = AccessLog { path: "stdout".into(), ..AccessLog::default() };
                access.set_format(access_log::Format::Json);
                match &mut branch.protocol {
                    Some(branch::Protocol::Http(http)) => http.access_log = Some(access),
                    Some(branch::Protocol::Tcp(tcp)) => tcp.access_log = Some(access),
                    None => {}
                }
            }
        }
        let file = self.module.file_name();
        let (mut found, folder) = (false, self.sample.parent().unwrap_or(Path::new(".")));
        for filter in bootstrap.filter_chains.iter_mut().flat_map(|chain| &mut chain.filters) {
            if let Some(module::Source::File(path)) = filter.module.as_mut().and_then(|module| module.source.as_mut()) {
                let is_it = Path::new(path).file_name() == file;
                found |= is_it;
                let whole = if is_it { self.module.clone() } else { folder.join(&*path) };
                *path = whole.display().to_string();
            }
        }
        if !found {
            let name = file.unwrap_or_default().to_string_lossy().into_owned();
            return Err(Failure::new(format!("{} has no filter with the module {name}", self.sample.display()))
                .help(format!("give one `module: {{file: build/{name}}}`")));
        }
        for cluster in &mut bootstrap.clusters {
            if let Some(Discovery::Endpoints(endpoints)) = &mut cluster.discovery {
                let all = endpoints.localities.iter_mut().flat_map(|locality| &mut locality.endpoints);
                all.for_each(|endpoint| endpoint.address = self.upstream.to_string());
            }
        }
        Ok(bootstrap)
    }
}

/// The address, or another port of its host if somebody has it.
pub(crate) fn free(wanted: SocketAddr) -> SocketAddr {
    match TcpListener::bind(wanted) {
        Ok(_) => wanted,
        Err(_) => SocketAddr::new(wanted.ip(), 0),
    }
}

/// The address behind a URL.
pub(crate) fn upstream(url: &str) -> Done<SocketAddr> {
    let bad = |why: &str| Failure::new(format!("--upstream {url:?}: {why}")).help("the form is http://HOST:PORT");
    let rest = match url.split_once("://") {
        Some(("http", rest)) => rest,
        Some(("https", _)) => {
            return Err(bad("a run speaks plain HTTP to its upstream")
                .help("put the cluster with its tls into a configuration, and use `weir run`"));
        }
        Some(_) => return Err(bad("this is no HTTP")),
        None => url,
    };
    let authority = rest.split('/').next().unwrap_or_default();
    let with_port = if authority.rsplit_once(':').is_some_and(|(_, port)| port.parse::<u16>().is_ok()) {
        authority.to_owned()
    } else {
        format!("{authority}:80")
    };
    let mut addresses = with_port.to_socket_addrs().map_err(|error| bad(&error.to_string()))?;
    addresses.next().ok_or_else(|| bad("its name has no address"))
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, reason = "a test that cannot go on should stop")]

    use super::*;

    #[test]
    fn urls_of_upstreams() {
        assert_eq!(upstream("http://127.0.0.1:9000/x").unwrap().to_string(), "127.0.0.1:9000");
        assert_eq!(upstream("127.0.0.1:9000").unwrap().to_string(), "127.0.0.1:9000");
        assert_eq!(upstream("http://127.0.0.1").unwrap().to_string(), "127.0.0.1:80");
        for url in ["https://127.0.0.1", "ftp://x", "http://"] {
            assert!(upstream(url).is_err(), "{url}");
        }
    }

    #[test]
    fn the_sample_of_every_template_is_set_up() {
        let templates = Path::new(env!("CARGO_MANIFEST_DIR")).join("../templates");
        for template in ["rust", "rust-tcp", "go", "assemblyscript"] {
            let folder = tempfile::tempdir().unwrap();
            let config = folder.path().join("weir.yaml");
            let setup = Setup {
                sample: templates.join(template).join("sample.yaml"),
                module: "/p/build/my-filter.wasm".into(),
                upstream: "127.0.0.1:9".parse().unwrap(),
                listen: "127.0.0.1:0".parse().unwrap(),
                config: config.clone(),
            };
            setup.write().unwrap_or_else(|failure| unreachable!("{template}: {}", failure.text()));
            let written = std::fs::read_to_string(&config).unwrap();
            for wanted in ["/p/build/my-filter.wasm", "127.0.0.1:9", "stdout"] {
                assert!(written.contains(wanted), "{template}: {written}");
            }
            weir_proxy::source::file::load(&config, &weir_proxy::control::context()).unwrap();
        }
    }
}
