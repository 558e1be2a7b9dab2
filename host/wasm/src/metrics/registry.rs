//! Which series there are: names, labels and kinds to numbers.
//!
//! What always holds: a series is never taken away, so a number that was valid stays so; labels are kept sorted by key, so
//! their order does not make another series; looking up a series that exists allocates nothing.

use std::collections::HashMap;
use std::sync::Arc;

use super::{MetricKind, SeriesId};

/// Most labels a metric may have, whatever the limits say: their order is kept on the stack.
const MOST_LABELS: usize = 32;
/// Most series a set may have, whatever the limits say.
const MOST_SERIES: usize = 1 << 20;

/// The bounds of one binding's metrics.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct MetricLimits {
    /// Most series; at most 2²⁰.
    pub series: usize,
    /// Longest name, label key or label value in bytes.
    pub text: usize,
    /// Most labels of a metric; at most 32.
    pub labels: usize,
}

impl Default for MetricLimits {
    fn default() -> Self {
        Self { series: 1000, text: 1024, labels: MOST_LABELS }
    }
}

/// Why a metric was not defined; for guests, a bad argument.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum DefineError {
    /// A name or label key is empty.
    #[error("metrics: a metric's name and its labels' keys must not be empty")]
    Empty,
    /// A name, label key or label value is too long.
    #[error("metrics: {size} bytes of name or label where at most {max} are allowed; shorten it")]
    TooLong {
        /// Its length.
        size: usize,
        /// What the limit allows.
        max: usize,
    },
    /// There are too many labels.
    #[error("metrics: {count} labels where at most {max} are allowed; use fewer")]
    TooManyLabels {
        /// How many were given.
        count: usize,
        /// What the limit allows.
        max: usize,
    },
    /// Two labels have the same key.
    #[error("metrics: label {key:?} is given twice; give it once")]
    DuplicateLabel {
        /// The key.
        key: Box<str>,
    },
    /// The name is that of a metric of another kind.
    #[error("metrics: {name:?} is a {existing} and cannot be a {asked} too; choose another name", existing = .existing.name(), asked = .asked.name())]
    OtherKind {
        /// The name.
        name: Box<str>,
        /// The kind it has.
        existing: MetricKind,
        /// The kind it was to have.
        asked: MetricKind,
    },
}

/// How a series is known outside.
pub(super) struct Described {
    pub(super) name: Arc<str>,
    pub(super) labels: Arc<[(Box<str>, Box<str>)]>,
}

/// The limit of series is reached: this stands in.
pub(super) struct Overflow(pub(super) SeriesId);

pub(super) struct Registry {
    limits: MetricLimits,
    names: HashMap<Arc<str>, MetricKind>,
    ids: HashMap<Box<[u8]>, SeriesId>,
    /// Per kind; the first of each is its overflow series.
    series: [Vec<Described>; 3],
    /// Whether the overflow series of a kind was handed out.
    overflowed: [bool; 3],
    /// The key being looked up; kept for its buffer.
    key: Vec<u8>,
}

impl Registry {
    pub(super) fn new(limits: MetricLimits) -> Self {
        let mut registry = Self {
            limits,
            names: HashMap::new(),
            ids: HashMap::new(),
            series: Default::default(),
            overflowed: [false; 3],
            key: Vec::new(),
        };
        for kind in MetricKind::ALL {
            let name: Arc<str> = format!("overflow_{}", kind.name()).into();
            registry.names.insert(Arc::clone(&name), kind);
            registry.series[kind as usize].push(Described { name, labels: [].into() });
        }
        registry.set_limits(limits);
        registry
    }

    pub(super) fn set_limits(&mut self, limits: MetricLimits) {
        self.limits = MetricLimits { series: limits.series.min(MOST_SERIES), text: limits.text, labels: limits.labels.min(MOST_LABELS) };
    }

    /// How many series of `kind` there are, its overflow series among them.
    pub(super) fn len(&self, kind: MetricKind) -> u32 {
        // At most `MOST_SERIES` and the overflow series.
        self.series[kind as usize].len() as u32
    }

    pub(super) fn guest_series(&self) -> usize {
        self.ids.len()
    }

    pub(super) fn define(
        &mut self,
        kind: MetricKind,
        name: &str,
        labels: &[(&str, &str)],
    ) -> Result<Result<SeriesId, Overflow>, DefineError> {
        self.check(name, labels)?;
        let mut sorted = [("", ""); MOST_LABELS];
        let sorted = &mut sorted[..labels.len()];
        sorted.copy_from_slice(labels);
        sorted.sort_unstable_by_key(|(key, _)| *key);
        if let Some(pair) = sorted.windows(2).find(|pair| pair[0].0 == pair[1].0) {
            return Err(DefineError::DuplicateLabel { key: pair[0].0.into() });
        }
        if let Some(&existing) = self.names.get(name)
            && existing != kind
        {
            return Err(DefineError::OtherKind { name: name.into(), existing, asked: kind });
        }
        self.encode_key(name, sorted);
        if let Some(&id) = self.ids.get(self.key.as_slice()) {
            return Ok(Ok(id));
        }
        if self.ids.len() >= self.limits.series {
            self.overflowed[kind as usize] = true;
            return Ok(Err(Overflow(SeriesId::new(kind, 0))));
        }
        Ok(Ok(self.add(kind, name, sorted)))
    }

    /// Every series a guest was given: its kind, its place among the kind, and what it is called.
    pub(super) fn iter(&self) -> impl Iterator<Item = (MetricKind, u32, &Described)> {
        MetricKind::ALL.into_iter().flat_map(|kind| {
            let hidden = usize::from(!self.overflowed[kind as usize]);
            let series = self.series[kind as usize].iter().zip(0..).skip(hidden);
            series.map(move |(described, index)| (kind, index, described))
        })
    }

    fn check(&self, name: &str, labels: &[(&str, &str)]) -> Result<(), DefineError> {
        let MetricLimits { text, labels: most, .. } = self.limits;
        if labels.len() > most {
            return Err(DefineError::TooManyLabels { count: labels.len(), max: most });
        }
        if name.is_empty() || labels.iter().any(|(key, _)| key.is_empty()) {
            return Err(DefineError::Empty);
        }
        let texts = labels.iter().flat_map(|(key, value)| [key.len(), value.len()]);
        match texts.chain([name.len()]).find(|size| *size > text) {
            Some(size) => Err(DefineError::TooLong { size, max: text }),
            None => Ok(()),
        }
    }

    /// Each text behind its length, so that no two sets of texts look the same.
    fn encode_key(&mut self, name: &str, labels: &[(&str, &str)]) {
        self.key.clear();
        for text in labels.iter().flat_map(|(key, value)| [*key, *value]).chain([name]) {
            self.key.extend_from_slice(&text.len().to_le_bytes());
            self.key.extend_from_slice(text.as_bytes());
        }
    }

    fn add(&mut self, kind: MetricKind, name: &str, labels: &[(&str, &str)]) -> SeriesId {
        let id = SeriesId::new(kind, self.len(kind));
        let name = match self.names.get_key_value(name) {
            Some((known, _)) => Arc::clone(known),
            None => {
                let name: Arc<str> = name.into();
                self.names.insert(Arc::clone(&name), kind);
                name
            }
        };
        let labels = labels.iter().map(|(key, value)| ((*key).into(), (*value).into())).collect();
        self.series[kind as usize].push(Described { name, labels });
        self.ids.insert(self.key.as_slice().into(), id);
        id
    }
}
