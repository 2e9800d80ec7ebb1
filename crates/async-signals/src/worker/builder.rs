//! A worker whose receivers are this program's own.

use std::{fmt, io, pin::pin, sync::Arc, thread, time::Duration};

use serde::{Serialize, de::DeserializeOwned};
use thiserror::Error;
use tokio::{sync::oneshot, task::JoinSet};
use uuid::Uuid;

use super::{
    DeadLetters, Observer, Worker, WorkerConfig,
    lanes::{Lanes, OnOutcome, Ran},
};
use crate::{
    broker::BrokerError,
    celery::{self, Celery, ConfigError},
    connection::ConnectError,
    follow::Failure,
    registry::{self, DuplicateSignal},
    signal::AsyncSignal,
};

/// Why a worker ended, or did not begin.
#[derive(Debug, Error)]
#[non_exhaustive]
pub enum WorkerError {
    /// Something that trying again does not mend: a wrong password, a queue with other arguments.
    #[error(transparent)]
    Broker(#[from] BrokerError),
    /// A receiver that could not be connected.
    #[error(transparent)]
    Receiver(#[from] ConnectError),
    /// Two signals have one name.
    #[error(transparent)]
    Duplicate(#[from] DuplicateSignal),
    /// What the worker is to be, and cannot: a queue's name that no broker takes.
    #[error(transparent)]
    Config(#[from] ConfigError),
    /// The operating system gives no thread.
    #[error("the worker has no thread of its own: {0}")]
    Thread(#[from] io::Error),
    /// The worker's own thread panicked. The brokers give what it held to others.
    #[error("the worker's thread panicked")]
    Died,
}

/// What a worker is made of before it runs. Made by [`Worker::builder`].
#[must_use = "a worker runs in `run_until`"]
pub struct WorkerBuilder {
    celery: Celery,
    queues: Vec<String>,
    concurrency: usize,
    prefetch: Option<usize>,
    stop_timeout: Duration,
    max_deliveries: u32,
    dead_letters: Option<DeadLetters>,
    name: Option<String>,
    startup_rounds: Option<u32>,
    observer: Arc<dyn Observer>,
    on_outcome: Option<OnOutcome>,
    registered: Result<(), DuplicateSignal>,
}

impl fmt::Debug for WorkerBuilder {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("WorkerBuilder")
            .field("celery", &self.celery)
            .field("queues", &self.queues)
            .finish_non_exhaustive()
    }
}

impl Worker {
    /// A worker that calls the receivers of this program, whatever they are
    /// connected by.
    ///
    /// ```
    /// use std::time::Duration;
    ///
    /// use async_signals::{AsyncSignal, Celery, Sender, Worker};
    /// use tokio::sync::Notify;
    ///
    /// # #[derive(serde::Serialize, serde::Deserialize)] struct OrderPlaced { order_id: u64 }
    /// static ORDER_PLACED: AsyncSignal<OrderPlaced> =
    ///     AsyncSignal::new("shop.signals.order_placed").queue("high_priority");
    /// static PLACED: Notify = Notify::const_new();
    ///
    /// # #[tokio::main(flavor = "current_thread")]
    /// # async fn main() -> Result<(), Box<dyn std::error::Error>> {
    /// ORDER_PLACED.connect(async |order: OrderPlaced| {
    ///     println!("order {}", order.order_id);
    ///     PLACED.notify_one();
    /// });
    /// let celery = Celery::new("memory://worker-builder")?;
    /// ORDER_PLACED.options().via(&celery).send(Sender::NONE, &OrderPlaced { order_id: 5 }).await?;
    /// // In a program: until a signal of the operating system asks it to end.
    /// Worker::builder(&celery).queues(["high_priority"]).concurrency(8).run_until(PLACED.notified()).await?;
    /// # Ok(())
    /// # }
    /// ```
    pub fn builder(celery: &Celery) -> WorkerBuilder {
        WorkerBuilder {
            celery: celery.clone(),
            queues: Vec::new(),
            concurrency: thread::available_parallelism().map_or(2, usize::from),
            prefetch: None,
            stop_timeout: Duration::from_secs(10),
            max_deliveries: 5,
            dead_letters: Some(DeadLetters::default()),
            name: None,
            startup_rounds: None,
            observer: Arc::new(Logged),
            on_outcome: None,
            registered: Ok(()),
        }
    }
}

impl WorkerBuilder {
    /// The queues that it reads; without this, those of the app: the ones it was told of, or its default queue.
    pub fn queues(mut self, names: impl IntoIterator<Item = impl Into<String>>) -> Self {
        self.queues = names.into_iter().map(Into::into).collect();
        self
    }

    /// A signal that is known here though nothing listens to it: its messages
    /// are acknowledged. Those of a signal that is not known are parked.
    pub fn signal<P>(mut self, signal: &'static AsyncSignal<P>) -> Self
    where
        P: Serialize + DeserializeOwned + Send + 'static,
    {
        self.registered = self.registered.and(signal.register());
        self
    }

    /// How many messages run at once: as many as there are processors. Each runs
    /// its receivers one after the other. They share the threads of the runtime,
    /// so that plain functions that block want a runtime with as many.
    pub fn concurrency(mut self, messages: usize) -> Self {
        self.concurrency = messages.max(1);
        self
    }

    /// How many messages are taken ahead of slow receivers: four for each that
    /// runs. It takes more by itself while receivers are fast.
    pub fn prefetch(mut self, messages: usize) -> Self {
        self.prefetch = Some(messages.max(1));
        self
    }

    /// How long a stop waits for receivers: 10 s. What is not finished by then
    /// goes back into its queue, and its async receivers are dropped.
    pub fn stop_timeout(mut self, timeout: Duration) -> Self {
        self.stop_timeout = timeout;
        self
    }

    /// How often a message may be taken by workers that do not finish it before it is parked: 5.
    pub fn max_deliveries(mut self, deliveries: u32) -> Self {
        self.max_deliveries = deliveries.max(1);
        self
    }

    /// Where messages are parked that nobody can run: `{queue}.dead`. `None`: they are dropped.
    pub fn dead_letters(mut self, dead_letters: impl Into<Option<DeadLetters>>) -> Self {
        self.dead_letters = dead_letters.into();
        self
    }

    /// What this worker's name among all workers begins with: letters, digits and hyphens. Any number of processes may
    /// be given the same one.
    pub fn name(mut self, name: impl Into<String>) -> Self {
        self.name = Some(name.into());
        self
    }

    /// Gives up when the broker could not be reached in so many rounds over its
    /// URLs before the first connection. Without it, it tries for ever.
    pub fn startup_rounds(mut self, rounds: u32) -> Self {
        self.startup_rounds = Some(rounds);
        self
    }

    /// Hears what the worker does beside running receivers, instead of the log.
    pub fn observer(mut self, observer: impl Observer + 'static) -> Self {
        self.observer = Arc::new(observer);
        self
    }

    /// Hears of each message that has run: for metrics. It is called in the lane, which it must not hold up.
    pub fn on_outcome(mut self, hear: impl Fn(&Ran<'_>) + Send + Sync + 'static) -> Self {
        self.on_outcome = Some(Arc::new(hear));
        self
    }

    /// Takes messages and runs their receivers on the current runtime, until
    /// `shutdown` is ready; then it takes nothing new, finishes what it has, and
    /// returns. The broker going away and coming back needs nobody.
    ///
    /// What speaks to the broker has a thread of its own: a receiver that blocks
    /// holds up no lease and no heartbeat. Dropping this future gives back at
    /// once whatever is not finished.
    ///
    /// # Errors
    ///
    /// [`WorkerError`].
    pub async fn run_until<T>(self, shutdown: impl Future<Output = T>) -> Result<(), WorkerError> {
        registry::link()?;
        self.registered.clone()?;
        self.queues.iter().try_for_each(|name| celery::check_queue_name(name))?;
        let lanes = Arc::new(Lanes::new(self.on_outcome.clone()));
        let (core, running) = Worker::new(self.config(), lanes.clone());
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
        let (ended, mut end) = oneshot::channel();
        thread::Builder::new().name("async-signals-worker".to_owned()).spawn(move || {
            // Nobody hears it when the future was dropped.
            let _ = ended.send(runtime.block_on(running));
        })?;
        let running = Running { core, lanes };
        let mut lanes = JoinSet::new();
        for _ in 0..self.concurrency {
            lanes.spawn(running.lanes.clone().run());
        }
        let mut shutdown = pin!(shutdown);
        let mut is_stopping = false;
        let ended = loop {
            tokio::select! {
                ended = &mut end => break ended,
                _ = &mut shutdown, if !is_stopping => {
                    is_stopping = true;
                    running.core.stop(self.stop_timeout);
                }
                // A lane ends by itself when there are no more jobs, and by nothing else, unless there is a fault here.
                Some(Err(error)) = lanes.join_next() => {
                    tracing::error!("a worker's lane has died, and another one takes its place: {error}");
                    lanes.spawn(running.lanes.clone().run());
                }
            }
        };
        ended.map_err(|_| WorkerError::Died)?.map_err(WorkerError::Broker)
    }

    fn config(&self) -> WorkerConfig {
        let names: Vec<&str> = match &*self.queues {
            [] => self.celery.queues(),
            given => given.iter().map(String::as_str).collect(),
        };
        let queues = names.into_iter().map(|name| self.celery.queue(name)).collect();
        let mut config = WorkerConfig::new(self.celery.reading().clone(), queues);
        config.least_prefetch = self.prefetch.unwrap_or(4 * self.concurrency);
        config.max_deliveries = self.max_deliveries;
        config.dead_letters = self.dead_letters.clone();
        config.timeout = self.celery.publish_timeout();
        config.startup_rounds = self.startup_rounds;
        config.observer = self.observer.clone();
        if let Some(name) = &self.name {
            // Replicas of one program are given one name, and each is a worker of its own.
            let unique = Uuid::new_v4().simple().to_string();
            config.name = format!("{name}-{}", &unique[..12]);
        }
        config
    }
}

/// A worker that runs, and ends when nobody awaits it any more.
struct Running {
    core: Worker,
    lanes: Arc<Lanes>,
}

impl Drop for Running {
    fn drop(&mut self) {
        self.core.stop_now();
        self.lanes.close();
    }
}

/// Says in the log what the worker does beside running receivers.
struct Logged;

impl Observer for Logged {
    fn connected(&self, broker: &str) {
        tracing::info!("connected to {broker}");
    }

    fn disconnected(&self, error: &BrokerError) {
        tracing::warn!("the broker is away, and is tried again: {error}");
    }

    fn expired(&self, id: &str, task: &str) {
        tracing::info!("{task}[{id}] expired before it could run");
    }

    fn redelivered(&self, id: &str, deliveries: u32) {
        tracing::warn!("message {id} was taken {deliveries} times and not finished");
    }

    fn parked(&self, id: &str, queue: Option<&str>, _kind: &str, reason: &str) {
        match queue {
            Some(queue) => tracing::error!("message {id} is parked in {queue}: {reason}"),
            None => tracing::error!("message {id} is dropped: {reason}"),
        }
    }

    fn retried(&self, id: &str, failures: &[Failure], seconds: f64) {
        let names: Vec<&str> = failures.iter().map(|failure| failure.receiver.as_str()).collect();
        tracing::warn!("message {id}: {} tried again in {seconds:.1} s", names.join(", "));
    }

    fn hindered(&self, id: &str, queue: &str, error: &dyn fmt::Display) {
        tracing::warn!("message {id} cannot be published to {queue} yet, and is tried again: {error}");
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn replicas_with_one_name_are_workers_of_their_own() {
        let celery = Celery::new("memory://one-name").expect("a configuration");
        let named = || Worker::builder(&celery).name("shop").config().name;
        let (one, other) = (named(), named());
        assert_ne!(one, other);
        assert!(one.starts_with("shop-") && one.len() == 17, "{one}");
    }
}
