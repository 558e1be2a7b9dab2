//! What a filter sees of one stream: its headers, bodies and trailers, its state, and what can be done about it.
//!
//! Everything lent here (`'c`) lives until the callback ends. What always holds: reading allocates nothing but the host's copy in the arena; changing a
//! map goes to the host at once. What it does not do: keep track of when the ABI lets a part be changed; the host says so by a [`Status`].

use std::future::Future;
use std::marker::PhantomData;
use std::rc::Rc;
use std::time::Duration;

use crate::abi::{self, Buffer, Map, Side, Status, pairs::Pairs};
use crate::attributes::Attributes;
use crate::call::{GrpcCall, HttpCall};
use crate::conversation::GrpcOpening;
use crate::reply::Reply;
use crate::runtime::Shared;
use crate::runtime::task::Work;
use crate::sleep::Sleep;

/// What becomes of the stream after a callback.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[must_use = "it says what becomes of the stream"]
#[repr(u32)]
pub enum Flow {
    /// It goes on to the next filter.
    Continue = 0,
    /// It waits: for [`Stream::wait`]'s future, for more of the body, or for ever if it was answered.
    Pause = 1,
}

/// One stream, during one callback.
#[derive(Debug)]
pub struct Stream<'c, S = ()> {
    /// What the filter keeps of this stream.
    pub state: &'c mut S,
    /// Nothing of this message follows.
    pub end: bool,
    pub(crate) context: u32,
    pub(crate) size: usize,
    pub(crate) task: Option<TaskBox>,
    shared: &'c Rc<Shared<S>>,
}

/// Work that starts once the callback is over.
pub(crate) struct TaskBox(pub(crate) Work);

impl std::fmt::Debug for TaskBox {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Task")
    }
}

impl<'c, S: 'static> Stream<'c, S> {
    pub(crate) fn new(state: &'c mut S, context: u32, size: usize, end: bool, shared: &'c Rc<Shared<S>>) -> Self {
        Self { state, end, context, size, task: None, shared }
    }

    /// The request's headers. `:method`, `:path`, `:authority` and `:scheme` are among them.
    #[inline]
    #[must_use]
    pub fn request(&self) -> Headers<'c> {
        Headers::of(Map::RequestHeaders)
    }

    /// The request's trailers.
    #[must_use]
    pub fn request_trailers(&self) -> Headers<'c> {
        Headers::of(Map::RequestTrailers)
    }

    /// The response's headers. `:status` is among them.
    #[inline]
    #[must_use]
    pub fn response(&self) -> Headers<'c> {
        Headers::of(Map::ResponseHeaders)
    }

    /// The response's trailers.
    #[must_use]
    pub fn response_trailers(&self) -> Headers<'c> {
        Headers::of(Map::ResponseTrailers)
    }

    /// What there is of the request's body, in its callback.
    #[must_use]
    pub fn request_body(&self) -> Body<'c> {
        Body { buffer: Buffer::RequestBody, size: self.size, lent: PhantomData }
    }

    /// What there is of the response's body, in its callback.
    #[must_use]
    pub fn response_body(&self) -> Body<'c> {
        Body { buffer: Buffer::ResponseBody, size: self.size, lent: PhantomData }
    }

    /// What there is of the client's bytes, in their callback (TCP).
    #[must_use]
    pub fn downstream(&self) -> Body<'c> {
        Body { buffer: Buffer::DownstreamData, size: self.size, lent: PhantomData }
    }

    /// What there is of the upstream's bytes, in their callback (TCP).
    #[must_use]
    pub fn upstream(&self) -> Body<'c> {
        Body { buffer: Buffer::UpstreamData, size: self.size, lent: PhantomData }
    }

    /// The request's method.
    #[inline]
    #[must_use]
    pub fn method(&self) -> &'c [u8] {
        self.request().get(":method").unwrap_or_default()
    }

    /// The request's path with its query, as the proxy normalised it.
    #[inline]
    #[must_use]
    pub fn path(&self) -> &'c [u8] {
        self.request().get(":path").unwrap_or_default()
    }

    /// The host that the request is for.
    #[inline]
    #[must_use]
    pub fn authority(&self) -> &'c [u8] {
        self.request().get(":authority").unwrap_or_default()
    }

    /// The response's status.
    #[must_use]
    pub fn status(&self) -> Option<u16> {
        self.response().text(":status")?.parse().ok()
    }

    /// What the proxy knows of the stream and its connections.
    #[inline]
    #[must_use]
    pub fn attributes(&self) -> Attributes<'c> {
        Attributes::new()
    }

    /// An answer in the upstream's place: `return stream.reply(403).body("denied").send();`
    pub fn reply(&self, status: u16) -> Reply {
        Reply::new(status)
    }

    /// Holds the stream until the future is done, and then does what it says. Callouts are awaited in it; it is dropped with the stream.
    ///
    /// ```
    /// # use weir_sdk::prelude::*;
    /// # fn check(stream: &mut Stream<'_>) -> Flow {
    /// stream.wait(async |stream: Handle| {
    ///     match stream.get("auth", "/check").send().await {
    ///         Ok(answer) if answer.status() == 200 => Flow::Continue,
    ///         _ => stream.with(|stream| stream.reply(401).send()).unwrap_or(Flow::Pause),
    ///     }
    /// })
    /// # }
    /// ```
    pub fn wait<W, O>(&mut self, work: W) -> Flow
    where
        W: FnOnce(Handle<S>) -> O,
        O: Future<Output = Flow> + 'static,
    {
        let handle = Handle { shared: Rc::clone(self.shared), context: self.context };
        self.task = Some(TaskBox(Box::pin(work(handle))));
        Flow::Pause
    }

    /// Makes the proxy choose the route again, because something that it depends on was changed.
    ///
    /// # Errors
    /// When the host cannot do that.
    pub fn clear_route_cache(&self) -> Result<(), Status> {
        abi::foreign("clear_route_cache", &[]).map(|_| ())
    }

    /// Ends the stream at once, without an answer.
    pub fn reset(&self) -> Flow {
        let _ = abi::close(Side::Downstream);
        Flow::Pause
    }
}

