//! Where configuration comes from: a file or folder, and a controller.
//!
//! A source turns what it reads into a whole [`Resources`] value and offers it to the [`Hub`], which puts the sources' values together and hands an
//! [`Update`] to the one consumer ([`Apply`]). The consumer takes all of it or refuses by name; the source decides what to do about a refusal.
//!
//! What always holds: one update at a time; an update that was refused changed nothing; a resource whose `Arc` is the same has not changed, nor has
//! any file that it names; a file's resource wins over a controller's of the same name.
//!
//! What it does not do: compile, or look into filter configurations.

pub mod ads;
pub mod backoff;
mod digest;
pub mod file;
pub mod hub;
mod resources;
pub mod watch;

pub use hub::{Apply, Hub, Layer, Outcome, Provenance, Rejection, SourceStatus, Update};
pub use resources::{Entry, Key, Kind, Resources, Value, is_wildcard};
