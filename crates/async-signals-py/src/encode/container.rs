//! Lists, tuples, sets and dictionaries.

use pyo3::exceptions::PyRuntimeError;
use pyo3::ffi;
use pyo3::prelude::*;
use pyo3::types::{PyDict, PyList, PyString, PyTuple};

use super::{Encoder, our_marker, plain_text};
use crate::classes::is_a;
use crate::fault::{At, Checked, Fault, Step};

/// What a dictionary's keys allow.
enum Keys {
    /// All text: an object.
    Text,
    /// Some are not: pairs.
    Any,
}

impl Encoder<'_> {
    /// The named arguments of a send.
    pub(super) fn arguments(&mut self, kwargs: &Bound<'_, PyDict>) -> Checked<()> {
        refuse_marker(kwargs)?;
        // Not nesting: a value that stands alone is at the first level.
        self.json.open_frame("{")?;
        self.entries(kwargs)?;
        Ok(self.json.close_frame("}")?)
    }

    pub(super) fn list(&mut self, list: &Bound<'_, PyList>) -> Checked<()> {
        self.json.begin_array()?;
        let mut index = 0;
        // Not a loop over the length: code of the values may change the list.
        while let Ok(item) = list.get_item(index) {
            self.value(&item).at(|| Step::Index(index))?;
            index += 1;
        }
        Ok(self.json.end_array()?)
    }

    pub(super) fn tuple(&mut self, tuple: &Bound<'_, PyTuple>) -> Checked<()> {
        self.json.open_frame(our_marker!("tuple"))?;
        self.json.begin_array()?;
        for (index, item) in tuple.iter_borrowed().enumerate() {
            self.value(&item).at(|| Step::Index(index))?;
        }
        self.json.end_array()?;
        Ok(self.json.close_frame("]}")?)
    }

    /// A set or frozenset, as its marker's text says. Its members go by the
    /// order of their bytes: equal sets are equal on the wire.
    pub(super) fn set(&mut self, marker: &'static str, set: &Bound<'_, PyAny>) -> Checked<()> {
        self.json.open_frame(marker)?;
        self.json.begin_array()?;
        let mut members = Vec::new();
        for member in set.try_iter()? {
            let start = self.json.next_value();
            self.value(&member?).at(|| Step::Member)?;
            members.push(start..self.json.position());
        }
        self.json.sort_values(&mut members);
        self.json.end_array()?;
        Ok(self.json.close_frame("]}")?)
    }

    pub(super) fn dict(&mut self, dict: &Bound<'_, PyDict>) -> Checked<()> {
        match self.keys(dict)? {
            Keys::Text => {
                refuse_marker(dict)?;
                self.json.begin_object()?;
                self.entries(dict)?;
                Ok(self.json.end_object()?)
            }
            Keys::Any => self.pairs(dict),
        }
    }

    fn entries(&mut self, dict: &Bound<'_, PyDict>) -> Checked<()> {
        let mut entries = Entries::of(dict);
        while let Some((key, value)) = entries.next()? {
            let key = key.cast::<PyString>().map_err(|_| changed())?;
            let name = plain_text(key).at(|| Step::Key)?;
            self.json.key(name).map_err(Into::into).at(|| Step::Key)?;
            self.value(&value).at(|| Step::Name(name.to_owned()))?;
        }
        Ok(())
    }

    fn pairs(&mut self, dict: &Bound<'_, PyDict>) -> Checked<()> {
        self.json.open_frame(our_marker!("dict"))?;
        self.json.begin_array()?;
        let mut entries = Entries::of(dict);
        while let Some((key, value)) = entries.next()? {
            self.json.open_frame("[")?;
            self.value(&key).at(|| Step::Key)?;
            self.value(&value).at(|| match key.extract() {
                Ok(name) => Step::Name(name),
                Err(_) => Step::Entry,
            })?;
            self.json.close_frame("]")?;
        }
        self.json.end_array()?;
        Ok(self.json.close_frame("]}")?)
    }

    /// Looks at all keys first: writing once and starting again would take
    /// twice the time at every level.
    fn keys(&self, dict: &Bound<'_, PyDict>) -> Checked<Keys> {
        let mut entries = Entries::of(dict);
        while let Some((key, _)) = entries.next()? {
            let text = key.is_exact_instance_of::<PyString>()
                || (key.is_instance_of::<PyString>() && !is_a(&key, &self.classes.enumeration));
            if !text {
                return Ok(Keys::Any);
            }
        }
        Ok(Keys::Text)
    }
}

/// A dictionary of just these keys would be taken for a marker where it arrives.
pub(super) fn refuse_marker(dict: &Bound<'_, PyDict>) -> Checked<()> {
    if dict.len() == 2 && dict.contains("__type__")? && dict.contains("__value__")? {
        return Err(Fault::type_error(
            "a dictionary with just the keys \"__type__\" and \"__value__\" cannot be sent, \
             Celery's JSON keeps them for itself; rename one or add another",
        ));
    }
    Ok(())
}

#[cold]
fn changed() -> Box<Fault> {
    PyRuntimeError::new_err("the dictionary changed while it was being sent").into()
}

/// A dictionary's entries. PyO3's own iterator panics when the dictionary
/// changes meanwhile, which code of the values, or another thread while that
/// code runs, may do; this one fails.
struct Entries<'a, 'py> {
    dict: &'a Bound<'py, PyDict>,
    len: usize,
    position: ffi::Py_ssize_t,
}

impl<'a, 'py> Entries<'a, 'py> {
    fn of(dict: &'a Bound<'py, PyDict>) -> Self {
        Self { dict, len: dict.len(), position: 0 }
    }

    #[inline]
    fn next(&mut self) -> Checked<Option<(Bound<'py, PyAny>, Bound<'py, PyAny>)>> {
        if self.dict.len() != self.len {
            return Err(changed());
        }
        let mut key = std::ptr::null_mut();
        let mut value = std::ptr::null_mut();
        // SAFETY: the thread is attached, `dict` is a dict, and `position` is
        // only ever set by this call, which checks it against the dict's bounds.
        let more =
            unsafe { ffi::PyDict_Next(self.dict.as_ptr(), &raw mut self.position, &raw mut key, &raw mut value) };
        if more == 0 {
            return Ok(None);
        }
        let py = self.dict.py();
        // SAFETY: both are borrowed from the dict, and nothing has run since.
        let entry = unsafe { (Bound::from_borrowed_ptr(py, key), Bound::from_borrowed_ptr(py, value)) };
        Ok(Some(entry))
    }
}
