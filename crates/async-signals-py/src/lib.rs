//! The native half of the Python package `async_signals`: each function
//! converts, calls the core with the interpreter's lock released where anything
//! waits, and converts back. In the order in which a signal passes them:
//!
//! - [`encode`]: a signal, its sender and its arguments become a task's body.
//! - [`template`]: one signal's way out, which makes a message of a body.
//! - [`sent_event`]: Celery's event `task-sent` beside each message.
//! - [`publisher`]: the core's publisher, and messages that are ready to go.
//! - [`decode`]: a body becomes what kombu would make of it.
//! - [`reference`]: the inert stand-ins for what JSON has no form for.
//! - [`resolve`]: the stand-ins become the real values, where the receivers run.
//! - [`worker`]: the core's worker, and the threads of Python's that it has receivers called by.
//! - [`follow_up`]: what follows a message that could not simply be finished.
//! - [`fork`]: what has to happen around a fork of the process.
//! - [`events`]: what the core tells nobody in particular, its log among it, delivered by a thread of its own.
//! - [`browser`]: looking at queues.
//! - [`dead_letters`]: replaying and discarding dead letters.
//! - [`broker`]: which broker, as Celery's settings say it.
//! - [`error`]: the core's errors become Python's.
#![allow(missing_docs, reason = "Python's docstrings document what this crate offers")]

mod broker;
mod browser;
mod classes;
mod convert;
mod dead_letters;
mod decode;
mod encode;
mod error;
mod events;
mod fault;
mod follow_up;
mod fork;
mod kombu;
mod names;
mod publisher;
mod reference;
mod resolve;
mod sender;
mod sent_event;
mod template;
mod worker;

use pyo3::prelude::*;

#[pymodule]
fn _native(module: &Bound<'_, PyModule>) -> PyResult<()> {
    template::register(module)?;
    publisher::register(module)?;
    worker::register(module)?;
    browser::register(module)?;
    dead_letters::register(module)?;
    follow_up::register(module)?;
    fork::register(module)?;
    events::register(module)?;
    reference::register(module)?;
    encode::register(module)?;
    sender::register(module)?;
    decode::register(module)?;
    resolve::register(module)
}
