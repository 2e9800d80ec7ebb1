//! Taking: what, from where, how much and when.

use std::{
    collections::HashSet,
    sync::atomic::{AtomicUsize, Ordering},
};

use async_signals::message::{Headers, Incoming, Properties};
use bytes::Bytes;
use serde_json::{Map, Value, json};
use uuid::Uuid;

use super::*;
use crate::servers::messages::{exchange_route, task_headers};

pub(super) async fn exactly(bench: &mut dyn Bench) {
    let (plain, bound, exchange) = (fresh("queue"), fresh("köln.東京 #*"), fresh("exchange"));
    let worker = subscribe(bench, subscription("exact-worker", &[&plain, &bound])).await;
    let raw = Message {
        properties: Properties {
            priority: 5,
            reply_to: Some("e4961b3e-9442-3033-9348-1e53f4211102".into()),
            expiration_ms: Some(3_600_000),
            ..Properties::for_task(Uuid::new_v4())
        },
        headers: Headers::Raw(Map::from_iter([("näme \"\\\u{1}☃".to_owned(), json!(["wört \u{0}\n𝄞", null, 1.5]))])),
        body: Bytes::from((0..3 << 20).map(|byte| byte as u8).collect::<Vec<_>>()),
        ..numbered(0)
    };
    let task = Message { headers: Headers::Task(Box::new(task_headers())), body: Bytes::new(), ..numbered(1) };
    let broker = connect(bench).await;
    publish(&*broker, &Arc::new(Route::to_queue(&plain)), std::slice::from_ref(&raw)).await;
    let route = exchange_route(&exchange, "direct", "orders", &[(&bound, "orders")]);
    publish(&*broker, &Arc::new(route), std::slice::from_ref(&task)).await;

    let mut taken = take_all(&*worker, 2).await;
    taken.sort_by_key(|taken| *taken.queue != *plain);
    for (taken, message, way) in
        [(&taken[0], &raw, (&*plain, "", &*plain)), (&taken[1], &task, (&*bound, &*exchange, "orders"))]
    {
        assert_eq!((taken.tag.generation, taken.redelivered), (1, false));
        let Content::Message(incoming) = &taken.content else { panic!("{taken:?}") };
        assert_eq!((&*taken.queue, &*incoming.exchange, &*incoming.routing_key), way);
        assert_same(incoming, message);
    }
    assert_ne!(taken[0].tag, taken[1].tag);
    worker.acknowledge(&tags(&taken)).await.expect("acknowledged");
}

/// What was taken is what was published.
pub(super) fn assert_same(taken: &Incoming, published: &Message) {
    let headers = match &published.headers {
        Headers::Raw(headers) => Value::Object(headers.clone()),
        Headers::Task(headers) => serde_json::to_value(headers).expect("headers are JSON"),
    };
    assert_eq!(Value::Object(taken.headers.clone().into()), headers);
    assert_eq!(format!("{:?}", taken.properties), format!("{:?}", published.properties));
    // Not assert_eq: nobody reads three megabytes of difference.
    assert!(taken.body == published.body);
}

pub(super) async fn order(bench: &mut dyn Bench) {
    let queue = fresh("queue");
    let worker = consumer(bench, &queue).await;
    for numbers in [0..1, 1..301, 301..303, 303..1000] {
        fill(bench, &queue, numbers).await;
    }
    let (mut seen, mut done) = (Vec::new(), Vec::new());
    while seen.len() < 1000 {
        let taken = take(&*worker, &done, 100).await;
        seen.extend(numbers(&taken));
        done = tags(&taken);
    }
    worker.acknowledge(&done).await.expect("acknowledged");
    assert_eq!(seen, (0..1000).collect::<Vec<_>>());
}

