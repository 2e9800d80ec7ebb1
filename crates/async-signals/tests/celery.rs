//! The Celery app of a Rust program: what it is made of, and the bytes that it
//! makes.

use std::time::{Duration, SystemTime};

use async_signals::{
    AsyncSignal, Celery, ConfigError, Durability, SendError, Sender, Worker,
    broker::{BrokerError, BrokerUrl, memory::Memory},
    celery::TraceContext,
    message::{Exchange, Headers, Message, Properties, Queue},
    protocol::time,
    publisher::PublishError,
    worker::WorkerError,
};
use serde::{Deserialize, Serialize};
use serde_json::{Map, Value};

#[derive(Serialize, Deserialize)]
struct OrderPlaced {
    order_id: u64,
}

const ORDER: OrderPlaced = OrderPlaced { order_id: 5 };
static ORDER_PLACED: AsyncSignal<OrderPlaced> = AsyncSignal::new("shop.signals.order_placed");

fn sent(url: &str, queue: &str) -> Message {
    let url: BrokerUrl = url.parse().expect("a URL");
    let mut messages = Memory::connect(&url).drain(queue);
    assert_eq!(messages.len(), 1, "in {queue}");
    messages.remove(0)
}

fn headers(message: &Message) -> Map<String, Value> {
    match &message.headers {
        Headers::Raw(headers) => headers.clone(),
        Headers::Task(headers) => match serde_json::to_value(headers) {
            Ok(Value::Object(headers)) => headers,
            other => panic!("{other:?}"),
        },
    }
}

#[tokio::test]
async fn makes_the_message_that_celery_makes() {
    let url = "memory://celery-message";
    let celery = Celery::new(url).expect("a URL");
    let id = ORDER_PLACED.options().via(&celery).send(Sender::name("shop.Order"), &ORDER).await.expect("sent").id;
    let message = sent(url, "celery");
    let ours = headers(&message);
    let captured: Value = serde_json::from_str(include_str!("fixtures/celery-5.7-redis-plain.json")).expect("JSON");
    let theirs = captured["headers"].as_object().expect("headers");
    // Everything that Celery writes, in its order and of its kind, and ours behind it.
    let names = |headers: &Map<String, Value>| headers.keys().cloned().collect::<Vec<_>>();
    assert_eq!(names(&ours)[..theirs.len()], names(theirs));
    assert_eq!(names(&ours)[theirs.len()..], ["async_signals"]);
    for (name, value) in theirs {
        let own = ["id", "root_id", "argsrepr", "kwargsrepr", "origin"];
        assert!(own.contains(&&**name) && ours[name].is_string() || ours[name] == *value, "{name}: {}", ours[name]);
    }
    assert_eq!((ours["id"].as_str(), &ours["root_id"]), (Some(&*id.to_string()), &ours["id"]));
    assert_eq!(ours["async_signals"]["queue"], "celery");
    assert!(!format!("{}{}", ours["argsrepr"], ours["kwargsrepr"]).contains('5'), "no values where monitors look");
    let Properties { content_type, content_encoding, delivery_mode, priority, correlation_id, reply_to, expiration_ms } =
        &message.properties;
    assert_eq!((&**content_type, &**content_encoding, *delivery_mode), ("application/json", "utf-8", 2));
    assert_eq!((*priority, correlation_id, *expiration_ms), (0, &id.to_string(), None));
    assert_eq!(reply_to.as_deref().map(str::len), Some(36));
    let body: Value = serde_json::from_slice(&message.body).expect("JSON");
    assert_eq!(body[0], serde_json::json!(["shop.signals.order_placed", "shop.Order"]));
    assert_eq!(body[1], serde_json::json!({"order_id": 5}));
}

