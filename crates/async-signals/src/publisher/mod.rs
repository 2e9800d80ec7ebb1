//! From message to broker: one connection, many senders, one deadline each.
//!
//! [`Publisher`] is the handle that every thread and task of a process shares.
//! Behind it a `state` decides what is batched, held, sent again and given up, and one `pump` does it: it keeps the
//! connection, resends after a reconnect with the same id, and tells each sender what became of its message through a
//! [`Receipt`].

mod buffer;
mod deadlines;
mod entry;
mod error;
mod held;
mod observer;
mod pump;
mod receipt;
mod state;

use std::{
    fmt, io,
    sync::{
        Arc, Mutex, PoisonError,
        atomic::{AtomicBool, Ordering},
    },
    thread,
    time::Duration,
};

use tokio::sync::mpsc;
use uuid::Uuid;

use self::{
    buffer::Buffer,
    entry::{Entry, Item},
    pump::Pump,
    receipt::{Settler, Slot},
};
pub use self::{
    error::PublishError,
    observer::Observer,
    receipt::{Outcome, Receipt},
};
use crate::{
    broker::{BrokerConfig, BrokerError, ByScheme, Connector},
    ids::Ids,
    message::{Outgoing, Route, TaskEvent},
};

/// How a [`Publisher`] works.
#[derive(Clone)]
pub struct PublisherConfig {
    /// Which broker.
    pub broker: BrokerConfig,
    /// How long a send may take, connecting included.
    pub timeout: Duration,
    /// How many background messages may wait at once.
    pub buffer_messages: usize,
    /// How many bytes of bodies may wait at once.
    pub buffer_bytes: usize,
    /// How long a background send waits for room in a full buffer.
    pub buffer_timeout: Duration,
    /// Who is told of what no sender waits for.
    pub observer: Arc<dyn Observer>,
    /// How connections are made.
    pub connector: Arc<dyn Connector>,
    /// What chance begins with, which shortens the pauses between attempts.
    pub seed: u64,
}

impl PublisherConfig {
    /// The defaults: 5 s, 10,000 messages, 64 MiB, 0.1 s, nobody is told.
    pub fn new(broker: BrokerConfig) -> Self {
        Self {
            broker,
            timeout: Duration::from_secs(5),
            buffer_messages: 10_000,
            buffer_bytes: 64 << 20,
            buffer_timeout: Duration::from_millis(100),
            observer: Arc::new(()),
            connector: Arc::new(ByScheme),
            // Without chance all wait for the same time, which is still a pause.
            seed: getrandom::u64().unwrap_or_default(),
        }
    }
}

impl fmt::Debug for PublisherConfig {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("PublisherConfig").field("broker", &self.broker).field("timeout", &self.timeout).finish()
    }
}

/// What the handle and the pump share.
#[derive(Debug)]
struct Shared {
    buffer: Buffer,
    ids: Ids,
    timeout: Duration,
    /// What stands in the way just now: told to those whose deadline passes.
    obstacle: Mutex<Option<BrokerError>>,
    /// Routes that take up half of the buffer, since they take no messages: others need the rest.
    full_routes: Mutex<Vec<Arc<Route>>>,
    has_full_routes: AtomicBool,
}

impl Shared {
    fn obstacle(&self) -> Option<BrokerError> {
        self.obstacle.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }

    fn set_full_routes(&self, routes: Vec<Arc<Route>>) {
        let mut full = self.full_routes.lock().unwrap_or_else(PoisonError::into_inner);
        self.has_full_routes.store(!routes.is_empty(), Ordering::Relaxed);
        *full = routes;
    }

    fn is_full(&self, route: &Route) -> bool {
        self.has_full_routes.load(Ordering::Relaxed)
            && self.full_routes.lock().unwrap_or_else(PoisonError::into_inner).iter().any(|full| **full == *route)
    }

    fn set_obstacle(&self, error: Option<BrokerError>) {
        *self.obstacle.lock().unwrap_or_else(PoisonError::into_inner) = error;
    }
}

