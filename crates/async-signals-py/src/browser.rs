//! Looking at queues from Python.

use std::{
    sync::{Arc, Mutex, PoisonError},
    time::Duration,
};

use async_signals::{
    broker::{self as core, BrokerError, Browser, Position},
    dead_letters::{Filter, look},
};
use pyo3::{prelude::*, types::PyDict};
use tokio::runtime::Runtime;

use crate::{
    broker::{self, seconds},
    convert::to_core,
    dead_letters::describe,
    error,
};

/// How many messages were looked at, those that are meant, and the position of the next.
type Looked = (usize, Vec<String>, Option<u64>);

/// A connection to a broker that looks at its queues and takes nothing.
#[pyclass(frozen, module = "async_signals._native")]
pub(crate) struct QueueBrowser {
    runtime: Runtime,
    timeout: Duration,
    /// `None` once it is closed.
    core: Mutex<Option<Arc<dyn Browser>>>,
}

#[pymethods]
impl QueueBrowser {
    #[new]
    #[pyo3(signature = (urls, *, timeout, transport_options=None, tls=None))]
    fn new(
        py: Python<'_>,
        urls: Vec<String>,
        timeout: f64,
        transport_options: Option<&Bound<'_, PyDict>>,
        tls: Option<&Bound<'_, PyDict>>,
    ) -> PyResult<Self> {
        let config = broker::config(py, &urls, transport_options, tls, None)?;
        let timeout = seconds(timeout)?;
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
        let connecting = core::first(&config, timeout, |url| core::browse(&config, url));
        let core = py.detach(|| runtime.block_on(connecting));
        let core = core.map_err(|error| error::misconfigured(py, error))?;
        Ok(Self { runtime, timeout, core: Mutex::new(Some(core)) })
    }

    /// What the broker tells of a queue: `ready`, `in_flight`, `consumers` and `oldest`; None: there is no such queue.
    fn depth<'py>(&self, py: Python<'py>, queue: &str) -> PyResult<Option<Bound<'py, PyDict>>> {
        let depth = py.detach(|| {
            let browser = self.browser()?;
            self.runtime.block_on(core::in_time(self.timeout, browser.depth(queue)))
        });
        let Some(depth) = depth.map_err(|error| error::misconfigured(py, error))? else { return Ok(None) };
        let told = PyDict::new(py);
        told.set_item("ready", depth.ready)?;
        told.set_item("in_flight", depth.in_flight)?;
        told.set_item("consumers", depth.consumers)?;
        told.set_item("oldest", depth.oldest)?;
        Ok(Some(told))
    }

    /// Looks at up to `limit` messages of a dead-letter queue from a position on: how many there were, those that the
    /// filter means, each described as a JSON text, and the position of the next (None: that was all). None: this
    /// broker shows messages to nobody but who takes them.
    fn dead_letters(
        &self,
        py: Python<'_>,
        queue: &str,
        position: u64,
        limit: usize,
        filter: &Bound<'_, PyDict>,
    ) -> PyResult<Option<Looked>> {
        let filter: Filter = to_core(filter, "filter")?;
        let found = py.detach(|| {
            let browser = self.browser()?;
            let looking = look(&*browser, queue, Position::from_number(position), limit, &filter);
            let found = self.runtime.block_on(core::in_time(self.timeout, looking))?;
            Ok(found.map(|found| {
                let described = found.letters.iter().map(describe).collect();
                (found.examined, described, found.next.map(Position::to_number))
            }))
        });
        found.map_err(|error| error::misconfigured(py, error))
    }

    /// Closes the connection.
    fn close(&self, py: Python<'_>) {
        py.detach(|| drop(self.core.lock().unwrap_or_else(PoisonError::into_inner).take()));
    }
}

impl QueueBrowser {
    fn browser(&self) -> Result<Arc<dyn Browser>, BrokerError> {
        let core = self.core.lock().unwrap_or_else(PoisonError::into_inner).clone();
        core.ok_or_else(|| BrokerError::Refused { reason: "the connection is closed".to_owned() })
    }
}

pub(crate) fn register(module: &Bound<'_, PyModule>) -> PyResult<()> {
    module.add_class::<QueueBrowser>()
}
