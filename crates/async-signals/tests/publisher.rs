//! What a publisher promises its senders, whatever becomes of the broker.

mod servers;

use std::{
    collections::HashSet,
    sync::{Arc, Mutex},
    thread,
    time::{Duration, Instant},
};

use async_signals::{
    broker::{BrokerConfig, BrokerError},
    message::{Headers, Message, Outgoing, Properties, Route},
    publisher::{Observer, PublishError, Publisher, PublisherConfig},
};
use bytes::Bytes;
use serde_json::{Map, json};
use servers::{Bench, DEADLINE, ReadMessage, Server, free_port, redis::Redis};

/// What a send may take beyond its own deadline on a busy machine.
const SLACK: Duration = Duration::from_secs(3);

fn publisher(broker: BrokerConfig, change: impl FnOnce(&mut PublisherConfig)) -> Publisher {
    let mut config = PublisherConfig::new(broker);
    change(&mut config);
    Publisher::start(config).expect("a thread")
}

fn to_redis(redis: &Redis, change: impl FnOnce(&mut PublisherConfig)) -> Publisher {
    publisher(redis.config(), change)
}

fn numbered(publisher: &Publisher, queue: &str, number: u64) -> Outgoing {
    let id = publisher.next_id();
    let message = Message {
        id,
        headers: Headers::Raw(Map::from_iter([("number".to_owned(), json!(number))])),
        properties: Properties::for_task(id),
        body: Bytes::from_static(b"[[],{},{}]"),
    };
    Outgoing { route: Arc::new(Route::to_queue(queue)), message }
}

fn numbers(messages: &[ReadMessage]) -> Vec<u64> {
    messages.iter().map(ReadMessage::number).collect()
}

/// Remembers what it heard.
#[derive(Default)]
struct Heard(Mutex<Vec<String>>);

impl Observer for Heard {
    fn lost(&self, _: &Message, error: &PublishError) {
        self.0.lock().expect("no panic").push(format!("lost: {error}"));
    }
    fn disconnected(&self, _: &BrokerError) {
        self.0.lock().expect("no panic").push("disconnected".to_owned());
    }
    fn reconnected(&self) {
        self.0.lock().expect("no panic").push("reconnected".to_owned());
    }
}

#[test]
fn confirmed_messages_are_there_when_the_receipt_says_so() {
    let Some(redis) = Redis::start(&[]) else { return };
    let publisher = to_redis(&redis, |_| {});
    for number in 0..10 {
        publisher.send(numbered(&publisher, "q", number), None).expect("sent").wait().expect("confirmed");
        assert_eq!(numbers(&redis.take("q")), [number]);
    }
}

#[test]
fn background_messages_keep_their_order_and_are_there_after_a_flush() {
    let Some(redis) = Redis::start(&[]) else { return };
    let publisher = to_redis(&redis, |_| {});
    for number in 0..5000 {
        publisher.buffer(numbered(&publisher, "q", number)).expect("room");
    }
    publisher.flush(DEADLINE).expect("open").wait().expect("flushed");
    assert_eq!(publisher.buffered(), 0);
    assert_eq!(numbers(&redis.take("q")), (0..5000).collect::<Vec<_>>());
}

#[test]
fn many_threads_share_one_connection() {
    let Some(redis) = Redis::start(&[]) else { return };
    let publisher = to_redis(&redis, |_| {});
    thread::scope(|scope| {
        for thread in 0..8 {
            let publisher = &publisher;
            scope.spawn(move || {
                for number in 0..250 {
                    let outgoing = numbered(publisher, "q", thread * 250 + number);
                    publisher.send(outgoing, None).expect("sent").wait().expect("confirmed");
                }
            });
        }
    });
    let found: HashSet<u64> = numbers(&redis.take("q")).into_iter().collect();
    assert_eq!(found, (0..2000).collect());
    // The server may not have noticed yet that the connection that looked into the queue is gone.
    let (mut asking, begun) = (redis.connection(), Instant::now());
    loop {
        let clients: String = redis::cmd("INFO").arg("clients").query(&mut asking).expect("info");
        if clients.contains("connected_clients:2") {
            break;
        }
        assert!(begun.elapsed() < DEADLINE, "ours and this one: {clients}");
        thread::yield_now();
    }
}

