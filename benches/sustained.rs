//! How many messages a second the publisher gets confirmed, beside a bare loop
//! over lapin with 1,024 confirms outstanding. `cargo bench --bench sustained -- URL`
//! prints one JSON object; `benches/run.py` sets it beside `redis-benchmark`.

use std::{
    collections::VecDeque,
    sync::Arc,
    time::{Duration, Instant},
};

use async_signals::{
    broker::BrokerConfig,
    message::{Headers, Message, Outgoing, Properties, Route},
    protocol::{
        celery::{CommonHeaders, TaskHeaders, Template},
        kombu,
    },
    publisher::{Publisher, PublisherConfig},
};
use bytes::Bytes;
use lapin::{
    BasicProperties, Connection, ConnectionProperties,
    options::{BasicPublishOptions, ConfirmSelectOptions, QueueDeclareOptions, QueuePurgeOptions},
    types::FieldTable,
};
use uuid::Uuid;

const QUEUE: &str = "sustained";
const MESSAGES: usize = 60_000;
const ROUNDS: usize = 3;
const BODY: &[u8] = br#"[["bench.order_placed",null],{"order_id":5,"email":"ada@example.org","express":true},{"callbacks":null,"errbacks":null,"chain":null,"chord":null}]"#;

/// One signal's way out: what its messages share, as the binding keeps it.
struct MessageTemplate {
    route: Arc<Route>,
    headers: Arc<CommonHeaders>,
    properties: Properties,
}

impl MessageTemplate {
    fn new() -> Self {
        let template = Template {
            argsrepr: "('bench.order_placed', ...)".to_owned(),
            kwargsrepr: "{...}".to_owned(),
            origin: "gen1@bench".to_owned(),
            ignore_result: true,
            queue: QUEUE.to_owned(),
            ..Template::default()
        };
        Self {
            route: Arc::new(Route::to_queue(QUEUE)),
            headers: Arc::new(CommonHeaders::new(template).expect("values of JSON")),
            properties: Properties::for_task(Uuid::nil()),
        }
    }

    fn outgoing(&self, publisher: &Publisher) -> Outgoing {
        let id = publisher.next_id();
        let common = self.headers.clone();
        let headers = TaskHeaders { common, id, root_id: None, parent_id: None, sent_at: 1_700_000_000.25 };
        let message = Message {
            id,
            headers: Headers::Task(Box::new(headers)),
            properties: Properties { correlation_id: id.to_string(), ..self.properties.clone() },
            body: Bytes::from_static(BODY),
        };
        Outgoing { route: self.route.clone(), message }
    }
}

/// Messages a second through the publisher, from the first send until all are confirmed.
fn ours(url: &str) -> f64 {
    let mut config = PublisherConfig::new(BrokerConfig::new(url).expect("a URL"));
    config.buffer_messages = MESSAGES;
    config.buffer_bytes = usize::MAX;
    let publisher = Publisher::start(config).expect("a thread");
    let template = MessageTemplate::new();
    publisher.send(template.outgoing(&publisher), None).expect("open").wait().expect("confirmed");
    let start = Instant::now();
    for _ in 0..MESSAGES {
        publisher.buffer(template.outgoing(&publisher)).expect("room");
    }
    publisher.flush(Duration::from_secs(120)).expect("open").wait().expect("all confirmed");
    MESSAGES as f64 / start.elapsed().as_secs_f64()
}

/// Messages a second through lapin alone, with as much on them.
async fn bare_lapin(url: &str) -> f64 {
    let connection = Connection::connect(url, ConnectionProperties::default()).await.expect("connected");
    let channel = connection.create_channel().await.expect("a channel");
    channel.confirm_select(ConfirmSelectOptions::default()).await.expect("confirms");
    let options = QueueDeclareOptions { durable: true, ..Default::default() };
    channel.queue_declare(QUEUE.into(), options, FieldTable::default()).await.expect("a queue");
    channel.queue_purge(QUEUE.into(), QueuePurgeOptions::default()).await.expect("purged");
    let properties = BasicProperties::default()
        .with_content_type("application/json".into())
        .with_content_encoding("utf-8".into())
        .with_delivery_mode(2)
        .with_priority(0);
    // A task's headers are about as long as this.
    let mut headers = FieldTable::default();
    headers.insert("headers".into(), lapin::types::AMQPValue::LongString("x".repeat(700).into()));
    let properties = properties.with_headers(headers);
    let publish = BasicPublishOptions { mandatory: true, ..Default::default() };
    let mut outstanding = VecDeque::with_capacity(1024);
    let start = Instant::now();
    for _ in 0..MESSAGES {
        if outstanding.len() == 1024 {
            let oldest: lapin::PublisherConfirm = outstanding.pop_front().expect("not empty");
            oldest.await.expect("confirmed");
        }
        let sent = channel.basic_publish("".into(), QUEUE.into(), publish, BODY, properties.clone()).await;
        outstanding.push_back(sent.expect("sent"));
    }
    for confirm in outstanding {
        confirm.await.expect("confirmed");
    }
    let rate = MESSAGES as f64 / start.elapsed().as_secs_f64();
    channel.queue_purge(QUEUE.into(), QueuePurgeOptions::default()).await.expect("purged");
    connection.close(200, "".into()).await.expect("closed");
    rate
}

fn main() {
    // Without a URL (as `cargo test` and `cargo bench` call it) there is nothing to measure against.
    let Some(url) = std::env::args().skip(1).find(|argument| argument.contains("://")) else {
        println!("name a broker: cargo bench --bench sustained -- redis://127.0.0.1:6379/0");
        return;
    };
    let runtime =
        tokio::runtime::Builder::new_multi_thread().worker_threads(2).enable_all().build().expect("a runtime");
    let (mut published, mut bare) = (Vec::new(), Vec::new());
    for _ in 0..ROUNDS {
        if url.starts_with("amqp") {
            bare.push(runtime.block_on(bare_lapin(&url)));
        }
        published.push(ours(&url));
    }
    let publisher =
        Publisher::start(PublisherConfig::new(BrokerConfig::new("memory://").expect("a URL"))).expect("a thread");
    let sample = MessageTemplate::new().outgoing(&publisher);
    let mut envelope = Vec::new();
    kombu::write_envelope(&mut envelope, &sample.message, "", QUEUE, sample.message.id).expect("an envelope");
    println!("{}", serde_json::json!({"ours": published, "bare_lapin": bare, "envelope_bytes": envelope.len()}));
}
