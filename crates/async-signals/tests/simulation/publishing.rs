//! A publisher with many senders, in weather that changes; then the sun comes out, and everything is counted.

use std::{
    collections::{HashMap, HashSet},
    panic,
    sync::{Arc, Mutex, PoisonError},
    time::Duration,
};

use async_signals::{
    broker::{BrokerConfig, BrokerError},
    message::{Exchange, Headers, Message, Outgoing, Properties, Route, TaskEvent},
    publisher::{Observer, PublishError, Publisher, PublisherConfig},
};
use bytes::Bytes;
use serde_json::{Map, json};
use tokio::time::{Instant, sleep};
use uuid::Uuid;

use crate::simulated::{Address, Simulated, Weather};

/// A routing key that no queue is bound with.
const NOWHERE: &str = "nowhere";
const QUEUES: [&str; 3] = ["a", "b", "c"];
/// What a timer may be late.
const TICK: Duration = Duration::from_millis(2);
const TIMEOUT: Duration = Duration::from_secs(5);

/// One run. All that chance decides in it comes from the seed.
pub(crate) fn run(seed: u64) {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_time().start_paused(true).build();
    runtime.expect("a runtime").block_on(async {
        let mut scene = Scene::new(seed);
        scene.play().await;
        scene.calm().await;
        scene.count().await;
    });
}

struct Sent {
    id: Uuid,
    queue: &'static str,
    /// `None` in the background.
    deadline: Option<Instant>,
}

type Outcome = Result<(), PublishError>;

/// What the senders and the observer were told.
#[derive(Default)]
struct Told {
    outcomes: HashMap<Uuid, Vec<(Outcome, Instant)>>,
    lost: Vec<(Uuid, PublishError)>,
    is_disconnected: bool,
    /// Whether it was told twice that the connection is gone, or back.
    twice: bool,
    panics: Option<fastrand::Rng>,
    /// What a task of the scene found.
    failed: Vec<String>,
}

#[derive(Clone, Default)]
struct Listener(Arc<Mutex<Told>>);

impl Listener {
    fn tell(&self, tell: impl FnOnce(&mut Told)) {
        let mut told = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        tell(&mut told);
        let panics = told.panics.as_mut().is_some_and(|chance| chance.u8(..) < 25);
        drop(told);
        if panics {
            panic::resume_unwind(Box::new("a user's own"));
        }
    }

    fn settled(&self, id: Uuid, outcome: Outcome) {
        self.tell(|told| told.outcomes.entry(id).or_default().push((outcome, Instant::now())));
    }

    fn connection(&self, is_disconnected: bool) {
        self.tell(|told| {
            told.twice |= std::mem::replace(&mut told.is_disconnected, is_disconnected) == is_disconnected
        });
    }
}

impl Observer for Listener {
    fn lost(&self, message: &Message, error: &PublishError) {
        self.tell(|told| told.lost.push((message.id, error.clone())));
    }

    fn disconnected(&self, _: &BrokerError) {
        self.connection(true);
    }

    fn reconnected(&self) {
        self.connection(false);
    }

    fn held(&self, _: &BrokerError) {
        self.tell(|_| {});
    }
}

/// Which faults a run has: few at a time find more than all at once.
#[derive(Debug)]
struct Faults {
    addresses: bool,
    replicas: bool,
    delays: bool,
    breaks: bool,
    swallows: bool,
    nacks: bool,
    blocks: bool,
    passwords: bool,
    panics: bool,
}

struct Scene {
    chance: fastrand::Rng,
    faults: Faults,
    broker: Simulated,
    addresses: usize,
    publisher: Publisher,
    listener: Listener,
    sent: Vec<Sent>,
    most_buffered: usize,
}

