//! The callbacks of the ABI, and which of them a module can be called with.
//!
//! What always holds: a callback is bound by its name *and* its real signature. An export with the
//! name and another signature counts as absent; the ABI version a module claims is never used to
//! guess an arity, because real modules claim 0.1.0 and export the later three-argument forms.
//!
//! What it deliberately does not do: it calls nothing. Vendor callbacks whose host function answers
//! UNIMPLEMENTED (`proxy_on_redis_call_response`, `envoy_on_resolve_dns`) are not in the table, as
//! nothing could ever cause them.

use std::fmt;

/// What a callback serves.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum Serves {
    /// Root contexts, or every context alike.
    Any,
    /// HTTP streams.
    Http,
    /// TCP streams.
    Tcp,
}

/// One callback as the ABI describes it. Every parameter and result is an `i32`.
#[derive(Debug)]
pub(crate) struct Spec {
    pub(crate) name: &'static str,
    /// The numbers of parameters it may have, the current one first.
    pub(crate) arities: &'static [u8],
    pub(crate) returns: bool,
    pub(crate) serves: Serves,
}

impl fmt::Display for Spec {
    /// The signatures that would be accepted.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let result = if self.returns { "i32" } else { "()" };
        for (i, arity) in self.arities.iter().enumerate() {
            f.write_str(if i > 0 { " or " } else { "" })?;
            write!(
                f,
                "({}) -> {result}",
                vec!["i32"; usize::from(*arity)].join(", ")
            )?;
        }
        Ok(())
    }
}

macro_rules! callbacks {
    ($($(#[$doc:meta])* $variant:ident $name:literal $arities:tt $returns:literal $serves:ident;)*) => {
        /// A callback a module may export.
        #[derive(Clone, Copy, Debug, Eq, PartialEq)]
        pub enum Callback {
            $(#[doc = concat!("`", $name, "`")] $variant,)*
        }

        impl Callback {
            /// Every callback, in the order of the enum.
            pub const ALL: &[Callback] = &[$(Callback::$variant,)*];
        }

        /// Indexed by `Callback as usize`: both come out of the same rows.
        const SPECS: [Spec; Callback::ALL.len()] = [
            $(Spec { name: $name, arities: &$arities, returns: $returns, serves: Serves::$serves },)*
        ];
    };
}

// Variant, export, accepted arities (the current one first), returns an i32, serves.
callbacks! {
    ContextCreate "proxy_on_context_create" [2] false Any;
    VmStart "proxy_on_vm_start" [2] true Any;
    ValidateConfiguration "proxy_validate_configuration" [2] true Any;
    Configure "proxy_on_configure" [2] true Any;
    Tick "proxy_on_tick" [1] false Any;
    NewConnection "proxy_on_new_connection" [1] true Tcp;
    DownstreamData "proxy_on_downstream_data" [3] true Tcp;
    UpstreamData "proxy_on_upstream_data" [3] true Tcp;
    DownstreamClose "proxy_on_downstream_connection_close" [2] false Tcp;
    UpstreamClose "proxy_on_upstream_connection_close" [2] false Tcp;
    RequestHeaders "proxy_on_request_headers" [3, 2] true Http;
    RequestBody "proxy_on_request_body" [3] true Http;
    RequestTrailers "proxy_on_request_trailers" [2] true Http;
    RequestMetadata "proxy_on_request_metadata" [2] true Http;
    ResponseHeaders "proxy_on_response_headers" [3, 2] true Http;
    ResponseBody "proxy_on_response_body" [3] true Http;
    ResponseTrailers "proxy_on_response_trailers" [2] true Http;
    ResponseMetadata "proxy_on_response_metadata" [2] true Http;
    HttpCallResponse "proxy_on_http_call_response" [5] false Any;
    GrpcInitialMetadata "proxy_on_grpc_receive_initial_metadata" [3] false Any;
    GrpcReceive "proxy_on_grpc_receive" [3] false Any;
    GrpcTrailingMetadata "proxy_on_grpc_receive_trailing_metadata" [3] false Any;
    GrpcClose "proxy_on_grpc_close" [3] false Any;
    QueueReady "proxy_on_queue_ready" [2] false Any;
    ForeignFunction "proxy_on_foreign_function" [3] false Any;
    Done "proxy_on_done" [1] true Any;
    Log "proxy_on_log" [1] false Any;
    Delete "proxy_on_delete" [1] false Any;
}

impl Callback {
    pub(crate) fn spec(self) -> &'static Spec {
        &SPECS[self as usize]
    }

    /// The export's name.
    #[must_use]
    pub fn name(self) -> &'static str {
        self.spec().name
    }

    /// Whether it returns an `i32` (an action or a bool).
    #[must_use]
    pub fn returns(self) -> bool {
        self.spec().returns
    }

    /// What it serves.
    #[must_use]
    pub fn serves(self) -> Serves {
        self.spec().serves
    }
}

/// The callbacks one module can be called with, each with its real number of parameters.
#[derive(Clone, Copy, Debug, Default, Eq, PartialEq)]
pub struct Callbacks {
    // 0 is "absent": no callback of the ABI takes no parameter.
    arities: [u8; Callback::ALL.len()],
}

impl Callbacks {
    pub(crate) fn bind(&mut self, callback: Callback, arity: u8) {
        self.arities[callback as usize] = arity;
    }

    /// How many parameters the module's `callback` takes; `None` when it cannot be called.
    #[must_use]
    pub fn arity(&self, callback: Callback) -> Option<u8> {
        Some(self.arities[callback as usize]).filter(|arity| *arity > 0)
    }

    /// The callbacks that can be called.
    pub fn iter(&self) -> impl Iterator<Item = Callback> + '_ {
        Callback::ALL
            .iter()
            .copied()
            .filter(|callback| self.arity(*callback).is_some())
    }

    /// Which kinds of streams have callbacks here. Neither means a root-only module.
    #[must_use]
    pub fn streams(&self) -> Streams {
        Streams {
            http: self
                .iter()
                .any(|callback| callback.serves() == Serves::Http),
            tcp: self.iter().any(|callback| callback.serves() == Serves::Tcp),
        }
    }
}

/// The kinds of streams a module has callbacks for.
///
/// This is an upper bound: stock SDKs export every callback whatever the filter does with it. The
/// probe after configuration is what tells.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub struct Streams {
    /// HTTP streams.
    pub http: bool,
    /// TCP streams.
    pub tcp: bool,
}

impl Streams {
    /// Whether the module serves no stream at all: ticks, queues and callouts only.
    #[must_use]
    pub fn root_only(self) -> bool {
        !self.http && !self.tcp
    }
}
