//! Pauses between attempts that fail.

use std::time::Duration;

/// How long to wait before the next attempt: not at all after a success, then longer with each failure.
///
/// Success is work that was done, not a connection that was made: a server that has become a replica lets everybody in
/// and refuses all work.
#[derive(Debug)]
pub(crate) struct Backoff {
    first: Duration,
    longest: Duration,
    /// The longest that the next pause may be, before chance shortens it; zero after a success.
    step: Duration,
    pause: Duration,
}

impl Backoff {
    /// Pauses from `first` on, doubled up to `longest`.
    pub(crate) const fn new(first: Duration, longest: Duration) -> Self {
        Self { first, longest, step: Duration::ZERO, pause: Duration::ZERO }
    }

    /// Another attempt has failed. `random`, from 0 to 1, shortens the pause by up to a half, so that not all who have
    /// lost one server come back at once.
    pub(crate) fn failed(&mut self, random: f64) {
        self.step = (self.step * 2).clamp(self.first, self.longest);
        self.pause = self.step.mul_f64(1.0 - random.clamp(0.0, 1.0) / 2.0);
    }

    /// An attempt has done what it was for.
    pub(crate) fn reset(&mut self) {
        (self.step, self.pause) = (Duration::ZERO, Duration::ZERO);
    }

    /// The pause before the next attempt.
    pub(crate) fn pause(&self) -> Duration {
        self.pause
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn pauses_grow_to_the_longest_and_end_with_a_success() {
        let mut backoff = Backoff::new(Duration::from_millis(20), Duration::from_secs(1));
        assert_eq!(backoff.pause(), Duration::ZERO);
        let pauses: Vec<u128> = (0..8)
            .map(|_| {
                backoff.failed(0.0);
                backoff.pause().as_millis()
            })
            .collect();
        assert_eq!(pauses, [20, 40, 80, 160, 320, 640, 1000, 1000]);
        backoff.failed(1.0);
        assert_eq!(backoff.pause(), Duration::from_millis(500));
        backoff.reset();
        assert_eq!(backoff.pause(), Duration::ZERO);
        backoff.failed(0.5);
        assert_eq!(backoff.pause(), Duration::from_millis(15));
    }
}
