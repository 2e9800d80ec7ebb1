use std::{
    fmt,
    pin::pin,
    sync::{
        Arc,
        atomic::{AtomicBool, AtomicUsize, Ordering},
    },
};

use futures_util::future::{BoxFuture, FutureExt};

use super::{Host, queues::Holder};
use crate::broker::{BrokerError, BrokerUrl, Consumer, Subscription, Tag, Taken};

/// Takes from the queues of this process. Dropping it gives back what it holds:
/// its worker is no more alive than it is.
pub struct MemoryConsumer {
    host: Arc<Host>,
    queues: Vec<Arc<str>>,
    generation: u32,
    holder: Holder,
    /// The queue that comes first in the next round.
    turn: AtomicUsize,
    interrupted: AtomicBool,
}

impl MemoryConsumer {
    /// Goes on with what the subscription's worker holds.
    pub fn subscribe(url: &BrokerUrl, subscription: &Subscription) -> Self {
        let host = Host::named(url);
        let holder = host.queues().enlist(subscription);
        host.changed.notify_waiters();
        Self {
            host,
            queues: subscription.queues.iter().map(|queue| queue.name.as_str().into()).collect(),
            generation: subscription.generation,
            holder,
            turn: AtomicUsize::new(0),
            interrupted: AtomicBool::new(false),
        }
    }

    async fn take_some(&self, done: &[Tag], limit: usize) -> Vec<Taken> {
        self.host.queues().acknowledge(done, &self.holder.worker);
        loop {
            // Listening before looking: what comes in between is not missed.
            let mut changed = pin!(self.host.changed.notified());
            changed.as_mut().enable();
            let turn = self.turn.fetch_add(1, Ordering::Relaxed);
            let taken = self.host.queues().take(&self.queues, turn, limit, &self.holder, self.generation);
            if !taken.is_empty() || self.interrupted.load(Ordering::Relaxed) {
                return taken;
            }
            changed.await;
        }
    }
}

impl Consumer for MemoryConsumer {
    fn take<'a>(&'a self, done: &'a [Tag], limit: usize) -> BoxFuture<'a, Result<Vec<Taken>, BrokerError>> {
        self.take_some(done, limit).map(Ok).boxed()
    }

    fn acknowledge<'a>(&'a self, tags: &'a [Tag]) -> BoxFuture<'a, Result<(), BrokerError>> {
        self.host.queues().acknowledge(tags, &self.holder.worker);
        std::future::ready(Ok(())).boxed()
    }

    fn give_back<'a>(&'a self, tags: &'a [Tag]) -> BoxFuture<'a, Result<(), BrokerError>> {
        self.host.queues().give_back(tags, &self.holder.worker);
        self.host.changed.notify_waiters();
        std::future::ready(Ok(())).boxed()
    }

    /// A consumer that is there is alive: nothing to renew.
    fn renew<'a>(&'a self, _held: &'a [Tag]) -> BoxFuture<'a, Result<(), BrokerError>> {
        std::future::ready(Ok(())).boxed()
    }

    fn interrupt(&self) {
        self.interrupted.store(true, Ordering::Relaxed);
        self.host.changed.notify_waiters();
    }

    fn close(&self) -> BoxFuture<'_, ()> {
        self.host.queues().give_back_all(&self.holder.worker);
        self.host.changed.notify_waiters();
        std::future::ready(()).boxed()
    }
}

impl Drop for MemoryConsumer {
    fn drop(&mut self) {
        self.host.queues().give_back_of(self.holder.connection);
        self.host.changed.notify_waiters();
    }
}

impl fmt::Debug for MemoryConsumer {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("MemoryConsumer").field("holder", &self.holder).field("queues", &self.queues).finish()
    }
}
