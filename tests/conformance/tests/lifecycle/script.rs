//! What one case does: the chain, what happens to its streams, and what the filters decide, in the order in which they are asked.

use proptest::collection::vec;
use proptest::prelude::*;
use weir_wasm::Side;

/// A filter's policies.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub(crate) struct Policy {
    pub(crate) open: bool,
    pub(crate) pause_streams: bool,
    pub(crate) final_body: bool,
    pub(crate) limited: bool,
}

/// The body limit of a limited filter.
pub(crate) const LIMIT: usize = 24;

/// Whom an action concerns: the context of the callback itself, or another live one of the instance.
pub(crate) type Target = Option<u8>;

#[derive(Clone, Debug)]
pub(crate) enum Act {
    Continue(Target, Side),
    Reply(Target),
    Callout(Target),
    Close(Target),
}

#[derive(Clone, Copy, Debug)]
pub(crate) enum Edit {
    Keep,
    Replace(usize),
    Append(usize),
    Prepend(usize),
}

/// What a filter does in one callback.
#[derive(Clone, Debug)]
pub(crate) struct Step {
    pub(crate) acts: Vec<Act>,
    pub(crate) answer: u32,
    pub(crate) edit: Edit,
    pub(crate) trap: bool,
}

/// A message: sizes of its chunks, and how it ends.
#[derive(Clone, Debug)]
pub(crate) struct Message {
    pub(crate) chunks: Vec<usize>,
    pub(crate) trailers: bool,
    /// The end comes alone, not with the last piece.
    pub(crate) late_end: bool,
}

#[derive(Clone, Copy, Debug)]
pub(crate) enum Answer {
    Good,
    Bad,
    Dropped,
}

#[derive(Clone, Debug)]
pub(crate) enum Event {
    Open(Message, Message),
    /// The next piece of a stream's message.
    Feed(u8, Side),
    /// A callout is answered, be it still wanted or not.
    Answer(u8, Answer),
    Tick,
    Foreign(u8),
    Drop(u8),
    Retire(u8),
    Clock(u64),
    /// Streams that were woken go on. Without it they wait for their next piece.
    Pump,
}

#[derive(Clone, Debug)]
pub(crate) struct Case {
    pub(crate) chain: Vec<Policy>,
    pub(crate) events: Vec<Event>,
    pub(crate) steps: Vec<Step>,
}

fn side() -> impl Strategy<Value = Side> {
    prop_oneof![Just(Side::Request), Just(Side::Response)]
}

fn act() -> impl Strategy<Value = Act> {
    let target = || proptest::option::weighted(0.5, any::<u8>());
    prop_oneof![
        6 => (target(), side()).prop_map(|(target, side)| Act::Continue(target, side)),
        2 => target().prop_map(Act::Reply),
        4 => target().prop_map(Act::Callout),
        1 => target().prop_map(Act::Close),
    ]
}

fn edit() -> impl Strategy<Value = Edit> {
    prop_oneof![
        6 => Just(Edit::Keep),
        1 => (0..40usize).prop_map(Edit::Replace),
        1 => (0..20usize).prop_map(Edit::Append),
        1 => (0..20usize).prop_map(Edit::Prepend),
    ]
}

fn step() -> impl Strategy<Value = Step> {
    let answer = prop_oneof![10 => Just(0u32), 8 => Just(1u32), 1 => 2..6u32];
    let trap = proptest::bool::weighted(0.02);
    let acts = prop_oneof![3 => Just(Vec::new()), 2 => vec(act(), 1..3)];
    (acts, answer, edit(), trap).prop_map(|(acts, answer, edit, trap)| Step { acts, answer, edit, trap })
}

fn message() -> impl Strategy<Value = Message> {
    (vec(0..30usize, 0..4), any::<bool>(), any::<bool>()).prop_map(|(chunks, trailers, late_end)| Message { chunks, trailers, late_end })
}

fn event() -> impl Strategy<Value = Event> {
    let answer = prop_oneof![3 => Just(Answer::Good), 1 => Just(Answer::Bad), 1 => Just(Answer::Dropped)];
    prop_oneof![
        3 => (message(), message()).prop_map(|(request, response)| Event::Open(request, response)),
        14 => (any::<u8>(), side()).prop_map(|(stream, side)| Event::Feed(stream, side)),
        3 => (any::<u8>(), answer).prop_map(|(callout, answer)| Event::Answer(callout, answer)),
        1 => Just(Event::Tick),
        1 => any::<u8>().prop_map(Event::Foreign),
        1 => any::<u8>().prop_map(Event::Drop),
        1 => any::<u8>().prop_map(Event::Retire),
        1 => (1..3_000u64).prop_map(Event::Clock),
        6 => Just(Event::Pump),
    ]
}

fn policy() -> impl Strategy<Value = Policy> {
    (any::<bool>(), any::<bool>(), any::<bool>(), proptest::bool::weighted(0.2))
        .prop_map(|(open, pause_streams, final_body, limited)| Policy { open, pause_streams, final_body, limited })
}

pub(crate) fn case() -> impl Strategy<Value = Case> {
    (vec(policy(), 1..4), vec(event(), 1..60), vec(step(), 0..80)).prop_map(|(chain, events, steps)| Case { chain, events, steps })
}
