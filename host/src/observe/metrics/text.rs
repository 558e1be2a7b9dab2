//! Metric families as the `prometheus` crate has them, built from plain numbers.

use prometheus::proto::{Bucket, Counter, Gauge, Histogram, LabelPair, Metric, MetricFamily, MetricType};

/// A family that is being filled.
pub(super) struct Family(MetricFamily);

impl Family {
    pub(super) fn new(name: impl Into<String>, help: &str, kind: MetricType) -> Self {
        let mut family = MetricFamily::default();
        family.set_name(name.into());
        family.set_help(help.trim().into());
        family.set_field_type(kind);
        Self(family)
    }

    pub(super) fn counter(name: impl Into<String>, help: &str) -> Self {
        Self::new(name, help, MetricType::COUNTER)
    }

    pub(super) fn gauge(name: impl Into<String>, help: &str) -> Self {
        Self::new(name, help, MetricType::GAUGE)
    }

    pub(super) fn histogram(name: impl Into<String>, help: &str) -> Self {
        Self::new(name, help, MetricType::HISTOGRAM)
    }

    /// Adds a series with `value`.
    #[allow(clippy::cast_precision_loss, reason = "Prometheus has no other numbers")]
    pub(super) fn count(&mut self, labels: &[(&str, &str)], value: u64) {
        let mut metric = labelled(labels);
        let mut counter = Counter::default();
        counter.set_value(value as f64);
        metric.set_counter(counter);
        self.0.mut_metric().push(metric);
    }

    /// Adds a series with `value`.
    pub(super) fn level(&mut self, labels: &[(&str, &str)], value: f64) {
        let mut metric = labelled(labels);
        let mut gauge = Gauge::default();
        gauge.set_value(value);
        metric.set_gauge(gauge);
        self.0.mut_metric().push(metric);
    }

    /// Adds a histogram: counts per bucket (not cumulative), the last without a bound, and the sum.
    pub(super) fn distribution(&mut self, labels: &[(&str, &str)], buckets: &[u64], bounds: impl IntoIterator<Item = f64>, sum: f64) {
        let mut metric = labelled(labels);
        let (mut histogram, mut below) = (Histogram::default(), 0_u64);
        let bucket = |(count, bound): (&u64, f64)| {
            below = below.saturating_add(*count);
            let mut bucket = Bucket::default();
            bucket.set_cumulative_count(below);
            bucket.set_upper_bound(bound);
            bucket
        };
        histogram.set_bucket(buckets.iter().zip(bounds).map(bucket).collect());
        histogram.set_sample_count(buckets.iter().fold(0, |all, count| all.saturating_add(*count)));
        histogram.set_sample_sum(sum);
        metric.set_histogram(histogram);
        self.0.mut_metric().push(metric);
    }

    /// The family, if anything is in it.
    pub(super) fn done(self) -> Option<MetricFamily> {
        (!self.0.get_metric().is_empty()).then_some(self.0)
    }
}

fn labelled(labels: &[(&str, &str)]) -> Metric {
    let label = |(name, value): &(&str, &str)| {
        let mut pair = LabelPair::default();
        pair.set_name((*name).into());
        pair.set_value((*value).into());
        pair
    };
    Metric::from_label(labels.iter().map(label).collect())
}

/// `name` with only what Prometheus lets a name consist of.
pub(super) fn legal(name: &str) -> String {
    let mut legal: String = name.chars().map(|c| if c.is_ascii_alphanumeric() || c == '_' { c } else { '_' }).collect();
    if legal.is_empty() || legal.starts_with(|c: char| c.is_ascii_digit()) {
        legal.insert(0, '_');
    }
    legal
}
