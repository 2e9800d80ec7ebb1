//! [`AsyncSignal`]: what a program sends with, and what receivers are connected to.

mod error;
mod options;
mod sending;

use std::{
    fmt,
    panic::Location,
    sync::{
        Arc, Mutex,
        atomic::{AtomicBool, Ordering},
    },
    time::Duration,
};

use futures_util::future::{BoxFuture, FutureExt};
use serde::{Serialize, de::DeserializeOwned};

pub use self::{error::SendError, options::SendOptions};
use crate::{
    celery::MessageTemplate,
    connection::{Connect, ConnectError, Connection, Connections, Disconnect},
    delivery::Delivery,
    dispatch::{self, Dispatch},
    durability::Durability,
    follow::Failure,
    panics,
    payload::{Body, DecodeError},
    receiver::{Given, IntoReceiver},
    registry::{self, DuplicateSignal},
    retry::RetryPolicy,
    sender::Sender,
    sent::Sent,
};

/// A signal whose receivers run in a worker: something that may happen, with a
/// name and a payload. Sending it puts one Celery task on one Celery queue.
///
/// It is a `static`, shared by who sends it and who receives it:
///
/// ```
/// use async_signals::{AsyncSignal, Celery, Sender};
/// use serde::{Deserialize, Serialize};
///
/// #[derive(Serialize, Deserialize)]
/// struct OrderPlaced {
///     order_id: u64,
/// }
///
/// static ORDER_PLACED: AsyncSignal<OrderPlaced> =
///     AsyncSignal::new("shop.signals.order_placed").queue("high_priority");
///
/// # #[tokio::main(flavor = "current_thread")]
/// # async fn main() -> Result<(), Box<dyn std::error::Error>> {
/// Celery::new("memory://")?.install()?;
/// let sent = ORDER_PLACED.send(Sender::NONE, &OrderPlaced { order_id: 5 }).await?;
/// println!("task {}", sent.id);
/// # Ok(())
/// # }
/// ```
///
/// Which app it goes through is [`Celery::install`](crate::Celery::install)'s
/// to say, or [`SendOptions::via`]'s. **Without either the receivers run right
/// where the signal is sent**, as Django's do, and a warning says so.
///
/// The name is what messages call the signal: a Django site has the same one in
/// `module.variable`, or gives it with `name=`.
pub struct AsyncSignal<P> {
    name: &'static str,
    aliases: &'static [&'static str],
    queue: Option<&'static str>,
    durability: Option<Durability>,
    priority: Option<u8>,
    expires: Option<Duration>,
    retry: Option<RetryPolicy>,
    place: &'static Location<'static>,
    connections: Connections<P>,
    /// The way out over the app that it was last sent through.
    template: Mutex<Option<Arc<MessageTemplate>>>,
    /// Whether it was said that nothing here listens.
    is_unheard: AtomicBool,
}

impl<P> AsyncSignal<P> {
    /// A signal of this name.
    ///
    /// # Panics
    ///
    /// On an empty name; a `static` does not compile then.
    #[track_caller]
    pub const fn new(name: &'static str) -> Self {
        assert!(!name.is_empty(), "a signal needs a name, such as \"shop.signals.order_placed\"");
        Self {
            name,
            aliases: &[],
            queue: None,
            durability: None,
            priority: None,
            expires: None,
            retry: None,
            place: Location::caller(),
            connections: Connections::new(),
            template: Mutex::new(None),
            is_unheard: AtomicBool::new(false),
        }
    }

    /// The Celery queue for the signal's tasks. Without one the app's routes
    /// say where they go, or its default queue.
    ///
    /// # Panics
    ///
    /// On an empty name, or one of more than 255 bytes.
    pub const fn queue(mut self, queue: &'static str) -> Self {
        assert!(!queue.is_empty() && queue.len() <= 255, "a queue's name has 1 to 255 bytes");
        self.queue = Some(queue);
        self
    }

    /// How sure a send is before it returns; without it, as the app says.
    pub const fn durability(mut self, durability: Durability) -> Self {
        self.durability = Some(durability);
        self
    }

    /// The priority of the signal's tasks: 0 to 255, of which RabbitMQ serves
    /// high ones first, and Redis (0 to 9, as Celery has it) low ones.
    pub const fn priority(mut self, priority: u8) -> Self {
        self.priority = Some(priority);
        self
    }

    /// How workers try receivers again that failed, for those that do not say.
    /// Without it they do not.
    pub const fn retry(mut self, policy: RetryPolicy) -> Self {
        self.retry = Some(policy);
        self
    }

    /// For how long after a send it is worth running its receivers. Workers leave alone what is older.
    pub const fn expires(mut self, after: Duration) -> Self {
        self.expires = Some(after);
        self
    }

