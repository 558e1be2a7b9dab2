//! One filter's place in one direction of a message: what has arrived, what the filter has seen, what it holds back.
//!
//! A pure state machine. [`Lane::next`] says which callback is due, the runner calls it and hands the guest's answer to [`Lane::answered`], and
//! what is then free to go on is in [`Lane::release`]. Order always holds: head, body, end or trailers; nothing overtakes. A body callback while
//! paused sees everything held so far (the sizes are cumulative); after Continue each sees only what is new.

use bytes::Bytes;

use crate::binding::HeaderPause;
use crate::stream::buffer::Buffer;

/// A callback that is due.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Step {
    /// Headers; `end`: nothing follows.
    Head { end: bool },
    /// Body bytes, all that the filter holds and what is new.
    Body { size: usize, end: bool },
    /// Trailers.
    Trailers,
}

/// What a filter answered, freed from the per-callback numbering of the ABI.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Answer {
    Continue,
    /// Pause as the binding reads it.
    Pause,
    /// Pause, and nothing more reaches the filter (Envoy's StopAllIteration…, from C++ guests).
    PauseAll,
    /// Pause and drop the bytes just shown (Envoy's StopIterationNoBuffer).
    PauseAndDrop,
}

impl Answer {
    /// Unknown numbers are Continue, as in hosts that read only the lowest values.
    pub(crate) fn from_abi(step: Step, value: Option<u32>) -> Self {
        match (step, value) {
            (Step::Head { .. }, Some(1)) | (Step::Body { .. }, Some(1 | 2)) | (Step::Trailers, Some(1)) => Self::Pause,
            (Step::Head { .. }, Some(3 | 4)) => Self::PauseAll,
            (Step::Body { .. }, Some(3)) => Self::PauseAndDrop,
            _ => Self::Continue,
        }
    }
}

#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
enum Part {
    #[default]
    Absent,
    /// It has arrived; the filter has not seen it.
    Waiting,
    /// The filter sees it or holds it back.
    Held,
    Passed,
}

/// A [`Step`] while its callback runs.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Showing {
    Head,
    Body,
    /// With `end_of_stream`.
    LastBody,
    Trailers,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Pause {
    /// Nothing is shown until the filter continues.
    All,
    /// What arrives is still shown.
    Showing,
}

/// What may go on to the next filter.
#[derive(Debug, Default)]
pub(crate) struct Released {
    pub(crate) head: bool,
    pub(crate) data: Bytes,
    pub(crate) end: bool,
    pub(crate) trailers: bool,
}

#[derive(Debug, Default)]
pub(crate) struct Lane {
    head: Part,
    trailers: Part,
    /// The message ends without trailers.
    end: bool,
    /// The filter has been told so.
    end_shown: bool,
    end_passed: bool,
    pause: Option<Pause>,
    /// Bytes the filter has seen and holds, or sees now.
    shown: Buffer,
    /// Bytes it has not seen.
    waiting: Buffer,
    /// The callback that runs now.
    showing: Option<Showing>,
    /// It asked to continue, in the running callback or since it paused.
    resumed: bool,
    final_body_shown: bool,
}

/// What a lane must know about its filter.
#[derive(Clone, Copy, Debug)]
pub(crate) struct LanePolicy {
    pub(crate) header_pause: HeaderPause,
    pub(crate) final_body_before_trailers: bool,
}

impl Lane {
    // === what arrives ===

    pub(crate) fn head_arrived(&mut self) {
        self.head = Part::Waiting;
    }

    pub(crate) fn data_arrived(&mut self, data: Bytes) {
        self.waiting.append(data);
    }

    pub(crate) fn end_arrived(&mut self) {
        self.end = true;
    }

    pub(crate) fn trailers_arrived(&mut self) {
        if self.trailers == Part::Absent {
            self.trailers = Part::Waiting;
        }
    }

    // === callbacks ===

    /// The callback that is due, if one is. The runner must report its answer before asking again.
    pub(crate) fn next(&mut self, policy: LanePolicy) -> Option<Step> {
        if self.resumed {
            self.resumed = false;
            self.pause = None;
        }
        let step = self.due(policy)?;
        self.showing = Some(match step {
            Step::Head { end } => {
                self.head = Part::Held;
                self.end_shown |= end;
                Showing::Head
            }
            Step::Body { end, .. } => {
                self.shown.append(self.waiting.take());
                self.end_shown |= end && self.end;
                self.final_body_shown |= end;
                if end { Showing::LastBody } else { Showing::Body }
            }
            Step::Trailers => {
                self.trailers = Part::Held;
                Showing::Trailers
            }
        });
        Some(step)
    }

    /// A head arrives in a lane that nothing has entered, and its callback is what runs next.
    #[inline]
    pub(crate) fn show_head(&mut self, end: bool) {
        self.head = Part::Held;
        self.end = end;
        self.end_shown = end;
        self.showing = Some(Showing::Head);
    }

