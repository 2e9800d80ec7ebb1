//! Taking from Redis and Valkey, in kombu's layout.
//!
//! What a worker holds lies in `unacked` and `unacked_index`, where kombu
//! keeps it too: a stock worker puts back what a dead one of ours held, after
//! its visibility timeout, and ours what a stock worker held. Among ourselves
//! it takes seconds, see [`presence`](super::presence).

use std::{
    fmt,
    time::{Duration, Instant},
};

use futures_util::future::{BoxFuture, FutureExt};
use redis::Pipeline;

use super::{
    presence::{Dead, Expired, Presence},
    restoring::Was,
    routes::{Routes, command},
    session::Session,
    tags,
    taking::Taking,
    waking::{Waking, Woken},
};
use crate::{
    broker::{BrokerConfig, BrokerError, BrokerUrl, Consumer, Subscription, Tag, Taken, consumer::HEARTBEAT},
    message::{Queue, Route},
};

/// One renewal puts messages back for so long at most: the next one must come in time.
const RESTORING: Duration = Duration::from_millis(HEARTBEAT.as_millis() as u64 / 2);

/// How often the bindings are written again: they may have been flushed, or swept.
const BIND_AGAIN: Duration = Duration::from_secs(60);

/// Takes messages from the queues of a Redis or Valkey server.
pub(crate) struct RedisConsumer {
    session: Session,
    waking: Waking,
    presence: Presence,
    taking: Taking,
    queues: Vec<Queue>,
    bound: tokio::sync::Mutex<Instant>,
}

impl fmt::Debug for RedisConsumer {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { presence, taking, .. } = self;
        f.debug_struct("RedisConsumer").field("presence", presence).field("taking", taking).finish_non_exhaustive()
    }
}

impl RedisConsumer {
    pub(in crate::broker) async fn connect(
        config: &BrokerConfig,
        url: &BrokerUrl,
        subscription: Subscription,
    ) -> Result<Self, BrokerError> {
        let Subscription { queues, worker, generation, held, prefetch: _ } = subscription;
        let presence = Presence::new(&worker, generation, &config.transport_options)?;
        let session = Session::open(config, url).await?;
        let waking = Waking::open(config, url).await?;
        let taking = Taking::new(&worker, generation, &queues, &session.keys);
        let bound = tokio::sync::Mutex::new(Instant::now());
        let consumer = Self { session, waking, presence, taking, queues, bound };
        consumer.bind().await?;
        consumer.presence.sign_on(&consumer.session).await?;
        // Earlier connections can take no more, and this one has not begun.
        let mut lost = consumer.session.held_by(&worker).await?;
        lost.retain(|tag| !held.contains(tag));
        // At first what stands there is another process's, of the same name.
        let was = if generation > 1 { Was::NotDelivered } else { Was::Delivered };
        consumer.session.restore(&worker, &lost, was, None).await?;
        Ok(consumer)
    }

    /// Writes the bindings of the queues, for publishers and for kombu's restoring.
    async fn bind(&self) -> Result<(), BrokerError> {
        let route = Route { declare: self.queues.clone(), ..Route::default() };
        let mut pipeline = Pipeline::new();
        Routes::default().declare(&route, &self.session.keys, &mut pipeline)?;
        match self.session.send_all(&pipeline).await {
            // Whoever publishes binds too, and a worker is what a full memory needs.
            Err(error @ BrokerError::OutOfMemory { .. }) => {
                tracing::warn!(%error, "cannot bind the queues");
                Ok(())
            }
            bound => bound.map(drop),
        }
    }

    async fn bind_again(&self) -> Result<(), BrokerError> {
        let mut bound = self.bound.lock().await;
        if bound.elapsed() >= BIND_AGAIN {
            *bound = Instant::now();
            self.bind().await?;
        }
        Ok(())
    }

    async fn take_some(&self, done: &[Tag], limit: usize) -> Result<Vec<Taken>, BrokerError> {
        let mut taken = self.taking.round(&self.session, done, limit).await?;
        let mut round = 0;
        while taken.is_empty() && limit > 0 {
            if self.waking.wait(self.taking.lists(), round).await? == Woken::Interrupted {
                break;
            }
            taken = self.taking.round(&self.session, &[], limit).await?;
            round = round.saturating_add(1);
        }
        Ok(taken)
    }

