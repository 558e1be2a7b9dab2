//! Write Proxy-Wasm filters.
//!
//! ```
//! use weir_sdk::prelude::*;
//!
//! /// Refuses requests by path.
//! #[config]
//! struct Deny {
//!     /// What a refused path begins with.
//!     paths: Vec<String>,
//! }
//!
//! #[register]
//! impl Filter for Deny {
//!     fn on_request_headers(&self, stream: &mut Stream<'_>) -> Flow {
//!         match self.paths.iter().any(|path| stream.path().starts_with(path.as_bytes())) {
//!             true => stream.reply(403).body("denied").send(),
//!             false => Flow::Continue,
//!         }
//!     }
//! }
//! ```
//!
//! That is a whole filter: a `cdylib` crate for wasm32 with this in its `lib.rs` runs in Weir, and in every host of the Proxy-Wasm ABI 0.2.1.
//!
//! * The configuration is the filter. [`config`] makes a type readable from what the operator writes, refuses what does not fit with the field's path,
//!   and describes it as JSON Schema in the module. A filter that compiles its configuration first names it as [`Filter::Config`].
//! * A method per phase. [`register`] exports exactly the phases that are written, because a host works for every phase it sees: bodies are only shown to
//!   filters that ask for them.
//! * State of a stream is a type: [`Filter::State`], a `Default`, at [`Stream::state`].
//! * Callouts are awaited: [`Stream::wait`].
//!
//! What always holds: a header that is read is one copy into an arena, lent until the callback ends; a filter that reads headers and lets the stream go on
//! allocates nothing. What it does not do: know anything about the host beyond the ABI; extensions of Weir's say so where the host does not have them.

extern crate self as weir_sdk;

#[cfg(doctest)]
#[doc = include_str!("../README.md")]
struct Readme;

mod abi;
mod access_log;
mod attribute_set;
mod attributes;
mod call;
mod config;
mod conversation;
mod decision;
pub mod log;
mod metrics;
#[cfg(not(target_arch = "wasm32"))]
pub mod native;
mod plugin;
mod queue;
mod reply;
mod route;
pub mod runtime;
pub mod schema;
mod sleep;
mod stream;

pub use abi::Status;
pub use abi::pairs::Pairs;
pub use access_log::AccessLog;
pub use attribute_set::{AttributeSet, Values};
pub use attributes::Attributes;
pub use call::{Answer, Call, CallError, GrpcCall, HttpCall};
pub use config::{Refusal, parse};
pub use conversation::{GrpcOpening, GrpcStream};
pub use decision::{DECISIONS, Decision};
pub use metrics::{Counter, Gauge, Histogram};
pub use plugin::{Plugin, add_shared, extension, now, now_nanos, random, set_shared, shared};
pub use queue::Queue;
pub use reply::Reply;
pub use route::Route;
pub use serde;
pub use sleep::Sleep;
pub use stream::{Body, Flow, Handle, Headers, Stream};
pub use weir_sdk_derive::{config, register};

/// What nearly every filter uses.
pub mod prelude {
    pub use crate::{Counter, Filter, Flow, Gauge, Handle, Histogram, Plugin, Refusal, Stream, config, register};
}

/// A filter. Write the phases that you care about, under [`register`].
///
/// A phase that is not written is not exported; what stands here is what the host does without it.
pub trait Filter: Sized + 'static {
    /// What the operator writes. The filter itself, unless it is written.
    type Config: serde::de::DeserializeOwned + schema::Schema;

    /// What is kept of every stream. Nothing, unless it is written.
    type State: Default + 'static;

    /// Reads what the operator wrote. As JSON, unless it is written, with errors that name the field.
    ///
    /// # Errors
    /// The configuration is refused with what this says.
    fn read(bytes: &[u8]) -> Result<Self::Config, Refusal> {
        parse(bytes)
    }

    /// Makes the filter of what the operator wrote: compile patterns, define metrics and routes, start the timer. Its result, unless it is written, is the
    /// configuration as it is.
    ///
    /// # Errors
    /// The configuration is refused with what this says: the field and the cause.
    fn configure(config: Self::Config, plugin: &Plugin) -> Result<Self, Refusal>;

    /// The timer went; see [`Plugin::tick_every`].
    fn on_tick(&self, plugin: &Plugin) {
        let _ = plugin;
    }

    /// Somebody has put an item into a queue that this filter registered. Another instance may have taken it meanwhile.
    fn on_queue(&self, queue: Queue, plugin: &Plugin) {
        let _ = (queue, plugin);
    }

    /// The request's head is there. [`Stream::end`]: it has no body.
    fn on_request_headers(&self, stream: &mut Stream<'_, Self::State>) -> Flow {
        let _ = stream;
        Flow::Continue
    }

    /// A piece of the request's body is there, and all that was held back before it: [`Stream::request_body`].
    fn on_request_body(&self, stream: &mut Stream<'_, Self::State>) -> Flow {
        let _ = stream;
        Flow::Continue
    }

    /// The request's trailers are there.
    fn on_request_trailers(&self, stream: &mut Stream<'_, Self::State>) -> Flow {
        let _ = stream;
        Flow::Continue
    }

    /// The response's head is there: the upstream's, or that of a reply by another filter or the proxy.
    fn on_response_headers(&self, stream: &mut Stream<'_, Self::State>) -> Flow {
        let _ = stream;
        Flow::Continue
    }

    /// A piece of the response's body is there: [`Stream::response_body`].
    fn on_response_body(&self, stream: &mut Stream<'_, Self::State>) -> Flow {
        let _ = stream;
        Flow::Continue
    }

    /// The response's trailers are there.
    fn on_response_trailers(&self, stream: &mut Stream<'_, Self::State>) -> Flow {
        let _ = stream;
        Flow::Continue
    }

    /// A TCP connection begins.
    fn on_connection(&self, stream: &mut Stream<'_, Self::State>) -> Flow {
        let _ = stream;
        Flow::Continue
    }

    /// Bytes from the client are there: [`Stream::downstream`].
    fn on_downstream_data(&self, stream: &mut Stream<'_, Self::State>) -> Flow {
        let _ = stream;
        Flow::Continue
    }

    /// Bytes from the upstream are there: [`Stream::upstream`].
    fn on_upstream_data(&self, stream: &mut Stream<'_, Self::State>) -> Flow {
        let _ = stream;
        Flow::Continue
    }

    /// The client closed the connection.
    fn on_downstream_close(&self, stream: &mut Stream<'_, Self::State>) {
        let _ = stream;
    }

    /// The upstream closed the connection.
    fn on_upstream_close(&self, stream: &mut Stream<'_, Self::State>) {
        let _ = stream;
    }

    /// The stream is over, and is to be logged: everything about it is known. It comes for every stream, also for those that were answered by a filter or
    /// broken off.
    fn on_log(&self, stream: &mut Stream<'_, Self::State>) {
        let _ = stream;
    }
}
