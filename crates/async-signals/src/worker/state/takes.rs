//! Asking for messages.
//!
//! Usually one request at a time, which waits for messages. While there are
//! plenty, and where the broker can, two: it looks for the next messages while
//! the last ones are read.

use std::{collections::VecDeque, time::Instant};

use super::{Effect, State, connection::MOST_FOLLOWING};

/// Most messages of one round trip.
const BATCH: usize = 256;
/// How many messages each of two requests asks for.
const PART: usize = BATCH / 2;

/// The requests that are under way.
#[derive(Debug, Default)]
pub(super) struct Takes {
    /// How many messages each may bring, the oldest first.
    limits: VecDeque<usize>,
    /// Whether the last one found all that it asked for.
    plenty: bool,
}

impl Takes {
    /// The oldest one has brought so many messages.
    pub(super) fn answered(&mut self, messages: usize) {
        self.plenty = self.limits.pop_front().is_some_and(|limit| messages >= limit);
    }

    pub(super) fn is_empty(&self) -> bool {
        self.limits.is_empty()
    }

    /// The connection is gone, and every answer with it.
    pub(super) fn forget(&mut self) {
        *self = Self::default();
    }

    /// How many messages may be about to come.
    fn coming(&self) -> usize {
        self.limits.iter().sum()
    }
}

impl State {
    /// Asks for messages, as far as there is room for them.
    pub(super) fn take(&mut self, now: Instant) {
        let overlaps = self.takes.plenty && self.connection.overlaps();
        let limit = match self.takes.limits.len() {
            0 => self.room(now).min(if overlaps { PART } else { BATCH }),
            1 if overlaps && self.room(now).min(self.window.room_beside(self.takes.coming())) >= PART => PART,
            _ => return,
        };
        if limit > 0 {
            // What is urgent must not wait for messages to come.
            let done = self.settlements.begin_take(self.quarantine.needs_answers());
            self.takes.limits.push_back(limit);
            self.effects.push_back(Effect::Take { done, limit, waits: !overlaps });
        }
    }

    /// How many messages are worth taking.
    fn room(&self, now: Instant) -> usize {
        if self.quarantine.has_any() || self.following >= MOST_FOLLOWING {
            0
        } else if self.quarantine.expects_more(now) {
            usize::from(self.window.is_idle())
        } else {
            self.window.room()
        }
    }
}
