//! What the user has registered with kombu's JSON (`kombu.utils.json.register_type`).

use pyo3::intern;
use pyo3::prelude::*;
use pyo3::types::{PyDict, PyString, PyTuple};

use crate::classes::{classes, loaded_module};
use crate::reference::Reference;

/// How a registered class is written.
pub(crate) struct Registered<'py> {
    /// The name it is decoded by; `None` for a pure transformation.
    pub(crate) marker: Option<String>,
    pub(crate) encoder: Bound<'py, PyAny>,
}

/// The user's registration for an object, the earliest first, as kombu looks
/// for it. kombu's own types and ours are not the user's.
pub(crate) fn registration<'py>(object: &Bound<'py, PyAny>) -> PyResult<Option<Registered<'py>>> {
    let py = object.py();
    let Some(encoders) = table(py, intern!(py, "_encoders"))? else { return Ok(None) };
    let classes = classes(py)?;
    let own = [
        classes.datetime.as_ptr(),
        classes.date.as_ptr(),
        classes.time.as_ptr(),
        classes.decimal.as_ptr(),
        classes.uuid.as_ptr(),
        py.get_type::<Reference>().as_ptr(),
    ];
    // A copy: `isinstance` may run code that registers more.
    for (class, entry) in encoders.copy()? {
        if own.contains(&class.as_ptr()) || !object.is_instance(&class)? {
            continue;
        }
        let entry = entry.cast_into::<PyTuple>()?;
        return Ok(Some(Registered { marker: entry.get_item(0)?.extract()?, encoder: entry.get_item(1)? }));
    }
    Ok(None)
}

/// The decoder of a marker; `None` for one that is not known here.
pub(crate) fn decoder<'py>(marker: &Bound<'py, PyString>) -> PyResult<Option<Bound<'py, PyAny>>> {
    let py = marker.py();
    py.import(intern!(py, "kombu.utils.json"))?;
    match table(py, intern!(py, "_decoders"))? {
        Some(decoders) => decoders.get_item(marker),
        None => Ok(None),
    }
}

fn table<'py>(py: Python<'py>, name: &Bound<'py, PyString>) -> PyResult<Option<Bound<'py, PyDict>>> {
    let Some(json) = loaded_module(intern!(py, "kombu.utils.json")) else { return Ok(None) };
    Ok(json.getattr_opt(name)?.and_then(|table| table.cast_into::<PyDict>().ok()))
}
