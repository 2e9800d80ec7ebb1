//! Signals that are fired through Celery's brokers: sent in one process,
//! received in another.
//!
//! The modules, in the order in which a signal passes them:
//!
//! 1. [`sender`], [`payload`], [`types`]: who says that it happened and what is said, as the body of a task and back.
//! 2. [`message`]: what a send means, before any bytes.
//! 3. [`protocol`]: Celery's task protocol and kombu's envelope; bytes in, bytes out, no I/O.
//! 4. [`publisher`]: from message to broker under one deadline, confirmed or buffered.
//! 5. [`broker`]: RabbitMQ, Redis, SQLite and memory behind two small traits.
//! 6. [`worker`]: takes messages, has their receivers run, and settles each.
//! 7. [`retry`], [`follow`]: what follows a message whose receivers failed, or that nobody can run.
//! 8. [`dead_letters`]: looking into the queue of those.
#![forbid(unsafe_code)]

pub mod broker;
pub mod dead_letters;
pub mod follow;
mod ids;
pub mod message;
pub mod payload;
pub mod protocol;
pub mod publisher;
pub mod retry;
pub mod sender;
pub mod types;
pub mod worker;
