//! What the broker does not take: each message has its own outcome, and no
//! other message suffers.

use super::*;

#[tokio::test(flavor = "multi_thread")]
async fn what_no_queue_takes_is_unroutable_and_harms_no_other() {
    let server = server!();
    let broker = connect(&server.url()).await;
    let queue = fresh("q");
    let (good, bad) = (to_queue(&queue), Route { routing_key: fresh("nowhere"), ..Route::default() });
    let bad = Arc::new(bad);
    let rounds = (0..10).map(|_| {
        let (broker, good, bad) = (broker.clone(), good.clone(), bad.clone());
        tokio::spawn(async move {
            let route = |number: usize| if number.is_multiple_of(3) { &bad } else { &good };
            let batch: Vec<_> = (0..300).map(|number| outgoing(route(number))).collect();
            for (number, outcome) in publish(&broker, &batch).await.into_iter().enumerate() {
                match outcome {
                    Ok(()) => assert_ne!(number % 3, 0, "a success that is none"),
                    Err(BrokerError::Unroutable { exchange, routing_key }) => {
                        assert_eq!((number % 3, exchange.as_str(), &routing_key), (0, "", &bad.routing_key));
                    }
                    Err(other) => panic!("{other}"),
                }
            }
        })
    });
    for round in rounds.collect::<Vec<_>>() {
        soon(round).await.expect("a round");
    }
    assert_eq!(Observer::new(server).await.drain(&queue).await.len(), 10 * 200);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_queue_deleted_while_sending_heals() {
    let server = server!();
    let broker = connect(&server.url()).await;
    let observer = Observer::new(server).await;
    let (queue, exchange) = (fresh("q"), fresh("x"));
    let own = Queue { exchange: Some(Exchange::direct(&exchange)), ..Queue::direct(&queue) };
    let own = Arc::new(Route { exchange: exchange.clone(), routing_key: queue.clone(), declare: vec![own] });
    for route in [to_queue(&queue), own.clone()] {
        publish_one(&broker, &route).await.expect("published");
        observer.delete(&queue).await;
        let batch: Vec<_> = (0..100).map(|_| outgoing(&route)).collect();
        assert!(publish(&broker, &batch).await.iter().all(Result::is_ok));
        assert_eq!(observer.drain(&queue).await.len(), 100);
    }
    observer.channel.exchange_delete(exchange.into(), Default::default()).await.expect("deleted");
    publish_one(&broker, &own).await.expect("published on an exchange that was declared again");
    assert_eq!(observer.drain(&queue).await.len(), 1);
}

#[tokio::test(flavor = "multi_thread")]
async fn differing_arguments_are_named_and_harm_no_other() {
    let server = server!();
    let broker = connect(&server.url()).await;
    let observer = Observer::new(server).await;
    let (there, other) = (fresh("there"), fresh("other"));
    observer.declare(&there, FieldTable::default()).await;
    let good = to_queue(&other);
    let steady = {
        let (broker, good) = (broker.clone(), good.clone());
        tokio::spawn(async move {
            for _ in 0..20 {
                let batch: Vec<_> = (0..50).map(|_| outgoing(&good)).collect();
                assert!(publish(&broker, &batch).await.iter().all(Result::is_ok));
            }
        })
    };
    let differing = with_arguments(&there, json!({"x-max-priority": 10}));
    for _ in 0..3 {
        let outcomes = publish(&broker, &[outgoing(&differing), outgoing(&good)]).await;
        let Err(BrokerError::PreconditionFailed { entity, reason }) = &outcomes[0] else { panic!("{outcomes:?}") };
        assert_eq!(*entity, format!("queue '{there}'"));
        assert!(reason.contains("x-max-priority"), "{reason}");
        assert!(outcomes[1].is_ok());
    }
    soon(steady).await.expect("nobody else noticed");
    assert_eq!(observer.drain(&other).await.len(), 20 * 50 + 3);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_full_queue_is_named() {
    let server = server!();
    let broker = connect(&server.url()).await;
    let queue = fresh("full");
    let route = with_arguments(&queue, json!({"x-max-length": 2, "x-overflow": "reject-publish"}));
    let mut outcomes = Vec::new();
    for _ in 0..4 {
        outcomes.push(publish_one(&broker, &route).await);
    }
    assert!(outcomes[0].is_ok());
    let refused: Vec<_> = outcomes.iter().filter_map(|outcome| outcome.as_ref().err()).collect();
    assert!(!refused.is_empty());
    for error in refused {
        assert!(matches!(error, BrokerError::QueueFull { queue: full } if *full == queue), "{error}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_message_that_closes_the_channel_fails_alone() {
    let server = server!();
    let broker = connect(&server.url()).await;
    let queue = fresh("q");
    let good = to_queue(&queue);
    let no_exchange = Arc::new(Route { exchange: fresh("nowhere"), ..Route::default() });
    let too_late = || {
        let mut outgoing = outgoing(&good);
        outgoing.message.properties.expiration_ms = Some(u64::MAX);
        outgoing
    };
    let mut sent = 0;
    for round in 0..4 {
        let mut batch: Vec<_> = (0..40).map(|_| outgoing(&good)).collect();
        batch[20] = if round % 2 == 0 { outgoing(&no_exchange) } else { too_late() };
        for (number, outcome) in publish(&broker, &batch).await.into_iter().enumerate() {
            match outcome {
                Ok(()) => {
                    assert_ne!(number, 20);
                    sent += 1;
                }
                Err(BrokerError::Refused { reason }) => {
                    let named = if round % 2 == 0 { "NOT_FOUND - no exchange" } else { "invalid expiration" };
                    assert_eq!(number, 20);
                    assert!(reason.contains(named), "{reason}");
                }
                Err(other) => panic!("{other}"),
            }
        }
    }
    // What was in flight when the channel closed may have arrived twice, never not at all.
    let arrived = ids(&Observer::new(server).await.drain(&queue).await);
    assert_eq!((sent, arrived.len()), (4 * 39, 4 * 39));
}
