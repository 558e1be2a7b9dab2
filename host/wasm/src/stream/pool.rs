//! The memory of streams that are over, for the next ones: a stream through a chain allocates nothing once there have been a few.
//!
//! What always holds: what is handed out is known to nobody else, whatever a filter's instance still remembers of an earlier stream; the proxy's
//! own object is gone as soon as its stream is; a pool keeps a bounded number of small things.

use std::any::Any;
use std::cell::RefCell;
use std::rc::Rc;

use crate::codec::Path;
use crate::host::{Attribute, Foreign, Headers, LocalReply, MessageMap, PerRoute, Side, StreamHost};
use crate::stream::StreamCell;
use crate::stream::flow::Flow;

/// As many streams as one worker usually has at once.
const MOST: usize = 256;

/// Cells without a stream.
#[derive(Default)]
pub(super) struct Pool(RefCell<Vec<Rc<dyn Any>>>);

impl Pool {
    /// A cell for a new stream: used before, or with a flow that is `made` now.
    #[inline]
    pub(super) fn take<H: StreamHost + 'static>(&self, made: impl FnOnce() -> Flow, host: H) -> Rc<StreamCell<Slot<H>>> {
        let used = self.0.borrow_mut().pop().and_then(|cell| cell.downcast::<StreamCell<Slot<H>>>().ok());
        if let Some(mut cell) = used
            && let Some(own) = Rc::get_mut(&mut cell)
        {
            own.flow.get_mut().begin();
            own.host.get_mut().0 = Some(host);
            return cell;
        }
        Rc::new(StreamCell { flow: RefCell::new(made()), host: RefCell::new(Slot(Some(host))) })
    }

    /// Takes in the cell of a stream that has finished.
    #[inline]
    pub(super) fn put<H: StreamHost + 'static>(&self, cell: &Rc<StreamCell<Slot<H>>>) {
        let (Ok(mut flow), Ok(mut slot)) = (cell.flow.try_borrow_mut(), cell.host.try_borrow_mut()) else { return };
        flow.clear();
        let host = slot.0.take();
        drop((flow, slot));
        // With nothing borrowed: what ends with it may be anything.
        drop(host);
        if let Ok(mut idle) = self.0.try_borrow_mut()
            && idle.len() < MOST
        {
            idle.push(cell.clone());
        }
    }
}

/// The proxy's object, while there is one. Without one it answers as a stream that knows nothing.
pub(crate) struct Slot<H>(Option<H>);

impl<H> Slot<H> {
    #[expect(clippy::expect_used, reason = "only the stream itself gets here, and it gives its object back when it is dropped")]
    pub(super) fn get(&self) -> &H {
        self.0.as_ref().expect("a stream has its object")
    }

    #[expect(clippy::expect_used, reason = "as above")]
    pub(super) fn get_mut(&mut self) -> &mut H {
        self.0.as_mut().expect("a stream has its object")
    }
}

/// Every method hands on, those with a default among them.
impl<H: StreamHost> StreamHost for Slot<H> {
    #[inline]
    fn headers(&mut self, map: MessageMap) -> Option<&mut dyn Headers> {
        self.0.as_mut()?.headers(map)
    }

    fn make_trailers(&mut self, side: Side) -> Option<&mut dyn Headers> {
        self.0.as_mut()?.make_trailers(side)
    }

    fn attribute(&self, path: Path<'_>) -> Option<Attribute<'_>> {
        self.0.as_ref()?.attribute(path)
    }

    fn set_attribute(&mut self, path: Path<'_>, value: &[u8]) -> bool {
        self.0.as_mut().is_some_and(|host| host.set_attribute(path, value))
    }

    fn start_local_reply(&mut self, reply: &LocalReply) {
        if let Some(host) = &mut self.0 {
            host.start_local_reply(reply);
        }
    }

    fn repair_length(&mut self, side: Side, length: Option<u64>) {
        if let Some(host) = &mut self.0 {
            host.repair_length(side, length);
        }
    }

    fn wake(&mut self) {
        if let Some(host) = &mut self.0 {
            host.wake();
        }
    }

    fn clear_route_cache(&mut self) {
        if let Some(host) = &mut self.0 {
            host.clear_route_cache();
        }
    }

    fn per_route(&self, name: &str, disabled: bool) -> PerRoute<'_> {
        self.0.as_ref().map_or(PerRoute::Off, |host| host.per_route(name, disabled))
    }

    fn foreign(&mut self, binding: &str, name: &str, arguments: &[u8]) -> Foreign {
        self.0.as_mut().map_or(Foreign::Unknown, |host| host.foreign(binding, name, arguments))
    }

    fn logged(&mut self) {
        if let Some(host) = &mut self.0 {
            host.logged();
        }
    }

    fn log_id(&self) -> &str {
        self.0.as_ref().map_or("", StreamHost::log_id)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Says when it is gone.
    struct Object(Rc<RefCell<u32>>);

    impl Drop for Object {
        fn drop(&mut self) {
            *self.0.borrow_mut() += 1;
        }
    }

    impl StreamHost for Object {
        fn headers(&mut self, _: MessageMap) -> Option<&mut dyn Headers> {
            None
        }

        fn make_trailers(&mut self, _: Side) -> Option<&mut dyn Headers> {
            None
        }

        fn attribute(&self, _: Path<'_>) -> Option<Attribute<'_>> {
            None
        }

        fn start_local_reply(&mut self, _: &LocalReply) {}

        fn wake(&mut self) {}
    }

    fn flow() -> Flow {
        Flow::new(false, Box::default(), [false; 2])
    }

    #[test]
    fn a_cell_is_used_again_clean_and_its_object_is_gone() {
        let (pool, gone) = (Pool::default(), Rc::default());
        let first = pool.take(flow, Object(Rc::clone(&gone)));
        assert!(first.flow.borrow_mut().properties.set(b"note", b"of the first"));
        first.flow.borrow_mut().reset();
        pool.put(&first);
        assert_eq!(*gone.borrow(), 1);
        let place = Rc::as_ptr(&first);
        drop(first);
        let second = pool.take(|| unreachable!("there is a used one"), Object(Rc::clone(&gone)));
        assert_eq!(Rc::as_ptr(&second), place);
        let flow = second.flow.borrow();
        assert!(!flow.reset && !flow.closed && flow.properties.get(b"note").is_none());
    }

    #[test]
    fn a_cell_that_somebody_still_knows_is_nobodys_any_more() {
        let (pool, gone) = (Pool::default(), Rc::default());
        let first = pool.take(flow, Object(Rc::clone(&gone)));
        let remembered: Rc<StreamCell<dyn StreamHost>> = first.clone();
        pool.put(&first);
        assert_eq!(*gone.borrow(), 1);
        assert!(remembered.host.borrow_mut().headers(MessageMap::RequestHeaders).is_none());
        let second = pool.take(flow, Object(Rc::clone(&gone)));
        assert!(!Rc::ptr_eq(&first, &second));
        assert!(remembered.flow.borrow().closed && !second.flow.borrow().closed);
    }
}
