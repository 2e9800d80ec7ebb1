use async_signals::{AsyncSignal, receiver};
use serde::{Deserialize, Serialize};

#[derive(Serialize, Deserialize)]
struct OrderPlaced {
    order_id: u64,
}

static ORDER_PLACED: AsyncSignal<OrderPlaced> = AsyncSignal::new("shop.signals.order_placed");

#[derive(Serialize, Deserialize)]
struct OrderChanged {
    order_id: u64,
}

#[receiver(ORDER_PLACED)]
fn wrong(_: OrderChanged) {}

fn main() {}
