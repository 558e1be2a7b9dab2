//! Weir's configuration contract: the one schema (`proto/`), its Rust types, its YAML form and what makes a configuration valid.
//!
//! No I/O, no threads: files are read and connections are made elsewhere.

pub mod address;
pub mod diagnostic;
pub mod docs;
pub mod duration;
pub mod merge;
mod path;
pub mod resource;
mod schema;
pub mod validate;
pub mod yaml;

pub use path::{Places, suggest};

/// `weir.config.v1`: the configuration.
#[allow(missing_docs, clippy::all, clippy::pedantic, unused_qualifications, reason = "generated; the documentation is the schema's")]
pub mod config {
    include!(concat!(env!("OUT_DIR"), "/weir.config.v1.rs"));
}

/// Envoy's delta discovery messages.
#[allow(missing_docs, clippy::all, clippy::pedantic, unused_qualifications, reason = "generated")]
pub mod discovery {
    include!(concat!(env!("OUT_DIR"), "/envoy.service.discovery.v3.rs"));
}

/// Protobuf's own types, as the messages above name them.
pub mod protobuf {
    pub use prost_types::value::Kind;
    pub use prost_types::{Any, Duration, ListValue, NullValue, Struct, Value};
}
