//! Where jobs wait for a lane, and what a lane does: one message at a time,
//! from its first receiver to its last.

use std::{
    any::Any,
    collections::VecDeque,
    panic::AssertUnwindSafe,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    time::{Duration, Instant},
};

use futures_util::FutureExt;
use tokio::{sync::Notify, task};

use super::{Job, Outcome, Runner};
use crate::{dispatch, panics};

/// After how many messages whose receivers never waited a lane lets others have the thread.
const IN_A_ROW: u32 = 32;

/// One message that has run, for [`WorkerBuilder::on_outcome`](super::WorkerBuilder::on_outcome).
#[derive(Debug)]
#[non_exhaustive]
pub struct Ran<'a> {
    /// The task's id.
    pub id: &'a str,
    /// The signal's name; `None` where this worker has no such signal, or the message could not be read.
    pub signal: Option<&'static str>,
    /// The queue that it was taken from.
    pub queue: &'a str,
    /// What became of it.
    pub outcome: &'a Outcome,
    /// How long its receivers took.
    pub took: Duration,
}

/// Hears of each message that has run.
pub(super) type OnOutcome = Arc<dyn Fn(&Ran<'_>) + Send + Sync>;

/// The jobs that wait. The worker's loop puts them in, on its own thread; lanes take them out.
pub(super) struct Lanes {
    state: Mutex<State>,
    work: Notify,
    on_outcome: Option<OnOutcome>,
}

#[derive(Default)]
struct State {
    jobs: VecDeque<Job>,
    closed: bool,
}

impl Lanes {
    pub(super) fn new(on_outcome: Option<OnOutcome>) -> Self {
        Self { state: Mutex::default(), work: Notify::new(), on_outcome }
    }

    /// Nothing comes any more. What waits is given back.
    pub(super) fn close(&self) {
        let mut state = self.state();
        state.closed = true;
        let waiting = std::mem::take(&mut state.jobs);
        drop(state);
        waiting.into_iter().for_each(Job::hand_back);
        self.work.notify_waiters();
    }

    /// The next job; `None` once there are no more.
    async fn next(&self) -> Option<Job> {
        loop {
            let work = self.work.notified();
            {
                let mut state = self.state();
                if let Some(job) = state.jobs.pop_front() {
                    let more = !state.jobs.is_empty();
                    drop(state);
                    if more {
                        // Whoever is woken wakes the next: one call for many jobs is enough.
                        self.work.notify_one();
                    }
                    return Some(job);
                }
                if state.closed {
                    return None;
                }
            }
            work.await;
        }
    }

    /// Runs one message after the other.
    pub(super) async fn run(self: Arc<Self>) {
        let mut in_a_row = 0;
        while let Some(job) = self.next().await {
            let Some(job) = job.begin() else { continue };
            let begun = Instant::now();
            let dispatched = AssertUnwindSafe(dispatch::run(job.incoming(), &job.queue)).catch_unwind().await;
            let (signal, outcome) = dispatched.unwrap_or_else(|panic| (None, panicked(&*panic)));
            if let Some(hear) = &self.on_outcome {
                let (id, queue, took) = (job.id(), &*job.queue, begun.elapsed());
                let ran = Ran { id, signal, queue, outcome: &outcome, took };
                // It is no receiver: what it panics with is in the log, and the message is as it is.
                let _ = panics::caught(|| hear(&ran));
            }
            job.finish(outcome);
            in_a_row += 1;
            if in_a_row == IN_A_ROW {
                in_a_row = 0;
                task::yield_now().await;
            }
        }
    }

    fn state(&self) -> MutexGuard<'_, State> {
        // Nothing in it can be left half-done by a panic.
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// What becomes of a message beside whose receivers something has panicked.
fn panicked(panic: &(dyn Any + Send)) -> Outcome {
    Outcome::Unfit { kind: "Panicked".into(), reason: format!("running it panicked: {}", panics::text(panic)) }
}

impl Runner for Lanes {
    fn start(&self, jobs: Vec<Job>) {
        let mut state = self.state();
        if state.closed {
            return;
        }
        state.jobs.extend(jobs);
        drop(state);
        self.work.notify_one();
    }
}
