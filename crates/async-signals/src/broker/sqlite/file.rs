//! The file itself: opened, written in transactions, kept small, and seen to be still there.

use std::{
    ffi::OsString,
    fs, io,
    path::{Path, PathBuf},
    sync::atomic::{AtomicBool, Ordering},
    time::{Duration, Instant},
};

use rusqlite::{Connection, ErrorCode, OpenFlags, Transaction, TransactionBehavior};

use super::{
    error::Errors,
    fork::{self, Watched},
};
use crate::broker::BrokerError;

/// How long another process may hold the file before we say so: the publisher tries again until its deadline.
const PATIENCE: Duration = Duration::from_secs(1);
/// How long SQLite itself waits before we look whether anybody still wants the result.
const BUSY_WAIT: Duration = Duration::from_millis(50);
/// How large the journal beside the file may become, in bytes. SQLite begins it anew by itself only when it finds a
/// moment in which nobody reads or writes, which under a steady load may never come.
const LARGEST_JOURNAL: u64 = 16 << 20;
/// How long a reader that is in the way is left in peace before the next attempt.
const BETWEEN_CHECKPOINTS: Duration = Duration::from_secs(1);

/// An open file.
#[derive(Debug)]
pub(super) struct File {
    connection: Watched,
    errors: Errors,
    journal: PathBuf,
    /// Which file it was when it was opened.
    identity: Option<(u64, u64)>,
    last_checkpoint: Option<Instant>,
}

impl File {
    /// Opens the file, which is made if it is not there, and lets `prepare` make what has to be in it.
    pub(super) fn open(
        errors: &Errors,
        prepare: impl Fn(&Connection) -> rusqlite::Result<()>,
    ) -> Result<Self, BrokerError> {
        let path = errors.path();
        let inside = fork::inside();
        let flags = OpenFlags::SQLITE_OPEN_READ_WRITE | OpenFlags::SQLITE_OPEN_CREATE | OpenFlags::SQLITE_OPEN_NO_MUTEX;
        let connection = Connection::open_with_flags(path, flags).map_err(|error| errors.opening(&error))?;
        let opening = |error| errors.opening(&error);
        connection.busy_timeout(BUSY_WAIT).map_err(opening)?;
        // SQLite opens what it may not write for reading, and only complains later.
        if connection.is_readonly("main").map_err(opening)? {
            return Err(errors.read_only());
        }
        let wanted = AtomicBool::new(false);
        let journal = || connection.pragma_update_and_check(None, "journal_mode", "WAL", |_| Ok(()));
        match patiently(&wanted, journal) {
            // Readers and the writer do not wait for each other then. Without it they do, and all is well.
            Err(error) if is_busy(&error) => {}
            done => done.map_err(opening)?,
        }
        patiently(&wanted, || prepare(&connection)).map_err(opening)?;
        let identity = identity(path).map_err(|error| errors.connecting(&error.to_string()))?;
        Ok(Self {
            connection: Watched::new(connection, &inside),
            errors: errors.clone(),
            journal: journal_of(path),
            identity,
            last_checkpoint: None,
        })
    }

    /// Looks into the file.
    pub(super) fn read<T>(&self, look: impl Fn(&Connection) -> rusqlite::Result<T>) -> Result<T, BrokerError> {
        let wanted = AtomicBool::new(false);
        self.with_connection(|connection| {
            patiently(&wanted, || look(connection)).map_err(|error| self.errors.storing(&error))
        })
    }

    /// Changes the file in one transaction, unless nobody wants it any more.
    pub(super) fn write<T>(
        &self,
        abandoned: &AtomicBool,
        change: impl FnOnce(&Transaction<'_>) -> rusqlite::Result<T>,
    ) -> Result<T, BrokerError> {
        self.with_connection(|connection| {
            let storing = |error| self.errors.storing(&error);
            let begin = || Transaction::new_unchecked(connection, TransactionBehavior::Immediate);
            let transaction = patiently(abandoned, begin).map_err(storing)?;
            let done = change(&transaction).map_err(storing)?;
            if abandoned.load(Ordering::Relaxed) {
                // The caller has reported a failure. Let it be one: dropping the transaction rolls it back.
                return Err(self.errors.disconnected("the caller gave up"));
            }
            // Without WAL a reader may be in the way of the commit alone.
            patiently(abandoned, || transaction.execute_batch("COMMIT")).map_err(storing)?;
            Ok(done)
        })
    }

    /// Writes back a journal that has become large, if nobody is in the way.
    pub(super) fn keep_small(&mut self) -> Result<(), BrokerError> {
        let is_large = fs::metadata(&self.journal).is_ok_and(|journal| journal.len() > LARGEST_JOURNAL);
        if !is_large || self.last_checkpoint.is_some_and(|last| last.elapsed() < BETWEEN_CHECKPOINTS) {
            return Ok(());
        }
        self.last_checkpoint = Some(Instant::now());
        // Whether a reader was in the way stands in the answer, and is no error.
        match self.read(|connection| Ok(connection.query_row("PRAGMA wal_checkpoint(TRUNCATE)", [], |_| Ok(())))) {
            Ok(Err(error)) if !is_busy(&error) => Err(self.errors.storing(&error)),
            done => done.map(drop),
        }
    }

    fn with_connection<T>(&self, f: impl FnOnce(&Connection) -> Result<T, BrokerError>) -> Result<T, BrokerError> {
        // What is written to a file that was deleted is gone without an error.
        if identity(self.errors.path()).ok() != Some(self.identity) {
            return Err(self.errors.disconnected("the file was removed or replaced"));
        }
        let inside = fork::inside();
        match self.connection.connection(&inside).as_ref() {
            Some(connection) => f(connection),
            None => Err(self.errors.disconnected("closed, because the process has forked")),
        }
    }
}

fn journal_of(path: &Path) -> PathBuf {
    let mut name = OsString::from(path);
    name.push("-wal");
    name.into()
}

/// Tries as long as another process holds the file, our patience lasts and somebody wants the result.
fn patiently<T>(abandoned: &AtomicBool, mut attempt: impl FnMut() -> rusqlite::Result<T>) -> rusqlite::Result<T> {
    let started = Instant::now();
    loop {
        match attempt() {
            Err(error) if is_busy(&error) && started.elapsed() < PATIENCE && !abandoned.load(Ordering::Relaxed) => {}
            done => return done,
        }
    }
}

fn is_busy(error: &rusqlite::Error) -> bool {
    matches!(error.sqlite_error_code(), Some(ErrorCode::DatabaseBusy | ErrorCode::DatabaseLocked))
}

#[cfg(unix)]
fn identity(path: &Path) -> io::Result<Option<(u64, u64)>> {
    use std::os::unix::fs::MetadataExt;
    let metadata = fs::metadata(path)?;
    Ok(Some((metadata.dev(), metadata.ino())))
}

/// Elsewhere an open file cannot be deleted.
#[cfg(not(unix))]
fn identity(path: &Path) -> io::Result<Option<(u64, u64)>> {
    fs::metadata(path).map(|_| None)
}
