//! How many messages a second are taken and acknowledged on RabbitMQ, through
//! the `Consumer` and through lapin alone, with the same prefetch and as many
//! messages for each acknowledgement. `cargo bench --bench consuming -- URL`
//! prints one JSON object.

use std::{
    sync::Arc,
    time::{Duration, Instant},
};

use async_signals::{
    broker::{self, BrokerConfig, Content, Subscription},
    message::{Headers, Message, Outgoing, Properties, Queue, Route},
    protocol::celery::{CommonHeaders, TaskHeaders, Template},
    publisher::{Publisher, PublisherConfig},
};
use bytes::Bytes;
use futures_util::StreamExt;
use lapin::{
    Connection, ConnectionProperties,
    options::{BasicAckOptions, BasicConsumeOptions, BasicQosOptions},
    types::FieldTable,
};

const QUEUE: &str = "consuming";
const MESSAGES: usize = 30_000;
const ROUNDS: usize = 3;
const PREFETCH: u16 = 512;
/// How many messages one acknowledgement is for.
const TOGETHER: usize = 64;
const BODY: &[u8] = br#"[["bench.order_placed",null],{"order_id":5,"email":"ada@example.org","express":true},{"callbacks":null,"errbacks":null,"chain":null,"chord":null}]"#;

/// A queue full of signals.
fn fill(url: &str) {
    let mut config = PublisherConfig::new(BrokerConfig::new(url).expect("a URL"));
    config.buffer_messages = MESSAGES;
    config.buffer_bytes = usize::MAX;
    let publisher = Publisher::start(config).expect("a thread");
    let template = Template {
        argsrepr: "('bench.order_placed', ...)".to_owned(),
        kwargsrepr: "{...}".to_owned(),
        origin: "gen1@bench".to_owned(),
        ignore_result: true,
        queue: QUEUE.to_owned(),
        ..Template::default()
    };
    let common = Arc::new(CommonHeaders::new(template).expect("values of JSON"));
    let route = Arc::new(Route::to_queue(QUEUE));
    for _ in 0..MESSAGES {
        let id = publisher.next_id();
        let headers = TaskHeaders { common: common.clone(), id, root_id: None, parent_id: None, sent_at: 1.5 };
        let message = Message {
            id,
            headers: Headers::Task(Box::new(headers)),
            properties: Properties::for_task(id),
            body: Bytes::from_static(BODY),
        };
        publisher.buffer(Outgoing { route: route.clone(), message }).expect("room");
    }
    publisher.flush(Duration::from_secs(120)).expect("open").wait().expect("all confirmed");
}

/// Messages a second through the consumer.
async fn ours(url: &str) -> f64 {
    let config = BrokerConfig::new(url).expect("a URL");
    let subscription = Subscription {
        queues: vec![Queue::direct(QUEUE)],
        worker: "bench".to_owned(),
        generation: 1,
        held: Vec::new(),
        prefetch: PREFETCH.into(),
    };
    let start = Instant::now();
    let consumer = broker::consume(&config, &config.urls[0], subscription).await.expect("a connection");
    let (mut done, mut count) = (Vec::new(), 0);
    while count < MESSAGES {
        let taken = consumer.take(&done, TOGETHER).await.expect("messages");
        assert!(taken.iter().all(|message| matches!(message.content, Content::Message(_))));
        count += taken.len();
        done.clear();
        done.extend(taken.iter().map(|message| message.tag));
    }
    consumer.acknowledge(&done).await.expect("acknowledged");
    let rate = count as f64 / start.elapsed().as_secs_f64();
    consumer.close().await;
    rate
}

/// Messages a second through lapin alone, as bytes.
async fn bare(url: &str) -> f64 {
    let start = Instant::now();
    let connection = Connection::connect(url, ConnectionProperties::default()).await.expect("connected");
    let channel = connection.create_channel().await.expect("a channel");
    channel.basic_qos(PREFETCH, BasicQosOptions::default()).await.expect("a prefetch");
    let options = BasicConsumeOptions::default();
    let mut consumer =
        channel.basic_consume(QUEUE.into(), "bare".into(), options, FieldTable::default()).await.expect("a consumer");
    for count in 1..=MESSAGES {
        let delivery = consumer.next().await.expect("open").expect("a message");
        if count % TOGETHER == 0 || count == MESSAGES {
            delivery.ack(BasicAckOptions { multiple: true }).await.expect("acknowledged");
        }
    }
    let rate = MESSAGES as f64 / start.elapsed().as_secs_f64();
    connection.close(200, "".into()).await.expect("closed");
    rate
}

fn main() {
    // Without a URL (as `cargo test` and `cargo bench` call it) there is nothing to measure against.
    let Some(url) = std::env::args().skip(1).find(|argument| argument.contains("://")) else {
        println!("name a broker: cargo bench --bench consuming -- amqp://guest:guest@127.0.0.1:5672/");
        return;
    };
    let runtime =
        tokio::runtime::Builder::new_multi_thread().worker_threads(2).enable_all().build().expect("a runtime");
    let (mut taken, mut raw) = (Vec::new(), Vec::new());
    for _ in 0..ROUNDS {
        fill(&url);
        raw.push(runtime.block_on(bare(&url)));
        fill(&url);
        taken.push(runtime.block_on(ours(&url)));
    }
    println!("{}", serde_json::json!({"ours": taken, "bare": raw}));
}
