//! Looking into a broker's file: reads, which no worker waits for.

use std::{fmt, sync::Arc};

use futures_util::future::{BoxFuture, FutureExt};
use rusqlite::{Connection, OptionalExtension};
use tokio::{sync::Mutex, task::spawn_blocking};

use super::{error::Errors, file::File, leases::content, tables::Tables};
use crate::broker::{
    BrokerConfig, BrokerError, BrokerUrl,
    browse::{Browser, Depth, Page, Position, sent_at},
};

const HAS_TABLE: &str = "SELECT 1 FROM sqlite_master WHERE type = 'table' AND name = ?";

/// One connection to a broker's file that looks at its queues.
pub(crate) struct SqliteBrowser {
    /// `None`: there was no such file, so nothing was sent yet. Looking makes none.
    file: Option<Arc<Mutex<File>>>,
    statements: Arc<Statements>,
    errors: Errors,
}

#[derive(Debug)]
struct Statements {
    queue: String,
    waiting: String,
    oldest: String,
    /// The table of leases, which the first worker of ours makes.
    leases: String,
    held: String,
    page: String,
}

impl SqliteBrowser {
    pub(in crate::broker) async fn connect(config: &BrokerConfig, url: &BrokerUrl) -> Result<Self, BrokerError> {
        let errors = Errors::new(url)?;
        let tables = Tables::named(&config.transport_options)?;
        let statements = Arc::new(Statements::on(&tables));
        let opening = errors.clone();
        let file = spawn_blocking(move || {
            let is_there = opening.path().exists();
            is_there.then(|| File::open(&opening, |connection| tables.create(connection))).transpose()
        });
        let file = file.await.map_err(|error| errors.connecting(&error.to_string()))??;
        Ok(Self { file: file.map(|file| Arc::new(Mutex::new(file))), statements, errors })
    }

    /// SQLite blocks, hence on a thread for blocking work.
    async fn look<T: Send + 'static>(
        &self,
        look: impl Fn(&Connection, &Statements) -> rusqlite::Result<T> + Send + 'static,
    ) -> Result<Option<T>, BrokerError> {
        let Some(file) = &self.file else { return Ok(None) };
        let (file, statements) = (file.clone().lock_owned().await, self.statements.clone());
        let looked = spawn_blocking(move || file.read(|connection| look(connection, &statements))).await;
        looked.unwrap_or_else(|error| Err(self.errors.disconnected(&error.to_string()))).map(Some)
    }
}

impl Statements {
    fn on(tables: &Tables) -> Self {
        let Tables { queue, message, .. } = tables;
        let lease = tables.beside("lease");
        Self {
            leases: tables.name_beside("lease"),
            queue: format!("SELECT id FROM {queue} WHERE name = ?"),
            waiting: format!("SELECT count(*) FROM {message} WHERE queue_id = ? AND visible != 0"),
            oldest: format!(
                "SELECT payload FROM {message} WHERE queue_id = ? AND visible != 0 ORDER BY timestamp, id LIMIT 1"
            ),
            held: format!(
                "SELECT count(*) FROM {lease} l JOIN {message} m ON m.id = l.message_id WHERE m.queue_id = ?"
            ),
            page: format!(
                "SELECT id, payload FROM {message} WHERE queue_id = ? AND visible != 0 AND id > ? ORDER BY id LIMIT ?"
            ),
        }
    }

    fn queue(&self, connection: &Connection, name: &str) -> rusqlite::Result<Option<i64>> {
        connection.prepare_cached(&self.queue)?.query_row([name], |row| row.get(0)).optional()
    }

    fn depth(&self, connection: &Connection, name: &str) -> rusqlite::Result<Option<Depth>> {
        let Some(queue) = self.queue(connection, name)? else { return Ok(None) };
        let count = |statement: &str| {
            let count = connection.prepare_cached(statement)?.query_row([queue], |row| row.get::<_, i64>(0))?;
            Ok::<_, rusqlite::Error>(u64::try_from(count).unwrap_or_default())
        };
        let mut oldest = connection.prepare_cached(&self.oldest)?;
        let oldest = oldest.query_row([queue], |row| Ok(sent_at(&content(row.get_ref(0)?).1))).optional()?;
        let in_flight = match connection.prepare_cached(HAS_TABLE)?.exists([&self.leases])? {
            true => Some(count(&self.held)?),
            false => None,
        };
        Ok(Some(Depth { ready: count(&self.waiting)?, in_flight, consumers: None, oldest: oldest.flatten() }))
    }

    fn page(&self, connection: &Connection, name: &str, from: Position, limit: usize) -> rusqlite::Result<Page> {
        let mut page = Page::default();
        let Some(queue) = self.queue(connection, name)? else { return Ok(page) };
        let mut statement = connection.prepare_cached(&self.page)?;
        let mut rows = statement.query((queue, from.0.cast_signed(), i64::try_from(limit).unwrap_or(i64::MAX)))?;
        let mut last = 0;
        while let Some(row) = rows.next()? {
            last = row.get::<_, i64>(0)?.cast_unsigned();
            page.messages.push(content(row.get_ref(1)?).1);
        }
        page.next = (page.messages.len() == limit).then_some(Position(last));
        Ok(page)
    }
}

impl Browser for SqliteBrowser {
    fn depth<'a>(&'a self, queue: &'a str) -> BoxFuture<'a, Result<Option<Depth>, BrokerError>> {
        let queue = queue.to_owned();
        async move {
            let depth = self.look(move |connection, statements| statements.depth(connection, &queue)).await?;
            Ok(depth.flatten())
        }
        .boxed()
    }

    fn page<'a>(
        &'a self,
        queue: &'a str,
        from: Position,
        limit: usize,
    ) -> BoxFuture<'a, Result<Option<Page>, BrokerError>> {
        let queue = queue.to_owned();
        async move {
            let page =
                self.look(move |connection, statements| statements.page(connection, &queue, from, limit)).await?;
            Ok(Some(page.unwrap_or_default()))
        }
        .boxed()
    }
}

impl fmt::Debug for SqliteBrowser {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("SqliteBrowser").field("errors", &self.errors).finish_non_exhaustive()
    }
}
