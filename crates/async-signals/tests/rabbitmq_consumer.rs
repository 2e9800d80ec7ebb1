//! Taking from a real RabbitMQ: what only this broker does.
#![cfg(all(feature = "rabbitmq", feature = "rustls"))]

#[path = "servers/rabbitmq.rs"]
mod rabbitmq_server;

use std::{
    sync::{Arc, LazyLock},
    time::Duration,
};

use async_signals::{
    broker::{self, BrokerConfig, BrokerError, Consumer, Content, Subscription, Tag, Taken},
    message::{Incoming, Queue},
};
use lapin::{
    BasicProperties, Channel, Connection, ConnectionProperties,
    options::{BasicPublishOptions, ConfirmSelectOptions, QueueDeclareOptions, QueueDeleteOptions},
    types::{AMQPValue, FieldTable},
};
use rabbitmq_server::Server;
use serde_json::{Value, json};
use uuid::Uuid;

/// The server of all tests that leave it as they found it. It ends with the process.
static SHARED: LazyLock<Option<Server>> = LazyLock::new(Server::start);

/// The shared server, or the end of the test where there is none.
macro_rules! server {
    () => {
        match &*SHARED {
            Some(server) => server,
            None => return,
        }
    };
}

#[path = "rabbitmq_consumer/endings.rs"]
mod endings;
#[path = "rabbitmq_consumer/headers.rs"]
mod headers;
#[path = "rabbitmq_consumer/queues.rs"]
mod queues;
#[path = "rabbitmq_consumer/settling.rs"]
mod settling;
#[path = "rabbitmq_consumer/taking.rs"]
mod taking;

/// How long anything may take here.
const DEADLINE: Duration = Duration::from_secs(60);

async fn soon<T>(future: impl Future<Output = T>) -> T {
    tokio::time::timeout(DEADLINE, future).await.expect("it takes too long")
}

fn fresh(what: &str) -> String {
    format!("{what}-{}", Uuid::new_v4().simple())
}

/// A worker's connection to these queues.
async fn try_consume(server: &Server, queues: Vec<Queue>, prefetch: usize) -> Result<Arc<dyn Consumer>, BrokerError> {
    let config = BrokerConfig::new(&server.url()).expect("a URL");
    let subscription = Subscription { queues, worker: fresh("worker"), generation: 1, held: Vec::new(), prefetch };
    soon(broker::consume(&config, &config.urls[0], subscription)).await
}

async fn consume(server: &Server, queue: &str, prefetch: usize) -> Arc<dyn Consumer> {
    try_consume(server, vec![Queue::direct(queue)], prefetch).await.expect("a consumer")
}

fn with_arguments(name: &str, arguments: Value) -> Queue {
    let Value::Object(arguments) = arguments else { panic!("arguments are an object") };
    Queue { arguments, ..Queue::direct(name) }
}

async fn take(consumer: &Arc<dyn Consumer>, done: &[Tag], limit: usize) -> Vec<Taken> {
    soon(consumer.take(done, limit)).await.expect("messages")
}

/// Takes exactly so many, in as many goes as it needs.
async fn take_all(consumer: &Arc<dyn Consumer>, count: usize) -> Vec<Taken> {
    let mut taken = Vec::new();
    while taken.len() < count {
        taken.extend(take(consumer, &[], count - taken.len()).await);
    }
    taken
}

/// Why taking ends.
async fn end(consumer: &Arc<dyn Consumer>) -> BrokerError {
    soon(async {
        loop {
            if let Err(error) = consumer.take(&[], 100).await {
                return error;
            }
        }
    })
    .await
}

fn tags(taken: &[Taken]) -> Vec<Tag> {
    taken.iter().map(|taken| taken.tag).collect()
}

fn message(taken: &Taken) -> &Incoming {
    match &taken.content {
        Content::Message(message) => message,
        Content::Malformed { reason, .. } => panic!("malformed: {reason}"),
    }
}

fn numbers(taken: &[Taken]) -> Vec<i64> {
    taken.iter().map(|taken| message(taken).headers["number"].as_i64().expect("a number")).collect()
}

/// Somebody else's view of the server.
struct Observer {
    _connection: Connection,
    channel: Channel,
}

impl Observer {
    async fn new(server: &Server) -> Self {
        let connection =
            Connection::connect(&server.url(), ConnectionProperties::default()).await.expect("a connection");
        let channel = connection.create_channel().await.expect("a channel");
        channel.confirm_select(ConfirmSelectOptions::default()).await.expect("confirms");
        Self { _connection: connection, channel }
    }

    async fn declare(&self, queue: &str) {
        let options = QueueDeclareOptions::durable();
        self.channel.queue_declare(queue.into(), options, FieldTable::default()).await.expect("a queue");
    }

    async fn delete(&self, queue: &str) {
        self.channel.queue_delete(queue.into(), QueueDeleteOptions::default()).await.expect("deleted");
    }

    async fn publish(&self, queue: &str, properties: BasicProperties) {
        let options = BasicPublishOptions { mandatory: true, ..Default::default() };
        let body = br#"[["shop.placed", null], {}, {}]"#;
        let sent = self.channel.basic_publish("".into(), queue.into(), options, body, properties).await;
        let confirmation = sent.expect("sent").await.expect("confirmed");
        assert!(confirmation.is_ack(), "not taken");
    }

    /// Publishes messages with these numbers.
    async fn publish_numbers(&self, queue: &str, numbers: impl IntoIterator<Item = i32>) {
        for number in numbers {
            let mut headers = FieldTable::default();
            headers.insert("number".into(), AMQPValue::LongInt(number));
            self.publish(queue, BasicProperties::default().with_delivery_mode(2).with_headers(headers)).await;
        }
    }

    /// How many messages nobody holds.
    async fn ready(&self, queue: &str) -> u32 {
        let options = QueueDeclareOptions { passive: true, ..Default::default() };
        let declared = self.channel.queue_declare(queue.into(), options, FieldTable::default()).await;
        declared.expect("a queue").message_count()
    }

    async fn until_ready(&self, queue: &str, count: u32) {
        soon(async { while self.ready(queue).await != count {} }).await;
    }
}
