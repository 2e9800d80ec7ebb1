//! Code of a user's that panics, on one lane: its message alone suffers.

use std::fmt;

use serde::{Deserializer, de::Error};

use super::*;

pub(super) async fn receivers(bench: &mut dyn Bench) {
    let queue = fresh("queue");
    let signal = leaked(signal());
    let (tell, mut told) = telling();
    let panics = |order: OrderPlaced| assert_ne!(order.order_id, 0, "out of paper");
    signal.connect_with(panics, Connect::new().dispatch_uid("shop.print").retry(soon(0)));
    signal.connect(move |order: OrderPlaced| {
        let _ = tell.send(order.order_id);
    });
    let celery = celery(bench, &queue);
    for number in 0..2 {
        signal.options().via(&celery).send(Sender::NONE, &order(number)).await.expect("sent");
    }
    let working = Working::start(Worker::builder(&celery).concurrency(1));
    assert_eq!((told.next().await, told.next().await), (0, 1), "its neighbour and its lane go on");
    let dead = read(bench, &format!("{queue}.dead"), 1).await;
    let error = parked(&dead[0])["failures"][0]["error"].to_string();
    assert!(error.contains("panicked") && error.contains("out of paper"), "{error}");
    working.stop().await;
}

/// Panics, in one of its instances, wherever a program's own code is called beside a receiver.
#[derive(Debug, Serialize, Deserialize)]
struct Grenade {
    #[serde(deserialize_with = "pulled")]
    decoding: bool,
    dropping: bool,
}

fn pulled<'de, D: Deserializer<'de>>(deserializer: D) -> Result<bool, D::Error> {
    let pulled = bool::deserialize(deserializer).map_err(D::Error::custom)?;
    assert!(!pulled, "no decoder");
    Ok(pulled)
}

impl Drop for Grenade {
    fn drop(&mut self) {
        assert!(!self.dropping || thread_is_the_tests(), "no drop");
    }
}

/// Whether it is dropped by whoever has sent it.
fn thread_is_the_tests() -> bool {
    std::thread::current().name().is_some_and(|name| name.starts_with("works_on_"))
}

/// An error that cannot be shown.
#[derive(Debug)]
struct Unspeakable;

impl std::error::Error for Unspeakable {}

impl fmt::Display for Unspeakable {
    fn fmt(&self, _: &mut fmt::Formatter<'_>) -> fmt::Result {
        panic!("no words")
    }
}

pub(super) async fn payloads(bench: &mut dyn Bench) {
    let queue = fresh("queue");
    let signal: &'static AsyncSignal<Grenade> = leaked(AsyncSignal::new(name()));
    let (tell, mut told) = telling();
    signal.connect(move |grenade: &Grenade| {
        let _ = tell.send(grenade.dropping);
    });
    let celery = celery(bench, &queue);
    for (decoding, dropping) in [(true, false), (false, true), (false, false)] {
        let grenade = Grenade { decoding, dropping };
        signal.options().via(&celery).send(Sender::NONE, &grenade).await.expect("sent");
        std::mem::forget(grenade);
    }
    let working = Working::start(Worker::builder(&celery).concurrency(1));
    assert_eq!((told.next().await, told.next().await), (true, false));
    let dead = read(bench, &format!("{queue}.dead"), 1).await;
    assert_eq!(parked(&dead[0])["kind"], "Malformed");
    let reason = parked(&dead[0])["reason"].to_string();
    assert!(reason.contains("decoding its payload panicked: no decoder"), "{reason}");
    working.stop().await;
    assert_eq!(bench.read(&queue).await, [], "what panics as it is dropped has run");
}

pub(super) async fn errors(bench: &mut dyn Bench) {
    let queue = fresh("queue");
    let signal = leaked(signal());
    let (tell, mut told) = telling();
    let fails = |order: OrderPlaced| if order.order_id == 0 { Err(Unspeakable) } else { Ok(()) };
    signal.connect_with(fails, Connect::new().dispatch_uid("shop.print").retry(soon(0)));
    signal.connect(move |order: OrderPlaced| {
        let _ = tell.send(order.order_id);
    });
    let celery = celery(bench, &queue);
    for number in 0..2 {
        signal.options().via(&celery).send(Sender::NONE, &order(number)).await.expect("sent");
    }
    let working = Working::start(Worker::builder(&celery).concurrency(1));
    assert_eq!((told.next().await, told.next().await), (0, 1));
    let dead = read(bench, &format!("{queue}.dead"), 1).await;
    let error = parked(&dead[0])["failures"][0]["error"].to_string();
    assert!(error.contains("an error that cannot be shown: it panicked: no words"), "{error}");
    working.stop().await;
}
