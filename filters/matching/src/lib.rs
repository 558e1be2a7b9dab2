//! What the standard filters match requests with, so that `prefix`, `ignoreCase` or a CIDR mean the same in all of them.
//!
//! Configuration types (`…Match`) are what an operator writes; each compiles to what a request is held against, or to a refusal that names its field.
//!
//! What always holds: matching allocates nothing but what a header's lookup costs; it takes time linear in the text, regular expressions included; a text
//! that is no UTF-8 is compared as bytes, and never panics. What it does not do: normalise paths; the core did that before any filter saw them.

mod address;
mod reading;
mod request;
mod template;
mod text;

pub use address::{Address, Cidrs, address_of};
pub use reading::{any_header_reading, any_reading, every_header_reading};
pub use request::{HeaderMatch, QueryMatch, Readings, RequestMatch, RequestMatcher, is_parameter, split_port, split_query};
pub use template::Template;
pub use text::{Text, TextMatch};
