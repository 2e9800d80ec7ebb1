//! Settling: acknowledging, giving back, and signing off.

use super::*;

pub(super) async fn acknowledged(bench: &mut dyn Bench) {
    let queue = fresh("queue");
    let worker = consumer(bench, &queue).await;
    fill(bench, &queue, 0..9).await;
    let taken = take_all(&*worker, 9).await;
    let tags = tags(&taken);
    // Not in their order, and some of them twice.
    worker.acknowledge(&tags[4..6]).await.expect("acknowledged");
    worker.acknowledge(&[]).await.expect("nothing to acknowledge");
    worker.acknowledge(&tags[..5]).await.expect("acknowledged");
    fill(bench, &queue, 9..10).await;
    let last = take(&*worker, &tags[5..9], 10).await;
    assert_eq!(numbers(&last), [9]);
    worker.acknowledge(&[tags[0], last[0].tag]).await.expect("acknowledged");
    worker.close().await;

    let other = consumer(bench, &queue).await;
    fill(bench, &queue, 10..11).await;
    let taken = take(&*other, &[], 10).await;
    assert_eq!(numbers(&taken), [10]);
    assert!(!taken[0].redelivered);
    other.acknowledge(&super::tags(&taken)).await.expect("acknowledged");
    assert!(bench.read(&queue).await.is_empty());
}

pub(super) async fn given_back(bench: &mut dyn Bench) {
    let queue = fresh("queue");
    let narrow = || Subscription { prefetch: 3, ..subscription(&fresh("worker"), &[&queue]) };
    let worker = subscribe(bench, narrow()).await;
    fill(bench, &queue, 0..6).await;
    let held = take_all(&*worker, 3).await;
    assert_eq!(numbers(&held), [0, 1, 2]);
    // Where the broker pushes, this one would get it again, behind what is on its way already.
    worker.interrupt();
    worker.give_back(&tags(&held[1..])).await.expect("given back");
    worker.acknowledge(&tags(&held[..1])).await.expect("acknowledged");
    let other = subscribe(bench, narrow()).await;
    let (mut taken, mut done) = (Vec::new(), Vec::new());
    while taken.len() < 5 {
        let more = take(&*other, &done, 5 - taken.len()).await;
        done = tags(&more);
        taken.extend(more);
    }
    let seen: Vec<_> = taken.iter().map(|taken| (number(taken), taken.redelivered)).collect();
    assert_eq!(seen, [(1, true), (2, true), (3, false), (4, false), (5, false)]);
    other.acknowledge(&done).await.expect("acknowledged");
    worker.acknowledge(&tags(&held)).await.expect("nothing of its own any more");

    // Who waits is told, also if it is the one that gives back.
    fill(bench, &queue, 6..7).await;
    let mut held = take(&*other, &[], 1).await;
    for _ in 0..2 {
        let waiting = {
            let other = other.clone();
            tokio::spawn(async move { other.take(&[], 10).await })
        };
        assert!(!waiting.is_finished(), "it is in our hands");
        other.give_back(&tags(&held)).await.expect("given back");
        held = timeout(PROMPTLY, waiting).await.expect("woken in time").expect("no panic").expect("a message");
        assert_eq!((numbers(&held), held[0].redelivered), (vec![6], true));
    }
    other.acknowledge(&tags(&held)).await.expect("acknowledged");
    other.close().await;
    assert!(bench.read(&queue).await.is_empty());
}

pub(super) async fn closed(bench: &mut dyn Bench) {
    let queue = fresh("queue");
    let worker = consumer(bench, &queue).await;
    fill(bench, &queue, 0..5).await;
    let held = take_all(&*worker, 4).await;
    worker.renew(&tags(&held)).await.expect("a sign of life");
    worker.acknowledge(&tags(&held[1..2])).await.expect("acknowledged");
    worker.close().await;
    let other = consumer(bench, &queue).await;
    // At once: nobody has to find out first.
    let taken = timeout(PROMPTLY, take_all(&*other, 4)).await.expect("in time");
    assert_eq!(numbers(&taken), [0, 2, 3, 4]);
    assert!(taken[..3].iter().all(|taken| taken.redelivered));
    other.acknowledge(&tags(&taken)).await.expect("acknowledged");
}

pub(super) async fn malformed(bench: &mut dyn Bench) {
    let queue = fresh("queue");
    let worker = consumer(bench, &queue).await;
    let deep = format!(r#"{{"properties": {}1{}}}"#, "[".repeat(100_000), "]".repeat(100_000));
    let garbage: [&[u8]; 9] = [
        b"Dear Sir or Madam",
        b"",
        b"{}",
        b"[1, 2]",
        br#"["", "utf-8", "application/json", {}, {}]"#,
        br#"{"properties": ["", "", 2]}"#,
        b"\xff\xfe\x00",
        br#"{"body": "*", "properties": {"body_encoding": "base64", "delivery_tag": "x"}}"#,
        deep.as_bytes(),
    ];
    for bytes in garbage {
        if !bench.put_raw(&queue, bytes) {
            return;
        }
    }
    let taken = take_all(&*worker, garbage.len()).await;
    let assert_garbage = |taken: &[Taken]| {
        for (taken, bytes) in taken.iter().zip(garbage) {
            let Content::Malformed { raw, reason } = &taken.content else { panic!("{taken:?}") };
            assert!(raw == bytes && !reason.is_empty(), "{reason:?}: {raw:?}");
        }
    };
    assert_garbage(&taken);
    // Like any message it can be given back and acknowledged.
    worker.give_back(&tags(&taken)).await.expect("given back");
    let again = take_all(&*worker, garbage.len()).await;
    assert_garbage(&again);
    worker.acknowledge(&tags(&again)).await.expect("acknowledged");
    fill(bench, &queue, 0..1).await;
    let last = take(&*worker, &[], 10).await;
    assert_eq!(numbers(&last), [0]);
    worker.acknowledge(&tags(&last)).await.expect("acknowledged");
}
