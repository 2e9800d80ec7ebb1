//! Looking at queues. Nothing is taken, so nothing is delivered again because somebody looked.

use std::{fmt, sync::Arc};

use futures_util::future::BoxFuture;

use super::{BrokerConfig, BrokerError, BrokerUrl, Content, Scheme, memory};
use crate::follow::Ours;

/// What a broker tells of a queue.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
#[non_exhaustive]
pub struct Depth {
    /// How many messages wait to be taken.
    pub ready: u64,
    /// How many were taken and are not acknowledged; `None` where the broker does not tell it of one queue.
    pub in_flight: Option<u64>,
    /// How many consumers read it; `None` where the broker does not know its readers.
    pub consumers: Option<u64>,
    /// When the message that comes next was sent, in seconds since 1970; `None` where it cannot be looked at, or does
    /// not say.
    pub oldest: Option<f64>,
}

/// A place in a queue, from which a [`Browser::page`] goes on. The default is the queue's oldest message.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Position(pub(super) u64);

impl Position {
    /// The position as a number, for whoever keeps it outside of this process.
    pub fn to_number(self) -> u64 {
        self.0
    }

    /// The position that [`Position::to_number`] told.
    pub fn from_number(number: u64) -> Self {
        Self(number)
    }
}

/// Some messages of a queue, in the order in which they would be taken.
#[derive(Clone, Debug, Default)]
pub struct Page {
    /// The messages.
    pub messages: Vec<Content>,
    /// Where the next page begins; `None`: this was the last one.
    pub next: Option<Position>,
}

/// One live connection that looks at queues.
///
/// Dropping a future half-way does no harm. Like a [`Broker`](super::Broker) it never reconnects by itself.
pub trait Browser: fmt::Debug + Send + Sync {
    /// What the broker tells of a queue; `None`: there is no such queue. Where queues are made by their first message
    /// (Redis), one that is not there is an empty one.
    fn depth<'a>(&'a self, queue: &'a str) -> BoxFuture<'a, Result<Option<Depth>, BrokerError>>;

    /// Up to `limit` messages from a position on; `None`: this broker shows a message to nobody but a consumer
    /// (RabbitMQ).
    ///
    /// While others take and publish, a message may be seen twice or not at all.
    fn page<'a>(
        &'a self,
        queue: &'a str,
        from: Position,
        limit: usize,
    ) -> BoxFuture<'a, Result<Option<Page>, BrokerError>>;
}

/// Connects to one of the configuration's URLs to look at its queues, without a time limit of its own.
///
/// # Errors
///
/// As [`connect`](super::connect).
#[cfg_attr(
    not(any(feature = "rabbitmq", feature = "redis", feature = "sqlite")),
    allow(unused_variables, reason = "memory has nothing to configure")
)]
pub async fn browse(config: &BrokerConfig, url: &BrokerUrl) -> Result<Arc<dyn Browser>, BrokerError> {
    match url.scheme() {
        #[cfg(feature = "rabbitmq")]
        Scheme::Amqp | Scheme::Amqps => Ok(Arc::new(super::rabbitmq::RabbitMqBrowser::connect(config, url).await?)),
        #[cfg(feature = "redis")]
        Scheme::Redis | Scheme::Rediss => Ok(Arc::new(super::redis::RedisBrowser::connect(config, url).await?)),
        #[cfg(feature = "sqlite")]
        Scheme::Sqlite => Ok(Arc::new(super::sqlite::SqliteBrowser::connect(config, url).await?)),
        Scheme::Memory => Ok(Arc::new(memory::Memory::connect(url))),
        #[allow(unreachable_patterns, reason = "reached when a feature is off")]
        _ => Err(BrokerError::Unsupported { scheme: url.scheme_name().to_owned() }),
    }
}

/// When a message was sent, if it says so.
#[cfg_attr(not(any(feature = "redis", feature = "sqlite")), allow(dead_code, reason = "others do not show messages"))]
pub(super) fn sent_at(content: &Content) -> Option<f64> {
    match content {
        Content::Message(incoming) => Ours::received(&incoming.headers).sent_at,
        Content::Malformed { .. } => None,
    }
}
