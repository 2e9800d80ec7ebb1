//! The task that owns the channel on which messages are published.
//!
//! One task, for three reasons. lapin numbers a message and queues its frames
//! in two steps, so two tasks on one channel could confirm each other's
//! messages. A caller that goes away must not take its confirms with it. And
//! whether a message came back can only be told by looking at all confirms
//! together (see [`ledger`](super::ledger)).

use std::{
    collections::VecDeque,
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
    task::{Context, Poll, Wake, Waker},
    time::Duration,
};

use bytes::Bytes;
use futures_util::{
    FutureExt, StreamExt,
    future::BoxFuture,
    stream::{BoxStream, FuturesUnordered},
};
use lapin::{
    BasicProperties, Channel, Confirmation, Connection, Event,
    options::{BasicPublishOptions, ConfirmSelectOptions},
    types::ShortString,
};
use tokio::sync::{mpsc, oneshot, watch};

use super::{
    super::BrokerError,
    error::lost,
    ledger::{Ledger, Mark, Place, Verdict},
    line::Cord,
};

/// How long the broker is given to answer a goodbye.
const GOODBYE: Duration = Duration::from_secs(1);

/// How many batches may wait for a channel to open, or for their turn to be
/// alone. Further ones wait where they come from.
const MOST_WAITING: usize = 64;

/// A message in AMQP's terms.
#[derive(Debug)]
pub(super) struct Parcel {
    pub(super) exchange: ShortString,
    pub(super) routing_key: ShortString,
    pub(super) properties: BasicProperties,
    pub(super) body: Bytes,
    pub(super) mark: Mark,
}

/// Messages to publish in their order.
#[derive(Debug)]
pub(super) struct Batch {
    pub(super) parcels: Vec<Parcel>,
    /// Nothing else may be in flight: what happens to the channel is then due
    /// to this batch.
    pub(super) alone: bool,
    pub(super) reply: oneshot::Sender<Vec<Verdict>>,
}

/// What the task is asked to do.
#[derive(Debug)]
pub(super) enum Request {
    Publish(Batch),
    Close(oneshot::Sender<()>),
}

type InFlight = FuturesUnordered<BoxFuture<'static, (Place, lapin::Result<Confirmation>)>>;

/// The task's own state.
pub(super) struct Publishing {
    connection: Arc<Connection>,
    events: BoxStream<'static, Event>,
    url: Arc<str>,
    /// The broker's reason while it takes no messages. Read by whoever might
    /// otherwise wait for it.
    blocked: watch::Sender<Option<String>>,
    /// What broke the connection, as far as it was told.
    broken: Option<String>,
    channel: Option<Arc<Channel>>,
    waiting: VecDeque<Batch>,
    in_flight: InFlight,
    /// Whether what is in flight is to be alone.
    alone: bool,
    ledger: Ledger,
    /// Ends lapin's thread with this task.
    _cord: Cord,
}

impl Publishing {
    /// Starts the task, which ends when it is asked to or when nobody can ask any more.
    pub(super) fn start(
        connection: Arc<Connection>,
        url: Arc<str>,
        cord: Cord,
    ) -> (mpsc::Sender<Request>, watch::Receiver<Option<String>>) {
        let (requests, inbox) = mpsc::channel(MOST_WAITING);
        let (blocked, is_blocked) = watch::channel(None);
        let task = Self {
            events: connection.events_listener().boxed(),
            connection,
            ledger: Ledger::new(url.clone()),
            url,
            blocked,
            broken: None,
            channel: None,
            waiting: VecDeque::new(),
            in_flight: InFlight::new(),
            alone: false,
            _cord: cord,
        };
        tokio::spawn(task.run(inbox));
        (requests, is_blocked)
    }

    async fn run(mut self, mut inbox: mpsc::Receiver<Request>) {
        let closing = loop {
            while let Some(batch) = self.next_batch() {
                self.hand_over(batch).await;
            }
            tokio::select! {
                biased;
                Some(event) = self.events.next() => self.note(event),
                Some((place, outcome)) = self.in_flight.next() => {
                    self.ledger.answer(place, outcome);
                    self.collect();
                    self.ledger.settle();
                }
                request = inbox.recv(), if self.waiting.len() < MOST_WAITING => match request {
                    Some(Request::Publish(batch)) => self.waiting.push_back(batch),
                    Some(Request::Close(done)) => break Some(done),
                    None => break None,
                }
            }
        };
        // A blocked connection takes no goodbye either.
        if self.blocked.borrow().is_none() && self.connection.status().connected() {
            let goodbye = self.connection.close(200, "OK".into());
            let _ = tokio::time::timeout(GOODBYE, goodbye).await;
        }
        drop(self);
        if let Some(done) = closing {
            let _ = done.send(());
        }
    }

    /// The next batch whose turn it is.
    fn next_batch(&mut self) -> Option<Batch> {
        if let Some(error) = self.blockage() {
            for batch in std::mem::take(&mut self.waiting) {
                refuse(batch.parcels.len(), batch.reply, &error);
            }
        }
        let first = self.waiting.front()?;
        // What was in flight on a channel that closed is answered before another
        // one opens, so that the ledger is about one channel at a time.
        let must_be_alone = first.alone || self.alone || self.open_channel().is_none();
        if must_be_alone && !self.in_flight.is_empty() { None } else { self.waiting.pop_front() }
    }

