//! Sends a request where its action says: cluster, endpoint, connection, and again if need be.

use std::rc::Rc;
use std::sync::Arc;
use std::task::{Context, Poll};
use std::time::Duration;

use bytes::Bytes;
use smallvec::SmallVec;
use weir_wasm::{Output, Side};

use super::failure::Failure;
use super::record::Flags;
use super::{BodyLength, Downstream, Exchange, body_length, next_data, variables};
use crate::filter::RequestHost;
use crate::http::fields::{Fields, Known};
use crate::http::{Outgoing, Upstream};
use crate::route::{Action, Forward, HostSource, Kind, Target};
use crate::upstream::balancer::{PickContext, Unavailable};
use crate::upstream::pool::{Attempt, ConnectError, Connecting, Lease, Leased, WorkerCluster};
use crate::upstream::retry::{self, Decision, RequestFacts, ResponseView};
use crate::upstream::{EndpointId, HashInput, Nanos, Outcome, Permit, SubsetId};

/// How often filters may clear and choose an action before the request is given up.
const MOST_ROUNDS: u32 = 4;

/// Where a request goes.
pub(super) struct Route {
    action: Arc<Action>,
    /// Index of the action's target; none when a header named the cluster.
    target: Option<usize>,
    cluster: Rc<WorkerCluster>,
    hash: Option<u64>,
    /// A `set-cookie` value that a hash policy made.
    cookie: Option<String>,
    tries: Tries,
    replay: Replay,
    /// The endpoint of the try that waits for its connection.
    connecting: Option<(Attempt, Connecting)>,
    /// The try that has its connection.
    pub(super) attempt: Option<Try>,
    upgrade: bool,
    mirrored: bool,
}

/// One try.
pub(super) struct Try {
    pub(super) lease: Lease,
    attempt: Attempt,
}

/// What was tried.
#[derive(Default)]
pub(super) struct Tries {
    endpoints: SmallVec<[EndpointId; 4]>,
    priorities: u64,
    count: u32,
    /// Held while a retry is in progress.
    permit: Option<Permit>,
}

/// The request's body as far as it was sent, for another try.
struct Replay {
    limit: usize,
    chunks: Vec<Bytes>,
    size: usize,
    /// Too much was sent for another try.
    lost: bool,
    trailers: bool,
    end: bool,
}

impl Replay {
    fn new(limit: usize) -> Self {
        Self { limit, chunks: Vec::new(), size: 0, lost: false, trailers: false, end: false }
    }

    #[inline]
    fn keep(&mut self, data: &Bytes, trailers: bool, end: bool) {
        self.trailers |= trailers;
        self.end |= end;
        if data.is_empty() || self.lost {
            return;
        }
        self.size += data.len();
        if self.size > self.limit {
            self.lost = true;
            self.chunks = Vec::new();
        } else {
            self.chunks.push(data.clone());
        }
    }

    /// Everything that was sent, in one piece.
    fn output(&self, then: &mut Output) -> Output {
        let rest = std::mem::take(&mut then.data);
        let data = match self.chunks.as_slice() {
            [] => rest,
            [only] if rest.is_empty() => only.clone(),
            chunks => {
                let mut all = Vec::with_capacity(self.size + rest.len());
                chunks.iter().for_each(|chunk| all.extend_from_slice(chunk));
                all.extend_from_slice(&rest);
                all.into()
            }
        };
        Output { head: false, data, trailers: self.trailers || then.trailers, end: self.end || then.end }
    }
}

impl Route {
    pub(super) fn forward(&self) -> Option<&Forward> {
        match &self.action.kind {
            Kind::Forward(forward) => Some(forward),
            _ => None,
        }
    }

    pub(super) fn cluster(&self) -> &Rc<WorkerCluster> {
        &self.cluster
    }

    /// Whether the action's copies were sent.
    pub(super) fn mirrored(&self) -> bool {
        self.mirrored
    }