    async fn settle(&self, tags: &[Tag]) -> Result<(), BrokerError> {
        if tags.is_empty() {
            return Ok(());
        }
        // The message first: a tag that is left alone goes when its lease has expired, a message would stay.
        let mut pipeline = Pipeline::with_capacity(2);
        for (name, key) in [("HDEL", self.session.keys.unacked()), ("ZREM", self.session.keys.unacked_index())] {
            let mut remove = command(name, [key]);
            for tag in tags {
                remove.arg(tags::write(self.presence.worker(), *tag));
            }
            pipeline.add_command(remove);
        }
        self.session.send_all(&pipeline).await.map(drop)
    }

    async fn renew_all(&self, held: &[Tag]) -> Result<(), BrokerError> {
        let until = Instant::now() + RESTORING;
        let (dead, expired) = self.presence.renew(&self.session, held).await?;
        match self.restore_others(dead, expired, until).await {
            // The sign of life was given, and the next one comes with another try.
            Err(error) if !error.is_disconnect() => tracing::warn!(%error, "cannot put back what others held"),
            restored => restored?,
        }
        self.bind_again().await
    }

    async fn restore_others(&self, dead: Vec<Dead>, expired: Vec<Expired>, until: Instant) -> Result<(), BrokerError> {
        self.session.restore_expired(expired).await?;
        for dead in dead {
            self.restore_dead(&dead, until).await?;
        }
        Ok(())
    }

    async fn restore_dead(&self, dead: &Dead, until: Instant) -> Result<(), BrokerError> {
        if !self.presence.bury(&self.session, dead).await? {
            return Ok(());
        }
        let lost = self.session.held_by(&dead.worker).await?;
        tracing::warn!(worker = dead.worker, messages = lost.len(), "a worker died: what it held goes to the others");
        if self.session.restore(&dead.worker, &lost, Was::Delivered, Some(until)).await? {
            self.presence.forget(&self.session, &dead.worker).await?;
        }
        Ok(())
    }

    async fn sign_off(&self) -> Result<(), BrokerError> {
        // A later connection of the same worker goes on with what it holds.
        if self.presence.sign_off(&self.session).await? {
            let worker = self.presence.worker();
            let held = self.session.held_by(worker).await?;
            self.session.restore(worker, &held, Was::Delivered, None).await?;
            self.presence.forget(&self.session, worker).await?;
        }
        Ok(())
    }
}

impl Consumer for RedisConsumer {
    fn take<'a>(&'a self, done: &'a [Tag], limit: usize) -> BoxFuture<'a, Result<Vec<Taken>, BrokerError>> {
        self.take_some(done, limit).boxed()
    }

    fn overlaps(&self) -> bool {
        true
    }

    // A server that has forgotten the script is asked anew, out of turn.
    fn take_ready<'a>(&'a self, done: &'a [Tag], limit: usize) -> BoxFuture<'a, Result<Vec<Taken>, BrokerError>> {
        self.taking.round(&self.session, done, limit).boxed()
    }

    fn acknowledge<'a>(&'a self, tags: &'a [Tag]) -> BoxFuture<'a, Result<(), BrokerError>> {
        self.settle(tags).boxed()
    }

    fn give_back<'a>(&'a self, tags: &'a [Tag]) -> BoxFuture<'a, Result<(), BrokerError>> {
        self.session
            .restore(self.presence.worker(), tags, Was::Delivered, None)
            .map(|restored| restored.map(drop))
            .boxed()
    }

    fn renew<'a>(&'a self, held: &'a [Tag]) -> BoxFuture<'a, Result<(), BrokerError>> {
        self.renew_all(held).boxed()
    }

    fn interrupt(&self) {
        self.waking.interrupt();
    }

    fn close(&self) -> BoxFuture<'_, ()> {
        async {
            self.waking.interrupt();
            if let Err(error) = self.sign_off().await {
                tracing::debug!(%error, "cannot sign off: the others will put back what is held here");
            }
        }
        .boxed()
    }
}
