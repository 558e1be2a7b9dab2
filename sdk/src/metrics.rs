//! Counters, gauges and histograms of the proxy.
//!
//! Defined once, at configuration; used by their number, so counting costs one host call. Labels are an extension of Weir's; on another host they become
//! part of the name, as Envoy's own filters do it. What always holds: the same name and labels give the same metric, also after a reload.

use crate::abi::{self, Metric, Status, pairs};

macro_rules! kinds {
    ($($(#[$about:meta])* $name:ident = $kind:ident $word:literal),*) => { $(
        $(#[$about])*
        #[derive(Debug, Clone, Copy, PartialEq, Eq)]
        pub struct $name(u32);

        impl $name {
            /// Defines it.
            ///
            /// # Errors
            /// When the host refuses it: a name that is none, or too many metrics.
            pub fn define(name: &str, labels: &[(&str, &str)]) -> Result<Self, Status> {
                define(Metric::$kind, $word, name, labels).map(Self)
            }
        }
    )* };
}

kinds! {
    /// Counts up.
    Counter = Counter "counter",
    /// Goes up and down.
    Gauge = Gauge "gauge",
    /// Records how values are spread.
    Histogram = Histogram "histogram"
}

fn define(kind: Metric, word: &str, name: &str, labels: &[(&str, &str)]) -> Result<u32, Status> {
    if labels.is_empty() {
        return abi::define_metric(kind, name.as_bytes());
    }
    let own = [("type", word), ("name", name)];
    let all = own.iter().chain(labels).map(|(name, value)| (name.as_bytes(), value.as_bytes()));
    match abi::foreign("weir.metric.define", &pairs::encode(all)) {
        Ok(id) => id.try_into().map(u32::from_le_bytes).map_err(|_| Status::Other(0)),
        Err(Status::NotFound | Status::Unimplemented) => {
            let flat = labels.iter().fold(name.to_owned(), |flat, (label, value)| format!("{flat}.{label}.{value}"));
            abi::define_metric(kind, flat.as_bytes())
        }
        Err(other) => Err(other),
    }
}

impl Counter {
    /// Adds one.
    #[inline]
    pub fn increment(self) {
        self.add(1);
    }

    /// Adds.
    #[inline]
    pub fn add(self, by: u32) {
        abi::increment_metric(self.0, by.into());
    }
}

impl Gauge {
    /// Adds, or takes away.
    #[inline]
    pub fn add(self, by: i64) {
        abi::increment_metric(self.0, by);
    }

    /// Sets.
    #[inline]
    pub fn set(self, value: u64) {
        abi::record_metric(self.0, value);
    }
}

impl Histogram {
    /// Records a value.
    #[inline]
    pub fn record(self, value: u64) {
        abi::record_metric(self.0, value);
    }
}
