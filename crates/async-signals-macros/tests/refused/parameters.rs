use async_signals::{AsyncSignal, receiver};
use serde::{Deserialize, Serialize};

#[derive(Serialize, Deserialize)]
struct OrderPlaced {
    order_id: u64,
}

static ORDER_PLACED: AsyncSignal<OrderPlaced> = AsyncSignal::new("shop.signals.order_placed");

use async_signals::Delivery;

#[receiver(ORDER_PLACED)]
fn none() {}

#[receiver(ORDER_PLACED)]
fn three(_: OrderPlaced, _: Delivery, _: u32) {}

fn main() {}
