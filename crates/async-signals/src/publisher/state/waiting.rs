//! Who waits: for a message, at most until its deadline, or for all that was sent before.

use std::time::Instant;

use super::{Effect, State};
use crate::broker::BrokerError;

impl State {
    /// Settles what is past its deadline, and forgets its message if it is still here.
    pub(super) fn expire(&mut self, now: Instant, blocked: impl Fn() -> Option<BrokerError>) {
        while let Some(slot) = self.deadlines.pop_due(now) {
            let is_flush = self.flushes.iter().any(|flush| flush.slot.is_of(&slot));
            let held = is_flush.then(|| self.held.error().cloned()).flatten();
            let last = self.obstacle.clone().or_else(&blocked).or(held);
            self.effects.extend(slot.expire(last).map(Effect::Call));
            self.stale += 1;
        }
        // Looking through a long queue for each of many would be slow.
        if self.stale * 2 > self.queue.len() {
            self.queue.retain(|entry| !entry.is_settled());
            self.stale = 0;
        }
    }

    pub(super) fn finish_flushes(&mut self) {
        if self.flushes.is_empty() {
            return;
        }
        // The queue is in order, and may be too long to look through.
        let queued = self.queue.front().into_iter().chain(&self.again).map(|entry| entry.number);
        let in_flight = self.in_flight.iter().map(|in_flight| in_flight.first);
        let oldest = queued.chain(in_flight).chain(self.held.oldest()).min().unwrap_or(u64::MAX);
        let flushed = self.flushes.extract_if(.., |flush| flush.before <= oldest);
        self.effects.extend(flushed.map(|flush| Effect::Flushed(flush.slot)));
        self.flushes.retain(|flush| !flush.slot.is_settled());
    }
}