    /// Why the broker takes no messages, if it does not.
    fn blockage(&mut self) -> Option<BrokerError> {
        // lapin knows of an alarm before its event has been read here, and does
        // not forget it when the connection is lost.
        if !self.connection.status().blocked() || !self.connection.status().connected() {
            return None;
        }
        while self.blocked.borrow().is_none()
            && let Some(event) = self.events.next().now_or_never().flatten()
        {
            self.note(event);
        }
        let reason = self.blocked.borrow().clone();
        Some(BrokerError::Blocked { reason: reason.unwrap_or_else(|| "it gives no reason".to_owned()) })
    }

    fn open_channel(&self) -> Option<&Arc<Channel>> {
        self.channel.as_ref().filter(|channel| channel.status().connected())
    }

    /// Gives a batch to lapin, or refuses it as a whole: what is refused here
    /// never reaches lapin.
    async fn hand_over(&mut self, batch: Batch) {
        // Whoever sent it has given up, and been told so.
        if batch.reply.is_closed() {
            return;
        }
        let Batch { parcels, alone, reply } = batch;
        let channel = match self.channel().await {
            Ok(channel) => channel,
            Err(error) => return refuse(parcels.len(), reply, &error),
        };
        self.alone = alone;
        let (marks, sendings): (Vec<_>, Vec<_>) = parcels.into_iter().map(Parcel::part).unzip();
        let batch = self.ledger.open(marks, reply);
        for (index, sending) in sendings.into_iter().enumerate() {
            let place = Place { batch, index };
            let channel = channel.clone();
            self.in_flight.push(async move { (place, sending.publish(&channel).await) }.boxed());
        }
    }

    /// The open channel, or a new one.
    async fn channel(&mut self) -> Result<Arc<Channel>, BrokerError> {
        if let Some(channel) = self.open_channel() {
            return Ok(channel.clone());
        }
        let connection = self.connection.clone();
        let mut opening = async move {
            let channel = connection.create_channel().await?;
            channel.confirm_select(ConfirmSelectOptions::default()).await?;
            Ok::<_, lapin::Error>(channel)
        }
        .boxed();
        loop {
            tokio::select! {
                biased;
                opened = &mut opening => {
                    let channel = opened.map_err(|error| self.lost(&error))?;
                    return Ok(self.channel.insert(Arc::new(channel)).clone());
                }
                Some(event) = self.events.next() => {
                    self.note(event);
                    if let Some(error) = self.blockage() {
                        return Err(error);
                    }
                }
            }
        }
    }

    /// Notes everything that has been answered by now.
    ///
    /// [`FuturesUnordered`] sometimes stops before it has polled all that are
    /// ready, to be fair to others; it then wakes the task at once.
    fn collect(&mut self) {
        let woken = Arc::new(Woken::default());
        let waker = Waker::from(woken.clone());
        let mut context = Context::from_waker(&waker);
        loop {
            match self.in_flight.poll_next_unpin(&mut context) {
                Poll::Ready(Some((place, outcome))) => self.ledger.answer(place, outcome),
                Poll::Pending if woken.0.swap(false, Ordering::AcqRel) => {}
                Poll::Ready(None) | Poll::Pending => return,
            }
        }
    }

    fn note(&mut self, event: Event) {
        match event {
            Event::ConnectionBlocked(reason) => {
                tracing::warn!(url = %self.url, reason, "the broker has blocked publishing");
                self.blocked.send_replace(Some(reason));
            }
            Event::ConnectionUnblocked => {
                tracing::info!(url = %self.url, "the broker takes messages again");
                self.blocked.send_replace(None);
            }
            Event::Error(error) if !error.is_amqp_soft_error() => {
                self.blocked.send_replace(None);
                self.broken.get_or_insert_with(|| error.to_string());
            }
            _ => {}
        }
    }

    fn lost(&self, error: &lapin::Error) -> BrokerError {
        lost(&self.url, self.broken.clone().unwrap_or_else(|| error.to_string()))
    }
}

fn refuse(count: usize, reply: oneshot::Sender<Vec<Verdict>>, error: &BrokerError) {
    let _ = reply.send((0..count).map(|_| Verdict::Failed(error.clone())).collect());
}

#[derive(Default)]
struct Woken(AtomicBool);

impl Wake for Woken {
    fn wake(self: Arc<Self>) {
        self.0.store(true, Ordering::Release);
    }
}

/// A parcel without its mark.
struct Sending {
    exchange: ShortString,
    routing_key: ShortString,
    properties: BasicProperties,
    body: Bytes,
}

impl Parcel {
    fn part(self) -> (Mark, Sending) {
        let Self { exchange, routing_key, properties, body, mark } = self;
        (mark, Sending { exchange, routing_key, properties, body })
    }
}

impl Sending {
    /// Publishes and waits for the confirm. lapin numbers the message and
    /// queues it when this is first polled.
    async fn publish(self, channel: &Channel) -> lapin::Result<Confirmation> {
        let options = BasicPublishOptions { mandatory: true, immediate: false };
        let Self { exchange, routing_key, properties, body } = self;
        channel.basic_publish(exchange, routing_key, options, &body, properties).await?.await
    }
}
