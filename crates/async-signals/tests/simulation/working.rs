//! Workers with receivers that fail, hang, panic and die, over lines that break; then the sun comes out, and everything is
//! counted.

use std::{
    collections::{HashMap, HashSet},
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    time::{Duration, SystemTime},
};

use async_signals::{
    broker::{BrokerConfig, Connector},
    clock::Clock,
    follow::Failure,
    message::{Headers, Message, Outgoing, Properties, Queue, Route},
    protocol::celery::TASK,
    retry::RetryPolicy,
    worker::{Job, Outcome, Runner, Worker, WorkerConfig},
};
use bytes::Bytes;
use serde_json::{Value, json};
use tokio::{
    task::{AbortHandle, JoinHandle},
    time::{Instant, sleep, timeout},
};
use uuid::Uuid;

use crate::simulated::{Address, Simulated, Weather};

const QUEUE: &str = "q";
const DEAD: &str = "q.dead";
const MAX_DELIVERIES: u32 = 3;
/// Within how long everything has run once nothing stands in the way any more.
const SOON: Duration = Duration::from_secs(3_600);

/// One run. All that chance decides in it comes from the seed.
pub(crate) fn run(seed: u64) {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_time().start_paused(true).build();
    runtime.expect("a runtime").block_on(async {
        let mut scene = Scene::new(seed);
        scene.play().await;
        scene.calm().await;
        scene.count();
    });
}

/// What the receivers of a message do.
#[derive(Clone, Copy, Debug, PartialEq)]
enum Kind {
    Good,
    /// Fails so many times, then not any more.
    Fails(u32),
    /// Fails whenever it is tried.
    FailsAlways,
    /// Is dropped by the runner so many times, without a word.
    Dropped(u32),
    /// Takes its process along, whenever it begins.
    Kills,
    /// No worker can run it.
    Malformed,
}

/// What was seen of the receivers.
#[derive(Debug, Default)]
struct Seen {
    chance: fastrand::Rng,
    kinds: HashMap<Uuid, Kind>,
    /// How often each was begun, and by which workers it is being run.
    begun: HashMap<Uuid, u32>,
    running: HashMap<Uuid, Vec<usize>>,
    /// How often each came to its end.
    ended: HashMap<Uuid, u32>,
    /// Workers that one of their messages has killed.
    killed: Vec<usize>,
    /// Workers that are dead, for whatever reason.
    dead: HashSet<usize>,
    /// The longest that receivers take.
    longest: Duration,
    /// Messages that ran twice at the same time.
    at_once: Vec<String>,
    failed: Vec<String>,
}

#[derive(Clone, Debug, Default)]
struct Receivers(Arc<Mutex<Seen>>);

