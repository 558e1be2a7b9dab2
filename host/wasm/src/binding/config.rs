//! A filter binding: one module with one configuration, its limits and its policies.
//!
//! A [`BindingConfig`] is a value that the caller fills in; [`BindingConfig::check`] names everything wrong with it at once. What a binding
//! shares with other bindings is nothing, except the stores of its `vm_id`. Code and proof that it works are
//! [`crate::Binding`]'s.

use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;

/// What kind of streams a binding serves.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Kind {
    /// HTTP requests.
    #[default]
    Http,
    /// TCP connections.
    Tcp,
}

/// What a stream meets when its filter cannot run: fetch, compile, start, configure, trap or deadline.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum FailurePolicy {
    /// The stream fails: 503 with a detail that names the filter, or the TCP connection closes.
    #[default]
    Closed,
    /// The stream goes on without this filter.
    Open,
}

/// What a filter means by answering Pause to a headers callback.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum HeaderPause {
    /// Envoy's reading: nothing more of this message reaches the filter until it continues.
    #[default]
    StopAll,
    /// The specification's: body and trailer callbacks go on while the headers wait. A body callback that continues releases them.
    Stream,
}

/// Whether a filter may change bodies; decides whether a message keeps its `content-length`.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum BodyAccess {
    /// As the module suggests: it may write if it takes bodies and imports the function that changes them. A `content-length` then waits for
    /// the body's first piece and goes on if the filter has not changed that piece's length; changing it later breaks the message off, and
    /// from then on the binding is treated as [`BodyAccess::ReadWrite`].
    #[default]
    Auto,
    /// It only reads: lengths stay, writes are ignored and counted.
    ReadOnly,
    /// It writes: a length goes on only with the whole body, and is removed otherwise.
    ReadWrite,
}

/// Which upstreams a filter may call, or which access logs it may write to.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub enum Upstreams {
    /// None.
    #[default]
    None,
    /// Any that the proxy knows.
    Any,
    /// These names, exactly.
    Only(Vec<String>),
}

impl Upstreams {
    pub(crate) fn allow(&self, name: &str) -> bool {
        match self {
            Self::None => false,
            Self::Any => true,
            Self::Only(names) => names.iter().any(|allowed| allowed == name),
        }
    }
}

/// A second configuration of the same instance, with its own root context: per-route configuration.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Variant {
    /// How a route names it.
    pub name: String,
    /// What `proxy_on_configure` reads for it.
    pub configuration: Bytes,
}

/// What a binding has to do with routes.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub enum Routing {
    /// Nothing.
    #[default]
    None,
    /// It chooses them. A choice that was cleared is asked for again: see [`crate::Stream::choose_again`].
    Chooses,
    /// Routes choose: [`crate::StreamHost::per_route`] is asked by this name, right before the filter sees anything of a stream.
    Follows {
        /// How routes name it.
        name: String,
        /// It runs only for routes that enable it.
        disabled: bool,
    },
}

/// Everything about a binding except its code.
#[derive(Clone, Debug)]
pub struct BindingConfig {
    /// Its name in logs, metrics and errors.
    pub name: Arc<str>,
    /// HTTP or TCP.
    pub kind: Kind,
    /// Which of the module's root contexts (`plugin_root_id`); Istio's `pluginName`.
    pub root_id: String,
    /// The scope of shared data and queues. Bindings with one `vm_id` see each other's; the default is this binding's name.
    pub vm_id: Option<String>,
    /// What `proxy_on_vm_start` reads.
    pub vm_configuration: Bytes,
    /// What `proxy_on_configure` reads.
    pub configuration: Bytes,
    /// Further configurations, each with its own root context.
    pub variants: Vec<Variant>,
    /// Whether it chooses routes or follows them.
    pub routing: Routing,
    /// WASI environment variables, and no others.
    pub environment: Vec<(String, String)>,
    /// What happens to streams when the filter cannot run.
    pub failure_policy: FailurePolicy,
    /// What Pause from a headers callback means.
    pub header_pause: HeaderPause,
    /// Whether the filter may change bodies.
    pub body_access: BodyAccess,
    /// Call the body callback once more, empty and with `end_of_stream`, before trailers. Differs from Envoy.
    pub final_body_before_trailers: bool,
    /// Whom it may call.
    pub upstreams: Upstreams,
    /// The access logs that it may write to: files, `stdout`, `stderr`.
    pub access_logs: Upstreams,
    /// How much it may use.
    pub limits: Limits,
}

impl BindingConfig {
    /// A binding with every default.
    #[must_use]
    pub fn new(name: &str) -> Self {
        Self {
            name: name.into(),
            kind: Kind::default(),
            root_id: String::new(),
            vm_id: None,
            vm_configuration: Bytes::new(),
            configuration: Bytes::new(),
            variants: Vec::new(),
            routing: Routing::default(),
            environment: Vec::new(),
            failure_policy: FailurePolicy::default(),
            header_pause: HeaderPause::default(),
            body_access: BodyAccess::default(),
            final_body_before_trailers: false,
            upstreams: Upstreams::default(),
            access_logs: Upstreams::default(),
            limits: Limits::default(),
        }
    }

