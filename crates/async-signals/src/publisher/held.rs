//! Background messages whose route takes none for now: a full queue, or a server without memory.

use std::{
    collections::VecDeque,
    sync::Arc,
    time::{Duration, Instant},
};

use super::entry::{Entry, MOST_BYTES};
use crate::{backoff::Backoff, broker::BrokerError, message::Route};

const FIRST_PAUSE: Duration = Duration::from_millis(50);
const LONGEST_PAUSE: Duration = Duration::from_secs(1);

/// Messages by route, each route in order, some of which are tried now and then: one at first, and twice as many each
/// time that all of them were taken.
///
/// One full queue holds up its own messages and nobody else's.
#[derive(Debug, Default)]
pub(super) struct Held {
    routes: Vec<HeldRoute>,
    /// How many of them were told to take up half of the buffer.
    told_full: usize,
}

#[derive(Debug)]
struct HeldRoute {
    route: Arc<Route>,
    /// What was said last.
    error: BrokerError,
    backoff: Backoff,
    probe: Probe,
    /// How many are tried next.
    size: usize,
    entries: VecDeque<Entry>,
    bytes: usize,
    /// Whether they take up half of the buffer: then no more are let into it.
    is_full: bool,
}

/// Messages of a route that are tried.
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
        self.routes.is_empty()
    }

    fn position(&self, route: &Arc<Route>) -> Option<usize> {
        self.routes.iter().position(|held| Arc::ptr_eq(&held.route, route) || held.route == *route)
    }

    /// Why messages that go this way are held; `None`: they are not.
    pub(super) fn why(&self, route: &Arc<Route>) -> Option<&BrokerError> {
        self.position(route).map(|index| &self.routes[index].error)
    }

    /// The routes that take up half of a buffer of so many messages and bytes each, if others do than before.
    pub(super) fn full_routes(&mut self, messages: usize, bytes: usize) -> Option<Vec<Arc<Route>>> {
        let mut has_changed = false;
        for held in &mut self.routes {
            let is_full = held.entries.len() * 2 >= messages || held.bytes >= bytes / 2;
            has_changed |= std::mem::replace(&mut held.is_full, is_full) != is_full;
        }
        let full: Vec<Arc<Route>> =
            self.routes.iter().filter(|held| held.is_full).map(|held| held.route.clone()).collect();
        // Some may have gone meanwhile.
        has_changed |= std::mem::replace(&mut self.told_full, full.len()) != full.len();
        has_changed.then_some(full)
    }

    /// Holds a message among those of its route; the route is held from now on. Whether it was not before.
    pub(super) fn hold(&mut self, entry: Entry, error: BrokerError, now: Instant, random: f64) -> bool {
        let known = self.position(&entry.outgoing.route);
        let index = known.unwrap_or_else(|| {
            let mut backoff = Backoff::new(FIRST_PAUSE, LONGEST_PAUSE);
            backoff.failed(random);
            self.routes.push(HeldRoute {
                route: entry.outgoing.route.clone(),
                error: error.clone(),
                probe: Probe::At(now + backoff.pause()),
                backoff,
                size: 1,
                entries: VecDeque::new(),
                bytes: 0,
                is_full: false,
            });
            self.routes.len() - 1
        });
        let held = &mut self.routes[index];
        held.error = error;
        held.insert(entry);
        known.is_none()
    }

    /// Puts back a message that was tried and did not get as far as its route. Gives it back if the route is not held.
    pub(super) fn put_back(&mut self, entry: Entry) -> Option<Entry> {
        let Some(index) = self.position(&entry.outgoing.route) else { return Some(entry) };
        self.routes[index].insert(entry);
        None
    }

    /// What was tried of a route has come back: all of it was `taken`, or some was refused. Whether the route is held no
    /// more.
    pub(super) fn tried(&mut self, route: &Arc<Route>, taken: bool, now: Instant, random: f64) -> bool {
        let Some(index) = self.position(route) else { return false };
        let held = &mut self.routes[index];
        if taken {
            if held.entries.is_empty() {
                self.routes.swap_remove(index);
                return true;
            }
            held.backoff.reset();
            held.size = held.size.saturating_mul(2);
        } else {
            held.backoff.failed(random);
            held.size = 1;
        }
        held.probe = Probe::At(now + held.backoff.pause());
        false
    }

    /// What was tried of a route did not get as far: it is tried again as soon as can be.
    pub(super) fn not_tried(&mut self, route: &Arc<Route>, now: Instant) {
        if let Some(index) = self.position(route) {
            self.routes[index].probe = Probe::At(now);
        }
    }

    /// The next messages that are to be tried, at most so many; empty if none are due.
    pub(super) fn next_probe(&mut self, most: usize, now: Instant) -> Vec<Entry> {
        let Some(held) = self.routes.iter_mut().find(|held| held.probe.is_due(now)) else { return Vec::new() };
        held.probe = Probe::UnderWay;
        let (mut bytes, mut count) = (0, 0);
        for entry in held.entries.iter().take(held.size.min(most)) {
            if count > 0 && bytes + entry.size() > MOST_BYTES {
                break;
            }
            bytes += entry.size();
            count += 1;
        }
        held.bytes -= bytes;
        held.entries.drain(..count).collect()
    }

    /// Whether messages are to be tried.
    pub(super) fn has_probe(&self, now: Instant) -> bool {
        self.routes.iter().any(|held| held.probe.is_due(now))
    }

    /// When messages are to be tried next.
    pub(super) fn next_probe_at(&self) -> Option<Instant> {
        self.routes.iter().filter_map(|held| held.probe.at()).min()
    }

    /// The lowest number among them.
    pub(super) fn oldest(&self) -> Option<u64> {
        self.routes.iter().filter_map(|held| held.entries.front()).map(|entry| entry.number).min()
    }

    /// All of them.
    pub(super) fn into_entries(self) -> impl Iterator<Item = Entry> {
        self.routes.into_iter().flat_map(|held| held.entries)
    }

    /// Why the messages of some route are held.
    pub(super) fn error(&self) -> Option<&BrokerError> {
        self.routes.first().map(|held| &held.error)
    }
}

impl HeldRoute {
    fn insert(&mut self, entry: Entry) {
        let at = self.entries.partition_point(|other| other.number < entry.number);
        self.bytes += entry.size();
        self.entries.insert(at, entry);
    }
}
