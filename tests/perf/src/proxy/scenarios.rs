//! What is measured, of whom, and which figures come out of it.

use weir_test_guests::Kind;

use super::load::{Load, PATH};
use super::programs::Program;

/// A proxy with a configuration, reached at one of its ports.
pub(super) struct Target {
    /// In tables and in figures of absolute cost.
    pub(super) name: &'static str,
    pub(super) program: Program,
    pub(super) template: &'static str,
    /// The name of the port in the template.
    pub(super) port: &'static str,
    /// Which guests the template's filters are.
    pub(super) guests: Kind,
}

/// What a target must do before it is worth measuring.
#[derive(Clone, Copy)]
pub(super) enum Check {
    /// Answer this path with 200 and so many bytes.
    Answers(&'static str, usize),
    /// Let a request through, and refuse three others for three reasons.
    Rules,
    /// The load itself sees whether it works.
    Nothing,
}

/// A ratio of medians, lower is better.
pub(super) struct Figure {
    pub(super) name: &'static str,
    pub(super) of: &'static str,
    /// The cheapest of these.
    pub(super) by: &'static [&'static str],
    pub(super) meaning: &'static str,
}

pub(super) struct Scenario {
    pub(super) name: &'static str,
    pub(super) about: &'static str,
    pub(super) load: Load,
    pub(super) check: Check,
    /// The part of answers that may be refusals: the fault rules fire now and then.
    pub(super) refused: f64,
    pub(super) targets: &'static [Target],
    pub(super) figures: &'static [Figure],
    /// A figure for the resident memory of a target after its run.
    pub(super) resident: Option<(&'static str, &'static str, &'static str)>,
}

/// Percentages of the fault rules: nginx can express no less than one in ten thousand.
const FAULTS: f64 = 0.000_5;
const NGINX: &str = include_str!("../../peers/nginx.conf");
const HAPROXY: &str = include_str!("../../peers/haproxy.cfg");
const ENVOY: &str = include_str!("../../peers/envoy.yaml");
const ENVOY_FILTERS: &str = include_str!("../../peers/envoy_filters.yaml");
const WEIR: &str = include_str!("../../peers/weir/plain.yaml");
const WEIR_FILTERS: &str = include_str!("../../peers/weir/filters.yaml");
const WEIR_TLS: &str = include_str!("../../peers/weir/tls.yaml");
const WEIR_MTLS: &str = include_str!("../../peers/weir/mtls.yaml");

const fn target(name: &'static str, program: Program, template: &'static str, port: &'static str) -> Target {
    Target { name, program, template, port, guests: Kind::Stock }
}

const fn lean(name: &'static str, program: Program, template: &'static str, port: &'static str) -> Target {
    Target { name, program, template, port, guests: Kind::Lean }
}

pub(super) const ALL: &[Scenario] = &[HTTP1, FILTERS, HTTP2, TLS, MTLS, POST_QUANTUM, BODY, CHURN];

const HTTP1: Scenario = Scenario {
    name: "http1",
    about: "HTTP/1.1 keep-alive, 64 connections, 1 KiB answers, no filter",
    load: Load::Requests { connections: 64, path: PATH },
    check: Check::Answers(PATH, 1024),
    refused: 0.0,
    targets: &[
        target("http1", Program::Weir, WEIR, "HTTP"),
        target("nginx", Program::Nginx, NGINX, "HTTP"),
        target("haproxy", Program::Haproxy, HAPROXY, "HTTP"),
        target("envoy", Program::Envoy, ENVOY, "HTTP"),
    ],
    figures: &[
        Figure { name: "http1_vs_nginx", of: "http1", by: &["nginx"], meaning: "no filter, against nginx (goal 0.95)" },
        Figure { name: "http1_vs_haproxy", of: "http1", by: &["haproxy"], meaning: "no filter, against haproxy" },
        Figure { name: "http1_vs_envoy", of: "http1", by: &["envoy"], meaning: "no filter, against Envoy" },
    ],
    resident: None,
};

const FILTERS: Scenario = Scenario {
    name: "filters",
    about: "the same through policy, fault, router and telemetry: as four modules, and as peers write such rules",
    load: Load::Requests { connections: 64, path: PATH },
    check: Check::Rules,
    refused: FAULTS,
    targets: &[
        target("http1_4filters", Program::Weir, WEIR_FILTERS, "HTTP"),
        lean("http1_4filters_lean", Program::Weir, WEIR_FILTERS, "HTTP"),
        target("nginx_rules", Program::Nginx, NGINX, "RULES"),
        target("haproxy_rules", Program::Haproxy, HAPROXY, "RULES"),
        target("envoy_same_wasm", Program::Envoy, ENVOY_FILTERS, "HTTP"),
    ],
    figures: &[
        Figure {
            name: "http1_4filters_vs_nginx_rules",
            of: "http1_4filters",
            by: &["nginx_rules"],
            meaning: "four modules of the stock SDK, against nginx's own rules (goal 1.00)",
        },
        Figure {
            name: "http1_4filters_vs_haproxy_rules",
            of: "http1_4filters_lean",
            by: &["haproxy_rules"],
            meaning: "four lean modules, against haproxy's own rules (goal 0.95)",
        },
        Figure {
            name: "http1_4filters_vs_envoy_same_wasm",
            of: "http1_4filters",
            by: &["envoy_same_wasm"],
            meaning: "four modules of the stock SDK, against Envoy with the same files (goal 0.18)",
        },
    ],
    resident: Some(("rss_mib", "http1_4filters", "resident memory with four stock modules from the cache, after load (goal 25)")),
};

const HTTP2: Scenario = Scenario {
    name: "http2",
    about: "HTTP/2 from clients, 16 connections with 8 streams, HTTP/1.1 to the origin, 1 KiB answers",
    load: Load::Streams,
    check: Check::Nothing,
    refused: 0.0,
    targets: &[
        target("http2", Program::Weir, WEIR, "HTTP"),
        target("haproxy_http2", Program::Haproxy, HAPROXY, "HTTP2"),
        target("nginx_http2", Program::Nginx, NGINX, "HTTP2"),
        target("envoy_http2", Program::Envoy, ENVOY, "HTTP"),
    ],
    figures: &[
        Figure { name: "http2_vs_haproxy", of: "http2", by: &["haproxy_http2"], meaning: "HTTP/2, against haproxy (goal 1.25)" },
        Figure { name: "http2_vs_nginx", of: "http2", by: &["nginx_http2"], meaning: "HTTP/2, against nginx" },
    ],
    resident: None,
};

const TLS: Scenario = Scenario {
    name: "tls_handshake",
    about: "a connection, a full TLS 1.3 handshake (ECDSA P-256, X25519) and one request each",
    load: Load::Handshakes { client_certificate: false, post_quantum: false },
    check: Check::Nothing,
    refused: 0.0,
    targets: &[target("tls_handshake", Program::Weir, WEIR_TLS, "TLS"), target("nginx_tls_handshake", Program::Nginx, NGINX, "TLS")],
    figures: &[Figure {
        name: "tls_handshake_vs_nginx",
        of: "tls_handshake",
        by: &["nginx_tls_handshake"],
        meaning: "handshake and one request, against nginx (goal 0.45)",
    }],
    resident: None,
};

const MTLS: Scenario = Scenario {
    name: "mtls_handshake",
    about: "the same with client certificates",
    load: Load::Handshakes { client_certificate: true, post_quantum: false },
    targets: &[target("mtls_handshake", Program::Weir, WEIR_MTLS, "MTLS"), target("nginx_mtls_handshake", Program::Nginx, NGINX, "MTLS")],
    figures: &[Figure {
        name: "mtls_handshake_vs_nginx",
        of: "mtls_handshake",
        by: &["nginx_mtls_handshake"],
        meaning: "mutual handshake and one request, against nginx (goal 0.40)",
    }],
    ..TLS
};

/// nginx' library has no post-quantum exchange: this one has no peer.
const POST_QUANTUM: Scenario = Scenario {
    name: "pq_handshake",
    about: "the same without, by X25519MLKEM768",
    load: Load::Handshakes { client_certificate: false, post_quantum: true },
    targets: &[target("pq_handshake", Program::Weir, WEIR_TLS, "TLS")],
    figures: &[],
    ..TLS
};

const BODY: Scenario = Scenario {
    name: "body_1mib",
    about: "HTTP/1.1 keep-alive, 16 connections, 1 MiB answers",
    load: Load::Requests { connections: 16, path: "/big" },
    check: Check::Answers("/big", 1 << 20),
    refused: 0.0,
    targets: &[
        target("body_1mib", Program::Weir, WEIR, "HTTP"),
        target("nginx_body_1mib", Program::Nginx, NGINX, "HTTP"),
        target("nginx_body_1mib_unbuffered", Program::Nginx, NGINX, "UNBUFFERED"),
        target("haproxy_body_1mib", Program::Haproxy, HAPROXY, "HTTP"),
    ],
    figures: &[Figure {
        name: "body_1mib_vs_nginx",
        of: "body_1mib",
        by: &["nginx_body_1mib", "nginx_body_1mib_unbuffered"],
        meaning: "1 MiB through, against the better of nginx's ways (goal 0.80)",
    }],
    resident: None,
};

const CHURN: Scenario = Scenario {
    name: "churn",
    about: "HTTP/1.1, a new connection for every request, 64 at once, 1 KiB answers",
    load: Load::Churn { connections: 64 },
    check: Check::Answers(PATH, 1024),
    refused: 0.0,
    targets: &[
        target("churn", Program::Weir, WEIR, "HTTP"),
        target("nginx_churn", Program::Nginx, NGINX, "HTTP"),
        target("haproxy_churn", Program::Haproxy, HAPROXY, "HTTP"),
    ],
    figures: &[Figure {
        name: "churn_vs_nginx",
        of: "churn",
        by: &["nginx_churn"],
        meaning: "a connection for every request, against nginx (goal 1.00)",
    }],
    resident: None,
};
