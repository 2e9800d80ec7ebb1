//! What a publisher knows and decides: events in, effects out.
//!
//! There is no clock, no connection, no thread and no chance in here: `now` is an argument, the broker is asked by
//! [`Effect`]s, and chance comes from a seed. [`Pump`](super::pump::Pump) performs the effects. What a slot holds is
//! memory that its sender shares; a sender's callback is called by the pump.
//!
//! # The states of a message
//!
//! | it is | where | what happens next |
//! |---|---|---|
//! | waiting | `queue` | handed over, in order, as soon as there is a connection |
//! | in flight | in a [`Batch`] at the pump | the broker answers, or is silent for too long |
//! | to be sent again | `again` | goes to the front of `queue` once nothing is in flight, so that nothing overtakes it |
//! | held | `held` | its route takes no messages for now: some of the route are tried, after a pause |
//! | settled | – | its sender or the observer is told |
//!
//! - `batches`: connecting, and what is handed to the broker together.
//! - `answers`: what follows from what the broker has said, or has not.
//! - `waiting`: who waits, for a message or for all that was sent before.

mod answers;
mod batches;
mod waiting;

use std::{
    collections::VecDeque,
    sync::Arc,
    time::{Duration, Instant},
};

use super::{
    PublishError, PublisherConfig,
    deadlines::Deadlines,
    entry::{Batch, Entry, Item},
    held::Held,
    receipt::{Call, Settler},
};
use crate::{
    backoff::Backoff,
    broker::BrokerError,
    message::{Message, Route, TaskEvent},
    reconnect::Reconnect,
};

const FIRST_PAUSE: Duration = Duration::from_millis(20);
const LONGEST_PAUSE: Duration = Duration::from_secs(1);
/// The first pause for a broker that says it is blocked.
const BLOCKED_PAUSE: Duration = Duration::from_millis(100);
/// How many events may wait for the connection.
const MOST_EVENTS: usize = 1_000;

/// What the pump is to do.
#[derive(Debug)]
pub(super) enum Effect {
    /// Connect to the address with this index, and tell [`State::connected`] or [`State::not_connected`].
    Connect { address: usize },
    /// Drop the connection.
    Disconnect,
    /// Hand messages to the broker, and tell [`State::answered`] what it said, or that it said nothing for `patience`.
    Publish { batch: Batch, patience: Duration },
    /// Hand events to the broker, and tell [`State::events_published`] when it is done.
    PublishEvents(Vec<TaskEvent>),
    /// Tell a sender what became of its message.
    Call(Call),
    /// Tell who has flushed that all is settled, after all that came before has been told.
    Flushed(Settler),
    /// Make room in the buffer.
    Release { messages: usize, bytes: usize },
    /// What stands in the way now, for those whom the full buffer refuses.
    Obstacle(Option<BrokerError>),
    /// The routes that no more background messages are let in for.
    FullRoutes(Vec<Arc<Route>>),
    /// Tell the observer.
    Lost(Box<Message>, PublishError),
    /// Tell the observer.
    Disconnected(BrokerError),
    /// Tell the observer.
    Reconnected,
    /// Tell the observer.
    Held(BrokerError),
}

/// How much one connection takes.
#[derive(Clone, Copy, Debug)]
pub(super) struct Limits {
    /// Batches under way at once.
    pub(super) pipeline: usize,
    /// Messages in a batch.
    pub(super) batch: usize,
}

/// What is left of a state that is given up.
#[derive(Debug)]
pub(super) struct Left {
    /// Messages that nobody waits for, all but those in flight.
    pub(super) lost: Vec<Message>,
    /// What all of them took up of the buffer.
    pub(super) messages: usize,
    pub(super) bytes: usize,
}

#[derive(Debug)]
enum Connection {
    Down {
        retry_at: Option<Instant>,
    },
    Connecting,
    Up {
        limits: Limits,
        /// When the broker last said something.
        heard_at: Instant,
    },
}

/// What is under way, known by the lowest number in it.
#[derive(Debug)]
struct InFlight {
    first: u64,
    bytes: usize,
    /// Messages of a route that is held.
    is_probe: bool,
}

#[derive(Debug)]
struct Flush {
    /// Everything numbered below it must be settled.
    before: u64,
    slot: Settler,
}

/// See the [module](self).
#[derive(Debug)]
pub(super) struct State {
    timeout: Duration,
    buffer_messages: usize,
    buffer_bytes: usize,
    connection: Connection,
    reconnect: Reconnect,
    chance: fastrand::Rng,
    /// How long to leave a broker alone that says it is blocked.
    blocked: Backoff,
    /// Not handed over yet, oldest first.
    queue: VecDeque<Entry>,
    again: Vec<Entry>,
    held: Held,
    in_flight: Vec<InFlight>,
    deadlines: Deadlines,
    /// How many messages of the queue nobody waits for any more.
    stale: usize,
    flushes: Vec<Flush>,
    next_number: u64,
    /// Messages that nobody waits for, and their bytes: what they take up of the buffer.
    buffered: (usize, usize),
    /// Events without a message of their own, which wait for a connection as long as messages before them do.
    events: Vec<TaskEvent>,
    event_batches: usize,
    /// Why the broker took nothing when it was last tried: it is down, or blocked. `None`: it is up.
    obstacle: Option<BrokerError>,
    /// Nothing is sent before, since the broker asked for a pause.
    resume_at: Option<Instant>,
    closing: bool,
    /// Up to when all was done that could be.
    advanced_at: Option<Instant>,
    effects: VecDeque<Effect>,
}