pub(super) async fn fairness(bench: &mut dyn Bench) {
    let [first, second, small] = [fresh("full"), fresh("full"), fresh("small")];
    let worker = subscription(&fresh("worker"), &[&first, &second, &small]);
    let worker = subscribe(bench, Subscription { prefetch: 12, ..worker }).await;
    fill(bench, &first, 0..300).await;
    fill(bench, &second, 300..600).await;
    fill(bench, &small, 600..603).await;
    let (mut seen, mut done) = (Vec::new(), Vec::new());
    while seen.len() < 120 {
        let taken = take(&*worker, &done, 10).await;
        seen.extend(taken.iter().map(|taken| taken.queue.clone()));
        done = tags(&taken);
    }
    worker.close().await;
    let count = |queue: &str| seen.iter().filter(|from| ***from == *queue).count();
    assert_eq!(count(&small), 3, "all that it had: {seen:?}");
    assert!(count(&first) >= 20 && count(&second) >= 20, "{seen:?}");
}

pub(super) async fn limit(bench: &mut dyn Bench) {
    let queue = fresh("queue");
    let worker = consumer(bench, &queue).await;
    fill(bench, &queue, 0..10).await;
    let mut taken = Vec::new();
    for limit in [1, 3, 1, 4, 100] {
        taken.extend(take(&*worker, &[], limit).await);
    }
    taken.extend(take_all(&*worker, 10 - taken.len()).await);
    assert_eq!(numbers(&taken), (0..10).collect::<Vec<_>>(), "nothing was lost between two limits");
    worker.acknowledge(&tags(&taken)).await.expect("acknowledged");
}

pub(super) async fn woken(bench: &mut dyn Bench) {
    let queues = [fresh("queue"), fresh("queue")];
    let worker = subscribe(bench, subscription(&fresh("worker"), &[&queues[0], &queues[1]])).await;
    let mut done = Vec::new();
    for round in 0..6 {
        let waiting = {
            let (worker, done) = (worker.clone(), std::mem::take(&mut done));
            tokio::spawn(async move { worker.take(&done, 10).await })
        };
        assert!(!waiting.is_finished(), "nothing is there");
        fill(bench, &queues[round % 2], round as u64..round as u64 + 1).await;
        let taken = timeout(PROMPTLY, waiting).await.expect("woken in time").expect("no panic").expect("a message");
        assert_eq!(numbers(&taken), [round as u64]);
        done = tags(&taken);
    }
    worker.acknowledge(&done).await.expect("acknowledged");
}

pub(super) async fn interrupted(bench: &mut dyn Bench) {
    let queue = fresh("queue");
    let worker = consumer(bench, &queue).await;
    fill(bench, &queue, 0..1).await;
    let taken = take(&*worker, &[], 10).await;
    let waiting = {
        let (worker, done) = (worker.clone(), tags(&taken));
        tokio::spawn(async move { worker.take(&done, 10).await })
    };
    assert!(!waiting.is_finished(), "nothing is there");
    worker.interrupt();
    let taken = timeout(PROMPTLY, waiting).await.expect("woken in time").expect("no panic").expect("an answer");
    assert!(taken.is_empty(), "{taken:?}");
    let taken = timeout(PROMPTLY, worker.take(&[], 10)).await.expect("it does not wait").expect("an answer");
    assert!(taken.is_empty(), "{taken:?}");
    // What was done when it was interrupted is done.
    worker.close().await;
    let other = consumer(bench, &queue).await;
    fill(bench, &queue, 1..2).await;
    let taken = take(&*other, &[], 10).await;
    assert_eq!(numbers(&taken), [1]);
    other.acknowledge(&tags(&taken)).await.expect("acknowledged");
}

