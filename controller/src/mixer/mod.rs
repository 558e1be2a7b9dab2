//! What users of Istio's Mixer (0.2 to 1.7) still have: its attribute expressions, and the resources of `config.istio.io`.
//!
//! Mixer was a server that every proxy asked before each request. Here its rules become configuration of filters that run in the proxy itself.
//! Always: what an expression means is what Mixer 1.4 made of it; what cannot be carried is refused by name.

pub mod condition;
pub mod denial;
pub mod expression;
mod legacy;
pub mod peer;
pub mod quota;
mod resources;
mod translate;
pub mod vocabulary;

pub use denial::MixerDenial;
pub use peer::{Fact, Peer, Service};
pub use quota::MixerQuota;
pub use resources::GROUP;
pub use translate::{Mixer, check, translate};
