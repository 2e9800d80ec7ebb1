//! Background messages whose route takes none for now: a full queue, or a server without memory.

use std::{
    collections::VecDeque,
    sync::Arc,
    time::{Duration, Instant},
};

use super::entry::Entry;
use crate::{backoff::Backoff, broker::BrokerError, message::Route};

const FIRST_PAUSE: Duration = Duration::from_millis(50);
const LONGEST_PAUSE: Duration = Duration::from_secs(1);

/// Messages by route, each route in order, until a message that is tried alone goes through.
///
/// One full queue holds up its own messages and nobody else's.
#[derive(Debug, Default)]
pub(super) struct Held(Vec<HeldRoute>);

#[derive(Debug)]
struct HeldRoute {
    route: Arc<Route>,
    /// What was said last.
    error: BrokerError,
    backoff: Backoff,
    probe: Probe,
    entries: VecDeque<Entry>,
}

/// One message of a route that is tried alone.
#[derive(Clone, Copy, Debug)]
enum Probe {
    /// Not before then.
    At(Instant),
    UnderWay,
}

impl Probe {
    fn at(self) -> Option<Instant> {
        match self {
            Self::At(at) => Some(at),
            Self::UnderWay => None,
        }
    }

    fn is_due(self, now: Instant) -> bool {
        self.at().is_some_and(|at| at <= now)
    }
}

impl Held {
    pub(super) fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    fn position(&self, route: &Arc<Route>) -> Option<usize> {
        self.0.iter().position(|held| Arc::ptr_eq(&held.route, route) || held.route == *route)
    }

    /// Whether messages that go this way are held.
    pub(super) fn has(&self, route: &Arc<Route>) -> bool {
        self.position(route).is_some()
    }

    /// Holds a message behind those of its route that are held.
    pub(super) fn push(&mut self, entry: Entry) {
        match self.position(&entry.outgoing.route) {
            Some(index) => self.0[index].insert(entry),
            None => unreachable!("only asked for a route that is held"),
        }
    }

    /// The route of a message has refused it, which may have been tried alone. Whether it is the first of its route
    /// that is held.
    pub(super) fn refused(
        &mut self,
        entry: Entry,
        error: BrokerError,
        was_probe: bool,
        now: Instant,
        random: f64,
    ) -> bool {
        let known = self.position(&entry.outgoing.route);
        let index = known.unwrap_or_else(|| {
            self.0.push(HeldRoute {
                route: entry.outgoing.route.clone(),
                error: error.clone(),
                backoff: Backoff::new(FIRST_PAUSE, LONGEST_PAUSE),
                probe: Probe::At(now),
                entries: VecDeque::new(),
            });
            self.0.len() - 1
        });
        let held = &mut self.0[index];
        held.error = error;
        // What was handed over together is refused together, which counts once.
        if was_probe || known.is_none() {
            held.backoff.failed(random);
            held.probe = Probe::At(now + held.backoff.pause());
        }
        held.insert(entry);
        known.is_none()
    }

    /// A message that was tried alone did not get as far as its route: it is tried again as soon as can be.
    pub(super) fn not_tried(&mut self, entry: Entry, now: Instant) {
        if let Some(index) = self.position(&entry.outgoing.route) {
            self.0[index].probe = Probe::At(now);
            self.0[index].insert(entry);
        }
    }

    /// A route takes messages again: all that were held for it, in order.
    pub(super) fn release(&mut self, route: &Arc<Route>) -> Option<VecDeque<Entry>> {
        let index = self.position(route)?;
        Some(self.0.swap_remove(index).entries)
    }

    /// The next message that is to be tried alone, if one is due.
    pub(super) fn next_probe(&mut self, now: Instant) -> Option<Entry> {
        let held = self.0.iter_mut().find(|held| held.probe.is_due(now))?;
        held.probe = Probe::UnderWay;
        held.entries.pop_front()
    }

    /// Whether a message is to be tried alone.
    pub(super) fn has_probe(&self, now: Instant) -> bool {
        self.0.iter().any(|held| held.probe.is_due(now))
    }

    /// When the next message is to be tried alone.
    pub(super) fn next_probe_at(&self) -> Option<Instant> {
        self.0.iter().filter_map(|held| held.probe.at()).min()
    }

    /// The lowest number among them.
    pub(super) fn oldest(&self) -> Option<u64> {
        self.0.iter().filter_map(|held| held.entries.front()).map(|entry| entry.number).min()
    }

    /// Why the messages of some route are held.
    pub(super) fn error(&self) -> Option<&BrokerError> {
        self.0.first().map(|held| &held.error)
    }
}

impl HeldRoute {
    fn insert(&mut self, entry: Entry) {
        let at = self.entries.partition_point(|held| held.number < entry.number);
        self.entries.insert(at, entry);
    }
}
