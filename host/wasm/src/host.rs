//! What a proxy provides to its filters: the only way out of a guest.
//!
//! Two traits. [`Host`] is the worker: clock, randomness, log, callouts. [`StreamHost`] is one HTTP stream or TCP connection: its header
//! maps and attributes. Both are called on the worker's own thread, while a guest waits for the answer, so they return at once: nothing here
//! blocks, and nothing here may call back into a filter. Whatever has to happen later is asked for with a token and delivered from outside.
//!
//! No HTTP library appears here. Body bytes do not pass through these traits: the stream that runs the chain owns them.

use std::borrow::Cow;
use std::rc::Rc;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;

use crate::callout::Reply;
use crate::codec::Path;
use crate::time::Nanos;

/// One header map of a message, as filters see it: pseudo headers (`:path`, `:status`, …) are ordinary keys.
///
/// Names arrive in lower case and values without CR, LF or NUL: the ABI layer has refused everything else.
pub trait Headers {
    /// Number of name/value pairs.
    fn count(&self) -> usize;
    /// The first value under `name`.
    fn get(&self, name: &[u8]) -> Option<&[u8]>;
    /// Every pair in order, pseudo headers first.
    fn visit(&self, each: &mut dyn FnMut(&[u8], &[u8]));
    /// Appends a pair. For a pseudo header this sets it.
    fn add(&mut self, name: &[u8], value: &[u8]);
    /// Makes `value` the only value of `name`.
    fn set(&mut self, name: &[u8], value: &[u8]);
    /// Removes every value of `name`.
    fn remove(&mut self, name: &[u8]);
}

/// The four header maps of a stream.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum MessageMap {
    /// Request headers with `:method`, `:path`, `:authority`, `:scheme`.
    RequestHeaders,
    /// Request trailers.
    RequestTrailers,
    /// Response headers with `:status`.
    ResponseHeaders,
    /// Response trailers.
    ResponseTrailers,
}

/// A direction of a stream. For TCP, `Request` is downstream data and `Response` upstream data.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Side {
    /// From the client to the upstream.
    Request = 0,
    /// From the upstream to the client.
    Response = 1,
}

impl Side {
    /// The map that holds this side's headers.
    #[must_use]
    pub fn headers(self) -> MessageMap {
        match self {
            Self::Request => MessageMap::RequestHeaders,
            Self::Response => MessageMap::ResponseHeaders,
        }
    }

    /// The map that holds this side's trailers.
    #[must_use]
    pub fn trailers(self) -> MessageMap {
        match self {
            Self::Request => MessageMap::RequestTrailers,
            Self::Response => MessageMap::ResponseTrailers,
        }
    }
}

/// An attribute's value; the ABI layer encodes it the way Envoy does.
#[derive(Clone, Debug, PartialEq)]
pub enum Attribute<'a> {
    /// Strings, bytes and serialized messages, unchanged.
    Bytes(Cow<'a, [u8]>),
    /// Eight bytes, little-endian.
    Int(i64),
    /// Eight bytes, little-endian.
    Uint(u64),
    /// Eight bytes, little-endian IEEE 754.
    Double(f64),
    /// One byte.
    Bool(bool),
    /// Nanoseconds since the Unix epoch, as a signed 64-bit value.
    Time(i64),
    /// Nanoseconds, as a signed 64-bit value.
    Duration(i64),
    /// A list of pairs in the header-map format.
    Map(Vec<(Cow<'a, [u8]>, Cow<'a, [u8]>)>),
}

impl<'a> From<&'a str> for Attribute<'a> {
    fn from(value: &'a str) -> Self {
        Self::Bytes(Cow::Borrowed(value.as_bytes()))
    }
}

/// A response that a filter, or a failure policy, makes instead of the upstream.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct LocalReply {
    /// HTTP status. For a gRPC request the reply is already in its final form: 200 with `grpc-status` among the headers.
    pub status: u16,
    /// Further headers in order, names in lower case.
    pub headers: Vec<(Bytes, Bytes)>,
    /// The body, possibly empty.
    pub body: Bytes,
    /// Why, for logs: no white space, for example `wasm_trap{deny}`.
    pub details: String,
    /// The binding that made it.
    pub binding: Arc<str>,
}

