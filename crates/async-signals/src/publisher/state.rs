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

use std::{
    collections::VecDeque,
    iter,
    sync::Arc,
    time::{Duration, Instant},
};

use super::{
    PublishError, PublisherConfig,
    deadlines::Deadlines,
    entry::{Batch, Entry, Item, Ticket},
    held::Held,
    receipt::{Call, Outcome, Settler, Slot},
};
use crate::{
    backoff::Backoff,
    broker::{BrokerError, Published, RetryAdvice},
    message::{Message, Route, TaskEvent},
    reconnect::Reconnect,
};

const FIRST_PAUSE: Duration = Duration::from_millis(20);
const LONGEST_PAUSE: Duration = Duration::from_secs(1);
/// The first pause for a broker that says it is blocked.
const BLOCKED_PAUSE: Duration = Duration::from_millis(100);
/// How many events may wait for the connection.
const MOST_EVENTS: usize = 1_000;
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
                if let Some(slot) = &entry.slot {
                    self.deadlines.push(slot.slot().clone());
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

    /// The broker has said of each message of a batch whether it has it.
    pub(super) fn answered(&mut self, batch: Batch, answers: Vec<Published>, now: Instant) {
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

    // What follows from them.

    fn connect(&mut self, now: Instant) {
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
    fn requeue(&mut self) {
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

    fn publish(&mut self, now: Instant) {
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
    fn publish_events(&mut self) {
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

    fn settle(&mut self, slot: &Slot, outcome: Outcome) {
        self.effects.extend(slot.settle(outcome).map(Effect::Call));
    }

    /// Tells those who wait what they cannot change by waiting. What nobody waits for stays: a password can be mended
    /// while it is buffered.
    fn refuse(&mut self, error: &BrokerError) {
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
    fn hold(&mut self, entry: Entry, error: BrokerError, now: Instant) {
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

    fn obstructed(&mut self, error: BrokerError) {
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

    /// Settles what is past its deadline, and forgets its message if it is still here.
    fn expire(&mut self, now: Instant, blocked: impl Fn() -> Option<BrokerError>) {
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

    fn finish_flushes(&mut self) {
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

/// What a broker is taken to have said that has said nothing.
pub(super) fn no_answer() -> BrokerError {
    BrokerError::Disconnected { url: "the broker".to_owned(), reason: "no answer".to_owned() }
}
