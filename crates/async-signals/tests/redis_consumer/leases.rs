//! Who holds what, and how it comes back.

use std::{collections::HashSet, time::Instant};

use servers::redis::PASSWORD;
use tokio::{
    io::AsyncReadExt,
    net::{TcpListener, TcpStream},
};

use super::*;

#[tokio::test]
async fn a_dead_workers_messages_come_back_within_seconds() {
    let Some(redis) = Redis::start(&[]) else { return };
    publish(&redis, "q", (0..300).map(|number| (number, 0))).await;
    let living = open(&redis, "living", &["q"]).await;
    let held = tags(&take(&*living, &[], 100).await);
    let dying = open(&redis, "dying", &["q"]).await;
    assert_eq!(take(&*dying, &[], 150).await.len(), 150);
    drop(dying);
    let died = Instant::now();
    renew_until(&*living, &held, || waiting(&redis, "q").len() == 200).await;
    assert!(died.elapsed() < Duration::from_secs(10), "{:?}", died.elapsed());
    assert_eq!(waiting(&redis, "q"), (100..300).collect::<Vec<_>>(), "in their order");
    assert_eq!(unacked(&redis).len(), 100, "the living keeps its own");
    let again = take(&*living, &[], 200).await;
    assert_eq!(again.iter().filter(|message| message.redelivered).count(), 150);
    renew_until(&*living, &held, || workers(&redis) == ["living"]).await;
}

#[tokio::test]
async fn a_server_that_stood_still_makes_nobody_dead() {
    let Some(redis) = Redis::start(&[]) else { return };
    publish(&redis, "q", [(1, 0), (2, 0)]).await;
    let (one, other) = (open(&redis, "one", &["q"]).await, open(&redis, "other", &["q"]).await);
    let held = [tags(&take(&*one, &[], 1).await), tags(&take(&*other, &[], 1).await)];
    for _ in 0..2 {
        // As its clock has it when it goes on: nobody gave a sign for long.
        ["one", "other"].iter().for_each(|worker| silence(&redis, worker));
        for _ in 0..2 {
            one.renew(&held[0]).await.expect("renewed");
            other.renew(&held[1]).await.expect("renewed");
        }
    }
    assert_eq!((waiting(&redis, "q"), unacked(&redis).len()), (vec![], 2));
}

#[tokio::test]
async fn what_an_answer_told_nobody_goes_back_with_the_next_connection() {
    let Some(redis) = Redis::start(&[]) else { return };
    publish(&redis, "q", (0..5).map(|number| (number, 0))).await;
    let first = open(&redis, "me", &["q"]).await;
    let taken = take(&*first, &[], 4).await;
    let held = vec![taken[1].tag];
    let second = Subscription { generation: 2, held: held.clone(), ..subscription("me", &["q"]) };
    let second = connect(&redis.config(), second).await.expect("a connection");
    assert_eq!((waiting(&redis, "q"), unacked(&redis).len()), (vec![0, 2, 3, 4], 1));

    // A request of the first connection that arrives late takes nothing any more.
    let error = in_time(first.take(&[], 10)).await.expect_err("no right");
    assert!(error.is_disconnect(), "{error:?}");
    let error = in_time(first.renew(&held)).await.expect_err("no right");
    assert!(error.is_disconnect(), "{error:?}");
    first.close().await;
    assert_eq!(unacked(&redis).len(), 1, "what it took is the second's");

    let again = take(&*second, &held, 10).await;
    assert_eq!(numbers(&again), [0, 2, 3, 4]);
    assert_eq!(again.iter().map(|message| message.tag.generation).collect::<HashSet<_>>(), HashSet::from([2]));
    assert!(again.iter().all(|taken| !taken.redelivered), "nobody has seen them: {again:?}");
    second.close().await;
    assert_eq!((waiting(&redis, "q"), unacked(&redis)), (vec![0, 2, 3, 4], vec![]));
    assert_eq!(workers(&redis), Vec::<String>::new());
}

#[tokio::test]
async fn who_was_found_dead_may_not_take_until_it_connects_anew() {
    let Some(redis) = Redis::start(&[]) else { return };
    publish(&redis, "q", [(1, 0), (2, 0)]).await;
    let zombie = open(&redis, "zombie", &["q"]).await;
    let held = tags(&take(&*zombie, &[], 1).await);
    let other = open(&redis, "other", &["q"]).await;
    silence(&redis, "zombie");
    renew_until(&*other, &[], || unacked(&redis).is_empty()).await;
    assert_eq!(waiting(&redis, "q"), [1, 2]);
    for error in [zombie.take(&[], 1).await.expect_err("dead"), zombie.renew(&held).await.expect_err("dead")] {
        assert!(error.is_disconnect(), "{error:?}");
    }
    zombie.acknowledge(&held).await.expect("no harm");
    zombie.give_back(&held).await.expect("no harm");
    assert_eq!((waiting(&redis, "q"), workers(&redis)), (vec![1, 2], vec!["other".to_owned()]));
    let reborn = Subscription { generation: 2, held, ..subscription("zombie", &["q"]) };
    let reborn = connect(&redis.config(), reborn).await.expect("a connection");
    assert_eq!(numbers(&take(&*reborn, &[], 10).await), [1, 2]);
}

