//! Routes and delays: what only Weir's core can do for a filter. Each says so where the host cannot.

use std::time::Duration;

use crate::abi::{self, Side, Status};
use crate::{Flow, Refusal, Stream};

/// A route action that the core knows: forward, redirect or respond, with everything about it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Route(u32);

impl Route {
    /// Defines an action, at configuration: a `RouteAction` of `weir.config.v1`, as protobuf, or as JSON.
    ///
    /// # Errors
    /// When the action is refused, or this host has no routes to define.
    pub fn define(action: &[u8]) -> Result<Self, Refusal> {
        match abi::foreign("weir.route.define", action) {
            Ok(number) => number.try_into().map(|number| Self(u32::from_le_bytes(number))).map_err(|_| Refusal::from(Status::Other(0))),
            Err(Status::NotFound | Status::Unimplemented) => {
                Err(Refusal::new("this host cannot choose routes for a filter (`weir.route.define`)"))
            }
            Err(Status::BadArgument) => Err(refusal(action)),
            Err(other) => Err(other.into()),
        }
    }
}

/// Why the host refuses an action: `forward.clusters[0].name: …`.
fn refusal(action: &[u8]) -> Refusal {
    let said = abi::foreign("weir.route.refusal", action).ok().and_then(|said| std::str::from_utf8(said).ok());
    match said.and_then(|said| said.split_once(": ")) {
        // A path has no spaces; a cause without a path may have a colon.
        Some((field, cause)) if !field.contains(' ') => Refusal::at(field, cause),
        _ => Refusal::new(said.unwrap_or("the host refused the route action; its log says why")),
    }
}

impl<S: 'static> Stream<'_, S> {
    /// Chooses what the core does with the request.
    ///
    /// # Errors
    /// When the host refuses it.
    pub fn select(&self, route: Route) -> Result<(), Status> {
        abi::foreign("weir.route.select", &route.0.to_le_bytes()).map(|_| ())
    }

    /// Holds the stream for a while, and then lets it go on by itself.
    pub fn delay(&self, time: Duration) -> Flow {
        let millis = u32::try_from(time.as_millis()).unwrap_or(u32::MAX);
        match abi::foreign("weir.stream.delay", &millis.to_le_bytes()) {
            Ok(_) => Flow::Pause,
            Err(status) => {
                crate::error!("the stream is not delayed: {status}");
                Flow::Continue
            }
        }
    }

    /// Lets the request go on that an earlier callback paused.
    ///
    /// # Errors
    /// When it is not paused, or gone.
    pub fn resume_request(&self) -> Result<(), Status> {
        abi::resume(Side::Request)
    }

    /// Lets the response go on that an earlier callback paused.
    ///
    /// # Errors
    /// When it is not paused, or gone.
    pub fn resume_response(&self) -> Result<(), Status> {
        abi::resume(Side::Response)
    }
}
