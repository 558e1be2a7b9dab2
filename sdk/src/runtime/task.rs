//! What waits for the world: a small executor, and the callouts that its tasks wait for.
//!
//! A task belongs to a context. It is polled when it starts and whenever one of its callouts is answered, with its own context in effect. What always
//! holds: a task whose stream is gone is dropped, and with it what it waits for; an answer that nobody waits for any more is ignored; a task is never
//! polled while a callback of the filter runs.

use std::cell::{Cell, RefCell};
use std::collections::VecDeque;
use std::future::Future;
use std::pin::Pin;
use std::rc::Rc;
use std::task::{Context, Poll, Waker};

use crate::Flow;
use crate::abi::{self, Buffer, Map, Side};
use crate::call::{Answer, CallError};
use crate::runtime::clock::Clocks;

/// What a task is: it ends with what becomes of the stream.
pub(crate) type Work = Pin<Box<dyn Future<Output = Flow>>>;

struct Task {
    number: u64,
    context: u32,
    /// The plugin that it belongs to, whose timer wakes it.
    root: u32,
    /// What goes on when it ends; none for the plugin's own tasks.
    side: Option<Side>,
    work: Work,
}

/// A callout that a task waits for.
struct Waiting {
    call: u32,
    is_grpc: bool,
    task: u64,
    result: Rc<RefCell<Option<Result<Answer, CallError>>>>,
}

/// All tasks of an instance.
#[derive(Default)]
pub(crate) struct Tasks {
    list: RefCell<Vec<Task>>,
    /// Started while a callback runs; polled after it.
    fresh: RefCell<Vec<Work>>,
    waiting: RefCell<Vec<Waiting>>,
    /// gRPC streams that are open.
    lines: RefCell<Vec<Rc<Line>>>,
    pub(crate) clocks: Clocks,
    /// The one that is being polled, and its plugin.
    current: Cell<(u64, u32)>,
    last: Cell<u64>,
}

impl std::fmt::Debug for Tasks {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Tasks").field("live", &self.list.borrow().len()).finish_non_exhaustive()
    }
}

impl Tasks {
    /// Starts a task, as far as it goes by itself.
    pub(crate) fn start(&self, context: u32, root: u32, side: Option<Side>, work: Work) -> Flow {
        let number = self.last.get() + 1;
        self.last.set(number);
        match self.poll(Task { number, context, root, side, work }) {
            Some(flow) => flow,
            None => Flow::Pause,
        }
    }

    /// Takes a task of the plugin's own, to be started when the callback is over.
    pub(crate) fn later(&self, work: Work) {
        self.fresh.borrow_mut().push(work);
    }

    /// Starts what [`Tasks::later`] took.
    pub(crate) fn start_plugin(&self, context: u32) {
        for work in self.fresh.take() {
            let _ = self.start(context, context, None, work);
        }
    }

    /// Polls a task and keeps it, unless it is over.
    fn poll(&self, mut task: Task) -> Option<Flow> {
        let before = self.current.replace((task.number, task.root));
        let polled = task.work.as_mut().poll(&mut Context::from_waker(Waker::noop()));
        self.current.set(before);
        match polled {
            Poll::Ready(flow) => Some(flow),
            Poll::Pending => {
                self.list.borrow_mut().push(task);
                None
            }
        }
    }

    /// Polls a task whose callout was answered; lets its stream go on if that was all.
    fn wake(&self, in_effect: u32, number: u64) {
        let mut list = self.list.borrow_mut();
        let Some(at) = list.iter().position(|task| task.number == number) else { return };
        let task = list.swap_remove(at);
        drop(list);
        let (context, side) = (task.context, task.side);
        if context != in_effect && abi::effective_context(context).is_err() {
            return;
        }
        if let (Some(Flow::Continue), Some(side)) = (self.poll(task), side) {
            // Refused only where the stream is gone meanwhile.
            let _ = abi::resume(side);
        }
    }

    /// Drops the tasks of a context.
    pub(crate) fn cancel(&self, context: u32) {
        let mut list = self.list.borrow_mut();
        if list.iter().all(|task| task.context != context) {
            return;
        }
        self.clocks.forget(|task| list.iter().any(|one| one.number == task && one.context == context));
        let gone: Vec<Task> = list.extract_if(.., |task| task.context == context).collect();
        drop(list);
        // Dropped with no borrow alive: what they wait for takes itself out.
        drop(gone);
    }

    /// Notes that the current task waits for a callout.
    pub(crate) fn expect(&self, call: u32, is_grpc: bool) -> Rc<RefCell<Option<Result<Answer, CallError>>>> {
        let result = Rc::default();
        let waiting = Waiting { call, is_grpc, task: self.current.get().0, result: Rc::clone(&result) };
        self.waiting.borrow_mut().push(waiting);
        result
    }

    /// The current task waits until then.
    pub(crate) fn sleep(&self, until: u64) {
        let (task, root) = self.current.get();
        self.clocks.sleep(root, task, until);
    }

    /// Wakes the tasks of a plugin whose time has come.
    pub(super) fn wake_sleepers(&self, root: u32) {
        while let Some(task) = self.clocks.next_awake(root) {
            self.wake(root, task);
        }
        self.clocks.arm(root);
    }

