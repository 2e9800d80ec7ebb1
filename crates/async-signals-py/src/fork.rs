//! What has to happen around a fork of the process; `os.register_at_fork` calls it.

use async_signals::broker::sqlite;
use pyo3::prelude::*;

/// Before: no file of the SQLite broker stays open.
#[pyfunction]
fn before_fork(py: Python<'_>) {
    py.detach(sqlite::before_fork);
}

/// After, in the process that forked.
#[pyfunction]
fn after_fork_in_parent() {
    sqlite::after_fork_in_parent();
}

/// After, in the new process.
#[pyfunction]
fn after_fork_in_child() {
    sqlite::after_fork_in_child();
}

pub(crate) fn register(module: &Bound<'_, PyModule>) -> PyResult<()> {
    module.add_function(wrap_pyfunction!(before_fork, module)?)?;
    module.add_function(wrap_pyfunction!(after_fork_in_parent, module)?)?;
    module.add_function(wrap_pyfunction!(after_fork_in_child, module)?)
}