    pub(super) fn set_mirrored(&mut self) {
        self.mirrored = true;
    }

    /// The request's body, if all of it was kept.
    pub(super) fn whole_body(&self) -> Option<Bytes> {
        (!self.replay.lost && !self.upgrade).then(|| self.replay.output(&mut Output::default()).data)
    }

    fn target(&self) -> Option<&Target> {
        self.forward()?.targets.get(self.target?)
    }

    /// What the action does to the response's head.
    pub(super) fn finish_response(&self, host: &mut RequestHost) {
        variables::on_response(&self.action.response_headers, host);
        if let Some(target) = self.target() {
            variables::on_response(&target.response_headers, host);
        }
        if let Some(cookie) = &self.cookie {
            host.response.push_known(Known::SetCookie, cookie.as_bytes());
        }
    }
}

impl<D: Downstream> Exchange<'_, D> {
    /// The upstream's side of this try, once it has a connection.
    #[inline]
    pub(super) fn upstream(&mut self) -> Option<&mut Lease> {
        Some(&mut self.route.as_mut()?.attempt.as_mut()?.lease)
    }

    /// From the filters to the upstream.
    pub(super) fn poll_forward(&mut self, cx: &mut Context<'_>) -> bool {
        if self.request.sent || self.response.head_fed && !self.response.tunnel && self.route.is_none() {
            return false;
        }
        if !self.request.head_out {
            if self.response.head_fed || !self.take_pending(Side::Request) || !self.request.pending.head {
                return false;
            }
            if self.pipe.host().route_cleared || self.pipe.is_choosing() {
                return self.choose_again();
            }
            self.request.pending.head = false;
            self.request.head_out = true;
            self.decide();
            return true;
        }
        let Some(route) = self.route.as_mut() else { return false };
        if let Some((_, connecting)) = route.connecting.as_mut() {
            let Poll::Ready(connected) = connecting.as_mut().poll(cx) else { return false };
            let Some((attempt, _)) = route.connecting.take() else { return false };
            match connected {
                Ok(lease) => self.send_request(attempt, lease),
                Err(error) => self.connect_failed(attempt, error),
            }
            return true;
        }
        self.poll_send_body(cx)
    }

    fn poll_send_body(&mut self, cx: &mut Context<'_>) -> bool {
        if self.upstream().is_none() || !self.take_pending(Side::Request) {
            return false;
        }
        let Some(upstream) = self.upstream() else { return false };
        match upstream.poll_ready(cx) {
            Poll::Pending => return false,
            Poll::Ready(Err(error)) => return self.upstream_broke(error),
            Poll::Ready(Ok(())) => {}
        }
        if let Err(error) = self.send_pending() {
            return self.upstream_broke(error);
        }
        true
    }

    fn send_pending(&mut self) -> Result<(), super::StreamError> {
        let trailers = std::mem::take(&mut self.request.pending.trailers);
        let (data, end) = next_data(&mut self.request.pending);
        let Some(route) = self.route.as_mut() else { return Ok(()) };
        route.replay.keep(&data, trailers, end);
        let Some(attempt) = route.attempt.as_mut() else { return Ok(()) };
        if !data.is_empty() || end {
            attempt.lease.send_data(data, end)?;
        }
        if trailers && let Some(trailers) = &self.pipe.host().request_trailers {
            attempt.lease.send_trailers(trailers)?;
        }
        if end || trailers {
            self.request_sent();
        }
        Ok(())
    }

    fn request_sent(&mut self) {
        self.request.sent = true;
        if self.response.tunnel && self.response.sent {
            self.ended = Some(super::Ended::Unread);
        }
        self.mirror();
    }

    /// One direction of a tunnel ended; the other goes on until it ends or nothing moves.
    pub(super) fn half_closed(&mut self) {
        self.deadlines.moved = true;
    }

    /// Has the filters that choose the action look at the request again, because a later filter has cleared what they chose. Whether anything moved.
    fn choose_again(&mut self) -> bool {
        if !self.pipe.is_choosing() {
            self.pipe.host_mut().route_cleared = false;
            self.request.rounds += 1;
            if self.request.rounds > MOST_ROUNDS {
                self.fail(Failure::RouteUnsettled);
                self.drop_request_head();
                return true;
            }
        }
        if !self.pipe.choose_again() {
            return false;
        }
        if self.pipe.is_reset() || self.pipe.local_reply().is_some() {
            self.drop_request_head();
        }
        true
    }

    /// The request goes nowhere.
    fn drop_request_head(&mut self) {
        self.request.pending = Output::default();
        self.request.head_out = true;
    }

    /// Chooses the action and begins to execute it.
    fn decide(&mut self) {
        let action = Arc::clone(self.pipe.host().action());
        self.pipe.host_mut().record.route = Some(Arc::clone(&action.name));
        match &action.kind {
            Kind::Respond(response) => {
                if response.status == 404 && action.name.is_empty() {
                    return self.fail(Failure::NoRoute);
                }
                self.respond_directly(response);
            }
            Kind::Redirect(redirect) => {
                let location = {
                    let request = &self.pipe.host().request;
                    redirect.location(request.scheme(), request.authority(), request.path())
                };
                self.redirect(redirect.status, &location);
            }
            Kind::Forward(forward) => {
                let prepared = self.prepare(&action, forward);
                match prepared {
                    Ok(()) => self.start_attempt(),
                    Err(failure) => self.fail(failure),
                }
            }
        }
    }

    /// Everything about a forward that is done once, whatever the number of tries.
    fn prepare(&mut self, action: &Arc<Action>, forward: &Forward) -> Result<(), Failure> {
        let mut host = self.pipe.host_mut();
        let host = &mut *host;
        let upgrade = self.request.length == BodyLength::Tunnel;
        if upgrade && !forward.may_upgrade(upgrade_name(&host.request)) {
            return Err(Failure::UpgradeRefused);
        }
        let (target, cluster) = find_cluster(&self.service, forward, &host.request).ok_or(Failure::NoCluster(forward.cluster_not_found))?;
        host.record.cluster = Some(cluster.name());
        let hashed = if forward.hash.is_empty() { Default::default() } else { forward.hash.evaluate(&Hashed(host), || fastrand::u64(..)) };
        variables::on_request(&action.request_headers, host);
        if let Some(target) = target.and_then(|at| forward.targets.get(at)) {
            variables::on_request(&target.request_headers, host);
        }
        if let Some(path) = forward.path.as_ref().and_then(|rewrite| rewrite.apply(host.request.path())) {
            variables::keep_original(&mut host.request, Known::Path, Known::XEnvoyOriginalPath);
            host.request.set_known(Known::Path, &path);
        }
        if let Some(idle) = forward.idle_timeout {
            self.deadlines.set_idle(idle);
        }
        if let Some(timeout) = request_timeout(forward, &host.request)
            && !upgrade
        {
            self.deadlines.response = Some(self.service.worker.instant() + timeout);
        }
        let limit = if forward.retry.is_some() || !forward.mirrors.is_empty() { 64 << 10 } else { 0 };
        let limit = forward.retry.as_ref().map_or(limit, |retry| retry.replay_limit);
        self.route = Some(Box::new(Route {
            action: Arc::clone(action),
            target,
            cluster,
            hash: hashed.hash,
            cookie: hashed.set_cookie,
            tries: Tries::default(),
            replay: Replay::new(limit),
            connecting: None,
            attempt: None,
            upgrade,
            mirrored: false,
        }));
        Ok(())
    }

    /// Chooses an endpoint and gets a connection to it.
    pub(super) fn start_attempt(&mut self) {
        self.deadlines.retry = None;
        let Some(route) = self.route.as_mut() else { return };
        let now = self.service.worker.now();
        let chosen = route.choose(&self.pipe.host(), now);
        let attempt = match chosen {
            Ok(attempt) => attempt,
            Err(failure) => return self.give_up(failure),
        };
        route.tries.begin(&attempt);
        let mut host = self.pipe.host_mut();
        host.record.attempts += 1;
        host.record.endpoint = Some(Arc::clone(attempt.target().endpoint()));
        rewrite_host(&mut host, route.forward(), &attempt);
        let leased = route.cluster.lease(&attempt, &host.request, host.connection.http2.get());
        drop(host);
        match leased {
            Leased::Ready(lease) => self.send_request(attempt, lease),
            Leased::Connecting(connecting) => route.connecting = Some((attempt, connecting)),
        }
    }

    fn send_request(&mut self, attempt: Attempt, mut lease: Lease) {
        let Some(route) = self.route.as_mut() else { return };
        let mut ended = false;
        if route.tries.count > 1 {
            self.request.pending = route.replay.output(&mut self.request.pending);
            route.replay = Replay::new(route.replay.limit);
        }
        let pending = &self.request.pending;
        let length = if route.upgrade {
            BodyLength::Tunnel
        } else {
            ended = pending.end && pending.data.is_empty() && !pending.trailers;
            body_length(&self.pipe.host().request, ended)
        };
        let per_try = route.forward().and_then(|forward| forward.retry.as_ref()?.per_try_timeout);
        let sent = lease.send_head(&self.pipe.host().request, length);
        route.attempt = Some(Try { lease, attempt });
        if let Err(error) = sent {
            self.upstream_broke(error);
            return;
        }
        self.deadlines.attempt = per_try.map(|timeout| self.service.worker.instant() + timeout);
        if ended {
            self.request.pending.end = false;
            route.replay.end = true;
            self.request_sent();
        }
    }

    fn connect_failed(&mut self, mut attempt: Attempt, error: ConnectError) {
        let (failure, outcome) = match error {
            ConnectError::Overflow => (Failure::Overflow, Outcome::Cancelled),
            ConnectError::TimedOut => (Failure::ConnectTimeout, Outcome::ConnectTimeout),
            ConnectError::Refused => (Failure::Connect, Outcome::ConnectFailure),
            ConnectError::Tls => (Failure::ConnectTls, Outcome::ConnectFailure),
        };
        attempt.report(outcome, self.service.worker.now());
        drop(attempt);
        if failure == Failure::Overflow || !self.retry(retry::Failure::Connect) {
            self.give_up(failure);
        }
    }

    /// A try failed without an answer. Tries again if that is wanted and safe.
    pub(super) fn attempt_failed(&mut self, failure: Failure) {
        if failure == Failure::TryTimeout {
            self.report(Outcome::Timeout);
        }
        let cause = match failure {
            Failure::Upstream(super::StreamError::Refused) => retry::Failure::Refused,
            Failure::TryTimeout => retry::Failure::TryTimeout,
            _ => retry::Failure::Reset,
        };
        if !self.retry(cause) {
            self.give_up(failure);
        }
    }

    /// Whether an answer of this status is given up for another try.
    pub(super) fn retries_answer(&mut self, status: u16) -> bool {
        let answer = {
            let host = self.pipe.host();
            Answer { status, grpc_status: number(host.response.get_known(Known::GrpcStatus)).filter(|_| self.is_grpc) }
        };
        self.report(Outcome::Response(answer.grpc_status.map_or(status, crate::upstream::endpoint::grpc_to_http)));
        let Some(route) = self.route.as_mut() else { return false };
        let Some(policy) = route.retry_policy() else { return false };
        let facts = route.facts(&self.pipe.host());
        let host = self.pipe.host();
        let decision = policy.decide(retry::Failure::Response(&Seen { answer, headers: &host.response }), facts);
        drop(host);
        self.retry_if(decision)
    }

    fn retry(&mut self, cause: retry::Failure<'_>) -> bool {
        let Some(route) = self.route.as_ref() else { return false };
        let Some(policy) = route.retry_policy() else { return false };
        let facts = route.facts(&self.pipe.host());
        let decision = policy.decide(cause, facts);
        self.retry_if(decision)
    }

    fn retry_if(&mut self, decision: Decision) -> bool {
        if self.response.head_fed || self.ended.is_some() {
            return false;
        }
        if decision == Decision::Exhausted {
            let mut host = self.pipe.host_mut();
            host.record.flags = host.record.flags.with(Flags::RETRY_LIMIT);
        }
        let Some(route) = self.route.as_mut() else { return false };
        let Some(policy) = (decision == Decision::Retry && !route.upgrade).then(|| route.retry_policy()).flatten() else { return false };
        let wait = policy.backoff(route.tries.count, fastrand::u64(..));
        route.tries.permit = None;
        match route.cluster.state().retry_permit() {
            Ok(permit) => route.tries.permit = Some(permit),
            Err(_) => {
                self.explain("upstream_retry_overflow", Flags::UPSTREAM_OVERFLOW);
                return false;
            }
        }
        self.drop_attempt();
        self.pipe.host_mut().response.clear();
        // The next try has got nothing yet, whatever this one got.
        self.request.sent = false;
        self.deadlines.attempt = None;
        self.deadlines.retry = Some(self.service.worker.instant() + wait);
        true
    }

    /// There will be no answer from the upstream.
    pub(super) fn give_up(&mut self, failure: Failure) {
        if matches!(failure, Failure::Timeout | Failure::Idle) {
            self.report(Outcome::Timeout);
        }
        self.fail(failure);
    }

    /// Tells the endpoint's health how the try went; once.
    pub(super) fn report(&mut self, outcome: Outcome) {
        if let Some(attempt) = self.route.as_mut().and_then(|route| route.attempt.as_mut()) {
            attempt.attempt.report(outcome, self.service.worker.now());
        }
    }

    fn drop_attempt(&mut self) {
        if let Some(route) = self.route.as_mut() {
            route.connecting = None;
            route.attempt = None;
        }
    }

    /// The upstream's side is not needed any more. What is incomplete is reset.
    pub(super) fn drop_upstream(&mut self) {
        self.drop_attempt();
        self.request.sent = true;
    }
}