/// What a foreign function answered.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Foreign {
    /// Done, with a result that may be empty.
    Done(Vec<u8>),
    /// No function of that name here.
    Unknown,
    /// The arguments could not be understood.
    BadArgument,
    /// It failed.
    Failed,
}

/// What a stream's route makes of a filter.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum PerRoute<'a> {
    /// It runs with its own configuration.
    AsConfigured,
    /// With the variant of this name. One that it does not have is a failure of the filter.
    Variant(&'a str),
    /// It takes no part.
    Off,
}

/// What one stream offers to the filters of its chain. For TCP, only `attribute` and `wake` matter.
pub trait StreamHost {
    /// A header map, if it has arrived.
    fn headers(&mut self, map: MessageMap) -> Option<&mut dyn Headers>;

    /// Creates an empty trailers map for `side`: a filter adds trailers at the end of a body that had none.
    fn make_trailers(&mut self, side: Side) -> Option<&mut dyn Headers>;

    /// The value of an attribute that does not follow from the header maps (`source.address`, `upstream.…`, `connection.…`, `xds.…`).
    fn attribute(&self, path: Path<'_>) -> Option<Attribute<'_>>;

    /// A filter sets a property. `true`: the proxy acts on it (a route choice, say). It stays readable as filter state either way.
    fn set_attribute(&mut self, _path: Path<'_>, _value: &[u8]) -> bool {
        false
    }

    /// Replaces the response head by this reply's. The body comes from the stream like any other.
    fn start_local_reply(&mut self, reply: &LocalReply);

    /// The message's length is now known (`Some`) or unknown (`None`) because a filter may change its body. Called only if it had one.
    fn repair_length(&mut self, side: Side, length: Option<u64>) {
        if let Some(headers) = self.headers(side.headers()) {
            match length {
                Some(length) => headers.set(b"content-length", length.to_string().as_bytes()),
                None => headers.remove(b"content-length"),
            }
        }
    }

    /// Something outside this stream's own call changed its state: call [`crate::Stream::resume`] soon, not from here.
    fn wake(&mut self);

    /// The route must be chosen again before dispatch.
    fn clear_route_cache(&mut self) {}

    /// What this stream's route makes of a filter that [follows](crate::Routing::Follows) routes. Asked once, right before it sees anything.
    fn per_route(&self, _name: &str, _disabled: bool) -> PerRoute<'_> {
        PerRoute::AsConfigured
    }

    /// A foreign function that acts on this stream.
    fn foreign(&mut self, _binding: &str, _name: &str, _arguments: &[u8]) -> Foreign {
        Foreign::Unknown
    }

    /// A filter has taken it upon itself to log this stream, be it by a line or by leaving one out on purpose.
    fn logged(&mut self) {}

    /// What identifies this stream in a log line, for example a trace id.
    fn log_id(&self) -> &str {
        ""
    }
}

/// The level of a log line.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
#[repr(u32)]
pub enum Level {
    /// 0
    Trace,
    /// 1
    Debug,
    /// 2
    Info,
    /// 3
    Warn,
    /// 4
    Error,
    /// 5
    Critical,
}

impl Level {
    /// Its name in lower case.
    #[must_use]
    pub fn name(self) -> &'static str {
        match self {
            Self::Trace => "trace",
            Self::Debug => "debug",
            Self::Info => "info",
            Self::Warn => "warn",
            Self::Error => "error",
            Self::Critical => "critical",
        }
    }

    pub(crate) fn from_abi(value: u32) -> Option<Self> {
        Some(match value {
            0 => Self::Trace,
            1 => Self::Debug,
            2 => Self::Info,
            3 => Self::Warn,
            4 => Self::Error,
            5 => Self::Critical,
            _ => return None,
        })
    }
}

/// One line for the log, from a guest or about it.
#[derive(Debug)]
pub struct LogLine<'a> {
    /// The binding it is about.
    pub binding: &'a str,
    /// How much it matters.
    pub level: Level,
    /// What the guest, or the host about the guest, says.
    pub message: &'a str,
    /// The stream it belongs to, as the proxy names it; empty outside streams.
    pub stream: &'a str,
    /// Whether the guest said it (otherwise the host).
    pub from_guest: bool,
}

