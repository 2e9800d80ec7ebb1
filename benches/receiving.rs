//! How many signals a second a worker of Rust receivers runs, when they do
//! nothing: from the broker to a typed payload and back.
//! `cargo bench --bench receiving -- URL` prints one JSON object; the same
//! without bodies and receivers is `worker.rs`, a bare loop is `taking.rs`.

use std::{
    sync::atomic::{AtomicUsize, Ordering},
    time::{Duration, Instant},
};

use async_signals::{AsyncSignal, Celery, Durability, Sender, Worker};
use serde::{Deserialize, Serialize};
use serde_json::json;
use tokio::sync::Notify;

const QUEUE: &str = "received";
const MESSAGES: usize = 100_000;
const ROUNDS: usize = 3;

#[derive(Serialize, Deserialize)]
struct OrderPlaced {
    order_id: u64,
    email: String,
    express: bool,
}

static ORDER_PLACED: AsyncSignal<OrderPlaced> =
    AsyncSignal::new("bench.order_placed").queue(QUEUE).durability(Durability::Background);
static RAN: AtomicUsize = AtomicUsize::new(0);
static ALL: Notify = Notify::const_new();

fn receive(order: OrderPlaced) {
    assert!(order.express);
    if (RAN.fetch_add(1, Ordering::Relaxed) + 1).is_multiple_of(MESSAGES) {
        ALL.notify_one();
    }
}

async fn round(url: &str, concurrency: usize) -> f64 {
    let celery = Celery::builder().broker_url(url).buffer(MESSAGES, usize::MAX).build().expect("a URL");
    let order = OrderPlaced { order_id: 5, email: "ada@example.org".to_owned(), express: true };
    let signal = ORDER_PLACED.options().via(&celery);
    for _ in 0..MESSAGES {
        signal.clone().send(Sender::NONE, &order).await.expect("room");
    }
    celery.flush(Duration::from_secs(120)).await.expect("all confirmed");
    let start = Instant::now();
    let worker = Worker::builder(&celery).queues([QUEUE]).concurrency(concurrency);
    let mut rate = 0.0;
    let all = async {
        ALL.notified().await;
        rate = MESSAGES as f64 / start.elapsed().as_secs_f64();
    };
    worker.run_until(all).await.expect("no error");
    rate
}

fn main() {
    // Without a URL (as `cargo test` and `cargo bench` call it) there is nothing to measure against.
    let Some(url) = std::env::args().skip(1).find(|argument| argument.contains("://")) else { return };
    ORDER_PLACED.connect(receive);
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().expect("a runtime");
    let mut rates = serde_json::Map::new();
    for concurrency in [1, 8] {
        let per_second: Vec<f64> = (0..ROUNDS).map(|_| runtime.block_on(round(&url, concurrency))).collect();
        rates.insert(format!("concurrency {concurrency}"), json!(per_second));
    }
    println!("{}", json!({ "per_second": rates }));
}
