//! Taking messages: one run of a script, and one round trip, for each round.

use std::sync::{
    Arc,
    atomic::{AtomicU64, AtomicUsize, Ordering},
};

use bytes::Bytes;
use redis::Value;

use super::{
    keys::Keys,
    session::{Script, Session},
    tags,
};
use crate::{
    broker::{BrokerError, Content, Tag, Taken},
    message::Queue,
    protocol::delivery::Delivery,
};

/// Longer messages are not read, but parked as they are.
const MOST_BYTES: usize = 64 << 20;

static TAKE: Script = Script::new(include_str!("scripts/take.lua"));

/// The queues that a worker takes from, and its place among their messages.
#[derive(Debug)]
pub(super) struct Taking {
    worker: String,
    generation: u32,
    queues: Vec<Source>,
    /// How many lists each queue has.
    steps: usize,
    /// Which queue is first in the next round.
    turn: AtomicUsize,
    /// How many tags were given to rounds. Those that a round did not use are never used.
    numbered: AtomicU64,
}

#[derive(Debug)]
struct Source {
    name: Arc<str>,
    lists: Vec<String>,
    /// What follows the envelope in a message's record. kombu puts it back into the queue of the second
    /// name if the first, the exchange, is empty: to where it came from, whatever is bound to what by then.
    end: String,
}

impl Taking {
    pub(super) fn new(worker: &str, generation: u32, queues: &[Queue], keys: &Keys) -> Self {
        let mut sources: Vec<Source> = Vec::new();
        for queue in queues {
            if sources.iter().all(|source| *source.name != *queue.name) {
                sources.push(Source {
                    name: queue.name.as_str().into(),
                    lists: keys.lists(&queue.name).collect(),
                    end: format!(",\"\",{}]", serde_json::Value::from(queue.name.as_str())),
                });
            }
        }
        Self {
            worker: worker.to_owned(),
            generation,
            steps: sources.first().map_or(0, |source| source.lists.len()),
            queues: sources,
            turn: AtomicUsize::new(0),
            numbered: AtomicU64::new(0),
        }
    }

    /// Every list that may have messages.
    pub(super) fn lists(&self) -> impl Iterator<Item = &str> {
        self.queues.iter().flat_map(|source| &source.lists).map(String::as_str)
    }

    /// Acknowledges `done`, and takes what there is: at most `limit` messages.
    pub(super) async fn round(&self, session: &Session, done: &[Tag], limit: usize) -> Result<Vec<Taken>, BrokerError> {
        let first = self.turn.fetch_add(1, Ordering::Relaxed) % self.queues.len().max(1);
        let (last, sources) = self.queues.split_at(first);
        let sources: Vec<&Source> = sources.iter().chain(last).collect();
        let before = self.numbered.fetch_add(limit as u64, Ordering::Relaxed);
        let keys = 3 + self.steps * sources.len();
        let reply = session.run(&TAKE, keys, |command| {
            command.arg(session.keys.unacked()).arg(session.keys.unacked_index()).arg(session.keys.generations());
            for source in &sources {
                command.arg(&source.lists);
            }
            command.arg(&self.worker).arg(self.generation).arg(before).arg(limit).arg(self.steps).arg(sources.len());
            for source in &sources {
                command.arg(&source.end);
            }
            for tag in done {
                command.arg(tags::write(&self.worker, *tag));
            }
        });
        self.read(session, &sources, before, reply.await?)
    }

    fn read(
        &self,
        session: &Session,
        sources: &[&Source],
        before: u64,
        reply: Value,
    ) -> Result<Vec<Taken>, BrokerError> {
        let Value::Array(found) = reply else { return Err(session.unexpected(&reply)) };
        let mut taken = Vec::new();
        let mut found = found.into_iter();
        while let Some(queue) = found.next() {
            let source = match queue {
                Value::Int(place) => usize::try_from(place - 1).ok().and_then(|place| sources.get(place)),
                _ => None,
            };
            let (Some(source), Some(Value::Array(messages))) = (source, found.next()) else {
                return Err(session.unexpected(&queue));
            };
            for message in messages {
                let Value::BulkString(message) = message else { return Err(session.unexpected(&message)) };
                let tag = Tag { generation: self.generation, number: before + 1 + taken.len() as u64 };
                taken.push(taken_from(&source.name, tag, message));
            }
        }
        Ok(taken)
    }
}

fn taken_from(queue: &Arc<str>, tag: Tag, message: Vec<u8>) -> Taken {
    let (redelivered, content) = content(message);
    Taken { tag, queue: queue.clone(), redelivered, content }
}

/// What an element of a list holds, and whether it was delivered before.
pub(super) fn content(message: Vec<u8>) -> (bool, Content) {
    match Delivery::read(&message, MOST_BYTES) {
        Ok(Delivery { incoming, redelivered }) => (redelivered, Content::Message(Box::new(incoming))),
        Err(error) => (false, Content::Malformed { raw: Bytes::from(message), reason: error.to_string() }),
    }
}
