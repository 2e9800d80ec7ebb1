//! What a send means, before any bytes: one Celery task, and where it goes.

mod received;

use std::{borrow::Cow, sync::Arc};

use bytes::Bytes;
use serde::Deserialize;
use serde_json::{Map, Value};
use uuid::Uuid;

pub use self::received::ReceivedHeaders;
use crate::protocol::{
    celery::{self, TaskHeaders},
    compression::{self, CompressionError},
};

/// One task message: headers, properties and an encoded body.
#[derive(Clone, Debug)]
pub struct Message {
    /// The task's id. A resend carries the same one.
    pub id: Uuid,
    /// Celery's headers.
    pub headers: Headers,
    /// AMQP's properties, or their likeness in kombu's envelope.
    pub properties: Properties,
    /// `[args, kwargs, embed]`, already encoded.
    pub body: Bytes,
}

/// The headers of a message.
#[derive(Clone, Debug)]
pub enum Headers {
    /// The headers of a task, as Celery writes them.
    Task(Box<TaskHeaders>),
    /// Headers that somebody else made (a `before_task_publish` receiver may
    /// have changed them): passed on as they are, in their order.
    Raw(Map<String, Value>),
}

/// The message's properties, in AMQP's terms.
#[derive(Clone, Debug)]
pub struct Properties {
    /// `application/json` for every message of ours.
    pub content_type: Arc<str>,
    /// `utf-8` for every message of ours.
    pub content_encoding: Arc<str>,
    /// 1 transient, 2 persistent.
    pub delivery_mode: u8,
    /// 0 to 255. RabbitMQ serves high numbers first, Redis (through kombu) low ones.
    pub priority: u8,
    /// The task's id as text. Empty: there is none.
    pub correlation_id: String,
    /// Where an answer would go. Celery always sends one.
    pub reply_to: Option<Arc<str>>,
    /// How long the broker may keep the message, in milliseconds.
    pub expiration_ms: Option<u64>,
}

impl Properties {
    /// The properties that Celery gives a task with this id.
    pub fn for_task(id: Uuid) -> Self {
        Self {
            content_type: "application/json".into(),
            content_encoding: "utf-8".into(),
            delivery_mode: 2,
            priority: 0,
            correlation_id: id.to_string(),
            reply_to: None,
            expiration_ms: None,
        }
    }
}

/// Where a message goes, and what must exist there first.
#[derive(Clone, Debug, Default, PartialEq, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Route {
    /// The exchange; empty for AMQP's default exchange.
    pub exchange: String,
    /// The routing key; the queue's name on the default exchange.
    pub routing_key: String,
    /// Declared, in order, before the first message on a connection.
    pub declare: Vec<Queue>,
}

impl Route {
    /// Straight to a durable queue, on the default exchange.
    ///
    /// The queue is declared the way Celery declares it when nothing but its
    /// name is known: bound to a direct exchange of the same name.
    ///
    /// ```
    /// let route = async_signals::message::Route::to_queue("celery");
    /// assert_eq!((route.exchange.as_str(), route.routing_key.as_str()), ("", "celery"));
    /// ```
    pub fn to_queue(name: &str) -> Self {
        Self { exchange: String::new(), routing_key: name.to_owned(), declare: vec![Queue::direct(name)] }
    }
}

/// A queue to declare, in kombu's terms.
#[derive(Clone, Debug, PartialEq, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Queue {
    /// The queue's name.
    pub name: String,
    /// The exchange that it is bound to, if any.
    pub exchange: Option<Exchange>,
    /// The key that it is bound with.
    pub routing_key: String,
    /// Survives a restart of the broker.
    pub durable: bool,
    /// For one connection only.
    pub exclusive: bool,
    /// Deleted when its last consumer goes.
    pub auto_delete: bool,
    /// Declared only if true (kombu's `no_declare` is its opposite).
    pub declare: bool,
    /// `x-queue-type`, `x-max-priority`, `x-expires`, …
    pub arguments: Map<String, Value>,
    /// Arguments of the binding.
    pub binding_arguments: Map<String, Value>,
}

impl Queue {
    /// A durable queue, bound to the direct exchange of its own name.
    pub fn direct(name: &str) -> Self {
        Self {
            name: name.to_owned(),
            exchange: Some(Exchange::direct(name)),
            routing_key: name.to_owned(),
            durable: true,
            exclusive: false,
            auto_delete: false,
            declare: true,
            arguments: Map::new(),
            binding_arguments: Map::new(),
        }
    }

