//! One stream's way through its chain: the lanes of every filter in both directions, and what comes out at the end.
//!
//! Plain data without a guest in it. Host calls look here for what a filter may read and change; the runner moves released parts from lane to
//! lane. The first local reply wins, and nothing of the request moves after it.

use std::rc::Rc;
use std::sync::Arc;

use bytes::Bytes;

use crate::binding::BodyAccess;
use crate::host::{LocalReply, MessageMap, Side};
use crate::stream::buffer::Buffer;
use crate::stream::lane::{Lane, LanePolicy, Released};
use crate::stream::reply::Asked;
use crate::vm::Vm;

/// Bytes of filter state (`proxy_set_property`) that one stream may hold, each property's own cost among them.
const MAX_PROPERTY_BYTES: usize = 1 << 20;
/// What a property costs beside its path and value.
pub(crate) const PROPERTY_OVERHEAD: usize = 64;

/// A filter's part in the stream.
#[derive(Debug)]
pub(crate) struct Stage {
    pub(crate) vm: Option<Rc<Vm>>,
    pub(crate) context: u32,
    pub(crate) root: u32,
    /// Which of the binding's configurations: 0, or a variant's + 1.
    pub(crate) variant: usize,
    /// It failed and its policy let the stream go on, or it failed and the stream ends.
    pub(crate) failed: bool,
    pub(crate) lanes: [Lane; 2],
    pub(crate) policy: LanePolicy,
    pub(crate) body_access: BodyAccess,
    pub(crate) body_limit: usize,
}

/// What has come through the whole chain and is not taken yet.
#[derive(Debug, Default)]
pub(crate) struct Out {
    pub(crate) head: bool,
    pub(crate) data: Buffer,
    pub(crate) end: bool,
    pub(crate) trailers: bool,
}

/// What has arrived, and how far it got.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct Progress {
    pub(crate) head_arrived: bool,
    pub(crate) head_has_end: bool,
    pub(crate) head_out: bool,
    pub(crate) finished: bool,
    /// Bytes of body that arrived.
    pub(crate) size: u64,
}

#[derive(Debug)]
pub(crate) struct Flow {
    pub(crate) tcp: bool,
    pub(crate) stages: Box<[Stage]>,
    pub(crate) out: [Out; 2],
    pub(crate) progress: [Progress; 2],
    /// The runner is at work: state changes need no wake-up.
    pub(crate) running: bool,
    /// Asked for and not yet begun.
    pub(crate) asked: Option<Box<Asked>>,
    /// Begun. Only the first counts.
    pub(crate) reply: Option<Box<LocalReply>>,
    pub(crate) reset: bool,
    pub(crate) closed: bool,
    /// It never was a real stream: no `on_log`.
    pub(crate) unlogged: bool,
    pub(crate) may_write_body: [bool; 2],
    properties: Vec<(Box<[u8]>, Box<[u8]>)>,
    property_bytes: usize,
}

impl Flow {
    pub(crate) fn new(tcp: bool, stages: Box<[Stage]>, may_write_body: [bool; 2]) -> Self {
        Self {
            tcp,
            stages,
            may_write_body,
            out: Default::default(),
            progress: Default::default(),
            running: false,
            asked: None,
            reply: None,
            reset: false,
            closed: false,
            unlogged: false,
            properties: Vec::new(),
            property_bytes: 0,
        }
    }

    /// The stage that sees `side` first, and the one after `stage`; `None` is the end of the chain.
    pub(crate) fn first(&self, side: Side) -> Option<usize> {
        match side {
            Side::Request => (!self.stages.is_empty()).then_some(0),
            Side::Response => self.stages.len().checked_sub(1),
        }
    }

    pub(crate) fn after(&self, stage: usize, side: Side) -> Option<usize> {
        match side {
            Side::Request => Some(stage + 1).filter(|next| *next < self.stages.len()),
            Side::Response => stage.checked_sub(1),
        }
    }

    pub(crate) fn lane(&mut self, stage: usize, side: Side) -> &mut Lane {
        &mut self.stages[stage].lanes[side as usize]
    }

    /// Hands parts of a message to a stage, or out of the chain.
    pub(crate) fn pass(&mut self, to: Option<usize>, side: Side, parts: Released) {
        let Some(stage) = to else {
            let out = &mut self.out[side as usize];
            out.head |= parts.head;
            out.data.append(parts.data);
            out.end |= parts.end;
            out.trailers |= parts.trailers;
            let progress = &mut self.progress[side as usize];
            progress.head_out |= parts.head;
            progress.finished |= parts.end || parts.trailers;
            return;
        };
        let lane = self.lane(stage, side);
        if parts.head {
            lane.head_arrived();
        }
        lane.data_arrived(parts.data);
        if parts.trailers {
            lane.trailers_arrived();
        }
        if parts.end {
            lane.end_arrived();
        }
    }

