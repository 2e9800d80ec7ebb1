//! The embedded broker: one SQLite file, in the tables of kombu's `sqla+sqlite://` transport.
//!
//! A batch is one transaction, and its `COMMIT` is the confirmation. Since
//! SQLite blocks, it runs on tokio's threads for blocking work. kombu keeps
//! this transport's bindings in each process' memory: an exchange leads to
//! the queues that the message's own route declares. It knows no priorities.

mod browser;
mod consumer;
mod error;
mod file;
mod fork;
mod leases;
mod tables;
mod watch;

use std::sync::{
    Arc,
    atomic::{AtomicBool, Ordering},
};

use futures_util::future::{BoxFuture, FutureExt};
use tokio::{sync::Mutex, task::spawn_blocking};
use uuid::Uuid;

pub(super) use self::browser::SqliteBrowser;
pub use self::consumer::SqliteConsumer;
pub use self::fork::{after_fork_in_child, after_fork_in_parent, before_fork};
use self::{
    error::Errors,
    file::File,
    tables::{Row, Tables},
};
use super::{Broker, BrokerConfig, BrokerError, BrokerUrl, Published, binding};
use crate::{message::Outgoing, protocol::kombu::write_envelope};

/// One connection to a broker's file.
#[derive(Debug)]
pub struct Sqlite {
    file: Arc<Mutex<File>>,
    tables: Arc<Tables>,
    errors: Errors,
}

impl Sqlite {
    pub(super) async fn connect(config: &BrokerConfig, url: &BrokerUrl) -> Result<Self, BrokerError> {
        let errors = Errors::new(url)?;
        let tables = Arc::new(Tables::named(&config.transport_options)?);
        let (creating, opening) = (tables.clone(), errors.clone());
        let file = spawn_blocking(move || File::open(&opening, |connection| creating.create(connection))).await;
        let file = file.map_err(|error| errors.connecting(&error.to_string()))??;
        Ok(Self { file: Arc::new(Mutex::new(file)), tables, errors })
    }

    async fn publish_all(&self, batch: &[Outgoing]) -> Vec<Published> {
        let mut outcomes = Vec::with_capacity(batch.len());
        let mut rows = Vec::with_capacity(batch.len());
        for (index, outgoing) in batch.iter().enumerate() {
            outcomes.push(self.add_rows(index, outgoing, &mut rows));
        }
        if rows.is_empty() {
            return outcomes;
        }
        let carried: Vec<usize> = rows.iter().map(|row| row.index).collect();
        let file = self.file.clone().lock_owned().await;
        let abandoned = Abandoned::default();
        let (flag, tables) = (abandoned.0.clone(), self.tables.clone());
        let stored = spawn_blocking(move || file.write(&flag, |transaction| tables.insert(transaction, &rows))).await;
        if let Err(error) = stored.unwrap_or_else(|error| Err(self.errors.disconnected(&error.to_string()))) {
            for index in carried {
                outcomes[index] = Err(error.clone());
            }
        }
        outcomes
    }

    fn add_rows(&self, index: usize, Outgoing { route, message }: &Outgoing, rows: &mut Vec<Row>) -> Published {
        for queue in binding::declared_queues(route)? {
            let mut envelope = Vec::new();
            // A tag for each queue, as in kombu for each publish.
            write_envelope(&mut envelope, message, &route.exchange, &route.routing_key, Uuid::new_v4())
                .map_err(|error| BrokerError::Refused { reason: format!("its headers cannot be written: {error}") })?;
            rows.push(Row { index, queue: queue.to_owned(), envelope });
        }
        Ok(())
    }
}

impl Broker for Sqlite {
    fn publish<'a>(&'a self, batch: &'a [Outgoing]) -> BoxFuture<'a, Vec<Published>> {
        self.publish_all(batch).boxed()
    }

    /// Every publish is a transaction of its own that holds the file: nothing to overlap.
    fn pipeline(&self) -> usize {
        1
    }

    /// Dropping the connection closes the file.
    fn close(&self) -> BoxFuture<'_, ()> {
        std::future::ready(()).boxed()
    }
}

/// Tells the thread that works that nobody waits any more: what was not committed by then never will be.
#[derive(Default)]
struct Abandoned(Arc<AtomicBool>);

impl Drop for Abandoned {
    fn drop(&mut self) {
        self.0.store(true, Ordering::Relaxed);
    }
}
