//! Order, priorities, fairness, and how it all lies in Redis.

use std::collections::VecDeque;

use futures_util::FutureExt;

use super::*;

#[tokio::test]
async fn what_is_taken_lies_where_kombu_keeps_it() {
    let Some(redis) = Redis::start(&[]) else { return };
    publish(&redis, "q", [(1, 0), (2, 0), (3, 0)]).await;
    let envelopes: Vec<String> = redis.connection().lrange("q", 0, -1).expect("a list");
    let consumer = open(&redis, "me", &["q"]).await;
    let taken = take(&*consumer, &[], 2).await;
    assert_eq!((numbers(&taken), &*taken[0].queue), (vec![1, 2], "q"));
    assert!(!taken[0].redelivered);

    // What kombu's own consumer writes: `dumps([message._raw, exchange, routing_key])`, under a tag.
    let records = unacked(&redis);
    assert_eq!(records.iter().map(|(tag, _)| tag.as_str()).collect::<Vec<_>>(), ["me.1.1", "me.1.2"]);
    let envelope: Value = serde_json::from_str(&envelopes[2]).expect("JSON");
    assert_eq!(records[0].1, json!([envelope, "", "q"]));
    let mut connection = redis.connection();
    let (seconds, _): (f64, f64) = redis::cmd("TIME").query(&mut connection).expect("the time");
    let lease: f64 = connection.zscore("unacked_index", "me.1.1").expect("a time");
    assert!((lease - seconds).abs() < 60.0 && lease.fract() == 0.0, "{lease}");

    // The next take acknowledges the last.
    let next = take(&*consumer, &tags(&taken), 2).await;
    assert_eq!((numbers(&next), unacked(&redis).len()), (vec![3], 1));
    consumer.acknowledge(&tags(&next)).await.expect("acknowledged");
    consumer.acknowledge(&tags(&next)).await.expect("twice does no harm");
    consumer.acknowledge(&[]).await.expect("nothing to do");
    assert_eq!((unacked(&redis), waiting(&redis, "q")), (vec![], vec![]));
    let bindings: Vec<String> = connection.smembers("_kombu.binding.q").expect("a set");
    assert_eq!(bindings, ["q\x06\x16\x06\x16q"]);
}

#[tokio::test]
async fn low_numbers_are_served_first() {
    let Some(redis) = Redis::start(&[]) else { return };
    publish(&redis, "q", [(1, 9), (2, 3), (3, 0), (4, 6), (5, 0), (6, 255), (7, 4)]).await;
    let consumer = open(&redis, "me", &["q"]).await;
    assert_eq!(numbers(&take(&*consumer, &[], 4).await), [3, 5, 2, 7]);
    assert_eq!(numbers(&take(&*consumer, &[], 4).await), [4, 1, 6]);
}

#[tokio::test]
async fn queues_take_turns() {
    let Some(redis) = Redis::start(&[]) else { return };
    publish(&redis, "busy", (0..40).map(|number| (number, 0))).await;
    publish(&redis, "calm", (100..110).map(|number| (number, 0))).await;
    // Named twice, served once.
    let consumer = open(&redis, "me", &["busy", "calm", "empty", "busy"]).await;
    let by_queue = |taken: &[Taken]| {
        let count = |name: &str| taken.iter().filter(|message| &*message.queue == name).count();
        (count("busy"), count("calm"))
    };
    let mut first = Vec::new();
    for _ in 0..6 {
        first.extend(take(&*consumer, &[], 1).await);
    }
    assert_eq!(by_queue(&first), (4, 2), "the empty one's turns go to the next");
    // Shares of eight, and what the empty queue leaves goes to the one that has more.
    assert_eq!(by_queue(&take(&*consumer, &[], 24).await), (16, 8));
    assert_eq!(by_queue(&take(&*consumer, &[], 100).await), (20, 0));
}

#[tokio::test]
async fn many_at_once() {
    let Some(redis) = Redis::start(&[]) else { return };
    let consumer = open(&redis, "me", &["q"]).await;
    for start in (0..3000).step_by(250) {
        publish(&redis, "q", (start..start + 250).map(|number| (number, 0))).await;
    }
    let taken = take(&*consumer, &[], 5000).await;
    assert_eq!(numbers(&taken), (0..3000).collect::<Vec<_>>());
    assert_eq!(unacked(&redis).len(), 3000);
    consumer.renew(&tags(&taken)).await.expect("renewed");
    publish(&redis, "q", [(3000, 0)]).await;
    assert_eq!(numbers(&take(&*consumer, &tags(&taken), 5000).await), [3000]);
    assert_eq!(unacked(&redis).len(), 1);
}

