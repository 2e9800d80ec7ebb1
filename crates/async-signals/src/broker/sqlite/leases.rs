//! Who holds which row, in two tables of ours beside kombu's.
//!
//! A row that is taken becomes invisible, as when kombu takes it, so that
//! neither side takes what the other has. kombu keeps such a row for ever and
//! does not say whose it is; a lease tells ours from theirs, and only what has
//! a lease is ever acknowledged or made visible again. What is made visible
//! keeps its number, hence its place: before everything that came later.

use std::sync::Arc;

use rusqlite::{Connection, OptionalExtension, Row, Transaction, types::ValueRef};

use super::tables::Tables;
use crate::{
    broker::{Content, Tag, Taken},
    protocol::delivery::{Delivery, mark_redelivered},
};

/// The largest envelope that is read as one, in bytes: as large as RabbitMQ lets a message be.
const LARGEST_ENVELOPE: usize = 128 << 20;

/// The statements for our tables.
#[derive(Debug)]
pub(super) struct Leases {
    create: String,
    add_queue: String,
    any_waiting: String,
    waiting: String,
    hide: String,
    show: String,
    delete: String,
    find: String,
    lease: String,
    release: String,
    leased: String,
    beat: String,
    workers: String,
    number: String,
    sign_off: String,
}

impl Leases {
    pub(super) fn beside(tables: &Tables) -> Self {
        let Tables { queue, message, .. } = tables;
        let [worker, lease, by_worker, waiting] =
            ["worker", "lease", "lease_worker", "waiting"].map(|name| tables.beside(name));
        // kombu's own condition and order. `visible != 0` is also what the index is made with.
        let from_queue = format!(
            "FROM {message} WHERE queue_id = (SELECT id FROM {queue} WHERE name = ?) AND visible != 0 \
             ORDER BY timestamp, id"
        );
        Self {
            create: format!(
                "CREATE TABLE IF NOT EXISTS {worker} (name TEXT NOT NULL PRIMARY KEY, seen INTEGER NOT NULL);
                 CREATE TABLE IF NOT EXISTS {lease} (
                     message_id INTEGER NOT NULL PRIMARY KEY,
                     worker TEXT NOT NULL,
                     generation INTEGER NOT NULL
                 );
                 CREATE INDEX IF NOT EXISTS {by_worker} ON {lease} (worker);
                 CREATE INDEX IF NOT EXISTS {waiting} ON {message} (queue_id, timestamp, id) WHERE visible != 0;"
            ),
            add_queue: format!("INSERT INTO {queue} (name) SELECT ?1 WHERE ?1 NOT IN (SELECT name FROM {queue})"),
            any_waiting: format!("SELECT 1 {from_queue} LIMIT 1"),
            waiting: format!("SELECT id, payload {from_queue}"),
            hide: format!("UPDATE {message} SET visible = 0 WHERE id = ?"),
            show: format!("UPDATE {message} SET visible = 1, payload = ? WHERE id = ?"),
            delete: format!("DELETE FROM {message} WHERE id = ?"),
            find: format!("SELECT payload FROM {message} WHERE id = ?"),
            lease: format!("INSERT OR REPLACE INTO {lease} (message_id, worker, generation) VALUES (?, ?, ?)"),
            release: format!("DELETE FROM {lease} WHERE message_id = ? AND worker = ? AND generation = ?"),
            leased: format!("SELECT message_id, generation FROM {lease} WHERE worker = ?"),
            beat: format!(
                "INSERT INTO {worker} (name, seen) VALUES (?, ?) \
                 ON CONFLICT (name) DO UPDATE SET seen = max(seen + 1, excluded.seen)"
            ),
            workers: format!(
                "SELECT name, seen FROM {worker} \
                 UNION ALL SELECT DISTINCT worker, 0 FROM {lease} WHERE worker NOT IN (SELECT name FROM {worker})"
            ),
            number: format!("SELECT seen FROM {worker} WHERE name = ?"),
            sign_off: format!("DELETE FROM {worker} WHERE name = ?"),
        }
    }

