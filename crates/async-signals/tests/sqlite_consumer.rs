//! What only the embedded broker's consumer does.
#![cfg(feature = "sqlite")]

#[path = "sqlite_consumer/file.rs"]
mod file;
#[path = "sqlite_consumer/kombu.rs"]
mod kombu;
#[path = "sqlite_consumer/processes.rs"]
mod processes;
mod servers;

use std::{ops::Range, path::Path, sync::Arc, time::Duration};

use async_signals::{
    broker::{self, Broker, BrokerConfig, Consumer, Content, Subscription, Tag, Taken},
    message::{Outgoing, Queue, Route},
};
use servers::{
    Bench, DEADLINE,
    embedded::Sqlite,
    messages::{assert_ok, fresh, numbered},
};
use tokio::time::timeout;

const QUEUE: &str = "celery";

async fn consumer(config: &BrokerConfig, worker: &str) -> Arc<dyn Consumer> {
    let subscription = Subscription {
        queues: vec![Queue::direct(QUEUE)],
        worker: worker.to_owned(),
        generation: 1,
        held: Vec::new(),
        prefetch: 64,
    };
    broker::consume(config, &config.urls[0], subscription).await.expect("a consumer")
}

async fn connect(config: &BrokerConfig) -> Arc<dyn Broker> {
    broker::connect(config, &config.urls[0]).await.expect("a connection")
}

async fn fill(broker: &dyn Broker, numbers: Range<u64>) {
    let route = Arc::new(Route::to_queue(QUEUE));
    let batch: Vec<_> = numbers.map(|number| Outgoing { route: route.clone(), message: numbered(number) }).collect();
    assert_ok(&broker.publish(&batch).await);
}

async fn take_all(consumer: &dyn Consumer, count: usize) -> Vec<Taken> {
    let mut taken = Vec::new();
    while taken.len() < count {
        let more = timeout(DEADLINE, consumer.take(&[], count - taken.len())).await.expect("messages in time");
        taken.extend(more.expect("messages"));
    }
    taken
}

/// Looks for dead workers, as often as a worker does but without its pauses, until there is something to take.
async fn recovered(consumer: &Arc<dyn Consumer>, count: usize) -> Vec<Taken> {
    let beating = {
        let consumer = consumer.clone();
        tokio::spawn(async move {
            let mut beat = tokio::time::interval(Duration::from_millis(200));
            loop {
                beat.tick().await;
                consumer.renew(&[]).await.expect("a sign of life");
            }
        })
    };
    let taken = take_all(&**consumer, count).await;
    beating.abort();
    taken
}

fn tags(taken: &[Taken]) -> Vec<Tag> {
    taken.iter().map(|taken| taken.tag).collect()
}

fn number(taken: &Taken) -> u64 {
    match &taken.content {
        Content::Message(message) => message.headers["number"].as_u64().expect("a number"),
        malformed => panic!("no message: {malformed:?}"),
    }
}

fn numbers(taken: &[Taken]) -> Vec<u64> {
    taken.iter().map(number).collect()
}

/// How many rows a table has.
fn count(file: &Path, table: &str) -> i64 {
    let connection = rusqlite::Connection::open(file).expect("a database");
    connection.query_row(&format!("SELECT count(*) FROM {table}"), [], |row| row.get(0)).expect("a count")
}
