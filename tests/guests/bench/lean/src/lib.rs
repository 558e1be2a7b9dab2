//! One of four filters against the bare ABI 0.2.1, chosen by a feature: what a guest costs when it exports only the
//! callbacks it needs and a request allocates nothing. `../stock` does the same on the `proxy-wasm` crate.
//!
//! * What the host hands over lies in an arena that every callback starts anew ([`abi`]); it is borrowed, never kept.
//! * Configuration lives on the heap, allocated once by `proxy_on_configure`.
//! * State of a stream, where a filter has any, lives in a table keyed by its context id ([`table`]).

mod abi;

#[cfg(feature = "fault")]
mod fault;
#[cfg(feature = "policy")]
mod policy;
#[cfg(feature = "router")]
mod router;
#[cfg(feature = "telemetry")]
mod table;
#[cfg(feature = "telemetry")]
mod telemetry;

#[cfg(feature = "fault")]
use fault::Filter;
#[cfg(feature = "policy")]
use policy::Filter;
#[cfg(feature = "router")]
use router::Filter;
#[cfg(feature = "telemetry")]
use telemetry::Filter;

/// What a callback answers.
#[repr(u32)]
pub(crate) enum Action {
    Continue = 0,
    #[cfg_attr(
        any(feature = "router", feature = "telemetry"),
        allow(dead_code, reason = "these never pause")
    )]
    Pause = 1,
}

static FILTER: abi::Global<Option<Filter>> = abi::Global::new(None);

#[unsafe(no_mangle)]
#[allow(unsafe_code, reason = "the attribute that names an export")]
extern "C" fn proxy_abi_version_0_2_1() {}

#[unsafe(no_mangle)]
#[allow(unsafe_code, reason = "the attribute that names an export")]
extern "C" fn proxy_on_configure(_root: u32, size: usize) -> bool {
    abi::begin();
    let text = abi::plugin_configuration(size);
    let filter = std::str::from_utf8(text).ok().and_then(Filter::configure);
    FILTER.with(|f| *f = filter);
    FILTER.with(|f| f.is_some())
}

#[unsafe(no_mangle)]
#[allow(unsafe_code, reason = "the attribute that names an export")]
extern "C" fn proxy_on_request_headers(_context: u32, _count: u32, _end: u32) -> Action {
    abi::begin();
    #[cfg(feature = "telemetry")]
    return FILTER.with(|f| f.as_mut().map_or(Action::Continue, |f| f.request(_context)));
    #[cfg(not(feature = "telemetry"))]
    FILTER.with(|f| f.as_mut().map_or(Action::Continue, Filter::request))
}

#[cfg(feature = "telemetry")]
#[unsafe(no_mangle)]
#[allow(unsafe_code, reason = "the attribute that names an export")]
extern "C" fn proxy_on_response_headers(context: u32, _count: u32, _end: u32) -> Action {
    abi::begin();
    FILTER.with(|f| f.as_mut().map_or(Action::Continue, |f| f.response(context)))
}

#[cfg(feature = "telemetry")]
#[unsafe(no_mangle)]
#[allow(unsafe_code, reason = "the attribute that names an export")]
extern "C" fn proxy_on_log(context: u32) {
    abi::begin();
    FILTER.with(|f| {
        if let Some(f) = f.as_mut() {
            f.log(context);
        }
    });
}
