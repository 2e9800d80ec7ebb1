//! Taking rows, and settling them.

use std::{
    fmt,
    pin::pin,
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
    time::{Duration, Instant, SystemTime, UNIX_EPOCH},
};

use futures_util::future::{BoxFuture, FutureExt};
use rusqlite::{Connection, Transaction};
use tokio::{
    sync::{Mutex, Notify},
    task::spawn_blocking,
};

use super::{error::Errors, file::File, leases::Leases, tables::Tables, watch::Watch};
use crate::broker::{BrokerConfig, BrokerError, BrokerUrl, Consumer, Subscription, Tag, Taken};

/// How often a waiting consumer looks whether somebody has changed the file: at first, and when long nobody has. A
/// look takes microseconds and no lock.
const PAUSES: (Duration, Duration) = (Duration::from_millis(1), Duration::from_millis(16));
/// How many messages of a dead worker are brought back in one transaction.
const RESTORED_AT_ONCE: usize = 500;

/// One connection to a broker's file that takes messages.
pub struct SqliteConsumer {
    desk: Arc<Mutex<Desk>>,
    /// Whether nobody uses this connection any more: what a thread of it is still about to do must not be done, since the
    /// worker's next connection has looked through what it holds.
    abandoned: Arc<AtomicBool>,
    errors: Errors,
    interrupted: AtomicBool,
    /// Told when it is interrupted, and when this connection itself has made messages visible, which
    /// [`Desk::has_changed`] does not see.
    woken: Notify,
}

/// What a thread works with that is inside SQLite.
#[derive(Debug)]
struct Desk {
    file: File,
    abandoned: Arc<AtomicBool>,
    leases: Leases,
    worker: String,
    generation: u32,
    queues: Vec<Arc<str>>,
    /// The queue that comes first in the next round.
    turn: usize,
    /// SQLite's count of other connections' changes, from before we last looked for messages.
    version: i64,
    watch: Watch,
}

impl SqliteConsumer {
    pub(in crate::broker) async fn subscribe(
        config: &BrokerConfig,
        url: &BrokerUrl,
        subscription: Subscription,
    ) -> Result<Self, BrokerError> {
        let errors = Errors::new(url)?;
        let tables = Tables::named(&config.transport_options)?;
        let (opening, abandoned) = (errors.clone(), Arc::default());
        let of_desk = Arc::clone(&abandoned);
        let desk = spawn_blocking(move || Desk::open(&opening, &tables, &subscription, of_desk)).await;
        let desk = Arc::new(Mutex::new(desk.map_err(|error| errors.connecting(&error.to_string()))??));
        Ok(Self { desk, abandoned, errors, interrupted: AtomicBool::new(false), woken: Notify::new() })
    }

    /// SQLite blocks, hence on a thread for blocking work.
    async fn work<T: Send + 'static>(
        &self,
        work: impl FnOnce(&mut Desk) -> Result<T, BrokerError> + Send + 'static,
    ) -> Result<T, BrokerError> {
        let mut desk = self.desk.clone().lock_owned().await;
        let worked = spawn_blocking(move || work(&mut desk)).await;
        worked.unwrap_or_else(|error| Err(self.errors.disconnected(&error.to_string())))
    }

    async fn take_some(&self, done: &[Tag], limit: usize) -> Result<Vec<Taken>, BrokerError> {
        let mut done = done.to_vec();
        loop {
            // Listening before looking: what comes in between is not missed.
            let mut woken = pin!(self.woken.notified());
            woken.as_mut().enable();
            let acknowledged = std::mem::take(&mut done);
            let taken = self.work(move |desk| desk.take(&acknowledged, limit)).await?;
            if !taken.is_empty() || self.interrupted.load(Ordering::Relaxed) {
                return Ok(taken);
            }
            let (mut pause, longest) = PAUSES;
            loop {
                tokio::select! {
                    () = &mut woken => break,
                    () = tokio::time::sleep(pause) => {}
                }
                if self.work(Desk::has_changed).await? {
                    break;
                }
                pause = (pause * 2).min(longest);
            }
        }
    }

    async fn return_some(&self, tags: &[Tag]) -> Result<(), BrokerError> {
        let tags = tags.to_vec();
        self.work(move |desk| desk.write(|leases, own, transaction| leases.give_back(transaction, &tags, own))).await?;
        self.woken.notify_waiters();
        Ok(())
    }

    async fn beat(&self) -> Result<(), BrokerError> {
        let dead = self.work(Desk::beat).await?;
        for (worker, number) in dead {
            let restored = self.restore(&worker, Some(number)).await?;
            if restored > 0 {
                tracing::warn!(
                    worker,
                    restored,
                    "a worker has died; the messages that it held are back in their queues"
                );
            }
        }
        Ok(())
    }

    /// Makes visible what a worker holds, and forgets the worker, unless its number has changed meanwhile: it lives.
    /// A few at a time, since others wait for the file.
    async fn restore(&self, worker: &str, number: Option<i64>) -> Result<usize, BrokerError> {
        let mut restored = 0;
        loop {
            let name = worker.to_owned();
            let some = self.work(move |desk| desk.restore(&name, number)).await?;
            restored += some;
            if some > 0 {
                self.woken.notify_waiters();
            }
            if some < RESTORED_AT_ONCE {
                return Ok(restored);
            }
        }
    }

    async fn sign_off(&self) {
        let name = self.desk.lock().await.worker.clone();
        if let Err(error) = self.restore(&name, None).await {
            tracing::warn!(%error, "could not sign off; the others will notice");
        }
    }
}

