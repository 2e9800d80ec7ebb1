//! What follows from what the broker has said, or has not.

use std::{iter, sync::Arc, time::Instant};

use super::{Connection, Effect, State};
use crate::{
    broker::{BrokerError, Published, RetryAdvice},
    message::Route,
    publisher::{
        PublishError,
        entry::{Batch, Entry, Ticket},
        receipt::{Outcome, Slot},
    },
};

impl State {
    /// The broker has said of each message of a batch whether it has it.
    pub(in crate::publisher) fn answered(&mut self, batch: Batch, answers: Vec<Published>, now: Instant) {
        let at = self.in_flight.iter().position(|in_flight| Some(in_flight.first) == batch.first());
        let is_probe = at.is_some_and(|at| self.in_flight.swap_remove(at).is_probe);
        let probed = batch.messages.first().filter(|_| is_probe).map(|outgoing| outgoing.route.clone());
        let (mut messages, mut bytes) = (0, 0);
        let (mut worked, mut refused, mut hindrance) = (false, false, None::<BrokerError>);
        let answers = answers.into_iter().chain(iter::repeat_with(|| Err(no_answer())));
        for ((ticket, outgoing), answer) in batch.tickets.into_iter().zip(batch.messages).zip(answers) {
            let Ticket { slot, number, mut may_have_arrived } = ticket;
            let error = answer.err();
            may_have_arrived |= error.as_ref().is_some_and(BrokerError::may_have_arrived);
            match error.as_ref().map(BrokerError::advice) {
                Some(RetryAdvice::Now | RetryAdvice::NextAddress | RetryAdvice::BackOff) => {
                    let entry = Entry { outgoing, event: None, slot, number, may_have_arrived };
                    let entry = if is_probe { self.held.put_back(entry) } else { Some(entry) };
                    self.again.extend(entry.filter(|entry| !entry.is_settled()));
                    // That the connection is gone counts, whatever else was said.
                    hindrance = match hindrance {
                        Some(other) if other.is_disconnect() => Some(other),
                        _ => error,
                    };
                    continue;
                }
                Some(RetryAdvice::BackOffRoute) => {
                    let leads_to_one = outgoing.route.exchange.is_empty();
                    if let (true, None, Some(error)) = (leads_to_one, &slot, error.clone()) {
                        (worked, refused) = (true, true);
                        self.hold(Entry { outgoing, event: None, slot, number, may_have_arrived }, error, now);
                        continue;
                    }
                    // An exchange may lead to several queues: some may have it, and trying again would fill those.
                    may_have_arrived |= !leads_to_one;
                }
                _ => {}
            }
            worked = true;
            let outcome = error.map_or(Ok(()), |error| Err(PublishError::Broker { error, may_have_arrived }));
            match slot {
                Some(slot) => self.settle(&slot, outcome),
                None => {
                    messages += 1;
                    bytes += outgoing.message.body.len();
                    if let Err(error) = outcome {
                        self.effects.push_back(Effect::Lost(Box::new(outgoing.message), error));
                    }
                }
            }
        }
        if messages > 0 {
            self.buffered.0 -= messages;
            self.buffered.1 -= bytes;
            self.effects.push_back(Effect::Release { messages, bytes });
        }
        if let Some(route) = probed {
            self.probed(&route, refused, hindrance.is_some(), now);
        }
        if worked {
            self.worked(now);
        }
        if let Some(error) = hindrance {
            self.hindered(error, now);
        }
    }

    fn settle(&mut self, slot: &Slot, outcome: Outcome) {
        self.effects.extend(slot.settle(outcome).map(Effect::Call));
    }

    /// Tells those who wait what they cannot change by waiting. What nobody waits for stays: a password can be mended
    /// while it is buffered.
    pub(super) fn refuse(&mut self, error: &BrokerError) {
        let effects = &mut self.effects;
        self.queue.retain(|entry| match &entry.slot {
            Some(slot) => {
                let refused = PublishError::Broker { error: error.clone(), may_have_arrived: entry.may_have_arrived };
                effects.extend(slot.settle(Err(refused)).map(Effect::Call));
                false
            }
            None => true,
        });
    }

    /// The route of a message that nobody waits for takes none for now.
    pub(super) fn hold(&mut self, entry: Entry, error: BrokerError, now: Instant) {
        if self.held.hold(entry, error.clone(), now, self.chance.f64()) {
            self.effects.push_back(Effect::Held(error));
            self.tell_obstacle();
        }
        self.tell_full_routes();
    }

    /// Messages of a route that is held have been tried.
    fn probed(&mut self, route: &Arc<Route>, refused: bool, hindered: bool, now: Instant) {
        if hindered {
            self.held.not_tried(route, now);
        } else if self.held.tried(route, !refused, now, self.chance.f64()) {
            self.tell_obstacle();
        }
        self.tell_full_routes();
    }

    fn tell_full_routes(&mut self) {
        let full = self.held.full_routes(self.buffer_messages, self.buffer_bytes);
        self.effects.extend(full.map(Effect::FullRoutes));
    }

    /// The broker has taken a message, or has said what is wrong with one.
    fn worked(&mut self, now: Instant) {
        self.reconnect.worked();
        self.blocked.reset();
        if let Connection::Up { heard_at, .. } = &mut self.connection {
            *heard_at = now;
        }
        if self.obstacle.take().is_some() {
            self.tell_obstacle();
            self.effects.push_back(Effect::Reconnected);
        }
    }

    /// The broker took nothing.
    fn hindered(&mut self, error: BrokerError, now: Instant) {
        let is_up = matches!(self.connection, Connection::Up { .. });
        match error.advice() {
            // Each of the connection's batches says so.
            RetryAdvice::Now | RetryAdvice::NextAddress if is_up => {
                if error.advice() == RetryAdvice::Now {
                    self.reconnect.lost(now, self.chance.f64());
                } else {
                    self.reconnect.failed(&error, now, self.chance.f64());
                }
                self.connection = Connection::Down { retry_at: Some(now + self.reconnect.pause()) };
                self.effects.push_back(Effect::Disconnect);
            }
            RetryAdvice::BackOff => {
                self.blocked.failed(self.chance.f64());
                self.resume_at = Some(now + self.blocked.pause());
            }
            _ => {}
        }
        self.obstructed(error);
    }

    pub(super) fn obstructed(&mut self, error: BrokerError) {
        self.events.clear();
        if self.obstacle.replace(error.clone()).is_none() {
            self.effects.push_back(Effect::Disconnected(error));
        }
        self.tell_obstacle();
    }

    fn tell_obstacle(&mut self) {
        let obstacle = self.obstacle.as_ref().or_else(|| self.held.error());
        self.effects.push_back(Effect::Obstacle(obstacle.cloned()));
    }
}

/// What a broker is taken to have said that has said nothing.
fn no_answer() -> BrokerError {
    BrokerError::Disconnected { url: "the broker".to_owned(), reason: "no answer".to_owned() }
}
