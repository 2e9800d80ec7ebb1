//! The native half of the Python package `async_signals`.
//!
//! - [`encode`]: a signal, its sender and its arguments become a task's body.
//! - [`decode`]: a body becomes what kombu would make of it.
//! - [`reference`]: the inert stand-ins for what JSON has no form for.
//! - [`resolve`]: the stand-ins become the real values, where the receivers run.

mod classes;
mod decode;
mod encode;
mod fault;
mod kombu;
mod names;
mod reference;
mod resolve;
mod sender;

use pyo3::prelude::*;

#[pymodule]
fn _native(module: &Bound<'_, PyModule>) -> PyResult<()> {
    reference::register(module)?;
    encode::register(module)?;
    sender::register(module)?;
    decode::register(module)?;
    resolve::register(module)
}
