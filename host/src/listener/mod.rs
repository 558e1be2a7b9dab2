//! Where connections come in: sockets, what is said before the first request, and which branch serves a connection.
//!
//! What always holds: bytes of strangers are read into bounded buffers under a deadline; a listener that needs to look at nothing costs no system
//! call and no timer beyond `accept`. What a branch then does with a connection is not decided here.

pub mod accept;
pub mod cidr;
pub mod handover;
pub mod limits;
pub mod matching;
pub mod proxy_protocol;
pub mod socket;
pub mod sockets;
