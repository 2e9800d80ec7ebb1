//! What the worker holds, and how each message stands.

use std::{
    cmp::Reverse,
    collections::{BinaryHeap, HashMap},
    sync::Arc,
    time::Instant,
};

use super::job::Arrival;
use crate::broker::Tag;

/// How one held message stands.
#[derive(Debug)]
enum State {
    /// With the runner.
    Running,
    /// It waits for its time.
    Delayed(Arrival),
    /// It waits until it can run alone.
    Waiting,
    /// Its follow-up is on its way to the broker.
    Following,
}

#[derive(Debug)]
struct Entry {
    queue: Arc<str>,
    state: State,
    /// Copies of it that came while it ran: settled with it.
    twins: Vec<Tag>,
}

/// Everything that was taken and is not settled.
#[derive(Debug, Default)]
pub(super) struct InFlight {
    entries: HashMap<Tag, Entry>,
    twins: HashMap<Tag, Tag>,
    due: BinaryHeap<Reverse<(Instant, Tag)>>,
}

impl InFlight {
    pub(super) fn run(&mut self, tag: Tag, queue: Arc<str>) {
        self.entries.insert(tag, Entry { queue, state: State::Running, twins: Vec::new() });
    }

    pub(super) fn wait(&mut self, tag: Tag, queue: Arc<str>) {
        self.entries.insert(tag, Entry { queue, state: State::Waiting, twins: Vec::new() });
    }

    pub(super) fn delay(&mut self, tag: Tag, until: Instant, arrival: Arrival) {
        let queue = arrival.queue.clone();
        self.entries.insert(tag, Entry { queue, state: State::Delayed(arrival), twins: Vec::new() });
        self.due.push(Reverse((until, tag)));
    }

    /// Its follow-up is on its way, whatever it was before.
    pub(super) fn follow(&mut self, tag: Tag, queue: Arc<str>) {
        self.entries.entry(tag).or_insert(Entry { queue, state: State::Following, twins: Vec::new() }).state =
            State::Following;
    }

    /// When the next delayed message is due.
    pub(super) fn next_due(&self) -> Option<Instant> {
        self.due.peek().map(|Reverse((at, _))| *at)
    }

    /// A delayed message that is due by now; it counts as running from here on.
    pub(super) fn take_due(&mut self, now: Instant) -> Option<(Tag, Arrival)> {
        while let Some(Reverse((at, tag))) = self.due.peek().copied() {
            if at > now {
                return None;
            }
            self.due.pop();
            if let Some(entry) = self.entries.get_mut(&tag)
                && matches!(entry.state, State::Delayed(_))
                && let State::Delayed(arrival) = std::mem::replace(&mut entry.state, State::Running)
            {
                return Some((tag, arrival));
            }
        }
        None
    }

    /// The queue of a message that is held; `None` if the broker took it back.
    pub(super) fn queue(&self, tag: Tag) -> Option<&Arc<str>> {
        self.entries.get(&tag).map(|entry| &entry.queue)
    }

    /// Ties a copy to the message that it is a copy of, if that is held.
    pub(super) fn tie(&mut self, original: Tag, copy: Tag) -> bool {
        let Some(entry) = self.entries.get_mut(&original) else { return false };
        entry.twins.push(copy);
        self.twins.insert(copy, original);
        true
    }

    /// Takes a message out, with the copies that are tied to it.
    pub(super) fn settle(&mut self, tag: Tag, tags: &mut Vec<Tag>) {
        tags.push(tag);
        if let Some(entry) = self.entries.remove(&tag) {
            for twin in entry.twins {
                self.twins.remove(&twin);
                tags.push(twin);
            }
        }
    }

    /// Forgets what came over lost connections that the broker took back,
    /// except what is with the runner: its copy is tied to it when it comes.
    pub(super) fn forget_lost(&mut self) {
        self.due.clear();
        self.entries.retain(|_, entry| {
            entry.twins.clear();
            !matches!(entry.state, State::Delayed(_) | State::Waiting)
        });
        self.twins.clear();
    }

    pub(super) fn delayed(&self) -> usize {
        self.due.len()
    }

    /// All tags that are held.
    pub(super) fn tags(&self) -> impl Iterator<Item = Tag> {
        self.entries.keys().chain(self.twins.keys()).copied()
    }

    /// Takes out all that only wait for their time.
    pub(super) fn drop_delayed(&mut self) -> Vec<Tag> {
        self.due.clear();
        let mut waiting: Vec<Tag> = self
            .entries
            .iter()
            .filter(|(_, entry)| matches!(entry.state, State::Delayed(_)))
            .map(|(tag, _)| *tag)
            .collect();
        waiting.sort_unstable();
        let mut tags = Vec::new();
        for tag in waiting {
            self.settle(tag, &mut tags);
        }
        tags
    }

    pub(super) fn is_empty(&self) -> bool {
        self.entries.is_empty()
    }
}
