use std::{
    cmp::Ordering,
    collections::{BinaryHeap, VecDeque},
    sync::Arc,
    time::Duration,
};

use futures_util::{
    future::{BoxFuture, FutureExt},
    stream::{FuturesUnordered, StreamExt},
};
use tokio::{
    sync::mpsc,
    time::{Instant, sleep_until, timeout},
};

use super::{
    Observer, PublishError, PublisherConfig, Shared,
    link::Link,
    observer::Guarded,
    receipt::{Settler, Slot},
};
use crate::{
    broker::{Broker, BrokerError, Published},
    message::{Event, Outgoing},
};

/// How long to leave a broker alone that says it is blocked.
const BLOCKED_PAUSE: Duration = Duration::from_millis(100);

/// What comes from the senders.
#[derive(Debug)]
#[allow(clippy::large_enum_variant, reason = "flushes are rare, and a box for each send would cost an allocation")]
pub(super) enum Item {
    Send(Entry),
    Event(Event),
    Flush(Settler),
}

/// A message on its way, and who waits for it.
#[derive(Debug)]
pub(super) struct Entry {
    outgoing: Outgoing,
    /// Goes right behind the message, the first time that it is handed over.
    event: Option<Box<Event>>,
    /// `None` in the background.
    slot: Option<Settler>,
    /// Its place in the order in which messages came.
    number: u64,
}

impl Entry {
    pub(super) fn confirmed(outgoing: Outgoing, event: Option<Box<Event>>, slot: Settler) -> Self {
        Self { outgoing, event, slot: Some(slot), number: 0 }
    }

    pub(super) fn background(outgoing: Outgoing, event: Option<Box<Event>>) -> Self {
        Self { outgoing, event, slot: None, number: 0 }
    }
}

/// How many events may wait for the connection.
const MOST_EVENTS: usize = 1_000;

/// How many batches of events may be under way: a broker that takes no more gets no more.
const MOST_EVENT_BATCHES: usize = 8;

/// One batch's way back: who waits, the messages, and what the broker said of each.
type Batch = (Vec<Ticket>, Vec<Outgoing>, Vec<Published>);

struct Ticket {
    slot: Option<Settler>,
    number: u64,
}

/// Orders slots so that a heap has the earliest deadline on top.
#[derive(Debug)]
struct Due(Arc<Slot>);

impl Ord for Due {
    fn cmp(&self, other: &Self) -> Ordering {
        other.0.deadline.cmp(&self.0.deadline)
    }
}

impl PartialOrd for Due {
    fn partial_cmp(&self, other: &Self) -> Option<Ordering> {
        Some(self.cmp(other))
    }
}

impl PartialEq for Due {
    fn eq(&self, other: &Self) -> bool {
        self.cmp(other).is_eq()
    }
}

impl Eq for Due {}

struct Flush {
    /// Everything numbered below it must be settled.
    before: u64,
    slot: Settler,
}

/// The loop that moves messages from the senders to the broker.
pub(super) struct Pump {
    shared: Arc<Shared>,
    observer: Guarded,
    received: mpsc::UnboundedReceiver<Item>,
    link: Link,
    broker: Option<Arc<dyn Broker>>,
    connecting: Option<BoxFuture<'static, Result<Arc<dyn Broker>, BrokerError>>>,
    /// Not handed over yet, oldest first.
    queue: VecDeque<Entry>,
    /// To be sent again. They go back into the queue when no batch is under
    /// way any more, so that the order is kept.
    again: Vec<Entry>,
    /// Events without a message of their own, which wait for a connection as long as messages before them do.
    events: Vec<Event>,
    events_under_way: FuturesUnordered<BoxFuture<'static, ()>>,
    in_flight: FuturesUnordered<BoxFuture<'static, Batch>>,
    /// Numbers that are in flight, a lower bound per batch: what a flush waits for.
    in_flight_from: Vec<u64>,
    /// The next deadline on top. Those settled meanwhile are dropped when they get there.
    deadlines: BinaryHeap<Due>,
    /// How many messages of the queue nobody waits for any more.
    stale: usize,
    flushes: Vec<Flush>,
    next_number: u64,
    /// Whether something stood in the way when it was last tried.
    is_obstructed: bool,
    /// Nothing is sent before, since the broker asked for a pause.
    resume_at: Option<Instant>,
    timeout: Duration,
    closing: bool,
}

impl Pump {
    pub(super) fn new(config: PublisherConfig, shared: Arc<Shared>, received: mpsc::UnboundedReceiver<Item>) -> Self {
        Self {
            shared,
            observer: Guarded(config.observer),
            received,
            link: Link::new(config.broker, config.timeout),
            broker: None,
            connecting: None,
            queue: VecDeque::new(),
            again: Vec::new(),
            events: Vec::new(),
            events_under_way: FuturesUnordered::new(),
            in_flight: FuturesUnordered::new(),
            in_flight_from: Vec::new(),
            deadlines: BinaryHeap::new(),
            stale: 0,
            flushes: Vec::new(),
            next_number: 0,
            is_obstructed: false,
            resume_at: None,
            timeout: config.timeout,
            closing: false,
        }
    }

