//! The other half of a broker: taking messages, and settling what was taken.
//!
//! What is taken stays the worker's until it is settled: acknowledged, or given
//! back. A broker that keeps leases (Redis, SQLite) has them renewed while a
//! message is held, and a worker that died loses what it held to the others
//! within [`DEAD_AFTER`]; RabbitMQ sees the connection break.

use std::{fmt, sync::Arc, time::Duration};

use bytes::Bytes;
use futures_util::future::BoxFuture;

#[cfg(feature = "sqlite")]
use super::sqlite;
use super::{BrokerConfig, BrokerError, BrokerUrl, Scheme, memory};
use crate::message::{Incoming, Queue};

/// After how long without a sign of life a worker's messages go back to the others.
pub const DEAD_AFTER: Duration = Duration::from_secs(6);

/// How often a worker gives a sign of life.
pub const HEARTBEAT: Duration = Duration::from_secs(2);

/// What a worker reads, and who it is.
#[derive(Clone, Debug)]
pub struct Subscription {
    /// The queues, declared first as a stock worker would declare them.
    pub queues: Vec<Queue>,
    /// Names the worker's process for as long as it lives, over all of its
    /// connections: letters, digits and hyphens.
    pub worker: String,
    /// Counts the connections of this worker, from 1.
    pub generation: u32,
    /// What earlier connections took and the worker still holds. Whatever else
    /// stands under its name was taken by a request whose answer got lost: it
    /// goes back into its queue as if it had not been taken.
    pub held: Vec<Tag>,
    /// How many unsettled messages the broker may push ahead, where it pushes.
    pub prefetch: usize,
}

/// One message that a worker holds.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Tag {
    /// The connection that took it.
    pub generation: u32,
    /// The broker's number for it; on one connection later ones are higher,
    /// except where a table's row is meant (SQLite).
    pub number: u64,
}

/// A message that was taken.
#[derive(Clone, Debug)]
pub struct Taken {
    /// What it is settled by.
    pub tag: Tag,
    /// The queue it was taken from.
    pub queue: Arc<str>,
    /// Whether it was taken before by someone who did not settle it.
    pub redelivered: bool,
    /// The message itself.
    pub content: Content,
}

/// What lay in the queue.
#[derive(Clone, Debug)]
pub enum Content {
    /// A message.
    Message(Box<Incoming>),
    /// Bytes that are no message. They are to be parked as they are.
    Malformed {
        /// What lay there.
        raw: Bytes,
        /// What is wrong with it.
        reason: String,
    },
}

/// One live connection that takes messages. Like a [`Broker`](super::Broker)
/// it never reconnects by itself: an error that
/// [`is_disconnect`](BrokerError::is_disconnect) is its end.
pub trait Consumer: fmt::Debug + Send + Sync {
    /// Acknowledges `done`, then takes up to `limit` messages: fairly from all
    /// queues, and from each in its order. Waits without polling, or with a
    /// pause that nobody notices, until there is at least one; returns an empty
    /// list only after [`Consumer::interrupt`].
    ///
    /// One call at a time, and not to be dropped half-way: what it has taken by
    /// then would be the worker's without its knowledge until the next
    /// connection. On an error, whether `done` was acknowledged is not known;
    /// doing it twice does no harm.
    fn take<'a>(&'a self, done: &'a [Tag], limit: usize) -> BoxFuture<'a, Result<Vec<Taken>, BrokerError>>;

    /// Whether [`Consumer::take_ready`] may be asked for again before it has
    /// answered: the broker then looks for messages while earlier ones are read.
    fn overlaps(&self) -> bool {
        false
    }

    /// As [`Consumer::take`], but takes what is there and does not wait for
    /// messages. Where requests [overlap](Consumer::overlaps) they are sent when
    /// they are first polled, and carried out in that order once [`Consumer::take`]
    /// has been answered.
    fn take_ready<'a>(&'a self, done: &'a [Tag], limit: usize) -> BoxFuture<'a, Result<Vec<Taken>, BrokerError>> {
        self.take(done, limit)
    }

