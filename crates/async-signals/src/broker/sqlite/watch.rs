//! Who is dead.
//!
//! Clocks of two processes may differ, and jump. So a worker is judged by
//! whether its number in the file changes while we look on, by our own clock
//! that never jumps; what its number says of the time counts for a part only.

use std::{
    collections::HashMap,
    time::{Duration, Instant},
};

use crate::broker::consumer::DEAD_AFTER;

/// How much of its silence a worker's own number may tell, for those who start
/// to look late. The rest, more than one beat, has to be seen.
const TOLD_AT_MOST: Duration = DEAD_AFTER.checked_div(2).expect("not by zero");

/// What we saw of the others.
#[derive(Debug, Default)]
pub(super) struct Watch(HashMap<String, Seen>);

#[derive(Debug)]
struct Seen {
    /// The time in milliseconds by the worker's own clock, when it wrote it.
    number: i64,
    since: Instant,
    silent_before: Duration,
}

impl Watch {
    /// Looks at everybody, and names those who have not changed their number for [`DEAD_AFTER`], with it.
    pub(super) fn dead(&mut self, workers: Vec<(String, i64)>, now: Instant, now_ms: i64) -> Vec<(String, i64)> {
        let mut before = std::mem::take(&mut self.0);
        for (name, number) in workers {
            let seen = before.remove(&name).filter(|seen| seen.number == number).unwrap_or_else(|| {
                let told = Duration::from_millis(now_ms.saturating_sub(number).try_into().unwrap_or(0));
                Seen { number, since: now, silent_before: told.min(TOLD_AT_MOST) }
            });
            self.0.insert(name, seen);
        }
        let is_dead = |seen: &Seen| now.duration_since(seen.since) + seen.silent_before >= DEAD_AFTER;
        self.0.iter().filter(|(_, seen)| is_dead(seen)).map(|(name, seen)| (name.clone(), seen.number)).collect()
    }
}

#[cfg(test)]
mod tests {
    use std::iter::repeat_n;

    use super::*;

    /// Looks at a worker once a second, with its numbers and our own time of day; says after how many it is dead.
    fn dies_after(numbers: impl Iterator<Item = i64>, now_ms: impl Fn(u64) -> i64) -> Option<u64> {
        let (mut watch, start) = (Watch::default(), Instant::now());
        numbers.zip(0..).find_map(|(number, second)| {
            let now = start + Duration::from_secs(second);
            let dead = watch.dead(vec![("other".to_owned(), number)], now, now_ms(second));
            (!dead.is_empty()).then_some(second)
        })
    }

    #[test]
    fn a_worker_is_dead_when_its_number_stands_still() {
        let now_ms = |second: u64| 1_000_000 + second as i64 * 1000;
        assert_eq!(dies_after(repeat_n(1_000_000, 60), now_ms), Some(6), "seen from its last beat on");
        let beats = (0..60).map(|second| 1_000_000 + second / 2 * 2000);
        assert_eq!(dies_after(beats.clone(), now_ms), None);
        let until_20 = beats.map(|number| number.min(1_020_000));
        assert_eq!(dies_after(until_20, now_ms), Some(26));
    }

    #[test]
    fn who_comes_late_still_looks_for_more_than_a_beat() {
        assert_eq!(dies_after(repeat_n(1_000_000, 60), |_| 900_000_000), Some(3));
        assert_eq!(dies_after(repeat_n(0, 60), |_| 900_000_000), Some(3), "one that never signed on");
    }

    #[test]
    fn clocks_may_differ_and_jump() {
        let beats = || (0..60).map(|second| 1_000_000 + second / 2 * 2000);
        for lead in [3_600_000, -3_600_000, i64::MIN, i64::MAX] {
            assert_eq!(dies_after(beats(), |second| lead.saturating_add(second as i64 * 1000)), None, "{lead}");
        }
        // Back by an hour: the number grows by one from there on.
        let behind = (0..60).map(|second| 1_000_000 + second / 2);
        assert_eq!(dies_after(behind, |second| 1_000_000 - 3_600_000 + second as i64 * 1000), None);
    }

    #[test]
    fn who_has_left_is_forgotten() {
        let (mut watch, now) = (Watch::default(), Instant::now());
        assert!(watch.dead(vec![("other".to_owned(), 5)], now, 5).is_empty());
        assert!(watch.dead(Vec::new(), now + DEAD_AFTER, 5).is_empty());
        assert!(watch.dead(vec![("other".to_owned(), 5)], now + DEAD_AFTER, 5).is_empty());
    }
}
