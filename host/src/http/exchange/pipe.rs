//! A request's way through its filters, or past them when there are none.
//!
//! The engine feeds what arrives and takes what may go on, and need not know whether filters run in between. Without filters a piece that is fed
//! is there to be taken at once, and no more is wanted until it was.

use std::cell::{Ref, RefMut};
use std::ops::{Deref, DerefMut};

use bytes::Bytes;
use weir_wasm::{Chain, LocalReply, Output, Side, Stream};

use crate::filter::RequestHost;
use crate::http::fields::Fields;

/// The way through.
pub(super) enum Pipe {
    /// No filters.
    Bare(Box<Bare>),
    /// A chain of filters.
    Filtered(Stream<RequestHost>),
}

pub(super) struct Bare {
    host: RequestHost,
    waiting: [Output; 2],
}

/// The host, to read.
pub(super) enum HostRef<'a> {
    Bare(&'a RequestHost),
    Filtered(Ref<'a, RequestHost>),
}

/// The host, to change. Must not live while filters run.
pub(super) enum HostMut<'a> {
    Bare(&'a mut RequestHost),
    Filtered(RefMut<'a, RequestHost>),
}

impl Deref for HostRef<'_> {
    type Target = RequestHost;
    #[inline]
    fn deref(&self) -> &RequestHost {
        match self {
            Self::Bare(host) => host,
            Self::Filtered(host) => host,
        }
    }
}

impl Deref for HostMut<'_> {
    type Target = RequestHost;
    #[inline]
    fn deref(&self) -> &RequestHost {
        match self {
            Self::Bare(host) => host,
            Self::Filtered(host) => host,
        }
    }
}

impl DerefMut for HostMut<'_> {
    #[inline]
    fn deref_mut(&mut self) -> &mut RequestHost {
        match self {
            Self::Bare(host) => host,
            Self::Filtered(host) => host,
        }
    }
}

impl Pipe {
    pub(super) fn new(chain: Option<&Chain>, host: RequestHost) -> Self {
        match chain {
            Some(chain) => Self::Filtered(Stream::new(chain, host)),
            None => Self::Bare(Box::new(Bare { host, waiting: Default::default() })),
        }
    }

    #[inline]
    pub(super) fn host(&self) -> HostRef<'_> {
        match self {
            Self::Bare(bare) => HostRef::Bare(&bare.host),
            Self::Filtered(stream) => HostRef::Filtered(stream.host()),
        }
    }

    #[inline]
    pub(super) fn host_mut(&mut self) -> HostMut<'_> {
        match self {
            Self::Bare(bare) => HostMut::Bare(&mut bare.host),
            Self::Filtered(stream) => HostMut::Filtered(stream.host_mut()),
        }
    }

    /// The headers of `side` are in the host. `end`: nothing follows.
    #[inline]
    pub(super) fn feed_head(&mut self, side: Side, end: bool) {
        match (self, side) {
            (Self::Bare(bare), _) => {
                let waiting = &mut bare.waiting[side as usize];
                (waiting.head, waiting.end) = (true, end);
            }
            (Self::Filtered(stream), Side::Request) => stream.request_headers(end),
            (Self::Filtered(stream), Side::Response) => stream.response_headers(end),
        }
    }

    /// A piece of a body.
    #[inline]
    pub(super) fn feed_data(&mut self, side: Side, data: Bytes, end: bool) {
        match (self, side) {
            (Self::Bare(bare), _) => {
                let waiting = &mut bare.waiting[side as usize];
                debug_assert!(waiting.data.is_empty(), "fed before the last piece was taken");
                waiting.data = data;
                waiting.end |= end;
            }
            (Self::Filtered(stream), Side::Request) => stream.request_body(data, end),
            (Self::Filtered(stream), Side::Response) => stream.response_body(data, end),
        }
    }

    /// Trailers, which end the message.
    pub(super) fn feed_trailers(&mut self, side: Side, trailers: Box<Fields>) {
        let mut host = self.host_mut();
        match side {
            Side::Request => host.request_trailers = Some(trailers),
            Side::Response => host.response_trailers = Some(trailers),
        }
        drop(host);
        match (self, side) {
            (Self::Bare(bare), _) => bare.waiting[side as usize].trailers = true,
            (Self::Filtered(stream), Side::Request) => stream.request_trailers(),
            (Self::Filtered(stream), Side::Response) => stream.response_trailers(),
        }
    }

    /// What may go on.
    #[inline]
    pub(super) fn take(&mut self, side: Side) -> Output {
        match self {
            Self::Bare(bare) => std::mem::take(&mut bare.waiting[side as usize]),
            Self::Filtered(stream) => stream.take(side),
        }
    }

    /// Whether more of `side` should be fed.
    #[inline]
    pub(super) fn wants(&self, side: Side) -> bool {
        match self {
            Self::Bare(bare) => bare.waiting[side as usize].data.is_empty(),
            Self::Filtered(stream) => stream.wants(side),
        }
    }

    /// The reply of a filter, once there is one.
    pub(super) fn local_reply(&self) -> Option<LocalReply> {
        match self {
            Self::Bare(_) => None,
            Self::Filtered(stream) => stream.local_reply(),
        }
    }

    /// Whether a filter wants the stream to be reset.
    #[inline]
    pub(super) fn is_reset(&self) -> bool {
        match self {
            Self::Bare(_) => false,
            Self::Filtered(stream) => stream.is_reset(),
        }
    }

    /// Lets the filters that choose the action choose again, or go on with that. `false`: one of them waits for something.
    pub(super) fn choose_again(&mut self) -> bool {
        match self {
            Self::Bare(_) => true,
            Self::Filtered(stream) => stream.choose_again(),
        }
    }

    /// Whether one of them does.
    pub(super) fn is_choosing(&self) -> bool {
        match self {
            Self::Bare(_) => false,
            Self::Filtered(stream) => stream.is_choosing(),
        }
    }

    /// Goes on after a wake-up.
    #[inline]
    pub(super) fn resume(&mut self) {
        if let Self::Filtered(stream) = self {
            stream.resume();
        }
    }

    /// Lets a filter's stream go on that was held for it.
    pub(super) fn release(&mut self, binding: &str) {
        if let Self::Filtered(stream) = self {
            stream.release(binding);
        }
    }

    /// Filters see the end.
    #[inline]
    pub(super) fn finish(&mut self) {
        if let Self::Filtered(stream) = self {
            stream.finish();
        }
    }
}
