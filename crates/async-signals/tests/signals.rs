//! Signals whose receivers run where they are sent, as Django's do, and what
//! can be connected to them.

use std::{
    io,
    pin::pin,
    sync::{
        Arc, Mutex,
        atomic::{AtomicUsize, Ordering},
    },
    task::{Context, Poll, Waker},
};

use async_signals::{
    AsyncSignal, BoxError, Connect, ConnectError, Delivery, RetryPolicy, SendError, Sender,
    receiver::Panicked,
    registry,
    signals::{REQUEST_FINISHED, REQUEST_STARTED, Request},
};
use serde::{Deserialize, Serialize};
use uuid::Uuid;

#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
struct OrderPlaced {
    order_id: u64,
}

const ORDER: OrderPlaced = OrderPlaced { order_id: 5 };

/// A signal that no other test has.
fn signal() -> &'static AsyncSignal<OrderPlaced> {
    Box::leak(Box::new(AsyncSignal::new(name())))
}

fn name() -> &'static str {
    static NEXT: AtomicUsize = AtomicUsize::new(0);
    format!("tests.signal_{}", NEXT.fetch_add(1, Ordering::Relaxed)).leak()
}

/// What receivers were called with.
#[derive(Clone, Debug, Default)]
struct Calls(Arc<Mutex<Vec<String>>>);

impl Calls {
    fn add(&self, call: impl Into<String>) {
        self.0.lock().expect("no panic").push(call.into());
    }

    fn take(&self) -> Vec<String> {
        std::mem::take(&mut self.0.lock().expect("no panic"))
    }

    /// A receiver that says that it ran.
    fn receiver(&self, name: &str) -> impl Fn(OrderPlaced) + Send + Sync + 'static + use<> {
        let (calls, name) = (self.clone(), name.to_owned());
        move |order| calls.add(format!("{name} {}", order.order_id))
    }
}

fn failing(_: OrderPlaced) -> Result<(), io::Error> {
    Err(io::Error::other("no mail server"))
}

fn panicking(order: OrderPlaced) {
    assert_ne!(order.order_id, 5, "out of {}", "paper");
}

async fn panicking_later(order: OrderPlaced) {
    tokio::task::yield_now().await;
    assert_ne!(order.order_id, 5, "out of ink");
}

fn plain(_: OrderPlaced) {}

async fn asynchronous(_: OrderPlaced, _: Delivery) -> Result<(), BoxError> {
    Ok(())
}

#[tokio::test]
async fn takes_whatever_may_be_a_receiver() {
    let (signal, calls) = (signal(), Calls::default());
    let [a, b, c, d, e] = [(); 5].map(|()| calls.clone());
    signal.connect(plain);
    signal.connect(asynchronous);
    signal.connect(failing as fn(OrderPlaced) -> Result<(), io::Error>);
    signal.connect(move |order: OrderPlaced| a.add(format!("value {}", order.order_id)));
    signal.connect(move |order: OrderPlaced, delivery: Delivery| {
        b.add(format!("{} {}", order.order_id, delivery.signal))
    });
    signal.connect(move |order: &OrderPlaced| c.add(format!("borrowed {}", order.order_id)));
    signal.connect(move |order: &OrderPlaced, delivery: &Delivery| -> Result<(), &str> {
        d.add(format!("borrowed {} {}", order.order_id, delivery.attempt));
        Err("a text is an error too")
    });
    signal.connect(move |order: OrderPlaced| {
        let e = e.clone();
        async move {
            tokio::task::yield_now().await;
            e.add(format!("async {}", order.order_id));
        }
    });
    signal.connect(async |_: OrderPlaced, _: Delivery| ());
    let sent = signal.send_robust(Sender::NONE, &ORDER).await.expect("sent");
    let expected = [
        "value 5".to_owned(),
        format!("5 {}", signal.name()),
        "borrowed 5".to_owned(),
        "borrowed 5 1".to_owned(),
        "async 5".to_owned(),
    ];
    assert_eq!(calls.take(), expected);
    let failed: Vec<_> = sent.responses.iter().map(|response| response.result.is_err()).collect();
    assert_eq!(failed, [false, false, true, false, false, false, true, false, false]);
    assert_eq!(sent.responses[0].receiver, "signals::plain");
    assert!(sent.responses[3].receiver.starts_with("closure at crates/async-signals/tests/signals.rs:"));
}