    /// The scope of shared data and queues.
    #[must_use]
    pub fn vm_id(&self) -> &str {
        self.vm_id.as_deref().unwrap_or(&self.name)
    }

    /// Everything wrong with this configuration, each line naming the field.
    ///
    /// # Errors
    /// The list, if it is not empty.
    pub fn check(&self) -> Result<(), Vec<String>> {
        let mut problems = self.limits.problems();
        if self.name.is_empty() {
            problems.push("name: a binding needs a name".into());
        }
        for (index, (key, value)) in self.environment.iter().enumerate() {
            if key.is_empty() || key.contains(['=', '\0']) || value.contains('\0') {
                problems.push(format!("environment[{index}]: {key:?} is not a variable name, or its value has a NUL"));
            }
        }
        for (index, variant) in self.variants.iter().enumerate() {
            if self.variants[..index].iter().any(|earlier| earlier.name == variant.name) {
                problems.push(format!("variants[{index}]: the name {:?} is used twice", variant.name));
            }
        }
        if problems.is_empty() { Ok(()) } else { Err(problems) }
    }
}

/// How much one binding may use, per instance unless it says otherwise.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Limits {
    /// Longest run of one callback. Past it the instance ends.
    pub callback_deadline: Duration,
    /// Longest run of one start-up step: start function, `_initialize`, `proxy_on_vm_start`, `proxy_on_configure`. That is when the binding is
    /// loaded; a worker waits for no more than four times what starting took then, and at least 100 ms.
    pub start_deadline: Duration,
    /// How long a retired instance may delay its end by answering false to `proxy_on_done`.
    pub done_deadline: Duration,
    /// Linear memory, in bytes. Growth past it is refused.
    pub memory: usize,
    /// Bytes that one callback may hand to the host (headers, bodies, logs, calls), and that one host call may hand to it.
    pub host_output: usize,
    /// Bytes of a body held for a filter that paused. Past it: 413, 500, or the connection closes.
    pub body: usize,
    /// Log lines a second; five times as many in a burst.
    pub log_rate: u32,
    /// Callouts in flight.
    pub callouts: usize,
    /// Longest timeout of a callout; also what a timeout of 0 means.
    pub callout_timeout: Duration,
    /// Series of metrics, over all workers.
    pub metric_series: usize,
    /// Shared data and queues of the `vm_id`, over all workers, in bytes.
    pub shared_bytes: usize,
    /// Entries of shared data, and items over all queues, of the `vm_id`.
    pub shared_entries: usize,
}

impl Default for Limits {
    fn default() -> Self {
        Self {
            callback_deadline: Duration::from_millis(20),
            start_deadline: Duration::from_secs(5),
            done_deadline: Duration::from_secs(5),
            memory: 64 << 20,
            host_output: 16 << 20,
            body: 1 << 20,
            log_rate: 100,
            callouts: 1000,
            callout_timeout: Duration::from_secs(60),
            metric_series: 1000,
            shared_bytes: 16 << 20,
            shared_entries: 10_000,
        }
    }
}

impl Limits {
    /// The most that each may be set to.
    pub const MAX: Self = Self {
        callback_deadline: Duration::from_secs(10),
        start_deadline: Duration::from_secs(60),
        done_deadline: Duration::from_secs(60),
        memory: 1 << 30,
        host_output: 256 << 20,
        body: 1 << 30,
        log_rate: 100_000,
        callouts: 100_000,
        callout_timeout: Duration::from_secs(3600),
        metric_series: 100_000,
        shared_bytes: 1 << 30,
        shared_entries: 10_000_000,
    };

    fn problems(&self) -> Vec<String> {
        let (this, most) = (self.fields(), Self::MAX.fields());
        let outside = this.into_iter().zip(most).filter(|((_, value), (_, max))| *value == 0 || value > max);
        outside.map(|((name, value), (_, max))| format!("limits.{name}: {value} is not between 1 and {max}")).collect()
    }

    fn fields(&self) -> [(&'static str, u128); 12] {
        [
            ("callback_deadline (ns)", self.callback_deadline.as_nanos()),
            ("start_deadline (ns)", self.start_deadline.as_nanos()),
            ("done_deadline (ns)", self.done_deadline.as_nanos()),
            ("memory", self.memory as u128),
            ("host_output", self.host_output as u128),
            ("body", self.body as u128),
            ("log_rate", u128::from(self.log_rate)),
            ("callouts", self.callouts as u128),
            ("callout_timeout (ns)", self.callout_timeout.as_nanos()),
            ("metric_series", self.metric_series as u128),
            ("shared_bytes", self.shared_bytes as u128),
            ("shared_entries", self.shared_entries as u128),
        ]
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_problem_is_named_at_once() {
        let mut config = BindingConfig::new("");
        config.limits.memory = 0;
        config.limits.callback_deadline = Duration::from_secs(11);
        config.environment = vec![("A=B".into(), String::new())];
        config.variants = vec![Variant::default(), Variant::default()];
        let problems = config.check().expect_err("five problems").join("\n");
        for field in ["name", "limits.memory", "limits.callback_deadline", "environment[0]", "variants[1]"] {
            assert!(problems.contains(field), "{field} in:\n{problems}");
        }
        assert_eq!(BindingConfig::new("fine").check(), Ok(()));
    }
}
