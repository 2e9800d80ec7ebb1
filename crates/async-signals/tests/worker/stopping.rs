//! What a worker that stops leaves behind.

use async_signals::broker::consumer::DEAD_AFTER;

use super::*;

/// What waits for its time goes back at once, however patient the stop is.
pub(super) async fn leaves_delayed(bench: &mut dyn Bench) {
    let queue = fresh("queue");
    let eta = OffsetDateTime::from(SystemTime::now() + DEADLINE * 100).format(&Rfc3339).expect("a time");
    let delayed = (0..3).map(|number| with_headers(number, json!({"eta": eta})));
    publish(bench, &queue, delayed.chain([numbered(3)])).await;
    let mut working = Working::on(bench, &[&queue]);
    // It stands behind them in the queue.
    working.next().await.finish(Outcome::Done);
    working.worker.stop(DEADLINE * 10);
    timeout(DEADLINE, working.task).await.expect("long before its time").expect("no panic").expect("no error");
    let mut left: Vec<u64> = read(bench, &queue, 3).await.iter().map(ReadMessage::number).collect();
    left.sort_unstable();
    assert_eq!(left, [0, 1, 2]);
}

pub(super) async fn stops(bench: &mut dyn Bench) {
    let queue = fresh("queue");
    publish(bench, &queue, (0..20).map(numbered)).await;
    let mut working = Working::start(WorkerConfig { least_prefetch: 4, most_prefetch: 4, ..config(bench, &[&queue]) });
    let first = working.next().await;
    working.worker.stop(DEADLINE);
    let mut ran = vec![number(&first)];
    first.finish(Outcome::Done);
    while let Some(job) = timeout(DEADLINE, working.jobs.recv()).await.expect("in time") {
        ran.push(number(&job));
        job.finish(Outcome::Done);
    }
    working.task.await.expect("no panic").expect("no error");
    assert!(ran.len() < 20, "it took nothing new");
    let mut left: Vec<u64> = read(bench, &queue, 20 - ran.len()).await.iter().map(ReadMessage::number).collect();
    left.sort_unstable();
    assert_eq!(left, (ran.len() as u64..20).collect::<Vec<_>>());
}

pub(super) async fn leaves(bench: &mut dyn Bench) {
    let queue = fresh("queue");
    publish(bench, &queue, (0..20).map(numbered)).await;
    let narrow = |bench: &dyn Bench| WorkerConfig { least_prefetch: 4, most_prefetch: 4, ..config(bench, &[&queue]) };
    let mut ran = Vec::new();
    for _ in 0..3 {
        let mut working = Working::start(narrow(bench));
        let first = working.next().await.begin().expect("nothing is in its way");
        working.worker.stop(DEADLINE);
        let mut job = Some(first);
        while let Some(begun) = job {
            ran.push((number(&begun), begun.ours().deliveries));
            begun.finish(Outcome::Done);
            let next = timeout(DEADLINE, working.jobs.recv()).await.expect("in time");
            job = next.and_then(Job::begin);
        }
        timeout(DEADLINE, working.task).await.expect("in time").expect("no panic").expect("no error");
    }
    let mut working = Working::on(bench, &[&queue]);
    while ran.len() < 20 {
        let Some(job) = working.next().await.begin() else { continue };
        ran.push((number(&job), job.ours().deliveries));
        job.finish(Outcome::Done);
    }
    working.stop().await;
    ran.sort_unstable();
    assert_eq!(ran, (0..20).map(|number| (number, 0)).collect::<Vec<_>>());
    assert_eq!(bench.read(&queue).await, []);
}

pub(super) async fn leaves_alone(bench: &mut dyn Bench) {
    let queue = fresh("queue");
    let mut working = Working::on(bench, &[&queue]);
    publish(bench, &queue, [numbered(0)]).await;
    let first = working.next().await.begin().expect("nothing is in its way");
    publish(bench, &queue, [counted(1, 2)]).await;
    assert!(timeout(Duration::from_millis(500), working.jobs.recv()).await.is_err(), "it waits");
    working.worker.stop(DEADLINE);
    first.finish(Outcome::Done);
    timeout(DEADLINE, working.task).await.expect("in time").expect("no panic").expect("no error");
    assert!(working.jobs.recv().await.is_none(), "it does not begin any more");
    let mut other = Working::on(bench, &[&queue]);
    let job = other.next().await;
    assert_eq!((number(&job), job.ours().deliveries), (1, 2));
    job.finish(Outcome::Done);
    other.stop().await;
    assert_eq!(bench.read(&queue).await, []);
}

pub(super) async fn signs_off(bench: &mut dyn Bench) {
    // At different moments: whatever is being asked of the broker must not stand in the way.
    for pause in [0, 0, 0, 1, 2, 3] {
        let queue = fresh("queue");
        publish(bench, &queue, [numbered(7), numbered(8)]).await;
        let mut working = Working::on(bench, &[&queue]);
        let held = working.next().await;
        drop(working.next().await);
        if pause > 0 {
            sleep(Duration::from_millis(pause)).await;
        }
        working.worker.stop_now();
        let back = async {
            working.task.await.expect("no panic").expect("no error");
            read(bench, &queue, 2).await
        };
        let back = timeout(DEAD_AFTER / 2, back).await.expect("before it could be taken for dead");
        assert_eq!(back.iter().map(ReadMessage::number).collect::<BTreeSet<_>>(), BTreeSet::from([7, 8]));
        drop(held);
    }
}

pub(super) async fn gives_back(bench: &mut dyn Bench) {
    let queue = fresh("queue");
    publish(bench, &queue, [numbered(7)]).await;
    let mut working = Working::on(bench, &[&queue]);
    let job = working.next().await;
    working.worker.stop(Duration::from_millis(50));
    timeout(DEADLINE, working.task).await.expect("it does not wait").expect("no panic").expect("no error");
    assert_eq!(read(bench, &queue, 1).await[0].number(), 7);
    drop(job);
}