    /// Older names of the signal, which are still received.
    pub const fn aliases(mut self, aliases: &'static [&'static str]) -> Self {
        self.aliases = aliases;
        self
    }

    /// The name that messages have for it.
    pub const fn name(&self) -> &'static str {
        self.name
    }
}

impl<P> fmt::Debug for AsyncSignal<P> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "AsyncSignal({:?})", self.name)
    }
}

impl<P: Serialize + DeserializeOwned + Send + 'static> AsyncSignal<P> {
    /// Connects a receiver, which then gets what anybody sends. See
    /// [`IntoReceiver`] for what may be one.
    ///
    /// A function that is connected already, or a closure that holds nothing,
    /// is not connected a second time.
    ///
    /// ```
    /// use async_signals::{AsyncSignal, Delivery};
    ///
    /// # #[derive(serde::Serialize, serde::Deserialize)] struct OrderPlaced { order_id: u64 }
    /// static ORDER_PLACED: AsyncSignal<OrderPlaced> = AsyncSignal::new("shop.signals.order_placed");
    ///
    /// async fn email(order: OrderPlaced, delivery: Delivery) -> Result<(), std::io::Error> {
    ///     println!("{}: order {}", delivery.id, order.order_id);
    ///     Ok(())
    /// }
    ///
    /// ORDER_PLACED.connect(email);
    /// ORDER_PLACED.connect(|order: &OrderPlaced| println!("order {}", order.order_id));
    /// ```
    ///
    /// # Panics
    ///
    /// Where [`try_connect_with`](Self::try_connect_with) gives an error.
    #[track_caller]
    pub fn connect<M>(&'static self, receiver: impl IntoReceiver<P, M>) -> Connection {
        self.connect_with(receiver, Connect::new())
    }

    /// Connects a receiver for one sender only, under another name, or with retries of its own.
    ///
    /// ```
    /// use async_signals::{AsyncSignal, Connect, Sender, retry::RetryPolicy};
    ///
    /// # #[derive(serde::Serialize, serde::Deserialize)] struct OrderPlaced { order_id: u64 }
    /// static ORDER_PLACED: AsyncSignal<OrderPlaced> = AsyncSignal::new("shop.signals.order_placed");
    ///
    /// let connection = ORDER_PLACED.connect_with(
    ///     |order: OrderPlaced| println!("order {}", order.order_id),
    ///     Connect::new().sender(Sender::model("shop.Order")).dispatch_uid("shop.print").retry(RetryPolicy::new(5)),
    /// );
    /// assert!(ORDER_PLACED.has_listeners(&Sender::model("shop.Order")));
    /// assert!(!ORDER_PLACED.has_listeners(&Sender::NONE));
    /// assert!(ORDER_PLACED.disconnect("shop.print"));
    /// assert!(!ORDER_PLACED.disconnect(connection), "it is gone already");
    /// ```
    ///
    /// # Panics
    ///
    /// Where [`try_connect_with`](Self::try_connect_with) gives an error.
    #[track_caller]
    pub fn connect_with<M>(&'static self, receiver: impl IntoReceiver<P, M>, options: Connect) -> Connection {
        self.try_connect_with(receiver, options).unwrap_or_else(|error| panic!("{error}"))
    }

    /// The same, for programs that connect what they do not know when they are written.
    ///
    /// # Errors
    ///
    /// [`ConnectError`]: another signal has the same name, or a closure that is
    /// to be tried again has no name.
    #[track_caller]
    pub fn try_connect_with<M>(
        &'static self,
        receiver: impl IntoReceiver<P, M>,
        options: Connect,
    ) -> Result<Connection, ConnectError> {
        registry::register(self)?;
        let signal = (self.name, self.retry.as_ref());
        self.connections.add(receiver.into_receiver(), options, signal, Location::caller())
    }

    /// Disconnects the receiver of a [`Connection`], or all that have a `dispatch_uid`. Whether there were any.
    pub fn disconnect<'a>(&self, receivers: impl Into<Disconnect<'a>>) -> bool {
        self.connections.remove(&receivers.into())
    }

    /// Whether a receiver in this process is connected to what this sender sends.
    pub fn has_listeners(&self, sender: &Sender) -> bool {
        // What is wrong with another signal's receivers is in the log.
        let _ = registry::link();
        self.connections.has_any_of(sender)
    }

    /// Makes the signal known to workers of this process, though nothing listens to it.
    pub(crate) fn register(&'static self) -> Result<(), DuplicateSignal> {
        registry::register(self)
    }

    /// Sends the signal: one Celery task, which calls the receivers in a worker.
    /// It returns when the broker has the task, or as
    /// [`durability`](Self::durability) says.
    ///
    /// Without an app the receivers run here, one after the other; the first
    /// that fails stops the others, and its error is returned. They get what a
    /// worker would give them: the payload, encoded and decoded again.
    ///
    /// The payload is encoded when this is called; all else happens when the future is awaited.
    ///
    /// # Errors
    ///
    /// [`SendError`].
    #[track_caller]
    pub fn send<'a>(
        &'a self,
        sender: Sender,
        payload: &P,
    ) -> impl Future<Output = Result<Sent, SendError>> + Send + use<'a, P> {
        self.options().send(sender, payload)
    }

    /// The same; receivers that run here do not stop one another by failing:
    /// what each answered is in [`Sent::responses`]. In a worker it is never otherwise.
    ///
    /// # Errors
    ///
    /// [`SendError`], but never [`SendError::Receiver`].
    #[track_caller]
    pub fn send_robust<'a>(
        &'a self,
        sender: Sender,
        payload: &P,
    ) -> impl Future<Output = Result<Sent, SendError>> + Send + use<'a, P> {
        self.options().send_robust(sender, payload)
    }

    /// [`send`](Self::send) for programs that do not await: it blocks the
    /// thread, which must not be one that drives async tasks.
    ///
    /// # Errors
    ///
    /// [`SendError`].
    #[track_caller]
    pub fn send_blocking(&self, sender: Sender, payload: &P) -> Result<Sent, SendError> {
        self.options().send_blocking(sender, payload)
    }

    /// The signal with options for one send.
    ///
    /// ```
    /// # use std::time::Duration;
    /// # use async_signals::{AsyncSignal, Celery, Sender};
    /// # #[derive(serde::Serialize, serde::Deserialize)] struct OrderPlaced { order_id: u64 }
    /// # static ORDER_PLACED: AsyncSignal<OrderPlaced> = AsyncSignal::new("shop.signals.order_placed");
    /// # #[tokio::main(flavor = "current_thread")]
    /// # async fn main() -> Result<(), Box<dyn std::error::Error>> {
    /// # let celery = Celery::new("memory://")?;
    /// let order = OrderPlaced { order_id: 5 };
    /// let in_a_minute = ORDER_PLACED.options().via(&celery).countdown(Duration::from_secs(60)).priority(9);
    /// in_a_minute.send(Sender::NONE, &order).await?;
    /// # Ok(())
    /// # }
    /// ```
    pub fn options(&self) -> SendOptions<'_, P> {
        SendOptions::new(self)
    }
}

