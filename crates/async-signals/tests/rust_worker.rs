//! Signals that are sent and received by Rust programs, on every broker alike:
//! one list of behaviours.

#![cfg(all(feature = "redis", feature = "sqlite", feature = "rabbitmq"))]

mod servers;

#[path = "rust_worker/failing.rs"]
mod failing;
#[path = "rust_worker/panicking.rs"]
mod panicking;
#[path = "rust_worker/stopping.rs"]
mod stopping;

use std::{
    sync::{
        Arc,
        atomic::{AtomicUsize, Ordering},
    },
    time::{Duration, SystemTime},
};

use async_signals::{
    AsyncSignal, BoxError, Celery, Connect, Delivery, Durability, RetryPolicy, Sender, Worker,
    broker::{self, BrokerError},
    celery::TraceContext,
    follow::Ours,
    message::{Message, Route},
    worker::{WorkerBuilder, WorkerError},
};
use bytes::Bytes;
use futures_util::future::FutureExt;
use serde::{Deserialize, Serialize};
use serde_json::{Map, Value, json};
use servers::{
    Bench, DEADLINE, ReadMessage,
    amqp::RabbitMq,
    behaviours::{Behaviour, behaves},
    embedded::{InMemory, Sqlite},
    messages::{assert_ok, fresh, numbered, outgoing},
    redis::Redis,
};
use tokio::{
    sync::{mpsc, oneshot},
    task::JoinHandle,
    time::{sleep, timeout},
};
use uuid::Uuid;

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn works_on_memory() {
    behaves(&mut InMemory::new("rust-worker"), BEHAVIOURS).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn works_on_sqlite() {
    behaves(&mut Sqlite::new(), BEHAVIOURS).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn works_on_redis() {
    if let Some(mut redis) = Redis::start(&[]) {
        behaves(&mut redis, BEHAVIOURS).await;
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn works_on_rabbitmq() {
    if let Some(mut rabbitmq) = RabbitMq::start() {
        behaves(&mut rabbitmq, BEHAVIOURS).await;
    }
}

/// The list.
const BEHAVIOURS: &[(&str, Behaviour)] = &[
    ("what is sent reaches its receivers", |bench| reaches(bench).boxed_local()),
    ("receivers are told of their message", |bench| tells(bench).boxed_local()),
    ("all receivers run, and only those that failed are tried again", |bench| failing::retries(bench).boxed_local()),
    ("a receiver that panics has failed, and its worker lives", |bench| panicking::receivers(bench).boxed_local()),
    ("a payload that panics is alone in that", |bench| panicking::payloads(bench).boxed_local()),
    ("an error that panics is a failure all the same", |bench| panicking::errors(bench).boxed_local()),
    ("a message for a receiver that is gone is parked", |bench| failing::misses(bench).boxed_local()),
    ("what nobody here can run is parked with the reason", |bench| failing::parks(bench).boxed_local()),
    ("a known signal without receivers is acknowledged", |bench| unheard(bench).boxed_local()),
    ("old names are received", |bench| renamed(bench).boxed_local()),
    ("receivers wait for their time", |bench| waits(bench).boxed_local()),
    ("as many messages run at once as are asked for", |bench| at_once(bench).boxed_local()),
    ("a stop finishes what runs and leaves the rest", |bench| stopping::stops(bench).boxed_local()),
    ("a stop gives back what does not end in time", |bench| stopping::gives_back(bench).boxed_local()),
    ("a worker that is dropped gives back what it has", |bench| stopping::is_dropped(bench).boxed_local()),
    ("what is sent in the background arrives", |bench| background(bench).boxed_local()),
    ("a wrong password ends the worker", |bench| wrong_password(bench).boxed_local()),
];

#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
struct OrderPlaced {
    order_id: u64,
    #[serde(default)]
    lines: Vec<String>,
}

fn order(order_id: u64) -> OrderPlaced {
    OrderPlaced { order_id, lines: vec!["a \"quoted\" ü".to_owned()] }
}

/// A signal that no other test has.
fn signal() -> AsyncSignal<OrderPlaced> {
    AsyncSignal::new(name())
}

fn name() -> &'static str {
    static NEXT: AtomicUsize = AtomicUsize::new(0);
    format!("tests.signal_{}", NEXT.fetch_add(1, Ordering::Relaxed)).leak()
}

fn leaked<T>(value: T) -> &'static T {
    Box::leak(Box::new(value))
}

fn celery(bench: &dyn Bench, queue: &str) -> Celery {
    Celery::builder().broker(bench.config()).default_queue(queue).build().expect("a configuration")
}

/// A worker that runs.
struct Working {
    stop: Option<oneshot::Sender<()>>,
    task: JoinHandle<Result<(), WorkerError>>,
}

impl Working {
    fn start(worker: WorkerBuilder) -> Self {
        let (stop, stopped) = oneshot::channel::<()>();
        Self { stop: Some(stop), task: tokio::spawn(worker.run_until(stopped)) }
    }

    async fn stop(mut self) {
        self.stop.take();
        timeout(DEADLINE, self.task).await.expect("it stops in time").expect("no panic").expect("no error");
    }
}

/// Whatever receivers tell a test.
struct Told<T>(mpsc::UnboundedReceiver<T>);

fn telling<T>() -> (mpsc::UnboundedSender<T>, Told<T>) {
    let (tell, told) = mpsc::unbounded_channel();
    (tell, Told(told))
}

impl<T> Told<T> {
    async fn next(&mut self) -> T {
        timeout(DEADLINE, self.0.recv()).await.expect("in time").expect("a receiver")
    }
}

/// Waits until a queue holds something, and takes it.
async fn read(bench: &mut dyn Bench, queue: &str, count: usize) -> Vec<ReadMessage> {
    let mut found = Vec::new();
    let reading = async {
        while found.len() < count {
            found.extend(bench.read(queue).await);
            sleep(Duration::from_millis(10)).await;
        }
    };
    timeout(DEADLINE, reading).await.expect("the messages in time");
    found
}

fn parked(message: &ReadMessage) -> Map<String, Value> {
    Ours::of(&message.headers).parked.expect("a reason")
}

async fn publish(bench: &dyn Bench, queue: &str, message: Message) {
    let config = bench.config();
    let broker = broker::connect(&config, &config.urls[0]).await.expect("a connection");
    assert_ok(&broker.publish(&[outgoing(&Arc::new(Route::to_queue(queue)), message)]).await);
}

async fn reaches(bench: &mut dyn Bench) {
    let (queue, high) = (fresh("queue"), fresh("high"));
    let (signal, urgent) = (leaked(signal()), leaked(signal().queue(high.clone().leak()).priority(9)));
    let (tell, mut told) = telling();
    let also = tell.clone();
    signal.connect(move |order: OrderPlaced| tell.send(("sync", order)).map_err(|_| "nobody listens"));
    urgent.connect(move |order: OrderPlaced| {
        let also = also.clone();
        async move { also.send(("async", order)).map_err(|error| BoxError::from(error.to_string())) }
    });
    let celery = celery(bench, &queue);
    celery.ping().await.expect("an answer");
    let (outcomes, mut ran) = telling();
    // One lane: messages run in their order.
    let working =
        Working::start(Worker::builder(&celery).queues([&queue, &high]).concurrency(1).on_outcome(move |ran| {
            let _ = outcomes.send((ran.id.to_owned(), ran.signal, ran.queue.to_owned()));
        }));
    let mut ids = Vec::new();
    for number in 0..50 {
        let sent = signal.options().via(&celery).send(Sender::NONE, &order(number)).await.expect("sent");
        assert!(sent.responses.is_empty(), "nothing ran here");
        ids.push(sent.id.to_string());
    }
    for (number, id) in (0..).zip(ids) {
        assert_eq!(told.next().await, ("sync", order(number)));
        assert_eq!(ran.next().await, (id, Some(signal.name()), queue.clone()));
    }
    let sent = urgent.options().via(&celery).send(Sender::NONE, &order(50)).await.expect("sent");
    assert_eq!(told.next().await, ("async", order(50)));
    assert_eq!(ran.next().await, (sent.id.to_string(), Some(urgent.name()), high));
    working.stop().await;
    assert_eq!(bench.read(&queue).await, []);
}

async fn tells(bench: &mut dyn Bench) {
    let queue = fresh("queue");
    let (signal, id) = (leaked(signal()), Uuid::new_v4());
    let (tell, mut told) = telling();
    signal.connect_with(
        move |_: OrderPlaced, delivery: Delivery| {
            let _ = tell.send(delivery);
        },
        Connect::new().sender(Sender::model("shop.Order")),
    );
    let trace = || {
        let traceparent = "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01".to_owned();
        Some(TraceContext { traceparent, tracestate: Some("vendor=1".to_owned()) })
    };
    let celery = Celery::builder().broker(bench.config()).default_queue(&queue).trace_context(trace);
    let celery = celery.build().expect("a configuration");
    let before = SystemTime::now();
    signal.options().via(&celery).send(Sender::name("somebody else"), &order(0)).await.expect("sent");
    signal.options().via(&celery).id(id).send(Sender::model("shop.Order"), &order(1)).await.expect("sent");
    let working = Working::start(Worker::builder(&celery));
    let delivery = told.next().await;
    assert_eq!((delivery.id, &*delivery.signal, delivery.queue.as_deref()), (id, signal.name(), Some(&*queue)));
    assert_eq!((delivery.attempt, delivery.redeliveries, delivery.sender), (1, 0, Sender::model("shop.Order")));
    assert_eq!(delivery.traceparent, trace().map(|trace| trace.traceparent));
    assert_eq!(delivery.tracestate.as_deref(), Some("vendor=1"));
    let sent_at = delivery.sent_at.expect("a time");
    assert!(before - Duration::from_secs(1) <= sent_at && sent_at <= SystemTime::now());
    working.stop().await;
}

fn soon(max: u32) -> RetryPolicy {
    RetryPolicy { max, base: 0.05, factor: 1.0, cap: 1.0, jitter: false }
}

async fn unheard(bench: &mut dyn Bench) {
    let queue = fresh("queue");
    let (signal, last) = (leaked(signal()), leaked(signal()));
    let (tell, mut told) = telling();
    last.connect(move |order: OrderPlaced| {
        let _ = tell.send(order.order_id);
    });
    let celery = celery(bench, &queue);
    signal.options().via(&celery).send(Sender::NONE, &order(0)).await.expect("sent");
    last.options().via(&celery).send(Sender::NONE, &order(1)).await.expect("sent");
    let working = Working::start(Worker::builder(&celery).concurrency(1).signal(signal));
    assert_eq!(told.next().await, 1);
    working.stop().await;
    assert_eq!(bench.read(&queue).await, []);
    assert_eq!(bench.read(&format!("{queue}.dead")).await, []);
}

async fn renamed(bench: &mut dyn Bench) {
    let queue = fresh("queue");
    let old = signal();
    let new = leaked(signal().aliases(leaked([old.name()])));
    let (tell, mut told) = telling();
    new.connect(move |_: OrderPlaced, delivery: Delivery| {
        let _ = tell.send(delivery.signal);
    });
    let celery = celery(bench, &queue);
    old.options().via(&celery).send(Sender::NONE, &order(0)).await.expect("sent");
    let working = Working::start(Worker::builder(&celery));
    assert_eq!(told.next().await, old.name());
    working.stop().await;
}

async fn waits(bench: &mut dyn Bench) {
    let queue = fresh("queue");
    let signal = leaked(signal());
    let (tell, mut told) = telling();
    signal.connect(move |order: OrderPlaced| {
        let _ = tell.send((order.order_id, SystemTime::now()));
    });
    let celery = celery(bench, &queue);
    let due = SystemTime::now() + Duration::from_millis(500);
    let options = || signal.options().via(&celery);
    options().eta(due).send(Sender::NONE, &order(1)).await.expect("sent");
    options().countdown(Duration::from_secs(1)).send(Sender::NONE, &order(2)).await.expect("sent");
    options().expires_at(SystemTime::UNIX_EPOCH).send(Sender::NONE, &order(3)).await.expect("sent");
    options().expires(Duration::from_secs(3600)).send(Sender::NONE, &order(4)).await.expect("sent");
    let working = Working::start(Worker::builder(&celery));
    assert_eq!(told.next().await.0, 4, "what is due does not wait behind what is not");
    let (first, at) = told.next().await;
    assert!(first == 1 && at >= due);
    let (second, at) = told.next().await;
    assert!(second == 2 && at >= due + Duration::from_millis(500));
    working.stop().await;
    assert!(told.0.try_recv().is_err(), "what expired did not run");
}

async fn at_once(bench: &mut dyn Bench) {
    let queue = fresh("queue");
    let signal = leaked(signal());
    let meeting = leaked(tokio::sync::Barrier::new(4));
    let (tell, mut told) = telling();
    signal.connect(move |order: OrderPlaced| {
        let tell = tell.clone();
        async move {
            meeting.wait().await;
            let _ = tell.send(order.order_id);
        }
    });
    let celery = celery(bench, &queue);
    for number in 0..8 {
        signal.options().via(&celery).send(Sender::NONE, &order(number)).await.expect("sent");
    }
    let working = Working::start(Worker::builder(&celery).concurrency(4));
    for _ in 0..8 {
        told.next().await;
    }
    working.stop().await;
}

/// A signal whose receiver says that it began, and ends when it is let go.
async fn background(bench: &mut dyn Bench) {
    let queue = fresh("queue");
    let signal = leaked(signal().durability(Durability::Background));
    let celery = celery(bench, &queue);
    for number in 0..100 {
        signal.options().via(&celery).send(Sender::NONE, &order(number)).await.expect("buffered");
    }
    celery.shutdown(DEADLINE).await.expect("all confirmed");
    assert_eq!(bench.read(&queue).await.len(), 100);
    let late = signal.options().via(&celery).send(Sender::NONE, &order(0)).await;
    assert!(late.expect_err("it is shut down").to_string().contains("closed"));
}

async fn wrong_password(bench: &mut dyn Bench) {
    if bench.server().is_none() {
        return;
    }
    let right = &bench.config().urls[0];
    let scheme = right.scheme_name();
    let url = format!("{scheme}://nobody:wrong@{}:{}", right.host(), right.port());
    let celery = Celery::new(&url).expect("a URL");
    let refused = |error: &BrokerError| matches!(error, BrokerError::Authentication { .. });
    match timeout(DEADLINE, Worker::builder(&celery).run_until(std::future::pending::<()>())).await {
        Ok(Err(WorkerError::Broker(error))) => assert!(refused(&error), "{error}"),
        other => panic!("{other:?}"),
    }
    let error = Celery::connect(&url).await.expect_err("the same");
    assert!(!error.to_string().contains("wrong@"), "{error}");
}