    // === host calls ===

    /// Whether a change of `map` by `stage` still has an effect.
    pub(crate) fn may_write(&self, stage: usize, map: MessageMap) -> bool {
        let lanes = &self.stages[stage].lanes;
        match map {
            MessageMap::RequestHeaders => lanes[0].holds_head(),
            MessageMap::ResponseHeaders => lanes[1].holds_head(),
            MessageMap::RequestTrailers => lanes[0].holds_trailers(),
            MessageMap::ResponseTrailers => lanes[1].holds_trailers(),
        }
    }

    /// Whether `stage` may create the trailers of `side` now.
    pub(crate) fn may_add_trailers(&self, stage: usize, side: Side) -> bool {
        self.stages[stage].lanes[side as usize].may_add_trailers()
    }

    pub(crate) fn body(&mut self, stage: usize, side: Side) -> Option<&mut Buffer> {
        self.lane(stage, side).body()
    }

    /// The filter continues. `true`: something may move now.
    pub(crate) fn resume(&mut self, stage: usize, side: Side) -> bool {
        // After a local reply of the request phase there is nothing left to continue.
        if self.closed || (side == Side::Request && (self.reply.is_some() || self.asked.is_some())) {
            return false;
        }
        self.lane(stage, side).resume()
    }

    /// A local reply is asked for. `false`: it comes too late.
    pub(crate) fn ask_reply(&mut self, asked: Asked) -> bool {
        if self.asked.is_some() || self.reply.is_some() || self.progress[1].head_out || self.closed || self.reset {
            return false;
        }
        self.asked = Some(Box::new(asked));
        true
    }

    pub(crate) fn property(&self, path: &[u8]) -> Option<&[u8]> {
        self.properties.iter().find(|(key, _)| key.as_ref() == path).map(|(_, value)| value.as_ref())
    }

    /// Stores filter state. `false`: the stream holds too much already.
    pub(crate) fn set_property(&mut self, path: &[u8], value: &[u8]) -> bool {
        let known = self.properties.iter().position(|(key, _)| key.as_ref() == path);
        let cost = |value: usize| path.len() + value + PROPERTY_OVERHEAD;
        let old = known.map_or(0, |index| cost(self.properties[index].1.len()));
        let bytes = self.property_bytes - old + cost(value.len());
        if bytes > MAX_PROPERTY_BYTES {
            return false;
        }
        self.property_bytes = bytes;
        match known {
            Some(index) if self.properties[index].1.len() == value.len() => self.properties[index].1.copy_from_slice(value),
            Some(index) => self.properties[index].1 = value.into(),
            None => self.properties.push((path.into(), value.into())),
        }
        true
    }

    // === the ends ===

    /// More of a body than may be held: 413, 500, or the end where it is too late for either.
    pub(crate) fn body_too_large(&mut self, binding: &Arc<str>, side: Side) {
        let status = if side == Side::Request { 413 } else { 500 };
        if self.tcp || !self.ask_reply(Asked::too_large(binding, status)) {
            self.reset();
        }
    }

    /// Turns the stream around: the request moves no further, and the response begins anew.
    pub(crate) fn turn_around(&mut self) {
        for stage in &mut self.stages {
            for lane in &mut stage.lanes {
                *lane = Lane::default();
            }
        }
        self.out = Default::default();
        self.progress[0].finished = true;
        self.progress[1] = Progress { head_arrived: true, ..Progress::default() };
    }

    pub(crate) fn reset(&mut self) {
        self.turn_around();
        self.reset = true;
    }

    /// Bytes that the chain holds for `side`.
    pub(crate) fn held(&self, side: Side) -> usize {
        self.stages.iter().map(|stage| stage.lanes[side as usize].held()).sum()
    }

    /// Whether more of `side` would only pile up.
    pub(crate) fn is_stopped(&self, side: Side) -> bool {
        self.stages.iter().any(|stage| stage.lanes[side as usize].is_stopped())
    }

    pub(crate) fn is_paused(&self, side: Side) -> bool {
        self.stages.iter().any(|stage| stage.lanes[side as usize].is_paused())
    }
}

/// A whole reply as released parts.
pub(crate) fn reply_parts(body: Bytes) -> Released {
    Released { head: true, data: body, end: true, trailers: false }
}
