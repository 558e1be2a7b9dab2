//! Circuit breakers: how much of something a cluster may have at once, counted over all workers.
//!
//! Taking is one addition and a comparison; a [`Permit`] gives back when it is dropped, so nothing that ends early can leak one. A refused one is
//! counted by what it was for.

use std::sync::Arc;
use std::sync::atomic::{AtomicU32, AtomicU64, Ordering::Relaxed};

use super::endpoint::Endpoint;
use super::options::BreakerLimits;

/// What may run out.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Resource {
    /// Connections.
    Connections,
    /// Requests that wait for a connection.
    Pending,
    /// Requests.
    Requests,
    /// Retries in progress.
    Retries,
}

/// A circuit breaker is open.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("too many {}", self.name())]
pub struct Overflow(pub Resource);

impl Overflow {
    /// For details and metrics.
    #[must_use]
    pub fn name(&self) -> &'static str {
        match self.0 {
            Resource::Connections => "connections",
            Resource::Pending => "pending_requests",
            Resource::Requests => "requests",
            Resource::Retries => "retries",
        }
    }
}

/// How much of one resource is in use.
#[derive(Debug, Default)]
pub struct Gauge {
    used: AtomicU32,
    refused: AtomicU64,
}

impl Gauge {
    /// In use now.
    #[inline]
    #[must_use]
    pub fn used(&self) -> u32 {
        self.used.load(Relaxed)
    }

    /// How often one was refused.
    #[must_use]
    pub fn refused(&self) -> u64 {
        self.refused.load(Relaxed)
    }

    #[inline]
    pub(crate) fn take(&self, limit: u32) -> bool {
        if self.used.fetch_add(1, Relaxed) < limit {
            return true;
        }
        self.give();
        self.refused.fetch_add(1, Relaxed);
        false
    }

    #[inline]
    pub(crate) fn give(&self) {
        self.used.fetch_sub(1, Relaxed);
    }
}

/// The four gauges of a cluster.
#[derive(Debug, Default)]
pub struct Usage {
    /// Connections.
    pub connections: Gauge,
    /// Requests that wait for a connection.
    pub pending: Gauge,
    /// Requests.
    pub requests: Gauge,
    /// Retries in progress.
    pub retries: Gauge,
}

impl Usage {
    fn gauge(&self, resource: Resource) -> &Gauge {
        match resource {
            Resource::Connections => &self.connections,
            Resource::Pending => &self.pending,
            Resource::Requests => &self.requests,
            Resource::Retries => &self.retries,
        }
    }

    /// Takes one of `resource`.
    ///
    /// # Errors
    /// When the limit is reached.
    pub fn take(self: &Arc<Self>, resource: Resource, limits: &BreakerLimits) -> Result<Permit, Overflow> {
        let limit = match resource {
            Resource::Connections => limits.connections,
            Resource::Pending => limits.pending,
            Resource::Requests => limits.requests,
            Resource::Retries => self.retry_limit(limits),
        };
        if self.gauge(resource).take(limit) {
            Ok(Permit { usage: Arc::clone(self), resource, endpoint: None })
        } else {
            Err(Overflow(resource))
        }
    }

    /// How many retries may be in progress now: the stricter of the fixed limit and the budget.
    #[must_use]
    pub fn retry_limit(&self, limits: &BreakerLimits) -> u32 {
        let Some(budget) = limits.budget else { return limits.retries };
        let running = f64::from(self.requests.used()) + f64::from(self.pending.used());
        let allowed = (running * budget.part) as u32;
        limits.retries.min(allowed.max(budget.min_concurrency))
    }
}

/// One of something that is limited, given back when dropped.
#[derive(Debug)]
#[must_use]
pub struct Permit {
    usage: Arc<Usage>,
    resource: Resource,
    endpoint: Option<Arc<Endpoint>>,
}

impl Permit {
    /// Counts it at the endpoint too, for as long as it is held.
    pub(crate) fn at(mut self, endpoint: &Arc<Endpoint>) -> Self {
        endpoint.state.connection_opened();
        self.endpoint = Some(Arc::clone(endpoint));
        self
    }
}

impl Drop for Permit {
    fn drop(&mut self) {
        self.usage.gauge(self.resource).give();
        if let Some(endpoint) = &self.endpoint {
            endpoint.state.connection_closed();
        }
    }
}

#[cfg(test)]
mod tests {
    use super::super::options::RetryBudget;
    use super::*;

    fn limits(requests: u32, retries: u32, budget: Option<RetryBudget>) -> BreakerLimits {
        BreakerLimits { connections: u32::MAX, pending: u32::MAX, requests, retries, budget }
    }

    #[test]
    fn refuses_above_the_limit_and_gives_back() {
        let usage = Arc::new(Usage::default());
        let limits = limits(2, u32::MAX, None);
        let first = usage.take(Resource::Requests, &limits).unwrap();
        let second = usage.take(Resource::Requests, &limits).unwrap();
        assert_eq!(usage.take(Resource::Requests, &limits).unwrap_err(), Overflow(Resource::Requests));
        assert_eq!((usage.requests.used(), usage.requests.refused()), (2, 1));
        drop(first);
        let third = usage.take(Resource::Requests, &limits).unwrap();
        drop((second, third));
        assert_eq!(usage.requests.used(), 0);
    }

    #[test]
    fn a_budget_follows_requests_in_progress() {
        let usage = Arc::new(Usage::default());
        let limits = limits(u32::MAX, u32::MAX, Some(RetryBudget { part: 0.2, min_concurrency: 3 }));
        assert_eq!(usage.retry_limit(&limits), 3);
        let running: Vec<_> = (0..50).map(|_| usage.take(Resource::Requests, &limits).unwrap()).collect();
        assert_eq!(usage.retry_limit(&limits), 10);
        drop(running);
        assert_eq!(usage.retry_limit(&limits), 3);
    }

    #[test]
    fn many_threads_never_pass_the_limit() {
        let usage = Arc::new(Usage::default());
        let limits = limits(3, u32::MAX, None);
        let most = AtomicU32::new(0);
        let inside = AtomicU32::new(0);
        std::thread::scope(|scope| {
            for _ in 0..4 {
                scope.spawn(|| {
                    for _ in 0..2000 {
                        if let Ok(_permit) = usage.take(Resource::Requests, &limits) {
                            most.fetch_max(inside.fetch_add(1, Relaxed) + 1, Relaxed);
                            inside.fetch_sub(1, Relaxed);
                        }
                    }
                });
            }
        });
        assert!((1..=3).contains(&most.load(Relaxed)));
        assert_eq!(usage.requests.used(), 0);
    }
}
