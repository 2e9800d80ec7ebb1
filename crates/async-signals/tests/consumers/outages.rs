//! Brokers that are not there, are somebody else, or die.

use async_signals::broker::BrokerError;

use super::*;
use crate::servers::{
    elsewhere::{assert_named, elsewhere, web_server},
    free_port,
};

async fn consume_elsewhere(bench: &dyn Bench, port: u16, password: &str) -> BrokerError {
    let config = elsewhere(bench, port, password);
    let subscription = subscription(&fresh("worker"), &["queue"]);
    broker::consume(&config, &config.urls[0], subscription).await.expect_err("it is no broker of ours")
}

pub(super) async fn unreachable(bench: &mut dyn Bench) {
    if bench.server().is_none() {
        return;
    }
    let error = consume_elsewhere(bench, free_port(), "secret").await;
    assert!(matches!(error, BrokerError::Connect { .. }) && error.is_disconnect(), "{error:?}");
    assert_named(&error, "secret");
}

pub(super) async fn wrong_password(bench: &mut dyn Bench) {
    if bench.server().is_none() {
        return;
    }
    let port = bench.config().urls[0].port();
    let error = consume_elsewhere(bench, port, "guessed").await;
    assert!(matches!(error, BrokerError::Authentication { .. }) && !error.is_transient(), "{error:?}");
    assert_named(&error, "guessed");
}

pub(super) async fn other_peer(bench: &mut dyn Bench) {
    if bench.server().is_none() {
        return;
    }
    let (port, answers) = web_server();
    let error = consume_elsewhere(bench, port, "secret").await;
    answers.join().expect("it answered");
    assert!(matches!(error, BrokerError::Connect { .. }), "{error:?}");
    assert_named(&error, "secret");
}

pub(super) async fn killed(bench: &mut dyn Bench) {
    if bench.server().is_none() {
        return;
    }
    let (queue, name) = (fresh("queue"), fresh("worker"));
    let worker = subscribe(bench, subscription(&name, &[&queue])).await;
    fill(bench, &queue, 0..2).await;
    let taken = take_all(&*worker, 2).await;
    let waiting = {
        let (worker, done) = (worker.clone(), tags(&taken[..1]));
        tokio::spawn(async move { worker.take(&done, 10).await })
    };
    // It has acknowledged the first one by then, and waits.
    fill(bench, &queue, 2..3).await;
    let more = timeout(PROMPTLY, waiting).await.expect("in time").expect("no panic").expect("a message");
    assert_eq!(numbers(&more), [2]);
    let waiting = {
        let worker = worker.clone();
        tokio::spawn(async move { worker.take(&[], 10).await })
    };
    bench.server().expect("a server").kill();
    let error = timeout(PROMPTLY, waiting).await.expect("noticed in time").expect("no panic").expect_err("no broker");
    assert!(error.is_disconnect(), "{error:?}");
    for settled in [worker.acknowledge(&tags(&more)).await, worker.give_back(&tags(&taken[1..])).await] {
        let error = settled.expect_err("no broker");
        assert!(error.is_disconnect(), "{error:?}");
    }
    // Nothing to say goodbye to, and no reason to wait for that.
    timeout(PROMPTLY, worker.close()).await.expect("in time");

    bench.server().expect("a server").restart();
    let held = vec![taken[1].tag, more[0].tag];
    let again = Subscription { generation: 2, held: held.clone(), ..subscription(&name, &[&queue]) };
    let again = subscribe(bench, again).await;
    fill(bench, &queue, 3..4).await;
    let kept = bench.keeps_leases();
    let taken = take_all(&*again, if kept { 1 } else { 3 }).await;
    assert_eq!(numbers(&taken), if kept { vec![3] } else { vec![1, 2, 3] });
    again.acknowledge(&held).await.expect("acknowledged, or left alone");
    again.acknowledge(&tags(&taken)).await.expect("acknowledged");
    again.close().await;
    assert!(bench.read(&queue).await.is_empty());
}
