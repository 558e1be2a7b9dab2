//! What guests told: callbacks and calls in order, read back as values or as one line of text each.

use std::cell::RefCell;
use std::rc::Rc;

use weir_sdk_testing::{MemoryHost, TestError, Tester, Worker};
use weir_wasm::{BindingConfig, Foreign, Upstreams};

use crate::guest::{Guest, Names};

/// One thing a guest told.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Event {
    /// A callback ran.
    Entered { guest: char, callback: String, params: Vec<u32> },
    /// A host call was answered.
    Called(Answer),
}

/// The answer to a host call.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Answer {
    pub guest: char,
    pub function: String,
    pub status: u32,
    /// The eight bytes of each out-value; `0xEE` in those that were not written.
    pub cells: [u64; 4],
    /// What was behind the pointer that came back.
    pub data: Option<Vec<u8>>,
}

/// Eight bytes that no call has written.
pub const UNTOUCHED: u64 = 0xEEEE_EEEE_EEEE_EEEE;

/// What has been told so far.
#[derive(Clone, Debug, Default)]
pub struct Story {
    events: Rc<RefCell<Vec<Event>>>,
}

fn word(bytes: &[u8], index: usize) -> u32 {
    u32::from_le_bytes(bytes[index * 4..index * 4 + 4].try_into().unwrap())
}

impl Story {
    /// A host that listens to these guests.
    pub fn listen(&self, guests: &[(char, Names)]) -> MemoryHost {
        let host = MemoryHost::default();
        let guests: Rc<[(char, Names)]> = guests.into();
        let find = move |tag: u32| guests.iter().find(|(known, _)| u32::from(*known) == tag).cloned().expect("a guest of this test");
        let (events, names) = (self.events.clone(), find.clone());
        host.provide("entered", move |bytes| {
            let (guest, names) = names(word(bytes, 0));
            let callback = names.callbacks[word(bytes, 1) as usize].clone();
            let params = (0..word(bytes, 2) as usize).map(|index| word(bytes, 3 + index)).collect();
            events.borrow_mut().push(Event::Entered { guest, callback, params });
            Foreign::Done(Vec::new())
        });
        let events = self.events.clone();
        host.provide("report", move |bytes| {
            let (guest, names) = find(word(bytes, 0));
            let function = names.calls[word(bytes, 1) as usize].clone();
            let cells = [0, 1, 2, 3].map(|cell| u64::from_le_bytes(bytes[16 + cell * 8..24 + cell * 8].try_into().unwrap()));
            events.borrow_mut().push(Event::Called(Answer { guest, function, status: word(bytes, 2), cells, data: None }));
            Foreign::Done(Vec::new())
        });
        let events = self.events.clone();
        host.provide("bytes", move |bytes| {
            if let Some(Event::Called(answer)) = events.borrow_mut().last_mut() {
                answer.data = Some(bytes.to_vec());
            }
            Foreign::Done(Vec::new())
        });
        host
    }

    pub fn events(&self) -> Vec<Event> {
        self.events.borrow().clone()
    }

    /// Forgets what has been told.
    pub fn clear(&self) {
        self.events.borrow_mut().clear();
    }

    /// The answers to calls of `function`, in order.
    pub fn answers(&self, function: &str) -> Vec<Answer> {
        let calls = self.events().into_iter().filter_map(|event| match event {
            Event::Called(answer) if answer.function == function => Some(answer),
            _ => None,
        });
        calls.collect()
    }

    /// The statuses of calls of `function`, in order.
    pub fn statuses(&self, function: &str) -> Vec<u32> {
        self.answers(function).iter().map(|answer| answer.status).collect()
    }

    /// What calls of `function` brought, as text; `-` where nothing came.
    pub fn data(&self, function: &str) -> Vec<String> {
        let text = |answer: Answer| answer.data.map_or("-".into(), |data| String::from_utf8_lossy(&data).into_owned());
        self.answers(function).into_iter().map(text).collect()
    }

    /// The callbacks that ran, in order: `a.request_headers(2,4,1)`.
    pub fn callbacks(&self) -> Vec<String> {
        let entered = self.events().into_iter().filter_map(|event| match event {
            Event::Entered { guest, callback, params } => {
                let params: Vec<_> = params.iter().map(ToString::to_string).collect();
                Some(format!("{guest}.{callback}({})", params.join(",")))
            }
            Event::Called(_) => None,
        });
        entered.collect()
    }

    /// The names of the callbacks that ran, in order: `a.request_headers`.
    pub fn names(&self) -> String {
        let name = |text: String| text.split('(').next().unwrap_or_default().to_owned();
        self.callbacks().into_iter().map(name).collect::<Vec<_>>().join(" ")
    }
}

/// A chain of guests and what they tell. Each guest's binding may be changed.
pub struct Scene {
    guests: Vec<Guest>,
    bindings: Vec<Box<dyn FnOnce(&mut BindingConfig)>>,
    engine: weir_wasm::Engine,
}

impl Scene {
    pub fn of(guest: Guest) -> Self {
        Self::chain([guest])
    }

    /// Guests in request order, named `test`, or by their tags if there are several.
    pub fn chain(guests: impl Into<Vec<Guest>>) -> Self {
        let guests = guests.into();
        let bindings = guests.iter().map(|_| Box::new(|_: &mut BindingConfig| ()) as Box<dyn FnOnce(&mut BindingConfig)>).collect();
        Self { guests, bindings, engine: engine() }
    }

    /// On an engine that is shared with another scene.
    pub fn on(mut self, engine: &weir_wasm::Engine) -> Self {
        self.engine = engine.clone();
        self
    }

    /// Changes the binding of the guest at `position`.
    pub fn binding(mut self, position: usize, change: impl FnOnce(&mut BindingConfig) + 'static) -> Self {
        self.bindings[position] = Box::new(change);
        self
    }

    pub fn try_start(self) -> Result<(Worker, Story), TestError> {
        let story = Story::default();
        let alone = self.guests.len() == 1;
        let (mut names, mut tester) = (Vec::new(), None::<Tester>);
        for (guest, change) in self.guests.iter().zip(self.bindings) {
            let (wat, guest_names) = guest.build();
            names.push((guest.tag, guest_names));
            let wasm = wat::parse_str(&wat).unwrap_or_else(|error| panic!("{error}\n{wat}"));
            let next = Tester::with_engine(&self.engine, &wasm).binding(|binding| {
                binding.name = if alone { "test".into() } else { guest.tag.to_string().into() };
                binding.configuration = "conf".into();
                binding.vm_configuration = "vmconf".into();
                binding.root_id = "root".into();
                binding.environment = vec![("K".into(), "v".into())];
                binding.upstreams = Upstreams::Only(vec!["up".into()]);
                change(binding);
            });
            tester = Some(match tester {
                Some(tester) => tester.then(next),
                None => next,
            });
        }
        let host = story.listen(&names);
        let worker = tester.expect("at least one guest").start_on(host)?;
        Ok((worker, story))
    }

    pub fn start(self) -> (Worker, Story) {
        self.try_start().unwrap_or_else(|error| panic!("{error}"))
    }
}

/// An engine of one's own: stores, metrics and accounting start empty.
pub fn engine() -> weir_wasm::Engine {
    weir_wasm::Engine::new(weir_wasm::EngineOptions::default()).expect("an engine")
}
