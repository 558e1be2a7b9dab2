//! What is counted, as enums whose variants number the cells of a block.

/// Names of details that a block has room for.
pub(super) const DETAILS: usize = 128;

/// An enum with its variants' number, list and names.
macro_rules! numbered {
    ($(#[$meta:meta])* $name:ident: $($(#[doc = $doc:literal])+ $variant:ident => $text:literal,)+) => {
        $(#[$meta])*
        #[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
        #[repr(u8)]
        pub enum $name { $($(#[doc = $doc])+ $variant,)+ }

        impl $name {
            /// All of them, in their order.
            pub const ALL: [Self; Self::COUNT] = [$(Self::$variant),+];
            /// How many there are.
            pub const COUNT: usize = [$(Self::$variant),+].len();

            /// Its name in metrics.
            #[must_use]
            pub const fn name(self) -> &'static str {
                match self { $(Self::$variant => $text,)+ }
            }

            /// What it means, for the metrics page.
            pub(super) const fn help(self) -> &'static str {
                match self { $(Self::$variant => concat!($($doc),+),)+ }
            }
        }
    };
}

numbered! {
    /// Something that happens on a listener.
    ListenerCounter:
    /// Connections that were accepted.
    Connections => "connections_total",
    /// Bytes that were read from clients, as they were on the wire.
    ReceivedBytes => "received_bytes_total",
    /// Bytes that were written to clients, as they were on the wire.
    SentBytes => "sent_bytes_total",
    /// TLS handshakes that succeeded.
    TlsHandshakes => "tls_handshakes_total",
    /// TLS handshakes that failed.
    TlsFailures => "tls_handshake_failures_total",
    /// TLS sessions that were resumed.
    TlsResumed => "tls_resumed_total",
    /// HTTP/1 requests.
    Http1Requests => "http1_requests_total",
    /// HTTP/2 requests.
    Http2Requests => "http2_requests_total",
    /// Requests that were upgraded, WebSockets among them.
    Upgrades => "upgrades_total",
    /// Connections that were cut at the end of a drain.
    DrainCut => "drain_cut_connections_total",
}

numbered! {
    /// Something there is more or less of on a listener at a time.
    ListenerLevel:
    /// Open connections.
    Connections => "connections",
    /// Requests in flight.
    Requests => "requests",
    /// TLS handshakes in progress.
    Handshakes => "tls_handshakes_in_progress",
}

numbered! {
    /// Something on a listener that has a name of its own each time.
    Detailed:
    /// Responses that the proxy gave itself, by detail.
    LocalReply => "local_replies_total",
    /// What broke the protocol or its limits, by detail.
    ProtocolRefusal => "protocol_refusals_total",
    /// Connections that were closed unserved, by reason.
    ConnectionRefusal => "connections_refused_total",
}

numbered! {
    /// Something that happens on a cluster.
    ClusterCounter:
    /// Requests that were sent, retries among them.
    Requests => "requests_total",
    /// Connections that were opened.
    Connections => "connections_total",
    /// Connections that could not be opened.
    ConnectFailures => "connect_failures_total",
    /// Connections that took too long to open.
    ConnectTimeouts => "connect_timeouts_total",
    /// TLS handshakes that failed.
    TlsFailures => "tls_failures_total",
    /// Requests that were sent again.
    Retries => "retries_total",
    /// Retries that were not allowed: budget or limit.
    RetriesRefused => "retries_refused_total",
    /// Requests that failed because a limit of the cluster was reached.
    Overflows => "overflows_total",
    /// Requests that found no healthy endpoint.
    NoEndpoint => "no_endpoint_total",
    /// Requests that took too long.
    Timeouts => "timeouts_total",
    /// Tries that took too long.
    TryTimeouts => "try_timeouts_total",
    /// Streams that the upstream reset.
    Resets => "resets_total",
    /// Bytes that were written to upstreams.
    SentBytes => "sent_bytes_total",
    /// Bytes that were read from upstreams.
    ReceivedBytes => "received_bytes_total",
    /// Endpoints that were ejected.
    Ejections => "ejections_total",
    /// Health checks that failed.
    HealthFailures => "health_check_failures_total",
    /// Requests that were mirrored.
    Mirrored => "mirrored_total",
}

numbered! {
    /// Something there is more or less of on a cluster at a time.
    ClusterLevel:
    /// Open connections.
    Connections => "connections",
    /// Requests in flight.
    Requests => "requests",
    /// Requests that wait for a connection.
    Pending => "pending_requests",
}