#[tokio::test]
async fn options_are_for_one_send() {
    let url = "memory://celery-options";
    let celery = Celery::builder().broker_url(url).default_priority(3).build().expect("a URL");
    let (eta, minute) = (SystemTime::UNIX_EPOCH + Duration::from_secs(4_000_000_000), Duration::from_secs(60));
    let options = ORDER_PLACED.options().via(&celery).eta(eta).expires(minute).priority(9).queue("special");
    options.traceparent("00-aa-bb-01").send(Sender::NONE, &ORDER).await.expect("sent");
    let message = sent(url, "special");
    let special = headers(&message);
    assert_eq!(time::read(&special, "eta").expect("a time"), Some(eta));
    let expires = time::read(&special, "expires").expect("a time").expect("one");
    let left = expires.duration_since(SystemTime::now()).expect("in the future");
    assert!(left <= minute && left > minute / 2);
    assert_eq!((message.properties.priority, message.properties.expiration_ms), (9, Some(60_000)));
    assert_eq!((&special["traceparent"], special.get("tracestate")), (&Value::from("00-aa-bb-01"), None));
    assert_eq!(special["async_signals"]["queue"], "special");

    ORDER_PLACED.options().via(&celery).send(Sender::NONE, &ORDER).await.expect("sent");
    let message = sent(url, "celery");
    let usual = headers(&message);
    assert_eq!((&usual["eta"], &usual["expires"], usual.get("traceparent")), (&Value::Null, &Value::Null, None));
    assert_eq!((message.properties.priority, message.properties.expiration_ms), (3, None));
    let never = ORDER_PLACED.options().via(&celery).countdown(Duration::MAX).send(Sender::NONE, &ORDER).await;
    assert!(matches!(never, Err(SendError::NeverDue { .. })), "{never:?}");
}

#[tokio::test]
async fn signals_go_where_they_are_routed() {
    static OWN: AsyncSignal<OrderPlaced> = AsyncSignal::new("shop.signals.own").queue("own");
    static BLOG: AsyncSignal<OrderPlaced> = AsyncSignal::new("blog.signals.post_placed");
    let url = "memory://celery-routes";
    let topic = Exchange { kind: "topic".to_owned(), ..Exchange::direct("shop") };
    let celery = Celery::builder()
        .broker_url(url)
        .queue(Queue::direct("orders").bound_to(topic, "order.placed"))
        .queue(Queue::direct("own"))
        .route("shop.*", "orders")
        .route("*", "rest")
        .create_missing_queues(false)
        .build()
        .expect("a configuration");
    assert_eq!(celery.queues(), ["orders", "own"]);
    for (signal, queue) in [(&ORDER_PLACED, "orders"), (&OWN, "own")] {
        signal.options().via(&celery).send(Sender::NONE, &ORDER).await.expect("sent");
        assert_eq!(headers(&sent(url, queue))["async_signals"]["queue"], queue);
    }
    match BLOG.options().via(&celery).send(Sender::NONE, &ORDER).await {
        Err(SendError::UnknownQueue { signal, queue }) => assert_eq!((signal, &*queue), (BLOG.name(), "rest")),
        other => panic!("{other:?}"),
    }
}

#[tokio::test]
async fn a_queue_has_a_name() {
    let celery = Celery::new("memory://celery-names").expect("a URL");
    for name in ["", "a\nb", &"x".repeat(256)] {
        match ORDER_PLACED.options().via(&celery).queue(name).send(Sender::NONE, &ORDER).await {
            Err(SendError::QueueName { queue, .. }) => assert_eq!(queue, name),
            other => panic!("{other:?}"),
        }
        match Worker::builder(&celery).queues([name]).run_until(std::future::ready(())).await {
            Err(WorkerError::Config(ConfigError::QueueName { name: refused })) => assert_eq!(refused, name),
            other => panic!("{other:?}"),
        }
    }
}

#[tokio::test]
async fn one_signal_goes_through_several_apps() {
    let [one, other] = ["memory://celery-one", "memory://celery-other"];
    for url in [one, other, one] {
        let celery = Celery::new(url).expect("a URL");
        ORDER_PLACED.options().via(&celery).send(Sender::NONE, &ORDER).await.expect("sent");
        sent(url, "celery");
    }
}

