//! What is wrong with a value, and where in the arguments it stands.

use std::borrow::Cow;

pub(crate) use async_signals::payload::path::Step;
use async_signals::{payload::path::Path, protocol::json::JsonError};
use pyo3::exceptions::{PyBaseException, PyException, PyTypeError, PyValueError};
use pyo3::intern;
use pyo3::prelude::*;
use pyo3::{CastError, CastIntoError};

use crate::decode::malformed;

/// Boxed: the way without a fault stays as cheap as a pointer.
pub(crate) type Checked<T> = Result<T, Box<Fault>>;

/// A value that cannot cross the wire.
#[derive(Debug)]
pub(crate) struct Fault {
    problem: Problem,
    /// The way to the value: callers add their steps on the way back.
    path: Path,
}

#[derive(Debug)]
enum Problem {
    /// The value's type has no form on the wire.
    Type(String),
    /// The type has, this value has not.
    Value(String),
    /// It does not fit into JSON or its limits.
    Json(JsonError),
    /// What was sent by reference is not to be had here.
    Unresolvable { kind: String, name: String, reason: String, cause: Option<PyErr> },
    /// Code of the value's own failed.
    Python(PyErr),
}

/// Longer text is cut in an error.
const TEXT_SHOWN: usize = 200;

impl Fault {
    pub(crate) fn type_error(message: impl Into<String>) -> Box<Self> {
        Box::new(Self { problem: Problem::Type(message.into()), path: Path::default() })
    }

    pub(crate) fn value_error(message: impl Into<String>) -> Box<Self> {
        Box::new(Self { problem: Problem::Value(message.into()), path: Path::default() })
    }

    pub(crate) fn unresolvable(kind: &str, name: impl Into<String>, reason: impl Into<String>) -> Box<Self> {
        let problem =
            Problem::Unresolvable { kind: kind.into(), name: name.into(), reason: reason.into(), cause: None };
        Box::new(Self { problem, path: Path::default() })
    }

    pub(crate) fn is_unresolvable(&self) -> bool {
        matches!(self.problem, Problem::Unresolvable { .. })
    }

    /// The Python exception that an unresolvable reference is due to.
    pub(crate) fn because(mut self: Box<Self>, error: PyErr) -> Box<Self> {
        if let Problem::Unresolvable { cause, .. } = &mut self.problem {
            *cause = Some(error);
        }
        self
    }

    /// The exception of a send: what is wrong, where, and what to do about it.
    pub(crate) fn into_send_error(self, py: Python<'_>) -> PyErr {
        let mut path = self.path.to_string();
        if !path.is_empty() {
            path.push_str(": ");
        }
        match self.problem {
            Problem::Type(message) => PyTypeError::new_err(format!("{path}{message}")),
            Problem::Value(message) => PyValueError::new_err(format!("{path}{message}")),
            Problem::Json(error) => PyValueError::new_err(format!("{path}{}", explain(&error))),
            // KeyboardInterrupt, a greenlet's exit and the like go their own way.
            Problem::Python(error) if !error.is_instance_of::<PyException>(py) => error,
            Problem::Python(error) => {
                let wrapped = PyTypeError::new_err(format!("{path}cannot be sent: {error}"));
                wrapped.set_cause(py, Some(error));
                wrapped
            }
            Problem::Unresolvable { kind, name, reason, .. } => {
                PyValueError::new_err(format!("{path}{kind} {name}: {reason}"))
            }
        }
    }

    /// The exception where a message is received. Exceptions of code that was
    /// called (a database's, say) pass as they are.
    pub(crate) fn into_receive_error(self, py: Python<'_>) -> PyErr {
        let argument = self.path.to_string();
        match self.problem {
            Problem::Python(error) => match set_argument(error.value(py), &argument) {
                Ok(()) => error,
                Err(failed) => failed,
            },
            Problem::Unresolvable { kind, name, reason, cause } => {
                let args = (short(&kind), short(&name), reason, argument);
                let error = unresolvable_reference(py, args).unwrap_or_else(|failed| failed);
                if cause.is_some() {
                    error.set_cause(py, cause);
                }
                error
            }
            Problem::Type(message) | Problem::Value(message) => malformed(format_args!("{argument}: {message}")),
            Problem::Json(error) => malformed(format_args!("{argument} {error}")),
        }
    }
}

/// MissingRow and UnresolvableReference say which argument it is; what raises
/// them in Python does not know.
fn set_argument(error: &Bound<'_, PyBaseException>, argument: &str) -> PyResult<()> {
    let name = intern!(error.py(), "argument");
    if error.hasattr(name)? { error.setattr(name, argument) } else { Ok(()) }
}

/// Text of a message, fit for a log.
pub(crate) fn short(text: &str) -> String {
    let mut shown: String = text.chars().take(TEXT_SHOWN).collect();
    if shown.len() < text.len() {
        shown.push('…');
    }
    shown
}

fn unresolvable_reference(py: Python<'_>, args: (String, String, String, String)) -> PyResult<PyErr> {
    let class = py.import("async_signals.references")?.getattr("UnresolvableReference")?;
    Ok(PyErr::from_value(class.call1(args)?))
}

impl From<JsonError> for Box<Fault> {
    #[cold]
    fn from(error: JsonError) -> Self {
        Self::new(Fault { problem: Problem::Json(error), path: Path::default() })
    }
}

impl From<PyErr> for Box<Fault> {
    #[cold]
    fn from(error: PyErr) -> Self {
        Self::new(Fault { problem: Problem::Python(error), path: Path::default() })
    }
}

impl From<CastError<'_, '_>> for Box<Fault> {
    #[cold]
    fn from(error: CastError<'_, '_>) -> Self {
        PyErr::from(error).into()
    }
}

impl From<CastIntoError<'_>> for Box<Fault> {
    #[cold]
    fn from(error: CastIntoError<'_>) -> Self {
        PyErr::from(error).into()
    }
}

/// Adds the step that led to a fault.
pub(crate) trait At<T> {
    fn at(self, step: impl FnOnce() -> Step) -> Checked<T>;
}

impl<T> At<T> for Checked<T> {
    #[inline]
    fn at(self, step: impl FnOnce() -> Step) -> Self {
        self.map_err(|mut fault| {
            fault.path.add_outer(step());
            fault
        })
    }
}

fn explain(error: &JsonError) -> Cow<'static, str> {
    match error {
        JsonError::TooDeep { limit } => {
            format!("nests deeper than {limit} levels, or contains itself; send an id or a flatter value").into()
        }
        JsonError::TooLarge { limit, .. } => format!(
            "the message is larger than {limit} bytes; send an id instead, \
             or raise ASYNC_SIGNALS[\"max_message_size\"]"
        )
        .into(),
        JsonError::TooMany { limit } => {
            format!("the message holds more than {limit} values; send an id instead").into()
        }
        JsonError::NotFinite => "NaN and the infinities cannot be sent, JSON has none; send None or a text".into(),
        other => other.to_string().into(),
    }
}
