//! Waiting until a queue has messages, without asking again and again.
//!
//! A second connection asks for the lengths of the lists, with the server's
//! client-side caching switched on: what it has read is what it would cache,
//! so the server tells it when a list changes. Where the server does not do
//! that, the lists are looked at again after a pause.

use std::{
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
    time::Duration,
};

use redis::{AsyncConnectionConfig, Pipeline, PushInfo, PushKind, Value, aio::MultiplexedConnection};
use tokio::{
    sync::{Notify, watch},
    time::timeout,
};

use super::{address, error::Errors, routes::command};
use crate::broker::{BrokerConfig, BrokerError, BrokerUrl};

/// The pauses where the server does not tell: from this …
const SHORTEST_PAUSE: Duration = Duration::from_millis(1);
/// … doubling to this.
const LONGEST_PAUSE: Duration = Duration::from_millis(100);

/// A proxy between us and the server may swallow what it tells.
const LOOK_AGAIN: Duration = Duration::from_secs(5);

/// What ends the waiting for messages.
#[derive(Debug)]
pub(super) struct Waking {
    told: Option<Told>,
    interrupted: watch::Sender<bool>,
}

/// Why the waiting ended.
#[derive(Debug, PartialEq)]
pub(super) enum Woken {
    /// There may be messages.
    Look,
    /// Nobody is to wait any more.
    Interrupted,
}

/// A connection by which the server tells.
struct Told {
    connection: MultiplexedConnection,
    errors: Errors,
    news: Arc<News>,
}

#[derive(Debug, Default)]
struct News {
    arrived: Notify,
    /// The connection is gone.
    lost: AtomicBool,
}

impl std::fmt::Debug for Told {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Told").field("news", &self.news).finish_non_exhaustive()
    }
}

impl Waking {
    pub(super) async fn open(config: &BrokerConfig, url: &BrokerUrl) -> Result<Self, BrokerError> {
        let told = Told::open(config, url).await?;
        if told.is_none() {
            tracing::info!(broker = %url, "this server does not tell when messages arrive: its queues are polled");
        }
        Ok(Self { told, interrupted: watch::Sender::new(false) })
    }

    /// Ends the waiting, now and later.
    pub(super) fn interrupt(&self) {
        self.interrupted.send_replace(true);
    }

    /// Waits until one of the lists may have messages. `round` counts the looks in vain.
    pub(super) async fn wait(&self, lists: impl Iterator<Item = &str>, round: u32) -> Result<Woken, BrokerError> {
        let mut interrupted = self.interrupted.subscribe();
        tokio::select! {
            biased;
            // The sender is ours: it is not dropped before.
            _ = interrupted.wait_for(|interrupted| *interrupted) => Ok(Woken::Interrupted),
            arrived = self.arrival(lists, round) => arrived.map(|()| Woken::Look),
        }
    }

    async fn arrival(&self, lists: impl Iterator<Item = &str>, round: u32) -> Result<(), BrokerError> {
        match &self.told {
            Some(told) => told.arrival(lists).await,
            None => {
                let pause = SHORTEST_PAUSE.saturating_mul(2u32.saturating_pow(round)).min(LONGEST_PAUSE);
                tokio::time::sleep(pause).await;
                Ok(())
            }
        }
    }
}

impl Told {
    /// `None` if the server cannot, or will not.
    async fn open(config: &BrokerConfig, url: &BrokerUrl) -> Result<Option<Self>, BrokerError> {
        let (client, errors) = address::pushed_client(config, url)?;
        let news = Arc::new(News::default());
        let hears = Arc::clone(&news);
        let options = AsyncConnectionConfig::new().set_connection_timeout(None).set_response_timeout(None);
        let options = options.set_push_sender(move |push: PushInfo| {
            match push.kind {
                PushKind::Disconnection => hears.lost.store(true, Ordering::Release),
                PushKind::Invalidate => {}
                _ => return Ok::<(), BrokerError>(()),
            }
            hears.arrived.notify_one();
            Ok(())
        });
        let connection = match client.get_multiplexed_async_connection_with_config(&options).await {
            Ok(connection) => connection,
            Err(error) if error.is_io_error() => return Err(errors.connecting(&error)),
            // The consumer's first connection was let in, so this one is refused for what it asks.
            Err(_) => return Ok(None),
        };
        let told = Self { connection, errors, news };
        let mut track = Pipeline::new();
        track.add_command(command("CLIENT", ["TRACKING", "ON"]));
        let refused = matches!(told.send(&track).await?.as_slice(), [Value::ServerError(_)]);
        Ok((!refused).then_some(told))
    }

    async fn send(&self, pipeline: &Pipeline) -> Result<Vec<Value>, BrokerError> {
        let replies = self.connection.clone().send_packed_commands(pipeline, 0, pipeline.len()).await;
        replies.map_err(|error| self.errors.disconnected(&error))
    }

    async fn arrival(&self, lists: impl Iterator<Item = &str>) -> Result<(), BrokerError> {
        // The lengths are the last look, and the server's promise to tell of what comes after it.
        let mut lengths = Pipeline::new();
        lists.for_each(|list| {
            lengths.add_command(command("LLEN", [list]));
        });
        let lengths = self.send(&lengths).await?;
        if lengths.iter().any(|length| matches!(length, Value::ServerError(_))) {
            // No list, or no right to look: the next round says so, if that hinders it.
            tokio::time::sleep(LONGEST_PAUSE).await;
            return Ok(());
        }
        if lengths.iter().any(|length| *length != Value::Int(0)) {
            return Ok(());
        }
        let told = timeout(LOOK_AGAIN, self.news.arrived.notified()).await;
        if told.is_ok() && self.news.lost.load(Ordering::Acquire) {
            return Err(self.errors.lost());
        }
        Ok(())
    }
}
