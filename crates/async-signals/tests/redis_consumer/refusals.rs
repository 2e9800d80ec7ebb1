//! What Redis refuses, and what that costs.

use super::*;

#[tokio::test]
async fn a_full_memory_is_emptied() {
    let Some(redis) = Redis::start(&[]) else { return };
    publish(&redis, "q", (0..20).map(|number| (number, 0))).await;
    let other = open(&redis, "other", &["q"]).await;
    assert_eq!(take(&*other, &[], 5).await.len(), 5);
    set(&redis, "maxmemory-policy", "noeviction");
    set(&redis, "maxmemory", "1");
    // It signs on, takes, lives on, gives back, acknowledges and signs off.
    let consumer = open(&redis, "me", &["q", "unbound"]).await;
    let taken = take(&*consumer, &[], 10).await;
    assert_eq!(numbers(&taken), (5..15).collect::<Vec<_>>());
    consumer.renew(&tags(&taken)).await.expect("alive");
    consumer.give_back(&tags(&taken[5..])).await.expect("given back");
    let rest = take(&*consumer, &tags(&taken[..5]), 100).await;
    assert_eq!(numbers(&rest), (10..20).collect::<Vec<_>>());
    other.close().await;
    let again = take(&*consumer, &tags(&rest), 100).await;
    assert_eq!((numbers(&again), unacked(&redis).len()), ((0..5).collect(), 5));
    consumer.close().await;
    assert_eq!((waiting(&redis, "q"), unacked(&redis)), ((0..5).collect(), vec![]));
}

#[tokio::test]
async fn a_key_of_another_type_spoils_its_queue_alone() {
    let Some(redis) = Redis::start(&[]) else { return };
    publish(&redis, "good", [(1, 0), (2, 0), (3, 0)]).await;
    let consumer = open(&redis, "me", &["bad", "good"]).await;
    let _: () = redis.connection().set("bad", "text").expect("a key");
    let taken = take(&*consumer, &[], 2).await;
    let taken = [taken, take(&*consumer, &[], 2).await].concat();
    assert_eq!(numbers(&taken), [1, 2, 3]);
    let error = in_time(consumer.take(&tags(&taken), 2)).await.expect_err("no list");
    assert!(matches!(&error, BrokerError::Refused { reason } if reason.contains("WRONGTYPE")), "{error:?}");
    assert_eq!(unacked(&redis), [], "what was done is acknowledged all the same");
}

#[tokio::test]
async fn what_cannot_be_put_back_stays_recorded() {
    let Some(redis) = Redis::start(&[]) else { return };
    publish(&redis, "spoilt", [(1, 0)]).await;
    publish(&redis, "good", [(2, 0)]).await;
    let dead = open(&redis, "dead", &["spoilt", "good"]).await;
    let taken = take(&*dead, &[], 2).await;
    let _: () = redis.connection().set("spoilt", "text").expect("a key");
    let error = dead.give_back(&tags(&taken)).await.expect_err("no list");
    assert!(matches!(error, BrokerError::Refused { .. }), "{error:?}");
    assert_eq!((waiting(&redis, "good"), unacked(&redis).len()), (vec![2], 1));
    // Nor does it keep another worker from living, or from putting it back once it can.
    let living = open(&redis, "living", &["good"]).await;
    let _: () = redis.connection().zadd("async_signals.workers", "dead", 1).expect("a set");
    let mut beats = 0;
    renew_until(&*living, &[], || {
        beats += 1;
        beats > 2
    })
    .await;
    assert_eq!(unacked(&redis).len(), 1);
    let _: () = redis.connection().del("spoilt").expect("a key");
    living.renew(&[]).await.expect("alive");
    assert_eq!((waiting(&redis, "spoilt"), unacked(&redis)), (vec![1], vec![]));
}

#[tokio::test]
async fn what_cannot_be_recorded_stays_where_it_is() {
    let Some(redis) = Redis::start(&[]) else { return };
    publish(&redis, "q", [(1, 0), (2, 0)]).await;
    let consumer = open(&redis, "me", &["q"]).await;
    for key in ["unacked", "unacked_index"] {
        let _: () = redis.connection().set(key, "text").expect("a key");
        let error = in_time(consumer.take(&[], 2)).await.expect_err("no hash, no set");
        assert!(matches!(&error, BrokerError::Refused { reason } if reason.contains("WRONGTYPE")), "{error:?}");
        assert_eq!(waiting(&redis, "q"), [1, 2]);
        let _: () = redis.connection().del(&["unacked", "unacked_index"]).expect("keys");
    }
    assert_eq!(numbers(&take(&*consumer, &[], 2).await), [1, 2]);
}

#[tokio::test]
async fn a_user_without_the_right_loses_nothing() {
    let Some(redis) = Redis::start(&[]) else { return };
    publish(&redis, "q", [(1, 0)]).await;
    let rights = ["SETUSER", "reader", "on", ">secret", "~*", "+@all", "-hset"];
    let _: () = redis::cmd("ACL").arg(&rights).query(&mut redis.connection()).expect("a user");
    let config = BrokerConfig::new(&redis.url("reader:secret@")).expect("a URL");
    let error = connect(&config, subscription("me", &["q"])).await.expect_err("it cannot sign on");
    assert!(!error.is_disconnect() && !error.to_string().contains("secret"), "{error:?}");
    assert_eq!(waiting(&redis, "q"), [1]);
}

#[tokio::test]
async fn scripts_that_the_server_forgot_are_sent_again() {
    let Some(redis) = Redis::start(&[]) else { return };
    let consumer = open(&redis, "me", &["q"]).await;
    for number in 0..2 {
        publish(&redis, "q", [(number, 0)]).await;
        let _: () = redis::cmd("SCRIPT").arg("FLUSH").query(&mut redis.connection()).expect("forgotten");
        let taken = take(&*consumer, &[], 1).await;
        assert_eq!(numbers(&taken), [number]);
        let _: () = redis::cmd("SCRIPT").arg("FLUSH").query(&mut redis.connection()).expect("forgotten");
        consumer.renew(&tags(&taken)).await.expect("renewed");
    }
}

#[tokio::test]
async fn a_replica_takes_nothing() {
    let Some(redis) = Redis::start(&[]) else { return };
    publish(&redis, "q", [(1, 0)]).await;
    let consumer = open(&redis, "me", &["q"]).await;
    let _: () = redis::cmd("REPLICAOF").arg("127.0.0.1").arg(1).query(&mut redis.connection()).expect("a replica");
    let error = in_time(consumer.take(&[], 1)).await.expect_err("a replica");
    assert!(matches!(error, BrokerError::Unavailable { .. }) && error.is_disconnect(), "{error:?}");
    assert_eq!(waiting(&redis, "q"), [1]);
}

#[tokio::test]
async fn options_that_make_no_sense_are_named() {
    let Some(redis) = Redis::start(&[]) else { return };
    for options in [json!({"visibility_timeout": 0}), json!({"unacked_key": 1}), json!({"sep": ""})] {
        let name = options.as_object().and_then(|map| map.keys().next()).expect("a name").clone();
        let error = connect(&configured(&redis, options), subscription("me", &["q"])).await.expect_err("no sense");
        assert!(matches!(&error, BrokerError::InvalidOption { option, .. } if option.contains(&name)), "{error:?}");
    }
}