#[test]
fn sends_without_a_runtime() {
    let url = "memory://celery-blocking";
    let trace = || Some(TraceContext { traceparent: "00-cc-dd-00".to_owned(), tracestate: Some("v=1".to_owned()) });
    let celery = Celery::builder().broker_url(url).trace_context(trace).build().expect("a URL");
    ORDER_PLACED.options().via(&celery).send_blocking(Sender::NONE, &ORDER).expect("sent");
    let headers = headers(&sent(url, "celery"));
    assert_eq!((&headers["traceparent"], &headers["tracestate"]), (&"00-cc-dd-00".into(), &"v=1".into()));
    let background = ORDER_PLACED.options().via(&celery).durability(Durability::Background);
    background.send_blocking(Sender::NONE, &ORDER).expect("buffered");
    celery.flush_blocking(Duration::from_secs(30)).expect("all confirmed");
    sent(url, "celery");
}

#[tokio::test]
async fn a_send_ends_within_its_time() {
    // Nobody answers there: the address is kept for documentation.
    let celery = Celery::builder().broker_url("amqp://192.0.2.1").publish_timeout(Duration::from_millis(200));
    let celery = celery.build().expect("a URL");
    let begun = std::time::Instant::now();
    match ORDER_PLACED.options().via(&celery).send(Sender::NONE, &ORDER).await {
        Err(error @ SendError::NotSent { .. }) => assert!(!error.may_have_arrived(), "{error}"),
        other => panic!("{other:?}"),
    }
    let error = celery.ping().await.expect_err("nobody answers");
    assert!(matches!(error, ConfigError::Broker(BrokerError::Connect { .. })), "{error}");
    assert!(begun.elapsed() < Duration::from_secs(5));
}

#[tokio::test]
async fn says_what_is_wrong_with_its_configuration() {
    assert!(matches!(Celery::builder().build(), Err(ConfigError::NotConfigured)));
    assert!(matches!(Celery::new(" ; "), Err(ConfigError::NotConfigured)));
    assert!(matches!(Celery::new("kafka://me:secret@h"), Err(ConfigError::Broker(BrokerError::Unsupported { .. }))));
    let nameless = Celery::builder().broker_url("memory://").route("*", "");
    assert!(matches!(nameless.build(), Err(ConfigError::QueueName { .. })));
    let celery = Celery::new("amqp://me:secret@h").expect("a URL");
    assert!(!format!("{celery:?} {:?}", Celery::builder().broker_url("amqp://me:secret@h")).contains("secret"));

    let small = Celery::builder().broker_url("memory://celery-small").max_message_bytes(64).build().expect("a URL");
    let large = ORDER_PLACED.options().via(&small).send(Sender::NONE, &ORDER).await;
    assert!(matches!(large, Err(SendError::Payload { .. })), "{large:?}");
}

#[tokio::test]
async fn one_app_is_the_process_s() {
    let url = "memory://celery-installed";
    assert!(Celery::current().is_none());
    let celery = Celery::new(url).expect("a URL");
    celery.install().expect("the first");
    assert!(matches!(Celery::new(url).expect("a URL").install(), Err(ConfigError::AlreadyInstalled)));
    assert!(Celery::current().is_some());
    static INSTALLED: AsyncSignal<OrderPlaced> = AsyncSignal::new("shop.signals.installed");
    INSTALLED.connect(|order: OrderPlaced| assert_ne!(order.order_id, 5, "nothing runs here"));
    INSTALLED.send(Sender::NONE, &ORDER).await.expect("sent");
    sent(url, "celery");
    celery.shutdown(Duration::from_secs(5)).await.expect("nothing was under way");
    match INSTALLED.send(Sender::NONE, &ORDER).await {
        Err(SendError::NotSent { source: PublishError::Closed, .. }) => {}
        other => panic!("it does not run here either: {other:?}"),
    }
}
