//! Time limits: who is overdue, and what is done about it.
//!
//! The watchdog never waits for the interpreter's lock: a receiver that keeps
//! it for ever is just what it is there for.

use std::{
    cell::RefCell,
    sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError},
    thread,
    time::{Duration, Instant},
};

use async_signals::worker::Outcome;
use pyo3::{ffi, prelude::*};

use super::{job::Held, observer::ObserverThread, pool::Pool};

thread_local! {
    /// The slot of this thread, while it runs jobs.
    static SLOT: RefCell<Option<Arc<Slot>>> = const { RefCell::new(None) };
}

/// How long a message may take; each of them may be missing.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct TimeLimits {
    /// After it the running receiver gets an exception.
    pub(super) soft: Option<Duration>,
    /// After it the process ends.
    pub(super) hard: Option<Duration>,
}

impl TimeLimits {
    /// These, and where they say nothing, those.
    pub(super) fn or(self, other: Self) -> Self {
        Self { soft: self.soft.or(other.soft), hard: self.hard.or(other.hard) }
    }
}

/// What one thread is doing.
#[derive(Debug)]
pub(super) struct Slot {
    /// `threading.get_ident()`.
    ident: u64,
    current: Mutex<Option<Current>>,
}

#[derive(Debug)]
struct Current {
    held: Arc<Held>,
    limits: TimeLimits,
    soft_at: Option<Instant>,
    hard_at: Option<Instant>,
    /// The soft limit has passed, and its exception was asked for.
    overdue: bool,
}

impl Slot {
    fn current(&self) -> MutexGuard<'_, Option<Current>> {
        self.current.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// The soft limit has passed, and nobody has raised it yet. Says so once.
    fn take_overdue(&self) -> bool {
        self.current().as_mut().is_some_and(|current| std::mem::take(&mut current.overdue))
    }

    fn is_running(&self, held: &Arc<Held>) -> bool {
        self.current().as_ref().is_some_and(|current| Arc::ptr_eq(&current.held, held))
    }
}

/// All threads that run jobs, and the watchdog's view of them.
#[derive(Debug, Default)]
pub(super) struct Watch {
    slots: Mutex<Vec<Arc<Slot>>>,
    /// When the watchdog looks next; `None`: when it is woken.
    next: Mutex<Option<Instant>>,
    earlier: Condvar,
}

impl Watch {
    /// The calling thread runs jobs from now on.
    pub(super) fn enter(&self, ident: u64) -> Arc<Slot> {
        let slot = Arc::new(Slot { ident, current: Mutex::default() });
        self.slots().push(slot.clone());
        SLOT.set(Some(slot.clone()));
        slot
    }

    /// It does not any more.
    pub(super) fn leave(&self, slot: &Arc<Slot>) {
        SLOT.set(None);
        self.slots().retain(|other| !Arc::ptr_eq(other, slot));
    }

    /// The thread of this slot begins a job.
    pub(super) fn begin(&self, slot: &Slot, held: &Arc<Held>, limits: TimeLimits) {
        let mut current = Current { held: held.clone(), limits, soft_at: None, hard_at: None, overdue: false };
        let first = current.arm(limits);
        *slot.current() = Some(current);
        self.look_at(first);
    }

    /// The thread of this slot is done with its job. An exception that came too late is taken back.
    pub(super) fn end(&self, _py: Python<'_>, slot: &Slot) {
        let current = slot.current().take();
        if current.is_some_and(|current| current.soft_at.is_none() && current.limits.soft.is_some()) {
            raise_in(slot.ident, std::ptr::null_mut());
        }
    }

    /// Gives the job of the calling thread other limits, from now on.
    pub(super) fn limit(&self, _py: Python<'_>, limits: TimeLimits) {
        SLOT.with_borrow(|slot| {
            let Some(slot) = slot else { return };
            let mut current = slot.current();
            let Some(job) = current.as_mut() else { return };
            let has_fired = job.soft_at.is_none() && job.limits.soft.is_some();
            let first = job.arm(limits);
            drop(current);
            if has_fired {
                raise_in(slot.ident, std::ptr::null_mut());
            }
            self.look_at(first);
        });
    }

    /// Whether the calling thread has just passed its soft limit.
    pub(super) fn take_overdue(&self) -> bool {
        SLOT.with_borrow(|slot| slot.as_ref().is_some_and(|slot| slot.take_overdue()))
    }

    /// What runs just now.
    pub(super) fn running(&self) -> Vec<Arc<Held>> {
        let slots = self.slots();
        slots.iter().filter_map(|slot| slot.current().as_ref().map(|current| current.held.clone())).collect()
    }

    /// Whether something runs that the broker does not have any more.
    pub(super) fn runs_acknowledged(&self) -> bool {
        self.running().iter().any(|held| held.is_acknowledged())
    }

    fn look_at(&self, moment: Option<Instant>) {
        let Some(moment) = moment else { return };
        let mut next = self.next();
        if next.is_none_or(|next| moment < next) {
            *next = Some(moment);
            self.earlier.notify_one();
        }
    }

