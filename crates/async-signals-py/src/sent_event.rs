//! Celery's event `task-sent` beside each message of a signal (`task_send_sent_event`), without a way through Python.

use std::{
    io::Write,
    sync::{Arc, Mutex, PoisonError},
};

use async_signals::message::{Exchange, Headers, Message, Properties, TaskEvent};
use bytes::Bytes;
use pyo3::{
    exceptions::{PyKeyError, PyValueError},
    prelude::*,
    types::PyDict,
};
use serde_json::{Map, Value};
use uuid::Uuid;

use crate::{convert, publisher::PropertyOptions, template::now};

/// What differs from event to event; all else is as it was in the one that Celery made.
const OF_ONE_EVENT: [&str; 6] = ["uuid", "root_id", "parent_id", "clock", "utcoffset", "timestamp"];

/// The events of one signal: what stays the same from one to the next.
///
/// Made of a dictionary: `exchange` as in a route; `routing_key`; `headers` and
/// `properties` as Celery publishes the event with; `fields`, the event that
/// Celery made for one message; `forward_clock`, its `app.clock.forward`; and
/// `utcoffset`, its function of that name.
pub(crate) struct SentEvent {
    exchange: Arc<Exchange>,
    routing_key: Arc<str>,
    headers: Map<String, Value>,
    properties: Properties,
    /// The beginning of the event as JSON.
    fields: String,
    forward_clock: Py<PyAny>,
    /// Asked again and again: summer time comes and goes, and versions of Celery round it in different ways.
    utcoffset: Py<PyAny>,
    /// What it said in which minute since 1970.
    known_offset: Mutex<Option<(i64, f64)>>,
}

impl SentEvent {
    pub(crate) fn new(given: &Bound<'_, PyDict>) -> PyResult<Self> {
        let part = |name: &str| given.get_item(name)?.ok_or_else(|| PyKeyError::new_err(name.to_owned()));
        let table = |name: &str| Ok::<_, PyErr>(part(name)?.cast_into::<PyDict>()?);
        let mut fields = convert::to_map(&table("fields")?, "fields")?;
        fields.retain(|name, _| !OF_ONE_EVENT.contains(&name.as_str()));
        let mut fields = serde_json::to_string(&fields).map_err(|error| PyValueError::new_err(error.to_string()))?;
        // The others are written behind them.
        fields.pop();
        fields += if fields.len() > 1 { "," } else { "" };
        let properties: PropertyOptions = convert::to_core(&table("properties")?, "properties")?;
        Ok(Self {
            exchange: Arc::new(convert::to_core(&table("exchange")?, "exchange")?),
            routing_key: part("routing_key")?.extract::<String>()?.into(),
            headers: convert::to_map(&table("headers")?, "headers")?,
            properties: properties.into(),
            fields,
            forward_clock: part("forward_clock")?.unbind(),
            utcoffset: part("utcoffset")?.unbind(),
            known_offset: Mutex::default(),
        })
    }

    /// The event of one message. None if there is none to make, which must not hinder the message.
    pub(crate) fn of(&self, py: Python<'_>, message: &Message) -> Option<Box<TaskEvent>> {
        let Headers::Task(task) = &message.headers else { return None };
        let clock: u64 = self.forward_clock.call0(py).and_then(|clock| clock.extract(py)).ok()?;
        let timestamp = now();
        let utcoffset = self.utcoffset_at(py, timestamp)?;
        let (mut id, mut body) = (Uuid::encode_buffer(), Vec::with_capacity(self.fields.len() + 256));
        let id: &str = task.id.hyphenated().encode_lower(&mut id);
        body.extend_from_slice(self.fields.as_bytes());
        write!(body, r#""clock":{clock},"utcoffset":{utcoffset},"uuid":"{id}","root_id":"#).ok()?;
        serde_json::to_writer(&mut body, task.root_id.as_deref().unwrap_or(id)).ok()?;
        body.extend_from_slice(br#","parent_id":"#);
        serde_json::to_writer(&mut body, &task.parent_id).ok()?;
        write!(body, r#","timestamp":{timestamp}}}"#).ok()?;
        Some(Box::new(TaskEvent {
            exchange: self.exchange.clone(),
            routing_key: self.routing_key.clone(),
            message: Message {
                id: Uuid::nil(),
                headers: Headers::Raw(self.headers.clone()),
                properties: self.properties.clone(),
                body: Bytes::from(body),
            },
        }))
    }

    /// Celery's `utcoffset()`, which is asked once a minute.
    fn utcoffset_at(&self, py: Python<'_>, timestamp: f64) -> Option<f64> {
        #[allow(clippy::cast_possible_truncation, reason = "time has not run that long")]
        let minute = (timestamp / 60.0) as i64;
        let known = *self.known_offset.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some((_, hours)) = known.filter(|(when, _)| *when == minute) {
            return Some(hours);
        }
        let hours: f64 = self.utcoffset.call0(py).and_then(|hours| hours.extract(py)).ok()?;
        *self.known_offset.lock().unwrap_or_else(PoisonError::into_inner) = Some((minute, hours));
        Some(hours)
    }
}
