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
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::TcpListener,
    sync::mpsc,
};
use uuid::Uuid;

/// The server of all tests that leave it as they found it. It ends with the process.
static SHARED: LazyLock<Option<Server>> = LazyLock::new(Server::start);

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

macro_rules! server {
    () => {
        match &*SHARED {
            Some(server) => server,
            None => return,
        }
    };
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
async fn what_no_queue_takes_is_unroutable_and_harms_no_other() {
    let server = server!();
    let broker = connect(&server.url()).await;
    let queue = fresh("q");
    let (good, bad) = (to_queue(&queue), Route { routing_key: fresh("nowhere"), ..Route::default() });
    let bad = Arc::new(bad);
    let batch: Vec<_> = (0..300).map(|number| outgoing(if number % 3 == 0 { &bad } else { &good })).collect();
    for (number, outcome) in publish(&broker, &batch).await.into_iter().enumerate() {
        match outcome {
            Ok(()) => assert_ne!(number % 3, 0, "a success that is none"),
            Err(BrokerError::Unroutable { exchange, routing_key }) => {
                assert_eq!((number % 3, exchange.as_str(), &routing_key), (0, "", &bad.routing_key));
            }
            Err(other) => panic!("{other}"),
        }
    }
    assert_eq!(Observer::new(server).await.drain(&queue).await.len(), 200);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_queue_deleted_while_sending_heals() {
    let server = server!();
    let broker = connect(&server.url()).await;
    let observer = Observer::new(server).await;
    let (queue, exchange) = (fresh("q"), fresh("x"));
    let own = Queue { exchange: Some(Exchange::direct(&exchange)), ..Queue::direct(&queue) };
    let own = Arc::new(Route { exchange: exchange.clone(), routing_key: queue.clone(), declare: vec![own] });
    for route in [to_queue(&queue), own.clone()] {
        publish_one(&broker, &route).await.expect("published");
        observer.delete(&queue).await;
        let batch: Vec<_> = (0..100).map(|_| outgoing(&route)).collect();
        assert!(publish(&broker, &batch).await.iter().all(Result::is_ok));
        assert_eq!(observer.drain(&queue).await.len(), 100);
    }
    observer.channel.exchange_delete(exchange.into(), Default::default()).await.expect("deleted");
    publish_one(&broker, &own).await.expect("published on an exchange that was declared again");
    assert_eq!(observer.drain(&queue).await.len(), 1);
}

#[tokio::test(flavor = "multi_thread")]
async fn differing_arguments_are_named_and_harm_no_other() {
    let server = server!();
    let broker = connect(&server.url()).await;
    let observer = Observer::new(server).await;
    let (there, other) = (fresh("there"), fresh("other"));
    observer.declare(&there, FieldTable::default()).await;
    let good = to_queue(&other);
    let steady = {
        let (broker, good) = (broker.clone(), good.clone());
        tokio::spawn(async move {
            for _ in 0..20 {
                let batch: Vec<_> = (0..50).map(|_| outgoing(&good)).collect();
                assert!(publish(&broker, &batch).await.iter().all(Result::is_ok));
            }
        })
    };
    let differing = with_arguments(&there, json!({"x-max-priority": 10}));
    for _ in 0..3 {
        let outcomes = publish(&broker, &[outgoing(&differing), outgoing(&good)]).await;
        let Err(BrokerError::PreconditionFailed { entity, reason }) = &outcomes[0] else { panic!("{outcomes:?}") };
        assert_eq!(*entity, format!("queue '{there}'"));
        assert!(reason.contains("x-max-priority"), "{reason}");
        assert!(outcomes[1].is_ok());
    }
    soon(steady).await.expect("nobody else noticed");
    assert_eq!(observer.drain(&other).await.len(), 20 * 50 + 3);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_full_queue_is_named() {
    let server = server!();
    let broker = connect(&server.url()).await;
    let queue = fresh("full");
    let route = with_arguments(&queue, json!({"x-max-length": 2, "x-overflow": "reject-publish"}));
    let mut outcomes = Vec::new();
    for _ in 0..4 {
        outcomes.push(publish_one(&broker, &route).await);
    }
    assert!(outcomes[0].is_ok());
    let refused: Vec<_> = outcomes.iter().filter_map(|outcome| outcome.as_ref().err()).collect();
    assert!(!refused.is_empty());
    for error in refused {
        assert!(matches!(error, BrokerError::QueueFull { queue: full } if *full == queue), "{error}");
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

#[tokio::test(flavor = "multi_thread")]
async fn a_message_that_closes_the_channel_fails_alone() {
    let server = server!();
    let broker = connect(&server.url()).await;
    let queue = fresh("q");
    let good = to_queue(&queue);
    let no_exchange = Arc::new(Route { exchange: fresh("nowhere"), ..Route::default() });
    let too_late = || {
        let mut outgoing = outgoing(&good);
        outgoing.message.properties.expiration_ms = Some(u64::MAX);
        outgoing
    };
    let mut sent = 0;
    for round in 0..4 {
        let mut batch: Vec<_> = (0..40).map(|_| outgoing(&good)).collect();
        batch[20] = if round % 2 == 0 { outgoing(&no_exchange) } else { too_late() };
        for (number, outcome) in publish(&broker, &batch).await.into_iter().enumerate() {
            match outcome {
                Ok(()) => {
                    assert_ne!(number, 20);
                    sent += 1;
                }
                Err(BrokerError::Refused { reason }) => {
                    let named = if round % 2 == 0 { "NOT_FOUND - no exchange" } else { "invalid expiration" };
                    assert_eq!(number, 20);
                    assert!(reason.contains(named), "{reason}");
                }
                Err(other) => panic!("{other}"),
            }
        }
    }
    // What was in flight when the channel closed may have arrived twice, never not at all.
    let arrived = ids(&Observer::new(server).await.drain(&queue).await);
    assert_eq!((sent, arrived.len()), (4 * 39, 4 * 39));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_publish_given_up_leaves_the_connection_usable() {
    let server = server!();
    let broker = connect(&server.url()).await;
    for round in 0..60 {
        // Given up at another step each time: while declaring, sending, waiting for confirms.
        let route = if round % 3 == 0 { to_queue(&fresh("given-up")) } else { to_queue("given-up") };
        let batch: Vec<_> = (0..20).map(|_| outgoing(&route)).collect();
        let _ = tokio::time::timeout(Duration::from_micros(50 * round), broker.publish(&batch)).await;
    }
    let queue = fresh("q");
    publish_one(&broker, &to_queue(&queue)).await.expect("published");
    assert_eq!(Observer::new(server).await.drain(&queue).await.len(), 1);
}

#[tokio::test(flavor = "multi_thread")]
async fn who_may_not_is_told_so_without_a_credential() {
    let server = server!();
    let wrong = refused(&server.url_of("guest:Xsecret", "%2F"), None).await;
    assert!(matches!(wrong, BrokerError::Authentication { .. }), "{wrong}");
    assert!(!format!("{wrong} {wrong:?}").contains("Xsecret"));

    let missing = refused(&server.url_of("guest:guest", "nowhere"), None).await;
    assert!(matches!(&missing, BrokerError::Connect { reason, .. } if reason.contains("nowhere")), "{missing}");

    server.rabbitmqctl(&["add_user", "reader", "Xsecret"]);
    let elsewhere = refused(&server.url_of("reader:Xsecret", "%2F"), None).await;
    assert!(matches!(&elsewhere, BrokerError::AccessRefused { .. }), "{elsewhere}");
    assert!(!format!("{elsewhere} {elsewhere:?}").contains("Xsecret"));

    let queue = fresh("q");
    server.rabbitmqctl(&["set_permissions", "reader", "", "amq.default-not", ".*"]);
    let reader = connect(&server.url_of("reader:Xsecret", "%2F")).await;
    let declaring = publish_one(&reader, &to_queue(&queue)).await;
    assert!(matches!(&declaring, Err(BrokerError::AccessRefused { .. })), "{declaring:?}");
    let sending = publish_one(&reader, &Arc::new(Route { routing_key: queue, ..Route::default() })).await;
    assert!(matches!(&sending, Err(BrokerError::AccessRefused { .. })), "{sending:?}");
}

#[tokio::test(flavor = "multi_thread")]
async fn nobody_there_or_somebody_else_is_a_failed_connection() {
    let free = std::net::TcpListener::bind("127.0.0.1:0").expect("a port").local_addr().expect("an address");
    let nobody = refused(&format!("amqp://me:Xsecret@{free}//"), None).await;
    assert!(matches!(nobody, BrokerError::Connect { .. }), "{nobody}");

    let other = TcpListener::bind("127.0.0.1:0").await.expect("a port");
    let address = other.local_addr().expect("an address");
    tokio::spawn(async move {
        while let Ok((mut socket, _)) = other.accept().await {
            let _ = socket.write_all(b"-ERR unknown command\r\n").await;
        }
    });
    let other = refused(&format!("amqp://me:Xsecret@{address}//"), None).await;
    assert!(matches!(other, BrokerError::Connect { .. }), "{other}");
}

/// lapin has a thread for each connection, which must not wait for a silent broker for ever.
#[tokio::test(flavor = "multi_thread")]
async fn giving_up_on_a_silent_broker_closes_the_connection() {
    let silent = TcpListener::bind("127.0.0.1:0").await.expect("a port");
    let url = format!("amqp://{}//", silent.local_addr().expect("an address"));
    let config = BrokerConfig::new(&url).expect("a URL");
    let mut connecting = Box::pin(broker::connect(&config, &config.urls[0]));
    let greeted = async {
        let (mut peer, _) = silent.accept().await.expect("a connection");
        let mut greeting = [0; 8];
        peer.read_exact(&mut greeting).await.expect("a greeting");
        assert_eq!(&greeting[..4], b"AMQP");
        peer
    };
    let mut peer = tokio::select! {
        _ = &mut connecting => panic!("nobody answered"),
        peer = greeted => peer,
    };
    drop(connecting);
    assert_eq!(soon(peer.read(&mut [0; 1])).await.expect("an orderly end"), 0);
}

#[tokio::test(flavor = "multi_thread")]
async fn tls_trusts_whom_it_is_told_to_trust() {
    let server = server!();
    let trusting = Tls { ca_certs: Some(server.file("ca.pem")), ..Tls::default() };
    let queue = fresh("q");
    let broker = connect_with(&server.tls_url(), Some(trusting.clone())).await.expect("a trusted connection");
    publish_one(&broker, &to_queue(&queue)).await.expect("published");
    assert_eq!(Observer::new(server).await.drain(&queue).await.len(), 1);

    for distrust in [None, Some(Tls { ca_certs: Some(server.file("other-ca.pem")), ..Tls::default() })] {
        let error = refused(&server.tls_url(), distrust).await;
        // A machine may have no roots of its own, which is said of ca_certs.
        assert!(matches!(error, BrokerError::Tls { .. } | BrokerError::InvalidOption { .. }), "{error}");
    }
    let anyone = Tls { verify: false, ..Tls::default() };
    connect_with(&server.tls_url(), Some(anyone)).await.expect("verification is off");

    let client = |name: &str| Tls {
        certfile: Some(server.file(&format!("{name}.pem"))),
        keyfile: Some(server.file(&format!("{name}.key"))),
        ..trusting.clone()
    };
    connect_with(&server.tls_url(), Some(client("client"))).await.expect("a known client");
    let stranger = refused(&server.tls_url(), Some(client("stranger"))).await;
    assert!(matches!(stranger, BrokerError::Tls { .. } | BrokerError::Connect { .. }), "{stranger}");

    let plain = refused(&server.url().replace("amqp:", "amqps:"), Some(trusting)).await;
    assert!(matches!(plain, BrokerError::Tls { .. }), "{plain}");
}

#[tokio::test(flavor = "multi_thread")]
async fn an_alarm_blocks_and_goes_by() {
    let Some(server) = Server::start() else { return };
    let broker = connect(&server.url()).await;
    let route = to_queue("alarmed");
    publish_one(&broker, &route).await.expect("published");
    assert!(broker.blocked().is_none());
    server.rabbitmqctl(&["set_vm_memory_high_watermark", "0"]);
    // RabbitMQ tells a connection of the alarm when it publishes. That message
    // goes through, but the next may be under way when the news comes: then it
    // waits for the alarm to go by.
    let (mut taken, mut refused) = (Vec::new(), Vec::new());
    let (reason, waiting) = soon(async {
        let mut waiting = Vec::new();
        loop {
            let mut sending = Box::pin({
                let (broker, message) = (broker.clone(), outgoing(&route));
                async move { (message.message.id.to_string(), broker.publish(&[message]).await.remove(0)) }
            });
            let blocked = async {
                while broker.blocked().is_none() {
                    tokio::task::yield_now().await;
                }
            };
            tokio::select! {
                biased;
                (id, outcome) = &mut sending => match outcome {
                    Ok(()) => taken.push(id),
                    Err(BrokerError::Blocked { reason }) => {
                        refused.push(id);
                        break (reason, waiting);
                    }
                    Err(other) => panic!("{other}"),
                },
                () = blocked => waiting.push(sending),
            }
        }
    })
    .await;
    assert!(reason.contains("memory"), "{reason}");
    assert!(matches!(broker.blocked(), Some(BrokerError::Blocked { .. })));
    let undeclared = publish_one(&broker, &to_queue("undeclared")).await;
    assert!(matches!(undeclared, Err(BrokerError::Blocked { .. })), "{undeclared:?}");

    server.rabbitmqctl(&["set_vm_memory_high_watermark", "0.8"]);
    for sending in waiting {
        let (id, outcome) = soon(sending).await;
        outcome.expect("what was under way is confirmed");
        taken.push(id);
    }
    soon(async {
        while broker.blocked().is_some() {
            tokio::task::yield_now().await;
        }
    })
    .await;
    publish_one(&broker, &route).await.expect("published when the alarm had gone by");
    let arrived = ids(&Observer::new(&server).await.drain("alarmed").await);
    assert_eq!(arrived.len(), taken.len() + 2);
    assert!(taken.iter().all(|id| arrived.contains(id)), "a confirmed message is missing");
    assert!(refused.iter().all(|id| !arrived.contains(id)), "a refused message has arrived");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_killed_server_loses_nothing_that_was_confirmed() {
    let Some(server) = Server::start() else { return };
    let broker = connect(&server.url()).await;
    let route = to_queue("killed");
    let (progress, mut progressing) = mpsc::unbounded_channel();
    let publishing = tokio::spawn({
        let (broker, route) = (broker.clone(), route.clone());
        async move {
            let mut confirmed = Vec::new();
            loop {
                let batch: Vec<_> = (0..256).map(|_| outgoing(&route)).collect();
                let outcomes = publish(&broker, &batch).await;
                let taken = batch.iter().zip(&outcomes).filter(|(_, outcome)| outcome.is_ok());
                confirmed.extend(taken.map(|(sent, _)| sent.message.id.to_string()));
                if let Some(error) = outcomes.into_iter().find_map(Result::err) {
                    break (confirmed, error);
                }
                let _ = progress.send(());
            }
        }
    });
    for _ in 0..5 {
        soon(progressing.recv()).await.expect("a batch");
    }
    tokio::task::block_in_place(|| server.kill());
    let (confirmed, error) = soon(publishing).await.expect("the publisher");
    assert!(matches!(error, BrokerError::Disconnected { .. }), "{error}");
    let afterwards = publish_one(&broker, &route).await;
    assert!(matches!(afterwards, Err(BrokerError::Disconnected { .. })), "{afterwards:?}");
    soon(broker.close()).await;

    tokio::task::block_in_place(|| server.restart());
    let arrived = ids(&Observer::new(&server).await.drain("killed").await);
    assert!(confirmed.len() >= 5 * 256);
    assert!(confirmed.iter().all(|id| arrived.contains(id)), "a confirmed message is missing");
    publish_one(&connect(&server.url()).await, &route).await.expect("published on a new connection");
}
