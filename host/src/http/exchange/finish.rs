//! The end of a request: its filters see it, then it is counted and logged.

use std::time::{Duration, SystemTime};

use super::record::{Details, Record};
use super::{Downstream, Ended, Exchange};
use crate::filter::RequestHost;
use crate::http::fields::Known;
use crate::observe::access_log;
use crate::observe::metrics::{self, Detailed, ListenerLevel};
use crate::worker::Entry;

impl<D: Downstream> Exchange<'_, D> {
    pub(super) fn finish(&mut self, ended: Ended) {
        if ended != Ended::Complete {
            // What the upstream was still doing is for nobody.
            self.drop_upstream();
        }
        if self.entry == Entry::Counted {
            self.service.worker.process().leave();
        }
        self.pipe.finish();
        let mut host = self.pipe.host_mut();
        let host = &mut *host;
        let (service, worker) = (&self.service, &self.service.worker);
        let duration = worker.instant().saturating_duration_since(host.record.started);
        let millis = u64::try_from(duration.as_millis()).unwrap_or(u64::MAX);
        let Record { status, received, sent, .. } = host.record;
        let counted = metrics::Ended { status, duration_ms: millis, request_bytes: received, response_bytes: sent };
        worker.metrics.request(&service.metrics, &counted);
        worker.metrics.listener_level(&service.metrics, ListenerLevel::Requests, -1);
        match &host.record.details {
            Details::Fixed("via_upstream") => {}
            Details::Fixed(detail) => worker.metrics.detail(&service.metrics, Detailed::LocalReply, detail),
            Details::Made(_) => worker.metrics.detail(&service.metrics, Detailed::LocalReply, "filter_reply"),
        }
        if let Some(route) = &self.route {
            worker.metrics.response(route.cluster().metrics(), status, millis);
        }
        let steps_back = host.logged && service.config.access_log_fallback;
        if let Some(sink) = service.config.access_log.as_ref().filter(|_| !steps_back) {
            log(host, duration, |record| worker.log.record(sink, record));
        }
        worker.give_fields(std::mem::take(&mut host.request));
        worker.give_fields(std::mem::take(&mut host.response));
    }
}

/// Hands a request to an access log.
fn log(host: &RequestHost, duration: Duration, write: impl FnOnce(&access_log::Record<'_>)) {
    let (record, request, connection) = (&host.record, &host.request, &host.connection);
    let field = |known| request.get_known(known).unwrap_or_default();
    let flags = record.flags.letters();
    let upstream = record.endpoint.as_ref().map(|endpoint| endpoint.key.to_string()).unwrap_or_default();
    write(&access_log::Record {
        start: SystemTime::now() - duration,
        method: request.method(),
        path: request.get_known(Known::XEnvoyOriginalPath).unwrap_or(request.path()),
        protocol: connection.protocol(),
        status: record.status,
        flags: &flags,
        details: record.details.as_str(),
        bytes_received: record.received,
        bytes_sent: record.sent,
        duration,
        upstream_time: record.upstream_time,
        forwarded_for: field(Known::XForwardedFor),
        user_agent: field(Known::UserAgent),
        request_id: field(Known::XRequestId),
        authority: request.authority(),
        upstream_host: &upstream,
        upstream_cluster: record.cluster.as_deref().unwrap_or_default(),
        downstream_local: connection.local(),
        downstream_remote: connection.info.peer,
        server_name: connection.info.server_name.as_deref().unwrap_or_default().as_bytes(),
        route: record.route.as_deref().unwrap_or_default(),
        decision: record.decision.as_deref().unwrap_or_default(),
        ..access_log::Record::default()
    });
}
