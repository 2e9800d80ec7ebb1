//! The Celery app: which broker, which queues, and what goes where.

mod builder;
mod error;
mod template;
mod trace;

use std::{
    collections::BTreeMap,
    fmt,
    sync::{
        Arc, OnceLock, PoisonError, RwLock,
        atomic::{AtomicBool, Ordering},
    },
    time::Duration,
};

pub use self::{builder::CeleryBuilder, error::ConfigError, trace::TraceContext};
pub(crate) use self::{
    builder::{MAX_MESSAGE_BYTES, check_queue_name},
    template::{MessageTemplate, Wanted},
};
use crate::{
    broker::{self, BrokerConfig, BrokerError},
    durability::Durability,
    message::Queue,
    publisher::{PublishError, Publisher, PublisherConfig},
};

/// A Celery app, as far as signals need one: what a Django site says in its
/// Celery settings. Cloning it gives another handle to the same one.
///
/// It connects when the first signal is sent, keeps that connection, and makes
/// another when it is lost.
///
/// ```
/// use std::time::Duration;
/// use async_signals::{Celery, message::Queue};
///
/// let celery = Celery::builder()
///     .broker_url("redis://redis-a:6379/0;redis://redis-b:6379/0")
///     .default_queue("celery")
///     .queue(Queue::direct("high_priority"))
///     .route("shop.signals.*", "high_priority")
///     .publish_timeout(Duration::from_secs(2))
///     .build()?;
/// assert_eq!(celery.queue_for("shop.signals.order_placed"), "high_priority");
/// assert_eq!(celery.queue_for("blog.signals.post_published"), "celery");
/// # Ok::<(), async_signals::ConfigError>(())
/// ```
#[derive(Clone)]
pub struct Celery(Arc<App>);

struct App {
    config: Config,
    /// Of this process: another one is made after a fork.
    publisher: RwLock<Option<Arc<Publisher>>>,
    is_shut_down: AtomicBool,
}

/// What was configured.
struct Config {
    publishing: PublisherConfig,
    reading: BrokerConfig,
    default_queue: String,
    queues: BTreeMap<String, Queue>,
    create_missing_queues: bool,
    /// `x-max-priority` of queues that are only named somewhere.
    queue_max_priority: Option<u8>,
    routes: Vec<(String, String)>,
    default_priority: Option<u8>,
    durability: Durability,
    max_message_bytes: usize,
    trace_context: Option<Arc<dyn Fn() -> Option<TraceContext> + Send + Sync>>,
    /// `gen<pid>@<host>`, which is how Celery names who sent a task.
    origin: String,
    /// Where an answer would go: Celery always sends one.
    reply_to: Arc<str>,
}

impl fmt::Debug for Celery {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let config = &self.0.config;
        f.debug_struct("Celery")
            .field("broker", &config.publishing.broker.urls)
            .field("default_queue", &config.default_queue)
            .finish_non_exhaustive()
    }
}

static INSTALLED: OnceLock<Celery> = OnceLock::new();

impl Celery {
    /// An app with Celery's defaults. It connects when the first signal is sent.
    ///
    /// # Errors
    ///
    /// [`ConfigError::Broker`] for a URL that is none, or a kind of broker that this build does not speak.
    pub fn new(broker_url: &str) -> Result<Self, ConfigError> {
        Self::builder().broker_url(broker_url).build()
    }

    /// The same, and the broker has answered: what is wrong with the address or
    /// the password shows when the program starts.
    ///
    /// # Errors
    ///
    /// [`ConfigError`].
    pub async fn connect(broker_url: &str) -> Result<Self, ConfigError> {
        let celery = Self::new(broker_url)?;
        celery.ping().await?;
        Ok(celery)
    }

    /// The app that Celery's own environment variables describe:
    /// `CELERY_BROKER_WRITE_URL` and `CELERY_BROKER_READ_URL`, or
    /// `CELERY_BROKER_URL` for both.
    ///
    /// ```no_run
    /// use async_signals::Celery;
    ///
    /// match Celery::from_env() {
    ///     Ok(celery) => celery.install()?,
    ///     Err(error) => eprintln!("{error}: receivers run where signals are sent"),
    /// }
    /// # Ok::<(), async_signals::ConfigError>(())
    /// ```
    ///
    /// # Errors
    ///
    /// [`ConfigError::NotConfigured`] where none of them is set, and as [`Celery::new`].
    pub fn from_env() -> Result<Self, ConfigError> {
        Self::builder().env().build()
    }

    /// An app with settings of its own.
    pub fn builder() -> CeleryBuilder {
        CeleryBuilder::default()
    }

    /// Makes it the process's app: signals go through it from now on, unless
    /// they say otherwise. There is one for the life of the process.
    ///
    /// # Errors
    ///
    /// [`ConfigError::AlreadyInstalled`].
    pub fn install(&self) -> Result<(), ConfigError> {
        INSTALLED.set(self.clone()).map_err(|_| ConfigError::AlreadyInstalled)
    }

    /// The process's app, if there is one.
    pub fn current() -> Option<Self> {
        INSTALLED.get().cloned()
    }

