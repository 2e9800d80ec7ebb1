//! A service with several receivers of one signal: `cargo run --example fan_out`.
//!
//! Plain ones and async ones; one for one sender alone; one that fails, and alone
//! is tried again; and a stop that finishes what has begun. No server is needed.

use std::{
    error::Error,
    sync::atomic::{AtomicU64, Ordering},
    time::Duration,
};

use async_signals::{AsyncSignal, BoxError, Celery, Delivery, RetryPolicy, Sender, Worker, receiver};
use serde::{Deserialize, Serialize};
use tokio::sync::Semaphore;

#[derive(Serialize, Deserialize)]
struct OrderPlaced {
    order_id: u64,
    items: u64,
}

static ORDER_PLACED: AsyncSignal<OrderPlaced> = AsyncSignal::new("shop.signals.order_placed").queue("orders");

const SHOP: Sender = Sender::name("shop");
const WHOLESALE: Sender = Sender::name("wholesale");

/// Takes its time. Others run meanwhile, on the same thread.
#[receiver(ORDER_PLACED)]
async fn email(order: OrderPlaced, delivery: Delivery) {
    MAILS_BEGUN.add_permits(1);
    println!("  email:   order {}, from {} ... (task {})", order.order_id, delivery.sender, delivery.id);
    tokio::time::sleep(Duration::from_millis(100)).await; // a mail server
    println!("  email:   order {}, sent", order.order_id);
    DONE.add_permits(1);
}

/// Borrows the payload, which then is decoded once for all that do.
#[receiver(ORDER_PLACED)]
fn count(order: &OrderPlaced) {
    let items = ITEMS.fetch_add(order.items, Ordering::Relaxed) + order.items;
    println!("  count:   {items} items up to order {}", order.order_id);
    DONE.add_permits(1);
}

/// Hears of what wholesale sells, and of nothing else.
#[receiver(ORDER_PLACED, sender = WHOLESALE)]
fn invoice(order: &OrderPlaced) {
    println!("  invoice: order {}", order.order_id);
    DONE.add_permits(1);
}

/// Fails once for order 2. The others are not called again for its sake.
#[receiver(ORDER_PLACED, retry = SOON, dispatch_uid = "shop.reserve")]
async fn reserve(order: OrderPlaced, delivery: Delivery) -> Result<(), BoxError> {
    if order.order_id == 2 && delivery.attempt == 1 {
        println!("  reserve: order 2 failed, and is tried again");
        return Err("the warehouse does not answer".into());
    }
    println!("  reserve: order {}, in try {}", order.order_id, delivery.attempt);
    DONE.add_permits(1);
    Ok(())
}

const SOON: RetryPolicy = RetryPolicy { base: 0.2, ..RetryPolicy::new(5) };
static ITEMS: AtomicU64 = AtomicU64::new(0);
/// One for each receiver that has done its work.
static DONE: Semaphore = Semaphore::const_new(0);
/// One for each mail that somebody is writing, or has written.
static MAILS_BEGUN: Semaphore = Semaphore::const_new(0);

#[tokio::main]
async fn main() -> Result<(), Box<dyn Error>> {
    let directory = tempfile::tempdir()?;
    let broker_url = format!("sqla+sqlite:///{}", directory.path().join("broker.sqlite3").display());
    let celery = Celery::connect(&broker_url).await?;
    celery.install()?;

    for (sender, order_id, items) in [(SHOP, 1, 3), (SHOP, 2, 1), (WHOLESALE, 3, 400)] {
        ORDER_PLACED.send(sender, &OrderPlaced { order_id, items }).await?;
    }
    println!("sender: three orders placed, each of them one message in queue orders");

    println!("worker: starts");
    let worker = Worker::builder(&celery).queues(["orders"]).concurrency(4).stop_timeout(Duration::from_secs(10));
    let told_to_stop = async {
        // Three mails, three counts, three reservations and one invoice.
        DONE.acquire_many(10).await?.forget();
        println!("sender: a fourth order, and the worker is told to stop in the middle of its mail");
        ORDER_PLACED.send(SHOP, &OrderPlaced { order_id: 4, items: 2 }).await?;
        MAILS_BEGUN.acquire_many(4).await?.forget();
        println!("worker: takes nothing new, and finishes what has begun");
        Ok::<_, Box<dyn Error>>(())
    };
    let mut told = None;
    let running = worker.run_until(async { told = Some(told_to_stop.await) });
    tokio::time::timeout(Duration::from_secs(30), running).await??;
    told.unwrap_or(Ok(()))?;
    DONE.try_acquire_many(3).map_err(|_| "the fourth order was not finished")?.forget();
    println!("worker: stopped, with nothing left to do");
    Ok(())
}
