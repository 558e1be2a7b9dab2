//! One HTTP request as its filters see it: the header maps, the attributes, and what filters ask of the core.

use std::borrow::Cow;
use std::net::IpAddr;
use std::rc::Rc;
use std::sync::Arc;
use std::task::Waker;
use std::time::{Duration, Instant, SystemTime};

use weir_model::config::route_filter::State;
use weir_wasm::{Attribute, Foreign, Headers, LocalReply, MessageMap, Path, PerRoute, Side, StreamHost};

use super::attributes;
use crate::http::Connection;
use crate::http::exchange::record::{Details, Flags, Record};
use crate::http::fields::{Fields, Known};
use crate::http::service::HttpService;
use crate::route::Action;

/// A request, its response, and what is known about both.
#[derive(Debug)]
pub struct RequestHost {
    /// Request headers.
    pub request: Fields,
    /// Request trailers, once there are any.
    pub request_trailers: Option<Box<Fields>>,
    /// Response headers.
    pub response: Fields,
    /// Whether there are any yet.
    pub has_response: bool,
    /// Response trailers, once there are any.
    pub response_trailers: Option<Box<Fields>>,
    /// Where the request came from.
    pub connection: Rc<Connection>,
    /// Who sent it: the peer, or who trusted proxies say.
    pub client: Option<IpAddr>,
    /// For logs and counters.
    pub record: Record,
    /// What serves it.
    pub service: Rc<HttpService>,
    /// The action that a filter chose.
    pub chosen: Option<Arc<Action>>,
    /// A filter asked for the route to be chosen again, and nobody has since.
    pub route_cleared: bool,
    /// A filter has logged it, or left it out on purpose.
    pub logged: bool,
    /// Which filters asked to hold the stream, and until when.
    delays: Vec<(Instant, Box<str>)>,
    waker: Option<Waker>,
    woken: bool,
}

impl RequestHost {
    /// A request whose headers are there.
    #[must_use]
    pub fn new(request: Fields, response: Fields, connection: Rc<Connection>, service: Rc<HttpService>, record: Record) -> Self {
        Self {
            request,
            request_trailers: None,
            response,
            has_response: false,
            response_trailers: None,
            connection,
            client: None,
            record,
            service,
            chosen: None,
            route_cleared: false,
            logged: false,
            delays: Vec::new(),
            waker: None,
            woken: false,
        }
    }

    /// When the first of the filters that hold the stream lets it go.
    #[must_use]
    pub fn next_delay(&self) -> Option<Instant> {
        self.delays.iter().map(|(until, _)| *until).min()
    }

    /// The binding of a filter whose delay is over.
    pub fn delay_over(&mut self, now: Instant) -> Option<Box<str>> {
        let at = self.delays.iter().position(|(until, _)| *until <= now)?;
        Some(self.delays.swap_remove(at).1)
    }

    /// What is done with the request, as things stand.
    #[must_use]
    pub fn action(&self) -> &Arc<Action> {
        self.chosen.as_ref().unwrap_or(&self.service.config.default_action)
    }

    /// Says that the protocol is switched in the words of the client's version of HTTP, whatever the upstream's were.
    pub fn switch(&mut self) {
        if self.request.has(Known::Protocol) {
            self.response.set_status(200);
            self.response.remove_known(Known::Upgrade);
        } else if let Some(protocol) = self.request.get_known(Known::Upgrade) {
            self.response.set_status(101);
            self.response.set_known(Known::Upgrade, protocol);
        }
    }

    /// Remembers whom to wake.
    #[inline]
    pub fn set_waker(&mut self, waker: &Waker) {
        match &self.waker {
            Some(known) if known.will_wake(waker) => {}
            _ => self.waker = Some(waker.clone()),
        }
    }

    /// Whether a filter asked to be resumed since the last call.
    #[inline]
    pub fn take_woken(&mut self) -> bool {
        std::mem::take(&mut self.woken)
    }
}

