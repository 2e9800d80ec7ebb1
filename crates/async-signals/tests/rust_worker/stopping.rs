//! What a worker that stops leaves behind.

use super::*;

fn held(signal: &'static AsyncSignal<OrderPlaced>) -> (Told<u64>, &'static tokio::sync::Semaphore) {
    let gate = leaked(tokio::sync::Semaphore::new(0));
    let (tell, told) = telling();
    signal.connect(move |order: OrderPlaced| {
        let tell = tell.clone();
        async move {
            let _ = tell.send(order.order_id);
            gate.acquire().await.expect("never closed").forget();
        }
    });
    (told, gate)
}

pub(super) async fn stops(bench: &mut dyn Bench) {
    let queue = fresh("queue");
    let signal = leaked(signal());
    let (mut told, gate) = held(signal);
    let celery = celery(bench, &queue);
    for number in 0..200 {
        signal.options().via(&celery).send(Sender::NONE, &order(number)).await.expect("sent");
    }
    let working = Working::start(Worker::builder(&celery).concurrency(1).prefetch(2).stop_timeout(DEADLINE));
    let mut ran = vec![told.next().await];
    let stopping = working.stop();
    tokio::pin!(stopping);
    // One at a time goes on: the stop is heard long before all of them have run.
    gate.add_permits(1);
    loop {
        tokio::select! {
            () = &mut stopping => break,
            number = told.next() => {
                ran.push(number);
                gate.add_permits(1);
            }
        }
    }
    let left = bench.read(&queue).await;
    assert!(ran.len() < 200, "it took what was there all the same");
    assert_eq!(ran.len() + left.len(), 200, "each ran or is there");
    assert!(left.iter().all(|left| left.headers.get("redelivered").is_none()));
}

pub(super) async fn gives_back(bench: &mut dyn Bench) {
    let queue = fresh("queue");
    let signal = leaked(signal());
    let (mut told, gate) = held(signal);
    let celery = celery(bench, &queue);
    let sent = signal.options().via(&celery).send(Sender::NONE, &order(7)).await.expect("sent");
    let working = Working::start(Worker::builder(&celery).stop_timeout(Duration::from_millis(50)));
    assert_eq!(told.next().await, 7);
    working.stop().await;
    let again = Working::start(Worker::builder(&celery));
    assert_eq!(told.next().await, 7, "the next worker has it");
    gate.add_permits(1);
    again.stop().await;
    assert_eq!(bench.read(&queue).await, [], "{}", sent.id);
}

pub(super) async fn is_dropped(bench: &mut dyn Bench) {
    let queue = fresh("queue");
    let signal = leaked(signal());
    let (mut told, gate) = held(signal);
    let celery = celery(bench, &queue);
    signal.options().via(&celery).send(Sender::NONE, &order(7)).await.expect("sent");
    let working = Working::start(Worker::builder(&celery));
    assert_eq!(told.next().await, 7);
    working.task.abort();
    assert!(working.task.await.expect_err("it was dropped").is_cancelled());
    let again = Working::start(Worker::builder(&celery));
    assert_eq!(told.next().await, 7, "the next worker has it");
    gate.add_permits(1);
    again.stop().await;
    assert_eq!(bench.read(&queue).await, []);
}