    pub(super) async fn run(mut self) {
        let mut items = Vec::with_capacity(1024);
        loop {
            self.advance();
            let idle = self.queue.is_empty() && self.again.is_empty() && self.in_flight.is_empty();
            if self.closing && idle && self.events_under_way.is_empty() {
                break;
            }
            let alarm = self.alarm();
            let connecting = self.connecting.as_mut();
            tokio::select! {
                biased;
                Some(batch) = self.in_flight.next(), if !self.in_flight.is_empty() => self.settle(batch),
                // After the messages that they go behind.
                Some(()) = self.events_under_way.next(), if !self.events_under_way.is_empty() => {}
                result = async { connecting.expect("the guard saw it").await }, if connecting.is_some() => {
                    self.connecting = None;
                    self.connected(result);
                }
                count = self.received.recv_many(&mut items, 1024), if !self.closing => {
                    self.closing = count == 0;
                    items.drain(..).for_each(|item| self.accept(item));
                }
                () = sleep_until(alarm.unwrap_or_else(Instant::now)), if alarm.is_some() => {}
            }
        }
        if let Some(broker) = self.broker.take() {
            broker.close().await;
        }
    }

    fn accept(&mut self, item: Item) {
        match item {
            Item::Send(mut entry) => {
                entry.number = self.next_number;
                self.next_number += 1;
                self.deadlines.extend(entry.slot.as_ref().map(|slot| Due(slot.slot().clone())));
                self.queue.push_back(entry);
            }
            Item::Event(event) => {
                if self.events.len() < MOST_EVENTS {
                    self.events.push(event);
                }
            }
            Item::Flush(slot) => {
                self.deadlines.push(Due(slot.slot().clone()));
                self.flushes.push(Flush { before: self.next_number, slot });
            }
        }
    }

    /// Does all that can be done without waiting.
    fn advance(&mut self) {
        self.expire();
        if self.in_flight.is_empty() && !self.again.is_empty() {
            self.again.sort_unstable_by_key(|entry| entry.number);
            for entry in self.again.drain(..).rev() {
                self.queue.push_front(entry);
            }
        }
        if self.resume_at.is_some_and(|at| at <= Instant::now()) {
            self.resume_at = None;
        }
        // What is to be sent again goes first: nothing overtakes it.
        while self.again.is_empty() && self.resume_at.is_none() && !self.queue.is_empty() {
            let Some(broker) = self.broker.clone() else {
                // A broken connection's batches come back first, or they would
                // be overtaken over the new one.
                if self.connecting.is_none() && self.in_flight.is_empty() {
                    self.connecting = Some(self.link.connect().boxed());
                }
                break;
            };
            if self.in_flight.len() >= broker.pipeline() {
                break;
            }
            self.hand_over(broker);
        }
        self.publish_events();
        self.finish_flushes();
    }

    /// Publishes the events that no message takes along. Nobody connects for their sake.
    fn publish_events(&mut self) {
        if self.events.is_empty() || !self.queue.is_empty() || !self.again.is_empty() || self.connecting.is_some() {
            return;
        }
        let events = std::mem::take(&mut self.events);
        if let Some(broker) = self.broker.clone() {
            self.hand_over_events(broker, events);
        }
    }

    /// Has a broker publish events, unless it is slow to.
    fn hand_over_events(&mut self, broker: Arc<dyn Broker>, events: Vec<Event>) {
        if events.is_empty() || self.events_under_way.len() >= MOST_EVENT_BATCHES {
            return;
        }
        let patience = self.timeout;
        let publish = async move {
            // Nobody is told what has become of them.
            let _ = timeout(patience, broker.publish_events(events)).await;
        };
        self.events_under_way.push(publish.boxed());
    }

    fn hand_over(&mut self, broker: Arc<dyn Broker>) {
        let size = self.queue.len().min(broker.batch());
        let (mut tickets, mut batch) = (Vec::with_capacity(size), Vec::with_capacity(size));
        let mut events = std::mem::take(&mut self.events);
        while batch.len() < size {
            let Some(Entry { outgoing, event, slot, number }) = self.queue.pop_front() else { break };
            if slot.as_ref().is_none_or(|slot| slot.take()) {
                tickets.push(Ticket { slot, number });
                batch.push(outgoing);
                events.extend(event.map(|event| *event));
            }
        }
        let Some(first) = tickets.first() else {
            self.events = events;
            return;
        };
        self.in_flight_from.push(first.number);
        let patience = self.timeout;
        let events_broker = broker.clone();
        self.in_flight.push(
            async move {
                let answers = timeout(patience, broker.publish(&batch)).await.unwrap_or_else(|_| {
                    let reason = format!("no answer in {patience:?}");
                    vec![Err(BrokerError::Disconnected { url: "the broker".to_owned(), reason }); batch.len()]
                });
                (tickets, batch, answers)
            }
            .boxed(),
        );
        self.hand_over_events(events_broker, events);
    }

