//! Brokers that block or die, and callers that go away.

use tokio::sync::mpsc;

use super::*;

#[tokio::test(flavor = "multi_thread")]
async fn a_publish_given_up_leaves_the_connection_usable() {
    let server = server!();
    let broker = connect(&server.url()).await;
    for round in 0..60 {
        // Given up at another step each time: while declaring, sending, waiting for confirms.
        let route = if round % 3 == 0 { to_queue(&fresh("given-up")) } else { to_queue("given-up") };
        let batch: Vec<_> = (0..20).map(|_| outgoing(&route)).collect();
        let _ = tokio::time::timeout(Duration::from_micros(50 * round), broker.publish(&batch)).await;
    }
    let queue = fresh("q");
    publish_one(&broker, &to_queue(&queue)).await.expect("published");
    assert_eq!(Observer::new(server).await.drain(&queue).await.len(), 1);
}

#[tokio::test(flavor = "multi_thread")]
async fn an_alarm_blocks_and_goes_by() {
    let Some(server) = Server::start() else { return };
    let broker = connect(&server.url()).await;
    let route = to_queue("alarmed");
    publish_one(&broker, &route).await.expect("published");
    assert!(broker.blocked().is_none());
    server.rabbitmqctl(&["set_vm_memory_high_watermark", "0"]);
    // RabbitMQ tells a connection of the alarm when it publishes. That message
    // goes through, but the next may be under way when the news comes: then it
    // waits for the alarm to go by.
    let (mut taken, mut refused) = (Vec::new(), Vec::new());
    let (reason, waiting) = soon(async {
        let mut waiting = Vec::new();
        loop {
            let mut sending = Box::pin({
                let (broker, message) = (broker.clone(), outgoing(&route));
                async move { (message.message.id.to_string(), broker.publish(&[message]).await.remove(0)) }
            });
            let blocked = async {
                while broker.blocked().is_none() {
                    tokio::task::yield_now().await;
                }
            };
            tokio::select! {
                biased;
                (id, outcome) = &mut sending => match outcome {
                    Ok(()) => taken.push(id),
                    Err(BrokerError::Blocked { reason }) => {
                        refused.push(id);
                        break (reason, waiting);
                    }
                    Err(other) => panic!("{other}"),
                },
                () = blocked => waiting.push(sending),
            }
        }
    })
    .await;
    assert!(reason.contains("memory"), "{reason}");
    assert!(matches!(broker.blocked(), Some(BrokerError::Blocked { .. })));
    let undeclared = publish_one(&broker, &to_queue("undeclared")).await;
    assert!(matches!(undeclared, Err(BrokerError::Blocked { .. })), "{undeclared:?}");

    server.rabbitmqctl(&["set_vm_memory_high_watermark", "0.8"]);
    for sending in waiting {
        let (id, outcome) = soon(sending).await;
        outcome.expect("what was under way is confirmed");
        taken.push(id);
    }
    soon(async {
        while broker.blocked().is_some() {
            tokio::task::yield_now().await;
        }
    })
    .await;
    publish_one(&broker, &route).await.expect("published when the alarm had gone by");
    let arrived = ids(&Observer::new(&server).await.drain("alarmed").await);
    assert_eq!(arrived.len(), taken.len() + 2);
    assert!(taken.iter().all(|id| arrived.contains(id)), "a confirmed message is missing");
    assert!(refused.iter().all(|id| !arrived.contains(id)), "a refused message has arrived");

    // A broker that dies while it blocks is dead, not blocked.
    server.rabbitmqctl(&["set_vm_memory_high_watermark", "0"]);
    let mut waiting = std::pin::pin!(async {
        loop {
            if let Err(error) = publish_one(&broker, &route).await {
                break error;
            }
        }
    });
    let blocked = async {
        while broker.blocked().is_none() {
            tokio::task::yield_now().await;
        }
    };
    tokio::select! {
        biased;
        error = &mut waiting => assert!(matches!(error, BrokerError::Blocked { .. }), "{error}"),
        () = soon(blocked) => {}
    }
    tokio::task::block_in_place(|| server.kill());
    let dead = soon(async {
        loop {
            match broker.publish(&[outgoing(&route)]).await.remove(0) {
                Err(BrokerError::Blocked { .. }) => tokio::task::yield_now().await,
                other => break other,
            }
        }
    });
    let dead = dead.await;
    assert!(matches!(dead, Err(BrokerError::Disconnected { .. })), "{dead:?}");
    assert!(broker.blocked().is_none());
}

#[tokio::test(flavor = "multi_thread")]
async fn a_killed_server_loses_nothing_that_was_confirmed() {
    let Some(server) = Server::start() else { return };
    let broker = connect(&server.url()).await;
    let route = to_queue("killed");
    let (progress, mut progressing) = mpsc::unbounded_channel();
    let publishing = tokio::spawn({
        let (broker, route) = (broker.clone(), route.clone());
        async move {
            let mut confirmed = Vec::new();
            loop {
                let batch: Vec<_> = (0..256).map(|_| outgoing(&route)).collect();
                let outcomes = publish(&broker, &batch).await;
                let taken = batch.iter().zip(&outcomes).filter(|(_, outcome)| outcome.is_ok());
                confirmed.extend(taken.map(|(sent, _)| sent.message.id.to_string()));
                if let Some(error) = outcomes.into_iter().find_map(Result::err) {
                    break (confirmed, error);
                }
                let _ = progress.send(());
            }
        }
    });
    for _ in 0..5 {
        soon(progressing.recv()).await.expect("a batch");
    }
    tokio::task::block_in_place(|| server.kill());
    let (confirmed, error) = soon(publishing).await.expect("the publisher");
    assert!(matches!(error, BrokerError::Disconnected { .. }), "{error}");
    let afterwards = publish_one(&broker, &route).await;
    assert!(matches!(afterwards, Err(BrokerError::Disconnected { .. })), "{afterwards:?}");
    soon(broker.close()).await;

    tokio::task::block_in_place(|| server.restart());
    let arrived = ids(&Observer::new(&server).await.drain("killed").await);
    assert!(confirmed.len() >= 5 * 256);
    assert!(confirmed.iter().all(|id| arrived.contains(id)), "a confirmed message is missing");
    publish_one(&connect(&server.url()).await, &route).await.expect("published on a new connection");
}
