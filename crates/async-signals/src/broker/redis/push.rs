//! The `LPUSH` commands of a batch: one for each list that it reaches.

use std::{collections::HashMap, sync::Arc};

use redis::{Cmd, Pipeline, RedisWrite};

use super::{
    keys::Keys,
    routes::{Targets, command},
};
use crate::{
    broker::{BrokerError, Published},
    ids::Ids,
    message::{Message, Route},
    protocol::kombu::write_envelope,
};

/// One `LPUSH` takes no more messages than this, …
pub(super) const MOST_MESSAGES: usize = 256;
/// … and none once it has this many bytes.
const MOST_BYTES: usize = 4 << 20;

/// The `LPUSH` commands of a batch.
pub(super) struct Pushes<'a> {
    keys: &'a Keys,
    /// For the delivery tags.
    ids: &'a Ids,
    /// How many messages are still to come.
    left: usize,
    /// What goes first.
    pub(super) pipeline: Pipeline,
    commands: Vec<Push>,
    /// The newest command of each list.
    newest: HashMap<String, usize>,
    /// The last message's queue and priority, and the command that it went into: most go the same way.
    last: Option<(Arc<str>, u8, usize)>,
    /// Queues that expire, and when.
    expiring: HashMap<Arc<str>, u64>,
    envelope: Vec<u8>,
}

struct Push {
    command: Cmd,
    bytes: usize,
    messages: Vec<usize>,
}

impl<'a> Pushes<'a> {
    /// For a batch of so many messages.
    pub(super) fn new(keys: &'a Keys, ids: &'a Ids, messages: usize) -> Self {
        Self {
            keys,
            ids,
            left: messages,
            pipeline: Pipeline::new(),
            commands: Vec::new(),
            newest: HashMap::new(),
            last: None,
            expiring: HashMap::new(),
            envelope: Vec::new(),
        }
    }

    /// Takes a message, for every queue that its route leads to.
    pub(super) fn add(&mut self, index: usize, message: &Message, route: &Route, targets: &Targets) -> Published {
        for target in targets.iter() {
            // A tag for each queue: consumers of both keep them in one hash.
            self.envelope.clear();
            write_envelope(&mut self.envelope, message, &route.exchange, &route.routing_key, self.ids.next())
                .map_err(|error| BrokerError::Refused { reason: format!("its headers cannot be written: {error}") })?;
            if let Some(expires) = target.expires_ms {
                self.expiring.insert(target.queue.clone(), expires);
            }
            let place = self.command(&target.queue, message.properties.priority);
            let push = &mut self.commands[place];
            push.messages.push(index);
            push.bytes += self.envelope.len();
            push.command.write_arg(&self.envelope);
        }
        self.left = self.left.saturating_sub(1);
        Ok(())
    }

    /// The place of the command that takes the next message of a list.
    fn command(&mut self, queue: &Arc<str>, priority: u8) -> usize {
        if let Some((last, of, place)) = &self.last
            && *of == priority
            && Arc::ptr_eq(last, queue)
            && self.commands[*place].has_room()
        {
            return *place;
        }
        let list = self.keys.list(queue, priority);
        let newest = self.newest.get(&list).copied();
        let place = newest.filter(|place| self.commands[*place].has_room()).unwrap_or_else(|| {
            let command = self.begin(&list);
            self.commands.push(Push { command, bytes: 0, messages: Vec::new() });
            self.newest.insert(list, self.commands.len() - 1);
            self.commands.len() - 1
        });
        self.last = Some((queue.clone(), priority, place));
        place
    }

    /// An `LPUSH` without messages. The first gets room for all of the batch,
    /// which most often goes to one list, in messages like the one at hand.
    fn begin(&self, list: &str) -> Cmd {
        let expected = if self.commands.is_empty() { self.left.min(MOST_MESSAGES) } else { 1 };
        let bytes = (expected * self.envelope.len()).min(MOST_BYTES) + list.len() + 16;
        let mut command = Cmd::with_capacity(expected + 2, bytes);
        command.arg("LPUSH").arg(list);
        command
    }

    /// The whole pipeline, and the messages that each `LPUSH` in it carries.
    pub(super) fn finish(self) -> (Pipeline, Vec<Vec<usize>>) {
        let mut pipeline = self.pipeline;
        let mut messages = Vec::with_capacity(self.commands.len());
        for push in self.commands {
            pipeline.add_command(push.command);
            messages.push(push.messages);
        }
        for (queue, expires) in &self.expiring {
            for list in self.keys.lists(queue) {
                let mut expire = command("PEXPIRE", [list]);
                expire.arg(*expires);
                pipeline.add_command(expire);
            }
        }
        (pipeline, messages)
    }
}

impl Push {
    fn has_room(&self) -> bool {
        self.messages.len() < MOST_MESSAGES && self.bytes < MOST_BYTES
    }
}
