//! What a marker of ours decodes to: an inert stand-in. It looks nothing up,
//! so a decoder that makes one cannot fail, whatever was sent.

use std::hash::{DefaultHasher, Hash, Hasher};

use pyo3::class::gc::{PyTraverseError, PyVisit};
use pyo3::exceptions::PyTypeError;
use pyo3::prelude::*;
use pyo3::types::{PyList, PyTuple, PyType};

use crate::fault::short;
use crate::sender::label;

/// The marker of all that is ours. One for all kinds, so that an older worker
/// that meets a newer kind decodes it to a stand-in instead of failing.
pub(crate) const MARKER: &str = "async_signals";

/// What stands for a value until it is resolved: `[kind, …]`, as it was sent.
#[pyclass(frozen, subclass, weakref, module = "async_signals._native")]
pub(crate) struct Reference {
    value: Py<PyAny>,
}

impl Reference {
    pub(crate) fn new(value: Bound<'_, PyAny>) -> Self {
        Self { value: value.unbind() }
    }

    pub(crate) fn value<'py>(&self, py: Python<'py>) -> &Bound<'py, PyAny> {
        self.value.bind(py)
    }

    /// The kind and what follows it; `None` for what is no marker of ours.
    fn parts<'py>(&self, py: Python<'py>) -> Option<(String, Vec<Bound<'py, PyAny>>)> {
        parts(self.value(py))
    }
}

/// The kind and what follows it; `None` for what is no `[kind, …]`.
pub(crate) fn parts<'py>(value: &Bound<'py, PyAny>) -> Option<(String, Vec<Bound<'py, PyAny>>)> {
    let parts = value.cast::<PyList>().ok()?;
    let kind = parts.get_item(0).ok()?.extract().ok()?;
    Some((kind, parts.iter().skip(1).collect()))
}

#[pymethods]
impl Reference {
    #[new]
    fn py_new(value: Bound<'_, PyAny>) -> Self {
        Self::new(value)
    }

    /// What was sent: a list that begins with the kind.
    #[getter(value)]
    fn py_value(&self, py: Python<'_>) -> Py<PyAny> {
        self.value.clone_ref(py)
    }

    /// What is stood for ("model", "class", …); None for what nobody can know.
    #[getter]
    fn kind(&self, py: Python<'_>) -> Option<String> {
        self.parts(py).map(|(kind, _)| kind)
    }

    /// Equal if they are equal on the wire.
    fn __eq__(slf: &Bound<'_, Self>, other: &Bound<'_, PyAny>) -> bool {
        if slf.is(other) {
            return true;
        }
        other.is_instance_of::<Self>() && label(slf.as_any()).is_some_and(|ours| Some(ours) == label(other))
    }

    fn __hash__(slf: &Bound<'_, Self>) -> u64 {
        let mut hasher = DefaultHasher::new();
        match label(slf.as_any()) {
            Some(label) => label.hash(&mut hasher),
            None => slf.as_ptr().hash(&mut hasher),
        }
        hasher.finish()
    }

    /// Celery's prefork pool hands what it has decoded to its children by pickle.
    fn __reduce__<'py>(slf: &Bound<'py, Self>) -> PyResult<(Bound<'py, PyType>, Bound<'py, PyTuple>)> {
        let py = slf.py();
        Ok((slf.get_type(), PyTuple::new(py, [slf.get().value(py)])?))
    }

    fn __repr__(slf: &Bound<'_, Self>) -> PyResult<String> {
        let class = slf.get_type().name()?.to_string();
        Ok(match slf.get().describe(slf.py()) {
            Some(text) => format!("<{class} {text}>"),
            None => format!("<{class}>"),
        })
    }

    fn __traverse__(&self, visit: PyVisit<'_>) -> Result<(), PyTraverseError> {
        visit.call(&self.value)
    }
}

impl Reference {
    /// The name of a class, a model, a row's model or an enum member.
    fn sender_label(&self, py: Python<'_>) -> Option<String> {
        let (kind, rest) = self.parts(py)?;
        let name = rest.first()?.extract().ok()?;
        match kind.as_str() {
            "class" | "model_class" | "model" => Some(name),
            "enum" => Some(format!("{name}.{}", rest.get(1)?)),
            _ => None,
        }
    }

    /// The kind and the name it goes by; no values but a model's primary key.
    fn describe(&self, py: Python<'_>) -> Option<String> {
        let (kind, rest) = self.parts(py)?;
        let name = rest.first().and_then(|name| name.extract::<String>().ok());
        let text = match (kind.as_str(), name) {
            ("model", Some(name)) => match rest.get(1).and_then(|key| key.repr().ok()) {
                Some(key) => format!("{kind} {name} pk={key}"),
                None => format!("{kind} {name}"),
            },
            ("enum", Some(name)) => match rest.get(1) {
                Some(member) => format!("{kind} {name}.{member}"),
                None => format!("{kind} {name}"),
            },
            ("class" | "model_class" | "dataclass" | "namedtuple" | "registered", Some(name)) => {
                format!("{kind} {name}")
            }
            // Its text is the user's.
            _ => kind,
        };
        Some(short(&text))
    }
}

/// A sender that is not known in this process: a class that nobody has
/// imported here, a member of such an enum, or a model's row that is gone. It
/// still matches whatever receivers are connected to under the same label.
#[pyclass(frozen, extends = Reference, module = "async_signals")]
pub(crate) struct SenderRef;

#[pymethods]
impl SenderRef {
    #[new]
    fn py_new(value: Bound<'_, PyAny>) -> PyResult<PyClassInitializer<Self>> {
        let py = value.py();
        let reference = Reference::new(value);
        if reference.sender_label(py).is_none() {
            return Err(PyTypeError::new_err(
                "a SenderRef stands for a class, a model, a model's row or an enum member",
            ));
        }
        Ok(PyClassInitializer::from(reference).add_subclass(Self))
    }

    /// `module.qualified_name` of a class, `app.Model` of a model or its row,
    /// `module.qualified_name.MEMBER` of an enum's member.
    #[getter]
    fn label(slf: &Bound<'_, Self>) -> Option<String> {
        slf.as_super().get().sender_label(slf.py())
    }
}

/// A stand-in for a sender that is not known here.
pub(crate) fn sender_ref<'py>(value: Bound<'py, PyAny>) -> PyResult<Bound<'py, PyAny>> {
    let py = value.py();
    Ok(Bound::new(py, SenderRef::py_new(value)?)?.into_any())
}

pub(crate) fn register(module: &Bound<'_, PyModule>) -> PyResult<()> {
    module.add_class::<Reference>()?;
    module.add_class::<SenderRef>()
}
