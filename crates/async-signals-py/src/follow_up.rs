//! What follows a message that a Celery task could not simply finish.

use std::time::SystemTime;

use async_signals::{
    follow::{self, Failure, Follow as Core, Ours},
    message::{Headers, Incoming as Message, Message as Outgoing},
    retry,
};
use bytes::Bytes;
use pyo3::{
    prelude::*,
    types::{PyBytes, PyDict, PyFrozenSet},
};
use serde_json::{Map, Value, json};

use crate::{convert, publisher::PropertyOptions};

/// A message as Celery handed it over, with its body encoded again.
///
/// `taken_from` is the queue that it was taken from, as far as Celery knows.
#[pyclass(frozen, module = "async_signals._native")]
struct Incoming {
    message: Message,
    ours: Ours,
}

#[pymethods]
impl Incoming {
    #[new]
    fn new(
        headers: &Bound<'_, PyDict>,
        properties: &Bound<'_, PyDict>,
        exchange: String,
        routing_key: String,
        body: &Bound<'_, PyBytes>,
    ) -> PyResult<Self> {
        let properties: PropertyOptions = convert::to_core(properties, "properties")?;
        let headers = convert::foreign_map(headers);
        let ours = Ours::of(&headers);
        let body = Bytes::copy_from_slice(body.as_bytes());
        Ok(Self {
            message: Message { headers: headers.into(), properties: properties.into(), exchange, routing_key, body },
            ours,
        })
    }

    /// The queue that it was sent to.
    fn own_queue(&self, taken_from: &str) -> String {
        follow::own_queue(&self.message, taken_from)
    }

    /// Which try of its receivers this is, from 1.
    #[getter]
    fn attempt(&self) -> u32 {
        self.ours.attempt
    }

    /// How often it was taken before, within this try, and not finished.
    #[getter]
    fn deliveries(&self) -> u32 {
        self.ours.deliveries
    }

    /// When it was sent, in seconds since 1970.
    #[getter]
    fn sent_at(&self) -> Option<f64> {
        self.ours.sent_at
    }

    /// The names of the receivers that it is still for; None: all.
    #[getter]
    fn receivers<'py>(&self, py: Python<'py>) -> PyResult<Option<Bound<'py, PyFrozenSet>>> {
        self.ours.receivers.as_ref().map(|names| PyFrozenSet::new(py, names)).transpose()
    }

    /// What follows because it was taken before and not finished.
    fn delivered_before(&self, taken_from: &str, most: u32) -> FollowUp {
        follow::delivered_before(&self.message, &self.own_queue(taken_from), most, SystemTime::now()).into()
    }

    /// What follows because receivers failed.
    fn failed(&self, taken_from: &str, failures: Vec<Bound<'_, PyDict>>) -> PyResult<Vec<FollowUp>> {
        let failures: Vec<Failure> =
            failures.iter().map(|failure| convert::to_core(failure, "failure")).collect::<PyResult<_>>()?;
        let follows = follow::failed(
            &self.message,
            &self.own_queue(taken_from),
            &failures,
            SystemTime::now(),
            &mut retry::random,
        );
        Ok(follows.into_iter().map(FollowUp::from).collect())
    }

    /// It, as it waits for somebody to resume it.
    fn paused(&self, taken_from: &str) -> FollowUp {
        Core::Again(follow::paused(&self.message, &self.own_queue(taken_from), SystemTime::now())).into()
    }

    /// It, as it is put into the dead-letter queue.
    fn dead_letter(&self, taken_from: &str, kind: &str, reason: &str) -> FollowUp {
        Core::Parked(follow::parked(&self.message, &self.own_queue(taken_from), kind, reason, SystemTime::now())).into()
    }
}

/// A message that is published in the place of one that was taken.
#[pyclass(frozen, module = "async_signals._native")]
pub(crate) struct FollowUp {
    dead_letter: bool,
    pub(crate) message: Outgoing,
}

impl From<Core> for FollowUp {
    fn from(follow: Core) -> Self {
        match follow {
            Core::Again(message) => Self { dead_letter: false, message },
            Core::Parked(message) => Self { dead_letter: true, message },
        }
    }
}

#[pymethods]
impl FollowUp {
    /// Whether it goes into the dead-letter queue.
    #[getter]
    fn dead_letter(&self) -> bool {
        self.dead_letter
    }

    /// Why it goes there, in a sentence.
    #[getter]
    fn reason(&self) -> Option<&str> {
        follow::why_parked(&self.message).map(|(_, reason)| reason)
    }

    /// The same as a word, such as `ReceiversFailed`.
    #[getter]
    fn kind(&self) -> Option<&str> {
        follow::why_parked(&self.message).map(|(kind, _)| kind)
    }

    /// Before when it does not run, as Celery writes it.
    #[getter]
    fn eta(&self) -> Option<&str> {
        self.raw()?.get("eta")?.as_str()
    }

    /// The names of the receivers that it is for; None: all.
    #[getter]
    fn receivers(&self) -> Option<Vec<String>> {
        Ours::of(self.raw()?).receivers
    }

    /// Its headers, as JSON.
    #[getter]
    fn headers(&self) -> String {
        json!(self.raw()).to_string()
    }

    /// Its properties, as JSON.
    #[getter]
    fn properties(&self) -> String {
        let properties = &self.message.properties;
        json!({
            "content_type": properties.content_type,
            "content_encoding": properties.content_encoding,
            "delivery_mode": properties.delivery_mode,
            "priority": properties.priority,
            "correlation_id": properties.correlation_id,
            "reply_to": properties.reply_to,
            "expiration_ms": properties.expiration_ms,
        })
        .to_string()
    }

    /// Its body.
    #[getter]
    fn body<'py>(&self, py: Python<'py>) -> Bound<'py, PyBytes> {
        PyBytes::new(py, &self.message.body)
    }
}

impl FollowUp {
    /// What follows always has headers of this kind: it keeps those that came.
    fn raw(&self) -> Option<&Map<String, Value>> {
        match &self.message.headers {
            Headers::Raw(headers) => Some(headers),
            Headers::Task(_) => None,
        }
    }
}

pub(crate) fn register(module: &Bound<'_, PyModule>) -> PyResult<()> {
    module.add_class::<Incoming>()?;
    module.add_class::<FollowUp>()
}
