//! EnvoyFilter: patches of another proxy's own configuration, which are known here and not done.

use serde::Deserialize;
use serde_json::{Map, Value as Json};

use super::common::{TargetRef, WorkloadSelector};

/// Patches of another proxy's configuration.
#[derive(Debug, Clone, Default, PartialEq, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct EnvoyFilter {
    /// The workloads; none is the whole namespace.
    pub workload_selector: Option<WorkloadSelector>,
    /// What it is attached to.
    pub target_refs: Vec<TargetRef>,
    /// The patches.
    pub config_patches: Vec<ConfigPatch>,
    /// Which comes first.
    pub priority: i32,
}

/// A patch.
#[derive(Debug, Clone, Default, PartialEq, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct ConfigPatch {
    /// Of what: `HTTP_FILTER`.
    pub apply_to: String,
    /// Of which.
    #[serde(rename = "match")]
    pub matches: Option<Map<String, Json>>,
    /// What becomes of it.
    pub patch: Option<Patch>,
}

/// What becomes of what is patched.
#[derive(Debug, Clone, Default, PartialEq, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct Patch {
    /// `INSERT_BEFORE` and the like.
    pub operation: String,
    /// The other proxy's configuration.
    pub value: Option<Map<String, Json>>,
    /// Among which filters it is inserted.
    pub filter_class: String,
}