#[tokio::test]
async fn a_flushed_database_heals() {
    let Some(redis) = Redis::start(&[]) else { return };
    let consumer = open(&redis, "me", &["q"]).await;
    let _: () = redis::cmd("FLUSHALL").query(&mut redis.connection()).expect("flushed");
    assert!(consumer.renew(&[]).await.expect_err("forgotten").is_disconnect());
    let next = Subscription { generation: 2, ..subscription("me", &["q"]) };
    let consumer = connect(&redis.config(), next).await.expect("a connection");
    publish(&redis, "q", [(1, 0)]).await;
    assert_eq!(numbers(&take(&*consumer, &[], 1).await), [1]);
}

#[tokio::test]
async fn what_a_stock_worker_held_comes_back_after_its_timeout() {
    let Some(redis) = Redis::start(&[]) else { return };
    // As kombu 5.7 leaves it: the message was published to a topic exchange.
    let binding = "order.*\x06\x16^order\\.[^\\.]+$\x06\x16orders";
    let mut connection = redis.connection();
    let _: () = connection.sadd("_kombu.binding.shop", binding).expect("a set");
    let envelope = json!({
        "body": "W10=", "content-encoding": "utf-8", "content-type": "application/json", "headers": {"number": 7},
        "properties": {"delivery_info": {"exchange": "shop", "routing_key": "order.placed"}, "priority": 4,
                       "body_encoding": "base64", "delivery_tag": "0a1b"}
    });
    let (seconds, _): (f64, f64) = redis::cmd("TIME").query(&mut connection).expect("the time");
    for (tag, age) in [("old", 3700.25), ("young", 3500.25)] {
        let record = json!([envelope, "shop", "order.placed"]).to_string();
        let _: () = connection.hset("unacked", tag, record).expect("a hash");
        let _: () = connection.zadd("unacked_index", tag, seconds - age).expect("a set");
    }
    // A tag whose message is settled.
    let _: () = connection.zadd("unacked_index", "gone", 1).expect("a set");
    publish(&redis, "q", [(1, 0)]).await;
    let consumer = open(&redis, "me", &["q"]).await;
    let held = tags(&take(&*consumer, &[], 1).await);
    consumer.renew(&held).await.expect("renewed");
    assert_eq!(waiting(&redis, "orders\x06\x163"), [7]);
    assert_eq!(unacked(&redis).iter().map(|(tag, _)| tag.as_str()).collect::<Vec<_>>(), ["me.1.1", "young"]);
    let restored: String = connection.lindex("orders\x06\x163", 0).expect("a message");
    let restored: Value = serde_json::from_str(&restored).expect("JSON");
    assert_eq!(restored["headers"]["redelivered"], true);
    assert_eq!(restored["properties"]["delivery_info"]["redelivered"], true);
}

#[tokio::test]
async fn a_visibility_timeout_shorter_than_a_receiver_is_no_matter() {
    let Some(redis) = Redis::start(&[]) else { return };
    let config = configured(&redis, json!({"visibility_timeout": 0.001}));
    publish(&redis, "q", [(1, 0)]).await;
    let busy = connect(&config, subscription("busy", &["q"])).await.expect("a connection");
    let held = tags(&take(&*busy, &[], 1).await);
    let _: () = redis.connection().zadd("unacked_index", "busy.1.1", 1).expect("a set");
    let other = connect(&config, subscription("other", &["q"])).await.expect("a connection");
    other.renew(&[]).await.expect("renewed");
    assert_eq!((waiting(&redis, "q"), unacked(&redis).len()), (vec![], 1), "its owner is alive");
    busy.renew(&held).await.expect("renewed");
    let lease: f64 = redis.connection().zscore("unacked_index", "busy.1.1").expect("a time");
    assert!(lease > 1.0);
}

