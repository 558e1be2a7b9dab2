//! What a DestinationRule says of one port of one subset, and the cluster's fields that follow from it.
//!
//! A port's settings replace the rule's own in whole; a subset's override them one by one.

use weir_model::config::{self, balancer};
use weir_model::duration;

use crate::api::istio::DestinationRule;
use crate::api::istio::destination_rule::{
    ConnectionPool, H2UpgradePolicy, LoadBalancer, OutlierDetection, ProxyProtocolVersion, SimpleLb, TrafficPolicy,
};
use crate::api::istio::{Duration, destination_rule::ClientTls};

/// What holds for connections to one port of one subset.
#[derive(Debug, Clone, Copy, Default)]
pub struct Policy<'a> {
    /// How an endpoint is chosen.
    pub load_balancer: Option<&'a LoadBalancer>,
    /// How many connections and requests there may be.
    pub connection_pool: Option<&'a ConnectionPool>,
    /// When an endpoint is left out.
    pub outlier_detection: Option<&'a OutlierDetection>,
    /// How connections are secured.
    pub tls: Option<&'a ClientTls>,
    /// What is said of the client to the upstream.
    pub proxy_protocol: Option<ProxyProtocolVersion>,
}

impl<'a> Policy<'a> {
    /// What a rule says of a port of a subset; the empty name is the whole host.
    #[must_use]
    pub fn of(rule: &'a DestinationRule, port: u16, subset: &str) -> Self {
        let whole = rule.traffic_policy.as_ref().map(|policy| Self::at(policy, port)).unwrap_or_default();
        let subset = rule.subsets.iter().find(|one| one.name == subset && !subset.is_empty());
        match subset.and_then(|subset| subset.traffic_policy.as_ref()) {
            None => whole,
            Some(own) => {
                let own = Self::at(own, port);
                Self {
                    load_balancer: own.load_balancer.or(whole.load_balancer),
                    connection_pool: own.connection_pool.or(whole.connection_pool),
                    outlier_detection: own.outlier_detection.or(whole.outlier_detection),
                    tls: own.tls.or(whole.tls),
                    proxy_protocol: own.proxy_protocol.or(whole.proxy_protocol),
                }
            }
        }
    }

    fn at(policy: &'a TrafficPolicy, port: u16) -> Self {
        let proxy_protocol = policy.proxy_protocol.as_ref().map(|protocol| protocol.version);
        let here = policy.port_level_settings.iter().find(|one| one.port.as_ref().is_some_and(|one| one.number == u32::from(port)));
        match here {
            Some(here) => Self {
                load_balancer: here.load_balancer.as_ref(),
                connection_pool: here.connection_pool.as_ref(),
                outlier_detection: here.outlier_detection.as_ref(),
                tls: here.tls.as_ref(),
                proxy_protocol,
            },
            None => Self {
                load_balancer: policy.load_balancer.as_ref(),
                connection_pool: policy.connection_pool.as_ref(),
                outlier_detection: policy.outlier_detection.as_ref(),
                tls: policy.tls.as_ref(),
                proxy_protocol,
            },
        }
    }

    /// Writes it into a cluster. Security is written by whoever knows the peers.
    pub fn apply(&self, cluster: &mut config::Cluster) {
        cluster.balancer = Some(balancer(self.load_balancer));
        if let Some(pool) = self.connection_pool {
            connection_pool(cluster, pool);
        }
        cluster.outlier_detection = self.outlier_detection.map(outlier_detection);
        cluster.proxy_protocol = match self.proxy_protocol {
            None => 0,
            Some(ProxyProtocolVersion::V1) => 1,
            Some(ProxyProtocolVersion::V2) => 2,
        };
    }

    /// Whether connections go where clients were going.
    #[must_use]
    pub fn passes_through(&self) -> bool {
        self.load_balancer.is_some_and(|balancer| balancer.simple == Some(SimpleLb::Passthrough))
    }
}

