//! The loop that owns the worker's connection.
//!
//! One task does everything in turn, so that the state of a message is in one
//! place. Nothing in it waits for anything but its own `select!`.
//!
//! - `suspects`: messages that were delivered before, each of which runs alone.
//! - `outcomes`: what becomes of a message that has ended, and of one that must not begin.
//! - `takes`: asking for messages.
//! - `connection`: made, kept, lost.

mod connection;
mod outcomes;
mod suspects;
mod takes;

use std::{collections::HashMap, sync::Arc, time::SystemTime};

use futures_util::{
    future::{BoxFuture, FutureExt},
    stream::{FuturesUnordered, StreamExt},
};
use tokio::{
    sync::{mpsc, watch},
    time::{Instant, MissedTickBehavior, interval, sleep_until, timeout},
};
use uuid::Uuid;

use self::{suspects::Suspects, takes::Takes};
use super::{
    Runner, Stop, WorkerConfig,
    admission::{Admission, admit},
    job::{Arrival, Finished, Job, Words},
    ledger::Ledger,
    link::Link,
    observer::Guarded,
    settlement::Settlements,
    window::Window,
};
use crate::{
    broker::{BrokerError, Consumer, Content, Tag, Taken, consumer::HEARTBEAT, in_time},
    follow,
    message::Incoming,
    protocol::time,
    publisher::Publisher,
};

/// Most messages of one round trip.
const BATCH: usize = 256;

type Request<T> = BoxFuture<'static, Result<T, BrokerError>>;

/// Everything the loop knows.
pub(super) struct Loop {
    config: WorkerConfig,
    runner: Arc<dyn Runner>,
    publisher: Arc<Publisher>,
    stopping: watch::Receiver<Stop>,
    /// Whether the consumer knows of the stop.
    interrupted: bool,
    link: Link,
    consumer: Option<Arc<dyn Consumer>>,
    connecting: Option<Request<Arc<dyn Consumer>>>,
    /// What is said of jobs that have not begun.
    words: Words,
    /// What came over connections up to this one is the broker's again.
    void_until: u32,
    takes: Takes,
    settling: Option<Request<()>>,
    renewing: Option<Request<()>>,
    /// The broker is to push nothing, and hands over what it has pushed.
    quieting: Option<Request<Vec<Taken>>>,
    following: FuturesUnordered<BoxFuture<'static, Tag>>,
    ledger: Ledger,
    /// Signals that are with the runner, by id.
    running: HashMap<Uuid, Tag>,
    window: Window,
    /// What the broker was told to push ahead.
    prefetch: usize,
    settlements: Settlements,
    jobs: Vec<Job>,
    suspects: Suspects,
    finished: (mpsc::UnboundedSender<Finished>, mpsc::UnboundedReceiver<Finished>),
}

impl Loop {
    pub(super) fn new(
        config: WorkerConfig,
        runner: Arc<dyn Runner>,
        publisher: Publisher,
        stopping: watch::Receiver<Stop>,
    ) -> Self {
        let now = std::time::Instant::now();
        let config = WorkerConfig { observer: Arc::new(Guarded(config.observer)), ..config };
        Self {
            link: Link::new(&config),
            window: Window::new(config.least_prefetch, config.most_prefetch, now),
            config,
            runner,
            publisher: Arc::new(publisher),
            stopping,
            interrupted: false,
            consumer: None,
            connecting: None,
            words: Words::default(),
            void_until: 0,
            takes: Takes::default(),
            settling: None,
            renewing: None,
            quieting: None,
            following: FuturesUnordered::new(),
            ledger: Ledger::default(),
            running: HashMap::new(),
            prefetch: 0,
            settlements: Settlements::default(),
            jobs: Vec::new(),
            suspects: Suspects::default(),
            finished: mpsc::unbounded_channel(),
        }
    }

