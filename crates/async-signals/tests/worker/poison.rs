//! Messages that end their workers, and those that were beside them.

use super::*;

pub(super) async fn counts(bench: &mut dyn Bench) {
    let queue = fresh("queue");
    publish(bench, &queue, [numbered(0)]).await;
    let of_three = || WorkerConfig { max_deliveries: 3, ..config(bench, &[&queue]) };
    let mut tries = 0;
    let mut working = Working::start(of_three());
    // As a worker that dies of it: the job ends with nothing settled.
    for _ in 0..3 {
        drop(working.next().await);
        tries += 1;
    }
    assert_eq!(tries, 3);
    let dead = read(bench, &format!("{queue}.dead"), 1).await;
    assert_eq!(parked(&dead[0])["kind"], "TooManyDeliveries");
    working.stop().await;
    assert_eq!(bench.read(&queue).await, []);
}

pub(super) async fn runs_alone(bench: &mut dyn Bench) {
    let queue = fresh("queue");
    let mut working = Working::on(bench, &[&queue]);
    publish(bench, &queue, [numbered(0)]).await;
    let before = working.next().await.begin().expect("nothing is in its way");
    publish(bench, &queue, [counted(1, 1), numbered(2), counted(3, 1), numbered(4)]).await;
    // Nothing new begins before the one that runs has ended, …
    assert!(timeout(Duration::from_millis(500), working.jobs.recv()).await.is_err(), "it waits");
    before.finish(Outcome::Done);
    let mut ran = Vec::new();
    while ran.len() < 4 {
        let Some(job) = working.next().await.begin() else { continue };
        if job.ours().deliveries > 0 {
            // … and nothing beside it.
            assert!(timeout(Duration::from_millis(300), working.jobs.recv()).await.is_err(), "it is alone");
        }
        ran.push((number(&job), job.ours().deliveries));
        job.finish(Outcome::Done);
    }
    ran.sort_unstable();
    assert_eq!(ran, [(1, 1), (2, 0), (3, 1), (4, 0)], "each ran, and waiting counts for nothing");
    working.stop().await;
    assert_eq!(bench.read(&queue).await, []);
}

pub(super) async fn goes_back(bench: &mut dyn Bench) {
    let queue = fresh("queue");
    publish(bench, &queue, [numbered(0), numbered(1), numbered(2), counted(3, 2)]).await;
    let mut working = Working::on(bench, &[&queue]);
    let first = working.next().await;
    let mut begun = Vec::new();
    for job in [first, working.next().await, working.next().await] {
        begun.extend(job.begin());
    }
    begun.into_iter().for_each(|job| job.finish(Outcome::Done));
    let mut suspect = None;
    while suspect.is_none() {
        let Some(job) = working.next().await.begin() else { continue };
        if job.ours().deliveries > 0 {
            suspect = Some(job);
        } else {
            job.finish(Outcome::Done);
        }
    }
    let suspect = suspect.expect("the loop has found it");
    // As if its process died now: whatever else that held would come again counted.
    publish(bench, &queue, [numbered(4)]).await;
    working.worker.stop_now();
    timeout(DEADLINE, working.task).await.expect("at once").expect("no panic").expect("no error");
    drop(suspect);
    let mut other = Working::on(bench, &[&queue]);
    let mut left = Vec::new();
    while !left.iter().any(|(number, _)| *number == 3) || !left.iter().any(|(number, _)| *number == 4) {
        let Some(job) = other.next().await.begin() else { continue };
        left.push((number(&job), job.ours().deliveries));
        job.finish(Outcome::Done);
    }
    assert!(left.iter().all(|(number, deliveries)| *deliveries == if *number == 3 { 3 } else { 0 }), "{left:?}");
    other.stop().await;
}

/// Passes on what is parked.
struct Undertaker(mpsc::UnboundedSender<String>);

impl Observer for Undertaker {
    fn parked(&self, id: &str, _queue: Option<&str>, _kind: &str, _reason: &str) {
        let _ = self.0.send(id.to_owned());
    }
}

