//! Whose a message is while nobody has settled it.

use std::time::Instant;

use tokio::task::JoinHandle;

use super::{taking::assert_same, *};

/// How soon a dead worker's messages have to be somebody else's.
const RECOVERED: Duration = Duration::from_secs(10);

/// A worker's heart, beating as long as it is there. More often than a real
/// one, so that the test waits for the lease and not for the beat.
struct Heart(JoinHandle<()>);

impl Heart {
    fn of(consumer: &Arc<dyn Consumer>, held: &[Taken]) -> Self {
        let (consumer, held) = (consumer.clone(), tags(held));
        Self(tokio::spawn(async move {
            let mut beat = tokio::time::interval(Duration::from_millis(200));
            loop {
                beat.tick().await;
                consumer.renew(&held).await.expect("a sign of life");
            }
        }))
    }

    /// Ends it, and with it what it knows of its consumer.
    async fn stop(self) {
        self.0.abort();
        assert!(self.0.await.expect_err("it ended").is_cancelled(), "it beat until then");
    }
}

pub(super) async fn dead(bench: &mut dyn Bench) {
    let queue = fresh("queue");
    let doomed = consumer(bench, &queue).await;
    let messages: Vec<_> = (0..5).map(numbered).collect();
    publish(&*connect(bench).await, &Arc::new(Route::to_queue(&queue)), &messages).await;
    let held = take_all(&*doomed, 3).await;
    doomed.renew(&tags(&held)).await.expect("a sign of life");
    let survivor = consumer(bench, &queue).await;
    let heart = Heart::of(&survivor, &[]);
    drop(doomed);
    let died = Instant::now();

    let mut taken = take_all(&*survivor, 5).await;
    assert!(died.elapsed() < RECOVERED, "after {:?}", died.elapsed());
    taken.sort_by_key(number);
    for (taken, message) in taken.iter_mut().zip(&messages) {
        // One that the dead one's connection had been pushed ahead may be marked too.
        assert!(taken.redelivered || number(taken) >= 3, "{taken:?}");
        let Content::Message(incoming) = &mut taken.content else { panic!("{taken:?}") };
        incoming.headers.remove("redelivered");
        assert_same(incoming, message);
    }
    survivor.acknowledge(&tags(&taken)).await.expect("acknowledged");
    heart.stop().await;
    survivor.close().await;
    assert!(bench.read(&queue).await.is_empty());
}

pub(super) async fn living(bench: &mut dyn Bench) {
    let (queue, other) = (fresh("queue"), fresh("queue"));
    let owner = consumer(bench, &queue).await;
    fill(bench, &queue, 0..3).await;
    let held = take_all(&*owner, 3).await;
    let beating = Heart::of(&owner, &held);
    // Another one dies meanwhile. When what it held comes back, the owner's would have come too.
    let doomed = consumer(bench, &other).await;
    fill(bench, &other, 3..4).await;
    let theirs = take_all(&*doomed, 1).await;
    doomed.renew(&tags(&theirs)).await.expect("a sign of life");
    let reader = subscribe(bench, subscription(&fresh("worker"), &[&queue, &other])).await;
    let reading = Heart::of(&reader, &[]);
    drop(doomed);
    let taken = take(&*reader, &[], 10).await;
    assert_eq!((numbers(&taken), taken[0].redelivered), (vec![3], true));

    owner.acknowledge(&tags(&held)).await.expect("acknowledged");
    fill(bench, &queue, 4..5).await;
    beating.stop().await;
    owner.close().await;
    let last = take(&*reader, &tags(&taken), 10).await;
    assert_eq!(numbers(&last), [4]);
    reader.acknowledge(&tags(&last)).await.expect("acknowledged");
    reading.stop().await;
    reader.close().await;
}

pub(super) async fn reconnected(bench: &mut dyn Bench) {
    let (queue, name) = (fresh("queue"), fresh("worker"));
    let first = subscribe(bench, subscription(&name, &[&queue])).await;
    fill(bench, &queue, 0..4).await;
    let taken = take_all(&*first, 4).await;
    first.renew(&tags(&taken)).await.expect("a sign of life");
    // Of the last two it does not know: the answer was lost with the connection.
    let held = tags(&taken[..2]);
    // Where the broker pushes and takes back, these four are all that this one is pushed.
    let second = Subscription { generation: 2, held: held.clone(), prefetch: 4, ..subscription(&name, &[&queue]) };
    let second = subscribe(bench, second).await;
    drop(first);
    second.renew(&held).await.expect("a sign of life");
    let kept = if bench.keeps_leases() { 2 } else { 0 };
    let again = take_all(&*second, 4 - kept).await;
    assert_eq!(numbers(&again), (kept as u64..4).collect::<Vec<_>>());
    // Where the broker knows what the worker has never seen, that was not delivered before.
    let is_marked = !bench.keeps_leases();
    assert!(again.iter().all(|taken| taken.redelivered == is_marked && taken.tag.generation == 2), "{again:?}");

    let other = consumer(bench, &queue).await;
    fill(bench, &queue, 4..5).await;
    let theirs = take(&*other, &[], 10).await;
    assert_eq!(numbers(&theirs), [4], "what is held is not given to others");
    other.acknowledge(&tags(&theirs)).await.expect("acknowledged");
    // Where the broker keeps it, the new connection settles what the old one took. Elsewhere the tag means nothing.
    second.acknowledge(&held[..1]).await.expect("acknowledged");
    second.close().await;
    let rest = take_all(&*other, if bench.keeps_leases() { 3 } else { 4 }).await;
    assert_eq!(numbers(&rest), if bench.keeps_leases() { vec![1, 2, 3] } else { vec![0, 1, 2, 3] });
    other.acknowledge(&tags(&rest)).await.expect("acknowledged");
    other.close().await;
    assert!(bench.read(&queue).await.is_empty());
}
