//! What time it is: tokio's clock, which tests pause and move, and the date beside it.

use std::time::{Instant, SystemTime};

/// Now. Outside a runtime, and in one whose time is not paused, this is [`Instant::now`].
pub(crate) fn now() -> Instant {
    tokio::time::Instant::now().into_std()
}

/// Where the date comes from, which a worker compares with what senders have written.
#[derive(Clone, Copy, Debug, Default)]
pub struct Clock(Option<Moment>);

/// The moment in which something happens: to measure by, and its date.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Moment {
    pub(crate) at: Instant,
    pub(crate) date: SystemTime,
}

impl Clock {
    /// The system's.
    pub const SYSTEM: Self = Self(None);

    /// It is this date now, and the date goes on with tokio's clock: where that is paused, so is the date.
    ///
    /// ```
    /// use std::time::SystemTime;
    /// use async_signals::clock::Clock;
    ///
    /// let clock = Clock::starting_at(SystemTime::UNIX_EPOCH);
    /// ```
    pub fn starting_at(date: SystemTime) -> Self {
        Self(Some(Moment { at: now(), date }))
    }

    pub(crate) fn moment(self) -> Moment {
        let at = now();
        let date = match self.0 {
            None => SystemTime::now(),
            Some(start) => start.date + at.saturating_duration_since(start.at),
        };
        Moment { at, date }
    }
}
