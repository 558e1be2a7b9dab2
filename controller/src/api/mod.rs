//! What objects say, typed: the APIs that are read.
//!
//! Always: an object is read as its custom resource definition has it, strictly about types and leniently about nothing else; a field that a kind does
//! not have is told, and read past. What the values may be is not decided here but in [`crate::validate`].

pub mod decode;
pub mod istio;

pub use decode::{Decoded, decode};