/// Some messages end whichever worker begins them, among many that do no harm.
pub(super) async fn isolates(bench: &mut dyn Bench) {
    const KILLERS: [u64; 3] = [7, 30, 31];
    let queue = fresh("queue");
    publish(bench, &queue, (0..60).map(numbered)).await;
    let (heard, mut parked) = mpsc::unbounded_channel();
    let observer = Arc::new(Undertaker(heard));
    let of_three =
        |bench: &dyn Bench| WorkerConfig { max_deliveries: 3, observer: observer.clone(), ..config(bench, &[&queue]) };
    let (mut ran, mut deaths) = (HashMap::<u64, u32>::new(), HashMap::<u64, u32>::new());
    let mut working = Working::start(of_three(bench));
    let mut in_peace = HashSet::new();
    while ran.len() < 60 - KILLERS.len() || in_peace.len() < KILLERS.len() {
        let job = tokio::select! {
            job = working.next() => job.begin(),
            Some(id) = parked.recv() => {
                in_peace.insert(id);
                continue;
            }
        };
        let Some(job) = job else { continue };
        if KILLERS.contains(&number(&job)) {
            *deaths.entry(number(&job)).or_default() += 1;
            // Everything that this worker holds comes again, and is told to have come before.
            working.worker.stop_now();
            timeout(DEADLINE, working.task).await.expect("at once").expect("no panic").expect("no error");
            working = Working::start(of_three(bench));
        } else {
            *ran.entry(number(&job)).or_default() += 1;
            job.finish(Outcome::Done);
        }
    }
    working.stop().await;
    // One that was just being copied when its worker ended comes twice from then on, and may still be on its way.
    let mut dead = HashMap::<u64, u32>::new();
    for message in bench.read(&format!("{queue}.dead")).await {
        *dead.entry(message.number()).or_default() += 1;
    }
    assert_eq!(dead.keys().copied().collect::<BTreeSet<_>>(), BTreeSet::from(KILLERS), "nothing else is parked");
    for killer in KILLERS {
        // Those that were beside another one at first were counted for that.
        assert!((2..=3 * (dead[&killer] + 1)).contains(&deaths[&killer]), "{killer} of {deaths:?}, {dead:?}");
    }
}

pub(super) async fn catches_up(bench: &mut dyn Bench) {
    let queue = fresh("queue");
    publish(bench, &queue, (0..500).map(|number| counted(number, 1))).await;
    let mut working = Working::on(bench, &[&queue]);
    let mut ran = HashMap::<u64, u32>::new();
    while ran.len() < 500 {
        let Some(job) = working.next().await.begin() else { continue };
        *ran.entry(number(&job)).or_default() += 1;
        job.finish(Outcome::Done);
    }
    assert!(ran.values().all(|times| *times == 1), "{ran:?}");
    working.stop().await;
    assert_eq!(bench.read(&queue).await, []);
}

pub(super) async fn forgives(bench: &mut dyn Bench) {
    // Two workers have to die before the message is due, which takes a busy machine longer.
    for seconds in [2, 8, 25] {
        let queue = fresh("queue");
        let due = SystemTime::now() + Duration::from_secs(seconds);
        let eta = OffsetDateTime::from(due).format(&Rfc3339).expect("a time");
        publish(bench, &queue, [with_headers(0, json!({"eta": eta})), numbered(1)]).await;
        for _ in 0..2 {
            let mut working = Working::on(bench, &[&queue]);
            // The one behind it has come: it is held by now.
            drop(working.next().await);
            working.worker.stop_now();
            timeout(DEADLINE, working.task).await.expect("at once").expect("no panic").expect("no error");
        }
        let mut working = Working::on(bench, &[&queue]);
        let first = loop {
            if let Some(job) = working.next().await.begin() {
                break job;
            }
        };
        // The other one has come by now, too.
        let mut deliveries = HashMap::new();
        let in_time = SystemTime::now() < due;
        deliveries.insert(number(&first), first.ours().deliveries);
        first.finish(Outcome::Done);
        while in_time && deliveries.len() < 2 {
            let Some(job) = working.next().await.begin() else { continue };
            deliveries.insert(number(&job), job.ours().deliveries);
            job.finish(Outcome::Done);
        }
        working.worker.stop_now();
        timeout(DEADLINE, working.task).await.expect("at once").expect("no panic").expect("no error");
        if in_time {
            assert_eq!((deliveries[&0], deliveries[&1] > 0), (0, true), "{deliveries:?}");
            return;
        }
    }
    panic!("this machine is too slow to tell");
}
