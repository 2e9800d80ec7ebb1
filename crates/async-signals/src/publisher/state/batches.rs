//! Connecting, and what is handed to the broker together.

use std::time::{Duration, Instant};

use super::{Connection, Effect, InFlight, State};
use crate::{message::TaskEvent, publisher::entry::Batch};

/// How many batches of events may be under way: a broker that takes no more gets no more.
const MOST_EVENT_BATCHES: usize = 8;
/// What the slowest line carries in a second: what is under way has so much longer than a send has.
const SLOWEST_LINE: usize = 256 << 10;
/// A connection that has been silent for so long may have been dropped by something on the way, which nobody is told.
const SUSPECT_AFTER: Duration = Duration::from_secs(5);
/// Which part of a send's time a suspect connection has to answer in, and how much of it at least.
const SUSPECT_PART: u32 = 3;
const SUSPECT_LEAST: Duration = Duration::from_millis(1_500);
/// The most that is added for what is under way.
const LARGEST: Duration = Duration::from_secs(120);

impl State {
    pub(super) fn connect(&mut self, now: Instant) {
        let is_wanted = !self.queue.is_empty() || self.held.has_probe(now);
        // A broken connection's batches come back first, or they would be overtaken over the new one.
        if let Connection::Down { retry_at } = self.connection
            && is_wanted
            && self.in_flight.is_empty()
            && retry_at.is_none_or(|at| at <= now)
        {
            self.connection = Connection::Connecting;
            self.effects.push_back(Effect::Connect { address: self.reconnect.address() });
        }
    }

    /// Puts what is to be sent again back to the front of the queue.
    pub(super) fn requeue(&mut self) {
        self.again.sort_unstable_by_key(|entry| entry.number);
        let last = self.again.last().map(|entry| entry.number);
        let overlaps = self.queue.front().is_some_and(|entry| Some(entry.number) < last);
        for entry in self.again.drain(..).rev() {
            self.queue.push_front(entry);
        }
        // What was held may be younger than what was put back before.
        if overlaps {
            self.queue.make_contiguous().sort_by_key(|entry| entry.number);
        }
    }

    pub(super) fn publish(&mut self, now: Instant) {
        let Connection::Up { limits, heard_at } = self.connection else { return };
        // What is to be sent again goes first: nothing overtakes it.
        while self.again.is_empty() && self.resume_at.is_none() && self.in_flight.len() < limits.pipeline {
            let mut events = std::mem::take(&mut self.events);
            // One at a time, as long as others have something to send.
            let may_probe = self.queue.is_empty() || !self.in_flight.iter().any(|in_flight| in_flight.is_probe);
            let probe = if may_probe { self.held.next_probe(limits.batch, now) } else { Vec::new() };
            let (batch, is_probe) = if !probe.is_empty() {
                (Batch::of(probe, &mut events), true)
            } else if !self.queue.is_empty() {
                (self.next_batch(limits.batch, now, &mut events), false)
            } else {
                self.events = events;
                break;
            };
            let Some(first) = batch.first() else {
                self.events = events;
                continue;
            };
            self.in_flight.push(InFlight { first, bytes: batch.bytes, is_probe });
            let patience = self.patience(heard_at, now);
            self.effects.push_back(Effect::Publish { batch, patience });
            self.publish_behind(events);
        }
    }

    /// The next messages that somebody wants, at most so many. Empty: nobody wants any of those that were looked at.
    fn next_batch(&mut self, most: usize, now: Instant, events: &mut Vec<TaskEvent>) -> Batch {
        let size = self.queue.len().min(most);
        let mut batch = Batch::with_capacity(size);
        while batch.messages.len() < size
            && self.queue.front().is_some_and(|entry| batch.has_room_for(entry))
            && let Some(entry) = self.queue.pop_front()
        {
            if entry.slot.is_none()
                && let Some(error) = self.held.why(&entry.outgoing.route).cloned()
            {
                self.hold(entry, error, now);
            } else if entry.slot.as_ref().is_none_or(|slot| slot.take()) {
                batch.push(entry, events);
            }
        }
        batch
    }

    /// How long to wait for the answer to what was just handed over.
    fn patience(&self, heard_at: Instant, now: Instant) -> Duration {
        let is_suspect = now.saturating_duration_since(heard_at) >= SUSPECT_AFTER;
        let suspect = (self.timeout / SUSPECT_PART).max(SUSPECT_LEAST).min(self.timeout);
        let patience = if is_suspect { suspect } else { self.timeout };
        let bytes: usize = self.in_flight.iter().map(|in_flight| in_flight.bytes).sum();
        patience + Duration::from_secs_f64(bytes as f64 / SLOWEST_LINE as f64).min(LARGEST)
    }

    /// Publishes the events that no message takes along. Nobody connects for their sake.
    pub(super) fn publish_events(&mut self) {
        let is_connecting = matches!(self.connection, Connection::Connecting);
        if self.events.is_empty() || !self.queue.is_empty() || !self.again.is_empty() || is_connecting {
            return;
        }
        let events = std::mem::take(&mut self.events);
        if matches!(self.connection, Connection::Up { .. }) {
            self.publish_behind(events);
        }
    }

    /// Has the broker publish events, unless it is slow to.
    fn publish_behind(&mut self, events: Vec<TaskEvent>) {
        if !events.is_empty() && self.event_batches < MOST_EVENT_BATCHES {
            self.event_batches += 1;
            self.effects.push_back(Effect::PublishEvents(events));
        }
    }
}