    /// As new, for the next stream.
    #[inline]
    pub(crate) fn clear(&mut self) {
        let Self { head, trailers, end, end_shown, end_passed, pause, shown, waiting, showing, resumed, final_body_shown } = self;
        (*head, *trailers, *pause, *showing) = (Part::Absent, Part::Absent, None, None);
        (*end, *end_shown, *end_passed, *resumed, *final_body_shown) = (false, false, false, false, false);
        shown.clear();
        waiting.clear();
    }

    fn due(&self, policy: LanePolicy) -> Option<Step> {
        if self.pause == Some(Pause::All) {
            return None;
        }
        match self.head {
            Part::Absent => return None,
            Part::Waiting => {
                let end = self.end && self.waiting.is_empty();
                return Some(Step::Head { end });
            }
            Part::Held | Part::Passed => {}
        }
        let end_due = self.end && !self.end_shown;
        let size = self.shown.len() + self.waiting.len();
        if !self.waiting.is_empty() || end_due {
            return Some(Step::Body { size, end: end_due });
        }
        if self.trailers == Part::Waiting {
            let last_body = policy.final_body_before_trailers && !self.final_body_shown;
            return Some(if last_body { Step::Body { size, end: true } } else { Step::Trailers });
        }
        None
    }

    /// The guest's answer to the callback that [`Lane::next`] named.
    pub(crate) fn answered(&mut self, answer: Answer, policy: LanePolicy) {
        let step = self.showing.take();
        let resumed = std::mem::take(&mut self.resumed);
        self.pause = match answer {
            Answer::Continue => None,
            _ if resumed => None,
            Answer::PauseAll => Some(Pause::All),
            Answer::Pause if step == Some(Showing::Head) && policy.header_pause == HeaderPause::StopAll => Some(Pause::All),
            Answer::Pause => Some(Pause::Showing),
            Answer::PauseAndDrop => {
                self.shown.take();
                Some(Pause::Showing)
            }
        };
    }

    /// The filter asks to continue. `false`: it holds nothing.
    pub(crate) fn resume(&mut self) -> bool {
        let holds = self.pause.is_some() || self.showing.is_some();
        self.resumed |= holds;
        holds
    }

    /// The common case of [`Lane::release`]: a head that the filter let go, and nothing behind it yet. Says whether it ends the message.
    #[inline]
    pub(crate) fn release_head(&mut self) -> Option<bool> {
        let alone = self.head == Part::Held && self.pause.is_none() && self.showing.is_none() && self.trailers == Part::Absent;
        if !alone || !self.shown.is_empty() || !self.waiting.is_empty() || self.end != self.end_shown {
            return None;
        }
        self.head = Part::Passed;
        self.end_passed = self.end;
        Some(self.end)
    }

    /// What may go on now. To be called after each answer and each resume, until it is empty and [`Lane::next`] is `None`.
    pub(crate) fn release(&mut self) -> Released {
        let resumed = self.resumed && self.showing.is_none();
        if self.showing.is_some() || (self.pause.is_some() && !resumed) || matches!(self.head, Part::Absent | Part::Waiting) {
            return Released::default();
        }
        if resumed {
            self.resumed = false;
            self.pause = None;
        }
        let mut released = Released::default();
        if !self.shown.is_empty() {
            released.data = self.shown.take();
        }
        if self.head == Part::Held {
            self.head = Part::Passed;
            released.head = true;
        }
        if self.end_shown && !self.end_passed {
            self.end_passed = true;
            // A filter that added trailers to the end of a body makes them the end.
            released.trailers = self.trailers == Part::Held;
            released.end = !released.trailers;
        } else if self.trailers == Part::Held {
            released.trailers = true;
        }
        if released.trailers {
            self.trailers = Part::Passed;
        }
        released
    }

    /// Everything, shown or not: the filter is out of the way.
    pub(crate) fn abandon(&mut self) -> Released {
        self.showing = None;
        self.pause = None;
        self.resumed = false;
        let mut released = Released::default();
        if matches!(self.head, Part::Waiting | Part::Held) {
            self.head = Part::Passed;
            released.head = true;
        }
        if self.head != Part::Passed {
            return released;
        }
        self.shown.append(self.waiting.take());
        released.data = self.shown.take();
        if matches!(self.trailers, Part::Waiting | Part::Held) {
            self.trailers = Part::Passed;
            released.trailers = true;
        } else if self.end && !self.end_passed {
            self.end_passed = true;
            released.end = true;
        }
        released
    }

    // === what host calls may touch ===

    /// The headers can still be changed: the filter sees or holds them.
    pub(crate) fn holds_head(&self) -> bool {
        self.head == Part::Held
    }

