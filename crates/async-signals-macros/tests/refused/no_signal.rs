use async_signals::{AsyncSignal, receiver};
use serde::{Deserialize, Serialize};

#[derive(Serialize, Deserialize)]
struct OrderPlaced {
    order_id: u64,
}

static ORDER_PLACED: AsyncSignal<OrderPlaced> = AsyncSignal::new("shop.signals.order_placed");

#[receiver(dispatch_uid = "shop.email")]
fn only_options(_: OrderPlaced) {}

fn main() {}
