use thiserror::Error;
use uuid::Uuid;

use crate::{
    payload::{DecodeError, EncodeError},
    publisher::PublishError,
    receiver::BoxError,
};

/// Why a send failed.
#[derive(Debug, Error)]
#[non_exhaustive]
pub enum SendError {
    /// It was not handed over to the broker.
    #[error("signal {signal} was not sent: {source}")]
    NotSent {
        /// The signal's name.
        signal: &'static str,
        /// The id that its task has, or would have.
        id: Uuid,
        /// What stood in the way.
        source: PublishError,
    },
    /// The payload cannot cross the wire.
    #[error("signal {signal} cannot be sent: {source}")]
    Payload {
        /// The signal's name.
        signal: &'static str,
        /// Which part of it, and why.
        source: EncodeError,
    },
    /// The payload can be written, and what was written is not read as the
    /// same type. Only seen where receivers run here; elsewhere their worker finds out.
    #[error("signal {signal}: its payload does not read back: {source}")]
    NotReadable {
        /// The signal's name.
        signal: &'static str,
        /// Which part of it, and why.
        source: DecodeError,
    },
    /// The app has no queue of that name, and is not to make any.
    #[error("signal {signal} goes to queue {queue:?}, which the app does not have; add it with CeleryBuilder::queue")]
    UnknownQueue {
        /// The signal's name.
        signal: &'static str,
        /// The queue.
        queue: String,
    },
    /// A queue's name that no broker takes.
    #[error(
        "signal {signal} cannot go to a queue named {queue:?}: a name has to have 1 to 255 bytes and no control \
         characters"
    )]
    QueueName {
        /// The signal's name.
        signal: &'static str,
        /// The queue's.
        queue: String,
    },
    /// Its eta is beyond the year 9999, which no message can say.
    #[error("signal {signal} would never be due: its eta is beyond the year 9999")]
    NeverDue {
        /// The signal's name.
        signal: &'static str,
    },
    /// A receiver that ran here failed, and the ones after it were not called.
    #[error("receiver {receiver} of signal {signal} failed: {source}")]
    Receiver {
        /// The signal's name.
        signal: &'static str,
        /// The receiver's name.
        receiver: String,
        /// What it failed with.
        source: BoxError,
    },
}

impl SendError {
    /// Whether the broker may have the signal all the same.
    pub fn may_have_arrived(&self) -> bool {
        matches!(self, Self::NotSent { source, .. } if source.may_have_arrived())
    }
}
