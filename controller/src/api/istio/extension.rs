//! WasmPlugin and TrafficExtension: modules that proxies run.

use serde::Deserialize;
use serde_json::{Map, Value as Json};

use super::common::{Selector, TargetRef};
use super::telemetry::WorkloadMode;

/// A module that proxies run.
#[derive(Debug, Clone, Default, PartialEq, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct WasmPlugin {
    /// The workloads; none is the whole namespace.
    pub selector: Option<Selector>,
    /// What it is attached to, as it was written once.
    pub target_ref: Option<TargetRef>,
    /// What it is attached to.
    pub target_refs: Vec<TargetRef>,
    /// Where the module is: `oci://`, which it is if it is not written, `https://`, `http://` or `file://`.
    pub url: String,
    /// The module's hash.
    pub sha256: String,
    /// When it is fetched again.
    pub image_pull_policy: PullPolicy,
    /// A Secret for fetching it.
    pub image_pull_secret: String,
    /// Has no effect, in Istio neither.
    pub verification_key: String,
    /// What the module is given.
    pub plugin_config: Option<Map<String, Json>>,
    /// The plugin among several in a module.
    pub plugin_name: String,
    /// Before which of Istio's own filters it stands.
    pub phase: PluginPhase,
    /// The higher first, within a phase.
    pub priority: Option<i32>,
    /// What happens when it fails.
    pub fail_strategy: FailStrategy,
    /// The machine that it runs in.
    pub vm_config: Option<VmConfig>,
    /// Which traffic; none is all.
    #[serde(rename = "match")]
    pub matches: Vec<TrafficSelector>,
    /// What it looks at.
    #[serde(rename = "type")]
    pub plugin_type: PluginType,
}

/// A module or script that proxies run: WasmPlugin's successor.
#[derive(Debug, Clone, Default, PartialEq, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct TrafficExtension {
    /// The workloads; none is the whole namespace.
    pub selector: Option<Selector>,
    /// What it is attached to.
    pub target_refs: Vec<TargetRef>,
    /// Before which of Istio's own filters it stands.
    pub phase: PluginPhase,
    /// The higher first, within a phase.
    pub priority: Option<i32>,
    /// Which traffic; none is all.
    #[serde(rename = "match")]
    pub matches: Vec<TrafficSelector>,
    /// A module.
    pub wasm: Option<WasmExtension>,
    /// A script, which Weir does not run.
    pub lua: Option<LuaExtension>,
}

/// A module.
#[derive(Debug, Clone, Default, PartialEq, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct WasmExtension {
    /// Where it is.
    pub url: String,
    /// Its hash.
    pub sha256: String,
    /// When it is fetched again.
    pub image_pull_policy: PullPolicy,
    /// A Secret for fetching it.
    pub image_pull_secret: String,
    /// Has no effect, in Istio neither.
    pub verification_key: String,
    /// What it is given.
    pub plugin_config: Option<Map<String, Json>>,
    /// The plugin among several in a module.
    pub plugin_name: String,
    /// What happens when it fails.
    pub fail_strategy: FailStrategy,
    /// The machine that it runs in.
    pub vm_config: Option<VmConfig>,
    /// What it looks at.
    #[serde(rename = "type")]
    pub plugin_type: PluginType,
}

/// A script.
#[derive(Debug, Clone, Default, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct LuaExtension {
    /// It.
    pub inline_code: String,
}

/// When a module is fetched again.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Deserialize)]
pub enum PullPolicy {
    /// Always for the tag `latest`, else when it is not there.
    #[default]
    #[serde(rename = "UNSPECIFIED_POLICY")]
    Unspecified,
    /// When it is not there.
    IfNotPresent,
    /// Each time.
    Always,
}

/// Before which of Istio's own filters a module stands.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "SCREAMING_SNAKE_CASE")]
pub enum PluginPhase {
    /// Just before the router.
    #[default]
    UnspecifiedPhase,
    /// Before authentication.
    Authn,
    /// Before authorization.
    Authz,
    /// Before what counts.
    Stats,
}

/// What happens when a module fails.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "SCREAMING_SNAKE_CASE")]
pub enum FailStrategy {
    /// Requests fail.
    #[default]
    FailClose,
    /// Requests pass it by.
    FailOpen,
    /// The next request gets a new one.
    FailReload,
}

/// What a module looks at.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "SCREAMING_SNAKE_CASE")]
pub enum PluginType {
    /// Requests.
    #[default]
    UnspecifiedPluginType,
    /// Requests.
    Http,
    /// Bytes.
    Network,
}

/// The machine that a module runs in.
#[derive(Debug, Clone, Default, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct VmConfig {
    /// Its environment.
    pub env: Vec<EnvVar>,
}

/// A variable of the environment.
#[derive(Debug, Clone, Default, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct EnvVar {
    /// Its name.
    pub name: String,
    /// Where its value comes from.
    pub value_from: EnvSource,
    /// Its value, if it comes from here.
    pub value: Option<String>,
}

/// Where the value of a variable comes from.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "SCREAMING_SNAKE_CASE")]
pub enum EnvSource {
    /// It is written.
    #[default]
    Inline,
    /// The proxy's environment.
    Host,
}

/// Which traffic.
#[derive(Debug, Clone, Default, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct TrafficSelector {
    /// On which side; both if it is not written.
    pub mode: WorkloadMode,
    /// To which ports; all if none is written.
    pub ports: Vec<super::common::PortSelector>,
}