impl Scene {
    fn new(seed: u64) -> Self {
        let mut chance = fastrand::Rng::with_seed(seed);
        let mut faults = || chance.u8(..) < 100;
        let faults = Faults {
            addresses: faults(),
            replicas: faults(),
            delays: faults(),
            breaks: faults(),
            swallows: faults(),
            nacks: faults(),
            blocks: faults(),
            passwords: faults(),
            panics: faults(),
        };
        let addresses = chance.usize(1..=3);
        let broker = Simulated::new(&format!("publishing-{seed}"), chance.u64(..));
        let listener = Listener::default();
        if chance.bool() {
            let panics = fastrand::Rng::with_seed(chance.u64(..));
            listener.0.lock().expect("nobody has panicked yet").panics = Some(panics);
        }
        let mut config = BrokerConfig::new("memory://simulated").expect("a URL");
        config.urls = vec![config.urls[0].clone(); addresses];
        let most_buffered = chance.usize(5..200);
        let publisher = Publisher::spawn(PublisherConfig {
            timeout: TIMEOUT,
            buffer_messages: most_buffered,
            connector: Arc::new(broker.clone()),
            observer: Arc::new(listener.clone()),
            seed: chance.u64(..),
            ..PublisherConfig::new(config)
        });
        Self { chance, faults, broker, addresses, publisher, listener, sent: Vec::new(), most_buffered }
    }

    async fn play(&mut self) {
        for _ in 0..self.chance.usize(10..120) {
            match self.chance.u8(0..20) {
                0..8 => self.send(),
                8..14 => self.buffer(),
                14 => self.publish_event(),
                15 => self.flush(),
                16..18 => {
                    let weather = self.weather();
                    self.broker.set_weather(weather);
                }
                _ => {
                    let longest = self.chance.choice([1, 100, 3_000, 12_000]).expect("one of them");
                    sleep(Duration::from_millis(self.chance.u64(0..longest))).await;
                }
            }
        }
    }

    fn weather(&mut self) -> Weather {
        let Self { chance, faults, .. } = self;
        let addresses = (0..self.addresses).map(|_| match chance.u8(0..8) {
            0 if faults.addresses => Address::Closed,
            1 if faults.addresses => Address::Silent,
            2 if faults.replicas => Address::Replica,
            3 if faults.passwords => Address::WrongPassword,
            _ => Address::Open,
        });
        Weather {
            addresses: addresses.collect(),
            delay: Duration::from_millis(if faults.delays { chance.u64(0..4_000) } else { chance.u64(0..5) }),
            bytes_per_second: if faults.delays { chance.usize(0..3) * 500_000 } else { 0 },
            breaks: if faults.breaks { chance.f64() } else { 0.0 },
            goes_on: chance.f64(),
            cuts: 0.0,
            swallows: if faults.swallows { chance.f64() / 4.0 } else { 0.0 },
            panics: if faults.panics { chance.f64() / 2.0 } else { 0.0 },
            nacks: if faults.nacks { chance.f64() / 2.0 } else { 0.0 },
            full: QUEUES[1..]
                .iter()
                .filter(|_| faults.nacks && chance.bool())
                .map(|queue| (*queue).to_owned())
                .collect(),
            out_of_memory: faults.nacks && chance.u8(..) < 50,
            blocked: faults.blocks && chance.bool(),
            withholds: faults.blocks && chance.bool(),
        }
    }

    /// The next message, and where it goes: now and then where no queue is.
    fn message(&mut self) -> (Uuid, &'static str, Outgoing) {
        let number = self.sent.len();
        let id = Uuid::from_u128(number as u128 + 1);
        let queue = QUEUES[self.chance.usize(0..QUEUES.len())];
        let headers = Headers::Raw(Map::from_iter([("number".to_owned(), json!(number))]));
        let large = if self.chance.u8(..) < 20 { 400_000 } else { 0 };
        let body = Bytes::from(vec![b' '; large]);
        let message = Message { id, headers, properties: Properties::for_task(id), body };
        let (queue, route) = if self.chance.u8(..) < 10 {
            let route = Route::to_queue("d");
            (NOWHERE, Route { exchange: "d".to_owned(), routing_key: NOWHERE.to_owned(), ..route })
        } else {
            (queue, Route::to_queue(queue))
        };
        (id, queue, Outgoing { route: Arc::new(route), message })
    }

