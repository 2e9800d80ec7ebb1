//! Publishing to a real RabbitMQ.
#![cfg(all(feature = "rabbitmq", feature = "rustls"))]

#[path = "servers/rabbitmq.rs"]
mod rabbitmq_server;

use std::{
    collections::HashSet,
    sync::{Arc, LazyLock},
    time::Duration,
};

use async_signals::{
    broker::{self, Broker, BrokerConfig, BrokerError, Published, Tls},
    message::{Exchange, Headers, Message, Outgoing, Properties, Queue, Route},
};
use lapin::{
    BasicProperties, Channel, Connection, ConnectionProperties,
    message::BasicGetMessage,
    options::{BasicGetOptions, QueueDeclareOptions, QueueDeleteOptions},
    types::{AMQPValue, FieldTable},
};
use rabbitmq_server::Server;
use serde_json::{Map, Value, json};
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

#[path = "rabbitmq/connecting.rs"]
mod connecting;
#[path = "rabbitmq/outages.rs"]
mod outages;
#[path = "rabbitmq/refusals.rs"]
mod refusals;

/// How long anything may take here.
const DEADLINE: Duration = Duration::from_secs(60);

async fn soon<T>(future: impl Future<Output = T>) -> T {
    tokio::time::timeout(DEADLINE, future).await.expect("it takes too long")
}

async fn connect_with(url: &str, tls: Option<Tls>) -> Result<Arc<dyn Broker>, BrokerError> {
    let mut config = BrokerConfig::new(url).expect("a URL");
    config.tls = tls;
    soon(broker::connect(&config, &config.urls[0])).await
}

async fn connect(url: &str) -> Arc<dyn Broker> {
    connect_with(url, None).await.expect("a connection")
}

async fn refused(url: &str, tls: Option<Tls>) -> BrokerError {
    connect_with(url, tls).await.expect_err("nobody is let in")
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
        Self { _connection: connection, channel }
    }

    async fn get(&self, queue: &str) -> Option<BasicGetMessage> {
        soon(self.channel.basic_get(queue.into(), BasicGetOptions { no_ack: true })).await.expect("an answer")
    }

    async fn drain(&self, queue: &str) -> Vec<BasicGetMessage> {
        let mut messages = Vec::new();
        while let Some(message) = self.get(queue).await {
            messages.push(message);
        }
        messages
    }

    async fn declare(&self, queue: &str, arguments: FieldTable) {
        let options = QueueDeclareOptions::durable();
        self.channel.queue_declare(queue.into(), options, arguments).await.expect("a queue");
    }

    async fn delete(&self, queue: &str) {
        self.channel.queue_delete(queue.into(), QueueDeleteOptions::default()).await.expect("deleted");
    }
}

fn fresh(what: &str) -> String {
    format!("{what}-{}", Uuid::new_v4().simple())
}

fn message(headers: Value) -> Message {
    let id = Uuid::new_v4();
    let Value::Object(headers) = headers else { panic!("headers are an object") };
    Message {
        id,
        headers: Headers::Raw(headers),
        properties: Properties::for_task(id),
        body: r#"[["shop.placed", null], {}, {}]"#.into(),
    }
}

fn outgoing(route: &Arc<Route>) -> Outgoing {
    Outgoing { route: route.clone(), message: message(json!({"task": "async_signals.propagate"})) }
}

fn to_queue(name: &str) -> Arc<Route> {
    Arc::new(Route::to_queue(name))
}

/// A durable queue on the default exchange, with arguments.
fn with_arguments(name: &str, arguments: Value) -> Arc<Route> {
    let Value::Object(arguments) = arguments else { panic!("arguments are an object") };
    let queue = Queue { arguments, ..Queue::direct(name) };
    Arc::new(Route { exchange: String::new(), routing_key: name.to_owned(), declare: vec![queue] })
}

async fn publish(broker: &Arc<dyn Broker>, batch: &[Outgoing]) -> Vec<Published> {
    soon(broker.publish(batch)).await
}

async fn publish_one(broker: &Arc<dyn Broker>, route: &Arc<Route>) -> Published {
    publish(broker, &[outgoing(route)]).await.remove(0)
}

fn ids(messages: &[BasicGetMessage]) -> HashSet<String> {
    messages.iter().filter_map(|got| got.properties.correlation_id().as_ref().map(ToString::to_string)).collect()
}