    pub(super) async fn run(mut self) -> Result<(), BrokerError> {
        let mut heartbeat = interval(HEARTBEAT);
        heartbeat.set_missed_tick_behavior(MissedTickBehavior::Delay);
        let mut finished = Vec::with_capacity(BATCH);
        loop {
            let stop = *self.stopping.borrow_and_update();
            if stop != Stop::No {
                if !self.interrupted {
                    self.interrupt();
                }
                // Again, since a take that was under way may bring back what has just been given back.
                self.settlements.give_back(self.ledger.drop_delayed());
            }
            self.advance(stop != Stop::No);
            if self.is_over(stop) {
                break;
            }
            let alarm = self.alarm(stop);
            tokio::select! {
                biased;
                // First what is seldom ready: what is ready again and again would keep it waiting for ever.
                _ = heartbeat.tick() => self.renew(),
                Ok(()) = self.stopping.changed() => {}
                count = self.finished.1.recv_many(&mut finished, BATCH) => {
                    self.window.ended(count, std::time::Instant::now());
                    finished.drain(..).for_each(|finished| self.finish(finished));
                }
                result = self.takes.next() => match result {
                    Ok(taken) => {
                        self.link.worked();
                        self.settlements.taken();
                        self.admit_all(taken);
                    }
                    Err(error) => self.lost(&error),
                },
                result = pending(&mut self.settling) => {
                    self.settling = None;
                    match result {
                        Ok(()) => self.settled(),
                        Err(error) => self.lost(&error),
                    }
                }
                result = pending(&mut self.quieting) => {
                    self.quieting = None;
                    match result {
                        Ok(pushed) if stop == Stop::No => self.admit_all(pushed),
                        Ok(pushed) => self.return_all(pushed),
                        Err(error) => self.lost(&error),
                    }
                }
                result = pending(&mut self.renewing) => {
                    self.renewing = None;
                    if let Err(error) = result {
                        self.lost(&error);
                    }
                }
                Some(tag) = self.following.next() => self.acknowledge(tag),
                result = pending(&mut self.connecting) => {
                    self.connecting = None;
                    self.connected(result)?;
                }
                () = sleep_until(alarm.unwrap_or_else(Instant::now)), if alarm.is_some() => {}
            }
        }
        self.end().await;
        Ok(())
    }

    /// Does all that can be done without waiting.
    fn advance(&mut self, stopping: bool) {
        let now = Instant::now();
        while !stopping
            && !self.suspects.are_here()
            && let Some((tag, arrival)) = self.ledger.take_due(now)
        {
            self.begin(tag, arrival);
        }
        self.isolate(now, stopping);
        if !self.jobs.is_empty() {
            self.window.begun(self.jobs.len(), now.into_std());
            self.runner.start(std::mem::take(&mut self.jobs));
        }
        if self.consumer.is_none() {
            if self.connecting.is_none() && !stopping {
                self.connecting = Some(self.link.connect(self.held()).boxed());
            }
            return;
        }
        if !stopping {
            self.take(now);
        }
        self.adjust_prefetch(now);
        let Some(consumer) = &self.consumer else { return };
        let is_urgent = stopping || self.suspects.are_waiting();
        if self.settling.is_none() && self.settlements.are_due(now, is_urgent) {
            let consumer = consumer.clone();
            let wants_answer = self.suspects.need_answers();
            let batch = self.settlements.begin();
            let settle = async move {
                batch.settle(&*consumer).await?;
                if wants_answer { consumer.flush().await } else { Ok(()) }
            };
            self.settling = Some(in_time(self.config.timeout, settle).boxed());
        }
    }

    fn settled(&mut self) {
        self.settlements.settled();
        self.suspects
            .forget(|tag| self.ledger.queue(tag).is_none() && !self.settlements.tags().any(|other| other == tag));
    }

    /// Everything that the broker must not give to others.
    fn held(&self) -> Vec<Tag> {
        self.ledger.tags().chain(self.settlements.tags()).collect()
    }

    /// When something is due without anything having happened.
    fn alarm(&self, stop: Stop) -> Option<Instant> {
        let acknowledge = match (&self.consumer, &self.settling) {
            (Some(_), None) => self.settlements.due_at(),
            _ => None,
        };
        let deadline = match stop {
            Stop::Drain(until) => Some(until),
            _ => None,
        };
        let is_free = stop == Stop::No && !self.suspects.are_here();
        let due = if is_free { self.ledger.next_due() } else { None };
        let is_quiet = self.consumer.is_some() && self.quieting.is_none();
        let suspect = if is_quiet { self.suspects.due_at(self.config.timeout) } else { None };
        [acknowledge, deadline, due, suspect].into_iter().flatten().min()
    }

    fn admit_all(&mut self, taken: Vec<Taken>) {
        let now = SystemTime::now();
        for Taken { tag, queue, redelivered, content } in taken {
            match content {
                Content::Message(incoming) => self.admit(tag, queue, redelivered, incoming.into(), now),
                Content::Malformed { raw, reason } => {
                    let message = follow::parked_bytes(&raw, &queue, &reason, now);
                    self.park(tag, queue, message);
                }
            }
        }
    }

    fn admit(&mut self, tag: Tag, queue: Arc<str>, redelivered: bool, incoming: Arc<Incoming>, now: SystemTime) {
        match admit(&incoming, now, |task| self.runner.knows(task)) {
            Admission::Now { expires } => self.begin(tag, Arrival { queue, redelivered, expires, incoming }),
            Admission::Later { eta, expires } => {
                let wait = eta.duration_since(now).unwrap_or_default();
                self.config.observer.delayed(text(&incoming, "id"), text(&incoming, "task"), wait.as_secs_f64());
                // Whoever had it before has not begun it: there is nothing to count.
                let redelivered = redelivered && !is_signal(&incoming);
                self.ledger.delay(tag, Instant::now() + wait, Arrival { queue, redelivered, expires, incoming });
            }
            Admission::Expired => self.expire(tag, &incoming),
            Admission::Unfit { kind, reason } => {
                let message = follow::parked(&incoming, &queue, kind, &reason, now);
                self.park(tag, queue, message);
            }
        }
    }

