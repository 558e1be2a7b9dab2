//! Moves bytes between two connections until both directions have ended.

use std::pin::Pin;
use std::task::{Context, Poll};
use std::time::{Duration, Instant};

use bytes::Bytes;
use tokio::io::AsyncWrite;
use weir_wasm::{Close, Side};

use super::host::Filters;
use super::{FILTER_CLOSED, Refusal};
use crate::http::exchange::record::Flags;
use crate::timer::{LazyTimer, earliest};
use crate::wire::Wire;
use crate::worker::Ticket;

/// Why a connection ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum End {
    /// Both sides said all they had to.
    Complete,
    DownstreamBroke,
    UpstreamBroke,
    Idle,
    TooLong,
    /// A filter closed it.
    Filter,
}

impl End {
    /// In words, and in Envoy's flags.
    pub(super) fn explained(self) -> Refusal {
        match self {
            Self::Complete => ("via_upstream", Flags::NONE),
            Self::UpstreamBroke => ("upstream_closed", Flags::UPSTREAM_TERMINATION),
            Self::DownstreamBroke => ("downstream_closed", Flags::DOWNSTREAM_TERMINATION),
            Self::Idle => ("idle_timeout", Flags::STREAM_IDLE_TIMEOUT),
            Self::TooLong => ("max_duration_timeout", Flags::DURATION_TIMEOUT),
            Self::Filter => FILTER_CLOSED,
        }
    }
}

/// Bytes from and to the client.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct Counted {
    pub(super) received: u64,
    pub(super) sent: u64,
}

pub(super) struct Limits {
    pub(super) idle: Option<Duration>,
    pub(super) end: Option<Instant>,
}

/// One direction.
#[derive(Default)]
struct Direction {
    /// What was read and the other side did not take.
    held: Bytes,
    /// The sender has said all.
    read_ended: bool,
    /// The receiver knows.
    write_ended: bool,
    /// The end came through the filters.
    end_out: bool,
}

struct Relay {
    down: Wire,
    up: Wire,
    filters: Option<Filters>,
    directions: [Direction; 2],
    counted: Counted,
    timer: LazyTimer,
    limits: Limits,
    idle_at: Option<Instant>,
}

fn ready<E>(poll: Poll<Result<(), E>>) -> Result<bool, E> {
    match poll {
        Poll::Pending => Ok(false),
        Poll::Ready(result) => result.map(|()| true),
    }
}

/// Runs until the end. Whether a filter has logged the connection comes last.
pub(super) async fn run(down: Wire, up: Wire, filters: Option<Filters>, limits: Limits, ticket: &Ticket) -> (End, Counted, bool) {
    let idle_at = limits.idle.map(|idle| Instant::now() + idle);
    let directions = Default::default();
    let mut relay = Relay { down, up, filters, directions, counted: Counted::default(), timer: LazyTimer::new(), limits, idle_at };
    let end = std::future::poll_fn(|cx| {
        ticket.wait(cx.waker());
        relay.poll(cx)
    })
    .await;
    let logged = relay.finish(end);
    (end, relay.counted, logged)
}

impl Relay {
    fn poll(&mut self, cx: &mut Context<'_>) -> Poll<End> {
        if let Some(filters) = &mut self.filters {
            filters.wake.set_waker(cx.waker());
            if filters.wake.take() {
                filters.stream.resume();
            }
        }
        let mut any = false;
        loop {
            let mut moved = false;
            for side in [Side::Request, Side::Response] {
                match self.step(side, cx) {
                    Ok(step) => moved |= step,
                    Err(end) => return Poll::Ready(end),
                }
            }
            if self.filters.as_ref().is_some_and(|filters| filters.stream.is_reset()) {
                return Poll::Ready(End::Filter);
            }
            any |= moved;
            if !moved {
                break;
            }
        }
        if self.directions.iter().all(|direction| direction.write_ended) {
            return Poll::Ready(End::Complete);
        }
        if any {
            self.idle_at = self.limits.idle.map(|idle| Instant::now() + idle);
        }
        let deadline = earliest(self.idle_at, self.limits.end);
        if self.timer.poll(cx, deadline).is_ready() {
            let too_long = self.limits.end.is_some_and(|end| Instant::now() >= end);
            return Poll::Ready(if too_long { End::TooLong } else { End::Idle });
        }
        Poll::Pending
    }

    /// Moves what can be moved in one direction. Whether anything did.
    fn step(&mut self, side: Side, cx: &mut Context<'_>) -> Result<bool, End> {
        let (from, to, broke, lost) = match side {
            Side::Request => (&mut self.down, &mut self.up, End::DownstreamBroke, End::UpstreamBroke),
            Side::Response => (&mut self.up, &mut self.down, End::UpstreamBroke, End::DownstreamBroke),
        };
        let direction = &mut self.directions[side as usize];
        let mut moved = false;
        let wanted = self.filters.as_ref().is_none_or(|filters| filters.stream.wants(side));
        if !direction.read_ended && direction.held.is_empty() && wanted && from.poll_fill_ready(cx).map_err(|()| broke)? {
            let data = from.input.split().freeze();
            let end = data.is_empty();
            direction.read_ended = end;
            match side {
                Side::Request => self.counted.received += data.len() as u64,
                Side::Response => self.counted.sent += data.len() as u64,
            }
            match (&mut self.filters, side) {
                (None, _) => (direction.held, direction.end_out) = (data, end),
                (Some(filters), Side::Request) => filters.stream.request_body(data, end),
                (Some(filters), Side::Response) => filters.stream.response_body(data, end),
            }
            moved = true;
        }
        if let Some(filters) = &mut self.filters
            && direction.held.is_empty()
        {
            let out = filters.stream.take(side);
            direction.end_out |= out.end;
            moved |= !out.data.is_empty();
            direction.held = out.data;
        }
        if !direction.held.is_empty() && ready(to.poll_ready(cx)).map_err(|_| lost)? {
            to.push(std::mem::take(&mut direction.held));
            moved = true;
        }
        let flushed = ready(to.poll_flush(cx)).map_err(|_| lost)?;
        if direction.end_out && !direction.write_ended && direction.held.is_empty() && flushed {
            match Pin::new(&mut to.io).poll_shutdown(cx) {
                Poll::Pending => {}
                // A peer that is gone already needs no farewell.
                Poll::Ready(_) => {
                    direction.write_ended = true;
                    moved = true;
                }
            }
        }
        Ok(moved)
    }

    /// Filters see the end.
    fn finish(&mut self, end: End) -> bool {
        let Some(filters) = &mut self.filters else { return false };
        let [request, response] = &self.directions;
        let by = |ended: bool, broke: bool| if ended || broke { Close::Remote } else { Close::Local };
        filters.stream.connection_closed(Side::Request, by(request.read_ended, end == End::DownstreamBroke));
        filters.stream.connection_closed(Side::Response, by(response.read_ended, end == End::UpstreamBroke));
        filters.end(end.explained(), self.counted)
    }
}