impl State {
    pub(super) fn new(config: &PublisherConfig) -> Self {
        Self {
            timeout: config.timeout,
            buffer_messages: config.buffer_messages,
            buffer_bytes: config.buffer_bytes,
            connection: Connection::Down { retry_at: None },
            reconnect: Reconnect::new(config.broker.urls.len(), FIRST_PAUSE, LONGEST_PAUSE),
            chance: fastrand::Rng::with_seed(config.seed),
            blocked: Backoff::new(BLOCKED_PAUSE, LONGEST_PAUSE),
            queue: VecDeque::new(),
            again: Vec::new(),
            held: Held::default(),
            in_flight: Vec::new(),
            deadlines: Deadlines::default(),
            stale: 0,
            flushes: Vec::new(),
            next_number: 0,
            buffered: (0, 0),
            events: Vec::new(),
            event_batches: 0,
            obstacle: None,
            resume_at: None,
            closing: false,
            advanced_at: None,
            effects: VecDeque::new(),
        }
    }

    /// What is to be done next, in the order in which it was decided.
    pub(super) fn next_effect(&mut self) -> Option<Effect> {
        self.effects.pop_front()
    }

    /// Whether nothing will ever be done any more.
    pub(super) fn has_ended(&self) -> bool {
        self.closing
            && self.queue.is_empty()
            && self.again.is_empty()
            && self.held.is_empty()
            && self.in_flight.is_empty()
            && self.event_batches == 0
    }

    /// Whether there are no more senders.
    pub(super) fn is_closing(&self) -> bool {
        self.closing
    }

    /// When something is due after the last [`State::advance`] without anything having happened.
    pub(super) fn alarm(&self) -> Option<Instant> {
        let retry_at = match self.connection {
            Connection::Down { retry_at } => retry_at,
            _ => None,
        };
        let dues = [self.resume_at, retry_at, self.held.next_probe_at(), self.deadlines.next()];
        // What was due by then and could not be done waits for an answer of the broker's.
        dues.into_iter().flatten().filter(|at| self.advanced_at.is_none_or(|advanced| *at > advanced)).min()
    }

    // Events.

    /// A sender has something to send.
    pub(super) fn accept(&mut self, item: Item) {
        match item {
            Item::Send(mut entry) => {
                entry.number = self.next_number;
                self.next_number += 1;
                match &entry.slot {
                    Some(slot) => self.deadlines.push(slot.slot().clone()),
                    None => {
                        self.buffered.0 += 1;
                        self.buffered.1 += entry.size();
                    }
                }
                self.queue.push_back(entry);
            }
            Item::Event(event) => {
                if self.events.len() < MOST_EVENTS {
                    self.events.push(event);
                }
            }
            Item::Flush(slot) => {
                self.deadlines.push(slot.slot().clone());
                self.flushes.push(Flush { before: self.next_number, slot });
            }
        }
    }

    /// There will be no more senders.
    pub(super) fn close(&mut self) {
        self.closing = true;
    }

    /// There is a connection. Whether it is of use, the first message tells.
    pub(super) fn connected(&mut self, limits: Limits, now: Instant) {
        self.reconnect.connected(now);
        self.connection = Connection::Up { limits, heard_at: now };
    }

    /// An attempt to connect has failed.
    pub(super) fn not_connected(&mut self, error: BrokerError, now: Instant) {
        self.reconnect.failed(&error, now, self.chance.f64());
        self.connection = Connection::Down { retry_at: Some(now + self.reconnect.pause()) };
        if self.reconnect.is_hopeless() {
            self.refuse(&error);
        }
        self.obstructed(error);
    }

    /// A batch of events has gone, or was dropped.
    pub(super) fn events_published(&mut self) {
        self.event_batches -= 1;
    }

    /// Does all that can be done without waiting. `blocked` asks the connection whether the broker has said that it
    /// takes nothing.
    pub(super) fn advance(&mut self, now: Instant, blocked: impl Fn() -> Option<BrokerError>) {
        self.expire(now, blocked);
        if self.in_flight.is_empty() && !self.again.is_empty() {
            self.requeue();
        }
        self.resume_at = self.resume_at.filter(|at| *at > now);
        self.connect(now);
        self.publish(now);
        self.publish_events();
        self.finish_flushes();
        self.advanced_at = Some(now);
    }

    /// What is left of it, as something has panicked: whatever was decided last may be half-done.
    pub(super) fn abandon(self) -> Left {
        let held = self.held.into_entries();
        let entries = self.queue.into_iter().chain(self.again).chain(held);
        // Who waits is told as their slots are dropped.
        let lost = entries.filter(|entry| entry.slot.is_none()).map(|entry| entry.outgoing.message).collect();
        let (messages, bytes) = self.buffered;
        Left { lost, messages, bytes }
    }
}
