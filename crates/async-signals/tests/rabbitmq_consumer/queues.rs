//! RabbitMQ's kinds of queues.

use super::*;

#[tokio::test(flavor = "multi_thread")]
async fn a_quorum_queue_counts_its_deliveries() {
    let server = server!();
    let (queue, observer) = (fresh("quorum"), Observer::new(server).await);
    let quorum = with_arguments(&queue, json!({"x-queue-type": "quorum"}));
    let consumer = try_consume(server, vec![quorum], 10).await.expect("a consumer");
    observer.publish_numbers(&queue, 0..5).await;
    let first = take_all(&consumer, 5).await;
    assert_eq!(numbers(&first), [0, 1, 2, 3, 4]);
    soon(consumer.acknowledge(&tags(&first[1..]))).await.expect("acknowledged");
    soon(consumer.give_back(&tags(&first[..1]))).await.expect("given back");
    let again = take_all(&consumer, 1).await;
    assert!(again[0].redelivered);
    assert_eq!(message(&again[0]).headers["x-delivery-count"], 1);
    soon(consumer.prefetch(2)).await.expect("changed");
    observer.publish_numbers(&queue, [5]).await;
    assert_eq!(numbers(&take(&consumer, &tags(&again), 10).await), [5]);
}

#[tokio::test(flavor = "multi_thread")]
async fn of_several_consumers_a_single_active_one_is_served() {
    let server = server!();
    let (queue, observer) = (fresh("single"), Observer::new(server).await);
    let single = || vec![with_arguments(&queue, json!({"x-single-active-consumer": true}))];
    let active = try_consume(server, single(), 10).await.expect("a consumer");
    let next = try_consume(server, single(), 10).await.expect("a consumer");
    observer.publish_numbers(&queue, 0..2).await;
    assert_eq!(numbers(&take_all(&active, 2).await), [0, 1]);
    soon(active.close()).await;
    assert_eq!(numbers(&take_all(&next, 2).await), [0, 1]);
}

#[tokio::test(flavor = "multi_thread")]
async fn an_exclusive_queue_is_one_connections_own() {
    let server = server!();
    let queue = fresh("exclusive");
    let exclusive = || vec![Queue { exclusive: true, ..Queue::direct(&queue) }];
    let owner = try_consume(server, exclusive(), 10).await.expect("a consumer");
    let refused = try_consume(server, exclusive(), 10).await.expect_err("it is somebody else's");
    assert!(refused.to_string().contains("RESOURCE_LOCKED"), "{refused}");
    Observer::new(server).await.publish_numbers(&queue, [1]).await;
    assert_eq!(numbers(&take_all(&owner, 1).await), [1]);
}

#[tokio::test(flavor = "multi_thread")]
async fn high_priorities_come_first() {
    let server = server!();
    let (queue, observer) = (fresh("priorities"), Observer::new(server).await);
    let priorities = || vec![with_arguments(&queue, json!({"x-max-priority": 9}))];
    soon(try_consume(server, priorities(), 1).await.expect("a consumer").close()).await;
    for priority in [1, 9, 5] {
        observer.publish(&queue, BasicProperties::default().with_priority(priority)).await;
    }
    let consumer = try_consume(server, priorities(), 1).await.expect("a consumer");
    let (mut came, mut done) = (Vec::new(), Vec::new());
    while came.len() < 3 {
        let taken = take(&consumer, &done, 1).await;
        came.push(message(&taken[0]).properties.priority);
        done = tags(&taken);
    }
    assert_eq!(came, [9, 5, 1]);
}