    /// The trailers can be changed.
    pub(crate) fn holds_trailers(&self) -> bool {
        self.trailers == Part::Held
    }

    /// The body ended without trailers and the filter is just being told: it may add some.
    pub(crate) fn may_add_trailers(&self) -> bool {
        self.trailers == Part::Absent && self.end && self.showing == Some(Showing::LastBody)
    }

    pub(crate) fn trailers_added(&mut self) {
        self.trailers = Part::Held;
    }

    /// The body bytes that the filter sees or holds; `None` outside body callbacks.
    pub(crate) fn body(&mut self) -> Option<&mut Buffer> {
        let seen = self.showing.is_some_and(|showing| showing != Showing::Head) || !self.shown.is_empty();
        seen.then_some(&mut self.shown)
    }

    /// Whether the filter waits for something other than more of this message.
    pub(crate) fn is_stopped(&self) -> bool {
        self.pause == Some(Pause::All)
    }

    pub(crate) fn is_paused(&self) -> bool {
        self.pause.is_some()
    }

    /// Whether its head waits to be shown, so that nothing can be released.
    pub(crate) fn is_fresh(&self) -> bool {
        self.head == Part::Waiting
    }

    /// Bytes held here.
    pub(crate) fn held(&self) -> usize {
        self.shown.len() + self.waiting.len()
    }

