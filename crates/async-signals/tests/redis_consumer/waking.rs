//! Waiting without polling, and without missing anything.

use std::time::Instant;

use super::*;

/// Well under the pause after which a worker looks again by itself.
const AT_ONCE: Duration = Duration::from_secs(2);

#[tokio::test]
async fn a_message_that_arrives_while_waiting_is_taken_at_once() {
    let Some(redis) = Redis::start(&[]) else { return };
    let consumer = open(&redis, "me", &["one", "two"]).await;
    for (number, (queue, priority)) in [("one", 0), ("two", 0), ("two", 9), ("one", 3)].into_iter().enumerate() {
        let waiting = tokio::spawn({
            let consumer = consumer.clone();
            async move { take(&*consumer, &[], 10).await }
        });
        until_tracked(&redis).await;
        let published = Instant::now();
        publish(&redis, queue, [(number as u64, priority)]).await;
        let taken = waiting.await.expect("no panic");
        assert!(published.elapsed() < AT_ONCE, "{:?}", published.elapsed());
        assert_eq!((numbers(&taken), &*taken[0].queue), (vec![number as u64], queue));
    }
}

#[tokio::test]
async fn no_message_is_missed_between_the_last_look_and_the_waiting() {
    let Some(redis) = Redis::start(&["--appendonly", "no"]) else { return };
    let consumer = open(&redis, "me", &["q"]).await;
    let mut connection = redis.connection();
    let (ask, asked) = std::sync::mpsc::channel::<()>();
    // From another thread, whenever the last one was taken: at every moment of the next take.
    let publisher = std::thread::spawn(move || {
        while asked.recv().is_ok() {
            let _: () = connection.lpush("q", "{\"properties\": {}}").expect("a list");
        }
    });
    let mut done = Vec::new();
    let started = Instant::now();
    for _ in 0..500 {
        ask.send(()).expect("the publisher lives");
        done = tags(&take(&*consumer, &done, 10).await);
    }
    drop(ask);
    publisher.join().expect("no panic");
    // One missed would have cost seconds.
    assert!(started.elapsed() < DEADLINE, "{:?}", started.elapsed());
}

#[tokio::test]
async fn a_server_that_does_not_tell_is_polled() {
    let Some(redis) = Redis::start(&[]) else { return };
    let rights = ["SETUSER", "plain", "on", ">secret", "~*", "+@all", "-client|tracking"];
    let _: () = redis::cmd("ACL").arg(&rights).query(&mut redis.connection()).expect("a user");
    let config = BrokerConfig::new(&redis.url("plain:secret@")).expect("a URL");
    let consumer = connect(&config, subscription("me", &["q"])).await.expect("a connection");
    let waiting = tokio::spawn({
        let consumer = consumer.clone();
        async move { take(&*consumer, &[], 10).await }
    });
    publish(&redis, "q", [(1, 0)]).await;
    let published = Instant::now();
    assert_eq!(numbers(&waiting.await.expect("no panic")), [1]);
    assert!(published.elapsed() < AT_ONCE, "{:?}", published.elapsed());
    consumer.interrupt();
    assert!(take(&*consumer, &[], 10).await.is_empty());
}

#[tokio::test]
async fn an_interruption_ends_the_waiting_but_not_the_taking() {
    let Some(redis) = Redis::start(&[]) else { return };
    let consumer = open(&redis, "me", &["q"]).await;
    let waiting = tokio::spawn({
        let consumer = consumer.clone();
        async move { take(&*consumer, &[], 10).await }
    });
    until_tracked(&redis).await;
    consumer.interrupt();
    assert!(waiting.await.expect("no panic").is_empty());
    assert!(take(&*consumer, &[], 10).await.is_empty(), "nor does a later one wait");
    publish(&redis, "q", [(1, 0)]).await;
    let taken = take(&*consumer, &[], 10).await;
    assert_eq!(numbers(&taken), [1]);
    assert!(take(&*consumer, &tags(&taken), 0).await.is_empty());
    assert_eq!(unacked(&redis), []);
}

#[tokio::test]
async fn a_lost_connection_ends_the_waiting() {
    let Some(mut redis) = Redis::start(&[]) else { return };
    let consumer = open(&redis, "me", &["q"]).await;
    let waiting = tokio::spawn({
        let consumer = consumer.clone();
        async move { consumer.take(&[], 10).await }
    });
    until_tracked(&redis).await;
    redis.server().expect("a server").kill();
    let error = in_time(waiting).await.expect("no panic").expect_err("no server");
    assert!(error.is_disconnect(), "{error:?}");
}

/// Waits until the server has promised to tell of the lists.
async fn until_tracked(redis: &Redis) {
    let mut connection = redis.connection();
    in_time(async {
        loop {
            let info: String = redis::cmd("INFO").arg("stats").query(&mut connection).expect("numbers");
            let tracked = info.lines().find_map(|line| line.strip_prefix("tracking_total_keys:"));
            if tracked.expect("a number").trim() != "0" {
                break;
            }
            tokio::task::yield_now().await;
        }
    })
    .await;
}