impl<P: Serialize + DeserializeOwned + Send + 'static> Dispatch for AsyncSignal<P> {
    fn name(&self) -> &'static str {
        self.name
    }

    fn aliases(&self) -> &'static [&'static str] {
        self.aliases
    }

    fn place(&self) -> &'static Location<'static> {
        self.place
    }

    fn dispatch<'a>(
        &'a self,
        body: &'a Body,
        delivery: &'a Delivery,
        only: Option<&'a [String]>,
    ) -> BoxFuture<'a, Result<Vec<Failure>, DecodeError>> {
        async move {
            let connected = self.connections.of(&body.sender);
            if connected.is_empty() && only.is_none() {
                if !self.is_unheard.swap(true, Ordering::Relaxed) {
                    tracing::warn!("signal {} has no receivers for {} here", self.name, body.sender);
                }
                return Ok(Vec::new());
            }
            let mut given = Given::new(body, delivery)?;
            let mut failures = Vec::new();
            let mut missing: Vec<&String> = only.iter().copied().flatten().collect();
            for connected in &connected {
                if let Some(only) = only {
                    missing.retain(|name| **name != *connected.name);
                    if !only.iter().any(|name| **name == *connected.name) {
                        continue;
                    }
                }
                if let Err(error) = connected.receiver.call(&mut given).await {
                    let failure = dispatch::failure(&connected.name, error, connected.retry(self.retry.as_ref()));
                    // A subscriber of the user's may panic, too.
                    let _ = panics::caught(|| {
                        tracing::error!(
                            "receiver {} of signal {} failed for message {}: {}",
                            connected.name,
                            self.name,
                            delivery.id,
                            failure.error
                        );
                    });
                    failures.push(failure);
                }
            }
            if let Err(text) = panics::caught(|| drop(given)) {
                let _ = panics::caught(|| tracing::error!("a payload of {} panicked when dropped: {text}", self.name));
            }
            missing.sort_unstable();
            missing.dedup();
            failures.extend(missing.into_iter().map(|name| Failure::unknown(name.clone())));
            Ok(failures)
        }
        .boxed()
    }
}