/// A stream that outlives the callback: what a future in [`Stream::wait`] works with.
#[derive(Debug)]
pub struct Handle<S = ()> {
    shared: Rc<Shared<S>>,
    context: u32,
}

impl<S: Default + 'static> Handle<S> {
    /// The stream itself, between two waits. `None` when it is gone.
    pub fn with<T>(&self, run: impl FnOnce(&mut Stream<'_, S>) -> T) -> Option<T> {
        let mut streams = self.shared.streams.borrow_mut();
        if let Some(live) = streams.get_mut(self.context) {
            return Some(run(&mut Stream::new(&mut live.state, self.context, 0, false, &self.shared)));
        }
        drop(streams);
        // A stream without state is not kept, but it is there as long as its task.
        (size_of::<S>() == 0).then(|| run(&mut Stream::new(&mut S::default(), self.context, 0, false, &self.shared)))
    }

    /// Waits: `stream.sleep(time).await`. As precise as the host's timer.
    pub fn sleep(&self, time: Duration) -> Sleep {
        Sleep::new(Rc::clone(&self.shared.tasks), time)
    }

    /// An HTTP callout with any method.
    #[must_use]
    pub fn call(&self, cluster: &str, method: &str, path: &str) -> HttpCall {
        HttpCall::new(Rc::clone(&self.shared.tasks), cluster, method, path)
    }

    /// An HTTP callout: GET.
    #[must_use]
    pub fn get(&self, cluster: &str, path: &str) -> HttpCall {
        self.call(cluster, "GET", path)
    }

    /// An HTTP callout: POST.
    #[must_use]
    pub fn post(&self, cluster: &str, path: &str, body: impl Into<Vec<u8>>) -> HttpCall {
        self.call(cluster, "POST", path).body(body)
    }

    /// A gRPC stream: messages both ways.
    pub fn grpc_stream(&self, cluster: &str, service: &str, method: &str) -> GrpcOpening {
        GrpcOpening::new(Rc::clone(&self.shared.tasks), cluster, service, method)
    }

    /// A unary gRPC callout.
    #[must_use]
    pub fn grpc(&self, cluster: &str, service: &str, method: &str) -> GrpcCall {
        GrpcCall::new(Rc::clone(&self.shared.tasks), cluster, service, method)
    }
}

