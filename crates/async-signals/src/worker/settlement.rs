//! What the broker is still to be told of messages that are over here.
//!
//! A tag stays until the broker has confirmed what it was told, so that it is
//! told again over the next connection.

use std::{
    collections::VecDeque,
    time::{Duration, Instant},
};

use crate::broker::{BrokerError, Consumer, Tag};

/// Acknowledgements go out together: when there are so many, …
const MANY: usize = 64;
/// … or after so long. Those that can go with the next take do not wait.
const AFTER: Duration = Duration::from_millis(5);

/// Tags by what is to become of their messages.
#[derive(Clone, Debug, Default)]
pub(super) struct Batch {
    done: Vec<Tag>,
    rejected: Vec<Tag>,
    unfinished: Vec<Tag>,
}

impl Batch {
    fn is_empty(&self) -> bool {
        self.done.is_empty() && self.rejected.is_empty() && self.unfinished.is_empty()
    }

    fn append(&mut self, other: &mut Self) {
        self.done.append(&mut other.done);
        self.rejected.append(&mut other.rejected);
        self.unfinished.append(&mut other.unfinished);
    }

    fn tags(&self) -> impl Iterator<Item = Tag> {
        self.done.iter().chain(&self.rejected).chain(&self.unfinished).copied()
    }

    /// Tells the broker.
    pub(super) async fn settle(self, consumer: &dyn Consumer) -> Result<(), BrokerError> {
        if !self.done.is_empty() {
            consumer.acknowledge(&self.done).await?;
        }
        if !self.rejected.is_empty() {
            consumer.reject(&self.rejected).await?;
        }
        if !self.unfinished.is_empty() {
            consumer.give_back(&self.unfinished).await?;
        }
        Ok(())
    }
}

/// What is to be told, and what is being told.
#[derive(Debug, Default)]
pub(super) struct Settlements {
    waiting: Batch,
    /// Since when an acknowledgement waits.
    since: Option<Instant>,
    /// Acknowledgements that go with the takes that are under way, the oldest first.
    with_takes: VecDeque<Vec<Tag>>,
    under_way: Batch,
}

impl Settlements {
    /// Acknowledges what `fill` puts into the list.
    pub(super) fn acknowledge(&mut self, now: Instant, fill: impl FnOnce(&mut Vec<Tag>)) {
        fill(&mut self.waiting.done);
        self.since.get_or_insert(now);
    }

    pub(super) fn reject(&mut self, fill: impl FnOnce(&mut Vec<Tag>)) {
        fill(&mut self.waiting.rejected);
    }

    pub(super) fn give_back(&mut self, tags: impl IntoIterator<Item = Tag>) {
        self.waiting.unfinished.extend(tags);
    }

    /// Whether it is time to tell.
    pub(super) fn are_due(&self, now: Instant, stopping: bool) -> bool {
        self.waiting.done.len() >= MANY
            || self.due_at().is_some_and(|at| now >= at)
            || (stopping && !self.waiting.done.is_empty())
            || !self.waiting.unfinished.is_empty()
            || !self.waiting.rejected.is_empty()
    }

    /// When acknowledgements that wait for company have waited long enough.
    pub(super) fn due_at(&self) -> Option<Instant> {
        self.since.map(|since| since + AFTER)
    }

    /// What goes with a take that begins now: all acknowledgements that wait, unless they are `urgent`.
    pub(super) fn begin_take(&mut self, urgent: bool) -> Vec<Tag> {
        let mut done = Vec::new();
        // A take may last until a message comes.
        if !urgent {
            self.since = None;
            done = std::mem::take(&mut self.waiting.done);
        }
        self.with_takes.push_back(done.clone());
        done
    }

    /// The oldest take was answered.
    pub(super) fn taken(&mut self) {
        self.with_takes.pop_front();
    }

    /// All that waits, to be told now. Nothing else is being told.
    pub(super) fn begin(&mut self) -> Batch {
        self.since = None;
        self.under_way = std::mem::take(&mut self.waiting);
        self.under_way.clone()
    }

    /// The broker was told.
    pub(super) fn settled(&mut self) {
        self.under_way = Batch::default();
    }

    /// The connection is gone, and whether the broker was told is not known.
    /// Where it keeps the worker's messages it is told again, elsewhere it has
    /// taken them all back.
    pub(super) fn lost(&mut self, keeps: bool, now: Instant) {
        self.tell_again();
        if !keeps {
            self.waiting = Batch::default();
        }
        self.since = (!self.waiting.done.is_empty()).then_some(now);
    }

    /// Whatever the broker has not confirmed waits once more: twice does no harm.
    pub(super) fn tell_again(&mut self) {
        let mut under_way = std::mem::take(&mut self.under_way);
        under_way.done.extend(self.with_takes.drain(..).flatten());
        self.waiting.append(&mut under_way);
    }

    /// Everything whose settlement the broker has not confirmed.
    pub(super) fn tags(&self) -> impl Iterator<Item = Tag> {
        self.waiting.tags().chain(self.under_way.tags()).chain(self.with_takes.iter().flatten().copied())
    }

    pub(super) fn is_empty(&self) -> bool {
        self.waiting.is_empty() && self.under_way.is_empty() && self.with_takes.is_empty()
    }
}
