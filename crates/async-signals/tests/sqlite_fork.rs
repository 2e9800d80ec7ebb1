//! What happens around a fork to the embedded broker. A program of its own: it closes every file of its process.
#![cfg(feature = "sqlite")]

mod servers;

use std::{fs, sync::Arc};

use async_signals::{
    broker::{self, Broker, sqlite},
    message::{Outgoing, Route},
};
use servers::{Bench, embedded::Sqlite, messages::numbered};

#[tokio::test(flavor = "multi_thread")]
async fn no_file_is_open_while_a_process_forks() {
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
    let files = fs::read_dir(bench.directory()).expect("a directory");
    let files: Vec<_> = files.map(|file| file.expect("a file").file_name()).collect();
    assert_eq!(files, ["broker.sqlite3"], "the journal beside it goes with the last connection");
    sqlite::after_fork_in_parent();

    let error = meanwhile.await.expect("no panic").expect_err("its connection is closed");
    assert!(error.is_disconnect(), "so that the publisher connects anew: {error}");
    connect().await.publish(&[outgoing()]).await.remove(0).expect("published");
    assert_eq!(bench.read("celery").await.len(), 2);
}

fn outgoing() -> Outgoing {
    Outgoing { route: Arc::new(Route::to_queue("celery")), message: numbered(1) }
}
