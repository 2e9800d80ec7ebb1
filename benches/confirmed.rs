//! How many confirmed sends a second 256 tasks make over one connection, beside
//! as many tasks that publish as much through lapin or the redis crate alone.
//! `cargo bench --bench confirmed -- URL [COUNT]` prints one JSON object. The
//! queue `confirmed` on that broker is emptied before and after.

use std::{sync::Arc, time::Instant};

use async_signals::{
    AsyncSignal, Celery, Sender,
    message::{Headers, Message, Properties},
    protocol::{
        celery::{CommonHeaders, TaskHeaders, Template},
        kombu,
    },
};
use bytes::Bytes;
use lapin::{
    BasicProperties, Channel, Connection, ConnectionProperties,
    options::{BasicPublishOptions, ConfirmSelectOptions, QueueDeclareOptions, QueuePurgeOptions},
    types::{AMQPValue, FieldTable},
};
use redis::aio::MultiplexedConnection;
use serde::{Deserialize, Serialize};
use tokio::task::JoinSet;
use uuid::Uuid;

const QUEUE: &str = "confirmed";
const TASKS: usize = 256;
const MESSAGES: usize = 60_000;
const ROUNDS: usize = 3;
const BODY: &[u8] = br#"[["bench.order_placed",null],{"order_id":5,"email":"ada@example.org","express":true},{"callbacks":null,"errbacks":null,"chain":null,"chord":null}]"#;

#[derive(Serialize, Deserialize)]
struct OrderPlaced {
    order_id: u64,
    email: String,
    express: bool,
}

static ORDER_PLACED: AsyncSignal<OrderPlaced> = AsyncSignal::new("bench.order_placed").queue(QUEUE);

/// What one signal weighs on Redis.
fn envelope() -> Bytes {
    let id = Uuid::new_v4();
    let template = Template {
        argsrepr: "('bench.order_placed', ...)".to_owned(),
        kwargsrepr: "{...}".to_owned(),
        origin: "gen1@bench".to_owned(),
        ignore_result: true,
        queue: QUEUE.to_owned(),
        ..Template::default()
    };
    let common = Arc::new(CommonHeaders::new(template).expect("values of JSON"));
    let headers = TaskHeaders { common, id, root_id: None, parent_id: None, sent_at: 1_700_000_000.25 };
    let message = Message {
        id,
        headers: Headers::Task(Box::new(headers)),
        properties: Properties::for_task(id),
        body: Bytes::from_static(BODY),
    };
    let mut envelope = Vec::new();
    kombu::write_envelope(&mut envelope, &message, "", QUEUE, id).expect("an envelope");
    envelope.into()
}

/// Runs as many tasks, each of which does its share one after the other; how many a second.
async fn together<F: Future<Output = ()> + Send + 'static>(messages: usize, task: impl Fn(usize) -> F) -> f64 {
    let share = messages / TASKS;
    let start = Instant::now();
    let mut tasks = JoinSet::new();
    for _ in 0..TASKS {
        tasks.spawn(task(share));
    }
    while let Some(ended) = tasks.join_next().await {
        ended.expect("no panic");
    }
    messages as f64 / start.elapsed().as_secs_f64()
}

async fn ours(url: &str, messages: usize) -> f64 {
    let celery = Celery::connect(url).await.expect("a broker");
    let order = Arc::new(OrderPlaced { order_id: 5, email: "ada@example.org".to_owned(), express: true });
    ORDER_PLACED.options().via(&celery).send(Sender::NONE, &order).await.expect("connected");
    together(messages, |share| {
        let (celery, order) = (celery.clone(), order.clone());
        async move {
            for _ in 0..share {
                ORDER_PLACED.options().via(&celery).send(Sender::NONE, &order).await.expect("confirmed");
            }
        }
    })
    .await
}

/// Either client alone, with one connection open.
enum Bare {
    Lapin(Box<(Connection, Channel)>),
    Redis(MultiplexedConnection),
}

