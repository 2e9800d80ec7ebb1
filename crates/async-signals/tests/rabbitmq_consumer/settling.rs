//! Acknowledging and giving back.

use super::*;

#[tokio::test(flavor = "multi_thread")]
async fn what_is_given_back_comes_again_in_front() {
    let server = server!();
    let (queue, observer) = (fresh("q"), Observer::new(server).await);
    observer.declare(&queue).await;
    observer.publish_numbers(&queue, 0..6).await;
    let consumer = consume(server, &queue, 3).await;
    let taken = take_all(&consumer, 3).await;
    soon(consumer.give_back(&tags(&taken[1..]))).await.expect("given back");
    let again = take_all(&consumer, 2).await;
    assert_eq!(numbers(&again), [1, 2]);
    assert!(again.iter().all(|taken| taken.redelivered));
    let done = [tags(&taken[..1]), tags(&again)].concat();
    let mut rest = take(&consumer, &done, 10).await;
    rest.extend(take_all(&consumer, 3 - rest.len()).await);
    assert_eq!(numbers(&rest), [3, 4, 5]);
    assert!(rest.iter().all(|taken| !taken.redelivered));
}

#[tokio::test(flavor = "multi_thread")]
async fn closing_gives_back_exactly_what_is_not_settled() {
    let server = server!();
    let (left, right, observer) = (fresh("left"), fresh("right"), Observer::new(server).await);
    let both = || vec![Queue::direct(&left), Queue::direct(&right)];
    let consumer = try_consume(server, both(), 100).await.expect("a consumer");
    // The numbers of deliveries go over both queues, in the order in which they were pushed.
    for number in 0..20 {
        observer.publish_numbers(if number % 3 == 0 { &left } else { &right }, [number]).await;
    }
    let mut taken = Vec::new();
    for _ in 0..20 {
        taken.extend(take_all(&consumer, 1).await);
    }
    taken.sort_by_key(|taken| taken.tag);
    assert_eq!(numbers(&taken), (0..20).collect::<Vec<_>>());
    let all = tags(&taken);
    let acknowledged = [vec![4, 2, 0], vec![1], vec![7, 5, 9], vec![3], vec![12, 11, 10, 6], vec![19]];
    for numbers in &acknowledged {
        let done: Vec<_> = numbers.iter().map(|number| all[*number]).collect();
        soon(consumer.acknowledge(&done)).await.expect("acknowledged");
    }
    soon(consumer.close()).await;

    let acknowledged = acknowledged.concat();
    let expected: Vec<_> =
        (0..20).filter(|number| !acknowledged.contains(number)).map(|number| number as i64).collect();
    let consumer = try_consume(server, both(), 100).await.expect("a consumer");
    let again = take_all(&consumer, expected.len()).await;
    assert!(again.iter().all(|taken| taken.redelivered));
    let mut numbers = numbers(&again);
    numbers.sort_unstable();
    assert_eq!(numbers, expected);
    assert_eq!((observer.ready(&left).await, observer.ready(&right).await), (0, 0));
}

#[tokio::test(flavor = "multi_thread")]
async fn settling_again_or_for_another_connection_does_nothing() {
    let server = server!();
    let (queue, observer) = (fresh("q"), Observer::new(server).await);
    let consumer = consume(server, &queue, 100).await;
    observer.publish_numbers(&queue, 0..4).await;
    let taken = tags(&take_all(&consumer, 4).await);
    soon(consumer.acknowledge(&taken[..2])).await.expect("acknowledged");
    soon(consumer.acknowledge(&taken[..2])).await.expect("acknowledged");
    soon(consumer.give_back(&taken[..2])).await.expect("left alone");
    let earlier: Vec<_> = taken.iter().map(|tag| Tag { generation: 0, ..*tag }).collect();
    soon(consumer.acknowledge(&earlier)).await.expect("left alone");
    soon(consumer.acknowledge(&[Tag { number: 99, ..taken[0] }])).await.expect("left alone");
    soon(consumer.give_back(&taken[3..])).await.expect("given back");
    // Had the broker taken offence, the channel would be closed.
    assert_eq!(numbers(&take_all(&consumer, 1).await), [3]);
    soon(consumer.close()).await;
    observer.until_ready(&queue, 2).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_thousand_settled_at_random_leave_nothing() {
    let server = server!();
    let (queue, observer) = (fresh("q"), Observer::new(server).await);
    let consumer = consume(server, &queue, 128).await;
    let publishing = {
        let queue = queue.clone();
        tokio::spawn(async move {
            observer.publish_numbers(&queue, 0..1000).await;
            observer
        })
    };
    let (mut seen, mut held, mut done) = (0, Vec::new(), Vec::new());
    while seen < 1000 {
        let taken = take(&consumer, &done, 50).await;
        seen += taken.len();
        held.extend(tags(&taken));
        // Every third stays for later.
        (done, held) = held.into_iter().partition(|tag| tag.number % 3 != 0 || seen % 2 == 0);
    }
    soon(consumer.acknowledge(&[done, held].concat())).await.expect("acknowledged");
    soon(consumer.close()).await;
    let observer = soon(publishing).await.expect("a publisher");
    observer.until_ready(&queue, 0).await;
}