impl Route {
    fn retry_policy(&self) -> Option<&retry::RetryPolicy> {
        self.forward()?.retry.as_ref()
    }

    fn choose(&self, host: &RequestHost, now: Nanos) -> Result<Attempt, Failure> {
        let policy = self.retry_policy();
        let subset = match (self.forward(), self.target()) {
            (Some(forward), target) => self.cluster.subset(&forward.subset, target.map(|target| &target.subset)),
            (None, _) => SubsetId::ALL,
        };
        let destination = self.cluster.destination(host.connection.info.original_destination, &host.request);
        let context = PickContext {
            now,
            hash: self.hash,
            subset,
            tried: &self.tries.endpoints,
            host_attempts: policy.map_or(0, |policy| policy.host_attempts),
            tried_priorities: if policy.is_some_and(|policy| policy.previous_priorities) { self.tries.priorities } else { 0 },
            destination: destination.as_ref(),
        };
        self.cluster.attempt(&context).map_err(|unavailable| match unavailable {
            Unavailable::NoEndpoint => Failure::NoEndpoint,
            Unavailable::Overflow(_) => Failure::Overflow,
        })
    }

    fn facts(&self, host: &RequestHost) -> RequestFacts {
        RequestFacts {
            retries: self.tries.count.saturating_sub(1),
            idempotent: retry::is_idempotent(host.request.method()),
            replayable: !self.replay.lost,
            sent: self.attempt.as_ref().is_some_and(|attempt| attempt.lease.wrote()),
            answered: false,
        }
    }
}

