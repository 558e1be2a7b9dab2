//! Copies of requests to other clusters, fire and forget.
//!
//! A copy is sent once the whole request was, if its body was small enough to be kept. Its answer is read and dropped; nothing about it touches
//! the request that it is a copy of.

use std::time::Duration;

use super::{Downstream, Exchange};
use crate::http::fields::{Fields, Known};
use crate::observe::metrics::ClusterCounter;
use crate::upstream::client;

/// Longest life of a copy.
const PATIENCE: Duration = Duration::from_secs(60);
/// Most bytes of an answer that nobody wants.
const MOST: usize = 1 << 20;

impl<D: Downstream> Exchange<'_, D> {
    /// Sends the copies that the action asks for.
    pub(super) fn mirror(&mut self) {
        let Some(route) = self.route.as_mut() else { return };
        if route.mirrored() || route.forward().is_none_or(|forward| forward.mirrors.is_empty()) {
            return;
        }
        route.set_mirrored();
        let Some(body) = route.whole_body() else { return };
        let Some(forward) = route.forward() else { return };
        for mirror in forward.mirrors.iter().filter(|mirror| mirror.chosen(fastrand::f64())) {
            let Some(cluster) = self.service.cluster(&mirror.cluster) else { continue };
            self.service.worker.metrics.cluster(cluster.metrics(), ClusterCounter::Mirrored);
            let head = shadow(&self.pipe.host().request);
            let body = body.clone();
            tokio::task::spawn_local(async move {
                // Whatever becomes of it: nobody waits for it.
                let _ = tokio::time::timeout(PATIENCE, client::send(&cluster, head, body, None, MOST)).await;
            });
        }
    }
}

/// The head of a copy: its authority says that it is one.
fn shadow(request: &Fields) -> Fields {
    let mut head = Fields::new();
    head.copy_from(request);
    let (host, port) = crate::route::split_port(request.authority());
    let mut authority = [host, b"-shadow"].concat();
    if !port.is_empty() {
        authority.push(b':');
        authority.extend_from_slice(port);
    }
    head.set_known(Known::Authority, &authority);
    head
}