impl Receivers {
    fn seen(&self) -> MutexGuard<'_, Seen> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Those of one worker.
struct OfWorker {
    receivers: Receivers,
    worker: usize,
    tasks: Mutex<Vec<AbortHandle>>,
}

impl Runner for OfWorker {
    fn start(&self, jobs: Vec<Job>) {
        for job in jobs {
            let (receivers, worker) = (self.receivers.clone(), self.worker);
            let task = tokio::spawn(async move { receivers.run(worker, job).await }).abort_handle();
            self.tasks.lock().unwrap_or_else(PoisonError::into_inner).push(task);
        }
    }
}

impl Receivers {
    async fn run(&self, worker: usize, job: Job) {
        // A lane is free at some time.
        let (wait, takes) = {
            let mut seen = self.seen();
            let longest = seen.longest;
            (longest.mul_f64(seen.chance.f64() / 4.0), longest.mul_f64(seen.chance.f64()))
        };
        sleep(wait).await;
        let Some(job) = job.begin() else { return };
        let id: Uuid = job.id().parse().expect("an id of ours");
        let (kind, begun) = {
            let mut seen = self.seen();
            if job.ours().deliveries >= MAX_DELIVERIES {
                seen.failed.push(format!("{id} is begun after {} deliveries", job.ours().deliveries));
            }
            let others = seen.running.entry(id).or_default();
            others.push(worker);
            if others.len() > 1 {
                let others = others.clone();
                seen.at_once.push(format!("{id} runs at once in workers {others:?}"));
            }
            let begun = seen.begun.entry(id).or_default();
            *begun += 1;
            let begun = *begun;
            (seen.kinds[&id], begun)
        };
        if kind == Kind::Kills {
            self.seen().killed.push(worker);
            // Until it is killed.
            return std::future::pending().await;
        }
        sleep(takes).await;
        let mut seen = self.seen();
        seen.running.entry(id).or_default().retain(|other| *other != worker);
        let fails = match kind {
            Kind::Fails(times) => begun <= times,
            Kind::FailsAlways => true,
            _ => false,
        };
        if matches!(kind, Kind::Dropped(times) if begun <= times) {
            return;
        }
        if fails {
            let retry = RetryPolicy { max: 5, base: 0.5, factor: 2.0, cap: 4.0, jitter: true };
            let failure = Failure { receiver: "r".to_owned(), retry: Some(retry), ..Failure::default() };
            job.finish(Outcome::Failed(vec![failure]));
        } else {
            *seen.ended.entry(id).or_default() += 1;
            job.finish(Outcome::Done);
        }
    }
}

struct Process {
    number: usize,
    worker: Worker,
    task: JoinHandle<()>,
    runner: Arc<OfWorker>,
}

#[derive(Clone, Copy, Debug)]
struct Faults {
    addresses: bool,
    delays: bool,
    breaks: bool,
    cuts: bool,
    swallows: bool,
    nacks: bool,
    panics: bool,
    kills: bool,
    poison: bool,
    stops: bool,
}

struct Scene {
    chance: fastrand::Rng,
    faults: Faults,
    broker: Simulated,
    receivers: Receivers,
    processes: Vec<Process>,
    started: usize,
    killers: usize,
    sent: Vec<Uuid>,
    /// Whether the broker keeps what a worker holds when its connection breaks.
    keeps: bool,
    clock: Clock,
}

impl Scene {
    fn new(seed: u64) -> Self {
        let mut chance = fastrand::Rng::with_seed(seed);
        let mut faults = || chance.u8(..) < 100;
        let faults = Faults {
            addresses: faults(),
            delays: faults(),
            breaks: faults(),
            cuts: faults(),
            swallows: faults(),
            nacks: faults(),
            panics: faults(),
            kills: faults(),
            poison: faults(),
            stops: faults(),
        };
        let broker = Simulated::new(&format!("working-{seed}"), chance.u64(..));
        let keeps = chance.bool();
        if !keeps {
            broker.keeps_nothing();
        }
        broker.end_leases();
        let receivers = Receivers::default();
        {
            let mut seen = receivers.seen();
            seen.chance = fastrand::Rng::with_seed(chance.u64(..));
            seen.longest = Duration::from_millis(chance.choice([0, 10, 200, 3_000]).expect("one of them"));
        }
        Self {
            chance,
            faults,
            broker,
            receivers,
            processes: Vec::new(),
            started: 0,
            killers: 0,
            sent: Vec::new(),
            keeps,
            clock: Clock::starting_at(SystemTime::UNIX_EPOCH),
        }
    }

    async fn play(&mut self) {
        let workers = self.chance.usize(1..=3);
        for _ in 0..self.chance.usize(10..100) {
            self.bury();
            match self.chance.u8(0..20) {
                0..8 => self.send().await,
                8..10 => {
                    let weather = self.weather();
                    self.broker.set_weather(weather);
                }
                10 if self.faults.kills => self.kill(),
                11 if self.faults.stops => self.stop().await,
                12..14 if self.processes.len() < workers => self.start(),
                _ => {
                    let longest = self.chance.choice([1, 100, 3_000]).expect("one of them");
                    sleep(Duration::from_millis(self.chance.u64(0..longest))).await;
                }
            }
        }
    }

