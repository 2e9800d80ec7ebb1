//! How many messages a second are taken and acknowledged, 256 at once, through
//! the `Consumer` (in two requests, as a worker does) and through a bare loop
//! over the redis crate that runs the same script. `cargo bench --bench taking -- URL` prints one JSON object.

use std::{collections::VecDeque, sync::Arc, time::Instant};

use async_signals::{
    broker::{self, BrokerConfig, Content, Subscription, Tag},
    message::{Headers, Message, Properties, Queue},
    protocol::{
        celery::{CommonHeaders, TaskHeaders, Template},
        kombu,
    },
};
use bytes::Bytes;
use futures_util::FutureExt;
use redis::{Value, aio::MultiplexedConnection};
use uuid::Uuid;

const QUEUE: &str = "taking";
const MESSAGES: usize = 100_000;
const ROUNDS: usize = 5;
const BATCH: usize = 256;
const STEPS: [&str; 4] = ["", "\x06\x163", "\x06\x166", "\x06\x169"];
const TAKE: &str = include_str!("../crates/async-signals/src/broker/redis/scripts/take.lua");
const BODY: &[u8] = br#"[["bench.order_placed",null],{"order_id":5,"email":"ada@example.org","express":true},{"callbacks":null,"errbacks":null,"chain":null,"chord":null}]"#;

/// A signal's envelope.
fn envelope() -> Vec<u8> {
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
    envelope
}

/// A queue full of messages, and nothing else.
async fn fill(connection: &mut MultiplexedConnection) {
    let envelope = envelope();
    let _: () = redis::cmd("FLUSHDB").query_async(connection).await.expect("flushed");
    for _ in 0..MESSAGES / 1000 {
        let mut push = redis::cmd("LPUSH");
        push.arg(QUEUE);
        (0..1000).for_each(|_| {
            push.arg(&envelope);
        });
        let _: () = push.query_async(connection).await.expect("pushed");
    }
}

/// Messages a second through the consumer, parsed.
async fn ours(url: &str) -> f64 {
    let config = BrokerConfig::new(url).expect("a URL");
    let subscription = Subscription {
        queues: vec![Queue::direct(QUEUE)],
        worker: "bench".to_owned(),
        generation: 1,
        held: Vec::new(),
        prefetch: BATCH,
    };
    let consumer = broker::consume(&config, &config.urls[0], subscription).await.expect("a connection");
    let take = |done: Vec<Tag>| {
        let consumer = consumer.clone();
        let mut request = async move { consumer.take_ready(&done, BATCH / 2).await }.boxed();
        // Polled once, it is on its way.
        assert!((&mut request).now_or_never().is_none());
        request
    };
    let mut count = 0;
    let start = Instant::now();
    let mut requests = VecDeque::from([take(Vec::new()), take(Vec::new())]);
    while let Some(request) = requests.pop_front() {
        let taken = request.await.expect("messages");
        assert!(taken.iter().all(|message| matches!(message.content, Content::Message(_))));
        count += taken.len();
        let done: Vec<_> = taken.iter().map(|message| message.tag).collect();
        if count < MESSAGES {
            requests.push_back(take(done));
        } else {
            consumer.acknowledge(&done).await.expect("acknowledged");
        }
    }
    let rate = count as f64 / start.elapsed().as_secs_f64();
    consumer.close().await;
    rate
}

/// Messages a second through the redis crate alone, as bytes.
async fn bare(connection: &mut MultiplexedConnection) -> f64 {
    let _: () = redis::cmd("HSET")
        .arg(&["async_signals.generations", "bench", "1"])
        .query_async(connection)
        .await
        .expect("signed on");
    let script = redis::Script::new(TAKE);
    let lists = STEPS.map(|step| format!("{QUEUE}{step}"));
    let (mut done, mut count): (Vec<String>, usize) = (Vec::new(), 0);
    let start = Instant::now();
    while count < MESSAGES {
        let mut call = script.prepare_invoke();
        call.key(&["unacked", "unacked_index", "async_signals.generations"]).key(&lists);
        call.arg(&["bench", "1"]).arg(count).arg(BATCH).arg(STEPS.len()).arg(1).arg(format!(",\"\",\"{QUEUE}\"]"));
        call.arg(&done);
        let reply: Value = call.invoke_async(connection).await.expect("messages");
        let taken = match reply.as_sequence() {
            Some([_, messages]) => messages.as_sequence().expect("a list").len(),
            other => panic!("{other:?}"),
        };
        done.clear();
        done.extend((1..=taken).map(|number| format!("bench.1.{}", count + number)));
        count += taken;
    }
    let _: () = redis::cmd("HDEL").arg("unacked").arg(&done).query_async(connection).await.expect("acknowledged");
    let _: () = redis::cmd("ZREM").arg("unacked_index").arg(&done).query_async(connection).await.expect("acknowledged");
    count as f64 / start.elapsed().as_secs_f64()
}

fn main() {
    // Without a URL (as `cargo test` and `cargo bench` call it) there is nothing to measure against.
    let Some(url) = std::env::args().skip(1).find(|argument| argument.contains("://")) else {
        println!("name a broker that may be flushed: cargo bench --bench taking -- redis://127.0.0.1:6379/0");
        return;
    };
    let runtime =
        tokio::runtime::Builder::new_multi_thread().worker_threads(2).enable_all().build().expect("a runtime");
    let (mut taken, mut raw) = (Vec::new(), Vec::new());
    runtime.block_on(async {
        let client = redis::Client::open(url.as_str()).expect("a URL");
        let mut connection = client.get_multiplexed_async_connection().await.expect("a connection");
        for _ in 0..ROUNDS {
            fill(&mut connection).await;
            raw.push(bare(&mut connection).await);
            fill(&mut connection).await;
            taken.push(ours(&url).await);
        }
    });
    println!("{}", serde_json::json!({"ours": taken, "bare": raw, "envelope_bytes": envelope().len()}));
}