    pub(crate) fn installed() -> Option<&'static Self> {
        INSTALLED.get()
    }

    /// Connects to the broker and leaves again: to know that it is there. It
    /// ends within the app's `publish_timeout`.
    ///
    /// # Errors
    ///
    /// [`ConfigError::Broker`]: what the last of its URLs answered.
    pub async fn ping(&self) -> Result<(), ConfigError> {
        let PublisherConfig { broker, timeout, .. } = &self.0.config.publishing;
        // A silent URL leaves time for those behind it.
        let share = *timeout / u32::try_from(broker.urls.len()).unwrap_or(u32::MAX - 1).saturating_add(1);
        let connection = broker::first(broker, share, |url| broker::connect(broker, url)).await?;
        let _ = tokio::time::timeout(share, connection.close()).await;
        Ok(())
    }

    /// Waits until the broker has everything that was sent in the background
    /// before.
    ///
    /// # Errors
    ///
    /// [`PublishError`] if it does not within `timeout`; what is left is still on its way.
    pub async fn flush(&self, timeout: Duration) -> Result<(), PublishError> {
        let publisher = self.0.publisher.read().unwrap_or_else(PoisonError::into_inner).clone();
        match publisher.filter(|publisher| publisher.is_ours()) {
            Some(publisher) => publisher.flush(timeout)?.await,
            None => Ok(()),
        }
    }

    /// [`flush`](Self::flush) for programs that do not await.
    ///
    /// # Errors
    ///
    /// [`PublishError`].
    pub fn flush_blocking(&self, timeout: Duration) -> Result<(), PublishError> {
        let publisher = self.0.publisher.read().unwrap_or_else(PoisonError::into_inner).clone();
        match publisher.filter(|publisher| publisher.is_ours()) {
            Some(publisher) => publisher.flush(timeout)?.wait(),
            None => Ok(()),
        }
    }

    /// Takes no more signals, waits until the broker has those that it took,
    /// and closes the connection. Later sends fail; they do not run here.
    ///
    /// # Errors
    ///
    /// [`PublishError`]: what could not be handed over in time. It is lost.
    pub async fn shutdown(&self, timeout: Duration) -> Result<(), PublishError> {
        self.0.is_shut_down.store(true, Ordering::Release);
        let flushed = self.flush(timeout).await;
        self.0.publisher.write().unwrap_or_else(PoisonError::into_inner).take();
        flushed
    }

    /// The queue for a signal that names none.
    pub fn queue_for(&self, signal: &str) -> &str {
        let Config { routes, default_queue, .. } = &self.0.config;
        routes.iter().find(|(pattern, _)| matches(pattern, signal)).map_or(default_queue, |(_, queue)| queue)
    }

    /// The names of the queues that it has: those it was told of, or the default one.
    pub fn queues(&self) -> Vec<&str> {
        let Config { queues, default_queue, .. } = &self.0.config;
        if queues.is_empty() { vec![default_queue] } else { queues.keys().map(String::as_str).collect() }
    }

    /// A queue as it was configured, or as Celery makes one of which only the name is known.
    pub(crate) fn queue(&self, name: &str) -> Queue {
        let Config { queues, queue_max_priority, .. } = &self.0.config;
        queues.get(name).cloned().unwrap_or_else(|| {
            let mut queue = Queue::direct(name);
            if let Some(priority) = queue_max_priority {
                queue.arguments.insert("x-max-priority".to_owned(), (*priority).into());
            }
            queue
        })
    }

    pub(crate) fn reading(&self) -> &BrokerConfig {
        &self.0.config.reading
    }

    pub(crate) fn publish_timeout(&self) -> Duration {
        self.0.config.publishing.timeout
    }

    pub(crate) fn buffer_timeout(&self) -> Duration {
        self.0.config.publishing.buffer_timeout
    }

    pub(crate) fn max_message_bytes(&self) -> usize {
        self.0.config.max_message_bytes
    }

    pub(crate) fn durability(&self) -> Durability {
        self.0.config.durability
    }

    pub(crate) fn trace_context(&self) -> Option<TraceContext> {
        self.0.config.trace_context.as_ref()?()
    }

    /// The publisher of this process, started when it is first asked for.
    pub(crate) fn publisher(&self) -> Result<Arc<Publisher>, PublishError> {
        if self.0.is_shut_down.load(Ordering::Acquire) {
            return Err(PublishError::Closed);
        }
        if let Some(publisher) = &*self.0.publisher.read().unwrap_or_else(PoisonError::into_inner)
            && publisher.is_ours()
        {
            return Ok(publisher.clone());
        }
        let mut kept = self.0.publisher.write().unwrap_or_else(PoisonError::into_inner);
        if let Some(publisher) = kept.as_ref().filter(|publisher| publisher.is_ours()) {
            return Ok(publisher.clone());
        }
        // Each process has pauses of its own after an outage.
        let config = PublisherConfig { seed: getrandom::u64().unwrap_or_default(), ..self.0.config.publishing.clone() };
        // A thread of its own: an app outlives any runtime that sends through it.
        let publisher = Publisher::start(config).map_err(|error| {
            PublishError::from(BrokerError::Connect { url: "the broker".to_owned(), reason: error.to_string() })
        })?;
        Ok(kept.insert(Arc::new(publisher)).clone())
    }
}

/// Whether a name fits a pattern, in which `*` stands for any text.
fn matches(pattern: &str, name: &str) -> bool {
    match pattern.split_once('*') {
        None => pattern == name,
        Some((start, rest)) => {
            let Some(name) = name.strip_prefix(start) else { return false };
            name.char_indices().map(|(at, _)| at).chain([name.len()]).any(|at| matches(rest, &name[at..]))
        }
    }
}

#[cfg(test)]
mod tests {
    use super::matches;

    #[test]
    fn a_star_stands_for_any_text() {
        for (pattern, name, fits) in [
            ("shop.signals.order_placed", "shop.signals.order_placed", true),
            ("shop.signals.order_placed", "shop.signals.order_placed_too", false),
            ("shop.*", "shop.signals.order_placed", true),
            ("shop.*", "shop", false),
            ("*", "", true),
            ("*.order_*", "shop.signals.order_placed", true),
            ("*.order_*d", "shop.signals.order_place", false),
            ("ü*", "ühü", true),
        ] {
            assert_eq!(matches(pattern, name), fits, "{pattern} {name}");
        }
    }
}
