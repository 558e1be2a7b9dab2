//! The vocabulary of shared data: its limits, its errors, its counters. The table itself is in `table`.

/// The bounds of one `vm_id`'s key-value data.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct DataLimits {
    /// Most entries.
    pub entries: usize,
    /// Most bytes of keys, values and bookkeeping together.
    pub bytes: usize,
    /// Longest value in bytes.
    pub value: usize,
}

impl Default for DataLimits {
    fn default() -> Self {
        Self { entries: 65_536, bytes: 16 << 20, value: 1 << 20 }
    }
}

/// Why a value was not set.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum SetError {
    /// The key was written since the `cas` was read.
    #[error("shared data: the key was written by another since its cas was read; read it again and retry")]
    CasMismatch,
    /// It does not fit, however much is evicted.
    #[error("shared data: the entry needs {size} bytes and at most {max} are allowed; raise the limit or store less")]
    TooLarge {
        /// What it needs.
        size: usize,
        /// What the limit allows.
        max: usize,
    },
}

/// Why a number was not added to.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum AddError {
    /// The value is not 8 bytes long.
    #[error("shared data: the value has {size} bytes and is no number (an i64 in 8 little-endian bytes)")]
    NotANumber {
        /// The length of the value.
        size: usize,
    },
    /// The sum does not fit an `i64`.
    #[error("shared data: the sum does not fit 64 bits; the number was left as it was")]
    Overflow,
    /// The key does not fit, however much is evicted.
    #[error("shared data: the entry needs {size} bytes and at most {max} are allowed; use a shorter key")]
    TooLarge {
        /// What it needs.
        size: usize,
        /// What the limit allows.
        max: usize,
    },
}

/// What the data of one `vm_id` holds and what its bounds have cost.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct DataCounters {
    /// Entries held, expired ones not yet cleared away among them.
    pub entries: usize,
    /// Bytes held, bookkeeping included.
    pub bytes: usize,
    /// Entries that had to go before their time to make room.
    pub evictions: u64,
    /// Entries that went because their time had come.
    pub expirations: u64,
}