#[tokio::test(flavor = "multi_thread")]
async fn a_message_arrives_as_it_was_sent() {
    let server = server!();
    let broker = connect(&server.url()).await;
    let queue = fresh("q");
    let mut sent = message(json!({
        "lang": "py", "shadow": null, "retries": 0, "ignore_result": true, "big": 5_000_000_000_i64,
        "timelimit": [null, 1.5], "stamps": {"a": [1]}, "argsrepr": "é",
    }));
    sent.properties.priority = 7;
    sent.properties.reply_to = Some("answers".into());
    sent.properties.expiration_ms = Some(600_000);
    let id = sent.id.to_string();
    let body = sent.body.clone();
    publish(&broker, &[Outgoing { route: to_queue(&queue), message: sent }]).await.remove(0).expect("published");

    let got = Observer::new(server).await.get(&queue).await.expect("a message");
    assert_eq!((got.exchange.as_str(), got.routing_key.as_str()), ("", queue.as_str()));
    assert_eq!(got.data, body);
    let text = |text: &str| AMQPValue::LongString(text.into());
    let mut stamps = FieldTable::default();
    stamps.insert("a".into(), AMQPValue::FieldArray(vec![AMQPValue::LongInt(1)].into()));
    let mut headers = FieldTable::default();
    for (name, value) in [
        ("lang", text("py")),
        ("shadow", AMQPValue::Void),
        ("retries", AMQPValue::LongInt(0)),
        ("ignore_result", AMQPValue::Boolean(true)),
        ("big", AMQPValue::LongLongInt(5_000_000_000)),
        ("timelimit", AMQPValue::FieldArray(vec![AMQPValue::Void, AMQPValue::Double(1.5)].into())),
        ("stamps", AMQPValue::FieldTable(stamps)),
        ("argsrepr", text("é")),
    ] {
        headers.insert(name.into(), value);
    }
    let expected = BasicProperties::default()
        .with_content_type("application/json".into())
        .with_content_encoding("utf-8".into())
        .with_headers(headers)
        .with_delivery_mode(2)
        .with_priority(7)
        .with_correlation_id(id.into())
        .with_reply_to("answers".into())
        .with_expiration("600000".into());
    assert_eq!(got.properties, expected);
}

#[tokio::test(flavor = "multi_thread")]
async fn batches_arrive_in_order_from_many_callers_at_once() {
    let server = server!();
    let broker = connect(&server.url()).await;
    let queue = fresh("q");
    // All of them find the queue undeclared.
    let callers = (0..8).map(|caller| {
        let (broker, route) = (broker.clone(), to_queue(&queue));
        tokio::spawn(async move {
            let batch: Vec<_> = (0..200)
                .map(|number| Outgoing {
                    route: route.clone(),
                    message: message(json!({"from": caller, "number": number})),
                })
                .collect();
            assert!(publish(&broker, &batch).await.iter().all(Result::is_ok));
        })
    });
    for caller in callers.collect::<Vec<_>>() {
        soon(caller).await.expect("a caller");
    }

    let mut next = Map::new();
    let messages = Observer::new(server).await.drain(&queue).await;
    assert_eq!(messages.len(), 8 * 200);
    for message in messages {
        let headers = message.properties.headers().as_ref().expect("headers");
        let header = |name: &str| headers.inner().get(name).and_then(AMQPValue::as_long_int).expect("a number");
        let expected = next.entry(header("from").to_string()).or_insert(json!(0));
        assert_eq!(json!(header("number")), *expected);
        *expected = json!(header("number") + 1);
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn queues_are_declared_as_kombu_declares_them() {
    let server = server!();
    let broker = connect(&server.url()).await;
    let observer = Observer::new(server).await;
    let (queue, exchange) = (fresh("topics"), fresh("x"));
    let topic = Queue {
        exchange: Some(Exchange { kind: "topic".to_owned(), ..Exchange::direct(&exchange) }),
        routing_key: "order.*".to_owned(),
        arguments: Map::from_iter([
            ("x-max-priority".to_owned(), json!(10)),
            ("x-queue-mode".to_owned(), json!("lazy")),
            ("x-single-active-consumer".to_owned(), json!(true)),
        ]),
        ..Queue::direct(&queue)
    };
    let route =
        |key: &str| Route { exchange: exchange.clone(), routing_key: key.to_owned(), declare: vec![topic.clone()] };
    publish_one(&broker, &Arc::new(route("order.placed"))).await.expect("published");
    let missed = publish_one(&broker, &Arc::new(route("invoice.sent"))).await;
    assert!(matches!(missed, Err(BrokerError::Unroutable { .. })), "{missed:?}");

    // Declared again by somebody else with the same values, it is the same queue.
    let mut arguments = FieldTable::default();
    arguments.insert("x-max-priority".into(), AMQPValue::LongInt(10));
    arguments.insert("x-queue-mode".into(), AMQPValue::LongString("lazy".into()));
    arguments.insert("x-single-active-consumer".into(), AMQPValue::Boolean(true));
    observer.declare(&queue, arguments).await;
    let got = observer.get(&queue).await.expect("a message");
    assert_eq!((got.exchange.as_str(), got.routing_key.as_str()), (exchange.as_str(), "order.placed"));
}
