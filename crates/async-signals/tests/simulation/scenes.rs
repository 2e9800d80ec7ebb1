//! Single faults, in simulated time.

use std::{
    panic,
    sync::{
        Arc,
        atomic::{AtomicBool, AtomicUsize, Ordering},
    },
    time::Duration,
};

use async_signals::{
    broker::{Broker, BrokerConfig, BrokerError, BrokerUrl, Connector, Published},
    message::{Headers, Message, Outgoing, Properties, Route},
    publisher::{Observer, PublishError, Publisher, PublisherConfig},
};
use bytes::Bytes;
use futures_util::future::{BoxFuture, FutureExt};
use serde_json::Map;
use tokio::time::{Instant, sleep};
use uuid::Uuid;

use crate::simulated::{Address, Simulated, Weather};

fn publisher(broker: &Simulated) -> Publisher {
    let config = BrokerConfig::new("memory://simulated").expect("a URL");
    Publisher::spawn(PublisherConfig { connector: Arc::new(broker.clone()), ..PublisherConfig::new(config) })
}

fn message(queue: &str, number: u128, size: usize) -> Outgoing {
    let id = Uuid::from_u128(number);
    let (headers, body) = (Headers::Raw(Map::new()), Bytes::from(vec![b' '; size]));
    let message = Message { id, headers, properties: Properties::for_task(id), body };
    Outgoing { route: Arc::new(Route::to_queue(queue)), message }
}

#[tokio::test(start_paused = true)]
async fn a_connection_that_was_forgotten_on_the_way_is_found_out_within_a_part_of_the_deadline() {
    let broker = Simulated::new("forgotten", 0);
    let publisher = publisher(&broker);
    publisher.send(message("a", 0, 0), None).expect("open").await.expect("confirmed");
    sleep(Duration::from_secs(60)).await;
    broker.forget_connections();
    publisher.send(message("a", 1, 0), None).expect("open").await.expect("over another connection");
    assert_eq!(broker.drain("a").len(), 2);
}

#[tokio::test(start_paused = true)]
async fn a_slow_broker_is_no_forgotten_connection() {
    let broker = Simulated::new("slow", 0);
    let publisher = publisher(&broker);
    publisher.send(message("a", 0, 0), None).expect("open").await.expect("confirmed");
    for number in 1..20 {
        broker.set_weather(Weather { delay: Duration::from_millis(4_900), ..Weather::default() });
        publisher.send(message("a", number, 0), None).expect("open").await.expect("confirmed");
    }
    assert_eq!((broker.drain("a").len(), broker.connections().len()), (20, 1));
}

#[tokio::test(start_paused = true)]
async fn a_full_queue_holds_up_its_own_background_messages_and_nobody_elses() {
    let broker = Simulated::new("full", 0);
    broker.set_weather(Weather { full: vec!["full".to_owned()], ..Weather::default() });
    let publisher = publisher(&broker);
    for number in 0..100 {
        publisher.try_buffer(message("full", number, 0)).expect("room");
        publisher.try_buffer(message("other", 1_000 + number, 0)).expect("room");
    }
    let begun = Instant::now();
    publisher.send(message("other", 2_000, 0), None).expect("open").await.expect("confirmed");
    let error = publisher.send(message("full", 2_001, 0), None).expect("open").await.expect_err("it is full");
    assert!(matches!(error, PublishError::Broker { error: BrokerError::QueueFull { .. }, .. }), "{error}");
    assert!(begun.elapsed() < Duration::from_secs(1), "nobody waited");
    assert_eq!((broker.drain("other").len(), publisher.buffered()), (101, 100));
    let error = publisher.flush(Duration::from_secs(1)).expect("open").await.expect_err("it is full");
    assert!(error.to_string().contains("it is full"), "{error}");

    sleep(Duration::from_secs(60)).await;
    let tried = broker.handed_over_times();
    assert!(tried < 350, "one is tried now and then: {tried} in all");

    broker.set_weather(Weather::default());
    publisher.flush(Duration::from_secs(5)).expect("open").await.expect("there is room");
    let expected: Vec<Uuid> = (0..100).map(Uuid::from_u128).collect();
    assert_eq!(broker.drain("full"), expected);
    assert_eq!(publisher.buffered(), 0);
}

#[tokio::test(start_paused = true)]
async fn a_slow_line_makes_progress_and_carries_everything_once() {
    let broker = Simulated::new("slow-line", 0);
    broker.set_weather(Weather { bytes_per_second: 2_000_000, ..Weather::default() });
    let publisher = publisher(&broker);
    for number in 0..40 {
        publisher.try_buffer(message("a", number, 1 << 20)).expect("room");
    }
    publisher.flush(Duration::from_secs(60)).expect("open").await.expect("it takes 21 seconds");
    let expected: Vec<Uuid> = (0..40).map(Uuid::from_u128).collect();
    assert_eq!((broker.drain("a"), broker.connections().len()), (expected, 1));
}