impl Tries {
    fn begin(&mut self, attempt: &Attempt) {
        self.count += 1;
        self.endpoints.push(attempt.target().id());
        self.priorities |= attempt.target().priority_bit();
    }
}

/// What an upstream answered.
#[derive(Clone, Copy)]
struct Answer {
    status: u16,
    grpc_status: Option<u32>,
}

struct Seen<'a> {
    answer: Answer,
    headers: &'a Fields,
}

impl ResponseView for Seen<'_> {
    fn status(&self) -> u16 {
        self.answer.status
    }

    fn grpc_status(&self) -> Option<u32> {
        self.answer.grpc_status
    }

    fn has_header(&self, name: &str) -> bool {
        self.headers.get(name.as_bytes()).is_some()
    }
}

fn number(value: Option<&[u8]>) -> Option<u32> {
    std::str::from_utf8(value?).ok()?.parse().ok()
}

fn find_cluster(
    service: &crate::http::service::HttpService,
    forward: &Forward,
    request: &Fields,
) -> Option<(Option<usize>, Rc<WorkerCluster>)> {
    if let Some(header) = &forward.cluster_header {
        let name = std::str::from_utf8(request.get(header)?).ok()?;
        return Some((None, service.cluster(name)?));
    }
    let target = forward.target(fastrand::u64(..))?;
    let at = forward.targets.iter().position(|candidate| std::ptr::eq(candidate, target));
    Some((at, service.cluster(&target.cluster)?))
}