    fn weather(&mut self) -> Weather {
        let Self { chance, faults, .. } = self;
        Weather {
            addresses: vec![match chance.u8(0..6) {
                0 if faults.addresses => Address::Closed,
                1 if faults.addresses => Address::Silent,
                2 if faults.addresses => Address::Replica,
                _ => Address::Open,
            }],
            delay: Duration::from_millis(if faults.delays { chance.u64(0..1_000) } else { chance.u64(0..5) }),
            breaks: if faults.breaks { chance.f64() / 2.0 } else { 0.0 },
            cuts: if faults.cuts { chance.f64() / 8.0 } else { 0.0 },
            goes_on: chance.f64(),
            swallows: if faults.swallows { chance.f64() / 4.0 } else { 0.0 },
            panics: if faults.panics { chance.f64() / 2.0 } else { 0.0 },
            nacks: if faults.nacks { chance.f64() / 2.0 } else { 0.0 },
            ..Weather::default()
        }
    }

    async fn send(&mut self) {
        for _ in 0..self.chance.usize(1..8) {
            let kind = match self.chance.u8(0..20) {
                0 => Kind::Fails(self.chance.u32(1..4)),
                1 => Kind::FailsAlways,
                2 => Kind::Dropped(1),
                // Each needs some deaths to be found out, and each death takes its time.
                3 if self.faults.poison && self.killers < 3 => {
                    self.killers += 1;
                    Kind::Kills
                }
                4 => Kind::Malformed,
                _ => Kind::Good,
            };
            let id = Uuid::from_u128(self.sent.len() as u128 + 1);
            self.sent.push(id);
            self.receivers.seen().kinds.insert(id, kind);
            let headers = match kind {
                Kind::Malformed => json!({"id": id.to_string()}),
                _ => json!({"task": TASK, "id": id.to_string(), "eta": null, "expires": null}),
            };
            let Value::Object(headers) = headers else { unreachable!("it is written as an object") };
            let properties = Properties::for_task(id);
            let body = Bytes::from_static(b"[[], {}, {}]");
            let message = Message { id, headers: Headers::Raw(headers), properties, body };
            self.broker.put(Outgoing { route: Arc::new(Route::to_queue(QUEUE)), message }).await;
        }
    }

    fn start(&mut self) {
        self.started += 1;
        let number = self.started;
        let runner = Arc::new(OfWorker { receivers: self.receivers.clone(), worker: number, tasks: Mutex::default() });
        let connector: Arc<dyn Connector> = Arc::new(self.broker.clone());
        let config = WorkerConfig {
            name: format!("w{number}"),
            max_deliveries: MAX_DELIVERIES,
            connector,
            clock: self.clock,
            seed: self.chance.u64(..),
            ..WorkerConfig::new(BrokerConfig::new("memory://simulated").expect("a URL"), vec![Queue::direct(QUEUE)])
        };
        let (worker, running) = Worker::new(config, runner.clone());
        let task = tokio::spawn(async move { running.await.expect("it gives up never") });
        self.processes.push(Process { number, worker, task, runner });
    }

    /// As `kill -9` does.
    fn kill(&mut self) {
        if !self.processes.is_empty() {
            let process = self.processes.swap_remove(self.chance.usize(0..self.processes.len()));
            self.end(&process);
        }
    }

    fn end(&self, process: &Process) {
        process.task.abort();
        for task in process.runner.tasks.lock().unwrap_or_else(PoisonError::into_inner).drain(..) {
            task.abort();
        }
        let mut seen = self.receivers.seen();
        seen.dead.insert(process.number);
        for workers in seen.running.values_mut() {
            workers.retain(|worker| *worker != process.number);
        }
    }

    /// Ends the processes that their messages have killed.
    fn bury(&mut self) {
        let killed = std::mem::take(&mut self.receivers.seen().killed);
        for number in killed {
            if let Some(at) = self.processes.iter().position(|process| process.number == number) {
                let process = self.processes.swap_remove(at);
                self.end(&process);
            }
        }
    }

    async fn stop(&mut self) {
        if self.processes.is_empty() {
            return;
        }
        let mut process = self.processes.swap_remove(self.chance.usize(0..self.processes.len()));
        let patience = Duration::from_millis(self.chance.u64(0..8_000));
        let begun = Instant::now();
        process.worker.stop(patience);
        let ended = timeout(Duration::from_secs(60), &mut process.task).await;
        let took = begun.elapsed();
        if ended.is_err() || took > patience + Duration::from_secs(6) {
            self.receivers.seen().failed.push(format!("a stop took {took:?} of {patience:?}"));
        }
        self.end(&process);
    }

