//! Does one thing so many times, for callgrind to count its instructions: `instructions PATH COUNT [URL]`. What it costs
//! to start is the same for each count, so the difference of two runs is what is asked for: `make instructions`. It stands
//! alone, and uses what is public: it is built with earlier commits, too.

use std::{
    sync::{
        Arc,
        atomic::{AtomicUsize, Ordering},
    },
    time::Duration,
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

const QUEUE: &str = "counted";
const TIMEOUT: Duration = Duration::from_secs(600);
const BODY: &[u8] = br#"[["bench.order_placed",null],{"order_id":5,"email":"ada@example.org","express":true},{"callbacks":null,"errbacks":null,"chain":null,"chord":null}]"#;

fn publisher(url: &str) -> Publisher {
    let mut config = PublisherConfig::new(BrokerConfig::new(url).expect("a URL"));
    config.timeout = TIMEOUT;
    Publisher::spawn(config)
}

fn message(publisher: &Publisher, route: &Arc<Route>) -> Outgoing {
    let id = publisher.next_id();
    let headers = json!({
        "lang": "py", "task": TASK, "id": id, "shadow": null, "eta": null, "expires": null, "group": null,
        "group_index": null, "retries": 0, "timelimit": [null, null], "root_id": id, "parent_id": null,
        "argsrepr": "('bench.order_placed', ...)", "kwargsrepr": "{...}", "origin": "gen1@bench",
        "ignore_result": true, "replaced_task_nesting": 0, "stamped_headers": null, "stamps": {},
        "async_signals": {"queue": QUEUE, "sent_at": 1.0},
    });
    let Value::Object(headers) = headers else { unreachable!("it is written as an object") };
    let properties = Properties::for_task(id);
    let message = Message { id, headers: Headers::Raw(headers), properties, body: Bytes::from_static(BODY) };
    Outgoing { route: route.clone(), message }
}

async fn background(url: &str, count: usize) {
    let (publisher, route) = (publisher(url), Arc::new(Route::to_queue(QUEUE)));
    for sent in 0..count {
        publisher.try_buffer(message(&publisher, &route)).expect("room");
        if sent % 1_000 == 999 {
            publisher.flush(TIMEOUT).expect("open").await.expect("confirmed");
        }
    }
    publisher.flush(TIMEOUT).expect("open").await.expect("confirmed");
}

async fn confirmed(url: &str, count: usize) {
    let (publisher, route) = (publisher(url), Arc::new(Route::to_queue(QUEUE)));
    for _ in 0..count {
        publisher.send(message(&publisher, &route), None).expect("open").await.expect("confirmed");
    }
}

/// Finishes everything at once.
struct AtOnce {
    left: AtomicUsize,
    all: Notify,
}

impl Runner for AtOnce {
    fn start(&self, jobs: Vec<Job>) {
        let count = jobs.len();
        jobs.into_iter().for_each(|job| job.finish(Outcome::Done));
        if self.left.fetch_sub(count, Ordering::Relaxed) == count {
            self.all.notify_one();
        }
    }
}

/// Publishes, and works it off.
async fn worked(url: &str, count: usize) {
    background(url, count).await;
    let runner = Arc::new(AtOnce { left: AtomicUsize::new(count), all: Notify::new() });
    let config = WorkerConfig::new(BrokerConfig::new(url).expect("a URL"), vec![Queue::direct(QUEUE)]);
    let (worker, run) = Worker::new(config, runner.clone());
    let task = tokio::spawn(run);
    runner.all.notified().await;
    worker.stop(Duration::from_secs(10));
    task.await.expect("no panic").expect("no error");
}

fn main() {
    let arguments: Vec<String> = std::env::args().skip(1).filter(|argument| !argument.starts_with("--")).collect();
    // As `cargo test` and `cargo bench` call it there is nothing to count.
    let [path, count, url] = &arguments[..] else { return };
    let count = count.parse().expect("a number");
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().expect("a runtime");
    runtime.block_on(async {
        match path.as_str() {
            "background" => background(url, count).await,
            "confirmed" => confirmed(url, count).await,
            "worked" => worked(url, count).await,
            other => panic!("{other:?} is none of background, confirmed and worked"),
        }
    });
}
