//! A message on its way through a publisher, and who waits for it.

use super::receipt::Settler;
use crate::message::{Outgoing, TaskEvent};

/// How many bytes of bodies go into one batch. A batch is answered, and given up, as a whole.
pub(super) const MOST_BYTES: usize = 1 << 20;

/// What comes from the senders.
#[derive(Debug)]
#[allow(clippy::large_enum_variant, reason = "flushes are rare, and a box for each send would cost an allocation")]
pub(super) enum Item {
    Send(Entry),
    Event(TaskEvent),
    Flush(Settler),
}

/// A message, and who waits for it.
#[derive(Debug)]
pub(super) struct Entry {
    pub(super) outgoing: Outgoing,
    /// Goes right behind the message, the first time that it is handed over.
    pub(super) event: Option<Box<TaskEvent>>,
    /// `None` in the background.
    pub(super) slot: Option<Settler>,
    /// Its place in the order in which messages came.
    pub(super) number: u64,
    /// Whether the broker may have it from an earlier try.
    pub(super) may_have_arrived: bool,
}

impl Entry {
    pub(super) fn confirmed(outgoing: Outgoing, event: Option<Box<TaskEvent>>, slot: Settler) -> Self {
        Self { outgoing, event, slot: Some(slot), number: 0, may_have_arrived: false }
    }

    pub(super) fn background(outgoing: Outgoing, event: Option<Box<TaskEvent>>) -> Self {
        Self { outgoing, event, slot: None, number: 0, may_have_arrived: false }
    }

    /// How much of it counts against a batch, in bytes.
    pub(super) fn size(&self) -> usize {
        self.outgoing.message.body.len()
    }

    /// Whether its sender has been told what became of it, such as that its time is up.
    pub(super) fn is_settled(&self) -> bool {
        self.slot.as_ref().is_some_and(|slot| slot.is_settled())
    }
}

/// What is handed to the broker at once. The messages travel out with it and come back with the broker's answers.
#[derive(Debug)]
pub(super) struct Batch {
    pub(super) messages: Vec<Outgoing>,
    /// One for each message.
    pub(super) tickets: Vec<Ticket>,
    /// The bodies' bytes.
    pub(super) bytes: usize,
}

impl Batch {
    pub(super) fn with_capacity(size: usize) -> Self {
        Self { messages: Vec::with_capacity(size), tickets: Vec::with_capacity(size), bytes: 0 }
    }

    pub(super) fn of(entries: Vec<Entry>, events: &mut Vec<TaskEvent>) -> Self {
        let mut batch = Self::with_capacity(entries.len());
        entries.into_iter().for_each(|entry| batch.push(entry, events));
        batch
    }

    pub(super) fn push(&mut self, entry: Entry, events: &mut Vec<TaskEvent>) {
        self.bytes += entry.size();
        let Entry { outgoing, event, slot, number, may_have_arrived } = entry;
        self.messages.push(outgoing);
        self.tickets.push(Ticket { slot, number, may_have_arrived });
        events.extend(event.map(|event| *event));
    }

    /// Whether a message does not make it too large. One message is never too large.
    pub(super) fn has_room_for(&self, entry: &Entry) -> bool {
        self.messages.is_empty() || self.bytes + entry.size() <= MOST_BYTES
    }

    /// The lowest number in it, by which it is known while it is under way.
    pub(super) fn first(&self) -> Option<u64> {
        self.tickets.first().map(|ticket| ticket.number)
    }
}

/// What stays of an [`Entry`] beside its message while that is under way.
#[derive(Debug)]
pub(super) struct Ticket {
    pub(super) slot: Option<Settler>,
    pub(super) number: u64,
    pub(super) may_have_arrived: bool,
}
