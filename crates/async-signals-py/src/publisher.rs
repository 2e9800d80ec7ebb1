//! The publisher as Python sees it.

use std::{
    sync::{Arc, Mutex, PoisonError},
    time::Duration,
};

use async_signals::{
    message::{Headers, Message, Outgoing, Properties, Route, TaskEvent},
    publisher::{Outcome, Publisher as Core, PublisherConfig, Receipt as CoreReceipt},
};
use bytes::Bytes;
use pyo3::{
    exceptions::PyValueError,
    prelude::*,
    types::{PyBytes, PyDict},
};
use serde::Deserialize;
use uuid::Uuid;

use crate::{
    broker::{self, seconds},
    convert, error,
    events::{self, PublisherObserver},
    follow_up::FollowUp,
    sent_event::SentEvent,
};

/// How often a waiting thread looks for Ctrl-C.
const SIGNAL_CHECK: Duration = Duration::from_millis(100);

/// Sends messages to one broker; every thread of the process shares it.
///
/// `urls` are kombu URLs, tried in turn; times are in seconds. `observer` has
/// `lost(id, error)`, `disconnected(error)`, `reconnected()` and `held(error)`,
/// which are called on a thread of their own.
#[pyclass(frozen, module = "async_signals._native")]
pub(crate) struct Publisher {
    core: Arc<Core>,
}

#[pymethods]
impl Publisher {
    #[new]
    #[pyo3(signature = (
        urls, *, observer, timeout, buffer_size, buffer_timeout, transport_options=None, tls=None, heartbeat=None,
    ))]
    #[allow(clippy::too_many_arguments, reason = "keyword arguments of Python")]
    fn new(
        py: Python<'_>,
        urls: Vec<String>,
        observer: Py<PyAny>,
        timeout: f64,
        buffer_size: usize,
        buffer_timeout: f64,
        transport_options: Option<&Bound<'_, PyDict>>,
        tls: Option<&Bound<'_, PyDict>>,
        heartbeat: Option<f64>,
    ) -> PyResult<Self> {
        let broker = broker::config(py, &urls, transport_options, tls, heartbeat)?;
        let config = PublisherConfig {
            timeout: seconds(timeout)?,
            buffer_messages: buffer_size,
            buffer_timeout: seconds(buffer_timeout)?,
            observer: Arc::new(PublisherObserver::new(observer)),
            ..PublisherConfig::new(broker)
        };
        Ok(Self { core: Arc::new(Core::start(config)?) })
    }

    /// A message with headers, properties and a body that somebody else made.
    fn message(
        &self,
        route: &Bound<'_, PyDict>,
        headers: &Bound<'_, PyDict>,
        properties: &Bound<'_, PyDict>,
        body: &Bound<'_, PyBytes>,
    ) -> PyResult<PreparedMessage> {
        let properties: PropertyOptions = convert::to_core(properties, "properties")?;
        let id = parse_id(&properties.correlation_id)?;
        let message = Message {
            id,
            headers: Headers::Raw(convert::to_map(headers, "headers")?),
            properties: properties.into(),
            body: Bytes::copy_from_slice(body.as_bytes()),
        };
        let route = Arc::new(convert::to_core::<Route>(route, "route")?);
        Ok(PreparedMessage { core: self.core.clone(), outgoing: Outgoing { route, message }, sent_event: None })
    }

    /// A message that follows one that could not simply be finished.
    fn follow_up(&self, route: &Bound<'_, PyDict>, follow_up: &FollowUp) -> PyResult<PreparedMessage> {
        let route = Arc::new(convert::to_core::<Route>(route, "route")?);
        Ok(PreparedMessage {
            core: self.core.clone(),
            outgoing: Outgoing { route, message: follow_up.message.clone() },
            sent_event: None,
        })
    }

    /// Publishes an event that somebody else made behind what was sent before. Nobody waits for it: while the broker
    /// is away it is dropped, and where a broker has no way to those who listen, it always is.
    fn publish_event(
        &self,
        py: Python<'_>,
        exchange: &Bound<'_, PyDict>,
        routing_key: &str,
        headers: &Bound<'_, PyDict>,
        properties: &Bound<'_, PyDict>,
        body: &Bound<'_, PyBytes>,
    ) -> PyResult<()> {
        let properties: PropertyOptions = convert::to_core(properties, "properties")?;
        let event = TaskEvent {
            exchange: Arc::new(convert::to_core(exchange, "exchange")?),
            routing_key: routing_key.into(),
            message: Message {
                id: Uuid::nil(),
                headers: Headers::Raw(convert::to_map(headers, "headers")?),
                properties: properties.into(),
                body: Bytes::copy_from_slice(body.as_bytes()),
            },
        };
        self.core.publish_event(event).map_err(|error| error::not_sent(py, &error))
    }

    /// Begins to wait until the broker has all that was sent before, at most `timeout` seconds.
    fn start_flush(&self, py: Python<'_>, timeout: f64) -> PyResult<Receipt> {
        events::follow_levels(py);
        let timeout = seconds(timeout)?;
        let core = self.core.flush(timeout).map_err(|error| error::not_sent(py, &error))?;
        Ok(Receipt::new(core, timeout))
    }

    /// How many background messages have not reached the broker yet.
    #[getter]
    fn buffered(&self) -> usize {
        self.core.buffered()
    }
}

