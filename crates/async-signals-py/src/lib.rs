//! Async Signals for Python: each function converts, calls the core with the
//! interpreter's lock released where anything waits, and converts back.
#![allow(missing_docs, reason = "Python's docstrings are the documentation of this crate")]

mod convert;
mod decode;
mod encode;
mod error;
mod outlet;
mod publisher;
mod reference;
mod resolve;

use pyo3::prelude::*;

#[pymodule]
fn _native(module: &Bound<'_, PyModule>) -> PyResult<()> {
    module.add_class::<publisher::Publisher>()?;
    module.add_class::<publisher::Prepared>()?;
    module.add_class::<outlet::Outlet>()?;
    encode::register(module)?;
    decode::register(module)?;
    reference::register(module)?;
    resolve::register(module)?;
    Ok(())
}
