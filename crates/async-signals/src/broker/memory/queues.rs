//! What waits, and what is in whose hands.

use std::{
    collections::{BTreeMap, HashMap, HashSet, VecDeque},
    sync::Arc,
};

use serde_json::{Map, Value};

use crate::{
    broker::{Content, Subscription, Tag, Taken},
    message::{Headers, Incoming, Message, Outgoing},
};

/// Every queue of a host.
#[derive(Debug, Default)]
pub(super) struct Queues {
    waiting: HashMap<String, VecDeque<Stored>>,
    /// What was taken and is not settled, by the numbers of the tags: in the order in which it was taken.
    held: BTreeMap<u64, Held>,
    last_number: u64,
    last_connection: u64,
}

#[derive(Debug)]
struct Stored {
    outgoing: Outgoing,
    redelivered: bool,
}

#[derive(Debug)]
struct Held {
    stored: Stored,
    tag: Tag,
    queue: Arc<str>,
    holder: Holder,
}

/// Who holds a message.
#[derive(Clone, Debug)]
pub(super) struct Holder {
    pub(super) worker: Arc<str>,
    /// Counts the consumers of a host.
    pub(super) connection: u64,
}

impl Held {
    fn is(&self, tag: &Tag, worker: &str) -> bool {
        self.tag == *tag && &*self.holder.worker == worker
    }
}

impl Queues {
    pub(super) fn put(&mut self, queue: &str, outgoing: &Outgoing) {
        let stored = Stored { outgoing: outgoing.clone(), redelivered: false };
        self.waiting.entry(queue.to_owned()).or_default().push_back(stored);
    }

    /// How many messages of a queue wait, and how many are held; `None`: nothing was ever put into it.
    pub(super) fn counts(&self, queue: &str) -> Option<(usize, usize)> {
        let waiting = self.waiting.get(queue)?.len();
        Some((waiting, self.held.values().filter(|entry| &*entry.queue == queue).count()))
    }

    /// Waiting messages of a queue, without taking them.
    pub(super) fn look(&self, queue: &str, skipped: usize, limit: usize) -> Vec<Content> {
        let waiting = self.waiting.get(queue).into_iter().flatten();
        waiting.skip(skipped).take(limit).map(Stored::content).collect()
    }

    pub(super) fn drain(&mut self, queue: &str) -> Vec<Message> {
        let waiting = self.waiting.get_mut(queue).map(std::mem::take).unwrap_or_default();
        waiting.into_iter().map(|stored| stored.outgoing.message).collect()
    }

    /// A consumer that goes on with what its worker holds. What else stands under the worker's name goes back.
    pub(super) fn enlist(&mut self, subscription: &Subscription) -> Holder {
        let Subscription { worker, held, generation, .. } = subscription;
        self.last_connection += 1;
        let holder = Holder { worker: worker.as_str().into(), connection: self.last_connection };
        for tag in held {
            if let Some(entry) = self.held.get_mut(&tag.number).filter(|entry| entry.is(tag, worker)) {
                entry.holder.connection = holder.connection;
            }
        }
        // Nobody has seen these, since the answer that brought them was lost; unless another process has the same name.
        let is_lost = |entry: &Held| *entry.holder.worker == **worker && entry.holder.connection != holder.connection;
        self.return_if(is_lost, *generation == 1);
        holder
    }

    /// Takes up to `limit` messages, one of each queue in turn, beginning with the queue at `first`.
    pub(super) fn take(
        &mut self,
        queues: &[Arc<str>],
        first: usize,
        limit: usize,
        holder: &Holder,
        generation: u32,
    ) -> Vec<Taken> {
        let mut taken = Vec::new();
        let mut empty_in_a_row = 0;
        for queue in queues.iter().cycle().skip(first % queues.len().max(1)) {
            if taken.len() >= limit || empty_in_a_row == queues.len() {
                break;
            }
            let Some(stored) = self.waiting.get_mut(&**queue).and_then(VecDeque::pop_front) else {
                empty_in_a_row += 1;
                continue;
            };
            empty_in_a_row = 0;
            self.last_number += 1;
            let tag = Tag { generation, number: self.last_number };
            taken.push(stored.taken(tag, queue));
            self.held.insert(tag.number, Held { stored, tag, queue: queue.clone(), holder: holder.clone() });
        }
        taken
    }

    pub(super) fn acknowledge(&mut self, tags: &[Tag], worker: &str) {
        for tag in tags {
            if self.held.get(&tag.number).is_some_and(|entry| entry.is(tag, worker)) {
                self.held.remove(&tag.number);
            }
        }
    }

    pub(super) fn give_back(&mut self, tags: &[Tag], worker: &str) {
        let tags: HashSet<&Tag> = tags.iter().collect();
        self.give_back_if(|entry| tags.contains(&entry.tag) && &*entry.holder.worker == worker);
    }

    /// Everything that a worker holds.
    pub(super) fn give_back_all(&mut self, worker: &str) {
        self.give_back_if(|entry| &*entry.holder.worker == worker);
    }

    /// What one consumer holds, unless a later one of its worker has taken it over.
    pub(super) fn give_back_of(&mut self, connection: u64) {
        self.give_back_if(|entry| entry.holder.connection == connection);
    }

    /// Gives back, marked as delivered before.
    fn give_back_if(&mut self, returns: impl Fn(&Held) -> bool) {
        self.return_if(returns, true);
    }

    fn return_if(&mut self, returns: impl Fn(&Held) -> bool, was_delivered: bool) {
        // The last one first: each goes before those that were taken after it.
        let numbers: Vec<u64> = self.held.iter().rev().filter(|(_, entry)| returns(entry)).map(|(id, _)| *id).collect();
        for entry in numbers.iter().filter_map(|number| self.held.remove(number)).collect::<Vec<_>>() {
            let redelivered = entry.stored.redelivered || was_delivered;
            let stored = Stored { redelivered, ..entry.stored };
            self.waiting.entry(entry.queue.to_string()).or_default().push_front(stored);
        }
    }
}

impl Stored {
    fn taken(&self, tag: Tag, queue: &Arc<str>) -> Taken {
        Taken { tag, queue: queue.clone(), redelivered: self.redelivered, content: self.content() }
    }

    fn content(&self) -> Content {
        let Outgoing { route, message } = &self.outgoing;
        match headers(&message.headers) {
            Ok(headers) => Content::Message(Box::new(Incoming {
                headers: headers.into(),
                properties: message.properties.clone(),
                exchange: route.exchange.clone(),
                routing_key: route.routing_key.clone(),
                body: message.body.clone(),
            })),
            Err(reason) => Content::Malformed { raw: message.body.clone(), reason },
        }
    }
}

/// The headers as another process would read them.
fn headers(headers: &Headers) -> Result<Map<String, Value>, String> {
    match headers {
        Headers::Raw(headers) => Ok(headers.clone()),
        Headers::Task(headers) => match serde_json::to_value(headers) {
            Ok(Value::Object(headers)) => Ok(headers),
            Ok(other) => Err(format!("its headers are {other}, not an object")),
            Err(error) => Err(format!("its headers are no JSON: {error}")),
        },
    }
}
