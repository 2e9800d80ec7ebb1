//! What is taken, when, and in which order.

use super::*;

#[tokio::test(flavor = "multi_thread")]
async fn messages_come_in_order_and_are_gone_when_acknowledged() {
    let server = server!();
    let (queue, observer) = (fresh("q"), Observer::new(server).await);
    let consumer = consume(server, &queue, 100).await;
    observer.publish_numbers(&queue, 0..30).await;
    let taken = take_all(&consumer, 30).await;
    assert_eq!(numbers(&taken), (0..30).collect::<Vec<_>>());
    assert!(taken.iter().all(|taken| !taken.redelivered && *taken.queue == *queue && taken.tag.generation == 1));
    assert!(taken.is_sorted_by_key(|taken| taken.tag.number));
    let first = message(&taken[0]);
    assert_eq!((first.exchange.as_str(), first.routing_key.as_str()), ("", queue.as_str()));
    assert_eq!(first.body, r#"[["shop.placed", null], {}, {}]"#);

    soon(consumer.acknowledge(&tags(&taken))).await.expect("acknowledged");
    soon(consumer.close()).await;
    observer.until_ready(&queue, 0).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn waiting_ends_with_the_first_message() {
    let server = server!();
    let (queue, observer) = (fresh("q"), Observer::new(server).await);
    let consumer = consume(server, &queue, 100).await;
    let waiting = tokio::spawn({
        let consumer = consumer.clone();
        async move { take(&consumer, &[], 10).await }
    });
    observer.publish_numbers(&queue, [7]).await;
    assert_eq!(numbers(&soon(waiting).await.expect("a taker")), [7]);
}

#[tokio::test(flavor = "multi_thread")]
async fn no_more_is_pushed_than_the_prefetch_allows() {
    let server = server!();
    let (queue, observer) = (fresh("q"), Observer::new(server).await);
    observer.declare(&queue).await;
    observer.publish_numbers(&queue, 0..20).await;
    let consumer = consume(server, &queue, 5).await;
    let mut taken = take_all(&consumer, 5).await;
    observer.until_ready(&queue, 15).await;
    // Acknowledging makes room for as many.
    let done: Vec<_> = taken.drain(..3).map(|taken| taken.tag).collect();
    taken.extend(take(&consumer, &done, 1).await);
    taken.extend(take_all(&consumer, 2).await);
    assert_eq!(numbers(&taken), [3, 4, 5, 6, 7]);
    observer.until_ready(&queue, 12).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_full_queue_does_not_keep_the_others_waiting() {
    let server = server!();
    let (full, other, observer) = (fresh("full"), fresh("other"), Observer::new(server).await);
    observer.declare(&full).await;
    observer.publish_numbers(&full, 0..600).await;
    let both = vec![Queue::direct(&full), Queue::direct(&other)];
    let consumer = try_consume(server, both, 20).await.expect("a consumer");
    observer.publish_numbers(&other, 0..10).await;
    let (mut of_full, mut of_other, mut done) = (0, 0, Vec::new());
    while of_other < 10 {
        let taken = take(&consumer, &done, 10).await;
        of_other += taken.iter().filter(|taken| *taken.queue == *other).count();
        of_full += taken.iter().filter(|taken| *taken.queue == *full).count();
        done = tags(&taken);
    }
    assert!(of_full < 600, "the full queue came first");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_changed_prefetch_leaves_order_and_unsettled_messages_alone() {
    let server = server!();
    let (queue, observer) = (fresh("q"), Observer::new(server).await);
    // It goes with its last consumer, which must not happen in between.
    let own = Queue { auto_delete: true, ..Queue::direct(&queue) };
    let consumer = try_consume(server, vec![own], 10).await.expect("a consumer");
    observer.publish_numbers(&queue, 0..100).await;
    let held = take_all(&consumer, 10).await;
    observer.until_ready(&queue, 90).await;

    // The ten that were held count for the old consumer.
    soon(consumer.prefetch(30)).await.expect("changed");
    let mut taken = take_all(&consumer, 30).await;
    observer.until_ready(&queue, 60).await;
    soon(consumer.prefetch(1)).await.expect("changed");
    let (half, rest) = held.split_at(5);
    taken.extend(take(&consumer, &tags(half), 100).await);
    soon(consumer.acknowledge(&tags(rest))).await.expect("acknowledged");
    while taken.len() < 90 {
        let done: Vec<_> = tags(&taken);
        taken.extend(take(&consumer, &done, 100).await);
    }
    assert_eq!(numbers(&held), (0..10).collect::<Vec<_>>());
    assert_eq!(numbers(&taken), (10..100).collect::<Vec<_>>());
}

#[tokio::test(flavor = "multi_thread")]
async fn order_holds_while_the_prefetch_changes_again_and_again() {
    let server = server!();
    let (queue, observer) = (fresh("q"), Observer::new(server).await);
    let consumer = consume(server, &queue, 8).await;
    observer.publish_numbers(&queue, 0..2000).await;
    let changing = tokio::spawn({
        let consumer = consumer.clone();
        async move {
            for count in [1, 16, 2, 8].into_iter().cycle() {
                soon(consumer.prefetch(count)).await.expect("changed");
            }
        }
    });
    let (mut came, mut done) = (Vec::new(), Vec::new());
    while came.len() < 2000 {
        let taken = take(&consumer, &done, 4).await;
        came.extend(numbers(&taken));
        done = tags(&taken);
    }
    changing.abort();
    assert_eq!(came, (0..2000).collect::<Vec<_>>());
}

#[tokio::test(flavor = "multi_thread")]
async fn prefetch_may_change_while_somebody_waits() {
    let server = server!();
    let (queue, observer) = (fresh("q"), Observer::new(server).await);
    let consumer = consume(server, &queue, 10).await;
    let waiting = tokio::spawn({
        let consumer = consumer.clone();
        async move { take(&consumer, &[], 10).await }
    });
    for count in [20, 0, 1_000_000, 50] {
        soon(consumer.prefetch(count)).await.expect("changed");
    }
    observer.publish_numbers(&queue, [1]).await;
    assert_eq!(numbers(&soon(waiting).await.expect("a taker")), [1]);
}

#[tokio::test(flavor = "multi_thread")]
async fn an_interruption_ends_the_waiting_and_the_pushing() {
    let server = server!();
    let (queue, observer) = (fresh("q"), Observer::new(server).await);
    let consumer = consume(server, &queue, 10).await;
    observer.publish_numbers(&queue, [1, 2]).await;
    let held = take_all(&consumer, 2).await;
    let waiting = tokio::spawn({
        let consumer = consumer.clone();
        async move { take(&consumer, &[], 10).await }
    });
    consumer.interrupt();
    assert!(soon(waiting).await.expect("a taker").is_empty());
    consumer.interrupt();
    soon(async { while !server.rabbitmqctl(&["list_consumers", "queue_name"]).lines().all(|name| name != queue) {} })
        .await;

    observer.publish_numbers(&queue, [3]).await;
    soon(consumer.prefetch(20)).await.expect("nothing comes of it");
    assert!(take(&consumer, &tags(&held[..1]), 10).await.is_empty());
    observer.until_ready(&queue, 1).await;
    soon(consumer.renew(&tags(&held))).await.expect("alive");
    soon(consumer.close()).await;
    observer.until_ready(&queue, 2).await;
}
