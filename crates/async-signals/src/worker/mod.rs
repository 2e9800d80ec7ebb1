//! The worker: takes messages, has their receivers run, and settles each as
//! its [`outcome`] says.
//!
//! In the order in which a message passes them:
//!
//! - `state`: what becomes of each message, decided without any I/O.
//! - `run`: the loop that does it, and owns the connection to the broker.
//! - `window`: how many messages are taken ahead.
//! - `admission`: what a message is, before anything of it runs.
//! - `lanes`: who calls the receivers of a Rust program, as [`WorkerBuilder`] says.
//! - [`job`]: one message with a [`Runner`], which calls the receivers.
//! - [`outcome`]: what can become of it, and what that means for the broker.
//! - `follow_up`: publishing what follows, before the original is acknowledged.
//! - `in_flight`: what is held, and how it stands.
//! - `settlement`: what the broker is still to be told.
//! - `observer`: who is told what happens beside running receivers.

mod admission;
mod builder;
mod follow_up;
mod in_flight;
pub mod job;
mod lanes;
mod observer;
pub mod outcome;
mod run;
mod settlement;
mod state;
mod window;

use std::{
    fmt,
    sync::Arc,
    time::{Duration, Instant},
};

use serde_json::{Map, Value};
use tokio::sync::watch;

use self::run::Loop;
pub use self::{
    builder::{WorkerBuilder, WorkerError},
    job::Job,
    lanes::Ran,
    observer::Observer,
    outcome::Outcome,
};
use crate::{
    broker::{BrokerConfig, BrokerError, ByScheme, Connector},
    clock::{self, Clock},
    message::Queue,
    publisher::{Publisher, PublisherConfig},
};

/// Who runs the receivers: the registry of a Rust program, or Python.
pub trait Runner: Send + Sync + 'static {
    /// Whether a task that is no signal is run here.
    fn knows(&self, _task: &str) -> bool {
        false
    }

    /// Takes jobs to run, in their order as far as it runs one at a time. Must
    /// not block. Each job is to be [begun](Job::begin) right before its
    /// receivers run, and [finished](Job::finish) after them; how many are under
    /// way at once is bounded by the worker's window.
    fn start(&self, jobs: Vec<Job>);
}

/// Where messages are parked that nobody can run.
#[derive(Clone, Debug)]
pub struct DeadLetters {
    /// The queue's name, in which `{queue}` stands for the queue they came from.
    pub name: String,
    /// What the queue is declared with: `x-max-length`, `x-message-ttl`, …
    pub arguments: Map<String, Value>,
}

impl DeadLetters {
    /// The dead-letter queue of a queue.
    pub fn of(&self, queue: &str) -> String {
        self.name.replace("{queue}", queue)
    }
}

impl Default for DeadLetters {
    fn default() -> Self {
        Self { name: "{queue}.dead".to_owned(), arguments: Map::new() }
    }
}

/// How a [`Worker`] works.
#[derive(Clone)]
pub struct WorkerConfig {
    /// Which broker.
    pub broker: BrokerConfig,
    /// What it reads.
    pub queues: Vec<Queue>,
    /// Names this process among all workers: letters, digits and hyphens.
    pub name: String,
    /// How many messages are taken ahead at least: for slow receivers.
    pub least_prefetch: usize,
    /// How many at most: for fast ones.
    pub most_prefetch: usize,
    /// How often a message may be taken and not settled before it is parked.
    pub max_deliveries: u32,
    /// Where what cannot run is parked. `None`: it is dropped with a word to the observer.
    pub dead_letters: Option<DeadLetters>,
    /// The queue where messages wait whose outcome is [`Outcome::Paused`].
    pub paused_queue: String,
    /// How long one attempt to connect, or one request, may take.
    pub timeout: Duration,
    /// How many rounds over all URLs may fail before the worker has ever been
    /// connected. `None`: it tries for ever, as it does once it has been.
    pub startup_rounds: Option<u32>,
    /// Who is told.
    pub observer: Arc<dyn Observer>,
    /// How connections are made, to publish and to consume.
    pub connector: Arc<dyn Connector>,
    /// What chance begins with, which spreads pauses and retries.
    pub seed: u64,
    /// What is compared with what senders have written: when a message is due, when it expires.
    pub clock: Clock,
}

impl WorkerConfig {
    /// The defaults: between 4 and 512 messages ahead, 5 deliveries, parked in `<queue>.dead`, 5 s.
    pub fn new(broker: BrokerConfig, queues: Vec<Queue>) -> Self {
        Self {
            broker,
            queues,
            name: uuid::Uuid::new_v4().to_string(),
            least_prefetch: 4,
            most_prefetch: 512,
            max_deliveries: 5,
            paused_queue: "celery.paused".to_owned(),
            dead_letters: Some(DeadLetters::default()),
            timeout: Duration::from_secs(5),
            startup_rounds: None,
            observer: Arc::new(()),
            connector: Arc::new(ByScheme),
            seed: getrandom::u64().unwrap_or_default(),
            clock: Clock::SYSTEM,
        }
    }
}

impl fmt::Debug for WorkerConfig {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("WorkerConfig").field("name", &self.name).field("queues", &self.queues).finish_non_exhaustive()
    }
}

/// How far a stop has come.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Stop {
    No,
    /// Take nothing new and finish what was taken, until then.
    Drain(Instant),
    /// Give back what is not finished, at once.
    Now,
}

impl Stop {
    fn until(self) -> Option<Instant> {
        match self {
            Self::Drain(until) => Some(until),
            _ => None,
        }
    }
}

/// Takes messages and has their receivers run, until it is stopped.
///
/// The broker going away and coming back needs nobody.
#[derive(Debug)]
pub struct Worker {
    stop: watch::Sender<Stop>,
}

impl Worker {
    /// A worker, and the future that does its work: to be awaited or spawned on
    /// a tokio runtime with time and I/O. It ends after a stop, or with an error
    /// that trying again does not mend: a wrong password, a queue with other
    /// arguments, a scheme that nobody speaks.
    pub fn new(
        config: WorkerConfig,
        runner: Arc<dyn Runner>,
    ) -> (Self, impl Future<Output = Result<(), BrokerError>> + Send) {
        let (stop, stopping) = watch::channel(Stop::No);
        let run = async move {
            let mut publishing = PublisherConfig::new(config.broker.clone());
            publishing.timeout = config.timeout;
            publishing.connector = config.connector.clone();
            publishing.seed = config.seed;
            let publisher = Publisher::spawn(publishing);
            Loop::new(config, runner, publisher, stopping).run().await
        };
        (Self { stop }, run)
    }

    /// Takes nothing new, finishes what was taken, and ends; what is not
    /// finished within `patience` goes back into the queues.
    pub fn stop(&self, patience: Duration) {
        let until = clock::now() + patience;
        self.stop.send_if_modified(|stop| {
            // Whoever is in more of a hurry has his way.
            let sooner = match *stop {
                Stop::No => true,
                Stop::Drain(already) => until < already,
                Stop::Now => false,
            };
            if sooner {
                *stop = Stop::Drain(until);
            }
            sooner
        });
    }

    /// Ends at once; what is not finished goes back into the queues.
    pub fn stop_now(&self) {
        self.stop.send_replace(Stop::Now);
    }
}