    fn send(&mut self) {
        let (id, queue, outgoing) = self.message();
        let timeout = Duration::from_millis(self.chance.u64(1..8_000));
        let receipt = self.publisher.send(outgoing, Some(timeout)).expect("open");
        self.sent.push(Sent { id, queue, deadline: Some(Instant::now() + timeout) });
        let listener = self.listener.clone();
        if self.chance.bool() {
            receipt.on_settled(move |outcome| listener.settled(id, outcome));
        } else {
            tokio::spawn(async move {
                let outcome = receipt.await;
                // A task's panic is its own.
                listener.settled(id, outcome);
            });
        }
    }

    fn buffer(&mut self) {
        let (id, queue, outgoing) = self.message();
        match self.publisher.try_buffer(outgoing) {
            Ok(()) => self.sent.push(Sent { id, queue, deadline: None }),
            Err(PublishError::BufferFull { .. }) => {}
            Err(error) => panic!("{error}"),
        }
        assert!(self.publisher.buffered() <= self.most_buffered, "the buffer has a bound");
    }

    fn publish_event(&mut self) {
        let id = Uuid::nil();
        let message =
            Message { id, headers: Headers::Raw(Map::new()), properties: Properties::for_task(id), body: Bytes::new() };
        let exchange = Arc::new(Exchange::direct("celeryev"));
        self.publisher.publish_event(TaskEvent { exchange, routing_key: "task.sent".into(), message }).expect("open");
    }

    /// When a flush says that all is there, all is there.
    fn flush(&mut self) {
        let timeout = Duration::from_millis(self.chance.u64(1..20_000));
        let receipt = self.publisher.flush(timeout).expect("open");
        let (begun, listener) = (Instant::now(), self.listener.clone());
        let before: Vec<Uuid> = self.sent.iter().map(|sent| sent.id).collect();
        let is_background: Vec<bool> = self.sent.iter().map(|sent| sent.deadline.is_none()).collect();
        let broker = self.broker.clone();
        tokio::spawn(async move {
            let outcome = receipt.await;
            let mut told = listener.0.lock().unwrap_or_else(PoisonError::into_inner);
            if begun.elapsed() > timeout + TICK {
                told.failed.push(format!("a flush ended after {:?} of {timeout:?}", begun.elapsed()));
            }
            for (id, is_background) in before.iter().zip(is_background) {
                if outcome.is_ok() && is_background && !broker.has(*id) && !told.lost.iter().any(|(lost, _)| lost == id)
                {
                    told.failed.push(format!("{id} was flushed and is not there"));
                }
            }
        });
    }

    /// All faults end, but those of all addresses but one; what is still under way comes to its end.
    async fn calm(&mut self) {
        let (good, others) =
            (self.chance.usize(0..self.addresses), [Address::Closed, Address::Replica, Address::Silent]);
        let other = self.chance.choice(others).expect("one of them");
        let addresses = (0..self.addresses).map(|index| if index == good { Address::Open } else { other });
        self.broker.set_weather(Weather { addresses: addresses.collect(), ..Weather::default() });
        let flushed = self.publisher.flush(Duration::from_secs(60)).expect("open").await;
        flushed.expect("all that waits goes once the broker is there");
        assert_eq!(self.publisher.buffered(), 0, "the buffer is empty after a flush");
        sleep(Duration::from_secs(30)).await;
        for queue in QUEUES {
            let id = Uuid::new_v4();
            let headers = Headers::Raw(Map::new());
            let message = Message { id, headers, properties: Properties::for_task(id), body: Bytes::new() };
            let outgoing = Outgoing { route: Arc::new(Route::to_queue(queue)), message };
            self.publisher.send(outgoing, None).expect("open").await.expect("a good broker takes it");
        }
    }

