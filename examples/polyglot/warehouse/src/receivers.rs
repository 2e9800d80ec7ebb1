//! What the warehouse does when an order is placed. Either may run twice for
//! one message, as any receiver may; the shop keeps one parcel of an order.

use std::process;

use async_signals::{BoxError, Delivery, RetryPolicy, SendError, Sender, receiver, types::DateTime};

use crate::signals::{ORDER_PLACED, OrderPlaced, PARCEL_PACKED, ParcelPacked};

/// Runs in the thread that took the message, and only looks at it.
#[receiver(ORDER_PLACED)]
fn log(order: &OrderPlaced, delivery: &Delivery) -> Result<(), BoxError> {
    let number: i64 = order.order.key()?;
    println!(
        "order {number}: € {}, placed {} by {}, message {}",
        order.total, order.placed_at, delivery.sender, delivery.id
    );
    Ok(())
}

/// Answers with a signal of its own. With the broker away it is tried again.
#[receiver(ORDER_PLACED, retry = RetryPolicy::new(5), dispatch_uid = "warehouse.pack")]
async fn pack(order: OrderPlaced) -> Result<(), SendError> {
    let parcel = ParcelPacked {
        order: order.order.clone(),
        insured_for: order.total,
        packed_at: DateTime::now(),
        packed_by: process::id(),
    };
    let sent = PARCEL_PACKED.send(Sender::name("warehouse"), &parcel).await?;
    println!("packed: {}, which is message {}", order.order, sent.id);
    Ok(())
}
