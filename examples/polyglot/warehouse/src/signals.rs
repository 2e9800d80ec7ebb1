//! The signals that the shop and the warehouse share. A name is what messages
//! call a signal; the fields are what the Django side calls its arguments.

use async_signals::{
    AsyncSignal,
    types::{DateTime, Decimal, Model},
};
use serde::{Deserialize, Serialize};

/// What the shop says of an order.
#[derive(Serialize, Deserialize)]
pub(crate) struct OrderPlaced {
    /// The row of Django's model `shop.Order`, by its primary key.
    pub(crate) order: Model,
    pub(crate) total: Decimal,
    pub(crate) placed_at: DateTime,
}

/// What the warehouse says of a parcel.
#[derive(Serialize, Deserialize)]
pub(crate) struct ParcelPacked {
    /// It goes back as it came: a receiver in Django gets the order itself.
    pub(crate) order: Model,
    pub(crate) insured_for: Decimal,
    pub(crate) packed_at: DateTime,
    /// The id of the process in which it was packed.
    pub(crate) packed_by: u32,
}

/// `order_placed` of the shop's `shop/signals.py`.
pub(crate) static ORDER_PLACED: AsyncSignal<OrderPlaced> = AsyncSignal::new("shop.signals.order_placed");

/// `parcel_packed` of `parcels/signals.py`. It goes to the app's default queue, which the site's worker reads.
pub(crate) static PARCEL_PACKED: AsyncSignal<ParcelPacked> = AsyncSignal::new("warehouse.signals.parcel_packed");
