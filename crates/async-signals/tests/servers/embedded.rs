//! The brokers that need no server.

use std::path::{Path, PathBuf};

use async_signals::broker::{BrokerConfig, memory::Memory};
use futures_util::future::{FutureExt, LocalBoxFuture};
use rusqlite::Connection;
use tempfile::TempDir;

use super::{Bench, DEADLINE, ReadMessage};

/// Queues in this process.
pub struct InMemory {
    config: BrokerConfig,
}

impl InMemory {
    /// A set of queues under a name of its own.
    pub fn new(name: &str) -> Self {
        Self { config: BrokerConfig::new(&format!("memory://{name}")).expect("a URL") }
    }
}

impl Bench for InMemory {
    fn name(&self) -> &'static str {
        "memory"
    }

    fn config(&self) -> BrokerConfig {
        self.config.clone()
    }

    fn read<'a>(&'a mut self, queue: &'a str) -> LocalBoxFuture<'a, Vec<ReadMessage>> {
        let messages = Memory::connect(&self.config.urls[0]).drain(queue);
        std::future::ready(messages.iter().map(ReadMessage::expected).collect()).boxed_local()
    }
}

/// Queues in a file.
pub struct Sqlite {
    directory: TempDir,
}

impl Sqlite {
    /// A file that is not there yet.
    pub fn new() -> Self {
        Self { directory: TempDir::new().expect("a directory") }
    }

    pub fn directory(&self) -> &Path {
        self.directory.path()
    }

    pub fn file(&self) -> PathBuf {
        self.directory.path().join("broker.sqlite3")
    }

    pub fn url(&self) -> String {
        format!("sqla+sqlite:///{}", self.file().display())
    }

    /// A connection of the test's own.
    pub fn connection(&self) -> Connection {
        Connection::open(self.file()).expect("a database")
    }
}

impl Bench for Sqlite {
    fn name(&self) -> &'static str {
        "sqlite"
    }

    fn config(&self) -> BrokerConfig {
        BrokerConfig::new(&self.url()).expect("a URL")
    }

    /// As kombu takes them: the visible ones, in the order of their numbers.
    fn read<'a>(&'a mut self, queue: &'a str) -> LocalBoxFuture<'a, Vec<ReadMessage>> {
        let connection = self.connection();
        let taken = "UPDATE kombu_message SET visible = 0 \
                     WHERE visible != 0 AND queue_id = (SELECT id FROM kombu_queue WHERE name = ?) \
                     RETURNING id, payload";
        let mut statement = connection.prepare(taken).expect("kombu's tables");
        let rows = statement.query_map([queue], |row| Ok((row.get(0)?, row.get(1)?))).expect("rows");
        let mut rows: Vec<(i64, String)> = rows.collect::<Result<_, _>>().expect("rows");
        rows.sort();
        std::future::ready(rows.iter().map(|(_, payload)| ReadMessage::from_envelope(payload.as_bytes())).collect())
            .boxed_local()
    }

    fn put_raw(&mut self, queue: &str, bytes: &[u8]) -> bool {
        let put = "INSERT INTO kombu_message (visible, payload, version, queue_id) \
                   VALUES (1, ?, 1, (SELECT id FROM kombu_queue WHERE name = ?))";
        let connection = self.connection();
        connection.busy_timeout(DEADLINE).expect("a connection");
        match std::str::from_utf8(bytes) {
            Ok(text) => connection.execute(put, (text, queue)),
            Err(_) => connection.execute(put, (bytes, queue)),
        }
        .expect("a row");
        true
    }
}