    fn connected(&mut self, result: Result<Arc<dyn Broker>, BrokerError>) {
        match result {
            // Whether it is of use, the first message tells.
            Ok(broker) => self.broker = Some(broker),
            Err(error) => {
                self.obstructed(&error);
                if self.link.refused(&error) {
                    self.refuse(error);
                }
            }
        }
    }

    /// Tells those who wait what they cannot change by waiting. What nobody
    /// waits for stays: a password can be mended while it is buffered.
    fn refuse(&mut self, error: BrokerError) {
        self.queue.retain(|entry| match &entry.slot {
            Some(slot) => {
                slot.settle(Err(error.clone().into()));
                false
            }
            None => true,
        });
    }

    /// The broker has taken a message, or has said what is wrong with one.
    fn worked(&mut self) {
        self.link.worked();
        if std::mem::take(&mut self.is_obstructed) {
            self.shared.set_obstacle(None);
            self.observer.reconnected();
        }
    }

    fn obstructed(&mut self, error: &BrokerError) {
        self.is_obstructed = true;
        self.events.clear();
        if !self.shared.set_obstacle(Some(error.clone())) {
            self.observer.disconnected(error);
        }
    }

    fn settle(&mut self, (tickets, batch, answers): Batch) {
        if let Some(first) = tickets.first()
            && let Some(at) = self.in_flight_from.iter().position(|number| *number == first.number)
        {
            self.in_flight_from.swap_remove(at);
        }
        debug_assert_eq!(tickets.len(), answers.len(), "a broker answers for each message");
        let (mut messages, mut bytes) = (0, 0);
        let (mut worked, mut hindrance) = (false, None::<BrokerError>);
        for ((ticket, outgoing), answer) in tickets.into_iter().zip(batch).zip(answers) {
            let size = outgoing.message.body.len();
            let Ticket { slot, number } = ticket;
            match answer {
                Err(error) if error.is_transient() => {
                    // That the connection is gone counts, whatever else was said.
                    if hindrance.as_ref().is_none_or(|hindrance| !hindrance.is_disconnect()) {
                        hindrance = Some(error);
                    }
                    if slot.as_ref().is_none_or(|slot| !slot.is_settled()) {
                        self.again.push(Entry { outgoing, event: None, slot, number });
                    }
                    continue;
                }
                answer => {
                    worked = true;
                    let outcome = answer.map_err(PublishError::from);
                    match slot {
                        Some(slot) => slot.settle(outcome),
                        None => {
                            messages += 1;
                            bytes += size;
                            if let Err(error) = outcome {
                                self.observer.lost(&outgoing.message, &error);
                            }
                        }
                    }
                }
            }
        }
        if messages > 0 {
            self.shared.buffer.release(messages, bytes);
        }
        if worked {
            self.worked();
        }
        if let Some(error) = hindrance {
            self.hindered(&error);
        }
    }

    fn hindered(&mut self, error: &BrokerError) {
        if error.is_disconnect() {
            // Each of the connection's batches says so.
            if self.broker.take().is_some() {
                self.link.lost();
            }
        } else {
            self.resume_at = Some(Instant::now() + BLOCKED_PAUSE);
        }
        self.obstructed(error);
    }

    /// When something is due without anything having happened.
    fn alarm(&self) -> Option<Instant> {
        let deadline = self.deadlines.peek().map(|due| due.0.deadline.into());
        match (self.resume_at, deadline) {
            (Some(resume), Some(deadline)) => Some(resume.min(deadline)),
            (resume, deadline) => resume.or(deadline),
        }
    }

    /// Settles what is past its deadline, and forgets its message if it is still here.
    fn expire(&mut self) {
        let now = Instant::now();
        while let Some(Due(slot)) = self.deadlines.peek() {
            if Instant::from(slot.deadline) > now && !slot.is_settled() {
                break;
            }
            let obstacle = self.shared.obstacle().or_else(|| self.broker.as_ref()?.blocked());
            self.stale += usize::from(slot.expire(obstacle));
            self.deadlines.pop();
        }
        // Looking through a long queue for each of many would be slow.
        if self.stale * 2 > self.queue.len() {
            self.queue.retain(|entry| entry.slot.as_ref().is_none_or(|slot| !slot.is_settled()));
            self.stale = 0;
        }
    }

    fn finish_flushes(&mut self) {
        if self.flushes.is_empty() {
            return;
        }
        // The queue is in order, and may be too long to look through.
        let queued = self.queue.front().into_iter().chain(&self.again).map(|entry| entry.number).min();
        let in_flight = self.in_flight_from.iter().copied().min();
        let oldest = queued.into_iter().chain(in_flight).min().unwrap_or(u64::MAX);
        self.flushes.retain(|flush| {
            if flush.before <= oldest {
                flush.slot.settle(Ok(()));
            }
            flush.before > oldest && !flush.slot.is_settled()
        });
    }
}
