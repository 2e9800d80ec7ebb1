//! One connection to the simulated broker.

use std::{
    panic,
    sync::{
        Arc, Mutex, PoisonError,
        atomic::{AtomicBool, AtomicUsize, Ordering},
    },
    time::Duration,
};

use async_signals::{
    broker::{Broker, BrokerError, Published},
    message::Outgoing,
};
use futures_util::future::{BoxFuture, FutureExt};
use tokio::{
    sync::{mpsc, oneshot},
    time::{Instant, sleep},
};

use super::{Address, Simulated, Weather};

/// Batches are carried out one after the other, in the order in which they were handed over.
#[derive(Debug)]
pub(super) struct Line {
    broker: Simulated,
    /// Which connection it is, from 1.
    number: usize,
    requests: mpsc::UnboundedSender<Request>,
    under_way: Arc<AtomicUsize>,
    is_broken: Arc<AtomicBool>,
}

#[derive(Debug)]
struct Request {
    batch: Vec<Outgoing>,
    answer: oneshot::Sender<Vec<Published>>,
}

fn lost() -> BrokerError {
    BrokerError::Disconnected { url: "simulated".to_owned(), reason: "connection reset".to_owned() }
}

impl Line {
    pub(super) fn new(broker: Simulated, address: usize, number: usize) -> Self {
        let (requests, received) = mpsc::unbounded_channel();
        let is_broken = Arc::new(AtomicBool::new(false));
        tokio::spawn(serve(broker.clone(), address, number, received, is_broken.clone()));
        Self { broker, number, requests, under_way: Arc::default(), is_broken }
    }
}

/// The server's end.
async fn serve(
    broker: Simulated,
    address: usize,
    number: usize,
    mut requests: mpsc::UnboundedReceiver<Request>,
    is_broken: Arc<AtomicBool>,
) {
    while let Some(Request { batch, answer }) = requests.recv().await {
        let delay = {
            let mut seen = broker.seen();
            let bytes: usize = batch.iter().map(|outgoing| outgoing.message.body.len()).sum();
            let carried = (bytes * 1_000).checked_div(seen.weather.bytes_per_second).unwrap_or_default();
            seen.delay() + Duration::from_millis(carried as u64)
        };
        sleep(delay).await;
        let (swallows, breaks) = {
            let mut seen = broker.seen();
            let (swallows, breaks) = (seen.weather.swallows, seen.weather.breaks);
            (seen.happens(swallows) || number <= seen.silent_up_to, seen.happens(breaks))
        };
        if swallows {
            broker.seen().breaks += 1;
            // The sender's end stays open, and hears nothing.
            std::future::pending::<()>().await;
        }
        if breaks {
            is_broken.store(true, Ordering::Relaxed);
            let (arrived, known, goes_on) = {
                let mut seen = broker.seen();
                seen.breaks += 1;
                let arrived = seen.chance.usize(0..=batch.len());
                let known = seen.chance.usize(0..=arrived);
                let goes_on = seen.weather.goes_on;
                (arrived, known, seen.happens(goes_on))
            };
            let mut answers = carry_out(&broker, address, &batch[..arrived]).await;
            answers.truncate(known);
            answers.resize(batch.len(), Err(lost()));
            let _ = answer.send(answers);
            if goes_on {
                let delay = broker.seen().delay();
                sleep(delay).await;
                carry_out(&broker, address, &batch[arrived..]).await;
                while let Ok(Request { batch, .. }) = requests.try_recv() {
                    carry_out(&broker, address, &batch).await;
                }
            }
            return;
        }
        while broker.seen().weather.withholds {
            sleep(Duration::from_millis(50)).await;
        }
        let answers = carry_out(&broker, address, &batch).await;
        // Whoever has given up waiting has the messages there all the same.
        let _ = answer.send(answers);
    }
}

async fn carry_out(broker: &Simulated, address: usize, batch: &[Outgoing]) -> Vec<Published> {
    let mut answers = Vec::with_capacity(batch.len());
    for outgoing in batch {
        let refusal = refusal(broker, address, outgoing);
        answers.push(match refusal {
            Some(error) => Err(error),
            None => {
                let published = broker.memory.publish(std::slice::from_ref(outgoing)).await.remove(0);
                if published.is_ok() {
                    *broker.seen().arrived.entry(outgoing.message.id).or_default() += 1;
                }
                published
            }
        });
    }
    answers
}

