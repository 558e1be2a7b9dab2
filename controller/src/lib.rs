//! Weir's control plane: reads Kubernetes resources, Istio's and Weir's own, and derives what each proxy is to do.
//!
//! The way of a change: a [`source`] has [`Object`]s, from a cluster or from a folder of YAML; validation says what is wrong with each of them; what is
//! right becomes the configuration of every proxy. All I/O is at the edges: between the objects and the configuration everything is a pure function.

pub mod api;
pub mod docs;
pub mod finding;
pub mod mixer;
pub mod object;
pub mod serve;
pub mod source;
pub mod translate;
pub mod validate;

pub use finding::{Code, Finding};
pub use object::{Id, Object};
pub use validate::validate;