    pub(super) fn create(&self, transaction: &Transaction<'_>) -> rusqlite::Result<()> {
        transaction.execute_batch(&self.create)
    }

    pub(super) fn declare(&self, transaction: &Transaction<'_>, queue: &str) -> rusqlite::Result<()> {
        transaction.prepare_cached(&self.add_queue)?.execute([queue]).map(drop)
    }

    /// Whether there is anything to take, without a lock that others would have to wait for.
    pub(super) fn any_waiting(&self, connection: &Connection, queues: &[Arc<str>]) -> rusqlite::Result<bool> {
        let mut any_waiting = connection.prepare_cached(&self.any_waiting)?;
        for queue in queues {
            if any_waiting.exists([queue])? {
                return Ok(true);
            }
        }
        Ok(false)
    }

    /// Takes up to `limit` messages, one of each queue in turn, beginning with the queue at `first`.
    pub(super) fn take(
        &self,
        transaction: &Transaction<'_>,
        queues: &[Arc<str>],
        first: usize,
        limit: usize,
        (worker, generation): (&str, u32),
    ) -> rusqlite::Result<Vec<Taken>> {
        let taken = self.look(transaction, queues, first, limit, generation)?;
        let mut hide = transaction.prepare_cached(&self.hide)?;
        let mut lease = transaction.prepare_cached(&self.lease)?;
        for Taken { tag, .. } in &taken {
            let id = row_id(tag);
            hide.execute([id])?;
            lease.execute((id, worker, generation))?;
        }
        Ok(taken)
    }

    fn look(
        &self,
        transaction: &Transaction<'_>,
        queues: &[Arc<str>],
        first: usize,
        limit: usize,
        generation: u32,
    ) -> rusqlite::Result<Vec<Taken>> {
        let mut statements = Vec::with_capacity(queues.len());
        for _ in queues {
            statements.push(transaction.prepare(&self.waiting)?);
        }
        let mut rows = Vec::with_capacity(queues.len());
        let turns = queues.iter().cycle().skip(first % queues.len().max(1));
        for (statement, queue) in statements.iter_mut().zip(turns) {
            rows.push((queue, statement.query([queue])?));
        }
        let mut taken = Vec::new();
        while !rows.is_empty() {
            let mut still = Vec::with_capacity(rows.len());
            for (queue, mut rows) in rows {
                if taken.len() == limit {
                    return Ok(taken);
                }
                if let Some(row) = rows.next()? {
                    taken.push(read(row, queue, generation)?);
                    still.push((queue, rows));
                }
            }
            rows = still;
        }
        Ok(taken)
    }

    /// Deletes what the worker holds under these tags. What it does not hold any more is left alone.
    pub(super) fn acknowledge(
        &self,
        transaction: &Transaction<'_>,
        tags: &[Tag],
        worker: &str,
    ) -> rusqlite::Result<()> {
        let mut release = transaction.prepare_cached(&self.release)?;
        let mut delete = transaction.prepare_cached(&self.delete)?;
        for tag in tags {
            let id = row_id(tag);
            if release.execute((id, worker, tag.generation))? == 1 {
                delete.execute([id])?;
            }
        }
        Ok(())
    }

    /// Makes visible again what the worker holds under these tags, marked as delivered before.
    pub(super) fn give_back(&self, transaction: &Transaction<'_>, tags: &[Tag], worker: &str) -> rusqlite::Result<()> {
        self.show_again(transaction, tags, worker, |payload| mark_redelivered(&payload))
    }

    /// The same for what nobody has seen, since the answer that brought it was lost: as if it had not been taken.
    pub(super) fn put_back(&self, transaction: &Transaction<'_>, tags: &[Tag], worker: &str) -> rusqlite::Result<()> {
        self.show_again(transaction, tags, worker, |payload| payload)
    }