    /// The same queue, bound to an exchange with a routing key.
    ///
    /// ```
    /// use async_signals::message::{Exchange, Queue};
    ///
    /// let topic = Exchange { kind: "topic".to_owned(), ..Exchange::direct("shop") };
    /// let queue = Queue::direct("orders").bound_to(topic, "order.*").max_priority(10);
    /// assert_eq!(queue.arguments["x-max-priority"], 10);
    /// ```
    pub fn bound_to(mut self, exchange: Exchange, routing_key: &str) -> Self {
        self.exchange = Some(exchange);
        routing_key.clone_into(&mut self.routing_key);
        self
    }

    /// The same queue with another argument: `x-message-ttl`, `x-max-length`, …
    pub fn argument(mut self, name: &str, value: impl Into<Value>) -> Self {
        self.arguments.insert(name.to_owned(), value.into());
        self
    }

    /// The same queue with priorities up to this one, on RabbitMQ: `x-max-priority`.
    pub fn max_priority(self, priority: u8) -> Self {
        self.argument("x-max-priority", priority)
    }

    /// The same queue as a quorum queue, on RabbitMQ: `x-queue-type`.
    pub fn quorum(self) -> Self {
        self.argument("x-queue-type", "quorum")
    }
}

/// An exchange to declare.
#[derive(Clone, Debug, PartialEq, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Exchange {
    /// The exchange's name.
    pub name: String,
    /// `direct`, `topic`, `fanout` or `headers`.
    pub kind: String,
    /// Survives a restart of the broker.
    pub durable: bool,
    /// Deleted when its last queue goes.
    pub auto_delete: bool,
    /// Declared only if true (kombu's `no_declare` and `passive` make it false).
    pub declare: bool,
    /// `alternate-exchange`, …
    pub arguments: Map<String, Value>,
}

impl Exchange {
    /// A durable direct exchange.
    pub fn direct(name: &str) -> Self {
        Self {
            name: name.to_owned(),
            kind: "direct".to_owned(),
            durable: true,
            auto_delete: false,
            declare: true,
            arguments: Map::new(),
        }
    }
}

/// A message and its way.
#[derive(Clone, Debug)]
pub struct Outgoing {
    /// Where it goes. Shared by all messages of one signal.
    pub route: Arc<Route>,
    /// What goes there.
    pub message: Message,
}

/// An event, such as Celery's `task-sent`: for whoever listens at the moment, and kept for nobody.
#[derive(Clone, Debug)]
pub struct TaskEvent {
    /// The exchange that listeners bind their queues to.
    pub exchange: Arc<Exchange>,
    /// What listeners choose by: `task.sent`.
    pub routing_key: Arc<str>,
    /// What they get. It has no correlation id.
    pub message: Message,
}

/// A message as it came out of a queue.
#[derive(Clone, Debug)]
pub struct Incoming {
    /// Its headers, whoever made them.
    pub headers: ReceivedHeaders,
    /// Its properties; what is missing has the value that AMQP gives it.
    pub properties: Properties,
    /// The exchange it was published to; empty for AMQP's default exchange.
    pub exchange: String,
    /// The routing key it was published with.
    pub routing_key: String,
    /// `[args, kwargs, embed]`, still encoded.
    pub body: Bytes,
}

impl Incoming {
    /// A header that is text; empty where there is none.
    pub(crate) fn text(&self, header: &str) -> &str {
        self.headers.text(header).unwrap_or_default()
    }

    /// Whether it is a signal, and not another task.
    pub(crate) fn is_signal(&self) -> bool {
        self.text("task") == celery::TASK
    }

    /// The task's id, where it is one of ours.
    pub(crate) fn id(&self) -> Option<Uuid> {
        self.text("id").parse().ok()
    }

    /// The body as it was before its sender's Celery compressed it, if it did.
    ///
    /// # Errors
    ///
    /// See [`CompressionError`].
    pub fn plain_body(&self) -> Result<Cow<'_, [u8]>, CompressionError> {
        if self.headers.is_plain() {
            Ok(Cow::Borrowed(&self.body))
        } else {
            compression::plain(&self.headers, &self.body)
        }
    }
}
