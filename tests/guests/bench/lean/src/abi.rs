//! The ABI's host functions, each behind a safe one, and the arena the host's answers lie in.
//!
//! What always holds: a guest is one thread, and the host calls into it only between its callbacks, save for the
//! allocator, which touches nothing but the arena. What an answer borrows ends with the callback, since
//! [`begin`] gives its bytes away again; every safe function here borrows for as long as the caller's callback.

#![allow(
    unsafe_code,
    reason = "the ABI is raw pointers; this is the only module that handles them"
)]
#![allow(dead_code, reason = "each of the four filters uses its own part")]

use std::cell::UnsafeCell;
use std::ptr;

#[link(wasm_import_module = "env")]
unsafe extern "C" {
    fn proxy_get_buffer_bytes(
        kind: u32,
        start: u32,
        max: usize,
        data: *mut *mut u8,
        size: *mut usize,
    ) -> u32;
    fn proxy_get_header_map_value(
        map: u32,
        key: *const u8,
        len: usize,
        data: *mut *mut u8,
        size: *mut usize,
    ) -> u32;
    fn proxy_set_property(path: *const u8, len: usize, value: *const u8, size: usize) -> u32;
    fn proxy_send_local_response(
        status: u32,
        details: *const u8,
        details_len: usize,
        body: *const u8,
        body_len: usize,
        headers: *const u8,
        headers_len: usize,
        grpc: i32,
    ) -> u32;
    fn proxy_get_current_time_nanoseconds(time: *mut u64) -> u32;
    fn proxy_define_metric(kind: u32, name: *const u8, len: usize, id: *mut u32) -> u32;
    fn proxy_increment_metric(id: u32, offset: i64) -> u32;
    fn proxy_record_metric(id: u32, value: u64) -> u32;
}

/// A mutable static of a program with one thread.
pub(crate) struct Global<T>(UnsafeCell<T>);

// SAFETY: this target has no threads.
unsafe impl<T> Sync for Global<T> {}

impl<T> Global<T> {
    pub(crate) const fn new(value: T) -> Self {
        Self(UnsafeCell::new(value))
    }

    /// Gives the value to a function that must not ask for it again.
    #[inline]
    pub(crate) fn with<R>(&self, f: impl FnOnce(&mut T) -> R) -> R {
        // SAFETY: one thread, and no caller nests: the filter is given out by exports, which the host never
        // re-enters, and the arena by the functions below, which call nothing meanwhile.
        f(unsafe { &mut *self.0.get() })
    }
}

/// More than the header values and the configuration that one callback reads; an answer that does not fit is refused
/// by returning null, which the host reports as a failed call.
const ARENA: usize = 64 * 1024;

struct Arena {
    bytes: [u8; ARENA],
    used: usize,
}

static STORE: Global<Arena> = Global::new(Arena {
    bytes: [0; ARENA],
    used: 0,
});

#[unsafe(no_mangle)]
extern "C" fn proxy_on_memory_allocate(size: usize) -> *mut u8 {
    STORE.with(|arena| match arena.bytes[arena.used..].get_mut(..size) {
        Some(bytes) => {
            arena.used += size;
            bytes.as_mut_ptr()
        }
        None => ptr::null_mut(),
    })
}

/// Gives the arena's bytes away again. The first thing that every callback does.
#[inline]
pub(crate) fn begin() {
    STORE.with(|arena| arena.used = 0);
}

/// The bytes a host function answered with.
#[inline]
fn answer<'a>(call: impl FnOnce(*mut *mut u8, *mut usize) -> u32) -> Option<&'a [u8]> {
    let (mut data, mut size) = (ptr::null_mut(), 0);
    if call(&mut data, &mut size) != 0 {
        return None;
    }
    if data.is_null() {
        return Some(&[]);
    }
    // SAFETY: the host wrote `size` bytes to what the allocator above gave it for that, and the allocator gives the
    // same bytes out again only after the next `begin`, when no borrow of the earlier callback is left.
    Some(unsafe { std::slice::from_raw_parts(data, size) })
}

