//! What becomes of messages whose receivers fail, and of those that none can run.

use super::*;

pub(super) async fn retries(bench: &mut dyn Bench) {
    let queue = fresh("queue");
    let signal = leaked(signal().retry(soon(1)));
    let (tell, mut told) = telling();
    let tell = |name: &'static str, fails: bool| {
        let tell = tell.clone();
        move |_: OrderPlaced, delivery: Delivery| {
            let _ = tell.send((name, delivery.attempt));
            if fails { Err("no mail server") } else { Ok(()) }
        }
    };
    signal.connect_with(tell("email", true), Connect::new().dispatch_uid("shop.email"));
    signal.connect_with(tell("never", true), Connect::new().no_retry());
    signal.connect_with(tell("audit", false), Connect::new().name("shop.audit"));
    signal.connect_with(tell("stock", true), Connect::new().name("shop.stock").retry(soon(2)));
    let celery = celery(bench, &queue);
    let sent = signal.options().via(&celery).send(Sender::NONE, &order(0)).await.expect("sent");
    // One lane: what they tell comes in their order.
    let working = Working::start(Worker::builder(&celery).concurrency(1));
    let expected = [("email", 1), ("never", 1), ("audit", 1), ("stock", 1), ("email", 2), ("stock", 2), ("stock", 3)];
    for expected in expected {
        assert_eq!(told.next().await, expected);
    }
    let mut dead = read(bench, &format!("{queue}.dead"), 2).await;
    dead.sort_by_key(|dead| Ours::of(&dead.headers).attempt);
    for (dead, receiver) in dead.iter().zip(["shop.email", "shop.stock"]) {
        assert_eq!(dead.correlation_id, Some(sent.id.to_string()));
        assert_eq!(parked(dead)["kind"], "ReceiversFailed");
        assert_eq!(parked(dead)["failures"], json!([{"receiver": receiver, "error": "no mail server"}]));
    }
    working.stop().await;
    assert_eq!(bench.read(&queue).await, []);
}

pub(super) async fn misses(bench: &mut dyn Bench) {
    let queue = fresh("queue");
    let signal = leaked(signal());
    let (tell, mut told) = telling();
    let policy = Connect::new().dispatch_uid("shop.email").retry(soon(9));
    let attempts = tell.clone();
    signal.connect_with(
        move |_: OrderPlaced, delivery: Delivery| {
            // As if the program were another one by the next time.
            signal.disconnect("shop.email");
            let _ = attempts.send(delivery.attempt);
            Err("no mail server")
        },
        policy,
    );
    signal.connect(move |_: OrderPlaced, delivery: Delivery| {
        let _ = tell.send(delivery.attempt);
    });
    let celery = celery(bench, &queue);
    signal.options().via(&celery).send(Sender::NONE, &order(0)).await.expect("sent");
    let working = Working::start(Worker::builder(&celery));
    assert_eq!((told.next().await, told.next().await), (1, 1));
    let dead = read(bench, &format!("{queue}.dead"), 1).await;
    assert_eq!(parked(&dead[0])["kind"], "UnknownReceiver");
    assert_eq!(parked(&dead[0])["failures"][0]["receiver"], "shop.email");
    working.stop().await;
    assert!(told.0.try_recv().is_err(), "the other one ran once");
}

pub(super) async fn parks(bench: &mut dyn Bench) {
    let queue = fresh("queue");
    let signal = leaked(signal());
    let (tell, mut told) = telling();
    signal.connect(move |order: OrderPlaced| {
        let _ = tell.send(order.order_id);
    });
    let celery = celery(bench, &queue);
    let unknown = AsyncSignal::<OrderPlaced>::new(name());
    unknown.options().via(&celery).send(Sender::NONE, &order(0)).await.expect("sent");
    let bodies = [
        "[[".to_owned(),
        format!(r#"[["{}", null], {{"order_id": "five"}}, {{}}]"#, signal.name()),
        format!(r#"[["{}", null], {{}}, {{"callbacks": null, "chain": null}}]"#, signal.name()),
    ];
    for body in bodies {
        publish(bench, &queue, Message { body: Bytes::from(body), ..numbered(0) }).await;
    }
    signal.options().via(&celery).send(Sender::NONE, &order(1)).await.expect("sent");
    let working = Working::start(Worker::builder(&celery));
    assert_eq!(told.next().await, 1);
    let dead = read(bench, &format!("{queue}.dead"), 4).await;
    let mut kinds: Vec<_> = dead.iter().map(|dead| parked(dead)["kind"].as_str().map(str::to_owned)).collect();
    kinds.sort();
    let kinds: Vec<_> = kinds.iter().map(Option::as_deref).collect();
    assert_eq!(kinds, [Some("Malformed"), Some("Malformed"), Some("Malformed"), Some("UnknownSignal")]);
    assert!(dead.iter().any(|dead| parked(dead)["reason"].to_string().contains(unknown.name())));
    working.stop().await;
    assert_eq!(bench.read(&queue).await, []);
}
