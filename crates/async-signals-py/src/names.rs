//! Classes by name: `module.qualname`, as it stands on the wire.

use pyo3::intern;
use pyo3::prelude::*;
use pyo3::types::{PyModule, PyString, PyType};

use crate::classes::loaded_module;

/// Longer names are no class's.
const LONGEST: usize = 1024;

/// `module.qualname` of a class.
pub(crate) fn class_name(class: &Bound<'_, PyType>) -> PyResult<String> {
    let py = class.py();
    let module = class.getattr(intern!(py, "__module__"))?.cast_into::<PyString>()?;
    let qualname = class.getattr(intern!(py, "__qualname__"))?.cast_into::<PyString>()?;
    Ok(format!("{}.{}", module.to_str()?, qualname.to_str()?))
}

/// The class of this name in a module that is already imported. Nothing is
/// imported, and no code of a module or class runs: names are looked up in the
/// modules' and classes' own dictionaries.
pub(crate) fn find_class<'py>(py: Python<'py>, name: &str) -> Option<Bound<'py, PyType>> {
    if name.len() > LONGEST || name.contains('<') {
        return None;
    }
    // `a.b.C.D` may be C.D in module a.b or, rarely, b.C.D in module a.
    let mut end = name.len();
    while let Some(dot) = name[..end].rfind('.') {
        if let Some(found) = find_in(py, &name[..dot], &name[dot + 1..]) {
            return found.cast_into::<PyType>().ok();
        }
        end = dot;
    }
    None
}

fn find_in<'py>(py: Python<'py>, module: &str, qualname: &str) -> Option<Bound<'py, PyAny>> {
    let module = loaded_module(&PyString::new(py, module))?.cast_into::<PyModule>().ok()?;
    let mut names = qualname.split('.');
    let mut found = module.dict().get_item(names.next()?).ok()??;
    for name in names {
        let class = found.cast_into::<PyType>().ok()?;
        found = class.getattr(intern!(py, "__dict__")).ok()?.get_item(name).ok()?;
    }
    Some(found)
}
