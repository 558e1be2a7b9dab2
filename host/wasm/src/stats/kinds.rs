//! What is counted, as enums whose variants number the cells.
//!
//! What always holds: `ALL[v as usize] == v`, and names are unique within an enum: both come from one list.

/// An enum with its variants' number, list and names.
macro_rules! numbered {
    (
        $(#[$meta:meta])* $name:ident
        $($(#[$variant_meta:meta])* $variant:ident => $text:literal,)+
    ) => {
        $(#[$meta])*
        #[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
        #[repr(u8)]
        pub enum $name {
            $($(#[$variant_meta])* $variant,)+
        }

        impl $name {
            /// All of them, in their order.
            pub const ALL: [Self; Self::COUNT] = [$(Self::$variant),+];
            /// How many there are.
            pub const COUNT: usize = [$(Self::$variant),+].len();

            /// Its name in metrics and logs.
            #[must_use]
            pub const fn name(self) -> &'static str {
                match self {
                    $(Self::$variant => $text,)+
                }
            }
        }
    };
}

numbered! {
    /// Why an instance was lost.
    TrapKind
    /// The guest gave up: `unreachable`, which is what a panic or an abort ends in.
    Unreachable => "unreachable",
    /// A callback ran longer than it may.
    DeadlineExceeded => "deadline_exceeded",
    /// Its calls nested too deep.
    StackOverflow => "stack_overflow",
    /// It would not live without the memory it was refused.
    MemoryLimit => "memory_limit",
    /// It read or wrote outside of its memory or a table.
    OutOfBounds => "out_of_bounds",
    /// It gave a host function what no status can answer, such as a pointer outside of its memory.
    HostCall => "host_call",
    /// It called `proc_exit`.
    Exit => "exit",
    /// Anything else: a division by zero, a bad indirect call.
    Other => "other",
}

numbered! {
    /// Something that happens and is counted.
    Counter
    /// A callback, start function or `on_done` that ran or was held longer than it may, whether or not it was a trap.
    DeadlineMisses => "deadline_misses",
    /// Instances that started and configured.
    InstanceStarts => "instance_starts",
    /// Among them those that took the place of one that was lost.
    InstanceRestarts => "instance_restarts",
    /// Instances that did not start or configure.
    InstanceStartFailures => "instance_start_failures",
    /// Growths of memory or tables beyond the limit.
    GrowthRefused => "growth_refused",
    /// Log lines beyond the rate.
    LogLinesDropped => "log_lines_dropped",
    /// Accesses to what the phase does not have or does not let change.
    WrongPhase => "wrong_phase",
    /// Host calls whose answer was larger than one may be.
    OutputRefused => "output_refused",
    /// Header names or values that no header may have.
    HeaderValuesRefused => "header_values_refused",
    /// Responses sent by the guest itself.
    LocalReplies => "local_replies",
    /// Actions ignored because the first one stands: a second local reply, a second continue.
    DuplicatesIgnored => "duplicates_ignored",
    /// Bodies that were larger than may be held for the guest.
    BodyLimitHits => "body_limit_hits",
    /// Messages that were broken off because a filter had made their body longer or shorter than the length that had gone on.
    LengthsBroken => "lengths_broken",
    /// Streams that failed because this filter could not run: its failure policy is closed.
    FailedClosed => "failed_closed",
    /// Streams that went on without this filter: its failure policy is open.
    FailedOpen => "failed_open",
    /// Streams that met no instance because the next attempt to start one was not due yet.
    RestartsDelayed => "restarts_delayed",
    /// Callouts that did not start: too many or too much in flight, not allowed, no such upstream.
    CalloutsRefused => "callouts_refused",
    /// Shared data, queues or queue items that the bounds of the `vm_id` refused.
    SharedRefused => "shared_refused",
    /// Metrics that could not be defined.
    MetricsRefused => "metrics_refused",
}

numbered! {
    /// Something there is more or less of at a time, summed over the workers that are.
    Level
    /// Bytes of memory of all instances.
    Memory => "memory_bytes",
    /// Instances.
    LiveInstances => "live_instances",
    /// Contexts of streams.
    LiveContexts => "live_contexts",
    /// HTTP and gRPC calls that are not answered yet.
    PendingCallouts => "pending_callouts",
}