/// An HTTP request that a filter wants made.
#[derive(Debug)]
pub struct HttpCall<'a> {
    /// Who asks.
    pub binding: &'a str,
    /// The upstream as the filter named it; it passed the binding's allow-list.
    pub upstream: &'a str,
    /// Headers with `:method`, `:path` and `:authority`.
    pub headers: Vec<(Bytes, Bytes)>,
    /// The whole body.
    pub body: Bytes,
    /// Trailers, possibly none.
    pub trailers: Vec<(Bytes, Bytes)>,
    /// Give up after this; never zero, never above the binding's maximum.
    pub timeout: Duration,
}

/// A gRPC call or stream that a filter wants opened.
#[derive(Debug)]
pub struct GrpcCall<'a> {
    /// Who asks.
    pub binding: &'a str,
    /// The upstream as the filter named it; it passed the binding's allow-list.
    pub upstream: &'a str,
    /// Full service name.
    pub service: &'a str,
    /// Method name.
    pub method: &'a str,
    /// Initial metadata.
    pub metadata: Vec<(Bytes, Bytes)>,
    /// The message of a unary call; `None` opens a stream.
    pub message: Option<Bytes>,
    /// For unary calls: give up after this.
    pub timeout: Option<Duration>,
}

/// Identifies a callout for as long as it runs; unique among everything one engine ever starts.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct CallId(pub u64);

/// Why a callout could not be started.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum CalloutError {
    /// Nobody has that name.
    UnknownUpstream,
    /// It cannot be started now.
    Failed,
}

/// What a worker offers to all its filters.
pub trait Host {
    /// Wall clock, nanoseconds since the Unix epoch. May be cached for one turn of the event loop.
    fn wall_nanos(&self) -> u64;

    /// A clock that never goes back, from any origin. May be cached for one turn of the event loop.
    fn monotonic_nanos(&self) -> Nanos;

    /// Fills `out` with random bytes.
    fn random(&self, out: &mut [u8]);

    /// The lowest level worth sending to [`Host::log`] for this binding.
    fn log_level(&self, _binding: &str) -> Level {
        Level::Info
    }

    /// One line of log, already limited in rate and length.
    fn log(&self, line: &LogLine<'_>);

    /// Starts an HTTP callout. The answer goes to `reply`, later, never from inside this call.
    ///
    /// # Errors
    /// When it cannot be started; `reply` is then dropped unanswered.
    fn http_call(&self, id: CallId, call: HttpCall<'_>, reply: Reply) -> Result<(), CalloutError>;

    /// Opens a gRPC call or stream. Events go to `reply`, later, never from inside this call.
    ///
    /// # Errors
    /// When it cannot be started; `reply` is then dropped unanswered.
    fn grpc_call(&self, id: CallId, call: GrpcCall<'_>, reply: Reply) -> Result<(), CalloutError>;

    /// Sends a message on an open gRPC stream.
    fn grpc_send(&self, id: CallId, message: Bytes, end_of_stream: bool);

    /// Ends a callout: its reply is no longer wanted. `graceful` half-closes a gRPC stream instead of resetting it.
    fn cancel(&self, id: CallId, graceful: bool);

    /// The plugin's timer changed: [`crate::Filter::run_timers`] has something to do at the time it now reports.
    fn timer_changed(&self) {}

    /// What other threads call to say that a queue of a filter on this worker has an item. It must arrange for
    /// [`crate::Filter::run_timers`] to be called here.
    fn queue_notifier(&self) -> Arc<dyn Fn() + Send + Sync>;

    /// An attribute of the node, outside any stream.
    fn attribute(&self, _path: Path<'_>) -> Option<Attribute<'_>> {
        None
    }

    /// Opens an access log for a filter: a file, `stdout` or `stderr`, which passed the binding's allow-list. Its number, for [`Host::access_log`].
    fn open_access_log(&self, _binding: &str, _path: &str) -> Option<u32> {
        None
    }

    /// A line of a filter's for an access log, without its end. Whatever bytes are in it, it must stay one line.
    fn access_log(&self, _log: u32, _line: &[u8]) {}

    /// A foreign function outside any stream, or one that no stream knows (`weir.route.define` at configure).
    fn foreign(&self, _binding: &str, _name: &str, _arguments: &[u8]) -> Foreign {
        Foreign::Unknown
    }
}

/// A worker's [`Host`], shared by its filters.
pub type SharedHost = Rc<dyn Host>;
