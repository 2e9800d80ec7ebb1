//! The Python classes that have a form of their own on the wire.

use pyo3::ffi;
use pyo3::intern;
use pyo3::prelude::*;
use pyo3::sync::PyOnceLock;
use pyo3::types::{PyString, PyType};

/// Classes of the standard library.
pub(crate) struct Classes {
    pub(crate) datetime: Py<PyType>,
    pub(crate) date: Py<PyType>,
    pub(crate) time: Py<PyType>,
    pub(crate) timedelta: Py<PyType>,
    pub(crate) decimal: Py<PyType>,
    pub(crate) uuid: Py<PyType>,
    pub(crate) enumeration: Py<PyType>,
    pub(crate) flag: Py<PyType>,
}

static CLASSES: PyOnceLock<Classes> = PyOnceLock::new();
static MODEL: PyOnceLock<Py<PyType>> = PyOnceLock::new();
static PROMISE: PyOnceLock<Py<PyType>> = PyOnceLock::new();
static SAFE_STRING: PyOnceLock<Py<PyType>> = PyOnceLock::new();
static MULTI_VALUE_DICT: PyOnceLock<Py<PyType>> = PyOnceLock::new();
static ROUTER: PyOnceLock<Py<PyAny>> = PyOnceLock::new();

/// The standard library's classes, imported once.
pub(crate) fn classes(py: Python<'_>) -> PyResult<&'static Classes> {
    CLASSES.get_or_try_init(py, || {
        let class = |module: &str, name: &str| -> PyResult<Py<PyType>> {
            Ok(py.import(module)?.getattr(name)?.cast_into::<PyType>()?.unbind())
        };
        Ok(Classes {
            datetime: class("datetime", "datetime")?,
            date: class("datetime", "date")?,
            time: class("datetime", "time")?,
            timedelta: class("datetime", "timedelta")?,
            decimal: class("decimal", "Decimal")?,
            uuid: class("uuid", "UUID")?,
            enumeration: class("enum", "Enum")?,
            flag: class("enum", "Flag")?,
        })
    })
}

/// `django.db.models.Model`, if something has imported it.
pub(crate) fn model(py: Python<'_>) -> Option<&'static Py<PyType>> {
    loaded_class(&MODEL, intern!(py, "django.db.models"), intern!(py, "Model"))
}

/// The base of Django's lazy strings, if something has imported it.
pub(crate) fn promise(py: Python<'_>) -> Option<&'static Py<PyType>> {
    loaded_class(&PROMISE, intern!(py, "django.utils.functional"), intern!(py, "Promise"))
}

/// `django.utils.safestring.SafeString`, if something has imported it.
pub(crate) fn safe_string(py: Python<'_>) -> Option<&'static Py<PyType>> {
    loaded_class(&SAFE_STRING, intern!(py, "django.utils.safestring"), intern!(py, "SafeString"))
}

/// `django.utils.datastructures.MultiValueDict`, the class behind `request.GET`, if something has imported it.
pub(crate) fn multi_value_dict(py: Python<'_>) -> Option<&'static Py<PyType>> {
    loaded_class(&MULTI_VALUE_DICT, intern!(py, "django.utils.datastructures"), intern!(py, "MultiValueDict"))
}

/// `django.db.router`, if the project has database routers.
pub(crate) fn router(py: Python<'_>) -> PyResult<Option<Bound<'_, PyAny>>> {
    let router = ROUTER.get_or_try_init(py, || {
        PyResult::Ok(py.import(intern!(py, "django.db"))?.getattr(intern!(py, "router"))?.unbind())
    })?;
    let router = router.bind(py);
    // Django reads the setting once, and keeps the list.
    let any = router.getattr(intern!(py, "routers"))?.is_truthy()?;
    Ok(any.then(|| router.clone()))
}

fn loaded_class(
    cell: &'static PyOnceLock<Py<PyType>>,
    module: &Bound<'_, PyString>,
    name: &Bound<'_, PyString>,
) -> Option<&'static Py<PyType>> {
    let py = module.py();
    if let Some(class) = cell.get(py) {
        return Some(class);
    }
    // A module that is being imported may not have the class yet.
    let class = loaded_module(module)?.getattr_opt(name).ok()??.cast_into::<PyType>().ok()?;
    // A thread that came first stored the same class.
    let _ = cell.set(py, class.unbind());
    cell.get(py)
}

/// A module out of `sys.modules`; never imports.
pub(crate) fn loaded_module<'py>(name: &Bound<'py, PyString>) -> Option<Bound<'py, PyAny>> {
    let py = name.py();
    // SAFETY: the thread is attached and `name` is a str; the result is an own
    // reference, or null without an exception for a module that is not there.
    let module = unsafe { Bound::from_owned_ptr_or_opt(py, ffi::PyImport_GetModule(name.as_ptr())) };
    if module.is_none() {
        // Null with an exception: `sys.modules` itself is broken.
        drop(PyErr::take(py));
    }
    module.filter(|module| !module.is_none())
}

/// Whether the object's class is `class` or derives from it, whatever the
/// object says of itself.
#[inline]
pub(crate) fn is_a(object: &Bound<'_, PyAny>, class: &Py<PyType>) -> bool {
    let found = object.get_type_ptr();
    let class = class.as_ptr().cast::<ffi::PyTypeObject>();
    // SAFETY: both are classes that live at least as long as their borrowed owners.
    found == class || unsafe { ffi::PyType_IsSubtype(found, class) != 0 }
}

/// Whether the object's class is `class` itself.
#[inline]
pub(crate) fn is_exactly(object: &Bound<'_, PyAny>, class: &Py<PyType>) -> bool {
    object.get_type_ptr() == class.as_ptr().cast::<ffi::PyTypeObject>()
}
