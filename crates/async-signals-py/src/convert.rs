//! Between Python's plain values and the core's: headers, options, routes.

use async_signals::protocol::json::Limits;
use pyo3::{
    exceptions::PyTypeError,
    prelude::*,
    types::{PyBool, PyDict, PyFloat, PyInt, PyList, PyString, PyTuple},
};
use serde::de::DeserializeOwned;
use serde_json::{Map, Number, Value};

/// A dictionary of plain values. `what` names it in errors.
pub(crate) fn to_map(dict: &Bound<'_, PyDict>, what: &str) -> PyResult<Map<String, Value>> {
    dict.iter()
        .map(|(key, value)| {
            let Ok(key) = key.cast::<PyString>() else {
                return Err(PyTypeError::new_err(format!("{what}: a key must be a str, not {}", type_name(&key))));
            };
            let key = key.to_cow()?.into_owned();
            let value = to_value(&value, &format!("{what}[{key:?}]"))?;
            Ok((key, value))
        })
        .collect()
}

fn to_value(value: &Bound<'_, PyAny>, what: &str) -> PyResult<Value> {
    if value.is_none() {
        Ok(Value::Null)
    } else if let Ok(flag) = value.cast::<PyBool>() {
        Ok(Value::Bool(flag.is_true()))
    } else if value.is_instance_of::<PyInt>() {
        let number: i64 = value.extract()?;
        Ok(Value::Number(number.into()))
    } else if let Ok(number) = value.cast::<PyFloat>() {
        let finite = Number::from_f64(number.value());
        finite.map(Value::Number).ok_or_else(|| PyTypeError::new_err(format!("{what} must be finite")))
    } else if let Ok(text) = value.cast::<PyString>() {
        Ok(Value::String(text.to_cow()?.into_owned()))
    } else if let Ok(dict) = value.cast::<PyDict>() {
        Ok(Value::Object(to_map(dict, what)?))
    } else if value.is_instance_of::<PyList>() || value.is_instance_of::<PyTuple>() {
        let items = value.try_iter()?.enumerate().map(|(at, item)| to_value(&item?, &format!("{what}[{at}]")));
        Ok(Value::Array(items.collect::<PyResult<_>>()?))
    } else {
        let name = type_name(value);
        Err(PyTypeError::new_err(format!("{what} must be a plain value (str, int, list, dict, …), not {name}")))
    }
}

/// Headers that somebody else made: what has no plain form becomes text, a
/// time as Celery writes it, so that no message is refused for what it came with.
pub(crate) fn foreign_map(dict: &Bound<'_, PyDict>) -> Map<String, Value> {
    foreign_dict(dict, 0)
}

fn foreign_dict(dict: &Bound<'_, PyDict>, depth: usize) -> Map<String, Value> {
    dict.iter().map(|(key, value)| (text(&key), foreign(&value, depth + 1))).collect()
}

fn foreign(value: &Bound<'_, PyAny>, depth: usize) -> Value {
    if depth > Limits::RECEIVE_DEPTH {
        Value::Null
    } else if let Ok(dict) = value.cast::<PyDict>() {
        Value::Object(foreign_dict(dict, depth))
    } else if value.is_instance_of::<PyList>() || value.is_instance_of::<PyTuple>() {
        let items = value.try_iter().into_iter().flatten().flatten();
        Value::Array(items.map(|item| foreign(&item, depth + 1)).collect())
    } else {
        to_value(value, "").unwrap_or_else(|_| {
            let iso = value.call_method0("isoformat");
            Value::String(text(iso.as_ref().unwrap_or(value)))
        })
    }
}

fn text(value: &Bound<'_, PyAny>) -> String {
    value.str().map_or_else(|_| type_name(value), |text| text.to_string_lossy().into_owned())
}

fn type_name(value: &Bound<'_, PyAny>) -> String {
    value.get_type().name().map_or_else(|_| "?".to_owned(), |name| name.to_string())
}

/// A dictionary that has the shape of one of the core's types.
pub(crate) fn to_core<T: DeserializeOwned>(dict: &Bound<'_, PyDict>, what: &str) -> PyResult<T> {
    let map = to_map(dict, what)?;
    serde_json::from_value(Value::Object(map)).map_err(|error| PyTypeError::new_err(format!("{what}: {error}")))
}
