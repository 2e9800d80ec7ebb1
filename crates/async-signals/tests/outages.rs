//! Servers that take connections and refuse all work, as a master does that has become a replica: how often they are
//! tried, and what is said of them.

#![cfg(feature = "redis")]

mod servers;

use std::{
    sync::{
        Arc,
        atomic::{AtomicUsize, Ordering},
    },
    time::{Duration, Instant},
};

use async_signals::{
    Celery,
    broker::{BrokerConfig, BrokerError},
    message::{Headers, Message, Outgoing, Properties, Queue, Route},
    publisher::{self, PublishError, Publisher, PublisherConfig},
    worker::{Job, Observer, Runner, Worker, WorkerConfig},
};
use bytes::Bytes;
use serde_json::json;
use servers::{Bench, DEADLINE, Server, redis::Redis};
#[cfg(feature = "rabbitmq")]
use servers::{amqp::RabbitMq, messages::fresh};
use tokio::{sync::mpsc, time::timeout};

fn outgoing(publisher: &Publisher) -> Outgoing {
    let id = publisher.next_id();
    let headers = json!({"task": "async_signals.propagate", "id": id.to_string()});
    let headers = headers.as_object().expect("a map").clone();
    let properties = Properties::for_task(id);
    let message = Message { id, headers: Headers::Raw(headers), properties, body: Bytes::from_static(b"[[],{},{}]") };
    Outgoing { route: Arc::new(Route::to_queue("q")), message }
}

/// How many connections the server has been asked for so far.
fn connections(redis: &mut redis::Connection) -> usize {
    let told: String = redis::cmd("INFO").arg("stats").query(redis).expect("what it counts");
    let count = told.lines().find_map(|line| line.strip_prefix("total_connections_received:"));
    count.and_then(|count| count.trim().parse().ok()).expect("a number")
}

fn replica_of(redis: &mut redis::Connection, host: &str, port: &str) {
    let _: () = redis::cmd("REPLICAOF").arg(host).arg(port).query(redis).expect("a change of roles");
}

#[tokio::test]
async fn a_replica_is_tried_seldom_and_named_and_what_waits_goes_once_it_is_a_master_again() {
    let Some(mut server) = Redis::start(&[]) else { return };
    let publisher = Publisher::spawn(PublisherConfig::new(server.config()));
    publisher.send(outgoing(&publisher), None).expect("sent").await.expect("confirmed");
    let mut redis = server.connection();
    replica_of(&mut redis, "127.0.0.1", "1");
    publisher.buffer(outgoing(&publisher)).expect("room");
    let before = connections(&mut redis);
    let sent = publisher.send(outgoing(&publisher), Some(Duration::from_secs(4))).expect("sent").await;
    let Err(error @ PublishError::Deadline { .. }) = sent else { panic!("{sent:?}") };
    assert!(error.to_string().contains("READONLY"), "{error}");
    let tried = connections(&mut redis) - before;
    assert!((1..=15).contains(&tried), "{tried} connections in 4 seconds");

    replica_of(&mut redis, "NO", "ONE");
    publisher.flush(DEADLINE).expect("open").await.expect("what nobody waits for is there");
    assert_eq!(server.take("q").len(), 2);

    // What stood in the way stands there no more: the next trouble is told as what it is.
    server.kill();
    let sent = publisher.send(outgoing(&publisher), Some(Duration::from_millis(300))).expect("sent").await;
    let Err(error @ PublishError::Deadline { .. }) = sent else { panic!("{sent:?}") };
    assert!(!error.to_string().contains("READONLY"), "{error}");
}

#[tokio::test]
async fn the_next_address_is_tried_when_one_refuses_all_work() {
    let (Some(replica), Some(master)) = (Redis::start(&[]), Redis::start(&[])) else { return };
    replica_of(&mut replica.connection(), "127.0.0.1", "1");
    let mut config: BrokerConfig = replica.config();
    config.urls.extend(master.config().urls);
    let publisher = Publisher::spawn(PublisherConfig::new(config));
    publisher.send(outgoing(&publisher), None).expect("sent").await.expect("confirmed");
    assert_eq!(master.take("q").len(), 1);
}

/// Counts how often background messages were said to be held, or lost.
#[derive(Default)]
struct Holds {
    held: AtomicUsize,
    lost: AtomicUsize,
}

impl publisher::Observer for Holds {
    fn held(&self, _: &BrokerError) {
        self.held.fetch_add(1, Ordering::Relaxed);
    }

