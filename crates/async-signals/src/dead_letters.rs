//! Looking into a dead-letter queue, sending its messages again, and throwing them away.
//!
//! The letters are taken as a worker takes messages, and whatever is not
//! settled goes back when the queue is [closed](DeadLetterQueue::close), or
//! when this process dies. So two people who look at once each see a part.

use std::{sync::Arc, time::Duration};

use serde_json::{Map, Value};
use thiserror::Error;
use tokio::time::{sleep, timeout};
use uuid::Uuid;

use crate::{
    broker::{self, BrokerConfig, BrokerError, Consumer, Content, Subscription, Tag, Taken},
    follow::{self, Ours},
    message::{Incoming, Outgoing, Queue, Route},
    publisher::{PublishError, Publisher},
};

/// When nothing has come for so long, that was all.
const QUIET: Duration = Duration::from_millis(300);
/// Most letters of one round trip.
const BATCH: usize = 256;

/// One message that was parked.
#[derive(Debug)]
pub struct Letter {
    tag: Tag,
    content: Content,
}

impl Letter {
    /// The message; `None` if there lie bytes that are none.
    pub fn incoming(&self) -> Option<&Incoming> {
        match &self.content {
            Content::Message(incoming) => Some(incoming),
            Content::Malformed { .. } => None,
        }
    }

    /// The task's id, or nothing where it has none.
    pub fn id(&self) -> &str {
        let header = self.incoming().and_then(|incoming| incoming.headers.get("id"));
        header.and_then(Value::as_str).unwrap_or_default()
    }

    /// The signal's wire name, as far as the body tells; of another task, its name.
    pub fn signal(&self) -> Option<String> {
        let incoming = self.incoming()?;
        let task = incoming.headers.get("task").and_then(Value::as_str);
        if task.is_some_and(|task| task != crate::protocol::celery::TASK) {
            return task.map(str::to_owned);
        }
        let body: Value = serde_json::from_slice(&incoming.body).ok()?;
        Some(body.get(0)?.get(0)?.as_str()?.to_owned())
    }

    /// Why it was parked: `kind`, `reason`, `queue`, `at`, and `failures` of
    /// receivers, as [`follow`] writes them. Empty if nobody said.
    pub fn parked(&self) -> Map<String, Value> {
        self.incoming().and_then(|incoming| Ours::of(&incoming.headers).parked).unwrap_or_default()
    }
}

/// Why a letter was not sent again. It stays in the queue.
#[derive(Debug, Error)]
#[non_exhaustive]
pub enum ReplayError {
    /// There lie bytes that are no message: they can only be thrown away.
    #[error("these bytes are no message that could be sent again; look at them, then purge them")]
    NoMessage,
    /// The broker did not take it.
    #[error(transparent)]
    Publish(#[from] PublishError),
    /// It was sent again, and could not be taken out of the dead-letter queue.
    #[error("sent again, but it is still in the dead-letter queue: {0}")]
    StillThere(#[source] BrokerError),
}

/// A dead-letter queue that somebody looks into.
#[derive(Debug)]
pub struct DeadLetterQueue {
    consumer: Arc<dyn Consumer>,
    patience: Duration,
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
        let mut last = BrokerError::InvalidUrl { reason: "no URL is given; set broker_url".to_owned() };
        for url in &config.urls {
            match timeout(patience, broker::consume(config, url, subscription.clone())).await {
                Ok(Ok(consumer)) => return Ok(Self { consumer, patience }),
                Ok(Err(error)) => last = error,
                Err(_) => {
                    let reason = format!("no answer in {patience:?}");
                    last = BrokerError::Connect { url: url.to_string(), reason };
                }
            }
        }
        Err(last)
    }

    /// Takes letters, oldest first, until there are `limit` or no more come.
    ///
    /// # Errors
    ///
    /// When the connection is lost. All that was taken then goes back.
    pub async fn letters(&self, limit: usize) -> Result<Vec<Letter>, BrokerError> {
        let mut letters: Vec<Letter> = Vec::new();
        let mut held = Vec::new();
        while letters.len() < limit {
            // Everything is held until the end, and the broker would push no more than it was asked for.
            self.consumer.prefetch((letters.len() + BATCH).min(usize::from(u16::MAX))).await?;
            let mut taking = self.consumer.take(&[], (limit - letters.len()).min(BATCH));
            let taken = tokio::select! {
                biased;
                taken = &mut taking => taken?,
                () = sleep(QUIET) => {
                    self.consumer.interrupt();
                    let last = taking.await?;
                    letters.extend(last.into_iter().map(Letter::from));
                    break;
                }
            };
            letters.extend(taken.into_iter().map(Letter::from));
            held.clear();
            held.extend(letters.iter().map(|letter| letter.tag));
            self.consumer.renew(&held).await?;
        }
        Ok(letters)
    }

    /// Says that we are still here, so that nobody takes what we hold. To be
    /// called every [`HEARTBEAT`](broker::consumer::HEARTBEAT) while people think.
    ///
    /// # Errors
    ///
    /// When the connection is lost.
    pub async fn renew(&self, letters: &[Letter]) -> Result<(), BrokerError> {
        let held: Vec<Tag> = letters.iter().map(|letter| letter.tag).collect();
        self.consumer.renew(&held).await
    }

    /// Sends a letter again, to the queue that it came from, for the receivers
    /// that it was parked for; then takes it out of this queue. At worst it is
    /// in both, under one id. Returns the queue's name.
    ///
    /// # Errors
    ///
    /// [`ReplayError`].
    pub async fn replay(&self, publisher: &Publisher, letter: &Letter) -> Result<String, ReplayError> {
        let incoming = letter.incoming().ok_or(ReplayError::NoMessage)?;
        if &*incoming.properties.content_type == "application/octet-stream" {
            return Err(ReplayError::NoMessage);
        }
        let (queue, message) = follow::replayed(incoming);
        let route = Route { exchange: String::new(), routing_key: queue.clone(), declare: Vec::new() };
        publisher.send(Outgoing { route: Arc::new(route), message }, Some(self.patience))?.await?;
        self.consumer.acknowledge(&[letter.tag]).await.map_err(ReplayError::StillThere)?;
        Ok(queue)
    }

    /// Throws letters away.
    ///
    /// # Errors
    ///
    /// When the connection is lost: some may be there still.
    pub async fn purge(&self, letters: &[Letter]) -> Result<(), BrokerError> {
        let tags: Vec<Tag> = letters.iter().map(|letter| letter.tag).collect();
        self.consumer.acknowledge(&tags).await
    }

    /// Puts everything back that was neither sent again nor thrown away, in its order.
    pub async fn close(self) {
        let _ = timeout(self.patience, self.consumer.close()).await;
    }
}

impl From<Taken> for Letter {
    fn from(Taken { tag, content, .. }: Taken) -> Self {
        Self { tag, content }
    }
}
