//! Taking messages from RabbitMQ.
//!
//! One connection, one channel, a consumer for each queue. The broker pushes
//! ahead up to the prefetch, which is each consumer's own (`basic.qos` with
//! `global` off): the only kind that quorum queues know. What is held goes
//! back by itself when the channel closes, whoever closes it, so there is
//! nothing to renew and nothing that outlives the connection.

use std::{
    fmt, iter,
    sync::{
        Arc, Mutex, MutexGuard, PoisonError,
        atomic::{AtomicU32, Ordering},
    },
    task::Poll,
    time::Duration,
};

use futures_util::{
    StreamExt,
    future::{BoxFuture, FutureExt},
};
use lapin::{
    Channel, Connection, Event,
    options::{BasicAckOptions, BasicCancelOptions, BasicConsumeOptions, BasicNackOptions, BasicQosOptions},
    types::{FieldTable, ShortString},
};
use tokio::{sync::watch, task::JoinSet};

use super::{
    super::{BrokerConfig, BrokerError, BrokerUrl, Consumer, Content, Subscription, Tag, Taken},
    declare::Declarations,
    deliveries::{Cancelled, Deliveries, Pushed},
    error,
    headers::short,
    incoming::incoming,
    line::Cord,
    open,
    unsettled::{Settlement, Unsettled},
};
use crate::message::{Queue, Route};

/// How long the broker is given to answer a goodbye.
const GOODBYE: Duration = Duration::from_secs(1);

/// How long a channel that closed is given to say why.
const LAST_WORDS: Duration = Duration::from_millis(250);

/// One connection to RabbitMQ that takes messages.
pub(in super::super) struct RabbitMqConsumer {
    channel: Channel,
    connection: Connection,
    url: Arc<str>,
    queues: Vec<ShortString>,
    generation: u32,
    tags: ConsumerTags,
    /// Those of them that are still there when nobody consumes them.
    lasting: Vec<Arc<str>>,
    /// How far each consumer is pushed ahead; 0 while nothing is to be pushed. Held while that changes.
    prefetch: tokio::sync::Mutex<u16>,
    deliveries: Mutex<Deliveries>,
    unsettled: Mutex<Unsettled>,
    /// Why the channel or the connection closed, once it has.
    broken: watch::Receiver<Option<String>>,
    /// Listens for that.
    _listening: JoinSet<()>,
    /// Ends lapin's thread with this consumer.
    _cord: Cord,
}

impl RabbitMqConsumer {
    pub(in super::super) async fn connect(
        config: &BrokerConfig,
        url: &BrokerUrl,
        subscription: Subscription,
    ) -> Result<Self, BrokerError> {
        let (connection, cord) = open(config, url, &format!("async-signals worker {}", subscription.worker)).await?;
        let (listening, broken) = listen(&connection);
        let url: Arc<str> = url.to_string().into();
        let Subscription { queues, worker, generation, prefetch, .. } = subscription;
        let route = Route { declare: queues, ..Route::default() };
        Declarations::default().ensure(&connection, &url, &route).await?;

        let channel = connection.create_channel().await.map_err(|error| error::lost(&url, error))?;
        let tags = ConsumerTags { prefix: format!("async-signals.{worker}.{generation}"), next: AtomicU32::new(1) };
        let prefetch = window(prefetch);
        limit(&channel, prefetch).await.map_err(|error| error::lost(&url, error))?;
        let mut consumers: Vec<(Arc<str>, lapin::Consumer)> = Vec::with_capacity(route.declare.len());
        for queue in &route.declare {
            if consumers.iter().any(|(name, _)| **name == *queue.name) {
                continue;
            }
            let name = short("queue", queue.name.as_str())?;
            let consumer = consume(&channel, name, tags.fresh()?).await;
            let consumer = consumer.map_err(|error| error::consuming(&url, &queue.name, &error))?;
            consumers.push((queue.name.as_str().into(), consumer));
        }
        let goes = |queue: &Queue| queue.auto_delete || queue.arguments.contains_key("x-expires");
        let lasting = route.declare.iter().filter(|queue| !goes(queue)).map(|queue| queue.name.as_str().into());
        Ok(Self {
            lasting: lasting.collect(),
            channel,
            connection,
            url,
            queues: consumers.iter().map(|(_, consumer)| consumer.queue()).collect(),
            generation,
            tags,
            prefetch: tokio::sync::Mutex::new(prefetch),
            deliveries: Mutex::new(Deliveries::new(consumers)),
            unsettled: Mutex::default(),
            broken,
            _listening: listening,
            _cord: cord,
        })
    }

    async fn take_some(&self, done: &[Tag], limit: usize) -> Result<Vec<Taken>, BrokerError> {
        self.settle(done, Verdict::Done).await?;
        let mut broken = self.broken.clone();
        let deliveries = tokio::select! {
            biased;
            // What lies ready on a channel that has closed is back in its queue.
            Ok(reason) = broken.wait_for(Option::is_some) => {
                return Err(error::lost(&self.url, reason.as_deref().unwrap_or_default()));
            }
            deliveries = std::future::poll_fn(|context| self.deliveries().poll_take(context, limit)) => deliveries,
        };
        let deliveries = match deliveries {
            Ok(deliveries) => deliveries,
            Err(Cancelled(queue)) => return Err(self.cancelled(&queue).await),
        };
        Ok(self.taken(deliveries))
    }