#[test]
fn a_silent_broker_is_given_up_at_the_deadline_and_used_again_afterwards() {
    let Some(mut redis) = Redis::start(&[]) else { return };
    let publisher = to_redis(&redis, |config| config.timeout = Duration::from_secs(1));
    publisher.send(numbered(&publisher, "q", 0), None).expect("sent").wait().expect("confirmed");
    redis.pause();
    let start = Instant::now();
    let error = publisher.send(numbered(&publisher, "q", 1), None).expect("sent").wait().expect_err("nobody answers");
    assert!(matches!(error, PublishError::Deadline { may_have_arrived: true, .. }), "{error:?}");
    let waited = start.elapsed();
    assert!(waited >= Duration::from_secs(1) && waited < Duration::from_secs(1) + SLACK, "{waited:?}");
    redis.resume();
    let again = publisher.send(numbered(&publisher, "q", 2), Some(DEADLINE)).expect("sent").wait();
    again.expect("the broker is back");
    assert!(numbers(&redis.take("q")).contains(&2));
}

#[test]
fn an_absent_broker_is_named_when_the_time_is_up() {
    let port = free_port();
    let config = BrokerConfig::new(&format!("redis://:secret@127.0.0.1:{port}/0")).expect("a URL");
    let publisher = publisher(config, |config| config.timeout = Duration::from_millis(300));
    let error = publisher.send(numbered(&publisher, "q", 0), None).expect("sent").wait().expect_err("nobody there");
    let text = error.to_string();
    assert!(matches!(error, PublishError::Deadline { may_have_arrived: false, last: Some(_), .. }), "{text}");
    assert!(text.contains(&port.to_string()) && !text.contains("secret"), "{text}");
}

#[test]
fn a_wrong_password_is_said_at_once() {
    let Some(redis) = Redis::start(&[]) else { return };
    let config = BrokerConfig::new(&redis.url(":wrong@")).expect("a URL");
    let publisher = publisher(config, |config| config.timeout = DEADLINE);
    let start = Instant::now();
    let error = publisher.send(numbered(&publisher, "q", 0), None).expect("sent").wait().expect_err("refused");
    assert!(matches!(error, PublishError::Broker { error: BrokerError::Authentication { .. }, .. }), "{error:?}");
    assert!(start.elapsed() < DEADLINE / 2);
}

#[test]
fn the_next_url_is_tried_when_the_first_is_dead_or_silent() {
    let Some(redis) = Redis::start(&[]) else { return };
    let silent = std::net::TcpListener::bind(("127.0.0.1", 0)).expect("a port");
    let silent_port = silent.local_addr().expect("bound").port();
    for first in [free_port(), silent_port] {
        let mut config = BrokerConfig::new(&format!("redis://127.0.0.1:{first}/0")).expect("a URL");
        config.urls.extend(redis.config().urls);
        let publisher = publisher(config, |config| config.timeout = Duration::from_secs(4));
        publisher.send(numbered(&publisher, "q", 1), None).expect("sent").wait().expect("the second one answers");
        assert_eq!(numbers(&redis.take("q")), [1]);
    }
}

