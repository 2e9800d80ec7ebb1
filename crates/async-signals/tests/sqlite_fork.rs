//! What happens around a fork to the embedded broker. A program of its own: it closes every file of its process.
#![cfg(feature = "sqlite")]

mod servers;

use std::{fs, sync::Arc};

use async_signals::{
    broker::{self, Broker, Subscription, sqlite},
    message::{Outgoing, Queue, Route},
};
use servers::{Bench, DEADLINE, embedded::Sqlite, messages::numbered};
use tokio::{sync::Mutex, time::timeout};

/// One after the other, since each of them closes the other's files.
static FORKING: Mutex<()> = Mutex::const_new(());

#[tokio::test(flavor = "multi_thread")]
async fn no_file_is_open_while_a_process_forks() {
    let _alone = FORKING.lock().await;
    let mut bench = Sqlite::new();
    let config = bench.config();
    let connect = || async { broker::connect(&config, &config.urls[0]).await.expect("a connection") };
    let before = connect().await;
    before.publish(&[outgoing()]).await.remove(0).expect("published");

    sqlite::before_fork();
    let meanwhile = {
        let before: Arc<dyn Broker> = before.clone();
        tokio::spawn(async move { before.publish(&[outgoing()]).await.remove(0) })
    };
    assert_eq!(files(&bench), ["broker.sqlite3"], "the journal beside it goes with the last connection");
    sqlite::after_fork_in_parent();

    let error = meanwhile.await.expect("no panic").expect_err("its connection is closed");
    assert!(error.is_disconnect(), "so that the publisher connects anew: {error}");
    connect().await.publish(&[outgoing()]).await.remove(0).expect("published");
    assert_eq!(bench.read("celery").await.len(), 2);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_consumer_reconnects_after_a_fork_and_keeps_what_it_holds() {
    let _alone = FORKING.lock().await;
    let bench = Sqlite::new();
    let config = bench.config();
    let subscribe = |generation, held| {
        let queues = vec![Queue::direct("celery")];
        let subscription = Subscription { queues, worker: "ours".to_owned(), generation, held, prefetch: 1 };
        broker::consume(&config, &config.urls[0], subscription)
    };
    let consumer = subscribe(1, Vec::new()).await.expect("a consumer");
    let connect = || async { broker::connect(&config, &config.urls[0]).await.expect("a connection") };
    connect().await.publish(&[outgoing()]).await.remove(0).expect("published");
    let taken = consumer.take(&[], 1).await.expect("a message");
    let waiting = {
        let consumer = consumer.clone();
        tokio::spawn(async move { consumer.take(&[], 1).await })
    };

    sqlite::before_fork();
    assert_eq!(files(&bench), ["broker.sqlite3"], "also while it waits");
    sqlite::after_fork_in_parent();

    let error = timeout(DEADLINE, waiting).await.expect("in time").expect("no panic").expect_err("it is closed");
    assert!(error.is_disconnect() && error.to_string().contains("forked"), "{error}");
    let again = subscribe(2, vec![taken[0].tag]).await.expect("a consumer");
    again.acknowledge(&[taken[0].tag]).await.expect("acknowledged");
    connect().await.publish(&[outgoing()]).await.remove(0).expect("published");
    let next = timeout(DEADLINE, again.take(&[], 10)).await.expect("in time").expect("a message");
    assert_eq!(next.iter().map(|taken| (taken.tag.generation, taken.redelivered)).collect::<Vec<_>>(), [(2, false)]);
}

fn files(bench: &Sqlite) -> Vec<std::ffi::OsString> {
    let files = fs::read_dir(bench.directory()).expect("a directory");
    files.map(|file| file.expect("a file").file_name()).collect()
}

fn outgoing() -> Outgoing {
    Outgoing { route: Arc::new(Route::to_queue("celery")), message: numbered(1) }
}
