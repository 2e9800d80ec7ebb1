//! Who is to be told next that the time is up.

use std::{cmp::Ordering, collections::BinaryHeap, sync::Arc, time::Instant};

use super::receipt::Slot;

/// The slots of those who wait, the earliest deadline first. Those settled meanwhile are dropped when they get there.
#[derive(Debug, Default)]
pub(super) struct Deadlines(BinaryHeap<Due>);

#[derive(Debug)]
struct Due(Arc<Slot>);

impl Deadlines {
    pub(super) fn push(&mut self, slot: Arc<Slot>) {
        self.0.push(Due(slot));
    }

    /// The next slot that is past its deadline and not settled.
    pub(super) fn pop_due(&mut self, now: Instant) -> Option<Arc<Slot>> {
        while let Some(Due(slot)) = self.0.peek() {
            let is_settled = slot.is_settled();
            if slot.deadline > now && !is_settled {
                return None;
            }
            let Due(slot) = self.0.pop()?;
            if !is_settled {
                return Some(slot);
            }
        }
        None
    }

    pub(super) fn next(&self) -> Option<Instant> {
        self.0.peek().map(|due| due.0.deadline)
    }
}

impl Ord for Due {
    fn cmp(&self, other: &Self) -> Ordering {
        // The heap has its greatest on top.
        other.0.deadline.cmp(&self.0.deadline)
    }
}

impl PartialOrd for Due {
    fn partial_cmp(&self, other: &Self) -> Option<Ordering> {
        Some(self.cmp(other))
    }
}

impl PartialEq for Due {
    fn eq(&self, other: &Self) -> bool {
        self.cmp(other).is_eq()
    }
}

impl Eq for Due {}
