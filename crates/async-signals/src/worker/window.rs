//! How many messages a worker takes ahead of its receivers.
//!
//! Few while receivers are slow, so that no message waits behind them that
//! another process could run; many while they are fast, so that the broker's
//! round trips are hidden: as many as run in [`AHEAD`].

use std::time::{Duration, Instant};

/// How much work is worth having at hand.
const AHEAD: Duration = Duration::from_millis(50);
/// How often the rate is measured, in time that receivers were busy.
const SPAN: Duration = Duration::from_millis(20);

/// Follows how fast receivers are.
#[derive(Debug)]
pub(super) struct Window {
    least: usize,
    most: usize,
    size: usize,
    /// Unfinished messages at the moment.
    active: usize,
    /// When the current span began, not counting idle time.
    since: Instant,
    busy: Duration,
    finished: u32,
}

impl Window {
    pub(super) fn new(least: usize, most: usize, now: Instant) -> Self {
        let least = least.max(1);
        Self { least, most: most.max(least), size: least, active: 0, since: now, busy: Duration::ZERO, finished: 0 }
    }

    /// Whether nothing is unfinished.
    pub(super) fn is_idle(&self) -> bool {
        self.active == 0
    }

    /// Whether it is as small as it gets: receivers are slow, or there is little to do.
    pub(super) fn is_least(&self) -> bool {
        self.size == self.least
    }

    /// How many may be unfinished at once.
    pub(super) fn size(&self) -> usize {
        self.size
    }

    /// How many more are worth taking: none before half of the window is free,
    /// so that each round trip carries many when there are many.
    pub(super) fn room(&self) -> usize {
        if self.active * 2 > self.size { 0 } else { self.size - self.active }
    }

    /// How many fit into it beside so many that are about to come.
    pub(super) fn room_beside(&self, coming: usize) -> usize {
        self.size.saturating_sub(self.active + coming)
    }

    pub(super) fn begun(&mut self, count: usize, now: Instant) {
        if self.active == 0 {
            self.since = now;
        }
        self.active += count;
    }

    pub(super) fn ended(&mut self, count: usize, now: Instant) {
        self.active -= count;
        self.finished += u32::try_from(count).unwrap_or(u32::MAX);
        self.busy += now.saturating_duration_since(self.since);
        self.since = now;
        if self.busy >= SPAN || (self.finished as usize >= self.size && !self.busy.is_zero()) {
            let per_second = f64::from(self.finished) / self.busy.as_secs_f64();
            let ahead = (per_second * AHEAD.as_secs_f64()) as usize;
            // Growing by leaps of two keeps one quick batch from opening it wide; shrinking is at once.
            self.size = ahead.min(self.size * 2).clamp(self.least, self.most);
            (self.busy, self.finished) = (Duration::ZERO, 0);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Runs `count` messages of `each`, as many at a time as the window holds.
    fn after(window: &mut Window, mut now: Instant, count: usize, each: Duration) -> Instant {
        for _ in 0..count {
            window.begun(1, now);
            now += each;
            window.ended(1, now);
        }
        now
    }

    #[test]
    fn opens_for_fast_receivers_and_closes_for_slow_ones() {
        let start = Instant::now();
        let mut window = Window::new(4, 512, start);
        assert_eq!((window.size(), window.room()), (4, 4));
        let now = after(&mut window, start, 10_000, Duration::from_micros(20));
        assert_eq!(window.size(), 512);
        let now = after(&mut window, now, 2_000, Duration::from_millis(1));
        assert_eq!(window.size(), 50, "as many as run in 50 ms");
        after(&mut window, now, 2, Duration::from_secs(1));
        assert_eq!(window.size(), 4);
    }

    #[test]
    fn takes_in_halves() {
        let now = Instant::now();
        let mut window = Window::new(8, 8, now);
        window.begun(8, now);
        window.ended(3, now);
        assert_eq!(window.room(), 0);
        window.ended(1, now);
        assert_eq!(window.room(), 4);
    }

    #[test]
    fn idle_time_does_not_count() {
        let start = Instant::now();
        let mut window = Window::new(1, 512, start);
        let mut now = start;
        for _ in 0..100 {
            now = after(&mut window, now, 100, Duration::from_micros(20)) + Duration::from_secs(5);
        }
        assert_eq!(window.size(), 512);
    }
}
