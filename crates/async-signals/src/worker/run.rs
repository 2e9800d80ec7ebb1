//! The loop that performs what a worker's [`State`] decides.

use std::{collections::VecDeque, sync::Arc};

use futures_util::{
    future::{self, BoxFuture, FutureExt},
    stream::{FuturesUnordered, StreamExt},
};
use tokio::{
    sync::{mpsc, watch},
    time::{Instant, MissedTickBehavior, interval, sleep_until, timeout},
};

use super::{
    Runner, Stop, WorkerConfig,
    job::Finished,
    observer::Guarded,
    state::{Effect, Kind, State},
};
use crate::{
    broker::{BrokerError, Consumer, Subscription, Tag, Taken, attempt, consumer::HEARTBEAT, in_time},
    clock, panics,
    publisher::Publisher,
};

/// How many jobs that have ended are looked at in one turn.
const MOST_FINISHED: usize = 256;

type Request<T> = BoxFuture<'static, Result<T, BrokerError>>;

/// Moves messages from the broker to the runner, and back.
pub(super) struct Loop {
    config: Arc<WorkerConfig>,
    state: State,
    runner: Arc<dyn Runner>,
    publisher: Arc<Publisher>,
    stopping: watch::Receiver<Stop>,
    finished: mpsc::UnboundedReceiver<Finished>,
    consumer: Option<Arc<dyn Consumer>>,
    connecting: Option<Request<Arc<dyn Consumer>>>,
    /// The oldest first. Only that one is waited for, so that none overtakes another.
    takes: VecDeque<Request<Vec<Taken>>>,
    settling: Option<Request<()>>,
    renewing: Option<Request<()>>,
    pausing: Option<Request<Vec<Taken>>>,
    following: FuturesUnordered<BoxFuture<'static, Tag>>,
}

impl Loop {
    pub(super) fn new(
        config: WorkerConfig,
        runner: Arc<dyn Runner>,
        publisher: Publisher,
        stopping: watch::Receiver<Stop>,
    ) -> Self {
        let config = Arc::new(WorkerConfig { observer: Arc::new(Guarded(config.observer)), ..config });
        let (ended, finished) = mpsc::unbounded_channel();
        Self {
            state: State::new(config.clone(), ended, clock::now(), config.seed),
            config,
            runner,
            publisher: Arc::new(publisher),
            stopping,
            finished,
            consumer: None,
            connecting: None,
            takes: VecDeque::new(),
            settling: None,
            renewing: None,
            pausing: None,
            following: FuturesUnordered::new(),
        }
    }

    pub(super) async fn run(mut self) -> Result<(), BrokerError> {
        let mut heartbeat = interval(HEARTBEAT);
        heartbeat.set_missed_tick_behavior(MissedTickBehavior::Delay);
        let mut finished = Vec::with_capacity(MOST_FINISHED);
        loop {
            self.state.stop(*self.stopping.borrow_and_update());
            let now = self.config.clock.moment();
            self.state.advance(now);
            self.perform();
            if self.state.is_over(now.at) {
                break;
            }
            let alarm = self.state.alarm().map(Instant::from_std);
            tokio::select! {
                biased;
                // First what is seldom ready: what is ready again and again would keep it waiting for ever.
                _ = heartbeat.tick() => self.state.heartbeat(),
                Ok(()) = self.stopping.changed() => {}
                _ = self.finished.recv_many(&mut finished, MOST_FINISHED) => {
                    self.state.finished(finished.drain(..), self.config.clock.moment());
                }
                taken = next(&mut self.takes) => self.taken(taken),
                result = pending(&mut self.settling) => match result {
                    Ok(()) => self.state.settled(),
                    Err(error) => self.state.lost(error, clock::now()),
                },
                result = pending(&mut self.pausing) => match result {
                    Ok(pushed) => self.state.paused(pushed, self.config.clock.moment(), |task| knows(&*self.runner, task)),
                    Err(error) => self.state.lost(error, clock::now()),
                },
                result = pending(&mut self.renewing) => match result {
                    Ok(()) => self.state.renewed(),
                    Err(error) => self.state.lost(error, clock::now()),
                },
                Some(tag) = self.following.next() => self.state.followed(tag, self.config.clock.moment()),
                result = pending(&mut self.connecting) => match result {
                    Ok(consumer) => {
                        let kind = Kind { keeps: consumer.keeps_over_reconnect(), overlaps: consumer.overlaps() };
                        self.consumer = Some(consumer);
                        self.state.connected(kind, clock::now());
                    }
                    Err(error) => {
                        let given_up = self.state.not_connected(error, clock::now());
                        self.perform();
                        given_up?;
                    }
                },
                () = sleep_until(alarm.unwrap_or_else(Instant::now)), if alarm.is_some() => {}
            }
        }
        self.end().await;
        Ok(())
    }

    fn taken(&mut self, taken: Result<Vec<Taken>, BrokerError>) {
        match taken {
            Ok(taken) => self.state.taken(taken, self.config.clock.moment(), |task| knows(&*self.runner, task)),
            Err(error) => self.state.lost(error, clock::now()),
        }
    }

