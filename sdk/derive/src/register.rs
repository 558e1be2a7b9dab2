//! `#[register]`: completes an `impl Filter` and exports it.

use proc_macro2::TokenStream;
use quote::{format_ident, quote};
use syn::{Error, ImplItem, ItemImpl, Result, parse_quote};

/// A phase's method, its callback, and how many arguments the callback has.
const PHASES: [(&str, &str, &str, usize, bool); 13] = [
    ("on_request_headers", "RequestHeaders", "proxy_on_request_headers", 3, true),
    ("on_request_body", "RequestBody", "proxy_on_request_body", 3, true),
    ("on_request_trailers", "RequestTrailers", "proxy_on_request_trailers", 2, true),
    ("on_response_headers", "ResponseHeaders", "proxy_on_response_headers", 3, true),
    ("on_response_body", "ResponseBody", "proxy_on_response_body", 3, true),
    ("on_response_trailers", "ResponseTrailers", "proxy_on_response_trailers", 2, true),
    ("on_connection", "NewConnection", "proxy_on_new_connection", 1, true),
    ("on_downstream_data", "DownstreamData", "proxy_on_downstream_data", 3, true),
    ("on_upstream_data", "UpstreamData", "proxy_on_upstream_data", 3, true),
    ("on_downstream_close", "DownstreamClose", "proxy_on_downstream_connection_close", 2, false),
    ("on_upstream_close", "UpstreamClose", "proxy_on_upstream_connection_close", 2, false),
    ("on_log", "Log", "proxy_on_log", 1, false),
    ("on_queue", "QueueReady", "proxy_on_queue_ready", 2, false),
];

/// What every filter exports.
const ALWAYS: [(&str, &str, usize, bool); 9] = [
    ("ContextCreate", "proxy_on_context_create", 2, false),
    ("Configure", "proxy_on_configure", 2, true),
    ("Tick", "proxy_on_tick", 1, false),
    ("HttpCallResponse", "proxy_on_http_call_response", 5, false),
    ("GrpcInitialMetadata", "proxy_on_grpc_receive_initial_metadata", 3, false),
    ("GrpcTrailingMetadata", "proxy_on_grpc_receive_trailing_metadata", 3, false),
    ("GrpcReceive", "proxy_on_grpc_receive", 3, false),
    ("GrpcClose", "proxy_on_grpc_close", 3, false),
    ("Delete", "proxy_on_delete", 1, false),
];

pub(crate) fn expand(arguments: &TokenStream, item: TokenStream) -> Result<TokenStream> {
    if !arguments.is_empty() {
        return Err(Error::new_spanned(arguments, "`#[register]` takes no arguments"));
    }
    let mut item: ItemImpl = syn::parse2(item)?;
    let is_filter = item.trait_.as_ref().is_some_and(|(_, path, _)| path.segments.last().is_some_and(|last| last.ident == "Filter"));
    if !is_filter {
        return Err(Error::new_spanned(&item.self_ty, "`#[register]` stands on an `impl Filter for …`"));
    }
    complete(&mut item);
    let written: Vec<String> = item
        .items
        .iter()
        .filter_map(|item| if let ImplItem::Fn(function) = item { Some(function.sig.ident.to_string()) } else { None })
        .collect();
    let phases = PHASES.iter().filter(|(method, ..)| written.iter().any(|name| name == method));
    let exported: Vec<_> =
        ALWAYS.into_iter().chain(phases.map(|&(_, callback, export, count, answers)| (callback, export, count, answers))).collect();
    let exports = exported.iter().map(|&(callback, export, count, answers)| one(callback, export, count, answers));
    let callbacks = exported.iter().map(|(callback, ..)| format_ident!("{callback}"));
    let (filter, sections) = (&item.self_ty, sections(&item));
    Ok(quote! {
        #item

        const _: () = {
            ::std::thread_local! {
                static RUNTIME: ::weir_sdk::runtime::Runtime<#filter> = ::core::default::Default::default();
            }

            #sections

            #[cfg(target_arch = "wasm32")]
            #[unsafe(no_mangle)]
            extern "C" fn proxy_abi_version_0_2_1() {}

            #(#exports)*

            #[cfg(not(target_arch = "wasm32"))]
            #[derive(Default)]
            struct Native(::weir_sdk::runtime::Runtime<#filter>);

            #[cfg(not(target_arch = "wasm32"))]
            impl ::weir_sdk::native::Instance for Native {
                fn callbacks(&self) -> &'static [::weir_sdk::native::Callback] {
                    &[#(::weir_sdk::native::Callback::#callbacks),*]
                }

                fn run(&self, callback: ::weir_sdk::native::Callback, arguments: [u32; 5]) -> u32 {
                    self.0.run(callback, arguments)
                }
            }

            #[cfg(not(target_arch = "wasm32"))]
            impl ::weir_sdk::native::Registered for #filter {
                fn instance() -> ::std::boxed::Box<dyn ::weir_sdk::native::Instance> {
                    ::std::boxed::Box::new(Native::default())
                }
            }
        };
    })
}

