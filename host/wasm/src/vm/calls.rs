//! What callouts bring, told to the instance that started them.
//!
//! An event that arrives while the guest runs is queued and delivered after the callback returned. An event for a token that is answered,
//! cancelled or of another protocol is nobody's. Callbacks are the root context's; SDKs switch to the stream by `proxy_set_effective_context`.

use std::rc::Rc;

use crate::callout::{CallKind, Delivered, Event, Pending};
use crate::codec::Pairs;
use crate::module::callbacks::Callback;
use crate::stats::Level;
use crate::vm::{Core, Vm};

/// What the guest can read during the callback, and what `proxy_get_status` answers from then on.
struct News {
    delivered: Delivered,
    status: (u32, String),
    /// Nothing follows: the token is used up.
    last: bool,
}

impl News {
    fn more(delivered: Delivered) -> Self {
        Self { delivered, status: (0, String::new()), last: false }
    }

    fn last(delivered: Delivered, status: (u32, String)) -> Self {
        Self { delivered, status, last: true }
    }
}

impl Vm {
    pub(crate) fn waits_for(&self, token: u32) -> bool {
        match self.core.try_borrow() {
            Ok(core) => core.as_ref().is_some_and(|core| core.store.data().calls.get(token).is_some()),
            Err(_) => !self.is_dead(),
        }
    }

    /// Something happened on a callout. Told to the guest now, or after the callback it is in.
    pub(crate) fn deliver(&self, token: u32, event: Event) {
        if self.is_dead() {
            return;
        }
        // Without a core it is being started.
        let ready = self.core.try_borrow_mut().is_ok_and(|core| core.is_some());
        if ready {
            self.deliver_now(token, event);
        } else {
            self.deferred.borrow_mut().push_back((token, event));
        }
    }

    /// Delivers what arrived while the guest ran: not from inside another delivery, and not for ever, though a host that answers callouts at
    /// once and a guest that asks again at each answer would go on. What is left is for the next time.
    #[cold]
    pub(super) fn run_deferred(&self) {
        const MOST: u32 = 100;
        if self.delivering.replace(true) {
            return;
        }
        for _ in 0..MOST {
            let Some((token, event)) = ({ self.deferred.borrow_mut().pop_front() }) else { break };
            self.deliver_now(token, event);
        }
        self.delivering.set(false);
        if !self.deferred.borrow().is_empty()
            && let Ok(Some(core)) = self.core.try_borrow().as_deref()
        {
            core.store.data().host.timer_changed();
        }
    }

    fn deliver_now(&self, token: u32, event: Event) {
        let pending = self.core.borrow().as_ref().and_then(|core| core.store.data().calls.get(token));
        let Some(Pending { kind, root, .. }) = pending else { return };
        match (kind, event) {
            (CallKind::Http, Event::Http(reply)) => {
                let counts = [reply.headers.len(), reply.body.len(), reply.trailers.len()].map(|count| count as u32);
                let maps = [None, None, Some(Pairs(reply.headers)), Some(Pairs(reply.trailers))];
                let delivered = Delivered { maps, body: Some(reply.body), message: None };
                self.http(token, root, News::last(delivered, (0, String::new())), counts);
            }
            (CallKind::Http, Event::Failed(code, reason)) => {
                self.http(token, root, News::last(Delivered::default(), (code, reason)), [0; 3]);
            }
            (CallKind::GrpcStream, Event::GrpcInitialMetadata(metadata)) => {
                let params = (root, token, metadata.len() as u32);
                let maps = [Some(Pairs(metadata)), None, None, None];
                self.tell(token, News::more(Delivered { maps, ..Delivered::default() }), |core| {
                    core.call(Callback::GrpcInitialMetadata, root, |exports| &exports.grpc_receive_initial_metadata, params).map(drop)
                });
            }
            (CallKind::GrpcStream | CallKind::GrpcUnary, Event::GrpcMessage(message)) => {
                let params = (root, token, message.len() as u32);
                let news = News::more(Delivered { message: Some(message), ..Delivered::default() });
                // For a unary call the message is the answer, and SDKs expect no close after it.
                self.tell(token, News { last: kind == CallKind::GrpcUnary, ..news }, |core| {
                    core.call(Callback::GrpcReceive, root, |exports| &exports.grpc_receive, params).map(drop)
                });
            }
            (CallKind::GrpcStream, Event::GrpcTrailingMetadata(metadata)) => {
                let params = (root, token, metadata.len() as u32);
                let maps = [None, Some(Pairs(metadata)), None, None];
                self.tell(token, News::more(Delivered { maps, ..Delivered::default() }), |core| {
                    core.call(Callback::GrpcTrailingMetadata, root, |exports| &exports.grpc_receive_trailing_metadata, params).map(drop)
                });
            }
            (CallKind::GrpcStream | CallKind::GrpcUnary, Event::GrpcClosed(status, message) | Event::Failed(status, message)) => {
                // A unary call that closes well without an answer is a broken peer: INTERNAL.
                let status = if kind == CallKind::GrpcUnary && status == 0 { 13 } else { status };
                self.tell(token, News::last(Delivered::default(), (status, message)), |core| {
                    core.call(Callback::GrpcClose, root, |exports| &exports.grpc_close, (root, token, status)).map(drop)
                });
            }
            _ => {}
        }
    }

    fn http(&self, token: u32, root: u32, news: News, [headers, body, trailers]: [u32; 3]) {
        self.tell(token, news, |core| {
            let params = (root, token, headers, body, trailers);
            core.call(Callback::HttpCallResponse, root, |exports| &exports.http_call_response, params).map(drop)
        });
    }

    fn tell(&self, token: u32, news: News, call: impl FnOnce(&mut Core) -> wasmtime::Result<()>) {
        let _ = self.with(|core| {
            let state = core.store.data_mut();
            if news.last {
                state.calls.remove(token);
                state.stats.shift(Level::PendingCallouts, -1);
            }
            state.delivered = Some(Rc::new(news.delivered));
            state.status = (news.status.0, news.status.1.into());
            let result = call(core);
            core.store.data_mut().delivered = None;
            result
        });
    }
}
