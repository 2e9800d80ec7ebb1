//! How a consumer does not begin, and how it ends.

use super::*;

#[tokio::test(flavor = "multi_thread")]
async fn a_queue_with_other_arguments_is_named() {
    let server = server!();
    let (queue, observer) = (fresh("there"), Observer::new(server).await);
    observer.declare(&queue).await;
    let other = with_arguments(&queue, json!({"x-max-priority": 10}));
    let error = try_consume(server, vec![other], 10).await.expect_err("other arguments");
    let BrokerError::PreconditionFailed { entity, reason } = &error else { panic!("{error}") };
    assert_eq!(*entity, format!("queue '{queue}'"));
    assert!(reason.contains("x-max-priority"), "{reason}");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_queue_that_is_not_to_be_declared_has_to_exist() {
    let server = server!();
    let (queue, observer) = (fresh("missing"), Observer::new(server).await);
    let undeclared = || vec![Queue { declare: false, ..Queue::direct(&queue) }];
    let error = try_consume(server, undeclared(), 10).await.expect_err("no queue");
    assert!(matches!(&error, BrokerError::QueueMissing { queue: missing, .. } if *missing == queue), "{error}");
    assert!(!error.is_disconnect() && error.to_string().contains("no queue"), "{error}");

    observer.declare(&queue).await;
    observer.publish_numbers(&queue, [1]).await;
    let consumer = try_consume(server, undeclared(), 10).await.expect("a consumer");
    assert_eq!(numbers(&take_all(&consumer, 1).await), [1]);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_queue_deleted_ends_the_consumer() {
    let server = server!();
    let (queue, other, observer) = (fresh("q"), fresh("other"), Observer::new(server).await);
    let both = || vec![Queue::direct(&other), Queue::direct(&queue)];
    let consumer = try_consume(server, both(), 10).await.expect("a consumer");
    let waiting = tokio::spawn({
        let consumer = consumer.clone();
        async move { end(&consumer).await }
    });
    observer.delete(&queue).await;
    let error = soon(waiting).await.expect("a taker");
    assert!(error.is_disconnect() && error.to_string().contains(&queue), "{error}");
    soon(consumer.close()).await;

    // The next connection declares it again.
    let consumer = try_consume(server, both(), 10).await.expect("a consumer");
    observer.publish_numbers(&queue, [1]).await;
    assert_eq!(numbers(&take_all(&consumer, 1).await), [1]);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_connection_closed_by_the_operator_says_why() {
    let Some(server) = Server::start() else { return };
    let queue = fresh("q");
    let observer = Observer::new(&server).await;
    let consumer = consume(&server, &queue, 10).await;
    observer.publish_numbers(&queue, [1]).await;
    let held = tags(&take_all(&consumer, 1).await);
    let waiting = tokio::spawn({
        let consumer = consumer.clone();
        async move { end(&consumer).await }
    });
    tokio::task::block_in_place(|| server.rabbitmqctl(&["close_all_connections", "moving house"]));
    let error = soon(waiting).await.expect("a taker");
    assert!(error.is_disconnect() && error.to_string().contains("moving house"), "{error}");
    for outcome in [
        soon(consumer.acknowledge(&held)).await,
        soon(consumer.renew(&held)).await,
        soon(consumer.prefetch(5)).await,
        soon(consumer.take(&[], 1)).await.map(drop),
    ] {
        let error = outcome.expect_err("it is closed");
        assert!(error.is_disconnect() && error.to_string().contains("moving house"), "{error}");
    }
    soon(consumer.close()).await;
}

/// RabbitMQ closes the channel of whoever holds a message for too long.
#[tokio::test(flavor = "multi_thread")]
async fn a_message_held_too_long_ends_the_consumer_and_comes_again() {
    let Some(server) = Server::start() else { return };
    let impatient = "[application:set_env(rabbit, Name, 1000) || Name <- [consumer_timeout, channel_tick_interval]].";
    tokio::task::block_in_place(|| server.rabbitmqctl(&["eval", impatient]));
    let (queue, observer) = (fresh("q"), Observer::new(&server).await);
    let consumer = consume(&server, &queue, 10).await;
    observer.publish_numbers(&queue, [1]).await;
    let held = take_all(&consumer, 1).await;
    let error = end(&consumer).await;
    assert!(error.is_disconnect(), "{error}");
    assert!(error.to_string().contains("PRECONDITION_FAILED") && error.to_string().contains("timed out"), "{error}");
    let late = soon(consumer.acknowledge(&tags(&held))).await.expect_err("it is closed");
    assert!(late.is_disconnect() && late.to_string().contains("timed out"), "{late}");

    let consumer = consume(&server, &queue, 10).await;
    let again = take_all(&consumer, 1).await;
    assert_eq!(numbers(&again), [1]);
    assert!(again[0].redelivered);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_killed_server_ends_the_consumer_and_keeps_what_was_not_acknowledged() {
    let Some(server) = Server::start() else { return };
    let (queue, observer) = (fresh("q"), Observer::new(&server).await);
    let consumer = consume(&server, &queue, 10).await;
    observer.publish_numbers(&queue, 0..3).await;
    let held = take_all(&consumer, 3).await;
    tokio::task::block_in_place(|| server.kill());
    let error = end(&consumer).await;
    assert!(error.is_disconnect(), "{error}");
    assert!(soon(consumer.renew(&tags(&held))).await.is_err_and(|error| error.is_disconnect()));
    soon(consumer.close()).await;

    tokio::task::block_in_place(|| server.restart());
    let consumer = consume(&server, &queue, 10).await;
    assert_eq!(numbers(&take_all(&consumer, 3).await), [0, 1, 2]);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_silent_server_does_not_hold_up_the_goodbye() {
    let Some(server) = Server::start() else { return };
    let consumer = consume(&server, &fresh("q"), 10).await;
    tokio::task::block_in_place(|| server.signal("STOP"));
    soon(consumer.close()).await;
    assert!(take(&consumer, &[], 1).await.is_empty());
    tokio::task::block_in_place(|| server.signal("CONT"));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_dropped_consumer_leaves_nothing_behind() {
    let server = server!();
    let (queue, observer) = (fresh("q"), Observer::new(server).await);
    let consumer = consume(server, &queue, 10).await;
    observer.publish_numbers(&queue, 0..3).await;
    take_all(&consumer, 3).await;
    drop(consumer);
    observer.until_ready(&queue, 3).await;
}
