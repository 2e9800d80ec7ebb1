//! A task's body becomes Python values: the same that kombu's `loads` makes of
//! it, with an inert [`Reference`] for each marker of ours.

use std::fmt::Display;

use async_signals::protocol::json::{JsonReader, Limits, Token};
use pyo3::create_exception;
use pyo3::exceptions::{PyException, PyValueError};
use pyo3::intern;
use pyo3::prelude::*;
use pyo3::types::{PyBool, PyDict, PyFloat, PyInt, PyList, PyString};

use crate::fault::short;
use crate::kombu::decoder;
use crate::reference::{MARKER, Reference};

create_exception!(async_signals._native, MalformedMessage, PyValueError, "A message that is no task of Celery's.");

/// `args`, `kwargs` and `embed` of a task.
pub(crate) type Body<'py> = (Bound<'py, PyList>, Bound<'py, PyDict>, Bound<'py, PyAny>);

/// A task's body, taken apart.
pub(crate) struct Decoded<'py> {
    pub(crate) args: Bound<'py, PyList>,
    pub(crate) kwargs: Bound<'py, PyDict>,
    pub(crate) embed: Bound<'py, PyAny>,
    /// No [`Reference`] is in it: there is nothing to resolve.
    pub(crate) bare: bool,
}

/// What a body of `[args, kwargs, embed]` holds. Nothing is looked up: what
/// was sent by reference stays one. MalformedMessage for whatever kombu or a
/// stock worker would refuse, and for NaN and lone surrogates, which JSON has
/// not.
#[pyfunction]
fn decode_body<'py>(py: Python<'py>, body: &[u8]) -> PyResult<Body<'py>> {
    decode(py, body).map(|decoded| (decoded.args, decoded.kwargs, decoded.embed))
}

/// The same, for the worker.
pub(crate) fn decode<'py>(py: Python<'py>, body: &[u8]) -> PyResult<Decoded<'py>> {
    // The bytes are here already; depth and count bound what they unfold to.
    let json = JsonReader::new(body, Limits::receiving(body.len())).map_err(malformed)?;
    let mut decoder = Decoder { py, json, bare: true };
    let body = decoder.whole()?;
    let parts = body.cast_into::<PyList>().map_err(|_| malformed("a body is a list of three parts"))?;
    if parts.len() != 3 {
        return Err(malformed(format_args!("a body has three parts, this one {}", parts.len())));
    }
    let args = parts.get_item(0)?.cast_into().map_err(|_| malformed("args is a list"))?;
    let kwargs = parts.get_item(1)?.cast_into().map_err(|_| malformed("kwargs is an object"))?;
    Ok(Decoded { args, kwargs, embed: parts.get_item(2)?, bare: decoder.bare })
}

pub(crate) fn malformed(reason: impl Display) -> PyErr {
    MalformedMessage::new_err(format!("malformed message: {}", short(&reason.to_string())))
}

struct Decoder<'a, 'py> {
    py: Python<'py>,
    json: JsonReader<'a>,
    bare: bool,
}

impl<'a, 'py> Decoder<'a, 'py> {
    fn whole(&mut self) -> PyResult<Bound<'py, PyAny>> {
        let first = self.token()?;
        let value = self.value(first)?;
        match self.json.next() {
            Ok(None) => Ok(value),
            Ok(Some(_)) => Err(malformed("more than one value")),
            Err(error) => Err(malformed(error)),
        }
    }

    fn token(&mut self) -> PyResult<Token<'a>> {
        self.json.next().map_err(malformed)?.ok_or_else(|| malformed("it ends too early"))
    }

    /// The value that begins with `token`. The reader bounds how deep this goes.
    fn value(&mut self, token: Token<'_>) -> PyResult<Bound<'py, PyAny>> {
        let py = self.py;
        Ok(match token {
            Token::Null => py.None().into_bound(py),
            Token::Bool(value) => PyBool::new(py, value).to_owned().into_any(),
            Token::Int(digits) => match digits.parse::<i64>() {
                Ok(small) => small.into_pyobject(py)?.into_any(),
                Err(_) => py.get_type::<PyInt>().call1((digits,)).map_err(|error| refused(py, error))?,
            },
            Token::Float(value) => PyFloat::new(py, value).into_any(),
            Token::String(text) => PyString::new(py, &text).into_any(),
            Token::BeginArray => self.list()?.into_any(),
            Token::BeginObject => self.object()?,
            Token::EndArray | Token::EndObject | Token::Key(_) => return Err(malformed("a value is missing")),
        })
    }

    fn list(&mut self) -> PyResult<Bound<'py, PyList>> {
        let list = PyList::empty(self.py);
        loop {
            match self.token()? {
                Token::EndArray => return Ok(list),
                token => {
                    let item = self.value(token)?;
                    list.append(item)?;
                }
            }
        }
    }

    fn object(&mut self) -> PyResult<Bound<'py, PyAny>> {
        let dict = PyDict::new(self.py);
        loop {
            match self.token()? {
                Token::EndObject => break,
                Token::Key(key) => {
                    let key = PyString::new(self.py, &key);
                    let token = self.token()?;
                    let value = self.value(token)?;
                    dict.set_item(key, value)?;
                }
                _ => return Err(malformed("a key is missing")),
            }
        }
        match marker(&dict)? {
            None => Ok(dict.into_any()),
            Some((name, value)) => {
                let decoded = decode_marker(&name, value)?;
                // A decoder that somebody registered with kombu may give back a reference of its own making.
                self.bare &= decoded.cast::<Reference>().is_err();
                Ok(decoded)
            }
        }
    }
}

/// The name and value of a marker; `None` for any other dictionary.
pub(crate) fn marker<'py>(dict: &Bound<'py, PyDict>) -> PyResult<Option<(Bound<'py, PyAny>, Bound<'py, PyAny>)>> {
    if dict.len() != 2 {
        return Ok(None);
    }
    let py = dict.py();
    let Some(name) = dict.get_item(intern!(py, "__type__"))? else { return Ok(None) };
    Ok(dict.get_item(intern!(py, "__value__"))?.map(|value| (name, value)))
}

fn decode_marker<'py>(name: &Bound<'py, PyAny>, value: Bound<'py, PyAny>) -> PyResult<Bound<'py, PyAny>> {
    let py = name.py();
    let Ok(name) = name.cast::<PyString>() else { return Err(malformed("a __type__ is no text")) };
    if *name == MARKER {
        return Ok(Bound::new(py, Reference::new(value))?.into_any());
    }
    match decoder(name)? {
        Some(decoder) => decoder.call1((value,)).map_err(|error| refused(py, error)),
        None => Err(malformed(format_args!("kombu has no type {:?} here", name.to_string_lossy()))),
    }
}

/// A value that its own decoder refuses.
fn refused(py: Python<'_>, error: PyErr) -> PyErr {
    if !error.is_instance_of::<PyException>(py) {
        return error;
    }
    let refusal = malformed(&error);
    refusal.set_cause(py, Some(error));
    refusal
}

pub(crate) fn register(module: &Bound<'_, PyModule>) -> PyResult<()> {
    module.add("MalformedMessage", module.py().get_type::<MalformedMessage>())?;
    module.add_function(wrap_pyfunction!(decode_body, module)?)
}
