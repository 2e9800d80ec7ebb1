//! What every broker does, whatever it is: one list of behaviours, and all of
//! them for each broker. A new behaviour starts here.

#![cfg(all(feature = "redis", feature = "sqlite"))]

mod servers;
mod simulated;

use std::{collections::HashSet, net::Ipv4Addr, pin::pin, sync::Arc, time::Duration};

use async_signals::{
    broker::{self, Broker, BrokerConfig, BrokerError, Connector, Published},
    message::{Headers, Message, Properties, Route},
};
use bytes::Bytes;
use futures_util::future::{FutureExt, LocalBoxFuture, join_all};
use serde_json::{Map, json};
use servers::{
    Bench, ReadMessage,
    amqp::RabbitMq,
    behaviours::{Behaviour, behaves},
    elsewhere::{assert_named, elsewhere, web_server},
    embedded::{InMemory, Sqlite},
    free_port,
    messages::{assert_ok, exchange_route, fresh, numbered, outgoing, task_headers},
    redis::Redis,
};
use simulated::{Simulated, Weather};
use uuid::Uuid;

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn memory_behaves() {
    behaves(&mut InMemory::new("brokers"), BEHAVIOURS).await;
}

/// What the simulation runs on is a broker as the others are.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_simulated_broker_behaves() {
    let broker = Simulated::new("brokers-simulated", 0);
    broker.set_weather(Weather { delay: Duration::from_millis(5), ..Weather::default() });
    behaves(&mut InSimulation { memory: InMemory::new("brokers-simulated"), broker }, BEHAVIOURS).await;
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

/// The simulated broker, in fair weather and on a slow line.
struct InSimulation {
    memory: InMemory,
    broker: Simulated,
}

impl Bench for InSimulation {
    fn name(&self) -> &'static str {
        "simulated"
    }

    fn config(&self) -> BrokerConfig {
        self.memory.config()
    }

    fn connector(&self) -> Arc<dyn Connector> {
        Arc::new(self.broker.clone())
    }

    fn read<'a>(&'a mut self, queue: &'a str) -> LocalBoxFuture<'a, Vec<ReadMessage>> {
        self.memory.read(queue)
    }
}

/// The list.
const BEHAVIOURS: &[(&str, Behaviour)] = &[
    ("what is published is read back", |bench| reads_back(bench).boxed_local()),
    ("large, empty and foreign text goes through", |bench| extremes(bench).boxed_local()),
    ("each queue keeps its order", |bench| order(bench).boxed_local()),
    ("a batch reaches several queues, with an outcome for each message", |bench| several_queues(bench).boxed_local()),
    ("a direct exchange leads to the queues with the key", |bench| direct_exchange(bench).boxed_local()),
    ("a topic exchange leads to the queues with the pattern", |bench| topic_exchange(bench).boxed_local()),
    ("what no queue takes is named", |bench| unroutable(bench).boxed_local()),
    ("many tasks share one connection", |bench| shared(bench).boxed_local()),
    ("nobody there is said with the address, not the password", |bench| unreachable(bench).boxed_local()),
    ("a wrong password is said without it", |bench| wrong_password(bench).boxed_local()),
    ("a silent peer can be given up", |bench| silent_peer(bench).boxed_local()),
    ("a peer of another kind is refused", |bench| other_peer(bench).boxed_local()),
    ("a publish that is given up leaves the connection usable", |bench| given_up(bench).boxed_local()),
    ("a killed broker costs nothing that was confirmed", |bench| killed(bench).boxed_local()),
];

async fn reads_back(bench: &mut dyn Bench) {
    let broker = connect(bench).await;
    let queue = fresh("queue");
    let route = Arc::new(Route::to_queue(&queue));
    let raw = Message {
        properties: Properties {
            priority: 5,
            reply_to: Some("e4961b3e-9442-3033-9348-1e53f4211102".into()),
            expiration_ms: Some(3_600_000),
            ..Properties::for_task(Uuid::new_v4())
        },
        ..numbered(0)
    };
    let task = Message { headers: Headers::Task(Box::new(task_headers())), ..numbered(1) };
    let published = publish(&*broker, &route, &[raw.clone(), task.clone()]).await;
    assert_ok(&published);
    let mut expected = vec![ReadMessage::expected(&raw), ReadMessage::expected(&task)];
    let mut read = bench.read(&queue).await;
    for messages in [&mut expected, &mut read] {
        messages.sort_by_key(|message| message.priority);
    }
    assert_eq!(read, expected);
}

