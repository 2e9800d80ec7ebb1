use std::{
    collections::BTreeMap,
    fmt,
    sync::{Arc, RwLock, atomic::AtomicBool},
    time::Duration,
};

use serde_json::{Map, Value};
use uuid::Uuid;

use super::{App, Celery, Config, ConfigError, TraceContext};
use crate::{
    broker::{BrokerConfig, BrokerError, Tls},
    durability::Durability,
    message::{Message, Queue},
    publisher::{Observer, PublishError, PublisherConfig},
};

/// How large an encoded signal may be, unless the app says otherwise.
pub(crate) const MAX_MESSAGE_BYTES: usize = 1 << 20;

type OnLost = Arc<dyn Fn(Uuid, &PublishError) + Send + Sync>;

/// Settings for a [`Celery`] app. Those that Celery has too have its names.
#[derive(Clone)]
#[must_use = "it says how an app is to be, and makes none"]
pub struct CeleryBuilder {
    urls: Urls,
    broker: Option<BrokerConfig>,
    transport_options: Map<String, Value>,
    tls: Option<Tls>,
    heartbeat: Option<Duration>,
    default_queue: String,
    queues: Vec<Queue>,
    create_missing_queues: bool,
    queue_max_priority: Option<u8>,
    default_priority: Option<u8>,
    routes: Vec<(String, String)>,
    durability: Durability,
    publish_timeout: Duration,
    buffer: (usize, usize, Duration),
    max_message_bytes: usize,
    trace_context: Option<Arc<dyn Fn() -> Option<TraceContext> + Send + Sync>>,
    on_lost: Option<OnLost>,
}

#[derive(Clone, Default)]
struct Urls {
    both: Option<String>,
    write: Option<String>,
    read: Option<String>,
}

impl Default for CeleryBuilder {
    fn default() -> Self {
        Self {
            urls: Urls::default(),
            broker: None,
            transport_options: Map::new(),
            tls: None,
            heartbeat: None,
            default_queue: "celery".to_owned(),
            queues: Vec::new(),
            create_missing_queues: true,
            queue_max_priority: None,
            default_priority: None,
            routes: Vec::new(),
            durability: Durability::Confirmed,
            publish_timeout: Duration::from_secs(5),
            buffer: (10_000, 64 << 20, Duration::from_millis(100)),
            max_message_bytes: MAX_MESSAGE_BYTES,
            trace_context: None,
            on_lost: None,
        }
    }
}

impl fmt::Debug for CeleryBuilder {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        // URLs may hold passwords.
        f.debug_struct("CeleryBuilder").field("default_queue", &self.default_queue).finish_non_exhaustive()
    }
}

impl CeleryBuilder {
    /// The broker: `amqp://`, `amqps://`, `redis://`, `rediss://`,
    /// `valkey://`, `valkeys://`, `sqla+sqlite:///file` or `memory://`; several with `;` between them are
    /// tried in turn.
    pub fn broker_url(mut self, url: impl Into<String>) -> Self {
        self.urls.both = Some(url.into());
        self
    }

    /// The broker that signals are sent to, where it is not the one that they are taken from.
    pub fn broker_write_url(mut self, url: impl Into<String>) -> Self {
        self.urls.write = Some(url.into());
        self
    }

    /// The broker that a worker takes signals from, where it is not the one that they are sent to.
    pub fn broker_read_url(mut self, url: impl Into<String>) -> Self {
        self.urls.read = Some(url.into());
        self
    }

    /// The broker as the lower layers know it, instead of all that is said here
    /// of URLs, transport options, TLS and heartbeats.
    pub fn broker(mut self, broker: BrokerConfig) -> Self {
        self.broker = Some(broker);
        self
    }

    /// What Celery's environment variables say: `CELERY_BROKER_URL`,
    /// `CELERY_BROKER_WRITE_URL` and `CELERY_BROKER_READ_URL`. As in Celery they
    /// win over what is in the code; a URL that is given after this wins over the one of its name.
    pub fn env(mut self) -> Self {
        let get = |name: &str| std::env::var(name).ok().filter(|url| !url.trim().is_empty());
        self.urls.both = get("CELERY_BROKER_URL").or(self.urls.both);
        self.urls.write = get("CELERY_BROKER_WRITE_URL").or(self.urls.write);
        self.urls.read = get("CELERY_BROKER_READ_URL").or(self.urls.read);
        self
    }

    /// One of Celery's `broker_transport_options`: `global_keyprefix`, `sep`,
    /// `priority_steps`, `visibility_timeout`, …
    pub fn transport_option(mut self, name: impl Into<String>, value: impl Into<Value>) -> Self {
        self.transport_options.insert(name.into(), value.into());
        self
    }

    /// How TLS is done. Without it only `amqps://` and `rediss://` use it,
    /// verified against the system's roots.
    pub fn tls(mut self, tls: Tls) -> Self {
        self.tls = Some(tls);
        self
    }

    /// AMQP's heartbeat; without it, the broker's own.
    pub fn heartbeat(mut self, heartbeat: Duration) -> Self {
        self.heartbeat = Some(heartbeat);
        self
    }

    /// The queue for signals that neither name one nor have a route: `celery`.
    pub fn default_queue(mut self, name: impl Into<String>) -> Self {
        self.default_queue = name.into();
        self
    }

    /// A queue, with its exchange and arguments. One that is only named
    /// somewhere is declared as Celery would: durable, direct, without arguments.
    pub fn queue(mut self, queue: Queue) -> Self {
        self.queues.push(queue);
        self
    }

    /// Whether queues that are only named somewhere are made: yes. Otherwise
    /// sending to one is an error.
    pub fn create_missing_queues(mut self, create: bool) -> Self {
        self.create_missing_queues = create;
        self
    }

