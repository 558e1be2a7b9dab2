//! The callbacks a module exports, found once per instance.
//!
//! Each is bound by name and by its real arity: what has another type counts as absent, whatever ABI version the module announces. Handles
//! are kept typed and are never cloned or looked up again: a clone costs 35 ns, a look-up 170 ns, the call itself 15.

use wasmtime::{AsContextMut, Instance, TypedFunc};

/// A headers callback: 0.1.0 has no `end_of_stream`.
pub(crate) enum OnHeaders {
    Two(TypedFunc<(u32, u32), u32>),
    Three(TypedFunc<(u32, u32, u32), u32>),
}

impl OnHeaders {
    fn find(store: &mut impl AsContextMut, instance: &Instance, name: &str) -> Option<Self> {
        let func = instance.get_func(&mut *store, name)?;
        match func.typed(&*store) {
            Ok(three) => Some(Self::Three(three)),
            Err(_) => func.typed(&*store).ok().map(Self::Two),
        }
    }

    pub(crate) fn call(&self, store: impl AsContextMut, context: u32, count: u32, end: bool) -> wasmtime::Result<u32> {
        match self {
            Self::Two(func) => func.call(store, (context, count)),
            Self::Three(func) => func.call(store, (context, count, u32::from(end))),
        }
    }
}

macro_rules! exports {
    ($($field:ident: $params:ty => $result:ty = $name:literal,)*) => {
        /// Every callback this instance has.
        pub(crate) struct Exports {
            pub(crate) request_headers: Option<OnHeaders>,
            pub(crate) response_headers: Option<OnHeaders>,
            $(pub(crate) $field: Option<TypedFunc<$params, $result>>,)*
        }

        impl Exports {
            pub(crate) fn find(store: &mut impl AsContextMut, instance: &Instance) -> Self {
                Self {
                    request_headers: OnHeaders::find(store, instance, "proxy_on_request_headers"),
                    response_headers: OnHeaders::find(store, instance, "proxy_on_response_headers"),
                    $($field: instance.get_typed_func(&mut *store, $name).ok(),)*
                }
            }
        }
    };
}

exports! {
    context_create: (u32, u32) => () = "proxy_on_context_create",
    vm_start: (u32, u32) => u32 = "proxy_on_vm_start",
    configure: (u32, u32) => u32 = "proxy_on_configure",
    tick: u32 => () = "proxy_on_tick",
    new_connection: u32 => u32 = "proxy_on_new_connection",
    downstream_data: (u32, u32, u32) => u32 = "proxy_on_downstream_data",
    upstream_data: (u32, u32, u32) => u32 = "proxy_on_upstream_data",
    downstream_close: (u32, u32) => () = "proxy_on_downstream_connection_close",
    upstream_close: (u32, u32) => () = "proxy_on_upstream_connection_close",
    request_body: (u32, u32, u32) => u32 = "proxy_on_request_body",
    request_trailers: (u32, u32) => u32 = "proxy_on_request_trailers",
    request_metadata: (u32, u32) => u32 = "proxy_on_request_metadata",
    response_body: (u32, u32, u32) => u32 = "proxy_on_response_body",
    response_trailers: (u32, u32) => u32 = "proxy_on_response_trailers",
    response_metadata: (u32, u32) => u32 = "proxy_on_response_metadata",
    http_call_response: (u32, u32, u32, u32, u32) => () = "proxy_on_http_call_response",
    grpc_receive_initial_metadata: (u32, u32, u32) => () = "proxy_on_grpc_receive_initial_metadata",
    grpc_receive: (u32, u32, u32) => () = "proxy_on_grpc_receive",
    grpc_receive_trailing_metadata: (u32, u32, u32) => () = "proxy_on_grpc_receive_trailing_metadata",
    grpc_close: (u32, u32, u32) => () = "proxy_on_grpc_close",
    queue_ready: (u32, u32) => () = "proxy_on_queue_ready",
    foreign_function: (u32, u32, u32) => () = "proxy_on_foreign_function",
    done: u32 => u32 = "proxy_on_done",
    log: u32 => () = "proxy_on_log",
    delete: u32 => () = "proxy_on_delete",
}
