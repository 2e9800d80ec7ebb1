//! What becomes of a message that has ended, and of one that must not begin.

use std::{sync::Arc, time::SystemTime};

use futures_util::FutureExt;

use super::{Loop, id, is_signal, signal_expiry, text};
use crate::{
    broker::Tag,
    follow::{self, Failure, Follow, Ours},
    message::{Headers, Incoming, Message, Outgoing, Queue, Route},
    protocol::time,
    retry,
    worker::{
        Stop,
        follow_up::{FollowUp, Notice},
        job::{Arrival, End, Finished},
        outcome::Outcome,
    },
};

impl Loop {
    pub(super) fn finish(&mut self, Finished { tag, incoming, end }: Finished) {
        if let Some(id) = id(&incoming)
            && self.running.get(&id) == Some(&tag)
        {
            self.running.remove(&id);
        }
        if self.suspects.ended(tag) {
            self.after_suspect();
        }
        let Some(queue) = self.ledger.queue(tag).cloned() else { return };
        match end {
            End::Ran(Outcome::Done) => self.acknowledge(tag),
            End::Ran(Outcome::Rejected) => self.reject(tag),
            End::Ran(Outcome::Failed(failures)) => self.fail(tag, queue, &incoming, &failures),
            End::Ran(Outcome::Unfit { kind, reason }) => {
                let message = follow::parked(&incoming, &queue, &kind, &reason, SystemTime::now());
                self.park(tag, queue, message);
            }
            End::Ran(Outcome::Paused) => self.set_aside(tag, queue, &incoming),
            End::Expired => self.expire(tag, &incoming),
            End::NotBegun if self.has(tag) => self.release(tag, queue, &incoming),
            End::Ran(Outcome::Unfinished) | End::NotBegun => self.give_back(tag, queue, incoming),
        }
    }

    fn fail(&mut self, tag: Tag, queue: Arc<str>, incoming: &Incoming, failures: &[Failure]) {
        let follows = follow::failed(incoming, &queue, failures, SystemTime::now(), &mut retry::random);
        if follows.is_empty() {
            return self.acknowledge(tag);
        }
        let outgoing = follows.into_iter().filter_map(|follow| match follow {
            Follow::Again(message) => {
                let notice = Notice::Retried { failures: failures.to_vec(), seconds: seconds_until(&message) };
                Some((to_queue(&queue, message), notice))
            }
            Follow::Parked(message) => self.to_dead_letters(&queue, message),
        });
        let outgoing = outgoing.collect();
        self.follow(tag, queue, outgoing);
    }

    /// Waits elsewhere, so that what comes behind it can run.
    fn set_aside(&mut self, tag: Tag, queue: Arc<str>, incoming: &Incoming) {
        let message = follow::paused(incoming, &queue, SystemTime::now());
        let outgoing = to_declared(&self.config.paused_queue, serde_json::Map::new(), message);
        self.follow(tag, queue, vec![(outgoing, Notice::None)]);
    }

    /// Too late to begin.
    pub(super) fn expire(&mut self, tag: Tag, incoming: &Incoming) {
        self.config.observer.expired(text(incoming, "id"), text(incoming, "task"));
        self.acknowledge(tag);
    }

    /// It was not finished: to be counted when it comes again.
    fn give_back(&mut self, tag: Tag, queue: Arc<str>, incoming: Arc<Incoming>) {
        let mut tags = Vec::new();
        self.ledger.settle(tag, &mut tags);
        // A copy that came over a newer connection takes the place of one whose connection is gone.
        match tags.pop() {
            Some(copy) if copy != tag && *self.stopping.borrow() == Stop::No => {
                self.settlements.give_back(tags);
                let expires = signal_expiry(&incoming);
                // Nobody has left it unfinished: it is not counted.
                let redelivered = !is_signal(&incoming);
                self.begin(copy, Arrival { queue, redelivered, expires, incoming });
            }
            last => self.settlements.give_back(tags.into_iter().chain(last)),
        }
    }

    /// A message that was taken before and not settled.
    pub(super) fn count(&mut self, tag: Tag, queue: Arc<str>, incoming: &Incoming) {
        match follow::delivered_before(incoming, &queue, self.config.max_deliveries, SystemTime::now()) {
            Follow::Again(message) => {
                let deliveries = Ours::of(&incoming.headers).deliveries + 1;
                self.suspects.copied(tag);
                let outgoing = to_queue(&queue, message);
                self.follow(tag, queue, vec![(outgoing, Notice::Redelivered { deliveries })]);
            }
            Follow::Parked(message) => self.park(tag, queue, message),
        }
    }

    pub(super) fn park(&mut self, tag: Tag, queue: Arc<str>, message: Message) {
        match self.to_dead_letters(&queue, message) {
            Some(parking) => self.follow(tag, queue, vec![parking]),
            None => self.reject(tag),
        }
    }

    pub(super) fn follow(&mut self, tag: Tag, queue: Arc<str>, outgoing: Vec<(Outgoing, Notice)>) {
        self.ledger.follow(tag, queue);
        let follow_up = FollowUp { tag, outgoing };
        self.following.push(follow_up.publish(self.publisher.clone(), self.config.observer.clone()).boxed());
    }

    /// A message's way into the dead-letter queue of its queue; `None` where there is none, and nobody keeps it.
    fn to_dead_letters(&self, queue: &str, message: Message) -> Option<(Outgoing, Notice)> {
        let (kind, reason) = follow::why_parked(&message).unwrap_or_default();
        let Some(dead) = &self.config.dead_letters else {
            self.config.observer.parked(&message.properties.correlation_id, None, kind, reason);
            return None;
        };
        let name = dead.of(queue);
        let notice = Notice::Parked { queue: name.clone(), kind: kind.to_owned(), reason: reason.to_owned() };
        Some((to_declared(&name, dead.arguments.clone(), message), notice))
    }

    pub(super) fn acknowledge(&mut self, tag: Tag) {
        self.settlements.acknowledge(|done| self.ledger.settle(tag, done));
    }

    fn reject(&mut self, tag: Tag) {
        self.settlements.reject(|rejected| self.ledger.settle(tag, rejected));
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

fn seconds_until(message: &Message) -> f64 {
    let Headers::Raw(headers) = &message.headers else { return 0.0 };
    match time::read(headers, "eta") {
        Ok(Some(eta)) => eta.duration_since(SystemTime::now()).unwrap_or_default().as_secs_f64(),
        _ => 0.0,
    }
}
