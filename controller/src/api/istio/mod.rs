//! Istio's API: every field of the kinds that are read.
//!
//! Always: a type has what the kind's definition has, under its name. A list or text that is not written is empty and an enum that is not written has
//! its first value, as Istio has it; where not being written differs from being empty the field is an `Option`. All served versions of a kind are
//! one schema, so there is one type for them.

pub mod common;
pub mod destination_rule;
pub mod envoy_filter;
pub mod extension;
pub mod gateway;
pub mod proxy_config;
pub mod security;
pub mod service_entry;
pub mod sidecar;
pub mod telemetry;
pub mod virtual_service;
pub mod workload;

pub use common::{Duration, Selector, StringMatch, TargetRef};
pub use destination_rule::DestinationRule;
pub use envoy_filter::EnvoyFilter;
pub use extension::{TrafficExtension, WasmPlugin};
pub use gateway::Gateway;
pub use proxy_config::ProxyConfig;
pub use security::{AuthorizationPolicy, PeerAuthentication, RequestAuthentication};
pub use service_entry::ServiceEntry;
pub use sidecar::Sidecar;
pub use telemetry::Telemetry;
pub use virtual_service::VirtualService;
pub use workload::{WorkloadEntry, WorkloadGroup};
