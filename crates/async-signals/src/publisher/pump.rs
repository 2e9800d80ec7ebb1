//! The loop that performs what a publisher's [`State`] decides.

use std::{pin::pin, sync::Arc, time::Duration};

use futures_util::{
    future::{BoxFuture, FutureExt},
    stream::{FuturesUnordered, StreamExt},
};
use tokio::{
    sync::{mpsc, watch},
    time::{Instant, sleep, sleep_until, timeout},
};

use super::{
    Observer, PublishError, PublisherConfig, Shared,
    entry::{Batch, Item},
    observer::Guarded,
    state::{Effect, Limits, State},
};
use crate::{
    backoff::Backoff,
    broker::{Broker, BrokerError, Published, attempt},
    clock,
    message::{Outgoing, TaskEvent},
    panics,
};

/// The pauses before it begins anew after a panic.
const FIRST_PAUSE: Duration = Duration::from_millis(50);
const LONGEST_PAUSE: Duration = Duration::from_secs(5);
/// For how long an answer is waited for at most while the broker says that it is blocked.
const MOST_BLOCKED: Duration = Duration::from_secs(600);

/// Moves messages from the senders to the broker.
pub(super) struct Pump {
    /// Dropped first: who is told that the publisher has ended can send nothing through it any more.
    received: mpsc::UnboundedReceiver<Item>,
    config: PublisherConfig,
    state: State,
    shared: Arc<Shared>,
    observer: Guarded,
    broker: Option<Arc<dyn Broker>>,
    /// Told when the connection is gone.
    cut: watch::Sender<()>,
    connecting: Option<BoxFuture<'static, Result<Arc<dyn Broker>, BrokerError>>>,
    in_flight: FuturesUnordered<BoxFuture<'static, (Batch, Vec<Published>)>>,
    events_under_way: FuturesUnordered<BoxFuture<'static, ()>>,
}

impl Pump {
    pub(super) fn new(config: PublisherConfig, shared: Arc<Shared>, received: mpsc::UnboundedReceiver<Item>) -> Self {
        Self {
            received,
            state: State::new(&config),
            shared,
            observer: Guarded(config.observer.clone()),
            broker: None,
            cut: watch::Sender::new(()),
            connecting: None,
            in_flight: FuturesUnordered::new(),
            events_under_way: FuturesUnordered::new(),
            config,
        }
    }

    async fn run(&mut self) {
        let mut items = Vec::with_capacity(1024);
        loop {
            self.state.advance(clock::now(), || self.broker.as_ref()?.blocked());
            self.perform();
            if self.state.has_ended() {
                break;
            }
            let alarm = self.state.alarm().map(Instant::from_std);
            let connecting = self.connecting.as_mut();
            tokio::select! {
                biased;
                Some((batch, answers)) = self.in_flight.next(), if !self.in_flight.is_empty() => {
                    self.state.answered(batch, answers, clock::now());
                }
                // After the messages that they go behind.
                Some(()) = self.events_under_way.next(), if !self.events_under_way.is_empty() => {
                    self.state.events_published();
                }
                connected = async { connecting.expect("the guard saw it").await }, if connecting.is_some() => {
                    self.connecting = None;
                    self.connected(connected);
                }
                count = self.received.recv_many(&mut items, 1024), if !self.state.is_closing() => {
                    if count == 0 {
                        self.state.close();
                    }
                    items.drain(..).for_each(|item| self.state.accept(item));
                }
                () = sleep_until(alarm.unwrap_or_else(Instant::now)), if alarm.is_some() => {}
            }
        }
        if let Some(broker) = self.broker.take() {
            broker.close().await;
        }
    }

    /// Begins anew. Who waits is told as what is left is dropped, the observer of what nobody waits for.
    fn begin_anew(&mut self) {
        self.connecting = None;
        self.broker = None;
        self.in_flight.clear();
        self.events_under_way.clear();
        let left = std::mem::replace(&mut self.state, State::new(&self.config)).abandon();
        let error = PublishError::Stopped { may_have_arrived: true };
        left.lost.iter().for_each(|message| self.observer.lost(message, &error));
        self.shared.buffer.release(left.messages, left.bytes);
        self.shared.set_full_routes(Vec::new());
        self.shared.set_obstacle(None);
    }

