//! Stand-ins become the real values, in the process where the receivers run.
//!
//! A decoded message is walked; what holds no stand-in stays the same object.
//! Nothing is imported because a message names it: models come from Django's
//! registry, other classes from modules that are imported already. Raw marker
//! dictionaries, as they come through msgpack, are resolved like stand-ins.

mod kind;

use std::collections::HashMap;

use async_signals::protocol::json::Limits;
use pyo3::prelude::*;
use pyo3::types::{PyDict, PyList, PyString, PyTuple};

use crate::decode::marker;
use crate::fault::{At, Checked, Fault, Step};
use crate::kombu::decoder;
use crate::reference::{MARKER, Reference, sender_ref};

/// One message being resolved.
struct Resolver<'a, 'py> {
    py: Python<'py>,
    /// `async_signals.references.Lookup`: what needs Django.
    lookup: &'a Bound<'py, PyAny>,
    /// The rows met so far, by what they are on the wire: each is fetched once.
    rows: HashMap<Vec<u8>, Bound<'py, PyAny>>,
    depth: usize,
}

impl<'a, 'py> Resolver<'a, 'py> {
    fn new(lookup: &'a Bound<'py, PyAny>) -> Self {
        Self { py: lookup.py(), lookup, rows: HashMap::new(), depth: 0 }
    }