#[tokio::test]
async fn connections_cut_at_any_moment_lose_nothing() {
    const MESSAGES: u64 = 1000;
    let Some(redis) = Redis::start(&["--appendonly", "no"]) else { return };
    for start in (0..MESSAGES).step_by(200) {
        publish(&redis, "q", (start..start + 200).map(|number| (number, 0))).await;
    }
    let port = cutting_proxy(redis.port()).await;
    let url = redis.url(&format!(":{PASSWORD}@")).replace(&redis.port().to_string(), &port.to_string());
    let config = BrokerConfig::new(&url).expect("a URL");
    let (mut seen, mut held, mut generation, mut lost_answers) = (HashSet::new(), Vec::new(), 0, 0);
    in_time(async {
        while seen.len() < MESSAGES as usize {
            generation += 1;
            let stands: Vec<String> = redis.connection().hkeys("unacked").expect("a hash");
            let known: HashSet<_> =
                held.iter().map(|tag: &Tag| format!("me.{}.{}", tag.generation, tag.number)).collect();
            lost_answers += usize::from(stands.iter().any(|tag| !known.contains(tag)));
            let next = Subscription { generation, held: held.clone(), ..subscription("me", &["q"]) };
            let Ok(consumer) = connect(&config, next).await else { continue };
            while let Ok(taken) = consumer.take(&held, 7).await {
                seen.extend(taken.iter().map(number));
                held = tags(&taken);
                if seen.len() == MESSAGES as usize {
                    break;
                }
            }
        }
    })
    .await;
    assert_eq!(seen, (0..MESSAGES).collect::<HashSet<_>>());
    assert!(lost_answers > 10, "{lost_answers} lost answers of {generation} connections prove nothing");
    // What the last lost answers told nobody is there, too.
    let last = Subscription { generation: generation + 1, held: held.clone(), ..subscription("me", &["q"]) };
    let last = connect(&redis.config(), last).await.expect("a connection");
    last.interrupt();
    let rest = take(&*last, &held, MESSAGES as usize).await;
    assert!(take(&*last, &tags(&rest), 1).await.is_empty());
    assert_eq!((waiting(&redis, "q"), unacked(&redis)), (vec![], vec![]));
}

/// Lets every request through, and cuts each connection somewhere in the answers: after more bytes each time.
async fn cutting_proxy(server: u16) -> u16 {
    let listener = TcpListener::bind(("127.0.0.1", 0)).await.expect("a free port");
    let port = listener.local_addr().expect("its address").port();
    tokio::spawn(async move {
        let mut allowed = 1000;
        while let Ok((client, _)) = listener.accept().await {
            allowed = 1000 + (allowed + 4099) % 30_000;
            tokio::spawn(async move {
                let server = TcpStream::connect(("127.0.0.1", server)).await.expect("the server");
                let ((from_client, mut to_client), (from_server, mut to_server)) =
                    (client.into_split(), server.into_split());
                let mut requests = from_client;
                let mut answers = from_server.take(allowed);
                tokio::select! {
                    _ = tokio::io::copy(&mut requests, &mut to_server) => {}
                    _ = tokio::io::copy(&mut answers, &mut to_client) => {}
                }
            });
        }
    });
    port
}

/// Who stands among the workers.
fn workers(redis: &Redis) -> Vec<String> {
    redis.connection().zrange("async_signals.workers", 0, -1).expect("a set")
}

/// Makes a worker's last sign of life an old one.
fn silence(redis: &Redis, worker: &str) {
    let _: () = redis.connection().zadd("async_signals.workers", worker, 1).expect("a set");
}

#[tokio::test]
async fn records_that_nobody_can_read_keep_no_other_from_coming_back() {
    let Some(redis) = Redis::start(&[]) else { return };
    publish(&redis, "q", [(1, 0)]).await;
    let consumer = open(&redis, "me", &["q"]).await;
    let mut connection = redis.connection();
    let good: String = redis::cmd("RPOP").arg("q").query(&mut connection).expect("a message");
    let mut fill = redis::pipe();
    for number in 0..600 {
        fill.cmd("HSET").arg("unacked").arg(format!("garbage-{number}")).arg("garbage").ignore();
        fill.cmd("ZADD").arg("unacked_index").arg(number).arg(format!("garbage-{number}")).ignore();
    }
    fill.cmd("HSET").arg("unacked").arg("good").arg(format!(r#"[{good}, "", "q"]"#)).ignore();
    fill.cmd("ZADD").arg("unacked_index").arg(1000).arg("good").ignore();
    let () = fill.query(&mut connection).expect("records");
    renew_until(&*consumer, &[], || waiting(&redis, "q") == [1]).await;
    let left: usize = redis::cmd("HLEN").arg("unacked").query(&mut connection).expect("a number");
    assert_eq!(left, 600, "and nothing is thrown away");
}
