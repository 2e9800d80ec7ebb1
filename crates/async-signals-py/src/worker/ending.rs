//! The end of the process, if need be by force.

use std::{sync::Arc, time::Duration};

use super::{limits::Watch, pool::Pool};

/// How long threads may take to end once there is nothing for them any more.
const LINGER: Duration = Duration::from_secs(1);

/// The exit code of a process that left a receiver running: its message went
/// back, or became a dead letter.
pub(super) const LEFT_RUNNING: i32 = 71;

/// What is left to do when the core has ended.
pub(super) struct Ending {
    pool: Arc<Pool>,
    watch: Arc<Watch>,
}

impl Ending {
    pub(super) fn new(pool: Arc<Pool>, watch: Arc<Watch>) -> Self {
        Self { pool, watch }
    }

    /// Lets the threads go. One that does not come back from its receiver
    /// would keep the process for ever, perhaps with the interpreter's lock: then
    /// the process ends here. Nothing is lost with it, the broker has it all:
    /// but for what was acknowledged before it ran, which is given all the
    /// time that a stop may take.
    pub(super) fn end(&self) {
        self.pool.close();
        if self.watch.runs_acknowledged() {
            self.pool.wait_until_left(self.pool.patience_left());
        }
        if !self.pool.wait_until_left(LINGER) {
            #[allow(unsafe_code, reason = "there is no safe form of it")]
            // SAFETY: it only ends the process.
            unsafe {
                libc::_exit(LEFT_RUNNING)
            }
        }
    }
}
