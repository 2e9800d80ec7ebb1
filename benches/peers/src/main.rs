//! How many tasks a second rusty-celery sends from 256 tasks, and how many it
//! runs from a queue that is full, when they do nothing.
//! `cargo run --release --manifest-path benches/peers/Cargo.toml -- URL [COUNT]`
//! prints one JSON object; ours beside it are `confirmed.rs` and `receiving.rs`.
//! On the broker it uses the queue `peers`, which should be empty before.

#![allow(non_local_definitions, reason = "its macro writes them so")]

use std::{
    error::Error,
    sync::{
        Arc,
        atomic::{AtomicUsize, Ordering},
    },
    time::{Duration, Instant},
};

use celery::{Celery, CeleryBuilder, prelude::*};
use tokio::{sync::Notify, task::JoinSet};

const QUEUE: &str = "peers";
const TASKS: usize = 256;
const MESSAGES: usize = 30_720;
const ROUNDS: usize = 3;

static RAN: AtomicUsize = AtomicUsize::new(0);
static WANTED: AtomicUsize = AtomicUsize::new(usize::MAX);
static ALL: Notify = Notify::const_new();

#[celery::task]
fn order_placed(order_id: u64, _email: String, express: bool) -> TaskResult<()> {
    assert!(express && order_id == 5);
    if RAN.fetch_add(1, Ordering::Relaxed) + 1 == WANTED.load(Ordering::Relaxed) {
        ALL.notify_one();
    }
    Ok(())
}

async fn app(url: &str) -> Result<Arc<Celery>, CeleryError> {
    let app = CeleryBuilder::new("peers", url).default_queue(QUEUE).prefetch_count(256).build().await?;
    app.register_task::<order_placed>().await?;
    Ok(Arc::new(app))
}

/// Messages a second, sent.
async fn sent(app: &Arc<Celery>, messages: usize) -> f64 {
    let share = messages / TASKS;
    let start = Instant::now();
    let mut tasks = JoinSet::new();
    for _ in 0..TASKS {
        let app = app.clone();
        tasks.spawn(async move {
            for _ in 0..share {
                let order = order_placed::new(5, "ada@example.org".to_owned(), true);
                app.send_task(order).await.expect("sent");
            }
        });
    }
    while let Some(ended) = tasks.join_next().await {
        ended.expect("no panic");
    }
    messages as f64 / start.elapsed().as_secs_f64()
}

/// Messages a second, run; and how many it ran, if they were not all there within the time.
async fn ran(app: &Arc<Celery>, messages: usize) -> Result<f64, Box<dyn Error>> {
    RAN.store(0, Ordering::Relaxed);
    WANTED.store(messages, Ordering::Relaxed);
    let start = Instant::now();
    tokio::select! {
        ended = app.consume() => ended?,
        () = ALL.notified() => {}
        () = tokio::time::sleep(Duration::from_secs(300)) => {
            return Err(format!("{} of {messages} ran within 300 s", RAN.load(Ordering::Relaxed)).into());
        }
    }
    Ok(messages as f64 / start.elapsed().as_secs_f64())
}

#[tokio::main(worker_threads = 2)]
async fn main() -> Result<(), Box<dyn Error>> {
    let mut arguments = std::env::args().skip(1);
    let url = arguments.next().ok_or("name a broker: redis://127.0.0.1:6379/0")?;
    let messages: usize = arguments.next().map_or(Ok(MESSAGES), |count| count.parse())?;
    let messages = messages.div_ceil(TASKS) * TASKS;
    let (mut sending, mut running) = (Vec::new(), Vec::new());
    for _ in 0..ROUNDS {
        // An app for each round: one that has consumed does not end by itself.
        sending.push(sent(&app(&url).await?, messages).await);
        running.push(ran(&app(&url).await?, messages).await?);
    }
    println!("{}", serde_json::json!({"sent_per_second": sending, "ran_per_second": running}));
    Ok(())
}