    fn lost(&self, _: &Message, _: &PublishError) {
        self.lost.fetch_add(1, Ordering::Relaxed);
    }
}

fn observed(broker: BrokerConfig) -> (Publisher, Arc<Holds>) {
    let observer = Arc::new(Holds::default());
    let config = PublisherConfig { observer: observer.clone(), ..PublisherConfig::new(broker) };
    (Publisher::spawn(config), observer)
}

#[tokio::test]
async fn what_nobody_waits_for_survives_a_server_without_memory() {
    let Some(server) = Redis::start(&["--maxmemory", "1", "--maxmemory-policy", "noeviction"]) else { return };
    let (publisher, observer) = observed(server.config());
    for _ in 0..10 {
        publisher.buffer(outgoing(&publisher)).expect("room");
    }
    let error = publisher.send(outgoing(&publisher), None).expect("sent").await.expect_err("no memory");
    assert!(matches!(error, PublishError::Broker { error: BrokerError::OutOfMemory { .. }, .. }), "{error}");
    let error = publisher.flush(Duration::from_millis(500)).expect("open").await.expect_err("no memory");
    assert!(error.to_string().contains("out of memory"), "{error}");
    assert_eq!(publisher.buffered(), 10);

    let mut redis = server.connection();
    let _: () = redis::cmd("CONFIG").arg(&["SET", "maxmemory", "0"]).query(&mut redis).expect("memory");
    publisher.flush(DEADLINE).expect("open").await.expect("there is memory");
    assert_eq!((server.take("q").len(), publisher.buffered()), (10, 0));
    assert_eq!((observer.held.load(Ordering::Relaxed), observer.lost.load(Ordering::Relaxed)), (1, 0));
}

#[cfg(feature = "rabbitmq")]
#[tokio::test]
async fn what_nobody_waits_for_survives_a_full_queue() {
    let Some(mut server) = RabbitMq::start() else { return };
    let (publisher, observer) = observed(server.config());
    let (full, other) = (fresh("full"), fresh("other"));
    let queue = Queue::direct(&full).argument("x-max-length", 2).argument("x-overflow", "reject-publish");
    let to_full = Route { declare: vec![queue], ..Route::to_queue(&full) };
    for _ in 0..10 {
        for route in [to_full.clone(), Route::to_queue(&other)] {
            publisher.buffer(Outgoing { route: Arc::new(route), ..outgoing(&publisher) }).expect("room");
        }
    }
    publisher.flush(Duration::from_secs(2)).expect("open").await.expect_err("it is full");
    assert_eq!(server.read(&other).await.len(), 10, "one full queue holds up no other");
    let (begun, mut read) = (Instant::now(), 0);
    while read < 10 {
        assert!(begun.elapsed() < DEADLINE, "{read} of 10 came");
        read += server.read(&full).await.len();
    }
    publisher.flush(DEADLINE).expect("open").await.expect("all of it is there");
    assert_eq!((publisher.buffered(), observer.lost.load(Ordering::Relaxed)), (0, 0));
    assert!(observer.held.load(Ordering::Relaxed) > 0);
}

/// No dead-letter queue takes them, so that they are held: the broker must push others all the same.
#[cfg(feature = "rabbitmq")]
#[tokio::test]
async fn messages_whose_follow_ups_cannot_be_published_hold_up_no_others() {
    let Some(server) = RabbitMq::start() else { return };
    let publisher = Publisher::spawn(PublisherConfig::new(server.config()));
    let queue = fresh("q");
    let full =
        Queue::direct(&format!("{queue}.dead")).argument("x-max-length", 0).argument("x-overflow", "reject-publish");
    let to_full = Route { declare: vec![full], ..Route::to_queue(&format!("{queue}.dead")) };
    let first = Outgoing { route: Arc::new(to_full), ..outgoing(&publisher) };
    publisher.send(first, None).expect("open").await.expect_err("it takes nothing");
    let route = Arc::new(Route::to_queue(&queue));
    for _ in 0..20 {
        let mut message = outgoing(&publisher).message;
        message.headers = Headers::Raw(serde_json::Map::new());
        publisher.send(Outgoing { route: route.clone(), message }, None).expect("open").await.expect("confirmed");
    }
    let good = Outgoing { route, ..outgoing(&publisher) };
    publisher.send(good, None).expect("open").await.expect("confirmed");

    let (jobs, mut taken) = mpsc::unbounded_channel();
    let (worker, running) =
        Worker::new(WorkerConfig::new(server.config(), vec![Queue::direct(&queue)]), Arc::new(Takes(jobs)));
    let running = tokio::spawn(running);
    let job = timeout(DEADLINE, taken.recv()).await.expect("in time").expect("it works");
    job.finish(async_signals::worker::Outcome::Done);
    worker.stop_now();
    timeout(DEADLINE, running).await.expect("it ends").expect("no panic").expect("no error");
}

