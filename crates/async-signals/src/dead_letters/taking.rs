use std::{
    collections::BTreeMap,
    ops::Deref,
    sync::{Arc, Mutex, PoisonError},
    time::{Duration, Instant, SystemTime},
};

use thiserror::Error;
use tokio::time::{sleep, timeout};
use uuid::Uuid;

use super::DeadLetter;
use crate::{
    broker::{
        self, BrokerConfig, BrokerError, Consumer, Content, Subscription, Tag, Taken, consumer::HEARTBEAT, in_time,
    },
    follow,
    message::{Outgoing, Queue, Route},
    publisher::{PublishError, Publisher},
};

/// When nothing has come for so long, that was all.
const QUIET: Duration = Duration::from_millis(300);
/// How many messages are taken in one round trip at most.
const BATCH: usize = 256;
/// How many messages may be held at once where the broker pushes them (RabbitMQ): it does not push more to one consumer.
const MOST_HELD: usize = u16::MAX as usize;
/// How often the leases of all that is held are renewed.
const LEASES: Duration = Duration::from_secs(20);
/// How many bytes of messages are kept that may not be given back (quorum queues).
const MOST_COUNTED: usize = 64 << 20;

/// A dead letter that was taken out of its queue, and goes back unless it is replayed or discarded.
#[derive(Clone, Debug)]
pub struct Held {
    tag: Tag,
    letter: DeadLetter,
}

impl Deref for Held {
    type Target = DeadLetter;

    fn deref(&self) -> &DeadLetter {
        &self.letter
    }
}

impl From<Taken> for Held {
    fn from(Taken { tag, content, .. }: Taken) -> Self {
        Self { tag, letter: content.into() }
    }
}

