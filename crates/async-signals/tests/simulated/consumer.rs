//! A worker's connection to the simulated broker.
//!
//! Two kinds of broker are simulated. One *keeps* what a worker holds when its connection breaks, as Redis does: until its
//! lease ends, after [`DEAD_AFTER`] without a sign of life. The other, as RabbitMQ, takes it back at once.

use std::{
    fmt, panic,
    sync::{
        Arc, Mutex, PoisonError,
        atomic::{AtomicBool, Ordering},
    },
    time::Duration,
};

use async_signals::broker::{
    BrokerError, BrokerUrl, Consumer, Subscription, Tag, Taken, consumer::DEAD_AFTER, memory::MemoryConsumer,
};
use futures_util::future::{BoxFuture, FutureExt};
use tokio::time::{Instant, sleep};

use super::{Address, Simulated};

/// A worker asks for much more than a sender does: what may befall each request befalls it less often.
const RARER: f64 = 16.0;

/// What a worker holds at the broker.
pub(super) struct Lease {
    worker: String,
    consumer: Arc<MemoryConsumer>,
    alive_at: Instant,
}

impl fmt::Debug for Lease {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Lease").field("worker", &self.worker).field("alive_at", &self.alive_at).finish()
    }
}

/// One connection.
#[derive(Debug)]
pub(super) struct SimulatedConsumer {
    broker: Simulated,
    address: usize,
    number: usize,
    worker: String,
    keeps: bool,
    /// `None` once it is broken, or its lease has ended.
    inner: Mutex<Option<Arc<MemoryConsumer>>>,
    /// It says nothing any more.
    is_silent: AtomicBool,
}

fn lost() -> BrokerError {
    BrokerError::Disconnected { url: "simulated".to_owned(), reason: "connection reset".to_owned() }
}

impl SimulatedConsumer {
    pub(super) fn subscribe(
        broker: Simulated,
        address: usize,
        number: usize,
        url: &BrokerUrl,
        subscription: Subscription,
    ) -> Self {
        let keeps = broker.seen().keeps;
        let worker = subscription.worker.clone();
        let consumer = Arc::new(MemoryConsumer::subscribe(url, &subscription));
        let inner = Mutex::new(Some(consumer.clone()));
        if keeps {
            let mut seen = broker.seen();
            // What it has taken over is not the older connection's any more.
            seen.leases.retain(|lease| lease.worker != worker);
            seen.leases.push(Lease { worker: worker.clone(), consumer, alive_at: Instant::now() });
        }
        Self { broker, address, number, worker, keeps, inner, is_silent: AtomicBool::new(false) }
    }

    fn inner(&self) -> Result<Arc<MemoryConsumer>, BrokerError> {
        let inner = self.inner.lock().unwrap_or_else(PoisonError::into_inner).clone();
        let inner = inner.ok_or_else(lost)?;
        if self.keeps && !self.broker.seen().leases.iter().any(|lease| Arc::ptr_eq(&lease.consumer, &inner)) {
            return Err(lost());
        }
        Ok(inner)
    }

    fn break_off(&self) -> BrokerError {
        self.broker.seen().breaks += 1;
        // Where the broker keeps nothing, this is the last that holds on to it.
        *self.inner.lock().unwrap_or_else(PoisonError::into_inner) = None;
        lost()
    }

    /// Carries a request out, unless the line or the server has something against it.
    async fn request<T>(&self, request: impl AsyncFnOnce(Arc<MemoryConsumer>) -> T) -> Result<T, BrokerError> {
        let (delay, breaks, answer_is_lost, swallows) = {
            let mut seen = self.broker.seen();
            let (breaks, swallows) = (seen.weather.cuts, seen.weather.swallows / RARER);
            let delay = seen.delay() / 4;
            let swallowed = seen.happens(swallows) || self.number <= seen.silent_up_to;
            (delay, seen.happens(breaks), seen.chance.bool(), swallowed)
        };
        sleep(delay).await;
        let panics = {
            let mut seen = self.broker.seen();
            let panics = seen.weather.panics / RARER;
            seen.happens(panics)
        };
        if panics {
            self.break_off();
            panic::resume_unwind(Box::new("a library's own"));
        }
        let inner = self.inner()?;
        if self.is_silent.fetch_or(swallows, Ordering::Relaxed) || swallows {
            self.broker.seen().breaks += 1;
            return std::future::pending().await;
        }
        if self.broker.seen().weather.address(self.address) == Address::Replica {
            return Err(BrokerError::Unavailable { url: "simulated".to_owned(), reason: "READONLY".to_owned() });
        }
        if breaks && !answer_is_lost {
            return Err(self.break_off());
        }
        let answer = request(inner).await;
        if breaks {
            return Err(self.break_off());
        }
        Ok(answer)
    }
}

impl Consumer for SimulatedConsumer {
    fn take<'a>(&'a self, done: &'a [Tag], limit: usize) -> BoxFuture<'a, Result<Vec<Taken>, BrokerError>> {
        self.request(async move |inner| inner.take(done, limit).await).map(|answer| answer?).boxed()
    }

    fn acknowledge<'a>(&'a self, tags: &'a [Tag]) -> BoxFuture<'a, Result<(), BrokerError>> {
        self.request(async move |inner| inner.acknowledge(tags).await).map(|answer| answer?).boxed()
    }

    fn give_back<'a>(&'a self, tags: &'a [Tag]) -> BoxFuture<'a, Result<(), BrokerError>> {
        self.request(async move |inner| inner.give_back(tags).await).map(|answer| answer?).boxed()
    }

    fn renew<'a>(&'a self, _held: &'a [Tag]) -> BoxFuture<'a, Result<(), BrokerError>> {
        let renew = async move |inner: Arc<MemoryConsumer>| {
            let mut seen = self.broker.seen();
            for lease in &mut seen.leases {
                if Arc::ptr_eq(&lease.consumer, &inner) {
                    lease.alive_at = Instant::now();
                }
            }
        };
        self.request(renew).boxed()
    }

    fn flush(&self) -> BoxFuture<'_, Result<(), BrokerError>> {
        self.request(async |_| ()).boxed()
    }

    fn keeps_over_reconnect(&self) -> bool {
        self.keeps
    }

    fn interrupt(&self) {
        if let Ok(inner) = self.inner() {
            inner.interrupt();
        }
    }

    fn close(&self) -> BoxFuture<'_, ()> {
        async move {
            if let Ok(inner) = self.inner() {
                inner.close().await;
                self.broker.seen().leases.retain(|lease| lease.worker != self.worker);
            }
        }
        .boxed()
    }
}

/// Gives back what dead workers held, for ever.
pub(super) async fn end_leases(broker: Simulated) {
    loop {
        sleep(Duration::from_millis(500)).await;
        let now = Instant::now();
        let ended: Vec<Lease> =
            broker.seen().leases.extract_if(.., |lease| now - lease.alive_at > DEAD_AFTER).collect();
        // Their messages go back as they are dropped, which asks for no lock of ours.
        drop(ended);
    }
}
