//! What the worker says beside running receivers, told to Python by a thread
//! of its own: the core's must never wait for the interpreter.

use std::{fmt, sync::mpsc, thread, time::Duration};

use async_signals::{broker::BrokerError, follow::Failure, worker::Observer};
use pyo3::prelude::*;

use crate::events;

type Call = Box<dyn FnOnce(&Bound<'_, PyAny>) -> PyResult<()> + Send>;

/// How long the end of the worker waits for what was told before it to be heard.
const LAST_CALLS: Duration = Duration::from_secs(1);

/// The thread that calls a Python observer.
#[derive(Clone)]
pub(super) struct ObserverThread(mpsc::Sender<Call>);

impl ObserverThread {
    /// Starts the thread, which ends when the last handle is dropped.
    pub(super) fn start(observer: Py<PyAny>) -> std::io::Result<Self> {
        let (sender, calls) = mpsc::channel::<Call>();
        thread::Builder::new().name("async-signals-log".to_owned()).spawn(move || {
            for call in calls {
                // The interpreter may be on its way out, and then nobody listens.
                events::attach(|py| {
                    if let Err(error) = call(observer.bind(py)) {
                        error.write_unraisable(py, None);
                    }
                });
            }
        })?;
        Ok(Self(sender))
    }

    /// Calls a method of the observer, later.
    pub(super) fn tell<Arguments>(&self, method: &'static str, arguments: Arguments)
    where
        Arguments: for<'py> pyo3::call::PyCallArgs<'py> + Send + 'static,
    {
        let call: Call = Box::new(move |observer| observer.call_method1(method, arguments).map(drop));
        // Nobody is there any more once the worker has ended.
        let _ = self.0.send(call);
    }

    /// Waits until what was told so far is heard, within reason. Called without the interpreter's lock.
    pub(super) fn settle(&self) {
        let (heard, hears) = mpsc::channel();
        let call: Call = Box::new(move |_| {
            let _ = heard.send(());
            Ok(())
        });
        if self.0.send(call).is_ok() {
            // Nobody may listen any more, and then there is nothing to wait for.
            let _ = hears.recv_timeout(LAST_CALLS);
        }
    }
}

/// The core's observer.
pub(super) struct WorkerObserver(ObserverThread);

impl WorkerObserver {
    pub(super) fn new(thread: ObserverThread) -> Self {
        Self(thread)
    }

    fn tell<Arguments>(&self, method: &'static str, arguments: Arguments)
    where
        Arguments: for<'py> pyo3::call::PyCallArgs<'py> + Send + 'static,
    {
        self.0.tell(method, arguments);
    }
}

impl Observer for WorkerObserver {
    fn connected(&self, broker: &str) {
        self.tell("connected", (broker.to_owned(),));
    }

    fn disconnected(&self, error: &BrokerError) {
        self.tell("disconnected", (error.to_string(), error.is_transient()));
    }

    fn expired(&self, id: &str, task: &str) {
        self.tell("expired", (id.to_owned(), task.to_owned()));
    }

    fn delayed(&self, id: &str, task: &str, seconds: f64) {
        self.tell("delayed", (id.to_owned(), task.to_owned(), seconds));
    }

    fn redelivered(&self, id: &str, deliveries: u32) {
        self.tell("redelivered", (id.to_owned(), deliveries));
    }

    fn parked(&self, id: &str, queue: Option<&str>, kind: &str, reason: &str) {
        self.tell("dead_lettered", (id.to_owned(), queue.map(str::to_owned), kind.to_owned(), reason.to_owned()));
    }

    fn retried(&self, id: &str, failures: &[Failure], seconds: f64) {
        let receivers: Vec<String> = failures.iter().map(|failure| failure.receiver.clone()).collect();
        self.tell("retried", (id.to_owned(), receivers, seconds));
    }

    fn hindered(&self, id: &str, queue: &str, error: &dyn fmt::Display) {
        self.tell("hindered", (id.to_owned(), queue.to_owned(), error.to_string()));
    }
}
