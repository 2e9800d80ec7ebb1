//! What becomes of a message that has ended, and of one that must not begin.

use std::{sync::Arc, time::SystemTime};

use super::{Effect, State, signal_expiry};
use crate::{
    broker::Tag,
    clock::Moment,
    follow::{self, Failure, Follow, Ours},
    message::{Headers, Incoming, Message, Outgoing, Queue, Route},
    protocol::time,
    worker::{
        Stop,
        follow_up::FollowUp,
        job::{Arrival, End, Finished},
        observer::Notice,
        outcome::Outcome,
    },
};

impl State {
    pub(super) fn finish(&mut self, Finished { tag, incoming, end }: Finished, now: Moment) {
        if let Some(id) = incoming.id()
            && self.running.get(&id) == Some(&tag)
        {
            self.running.remove(&id);
        }
        if self.quarantine.ended(tag) {
            self.after_quarantine(now.at);
        }
        let Some(queue) = self.in_flight.queue(tag).cloned() else { return };
        match end {
            End::Ran(Outcome::Done) => self.acknowledge(tag, now),
            End::Ran(Outcome::Rejected) => self.reject(tag),
            End::Ran(Outcome::Failed(failures)) => self.fail(tag, queue, &incoming, &failures, now),
            End::Ran(Outcome::Unfit { kind, reason }) => {
                let message = follow::parked(&incoming, &queue, &kind, &reason, now.date);
                self.park(tag, queue, message);
            }
            End::Ran(Outcome::Paused) => self.set_aside(tag, queue, &incoming, now),
            End::Expired => self.expire(tag, incoming, now),
            End::NotBegun if self.connection.has(tag) => self.release(tag, queue, &incoming, now),
            End::Ran(Outcome::Unfinished) | End::NotBegun => self.give_back(tag, queue, incoming, now),
        }
    }

    fn fail(&mut self, tag: Tag, queue: Arc<str>, incoming: &Incoming, failures: &[Failure], now: Moment) {
        let follows = follow::failed(incoming, &queue, failures, now.date, &mut || self.chance.f64());
        if follows.is_empty() {
            return self.acknowledge(tag, now);
        }
        let outgoing = follows.into_iter().filter_map(|follow| match follow {
            Follow::Again(message) => {
                let (id, seconds) = (id(&message), seconds_until(&message, now.date));
                let notice = Notice::Retried { id, failures: failures.to_vec(), seconds };
                Some((to_queue(&queue, message), Some(notice)))
            }
            Follow::Parked(message) => self.dead_letter(&queue, message),
        });
        let outgoing = outgoing.collect();
        self.follow(tag, queue, outgoing);
    }

    /// Waits elsewhere, so that what comes behind it can run.
    fn set_aside(&mut self, tag: Tag, queue: Arc<str>, incoming: &Incoming, now: Moment) {
        let message = follow::paused(incoming, &queue, now.date);
        let outgoing = to_declared(&self.config.paused_queue, serde_json::Map::new(), message);
        self.follow(tag, queue, vec![(outgoing, None)]);
    }

    /// Too late to begin.
    pub(super) fn expire(&mut self, tag: Tag, incoming: Arc<Incoming>, now: Moment) {
        self.notice(Notice::Expired { incoming });
        self.acknowledge(tag, now);
    }

    /// It was not finished: to be counted when it comes again.
    fn give_back(&mut self, tag: Tag, queue: Arc<str>, incoming: Arc<Incoming>, now: Moment) {
        let mut tags = Vec::new();
        self.in_flight.settle(tag, &mut tags);
        // A copy that came over a newer connection takes the place of one whose connection is gone.
        match tags.pop() {
            Some(copy) if copy != tag && self.stop == Stop::No => {
                self.settlements.give_back(tags);
                let expires = signal_expiry(&incoming);
                // Nobody has left it unfinished: it is not counted.
                let redelivered = !incoming.is_signal();
                self.begin(copy, Arrival { queue, redelivered, expires, incoming }, now);
            }
            last => self.settlements.give_back(tags.into_iter().chain(last)),
        }
    }

    /// A message that was taken before and not settled.
    pub(super) fn count(&mut self, tag: Tag, queue: Arc<str>, incoming: &Incoming, now: Moment) {
        match follow::delivered_before(incoming, &queue, self.config.max_deliveries, now.date) {
            Follow::Again(message) => {
                let deliveries = Ours::of(&incoming.headers).deliveries + 1;
                self.quarantine.copied(tag);
                let notice = Notice::Redelivered { id: id(&message), deliveries };
                self.follow(tag, queue.clone(), vec![(to_queue(&queue, message), Some(notice))]);
            }
            Follow::Parked(message) => self.park(tag, queue, message),
        }
    }

    pub(super) fn park(&mut self, tag: Tag, queue: Arc<str>, message: Message) {
        match self.dead_letter(&queue, message) {
            Some(parking) => self.follow(tag, queue, vec![parking]),
            None => self.reject(tag),
        }
    }

    pub(super) fn follow(&mut self, tag: Tag, queue: Arc<str>, outgoing: Vec<(Outgoing, Option<Notice>)>) {
        self.in_flight.follow(tag, queue);
        self.following += 1;
        let seed = self.chance.u64(..);
        self.effects.push_back(Effect::FollowUp(FollowUp { tag, outgoing, seed }));
    }

    /// A message's way into the dead-letter queue of its queue; `None` where there is none, and nobody keeps it.
    fn dead_letter(&mut self, queue: &str, message: Message) -> Option<(Outgoing, Option<Notice>)> {
        let (kind, reason) = follow::why_parked(&message).unwrap_or_default();
        let dead = self.config.dead_letters.as_ref().map(|dead| (dead.of(queue), dead.arguments.clone()));
        let notice = Notice::Parked {
            id: id(&message),
            queue: dead.as_ref().map(|(name, _)| name.clone()),
            kind: kind.to_owned(),
            reason: reason.to_owned(),
        };
        let Some((name, arguments)) = dead else {
            self.notice(notice);
            return None;
        };
        Some((to_declared(&name, arguments, message), Some(notice)))
    }

    pub(super) fn acknowledge(&mut self, tag: Tag, now: Moment) {
        self.settlements.acknowledge(now.at, |done| self.in_flight.settle(tag, done));
    }

    fn reject(&mut self, tag: Tag) {
        self.settlements.reject(|rejected| self.in_flight.settle(tag, rejected));
    }
}

pub(super) fn to_queue(queue: &str, message: Message) -> Outgoing {
    let route = Route { exchange: String::new(), routing_key: queue.to_owned(), declare: Vec::new() };
    Outgoing { route: Arc::new(route), message }
}

/// To a queue that is declared, if it is not there.
fn to_declared(name: &str, arguments: serde_json::Map<String, serde_json::Value>, message: Message) -> Outgoing {
    let mut route = Route::to_queue(name);
    route.declare = vec![Queue { arguments, ..Queue::direct(name) }];
    Outgoing { route: Arc::new(route), message }
}

/// The id that a message has in logs.
fn id(message: &Message) -> String {
    message.properties.correlation_id.clone()
}

fn seconds_until(message: &Message, now: SystemTime) -> f64 {
    let Headers::Raw(headers) = &message.headers else { return 0.0 };
    match time::read(headers, "eta") {
        Ok(Some(eta)) => eta.duration_since(now).unwrap_or_default().as_secs_f64(),
        _ => 0.0,
    }
}