impl Bare {
    async fn connect(url: &str) -> Self {
        if !url.starts_with("amqp") {
            let client = redis::Client::open(url).expect("a URL");
            return Self::Redis(client.get_multiplexed_async_connection().await.expect("connected"));
        }
        let connection = Connection::connect(url, ConnectionProperties::default()).await.expect("connected");
        let channel = connection.create_channel().await.expect("a channel");
        channel.confirm_select(ConfirmSelectOptions::default()).await.expect("confirms");
        let options = QueueDeclareOptions { durable: true, ..Default::default() };
        channel.queue_declare(QUEUE.into(), options, FieldTable::default()).await.expect("a queue");
        Self::Lapin(Box::new((connection, channel)))
    }

    async fn empty(&self) {
        match self {
            Self::Lapin(lapin) => {
                lapin.1.queue_purge(QUEUE.into(), QueuePurgeOptions::default()).await.expect("purged");
            }
            Self::Redis(connection) => {
                let _: () = redis::cmd("DEL").arg(QUEUE).query_async(&mut connection.clone()).await.expect("deleted");
            }
        }
    }

    /// How many messages wait in the queue.
    async fn waiting(&self) -> usize {
        match self {
            Self::Lapin(lapin) => {
                let options = QueueDeclareOptions { passive: true, ..Default::default() };
                let queue = lapin.1.queue_declare(QUEUE.into(), options, FieldTable::default()).await;
                queue.expect("a queue").message_count() as usize
            }
            Self::Redis(connection) => {
                redis::cmd("LLEN").arg(QUEUE).query_async(&mut connection.clone()).await.expect("a length")
            }
        }
    }

    async fn close(self) {
        self.empty().await;
        if let Self::Lapin(lapin) = self {
            lapin.0.close(200, "".into()).await.expect("closed");
        }
    }

    async fn rate(&self, messages: usize) -> f64 {
        match self {
            Self::Lapin(lapin) => {
                let channel = &lapin.1;
                let mut headers = FieldTable::default();
                // A task's headers are about as long as this.
                headers.insert("headers".into(), AMQPValue::LongString("x".repeat(700).into()));
                let properties = BasicProperties::default()
                    .with_content_type("application/json".into())
                    .with_content_encoding("utf-8".into())
                    .with_delivery_mode(2)
                    .with_priority(0)
                    .with_headers(headers);
                let options = BasicPublishOptions { mandatory: true, ..Default::default() };
                together(messages, |share| {
                    let (channel, properties) = (channel.clone(), properties.clone());
                    async move {
                        for _ in 0..share {
                            let sent =
                                channel.basic_publish("".into(), QUEUE.into(), options, BODY, properties.clone()).await;
                            sent.expect("sent").await.expect("confirmed");
                        }
                    }
                })
                .await
            }
            Self::Redis(connection) => {
                let envelope = envelope();
                together(messages, |share| {
                    let (mut connection, envelope) = (connection.clone(), envelope.clone());
                    async move {
                        for _ in 0..share {
                            let mut push = redis::cmd("LPUSH");
                            push.arg(QUEUE).arg(&*envelope);
                            let _: u64 = push.query_async(&mut connection).await.expect("pushed");
                        }
                    }
                })
                .await
            }
        }
    }
}

fn main() {
    // Without a URL (as `cargo test` and `cargo bench` call it) there is nothing to measure against.
    let mut arguments = std::env::args().skip(1).skip_while(|argument| !argument.contains("://"));
    let Some(url) = arguments.next() else {
        println!("name a broker: cargo bench --bench confirmed -- redis://127.0.0.1:6379/0");
        return;
    };
    let messages = arguments.find_map(|argument| argument.parse().ok()).unwrap_or(MESSAGES).div_ceil(TASKS) * TASKS;
    let runtime =
        tokio::runtime::Builder::new_multi_thread().worker_threads(2).enable_all().build().expect("a runtime");
    let (mut confirmed, mut raw) = (Vec::new(), Vec::new());
    runtime.block_on(async {
        let bare = Bare::connect(&url).await;
        for _ in 0..ROUNDS {
            bare.empty().await;
            raw.push(bare.rate(messages).await);
            assert_eq!(bare.waiting().await, messages, "all that was sent is there");
            bare.empty().await;
            confirmed.push(ours(&url, messages).await);
            assert_eq!(bare.waiting().await, messages + 1, "all that was sent is there, the first one included");
        }
        bare.close().await;
    });
    println!("{}", serde_json::json!({"ours": confirmed, "bare": raw, "tasks": TASKS}));
}