    fn taken(&self, deliveries: Vec<Pushed>) -> Vec<Taken> {
        let mut unsettled = self.unsettled();
        let taken = deliveries.into_iter().map(|Pushed { queue, delivery }| {
            unsettled.see(delivery.delivery_tag);
            Taken {
                tag: Tag { generation: self.generation, number: delivery.delivery_tag },
                queue,
                redelivered: delivery.redelivered,
                content: Content::Message(Box::new(incoming(delivery))),
            }
        });
        taken.collect()
    }

    /// Ends the consumers of all queues that stay without one. The answer comes after all that was pushed.
    async fn stop_for_now(&self) -> Result<Vec<Taken>, BrokerError> {
        let mut prefetch = self.prefetch.lock().await;
        if self.deliveries().interrupted() {
            return Ok(Vec::new());
        }
        let tags = self.deliveries().pause(&self.lasting);
        // The next one, whichever it is, needs new consumers.
        *prefetch = 0;
        for tag in tags {
            if let Err(error) = self.channel.basic_cancel(tag, BasicCancelOptions::default()).await {
                return Err(self.lost(&error).await);
            }
        }
        let ready = std::future::poll_fn(|context| Poll::Ready(self.deliveries().ready(context, usize::MAX))).await;
        match ready {
            Ok(deliveries) => Ok(self.taken(deliveries)),
            Err(Cancelled(queue)) => Err(self.cancelled(&queue).await),
        }
    }

    /// Tells the broker what became of messages. Nothing is waited for: AMQP
    /// has no answer to it, and what cannot be told closes the channel.
    async fn settle(&self, tags: &[Tag], verdict: Verdict) -> Result<(), BrokerError> {
        let ours = tags.iter().filter(|tag| tag.generation == self.generation).map(|tag| tag.number);
        let Settlement { up_to, singles } = self.unsettled().settle(ours);
        let up_to = up_to.into_iter().zip(iter::repeat(true));
        for (tag, multiple) in up_to.chain(singles.into_iter().zip(iter::repeat(false))) {
            // lapin queues the frame when this is first polled, and waits for the socket only then.
            let told = match verdict {
                Verdict::Done => self.channel.basic_ack(tag, BasicAckOptions { multiple }).now_or_never(),
                Verdict::Back | Verdict::Rejected => {
                    let requeue = verdict == Verdict::Back;
                    self.channel.basic_nack(tag, BasicNackOptions { multiple, requeue }).now_or_never()
                }
            };
            if let Some(Err(error)) = told {
                return Err(self.lost(&error).await);
            }
        }
        Ok(())
    }

    async fn set_prefetch(&self, count: usize) -> Result<(), BrokerError> {
        let mut prefetch = self.prefetch.lock().await;
        let count = window(count);
        if *prefetch != count && !self.deliveries().interrupted() {
            if let Err(error) = self.consume_anew(count).await? {
                return Err(self.lost(&error).await);
            }
            *prefetch = count;
        }
        Ok(())
    }

    /// A prefetch holds for the consumers that come after it: each queue gets
    /// a new one, and only then loses its old one, so that a queue which goes
    /// with its last consumer stays.
    async fn consume_anew(&self, prefetch: u16) -> Result<lapin::Result<()>, BrokerError> {
        let tags: Vec<_> = self.queues.iter().map(|_| self.tags.fresh()).collect::<Result<_, _>>()?;
        let consume_anew = async {
            limit(&self.channel, prefetch).await?;
            for (queue, tag) in self.queues.iter().zip(tags) {
                self.deliveries().expect(queue.as_str());
                let consumer = consume(&self.channel, queue.clone(), tag).await?;
                let old = self.deliveries().replace(queue.as_str(), consumer);
                for tag in old {
                    self.channel.basic_cancel(tag, BasicCancelOptions::default()).await?;
                }
            }
            Ok(())
        };
        Ok(consume_anew.await)
    }

    fn stop_pushing(&self) {
        let consumers = self.deliveries().interrupt();
        for tag in consumers {
            // The answer ends the consumer's stream; what was pushed until then is in it.
            let _ = self.channel.basic_cancel(tag, BasicCancelOptions::default()).now_or_never();
        }
    }

    /// The broker has ended a consumer, or the channel with all of them.
    async fn cancelled(&self, queue: &str) -> BrokerError {
        if !self.channel.status().connected() {
            return self.closed("the channel is closed").await;
        }
        error::lost(
            &self.url,
            format_args!("the broker has cancelled the consumer of queue '{queue}'; was it deleted?"),
        )
    }

    /// What lapin could not do, in the broker's words where it has said any.
    async fn lost(&self, error: &lapin::Error) -> BrokerError {
        if self.channel.status().connected() {
            return error::lost(&self.url, error);
        }
        self.closed(error).await
    }

