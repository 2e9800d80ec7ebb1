//! Messages that were delivered before and not settled: any of them may be
//! what has ended its process, and each runs alone.
//!
//! Brokers tell that a message came before, and not who was to blame: whatever
//! a dead process held is counted. A message that was counted therefore runs
//! with nothing beside it. Nothing else is begun meanwhile, and what else this
//! process holds and has not begun goes back first: as a copy that is not
//! counted. What ends its process again is then counted alone, and nothing
//! else is ever parked on its account.
//!
//! What waits for its time stays where it is: before that it has not begun, and
//! is not counted when it comes again.

use std::{
    collections::VecDeque,
    sync::{Arc, atomic::Ordering},
    time::{Duration, Instant},
};

use super::{Effect, State, outcomes::to_queue};
use crate::{
    broker::Tag,
    clock::Moment,
    follow,
    message::Incoming,
    worker::{Stop, job::Arrival},
};

/// Where one was, more of them are expected for so long: messages are then taken one by one.
const EXPECTED: Duration = Duration::from_secs(1);

/// Those that are here, and what is in their way.
#[derive(Debug, Default)]
pub(super) struct Quarantine {
    waiting: VecDeque<(Tag, Arrival)>,
    /// Since when the first one waits.
    since: Option<Instant>,
    /// The one that runs.
    alone: Option<Tag>,
    /// Whether the broker was asked to push nothing more.
    is_quiet: bool,
    /// Messages that a copy is published of. The copy must not run before the broker has heard that
    /// they are settled: what killed this process now would come again beside its original.
    copied: Vec<Tag>,
    expected_until: Option<Instant>,
    /// How many messages waited for their time when the last one had run.
    delayed: usize,
}

impl Quarantine {
    /// A copy of this message is about to be published.
    pub(super) fn copied(&mut self, tag: Tag) {
        self.copied.push(tag);
    }

    /// Forgets the copied messages that are settled: their copies are like any other message.
    pub(super) fn forget(&mut self, is_settled: impl Fn(Tag) -> bool) {
        self.copied.retain(|tag| !is_settled(*tag));
    }

    /// Whether the broker is to be asked what it has heard.
    pub(super) fn needs_answers(&self) -> bool {
        self.is_waiting() || !self.copied.is_empty()
    }

    pub(super) fn is_waiting(&self) -> bool {
        !self.waiting.is_empty()
    }

    /// Whether one is here, and nothing else may begin.
    pub(super) fn has_any(&self) -> bool {
        self.is_waiting() || self.alone.is_some()
    }

    pub(super) fn expects_more(&self, now: Instant) -> bool {
        self.expected_until.is_some_and(|until| now < until)
    }

    /// How many messages the broker is to push ahead while more of them are expected: one, beside
    /// those that turned out to wait for their time.
    pub(super) fn prefetch(&self, delayed: usize) -> usize {
        1 + delayed.saturating_sub(self.delayed)
    }

    /// When one has waited long enough, with so much patience.
    pub(super) fn due_at(&self, patience: Duration) -> Option<Instant> {
        if self.alone.is_some() { None } else { self.since.map(|since| since + patience) }
    }

    /// Whether this is the one that ran alone, which it does no more.
    pub(super) fn ended(&mut self, tag: Tag) -> bool {
        self.alone.take_if(|alone| *alone == tag).is_some()
    }

    /// The connection is gone. Where the broker `keeps` what the worker holds, they still wait.
    pub(super) fn lost(&mut self, keeps: bool) {
        self.is_quiet = false;
        if !keeps {
            (self.since, self.alone) = (None, None);
            self.waiting.clear();
        }
    }
}

impl State {
    /// A message that was counted: it waits until it can run alone.
    pub(super) fn quarantine(&mut self, tag: Tag, arrival: Arrival, now: Moment) {
        if self.quarantine.alone.is_some() {
            return self.release(tag, arrival.queue, &arrival.incoming, now);
        }
        self.in_flight.wait(tag, arrival.queue.clone());
        self.revocation.recalled.store(true, Ordering::Release);
        self.revocation.recalled = Arc::default();
        self.quarantine.since.get_or_insert(now.at);
        self.quarantine.waiting.push_back((tag, arrival));
    }

    /// Lets the first of them run as soon as it is alone: nothing else has begun, and the broker has
    /// heard of all that was settled. Should that take too long, it runs beside what has begun.
    pub(super) fn isolate(&mut self, now: Moment) {
        let Some(due_at) = self.quarantine.due_at(self.config.timeout) else { return };
        if !self.connection.is_up() {
            return;
        }
        if self.stop != Stop::No {
            self.release_all_but(0, now);
            self.quarantine.since = None;
            return;
        }
        if !self.quarantine.is_quiet {
            self.quarantine.is_quiet = true;
            self.is_pausing = true;
            self.effects.push_back(Effect::Pause { stops: false });
        }
        if self.is_pausing {
            return;
        }
        self.release_all_but(1, now);
        if now.at < due_at && !self.is_alone() {
            return;
        }
        self.quarantine.since = None;
        if let Some((tag, arrival)) = self.quarantine.waiting.pop_front() {
            self.quarantine.alone = Some(tag);
            self.start(tag, arrival);
        }
    }

    /// Gives back all that wait but so many.
    fn release_all_but(&mut self, so_many: usize, now: Moment) {
        for (tag, arrival) in self.quarantine.waiting.split_off(so_many.min(self.quarantine.waiting.len())) {
            self.release(tag, arrival.queue, &arrival.incoming, now);
        }
    }

    /// Whether nothing here has begun, and the broker has heard of all that was settled.
    fn is_alone(&mut self) -> bool {
        if !(self.window.is_idle() && self.jobs.is_empty() && self.settlements.is_empty()) {
            return false;
        }
        self.quarantine.forget(|tag| self.in_flight.queue(tag).is_none());
        self.quarantine.copied.is_empty()
    }

    /// One that ran alone has ended: others may run again, and soon one may come that is like it.
    pub(super) fn after_quarantine(&mut self, now: Instant) {
        self.quarantine.is_quiet = false;
        self.quarantine.delayed = self.in_flight.delayed();
        self.quarantine.expected_until = Some(now + EXPECTED);
        self.connection.forget_prefetch();
    }

    /// Gives back what has not begun, uncounted: a broker would mark it as delivered before.
    pub(super) fn release(&mut self, tag: Tag, queue: Arc<str>, incoming: &Incoming, now: Moment) {
        if !incoming.is_signal() {
            // Nobody counts these.
            let mut tags = Vec::new();
            self.in_flight.settle(tag, &mut tags);
            return self.settlements.give_back(tags);
        }
        let message = follow::untouched(incoming, &queue, now.date);
        let outgoing = to_queue(&queue, message);
        self.quarantine.copied(tag);
        self.follow(tag, queue, vec![(outgoing, None)]);
    }
}
