//! A broker whose every fault comes from a seed: the queues of the in-memory broker, behind a line that is slow, breaks
//! in the middle of a batch, answers late or not at all, and a server that refuses, is full, blocked or a replica.
//!
//! What was handed over may be carried out after its future was dropped, or after the connection was reported as lost; of
//! a batch that breaks, any first part has arrived, and nobody knows which. It is kinder than real ones in this: it pushes
//! nothing ahead (RabbitMQ), has no two takes under way at once (Redis), and a take that is dropped takes nothing.
#![allow(dead_code, unreachable_pub, reason = "each test program is a crate of its own and uses a part of it")]

mod consumer;
mod line;
mod weather;

use std::{
    collections::HashMap,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    time::Duration,
};

use async_signals::broker::{
    Broker, BrokerConfig, BrokerError, BrokerUrl, Browser, Connector, Consumer, Subscription, memory::Memory,
};
use async_signals::message::Outgoing;
use futures_util::future::{BoxFuture, FutureExt};
use tokio::time::{Instant, sleep};
use uuid::Uuid;

pub use self::weather::{Address, Weather};
use self::{
    consumer::{Lease, SimulatedConsumer},
    line::Line,
};

/// The broker, and what was seen of it.
#[derive(Clone, Debug)]
pub struct Simulated {
    memory: Memory,
    url: BrokerUrl,
    seen: Arc<Mutex<Seen>>,
}

#[derive(Debug)]
struct Seen {
    chance: fastrand::Rng,
    weather: Weather,
    /// When somebody connected, or tried to.
    connections: Vec<Instant>,
    /// How often each message has arrived.
    arrived: HashMap<Uuid, usize>,
    /// When a message was last handed over, and over which connection.
    handed_over: HashMap<Uuid, (Instant, usize)>,
    handed_over_times: usize,
    /// How soon one was handed over again over the same connection.
    soonest_again: Option<Duration>,
    /// Connections up to this one say nothing any more.
    silent_up_to: usize,
    /// Bytes and messages of the largest batch of more than one message.
    largest_batch: (usize, usize),
    /// The most batches that were under way at once on a connection.
    longest_pipeline: usize,
    /// Whether what a worker holds stays its own when its connection breaks.
    keeps: bool,
    leases: Vec<Lease>,
    /// How often a client could not know what had become of its messages.
    breaks: usize,
}

impl Simulated {
    /// Queues of its own, and fair weather. `seed` decides all that chance does.
    pub fn new(name: &str, seed: u64) -> Self {
        let url = BrokerConfig::new(&format!("memory://{name}")).expect("a URL").urls.remove(0);
        let seen = Seen {
            chance: fastrand::Rng::with_seed(seed),
            weather: Weather::default(),
            connections: Vec::new(),
            arrived: HashMap::new(),
            handed_over: HashMap::new(),
            handed_over_times: 0,
            soonest_again: None,
            silent_up_to: 0,
            largest_batch: (0, 0),
            longest_pipeline: 0,
            keeps: true,
            leases: Vec::new(),
            breaks: 0,
        };
        Self { memory: Memory::connect(&url), url, seen: Arc::new(Mutex::new(seen)) }
    }

    /// Somebody connects: which connection it is, from 1.
    async fn arrive(&self, config: &BrokerConfig, url: &BrokerUrl) -> Result<usize, BrokerError> {
        let (delay, at, number) = {
            let mut seen = self.seen();
            seen.connections.push(Instant::now());
            (seen.delay(), seen.weather.address(address(config, url)), seen.connections.len())
        };
        sleep(delay).await;
        let url = url.to_string();
        match at {
            Address::Silent => std::future::pending().await,
            Address::Closed => Err(BrokerError::Connect { url, reason: "connection refused".to_owned() }),
            Address::WrongPassword => Err(BrokerError::Authentication { url, reason: "WRONGPASS".to_owned() }),
            Address::Open | Address::Replica => Ok(number),
        }
    }

    fn seen(&self) -> MutexGuard<'_, Seen> {
        self.seen.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Has what workers hold go back at once when their connections break, as RabbitMQ does.
    pub fn keeps_nothing(&self) {
        self.seen().keeps = false;
    }

