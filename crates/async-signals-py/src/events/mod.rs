//! What the core tells nobody in particular: background messages that are lost, the connection that comes and goes,
//! and its log. One thread of the process delivers it to Python, in order.
//!
//! The core's threads must never wait for the interpreter, nor for what a user's log handler does. So they put an
//! event into a queue, which has a bound; of what does not fit there is a count, which is logged later.

mod logging;
mod process;

use std::{
    panic::{AssertUnwindSafe, catch_unwind},
    sync::Arc,
    time::{Duration, Instant},
};

use async_signals::{
    broker::BrokerError,
    message::Message,
    publisher::{Observer, PublishError},
};
use pyo3::prelude::*;

pub(crate) use self::logging::follow_levels;
use self::{logging::Record, process::Process};
use crate::{broker::seconds, error};

/// How long the interpreter waits at its exit for what was told to be delivered, if nobody has waited before.
const AT_EXIT: f64 = 1.0;

/// Something to deliver to Python.
enum Event {
    /// A line of the core's log.
    Record(Record),
    /// A background message of a publisher is lost.
    Lost { observer: Arc<Py<PyAny>>, id: String, error: PublishError },
    /// A publisher's connection is gone.
    Disconnected { observer: Arc<Py<PyAny>>, error: String },
    /// It is back.
    Reconnected { observer: Arc<Py<PyAny>> },
    /// Background messages of a publisher are held.
    Held { observer: Arc<Py<PyAny>>, error: String },
}

impl Event {
    /// Delivers it. Whatever a user's handler raises ends this event alone.
    fn deliver(self, py: Python<'_>) {
        let delivered = catch_unwind(AssertUnwindSafe(|| match self {
            Self::Record(record) => record.log(py),
            Self::Lost { observer, id, error } => {
                let error = error::not_sent(py, &error);
                observer.call_method1(py, "lost", (id, error)).map(drop)
            }
            Self::Disconnected { observer, error } => observer.call_method1(py, "disconnected", (error,)).map(drop),
            Self::Reconnected { observer } => observer.call_method0(py, "reconnected").map(drop),
            Self::Held { observer, error } => observer.call_method1(py, "held", (error,)).map(drop),
        }));
        if let Ok(Err(error)) = delivered {
            error.write_unraisable(py, None);
        }
    }
}

/// A publisher's observer in Python, which the events' thread calls.
pub(crate) struct PublisherObserver(Arc<Py<PyAny>>);

impl PublisherObserver {
    pub(crate) fn new(observer: Py<PyAny>) -> Self {
        Self(Arc::new(observer))
    }
}

impl Observer for PublisherObserver {
    fn lost(&self, message: &Message, error: &PublishError) {
        let (id, error) = (message.id.to_string(), error.clone());
        Process::current().put(Event::Lost { observer: self.0.clone(), id, error });
    }

    fn disconnected(&self, error: &BrokerError) {
        let error = logging::plain(&error.to_string());
        Process::current().put(Event::Disconnected { observer: self.0.clone(), error });
    }

    fn reconnected(&self) {
        Process::current().put(Event::Reconnected { observer: self.0.clone() });
    }

    fn held(&self, error: &BrokerError) {
        let error = logging::plain(&error.to_string());
        Process::current().put(Event::Held { observer: self.0.clone(), error });
    }
}

/// Attaches this thread, which is not Python's own, to the interpreter; not any more once that is about to end.
pub(crate) fn attach<R>(work: impl FnOnce(Python<'_>) -> R) -> Option<R> {
    let _inside = Process::current().enter()?;
    Python::try_attach(work)
}

/// Waits until all that was told before is delivered, for at most `timeout` seconds; says whether it is.
#[pyfunction]
fn drain_events(py: Python<'_>, timeout: f64) -> PyResult<bool> {
    let deadline = Instant::now() + seconds(timeout)?;
    Ok(py.detach(|| Process::current().drain(deadline)))
}

/// The same, and none of the core's threads calls Python any more. The interpreter does so itself when it ends.
#[pyfunction]
fn stop_events(py: Python<'_>, timeout: f64) -> PyResult<bool> {
    let deadline = Instant::now() + seconds(timeout)?;
    Ok(py.detach(|| Process::current().stop(deadline)))
}

/// Waits for something as long as `deadline` allows.
fn left(deadline: Instant) -> Option<Duration> {
    Some(deadline.saturating_duration_since(Instant::now())).filter(|left| !left.is_zero())
}

pub(crate) fn register(module: &Bound<'_, PyModule>) -> PyResult<()> {
    module.add_function(wrap_pyfunction!(drain_events, module)?)?;
    module.add_function(wrap_pyfunction!(stop_events, module)?)?;
    // Exit handlers run last in, first out: those that flush are registered later, and have run by then.
    let stop = module.getattr("stop_events")?;
    module.py().import("atexit")?.call_method1("register", (stop, AT_EXIT)).map(drop)
}
