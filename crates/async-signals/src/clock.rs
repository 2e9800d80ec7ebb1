//! The one clock: tokio's, which tests pause and move.

use std::time::{Instant, SystemTime};

/// Now. Outside a runtime, and in one whose time is not paused, this is [`Instant::now`].
pub(crate) fn now() -> Instant {
    tokio::time::Instant::now().into_std()
}

/// The moment in which something happens: to measure by, and to compare with what senders have written.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Moment {
    pub(crate) at: Instant,
    pub(crate) date: SystemTime,
}

impl Moment {
    /// This one.
    pub(crate) fn now() -> Self {
        Self { at: now(), date: SystemTime::now() }
    }
}
