use async_signals::{AsyncSignal, receiver};
use serde::{Deserialize, Serialize};

#[derive(Serialize, Deserialize)]
struct OrderPlaced {
    order_id: u64,
}

static ORDER_PLACED: AsyncSignal<OrderPlaced> = AsyncSignal::new("shop.signals.order_placed");

#[receiver(ORDER_PLACED, retries = 5)]
fn unknown(_: OrderPlaced) {}

#[receiver(ORDER_PLACED, name = "a", name = "b")]
fn twice(_: OrderPlaced) {}

fn main() {}
