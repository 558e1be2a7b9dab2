//! Upstreams: clusters and their endpoints, which endpoint a request goes to, and what its outcome teaches.
//!
//! A [`Clusters`] on the control runtime turns configuration into [`ClusterState`]s, which all workers share: counters, circuit breakers, endpoint
//! health, all of them atomics. Each worker holds a [`Balancer`] per cluster, which owns everything that a choice needs and takes no lock. Lookups
//! in DNS, active health checks and the interval work of outlier detection are tasks of the control runtime, and change flags that workers look at
//! before the next choice.
//!
//! What always holds: an endpoint whose address stays keeps its state across every configuration change; a change of health or of endpoints is one
//! increment of the cluster's version, and a worker derives its tables again when it sees it; time comes in as [`Nanos`], so that tests decide it.
//!
//! What this deliberately does not do: connections. The pool asks here where to connect and reports what happened.

pub mod address;
pub mod balancer;
pub mod breaker;
pub mod client;
pub mod cluster;
pub mod clusters;
pub(crate) mod connect;
pub mod dns;
pub mod endpoint;
pub mod hash;
pub mod health;
pub mod options;
pub mod outlier;
pub mod pool;
pub mod retry;
pub mod set;
pub mod subset;
pub mod view;

pub use address::Address;
pub use balancer::{Attempt, Balancer, Balancers, PickContext, Target};
pub use breaker::{Overflow, Permit};
pub use cluster::ClusterState;
pub use clusters::{ClusterIndex, ClusterTable, Clusters};
pub use endpoint::{Endpoint, EndpointId, EndpointState, Outcome};
pub use hash::{HashInput, HashPolicies};
pub use retry::RetryPolicy;
pub use set::EndpointSet;
pub use subset::SubsetId;

/// Monotonic nanoseconds since an origin of the process's choice, as in `weir_wasm`.
pub type Nanos = u64;

/// A duration in [`Nanos`], as long as that can say.
#[must_use]
pub fn nanos(duration: std::time::Duration) -> Nanos {
    u64::try_from(duration.as_nanos()).unwrap_or(u64::MAX)
}

/// Something in a configuration that the runtime cannot use. Validation has refused most of it before.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{path}: {problem}")]
pub struct Invalid {
    /// Which field, from the resource on.
    pub path: String,
    /// What is wrong with it.
    pub problem: String,
}

impl Invalid {
    /// `problem` at `path`.
    #[must_use]
    pub fn new(path: impl Into<String>, problem: impl Into<String>) -> Self {
        Self { path: path.into(), problem: problem.into() }
    }
}
