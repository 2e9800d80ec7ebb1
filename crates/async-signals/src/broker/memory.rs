//! A broker within this process: real queues, gone with the process.

use std::{
    collections::HashMap,
    sync::{Arc, LazyLock, Mutex, MutexGuard, PoisonError},
};

use futures_util::future::{BoxFuture, FutureExt};

use super::{Broker, BrokerUrl, Published, binding};
use crate::message::{Message, Outgoing};

type Queues = Arc<Mutex<HashMap<String, Vec<Message>>>>;

static HOSTS: LazyLock<Mutex<HashMap<String, Queues>>> = LazyLock::new(Mutex::default);

/// Queues in this process' memory. `memory://name` names a set of queues of its own.
#[derive(Clone, Debug)]
pub struct Memory {
    queues: Queues,
}

impl Memory {
    /// The set of queues that the URL's host names.
    pub fn connect(url: &BrokerUrl) -> Self {
        let mut hosts = HOSTS.lock().unwrap_or_else(PoisonError::into_inner);
        Self { queues: hosts.entry(url.host().to_owned()).or_default().clone() }
    }

    /// Takes every message that stands in a queue, oldest first.
    pub fn drain(&self, queue: &str) -> Vec<Message> {
        self.lock().get_mut(queue).map(std::mem::take).unwrap_or_default()
    }

    fn lock(&self) -> MutexGuard<'_, HashMap<String, Vec<Message>>> {
        self.queues.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Broker for Memory {
    fn publish<'a>(&'a self, batch: &'a [Outgoing]) -> BoxFuture<'a, Vec<Published>> {
        let mut queues = self.lock();
        let put = |Outgoing { route, message }: &Outgoing| {
            for queue in binding::declared_queues(route)? {
                queues.entry(queue.to_owned()).or_default().push(message.clone());
            }
            Ok(())
        };
        std::future::ready(batch.iter().map(put).collect()).boxed()
    }

    fn close(&self) -> BoxFuture<'_, ()> {
        std::future::ready(()).boxed()
    }
}
