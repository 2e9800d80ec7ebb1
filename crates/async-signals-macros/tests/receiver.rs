//! `#[receiver]` in programs that compile.
#![forbid(unsafe_code)]

use std::collections::HashMap;

use async_signals::{AsyncSignal, Connect, Delivery, RetryPolicy, Sender, receiver, registry};
use serde::{Deserialize, Serialize};

#[derive(Serialize, Deserialize)]
struct OrderPlaced {
    order_id: u64,
}

static ORDER_PLACED: AsyncSignal<OrderPlaced> = AsyncSignal::new("shop.signals.order_placed");
static ORDER_CHANGED: AsyncSignal<OrderPlaced> = AsyncSignal::new("shop.signals.order_changed");
static ORDER_LOST: AsyncSignal<OrderPlaced> = AsyncSignal::new("shop.signals.order_lost");

#[receiver(ORDER_PLACED)]
fn plain(order: OrderPlaced) {
    assert_eq!(order.order_id, 5);
}

/// Its documentation stays with it.
#[receiver([ORDER_PLACED, ORDER_CHANGED])]
#[inline]
async fn asynchronous(_order: OrderPlaced, _delivery: Delivery) -> Result<(), std::io::Error> {
    Ok(())
}

mod inner {
    use super::*;

    #[receiver(
        ORDER_PLACED,
        sender = Sender::model("shop.Order"),
        retry = RetryPolicy::new(5),
        dispatch_uid = "shop.for_orders",
    )]
    fn for_orders(_: &OrderPlaced, delivery: &Delivery) -> Result<(), &'static str> {
        assert_eq!(delivery.sender, Sender::model("shop.Order"));
        Err("no paper")
    }

    #[receiver(ORDER_PLACED, name = "shop.renamed")]
    fn later_renamed(_: OrderPlaced) {}

    // What is not compiled is not connected.
    #[receiver(ORDER_LOST)]
    #[cfg(any())]
    fn missing(_: NoSuchType) {}

    // Types of the same names as ours, and as the prelude's, do not matter.
    mod hygiene {
        #![allow(dead_code, reason = "they are only in the way")]
        use crate::{ORDER_PLACED as SIGNAL, OrderPlaced};

        struct Result;
        struct Connect;
        struct Ok;
        mod core {}

        #[::async_signals::receiver(SIGNAL)]
        fn receive(_: OrderPlaced) {}
    }
}

#[test]
fn connects_before_anything_is_sent() {
    assert!(ORDER_PLACED.has_listeners(&Sender::NONE) && ORDER_CHANGED.has_listeners(&Sender::NONE));
    assert!(!ORDER_LOST.has_listeners(&Sender::NONE));
    assert_eq!(registry::names(), ["shop.signals.order_changed", "shop.signals.order_placed"]);
    let sent = ORDER_PLACED.options().send_robust(Sender::model("shop.Order"), &OrderPlaced { order_id: 5 });
    let sent = futures_now(sent);
    let results: HashMap<_, _> =
        sent.responses.iter().map(|response| (&*response.receiver, response.result.is_ok())).collect();
    let expected = HashMap::from([
        ("receiver::plain", true),
        ("receiver::asynchronous", true),
        ("shop.for_orders", false),
        ("shop.renamed", true),
        ("receiver::inner::hygiene::receive", true),
    ]);
    assert_eq!(results, expected);
}

#[test]
fn what_is_connected_by_the_attribute_is_connected_once() {
    assert!(ORDER_PLACED.has_listeners(&Sender::NONE));
    let name = Connect::new().name("by hand");
    ORDER_PLACED.connect_with(plain, name);
    let sent = futures_now(ORDER_PLACED.send_robust(Sender::NONE, &OrderPlaced { order_id: 5 }));
    let plain =
        sent.responses.iter().filter(|response| response.receiver.ends_with("plain") || response.receiver == "by hand");
    assert_eq!(plain.count(), 1);
}

/// Nothing in these receivers waits.
fn futures_now(
    sending: impl Future<Output = Result<async_signals::Sent, async_signals::SendError>>,
) -> async_signals::Sent {
    use std::task::{Context, Poll, Waker};
    match std::pin::pin!(sending).poll(&mut Context::from_waker(Waker::noop())) {
        Poll::Ready(sent) => sent.expect("sent"),
        Poll::Pending => panic!("it waits"),
    }
}
