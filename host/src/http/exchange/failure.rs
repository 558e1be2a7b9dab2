//! Everything that can go wrong with a request, and the one place that says what the client is told.

use super::record::Flags;
use crate::http::StreamError;

/// Why a request cannot be answered by the upstream.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Failure {
    /// Nobody chose an action, and the listener has none.
    NoRoute,
    /// Filters cleared the choice of an action again and again.
    RouteUnsettled,
    /// The action names a cluster that does not exist; answered with this status.
    NoCluster(u16),
    /// No endpoint of the cluster may be used.
    NoEndpoint,
    /// A circuit breaker is open.
    Overflow,
    /// The connection to the upstream failed.
    Connect,
    /// Connecting took too long.
    ConnectTimeout,
    /// TLS with the upstream failed.
    ConnectTls,
    /// The upstream closed or reset before it answered.
    Upstream(StreamError),
    /// The action's timeout.
    Timeout,
    /// The timeout of one try.
    TryTimeout,
    /// Nothing moved for too long, while the upstream was to answer.
    Idle,
    /// The request did not arrive in time.
    RequestTimeout,
    /// The stream lived too long.
    MaxDuration,
    /// This process has too much to do.
    Overload,
    /// The route does not allow this upgrade.
    UpgradeRefused,
    /// A direct response of an action without any.
    BadRequest(&'static str),
}

impl Failure {
    /// What a client is told.
    #[must_use]
    pub fn status(self) -> u16 {
        match self {
            Self::NoRoute => 404,
            Self::RouteUnsettled => 500,
            Self::NoCluster(status) => status,
            Self::Timeout | Self::TryTimeout | Self::Idle => 504,
            Self::RequestTimeout | Self::MaxDuration => 408,
            Self::UpgradeRefused => 403,
            Self::BadRequest(_) => 400,
            Self::Upstream(StreamError::Protocol(_) | StreamError::Limit(_)) => 502,
            Self::NoEndpoint
            | Self::Overflow
            | Self::Connect
            | Self::ConnectTimeout
            | Self::ConnectTls
            | Self::Upstream(_)
            | Self::Overload => 503,
        }
    }

    /// What a log is told.
    #[must_use]
    pub fn detail(self) -> &'static str {
        match self {
            Self::NoRoute => "route_not_found",
            Self::RouteUnsettled => "route_cleared_too_often",
            Self::NoCluster(_) => "cluster_not_found",
            Self::NoEndpoint => "no_healthy_upstream",
            Self::Overflow => "upstream_overflow",
            Self::Connect => "upstream_connect_failure",
            Self::ConnectTimeout => "upstream_connect_timeout",
            Self::ConnectTls => "upstream_tls_failure",
            Self::Upstream(StreamError::Closed) => "upstream_closed_before_response",
            Self::Upstream(StreamError::Reset) => "upstream_reset_before_response",
            Self::Upstream(StreamError::Refused) => "upstream_refused",
            Self::Upstream(StreamError::Protocol(name) | StreamError::Limit(name)) | Self::BadRequest(name) => name,
            Self::Timeout => "response_timeout",
            Self::TryTimeout => "upstream_per_try_timeout",
            Self::Idle => "stream_idle_timeout",
            Self::RequestTimeout => "request_timeout",
            Self::MaxDuration => "max_duration_timeout",
            Self::Overload => "overload",
            Self::UpgradeRefused => "upgrade_not_allowed",
        }
    }

    /// The same in Envoy's letters.
    #[must_use]
    pub fn flags(self) -> Flags {
        match self {
            Self::NoRoute | Self::RouteUnsettled => Flags::NO_ROUTE,
            Self::NoCluster(_) => Flags::NO_CLUSTER,
            Self::NoEndpoint => Flags::NO_HEALTHY_UPSTREAM,
            Self::Overflow => Flags::UPSTREAM_OVERFLOW,
            Self::Connect | Self::ConnectTimeout | Self::ConnectTls => Flags::UPSTREAM_CONNECTION_FAILURE,
            Self::Upstream(StreamError::Closed) => Flags::UPSTREAM_TERMINATION,
            Self::Upstream(StreamError::Reset | StreamError::Refused) => Flags::UPSTREAM_RESET,
            Self::Upstream(StreamError::Protocol(_) | StreamError::Limit(_)) => Flags::UPSTREAM_PROTOCOL_ERROR,
            Self::Timeout | Self::TryTimeout => Flags::UPSTREAM_TIMEOUT,
            Self::Idle | Self::RequestTimeout => Flags::STREAM_IDLE_TIMEOUT,
            Self::MaxDuration => Flags::DURATION_TIMEOUT,
            Self::Overload => Flags::OVERLOAD,
            Self::UpgradeRefused | Self::BadRequest(_) => Flags::NONE,
        }
    }

    /// The gRPC status that says it to a gRPC client.
    #[must_use]
    pub fn grpc_status(status: u16) -> u32 {
        match status {
            400 => 13,
            401 => 16,
            403 => 7,
            404 => 12,
            408 | 504 => 4,
            413 | 431 => 8,
            429 | 502 | 503 => 14,
            _ => 2,
        }
    }

    /// One sentence for the body of a reply.
    #[must_use]
    pub fn sentence(self) -> &'static str {
        match self {
            Self::NoRoute => "no route matches this request\n",
            Self::RouteUnsettled => "the filters do not agree on a route for this request\n",
            Self::NoCluster(_) => "the route's cluster does not exist\n",
            Self::NoEndpoint => "no healthy upstream\n",
            Self::Overflow => "upstream overloaded: a circuit breaker is open\n",
            Self::Connect => "the upstream refused the connection or cannot be reached\n",
            Self::ConnectTimeout => "the upstream did not accept a connection in time\n",
            Self::ConnectTls => "no secure connection to the upstream\n",
            Self::Upstream(StreamError::Protocol(_)) => "the upstream's answer broke the protocol\n",
            Self::Upstream(_) => "the upstream ended the connection before it answered\n",
            Self::Timeout | Self::TryTimeout | Self::Idle => "the upstream did not answer in time\n",
            Self::RequestTimeout => "the request did not arrive in time\n",
            Self::MaxDuration => "the request took too long\n",
            Self::Overload => "this proxy is overloaded\n",
            Self::UpgradeRefused => "this route allows no such upgrade\n",
            Self::BadRequest(_) => "bad request\n",
        }
    }
}
