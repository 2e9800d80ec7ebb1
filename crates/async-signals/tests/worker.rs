//! What the worker does with a message, on every broker alike: one list of
//! behaviours. A new behaviour starts here.

#![cfg(all(feature = "redis", feature = "sqlite", feature = "rabbitmq"))]

mod servers;

#[path = "worker/believing.rs"]
mod believing;
#[path = "worker/poison.rs"]
mod poison;
#[path = "worker/stopping.rs"]
mod stopping;

use std::{
    collections::{BTreeSet, HashMap, HashSet},
    sync::{Arc, Mutex},
    time::{Duration, SystemTime},
};

use async_signals::{
    broker::{self, Broker, BrokerConfig, BrokerError, Position, memory::Memory},
    dead_letters::{DeadLetter, DeadLetterQueue, Filter, look},
    follow::{Failure, Ours},
    message::{Headers, Message, Queue, Route},
    publisher::{Publisher, PublisherConfig},
    retry::RetryPolicy,
    worker::{Job, Observer, Outcome, Runner, Worker, WorkerConfig},
};
use futures_util::future::FutureExt;
use serde_json::{Map, Value, json};
use servers::{
    Bench, DEADLINE, ReadMessage,
    amqp::RabbitMq,
    behaviours::{Behaviour, behaves},
    embedded::{InMemory, Sqlite},
    messages::{assert_ok, fresh, numbered, outgoing},
    redis::Redis,
};
use time::{OffsetDateTime, format_description::well_known::Rfc3339};
use tokio::{
    sync::mpsc,
    task::JoinHandle,
    time::{sleep, timeout},
};

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn works_on_memory() {
    behaves(&mut InMemory::new("worker"), BEHAVIOURS).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn works_on_sqlite() {
    behaves(&mut Sqlite::new(), BEHAVIOURS).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn works_on_redis() {
    if let Some(mut redis) = Redis::start(&[]) {
        behaves(&mut redis, BEHAVIOURS).await;
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn works_on_rabbitmq() {
    if let Some(mut rabbitmq) = RabbitMq::start() {
        behaves(&mut rabbitmq, BEHAVIOURS).await;
    }
}

/// Looks into the dead-letter queue whenever it is told that something is in it.
struct Suspicious {
    memory: Memory,
    found: mpsc::UnboundedSender<usize>,
}

impl Observer for Suspicious {
    fn parked(&self, _id: &str, queue: Option<&str>, _kind: &str, _reason: &str) {
        let _ = self.found.send(queue.map_or(0, |queue| self.memory.drain(queue).len()));
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn says_that_a_message_is_parked_only_when_it_is() {
    let bench = InMemory::new("says-parked");
    let (found, mut told) = mpsc::unbounded_channel();
    let queue = fresh("queue");
    publish(&bench, &queue, [numbered(0)]).await;
    let memory = Memory::connect(&bench.config().urls[0]);
    let observer = Arc::new(Suspicious { memory, found });
    let mut working = Working::start(WorkerConfig { observer, ..config(&bench, &[&queue]) });
    working.next().await.finish(Outcome::Unfit { kind: "UnknownSignal".into(), reason: "not here".to_owned() });
    assert_eq!(timeout(DEADLINE, told.recv()).await.expect("in time"), Some(1));
    working.stop().await;
}

/// The list.
const BEHAVIOURS: &[(&str, Behaviour)] = &[
    ("each message runs once, in order, and is gone", |bench| runs_all(bench).boxed_local()),
    ("several queues are read", |bench| several_queues(bench).boxed_local()),
    ("a failure without a policy ends the message", |bench| fails(bench).boxed_local()),
    ("only what failed is tried again, and parked when its tries are spent", |bench| retries(bench).boxed_local()),
    ("what cannot run is parked with the reason", |bench| parks(bench).boxed_local()),
    ("bytes and headers that are no task are parked", |bench| parks_garbage(bench).boxed_local()),
    ("an expired message is dropped", |bench| expires(bench).boxed_local()),
    ("a message that expires while it waits to begin is dropped", |bench| expires_waiting(bench).boxed_local()),
    ("a message waits for its eta without holding up others", |bench| waits(bench).boxed_local()),
    ("a message that ends its workers is parked at the limit", |bench| poison::counts(bench).boxed_local()),
    ("a message that was delivered before runs alone", |bench| poison::runs_alone(bench).boxed_local()),
    ("what has not begun beside it goes back uncounted", |bench| poison::goes_back(bench).boxed_local()),
    ("a message that ends its workers takes no other with it", |bench| poison::isolates(bench).boxed_local()),
    ("many that were delivered before run soon", |bench| poison::catches_up(bench).boxed_local()),
    ("what waited for its time in a worker that died is not counted", |bench| poison::forgives(bench).boxed_local()),
    ("a stop finishes what was taken and leaves the rest", |bench| stopping::stops(bench).boxed_local()),
    ("a stop counts nothing of what it leaves", |bench| stopping::leaves(bench).boxed_local()),
    ("one that waits to run alone is not counted at a stop", |bench| stopping::leaves_alone(bench).boxed_local()),
    ("a stop waits for nothing that is delayed", |bench| stopping::leaves_delayed(bench).boxed_local()),
    ("a stop gives back what does not finish in time", |bench| stopping::gives_back(bench).boxed_local()),
    ("a stop at once gives back all that is held", |bench| stopping::signs_off(bench).boxed_local()),
    ("a job that is dropped comes again", |bench| drops(bench).boxed_local()),
    ("what follows a message stays in the queue that it was taken from", |bench| believing::stays(bench).boxed_local()),
    ("dead letters are listed, sent again and discarded", |bench| dead_letters(bench).boxed_local()),
    ("a wrong password ends the worker", |bench| wrong_password(bench).boxed_local()),
    ("a broker that comes back is read again", |bench| reconnects(bench).boxed_local()),
];

/// Hands every job to the test.
struct Hands(mpsc::UnboundedSender<Job>);

impl Runner for Hands {
    fn knows(&self, task: &str) -> bool {
        task == "shop.tasks.known"
    }

    fn start(&self, jobs: Vec<Job>) {
        for job in jobs {
            let _ = self.0.send(job);
        }
    }
}

/// A worker, and what it hands over.
struct Working {
    worker: Worker,
    jobs: mpsc::UnboundedReceiver<Job>,
    task: JoinHandle<Result<(), BrokerError>>,
}

impl Working {
    fn start(config: WorkerConfig) -> Self {
        let (sender, jobs) = mpsc::unbounded_channel();
        let (worker, run) = Worker::new(config, Arc::new(Hands(sender)));
        Self { worker, jobs, task: tokio::spawn(run) }
    }

    fn on(bench: &dyn Bench, queues: &[&str]) -> Self {
        Self::start(config(bench, queues))
    }

    async fn next(&mut self) -> Job {
        timeout(DEADLINE, self.jobs.recv()).await.expect("a job in time").expect("a worker that works")
    }

    async fn stop(self) {
        self.worker.stop(DEADLINE);
        timeout(DEADLINE, self.task).await.expect("it stops in time").expect("no panic").expect("no error");
    }
}

fn config(bench: &dyn Bench, queues: &[&str]) -> WorkerConfig {
    let queues = queues.iter().map(|name| Queue::direct(name)).collect();
    WorkerConfig::new(bench.config(), queues)
}

async fn publisher(bench: &dyn Bench) -> Arc<dyn Broker> {
    let config = bench.config();
    broker::connect(&config, &config.urls[0]).await.expect("a connection")
}

async fn publish(bench: &dyn Bench, queue: &str, messages: impl IntoIterator<Item = Message>) {
    let route = Arc::new(Route::to_queue(queue));
    let batch: Vec<_> = messages.into_iter().map(|message| outgoing(&route, message)).collect();
    assert_ok(&publisher(bench).await.publish(&batch).await);
}

fn with_headers(number: u64, more: Value) -> Message {
    let mut message = numbered(number);
    let (Headers::Raw(headers), Value::Object(more)) = (&mut message.headers, more) else {
        unreachable!("both are maps")
    };
    headers.extend(more);
    message
}

/// A message as it is once `deliveries` workers did not finish it.
fn counted(number: u64, deliveries: u32) -> Message {
    with_headers(number, json!({"async_signals": {"deliveries": deliveries}}))
}

fn number(job: &Job) -> u64 {
    job.incoming().headers["number"].as_u64().expect("a number")
}

/// Waits until a queue holds something, and takes it.
async fn read(bench: &mut dyn Bench, queue: &str, count: usize) -> Vec<ReadMessage> {
    let mut found = Vec::new();
    let reading = async {
        while found.len() < count {
            found.extend(bench.read(queue).await);
            sleep(Duration::from_millis(10)).await;
        }
    };
    timeout(DEADLINE, reading).await.expect("the messages in time");
    found
}

fn parked(message: &ReadMessage) -> Map<String, Value> {
    Ours::of(&message.headers).parked.expect("a reason")
}

fn failure(receiver: &str, retry: Option<RetryPolicy>) -> Failure {
    Failure { receiver: receiver.to_owned(), error: "ValueError: no".to_owned(), retry, ..Failure::default() }
}

fn soon(max: u32) -> RetryPolicy {
    RetryPolicy { max, base: 0.05, factor: 1.0, cap: 1.0, jitter: false }
}

async fn runs_all(bench: &mut dyn Bench) {
    let queue = fresh("queue");
    // So many that the worker comes to take as many at once as it ever does.
    publish(bench, &queue, (0..4000).map(numbered)).await;
    let mut working = Working::on(bench, &[&queue]);
    for expected in 0..4000 {
        let job = working.next().await;
        assert_eq!((number(&job), &*job.queue, job.is_signal(), job.redelivered), (expected, &*queue, true, false));
        assert_eq!(job.id(), job.incoming().properties.correlation_id);
        job.finish(Outcome::Done);
    }
    publish(bench, &queue, [numbered(4000)]).await;
    let last = working.next().await;
    assert_eq!(number(&last), 4000);
    last.finish(Outcome::Done);
    working.stop().await;
}

async fn several_queues(bench: &mut dyn Bench) {
    let (one, two) = (fresh("one"), fresh("two"));
    let mut working = Working::on(bench, &[&one, &two]);
    publish(bench, &one, [numbered(1)]).await;
    publish(bench, &two, [numbered(2)]).await;
    let mut from = HashMap::new();
    for _ in 0..2 {
        let job = working.next().await;
        from.insert(number(&job), job.queue.to_string());
        job.finish(Outcome::Done);
    }
    assert_eq!(from, HashMap::from([(1, one), (2, two)]));
    working.stop().await;
}

async fn fails(bench: &mut dyn Bench) {
    let queue = fresh("queue");
    publish(bench, &queue, [numbered(0)]).await;
    let mut working = Working::on(bench, &[&queue]);
    working.next().await.finish(Outcome::Failed(vec![failure("email", None)]));
    working.stop().await;
    assert_eq!(bench.read(&queue).await, []);
    assert_eq!(bench.read(&format!("{queue}.dead")).await, []);
}

async fn retries(bench: &mut dyn Bench) {
    let queue = fresh("queue");
    let message = numbered(0);
    let id = message.id.to_string();
    publish(bench, &queue, [message]).await;
    let mut working = Working::on(bench, &[&queue]);
    let job = working.next().await;
    assert_eq!((job.ours().attempt, job.ours().receivers), (1, None));
    job.finish(Outcome::Failed(vec![failure("email", Some(soon(1))), failure("log", None)]));
    let again = working.next().await;
    assert_eq!(again.id(), id, "the same id");
    assert_eq!(again.ours().attempt, 2);
    assert_eq!(again.ours().receivers.map(|names| names.into_iter().collect()), Some(vec!["email".to_owned()]));
    again.finish(Outcome::Failed(vec![failure("email", Some(soon(1)))]));
    let dead = read(bench, &format!("{queue}.dead"), 1).await;
    assert_eq!(dead[0].correlation_id.as_deref(), Some(&*id));
    assert_eq!(parked(&dead[0])["kind"], "ReceiversFailed");
    assert_eq!(parked(&dead[0])["failures"][0]["receiver"], "email");
    working.stop().await;
    assert_eq!(bench.read(&queue).await, []);
}

async fn parks(bench: &mut dyn Bench) {
    let queue = fresh("queue");
    publish(bench, &queue, [numbered(0)]).await;
    let mut working = Working::on(bench, &[&queue]);
    let reason = "this worker has no signal 'shop.gone'".to_owned();
    working.next().await.finish(Outcome::Unfit { kind: "UnknownSignal".into(), reason: reason.clone() });
    let dead = read(bench, &format!("{queue}.dead"), 1).await;
    assert_eq!(
        (parked(&dead[0])["kind"].as_str(), parked(&dead[0])["reason"].as_str()),
        (Some("UnknownSignal"), Some(&*reason))
    );
    assert_eq!(parked(&dead[0])["queue"], *queue);
    working.stop().await;
    assert_eq!(bench.read(&queue).await, []);
}

async fn parks_garbage(bench: &mut dyn Bench) {
    let queue = fresh("queue");
    let garbage = [
        with_headers(0, json!({"task": null})),
        with_headers(1, json!({"id": null})),
        with_headers(2, json!({"task": "shop.tasks.unknown"})),
        with_headers(3, json!({"eta": "soon"})),
        with_headers(4, json!({"compression": "application/x-bz2"})),
    ];
    publish(bench, &queue, garbage).await;
    publish(bench, &queue, [with_headers(5, json!({"task": "shop.tasks.known", "id": "of-their-own"}))]).await;
    let mut working = Working::on(bench, &[&queue]);
    let job = working.next().await;
    assert_eq!((number(&job), job.is_signal()), (5, false), "it lives, and runs what it knows");
    job.finish(Outcome::Done);
    let dead = read(bench, &format!("{queue}.dead"), 5).await;
    let kinds: HashMap<_, _> = dead.iter().map(|dead| (dead.number(), parked(dead)["kind"].clone())).collect();
    let expected = [(0, "Malformed"), (1, "Malformed"), (2, "UnknownTask"), (3, "Malformed"), (4, "Refused")];
    assert_eq!(kinds, expected.map(|(number, kind)| (number, json!(kind))).into());
    working.stop().await;
}

async fn expires(bench: &mut dyn Bench) {
    let queue = fresh("queue");
    let past = with_headers(0, json!({"expires": "2001-01-01T00:00:00+00:00"}));
    publish(bench, &queue, [past, numbered(1)]).await;
    let mut working = Working::on(bench, &[&queue]);
    let job = working.next().await;
    assert_eq!(number(&job), 1);
    job.finish(Outcome::Done);
    working.stop().await;
    assert_eq!(bench.read(&format!("{queue}.dead")).await, []);
}

async fn expires_waiting(bench: &mut dyn Bench) {
    let queue = fresh("queue");
    let soon = SystemTime::now() + Duration::from_millis(1500);
    let soon = OffsetDateTime::from(soon).format(&Rfc3339).expect("a time");
    publish(bench, &queue, [numbered(0), with_headers(1, json!({"expires": soon})), numbered(2)]).await;
    let (heard, mut expired) = mpsc::unbounded_channel();
    let mut working = Working::start(WorkerConfig { observer: Arc::new(Late(heard)), ..config(bench, &[&queue]) });
    let first = working.next().await.begin().expect("nothing is in its way");
    let waiting = working.next().await;
    assert_eq!(number(&waiting), 1);
    let until = waiting.incoming().headers["expires"].as_str().map(|at| OffsetDateTime::parse(at, &Rfc3339));
    let until = SystemTime::from(until.expect("a time").expect("a time"));
    while SystemTime::now() <= until {
        sleep(Duration::from_millis(10)).await;
    }
    let id = waiting.id().to_owned();
    assert!(waiting.begin().is_none(), "it is too late to begin");
    assert_eq!(timeout(DEADLINE, expired.recv()).await.expect("in time"), Some(id));
    first.finish(Outcome::Done);
    let last = working.next().await.begin().expect("it never expires");
    assert_eq!(number(&last), 2);
    last.finish(Outcome::Done);
    working.stop().await;
    assert_eq!(bench.read(&queue).await, []);
    assert_eq!(bench.read(&format!("{queue}.dead")).await, []);
}

/// Passes on what has expired.
struct Late(mpsc::UnboundedSender<String>);

impl Observer for Late {
    fn expired(&self, id: &str, _task: &str) {
        let _ = self.0.send(id.to_owned());
    }
}

async fn waits(bench: &mut dyn Bench) {
    let queue = fresh("queue");
    let due = SystemTime::now() + Duration::from_secs(2);
    let eta = OffsetDateTime::from(due).format(&Rfc3339).expect("a time");
    let delayed = (0..100).map(|number| with_headers(number, json!({"eta": eta})));
    publish(bench, &queue, delayed).await;
    publish(bench, &queue, [numbered(100)]).await;
    let mut working = Working::start(WorkerConfig { most_prefetch: 4, ..config(bench, &[&queue]) });
    let first = working.next().await;
    assert_eq!(number(&first), 100, "what is due does not wait behind what is not");
    first.finish(Outcome::Done);
    for _ in 0..100 {
        let job = working.next().await;
        assert!(SystemTime::now() >= due, "not before its time");
        job.finish(Outcome::Done);
    }
    working.stop().await;
    assert_eq!(bench.read(&queue).await, []);
}

async fn drops(bench: &mut dyn Bench) {
    let queue = fresh("queue");
    publish(bench, &queue, [numbered(7)]).await;
    let mut working = Working::on(bench, &[&queue]);
    drop(working.next().await);
    let again = working.next().await;
    assert_eq!((number(&again), again.ours().deliveries), (7, 1));
    again.finish(Outcome::Done);
    working.stop().await;
    assert_eq!(bench.read(&queue).await, []);
}

async fn dead_letters(bench: &mut dyn Bench) {
    let queue = fresh("queue");
    let dead = format!("{queue}.dead");
    publish(bench, &queue, (0..4).map(numbered)).await;
    let mut working = Working::on(bench, &[&queue]);
    for _ in 0..4 {
        working.next().await.finish(Outcome::Unfit { kind: "UnknownSignal".into(), reason: "not yet here".to_owned() });
    }
    working.stop().await;

    let config = bench.config();
    let browser = broker::browse(&config, &config.urls[0]).await.expect("a connection");
    let filter = Filter { exception: Some("UnknownSignal".to_owned()), ..Filter::default() };
    if let Some(found) = look(&*browser, &dead, Position::default(), 3, &filter).await.expect("an answer") {
        assert_eq!((found.letters.len(), found.examined), (3, 3));
        let rest = look(&*browser, &dead, found.next.expect("there is more"), 3, &filter).await.expect("an answer");
        let rest = rest.expect("it looks");
        assert_eq!((rest.letters.len(), rest.examined, rest.next), (1, 1, None));
    }
    assert_eq!(
        browser.depth(&dead).await.expect("an answer").map(|depth| depth.ready),
        Some(4),
        "a look takes nothing"
    );
    let missing = browser.depth(&fresh("queue")).await.expect("an answer");
    assert_eq!(missing.map(|depth| depth.ready).unwrap_or_default(), 0);

    let shelf = DeadLetterQueue::open(&bench.config(), &dead, DEADLINE).await.expect("it is there");
    let mut letters = shelf.take(3).await.expect("letters");
    letters.extend(shelf.take(100).await.expect("letters"));
    assert_eq!(shelf.take(100).await.expect("an answer").len(), 0, "that was all, and it says so again");
    let about = |letter: &DeadLetter| (letter.signal(), letter.why()["kind"].as_str().map(str::to_owned));
    assert_eq!(
        letters.iter().map(|letter| about(letter)).collect::<Vec<_>>(),
        vec![(Some("shop.order_placed".to_owned()), Some("UnknownSignal".to_owned())); 4]
    );
    let publisher = Publisher::spawn(PublisherConfig::new(bench.config()));
    assert_eq!(shelf.replay(&publisher, &letters[1]).await.expect("it goes"), queue);
    shelf.discard(&letters[2]).await.expect("it goes");
    shelf.close().await;

    let shelf = DeadLetterQueue::open(&bench.config(), &dead, DEADLINE).await.expect("it is there");
    let left: Vec<_> = shelf.take(100).await.expect("letters").iter().map(|letter| letter.id().to_owned()).collect();
    assert_eq!(left, [letters[0].id(), letters[3].id()], "the others are back in their order");
    drop(shelf);

    let mut working = Working::on(bench, &[&queue]);
    let again = working.next().await;
    assert_eq!((again.id(), again.ours().parked), (letters[1].id(), None));
    again.finish(Outcome::Done);
    working.stop().await;
}

async fn wrong_password(bench: &mut dyn Bench) {
    if bench.server().is_none() {
        return;
    }
    let config = bench.config();
    let url = config.urls[0].to_string();
    let (scheme, rest) = url.split_once("://").expect("a URL");
    let rest = rest.rsplit_once('@').map_or(rest, |(_, rest)| rest);
    let wrong = BrokerConfig::new(&format!("{scheme}://nobody:wrong@{rest}")).expect("a URL");
    let working = Working::start(WorkerConfig { broker: wrong, ..self::config(bench, &["celery"]) });
    let ended = timeout(DEADLINE, working.task).await.expect("it does not try for ever").expect("no panic");
    assert!(matches!(ended, Err(BrokerError::Authentication { .. })), "{ended:?}");
}

async fn reconnects(bench: &mut dyn Bench) {
    if bench.server().is_none() {
        return;
    }
    let queue = fresh("queue");
    publish(bench, &queue, (0..50).map(numbered)).await;
    let mut working = Working::on(bench, &[&queue]);
    let ran = Arc::new(Mutex::new(HashMap::<u64, usize>::new()));
    for _ in 0..10 {
        let job = working.next().await;
        *ran.lock().expect("unpoisoned").entry(number(&job)).or_default() += 1;
        job.finish(Outcome::Done);
    }
    // Let one be under way meanwhile.
    let under_way = working.next().await;
    let server = bench.server().expect("it has one");
    server.kill();
    server.restart();
    let late = number(&under_way);
    under_way.finish(Outcome::Done);
    *ran.lock().expect("unpoisoned").entry(late).or_default() += 1;
    let all = async {
        while ran.lock().expect("unpoisoned").len() < 50 {
            let job = working.next().await;
            *ran.lock().expect("unpoisoned").entry(number(&job)).or_default() += 1;
            job.finish(Outcome::Done);
        }
    };
    timeout(DEADLINE, all).await.expect("all of them in time");
    working.stop().await;
}
