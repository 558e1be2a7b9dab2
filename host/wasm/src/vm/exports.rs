//! The callbacks a module exports, each found when it is first called and kept from then on.
//!
//! Each is bound by name and by its real arity: what has another type counts as absent, whatever ABI version the module announces. Handles
//! are kept typed and are never cloned or looked up again: a clone costs 35 ns, a look-up 170 ns, the call itself 15. They are found late
//! because most requests meet a third of them, and a fresh instance should not pay for the rest.

use std::cell::OnceCell;

use wasmtime::{AsContextMut, Instance, TypedFunc, WasmParams, WasmResults};

/// A callback, once it has been looked for.
pub(crate) struct Export<F>(OnceCell<Option<F>>);

impl<F> Default for Export<F> {
    fn default() -> Self {
        Self(OnceCell::new())
    }
}

/// What a callback is bound to.
pub(crate) trait Bind: Sized {
    /// The export of this name, if it exists with the right type.
    fn bind(store: &mut impl AsContextMut, instance: &Instance, name: &str) -> Option<Self>;
}

impl<F: Bind> Export<F> {
    /// The callback; `None` if this instance has none.
    #[inline]
    pub(crate) fn get(&self, store: &mut impl AsContextMut, instance: &Instance, name: &str) -> Option<&F> {
        match self.0.get() {
            Some(found) => found.as_ref(),
            None => self.find(store, instance, name),
        }
    }

    #[cold]
    fn find(&self, store: &mut impl AsContextMut, instance: &Instance, name: &str) -> Option<&F> {
        self.0.get_or_init(|| F::bind(store, instance, name)).as_ref()
    }
}

impl<P: WasmParams, R: WasmResults> Bind for TypedFunc<P, R> {
    fn bind(store: &mut impl AsContextMut, instance: &Instance, name: &str) -> Option<Self> {
        instance.get_typed_func(&mut *store, name).ok()
    }
}

/// A headers callback: 0.1.0 has no `end_of_stream`.
pub(crate) enum OnHeaders {
    Two(TypedFunc<(u32, u32), u32>),
    Three(TypedFunc<(u32, u32, u32), u32>),
}

impl Bind for OnHeaders {
    fn bind(store: &mut impl AsContextMut, instance: &Instance, name: &str) -> Option<Self> {
        let func = instance.get_func(&mut *store, name)?;
        match func.typed(&*store) {
            Ok(three) => Some(Self::Three(three)),
            Err(_) => func.typed(&*store).ok().map(Self::Two),
        }
    }
}

impl OnHeaders {
    pub(crate) fn call(&self, store: impl AsContextMut, context: u32, count: u32, end: bool) -> wasmtime::Result<u32> {
        match self {
            Self::Two(func) => func.call(store, (context, count)),
            Self::Three(func) => func.call(store, (context, count, u32::from(end))),
        }
    }
}

/// Every callback there is. [`crate::module::callbacks::Callback`] names their exports.
#[derive(Default)]
pub(crate) struct Exports {
    pub(crate) request_headers: Export<OnHeaders>,
    pub(crate) response_headers: Export<OnHeaders>,
    pub(crate) context_create: Export<TypedFunc<(u32, u32), ()>>,
    pub(crate) vm_start: Export<TypedFunc<(u32, u32), u32>>,
    pub(crate) configure: Export<TypedFunc<(u32, u32), u32>>,
    pub(crate) tick: Export<TypedFunc<u32, ()>>,
    pub(crate) new_connection: Export<TypedFunc<u32, u32>>,
    pub(crate) downstream_data: Export<TypedFunc<(u32, u32, u32), u32>>,
    pub(crate) upstream_data: Export<TypedFunc<(u32, u32, u32), u32>>,
    pub(crate) downstream_close: Export<TypedFunc<(u32, u32), ()>>,
    pub(crate) upstream_close: Export<TypedFunc<(u32, u32), ()>>,
    pub(crate) request_body: Export<TypedFunc<(u32, u32, u32), u32>>,
    pub(crate) request_trailers: Export<TypedFunc<(u32, u32), u32>>,
    pub(crate) request_metadata: Export<TypedFunc<(u32, u32), u32>>,
    pub(crate) response_body: Export<TypedFunc<(u32, u32, u32), u32>>,
    pub(crate) response_trailers: Export<TypedFunc<(u32, u32), u32>>,
    pub(crate) response_metadata: Export<TypedFunc<(u32, u32), u32>>,
    pub(crate) http_call_response: Export<TypedFunc<(u32, u32, u32, u32, u32), ()>>,
    pub(crate) grpc_receive_initial_metadata: Export<TypedFunc<(u32, u32, u32), ()>>,
    pub(crate) grpc_receive: Export<TypedFunc<(u32, u32, u32), ()>>,
    pub(crate) grpc_receive_trailing_metadata: Export<TypedFunc<(u32, u32, u32), ()>>,
    pub(crate) grpc_close: Export<TypedFunc<(u32, u32, u32), ()>>,
    pub(crate) queue_ready: Export<TypedFunc<(u32, u32), ()>>,
    pub(crate) foreign_function: Export<TypedFunc<(u32, u32, u32), ()>>,
    pub(crate) done: Export<TypedFunc<u32, u32>>,
    pub(crate) log: Export<TypedFunc<u32, ()>>,
    pub(crate) delete: Export<TypedFunc<u32, ()>>,
}
