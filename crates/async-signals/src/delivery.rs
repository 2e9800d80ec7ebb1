//! What a receiver may ask about the message that it was called for.

use std::time::SystemTime;

use uuid::Uuid;

use crate::sender::Sender;

/// The message that a receiver was called for. A receiver that wants it takes
/// it as its second argument.
#[derive(Clone, Debug)]
#[non_exhaustive]
pub struct Delivery {
    /// The task's id; a message that comes again carries the same one.
    pub id: Uuid,
    /// The signal's wire name, as the message has it: it may be an alias.
    pub signal: String,
    /// Who says that it happened.
    pub sender: Sender,
    /// Which try of its receivers this is: 1 is the first, and each retry counts one more.
    pub attempt: u32,
    /// How often a worker took it before, within this try, and did not finish it.
    pub redeliveries: u32,
    /// The queue that it was sent to; `None` where it did not cross one.
    pub queue: Option<String>,
    /// When it was sent, if the message says so.
    pub sent_at: Option<SystemTime>,
    /// The trace that the send belongs to, as in W3C's header of that name.
    pub traceparent: Option<String>,
    /// What else tracing systems say of that trace.
    pub tracestate: Option<String>,
}

impl Delivery {
    /// The delivery of a signal whose receivers run where it was sent.
    pub(crate) fn here(id: Uuid, signal: &str, sender: Sender) -> Self {
        Self {
            id,
            signal: signal.to_owned(),
            sender,
            attempt: 1,
            redeliveries: 0,
            queue: None,
            sent_at: Some(SystemTime::now()),
            traceparent: None,
            tracestate: None,
        }
    }
}
