//! Answers of the core itself: failures, redirects, direct responses. They pass the filters' response callbacks like an upstream's.

use bytes::Bytes;
use weir_wasm::Side;

use super::failure::Failure;
use super::record::{Details, Flags};
use super::{Downstream, Exchange};
use crate::http::fields::{Fields, Known};

impl<D: Downstream> Exchange<'_, D> {
    /// Answers with a plain text.
    pub(super) fn respond(&mut self, status: u16, details: &'static str, flags: Flags, body: &'static str) {
        self.explain(details, flags);
        let body = if self.is_grpc { Bytes::new() } else { Bytes::from_static(body.as_bytes()) };
        self.answer(status, body, |fields| fields.push_known(Known::ContentType, b"text/plain"));
    }

    /// Answers with a text of the configuration.
    pub(super) fn respond_directly(&mut self, response: &weir_model::config::DirectResponse) {
        self.explain("direct_response", Flags::NONE);
        let content_type = if response.content_type.is_empty() { "text/plain" } else { &response.content_type };
        let status = u16::try_from(response.status).unwrap_or(200);
        self.answer(status, Bytes::copy_from_slice(response.body.as_bytes()), |fields| {
            fields.push_known(Known::ContentType, content_type.as_bytes());
        });
    }

    /// Sends the client elsewhere.
    pub(super) fn redirect(&mut self, status: u16, location: &[u8]) {
        self.explain("redirect", Flags::NONE);
        self.answer(status, Bytes::new(), |fields| fields.push_known(Known::Location, location));
    }

    /// Sends the client to the plain spelling of its path.
    pub(super) fn redirect_path(&mut self, path: &[u8]) {
        self.explain("path_redirect", Flags::NONE);
        self.answer(307, Bytes::new(), |fields| fields.push_known(Known::Location, path));
    }

    /// Feeds a response of the core's own to the filters, in place of the upstream's.
    fn answer(&mut self, status: u16, body: Bytes, head: impl FnOnce(&mut Fields)) {
        self.drop_upstream();
        self.deadlines.retry = None;
        self.deadlines.response = None;
        if self.response.head_fed {
            // The filters have the upstream's head already and the client has nothing: there is no way to tell them of another one.
            return self.reset(Flags::LOCAL_RESET, "reset_after_response_began");
        }
        let grpc = self.is_grpc && status != 200;
        let mut host = self.pipe.host_mut();
        let details = match &host.record.details {
            Details::Fixed(text) => *text,
            Details::Made(_) => "",
        };
        let response = &mut host.response;
        response.clear();
        response.set_status(if grpc { 200 } else { status });
        if grpc {
            response.push_known(Known::ContentType, b"application/grpc");
            response.set_number(Known::GrpcStatus, u64::from(Failure::grpc_status(status)));
            response.push_known(Known::GrpcMessage, details.as_bytes());
        } else {
            head(response);
            response.set_number(Known::ContentLength, body.len() as u64);
            if body.is_empty() {
                response.remove_known(Known::ContentType);
            }
        }
        host.has_response = true;
        drop(host);
        self.response.head_fed = true;
        self.response.fed = true;
        let ends = body.is_empty() || self.is_head || grpc;
        self.pipe.feed_head(Side::Response, ends);
        if !ends {
            self.pipe.feed_data(Side::Response, body, true);
        }
    }
}
