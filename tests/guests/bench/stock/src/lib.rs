//! One of four filters on the unmodified `proxy-wasm` crate, chosen by a feature, written as that crate's users write
//! them. `../lean` does the same without the crate; the host's benchmarks compare the two.

use proxy_wasm::traits::RootContext;

#[cfg(feature = "fault")]
mod fault;
#[cfg(feature = "policy")]
mod policy;
#[cfg(feature = "router")]
mod router;
#[cfg(feature = "telemetry")]
mod telemetry;

proxy_wasm::main! {{
    proxy_wasm::set_root_context(|_| root());
}}

fn root() -> Box<dyn RootContext> {
    #[cfg(feature = "policy")]
    return Box::new(policy::Root::default());
    #[cfg(feature = "fault")]
    return Box::new(fault::Root::default());
    #[cfg(feature = "router")]
    return Box::new(router::Root::default());
    #[cfg(feature = "telemetry")]
    return Box::new(telemetry::Root::default());
}

#[cfg(any(feature = "policy", feature = "router"))]
mod lookup {
    use proxy_wasm::traits::HttpContext;

    /// Reads a request header at most once while rules that follow each other ask for the same one.
    #[derive(Default)]
    pub(crate) struct Lookup<'a> {
        last: Option<(&'a str, Option<String>)>,
    }

    impl<'a> Lookup<'a> {
        pub(crate) fn get(&mut self, stream: &impl HttpContext, name: &'a str) -> Option<&str> {
            if self.last.as_ref().is_none_or(|(last, _)| *last != name) {
                self.last = Some((name, stream.get_http_request_header(name)));
            }
            self.last.as_ref().and_then(|(_, value)| value.as_deref())
        }
    }
}
