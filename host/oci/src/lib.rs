//! Filters in OCI registries: found, fetched, pushed, signed and verified.
//!
//! [`Reference`] names an artifact, [`Client`] speaks to its registry, [`Client::pull`] brings a module in any of the four [`Layout`]s there are,
//! [`Package`] is a module in the one that is written, and [`Key`] and [`PublicKey`] sign and verify as cosign does.
//!
//! What always holds: nothing that a registry says is believed. What has a digest is compared with it, what has a size is compared with it, everything
//! is bounded before it is held, every step has a deadline; a redirect, or the place where tokens come from, never leads to an address that only this
//! machine can reach; credentials go to the registry they are for, and to the place of tokens that it names, and nowhere else. Plain HTTP is for loopback,
//! unless the caller says otherwise.
//!
//! What it deliberately does not do: run a module or judge it, keep a cache, run programs that keep credentials, look into transparency logs (signatures
//! are by key pairs), or print anything.

mod address;
mod archive;
mod artifact;
mod auth;
mod client;
mod error;
mod http;
mod key;
#[cfg(test)]
mod laws;
mod manifest;
mod reference;
mod sign;

pub use artifact::{Artifact, Layout, Package};
pub use auth::Credentials;
pub use client::{Client, Limits, Options};
pub use error::Error;
pub use key::{Key, KeyError, PublicKey};
pub use reference::{BadReference, Digest, Reference};