/// Why a dead letter was not sent again. It stays in the queue.
#[derive(Debug, Error)]
#[non_exhaustive]
pub enum ReplayError {
    /// There lie bytes that are no message: they can only be discarded.
    #[error("these bytes are no message that could be sent again; look at them, then discard them")]
    NoMessage,
    /// The broker did not take it.
    #[error(transparent)]
    Publish(#[from] PublishError),
    /// It was sent again, and could not be taken out of the dead-letter queue.
    #[error("sent again, but it is still in the dead-letter queue: {0}")]
    StillThere(#[source] BrokerError),
}

/// A dead-letter queue whose messages are taken, oldest first, to be replayed or discarded.
///
/// Of what was taken only the tag is kept, so that a queue of any length can be gone through; on RabbitMQ as long as no
/// more than 65,535 are held that are neither replayed nor discarded.
///
/// A quorum queue counts how often a message was given back, and drops it beyond its `delivery-limit`. So what was
/// given back before is not given back again: [`close`](Self::close) publishes a copy of it and acknowledges it. Up to
/// 64 MiB of such messages are held.
#[derive(Debug)]
pub struct DeadLetterQueue {
    config: BrokerConfig,
    queue: String,
    max_age: Option<Duration>,
    consumer: Arc<dyn Consumer>,
    patience: Duration,
    held: Mutex<HeldMessages>,
}

#[derive(Debug)]
struct HeldMessages {
    tags: Vec<Tag>,
    /// Those that a quorum queue has counted, as they are to be published in place of being given back.
    counted: BTreeMap<Tag, Outgoing>,
    counted_bytes: usize,
    last_sign: Instant,
    last_leases: Instant,
}

impl HeldMessages {
    fn insert(&mut self, taken: &Taken, route: &Arc<Route>, max_age: Option<Duration>) {
        self.tags.push(taken.tag);
        let Content::Message(incoming) = &taken.content else { return };
        if follow::was_counted(incoming) {
            self.counted_bytes += incoming.body.len();
            let message = follow::put_back(incoming, max_age, SystemTime::now());
            self.counted.insert(taken.tag, Outgoing { route: Arc::clone(route), message });
        }
    }

    fn remove(&mut self, tag: Tag) {
        // Mostly one of the last that were taken.
        if let Some(place) = self.tags.iter().rposition(|held| *held == tag) {
            self.tags.remove(place);
        }
        if let Some(copy) = self.counted.remove(&tag) {
            self.counted_bytes -= copy.message.body.len();
        }
    }
}

impl DeadLetterQueue {
    /// Opens a queue, which must be there (on RabbitMQ; elsewhere one that is
    /// not there is empty). `patience` is what connecting and each request may take.
    ///
    /// # Errors
    ///
    /// What the last of the configuration's URLs said.
    pub async fn open(config: &BrokerConfig, queue: &str, patience: Duration) -> Result<Self, BrokerError> {
        let subscription = Subscription {
            queues: vec![Queue { declare: false, exchange: None, ..Queue::direct(queue) }],
            worker: format!("dead-{}", Uuid::new_v4().simple()),
            generation: 1,
            held: Vec::new(),
            prefetch: BATCH,
        };
        let consumer =
            broker::first(config, patience, |url| broker::consume(config, url, subscription.clone())).await?;
        let now = Instant::now();
        let held = Mutex::new(HeldMessages {
            tags: Vec::new(),
            counted: BTreeMap::new(),
            counted_bytes: 0,
            last_sign: now,
            last_leases: now,
        });
        Ok(Self { config: config.clone(), queue: queue.to_owned(), max_age: None, consumer, patience, held })
    }

    /// For how long the queue keeps a message (`x-message-ttl`): one that is published again is kept no longer for it.
    #[must_use]
    pub fn max_age(mut self, max_age: Option<Duration>) -> Self {
        self.max_age = max_age;
        self
    }

    /// Takes up to `limit` more messages; none: no more came, or as many are held as may be. Whatever was
    /// taken is held until it is replayed, discarded or the queue is closed, also when the returned values are dropped.
    ///
    /// # Errors
    ///
    /// When the connection is lost, or the broker does not answer in time. All that was taken then goes back.
    pub async fn take(&self, limit: usize) -> Result<Vec<Held>, BrokerError> {
        let mut found: Vec<Held> = Vec::new();
        let most = if self.consumer.keeps_over_reconnect() { usize::MAX } else { MOST_HELD };
        let limit = limit.min(most.saturating_sub(self.held().tags.len()));
        let route = straight_to(&self.queue);
        while found.len() < limit && self.held().counted_bytes < MOST_COUNTED {
            // Everything is held until the end, and the broker would push no more than it was asked for.
            let prefetch = (self.held().tags.len() + BATCH).min(MOST_HELD);
            in_time(self.patience, self.consumer.prefetch(prefetch)).await?;
            let mut taking = self.consumer.take(&[], (limit - found.len()).min(BATCH));
            let (taken, is_last) = tokio::select! {
                biased;
                // None at once, after an earlier quiet spell.
                taken = &mut taking => { let taken = taken?; let is_last = taken.is_empty(); (taken, is_last) }
                () = sleep(QUIET) => {
                    self.consumer.interrupt();
                    (in_time(self.patience, taking).await?, true)
                }
            };
            taken.iter().for_each(|taken| self.held().insert(taken, &route, self.max_age));
            found.extend(taken.into_iter().map(Held::from));
            self.renew().await?;
            if is_last {
                break;
            }
        }
        Ok(found)
    }

    /// Says that we are still here, so that nobody takes what we hold; does nothing if that was said just now. To be
    /// called every [`HEARTBEAT`] while people think.
    ///
    /// # Errors
    ///
    /// When the connection is lost.
    pub async fn renew(&self) -> Result<(), BrokerError> {
        let tags = {
            let mut held = self.held();
            if held.last_sign.elapsed() < HEARTBEAT {
                return Ok(());
            }
            held.last_sign = Instant::now();
            // A sign of life keeps what is held from our own workers; the leases, from Celery's.
            if held.last_leases.elapsed() < LEASES {
                Vec::new()
            } else {
                held.last_leases = held.last_sign;
                held.tags.clone()
            }
        };
        in_time(self.patience, self.consumer.renew(&tags)).await
    }

    /// Sends a message again, to the queue that it came from, for the receivers
    /// that it was dead-lettered for; then takes it out of this queue. At worst it is
    /// in both, under one id. Returns the queue's name.
    ///
    /// # Errors
    ///
    /// [`ReplayError`].
    pub async fn replay(&self, publisher: &Publisher, letter: &Held) -> Result<String, ReplayError> {
        let incoming = letter.incoming().ok_or(ReplayError::NoMessage)?;
        if &*incoming.properties.content_type == "application/octet-stream" {
            return Err(ReplayError::NoMessage);
        }
        let (queue, message) = follow::replayed(incoming, SystemTime::now());
        publisher.send(Outgoing { route: straight_to(&queue), message }, Some(self.patience))?.await?;
        self.settle(letter).await.map_err(ReplayError::StillThere)?;
        Ok(queue)
    }

    /// Discards a message: it is gone.
    ///
    /// # Errors
    ///
    /// When the connection is lost: it may be there still.
    pub async fn discard(&self, letter: &Held) -> Result<(), BrokerError> {
        self.settle(letter).await
    }

    /// Puts everything back that was neither replayed nor discarded, in its order; on a quorum queue, what was given
    /// back before goes to the end.
    pub async fn close(self) {
        if let Err(error) = self.put_back_counted().await {
            tracing::warn!(%error, queue = self.queue, "dead letters are given back, which counts as a delivery");
        }
        let _ = timeout(self.patience, self.consumer.close()).await;
    }

    /// Publishes copies of what may not be given back, then acknowledges it: at worst both are there, under one id.
    async fn put_back_counted(&self) -> Result<(), BrokerError> {
        // What was pushed and not yet taken would be given back too.
        let route = straight_to(&self.queue);
        let pushed = in_time(self.patience, self.consumer.pause()).await?;
        pushed.iter().for_each(|taken| self.held().insert(taken, &route, self.max_age));
        let counted = std::mem::take(&mut self.held().counted);
        if counted.is_empty() {
            return Ok(());
        }
        let (tags, copies): (Vec<Tag>, Vec<Outgoing>) = counted.into_iter().unzip();
        let broker = broker::first(&self.config, self.patience, |url| broker::connect(&self.config, url)).await?;
        for (tags, copies) in tags.chunks(broker.batch()).zip(copies.chunks(broker.batch())) {
            let published = in_time(self.patience, async { Ok(broker.publish(copies).await) }).await?;
            let (mut safe, mut failed) = (Vec::new(), Ok(()));
            for (tag, published) in tags.iter().zip(published) {
                match published {
                    Ok(()) => safe.push(*tag),
                    Err(error) => failed = Err(error),
                }
            }
            in_time(self.patience, self.consumer.acknowledge(&safe)).await?;
            failed?;
            self.renew().await?;
        }
        in_time(self.patience, self.consumer.flush()).await?;
        let _ = timeout(self.patience, broker.close()).await;
        Ok(())
    }

    async fn settle(&self, letter: &Held) -> Result<(), BrokerError> {
        in_time(self.patience, self.consumer.acknowledge(&[letter.tag])).await?;
        self.held().remove(letter.tag);
        // What was settled is settled; whoever goes on will hear of it.
        if let Err(error) = self.renew().await {
            tracing::warn!(%error, "cannot say that dead letters are still looked at");
        }
        Ok(())
    }

    fn held(&self) -> std::sync::MutexGuard<'_, HeldMessages> {
        self.held.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// The route to a queue that is there.
fn straight_to(queue: &str) -> Arc<Route> {
    Arc::new(Route { exchange: String::new(), routing_key: queue.to_owned(), declare: Vec::new() })
}