    fn perform(&mut self) {
        while let Some(effect) = self.state.next_effect() {
            match effect {
                Effect::Start(jobs) => {
                    // Jobs that it drops by its panic go back.
                    panics::guarded("worker's runner", || self.runner.start(jobs));
                }
                Effect::Notice(notice) => notice.tell(&*self.config.observer),
                Effect::FollowUp(follow_up) => {
                    let (publisher, observer) = (self.publisher.clone(), self.config.observer.clone());
                    self.following.push(follow_up.publish(publisher, observer).boxed());
                }
                Effect::Connect { address, generation, held } => self.connect(address, generation, held),
                Effect::Disconnect => self.disconnect(),
                effect => {
                    if let Some(consumer) = self.consumer.clone() {
                        self.request(consumer, effect);
                    }
                }
            }
        }
    }

    /// Performs an effect that asks something of the broker.
    fn request(&mut self, consumer: Arc<dyn Consumer>, effect: Effect) {
        let patience = self.config.timeout;
        match effect {
            Effect::Take { done, limit, waits } => {
                let take = async move || {
                    if waits { consumer.take(&done, limit).await } else { consumer.take_ready(&done, limit).await }
                };
                let mut take = guarded(take).boxed();
                // It is on its way when it was polled once, whoever is waited for.
                self.takes.push_back(match (&mut take).now_or_never() {
                    Some(answer) => future::ready(answer).boxed(),
                    None => take,
                });
            }
            Effect::Settle { batch, answer } => {
                let settle = async move || {
                    batch.settle(&*consumer).await?;
                    if answer { consumer.flush().await } else { Ok(()) }
                };
                self.settling = Some(in_time(patience, guarded(settle)).boxed());
            }
            Effect::Prefetch(count) => {
                self.settling = Some(in_time(patience, guarded(async move || consumer.prefetch(count).await)).boxed());
            }
            Effect::Renew { held } => {
                self.renewing = Some(in_time(patience, guarded(async move || consumer.renew(&held).await)).boxed());
            }
            Effect::Pause { stops } => {
                let pause = async move || {
                    let pushed = consumer.pause().await;
                    if stops {
                        consumer.interrupt();
                    }
                    pushed
                };
                self.pausing = Some(in_time(patience, guarded(pause)).boxed());
            }
            Effect::Interrupt => consumer.interrupt(),
            _ => unreachable!("all others ask nothing of the broker"),
        }
    }

    fn connect(&mut self, address: usize, generation: u32, held: Vec<Tag>) {
        let (config, patience) = (self.config.clone(), self.config.timeout);
        let connect = async move {
            let subscription = Subscription {
                queues: config.queues.clone(),
                worker: config.name.clone(),
                generation,
                held,
                prefetch: config.least_prefetch,
            };
            let consume = |url| config.connector.consume(&config.broker, url, subscription);
            attempt(&config.broker, address, patience, consume).await
        };
        self.connecting = Some(connect.boxed());
    }

    fn disconnect(&mut self) {
        self.consumer = None;
        self.takes.clear();
        (self.settling, self.renewing, self.pausing) = (None, None, None);
    }

    /// Settles what it can, gives the rest back, and closes.
    async fn end(mut self) {
        self.following.clear();
        // Nobody waits for these any more: they must not stand in line before the goodbye.
        self.takes.clear();
        (self.renewing, self.pausing) = (None, None);
        if let Some(consumer) = self.consumer.take() {
            let goodbye = async {
                let arrived = match self.settling.take() {
                    Some(settling) => settling.await.is_ok(),
                    None => false,
                };
                let _ = self.state.last_words(arrived).settle(&*consumer).await;
                consumer.close().await;
            };
            let _ = timeout(self.config.timeout, goodbye).await;
        }
    }
}

/// Whether a runner knows a task; one that panics does not.
fn knows(runner: &dyn Runner, task: &str) -> bool {
    panics::caught(|| runner.knows(task)).unwrap_or(false)
}

/// A request, which ends the connection if the broker's own library panics in it.
async fn guarded<T>(request: impl AsyncFnOnce() -> Result<T, BrokerError>) -> Result<T, BrokerError> {
    panics::caught_in(request).await.unwrap_or_else(|text| {
        let reason = format!("it panicked: {text}");
        Err(BrokerError::Disconnected { url: "the broker".to_owned(), reason })
    })
}

/// A request that may not be under way.
async fn pending<T>(request: &mut Option<Request<T>>) -> Result<T, BrokerError> {
    let Some(under_way) = request else { return future::pending().await };
    let result = under_way.await;
    *request = None;
    result
}

/// The answer to the oldest of several requests. Not ready while there is none.
async fn next<T>(requests: &mut VecDeque<Request<T>>) -> Result<T, BrokerError> {
    let Some(request) = requests.front_mut() else { return future::pending().await };
    let answer = request.await;
    requests.pop_front();
    answer
}