async fn extremes(bench: &mut dyn Bench) {
    let broker = connect(bench).await;
    let queue = fresh("köln.東京 #*");
    let route = Arc::new(Route::to_queue(&queue));
    let mut messages: Vec<_> = (0..3).map(numbered).collect();
    messages[0].body = Bytes::from((0..3 << 20).map(|byte| byte as u8).collect::<Vec<_>>());
    messages[1].body = Bytes::new();
    messages[2].headers = Headers::Raw(Map::from_iter([("näme \"\\\u{1}☃".to_owned(), json!("wört \u{0}\n𝄞"))]));
    assert_ok(&publish(&*broker, &route, &messages).await);
    let expected: Vec<_> = messages.iter().map(ReadMessage::expected).collect();
    // Not assert_eq: nobody reads three megabytes of difference.
    assert!(bench.read(&queue).await == expected);
}

async fn order(bench: &mut dyn Bench) {
    let broker = connect(bench).await;
    let queues = [fresh("queue"), fresh("queue")];
    let routes = queues.each_ref().map(|queue| Arc::new(Route::to_queue(queue)));
    let batch = |numbers: std::ops::Range<u64>| -> Vec<_> {
        numbers.map(|number| outgoing(&routes[number as usize % 2], numbered(number))).collect()
    };
    let batches = [batch(0..1), batch(1..301), batch(301..303), batch(303..1000)];
    // Two at a time, as a publisher may have them.
    for pair in batches.chunks(2) {
        for published in join_all(pair.iter().map(|batch| broker.publish(batch))).await {
            assert_ok(&published);
        }
    }
    for (parity, queue) in queues.iter().enumerate() {
        let read: Vec<_> = bench.read(queue).await.iter().map(ReadMessage::number).collect();
        assert_eq!(read, (0..1000).filter(|number| number % 2 == parity as u64).collect::<Vec<_>>());
    }
}

async fn several_queues(bench: &mut dyn Bench) {
    let broker = connect(bench).await;
    let queues = [fresh("queue"), fresh("queue")];
    let [first, second] = queues.each_ref().map(|queue| Arc::new(Route::to_queue(queue)));
    let nowhere = Arc::new(exchange_route(&fresh("exchange"), "direct", "elsewhere", &[(&fresh("queue"), "here")]));
    let batch = [&first, &second, &nowhere, &first];
    let batch: Vec<_> = batch.iter().zip(0..).map(|(route, number)| outgoing(route, numbered(number))).collect();
    let published = broker.publish(&batch).await;
    assert_eq!(published.len(), 4);
    for (index, outcome) in published.iter().enumerate() {
        let unroutable = matches!(outcome, Err(BrokerError::Unroutable { .. }));
        assert!(if index == 2 { unroutable } else { outcome.is_ok() }, "{index}: {outcome:?}");
    }
    assert_eq!(numbers(bench, &queues[0]).await, [0, 3]);
    assert_eq!(numbers(bench, &queues[1]).await, [1]);
}

async fn direct_exchange(bench: &mut dyn Bench) {
    let broker = connect(bench).await;
    let (one, other, exchange) = (fresh("queue"), fresh("queue"), fresh("exchange"));
    let route = exchange_route(&exchange, "direct", "orders", &[(&one, "orders"), (&other, "invoices")]);
    assert_ok(&publish(&*broker, &Arc::new(route), &[numbered(1), numbered(2)]).await);
    assert_eq!(numbers(bench, &one).await, [1, 2]);
    assert!(numbers(bench, &other).await.is_empty());
}

