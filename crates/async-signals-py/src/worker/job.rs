//! One message in Python's hands.

use std::{
    sync::{
        Arc, Mutex, PoisonError,
        atomic::{AtomicBool, Ordering},
    },
    time::SystemTime,
};

use async_signals::{
    follow::Ours,
    message::Incoming,
    worker::{Job as CoreJob, Outcome},
};
use pyo3::{
    prelude::*,
    types::{PyBytes, PyDict},
};

use crate::convert;

/// A message that is being run. Whoever gets to it first ends it: the thread
/// that runs it, or the watchdog.
#[derive(Debug)]
pub(super) struct Held {
    pub(super) incoming: Arc<Incoming>,
    pub(super) queue: Arc<str>,
    pub(super) redelivered: bool,
    pub(super) since: SystemTime,
    job: Mutex<Option<CoreJob>>,
    /// It was acknowledged by what runs it, as Celery does before most tasks.
    acknowledged: AtomicBool,
}

impl Held {
    pub(super) fn new(job: CoreJob) -> Self {
        Self {
            incoming: job.incoming().clone(),
            queue: job.queue.clone(),
            redelivered: job.redelivered,
            since: SystemTime::now(),
            job: Mutex::new(Some(job)),
            acknowledged: AtomicBool::new(false),
        }
    }

    /// Says what became of it; only the first one is heard, and knows.
    pub(super) fn finish(&self, outcome: Outcome) -> bool {
        let job = self.job.lock().unwrap_or_else(PoisonError::into_inner).take();
        let is_first = job.is_some();
        if let Some(job) = job {
            job.finish(outcome);
        }
        is_first
    }

    /// Whether nobody runs it again if this run is cut short.
    pub(super) fn is_acknowledged(&self) -> bool {
        self.acknowledged.load(Ordering::Acquire)
    }

    pub(super) fn text(&self, header: &str) -> &str {
        self.incoming.headers.text(header).unwrap_or_default()
    }
}

/// A message, and the promise to say what became of it.
///
/// It is ended once, by `done`, `rejected`, `unfinished` or `unfit`: the first
/// of them counts. Its attributes hold afterwards too.
#[pyclass(frozen, weakref, module = "async_signals._native")]
pub(crate) struct Job {
    pub(super) held: Arc<Held>,
}

#[pymethods]
impl Job {
    /// The task's id.
    #[getter]
    fn id(&self) -> &str {
        self.held.text("id")
    }

    /// The task's name.
    #[getter]
    fn task(&self) -> &str {
        self.held.text("task")
    }

    /// Celery's headers, as they were sent; a new dictionary each time.
    #[getter]
    fn headers<'py>(&self, py: Python<'py>) -> PyResult<Bound<'py, PyDict>> {
        convert::to_dict(py, &self.held.incoming.headers)
    }

    /// content_type, content_encoding, correlation_id, reply_to, priority, delivery_mode.
    #[getter]
    fn properties<'py>(&self, py: Python<'py>) -> PyResult<Bound<'py, PyDict>> {
        let properties = &self.held.incoming.properties;
        let dict = PyDict::new(py);
        dict.set_item("content_type", &*properties.content_type)?;
        dict.set_item("content_encoding", &*properties.content_encoding)?;
        dict.set_item("correlation_id", &properties.correlation_id)?;
        dict.set_item("reply_to", properties.reply_to.as_deref())?;
        dict.set_item("priority", properties.priority)?;
        dict.set_item("delivery_mode", properties.delivery_mode)?;
        Ok(dict)
    }

    /// The body, as it was sent.
    #[getter]
    fn body<'py>(&self, py: Python<'py>) -> Bound<'py, PyBytes> {
        PyBytes::new(py, &self.held.incoming.body)
    }

    /// The queue it was taken from.
    #[getter]
    fn queue(&self) -> &str {
        &self.held.queue
    }

    #[getter]
    fn exchange(&self) -> &str {
        &self.held.incoming.exchange
    }

    #[getter]
    fn routing_key(&self) -> &str {
        &self.held.incoming.routing_key
    }

    /// Whether it was taken before and not settled.
    #[getter]
    fn redelivered(&self) -> bool {
        self.held.redelivered
    }

    /// How often it was taken before by a worker that did not finish it, within this try.
    #[getter]
    fn deliveries(&self) -> u32 {
        self.ours().deliveries
    }

    /// Which try of its receivers this is, from 1.
    #[getter]
    fn attempt(&self) -> u32 {
        self.ours().attempt
    }

    /// When it was sent, in seconds since 1970, if it says so.
    #[getter]
    fn sent_at(&self) -> Option<f64> {
        self.ours().sent_at
    }

    /// The names of the receivers that it is still for; None: all.
    #[getter]
    fn receivers(&self) -> Option<Vec<String>> {
        // This is asked of every message, and hardly any has it.
        if self.held.incoming.headers.is_plain() { None } else { self.ours().receivers }
    }

    /// It is acknowledged.
    fn done(&self) {
        self.held.acknowledged.store(true, Ordering::Release);
        self.held.finish(Outcome::Done);
    }

    /// Nobody is to run it: dropped, or handed to the queue's own dead-letter exchange.
    fn rejected(&self) {
        self.held.finish(Outcome::Rejected);
    }

    /// It goes back into its queue.
    fn unfinished(&self) {
        self.held.finish(Outcome::Unfinished);
    }

    /// It cannot be run here, and becomes a dead letter: `kind` is a word for programs, `reason` a sentence for people.
    fn unfit(&self, kind: String, reason: String) {
        self.held.finish(Outcome::Unfit { kind: kind.into(), reason });
    }

    fn __repr__(&self) -> String {
        format!("<Job {}[{}]>", self.task(), self.id())
    }
}

impl Job {
    fn ours(&self) -> Ours {
        Ours::of(&self.held.incoming.headers)
    }
}