    /// Runs a message that is due, unless it was taken before: then it is
    /// counted, or waits for its other copy.
    fn begin(&mut self, tag: Tag, arrival: Arrival) {
        if !is_signal(&arrival.incoming) {
            return self.start_or_release(tag, arrival);
        }
        if arrival.redelivered {
            let original = id(&arrival.incoming).and_then(|id| self.running.get(&id).copied());
            if !original.is_some_and(|original| self.ledger.tie(original, tag)) {
                self.count(tag, arrival.queue, &arrival.incoming);
            }
        } else if follow::deliveries(&arrival.incoming) > 0 {
            self.suspect(tag, arrival);
        } else {
            self.start_or_release(tag, arrival);
        }
    }

    fn start_or_release(&mut self, tag: Tag, arrival: Arrival) {
        if self.suspects.are_here() {
            self.release(tag, arrival.queue, &arrival.incoming);
        } else {
            self.start(tag, arrival);
        }
    }

    fn start(&mut self, tag: Tag, arrival: Arrival) {
        if is_signal(&arrival.incoming)
            && let Some(id) = id(&arrival.incoming)
        {
            self.running.insert(id, tag);
        }
        self.ledger.run(tag, arrival.queue.clone());
        self.jobs.push(Job::new(tag, arrival, &self.words, self.finished.0.clone()));
    }

    /// Takes nothing more: what waits for its time goes back, too.
    fn interrupt(&mut self) {
        self.interrupted = true;
        if let Some(consumer) = self.consumer.clone() {
            if self.quieting.is_some() {
                consumer.interrupt();
            } else {
                let quiet = async move {
                    let pushed = consumer.pause().await;
                    consumer.interrupt();
                    pushed
                };
                self.quieting = Some(in_time(self.config.timeout, quiet).boxed());
            }
        }
    }

    /// What was pushed and is not wanted any more. Signals are given back uncounted: their broker would
    /// mark them as delivered before. All else it takes back with the connection.
    fn return_all(&mut self, pushed: Vec<Taken>) {
        for Taken { tag, queue, redelivered, content } in pushed {
            match content {
                Content::Message(incoming) if !redelivered && is_signal(&incoming) => {
                    self.release(tag, queue, &incoming);
                }
                _ => {}
            }
        }
    }

    fn is_over(&self, stop: Stop) -> bool {
        match stop {
            Stop::No => false,
            Stop::Now => true,
            Stop::Drain(until) => {
                let nothing_left = self.ledger.is_empty()
                    && self.takes.is_empty()
                    && self.quieting.is_none()
                    && self.settling.is_none()
                    && self.settlements.is_empty();
                // Without a connection there is nothing to settle: the broker has it all back in time.
                nothing_left || Instant::now() >= until || (self.consumer.is_none() && self.window.is_idle())
            }
        }
    }

    /// Settles what it can, gives the rest back, and closes.
    async fn end(mut self) {
        self.following.clear();
        // Nobody waits for these any more: they must not stand in line before the goodbye.
        self.takes.forget();
        (self.renewing, self.quieting) = (None, None);
        if let Some(consumer) = self.consumer.take() {
            let goodbye = async {
                if let Some(settling) = self.settling.take()
                    && settling.await.is_ok()
                {
                    self.settlements.settled();
                }
                // The broker may not have heard what went with a take.
                self.settlements.tell_again();
                let _ = self.settlements.begin().settle(&*consumer).await;
                consumer.close().await;
            };
            let _ = timeout(self.config.timeout, goodbye).await;
        }
    }
}

/// A request that may not be under way.
async fn pending<T>(request: &mut Option<Request<T>>) -> Result<T, BrokerError> {
    match request {
        Some(request) => request.await,
        None => std::future::pending().await,
    }
}

/// When a signal expires. Of other tasks Celery looks after that.
fn signal_expiry(incoming: &Incoming) -> Option<SystemTime> {
    let asks = is_signal(incoming) && !incoming.headers.is_plain();
    if asks { time::read(&incoming.headers, "expires").ok().flatten() } else { None }
}

fn is_signal(incoming: &Incoming) -> bool {
    text(incoming, "task") == crate::protocol::celery::TASK
}

fn id(incoming: &Incoming) -> Option<Uuid> {
    text(incoming, "id").parse().ok()
}

fn text<'a>(incoming: &'a Incoming, header: &str) -> &'a str {
    incoming.headers.text(header).unwrap_or_default()
}