async fn topic_exchange(bench: &mut dyn Bench) {
    let broker = connect(bench).await;
    let (eu, all, other) = (fresh("queue"), fresh("queue"), fresh("queue"));
    let bound = [(&*eu, "order.*.eu"), (&*all, "order.#"), (&*other, "invoice.#")];
    let exchange = fresh("exchange");
    for (number, key) in [(1, "order.placed.eu"), (2, "order.placed.us"), (3, "order.a.b.eu")] {
        let route = exchange_route(&exchange, "topic", key, &bound);
        assert_ok(&publish(&*broker, &Arc::new(route), &[numbered(number)]).await);
    }
    assert_eq!(numbers(bench, &eu).await, [1]);
    assert_eq!(numbers(bench, &all).await, [1, 2, 3]);
    assert!(numbers(bench, &other).await.is_empty());
}

async fn unroutable(bench: &mut dyn Bench) {
    let broker = connect(bench).await;
    let (queue, exchange) = (fresh("queue"), fresh("exchange"));
    let route = Arc::new(exchange_route(&exchange, "direct", "nobody", &[(&queue, "somebody")]));
    for _ in 0..2 {
        let published = publish(&*broker, &route, &[numbered(1)]).await;
        let [Err(error @ BrokerError::Unroutable { exchange: at, routing_key })] = &published[..] else {
            panic!("published: {published:?}");
        };
        assert_eq!((at.as_str(), routing_key.as_str()), (exchange.as_str(), "nobody"));
        assert!(!error.is_transient(), "trying again would not help");
    }
    let nowhere = publish(&*broker, &Arc::default(), &[numbered(1)]).await;
    assert!(matches!(nowhere[..], [Err(BrokerError::Unroutable { .. })]), "{nowhere:?}");
    let published = publish(&*broker, &Arc::new(Route::to_queue(&queue)), &[numbered(2)]).await;
    assert_ok(&published);
    assert_eq!(numbers(bench, &queue).await, [2]);
}

async fn shared(bench: &mut dyn Bench) {
    let broker = connect(bench).await;
    let queue = fresh("queue");
    let tasks = (0..16).map(|task| {
        let (broker, route) = (broker.clone(), Arc::new(Route::to_queue(&queue)));
        tokio::spawn(async move {
            for number in 0..20 {
                assert_ok(&publish(&*broker, &route, &[numbered(task * 20 + number)]).await);
            }
        })
    });
    for task in join_all(tasks).await {
        task.expect("it published");
    }
    let mut read = numbers(bench, &queue).await;
    read.sort_unstable();
    assert_eq!(read, (0..320).collect::<Vec<_>>());
}

async fn unreachable(bench: &mut dyn Bench) {
    if bench.server().is_none() {
        return;
    }
    let error = connect_elsewhere(bench, free_port(), "secret").await.expect_err("nobody is there");
    assert!(matches!(error, BrokerError::Connect { .. }), "{error:?}");
    assert!(error.is_transient() && !error.may_have_arrived());
    assert_named(&error, "secret");
}

async fn wrong_password(bench: &mut dyn Bench) {
    if bench.server().is_none() {
        return;
    }
    let port = bench.config().urls[0].port();
    let error = connect_elsewhere(bench, port, "guessed").await.expect_err("a wrong password");
    assert!(matches!(error, BrokerError::Authentication { .. }), "{error:?}");
    assert!(!error.is_transient(), "trying again would not help");
    assert_named(&error, "guessed");
}

async fn silent_peer(bench: &mut dyn Bench) {
    if bench.server().is_none() {
        return;
    }
    let silent = tokio::net::TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).await.expect("a port");
    let port = silent.local_addr().expect("its address").port();
    let config = elsewhere(bench, port, "secret");
    let mut connecting = pin!(broker::connect(&config, &config.urls[0]));
    let accepted = tokio::select! {
        connected = &mut connecting => panic!("nobody answered, yet {connected:?}"),
        accepted = silent.accept() => accepted.expect("a connection").0,
    };
    assert!(connecting.as_mut().now_or_never().is_none(), "nobody answered");
    // Here the future is dropped, and with it all there was of the connection.
    drop(accepted);
}

async fn other_peer(bench: &mut dyn Bench) {
    if bench.server().is_none() {
        return;
    }
    let (port, answers) = web_server();
    let error = connect_elsewhere(bench, port, "secret").await.expect_err("a web server");
    answers.join().expect("it answered");
    assert!(matches!(error, BrokerError::Connect { .. }), "{error:?}");
    assert_named(&error, "secret");
}