impl StreamHost for RequestHost {
    #[inline]
    fn headers(&mut self, map: MessageMap) -> Option<&mut dyn Headers> {
        match map {
            MessageMap::RequestHeaders => Some(&mut self.request),
            MessageMap::RequestTrailers => self.request_trailers.as_deref_mut().map(|fields| fields as &mut dyn Headers),
            MessageMap::ResponseHeaders => self.has_response.then_some(&mut self.response as &mut dyn Headers),
            MessageMap::ResponseTrailers => self.response_trailers.as_deref_mut().map(|fields| fields as &mut dyn Headers),
        }
    }

    fn make_trailers(&mut self, side: Side) -> Option<&mut dyn Headers> {
        let trailers = match side {
            Side::Request => &mut self.request_trailers,
            Side::Response => &mut self.response_trailers,
        };
        Some(&mut **trailers.get_or_insert_default())
    }

    fn attribute(&self, path: Path<'_>) -> Option<Attribute<'_>> {
        attributes::of_request(self, path)
    }

    fn set_attribute(&mut self, path: Path<'_>, value: &[u8]) -> bool {
        let is_decision = path.as_bytes() == b"weir.decision";
        if is_decision {
            self.record.decision = std::str::from_utf8(value).ok().map(Into::into);
        }
        is_decision
    }

    fn logged(&mut self) {
        self.logged = true;
    }

    fn start_local_reply(&mut self, reply: &LocalReply) {
        self.response.clear();
        self.response.set_status(reply.status);
        for (name, value) in &reply.headers {
            self.response.push(name, value);
        }
        self.has_response = true;
        self.response_trailers = None;
        self.record.flags = self.record.flags.with(Flags::FILTER_REPLY);
        self.record.details = Details::Made(reply.details.as_str().into());
        if !reply.body.is_empty() && !self.response.has(Known::ContentType) {
            self.response.push_known(Known::ContentType, b"text/plain");
        }
    }

    fn wake(&mut self) {
        self.woken = true;
        if let Some(waker) = &self.waker {
            waker.wake_by_ref();
        }
    }

    fn clear_route_cache(&mut self) {
        self.route_cleared = true;
        self.chosen = None;
    }

    fn per_route(&self, name: &str, disabled: bool) -> PerRoute<'_> {
        let by_default = if disabled { PerRoute::Off } else { PerRoute::AsConfigured };
        let filters = &self.action().filters;
        // Most actions name none.
        let Some(filter) = (!filters.is_empty()).then(|| filters.get(name)).flatten() else { return by_default };
        let runs = match filter.state() {
            State::Default => !disabled,
            State::Enabled => true,
            State::Disabled => false,
        };
        match filter.variant.as_str() {
            _ if !runs => PerRoute::Off,
            "" => PerRoute::AsConfigured,
            variant => PerRoute::Variant(variant),
        }
    }

    fn foreign(&mut self, binding: &str, name: &str, arguments: &[u8]) -> Foreign {
        match name {
            "weir.route.select" => match self.service.action(binding, arguments) {
                Some(action) => {
                    self.chosen = Some(action);
                    self.route_cleared = false;
                    Foreign::Done(Vec::new())
                }
                None => Foreign::BadArgument,
            },
            "weir.stream.delay" => match arguments.try_into().map(u32::from_le_bytes) {
                Ok(millis) => {
                    self.delays.push((Instant::now() + Duration::from_millis(u64::from(millis)), binding.into()));
                    self.wake();
                    Foreign::Done(Vec::new())
                }
                Err(_) => Foreign::BadArgument,
            },
            _ => Foreign::Unknown,
        }
    }

    fn log_id(&self) -> &str {
        self.request.get_known(Known::XRequestId).and_then(|id| std::str::from_utf8(id).ok()).unwrap_or_default()
    }
}

/// Nanoseconds since the Unix epoch at the moment of `started`.
pub(crate) fn wall_nanos(record: &Record) -> i64 {
    let wall = record.started_wall.unwrap_or_else(|| SystemTime::now() - record.started.elapsed());
    wall.duration_since(SystemTime::UNIX_EPOCH).map_or(0, |since| i64::try_from(since.as_nanos()).unwrap_or(i64::MAX))
}

/// Bytes as an attribute.
pub(super) fn bytes(value: &[u8]) -> Option<Attribute<'_>> {
    Some(Attribute::Bytes(Cow::Borrowed(value)))
}
