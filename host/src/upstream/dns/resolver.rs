//! The resolver that ships: the system's servers and hosts file, or the servers that a cluster names.
//!
//! It caches nothing: when to ask is decided from the records' own TTL, and asking earlier is meant.

use std::net::SocketAddr;
use std::time::Instant;

use futures_util::future::BoxFuture;
use hickory_resolver::TokioResolver;
use hickory_resolver::config::{ConnectionConfig, LookupIpStrategy, NameServerConfig, ResolveHosts, ResolverConfig, ResolverOpts};
use hickory_resolver::net::runtime::TokioRuntimeProvider;

use super::{Resolve, Resolved};
use crate::upstream::options::Family;

/// Asks DNS servers.
pub struct System {
    /// By family: automatic, IPv4, IPv6, both.
    resolvers: [TokioResolver; 4],
}

const FAMILIES: [LookupIpStrategy; 4] =
    [LookupIpStrategy::Ipv4thenIpv6, LookupIpStrategy::Ipv4Only, LookupIpStrategy::Ipv6Only, LookupIpStrategy::Ipv4AndIpv6];

impl System {
    /// Asks `servers`; those of the system if there are none.
    ///
    /// # Errors
    /// When the system's configuration cannot be read.
    pub fn new(servers: &[SocketAddr]) -> Result<Self, String> {
        let [auto, v4, v6, both] = FAMILIES.map(|family| resolver(servers, family));
        Ok(Self { resolvers: [auto?, v4?, v6?, both?] })
    }
}

fn resolver(servers: &[SocketAddr], family: LookupIpStrategy) -> Result<TokioResolver, String> {
    let mut builder = if servers.is_empty() {
        TokioResolver::builder_tokio().map_err(|error| format!("cannot read the system's DNS configuration: {error}"))?
    } else {
        let config = ResolverConfig::from_name_servers(servers.iter().map(server).collect());
        TokioResolver::builder_with_config(config, TokioRuntimeProvider::default())
    };
    let options: &mut ResolverOpts = builder.options_mut();
    options.ip_strategy = family;
    options.cache_size = 0;
    if !servers.is_empty() {
        options.use_hosts_file = ResolveHosts::Never;
    }
    builder.build().map_err(|error| error.to_string())
}

fn server(address: &SocketAddr) -> NameServerConfig {
    let connections = [ConnectionConfig::udp(), ConnectionConfig::tcp()].map(|mut connection| {
        connection.port = address.port();
        connection
    });
    NameServerConfig::new(address.ip(), true, connections.into())
}

impl Resolve for System {
    fn resolve<'a>(&'a self, name: &'a str, family: Family) -> BoxFuture<'a, Result<Resolved, String>> {
        let [auto, v4, v6, both] = &self.resolvers;
        let resolver = match family {
            Family::Auto => auto,
            Family::V4 => v4,
            Family::V6 => v6,
            Family::All => both,
        };
        Box::pin(async move {
            let found = resolver.lookup_ip(name).await.map_err(|error| error.to_string())?;
            Ok(Resolved { addresses: found.iter().collect(), ttl: found.valid_until().saturating_duration_since(Instant::now()) })
        })
    }
}

#[cfg(test)]
mod tests;
