//! What only Redis does when messages are taken: kombu's layout, leases, waking, and Redis' own refusals.
#![cfg(feature = "redis")]

mod servers;

#[path = "redis_consumer/leases.rs"]
mod leases;
#[path = "redis_consumer/refusals.rs"]
mod refusals;
#[path = "redis_consumer/taking.rs"]
mod taking;
#[path = "redis_consumer/waking.rs"]
mod waking;

use std::{sync::Arc, time::Duration};

use async_signals::{
    broker::{self, BrokerConfig, BrokerError, Consumer, Content, Subscription, Tag, Taken},
    message::{Outgoing, Queue, Route},
};
use redis::Commands;
use serde_json::{Value, json};
use servers::{
    Bench, DEADLINE,
    messages::{assert_ok, numbered},
    redis::Redis,
};

/// A configuration with transport options.
fn configured(redis: &Redis, options: Value) -> BrokerConfig {
    BrokerConfig { transport_options: options.as_object().expect("a map").clone(), ..redis.config() }
}

fn subscription(worker: &str, queues: &[&str]) -> Subscription {
    Subscription {
        queues: queues.iter().map(|queue| Queue::direct(queue)).collect(),
        worker: worker.to_owned(),
        generation: 1,
        held: Vec::new(),
        prefetch: 16,
    }
}

async fn connect(config: &BrokerConfig, subscription: Subscription) -> Result<Arc<dyn Consumer>, BrokerError> {
    in_time(broker::consume(config, &config.urls[0], subscription)).await
}

/// A worker's first connection.
async fn open(redis: &Redis, worker: &str, queues: &[&str]) -> Arc<dyn Consumer> {
    connect(&redis.config(), subscription(worker, queues)).await.expect("a connection")
}

/// What comes of a future before the deadline of every test.
async fn in_time<T>(future: impl Future<Output = T>) -> T {
    tokio::time::timeout(DEADLINE, future).await.expect("an answer in time")
}

async fn take(consumer: &dyn Consumer, done: &[Tag], limit: usize) -> Vec<Taken> {
    in_time(consumer.take(done, limit)).await.expect("messages")
}

/// Publishes messages with these numbers and priorities.
async fn publish(redis: &Redis, queue: &str, numbers: impl IntoIterator<Item = (u64, u8)>) {
    publish_to(&redis.config(), queue, numbers).await;
}

async fn publish_to(config: &BrokerConfig, queue: &str, numbers: impl IntoIterator<Item = (u64, u8)>) {
    let broker = in_time(broker::connect(config, &config.urls[0])).await.expect("a connection");
    let route = Arc::new(Route::to_queue(queue));
    let batch = numbers.into_iter().map(|(number, priority)| {
        let mut message = numbered(number);
        message.properties.priority = priority;
        Outgoing { route: route.clone(), message }
    });
    assert_ok(&in_time(broker.publish(&batch.collect::<Vec<_>>())).await);
}

fn tags(taken: &[Taken]) -> Vec<Tag> {
    taken.iter().map(|message| message.tag).collect()
}

fn number(taken: &Taken) -> u64 {
    match &taken.content {
        Content::Message(incoming) => incoming.headers["number"].as_u64().expect("a number"),
        Content::Malformed { reason, .. } => panic!("not a message: {reason}"),
    }
}

fn numbers(taken: &[Taken]) -> Vec<u64> {
    taken.iter().map(number).collect()
}

/// What nobody has acknowledged yet: tags, and their records.
fn unacked(redis: &Redis) -> Vec<(String, Value)> {
    let mut connection = redis.connection();
    let records: Vec<(String, String)> = connection.hgetall("unacked").expect("a hash");
    let mut index: Vec<String> = connection.zrange("unacked_index", 0, -1).expect("a set");
    let mut records: Vec<_> = records
        .into_iter()
        .map(|(tag, record)| (tag, serde_json::from_str(&record).unwrap_or(json!(record))))
        .collect();
    records.sort_by(|one, other| one.0.cmp(&other.0));
    index.sort();
    assert_eq!(index, records.iter().map(|(tag, _)| tag.clone()).collect::<Vec<_>>(), "one index for both");
    records
}

/// The numbers of the messages that stand in a list, the next one first.
fn waiting(redis: &Redis, list: &str) -> Vec<u64> {
    let mut envelopes: Vec<String> = redis.connection().lrange(list, 0, -1).expect("a list");
    envelopes.reverse();
    let number =
        |envelope: &String| serde_json::from_str::<Value>(envelope).expect("JSON")["headers"]["number"].as_u64();
    envelopes.iter().map(|envelope| number(envelope).expect("a number")).collect()
}

/// Gives signs of life until something is so.
async fn renew_until(consumer: &dyn Consumer, held: &[Tag], mut done: impl FnMut() -> bool) {
    in_time(async {
        let mut beat = tokio::time::interval(Duration::from_secs(2));
        while !done() {
            beat.tick().await;
            consumer.renew(held).await.expect("a sign of life");
        }
    })
    .await;
}

fn set(redis: &Redis, name: &str, value: &str) {
    let _: () = redis::cmd("CONFIG").arg("SET").arg(name).arg(value).query(&mut redis.connection()).expect("an option");
}
