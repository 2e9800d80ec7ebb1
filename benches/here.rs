//! What a send costs when there is no broker and its receivers run where it is
//! sent, beside a hand-written loop over boxed closures: one that hands the
//! payload on as it is, and one that takes it through serde_json first, as a
//! send does so that receivers get what a worker would give them.
//! `cargo bench --bench here -- 1000000` prints one JSON object: nanoseconds for each.

use std::{
    hint::black_box,
    sync::atomic::{AtomicU64, Ordering},
    time::Instant,
};

use async_signals::{AsyncSignal, BoxError, Sender};
use serde::{Deserialize, Serialize};

const ROUNDS: usize = 5;

#[derive(Serialize, Deserialize)]
struct OrderPlaced {
    order_id: u64,
    email: String,
    express: bool,
}

type Closure = Box<dyn Fn(&OrderPlaced) -> Result<(), BoxError> + Send + Sync>;

static ORDER_PLACED: AsyncSignal<OrderPlaced> = AsyncSignal::new("bench.order_placed");
static SEEN: AtomicU64 = AtomicU64::new(0);

fn receive(order: &OrderPlaced) {
    SEEN.fetch_add(order.order_id, Ordering::Relaxed);
}

/// Nanoseconds for each of so many.
async fn timed(count: u32, work: impl AsyncFn()) -> f64 {
    let start = Instant::now();
    for _ in 0..count {
        work().await;
    }
    start.elapsed().as_nanos() as f64 / f64::from(count)
}

fn call(closures: &[Closure], order: &OrderPlaced) {
    for closure in closures {
        closure(order).expect("it does not fail");
    }
}

async fn round(count: u32, order: &OrderPlaced, closures: &[Closure]) -> [f64; 3] {
    let sent = timed(count, async || {
        ORDER_PLACED.send(Sender::NONE, black_box(order)).await.expect("it ran");
    });
    let handed_on = timed(count, async || call(closures, black_box(order)));
    let through_json = timed(count, async || {
        let text = serde_json::to_vec(black_box(order)).expect("values of JSON");
        call(closures, &serde_json::from_slice(&text).expect("it reads back"));
    });
    [sent.await, handed_on.await, through_json.await]
}

fn main() {
    // Without a number (as `cargo test` and `cargo bench` call it) it only looks whether everything runs.
    let count = std::env::args().skip(1).find_map(|argument| argument.parse().ok()).unwrap_or(100);
    let closures: Vec<Closure> = vec![Box::new(|order| {
        receive(order);
        Ok(())
    })];
    ORDER_PLACED.connect(receive);
    let order = OrderPlaced { order_id: 5, email: "ada@example.org".to_owned(), express: true };
    let runtime = tokio::runtime::Builder::new_current_thread().build().expect("a runtime");
    let rounds: Vec<[f64; 3]> = (0..ROUNDS).map(|_| runtime.block_on(round(count, &order, &closures))).collect();
    let expected = 3 * ROUNDS as u64 * u64::from(count) * order.order_id;
    assert_eq!(SEEN.load(Ordering::Relaxed), expected, "every receiver ran once for each");
    let of = |which: usize| rounds.iter().map(|round| round[which]).collect::<Vec<f64>>();
    println!("{}", serde_json::json!({"ours": of(0), "closures": of(1), "closures_through_json": of(2)}));
}