/// Sends messages to a broker. Any number of threads and tasks share one.
///
/// A publisher belongs to the process that started it: after a fork the child
/// starts its own, and what was on its way stays the parent's.
///
/// ```
/// use std::sync::Arc;
/// use async_signals::{broker::BrokerConfig, message::*, publisher::*};
/// # use bytes::Bytes; use uuid::Uuid;
/// let publisher = Publisher::start(PublisherConfig::new(BrokerConfig::new("memory://")?))?;
/// let id = Uuid::new_v4();
/// let message = Message {
///     id,
///     headers: Headers::Raw(Default::default()),
///     properties: Properties::for_task(id),
///     body: Bytes::from_static(b"[[], {}, {}]"),
/// };
/// publisher.send(Outgoing { route: Arc::new(Route::to_queue("celery")), message }, None)?.wait()?;
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
#[derive(Debug)]
pub struct Publisher {
    items: mpsc::UnboundedSender<Item>,
    shared: Arc<Shared>,
    buffer_timeout: Duration,
    owner: u32,
}

impl Publisher {
    /// Starts a publisher with a thread and a runtime of its own. It connects
    /// when the first message comes.
    ///
    /// # Errors
    ///
    /// When the operating system gives no thread.
    pub fn start(config: PublisherConfig) -> io::Result<Self> {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
        let (publisher, pump) = Self::assemble(config);
        thread::Builder::new()
            .name("async-signals-publisher".to_owned())
            .spawn(move || runtime.block_on(pump::supervise(pump)))?;
        Ok(publisher)
    }

    /// Starts a publisher on the current tokio runtime.
    ///
    /// # Panics
    ///
    /// Outside a tokio runtime.
    pub fn spawn(config: PublisherConfig) -> Self {
        let (publisher, pump) = Self::assemble(config);
        tokio::spawn(pump::supervise(pump));
        publisher
    }

    fn assemble(config: PublisherConfig) -> (Self, Pump) {
        let (items, received) = mpsc::unbounded_channel();
        let shared = Arc::new(Shared {
            buffer: Buffer::new(config.buffer_messages, config.buffer_bytes),
            ids: Ids::default(),
            timeout: config.timeout,
            obstacle: Mutex::default(),
            full_routes: Mutex::default(),
            has_full_routes: AtomicBool::new(false),
        });
        let publisher =
            Self { items, shared: shared.clone(), buffer_timeout: config.buffer_timeout, owner: std::process::id() };
        (publisher, Pump::new(config, shared, received))
    }

    /// A new task id. Cheaper than [`Uuid::new_v4`], and as random.
    pub fn next_id(&self) -> Uuid {
        self.shared.ids.next()
    }

    /// Whether this process may use it.
    pub fn is_ours(&self) -> bool {
        self.owner == std::process::id()
    }

    /// Within how long a send ends, unless it is told otherwise.
    pub fn timeout(&self) -> Duration {
        self.shared.timeout
    }

    /// Sends one message and gives a receipt for the broker's confirmation,
    /// which comes within `timeout` (the configured one if none is given).
    ///
    /// # Errors
    ///
    /// [`PublishError::Forked`] and [`PublishError::Closed`]; all else is the receipt's.
    pub fn send(&self, outgoing: Outgoing, timeout: Option<Duration>) -> Result<Receipt, PublishError> {
        self.send_with_event(outgoing, None, timeout)
    }

    /// The same, with an event right behind the message. Nobody waits for the event: if it cannot go along, it is
    /// dropped.
    ///
    /// # Errors
    ///
    /// As [`Publisher::send`].
    pub fn send_with_event(
        &self,
        outgoing: Outgoing,
        event: Option<Box<TaskEvent>>,
        timeout: Option<Duration>,
    ) -> Result<Receipt, PublishError> {
        let timeout = timeout.unwrap_or(self.shared.timeout);
        let slot = Slot::new(timeout);
        self.push(Item::Send(Entry::confirmed(outgoing, event, Settler::new(slot.clone()))))?;
        Ok(Receipt { slot })
    }