fn rewrite_host(host: &mut RequestHost, forward: Option<&Forward>, attempt: &Attempt) {
    let Some(rewrite) = forward.and_then(|forward| forward.host.as_ref()) else { return };
    let to = match &rewrite.to {
        HostSource::Literal(literal) => literal.clone(),
        HostSource::Endpoint if !attempt.target().endpoint().hostname.is_empty() => {
            attempt.target().endpoint().hostname.as_bytes().to_vec()
        }
        HostSource::Endpoint => return,
        HostSource::Header(name) => match host.request.get(name) {
            Some(value) if !value.is_empty() => value.to_vec(),
            _ => return,
        },
    };
    if rewrite.append_forwarded_host {
        variables::keep_original(&mut host.request, Known::Authority, Known::XForwardedHost);
    }
    host.request.set_known(Known::Authority, &to);
}

/// The protocol that a request wants to change to.
fn upgrade_name(request: &Fields) -> &[u8] {
    request.get_known(Known::Protocol).or_else(|| request.get_known(Known::Upgrade)).unwrap_or(b"connect")
}

fn request_timeout(forward: &Forward, request: &Fields) -> Option<Duration> {
    let asked = forward.max_grpc_timeout.and_then(|most| Some(grpc_timeout(request.get_known(Known::GrpcTimeout)?)?.min(most)));
    match (forward.timeout, asked) {
        (Some(timeout), Some(asked)) => Some(timeout.min(asked)),
        (timeout, asked) => asked.or(timeout),
    }
}

/// `grpc-timeout`: digits and a unit.
fn grpc_timeout(value: &[u8]) -> Option<Duration> {
    let (unit, digits) = value.split_last()?;
    if digits.is_empty() || digits.len() > 8 {
        return None;
    }
    let number: u64 = std::str::from_utf8(digits).ok()?.parse().ok()?;
    Some(match unit {
        b'H' => Duration::from_secs(number * 3600),
        b'M' => Duration::from_secs(number * 60),
        b'S' => Duration::from_secs(number),
        b'm' => Duration::from_millis(number),
        b'u' => Duration::from_micros(number),
        b'n' => Duration::from_nanos(number),
        _ => return None,
    })
}

/// A request as hash policies see it.
struct Hashed<'a>(&'a RequestHost);

impl HashInput for Hashed<'_> {
    fn headers(&self, name: &str, visit: &mut dyn FnMut(&[u8])) {
        self.0.request.get_all(name.as_bytes()).for_each(visit);
    }

    fn path(&self) -> &[u8] {
        self.0.request.path()
    }

    fn source(&self) -> Option<std::net::IpAddr> {
        self.0.client
    }
}
