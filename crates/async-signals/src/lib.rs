#![doc = include_str!("../README.md")]
//!
//! # The modules
//!
//! In the order in which a signal passes them:
//!
//! 1. [`signal`]: [`AsyncSignal`], what a program sends with; [`signals`]: those that come with the crate;
//!    [`durability`], [`sent`]: how sure a send is, and what it returns.
//! 2. [`celery`]: [`Celery`], the app that it goes through: which broker, which queue.
//! 3. [`sender`], [`payload`], [`types`]: who says that it happened and what is said, as the body of a task and back.
//! 4. [`message`]: what a send means, before any bytes.
//! 5. [`protocol`]: Celery's task protocol and kombu's envelope; bytes in, bytes out, no I/O.
//! 6. [`publisher`]: from message to broker under one deadline, confirmed or buffered.
//! 7. [`broker`]: RabbitMQ, Redis, SQLite and memory behind two small traits.
//! 8. [`worker`]: takes messages, has their receivers run, and settles each.
//! 9. [`registry`]: which signal a message names.
//! 10. [`mod@receiver`], [`connection`], [`delivery`]: what is called, how it was connected, and what it may ask.
//! 11. [`retry`], [`follow`]: what follows a message whose receivers failed, or that nobody can run.
//! 12. [`dead_letters`]: looking into the queue of those.
#![forbid(unsafe_code)]

mod backoff;
pub mod broker;
pub mod celery;
pub mod clock;
pub mod connection;
pub mod dead_letters;
pub mod delivery;
mod dispatch;
pub mod durability;
pub mod follow;
mod ids;
pub mod message;
mod panics;
pub mod payload;
pub mod protocol;
pub mod publisher;
pub mod receiver;
mod reconnect;
pub mod registry;
pub mod retry;
pub mod sender;
pub mod sent;
pub mod signal;
pub mod signals;
mod text;
pub mod types;
pub mod worker;

pub use async_signals_macros::receiver;
pub use celery::{Celery, ConfigError};
pub use connection::{Connect, ConnectError, Connection};
pub use delivery::Delivery;
pub use durability::Durability;
pub use receiver::BoxError;
pub use retry::RetryPolicy;
pub use sender::Sender;
pub use sent::Sent;
pub use signal::{AsyncSignal, SendError};
pub use worker::Worker;

/// What `#[receiver]` writes into programs. Nothing here is for anybody else.
#[doc(hidden)]
pub mod __private {
    use serde::{Serialize, de::DeserializeOwned};

    pub use crate::registry::Linked;
    use crate::{
        connection::{Connect, ConnectError},
        receiver::IntoReceiver,
        signal::AsyncSignal,
    };
    pub use inventory::submit;

    /// Connects a receiver, with the types that the attribute does not know.
    pub fn connect<P, M>(
        signal: &'static AsyncSignal<P>,
        receiver: impl IntoReceiver<P, M>,
        options: Connect,
    ) -> Result<(), ConnectError>
    where
        P: Serialize + DeserializeOwned + Send + 'static,
    {
        signal.try_connect_with(receiver, options).map(drop)
    }
}

/// What the project's documents show of Rust runs with the tests.
#[cfg(doctest)]
#[doc = include_str!("../../../docs/rust.md")]
mod documents {}
