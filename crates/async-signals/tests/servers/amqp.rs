//! RabbitMQ on the brokers' bench.

use async_signals::broker::BrokerConfig;
use futures_util::future::{FutureExt, LocalBoxFuture};
use lapin::{
    Channel, Connection, ConnectionProperties,
    message::BasicGetMessage,
    options::{BasicGetOptions, QueueDeclareOptions},
    types::{AMQPValue, FieldTable},
};
use serde_json::{Map, Value};

use super::{Bench, ReadMessage, Server, rabbitmq};

/// A RabbitMQ node of its own.
pub struct RabbitMq(rabbitmq::Server);

impl RabbitMq {
    /// `None` if there is no program for it.
    pub fn start() -> Option<Self> {
        rabbitmq::Server::start().map(Self)
    }

    /// Takes what a queue holds, oldest first. A queue that is not there holds nothing.
    async fn take(&self, queue: &str) -> Vec<ReadMessage> {
        let connection = Connection::connect(&self.0.url(), ConnectionProperties::default()).await.expect("connected");
        let mut read = Vec::new();
        if exists(&connection, queue).await {
            let channel = connection.create_channel().await.expect("a channel");
            while let Some(message) = get(&channel, queue).await {
                read.push(read_message(&message));
            }
        }
        // Its channels may be closing at the moment, which lapin takes for an error.
        let _ = connection.close(200, "".into()).await;
        read
    }
}

async fn exists(connection: &Connection, queue: &str) -> bool {
    // Asking for what is not there closes the channel, so that it gets one of its own.
    let channel = connection.create_channel().await.expect("a channel");
    let passive = QueueDeclareOptions { passive: true, ..Default::default() };
    channel.queue_declare(queue.into(), passive, FieldTable::default()).await.is_ok()
}

async fn get(channel: &Channel, queue: &str) -> Option<BasicGetMessage> {
    channel.basic_get(queue.into(), BasicGetOptions { no_ack: true }).await.expect("an answer")
}

impl Bench for RabbitMq {
    fn name(&self) -> &'static str {
        "rabbitmq"
    }

    fn config(&self) -> BrokerConfig {
        BrokerConfig::new(&self.0.url()).expect("a URL")
    }

    fn read<'a>(&'a mut self, queue: &'a str) -> LocalBoxFuture<'a, Vec<ReadMessage>> {
        self.take(queue).boxed_local()
    }

    /// The server takes back what a connection has not acknowledged.
    fn keeps_leases(&self) -> bool {
        false
    }

    fn server(&mut self) -> Option<&mut dyn Server> {
        Some(self)
    }
}

impl Server for RabbitMq {
    fn kill(&mut self) {
        self.0.kill();
    }

    fn restart(&mut self) {
        self.0.kill();
        self.0.restart();
    }

    fn pause(&mut self) {
        self.0.signal("STOP");
    }

    fn resume(&mut self) {
        self.0.signal("CONT");
    }
}

fn read_message(message: &BasicGetMessage) -> ReadMessage {
    let properties = &message.delivery.properties;
    let text = |value: &Option<lapin::types::ShortString>| value.as_ref().map(|text| text.to_string());
    ReadMessage {
        headers: properties.headers().as_ref().map(to_map).unwrap_or_default(),
        content_type: text(properties.content_type()),
        content_encoding: text(properties.content_encoding()),
        correlation_id: text(properties.correlation_id()),
        reply_to: text(properties.reply_to()),
        delivery_mode: properties.delivery_mode().map(u64::from),
        priority: properties.priority().map(u64::from),
        expiration: text(properties.expiration()),
        body: message.delivery.data.to_vec(),
    }
}

fn to_map(table: &FieldTable) -> Map<String, Value> {
    table.inner().iter().map(|(name, value)| (name.to_string(), to_json(value))).collect()
}

fn to_json(value: &AMQPValue) -> Value {
    match value {
        AMQPValue::Void => Value::Null,
        AMQPValue::Boolean(flag) => (*flag).into(),
        AMQPValue::LongInt(number) => (*number).into(),
        AMQPValue::LongLongInt(number) => (*number).into(),
        AMQPValue::Double(number) => (*number).into(),
        AMQPValue::LongString(text) => String::from_utf8_lossy(text.as_bytes()).into(),
        AMQPValue::FieldArray(items) => items.as_slice().iter().map(to_json).collect(),
        AMQPValue::FieldTable(table) => Value::Object(to_map(table)),
        other => panic!("py-amqp writes no {other:?}"),
    }
}