    /// Looks after all of them, for as long as the process lives.
    pub(super) fn start(self: &Arc<Self>, watchdog: Watchdog) -> std::io::Result<()> {
        let watch = self.clone();
        thread::Builder::new().name("async-signals-watchdog".to_owned()).spawn(move || watch.run(&watchdog)).map(drop)
    }

    fn run(&self, watchdog: &Watchdog) {
        loop {
            self.wait();
            let now = Instant::now();
            let mut next = None;
            for slot in self.slots().clone() {
                let mut current = slot.current();
                let Some(job) = current.as_mut() else { continue };
                if job.hard_at.take_if(|at| *at <= now).is_some() {
                    watchdog.end(&job.held, job.limits.hard.unwrap_or_default());
                } else if job.soft_at.take_if(|at| *at <= now).is_some() {
                    watchdog.interrupt(&slot, &job.held);
                }
                next = [next, job.soft_at, job.hard_at].into_iter().flatten().min();
            }
            self.look_at(next);
        }
    }

    fn wait(&self) {
        let mut next = self.next();
        loop {
            let now = Instant::now();
            match *next {
                Some(moment) if moment <= now => break,
                Some(moment) => {
                    let waited = self.earlier.wait_timeout(next, moment - now);
                    next = waited.unwrap_or_else(PoisonError::into_inner).0;
                }
                None => next = self.earlier.wait(next).unwrap_or_else(PoisonError::into_inner),
            }
        }
        *next = None;
    }

    fn slots(&self) -> MutexGuard<'_, Vec<Arc<Slot>>> {
        self.slots.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn next(&self) -> MutexGuard<'_, Option<Instant>> {
        self.next.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Current {
    /// Counts from now. Returns when to look first.
    fn arm(&mut self, limits: TimeLimits) -> Option<Instant> {
        self.limits = limits;
        self.overdue = false;
        if limits.soft.is_none() && limits.hard.is_none() {
            (self.soft_at, self.hard_at) = (None, None);
            return None;
        }
        let now = Instant::now();
        self.soft_at = limits.soft.and_then(|limit| now.checked_add(limit));
        self.hard_at = limits.hard.and_then(|limit| now.checked_add(limit));
        [self.soft_at, self.hard_at].into_iter().flatten().min()
    }
}

/// What is done about a job that takes too long.
pub(super) struct Watchdog {
    pub(super) pool: Arc<Pool>,
    pub(super) observer_thread: ObserverThread,
    /// How long the other threads may take to finish when the process is to end.
    pub(super) patience: Duration,
    /// `interrupt(ident) -> bool`: interrupts the main thread; False for any other.
    pub(super) interrupt: Arc<Py<PyAny>>,
}

impl Watchdog {
    /// The soft limit: an exception in the thread.
    fn interrupt(&self, slot: &Arc<Slot>, held: &Arc<Held>) {
        let (slot, held, interrupt) = (slot.clone(), held.clone(), self.interrupt.clone());
        // A thread of its own, since the receiver may not let go of the interpreter for long.
        let spawned = thread::Builder::new().name("async-signals-soft-limit".to_owned()).spawn(move || {
            Python::try_attach(|py| {
                // With the interpreter's lock in our hands the job cannot end meanwhile.
                if !slot.is_running(&held) {
                    return;
                }
                if let Some(current) = slot.current().as_mut() {
                    current.overdue = true;
                }
                match interrupt.bind(py).call1((slot.ident,)).and_then(|done| done.extract::<bool>()) {
                    Ok(true) => {}
                    Ok(false) => match soft_time_limit_exceeded(py) {
                        Ok(class) => raise_in(slot.ident, class.as_ptr()),
                        Err(error) => error.write_unraisable(py, None),
                    },
                    Err(error) => error.write_unraisable(py, None),
                }
            });
        });
        if spawned.is_err() {
            self.observer_thread.tell("trouble", ("no thread could be started to interrupt a receiver",));
        }
    }

    /// The hard limit: its message becomes a dead letter, what has not begun goes back, and the process ends.
    fn end(&self, held: &Held, limit: Duration) {
        let reason = format!("its receivers took longer than {} s", limit.as_secs_f64());
        let outcome = Outcome::Unfit { kind: "TimeLimitExceeded".into(), reason };
        held.finish(outcome);
        let (id, task) = (held.text("id").to_owned(), held.text("task").to_owned());
        self.observer_thread.tell("timed_out", (id, task, limit.as_secs_f64()));
        self.pool.stop_beginning(self.patience);
    }
}

fn soft_time_limit_exceeded(py: Python<'_>) -> PyResult<Bound<'_, PyAny>> {
    py.import("celery.exceptions")?.getattr("SoftTimeLimitExceeded")
}

/// Has an exception raised in a thread at its next instruction of Python's, or takes one back.
#[allow(unsafe_code, reason = "the interpreter has no safe form of it")]
fn raise_in(ident: u64, class: *mut ffi::PyObject) {
    // SAFETY: called with the interpreter's lock held; `class` is null or an
    // exception class, of which the interpreter takes a reference of its own.
    unsafe {
        ffi::PyThreadState_SetAsyncExc(ident as _, class);
    }
}
