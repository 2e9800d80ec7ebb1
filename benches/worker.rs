//! How many messages a second the worker takes, hands over and acknowledges,
//! when its receivers do nothing. `cargo bench --bench worker -- URL` prints
//! one JSON object; the bare loops beside it are in `taking.rs` and `consuming.rs`.

use std::{
    sync::{
        Arc,
        atomic::{AtomicUsize, Ordering},
    },
    time::{Duration, Instant},
};

use async_signals::{
    broker::BrokerConfig,
    message::{Headers, Message, Outgoing, Properties, Queue, Route},
    protocol::celery::TASK,
    publisher::{Publisher, PublisherConfig},
    worker::{Job, Outcome, Runner, Worker, WorkerConfig},
};
use bytes::Bytes;
use serde_json::{Value, json};
use tokio::sync::Notify;

const QUEUE: &str = "worked";
const MESSAGES: usize = 100_000;
const ROUNDS: usize = 3;
const BODY: &[u8] = br#"[["bench.order_placed",null],{"order_id":5,"email":"ada@example.org","express":true},{"callbacks":null,"errbacks":null,"chain":null,"chord":null}]"#;

/// Finishes everything at once.
struct AtOnce {
    ran: AtomicUsize,
    all: Notify,
}

impl Runner for AtOnce {
    fn start(&self, jobs: Vec<Job>) {
        let count = jobs.len();
        jobs.into_iter().for_each(|job| job.finish(Outcome::Done));
        if self.ran.fetch_add(count, Ordering::Relaxed) + count >= MESSAGES {
            self.all.notify_one();
        }
    }
}

fn message(publisher: &Publisher) -> Message {
    let id = publisher.next_id();
    let headers = json!({
        "lang": "py", "task": TASK, "id": id, "shadow": null, "eta": null, "expires": null, "group": null,
        "group_index": null, "retries": 0, "timelimit": [null, null], "root_id": id, "parent_id": null,
        "argsrepr": "('bench.order_placed', ...)", "kwargsrepr": "{...}", "origin": "gen1@bench",
        "ignore_result": true, "replaced_task_nesting": 0, "stamped_headers": null, "stamps": {},
        "async_signals": {"queue": QUEUE, "sent_at": 1.0},
    });
    let Value::Object(headers) = headers else { unreachable!("it is written as an object") };
    Message { id, headers: Headers::Raw(headers), properties: Properties::for_task(id), body: Bytes::from_static(BODY) }
}

fn fill(url: &str) {
    let mut config = PublisherConfig::new(BrokerConfig::new(url).expect("a URL"));
    config.buffer_messages = MESSAGES;
    config.buffer_bytes = usize::MAX;
    let publisher = Publisher::start(config).expect("a thread");
    let route = Arc::new(Route::to_queue(QUEUE));
    for _ in 0..MESSAGES {
        publisher.buffer(Outgoing { route: route.clone(), message: message(&publisher) }).expect("room");
    }
    publisher.flush(Duration::from_secs(120)).expect("open").wait().expect("all confirmed");
}

fn ours(url: &str) -> f64 {
    fill(url);
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().expect("a runtime");
    runtime.block_on(async {
        let runner = Arc::new(AtOnce { ran: AtomicUsize::new(0), all: Notify::new() });
        let config = WorkerConfig::new(BrokerConfig::new(url).expect("a URL"), vec![Queue::direct(QUEUE)]);
        let start = Instant::now();
        let (worker, run) = Worker::new(config, runner.clone());
        let task = tokio::spawn(run);
        runner.all.notified().await;
        let rate = MESSAGES as f64 / start.elapsed().as_secs_f64();
        worker.stop(Duration::from_secs(10));
        task.await.expect("no panic").expect("no error");
        rate
    })
}

fn main() {
    // Without a URL (as `cargo test` and `cargo bench` call it) there is nothing to measure against.
    let Some(url) = std::env::args().skip(1).find(|argument| argument.contains("://")) else { return };
    let rates: Vec<f64> = (0..ROUNDS).map(|_| ours(&url)).collect();
    println!("{}", json!({ "per_second": rates }));
}