    /// All faults end; whatever there is runs.
    async fn calm(&mut self) {
        self.broker.set_weather(Weather::default());
        let begun = Instant::now();
        // What a dead worker was publishing may arrive later than all that it held.
        let mut empty_since = Instant::now();
        while empty_since.elapsed() < Duration::from_secs(15) {
            if self.broker.left(QUEUE).await > 0 {
                empty_since = Instant::now();
            }
            let left = self.broker.left(QUEUE).await;
            assert!(begun.elapsed() < SOON, "{left} messages are left: {:?} {:#?}", self.faults, self.receivers.seen());
            self.bury();
            if self.processes.is_empty() {
                self.start();
            }
            sleep(Duration::from_millis(200)).await;
        }
        while !self.processes.is_empty() {
            let process = self.processes.remove(0);
            process.worker.stop(Duration::from_secs(5));
            let ended = timeout(Duration::from_secs(30), process.task).await;
            assert!(ended.is_ok(), "a stop has an end");
        }
        assert_eq!(self.broker.left(QUEUE).await, 0, "a stop brings nothing back");
    }

    fn count(self) {
        let seen = self.receivers.seen();
        assert!(seen.failed.is_empty(), "{:#?} {:?}", seen.failed, self.faults);
        let Faults { addresses, breaks, cuts, delays, swallows, panics, kills, poison, stops, .. } = self.faults;
        // A follow-up may be published twice, or its message come again, and a message may be taken from a worker that
        // still runs it.
        let is_twice = breaks || delays || swallows || addresses || panics || kills || poison;
        let is_single = !(is_twice || stops || (cuts && !self.keeps));
        assert!(!is_single || seen.at_once.is_empty(), "{:#?} {:?}", seen.at_once, self.faults);
        let dead: Vec<Uuid> = self.broker.drain(DEAD);
        let is_dead: HashSet<Uuid> = dead.iter().copied().collect();
        let unique = self.broker.breaks() == 0 && !(addresses || kills || poison || stops);
        for id in &self.sent {
            let kind = seen.kinds[id];
            let (ended, begun) = (seen.ended.get(id).copied().unwrap_or(0), seen.begun.get(id).copied().unwrap_or(0));
            assert!(ended > 0 || is_dead.contains(id), "{id} is gone: {kind:?}, begun {begun} times");
            match kind {
                Kind::Good => {
                    // What was with a worker that died, or was taken from it, is counted, whoever was to blame.
                    let is_counted = kills || swallows || addresses || delays || ((cuts || panics) && !self.keeps);
                    let is_blamed = is_dead.contains(id) && !is_counted;
                    assert!(
                        !is_blamed,
                        "{id} did no harm and is a dead letter, begun {begun} times: {:?}",
                        self.faults
                    );
                    assert!(ended == 1 || !unique, "{id} ran {ended} times without a cause: {:?}", self.faults);
                }
                Kind::Kills => {
                    assert!(is_dead.contains(id));
                    // A copy whose original comes again, or that was published twice, is counted on its own: but none
                    // of them is begun again once it has killed.
                    let killers = seen.kinds.values().filter(|kind| **kind == Kind::Kills).count();
                    let copies = self.broker.copies(*id);
                    assert!(
                        begun as usize <= copies,
                        "{id} has killed {begun} workers, of {copies} copies: {:?}",
                        self.faults
                    );
                    let is_single = self.broker.breaks() == 0 && !kills && !stops && killers == 1;
                    assert!(
                        !is_single || begun <= MAX_DELIVERIES + 2,
                        "{id} has killed {begun} workers: {:?}",
                        self.faults
                    );
                }
                Kind::Malformed => assert_eq!(begun, 0),
                _ => {}
            }
        }
        let connections = self.broker.connections();
        let window = Duration::from_secs(10);
        for (index, from) in connections.iter().enumerate() {
            let within = connections[index..].iter().take_while(|at| **at - *from < window).count();
            // Each worker has two, one of which publishes.
            assert!(within <= 60 * 3 + 4 * self.started, "{within} connections within {window:?}");
        }
    }
}