    /// Puts one message into the buffer, from which it goes to the broker in
    /// the background, however long the broker is away. Waits for room in a
    /// full buffer for at most the configured time.
    ///
    /// # Errors
    ///
    /// [`PublishError::BufferFull`], [`PublishError::Forked`] and [`PublishError::Closed`].
    pub fn buffer(&self, outgoing: Outgoing) -> Result<(), PublishError> {
        self.admit(outgoing, None, self.buffer_timeout)
    }

    /// The same, with an event right behind the message, as [`Publisher::send_with_event`] has it.
    ///
    /// # Errors
    ///
    /// As [`Publisher::buffer`].
    pub fn buffer_with_event(&self, outgoing: Outgoing, event: Option<Box<TaskEvent>>) -> Result<(), PublishError> {
        self.admit(outgoing, event, self.buffer_timeout)
    }

    /// The same without any wait, for callers that must not block.
    ///
    /// # Errors
    ///
    /// As [`Publisher::buffer`].
    pub fn try_buffer(&self, outgoing: Outgoing) -> Result<(), PublishError> {
        self.admit(outgoing, None, Duration::ZERO)
    }

    /// The same, with an event right behind the message, as [`Publisher::send_with_event`] has it.
    ///
    /// # Errors
    ///
    /// As [`Publisher::buffer`].
    pub fn try_buffer_with_event(&self, outgoing: Outgoing, event: Option<Box<TaskEvent>>) -> Result<(), PublishError> {
        self.admit(outgoing, event, Duration::ZERO)
    }

    /// Publishes an event behind what was sent before. Nobody waits for it: while the broker is away it is dropped.
    ///
    /// # Errors
    ///
    /// [`PublishError::Forked`] and [`PublishError::Closed`].
    pub fn publish_event(&self, event: TaskEvent) -> Result<(), PublishError> {
        self.push(Item::Event(event))
    }

    /// Whether a background send of this message would not have to wait just now.
    pub fn has_room(&self, outgoing: &Outgoing) -> bool {
        let has_room = || self.shared.buffer.has_room_for(outgoing.message.body.len());
        !self.is_ours() || (!self.shared.is_full(&outgoing.route) && has_room())
    }

    fn admit(&self, outgoing: Outgoing, event: Option<Box<TaskEvent>>, patience: Duration) -> Result<(), PublishError> {
        // First of all: in a child of a fork another thread's lock on the buffer may never be released.
        self.check_owner()?;
        let bytes = outgoing.message.body.len();
        if self.shared.is_full(&outgoing.route) || !self.shared.buffer.admit(bytes, patience) {
            return Err(PublishError::BufferFull {
                messages: self.shared.buffer.messages(),
                last: self.shared.obstacle(),
            });
        }
        let pushed = self.push(Item::Send(Entry::background(outgoing, event)));
        if pushed.is_err() {
            self.shared.buffer.release(1, bytes);
        }
        pushed
    }

    /// A receipt for everything that was sent before: it is settled when the
    /// broker has it all, or fails at the deadline, with what is left still on its way.
    ///
    /// # Errors
    ///
    /// [`PublishError::Forked`] and [`PublishError::Closed`].
    pub fn flush(&self, timeout: Duration) -> Result<Receipt, PublishError> {
        let slot = Slot::new(timeout);
        self.push(Item::Flush(Settler::new(slot.clone())))?;
        Ok(Receipt { slot })
    }

    /// How many background messages have not reached the broker yet.
    pub fn buffered(&self) -> usize {
        self.shared.buffer.messages()
    }

    fn check_owner(&self) -> Result<(), PublishError> {
        if self.is_ours() { Ok(()) } else { Err(PublishError::Forked { owner: self.owner }) }
    }

    fn push(&self, item: Item) -> Result<(), PublishError> {
        self.check_owner()?;
        self.items.send(item).map_err(|_| PublishError::Closed)
    }
}
