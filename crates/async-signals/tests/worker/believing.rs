//! What a message says of itself, and what its worker knows better.

use super::*;

/// As of a message that an exchange has copied into two queues: it names the one that its sender knows.
fn naming(queue: &str, number: u64) -> Message {
    with_headers(number, json!({"async_signals": {"queue": queue}}))
}

pub(super) async fn stays(bench: &mut dyn Bench) {
    let (queue, other) = (fresh("queue"), fresh("other"));
    publish(bench, &queue, (0..4).map(|number| naming(&other, number))).await;
    publish(bench, &other, [numbered(100)]).await;
    let mut working = Working::on(bench, &[&queue]);
    working.next().await.finish(Outcome::Failed(vec![failure("a", Some(soon(1)))]));
    working.next().await.finish(Outcome::Unfit { kind: "MissingRow".into(), reason: "gone".to_owned() });
    working.next().await.finish(Outcome::Unfinished);
    working.next().await.finish(Outcome::Done);
    for _ in 0..2 {
        let job = working.next().await;
        assert_eq!(job.ours().queue.as_deref(), Some(&*queue), "{:?}", job.ours());
        job.finish(Outcome::Done);
    }
    working.stop().await;
    let dead = read(bench, &format!("{queue}.dead"), 1).await;
    assert_eq!(parked(&dead[0])["queue"], *queue);
    assert_eq!(bench.read(&other).await.len(), 1, "what was there before");
}