/// A map of headers or trailers. Names are compared without regard to case.
#[derive(Debug, Clone, Copy)]
pub struct Headers<'c> {
    map: Map,
    lent: PhantomData<&'c ()>,
}

impl<'c> Headers<'c> {
    pub(crate) fn of(map: Map) -> Self {
        Self { map, lent: PhantomData }
    }

    /// The value of a header, all of its values joined with `, ` where it came more than once. Any bytes may be in it.
    #[inline]
    #[must_use]
    pub fn get(&self, name: &str) -> Option<&'c [u8]> {
        abi::header(self.map, name.as_bytes())
    }

    /// The same as text; `None` where it is no UTF-8.
    #[inline]
    #[must_use]
    pub fn text(&self, name: &str) -> Option<&'c str> {
        std::str::from_utf8(self.get(name)?).ok()
    }

    /// Whether it is there.
    #[must_use]
    pub fn has(&self, name: &str) -> bool {
        self.get(name).is_some()
    }

    /// All of them, in order.
    #[must_use]
    pub fn iter(&self) -> Pairs<'c> {
        Pairs::new(abi::headers(self.map).unwrap_or_default())
    }

    /// Leaves a header with exactly this value.
    ///
    /// # Errors
    /// When the map is not there, or may not be changed any more.
    pub fn set(&self, name: &str, value: impl AsRef<[u8]>) -> Result<(), Status> {
        abi::replace_header(self.map, name.as_bytes(), value.as_ref())
    }

    /// Adds a value beside those that are there.
    ///
    /// # Errors
    /// As [`Headers::set`].
    pub fn add(&self, name: &str, value: impl AsRef<[u8]>) -> Result<(), Status> {
        abi::add_header(self.map, name.as_bytes(), value.as_ref())
    }

    /// Takes all values of a header away.
    ///
    /// # Errors
    /// As [`Headers::set`].
    pub fn remove(&self, name: &str) -> Result<(), Status> {
        abi::remove_header(self.map, name.as_bytes())
    }

    /// Replaces the whole map.
    ///
    /// # Errors
    /// As [`Headers::set`].
    pub fn replace<'p>(&self, pairs: impl Iterator<Item = (&'p [u8], &'p [u8])> + Clone) -> Result<(), Status> {
        abi::set_headers(self.map, &abi::pairs::encode(pairs))
    }
}

impl<'c> IntoIterator for Headers<'c> {
    type Item = (&'c [u8], &'c [u8]);
    type IntoIter = Pairs<'c>;

    fn into_iter(self) -> Pairs<'c> {
        self.iter()
    }
}

/// The part of a body that is here: all that was held back while the stream paused, or just the last piece.
#[derive(Debug, Clone, Copy)]
pub struct Body<'c> {
    buffer: Buffer,
    size: usize,
    lent: PhantomData<&'c ()>,
}

impl<'c> Body<'c> {
    /// How many bytes there are.
    #[must_use]
    pub fn len(&self) -> usize {
        self.size
    }

    /// Whether there are none.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.size == 0
    }

    /// The bytes.
    #[must_use]
    pub fn bytes(&self) -> &'c [u8] {
        if self.size == 0 { &[] } else { abi::buffer(self.buffer, 0, self.size).unwrap_or_default() }
    }

    /// Puts other bytes in the place of all of them.
    ///
    /// # Errors
    /// When the body may not be changed now.
    pub fn replace(&self, bytes: impl AsRef<[u8]>) -> Result<(), Status> {
        abi::set_buffer(self.buffer, 0, usize::MAX, bytes.as_ref())
    }

    /// Puts bytes before them.
    ///
    /// # Errors
    /// As [`Body::replace`].
    pub fn prepend(&self, bytes: impl AsRef<[u8]>) -> Result<(), Status> {
        abi::set_buffer(self.buffer, 0, 0, bytes.as_ref())
    }

    /// Puts bytes behind them.
    ///
    /// # Errors
    /// As [`Body::replace`].
    pub fn append(&self, bytes: impl AsRef<[u8]>) -> Result<(), Status> {
        abi::set_buffer(self.buffer, usize::MAX, 0, bytes.as_ref())
    }
}