    /// The value, resolved.
    fn value(&mut self, value: &Bound<'py, PyAny>) -> Checked<Bound<'py, PyAny>> {
        Ok(self.changed(value)?.unwrap_or_else(|| value.clone()))
    }

    /// The resolved value; `None` if there was nothing to resolve in it.
    fn changed(&mut self, value: &Bound<'py, PyAny>) -> Checked<Option<Bound<'py, PyAny>>> {
        if self.depth >= Limits::RECEIVE_DEPTH {
            return Err(Fault::value_error("nests too deep"));
        }
        self.depth += 1;
        let changed = self.walk(value);
        self.depth -= 1;
        changed
    }

    fn walk(&mut self, value: &Bound<'py, PyAny>) -> Checked<Option<Bound<'py, PyAny>>> {
        Ok(if let Ok(dict) = value.cast_exact::<PyDict>() {
            match marker(dict)? {
                Some((name, value)) => Some(self.marker(&name, &value)?),
                None => self.entries(dict)?.map(Bound::into_any),
            }
        } else if let Ok(list) = value.cast_exact::<PyList>() {
            match self.items(list.iter())? {
                Some(items) => Some(PyList::new(self.py, items)?.into_any()),
                None => None,
            }
        } else if let Ok(tuple) = value.cast_exact::<PyTuple>() {
            match self.items(tuple.iter())? {
                Some(items) => Some(PyTuple::new(self.py, items)?.into_any()),
                None => None,
            }
        } else if let Ok(reference) = value.cast::<Reference>() {
            Some(self.reference(reference.get().value(self.py))?)
        } else {
            None
        })
    }

    fn items(&mut self, items: impl Iterator<Item = Bound<'py, PyAny>>) -> Checked<Option<Vec<Bound<'py, PyAny>>>> {
        let mut any = false;
        let mut resolved = Vec::with_capacity(items.size_hint().0);
        for (index, item) in items.enumerate() {
            let changed = self.changed(&item).at(|| Step::Index(index))?;
            any |= changed.is_some();
            resolved.push(changed.unwrap_or(item));
        }
        Ok(any.then_some(resolved))
    }

    fn entries(&mut self, dict: &Bound<'py, PyDict>) -> Checked<Option<Bound<'py, PyDict>>> {
        // Copied at the first change: the message stays as it was decoded, for
        // a retry sends it again.
        let mut resolved = None;
        for entry in dict.items() {
            let (key, value): (Bound<'py, PyAny>, Bound<'py, PyAny>) = entry.extract()?;
            let step = || key.extract().map_or(Step::Entry, Step::Name);
            if let Some(value) = self.changed(&value).at(step)? {
                match &resolved {
                    Some(copy) => copy,
                    None => resolved.insert(dict.copy()?),
                }
                .set_item(key, value)?;
            }
        }
        Ok(resolved)
    }

    /// A marker that no decoder has seen.
    fn marker(&mut self, name: &Bound<'py, PyAny>, value: &Bound<'py, PyAny>) -> Checked<Bound<'py, PyAny>> {
        let Ok(name) = name.cast::<PyString>() else {
            return Err(Fault::value_error("a __type__ is no text"));
        };
        if *name == MARKER {
            return self.reference(value);
        }
        self.registered(name, value)
    }

    /// What a decoder registered with kombu makes of a value.
    fn registered(&mut self, name: &Bound<'py, PyString>, value: &Bound<'py, PyAny>) -> Checked<Bound<'py, PyAny>> {
        let shown = name.to_string_lossy();
        // Ours is no user's: its decoder would give the reference back.
        let decoder = if *name == MARKER { None } else { decoder(name)? };
        let Some(decoder) = decoder else {
            return Err(Fault::unresolvable(
                "registered",
                shown,
                "nobody has registered this type with kombu here; call register_type where the worker imports it",
            ));
        };
        let value = self.value(value)?;
        decoder
            .call1((value,))
            .map_err(|error| Fault::unresolvable("registered", shown, "its decoder failed").because(error))
    }

    /// A sender, resolved. One whose class is not known here stays inert, and
    /// still matches by its label.
    fn sender(&mut self, sender: &Bound<'py, PyAny>) -> Checked<Bound<'py, PyAny>> {
        let resolved = self.changed(sender);
        let Some(value) = own_value(sender)? else {
            return Ok(resolved?.unwrap_or_else(|| sender.clone()));
        };
        match resolved {
            // A row that is gone, with `on_missing="none"`.
            Ok(None) => Ok(sender_ref(value)?),
            Ok(Some(resolved)) if resolved.is_none() => Ok(sender_ref(value)?),
            Ok(Some(resolved)) => Ok(resolved),
            Err(fault) if fault.is_unresolvable() => sender_ref(value).map_err(|_| fault),
            Err(fault) => Err(fault),
        }
    }
}

/// The `[kind, …]` of a stand-in or of a raw marker of ours.
fn own_value<'py>(value: &Bound<'py, PyAny>) -> PyResult<Option<Bound<'py, PyAny>>> {
    if let Ok(reference) = value.cast::<Reference>() {
        return Ok(Some(reference.get().value(value.py()).clone()));
    }
    let Ok(dict) = value.cast_exact::<PyDict>() else { return Ok(None) };
    Ok(marker(dict)?.and_then(|(name, value)| (name.eq(MARKER).unwrap_or(false)).then_some(value)))
}

/// A decoded value with the real values in place of the stand-ins. `lookup` is
/// an `async_signals.references.Lookup`. UnresolvableReference names what is
/// not known here, MissingRow a row that is gone.
#[pyfunction]
fn resolve<'py>(value: Bound<'py, PyAny>, lookup: Bound<'py, PyAny>) -> PyResult<Bound<'py, PyAny>> {
    let py = value.py();
    Resolver::new(&lookup).value(&value).map_err(|fault| fault.into_receive_error(py))
}

/// The sender and the arguments of one message, as `resolve` does; the same
/// row in both is the same object. A sender that is not known here becomes a
/// SenderRef.
#[pyfunction]
fn resolve_call<'py>(
    sender: Bound<'py, PyAny>,
    kwargs: Bound<'py, PyDict>,
    lookup: Bound<'py, PyAny>,
) -> PyResult<(Bound<'py, PyAny>, Bound<'py, PyDict>)> {
    let py = sender.py();
    let mut resolver = Resolver::new(&lookup);
    let sender = resolver.sender(&sender).at(|| Step::Name("sender".into()));
    let sender = sender.map_err(|fault| fault.into_receive_error(py))?;
    // The arguments themselves are no marker, whatever they are called.
    let resolved = resolver.entries(&kwargs).map_err(|fault| fault.into_receive_error(py))?;
    Ok((sender, resolved.unwrap_or(kwargs)))
}

pub(crate) fn register(module: &Bound<'_, PyModule>) -> PyResult<()> {
    module.add_function(wrap_pyfunction!(resolve, module)?)?;
    module.add_function(wrap_pyfunction!(resolve_call, module)?)
}
