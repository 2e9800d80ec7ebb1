//! Looking at RabbitMQ's queues: a passive `queue.declare`, which answers with its counts.
//!
//! AMQP shows a message to nobody but who takes it, and marks it as delivered before when it goes back.

use std::{fmt, sync::Arc};

use futures_util::future::{BoxFuture, FutureExt};
use lapin::{Channel, Connection, options::QueueDeclareOptions, types::FieldTable};
use tokio::sync::Mutex;

use super::{
    error::{self, code},
    headers::short,
    line::Cord,
    open,
};
use crate::broker::{
    BrokerConfig, BrokerError, BrokerUrl,
    browse::{Browser, Depth, Page, Position},
};

/// One connection to RabbitMQ that looks at its queues.
pub(in super::super) struct RabbitMqBrowser {
    connection: Connection,
    url: Arc<str>,
    /// The broker closes it when it is asked for a queue that is not there. Taken out while in use.
    channel: Mutex<Option<Channel>>,
    /// Ends lapin's thread with this browser.
    _cord: Cord,
}

impl RabbitMqBrowser {
    pub(in super::super) async fn connect(config: &BrokerConfig, url: &BrokerUrl) -> Result<Self, BrokerError> {
        let (connection, cord) = open(config, url, "async-signals looks at queues").await?;
        Ok(Self { connection, url: url.to_string().into(), channel: Mutex::new(None), _cord: cord })
    }

    async fn counted(&self, queue: &str) -> Result<Option<Depth>, BrokerError> {
        let name = short("queue", queue)?;
        let mut place = self.channel.lock().await;
        let channel = match place.take() {
            Some(channel) if channel.status().connected() => channel,
            _ => self.connection.create_channel().await.map_err(|error| error::lost(&self.url, error))?,
        };
        let passive = QueueDeclareOptions { passive: true, ..QueueDeclareOptions::default() };
        match channel.queue_declare(name, passive, FieldTable::default()).await {
            Ok(told) => {
                *place = Some(channel);
                let (ready, consumers) = (told.message_count().into(), told.consumer_count().into());
                Ok(Some(Depth { ready, in_flight: None, consumers: Some(consumers), oldest: None }))
            }
            Err(error) => match error::refusal(&error) {
                Some(refusal) if refusal.get_id() == code::NOT_FOUND => Ok(None),
                Some(refusal) => Err(error::refused(refusal)),
                None => Err(error::lost(&self.url, error)),
            },
        }
    }
}

impl Browser for RabbitMqBrowser {
    fn depth<'a>(&'a self, queue: &'a str) -> BoxFuture<'a, Result<Option<Depth>, BrokerError>> {
        self.counted(queue).boxed()
    }

    fn page<'a>(
        &'a self,
        _queue: &'a str,
        _from: Position,
        _limit: usize,
    ) -> BoxFuture<'a, Result<Option<Page>, BrokerError>> {
        std::future::ready(Ok(None)).boxed()
    }
}

impl fmt::Debug for RabbitMqBrowser {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("RabbitMqBrowser").field("url", &self.url).finish_non_exhaustive()
    }
}
