//! ProxyConfig: how the proxies of workloads are started.

use serde::Deserialize;

use super::common::{Selector, Texts};

/// How the proxies of workloads are started.
#[derive(Debug, Clone, Default, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct ProxyConfig {
    /// The workloads; none is the whole namespace.
    pub selector: Option<Selector>,
    /// How many threads work; 0 is all cores, by the CPU limit if it is not written.
    pub concurrency: Option<i32>,
    /// Further variables of their environment.
    pub environment_variables: Texts,
    /// What they run.
    pub image: Option<ProxyImage>,
}

/// What proxies run.
#[derive(Debug, Clone, Default, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct ProxyImage {
    /// `default`, `debug` or `distroless`.
    pub image_type: String,
}
