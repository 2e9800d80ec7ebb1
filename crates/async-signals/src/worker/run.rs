//! The loop that owns the worker's connection.
//!
//! One task does everything in turn, so that the state of a message is in one
//! place. Nothing in it waits for anything but its own `select!`.

use std::{
    collections::HashMap,
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
    time::{Duration, SystemTime},
};

use futures_util::{
    future::{BoxFuture, FutureExt},
    stream::{FuturesUnordered, StreamExt},
};
use tokio::{
    sync::{mpsc, watch},
    time::{Instant, MissedTickBehavior, interval, sleep_until, timeout},
};
use uuid::Uuid;

use super::{
    Runner, Stop, WorkerConfig,
    admission::{Admission, admit},
    follow_up::{FollowUp, Notice},
    job::{Finished, Job},
    ledger::{Delayed, Ledger},
    link::Link,
    outcome::Outcome,
    settlement::Settlements,
    window::Window,
};
use crate::{
    broker::{BrokerError, Consumer, Content, Tag, Taken, consumer::HEARTBEAT},
    follow::{self, Follow, Ours},
    message::{Incoming, Message, Outgoing, Queue, Route},
    protocol::time,
    publisher::Publisher,
    retry,
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
    /// Set when what came over the current connection is the broker's again.
    void: Arc<AtomicBool>,
    taking: Option<Request<Vec<Taken>>>,
    settling: Option<Request<()>>,
    renewing: Option<Request<()>>,
    following: FuturesUnordered<BoxFuture<'static, Tag>>,
    ledger: Ledger,
    /// Signals that are with the runner, by id.
    running: HashMap<Uuid, Tag>,
    window: Window,
    /// What the broker was told to push ahead.
    prefetch: usize,
    settlements: Settlements,
    jobs: Vec<Job>,
    /// Messages that a counted copy was published of, by id: the copy may be here before they are settled.
    counted: HashMap<Uuid, Tag>,
    /// Such copies. One that killed this process now would come again beside its original.
    held_back: Vec<(Tag, Job)>,
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
            void: Arc::default(),
            taking: None,
            settling: None,
            renewing: None,
            following: FuturesUnordered::new(),
            ledger: Ledger::default(),
            running: HashMap::new(),
            prefetch: 0,
            settlements: Settlements::default(),
            jobs: Vec::new(),
            counted: HashMap::new(),
            held_back: Vec::new(),
            finished: mpsc::unbounded_channel(),
        }
    }

    pub(super) async fn run(mut self) -> Result<(), BrokerError> {
        let mut heartbeat = interval(HEARTBEAT);
        heartbeat.set_missed_tick_behavior(MissedTickBehavior::Delay);
        let mut finished = Vec::with_capacity(BATCH);
        loop {
            let stop = *self.stopping.borrow_and_update();
            if stop != Stop::No && !self.interrupted {
                self.interrupt();
            }
            self.advance(stop != Stop::No);
            if self.is_over(stop) {
                break;
            }
            let alarm = self.alarm(stop);
            tokio::select! {
                biased;
                count = self.finished.1.recv_many(&mut finished, BATCH) => {
                    self.window.ended(count, std::time::Instant::now());
                    finished.drain(..).for_each(|finished| self.finish(finished));
                }
                result = pending(&mut self.taking) => {
                    self.taking = None;
                    match result {
                        Ok(taken) => {
                            self.settlements.taken();
                            self.admit_all(taken);
                        }
                        Err(error) => self.lost(&error),
                    }
                }
                result = pending(&mut self.settling) => {
                    self.settling = None;
                    match result {
                        Ok(()) => self.settlements.settled(),
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
                _ = heartbeat.tick() => self.renew(),
                Ok(()) = self.stopping.changed() => {}
                () = sleep_until(alarm.unwrap_or_else(Instant::now)), if alarm.is_some() => {}
            }
        }
        self.end().await;
        Ok(())
    }

    /// Does all that can be done without waiting.
    fn advance(&mut self, stopping: bool) {
        let now = Instant::now();
        while !stopping && let Some((tag, Delayed { queue, redelivered, incoming })) = self.ledger.take_due(now) {
            self.begin(tag, queue, redelivered, incoming);
        }
        self.release();
        if !self.jobs.is_empty() {
            self.window.begun(self.jobs.len(), now.into_std());
            self.runner.start(std::mem::take(&mut self.jobs));
        }
        let Some(consumer) = &self.consumer else {
            if self.connecting.is_none() && !stopping {
                self.connecting = Some(self.link.connect(self.held()).boxed());
            }
            return;
        };
        if self.taking.is_none() && !stopping {
            let room = self.window.room().min(BATCH);
            if room > 0 {
                // A take may last until a message comes, and what is held back does not wait for that.
                let is_urgent = !(self.counted.is_empty() && self.held_back.is_empty());
                let done = if is_urgent { Vec::new() } else { self.settlements.begin_take() };
                let consumer = consumer.clone();
                self.taking = Some(async move { consumer.take(&done, room).await }.boxed());
            }
        }
        self.adjust_prefetch();
        let Some(consumer) = &self.consumer else { return };
        if self.settling.is_none() && self.settlements.are_due(now, stopping) {
            let consumer = consumer.clone();
            self.forget_counted();
            let is_urgent = !(self.counted.is_empty() && self.held_back.is_empty());
            let batch = self.settlements.begin();
            let settle = async move {
                batch.settle(&*consumer).await?;
                if is_urgent { consumer.flush().await } else { Ok(()) }
            };
            self.settling = Some(within(self.config.timeout, settle).boxed());
        }
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
        let due = if stop == Stop::No { self.ledger.next_due() } else { None };
        [acknowledge, deadline, due].into_iter().flatten().min()
    }

    fn admit_all(&mut self, taken: Vec<Taken>) {
        let now = SystemTime::now();
        for Taken { tag, queue, redelivered, content } in taken {
            match content {
                Content::Message(incoming) => self.admit(tag, queue, redelivered, incoming.into(), now),
                Content::Malformed { raw, reason } => {
                    let message = follow::parked_bytes(&raw, &queue, &reason, now);
                    self.park(tag, queue, message, &reason);
                }
            }
        }
    }

    fn admit(&mut self, tag: Tag, queue: Arc<str>, redelivered: bool, incoming: Arc<Incoming>, now: SystemTime) {
        match admit(&incoming, now, |task| self.runner.knows(task)) {
            Admission::Now => self.begin(tag, queue, redelivered, incoming),
            Admission::Later(eta) => {
                let wait = eta.duration_since(now).unwrap_or_default();
                self.config.observer.delayed(text(&incoming, "id"), text(&incoming, "task"), wait.as_secs_f64());
                self.ledger.delay(tag, Instant::now() + wait, Delayed { queue, redelivered, incoming });
            }
            Admission::Expired => {
                self.config.observer.expired(text(&incoming, "id"), text(&incoming, "task"));
                self.acknowledge(tag);
            }
            Admission::Unfit { kind, reason } => {
                let message = follow::parked(&incoming, &queue, kind, &reason, now);
                self.park(tag, follow::own_queue(&incoming, &queue).into(), message, &reason);
            }
        }
    }

    /// Runs a message that is due, unless it was taken before: then it is
    /// counted, or waits for its other copy.
    fn begin(&mut self, tag: Tag, queue: Arc<str>, redelivered: bool, incoming: Arc<Incoming>) {
        if !redelivered || !is_signal(&incoming) {
            return self.run_job(tag, queue, redelivered, incoming);
        }
        let original = id(&incoming).and_then(|id| self.running.get(&id).copied());
        if !original.is_some_and(|original| self.ledger.tie(original, tag)) {
            self.count(tag, queue, &incoming, SystemTime::now());
        }
    }

    fn run_job(&mut self, tag: Tag, queue: Arc<str>, redelivered: bool, incoming: Arc<Incoming>) {
        let id = id(&incoming).filter(|_| is_signal(&incoming));
        if let Some(id) = id {
            self.running.insert(id, tag);
        }
        self.ledger.run(tag, queue.clone());
        let job = Job::new(queue, redelivered, tag, incoming, self.void.clone(), self.finished.0.clone());
        match id.and_then(|id| self.counted.remove(&id)) {
            Some(original) => self.held_back.push((original, job)),
            None => self.jobs.push(job),
        }
    }

    /// Lets copies run whose originals the broker has heard of.
    fn release(&mut self) {
        if self.held_back.is_empty() {
            return;
        }
        for (original, job) in std::mem::take(&mut self.held_back) {
            if self.is_settled(original) {
                self.jobs.push(job);
            } else {
                self.held_back.push((original, job));
            }
        }
    }

    /// A copy that comes after its original is settled is like any other message, and most come to somebody else.
    fn forget_counted(&mut self) {
        let mut counted = std::mem::take(&mut self.counted);
        counted.retain(|_, original| !self.is_settled(*original));
        self.counted = counted;
    }

    fn is_settled(&self, tag: Tag) -> bool {
        self.ledger.queue(tag).is_none() && !self.settlements.tags().any(|other| other == tag)
    }

    /// A message that was taken before and not settled.
    fn count(&mut self, tag: Tag, queue: Arc<str>, incoming: &Incoming, now: SystemTime) {
        match follow::delivered_before(incoming, &queue, self.config.max_deliveries, now) {
            Follow::Again(message) => {
                let deliveries = Ours::of(&incoming.headers).deliveries + 1;
                self.counted.extend(id(incoming).map(|id| (id, tag)));
                let outgoing = to_queue(&follow::own_queue(incoming, &queue), message);
                self.follow(tag, queue, vec![(outgoing, Notice::Redelivered { deliveries })]);
            }
            Follow::Parked(message) => {
                let own = follow::own_queue(incoming, &queue).into();
                self.park(tag, own, message, "taken too often by workers that did not finish it");
            }
        }
    }

    fn park(&mut self, tag: Tag, queue: Arc<str>, message: Message, reason: &str) {
        match self.to_dead_letters(&queue, message, reason) {
            Some(parking) => self.follow(tag, queue, vec![parking]),
            None => self.reject(tag),
        }
    }

    fn follow(&mut self, tag: Tag, queue: Arc<str>, outgoing: Vec<(Outgoing, Notice)>) {
        self.ledger.follow(tag, queue);
        let follow_up = FollowUp { tag, outgoing };
        self.following.push(follow_up.publish(self.publisher.clone(), self.config.observer.clone()).boxed());
    }

    fn finish(&mut self, Finished { tag, incoming, outcome }: Finished) {
        if let Some(id) = id(&incoming)
            && self.running.get(&id) == Some(&tag)
        {
            self.running.remove(&id);
        }
        let Some(queue) = self.ledger.queue(tag).cloned() else { return };
        match outcome {
            Outcome::Done => self.acknowledge(tag),
            Outcome::Rejected => self.reject(tag),
            Outcome::Failed(failures) => {
                let now = SystemTime::now();
                let follows = follow::failed(&incoming, &queue, &failures, now, &mut retry::random);
                if follows.is_empty() {
                    return self.acknowledge(tag);
                }
                let own = follow::own_queue(&incoming, &queue);
                let outgoing = follows.into_iter().filter_map(|follow| match follow {
                    Follow::Again(message) => {
                        let notice = Notice::Retried { failures: failures.clone(), seconds: seconds_until(&message) };
                        Some((to_queue(&own, message), notice))
                    }
                    Follow::Parked(message) => self.to_dead_letters(&own, message, "its tries are spent"),
                });
                let outgoing = outgoing.collect();
                self.follow(tag, queue, outgoing);
            }
            Outcome::Unfit { kind, reason } => {
                let message = follow::parked(&incoming, &queue, &kind, &reason, SystemTime::now());
                self.park(tag, follow::own_queue(&incoming, &queue).into(), message, &reason);
            }
            Outcome::Unfinished => {
                let mut tags = Vec::new();
                self.ledger.settle(tag, &mut tags);
                // A copy that came over a newer connection takes the place of one whose connection is gone.
                match tags.pop() {
                    Some(copy) if copy != tag && *self.stopping.borrow() == Stop::No => {
                        self.settlements.give_back(tags);
                        self.run_job(copy, queue, true, incoming);
                    }
                    last => self.settlements.give_back(tags.into_iter().chain(last)),
                }
            }
        }
    }

    /// A message's way into the dead-letter queue of its queue; `None` where there is none, and nobody keeps it.
    fn to_dead_letters(&self, queue: &str, message: Message, reason: &str) -> Option<(Outgoing, Notice)> {
        let Some(dead) = &self.config.dead_letters else {
            self.config.observer.parked(&message.properties.correlation_id, None, reason);
            return None;
        };
        let name = dead.of(queue);
        let outgoing = to_dead(&name, dead.arguments.clone(), message);
        Some((outgoing, Notice::Parked { queue: name, reason: reason.to_owned() }))
    }

    fn acknowledge(&mut self, tag: Tag) {
        self.settlements.acknowledge(|done| self.ledger.settle(tag, done));
    }

    fn reject(&mut self, tag: Tag) {
        self.settlements.reject(|rejected| self.ledger.settle(tag, rejected));
    }

    /// Tells a broker that pushes how many: as many as the window holds and,
    /// while receivers are fast, as are about to be acknowledged. What waits
    /// for its time does not count.
    fn adjust_prefetch(&mut self) {
        let Some(consumer) = &self.consumer else { return };
        let wanted = self.window.size() + self.ledger.delayed();
        let quiet = self.window.is_least() && self.ledger.delayed() == 0;
        let fits = if quiet { self.prefetch == wanted } else { (wanted..=wanted * 4).contains(&self.prefetch) };
        if fits || self.settling.is_some() {
            return;
        }
        self.prefetch = if quiet { wanted } else { (wanted * 2).next_power_of_two() };
        let (consumer, count) = (consumer.clone(), self.prefetch);
        self.settling = Some(within(self.config.timeout, async move { consumer.prefetch(count).await }).boxed());
    }

    fn renew(&mut self) {
        let Some(consumer) = self.consumer.clone() else { return };
        if self.renewing.is_some() {
            return;
        }
        let held = self.held();
        let patience = self.config.timeout;
        self.renewing = Some(within(patience, async move { consumer.renew(&held).await }).boxed());
    }

    fn connected(&mut self, result: Result<Arc<dyn Consumer>, BrokerError>) -> Result<(), BrokerError> {
        match result {
            Ok(consumer) => {
                self.config.observer.connected(&self.link.address());
                self.link.connected();
                self.void = Arc::default();
                self.prefetch = self.config.least_prefetch;
                self.consumer = Some(consumer);
                self.interrupted = false;
                self.renew();
                Ok(())
            }
            Err(error) => {
                self.config.observer.disconnected(&error);
                if self.link.may_try_again(&error) { Ok(()) } else { Err(error) }
            }
        }
    }

    /// The connection cannot be used any more.
    fn lost(&mut self, error: &BrokerError) {
        let Some(consumer) = self.consumer.take() else { return };
        self.config.observer.disconnected(error);
        (self.taking, self.settling, self.renewing) = (None, None, None);
        let keeps = consumer.keeps_over_reconnect();
        self.settlements.lost(keeps);
        if !keeps {
            self.void.store(true, Ordering::Relaxed);
            self.ledger.forget_lost();
        }
    }

    /// Takes nothing more: what waits for its time goes back, too.
    fn interrupt(&mut self) {
        self.interrupted = true;
        if let Some(consumer) = &self.consumer {
            consumer.interrupt();
        }
        self.settlements.give_back(self.ledger.drop_delayed());
    }

    fn is_over(&self, stop: Stop) -> bool {
        match stop {
            Stop::No => false,
            Stop::Now => true,
            Stop::Drain(until) => {
                let nothing_left = self.ledger.is_empty()
                    && self.taking.is_none()
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
        if let Some(consumer) = self.consumer.take() {
            let goodbye = async {
                if let Some(settling) = self.settling.take() {
                    let _ = settling.await;
                }
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

async fn within<T>(
    patience: Duration,
    request: impl Future<Output = Result<T, BrokerError>>,
) -> Result<T, BrokerError> {
    timeout(patience, request).await.unwrap_or_else(|_| {
        let reason = format!("no answer in {patience:?}");
        Err(BrokerError::Disconnected { url: "the broker".to_owned(), reason })
    })
}

fn to_queue(queue: &str, message: Message) -> Outgoing {
    let route = Route { exchange: String::new(), routing_key: queue.to_owned(), declare: Vec::new() };
    Outgoing { route: Arc::new(route), message }
}

fn to_dead(name: &str, arguments: serde_json::Map<String, serde_json::Value>, message: Message) -> Outgoing {
    let mut route = Route::to_queue(name);
    route.declare = vec![Queue { arguments, ..Queue::direct(name) }];
    Outgoing { route: Arc::new(route), message }
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

fn seconds_until(message: &Message) -> f64 {
    let crate::message::Headers::Raw(headers) = &message.headers else { return 0.0 };
    match time::read(headers, "eta") {
        Ok(Some(eta)) => eta.duration_since(SystemTime::now()).unwrap_or_default().as_secs_f64(),
        _ => 0.0,
    }
}
