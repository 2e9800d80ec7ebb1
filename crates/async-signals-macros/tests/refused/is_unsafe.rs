use async_signals::{AsyncSignal, receiver};
use serde::{Deserialize, Serialize};

#[derive(Serialize, Deserialize)]
struct OrderPlaced {
    order_id: u64,
}

static ORDER_PLACED: AsyncSignal<OrderPlaced> = AsyncSignal::new("shop.signals.order_placed");

#[receiver(ORDER_PLACED)]
unsafe fn careless(_: OrderPlaced) {}

fn main() {}