impl Desk {
    fn open(
        errors: &Errors,
        tables: &Tables,
        subscription: &Subscription,
        abandoned: Arc<AtomicBool>,
    ) -> Result<Self, BrokerError> {
        let file = File::open(errors, |connection| {
            tables.create(connection)?;
            relax(connection)
        })?;
        let mut desk = Self {
            file,
            abandoned,
            leases: Leases::beside(tables),
            worker: subscription.worker.clone(),
            generation: subscription.generation,
            queues: subscription.queues.iter().map(|queue| queue.name.as_str().into()).collect(),
            turn: 0,
            version: 0,
            watch: Watch::default(),
        };
        let queues = desk.queues.clone();
        desk.write(|leases, own, transaction| {
            leases.create(transaction)?;
            for queue in &queues {
                leases.declare(transaction, queue)?;
            }
            leases.beat(transaction, own, now_ms())?;
            let mut lost = leases.of(transaction, own)?;
            lost.retain(|tag| !subscription.held.contains(tag));
            // At first what stands there is another process's, of the same name.
            if subscription.generation > 1 {
                leases.put_back(transaction, &lost, own)
            } else {
                leases.give_back(transaction, &lost, own)
            }
        })?;
        Ok(desk)
    }

    fn write<T>(
        &mut self,
        change: impl FnOnce(&Leases, &str, &Transaction<'_>) -> rusqlite::Result<T>,
    ) -> Result<T, BrokerError> {
        let Self { file, abandoned, leases, worker, .. } = self;
        // Done to the end even if nobody waits for it any more, as long as the connection is used: it is not known
        // whose the messages were else.
        let done = file.write(abandoned, |transaction| change(leases, worker, transaction))?;
        file.keep_small()?;
        Ok(done)
    }

    fn take(&mut self, done: &[Tag], limit: usize) -> Result<Vec<Taken>, BrokerError> {
        // First, so that a change while we look is one that we see.
        self.version = self.file.read(version)?;
        if done.is_empty() && !self.file.read(|connection| self.leases.any_waiting(connection, &self.queues))? {
            return Ok(Vec::new());
        }
        let (queues, turn, generation) = (self.queues.clone(), self.turn, self.generation);
        self.turn = turn.wrapping_add(1);
        self.write(|leases, own, transaction| {
            leases.acknowledge(transaction, done, own)?;
            leases.take(transaction, &queues, turn, limit, (own, generation))
        })
    }

    /// Whether another connection has changed the file since we looked for messages.
    fn has_changed(&mut self) -> Result<bool, BrokerError> {
        Ok(self.file.read(version)? != self.version)
    }

    /// Gives a sign of life, and names those who have given none for too long.
    fn beat(&mut self) -> Result<Vec<(String, i64)>, BrokerError> {
        let now_ms = now_ms();
        let mut workers = self.write(|leases, own, transaction| {
            leases.beat(transaction, own, now_ms)?;
            leases.workers(transaction)
        })?;
        workers.retain(|(name, _)| *name != self.worker);
        Ok(self.watch.dead(workers, Instant::now(), now_ms))
    }

    fn restore(&mut self, worker: &str, number: Option<i64>) -> Result<usize, BrokerError> {
        self.write(|leases, _, transaction| {
            if let Some(number) = number
                && leases.number(transaction, worker)? != number
            {
                return Ok(0);
            }
            let mut held = leases.of(transaction, worker)?;
            held.truncate(RESTORED_AT_ONCE);
            leases.give_back(transaction, &held, worker)?;
            if held.len() < RESTORED_AT_ONCE {
                leases.sign_off(transaction, worker)?;
            }
            Ok(held.len())
        })
    }
}

/// What a power failure undoes of our own transactions is taken once more, which a worker must expect anyway: it is
/// not worth a wait for the disk. The journal keeps their order, so that what was published by then stays.
fn relax(connection: &Connection) -> rusqlite::Result<()> {
    let journal: String = connection.pragma_query_value(None, "journal_mode", |row| row.get(0))?;
    if journal == "wal" { connection.pragma_update(None, "synchronous", "NORMAL") } else { Ok(()) }
}

/// Changes with every transaction of another connection. Asking takes no lock.
fn version(connection: &Connection) -> rusqlite::Result<i64> {
    connection.prepare_cached("PRAGMA data_version")?.query_row([], |row| row.get(0))
}

fn now_ms() -> i64 {
    let now = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
    i64::try_from(now.as_millis()).unwrap_or(i64::MAX)
}

impl Consumer for SqliteConsumer {
    fn take<'a>(&'a self, done: &'a [Tag], limit: usize) -> BoxFuture<'a, Result<Vec<Taken>, BrokerError>> {
        self.take_some(done, limit).boxed()
    }