    async fn count(self) {
        let Self { broker, sent, listener, addresses, faults, publisher, .. } = self;
        drop(publisher);
        let told = listener.0.lock().unwrap_or_else(PoisonError::into_inner);
        let queues = QUEUES.map(|queue| broker.drain(queue));
        let stored: HashSet<Uuid> = queues.iter().flatten().copied().collect();
        let lost: HashMap<Uuid, &PublishError> = told.lost.iter().map(|(id, error)| (*id, error)).collect();
        assert_eq!(lost.len(), told.lost.len(), "a message is lost once");
        assert!(!told.twice, "the observer was told twice the same");
        assert!(!told.is_disconnected, "the connection is back");

        for Sent { id, queue, deadline } in &sent {
            let Some(deadline) = deadline else {
                assert!(stored.contains(id) != lost.contains_key(id), "{id} in the background: there or lost");
                assert!(!lost.contains_key(id) || *queue == NOWHERE, "{id} was lost: {}", lost[id]);
                continue;
            };
            let outcomes = told.outcomes.get(id).unwrap_or_else(|| panic!("nobody was told what became of {id}"));
            let [(outcome, at)] = &outcomes[..] else { panic!("{id}: {outcomes:?}") };
            assert!(*at <= *deadline + TICK, "{id} was settled {:?} too late", *at - *deadline);
            let late = broker.handed_over(*id).map(|at| at.saturating_duration_since(*deadline));
            assert!(late.is_none_or(|late| late <= TICK), "{id} was handed over {late:?} past its deadline");
            match outcome {
                Ok(()) => assert!(stored.contains(id), "{id} was confirmed, and is not there"),
                Err(error) if !error.may_have_arrived() => {
                    assert!(!stored.contains(id), "{id} is there, although {error}");
                }
                Err(_) => {}
            }
            if let Err(PublishError::Broker { error, .. }) = outcome {
                let expected = match error {
                    BrokerError::Unroutable { .. } => *queue == NOWHERE,
                    BrokerError::QueueFull { .. } | BrokerError::OutOfMemory { .. } => faults.nacks,
                    BrokerError::Authentication { .. } => faults.passwords,
                    _ => false,
                };
                assert!(expected, "{id} for {queue}: {error}");
            }
            assert!(!matches!(outcome, Err(PublishError::Closed | PublishError::Stopped { .. })), "{outcome:?}");
        }

        let is_sure = |id: &Uuid| {
            let sent = sent.iter().find(|sent| sent.id == *id);
            sent.is_some_and(|sent| sent.deadline.is_none() || matches!(told.outcomes[id][..], [(Ok(()), _)]))
        };
        for queue in &queues {
            let mut seen = HashSet::new();
            let firsts: Vec<&Uuid> = queue.iter().filter(|id| seen.insert(**id)).collect();
            if broker.breaks() == 0 {
                assert_eq!(firsts.len(), queue.len(), "nothing came twice without a cause");
            }
            // What refuses one batch and takes the next, which was under way already, changes the order.
            if !(faults.nacks || faults.blocks || faults.replicas || faults.panics) {
                let sure: Vec<&&Uuid> = firsts.iter().filter(|id| is_sure(id)).collect();
                assert!(sure.is_sorted(), "resends keep the order: {sure:?} {faults:?}");
            }
        }

        let (bytes, messages) = broker.largest_batch();
        assert!(bytes <= 1 << 20 && messages <= 8, "a batch of {messages} messages and {bytes} bytes");
        assert!(broker.longest_pipeline() <= 3, "{} batches at once", broker.longest_pipeline());
        if broker.breaks() == 0 && !(faults.replicas || faults.addresses) {
            // Each pause has an end, and each route is tried once after it.
            let times = broker.handed_over_times();
            assert!(times <= sent.len() * 4 + 600, "{times} times for {} messages: {faults:?}", sent.len());
        }
        let again = broker.soonest_again();
        assert!(again.is_none_or(|again| again > Duration::from_millis(20)), "tried again after {again:?}");
        let connections = broker.connections();
        let window = Duration::from_secs(10);
        for (index, from) in connections.iter().enumerate() {
            let within = connections[index..].iter().take_while(|at| **at - *from < window).count();
            // Pauses of half a second and more between rounds, once they have grown; and one at once after each good one.
            assert!(within <= addresses * 28 + 10, "{within} connections within {window:?}");
        }
        assert!(told.failed.is_empty(), "{:?}", told.failed);
    }
}