impl Publisher {
    pub(crate) fn core(&self) -> Arc<Core> {
        self.core.clone()
    }
}

/// A message that is ready to go.
#[pyclass(frozen, module = "async_signals._native")]
pub(crate) struct PreparedMessage {
    pub(crate) core: Arc<Core>,
    pub(crate) outgoing: Outgoing,
    /// Goes right behind it.
    pub(crate) sent_event: Option<Arc<SentEvent>>,
}

#[pymethods]
impl PreparedMessage {
    /// The task's id.
    #[getter]
    fn id(&self) -> String {
        self.outgoing.message.id.to_string()
    }

    /// The encoded `[args, kwargs, embed]`.
    #[getter]
    fn body<'py>(&self, py: Python<'py>) -> Bound<'py, PyBytes> {
        PyBytes::new(py, &self.outgoing.message.body)
    }

    /// Sends it and waits until the broker has confirmed it.
    fn confirm(&self, py: Python<'_>) -> PyResult<()> {
        let receipt = self.send(py, None)?;
        wait(py, &receipt)?.map_err(|error| error::not_sent(py, &error))
    }

    /// Sends it without waiting for the broker's word, which is to come within `timeout` seconds, else within those
    /// of the publisher.
    #[pyo3(signature = (timeout=None))]
    fn start(&self, py: Python<'_>, timeout: Option<f64>) -> PyResult<Receipt> {
        let timeout = timeout.map_or(Ok(self.core.timeout()), seconds)?;
        Ok(Receipt::new(self.send(py, Some(timeout))?, timeout))
    }

    /// Puts it into the buffer of background messages, waiting for room if it must.
    fn buffer(&self, py: Python<'_>) -> PyResult<()> {
        let event = self.event(py);
        let result = if self.core.has_room(&self.outgoing) {
            self.core.try_buffer_with_event(self.outgoing.clone(), event)
        } else {
            py.detach(|| self.core.buffer_with_event(self.outgoing.clone(), event))
        };
        result.map_err(|error| error::not_sent(py, &error))
    }

    /// The same, but without any wait for room.
    fn try_buffer(&self, py: Python<'_>) -> PyResult<()> {
        try_buffer(py, &self.core, self.outgoing.clone(), self.sent_event.as_deref())
    }
}

impl PreparedMessage {
    fn send(&self, py: Python<'_>, timeout: Option<Duration>) -> PyResult<CoreReceipt> {
        let receipt = self.core.send_with_event(self.outgoing.clone(), self.event(py), timeout);
        receipt.map_err(|error| error::not_sent(py, &error))
    }

    fn event(&self, py: Python<'_>) -> Option<Box<TaskEvent>> {
        self.sent_event.as_ref().and_then(|event| event.of(py, &self.outgoing.message))
    }
}

