//! The file: how fast it is noticed, how large it gets, and what goes wrong with it.

use std::{fs, time::Instant};

use async_signals::broker::BrokerError;
use futures_util::FutureExt;

use super::*;

#[tokio::test(flavor = "multi_thread")]
async fn a_message_is_noticed_within_milliseconds() {
    let sqlite = Sqlite::new();
    let ours = consumer(&sqlite.config(), "ours").await;
    let broker = connect(&sqlite.config()).await;
    let (mut took, mut done) = (Vec::new(), Vec::new());
    for number in 0..30 {
        let waiting = {
            let (ours, done) = (ours.clone(), std::mem::take(&mut done));
            tokio::spawn(async move { (ours.take(&done, 1).await.expect("a message"), Instant::now()) })
        };
        fill(&*broker, number..number + 1).await;
        let published = Instant::now();
        let (taken, at) = timeout(DEADLINE, waiting).await.expect("in time").expect("no panic");
        took.push(at.saturating_duration_since(published));
        done = tags(&taken);
    }
    took.sort();
    // kombu looks once a second.
    assert!(took[took.len() / 2] < Duration::from_millis(100), "{took:?}");
}

/// Publishes messages of ten kilobytes and takes them, one batch after the other.
async fn load(broker: &dyn Broker, consumer: &dyn Consumer, rounds: Range<u64>) {
    let route = Arc::new(Route::to_queue(QUEUE));
    let mut done = Vec::new();
    for round in rounds {
        let large = |number| {
            let body = bytes::Bytes::from(vec![b'x'; 10 << 10]);
            Outgoing { route: route.clone(), message: async_signals::message::Message { body, ..numbered(number) } }
        };
        let batch: Vec<_> = (round * 20..(round + 1) * 20).map(large).collect();
        assert_ok(&broker.publish(&batch).await);
        let mut taken = Vec::new();
        while taken.len() < batch.len() {
            taken.extend(consumer.take(&std::mem::take(&mut done), 20).await.expect("messages"));
        }
        done = tags(&taken);
    }
    consumer.acknowledge(&done).await.expect("acknowledged");
}

#[tokio::test(flavor = "multi_thread")]
async fn the_file_does_not_grow_under_a_steady_load() {
    const MIB: u64 = 1 << 20;
    let sqlite = Sqlite::new();
    let ours = consumer(&sqlite.config(), "ours").await;
    let broker = connect(&sqlite.config()).await;
    let journal = sqlite.directory().join("broker.sqlite3-wal");
    let size = |path: &Path| fs::metadata(path).expect("a file").len();

    load(&*broker, &*ours, 0..50).await;
    let (file_before, journal_before) = (size(&sqlite.file()), size(&journal));
    assert!(journal_before < 20 * MIB, "{journal_before}");
    // A reader that stays makes the journal grow: nothing of it may be overwritten.
    let reader = sqlite.connection();
    reader.execute_batch("BEGIN; SELECT count(*) FROM kombu_message").expect("a reader");
    load(&*broker, &*ours, 50..100).await;
    let journal_with_reader = size(&journal);
    assert!(journal_with_reader > 20 * MIB, "the load is large enough for this test: {journal_with_reader}");
    // When it has gone, the load goes on, and the journal is what it was.
    reader.execute_batch("COMMIT").expect("it has gone");
    let gone = Instant::now();
    let mut rounds = 100;
    while size(&journal) > 20 * MIB {
        assert!(gone.elapsed() < DEADLINE, "{} of {journal_with_reader} left", size(&journal));
        load(&*broker, &*ours, rounds..rounds + 1).await;
        rounds += 1;
    }
    load(&*broker, &*ours, rounds..rounds + 50).await;
    assert!(size(&journal) < 20 * MIB, "{}", size(&journal));
    assert!(size(&sqlite.file()) <= file_before + 4 * MIB, "{} after {file_before}", size(&sqlite.file()));
    assert_eq!(count(&sqlite.file(), "kombu_message"), 0);
}

#[tokio::test(flavor = "multi_thread")]
async fn waits_for_another_process_and_says_so_when_it_takes_too_long() {
    let sqlite = Sqlite::new();
    let ours = consumer(&sqlite.config(), "ours").await;
    fill(&*connect(&sqlite.config()).await, 0..2).await;
    let held = take_all(&*ours, 2).await;
    let other = sqlite.connection();
    other.execute_batch("BEGIN IMMEDIATE").expect("the lock");
    let (first, second) = (tags(&held[..1]), tags(&held[1..]));
    let mut settling = std::pin::pin!(ours.acknowledge(&first));
    assert!(settling.as_mut().now_or_never().is_none(), "it waits");
    other.execute_batch("COMMIT").expect("the lock is free");
    settling.await.expect("acknowledged");

    other.execute_batch("BEGIN IMMEDIATE").expect("the lock");
    let error = timeout(DEADLINE, ours.acknowledge(&second)).await.expect("in time").expect_err("the file is held");
    assert!(matches!(error, BrokerError::Unavailable { .. }) && error.is_transient(), "{error:?}");
    assert!(error.to_string().contains(&sqlite.file().display().to_string()), "{error}");
    // Waiting for a message needs no lock.
    let mut waiting = std::pin::pin!(ours.take(&[], 1));
    assert!(waiting.as_mut().now_or_never().is_none(), "nothing is there");
    other.execute_batch("COMMIT").expect("the lock is free");
    ours.interrupt();
    assert!(timeout(DEADLINE, waiting).await.expect("in time").expect("no error").is_empty());
    ours.acknowledge(&second).await.expect("acknowledged");
}

#[cfg(unix)]
#[tokio::test(flavor = "multi_thread")]
async fn notices_that_the_file_was_removed_while_it_waits() {
    let sqlite = Sqlite::new();
    let ours = consumer(&sqlite.config(), "ours").await;
    let waiting = {
        let ours = ours.clone();
        tokio::spawn(async move { ours.take(&[], 1).await })
    };
    fs::remove_file(sqlite.file()).expect("a file");
    let error = timeout(DEADLINE, waiting).await.expect("in time").expect("no panic").expect_err("the file is gone");
    assert!(error.is_disconnect() && error.to_string().contains("removed"), "{error:?}");
    for error in [ours.renew(&[]).await, ours.acknowledge(&[]).await] {
        assert!(error.expect_err("the file is gone").is_disconnect());
    }
    ours.close().await;
    // Another file: a worker connects anew, and goes on there.
    let again = consumer(&sqlite.config(), &fresh("worker")).await;
    fill(&*connect(&sqlite.config()).await, 0..1).await;
    assert_eq!(numbers(&take_all(&*again, 1).await), [0]);
}

#[tokio::test(flavor = "multi_thread")]
async fn says_what_is_wrong_with_the_file() {
    let sqlite = Sqlite::new();
    fs::write(sqlite.directory().join("letter"), "Dear Sir or Madam, ".repeat(100)).expect("a file");
    for (path, reason) in [("missing/broker.sqlite3", "there is no directory"), ("letter", "no SQLite database")] {
        let url = format!("sqla+sqlite:///{}/{path}", sqlite.directory().display());
        let config = BrokerConfig::new(&url).expect("a URL");
        let subscription = Subscription {
            queues: vec![Queue::direct(QUEUE)],
            worker: "ours".to_owned(),
            generation: 1,
            held: Vec::new(),
            prefetch: 1,
        };
        let error = broker::consume(&config, &config.urls[0], subscription).await.expect_err(path);
        assert!(matches!(error, BrokerError::Connect { .. }), "{error:?}");
        assert!(error.to_string().contains(reason) && error.to_string().contains(path), "{error}");
    }
}
