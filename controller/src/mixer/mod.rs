//! What users of Istio's Mixer (0.2 to 1.7) still have: its attribute expressions, and the resources of `config.istio.io/v1alpha2`.
//!
//! Mixer was a server that every proxy asked before each request. Here its rules become configuration of filters that run in the proxy itself.
//! Always: what an expression means is what Mixer 1.4 made of it; what cannot be carried is refused by name.

pub mod expression;
pub mod vocabulary;