fn balancer(said: Option<&LoadBalancer>) -> config::Balancer {
    use balancer::Policy as Of;
    let mut policy = Of::LeastRequest(config::LeastRequest::default());
    let mut slow_start = None;
    if let Some(said) = said {
        match said.simple {
            Some(SimpleLb::RoundRobin) => policy = Of::RoundRobin(config::RoundRobin {}),
            Some(SimpleLb::Random) => policy = Of::Random(config::Random {}),
            _ => {}
        }
        if let Some(hash) = &said.consistent_hash {
            policy = match &hash.maglev {
                Some(maglev) => Of::Maglev(config::Maglev { table_size: u32::try_from(maglev.table_size).unwrap_or(0) }),
                None => {
                    let least = hash.ring_hash.as_ref().map_or(hash.minimum_ring_size, |ring| ring.minimum_ring_size);
                    let min_size = if least == 0 { 1024 } else { u32::try_from(least).unwrap_or(u32::MAX) };
                    Of::RingHash(config::RingHash { min_size, ..config::RingHash::default() })
                }
            };
        }
        let window = said.warmup.as_ref().and_then(|warmup| warmup.duration).or(said.warmup_duration_secs);
        slow_start = window.map(|window| config::SlowStart {
            window: Some(duration::from_std(window.std())),
            aggression: said.warmup.as_ref().and_then(|warmup| warmup.aggression),
            min_weight_percent: said
                .warmup
                .as_ref()
                .and_then(|warmup| warmup.minimum_percent)
                .map_or(0, |percent| percent.clamp(0.0, 100.0) as u32),
        });
    }
    config::Balancer { policy: Some(policy), slow_start, ..config::Balancer::default() }
}

fn connection_pool(cluster: &mut config::Cluster, pool: &ConnectionPool) {
    let count = |value: i32| u32::try_from(value).unwrap_or(0);
    let time = |value: Option<Duration>| value.map(|value| duration::from_std(value.std()));
    let mut breakers = config::CircuitBreakers::default();
    if let Some(tcp) = &pool.tcp {
        breakers.max_connections = count(tcp.max_connections);
        if tcp.connect_timeout.is_some() {
            cluster.connect_timeout = time(tcp.connect_timeout);
        }
        cluster.keepalive = tcp.tcp_keepalive.as_ref().and_then(|keepalive| time(keepalive.time));
        cluster.idle_timeout = time(tcp.idle_timeout);
    }
    if let Some(http) = &pool.http {
        breakers.max_pending_requests = count(http.http1_max_pending_requests);
        breakers.max_requests = count(http.http2_max_requests);
        breakers.max_retries = count(http.max_retries);
        cluster.max_requests_per_connection = count(http.max_requests_per_connection);
        cluster.max_concurrent_streams = count(http.max_concurrent_streams);
        if http.idle_timeout.is_some() {
            cluster.idle_timeout = time(http.idle_timeout);
        }
        if http.use_client_protocol {
            cluster.set_protocol(config::UpstreamProtocol::LikeDownstream);
        } else if http.h2_upgrade_policy == H2UpgradePolicy::Upgrade {
            cluster.set_protocol(config::UpstreamProtocol::Http2);
        }
    }
    if breakers != config::CircuitBreakers::default() {
        cluster.circuit_breakers = Some(breakers);
    }
}

fn outlier_detection(said: &OutlierDetection) -> config::OutlierDetection {
    let time = |value: Option<Duration>| value.map(|value| duration::from_std(value.std()));
    let old = u32::try_from(said.consecutive_errors).ok().filter(|errors| *errors > 0);
    config::OutlierDetection {
        consecutive_5xx: said.consecutive_5xx_errors,
        consecutive_gateway_errors: said.consecutive_gateway_errors.or(old),
        consecutive_local_failures: said.consecutive_local_origin_failures.filter(|_| said.split_external_local_origin_errors),
        interval: time(said.interval),
        base_ejection_time: time(said.base_ejection_time),
        max_ejection_percent: u32::try_from(said.max_ejection_percent).ok().filter(|percent| *percent > 0),
        min_health_percent: u32::try_from(said.min_health_percent).unwrap_or(0),
        ..config::OutlierDetection::default()
    }
}