    /// Gives a callout up.
    pub(crate) fn forget(&self, call: u32, is_grpc: bool) {
        let mut waiting = self.waiting.borrow_mut();
        let before = waiting.len();
        waiting.retain(|one| one.call != call || one.is_grpc != is_grpc);
        if is_grpc && waiting.len() < before {
            abi::grpc_cancel(call);
        }
    }

    fn finish(&self, in_effect: u32, call: u32, is_grpc: bool, answer: impl FnOnce() -> Result<Answer, CallError>) {
        let mut waiting = self.waiting.borrow_mut();
        let Some(at) = waiting.iter().position(|one| one.call == call && one.is_grpc == is_grpc) else { return };
        let Waiting { task, result, .. } = waiting.swap_remove(at);
        drop(waiting);
        *result.borrow_mut() = Some(answer());
        self.wake(in_effect, task);
    }

    /// An HTTP callout is answered, or failed.
    pub(crate) fn http_answer(&self, in_effect: u32, call: u32, answered: bool, size: usize) {
        self.finish(in_effect, call, false, || {
            if !answered {
                return Err(CallError::Unanswered);
            }
            let headers = abi::headers(Map::CallHeaders).unwrap_or_default().to_vec();
            let body = if size == 0 { None } else { abi::buffer(Buffer::CallBody, 0, size) };
            Ok(Answer { headers, body: body.unwrap_or_default().to_vec() })
        });
    }

    /// A gRPC message arrived. It is the answer of a unary call, and nothing follows it; on a stream there may be more.
    pub(crate) fn grpc_message(&self, in_effect: u32, call: u32, size: usize) {
        let message = if size == 0 { None } else { abi::buffer(Buffer::GrpcMessage, 0, size) }.unwrap_or_default().to_vec();
        match self.line(call) {
            Some(line) => {
                line.heard.borrow_mut().messages.push_back(message);
                self.wake_line(in_effect, &line);
            }
            None => self.finish(in_effect, call, true, || Ok(Answer { headers: Vec::new(), body: message })),
        }
    }

    /// Metadata of a gRPC stream.
    pub(crate) fn grpc_metadata(&self, in_effect: u32, call: u32, map: Map) {
        let Some(line) = self.line(call) else { return };
        let metadata = abi::headers(map).unwrap_or_default().to_vec();
        {
            let mut heard = line.heard.borrow_mut();
            match map {
                Map::GrpcTrailingMetadata => heard.trailing = metadata,
                _ => heard.initial = metadata,
            }
        }
        self.wake_line(in_effect, &line);
    }

    /// A gRPC callout is over.
    pub(crate) fn grpc_close(&self, in_effect: u32, call: u32, status: u32) {
        let end = || match status {
            0 => Ok(()),
            status => {
                let text = abi::call_status().map(|(_, text)| String::from_utf8_lossy(text).into_owned());
                Err(CallError::Grpc { status, message: text.unwrap_or_default() })
            }
        };
        match self.line(call) {
            Some(line) => {
                line.heard.borrow_mut().end = Some(end());
                self.lines.borrow_mut().retain(|one| one.call != call);
                self.wake_line(in_effect, &line);
            }
            // Without a message there is nothing that a unary call could be answered with.
            None => self.finish(in_effect, call, true, || end().and(Err(CallError::Unanswered))),
        }
    }

    /// A gRPC stream begins.
    pub(crate) fn open_line(&self, call: u32) -> Rc<Line> {
        let line = Rc::new(Line { call, heard: RefCell::default() });
        self.lines.borrow_mut().push(Rc::clone(&line));
        line
    }

    /// Gives a gRPC stream up, unless it is over.
    pub(crate) fn drop_line(&self, call: u32) {
        let mut lines = self.lines.borrow_mut();
        let before = lines.len();
        lines.retain(|one| one.call != call);
        if lines.len() < before {
            abi::grpc_cancel(call);
        }
    }

    /// The current task wants to know what comes next on a stream.
    pub(crate) fn listen(&self, line: &Line) {
        line.heard.borrow_mut().waits = Some(self.current.get().0);
    }

    fn line(&self, call: u32) -> Option<Rc<Line>> {
        self.lines.borrow().iter().find(|line| line.call == call).map(Rc::clone)
    }

    fn wake_line(&self, in_effect: u32, line: &Line) {
        let waits = line.heard.borrow_mut().waits.take();
        if let Some(task) = waits {
            self.wake(in_effect, task);
        }
    }
}

/// A gRPC stream, as far as its peer was heard.
#[derive(Debug)]
pub(crate) struct Line {
    pub(crate) call: u32,
    pub(crate) heard: RefCell<Heard>,
}

/// What the peer said, and nobody has taken yet.
#[derive(Debug, Default)]
pub(crate) struct Heard {
    pub(crate) messages: VecDeque<Vec<u8>>,
    pub(crate) initial: Vec<u8>,
    pub(crate) trailing: Vec<u8>,
    pub(crate) end: Option<Result<(), CallError>>,
    waits: Option<u64>,
}
