//! Single faults of a worker's, in simulated time.

use std::{sync::Arc, time::Duration};

use async_signals::{
    broker::BrokerConfig,
    message::{Headers, Message, Outgoing, Properties, Queue, Route},
    protocol::celery::TASK,
    worker::{Job, Outcome, Runner, Worker, WorkerConfig},
};
use bytes::Bytes;
use serde_json::{Map, Value, json};
use tokio::{sync::mpsc, task::JoinHandle, time::sleep};
use uuid::Uuid;

use crate::simulated::{Address, Simulated, Weather};

/// Hands every job to the test.
struct Hands(mpsc::UnboundedSender<Job>);

impl Runner for Hands {
    fn start(&self, jobs: Vec<Job>) {
        for job in jobs {
            let _ = self.0.send(job);
        }
    }
}

fn worker(broker: &Simulated) -> (Worker, JoinHandle<()>, mpsc::UnboundedReceiver<Job>) {
    let (jobs, taken) = mpsc::unbounded_channel();
    let config = BrokerConfig::new("memory://simulated").expect("a URL");
    let config =
        WorkerConfig { connector: Arc::new(broker.clone()), ..WorkerConfig::new(config, vec![Queue::direct("q")]) };
    let (worker, running) = Worker::new(config, Arc::new(Hands(jobs)));
    (worker, tokio::spawn(async move { running.await.expect("it gives up never") }), taken)
}

async fn put(broker: &Simulated, number: u128, headers: Value) {
    let Value::Object(headers) = headers else { unreachable!("it is written as an object") };
    let id = Uuid::from_u128(number);
    let properties = Properties::for_task(id);
    let message = Message { id, headers: Headers::Raw(headers), properties, body: Bytes::from_static(b"[[], {}, {}]") };
    broker.put(Outgoing { route: Arc::new(Route::to_queue("q")), message }).await;
}

/// What has run is told to the broker before the worker ends, although the line broke meanwhile: or it would run twice.
#[tokio::test(start_paused = true)]
async fn a_stopping_worker_connects_once_more_to_tell_what_is_over() {
    let broker = Simulated::new("stopping", 0);
    put(&broker, 1, json!({"task": TASK, "id": Uuid::from_u128(1).to_string()})).await;
    let (worker, running, mut taken) = worker(&broker);
    let job = taken.recv().await.expect("it works").begin().expect("nothing is in its way");
    broker.set_weather(Weather { addresses: vec![Address::Closed], cuts: 1.0, ..Weather::default() });
    sleep(Duration::from_secs(5)).await;
    worker.stop(Duration::from_secs(20));
    sleep(Duration::from_secs(1)).await;
    job.finish(Outcome::Done);
    sleep(Duration::from_secs(1)).await;
    broker.set_weather(Weather::default());
    running.await.expect("no panic");
    assert_eq!(broker.left("q").await, 0);
}

#[tokio::test(start_paused = true)]
async fn messages_whose_follow_ups_cannot_be_published_are_held_up_to_a_bound() {
    let broker = Simulated::new("followed", 0);
    broker.set_weather(Weather { full: vec!["q.dead".to_owned()], ..Weather::default() });
    for number in 0..3_000 {
        put(&broker, number, Value::Object(Map::new())).await;
    }
    let (worker, running, _taken) = worker(&broker);
    sleep(Duration::from_secs(120)).await;
    let held = broker.held("q").await;
    assert!((1_000..1_300).contains(&held), "{held} are held");

    broker.set_weather(Weather::default());
    while broker.left("q").await > 0 {
        sleep(Duration::from_millis(100)).await;
    }
    worker.stop(Duration::from_secs(5));
    running.await.expect("no panic");
    assert_eq!(broker.drain("q.dead").len(), 3_000);
}