#[tokio::test]
async fn the_first_error_ends_a_send_and_is_returned() {
    let (signal, calls) = (signal(), Calls::default());
    signal.connect(calls.receiver("first"));
    signal.connect(failing);
    signal.connect(calls.receiver("last"));
    match signal.send(Sender::NONE, &ORDER).await {
        Err(SendError::Receiver { signal: name, receiver, source }) => {
            assert_eq!((name, &*receiver), (signal.name(), "signals::failing"));
            assert_eq!(source.to_string(), "no mail server");
            assert!(source.is::<io::Error>(), "it is what the receiver returned");
        }
        other => panic!("{other:?}"),
    }
    assert_eq!(calls.take(), ["first 5"]);
}

#[tokio::test]
async fn a_robust_send_calls_all_and_keeps_the_errors() {
    let (signal, calls) = (signal(), Calls::default());
    signal.connect(failing);
    signal.connect(panicking);
    signal.connect(panicking_later);
    signal.connect(calls.receiver("last"));
    let sent = signal.send_robust(Sender::NONE, &ORDER).await.expect("sent");
    let errors: Vec<_> =
        sent.responses.iter().map(|response| response.result.as_ref().err().map(ToString::to_string)).collect();
    let starts = [
        "no mail server",
        "panicked: assertion `left != right` failed: out of paper",
        "panicked: assertion `left != right` failed: out of ink",
    ];
    for (error, start) in errors.iter().zip(starts) {
        assert!(error.as_ref().is_some_and(|error| error.starts_with(start)), "{error:?}");
    }
    assert_eq!(errors[3..], [None]);
    let panicked = sent.responses[1].result.as_ref().expect_err("it panicked");
    assert!(panicked.downcast_ref::<Panicked>().is_some_and(|panicked| panicked.message.contains("out of paper")));
    assert_eq!(calls.take(), ["last 5"]);
}

#[tokio::test]
async fn receivers_are_for_senders() {
    let (signal, calls) = (signal(), Calls::default());
    let order = Sender::model("shop.Order");
    assert!(!signal.has_listeners(&order));
    signal.connect_with(calls.receiver("orders"), Connect::new().sender(order.clone()));
    signal.connect_with(calls.receiver("shop"), Connect::new().sender(Sender::name("shop")));
    assert!(signal.has_listeners(&order) && !signal.has_listeners(&Sender::NONE));
    signal.connect_with(calls.receiver("any"), Connect::new().sender(Sender::NONE));
    assert!(signal.has_listeners(&Sender::NONE));
    for (sender, expected) in [
        (order, vec!["orders 5", "any 5"]),
        (Sender::text("shop"), vec!["shop 5", "any 5"]),
        (Sender::instance("shop.Order", 1), vec!["any 5"]),
        (Sender::NONE, vec!["any 5"]),
    ] {
        signal.send(sender.clone(), &ORDER).await.expect("sent");
        assert_eq!(calls.take(), expected, "{sender}");
    }
}

