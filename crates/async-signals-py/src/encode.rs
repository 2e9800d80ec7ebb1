//! Python values become JSON, straight into the bytes that are published.
//!
//! What JSON has is written as it is, and kombu's own types by kombu's own
//! markers, so that every Celery reads them. The rest goes under our one
//! marker as `[kind, …]`. Where several rules fit, the first of these wins:
//!
//! 1. builtin classes themselves (`str`, not a subclass);
//! 2. enum members, though they may be `str` or `int` too;
//! 3. model instances, by their primary key;
//! 4. safe strings and named tuples; other subclasses of builtin classes, as what they derive from;
//! 5. `__json__`, lazy strings, kombu's own classes and their subclasses;
//! 6. what the user registered with kombu's `register_type`;
//! 7. dataclasses.

mod container;
mod object;

use async_signals::protocol::json::{JsonWriter, Limits};
use pyo3::prelude::*;
use pyo3::types::{PyBool, PyBytes, PyDict, PyFloat, PyInt, PyList, PyString, PyTuple};

use crate::classes::{Classes, classes};
use crate::fault::{Checked, Fault};

/// The beginning of a marker of ours.
macro_rules! our_marker {
    ($kind:literal) => {
        concat!(r#"{"__type__":"async_signals","__value__":[""#, $kind, r#"","#)
    };
}
/// The beginning of a marker of kombu's.
macro_rules! kombu_marker {
    ($kind:literal) => {
        concat!(r#"{"__type__":""#, $kind, r#"","__value__":"#)
    };
}
pub(crate) use {kombu_marker, our_marker};

/// The third part of every body: we chain no tasks.
const EMBED: &str = r#",{"callbacks":null,"errbacks":null,"chain":null,"chord":null}]"#;

/// One message being written.
pub(crate) struct Encoder<'py> {
    pub(crate) json: JsonWriter,
    classes: &'static Classes,
    /// Values that turned into other values, one inside the other.
    turns: usize,
    py: Python<'py>,
}

impl<'py> Encoder<'py> {
    pub(crate) fn new(py: Python<'py>, limits: Limits) -> PyResult<Self> {
        Ok(Self { json: JsonWriter::new(limits), classes: classes(py)?, turns: 0, py })
    }

    fn body(&mut self, signal: &str, sender: &Bound<'_, PyAny>, kwargs: &Bound<'_, PyDict>) -> Checked<()> {
        self.json.open_frame("[[")?;
        self.json.string(signal)?;
        self.sender(sender)?;
        self.json.close_frame("]")?;
        self.arguments(kwargs)?;
        Ok(self.json.close_frame(EMBED)?)
    }

    /// Writes any value.
    pub(crate) fn value(&mut self, value: &Bound<'_, PyAny>) -> Checked<()> {
        if let Ok(text) = value.cast_exact::<PyString>() {
            self.text(text)
        } else if let Ok(whole) = value.cast_exact::<PyInt>() {
            self.int(whole)
        } else if value.is_none() {
            Ok(self.json.null()?)
        } else if let Ok(boolean) = value.cast_exact::<PyBool>() {
            Ok(self.json.bool(boolean.is_true())?)
        } else if let Ok(float) = value.cast_exact::<PyFloat>() {
            Ok(self.json.float(float.value())?)
        } else if let Ok(dict) = value.cast_exact::<PyDict>() {
            self.dict(dict)
        } else if let Ok(list) = value.cast_exact::<PyList>() {
            self.list(list)
        } else if let Ok(tuple) = value.cast_exact::<PyTuple>() {
            self.tuple(tuple)
        } else {
            self.object(value)
        }
    }

    /// A str, or a subclass taken as one.
    pub(crate) fn text(&mut self, text: &Bound<'_, PyString>) -> Checked<()> {
        Ok(self.json.string(plain_text(text)?)?)
    }

    /// An int, or a subclass taken as one.
    fn int(&mut self, whole: &Bound<'_, PyInt>) -> Checked<()> {
        match whole.extract::<i64>() {
            Ok(small) => Ok(self.json.int(small)?),
            // The base's `__repr__`: a subclass may print itself otherwise.
            Err(_) => {
                let digits = self.py.get_type::<PyInt>().call_method1("__repr__", (whole,))?;
                Ok(self.json.big_int(digits.cast::<PyString>()?.to_str()?)?)
            }
        }
    }
}

/// The characters of a str. Python's may hold halves of surrogate pairs, which
/// are no text elsewhere.
pub(crate) fn plain_text<'a>(text: &'a Bound<'_, PyString>) -> Checked<&'a str> {
    text.to_str().map_err(|_| {
        Fault::value_error(
            "the text holds half of a surrogate pair (undecodable bytes, perhaps) and cannot be sent; \
             send the bytes, or encode it with errors=\"replace\"",
        )
    })
}

/// The body of a signal's task: `[[signal, sender], kwargs, embed]`.
pub(crate) fn encode_body(
    py: Python<'_>,
    signal: &str,
    sender: &Bound<'_, PyAny>,
    kwargs: &Bound<'_, PyDict>,
    limits: Limits,
) -> PyResult<Vec<u8>> {
    let mut encoder = Encoder::new(py, limits)?;
    encoder.body(signal, sender, kwargs).map_err(|fault| fault.into_send_error(py))?;
    Ok(encoder.json.finish())
}

/// Any value as JSON: equal values that are sent are equal bytes.
pub(crate) fn encode_value(value: &Bound<'_, PyAny>) -> Checked<Vec<u8>> {
    let mut encoder = Encoder::new(value.py(), Limits::default())?;
    encoder.value(value)?;
    Ok(encoder.json.finish())
}

/// The body of a signal's task as JSON. TypeError names an argument that
/// cannot be sent by its path, ValueError one that is NaN, too deep or too big.
#[pyfunction]
#[pyo3(name = "encode_body", signature = (signal, sender, kwargs, max_bytes = 1 << 20))]
fn py_encode_body<'py>(
    signal: &str,
    sender: &Bound<'py, PyAny>,
    kwargs: &Bound<'py, PyDict>,
    max_bytes: usize,
) -> PyResult<Bound<'py, PyBytes>> {
    let py = sender.py();
    let body = encode_body(py, signal, sender, kwargs, Limits::sending(max_bytes))?;
    Ok(PyBytes::new(py, &body))
}

pub(crate) fn register(module: &Bound<'_, PyModule>) -> PyResult<()> {
    module.add_function(wrap_pyfunction!(py_encode_body, module)?)
}