/// Two addresses of one server: at the first nobody is let in.
fn wrong_then_right(server: &Redis) -> BrokerConfig {
    let mut config = BrokerConfig::new(&server.url(":wrong@")).expect("a URL");
    config.urls.extend(server.config().urls);
    config
}

#[tokio::test]
async fn a_list_of_addresses_is_tried_to_its_end() {
    let Some(server) = Redis::start(&[]) else { return };
    let publisher = Publisher::spawn(PublisherConfig::new(wrong_then_right(&server)));
    publisher.send(outgoing(&publisher), None).expect("sent").await.expect("confirmed");
    let celery = Celery::builder().broker(wrong_then_right(&server)).build().expect("a configuration");
    celery.ping().await.expect("an answer");

    let (jobs, mut taken) = mpsc::unbounded_channel();
    let config = WorkerConfig::new(wrong_then_right(&server), vec![Queue::direct("q")]);
    let (worker, running) = Worker::new(config, Arc::new(Takes(jobs)));
    let running = tokio::spawn(running);
    timeout(DEADLINE, taken.recv()).await.expect("in time").expect("it works");
    worker.stop_now();
    timeout(DEADLINE, running).await.expect("it ends").expect("no panic").expect("no error");
}

#[tokio::test]
async fn who_is_let_in_nowhere_is_told_at_once() {
    let Some(server) = Redis::start(&[]) else { return };
    let mut config = BrokerConfig::new(&server.url(":wrong@")).expect("a URL");
    config.urls.extend(BrokerConfig::new(&server.url(":worse@")).expect("a URL").urls);
    let publisher = Publisher::spawn(PublisherConfig::new(config.clone()));
    let sent = publisher.send(outgoing(&publisher), Some(DEADLINE * 2)).expect("sent");
    let error = timeout(DEADLINE, sent).await.expect("before its deadline").expect_err("a wrong password");
    assert!(error.to_string().contains("WRONGPASS"), "{error}");
    let (_worker, running) = Worker::new(WorkerConfig::new(config, vec![Queue::direct("q")]), Arc::new(NoReceivers));
    let error = timeout(DEADLINE, running).await.expect("it ends").expect_err("a wrong password");
    assert!(matches!(error, BrokerError::Authentication { .. }), "{error}");
}

/// Takes jobs, and does nothing with them.
struct Takes(mpsc::UnboundedSender<Job>);

impl Runner for Takes {
    fn start(&self, jobs: Vec<Job>) {
        for job in jobs {
            let _ = self.0.send(job);
        }
    }
}

struct NoReceivers;

impl Runner for NoReceivers {
    fn knows(&self, _: &str) -> bool {
        false
    }

    fn start(&self, _: Vec<Job>) {}
}

struct Losses(mpsc::UnboundedSender<String>);

impl Observer for Losses {
    fn disconnected(&self, error: &BrokerError) {
        let _ = self.0.send(error.to_string());
        panic!("an observer's own, which ends no worker");
    }
}

#[tokio::test]
async fn a_worker_whose_queue_cannot_be_read_tries_again_with_growing_pauses() {
    let Some(server) = Redis::start(&[]) else { return };
    let mut redis = server.connection();
    let _: () = redis::cmd("SET").arg(&["q", "no list"]).query(&mut redis).expect("a key of another type");
    let (losses, mut lost) = mpsc::unbounded_channel();
    let mut config = WorkerConfig::new(server.config(), vec![Queue::direct("q")]);
    config.observer = Arc::new(Losses(losses));
    let (worker, running) = Worker::new(config, Arc::new(NoReceivers));
    let running = tokio::spawn(running);
    let start = Instant::now();
    for _ in 0..6 {
        let error = timeout(DEADLINE, lost.recv()).await.expect("in time").expect("it works on");
        assert!(error.contains("WRONGTYPE"), "{error}");
    }
    // 50, 100, 200, 400 and 800 ms lie between six of them, less half of each at most.
    assert!(start.elapsed() >= Duration::from_millis(775), "{:?}", start.elapsed());
    worker.stop_now();
    timeout(DEADLINE, running).await.expect("it ends").expect("no panic").expect("no error");
}