#[tokio::test(start_paused = true)]
async fn a_message_that_takes_longer_than_a_send_may_arrives_in_the_background() {
    let broker = Simulated::new("slower-line", 0);
    broker.set_weather(Weather { bytes_per_second: 200_000, ..Weather::default() });
    let publisher = publisher(&broker);
    for number in 0..5 {
        publisher.try_buffer(message("a", number, 1 << 20)).expect("room");
    }
    publisher.flush(Duration::from_secs(60)).expect("open").await.expect("it takes 27 seconds");
    assert_eq!((broker.drain("a").len(), broker.connections().len()), (5, 1));
}

#[tokio::test(start_paused = true)]
async fn who_is_let_in_nowhere_is_told_at_once_and_what_nobody_waits_for_stays() {
    let broker = Simulated::new("nowhere", 0);
    broker.set_weather(Weather { addresses: vec![Address::WrongPassword], ..Weather::default() });
    let publisher = publisher(&broker);
    publisher.try_buffer(message("a", 0, 0)).expect("room");
    for number in 1..4 {
        let begun = Instant::now();
        let error = publisher.send(message("a", number, 0), None).expect("open").await.expect_err("a wrong password");
        assert!(matches!(error, PublishError::Broker { error: BrokerError::Authentication { .. }, .. }), "{error}");
        assert!(begun.elapsed() <= Duration::from_secs(1), "{:?}", begun.elapsed());
    }
    broker.set_weather(Weather::default());
    publisher.flush(Duration::from_secs(5)).expect("open").await.expect("the password is mended");
    assert_eq!(broker.drain("a"), [Uuid::from_u128(0)]);
}

#[tokio::test(start_paused = true)]
async fn a_full_queue_that_drains_slowly_is_not_flooded() {
    let broker = Simulated::new("drains", 0);
    let full = Weather { full: vec!["full".to_owned()], ..Weather::default() };
    broker.set_weather(full.clone());
    let publisher = publisher(&broker);
    for number in 0..1_000 {
        publisher.try_buffer(message("full", number, 0)).expect("room");
    }
    // Ten times in a second it has room, for a moment.
    while publisher.buffered() > 500 {
        broker.set_weather(Weather::default());
        sleep(Duration::from_millis(2)).await;
        broker.set_weather(full.clone());
        sleep(Duration::from_millis(98)).await;
    }
    assert!(broker.handed_over_times() < 3_000, "{} for 500 that went", broker.handed_over_times());
    broker.set_weather(Weather::default());
    publisher.flush(Duration::from_secs(5)).expect("open").await.expect("there is room");
    let expected: Vec<Uuid> = (0..1_000).map(Uuid::from_u128).collect();
    assert_eq!(broker.drain("full"), expected);
}

#[tokio::test(start_paused = true)]
async fn a_full_queue_takes_up_half_of_the_buffer_and_leaves_the_rest_to_others() {
    let broker = Simulated::new("half", 0);
    broker.set_weather(Weather { full: vec!["full".to_owned()], ..Weather::default() });
    let config = BrokerConfig::new("memory://simulated").expect("a URL");
    let connector = Arc::new(broker.clone());
    let publisher =
        Publisher::spawn(PublisherConfig { connector, buffer_messages: 100, ..PublisherConfig::new(config) });
    let mut accepted = Vec::new();
    for number in 0..200 {
        if publisher.try_buffer(message("full", number, 0)).is_ok() {
            accepted.push(Uuid::from_u128(number));
        }
        sleep(Duration::from_millis(10)).await;
    }
    assert!((50..75).contains(&accepted.len()), "{}", accepted.len());
    let error = publisher.try_buffer(message("full", 300, 0)).expect_err("half of the buffer is its own");
    assert!(error.to_string().contains("it is full"), "{error}");
    publisher.try_buffer(message("other", 301, 0)).expect("room");

    broker.set_weather(Weather::default());
    publisher.flush(Duration::from_secs(5)).expect("open").await.expect("there is room");
    assert_eq!(broker.drain("full"), accepted);
    publisher.try_buffer(message("full", 302, 0)).expect("room again");
}