    fn acknowledge<'a>(&'a self, tags: &'a [Tag]) -> BoxFuture<'a, Result<(), BrokerError>> {
        let tags = tags.to_vec();
        self.work(move |desk| desk.write(|leases, own, transaction| leases.acknowledge(transaction, &tags, own)))
            .boxed()
    }

    fn give_back<'a>(&'a self, tags: &'a [Tag]) -> BoxFuture<'a, Result<(), BrokerError>> {
        self.return_some(tags).boxed()
    }

    /// A lease lasts as long as its worker gives signs of life: the tags need none of their own.
    fn renew<'a>(&'a self, _held: &'a [Tag]) -> BoxFuture<'a, Result<(), BrokerError>> {
        self.beat().boxed()
    }

    fn interrupt(&self) {
        self.interrupted.store(true, Ordering::Relaxed);
        self.woken.notify_waiters();
    }

    fn close(&self) -> BoxFuture<'_, ()> {
        self.sign_off().boxed()
    }
}

impl Drop for SqliteConsumer {
    fn drop(&mut self) {
        self.abandoned.store(true, Ordering::Relaxed);
    }
}

impl fmt::Debug for SqliteConsumer {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("SqliteConsumer").field("errors", &self.errors).finish_non_exhaustive()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::message::Queue;

    #[test]
    fn a_connection_that_was_given_up_takes_nothing_behind_the_next_ones_back() {
        let folder = tempfile::tempdir().expect("a folder");
        let url = format!("sqla+sqlite:///{}", folder.path().join("broker.sqlite3").display());
        let config = BrokerConfig::new(&url).expect("a URL");
        let errors = Errors::new(&config.urls[0]).expect("a file");
        let tables = Tables::named(&config.transport_options).expect("the defaults");
        let open = |generation, abandoned| {
            let queues = vec![Queue::direct("celery")];
            let worker = "ours".to_owned();
            let subscription = Subscription { queues, worker, generation, held: Vec::new(), prefetch: 1 };
            Desk::open(&errors, &tables, &subscription, abandoned).expect("a connection")
        };
        let abandoned = Arc::<AtomicBool>::default();
        let mut first = open(1, Arc::clone(&abandoned));
        let insert =
            "INSERT INTO kombu_message (visible, payload, version, queue_id) SELECT 1, '{}', 1, id FROM kombu_queue";
        first.write(|_, _, transaction| transaction.execute(insert, []).map(drop)).expect("a message");
        // Its worker connects anew while a thread is about to take.
        abandoned.store(true, Ordering::Relaxed);
        let mut second = open(2, Arc::default());
        assert!(first.take(&[], 5).is_err(), "nobody would hear of it");
        assert_eq!(second.take(&[], 5).expect("an answer").len(), 1);
    }
}
