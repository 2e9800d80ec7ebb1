//! Signals that are fired through Celery's brokers: sent in one process,
//! received in another.
//!
//! The modules, in the order in which a signal passes them:
//!
//! 1. [`message`]: what a send means, before any bytes.
//! 2. [`protocol`]: Celery's task protocol and kombu's envelope; bytes in, bytes out, no I/O.
//! 3. [`publisher`]: from message to broker under one deadline, confirmed or buffered.
//! 4. [`broker`]: RabbitMQ, Redis, SQLite and memory behind two small traits.
//! 5. [`worker`]: takes messages, has their receivers run, and settles each.
//! 6. [`retry`], [`follow`]: what follows a message whose receivers failed, or that nobody can run.
//! 7. [`dead_letters`]: looking into the queue of those.
#![forbid(unsafe_code)]

pub mod broker;
pub mod dead_letters;
pub mod follow;
mod ids;
pub mod message;
pub mod protocol;
pub mod publisher;
pub mod retry;
pub mod worker;
