//! Forks, which SQLite does not survive: it keeps in memory which locks the
//! process holds, and a child inherits that belief without the locks. It would
//! wait for ever for a transaction that was under way, or lose what it commits
//! when the parent, as it believes itself alone, removes the journal.
//!
//! So no file is open while a process forks: [`before_fork`] waits for what is
//! under way, which takes no longer than one batch, and closes them all. The
//! publisher opens them again as after any lost connection.
//!
//! Whoever forks without calling `exec` calls [`before_fork`] and one of
//! [`after_fork_in_parent`] and [`after_fork_in_child`] around it; the Python
//! package does so for every fork of Python's.

use std::{
    sync::{
        Arc, Mutex, MutexGuard, PoisonError,
        atomic::{AtomicUsize, Ordering},
    },
    thread,
    time::Duration,
};

use rusqlite::Connection;

/// How often is looked whether a fork may begin, or is over.
const PAUSE: Duration = Duration::from_millis(1);

// No condition variable: a child must find these usable, whatever other threads did in the moment of the fork.
/// How many forks are about to happen.
static FORKING: AtomicUsize = AtomicUsize::new(0);
/// How many threads are inside SQLite.
static INSIDE: AtomicUsize = AtomicUsize::new(0);
/// Every file that may be open. Touched by those who are [`inside`] and by those who wait until nobody is: so it is
/// never locked while a process forks.
static OPEN: Mutex<Vec<Arc<Slot>>> = Mutex::new(Vec::new());

type Slot = Mutex<Option<Connection>>;

/// A connection, until a fork closes it.
#[derive(Debug)]
pub(super) struct Watched(Arc<Slot>);

impl Watched {
    pub(super) fn new(connection: Connection, _: &Inside) -> Self {
        let slot = Arc::new(Mutex::new(Some(connection)));
        locked(&OPEN).push(slot.clone());
        Self(slot)
    }

    /// The connection, if no fork has closed it.
    pub(super) fn connection(&self, _: &Inside) -> MutexGuard<'_, Option<Connection>> {
        locked(&self.0)
    }
}

impl Drop for Watched {
    fn drop(&mut self) {
        let _inside = inside();
        locked(&OPEN).retain(|slot| !Arc::ptr_eq(slot, &self.0));
        drop(locked(&self.0).take());
    }
}

/// As long as it is there, no fork begins.
#[derive(Debug)]
pub(super) struct Inside(());

/// Holds forks off, once none is happening.
pub(super) fn inside() -> Inside {
    loop {
        INSIDE.fetch_add(1, Ordering::SeqCst);
        if FORKING.load(Ordering::SeqCst) == 0 {
            return Inside(());
        }
        INSIDE.fetch_sub(1, Ordering::SeqCst);
        thread::sleep(PAUSE);
    }
}

impl Drop for Inside {
    fn drop(&mut self) {
        INSIDE.fetch_sub(1, Ordering::SeqCst);
    }
}

/// Waits for the transactions that are under way and closes every file.
pub fn before_fork() {
    FORKING.fetch_add(1, Ordering::SeqCst);
    while INSIDE.load(Ordering::SeqCst) > 0 {
        thread::sleep(PAUSE);
    }
    for slot in locked(&OPEN).drain(..) {
        drop(locked(&slot).take());
    }
}

/// Lets files be opened again.
pub fn after_fork_in_parent() {
    FORKING.fetch_sub(1, Ordering::SeqCst);
}

/// Lets files be opened, in a process that has no other threads any more.
pub fn after_fork_in_child() {
    INSIDE.store(0, Ordering::SeqCst);
    FORKING.store(0, Ordering::SeqCst);
}

fn locked<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}