pub(super) async fn paused(bench: &mut dyn Bench) {
    let (one, two) = (fresh("queue"), fresh("queue"));
    let narrow = Subscription { prefetch: 4, ..subscription(&fresh("worker"), &[&one, &two]) };
    let worker = subscribe(bench, narrow).await;
    fill(bench, &one, 0..10).await;
    fill(bench, &two, 10..20).await;
    let mut taken = take(&*worker, &[], 1).await;
    for _ in 0..2 {
        taken.extend(worker.pause().await.expect("it is the worker's"));
        let tags = tags(&taken);
        assert_eq!(tags.iter().collect::<HashSet<_>>().len(), tags.len());
        // Room for more, and nothing more comes: it is there for whoever reads these queues.
        worker.acknowledge(&tags).await.expect("acknowledged");
        worker.flush().await.expect("an answer");
    }
    let other = subscribe(bench, Subscription { prefetch: 64, ..subscription(&fresh("worker"), &[&one, &two]) }).await;
    let left = take_all(&*other, 20 - taken.len()).await;
    let mut seen: Vec<_> = taken.iter().chain(&left).map(number).collect();
    seen.sort_unstable();
    assert_eq!(seen, (0..20).collect::<Vec<_>>());
    other.acknowledge(&tags(&left)).await.expect("acknowledged");
    other.close().await;

    worker.prefetch(1).await.expect("it goes on");
    fill(bench, &one, 20..22).await;
    let next = take_all(&*worker, 1).await;
    assert_eq!(numbers(&next), [20]);
    worker.prefetch(4).await.expect("it may change");
    assert_eq!(numbers(&take(&*worker, &tags(&next), 1).await), [21]);
}

pub(super) async fn shared(bench: &mut dyn Bench) {
    let queue = fresh("queue");
    let narrow = || Subscription { prefetch: 4, ..subscription(&fresh("worker"), &[&queue]) };
    let workers = [subscribe(bench, narrow()).await, subscribe(bench, narrow()).await];
    fill(bench, &queue, 0..40).await;
    let mut seen = Vec::new();
    for round in 0..8 {
        let worker = &workers[round % 2];
        let taken = take_all(&**worker, 4).await;
        seen.extend(numbers(&taken));
        worker.acknowledge(&tags(&taken)).await.expect("acknowledged");
    }
    for worker in workers {
        worker.close().await;
    }
    let last = consumer(bench, &queue).await;
    let taken = take_all(&*last, 8).await;
    seen.extend(numbers(&taken));
    last.acknowledge(&tags(&taken)).await.expect("acknowledged");
    seen.sort_unstable();
    assert_eq!(seen, (0..40).collect::<Vec<_>>());
}

pub(super) async fn crowd(bench: &mut dyn Bench) {
    const COUNT: usize = 5000;
    let queue = fresh("queue");
    let mut workers = Vec::new();
    for _ in 0..3 {
        workers.push(consumer(bench, &queue).await);
    }
    let counted = Arc::new(AtomicUsize::new(0));
    let drain = |worker: Arc<dyn Consumer>, all: Vec<Arc<dyn Consumer>>, counted: Arc<AtomicUsize>| async move {
        let (mut seen, mut done) = (Vec::new(), Vec::new());
        loop {
            let taken = worker.take(&done, 32).await.expect("messages");
            seen.extend(numbers(&taken));
            done = tags(&taken);
            if counted.fetch_add(taken.len(), Ordering::SeqCst) + taken.len() == COUNT && !taken.is_empty() {
                all.iter().for_each(|worker| worker.interrupt());
            }
            if taken.is_empty() {
                return seen;
            }
        }
    };
    let draining: Vec<_> =
        workers.iter().map(|worker| tokio::spawn(drain(worker.clone(), workers.clone(), counted.clone()))).collect();
    for start in (0..COUNT as u64).step_by(500) {
        fill(bench, &queue, start..start + 500).await;
    }
    let mut seen = Vec::new();
    for worker in draining {
        seen.extend(timeout(DEADLINE, worker).await.expect("all of them in time").expect("no panic"));
    }
    assert_eq!(seen.len(), COUNT, "each of them once");
    assert_eq!(seen.into_iter().collect::<HashSet<_>>(), (0..COUNT as u64).collect());
    fill(bench, &queue, 5000..5001).await;
    let last = consumer(bench, &queue).await;
    let taken = take(&*last, &[], 10).await;
    assert_eq!(numbers(&taken), [5000], "the others were acknowledged");
    last.acknowledge(&tags(&taken)).await.expect("acknowledged");
}