#[tokio::test]
async fn the_same_receiver_is_connected_once() {
    let (signal, calls) = (signal(), Calls::default());
    assert_eq!(signal.connect(plain), signal.connect(plain));
    let (one, other) = (signal.connect(calls.receiver("one")), signal.connect(calls.receiver("other")));
    assert_ne!(one, other, "closures that hold something differ");
    let uid = |name| Connect::new().dispatch_uid(name);
    let first = signal.connect_with(calls.receiver("first"), uid("shop.email"));
    assert_eq!(signal.connect_with(calls.receiver("second"), uid("shop.email")), first);
    let elsewhere = uid("shop.email").sender(Sender::name("shop"));
    assert_ne!(signal.connect_with(calls.receiver("for one sender"), elsewhere), first);
    let sent = signal.send(Sender::name("shop"), &ORDER).await.expect("sent");
    let names: Vec<_> = sent.responses.iter().skip(3).map(|response| &*response.receiver).collect();
    assert_eq!(names, ["shop.email", "shop.email"]);
    assert_eq!(calls.take(), ["one 5", "other 5", "first 5", "for one sender 5"]);
}

#[tokio::test]
async fn disconnects_one_or_all_of_a_uid() {
    let (signal, calls) = (signal(), Calls::default());
    let one = signal.connect(calls.receiver("one"));
    signal.connect_with(calls.receiver("two"), Connect::new().dispatch_uid("two"));
    signal.connect_with(calls.receiver("two"), Connect::new().dispatch_uid("two").sender(Sender::name("shop")));
    assert!(!signal.disconnect("three"));
    assert!(signal.disconnect(one));
    assert!(!signal.disconnect(one), "it is gone already");
    signal.send(Sender::name("shop"), &ORDER).await.expect("sent");
    assert_eq!(calls.take(), ["two 5", "two 5"]);
    assert!(signal.disconnect("two"));
    assert!(!signal.has_listeners(&Sender::name("shop")));
}

#[tokio::test]
async fn a_receiver_may_connect_and_disconnect() {
    static SIGNAL: AsyncSignal<OrderPlaced> = AsyncSignal::new("tests.connects_itself");
    fn again(_: OrderPlaced) {
        SIGNAL.connect(plain);
        SIGNAL.disconnect("again");
    }
    SIGNAL.connect_with(again, Connect::new().dispatch_uid("again"));
    let ran = async || SIGNAL.send(Sender::NONE, &ORDER).await.expect("sent").responses.len();
    assert_eq!((ran().await, ran().await), (1, 1), "who is connected meanwhile is called from the next time on");
}

#[tokio::test]
async fn tells_receivers_what_they_are_called_for() {
    let (signal, id) = (signal(), Uuid::new_v4());
    let told = Arc::new(Mutex::new(None));
    let tell = told.clone();
    signal.connect(move |_: OrderPlaced, delivery: Delivery| *tell.lock().expect("no panic") = Some(delivery));
    let sent = signal.options().id(id).send(Sender::name("shop"), &ORDER).await.expect("sent");
    let delivery = told.lock().expect("no panic").take().expect("it ran");
    assert_eq!((sent.id, delivery.id, &*delivery.signal, delivery.attempt), (id, id, signal.name(), 1));
    assert_eq!((delivery.queue, delivery.redeliveries, delivery.sender), (None, 0, Sender::name("shop")));
    assert!(delivery.sent_at.is_some());
}

#[test]
fn runs_without_a_runtime() {
    let (signal, calls) = (signal(), Calls::default());
    signal.connect(calls.receiver("plain"));
    let later = calls.clone();
    signal.connect(move |_: OrderPlaced| {
        let later = later.clone();
        async move {
            // It has a runtime of its own there.
            tokio::spawn(async move { later.add("async") }).await.expect("no panic");
        }
    });
    assert_eq!(signal.send_blocking(Sender::NONE, &ORDER).expect("sent").responses.len(), 2);
    assert_eq!(calls.take(), ["plain 5", "async"]);
    // Without anything that waits for a runtime, any executor will do.
    signal.disconnect("nobody");
    let mut sending = pin!(REQUEST_STARTED.send(Sender::NONE, &Request::default()));
    assert!(matches!(sending.as_mut().poll(&mut Context::from_waker(Waker::noop())), Poll::Ready(Ok(_))));
}