#[test]
fn a_full_buffer_is_an_error_after_a_bounded_wait_and_drains_later() {
    let Some(mut redis) = Redis::start(&[]) else { return };
    let heard = Arc::new(Heard::default());
    let publisher = to_redis(&redis, |config| {
        config.buffer_messages = 10;
        config.buffer_timeout = Duration::from_millis(50);
        config.observer = heard.clone();
    });
    publisher.send(numbered(&publisher, "other", 0), None).expect("sent").wait().expect("confirmed");
    redis.kill();
    for number in 0..10 {
        publisher.buffer(numbered(&publisher, "q", number)).expect("room");
    }
    let start = Instant::now();
    let error = publisher.buffer(numbered(&publisher, "q", 10)).expect_err("full");
    assert!(matches!(error, PublishError::BufferFull { messages: 10, .. }), "{error:?}");
    assert!(start.elapsed() < Duration::from_millis(50) + SLACK);
    let early = publisher.flush(Duration::from_millis(50)).expect("open").wait();
    assert!(matches!(early, Err(PublishError::Deadline { .. })), "{early:?}");
    redis.restart();
    publisher.flush(DEADLINE).expect("open").wait().expect("drained");
    assert_eq!(numbers(&redis.take("q")), (0..10).collect::<Vec<_>>());
    assert_eq!(*heard.0.lock().expect("no panic"), ["disconnected", "reconnected"]);
}

#[test]
fn what_was_confirmed_survives_restarts_and_the_rest_ends_in_time() {
    let Some(mut redis) = Redis::start(&[]) else { return };
    let timeout = Duration::from_secs(2);
    let publisher = to_redis(&redis, |config| config.timeout = timeout);
    let confirmed = Mutex::new(HashSet::new());
    thread::scope(|scope| {
        for thread in 0..4_u64 {
            let (publisher, confirmed) = (&publisher, &confirmed);
            scope.spawn(move || {
                for number in 0..2500 {
                    let number = thread * 2500 + number;
                    let start = Instant::now();
                    let outcome = publisher.send(numbered(publisher, "q", number), None).expect("sent").wait();
                    assert!(start.elapsed() < timeout + SLACK, "{:?}", start.elapsed());
                    if outcome.is_ok() {
                        confirmed.lock().expect("no panic").insert(number);
                    }
                }
            });
        }
        for done in [500, 1500, 4000] {
            while confirmed.lock().expect("no panic").len() < done {
                thread::yield_now();
            }
            redis.kill();
            redis.restart();
        }
    });
    let confirmed = confirmed.into_inner().expect("no panic");
    let found: HashSet<u64> = numbers(&redis.take("q")).into_iter().collect();
    assert!(confirmed.is_subset(&found), "lost: {:?}", confirmed.difference(&found).collect::<Vec<_>>());
    assert!(confirmed.len() > 4000);
}

#[tokio::test]
async fn receipts_can_be_awaited_called_back_and_dropped() {
    let Some(redis) = Redis::start(&[]) else { return };
    let publisher = Publisher::spawn(PublisherConfig::new(redis.config()));
    publisher.send(numbered(&publisher, "q", 0), None).expect("sent").await.expect("confirmed");
    let (said, heard) = tokio::sync::oneshot::channel();
    let receipt = publisher.send(numbered(&publisher, "q", 1), None).expect("sent");
    receipt.on_settled(move |outcome| said.send(outcome).expect("somebody listens"));
    heard.await.expect("called").expect("confirmed");
    drop(publisher.send(numbered(&publisher, "q", 2), None).expect("sent"));
    publisher.flush(DEADLINE).expect("open").await.expect("flushed");
    assert_eq!(numbers(&redis.take("q")), [0, 1, 2]);
}

#[test]
fn a_callback_that_panics_hurts_nobody() {
    let publisher = publisher(BrokerConfig::new("memory://callbacks").expect("a URL"), |_| {});
    let queue = "q";
    publisher.send(numbered(&publisher, queue, 0), None).expect("sent").on_settled(|_| panic!("a callback's own"));
    publisher.send(numbered(&publisher, queue, 1), None).expect("sent").wait().expect("confirmed");
}

/// Panics whatever it is told.
struct Panics;

