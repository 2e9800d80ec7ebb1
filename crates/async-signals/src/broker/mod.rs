//! Brokers, behind three small traits: what publishes, what takes, and what only looks.
//!
//! A [`Broker`] is one live connection that moves bytes and knows no signal; a [`Consumer`] is the other half, and a
//! [`Browser`] takes nothing.
//! It never reconnects by itself: when a publish says
//! [`BrokerError::is_disconnect`], the [publisher](crate::publisher) drops it
//! and connects anew, to the next URL where there are several.

mod binding;
pub mod browse;
mod config;
mod connector;
pub mod consumer;
mod error;
pub mod memory;
#[cfg(feature = "rabbitmq")]
pub mod rabbitmq;
#[cfg(feature = "redis")]
pub mod redis;
#[cfg(feature = "sqlite")]
pub mod sqlite;
#[cfg(all(feature = "rabbitmq", feature = "rustls"))]
mod tls;
mod url;

use std::{fmt, future::Future, sync::Arc, time::Duration};

use futures_util::future::{BoxFuture, FutureExt};
use tokio::time::timeout;

pub use browse::{Browser, Depth, Page, Position, browse};
pub use config::{BrokerConfig, Tls};
pub(crate) use connector::attempt;
pub use connector::{ByScheme, Connector};
pub use consumer::{Consumer, Content, Subscription, Tag, Taken, consume};
pub use error::{BrokerError, RetryAdvice};
pub use url::{BrokerUrl, Scheme};

use crate::message::{Outgoing, TaskEvent};

/// What became of one message.
pub type Published = Result<(), BrokerError>;

/// One live connection to a broker.
pub trait Broker: fmt::Debug + Send + Sync {
    /// Publishes messages in their order and returns when the broker has said
    /// of each whether it has it: one outcome per message, in the same order.
    ///
    /// Several calls may be under way at once, up to [`Broker::pipeline`].
    /// There is no time limit here: the caller drops the future at its deadline,
    /// which must leave the connection usable.
    fn publish<'a>(&'a self, batch: &'a [Outgoing]) -> BoxFuture<'a, Vec<Published>>;

    /// Publishes events for whoever listens at the moment, as far as this broker has a way to. What cannot go now is
    /// dropped, and nobody is told.
    fn publish_events(&self, _events: Vec<TaskEvent>) -> BoxFuture<'_, ()> {
        std::future::ready(()).boxed()
    }

    /// How many [`Broker::publish`] calls are worth having under way at once.
    fn pipeline(&self) -> usize {
        2
    }

    /// How many messages are worth handing over in one call.
    fn batch(&self) -> usize {
        256
    }

    /// Why the broker takes no messages at the moment, if it has said so. What
    /// was handed over before that waits all the same, and may pass its
    /// deadline: then this tells why.
    fn blocked(&self) -> Option<BrokerError> {
        None
    }

    /// Says goodbye, as far as the broker still listens.
    fn close(&self) -> BoxFuture<'_, ()>;
}

/// Tries the configuration's URLs in their order and returns what the first one gives that answers within `patience`.
///
/// # Errors
///
/// What the last of the URLs said.
pub async fn first<'a, T, F>(
    config: &'a BrokerConfig,
    patience: Duration,
    connect: impl Fn(&'a BrokerUrl) -> F,
) -> Result<T, BrokerError>
where
    F: Future<Output = Result<T, BrokerError>>,
{
    let mut last = BrokerError::InvalidUrl { reason: "no URL is given; set broker_url".to_owned() };
    for url in &config.urls {
        match timeout(patience, connect(url)).await {
            Ok(Ok(connected)) => return Ok(connected),
            Ok(Err(error)) => last = error,
            Err(_) => {
                let reason = format!("no answer in {patience:?}");
                last = BrokerError::Connect { url: url.to_string(), reason };
            }
        }
    }
    Err(last)
}

/// What a request says within `patience`.
///
/// # Errors
///
/// What the request failed with; [`BrokerError::Disconnected`] if it takes longer.
pub async fn in_time<T>(
    patience: Duration,
    request: impl Future<Output = Result<T, BrokerError>>,
) -> Result<T, BrokerError> {
    timeout(patience, request).await.unwrap_or_else(|_| {
        let reason = format!("no answer in {patience:?}");
        Err(BrokerError::Disconnected { url: "the broker".to_owned(), reason })
    })
}

/// Connects to one of the configuration's URLs, without a time limit of its own.
///
/// # Errors
///
/// Whatever [`BrokerError`] says of an address that cannot be reached, a name
/// or password that is wrong, or a scheme whose feature is not compiled in.
#[cfg_attr(
    not(any(feature = "rabbitmq", feature = "redis", feature = "sqlite")),
    allow(unused_variables, reason = "memory has nothing to configure")
)]
pub async fn connect(config: &BrokerConfig, url: &BrokerUrl) -> Result<Arc<dyn Broker>, BrokerError> {
    match url.scheme() {
        #[cfg(feature = "rabbitmq")]
        Scheme::Amqp | Scheme::Amqps => Ok(Arc::new(rabbitmq::RabbitMq::connect(config, url).await?)),
        #[cfg(feature = "redis")]
        Scheme::Redis | Scheme::Rediss => Ok(Arc::new(redis::Redis::connect(config, url).await?)),
        #[cfg(feature = "sqlite")]
        Scheme::Sqlite => Ok(Arc::new(sqlite::Sqlite::connect(config, url).await?)),
        Scheme::Memory => Ok(Arc::new(memory::Memory::connect(url))),
        #[allow(unreachable_patterns, reason = "reached when a feature is off")]
        _ => Err(BrokerError::Unsupported { scheme: url.scheme_name().to_owned() }),
    }
}