    /// Acknowledges messages: they are gone. Tags of an earlier connection
    /// that the broker took back with it are left alone.
    fn acknowledge<'a>(&'a self, tags: &'a [Tag]) -> BoxFuture<'a, Result<(), BrokerError>>;

    /// Gives messages back to the front of their queues, marked as delivered before.
    fn give_back<'a>(&'a self, tags: &'a [Tag]) -> BoxFuture<'a, Result<(), BrokerError>>;

    /// Drops messages that nobody is to run: gone, except where the queue has a
    /// dead-letter exchange of its own (RabbitMQ).
    fn reject<'a>(&'a self, tags: &'a [Tag]) -> BoxFuture<'a, Result<(), BrokerError>> {
        self.acknowledge(tags)
    }

    /// Gives a sign of life, renews the leases on what the worker holds, and
    /// brings back what dead workers held. To be called every [`HEARTBEAT`],
    /// with everything that is held; it does not wait for [`Consumer::take`].
    fn renew<'a>(&'a self, held: &'a [Tag]) -> BoxFuture<'a, Result<(), BrokerError>>;

    /// Waits until the broker has heard of what was settled before. Nothing
    /// happens where it answers each of these requests.
    fn flush(&self) -> BoxFuture<'_, Result<(), BrokerError>> {
        Box::pin(std::future::ready(Ok(())))
    }

    /// Has the broker push nothing more until it is told a [prefetch](Consumer::prefetch),
    /// and takes all that it has pushed. Nothing happens where `take` alone decides.
    fn pause(&self) -> BoxFuture<'_, Result<Vec<Taken>, BrokerError>> {
        Box::pin(std::future::ready(Ok(Vec::new())))
    }

    /// Changes how many unsettled messages the broker pushes ahead. Nothing
    /// happens where `take` alone decides.
    fn prefetch(&self, _count: usize) -> BoxFuture<'_, Result<(), BrokerError>> {
        Box::pin(std::future::ready(Ok(())))
    }

    /// Whether what was taken stays the worker's when this connection is lost.
    /// Where it does not (RabbitMQ), the broker gives it to whoever comes next.
    fn keeps_over_reconnect(&self) -> bool {
        true
    }

    /// Makes a waiting [`Consumer::take`], and every later one that would wait,
    /// return at once. On a broker that pushes, nothing more is pushed.
    fn interrupt(&self);

    /// Signs the worker off: what it still holds goes back into the queues. Then closes.
    fn close(&self) -> BoxFuture<'_, ()>;
}

/// Connects to one of the configuration's URLs and subscribes, without a time limit of its own.
///
/// # Errors
///
/// As [`connect`](super::connect), and what the broker says of the queues.
#[cfg_attr(
    not(any(feature = "rabbitmq", feature = "redis", feature = "sqlite")),
    allow(unused_variables, reason = "memory has nothing to configure")
)]
pub async fn consume(
    config: &BrokerConfig,
    url: &BrokerUrl,
    subscription: Subscription,
) -> Result<Arc<dyn Consumer>, BrokerError> {
    match url.scheme() {
        #[cfg(feature = "rabbitmq")]
        Scheme::Amqp | Scheme::Amqps => {
            Ok(Arc::new(super::rabbitmq::RabbitMqConsumer::connect(config, url, subscription).await?))
        }
        #[cfg(feature = "redis")]
        Scheme::Redis | Scheme::Rediss => {
            Ok(Arc::new(super::redis::RedisConsumer::connect(config, url, subscription).await?))
        }
        #[cfg(feature = "sqlite")]
        Scheme::Sqlite => Ok(Arc::new(sqlite::SqliteConsumer::subscribe(config, url, subscription).await?)),
        Scheme::Memory => Ok(Arc::new(memory::MemoryConsumer::subscribe(url, &subscription))),
        #[allow(unreachable_patterns, reason = "reached when a feature is off")]
        _ => Err(BrokerError::Unsupported { scheme: url.scheme_name().to_owned() }),
    }
}