    fn perform(&mut self) {
        while let Some(effect) = self.state.next_effect() {
            match effect {
                Effect::Connect { address } => self.connect(address),
                Effect::Disconnect => {
                    self.broker = None;
                    self.cut.send_replace(());
                }
                Effect::Publish { batch, patience } => self.publish(batch, patience),
                Effect::PublishEvents(events) => self.publish_events(events),
                Effect::Call(call) => call.call(),
                Effect::Flushed(slot) => {
                    if let Some(call) = slot.settle(Ok(())) {
                        call.call();
                    }
                }
                Effect::Release { messages, bytes } => self.shared.buffer.release(messages, bytes),
                Effect::FullRoutes(routes) => self.shared.set_full_routes(routes),
                Effect::Obstacle(obstacle) => self.shared.set_obstacle(obstacle),
                Effect::Lost(message, error) => self.observer.lost(&message, &error),
                Effect::Disconnected(error) => self.observer.disconnected(&error),
                Effect::Reconnected => self.observer.reconnected(),
                Effect::Held(error) => self.observer.held(&error),
            }
        }
    }

    fn connect(&mut self, address: usize) {
        let (connector, config) = (self.config.connector.clone(), self.config.broker.clone());
        // With several addresses each gets a share of what a send has, so that a silent first one does not use it up.
        let shares = match config.urls.len() {
            0 | 1 => 1,
            several => u32::try_from(several).unwrap_or(u32::MAX).saturating_add(1),
        };
        let patience = self.config.timeout / shares;
        let connect = async move { attempt(&config, address, patience, |url| connector.connect(&config, url)).await };
        self.connecting = Some(connect.boxed());
    }

    fn connected(&mut self, connected: Result<Arc<dyn Broker>, BrokerError>) {
        match connected {
            Ok(broker) => {
                let limits = Limits { pipeline: broker.pipeline(), batch: broker.batch() };
                self.broker = Some(broker);
                self.state.connected(limits, clock::now());
            }
            Err(error) => self.state.not_connected(error, clock::now()),
        }
    }

    fn publish(&self, batch: Batch, patience: Duration) {
        let (broker, mut cut) = (self.broker.clone(), self.cut.subscribe());
        let publish = async move {
            // Whatever is missing among the answers was not answered.
            let answers = match broker {
                Some(broker) => tokio::select! {
                    biased;
                    answers = answers(&*broker, &batch.messages, patience) => answers,
                    // One of the connection's batches has told that it is gone: the others need not find out.
                    _ = cut.changed() => Vec::new(),
                },
                None => Vec::new(),
            };
            (batch, answers)
        };
        self.in_flight.push(publish.boxed());
    }

    fn publish_events(&self, events: Vec<TaskEvent>) {
        let (broker, patience) = (self.broker.clone(), self.config.timeout);
        let publish = async move {
            if let Some(broker) = broker {
                // Nobody is told what has become of them.
                let _ = timeout(patience, panics::caught_in(async || broker.publish_events(events).await)).await;
            }
        };
        self.events_under_way.push(publish.boxed());
    }
}

/// Runs it, and lets nothing end it but that there are no more senders: after a panic, which is a fault of ours or of a
/// broker's, it begins anew.
pub(super) async fn supervise(mut pump: Pump) {
    let mut backoff = Backoff::new(FIRST_PAUSE, LONGEST_PAUSE);
    while let Err(text) = panics::caught_in(async || pump.run().await).await {
        let _ = panics::caught(|| tracing::error!("the publisher panicked, and begins anew: {text}"));
        pump.begin_anew();
        backoff.failed(fastrand::f64());
        sleep(backoff.pause()).await;
    }
}

/// What the broker says of each message within `patience`. What it has when it says that it is blocked waits for longer:
/// over another connection it would be there twice.
async fn answers(broker: &dyn Broker, messages: &[Outgoing], patience: Duration) -> Vec<Published> {
    let mut publish = pin!(panics::caught_in(async || broker.publish(messages).await));
    let give_up = Instant::now() + patience + MOST_BLOCKED;
    let mut was_blocked = broker.blocked().is_some();
    loop {
        match timeout(patience, &mut publish).await {
            Ok(Ok(answers)) => return answers,
            Ok(Err(text)) => {
                let _ = panics::caught(|| tracing::error!("publishing panicked, and is tried again: {text}"));
                return Vec::new();
            }
            Err(_) => {
                let is_blocked = broker.blocked().is_some();
                // What was blocked until a moment ago has not had its time yet.
                if Instant::now() >= give_up || !(was_blocked || is_blocked) {
                    return Vec::new();
                }
                was_blocked = is_blocked;
            }
        }
    }
}
