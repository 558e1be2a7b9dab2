//! The macros of `weir-sdk`; use them through that crate.
//!
//! `#[config]` makes a type readable and describes it; `#[register]` exports a filter. Both only write what their author could have written by hand, and
//! say where in the author's code something is wrong.

mod config;
mod register;

use proc_macro::TokenStream;

/// Makes a struct or enum part of a configuration: deserialised with every unknown field refused, names in camel case, and described as JSON Schema.
///
/// serde's `rename`, `rename_all`, `default` and `skip` are understood. Doc comments become the schema's descriptions.
#[proc_macro_attribute]
pub fn config(arguments: TokenStream, item: TokenStream) -> TokenStream {
    config::expand(arguments.into(), item.into()).unwrap_or_else(syn::Error::into_compile_error).into()
}

/// Registers a filter: stands on its `impl Filter for …`. One per module.
///
/// Fills in what is not written of `Config`, `State` and `configure`, exports the phases that are, and embeds the configuration's schema and the filter's
/// name, version and capabilities into the module.
#[proc_macro_attribute]
pub fn register(arguments: TokenStream, item: TokenStream) -> TokenStream {
    register::expand(&arguments.into(), item.into()).unwrap_or_else(syn::Error::into_compile_error).into()
}
