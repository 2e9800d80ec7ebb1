//! Dead-letter queues as Python sees them.

use std::{
    sync::{Mutex, PoisonError},
    time::Duration,
};

use async_signals::{
    broker::BrokerConfig,
    dead_letters::{DeadLetter, DeadLetterQueue as Core, Filter, Held, ReplayError},
    publisher::{Publisher, PublisherConfig},
};
use pyo3::{
    exceptions::{PyConnectionError, PyValueError},
    prelude::*,
    types::PyDict,
};
use serde_json::{Value, json};
use tokio::runtime::Runtime;

use crate::{
    broker::{self, seconds},
    convert::to_core,
    error,
};

/// A dead-letter queue whose messages are taken to be replayed or discarded. What
/// is neither goes back at `close`.
#[pyclass(frozen, module = "async_signals._native")]
pub(crate) struct DeadLetterQueue {
    runtime: Runtime,
    config: BrokerConfig,
    timeout: Duration,
    state: Mutex<State>,
}

struct State {
    /// `None` once it is closed.
    core: Option<Core>,
    /// What the last `take` has given.
    letters: Vec<Held>,
    publisher: Option<Publisher>,
}

#[pymethods]
impl DeadLetterQueue {
    #[new]
    #[pyo3(signature = (urls, queue, *, timeout, max_age=None, transport_options=None, tls=None))]
    fn new(
        py: Python<'_>,
        urls: Vec<String>,
        queue: String,
        timeout: f64,
        max_age: Option<f64>,
        transport_options: Option<&Bound<'_, PyDict>>,
        tls: Option<&Bound<'_, PyDict>>,
    ) -> PyResult<Self> {
        let config = broker::config(py, &urls, transport_options, tls, None)?;
        let timeout = seconds(timeout)?;
        let max_age = max_age.map(seconds).transpose()?;
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
        let core = py.detach(|| runtime.block_on(Core::open(&config, &queue, timeout)));
        let core = core.map_err(|error| error::misconfigured(py, error))?.max_age(max_age);
        let state = Mutex::new(State { core: Some(core), letters: Vec::new(), publisher: None });
        Ok(Self { runtime, config, timeout, state })
    }

    /// Takes up to `limit` more messages; returns how many came, and those of
    /// them that the filter means, each described as a JSON text. A message's
    /// number is its place in this list, until the next `take`.
    #[pyo3(signature = (limit, filter))]
    fn take(&self, py: Python<'_>, limit: usize, filter: &Bound<'_, PyDict>) -> PyResult<(usize, Vec<String>)> {
        let filter: Filter = to_core(filter, "filter")?;
        let taken = py.detach(|| {
            let mut state = self.lock();
            let Some(core) = &state.core else { return Ok((0, Vec::new())) };
            let mut letters = self.runtime.block_on(core.take(limit))?;
            let examined = letters.len();
            letters.retain(|letter| filter.matches(letter));
            let described = letters.iter().map(|letter| describe(letter)).collect();
            state.letters = letters;
            Ok((examined, described))
        });
        taken.map_err(|error| error::misconfigured(py, error))
    }

    /// Sends one again and takes it out; returns the queue that it went to.
    fn replay(&self, py: Python<'_>, number: usize) -> PyResult<String> {
        let sent = py.detach(|| {
            let mut state = self.lock();
            let State { core, letters, publisher } = &mut *state;
            let (Some(core), Some(letter)) = (core, letters.get(number)) else { return Err(None) };
            self.runtime.block_on(async {
                let publisher = publisher.get_or_insert_with(|| {
                    let mut config = PublisherConfig::new(self.config.clone());
                    config.timeout = self.timeout;
                    Publisher::spawn(config)
                });
                core.replay(publisher, letter).await.map_err(Some)
            })
        });
        sent.map_err(|error| match error {
            Some(ReplayError::Publish(error)) => error::not_sent(py, &error),
            // Nothing more can be taken out of the queue: whoever goes on would double what is in it.
            Some(error @ ReplayError::StillThere(_)) => PyConnectionError::new_err(error.to_string()),
            Some(error) => PyValueError::new_err(error.to_string()),
            None => PyValueError::new_err(format!("there is no message {number}")),
        })
    }

    /// Discards one.
    fn discard(&self, py: Python<'_>, number: usize) -> PyResult<()> {
        let discarded = py.detach(|| {
            let state = self.lock();
            match (&state.core, state.letters.get(number)) {
                (Some(core), Some(letter)) => self.runtime.block_on(core.discard(letter)),
                _ => Ok(()),
            }
        });
        discarded.map_err(|error| error::misconfigured(py, error))
    }

    /// Puts back what was neither replayed nor discarded.
    fn close(&self, py: Python<'_>) {
        py.detach(|| {
            let core = self.lock().core.take();
            if let Some(core) = core {
                self.runtime.block_on(core.close());
            }
        });
    }
}

impl DeadLetterQueue {
    fn lock(&self) -> std::sync::MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// What is to be known of a dead letter, as JSON.
pub(crate) fn describe(letter: &DeadLetter) -> String {
    let (headers, body) = match letter.incoming() {
        Some(incoming) => (Value::Object((*incoming.headers).clone()), &incoming.body),
        None => (Value::Null, &bytes::Bytes::new()),
    };
    // A body of ours is JSON; anything else is shown as text, as far as it is text.
    let body = serde_json::from_slice(body).unwrap_or_else(|_| Value::from(String::from_utf8_lossy(body)));
    let described = json!({
        "id": letter.id(),
        "signal": letter.signal(),
        "why": letter.why(),
        "headers": headers,
        "body": body,
    });
    described.to_string()
}

pub(crate) fn register(module: &Bound<'_, PyModule>) -> PyResult<()> {
    module.add_class::<DeadLetterQueue>()
}