/// A nack of one of several queues says nothing of the others: trying again would fill them.
#[tokio::test(start_paused = true)]
async fn what_an_exchange_refuses_is_not_tried_again() {
    let broker = Simulated::new("exchange", 0);
    broker.set_weather(Weather { full: vec!["key".to_owned()], ..Weather::default() });
    let publisher = publisher(&broker);
    let to_exchange = |number| {
        let route = Route { exchange: "shop".to_owned(), routing_key: "key".to_owned(), ..Route::to_queue("a") };
        Outgoing { route: Arc::new(route), ..message("a", number, 0) }
    };
    publisher.try_buffer(to_exchange(0)).expect("room");
    let error = publisher.send(to_exchange(1), None).expect("open").await.expect_err("it is full");
    assert!(error.may_have_arrived(), "{error}");
    publisher.flush(Duration::from_secs(5)).expect("open").await.expect("it is lost, and told");
    assert_eq!(broker.handed_over_times(), 2);
}

#[tokio::test(start_paused = true)]
async fn a_dead_connection_under_load_is_replaced_at_once_for_all_of_its_batches() {
    let broker = Simulated::new("under-load", 0);
    let publisher = publisher(&broker);
    publisher.send(message("a", 0, 0), None).expect("open").await.expect("confirmed");
    broker.forget_connections();
    for number in 1..4 {
        publisher.try_buffer(message("a", number, 1 << 20)).expect("room");
    }
    let begun = Instant::now();
    publisher.flush(Duration::from_secs(60)).expect("open").await.expect("over another connection");
    assert!(begun.elapsed() < Duration::from_secs(10), "{:?}", begun.elapsed());
}

/// What a blocked broker has not answered it has all the same: over another connection it would be there twice.
#[tokio::test(start_paused = true)]
async fn what_a_blocked_broker_withholds_is_not_sent_again() {
    let broker = Simulated::new("withholds", 0);
    broker.set_weather(Weather { withholds: true, ..Weather::default() });
    let publisher = publisher(&broker);
    publisher.try_buffer(message("a", 0, 0)).expect("room");
    let error = publisher.send(message("a", 1, 0), None).expect("open").await.expect_err("it is blocked");
    assert!(error.to_string().contains("low on memory"), "{error}");
    sleep(Duration::from_secs(300)).await;
    broker.set_weather(Weather::default());
    publisher.flush(Duration::from_secs(5)).expect("open").await.expect("it answers");
    assert_eq!((broker.drain("a").len(), broker.connections().len()), (2, 1));
}

/// The first connection is one that no publisher survives.
#[derive(Debug)]
struct Deadly(Simulated, AtomicBool);

impl Connector for Deadly {
    fn connect<'a>(
        &'a self,
        config: &'a BrokerConfig,
        url: &'a BrokerUrl,
    ) -> BoxFuture<'a, Result<Arc<dyn Broker>, BrokerError>> {
        if self.1.swap(true, Ordering::Relaxed) {
            return self.0.connect(config, url);
        }
        let broker: Arc<dyn Broker> = Arc::new(Panics);
        std::future::ready(Ok(broker)).boxed()
    }
}

#[derive(Debug)]
struct Panics;

impl Broker for Panics {
    fn publish<'a>(&'a self, _: &'a [Outgoing]) -> BoxFuture<'a, Vec<Published>> {
        std::future::pending().boxed()
    }

    fn pipeline(&self) -> usize {
        panic::resume_unwind(Box::new("a broker's own"))
    }

    fn close(&self) -> BoxFuture<'_, ()> {
        std::future::ready(()).boxed()
    }
}

struct Losses(AtomicUsize);

impl Observer for Losses {
    fn lost(&self, _: &Message, _: &PublishError) {
        self.0.fetch_add(1, Ordering::Relaxed);
    }
}

#[tokio::test(start_paused = true)]
async fn a_publisher_that_panics_tells_everybody_and_begins_anew() {
    let (broker, observer) = (Simulated::new("deadly", 0), Arc::new(Losses(AtomicUsize::new(0))));
    let config = BrokerConfig::new("memory://simulated").expect("a URL");
    let publisher = Publisher::spawn(PublisherConfig {
        connector: Arc::new(Deadly(broker.clone(), AtomicBool::new(false))),
        observer: observer.clone(),
        ..PublisherConfig::new(config)
    });
    publisher.try_buffer(message("a", 0, 0)).expect("room");
    let error = publisher.send(message("a", 1, 0), None).expect("open").await.expect_err("it panics");
    assert!(matches!(error, PublishError::Stopped { .. }), "{error}");
    assert_eq!((observer.0.load(Ordering::Relaxed), publisher.buffered()), (1, 0));
    publisher.send(message("a", 2, 0), None).expect("open").await.expect("it has begun anew");
    assert_eq!(broker.drain("a"), [Uuid::from_u128(2)]);
}
