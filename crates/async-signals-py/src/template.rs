//! One signal's way out: what stays the same from send to send, made once.

use std::{
    sync::Arc,
    time::{Duration, SystemTime, UNIX_EPOCH},
};

use async_signals::{
    message::{Headers, Message, Outgoing, Properties, Route},
    protocol::{
        celery::{self, CommonHeaders, TaskHeaders},
        json::Limits,
    },
    publisher::Publisher as Core,
};
use bytes::Bytes;
use pyo3::{
    exceptions::PyValueError,
    prelude::*,
    types::{PyDict, PyString},
};
use serde::Deserialize;
use serde_json::{Map, Value};
use uuid::Uuid;

use crate::{
    convert, encode,
    publisher::{self, PreparedMessage, PropertyOptions, Publisher},
    sent_event::SentEvent,
};

/// Sends one signal over one route.
///
/// `headers` and `properties` are those that Celery made for a message of the
/// same task on the same route; each send fills in its own id, time and body.
/// A ValueError says that they hold something that is not the same for every send.
/// `sent_event`, if given, is published right behind each message; see `sent_event.rs`.
#[pyclass(frozen, module = "async_signals._native")]
pub(crate) struct MessageTemplate {
    core: Arc<Core>,
    signal: String,
    route: Arc<Route>,
    headers: Arc<CommonHeaders>,
    properties: Properties,
    limits: Limits,
    sent_event: Option<Arc<SentEvent>>,
}

#[pymethods]
impl MessageTemplate {
    #[new]
    #[pyo3(signature = (publisher, signal, *, route, headers, properties, max_bytes, sent_event=None))]
    #[allow(clippy::too_many_arguments, reason = "keyword arguments of Python")]
    fn new(
        publisher: &Publisher,
        signal: String,
        route: &Bound<'_, PyDict>,
        headers: &Bound<'_, PyDict>,
        properties: &Bound<'_, PyDict>,
        max_bytes: usize,
        sent_event: Option<&Bound<'_, PyDict>>,
    ) -> PyResult<Self> {
        let template: TaskTemplateHeaders = serde_json::from_value(Value::Object(convert::to_map(headers, "headers")?))
            .map_err(|error| PyValueError::new_err(format!("headers: {error}")))?;
        let properties: PropertyOptions = convert::to_core(properties, "properties")?;
        Ok(Self {
            core: publisher.core(),
            signal,
            route: Arc::new(convert::to_core(route, "route")?),
            headers: Arc::new(template.into_headers()?),
            properties: properties.into(),
            limits: Limits::sending(max_bytes),
            sent_event: sent_event.map(|given| SentEvent::new(given).map(Arc::new)).transpose()?,
        })
    }

    /// Encodes one send. `parent` is the id of the task that sends, and of its root.
    #[pyo3(signature = (sender, named, parent=None))]
    fn prepare(
        &self,
        py: Python<'_>,
        sender: &Bound<'_, PyAny>,
        named: &Bound<'_, PyDict>,
        parent: Option<(String, String)>,
    ) -> PyResult<PreparedMessage> {
        let outgoing = self.outgoing(py, sender, named, parent)?;
        Ok(PreparedMessage { core: self.core.clone(), outgoing, sent_event: self.sent_event.clone() })
    }

    /// Encodes one send, buffers it and returns its id. It does not wait for room in a full buffer.
    #[pyo3(signature = (sender, named, parent=None))]
    fn background<'py>(
        &self,
        py: Python<'py>,
        sender: &Bound<'py, PyAny>,
        named: &Bound<'py, PyDict>,
        parent: Option<(String, String)>,
    ) -> PyResult<Bound<'py, PyString>> {
        let outgoing = self.outgoing(py, sender, named, parent)?;
        let id = PyString::new(py, outgoing.message.id.hyphenated().encode_lower(&mut Uuid::encode_buffer()));
        publisher::try_buffer(py, &self.core, outgoing, self.sent_event.as_deref())?;
        Ok(id)
    }
}

impl MessageTemplate {
    fn outgoing(
        &self,
        py: Python<'_>,
        sender: &Bound<'_, PyAny>,
        named: &Bound<'_, PyDict>,
        parent: Option<(String, String)>,
    ) -> PyResult<Outgoing> {
        let body = encode::encode_body(py, &self.signal, sender, named, self.limits)?;
        let id = self.core.next_id();
        let (parent_id, root_id) = parent.unzip();
        let headers = TaskHeaders {
            common: self.headers.clone(),
            id,
            root_id: root_id.map(Into::into),
            parent_id: parent_id.map(Into::into),
            sent_at: now(),
        };
        let properties = Properties { correlation_id: id.to_string(), ..self.properties.clone() };
        let message = Message { id, headers: Headers::Task(Box::new(headers)), properties, body: Bytes::from(body) };
        Ok(Outgoing { route: self.route.clone(), message })
    }
}

/// Seconds since 1970.
pub(crate) fn now() -> f64 {
    SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or(Duration::ZERO).as_secs_f64()
}

/// The headers of a message that Celery made, as `as_task_v2` names them.
#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct TaskTemplateHeaders {
    lang: String,
    task: String,
    #[serde(rename = "id")]
    _id: String,
    shadow: Option<String>,
    eta: Option<String>,
    expires: Option<String>,
    group: Option<String>,
    group_index: Option<u32>,
    retries: u32,
    timelimit: (Option<f64>, Option<f64>),
    #[serde(rename = "root_id")]
    _root_id: String,
    #[serde(rename = "parent_id")]
    _parent_id: Option<String>,
    argsrepr: String,
    kwargsrepr: String,
    origin: String,
    ignore_result: bool,
    #[serde(default)]
    replaced_task_nesting: u32,
    stamped_headers: Option<Vec<String>>,
    stamps: Map<String, Value>,
    async_signals: Ours,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Ours {
    queue: String,
    #[serde(rename = "sent_at")]
    _sent_at: f64,
}

impl TaskTemplateHeaders {
    fn into_headers(self) -> PyResult<CommonHeaders> {
        let of_one_send = self.eta.is_some()
            || self.expires.is_some()
            || self.group.is_some()
            || self.group_index.is_some()
            || self.lang != "py"
            || self.task != celery::TASK;
        if of_one_send {
            return Err(PyValueError::new_err("headers: eta, expires, group or another task"));
        }
        let headers = CommonHeaders::new(celery::Template {
            shadow: self.shadow,
            eta: None,
            expires: None,
            retries: self.retries,
            timelimit: self.timelimit,
            argsrepr: self.argsrepr,
            kwargsrepr: self.kwargsrepr,
            origin: self.origin,
            ignore_result: self.ignore_result,
            replaced_task_nesting: self.replaced_task_nesting,
            stamped_headers: self.stamped_headers,
            stamps: self.stamps,
            queue: self.async_signals.queue,
        });
        headers.map_err(|error| PyValueError::new_err(format!("headers: {error}")))
    }
}

pub(crate) fn register(module: &Bound<'_, PyModule>) -> PyResult<()> {
    module.add_class::<MessageTemplate>()
}
