//! A sender and a worker in one program, over a broker that needs no server:
//! `cargo run --example quickstart`. In life they are two programs, and the
//! broker is RabbitMQ or Redis.

use std::{error::Error, time::Duration};

use async_signals::{AsyncSignal, BoxError, Celery, Delivery, RetryPolicy, Sender, Worker, receiver};
use serde::{Deserialize, Serialize};
use tokio::sync::Notify;

#[derive(Serialize, Deserialize)]
struct OrderPlaced {
    order_id: u64,
    email: String,
}

static ORDER_PLACED: AsyncSignal<OrderPlaced> = AsyncSignal::new("shop.signals.order_placed").queue("high_priority");

#[receiver(ORDER_PLACED)]
async fn thank(order: OrderPlaced, delivery: Delivery) -> Result<(), BoxError> {
    println!("  worker: order {} thanked, by mail to {} (task {})", order.order_id, order.email, delivery.id);
    Ok(())
}

/// Fails the first time, and alone is tried again.
#[receiver(ORDER_PLACED, retry = SOON, dispatch_uid = "shop.reserve")]
fn reserve(order: &OrderPlaced, delivery: &Delivery) -> Result<(), &'static str> {
    if delivery.attempt == 1 {
        println!("  worker: order {} not reserved: the warehouse does not answer", order.order_id);
        return Err("the warehouse does not answer");
    }
    println!("  worker: order {} reserved, in try {}", order.order_id, delivery.attempt);
    RESERVED.notify_one();
    Ok(())
}

const SOON: RetryPolicy = RetryPolicy { base: 0.2, ..RetryPolicy::new(5) };
static RESERVED: Notify = Notify::const_new();

#[tokio::main]
async fn main() -> Result<(), Box<dyn Error>> {
    let directory = tempfile::tempdir()?;
    let broker_url = format!("sqla+sqlite:///{}", directory.path().join("broker.sqlite3").display());
    let celery = Celery::connect(&broker_url).await?;
    celery.install()?;

    let order = OrderPlaced { order_id: 5, email: "ada@example.org".to_owned() };
    let sent = ORDER_PLACED.send(Sender::NONE, &order).await?;
    println!("sender: order 5 placed, which is Celery task {} in queue high_priority", sent.id);

    println!("worker: reads the queue until its receivers have done all");
    let worker = Worker::builder(&celery).queues(["high_priority"]).concurrency(8);
    tokio::time::timeout(Duration::from_secs(30), worker.run_until(RESERVED.notified())).await??;
    println!("worker: stopped, with nothing left to do");
    Ok(())
}