async fn given_up(bench: &mut dyn Bench) {
    let broker = connect(bench).await;
    let queue = fresh("queue");
    let route = Arc::new(Route::to_queue(&queue));
    assert_ok(&publish(&*broker, &route, &[numbered(0)]).await);
    let abandoned = [outgoing(&route, numbered(1)), outgoing(&Arc::new(Route::to_queue(&fresh("queue"))), numbered(2))];
    if let Some(server) = bench.server() {
        server.pause();
        for _ in 0..100 {
            assert!(broker.publish(&abandoned).now_or_never().is_none(), "nobody confirmed it");
        }
        server.resume();
    } else {
        let _ = broker.publish(&abandoned).now_or_never();
    }
    assert_ok(&publish(&*broker, &route, &[numbered(3)]).await);
    let read = numbers(bench, &queue).await;
    assert_eq!((read.first(), read.last()), (Some(&0), Some(&3)), "{read:?}");
    assert!(read[1..read.len() - 1].iter().all(|number| *number == 1), "{read:?}");
}

async fn killed(bench: &mut dyn Bench) {
    if bench.server().is_none() {
        return;
    }
    let broker = connect(bench).await;
    let queue = fresh("queue");
    let route = Arc::new(Route::to_queue(&queue));
    let mut confirmed = HashSet::new();
    let mut sent = 0;
    let mut lost = None;
    while lost.is_none() {
        let batches: Vec<Vec<_>> = (0..2)
            .map(|_| {
                sent += 50;
                (sent - 50..sent).map(|number| outgoing(&route, numbered(number))).collect()
            })
            .collect();
        let mut publishing = pin!(join_all(batches.iter().map(|batch| broker.publish(batch))));
        let mut early = None;
        if sent >= 1000 {
            // In the middle: the batches are on their way, nobody has looked for an answer.
            early = publishing.as_mut().now_or_never();
            tokio::task::yield_now().await;
            bench.server().expect("a server").kill();
        }
        let published = match early {
            Some(published) => published,
            None => publishing.await,
        };
        for (batch, published) in batches.iter().zip(published) {
            assert_eq!(published.len(), batch.len());
            for (outgoing, outcome) in batch.iter().zip(published) {
                match outcome {
                    Ok(()) => assert!(confirmed.insert(outgoing.message.id)),
                    Err(error) => lost = Some(error),
                }
            }
        }
    }
    let lost = lost.expect("an error");
    assert!(matches!(lost, BrokerError::Disconnected { .. }), "{lost:?}");
    assert!(lost.is_disconnect() && lost.may_have_arrived());
    let again = publish(&*broker, &route, &[numbered(0)]).await;
    assert!(matches!(again[..], [Err(BrokerError::Disconnected { .. })]), "{again:?}");

    bench.server().expect("a server").restart();
    let broker = connect(bench).await;
    let last = numbered(sent);
    assert_ok(&publish(&*broker, &route, std::slice::from_ref(&last)).await);
    confirmed.insert(last.id);
    let read: HashSet<_> = bench
        .read(&queue)
        .await
        .iter()
        .map(|message| message.correlation_id.as_deref().expect("an id").parse().expect("a UUID"))
        .collect();
    assert!(confirmed.len() > 900 && confirmed.is_subset(&read), "{} confirmed, {} there", confirmed.len(), read.len());
}

async fn connect(bench: &dyn Bench) -> Arc<dyn Broker> {
    let config = bench.config();
    bench.connector().connect(&config, &config.urls[0]).await.expect("a connection")
}

async fn connect_elsewhere(bench: &dyn Bench, port: u16, password: &str) -> Result<Arc<dyn Broker>, BrokerError> {
    let config = elsewhere(bench, port, password);
    broker::connect(&config, &config.urls[0]).await
}

async fn publish(broker: &dyn Broker, route: &Arc<Route>, messages: &[Message]) -> Vec<Published> {
    let batch: Vec<_> = messages.iter().map(|message| outgoing(route, message.clone())).collect();
    let published = broker.publish(&batch).await;
    assert_eq!(published.len(), batch.len());
    published
}

async fn numbers(bench: &mut dyn Bench, queue: &str) -> Vec<u64> {
    bench.read(queue).await.iter().map(ReadMessage::number).collect()
}
