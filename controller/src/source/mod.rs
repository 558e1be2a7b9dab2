//! Where objects come from: a folder of YAML.
//!
//! Always: one undecodable object, document or file is reported and takes no other down.

pub mod folder;
pub mod watch;