/// The promise of an outcome for one message, or for a flush. It is kept by the deadline.
#[pyclass(frozen, module = "async_signals._native")]
pub(crate) struct Receipt {
    /// Taken by who has itself called back.
    core: Mutex<Option<CoreReceipt>>,
    timeout: Duration,
}

#[pymethods]
impl Receipt {
    /// Within how many seconds it is settled.
    #[getter]
    fn timeout(&self) -> f64 {
        self.timeout.as_secs_f64()
    }

    /// Waits until it is settled; returns an exception, or None.
    fn wait(&self, py: Python<'_>) -> PyResult<Option<PyErr>> {
        let core = self.take()?;
        Ok(wait(py, &core)?.err().map(|error| error::not_sent(py, &error)))
    }

    /// Has `callback` called with an exception or None, once, on the publisher's thread: it must not block.
    fn on_settled(&self, py: Python<'_>, callback: Py<PyAny>) -> PyResult<()> {
        let core = self.take()?;
        // Not with the interpreter's lock held: the callback may come at once.
        py.detach(|| {
            core.on_settled(move |outcome| {
                // The interpreter may be on its way out, and then nobody waits.
                events::attach(|py| {
                    let error = outcome.err().map(|error| error::not_sent(py, &error));
                    if let Err(error) = callback.call1(py, (error,)) {
                        error.write_unraisable(py, None);
                    }
                });
            });
        });
        Ok(())
    }
}

impl Receipt {
    fn new(core: CoreReceipt, timeout: Duration) -> Self {
        Self { core: Mutex::new(Some(core)), timeout }
    }

    fn take(&self) -> PyResult<CoreReceipt> {
        let taken = self.core.lock().unwrap_or_else(PoisonError::into_inner).take();
        taken.ok_or_else(|| PyValueError::new_err("a receipt is waited for once"))
    }
}

/// Buffers a message without any wait for room.
pub(crate) fn try_buffer(
    py: Python<'_>,
    core: &Core,
    outgoing: Outgoing,
    sent_event: Option<&SentEvent>,
) -> PyResult<()> {
    let event = sent_event.and_then(|event| event.of(py, &outgoing.message));
    core.try_buffer_with_event(outgoing, event).map_err(|error| error::not_sent(py, &error))
}

/// Waits without the interpreter's lock, and lets Ctrl-C through.
fn wait(py: Python<'_>, receipt: &CoreReceipt) -> PyResult<Outcome> {
    loop {
        if let Some(outcome) = py.detach(|| receipt.wait_for(SIGNAL_CHECK)) {
            return Ok(outcome);
        }
        py.check_signals()?;
    }
}

/// Properties as `kombu.Producer.publish` has them at the end.
#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct PropertyOptions {
    content_type: String,
    content_encoding: String,
    delivery_mode: u8,
    priority: u8,
    /// Events have none.
    #[serde(default)]
    pub(crate) correlation_id: String,
    #[serde(default)]
    reply_to: Option<String>,
    /// Milliseconds, as text: AMQP's form.
    #[serde(default)]
    expiration: Option<String>,
}

impl From<PropertyOptions> for Properties {
    fn from(options: PropertyOptions) -> Self {
        Self {
            content_type: options.content_type.into(),
            content_encoding: options.content_encoding.into(),
            delivery_mode: options.delivery_mode,
            priority: options.priority,
            correlation_id: options.correlation_id,
            reply_to: options.reply_to.map(Into::into),
            expiration_ms: options.expiration.and_then(|text| text.parse().ok()),
        }
    }
}

pub(crate) fn parse_id(text: &str) -> PyResult<Uuid> {
    text.parse().map_err(|_| PyValueError::new_err(format!("task id {text:?} is no UUID")))
}

pub(crate) fn register(module: &Bound<'_, PyModule>) -> PyResult<()> {
    module.add_class::<Publisher>()?;
    module.add_class::<PreparedMessage>()?;
    module.add_class::<Receipt>()
}
