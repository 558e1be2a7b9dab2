//! Proxy-Wasm 0.2.1 as safe functions: what the rest of the SDK calls, and the only way to the host.
//!
//! On wasm32 they are the host's imports ([`wasm`]); natively a test's host stands behind them ([`native`]), so that a filter's code is the same in both.
//!
//! What always holds: what a function lends lives in the arena until [`begin`] is called, which every callback does first; nothing here allocates
//! once the arena has grown to what a callback needs. What it does not do: decide what a status means beyond "there is none".

#[cfg(not(target_arch = "wasm32"))]
pub(crate) mod native;
#[cfg(target_arch = "wasm32")]
mod wasm;

mod arena;
pub(crate) mod pairs;

#[cfg(not(target_arch = "wasm32"))]
use native as host;
#[cfg(target_arch = "wasm32")]
use wasm as host;

pub(crate) use arena::begin;

/// A host call's status, when it is not "done".
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Status {
    /// There is no such thing, or not now.
    NotFound,
    /// The host did not like an argument.
    BadArgument,
    /// Somebody else changed the value meanwhile.
    CasMismatch,
    /// A queue is empty.
    Empty,
    /// This host does not do that.
    Unimplemented,
    /// Anything else: the status as the host gave it.
    Other(u32),
}

impl Status {
    #[inline]
    fn check(raw: u32) -> Result<(), Self> {
        match raw {
            0 => Ok(()),
            1 => Err(Self::NotFound),
            2 => Err(Self::BadArgument),
            7 => Err(Self::Empty),
            8 => Err(Self::CasMismatch),
            12 => Err(Self::Unimplemented),
            other => Err(Self::Other(other)),
        }
    }
}

impl std::fmt::Display for Status {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::NotFound => f.write_str("not found"),
            Self::BadArgument => f.write_str("the host refused an argument"),
            Self::CasMismatch => f.write_str("the value was changed meanwhile"),
            Self::Empty => f.write_str("empty"),
            Self::Unimplemented => f.write_str("this host does not implement it"),
            Self::Other(status) => write!(f, "status {status}"),
        }
    }
}

impl std::error::Error for Status {}

/// The maps of the ABI.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[repr(u32)]
pub(crate) enum Map {
    RequestHeaders = 0,
    RequestTrailers = 1,
    ResponseHeaders = 2,
    ResponseTrailers = 3,
    GrpcInitialMetadata = 4,
    GrpcTrailingMetadata = 5,
    CallHeaders = 6,
}

/// The buffers of the ABI.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[repr(u32)]
pub(crate) enum Buffer {
    RequestBody = 0,
    ResponseBody = 1,
    DownstreamData = 2,
    UpstreamData = 3,
    CallBody = 4,
    GrpcMessage = 5,
    PluginConfiguration = 7,
}

/// The streams that can be resumed or closed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[repr(u32)]
pub(crate) enum Side {
    Request = 0,
    Response = 1,
    Downstream = 2,
    Upstream = 3,
}

/// The kinds of metrics.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[repr(u32)]
pub(crate) enum Metric {
    Counter = 0,
    Gauge = 1,
    Histogram = 2,
}

/// The first value of a header.
#[inline]
pub(crate) fn header<'a>(map: Map, name: &[u8]) -> Option<&'a [u8]> {
    host::get_header(map as u32, name).ok()
}

/// A whole map, as the ABI writes it.
pub(crate) fn headers<'a>(map: Map) -> Option<&'a [u8]> {
    host::get_headers(map as u32).ok()
}

/// Replaces a map.
pub(crate) fn set_headers(map: Map, encoded: &[u8]) -> Result<(), Status> {
    Status::check(host::set_headers(map as u32, encoded))
}

/// Appends a header.
#[inline]
pub(crate) fn add_header(map: Map, name: &[u8], value: &[u8]) -> Result<(), Status> {
    Status::check(host::add_header(map as u32, name, value))
}

/// Leaves a header with this one value.
#[inline]
pub(crate) fn replace_header(map: Map, name: &[u8], value: &[u8]) -> Result<(), Status> {
    Status::check(host::replace_header(map as u32, name, value))
}

/// Takes all values of a header away.
#[inline]
pub(crate) fn remove_header(map: Map, name: &[u8]) -> Result<(), Status> {
    Status::check(host::remove_header(map as u32, name))
}

/// Bytes of a buffer.
pub(crate) fn buffer<'a>(buffer: Buffer, start: usize, most: usize) -> Option<&'a [u8]> {
    host::get_buffer(buffer as u32, clamp(start), clamp(most)).ok()
}

/// Puts bytes in the place of `size` others.
pub(crate) fn set_buffer(buffer: Buffer, start: usize, size: usize, bytes: &[u8]) -> Result<(), Status> {
    Status::check(host::set_buffer(buffer as u32, clamp(start), clamp(size), bytes))
}

/// A property, its path's segments joined by NUL.
#[inline]
pub(crate) fn property<'a>(path: &[u8]) -> Option<&'a [u8]> {
    host::get_property(path).ok()
}

/// Sets a property.
#[inline]
pub(crate) fn set_property(path: &[u8], value: &[u8]) -> Result<(), Status> {
    Status::check(host::set_property(path, value))
}

