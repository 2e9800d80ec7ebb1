//! What every consumer does, whatever its broker: one list of behaviours, and
//! all of them for each broker. A new behaviour starts here.
//!
//! Messages are published by our own brokers, which `brokers.rs` holds to a
//! list of their own. That nothing more comes is shown by what comes next: a
//! message that was published last.

#![cfg(all(feature = "redis", feature = "sqlite", feature = "rabbitmq"))]

mod servers;

#[path = "consumers/leases.rs"]
mod leases;
#[path = "consumers/outages.rs"]
mod outages;
#[path = "consumers/settling.rs"]
mod settling;
#[path = "consumers/taking.rs"]
mod taking;

use std::{ops::Range, sync::Arc, time::Duration};

use async_signals::{
    broker::{self, Broker, Consumer, Content, Subscription, Tag, Taken},
    message::{Message, Queue, Route},
};
use futures_util::future::FutureExt;
use servers::{
    Bench, DEADLINE,
    amqp::RabbitMq,
    behaviours::{Behaviour, behaves},
    embedded::{InMemory, Sqlite},
    messages::{assert_ok, fresh, numbered, outgoing},
    redis::Redis,
};
use tokio::time::timeout;

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn memory_behaves() {
    behaves(&mut InMemory::new("consumers"), BEHAVIOURS).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn sqlite_behaves() {
    behaves(&mut Sqlite::new(), BEHAVIOURS).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn redis_behaves() {
    if let Some(mut redis) = Redis::start(&[]) {
        behaves(&mut redis, BEHAVIOURS).await;
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn rabbitmq_behaves() {
    if let Some(mut rabbitmq) = RabbitMq::start() {
        behaves(&mut rabbitmq, BEHAVIOURS).await;
    }
}

/// The list.
const BEHAVIOURS: &[(&str, Behaviour)] = &[
    ("what is taken is what was published", |bench| taking::exactly(bench).boxed_local()),
    ("each queue keeps its order", |bench| taking::order(bench).boxed_local()),
    ("a full queue does not starve another", |bench| taking::fairness(bench).boxed_local()),
    ("a limit is kept", |bench| taking::limit(bench).boxed_local()),
    ("who waits is woken by a message", |bench| taking::woken(bench).boxed_local()),
    ("who waits is woken by an interruption", |bench| taking::interrupted(bench).boxed_local()),
    ("a pause hands over what was pushed, and nothing is until it ends", |bench| taking::paused(bench).boxed_local()),
    ("two consumers share a queue", |bench| taking::shared(bench).boxed_local()),
    ("each of 5,000 messages reaches one of three consumers once", |bench| taking::crowd(bench).boxed_local()),
    ("what is acknowledged never comes again", |bench| settling::acknowledged(bench).boxed_local()),
    ("what is given back comes again, in front, as redelivered", |bench| settling::given_back(bench).boxed_local()),
    ("a consumer that is closed gives back what it held", |bench| settling::closed(bench).boxed_local()),
    ("what is no message is handed out as it is", |bench| settling::malformed(bench).boxed_local()),
    ("what a dead worker held comes back", |bench| leases::dead(bench).boxed_local()),
    ("what a living worker holds stays with it", |bench| leases::living(bench).boxed_local()),
    ("a worker keeps what it holds when it reconnects", |bench| leases::reconnected(bench).boxed_local()),
    ("nobody there is said with the address, not the password", |bench| outages::unreachable(bench).boxed_local()),
    ("a wrong password is said without it", |bench| outages::wrong_password(bench).boxed_local()),
    ("a peer of another kind is refused", |bench| outages::other_peer(bench).boxed_local()),
    ("a killed broker ends the wait, and a new consumer goes on", |bench| outages::killed(bench).boxed_local()),
];

/// How soon somebody who waits has to notice something, on a machine that has other things to do.
const PROMPTLY: Duration = Duration::from_secs(5);

/// The first connection of a worker that reads these queues.
fn subscription(worker: &str, queues: &[&str]) -> Subscription {
    Subscription {
        queues: queues.iter().map(|queue| Queue::direct(queue)).collect(),
        worker: worker.to_owned(),
        generation: 1,
        held: Vec::new(),
        prefetch: 64,
    }
}

async fn subscribe(bench: &dyn Bench, subscription: Subscription) -> Arc<dyn Consumer> {
    let config = bench.config();
    broker::consume(&config, &config.urls[0], subscription).await.expect("a consumer")
}

/// A worker of its own on one queue.
async fn consumer(bench: &dyn Bench, queue: &str) -> Arc<dyn Consumer> {
    subscribe(bench, subscription(&fresh("worker"), &[queue])).await
}

async fn connect(bench: &dyn Bench) -> Arc<dyn Broker> {
    let config = bench.config();
    broker::connect(&config, &config.urls[0]).await.expect("a connection")
}

async fn publish(broker: &dyn Broker, route: &Arc<Route>, messages: &[Message]) {
    let batch: Vec<_> = messages.iter().map(|message| outgoing(route, message.clone())).collect();
    assert_ok(&broker.publish(&batch).await);
}

/// Publishes a message for each number.
async fn fill(bench: &dyn Bench, queue: &str, numbers: Range<u64>) {
    let broker = connect(bench).await;
    let messages: Vec<_> = numbers.map(numbered).collect();
    publish(&*broker, &Arc::new(Route::to_queue(queue)), &messages).await;
    broker.close().await;
}

/// At least one message, taken after others are done.
async fn take(consumer: &dyn Consumer, done: &[Tag], limit: usize) -> Vec<Taken> {
    let taken = timeout(DEADLINE, consumer.take(done, limit)).await.expect("messages in time").expect("messages");
    assert!((1..=limit).contains(&taken.len()), "{} of at most {limit}", taken.len());
    taken
}

/// Exactly so many messages, however many calls it needs.
async fn take_all(consumer: &dyn Consumer, count: usize) -> Vec<Taken> {
    let mut taken = Vec::new();
    while taken.len() < count {
        taken.extend(take(consumer, &[], count - taken.len()).await);
    }
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
