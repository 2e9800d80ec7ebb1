//! The queue of events and the thread that empties it: those of one process.

use std::{
    collections::VecDeque,
    ptr,
    sync::{
        Condvar, Mutex, MutexGuard, PoisonError,
        atomic::{AtomicPtr, Ordering},
    },
    thread,
    time::Instant,
};

use super::{Event, attach, left, logging};

/// How many log lines may wait.
const MOST_RECORDS: usize = 1_000;
/// How many events may wait in all: what is lost is worth more than lines, and there is as much of it as a buffer holds.
const MOST_EVENTS: usize = 10_000;
/// How many are delivered before others may have the interpreter.
const BATCH: usize = 64;

/// The process that was seen last, which is this one or its parent. Not a lock: one that was held as the process was
/// forked would stay locked in the child.
static CURRENT: AtomicPtr<Process> = AtomicPtr::new(ptr::null_mut());

/// What belongs to one process. A forked one starts anew: its parent's thread is not there, its events are the parent's.
pub(super) struct Process {
    id: u32,
    state: Mutex<State>,
    changed: Condvar,
}

#[derive(Default)]
struct State {
    events: VecDeque<Event>,
    /// How many of them are log lines.
    records: usize,
    /// How many events did not fit, and are to be told of: log lines, and all others.
    dropped: (u64, u64),
    has_thread: bool,
    is_delivering: bool,
    /// How many threads are attached to the interpreter, or about to be.
    inside: usize,
    /// The interpreter is about to end.
    stopped: bool,
}

impl Process {
    /// Those of this process. uWSGI forks without telling Python, so the process's id is compared.
    pub(super) fn current() -> &'static Self {
        let id = std::process::id();
        let mut current = CURRENT.load(Ordering::Acquire);
        loop {
            #[allow(unsafe_code, reason = "a lock could be inherited locked")]
            // SAFETY: it is null, or comes from `into_raw` below and is never freed: there is one for each fork.
            let known = unsafe { current.as_ref() };
            if let Some(process) = known.filter(|process| process.id == id) {
                return process;
            }
            let new = Box::new(Self { id, state: Mutex::default(), changed: Condvar::new() });
            let new = Box::into_raw(new);
            match CURRENT.compare_exchange(current, new, Ordering::AcqRel, Ordering::Acquire) {
                Ok(_) => current = new,
                Err(other) => {
                    #[allow(unsafe_code, reason = "the counterpart of into_raw")]
                    // SAFETY: nobody has seen it.
                    drop(unsafe { Box::from_raw(new) });
                    current = other;
                }
            }
        }
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Has an event delivered, or counted if too many wait. Never blocks.
    pub(super) fn put(&'static self, event: Event) {
        let mut state = self.lock();
        if state.stopped {
            return;
        }
        let is_record = matches!(event, Event::Record(_));
        if state.events.len() >= MOST_EVENTS {
            if is_record {
                state.dropped.0 += 1
            } else {
                state.dropped.1 += 1
            }
            return;
        }
        if is_record && state.records >= MOST_RECORDS {
            state.dropped.0 += 1;
            return;
        }
        state.records += usize::from(is_record);
        state.events.push_back(event);
        if !state.has_thread {
            let thread = thread::Builder::new().name("async-signals-events".to_owned());
            // Without a thread they wait; the next event tries again.
            state.has_thread = thread.spawn(|| self.deliver_all()).is_ok();
        }
        drop(state);
        self.changed.notify_all();
    }

    fn deliver_all(&self) {
        loop {
            let mut state = self.lock();
            while state.events.is_empty() {
                state.is_delivering = false;
                self.changed.notify_all();
                state = self.changed.wait(state).unwrap_or_else(PoisonError::into_inner);
            }
            state.is_delivering = true;
            let count = state.events.len().min(BATCH);
            let batch: Vec<Event> = state.events.drain(..count).collect();
            state.records -= batch.iter().filter(|event| matches!(event, Event::Record(_))).count();
            let dropped = if state.events.is_empty() { std::mem::take(&mut state.dropped) } else { (0, 0) };
            drop(state);
            let attached = attach(|py| {
                batch.into_iter().for_each(|event| event.deliver(py));
                logging::dropped(dropped).for_each(|record| Event::Record(record).deliver(py));
                logging::follow_levels(py);
            });
            if attached.is_none() {
                // The interpreter has ended, or is about to.
                let mut state = self.lock();
                state.events.clear();
                state.stopped = true;
                state.is_delivering = false;
                self.changed.notify_all();
                return;
            }
        }
    }

    /// Waits until everything is delivered; says whether it is.
    pub(super) fn drain(&self, deadline: Instant) -> bool {
        let mut state = self.lock();
        while state.has_thread && (!state.events.is_empty() || state.is_delivering) {
            let Some(left) = left(deadline) else { return false };
            state = self.changed.wait_timeout(state, left).unwrap_or_else(PoisonError::into_inner).0;
        }
        true
    }

    /// Waits until everything is delivered, then lets no thread attach to the interpreter any more, and waits until
    /// those that are attached have left it; says whether all of it was done in time.
    pub(super) fn stop(&self, deadline: Instant) -> bool {
        let drained = self.drain(deadline);
        let mut state = self.lock();
        state.stopped = true;
        while state.inside > 0 {
            let Some(left) = left(deadline) else { return false };
            state = self.changed.wait_timeout(state, left).unwrap_or_else(PoisonError::into_inner).0;
        }
        drained
    }

    /// Lets this thread attach to the interpreter until the value is dropped. None: no more.
    pub(super) fn enter(&'static self) -> Option<Inside> {
        let mut state = self.lock();
        if state.stopped {
            return None;
        }
        state.inside += 1;
        Some(Inside(self))
    }
}

/// A thread that may be attached to the interpreter.
pub(super) struct Inside(&'static Process);

impl Drop for Inside {
    fn drop(&mut self) {
        let mut state = self.0.lock();
        state.inside -= 1;
        if state.stopped {
            self.0.changed.notify_all();
        }
    }
}