    fn show_again(
        &self,
        transaction: &Transaction<'_>,
        tags: &[Tag],
        worker: &str,
        change: impl Fn(Vec<u8>) -> Vec<u8>,
    ) -> rusqlite::Result<()> {
        let mut release = transaction.prepare_cached(&self.release)?;
        let mut find = transaction.prepare_cached(&self.find)?;
        let mut show = transaction.prepare_cached(&self.show)?;
        for tag in tags {
            let id = row_id(tag);
            if release.execute((id, worker, tag.generation))? == 0 {
                continue;
            }
            // Whoever purged the queue deleted what was taken, too.
            let Some(payload) = find.query_row([id], |row| Ok(bytes(row.get_ref(0)?))).optional()? else { continue };
            match String::from_utf8(change(payload)) {
                Ok(text) => show.execute((text, id))?,
                Err(bytes) => show.execute((bytes.into_bytes(), id))?,
            };
        }
        Ok(())
    }

    /// All that a worker holds, the oldest first.
    pub(super) fn of(&self, connection: &Connection, worker: &str) -> rusqlite::Result<Vec<Tag>> {
        let mut leased = connection.prepare_cached(&self.leased)?;
        let tags = leased.query_map([worker], |row| {
            Ok(Tag { number: row.get::<_, i64>(0)?.cast_unsigned(), generation: row.get(1)? })
        })?;
        tags.collect()
    }

    /// Writes down that a worker is alive: a number that grows with every beat, whatever its clock does.
    pub(super) fn beat(&self, transaction: &Transaction<'_>, worker: &str, now_ms: i64) -> rusqlite::Result<()> {
        transaction.prepare_cached(&self.beat)?.execute((worker, now_ms)).map(drop)
    }

    /// Everybody who has signed on or holds something, with the last number of theirs.
    pub(super) fn workers(&self, connection: &Connection) -> rusqlite::Result<Vec<(String, i64)>> {
        let mut workers = connection.prepare_cached(&self.workers)?;
        let rows = workers.query_map([], |row| row.try_into())?;
        rows.collect()
    }

    /// The last number of one worker, as in [`Leases::workers`].
    pub(super) fn number(&self, connection: &Connection, worker: &str) -> rusqlite::Result<i64> {
        let number = connection.prepare_cached(&self.number)?.query_row([worker], |row| row.get(0)).optional()?;
        Ok(number.unwrap_or(0))
    }

    /// Forgets a worker that holds nothing any more.
    pub(super) fn sign_off(&self, transaction: &Transaction<'_>, worker: &str) -> rusqlite::Result<()> {
        transaction.prepare_cached(&self.sign_off)?.execute([worker]).map(drop)
    }
}

/// SQLite's numbers are signed. A tag that no row can have matches none.
fn row_id(tag: &Tag) -> i64 {
    tag.number.cast_signed()
}

fn read(row: &Row<'_>, queue: &Arc<str>, generation: u32) -> rusqlite::Result<Taken> {
    let number = row.get::<_, i64>(0)?.cast_unsigned();
    let (redelivered, content) = content(row.get_ref(1)?);
    Ok(Taken { tag: Tag { generation, number }, queue: queue.clone(), redelivered, content })
}

/// What a row's payload holds, and whether it was delivered before.
pub(super) fn content(payload: ValueRef<'_>) -> (bool, Content) {
    let payload = bytes(payload);
    match Delivery::read(&payload, LARGEST_ENVELOPE) {
        Ok(Delivery { incoming, redelivered }) => (redelivered, Content::Message(Box::new(incoming))),
        Err(error) => (false, Content::Malformed { raw: payload.into(), reason: error.to_string() }),
    }
}

/// A row's payload is text, unless somebody wrote it by hand.
fn bytes(payload: ValueRef<'_>) -> Vec<u8> {
    match payload {
        ValueRef::Text(bytes) | ValueRef::Blob(bytes) => bytes.to_vec(),
        ValueRef::Integer(number) => number.to_string().into_bytes(),
        ValueRef::Real(number) => number.to_string().into_bytes(),
        ValueRef::Null => Vec::new(),
    }
}