    /// RabbitMQ's `x-max-priority` for queues that say nothing of it.
    pub fn queue_max_priority(mut self, priority: u8) -> Self {
        self.queue_max_priority = Some(priority);
        self
    }

    /// The priority of signals that say nothing of it: 0.
    pub fn default_priority(mut self, priority: u8) -> Self {
        self.default_priority = Some(priority);
        self
    }

    /// Sends signals whose name fits the pattern to a queue, unless they name
    /// one. In a pattern `*` stands for any text; the first that fits counts.
    pub fn route(mut self, pattern: impl Into<String>, queue: impl Into<String>) -> Self {
        self.routes.push((pattern.into(), queue.into()));
        self
    }

    /// How sure sends are that do not say: confirmed.
    pub fn durability(mut self, durability: Durability) -> Self {
        self.durability = durability;
        self
    }

    /// How long a send may take, connecting included: 5 s.
    pub fn publish_timeout(mut self, timeout: Duration) -> Self {
        self.publish_timeout = timeout;
        self
    }

    /// How many background signals may wait for the broker, and how many bytes
    /// their bodies may have altogether: 10,000 and 64 MiB.
    pub fn buffer(mut self, messages: usize, bytes: usize) -> Self {
        self.buffer = (messages, bytes, self.buffer.2);
        self
    }

    /// How long a background send waits for room in a full buffer: 0.1 s.
    pub fn buffer_timeout(mut self, timeout: Duration) -> Self {
        self.buffer.2 = timeout;
        self
    }

    /// How large an encoded signal may be, in bytes: 1 MiB.
    pub fn max_message_bytes(mut self, bytes: usize) -> Self {
        self.max_message_bytes = bytes;
        self
    }

    /// Asks for the trace that each send belongs to, for its message's headers.
    pub fn trace_context(mut self, current: impl Fn() -> Option<TraceContext> + Send + Sync + 'static) -> Self {
        self.trace_context = Some(Arc::new(current));
        self
    }

    /// Hears of each background signal that will not arrive, beside the log.
    /// It is called on the publisher's thread, which it must not hold up.
    pub fn on_lost(mut self, hear: impl Fn(Uuid, &PublishError) + Send + Sync + 'static) -> Self {
        self.on_lost = Some(Arc::new(hear));
        self
    }

    /// Makes the app. Nothing is connected yet.
    ///
    /// # Errors
    ///
    /// [`ConfigError`].
    pub fn build(self) -> Result<Celery, ConfigError> {
        let Urls { both, write, read } = self.urls;
        let broker = |url: Option<String>| {
            if let Some(broker) = &self.broker {
                return Ok(broker.clone());
            }
            let mut broker = BrokerConfig::new(&url.ok_or(ConfigError::NotConfigured)?)?;
            if broker.urls.is_empty() {
                return Err(ConfigError::NotConfigured);
            }
            broker.transport_options = self.transport_options.clone();
            broker.tls = self.tls.clone();
            broker.heartbeat = self.heartbeat;
            Ok(broker)
        };
        let writing = broker(write.clone().or_else(|| both.clone()).or_else(|| read.clone()))?;
        let reading = broker(read.or(both).or(write))?;
        let mut queues = BTreeMap::new();
        for mut queue in self.queues {
            if let Some(priority) = self.queue_max_priority {
                queue.arguments.entry("x-max-priority").or_insert_with(|| priority.into());
            }
            queues.insert(queue.name.clone(), queue);
        }
        let names = queues.keys().chain([&self.default_queue]).chain(self.routes.iter().map(|(_, queue)| queue));
        names.into_iter().try_for_each(|name| check_queue_name(name))?;
        let mut publishing = PublisherConfig::new(writing);
        publishing.timeout = self.publish_timeout;
        (publishing.buffer_messages, publishing.buffer_bytes, publishing.buffer_timeout) = self.buffer;
        publishing.observer = Arc::new(Logged(self.on_lost));
        let host = gethostname::gethostname();
        let config = Config {
            publishing,
            reading,
            default_queue: self.default_queue,
            queues,
            create_missing_queues: self.create_missing_queues,
            queue_max_priority: self.queue_max_priority,
            routes: self.routes,
            default_priority: self.default_priority,
            durability: self.durability,
            max_message_bytes: self.max_message_bytes,
            trace_context: self.trace_context,
            origin: format!("gen{}@{}", std::process::id(), host.to_string_lossy()),
            reply_to: Uuid::new_v4().to_string().into(),
        };
        Ok(Celery(Arc::new(App { config, publisher: RwLock::new(None), is_shut_down: AtomicBool::new(false) })))
    }
}

pub(super) fn is_queue_name(name: &str) -> bool {
    (1..=255).contains(&name.len()) && !name.chars().any(char::is_control)
}

pub(crate) fn check_queue_name(name: &str) -> Result<(), ConfigError> {
    if is_queue_name(name) { Ok(()) } else { Err(ConfigError::QueueName { name: name.to_owned() }) }
}

/// Says in the log what no sender waits for.
struct Logged(Option<OnLost>);

impl Observer for Logged {
    fn lost(&self, message: &Message, error: &PublishError) {
        tracing::error!("signal {} is lost: {error}", message.id);
        if let Some(hear) = &self.0 {
            hear(message.id, error);
        }
    }

    fn disconnected(&self, error: &BrokerError) {
        tracing::warn!("the broker is away, and is tried again: {error}");
    }

    fn reconnected(&self) {
        tracing::info!("the broker is back");
    }

    fn held(&self, error: &BrokerError) {
        tracing::warn!("background signals of one queue wait in this process: {error}");
    }
}
