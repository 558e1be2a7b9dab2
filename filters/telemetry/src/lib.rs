//! The `telemetry` filter: counts requests and connections by Istio's standard metrics, logs them, and traces them.
//!
//! Nearly everything happens when a stream is over: what metrics and access logs need is read from the host at once, then counted and written. Traces begin
//! with the request's head. Spans, and access logs for a collector, wait in bounded buffers that a timer empties.
//!
//! Always: telemetry never changes what becomes of a request, but for the headers of its trace; what cannot be kept is dropped and counted; a request that
//! was refused, that failed or broke off is counted and logged like any other. What it does not do: look at bodies, or ask anybody about a request.

mod access_log;
pub mod config;
mod export;
mod metrics;
mod operator;
mod peer;
mod proto;
mod span;
mod time;
mod trace;
mod value;

use std::time::Duration;

use access_log::Log;
use config::Telemetry;
use metrics::Standard;
use span::{Active, Tracer};
use weir_sdk::AttributeSet;
use weir_sdk::prelude::*;

/// The filter.
#[derive(Debug)]
pub struct Observer {
    /// What metrics and access logs need of a stream, the metrics' labels first.
    set: AttributeSet,
    metrics: Option<Standard>,
    logs: Vec<Log>,
    tracer: Option<Tracer>,
}

/// What is kept of a stream.
#[derive(Debug, Default)]
pub struct Seen {
    trace: Option<Box<Active>>,
    is_tcp: bool,
}

#[register]
impl Filter for Observer {
    type Config = Telemetry;
    type State = Seen;

    fn configure(config: Telemetry, plugin: &Plugin) -> Result<Self, Refusal> {
        let mut set = AttributeSet::new();
        let metrics = Standard::compile(&config, &mut set)?;
        let mut logs = Vec::new();
        let meant = config.access_logs.iter().enumerate().filter(|(_, log)| log.mode.means(config.reporter));
        for (at, log) in meant {
            logs.push(Log::compile(&config, log, &mut set).map_err(|refusal| refusal.within(&format!("accessLogs[{at}]")))?);
        }
        let tracer = config.tracing.as_ref().map(|tracing| Tracer::compile(&config, tracing).map_err(|refusal| refusal.within("tracing")));
        let sends = config.tracing.is_some() || config.access_logs.iter().any(|log| log.otlp.is_some());
        if sends {
            plugin.tick_every(Duration::from_millis(config.report.interval_ms.max(10).into()))?;
        }
        Ok(Self { set, metrics, logs, tracer: tracer.transpose()? })
    }

    fn on_tick(&self, plugin: &Plugin) {
        self.logs.iter().for_each(|log| log.flush(plugin));
        if let Some(tracer) = &self.tracer {
            tracer.flush(plugin);
        }
    }

    fn on_request_headers(&self, stream: &mut Stream<'_, Seen>) -> Flow {
        if let Some(tracer) = &self.tracer {
            stream.state.trace = tracer.begin(stream);
        }
        Flow::Continue
    }

    fn on_connection(&self, stream: &mut Stream<'_, Seen>) -> Flow {
        stream.state.is_tcp = true;
        if let Some(metrics) = &self.metrics {
            metrics.opened(&self.set.read(stream));
        }
        Flow::Continue
    }

    fn on_log(&self, stream: &mut Stream<'_, Seen>) {
        if self.metrics.is_some() || !self.logs.is_empty() {
            let values = self.set.read(stream);
            match &self.metrics {
                Some(metrics) if stream.state.is_tcp => metrics.closed(&values),
                Some(metrics) => metrics.request(&values),
                None => {}
            }
            self.logs.iter().for_each(|log| log.write(stream, &values, stream.state.trace.as_deref()));
        }
        if let (Some(tracer), Some(active)) = (&self.tracer, stream.state.trace.take()) {
            tracer.end(stream, &active);
        }
    }
}
