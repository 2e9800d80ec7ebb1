//! Dead-letter queues: looking into them, sending their messages again, and discarding them.
//!
//! [`look`] takes nothing, so that it may be done at any time; RabbitMQ does not offer that. [`DeadLetterQueue`] takes
//! messages as a worker does, to replay or discard them; whatever it does not settle goes back when it is
//! [closed](DeadLetterQueue::close), or when this process dies. So two people who do that at once each see a part.

mod filter;
mod looking;
mod taking;

use serde_json::{Map, Value};

pub use self::{
    filter::Filter,
    looking::{Found, look},
    taking::{DeadLetterQueue, Held, ReplayError},
};
use crate::{broker::Content, follow::Ours, message::Incoming, protocol::celery::TASK};

/// A message in a dead-letter queue.
#[derive(Clone, Debug)]
pub struct DeadLetter {
    content: Content,
}

impl DeadLetter {
    /// The message; `None` if there lie bytes that are none.
    pub fn incoming(&self) -> Option<&Incoming> {
        match &self.content {
            Content::Message(incoming) => Some(incoming),
            Content::Malformed { .. } => None,
        }
    }

    /// The task's id, or nothing where it has none.
    pub fn id(&self) -> &str {
        let header = self.incoming().and_then(|incoming| incoming.headers.get("id"));
        header.and_then(Value::as_str).unwrap_or_default()
    }

    /// The signal's wire name, as far as the body tells; of another task, its name.
    pub fn signal(&self) -> Option<String> {
        let incoming = self.incoming()?;
        let task = incoming.headers.get("task").and_then(Value::as_str);
        if task.is_some_and(|task| task != TASK) {
            return task.map(str::to_owned);
        }
        let body: Value = serde_json::from_slice(&incoming.body).ok()?;
        Some(body.get(0)?.get(0)?.as_str()?.to_owned())
    }

    /// Why it was dead-lettered: `kind`, `reason`, `queue`, `at`, and `failures` of receivers, as
    /// [`follow`](crate::follow) writes them. Empty if nobody said.
    pub fn why(&self) -> Map<String, Value> {
        self.incoming().and_then(|incoming| Ours::received(&incoming.headers).parked).unwrap_or_default()
    }
}

impl From<Content> for DeadLetter {
    fn from(content: Content) -> Self {
        Self { content }
    }
}
