//! Runs a [`Filter`]: what the module's exports call.
//!
//! A root context is a configured filter; a stream's context is a state, made when the first callback needs it. What always holds: a filter without state
//! and with one configuration keeps nothing per stream; a panic is logged with its place before it ends the instance; a callback that the host should
//! not have made (an unknown context, a filter that was never configured) lets the stream pass and touches nothing.

pub(crate) mod clock;
pub(crate) mod table;
pub(crate) mod task;

use std::cell::RefCell;
use std::mem::size_of;
use std::rc::Rc;

use crate::abi::{self, Buffer, Map, Side};
use crate::log::{self, Level};
use crate::plugin::Plugin;
use crate::queue::Queue;
use crate::stream::Stream;
use crate::{Filter, Flow};
use table::Table;
use task::Tasks;

macro_rules! callbacks {
    ($($(#[$about:meta])* $name:ident = $export:literal ($arguments:literal) $(-> $answers:ident)?),* $(,)?) => {
        /// A callback of the ABI.
        #[derive(Debug, Clone, Copy, PartialEq, Eq)]
        pub enum Callback { $($(#[$about])* $name),* }

        impl Callback {
            /// Every one that a filter of this SDK can take.
            pub const ALL: &[Self] = &[$(Self::$name),*];

            /// The name of its export.
            #[must_use]
            pub const fn export(self) -> &'static str {
                match self { $(Self::$name => $export),* }
            }

            /// How many arguments it has.
            #[must_use]
            pub const fn arguments(self) -> usize {
                match self { $(Self::$name => $arguments),* }
            }

            /// Whether it returns something.
            #[must_use]
            pub const fn answers(self) -> bool {
                match self { $(Self::$name => 0 $(+ { let $answers = 1; $answers })? > 0),* }
            }
        }
    };
}

callbacks! {
    /// A root or stream begins.
    ContextCreate = "proxy_on_context_create" (2),
    /// The configuration is there.
    Configure = "proxy_on_configure" (2) -> answer,
    /// The timer went.
    Tick = "proxy_on_tick" (1),
    /// The request's head.
    RequestHeaders = "proxy_on_request_headers" (3) -> answer,
    /// A piece of the request's body.
    RequestBody = "proxy_on_request_body" (3) -> answer,
    /// The request's trailers.
    RequestTrailers = "proxy_on_request_trailers" (2) -> answer,
    /// The response's head.
    ResponseHeaders = "proxy_on_response_headers" (3) -> answer,
    /// A piece of the response's body.
    ResponseBody = "proxy_on_response_body" (3) -> answer,
    /// The response's trailers.
    ResponseTrailers = "proxy_on_response_trailers" (2) -> answer,
    /// A TCP connection begins.
    NewConnection = "proxy_on_new_connection" (1) -> answer,
    /// Bytes from the client.
    DownstreamData = "proxy_on_downstream_data" (3) -> answer,
    /// Bytes from the upstream.
    UpstreamData = "proxy_on_upstream_data" (3) -> answer,
    /// The client closed.
    DownstreamClose = "proxy_on_downstream_connection_close" (2),
    /// The upstream closed.
    UpstreamClose = "proxy_on_upstream_connection_close" (2),
    /// An HTTP callout is answered.
    HttpCallResponse = "proxy_on_http_call_response" (5),
    /// A gRPC stream's peer has begun to answer.
    GrpcInitialMetadata = "proxy_on_grpc_receive_initial_metadata" (3),
    /// A gRPC message arrived.
    GrpcReceive = "proxy_on_grpc_receive" (3),
    /// A gRPC stream's peer says the last it has to say.
    GrpcTrailingMetadata = "proxy_on_grpc_receive_trailing_metadata" (3),
    /// Somebody has put an item into a queue.
    QueueReady = "proxy_on_queue_ready" (2),
    /// A gRPC callout is over.
    GrpcClose = "proxy_on_grpc_close" (3),
    /// The stream is to be logged.
    Log = "proxy_on_log" (1),
    /// A context is gone.
    Delete = "proxy_on_delete" (1),
}

/// What is kept of streams, and what waits for something.
#[derive(Debug)]
pub(crate) struct Shared<S> {
    pub(crate) streams: RefCell<Table<Live<S>>>,
    pub(crate) tasks: Rc<Tasks>,
}

/// A stream.
#[derive(Debug)]
pub(crate) struct Live<S> {
    root: u32,
    pub(crate) state: S,
}

/// One instance of a filter's module.
pub struct Runtime<F: Filter> {
    roots: RefCell<Vec<(u32, F)>>,
    shared: Rc<Shared<F::State>>,
}

impl<F: Filter> std::fmt::Debug for Runtime<F> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Runtime").field("roots", &self.roots.borrow().len()).finish_non_exhaustive()
    }
}

impl<F: Filter> Default for Runtime<F> {
    fn default() -> Self {
        let shared = Shared { streams: RefCell::new(Table::new()), tasks: Rc::default() };
        Self { roots: RefCell::default(), shared: Rc::new(shared) }
    }
}

impl<F: Filter> Runtime<F> {
    /// Runs a callback. The arguments are the ABI's, in its order; what it does not return is 0.
    #[inline]
    pub fn run(&self, callback: Callback, arguments: [u32; 5]) -> u32 {
        abi::begin();
        let [context, first, second, ..] = arguments;
        let size = first as usize;
        match callback {
            Callback::ContextCreate => self.create(context, first),
            Callback::Configure => return u32::from(self.configure(context, size)),
            Callback::Tick => self.tick(context),
            Callback::RequestHeaders => return self.phase(context, Side::Request, 0, second != 0, F::on_request_headers),
            Callback::RequestBody => return self.phase(context, Side::Request, size, second != 0, F::on_request_body),
            Callback::RequestTrailers => return self.phase(context, Side::Request, 0, true, F::on_request_trailers),
            Callback::ResponseHeaders => return self.phase(context, Side::Response, 0, second != 0, F::on_response_headers),
            Callback::ResponseBody => return self.phase(context, Side::Response, size, second != 0, F::on_response_body),
            Callback::ResponseTrailers => return self.phase(context, Side::Response, 0, true, F::on_response_trailers),
            Callback::NewConnection => return self.phase(context, Side::Downstream, 0, false, F::on_connection),
            Callback::DownstreamData => return self.phase(context, Side::Downstream, size, second != 0, F::on_downstream_data),
            Callback::UpstreamData => return self.phase(context, Side::Upstream, size, second != 0, F::on_upstream_data),
            Callback::DownstreamClose => self.notice(context, Side::Downstream, F::on_downstream_close),
            Callback::UpstreamClose => self.notice(context, Side::Upstream, F::on_upstream_close),
            Callback::HttpCallResponse => {
                self.shared.tasks.http_answer(context, first, second != 0, arguments[3] as usize);
            }
            Callback::GrpcInitialMetadata => self.shared.tasks.grpc_metadata(context, first, Map::GrpcInitialMetadata),
            Callback::GrpcTrailingMetadata => self.shared.tasks.grpc_metadata(context, first, Map::GrpcTrailingMetadata),
            Callback::GrpcReceive => self.shared.tasks.grpc_message(context, first, second as usize),
            Callback::QueueReady => self.queue(context, first),
            Callback::GrpcClose => self.shared.tasks.grpc_close(context, first, second),
            Callback::Log => self.notice(context, Side::Response, F::on_log),
            Callback::Delete => self.delete(context),
        }
        0
    }

    /// Whether nothing is kept of a stream: its configuration is the only one, and its state has no size.
    #[inline]
    fn is_stateless(roots: &[(u32, F)]) -> bool {
        size_of::<F::State>() == 0 && roots.len() <= 1
    }

    #[inline]
    fn create(&self, context: u32, parent: u32) {
        if parent == 0 {
            #[cfg(target_arch = "wasm32")]
            std::panic::set_hook(Box::new(|panic| log::write(Level::Critical, format_args!("{panic}"))));
            return;
        }
        if !Self::is_stateless(&self.roots.borrow()) {
            let make = || Live { root: parent, state: F::State::default() };
            self.shared.streams.borrow_mut().get_or_insert_with(context, make);
        }
    }

    fn configure(&self, context: u32, size: usize) -> bool {
        let bytes = abi::buffer(Buffer::PluginConfiguration, 0, size).unwrap_or_default();
        let plugin = Plugin::new(context, Rc::clone(&self.shared.tasks));
        match F::read(bytes).and_then(|config| F::configure(config, &plugin)) {
            Ok(filter) => {
                let mut roots = self.roots.borrow_mut();
                roots.retain(|(root, _)| *root != context);
                roots.push((context, filter));
                drop(roots);
                self.shared.tasks.start_plugin(context);
                true
            }
            Err(refusal) => {
                log::write(Level::Error, format_args!("configuration refused: {refusal}"));
                false
            }
        }
    }

    fn tick(&self, context: u32) {
        let tasks = &self.shared.tasks;
        if let Some((_, filter)) = self.roots.borrow().iter().find(|(root, _)| *root == context)
            && tasks.clocks.is_tick(context)
        {
            filter.on_tick(&Plugin::new(context, Rc::clone(&self.shared.tasks)));
        }
        tasks.start_plugin(context);
        tasks.wake_sleepers(context);
    }

    fn queue(&self, context: u32, queue: u32) {
        if let Some((_, filter)) = self.roots.borrow().iter().find(|(root, _)| *root == context) {
            filter.on_queue(Queue::of(queue), &Plugin::new(context, Rc::clone(&self.shared.tasks)));
        }
        self.shared.tasks.start_plugin(context);
    }

    #[inline]
    fn phase(&self, context: u32, side: Side, size: usize, end: bool, run: impl FnOnce(&F, &mut Stream<'_, F::State>) -> Flow) -> u32 {
        let mut task = None;
        let flow = self.with(context, |filter, state| {
            let mut stream = Stream::new(state, context, size, end, &self.shared);
            let flow = run(filter, &mut stream);
            task = stream.task.take().map(|task| task.0);
            flow
        });
        let flow = match task {
            Some(task) => self.shared.tasks.start(context, self.root_of(context), Some(side), task),
            None => flow.unwrap_or(Flow::Continue),
        };
        flow as u32
    }

    #[inline]
    fn notice(&self, context: u32, side: Side, run: impl FnOnce(&F, &mut Stream<'_, F::State>)) {
        self.phase(context, side, 0, true, |filter, stream| {
            run(filter, stream);
            Flow::Continue
        });
    }

    #[inline]
    fn with<T>(&self, context: u32, run: impl FnOnce(&F, &mut F::State) -> T) -> Option<T> {
        let roots = self.roots.borrow();
        let (first, only) = roots.first()?;
        if Self::is_stateless(&roots) {
            return Some(run(only, &mut F::State::default()));
        }
        let mut streams = self.shared.streams.borrow_mut();
        let live = streams.get_or_insert_with(context, || Live { root: *first, state: F::State::default() });
        let (_, filter) = roots.iter().find(|(root, _)| *root == live.root)?;
        Some(run(filter, &mut live.state))
    }

    /// The plugin that a stream belongs to.
    fn root_of(&self, context: u32) -> u32 {
        let live = self.shared.streams.borrow_mut().get_mut(context).map(|live| live.root);
        live.or_else(|| self.roots.borrow().first().map(|(root, _)| *root)).unwrap_or_default()
    }

    #[inline]
    fn delete(&self, context: u32) {
        self.shared.tasks.cancel(context);
        let gone = self.shared.streams.borrow_mut().remove(context);
        drop(gone);
        let mut roots = self.roots.borrow_mut();
        if roots.iter().any(|(root, _)| *root == context) {
            roots.retain(|(root, _)| *root != context);
        }
    }
}