/// Answers in the upstream's place.
pub(crate) fn local_reply(status: u32, details: &[u8], body: &[u8], headers: &[u8], grpc: Option<u32>) -> Result<(), Status> {
    Status::check(host::local_reply(status, details, body, headers, grpc.unwrap_or(u32::MAX)))
}

/// Lets a paused stream go on.
pub(crate) fn resume(side: Side) -> Result<(), Status> {
    Status::check(host::resume(side as u32))
}

/// Ends a stream.
pub(crate) fn close(side: Side) -> Result<(), Status> {
    Status::check(host::close(side as u32))
}

/// Sends an HTTP request; its answer comes as a callback.
pub(crate) fn http_call(cluster: &[u8], headers: &[u8], body: &[u8], trailers: &[u8], timeout: u32) -> Result<u32, Status> {
    host::http_call(cluster, headers, body, trailers, timeout).and_then_status()
}

/// Sends one gRPC message and expects one.
pub(crate) fn grpc_call(
    cluster: &[u8],
    service: &[u8],
    method: &[u8],
    metadata: &[u8],
    message: &[u8],
    timeout: u32,
) -> Result<u32, Status> {
    host::grpc_call(cluster, service, method, metadata, message, timeout).and_then_status()
}

/// Opens a gRPC stream; what its peer says comes as callbacks.
pub(crate) fn grpc_stream(cluster: &[u8], service: &[u8], method: &[u8], metadata: &[u8]) -> Result<u32, Status> {
    host::grpc_stream(cluster, service, method, metadata).and_then_status()
}

/// Sends a message on a gRPC stream.
pub(crate) fn grpc_send(call: u32, message: &[u8], end: bool) -> Result<(), Status> {
    Status::check(host::grpc_send(call, message, end))
}

/// Says that nothing more is sent on a gRPC stream.
pub(crate) fn grpc_close(call: u32) -> Result<(), Status> {
    Status::check(host::grpc_close(call))
}

/// Makes a queue, or finds the one of this name.
pub(crate) fn register_queue(name: &[u8]) -> Result<u32, Status> {
    host::register_queue(name).and_then_status()
}

/// Finds a queue that somebody made.
pub(crate) fn resolve_queue(vm: &[u8], name: &[u8]) -> Result<u32, Status> {
    host::resolve_queue(vm, name).and_then_status()
}

/// Puts an item at the end of a queue.
pub(crate) fn enqueue(queue: u32, item: &[u8]) -> Result<(), Status> {
    Status::check(host::enqueue(queue, item))
}

/// Takes the first item of a queue.
pub(crate) fn dequeue<'a>(queue: u32) -> Result<&'a [u8], Status> {
    host::dequeue(queue).and_then_status()
}

/// Gives a callout up.
pub(crate) fn grpc_cancel(call: u32) {
    host::grpc_cancel(call);
}

/// The code and the text of a gRPC status, in the callback that ends the call.
pub(crate) fn call_status<'a>() -> Option<(u32, &'a [u8])> {
    host::call_status().ok()
}

/// Makes what follows concern another context.
pub(crate) fn effective_context(context: u32) -> Result<(), Status> {
    Status::check(host::effective_context(context))
}

/// Nanoseconds since 1970.
#[inline]
pub(crate) fn now() -> u64 {
    host::now()
}

/// Eight bytes of randomness.
pub(crate) fn random() -> u64 {
    host::random()
}

/// How often the root context's timer goes; 0 stops it.
pub(crate) fn set_tick(millis: u32) -> Result<(), Status> {
    Status::check(host::set_tick(millis))
}

/// A line for the log.
pub(crate) fn log(level: u32, message: &[u8]) {
    host::log(level, message);
}

/// The least severe level that is logged; everything where the host does not say.
pub(crate) fn log_level() -> u32 {
    host::log_level().unwrap_or(0)
}

/// A new metric, or the one there is.
pub(crate) fn define_metric(kind: Metric, name: &[u8]) -> Result<u32, Status> {
    host::define_metric(kind as u32, name).and_then_status()
}

/// Adds to a counter or gauge.
#[inline]
pub(crate) fn increment_metric(metric: u32, by: i64) {
    host::increment_metric(metric, by);
}

/// Sets a gauge, or records into a histogram.
#[inline]
pub(crate) fn record_metric(metric: u32, value: u64) {
    host::record_metric(metric, value);
}

/// A shared value and its version.
pub(crate) fn shared_data<'a>(key: &[u8]) -> Option<(&'a [u8], u32)> {
    host::shared_data(key).ok()
}

/// Sets a shared value; only over that version, unless it is 0.
pub(crate) fn set_shared_data(key: &[u8], value: &[u8], version: u32) -> Result<(), Status> {
    Status::check(host::set_shared_data(key, value, version))
}

/// Calls an extension of the host.
pub(crate) fn foreign<'a>(name: &str, arguments: &[u8]) -> Result<&'a [u8], Status> {
    host::foreign(name.as_bytes(), arguments).and_then_status()
}

fn clamp(size: usize) -> u32 {
    u32::try_from(size).unwrap_or(u32::MAX)
}

/// A raw status as a [`Status`].
trait AndThenStatus<T> {
    fn and_then_status(self) -> Result<T, Status>;
}

impl<T> AndThenStatus<T> for Result<T, u32> {
    #[inline]
    fn and_then_status(self) -> Result<T, Status> {
        self.map_err(|raw| Status::check(raw).err().unwrap_or(Status::Other(raw)))
    }
}
