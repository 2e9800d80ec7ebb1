//! The file itself: kombu's tables, and one transaction for each batch.
//!
//! The tables are those of `kombu/transport/sqlalchemy/models.py`, so that
//! either side may come first.

use std::{
    fs, io, str,
    sync::atomic::{AtomicBool, Ordering},
    time::{Duration, Instant},
};

use rusqlite::{Connection, ErrorCode, OpenFlags, OptionalExtension, Transaction, TransactionBehavior};
use serde_json::{Map, Value};

use super::{
    error::Errors,
    fork::{self, Watched},
};
use crate::broker::BrokerError;

/// How long another process may hold the file before we say so: the publisher tries again until its deadline.
const PATIENCE: Duration = Duration::from_secs(1);
/// How long SQLite itself waits before we look whether anybody still wants the result.
const BUSY_WAIT: Duration = Duration::from_millis(50);

const FIND_TABLES: &str = "SELECT count(*) FROM sqlite_master WHERE type = 'table' AND name IN (?, ?)";

/// An open file.
#[derive(Debug)]
pub(super) struct File {
    connection: Watched,
    tables: Tables,
    /// Which file it was when it was opened.
    identity: Option<(u64, u64)>,
}

/// A message for one queue.
pub(super) struct Row {
    /// Its place in the batch.
    pub(super) index: usize,
    pub(super) queue: String,
    /// Its envelope: JSON, hence text.
    pub(super) envelope: Vec<u8>,
}

impl File {
    /// Opens the file, and makes it and its tables if they are not there.
    pub(super) fn open(options: &Map<String, Value>, errors: &Errors) -> Result<Self, BrokerError> {
        let tables = Tables::named(options)?;
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
        patiently(&wanted, || tables.create(&connection)).map_err(opening)?;
        let identity = identity(path).map_err(|error| errors.connecting(&error.to_string()))?;
        Ok(Self { connection: Watched::new(connection, &inside), tables, identity })
    }

    /// Stores a batch in one transaction, unless nobody wants it any more.
    pub(super) fn store(&mut self, rows: &[Row], abandoned: &AtomicBool, errors: &Errors) -> Result<(), BrokerError> {
        // What is written to a file that was deleted is gone without an error.
        if identity(errors.path()).ok() != Some(self.identity) {
            return Err(errors.disconnected("the file was removed or replaced"));
        }
        let inside = fork::inside();
        let connection = self.connection.connection(&inside);
        let Some(connection) = connection.as_ref() else {
            return Err(errors.disconnected("closed, because the process has forked"));
        };
        let storing = |error| errors.storing(&error);
        let begin = || Transaction::new_unchecked(connection, TransactionBehavior::Immediate);
        let transaction = patiently(abandoned, begin).map_err(storing)?;
        self.tables.insert(&transaction, rows).map_err(storing)?;
        if abandoned.load(Ordering::Relaxed) {
            // The caller has reported a failure. Let it be one: dropping the transaction rolls it back.
            return Err(errors.disconnected("the publish was given up"));
        }
        // Without WAL a reader may be in the way of the commit alone.
        patiently(abandoned, || transaction.execute_batch("COMMIT")).map_err(storing)
    }
}

/// The statements for kombu's two tables, whatever `broker_transport_options` call them.
#[derive(Debug)]
struct Tables {
    create: String,
    find_queue: String,
    add_queue: String,
    add_message: String,
    names: [String; 2],
}

impl Tables {
    fn named(options: &Map<String, Value>) -> Result<Self, BrokerError> {
        let name = |option: &str, default: &str| match options.get(option) {
            None | Some(Value::Null) => Ok(default.to_owned()),
            Some(Value::String(name)) if !name.is_empty() && !name.contains('\0') => Ok(name.clone()),
            Some(_) => Err(BrokerError::InvalidOption {
                option: format!("broker_transport_options[{option:?}]"),
                reason: "must be the name of a table".to_owned(),
            }),
        };
        let names = [name("queue_tablename", "kombu_queue")?, name("message_tablename", "kombu_message")?];
        let quoted = |name: &str| format!("\"{}\"", name.replace('"', "\"\""));
        let [queue, message] = names.each_ref().map(|name| quoted(name));
        let index = |column: &str| quoted(&format!("ix_{}_{column}", names[1]));
        let (by_visible, by_timestamp) = (index("visible"), index("timestamp"));
        Ok(Self {
            create: format!(
                "BEGIN IMMEDIATE;
                 CREATE TABLE IF NOT EXISTS {queue} (
                     id INTEGER NOT NULL PRIMARY KEY AUTOINCREMENT,
                     name VARCHAR(200),
                     UNIQUE (name)
                 );
                 CREATE TABLE IF NOT EXISTS {message} (
                     id INTEGER NOT NULL PRIMARY KEY AUTOINCREMENT,
                     visible BOOLEAN,
                     timestamp DATETIME,
                     payload TEXT NOT NULL,
                     version SMALLINT NOT NULL,
                     queue_id INTEGER,
                     CONSTRAINT \"FK_kombu_message_queue\" FOREIGN KEY(queue_id) REFERENCES {queue} (id)
                 );
                 CREATE INDEX IF NOT EXISTS {by_visible} ON {message} (visible);
                 CREATE INDEX IF NOT EXISTS {by_timestamp} ON {message} (timestamp);
                 CREATE INDEX IF NOT EXISTS ix_kombu_message_timestamp_id ON {message} (timestamp, id);
                 COMMIT;"
            ),
            find_queue: format!("SELECT id FROM {queue} WHERE name = ?"),
            add_queue: format!("INSERT INTO {queue} (name) VALUES (?) RETURNING id"),
            add_message: format!(
                "INSERT INTO {message} (visible, timestamp, payload, version, queue_id) VALUES (1, NULL, ?, 1, ?)"
            ),
            names,
        })
    }

    fn create(&self, connection: &Connection) -> rusqlite::Result<()> {
        // Looking first takes no lock that a worker would have to wait for.
        let found: i64 = connection.query_row(FIND_TABLES, (&self.names[0], &self.names[1]), |row| row.get(0))?;
        if found == 2 {
            return Ok(());
        }
        let created = connection.execute_batch(&self.create);
        if created.is_err() && !connection.is_autocommit() {
            connection.execute_batch("ROLLBACK")?;
        }
        created
    }

    fn insert(&self, transaction: &Transaction<'_>, rows: &[Row]) -> rusqlite::Result<()> {
        let mut find_queue = transaction.prepare_cached(&self.find_queue)?;
        let mut add_message = transaction.prepare_cached(&self.add_message)?;
        let mut last: Option<(&str, i64)> = None;
        for Row { queue, envelope, .. } in rows {
            let id = match last {
                Some((name, id)) if name == queue => id,
                _ => match find_queue.query_row([queue], |row| row.get(0)).optional()? {
                    Some(id) => id,
                    None => transaction.query_row(&self.add_queue, [queue], |row| row.get(0))?,
                },
            };
            last = Some((queue, id));
            add_message.execute((str::from_utf8(envelope)?, id))?;
        }
        Ok(())
    }
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
fn identity(path: &std::path::Path) -> io::Result<Option<(u64, u64)>> {
    use std::os::unix::fs::MetadataExt;
    let metadata = fs::metadata(path)?;
    Ok(Some((metadata.dev(), metadata.ino())))
}

/// Elsewhere an open file cannot be deleted.
#[cfg(not(unix))]
fn identity(path: &std::path::Path) -> io::Result<Option<(u64, u64)>> {
    fs::metadata(path).map(|_| None)
}