#[tokio::test]
async fn a_payload_need_not_be_shared_between_threads() {
    #[derive(Serialize, Deserialize)]
    struct Cellular {
        count: std::cell::Cell<u32>,
    }
    static SIGNAL: AsyncSignal<Cellular> = AsyncSignal::new("tests.cellular");
    SIGNAL.connect(async |payload: Cellular| assert_eq!(payload.count.get(), 7));
    let sending = SIGNAL.send(Sender::NONE, &Cellular { count: 7.into() });
    let sent = tokio::spawn(sending).await.expect("no panic").expect("sent");
    assert_eq!(sent.responses.len(), 1);
}

#[test]
fn a_closure_that_is_tried_again_needs_a_name() {
    let policy = RetryPolicy::new(3);
    let retried: &'static AsyncSignal<OrderPlaced> =
        Box::leak(Box::new(AsyncSignal::new(name()).retry(policy.clone())));
    for (signal, options, fits) in [
        (signal(), Connect::new(), true),
        (signal(), Connect::new().retry(policy.clone()), false),
        (signal(), Connect::new().retry(policy.clone()).name("shop.print"), true),
        (signal(), Connect::new().retry(policy).dispatch_uid("shop.print"), true),
        (retried, Connect::new(), false),
        (retried, Connect::new().no_retry(), true),
    ] {
        match signal.try_connect_with(|_: OrderPlaced| (), options) {
            Ok(_) => assert!(fits),
            Err(ConnectError::Nameless { signal: name, place }) => {
                assert!(!fits && place.file().ends_with("signals.rs"));
                assert_eq!(name, signal.name());
            }
            Err(other) => panic!("{other}"),
        }
    }
    retried.connect(plain);
}

#[test]
fn two_signals_of_one_name_are_refused() {
    let name = name();
    let first: &'static AsyncSignal<OrderPlaced> = Box::leak(Box::new(AsyncSignal::new(name)));
    let aliases: &'static [&'static str] = Box::leak(Box::new([name]));
    let second: &'static AsyncSignal<()> = Box::leak(Box::new(AsyncSignal::new("tests.renamed").aliases(aliases)));
    first.connect(plain);
    let error = second.try_connect_with(|(): ()| (), Connect::new()).expect_err("the alias is the other's name");
    let text = error.to_string();
    assert_eq!(text.matches("tests/signals.rs:").count(), 2, "both places: {text}");
    assert!(text.contains(name) && !second.has_listeners(&Sender::NONE));
    assert!(registry::names().contains(&name) && !registry::names().contains(&"tests.renamed"));
}

#[tokio::test]
async fn says_what_cannot_be_sent() {
    #[derive(Serialize, Deserialize)]
    struct Price {
        price: f64,
    }
    static SIGNAL: AsyncSignal<Price> = AsyncSignal::new("tests.price");
    let error = SIGNAL.send(Sender::NONE, &Price { price: f64::NAN }).await.expect_err("JSON has no NaN");
    assert!(matches!(&error, SendError::Payload { signal: "tests.price", .. }), "{error}");
}

#[tokio::test]
async fn the_request_signals_carry_what_django_sends() {
    let seen = Arc::new(Mutex::new(None));
    let see = seen.clone();
    REQUEST_FINISHED.connect(move |request: Request| *see.lock().expect("no panic") = Some(request));
    assert_eq!(REQUEST_STARTED.name(), "async_signals.signals.request_started");
    assert_eq!(REQUEST_FINISHED.name(), "async_signals.signals.request_finished");
    let mut request = Request { method: "GET".to_owned(), path: "/".to_owned(), ..Request::default() };
    request.more.insert("tenant".to_owned(), 7.into());
    REQUEST_FINISHED.send(Sender::NONE, &request).await.expect("sent");
    assert_eq!(seen.lock().expect("no panic").take(), Some(request));
}