fn refusal(broker: &Simulated, address: usize, outgoing: &Outgoing) -> Option<BrokerError> {
    let mut seen = broker.seen();
    let queue = outgoing.route.routing_key.clone();
    let nacks = seen.weather.nacks;
    if seen.weather.address(address) == Address::Replica {
        Some(BrokerError::Unavailable { url: "simulated".to_owned(), reason: "READONLY a replica".to_owned() })
    } else if seen.weather.blocked {
        Some(BrokerError::Blocked { reason: "low on memory".to_owned() })
    } else if seen.weather.out_of_memory {
        Some(BrokerError::OutOfMemory { reason: "OOM".to_owned() })
    } else if seen.weather.full.contains(&queue) || seen.happens(nacks) {
        Some(BrokerError::QueueFull { queue })
    } else {
        None
    }
}

impl Broker for Line {
    fn publish<'a>(&'a self, batch: &'a [Outgoing]) -> BoxFuture<'a, Vec<Published>> {
        let under_way = self.under_way.clone();
        {
            let mut seen = self.broker.seen();
            let now = Instant::now();
            seen.handed_over_times += batch.len();
            for outgoing in batch {
                if let Some((before, line)) = seen.handed_over.insert(outgoing.message.id, (now, self.number))
                    && line == self.number
                {
                    let again = now - before;
                    seen.soonest_again = Some(seen.soonest_again.map_or(again, |soonest| soonest.min(again)));
                }
            }
            if batch.len() > 1 {
                let bytes = batch.iter().map(|outgoing| outgoing.message.body.len()).sum();
                seen.largest_batch = seen.largest_batch.max((bytes, batch.len()));
            }
            seen.longest_pipeline = seen.longest_pipeline.max(under_way.fetch_add(1, Ordering::Relaxed) + 1);
        }
        let (panics, before) = {
            let mut seen = self.broker.seen();
            let panics = seen.weather.panics;
            (seen.happens(panics), seen.chance.bool())
        };
        if panics && before {
            panic::resume_unwind(Box::new("a library's own"));
        }
        let (answer, answered) = oneshot::channel();
        let is_sent = !self.is_broken.load(Ordering::Relaxed)
            && self.requests.send(Request { batch: batch.to_vec(), answer }).is_ok();
        let given_up = GivenUp(Mutex::new(Some((self.broker.clone(), under_way))));
        async move {
            let answers = if is_sent { answered.await.ok() } else { None };
            if panics {
                panic::resume_unwind(Box::new("a library's own"));
            }
            given_up.answered();
            answers.unwrap_or_else(|| vec![Err(lost()); batch.len()])
        }
        .boxed()
    }

    fn pipeline(&self) -> usize {
        3
    }

    fn batch(&self) -> usize {
        8
    }

    fn blocked(&self) -> Option<BrokerError> {
        let Weather { blocked, withholds, .. } = self.broker.seen().weather;
        (blocked || withholds).then(|| BrokerError::Blocked { reason: "low on memory".to_owned() })
    }

    fn close(&self) -> BoxFuture<'_, ()> {
        std::future::ready(()).boxed()
    }
}

/// Notices that nobody waits any more for the answer to a batch.
struct GivenUp(Mutex<Option<(Simulated, Arc<AtomicUsize>)>>);

impl GivenUp {
    fn answered(&self) {
        if let Some((_, under_way)) = self.0.lock().unwrap_or_else(PoisonError::into_inner).take() {
            under_way.fetch_sub(1, Ordering::Relaxed);
        }
    }
}

impl Drop for GivenUp {
    fn drop(&mut self) {
        if let Some((broker, under_way)) = self.0.lock().unwrap_or_else(PoisonError::into_inner).take() {
            broker.seen().breaks += 1;
            under_way.fetch_sub(1, Ordering::Relaxed);
        }
    }
}
