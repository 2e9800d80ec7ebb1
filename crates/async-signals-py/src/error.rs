//! The one place where the core's errors become Python's.

use async_signals::{broker::BrokerError, publisher::PublishError};
use pyo3::{prelude::*, sync::PyOnceLock};

/// The exception for a message that was not handed over.
pub(crate) fn not_sent(py: Python<'_>, error: &PublishError) -> PyErr {
    let name = match error {
        PublishError::Broker { error, .. } if is_configuration(error) => "BrokerMisconfigured",
        _ => "SignalNotSent",
    };
    let build = || -> PyResult<PyErr> {
        let class = class(py, name)?;
        let exception = class.call1((error.to_string(), code(error), error.may_have_arrived()))?;
        Ok(PyErr::from_value(exception))
    };
    build().unwrap_or_else(|error| error)
}

/// The exception for options that no broker can be reached with.
pub(crate) fn misconfigured(py: Python<'_>, error: BrokerError) -> PyErr {
    not_sent(py, &error.into())
}

fn is_configuration(error: &BrokerError) -> bool {
    matches!(
        error,
        BrokerError::InvalidUrl { .. } | BrokerError::InvalidOption { .. } | BrokerError::Unsupported { .. }
    )
}

/// A word for programs to tell the reasons apart; `async_signals.errors` lists them.
fn code(error: &PublishError) -> &'static str {
    match error {
        PublishError::Deadline { .. } => "deadline",
        PublishError::BufferFull { .. } => "buffer_full",
        PublishError::Closed | PublishError::Stopped { .. } | PublishError::Forked { .. } => "closed",
        PublishError::Broker { error, .. } => match error {
            BrokerError::Connect { .. } | BrokerError::Disconnected { .. } => "unreachable",
            BrokerError::Authentication { .. } => "authentication",
            BrokerError::Tls { .. } => "tls",
            BrokerError::Blocked { .. } => "blocked",
            BrokerError::Unroutable { .. } => "unroutable",
            BrokerError::PreconditionFailed { .. } => "precondition_failed",
            BrokerError::AccessRefused { .. } => "access_refused",
            BrokerError::QueueFull { .. } => "queue_full",
            BrokerError::QueueMissing { .. } => "queue_missing",
            BrokerError::OutOfMemory { .. } => "out_of_memory",
            BrokerError::InvalidUrl { .. } | BrokerError::InvalidOption { .. } | BrokerError::Unsupported { .. } => {
                "misconfigured"
            }
            _ => "refused",
        },
        _ => "refused",
    }
}

fn class<'py>(py: Python<'py>, name: &str) -> PyResult<Bound<'py, PyAny>> {
    static ERRORS: PyOnceLock<Py<PyAny>> = PyOnceLock::new();
    let errors =
        ERRORS.get_or_try_init(py, || py.import("async_signals.errors").map(|module| module.into_any().unbind()))?;
    errors.bind(py).getattr(name)
}
