//! The one clock: tokio's, which tests pause and move.

use std::time::Instant;

/// Now. Outside a runtime, and in one whose time is not paused, this is [`Instant::now`].
pub(crate) fn now() -> Instant {
    tokio::time::Instant::now().into_std()
}