impl Observer for Panics {
    fn lost(&self, _: &Message, _: &PublishError) {
        panic!("an observer's own");
    }
    fn disconnected(&self, _: &BrokerError) {
        panic!("an observer's own");
    }
    fn reconnected(&self) {
        panic!("an observer's own");
    }
}

#[test]
fn an_observer_that_panics_hurts_nobody() {
    let Some(mut redis) = Redis::start(&[]) else { return };
    let publisher = to_redis(&redis, |config| config.observer = Arc::new(Panics));
    publisher.send(numbered(&publisher, "q", 0), None).expect("sent").wait().expect("confirmed");
    redis.kill();
    let late = publisher.send(numbered(&publisher, "q", 1), Some(Duration::from_millis(200))).expect("sent").wait();
    assert!(matches!(late, Err(PublishError::Deadline { .. })), "{late:?}");
    publisher.buffer(numbered(&publisher, "q", 2)).expect("room");
    redis.restart();
    publisher.flush(DEADLINE).expect("open").wait().expect("drained");
    assert_eq!(numbers(&redis.take("q")).last(), Some(&2));
}

#[test]
fn whoever_waits_is_told_when_the_publisher_ends() {
    let broker = BrokerConfig::new(&format!("redis://127.0.0.1:{}/0", free_port())).expect("a URL");
    let mut config = PublisherConfig::new(broker);
    config.timeout = Duration::from_secs(3600);
    let runtime =
        tokio::runtime::Builder::new_multi_thread().worker_threads(1).enable_all().build().expect("a runtime");
    let publisher = runtime.block_on(async { Publisher::spawn(config) });
    let (told, outcomes) = std::sync::mpsc::channel();
    let receipt = publisher.send(numbered(&publisher, "q", 0), None).expect("sent");
    receipt.on_settled(move |outcome| told.send(outcome).expect("somebody waits"));
    runtime.shutdown_background();
    let error = outcomes.recv_timeout(DEADLINE).expect("an outcome").expect_err("nobody is there");
    assert!(matches!(error, PublishError::Stopped { .. }), "{error}");
    let error = publisher.flush(Duration::from_secs(3600)).expect_err("it has ended");
    assert!(matches!(error, PublishError::Closed), "{error}");
    let error = publisher.buffer(numbered(&publisher, "q", 1)).expect_err("it has ended");
    assert!(matches!(error, PublishError::Closed), "{error}");
    assert_eq!(publisher.buffered(), 0, "what it refuses takes no room");
}

#[tokio::test]
async fn an_awaited_receipt_keeps_its_own_deadline() {
    let config = BrokerConfig::new(&format!("redis://127.0.0.1:{}/0", free_port())).expect("a URL");
    let publisher = Publisher::spawn(PublisherConfig::new(config));
    let long = publisher.send(numbered(&publisher, "q", 0), Some(DEADLINE)).expect("sent");
    let short = publisher.send(numbered(&publisher, "q", 1), Some(Duration::from_millis(100))).expect("sent");
    let outcome = tokio::time::timeout(DEADLINE, short).await.expect("ends by itself");
    assert!(matches!(outcome, Err(PublishError::Deadline { timeout, .. }) if timeout.as_millis() == 100));
    assert!(long.outcome().is_none());
}

#[test]
fn what_nobody_waits_for_is_reported_when_it_cannot_be_delivered() {
    let Some(redis) = Redis::start(&[]) else { return };
    let heard = Arc::new(Heard::default());
    let publisher = to_redis(&redis, |config| config.observer = heard.clone());
    let mut lost = numbered(&publisher, "q", 0);
    lost.route = Arc::new(Route { exchange: "nowhere".to_owned(), routing_key: "k".to_owned(), declare: vec![] });
    publisher.buffer(lost).expect("room");
    publisher.flush(DEADLINE).expect("open").wait().expect("settled");
    let heard = heard.0.lock().expect("no panic");
    assert!(heard.len() == 1 && heard[0].starts_with("lost: no queue is bound"), "{heard:?}");
}