    /// Bytes held because the filter paused on the body.
    pub(crate) fn held_by_filter(&self) -> usize {
        if self.pause.is_some() { self.shown.len() } else { 0 }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const ENVOY: LanePolicy = LanePolicy { header_pause: HeaderPause::StopAll, final_body_before_trailers: false };
    const SPEC: LanePolicy = LanePolicy { header_pause: HeaderPause::Stream, final_body_before_trailers: false };
    const FINAL: LanePolicy = LanePolicy { header_pause: HeaderPause::StopAll, final_body_before_trailers: true };

    /// Runs due callbacks with the given answers and writes down what happened: callbacks, then `>` and what was released.
    fn drive(lane: &mut Lane, policy: LanePolicy, answers: &[Answer]) -> String {
        let mut answers = answers.iter();
        let mut story = String::new();
        loop {
            let released = lane.release();
            let ends = [(released.head, "H"), (!released.data.is_empty(), "D"), (released.trailers, "T"), (released.end, "E")];
            for (_, name) in ends.iter().filter(|(there, _)| *there) {
                story += &format!(">{name}");
                if *name == "D" {
                    story += &released.data.len().to_string();
                }
            }
            match lane.next(policy) {
                Some(Step::Head { end }) => story += if end { " head." } else { " head" },
                Some(Step::Body { size, end }) => story += &format!(" body{size}{}", if end { "." } else { "" }),
                Some(Step::Trailers) => story += " trailers",
                None => return story.trim().to_owned(),
            }
            lane.answered(*answers.next().unwrap_or(&Answer::Continue), policy);
        }
    }

    fn lane() -> Lane {
        let mut lane = Lane::default();
        lane.head_arrived();
        lane
    }

    fn chunk(size: usize) -> Bytes {
        vec![b'x'; size].into()
    }

    #[test]
    fn a_message_without_body_ends_with_its_head() {
        let mut lane = lane();
        lane.end_arrived();
        assert_eq!(drive(&mut lane, ENVOY, &[]), "head.>H>E");
    }

    #[test]
    fn continued_chunks_are_seen_one_by_one() {
        let mut lane = lane();
        assert_eq!(drive(&mut lane, ENVOY, &[]), "head>H");
        lane.data_arrived(chunk(3));
        assert_eq!(drive(&mut lane, ENVOY, &[]), "body3>D3");
        lane.data_arrived(chunk(4));
        lane.end_arrived();
        assert_eq!(drive(&mut lane, ENVOY, &[]), "body4.>D4>E");
    }

    #[test]
    fn a_lone_head_has_a_short_way_with_the_same_end() {
        for end in [false, true] {
            let (mut short, mut long) = (lane(), lane());
            for lane in [&mut short, &mut long] {
                if end {
                    lane.end_arrived();
                }
                assert_eq!(lane.next(ENVOY), Some(Step::Head { end }));
                lane.answered(Answer::Continue, ENVOY);
            }
            assert_eq!(short.release_head(), Some(end));
            let released = long.release();
            assert_eq!((released.head, released.end), (true, end));
            assert_eq!(format!("{short:?}"), format!("{long:?}"));
            assert_eq!(short.release_head(), None, "it is gone");
        }
    }

    #[test]
    fn an_empty_final_frame_is_a_callback() {
        let mut lane = lane();
        drive(&mut lane, ENVOY, &[]);
        lane.end_arrived();
        assert_eq!(drive(&mut lane, ENVOY, &[]), "body0.>E");
    }

    #[test]
    fn paused_bodies_accumulate() {
        let mut lane = lane();
        drive(&mut lane, ENVOY, &[]);
        lane.data_arrived(chunk(3));
        assert_eq!(drive(&mut lane, ENVOY, &[Answer::Pause]), "body3");
        lane.data_arrived(chunk(4));
        assert_eq!(drive(&mut lane, ENVOY, &[Answer::Pause]), "body7");
        lane.end_arrived();
        assert_eq!(drive(&mut lane, ENVOY, &[]), "body7.>D7>E");
    }

    #[test]
    fn stop_all_shows_nothing_until_resumed() {
        let mut lane = lane();
        assert_eq!(drive(&mut lane, ENVOY, &[Answer::Pause]), "head");
        lane.data_arrived(chunk(5));
        lane.end_arrived();
        assert_eq!(drive(&mut lane, ENVOY, &[]), "");
        assert!(lane.is_stopped() && lane.holds_head());
        assert!(lane.resume());
        assert_eq!(drive(&mut lane, ENVOY, &[]), ">H body5.>D5>E");
        assert!(!lane.resume(), "nothing is held any more");
    }

    #[test]
    fn stream_pause_shows_bodies_and_continue_releases_the_head() {
        let mut lane = lane();
        assert_eq!(drive(&mut lane, SPEC, &[Answer::Pause]), "head");
        lane.data_arrived(chunk(2));
        assert_eq!(drive(&mut lane, SPEC, &[Answer::Pause]), "body2");
        assert!(lane.holds_head(), "headers may still be changed");
        lane.data_arrived(chunk(3));
        lane.end_arrived();
        assert_eq!(drive(&mut lane, SPEC, &[Answer::Continue]), "body5.>H>D5>E");
    }

    #[test]
    fn continue_called_before_pause_was_returned_wins() {
        let mut lane = lane();
        assert_eq!(lane.next(ENVOY), Some(Step::Head { end: false }));
        assert!(lane.resume());
        lane.answered(Answer::Pause, ENVOY);
        assert!(lane.release().head);
    }

    #[test]
    fn trailers_follow_the_body_and_release_it() {
        let mut lane = lane();
        drive(&mut lane, ENVOY, &[]);
        lane.data_arrived(chunk(3));
        drive(&mut lane, ENVOY, &[Answer::Pause]);
        lane.trailers_arrived();
        assert_eq!(drive(&mut lane, ENVOY, &[Answer::Pause]), "trailers");
        assert!(lane.holds_trailers());
        lane.resume();
        assert_eq!(drive(&mut lane, ENVOY, &[]), ">D3>T");
    }

    #[test]
    fn a_final_body_callback_before_trailers_on_request() {
        let mut lane = lane();
        drive(&mut lane, FINAL, &[]);
        lane.data_arrived(chunk(3));
        lane.trailers_arrived();
        assert_eq!(drive(&mut lane, FINAL, &[Answer::Pause, Answer::Pause, Answer::Continue]), "body3 body3. trailers>D3>T");
    }

    #[test]
    fn trailers_added_at_the_end_become_the_end() {
        let mut lane = lane();
        drive(&mut lane, ENVOY, &[]);
        lane.data_arrived(chunk(1));
        lane.end_arrived();
        assert_eq!(lane.next(ENVOY), Some(Step::Body { size: 1, end: true }));
        assert!(lane.may_add_trailers());
        lane.trailers_added();
        lane.answered(Answer::Continue, ENVOY);
        assert_eq!(drive(&mut lane, ENVOY, &[]), ">D1>T");
    }

    #[test]
    fn an_abandoned_lane_passes_everything() {
        let mut lane = lane();
        drive(&mut lane, ENVOY, &[Answer::Pause]);
        lane.data_arrived(chunk(5));
        lane.trailers_arrived();
        let released = lane.abandon();
        assert!(released.head && released.trailers && !released.end);
        assert_eq!(released.data.len(), 5);
    }

    #[test]
    fn the_richer_numbers_of_envoy_are_understood() {
        let (head, body) = (Step::Head { end: false }, Step::Body { size: 0, end: false });
        for (step, value, want) in [
            (head, Some(0), Answer::Continue),
            (head, None, Answer::Continue),
            (head, Some(1), Answer::Pause),
            (head, Some(2), Answer::Continue),
            (head, Some(3), Answer::PauseAll),
            (head, Some(4), Answer::PauseAll),
            (body, Some(2), Answer::Pause),
            (body, Some(3), Answer::PauseAndDrop),
            (Step::Trailers, Some(1), Answer::Pause),
            (Step::Trailers, Some(77), Answer::Continue),
        ] {
            assert_eq!(Answer::from_abi(step, value), want, "{step:?} {value:?}");
        }
    }
}
