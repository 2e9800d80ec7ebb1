//! kombu's two tables, as in `kombu/transport/sqlalchemy/models.py`, so that
//! either side may come first.

use std::str;

use rusqlite::{Connection, OptionalExtension, Transaction};
use serde_json::{Map, Value};

use crate::broker::BrokerError;

const FIND_TABLES: &str = "SELECT count(*) FROM sqlite_master WHERE type = 'table' AND name IN (?, ?)";

/// A message for one queue.
pub(super) struct Row {
    /// Its place in the batch.
    pub(super) index: usize,
    pub(super) queue: String,
    /// Its envelope: JSON, hence text.
    pub(super) envelope: Vec<u8>,
}

/// The statements for kombu's two tables, whatever `broker_transport_options` call them.
#[derive(Debug)]
pub(super) struct Tables {
    create: String,
    find_queue: String,
    add_queue: String,
    add_message: String,
    names: [String; 2],
    /// The tables as statements write them.
    pub(super) queue: String,
    pub(super) message: String,
}

impl Tables {
    pub(super) fn named(options: &Map<String, Value>) -> Result<Self, BrokerError> {
        let name = |option: &str, default: &str| match options.get(option) {
            None | Some(Value::Null) => Ok(default.to_owned()),
            Some(Value::String(name)) if !name.is_empty() && !name.contains('\0') => Ok(name.clone()),
            Some(_) => Err(BrokerError::InvalidOption {
                option: format!("broker_transport_options[{option:?}]"),
                reason: "must be the name of a table".to_owned(),
            }),
        };
        let names = [name("queue_tablename", "kombu_queue")?, name("message_tablename", "kombu_message")?];
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
            queue,
            message,
        })
    }

    /// A name of ours that belongs to these tables and to no others in the file, as statements write it.
    pub(super) fn beside(&self, what: &str) -> String {
        quoted(&self.name_beside(what))
    }

    /// The same, as SQLite keeps it.
    pub(super) fn name_beside(&self, what: &str) -> String {
        format!("async_signals_{}_{what}", self.names[1])
    }

    pub(super) fn create(&self, connection: &Connection) -> rusqlite::Result<()> {
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

    pub(super) fn insert(&self, transaction: &Transaction<'_>, rows: &[Row]) -> rusqlite::Result<()> {
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

fn quoted(name: &str) -> String {
    format!("\"{}\"", name.replace('"', "\"\""))
}
