//! The jobs that wait for a thread of Python's, and the counting of them.

use std::{
    collections::{HashSet, VecDeque},
    sync::{
        Condvar, Mutex, MutexGuard, OnceLock, PoisonError,
        atomic::{AtomicU64, Ordering},
    },
    time::{Duration, Instant},
};

use async_signals::worker::{Job, Runner, Worker as Core};

/// Patience of a process that is to be replaced: its receivers may take as long as they may anyway.
const RECYCLING: Duration = Duration::from_secs(365 * 24 * 3600);

/// What a thread gets when it asks for work.
pub(super) enum Next {
    Job(Job),
    /// Nothing came in time.
    Nothing,
    /// Nothing will come any more.
    Closed,
}

/// Jobs on their way from the core's thread to those of Python.
///
/// Its lock is held for moments and never while anybody waits for the
/// interpreter's, so it may be taken with that one held.
#[derive(Debug)]
pub(super) struct Pool {
    state: Mutex<State>,
    changed: Condvar,
    tasks: HashSet<String>,
    /// After how many messages the process is replaced.
    most: Option<u64>,
    begun: AtomicU64,
    core: OnceLock<Core>,
}

#[derive(Debug, Default)]
struct State {
    jobs: VecDeque<Job>,
    closed: bool,
    received: u64,
    /// When it is to have stopped.
    until: Option<Instant>,
    /// Threads that run jobs.
    threads: usize,
}

impl Pool {
    pub(super) fn new(tasks: HashSet<String>, most: Option<u64>) -> Self {
        Self {
            state: Mutex::default(),
            changed: Condvar::new(),
            tasks,
            most,
            begun: AtomicU64::new(0),
            core: OnceLock::new(),
        }
    }

    /// Who is told to stop.
    pub(super) fn attach(&self, core: Core) {
        // Once for each pool: it is made with its worker.
        let _ = self.core.set(core);
    }

    /// A job, if there is one now. `None` when there is none, or a thread should rather end.
    pub(super) fn try_take(&self) -> Option<Job> {
        loop {
            let job = self.state().jobs.pop_front()?;
            // One that has expired meanwhile, or is wanted elsewhere, is not begun.
            if let Some(job) = job.begin() {
                self.begun.fetch_add(1, Ordering::Relaxed);
                return Some(job);
            }
        }
    }

    /// Waits for a job, for ever or so long.
    pub(super) fn take(&self, patience: Option<Duration>) -> Next {
        loop {
            if let Some(job) = self.try_take() {
                return Next::Job(job);
            }
            let state = self.state();
            if !state.jobs.is_empty() {
                continue;
            }
            if state.closed {
                return Next::Closed;
            }
            match patience {
                None => drop(self.changed.wait(state).unwrap_or_else(PoisonError::into_inner)),
                Some(patience) => {
                    let waited = self.changed.wait_timeout(state, patience).unwrap_or_else(PoisonError::into_inner);
                    if waited.1.timed_out() {
                        return Next::Nothing;
                    }
                }
            }
        }
    }

    /// Takes nothing new and finishes what was taken, within so long.
    pub(super) fn stop(&self, patience: Duration) {
        self.state().stop_by(Instant::now() + patience);
        if let Some(core) = self.core.get() {
            core.stop(patience);
        }
    }

    /// Gives back whatever has not begun, and takes nothing new.
    pub(super) fn stop_beginning(&self, patience: Duration) {
        self.stop(patience);
        let waiting = std::mem::take(&mut self.state().jobs);
        waiting.into_iter().for_each(Job::hand_back);
    }

    /// Gives everything back, at once.
    pub(super) fn stop_now(&self) {
        self.state().stop_by(Instant::now());
        if let Some(core) = self.core.get() {
            core.stop_now();
        }
        let waiting = std::mem::take(&mut self.state().jobs);
        drop(waiting);
    }

    /// How much of its time a stop has left.
    pub(super) fn patience_left(&self) -> Duration {
        self.state().until.map_or(Duration::ZERO, |until| until.saturating_duration_since(Instant::now()))
    }

    /// Says that nothing comes any more: threads end when they are done.
    pub(super) fn close(&self) {
        self.state().closed = true;
        self.changed.notify_all();
    }

    pub(super) fn entered(&self) {
        self.state().threads += 1;
    }

    pub(super) fn left(&self) {
        self.state().threads -= 1;
        self.changed.notify_all();
    }

    /// Waits until no thread runs jobs any more. Whether that came about in time.
    pub(super) fn wait_until_left(&self, patience: Duration) -> bool {
        let wait = self.changed.wait_timeout_while(self.state(), patience, |state| state.threads > 0);
        wait.unwrap_or_else(PoisonError::into_inner).0.threads == 0
    }

    /// How many jobs were begun.
    pub(super) fn begun(&self) -> u64 {
        self.begun.load(Ordering::Relaxed)
    }

    fn state(&self) -> MutexGuard<'_, State> {
        // Nothing in it can be left half-done by a panic.
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl State {
    /// The earliest time counts that was ever asked for.
    fn stop_by(&mut self, until: Instant) {
        self.until = Some(self.until.map_or(until, |earlier| earlier.min(until)));
    }
}

impl Runner for Pool {
    fn knows(&self, task: &str) -> bool {
        self.tasks.contains(task)
    }

    fn start(&self, jobs: Vec<Job>) {
        let several = jobs.len() > 1;
        let mut state = self.state();
        state.received += jobs.len() as u64;
        let is_enough = self.most.is_some_and(|most| state.received >= most);
        state.jobs.extend(jobs);
        drop(state);
        if several {
            self.changed.notify_all();
        } else {
            self.changed.notify_one();
        }
        if is_enough {
            self.stop(RECYCLING);
        }
    }
}