    /// Gives back what dead workers held, for as long as the runtime lives.
    pub fn end_leases(&self) {
        tokio::spawn(consumer::end_leases(self.clone()));
    }

    /// How many messages of a queue wait, or are held by somebody.
    pub async fn left(&self, queue: &str) -> u64 {
        let depth = self.memory.depth(queue).await.expect("memory fails never");
        depth.map_or(0, |depth| depth.ready + depth.in_flight.unwrap_or_default())
    }

    /// How many messages of a queue somebody holds.
    pub async fn held(&self, queue: &str) -> u64 {
        let depth = self.memory.depth(queue).await.expect("memory fails never");
        depth.and_then(|depth| depth.in_flight).unwrap_or_default()
    }

    pub fn set_weather(&self, weather: Weather) {
        self.seen().weather = weather;
    }

    pub fn connections(&self) -> Vec<Instant> {
        self.seen().connections.clone()
    }

    /// Whether a message has arrived.
    pub fn has(&self, id: Uuid) -> bool {
        self.copies(id) > 0
    }

    /// How often a message has arrived.
    pub fn copies(&self, id: Uuid) -> usize {
        self.seen().arrived.get(&id).copied().unwrap_or_default()
    }

    /// When a message was last handed over.
    pub fn handed_over(&self, id: Uuid) -> Option<Instant> {
        self.seen().handed_over.get(&id).map(|(at, _)| *at)
    }

    /// How many messages were handed over, each time counted.
    pub fn handed_over_times(&self) -> usize {
        self.seen().handed_over_times
    }

    /// How soon a message was handed over again over the same connection.
    pub fn soonest_again(&self) -> Option<Duration> {
        self.seen().soonest_again
    }

    /// Something on the way forgets every connection that there is, and tells nobody.
    pub fn forget_connections(&self) {
        let mut seen = self.seen();
        seen.silent_up_to = seen.connections.len();
    }

    pub fn largest_batch(&self) -> (usize, usize) {
        self.seen().largest_batch
    }

    pub fn longest_pipeline(&self) -> usize {
        self.seen().longest_pipeline
    }

    pub fn breaks(&self) -> usize {
        self.seen().breaks
    }

    /// Puts a message into its queue, past all faults.
    pub async fn put(&self, outgoing: Outgoing) {
        *self.seen().arrived.entry(outgoing.message.id).or_default() += 1;
        self.memory.publish(&[outgoing]).await.remove(0).expect("memory has room");
    }

    /// Takes every message of a queue, in order.
    pub fn drain(&self, queue: &str) -> Vec<Uuid> {
        self.memory.drain(queue).iter().map(|message| message.id).collect()
    }
}

impl Seen {
    fn happens(&mut self, probability: f64) -> bool {
        probability > 0.0 && self.chance.f64() < probability
    }

    fn delay(&mut self) -> Duration {
        let Weather { delay, .. } = self.weather;
        if delay.is_zero() { delay } else { delay.mul_f64(self.chance.f64()) }
    }
}

impl Connector for Simulated {
    fn connect<'a>(
        &'a self,
        config: &'a BrokerConfig,
        url: &'a BrokerUrl,
    ) -> BoxFuture<'a, Result<Arc<dyn Broker>, BrokerError>> {
        async move {
            let number = self.arrive(config, url).await?;
            let line: Arc<dyn Broker> = Arc::new(Line::new(self.clone(), address(config, url), number));
            Ok(line)
        }
        .boxed()
    }

    fn consume<'a>(
        &'a self,
        config: &'a BrokerConfig,
        url: &'a BrokerUrl,
        subscription: Subscription,
    ) -> BoxFuture<'a, Result<Arc<dyn Consumer>, BrokerError>> {
        async move {
            let number = self.arrive(config, url).await?;
            let address = address(config, url);
            let consumer: Arc<dyn Consumer> =
                Arc::new(SimulatedConsumer::subscribe(self.clone(), address, number, &self.url, subscription));
            Ok(consumer)
        }
        .boxed()
    }
}

/// Which of the configuration's addresses a URL is.
fn address(config: &BrokerConfig, url: &BrokerUrl) -> usize {
    config.urls.iter().position(|other| std::ptr::eq(other, url)).unwrap_or(0)
}