#[tokio::test]
async fn requests_that_overlap_are_carried_out_in_their_order() {
    let Some(redis) = Redis::start(&["--appendonly", "no"]) else { return };
    let consumer = open(&redis, "me", &["q"]).await;
    publish(&redis, "q", (0..250).map(|number| (number, 0))).await;
    publish(&redis, "q", (250..500).map(|number| (number, 0))).await;
    assert!(consumer.overlaps());
    let request = |done: Vec<Tag>| {
        let consumer = consumer.clone();
        let mut request = async move { consumer.take_ready(&done, 90).await }.boxed();
        assert!((&mut request).now_or_never().is_none(), "it is sent, and not answered yet");
        request
    };
    // The server has to know the script.
    let first = take(&*consumer, &[], 10).await;
    let (mut seen, mut all) = (numbers(&first), tags(&first));
    let mut requests = VecDeque::from([request(tags(&first)), request(Vec::new())]);
    while seen.len() < 500 {
        let first = requests.pop_front().expect("a request");
        let taken = in_time(first).await.expect("messages");
        assert!(taken.len() <= 90);
        all.extend(tags(&taken));
        seen.extend(numbers(&taken));
        requests.push_back(request(tags(&taken)));
    }
    assert_eq!(seen, (0..500).collect::<Vec<_>>());
    assert!(all.is_sorted_by(|one, other| one < other), "later ones are higher");
    for request in requests {
        assert!(in_time(request).await.expect("an answer").is_empty(), "nobody waits for messages");
    }
    assert_eq!(unacked(&redis).len(), 0);
}

#[tokio::test]
async fn options_shape_the_keys() {
    let Some(redis) = Redis::start(&[]) else { return };
    let options = json!({"global_keyprefix": "shop:", "sep": "|", "priority_steps": [0, 5], "unacked_key": "taken"});
    let config = configured(&redis, options);
    publish_to(&config, "q", [(1, 7), (2, 0)]).await;
    let consumer = connect(&config, subscription("me", &["q"])).await.expect("a connection");
    let taken = take(&*consumer, &[], 10).await;
    assert_eq!(numbers(&taken), [2, 1]);
    let mut connection = redis.connection();
    let mut keys: Vec<String> = connection.keys("*").expect("keys");
    keys.sort();
    let ours = ["shop:async_signals.generations", "shop:async_signals.workers"];
    let bindings = ["shop:_kombu.binding.q", "shop:_kombu.binding_permanent.q"];
    assert_eq!(keys, [&bindings[..], &ours, &["shop:taken", "shop:unacked_index"]].concat());
    consumer.give_back(&tags(&taken)).await.expect("given back");
    assert_eq!((waiting(&redis, "shop:q"), waiting(&redis, "shop:q|5")), (vec![2], vec![1]));
    consumer.close().await;
    let mut keys: Vec<String> = connection.keys("*").expect("keys");
    keys.sort();
    assert_eq!(keys, [&bindings[..], &["shop:q", "shop:q|5"]].concat(), "nothing of a worker that signed off");
}

#[tokio::test]
async fn what_is_given_back_comes_first_and_says_so() {
    let Some(redis) = Redis::start(&[]) else { return };
    publish(&redis, "q", [(1, 0), (2, 0), (3, 0), (4, 0), (5, 6)]).await;
    let consumer = open(&redis, "me", &["q"]).await;
    let taken = take(&*consumer, &[], 3).await;
    // In any order; and the second is settled by now.
    consumer.acknowledge(&[taken[1].tag]).await.expect("acknowledged");
    consumer.give_back(&[taken[0].tag, taken[2].tag, taken[1].tag]).await.expect("given back");
    assert_eq!((waiting(&redis, "q"), unacked(&redis)), (vec![1, 3, 4], vec![]));
    consumer.give_back(&tags(&taken)).await.expect("once is enough");
    let again = take(&*consumer, &[], 10).await;
    let told: Vec<_> = again.iter().map(|message| (number(message), message.redelivered)).collect();
    assert_eq!(told, [(1, true), (3, true), (4, false), (5, false)]);
    assert_ne!(again[0].tag, taken[0].tag);
    let Content::Message(incoming) = &again[0].content else { panic!("a message") };
    assert_eq!((incoming.exchange.as_str(), incoming.routing_key.as_str()), ("", "q"));
    assert_eq!(incoming.headers["nested"], json!({"list": [1, null, "ü"]}));
}

#[tokio::test]
async fn what_is_no_message_is_handed_over_as_it_is() {
    let Some(redis) = Redis::start(&[]) else { return };
    let garbage: Vec<&[u8]> = vec![b"\xff\xfe", b"", b"[1, 2", b"1,\"\",\"q\"", b"{\"properties\": 1}"];
    for raw in &garbage {
        let _: () = redis.connection().lpush("q", *raw).expect("a list");
    }
    let consumer = open(&redis, "me", &["q"]).await;
    let taken = take(&*consumer, &[], 10).await;
    let raws = |taken: &[Taken]| -> Vec<Vec<u8>> {
        let raw = |message: &Taken| match &message.content {
            Content::Malformed { raw, reason } if !reason.is_empty() => raw.to_vec(),
            other => panic!("{other:?}"),
        };
        taken.iter().map(raw).collect()
    };
    assert_eq!(raws(&taken), garbage);
    consumer.give_back(&tags(&taken)).await.expect("given back");
    let again = take(&*consumer, &[], 10).await;
    assert_eq!(raws(&again), garbage);
    consumer.acknowledge(&tags(&again)).await.expect("acknowledged");
    assert_eq!(unacked(&redis), []);
}
