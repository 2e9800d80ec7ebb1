//! A broker within this process: real queues, gone with the process.
//!
//! It knows no priorities: each queue hands out its oldest message first.

mod browser;
mod consumer;
mod queues;

use std::{
    collections::HashMap,
    sync::{Arc, LazyLock, Mutex, MutexGuard, PoisonError},
};

use futures_util::future::{BoxFuture, FutureExt};
use tokio::sync::Notify;

pub use self::consumer::MemoryConsumer;
use self::queues::Queues;
use super::{Broker, BrokerUrl, Published, binding};
use crate::message::{Message, Outgoing};

static HOSTS: LazyLock<Mutex<HashMap<String, Arc<Host>>>> = LazyLock::new(Mutex::default);

/// Queues that a URL's host names, for everybody in this process.
#[derive(Debug, Default)]
struct Host {
    queues: Mutex<Queues>,
    /// Told whenever a message begins to wait.
    changed: Notify,
}

impl Host {
    fn named(url: &BrokerUrl) -> Arc<Self> {
        let mut hosts = HOSTS.lock().unwrap_or_else(PoisonError::into_inner);
        hosts.entry(url.host().to_owned()).or_default().clone()
    }

    fn queues(&self) -> MutexGuard<'_, Queues> {
        self.queues.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Queues in this process' memory. `memory://name` names a set of queues of its own.
#[derive(Clone, Debug)]
pub struct Memory {
    host: Arc<Host>,
}

impl Memory {
    /// The set of queues that the URL's host names.
    pub fn connect(url: &BrokerUrl) -> Self {
        Self { host: Host::named(url) }
    }

    /// Takes every message that waits in a queue, oldest first, and is done with it.
    pub fn drain(&self, queue: &str) -> Vec<Message> {
        self.host.queues().drain(queue)
    }
}

impl Broker for Memory {
    fn publish<'a>(&'a self, batch: &'a [Outgoing]) -> BoxFuture<'a, Vec<Published>> {
        let published = {
            let mut queues = self.host.queues();
            let put = |outgoing: &Outgoing| {
                for queue in binding::declared_queues(&outgoing.route)? {
                    queues.put(queue, outgoing);
                }
                Ok(())
            };
            batch.iter().map(put).collect()
        };
        self.host.changed.notify_waiters();
        std::future::ready(published).boxed()
    }

    fn close(&self) -> BoxFuture<'_, ()> {
        std::future::ready(()).boxed()
    }
}
