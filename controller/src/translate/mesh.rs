//! What holds for the whole mesh: Istio's mesh configuration, as far as it is read, and its defaults.

use serde::Deserialize;

/// What holds for the whole mesh.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
#[serde(default, rename_all = "camelCase")]
pub struct Mesh {
    /// Resources of this namespace hold for all.
    pub root_namespace: String,
    /// What names of services end in.
    pub cluster_domain: String,
    /// What identities begin with.
    pub trust_domain: String,
    /// What sidecars do with requests for hosts that nobody knows.
    pub outbound_traffic_policy: OutboundTrafficPolicy,
    /// How requests are retried that no route says it of.
    pub default_http_retry_policy: Option<serde_json::Value>,
    /// How long connecting may take.
    pub connect_timeout: Option<String>,
    /// Sidecars speak TLS to each other by themselves.
    pub enable_auto_mtls: Option<bool>,
}

impl Default for Mesh {
    fn default() -> Self {
        Self {
            root_namespace: "istio-system".into(),
            cluster_domain: "cluster.local".into(),
            trust_domain: "cluster.local".into(),
            outbound_traffic_policy: OutboundTrafficPolicy { mode: OutboundMode::AllowAny },
            default_http_retry_policy: None,
            connect_timeout: None,
            enable_auto_mtls: None,
        }
    }
}

/// What is done with requests for hosts that nobody knows.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Deserialize)]
#[serde(default)]
pub struct OutboundTrafficPolicy {
    /// What. Written without it, it is `REGISTRY_ONLY`.
    pub mode: OutboundMode,
}

/// Whether they pass.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "SCREAMING_SNAKE_CASE")]
pub enum OutboundMode {
    /// Only what is known passes.
    #[default]
    RegistryOnly,
    /// They pass as they are.
    AllowAny,
}
