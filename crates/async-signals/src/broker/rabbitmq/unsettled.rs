//! Which deliveries of a channel are not settled yet, and how few words settle
//! some of them.
//!
//! A channel numbers its deliveries 1, 2, 3, … over all of its consumers.
//! AMQP's `multiple` settles everything up to a number, so it may be said only
//! where nothing below is still in work, or still unseen in another consumer's
//! stream. And the number itself has to be an unsettled one: RabbitMQ closes
//! the channel over any other.

use std::collections::BTreeSet;

/// The unsettled deliveries of one channel, by their delivery tags.
#[derive(Debug, Default)]
pub(super) struct Unsettled {
    /// All that are not settled up to `highest`, those that were not seen yet among them.
    tags: BTreeSet<u64>,
    /// The highest that was seen.
    highest: u64,
}

/// What to tell the broker, in this order.
#[derive(Debug, Default, PartialEq)]
pub(super) struct Settlement {
    /// Everything up to this one that is not settled yet.
    pub(super) up_to: Option<u64>,
    /// And these, one by one.
    pub(super) singles: Vec<u64>,
}

impl Unsettled {
    /// Enters a delivery that is handed out.
    pub(super) fn see(&mut self, tag: u64) {
        // What lies between is under way in another consumer's stream.
        if tag > self.highest {
            self.tags.extend(self.highest + 1..=tag);
            self.highest = tag;
        }
    }

    /// Strikes deliveries out. Those that are settled already, or were never
    /// handed out, are left alone.
    pub(super) fn settle(&mut self, tags: impl Iterator<Item = u64>) -> Settlement {
        let mut settled: Vec<u64> = tags.filter(|tag| self.tags.remove(tag)).collect();
        settled.sort_unstable();
        let first_left = self.tags.first().copied().unwrap_or(u64::MAX);
        let singles = settled.split_off(settled.partition_point(|tag| *tag < first_left));
        Settlement { up_to: settled.pop(), singles }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn seen(tags: impl IntoIterator<Item = u64>) -> Unsettled {
        let mut unsettled = Unsettled::default();
        tags.into_iter().for_each(|tag| unsettled.see(tag));
        unsettled
    }

    fn settlement(up_to: impl Into<Option<u64>>, singles: &[u64]) -> Settlement {
        Settlement { up_to: up_to.into(), singles: singles.to_vec() }
    }

    #[test]
    fn the_finished_prefix_goes_at_once_and_the_rest_one_by_one() {
        let mut unsettled = seen(1..=10);
        assert_eq!(unsettled.settle([3, 2, 1].into_iter()), settlement(3, &[]));
        assert_eq!(unsettled.settle([8, 6, 4].into_iter()), settlement(4, &[6, 8]));
        // 6 is settled, and so may not be the number that `multiple` goes by.
        assert_eq!(unsettled.settle([5].into_iter()), settlement(5, &[]));
        assert_eq!(unsettled.settle([7, 9, 10].into_iter()), settlement(10, &[]));
        assert_eq!(unsettled.tags.len(), 0);
    }

    #[test]
    fn nothing_is_settled_twice_or_before_it_was_handed_out() {
        let mut unsettled = seen(1..=3);
        assert_eq!(unsettled.settle([2, 2].into_iter()), settlement(None, &[2]));
        assert_eq!(unsettled.settle([2, 4, 0].into_iter()), settlement(None, &[]));
        assert_eq!(unsettled.settle([1, 2, 3].into_iter()), settlement(3, &[]));
        assert_eq!(unsettled.settle([1, 2, 3].into_iter()), settlement(None, &[]));
    }

    #[test]
    fn what_another_stream_still_holds_is_not_settled_along() {
        let mut unsettled = seen([3, 5]);
        assert_eq!(unsettled.settle([3, 5].into_iter()), settlement(None, &[3, 5]));
        unsettled.see(1);
        assert_eq!(unsettled.settle([1].into_iter()), settlement(1, &[]));
        unsettled.see(4);
        unsettled.see(2);
        assert_eq!(unsettled.settle([2, 4].into_iter()), settlement(4, &[]));
    }
}