    async fn closed(&self, otherwise: impl ToString) -> BrokerError {
        let mut broken = self.broken.clone();
        let told = tokio::time::timeout(LAST_WORDS, broken.wait_for(Option::is_some)).await;
        match told.ok().and_then(Result::ok).and_then(|reason| reason.clone()) {
            Some(reason) => error::lost(&self.url, reason),
            None => error::lost(&self.url, otherwise),
        }
    }

    fn deliveries(&self) -> MutexGuard<'_, Deliveries> {
        self.deliveries.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn unsettled(&self) -> MutexGuard<'_, Unsettled> {
        self.unsettled.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Consumer for RabbitMqConsumer {
    fn take<'a>(&'a self, done: &'a [Tag], limit: usize) -> BoxFuture<'a, Result<Vec<Taken>, BrokerError>> {
        self.take_some(done, limit).boxed()
    }

    fn acknowledge<'a>(&'a self, tags: &'a [Tag]) -> BoxFuture<'a, Result<(), BrokerError>> {
        self.settle(tags, Verdict::Done).boxed()
    }

    fn give_back<'a>(&'a self, tags: &'a [Tag]) -> BoxFuture<'a, Result<(), BrokerError>> {
        self.settle(tags, Verdict::Back).boxed()
    }

    fn reject<'a>(&'a self, tags: &'a [Tag]) -> BoxFuture<'a, Result<(), BrokerError>> {
        self.settle(tags, Verdict::Rejected).boxed()
    }

    fn keeps_over_reconnect(&self) -> bool {
        false
    }

    /// There are no leases: the connection is the sign of life.
    fn renew<'a>(&'a self, _held: &'a [Tag]) -> BoxFuture<'a, Result<(), BrokerError>> {
        async {
            if self.channel.status().connected() { Ok(()) } else { Err(self.closed("the channel is closed").await) }
        }
        .boxed()
    }

    /// AMQP confirms no acknowledgement, but answers in order: this asks for what holds already.
    fn flush(&self) -> BoxFuture<'_, Result<(), BrokerError>> {
        async {
            let prefetch = self.prefetch.lock().await;
            match limit(&self.channel, (*prefetch).max(1)).await {
                Ok(()) => Ok(()),
                Err(error) => Err(self.lost(&error).await),
            }
        }
        .boxed()
    }

    fn pause(&self) -> BoxFuture<'_, Result<Vec<Taken>, BrokerError>> {
        self.stop_for_now().boxed()
    }

    fn prefetch(&self, count: usize) -> BoxFuture<'_, Result<(), BrokerError>> {
        self.set_prefetch(count).boxed()
    }

    fn interrupt(&self) {
        self.stop_pushing();
    }

    fn close(&self) -> BoxFuture<'_, ()> {
        async {
            self.stop_pushing();
            // What is not settled goes back with the channel. The broker has read
            // every acknowledgement by the time it answers.
            let goodbye = async {
                let _ = self.channel.close(200, "OK".into()).await;
                let _ = self.connection.close(200, "OK".into()).await;
            };
            let _ = tokio::time::timeout(GOODBYE, goodbye).await;
        }
        .boxed()
    }
}

impl fmt::Debug for RabbitMqConsumer {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("RabbitMqConsumer")
            .field("url", &self.url)
            .field("queues", &self.queues)
            .field("generation", &self.generation)
            .finish_non_exhaustive()
    }
}

/// What became of a message.
#[derive(Clone, Copy, Debug, PartialEq)]
enum Verdict {
    Done,
    Rejected,
    Back,
}

/// Names for consumers: the broker's list of them tells whose each one is.
#[derive(Debug)]
struct ConsumerTags {
    prefix: String,
    next: AtomicU32,
}

impl ConsumerTags {
    fn fresh(&self) -> Result<ShortString, BrokerError> {
        let number = self.next.fetch_add(1, Ordering::Relaxed);
        short("consumer tag", format!("{}.{number}", self.prefix))
    }
}

/// A prefetch in AMQP's terms, where 0 would mean no bound at all.
fn window(count: usize) -> u16 {
    u16::try_from(count).unwrap_or(u16::MAX).max(1)
}

/// Bounds how far consumers from now on are pushed ahead.
async fn limit(channel: &Channel, count: u16) -> lapin::Result<()> {
    channel.basic_qos(count, BasicQosOptions { global: false }).await
}

async fn consume(channel: &Channel, queue: ShortString, tag: ShortString) -> lapin::Result<lapin::Consumer> {
    channel.basic_consume(queue, tag, BasicConsumeOptions::default(), FieldTable::default()).await
}

/// Listens for whatever ends the channel or the connection.
fn listen(connection: &Connection) -> (JoinSet<()>, watch::Receiver<Option<String>>) {
    let mut events = connection.events_listener().boxed();
    let (broken, is_broken) = watch::channel(None);
    let mut listening = JoinSet::new();
    listening.spawn(async move {
        while let Some(event) = events.next().await {
            if let Event::Error(error) = event {
                // What comes after it follows from it.
                broken.send_if_modified(|reason| {
                    let first = reason.is_none();
                    reason.get_or_insert_with(|| error::words(&error));
                    first
                });
            }
        }
    });
    (listening, is_broken)
}