/// The plugin's configuration; empty when there is none.
pub(crate) fn plugin_configuration<'a>(size: usize) -> &'a [u8] {
    const PLUGIN_CONFIGURATION: u32 = 7;
    if size == 0 {
        return &[];
    }
    // SAFETY: both pointers are to live locals of `answer`.
    answer(|data, len| unsafe { proxy_get_buffer_bytes(PLUGIN_CONFIGURATION, 0, size, data, len) })
        .unwrap_or_default()
}

/// A header of the request.
#[inline]
pub(crate) fn request_header<'a>(name: &str) -> Option<&'a [u8]> {
    // SAFETY: the key is a live slice, the other pointers are to live locals of `answer`.
    answer(|data, len| unsafe {
        proxy_get_header_map_value(0, name.as_ptr(), name.len(), data, len)
    })
}

/// A header of the response.
#[inline]
pub(crate) fn response_header<'a>(name: &str) -> Option<&'a [u8]> {
    // SAFETY: as above.
    answer(|data, len| unsafe {
        proxy_get_header_map_value(2, name.as_ptr(), name.len(), data, len)
    })
}

/// Sets a property of one path segment.
#[inline]
pub(crate) fn set_property(name: &str, value: &str) {
    // SAFETY: both are live slices.
    unsafe { proxy_set_property(name.as_ptr(), name.len(), value.as_ptr(), value.len()) };
}

/// Answers the request in the upstream's place; `headers` is a serialised map.
pub(crate) fn send_local_response(status: u32, headers: &[u8], body: &str) {
    const NOT_GRPC: i32 = -1;
    let (h, hl) = (headers.as_ptr(), headers.len());
    // SAFETY: all are live slices; details of no length are never read.
    unsafe {
        proxy_send_local_response(
            status,
            ptr::null(),
            0,
            body.as_ptr(),
            body.len(),
            h,
            hl,
            NOT_GRPC,
        )
    };
}

/// Nanoseconds since 1970.
#[inline]
pub(crate) fn now() -> u64 {
    let mut time = 0;
    // SAFETY: the pointer is to a live local.
    unsafe { proxy_get_current_time_nanoseconds(&mut time) };
    time
}

/// A counter of the host.
#[derive(Clone, Copy)]
pub(crate) struct Counter(u32);

/// A histogram of the host.
#[derive(Clone, Copy)]
pub(crate) struct Histogram(u32);

fn define(kind: u32, name: &str) -> Option<u32> {
    let mut id = 0;
    // SAFETY: the name is a live slice and the pointer is to a live local.
    let status = unsafe { proxy_define_metric(kind, name.as_ptr(), name.len(), &mut id) };
    (status == 0).then_some(id)
}

impl Counter {
    pub(crate) fn define(name: &str) -> Option<Self> {
        define(0, name).map(Self)
    }

    #[inline]
    pub(crate) fn add_one(self) {
        // SAFETY: no pointers.
        unsafe { proxy_increment_metric(self.0, 1) };
    }
}

impl Histogram {
    pub(crate) fn define(name: &str) -> Option<Self> {
        define(2, name).map(Self)
    }

    #[inline]
    pub(crate) fn record(self, value: u64) {
        // SAFETY: no pointers.
        unsafe { proxy_record_metric(self.0, value) };
    }
}

/// Reads a request header at most once while rules that follow each other ask for the same one.
#[derive(Default)]
pub(crate) struct Lookup<'a> {
    last: Option<(&'a str, Option<&'a [u8]>)>,
}

impl<'a> Lookup<'a> {
    #[inline]
    pub(crate) fn get(&mut self, name: &'a str) -> Option<&'a [u8]> {
        match self.last {
            Some((last, value)) if last == name => value,
            _ => {
                let value = request_header(name);
                self.last = Some((name, value));
                value
            }
        }
    }
}