/// Adds what was not written.
fn complete(item: &mut ItemImpl) {
    let has_type = |item: &ItemImpl, wanted: &str| item.items.iter().any(|item| matches!(item, ImplItem::Type(ty) if ty.ident == wanted));
    let has_configure = item.items.iter().any(|item| matches!(item, ImplItem::Fn(function) if function.sig.ident == "configure"));
    if !has_type(item, "State") {
        item.items.push(parse_quote!(
            type State = ();
        ));
    }
    if !has_type(item, "Config") {
        item.items.push(parse_quote!(
            type Config = Self;
        ));
    }
    if !has_configure {
        item.items.push(parse_quote! {
            fn configure(config: Self::Config, _: &::weir_sdk::Plugin) -> ::core::result::Result<Self, ::weir_sdk::Refusal> {
                ::core::result::Result::Ok(config)
            }
        });
    }
}

fn one(callback: &str, export: &str, count: usize, answers: bool) -> TokenStream {
    let (callback, export) = (format_ident!("{callback}"), format_ident!("{export}"));
    let names: Vec<_> = (0..count).map(|at| format_ident!("argument_{at}")).collect();
    let zeros = (count..5).map(|_| quote!(0));
    let call = quote!(RUNTIME.with(|runtime| runtime.run(::weir_sdk::runtime::Callback::#callback, [#(#names,)* #(#zeros),*])));
    let (result, body) = if answers { (quote!(-> u32), call) } else { (quote!(), quote!(#call;)) };
    quote! {
        #[cfg(target_arch = "wasm32")]
        #[unsafe(no_mangle)]
        extern "C" fn #export(#(#names: u32),*) #result { #body }
    }
}

/// The custom sections: the schema, and who the filter is.
fn sections(item: &ItemImpl) -> TokenStream {
    let filter = &item.self_ty;
    quote! {
        const NODE: ::weir_sdk::schema::Node = <<#filter as ::weir_sdk::Filter>::Config as ::weir_sdk::schema::Schema>::NODE;
        #[cfg(target_arch = "wasm32")]
        #[unsafe(link_section = "weir.schema")]
        #[used]
        static SCHEMA: [u8; ::weir_sdk::schema::length(&NODE)] = ::weir_sdk::schema::render(&NODE);

        const ABOUT: &str = ::core::concat!(
            "{\"name\":\"", ::core::env!("CARGO_PKG_NAME"), "\",\"version\":\"", ::core::env!("CARGO_PKG_VERSION"),
            "\",\"abi\":\"0.2.1\"}",
        );
        #[cfg(target_arch = "wasm32")]
        #[unsafe(link_section = "weir.filter")]
        #[used]
        static FILTER: [u8; ABOUT.len()] = *match ABOUT.as_bytes().first_chunk() {
            ::core::option::Option::Some(bytes) => bytes,
            ::core::option::Option::None => ::core::panic!("as long as itself"),
        };
    }
}
