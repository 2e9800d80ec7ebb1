//! Who is told what a worker does beside running receivers.

use std::{fmt, sync::Arc};

use crate::{
    broker::BrokerError,
    follow::Failure,
    message::Incoming,
    panics,
    text::{line, shown},
};

/// Hears what the worker does beside running receivers: for logs and monitors.
/// Called on the worker's thread, which it must not hold up.
pub trait Observer: Send + Sync {
    /// It reads its queues now, from the broker at this address (without its password).
    fn connected(&self, _broker: &str) {}
    /// The connection is gone, or could not be made. The worker tries again by itself.
    fn disconnected(&self, _error: &BrokerError) {}
    /// A message expired before it could run.
    fn expired(&self, _id: &str, _task: &str) {}
    /// A message waits for its eta, so many seconds.
    fn delayed(&self, _id: &str, _task: &str, _seconds: f64) {}
    /// A message was taken before and not settled.
    fn redelivered(&self, _id: &str, _deliveries: u32) {}
    /// A message is in the dead-letter queue. `queue` is `None` where there is none: then it is dropped. `kind` is why, as
    /// a word: `ReceiversFailed`, where the runner knows already, `UnknownReceiver`, `TooManyDeliveries`, ….
    fn parked(&self, _id: &str, _queue: Option<&str>, _kind: &str, _reason: &str) {}
    /// Failed receivers will be tried again after so many seconds.
    fn retried(&self, _id: &str, _failures: &[Failure], _seconds: f64) {}
    /// Something could not be published, and is tried again.
    fn hindered(&self, _id: &str, _queue: &str, _error: &dyn fmt::Display) {}
}

impl Observer for () {}

/// What an observer is to be told.
#[derive(Debug)]
pub(super) enum Notice {
    Connected { broker: String },
    Disconnected { error: BrokerError },
    Expired { incoming: Arc<Incoming> },
    Delayed { incoming: Arc<Incoming>, seconds: f64 },
    Redelivered { id: String, deliveries: u32 },
    Retried { id: String, failures: Vec<Failure>, seconds: f64 },
    Parked { id: String, queue: Option<String>, kind: String, reason: String },
}

impl Notice {
    pub(super) fn tell(&self, observer: &dyn Observer) {
        match self {
            Self::Connected { broker } => observer.connected(broker),
            Self::Disconnected { error } => observer.disconnected(error),
            Self::Expired { incoming } => observer.expired(incoming.text("id"), incoming.text("task")),
            Self::Delayed { incoming, seconds } => {
                observer.delayed(incoming.text("id"), incoming.text("task"), *seconds);
            }
            Self::Redelivered { id, deliveries } => observer.redelivered(id, *deliveries),
            Self::Retried { id, failures, seconds } => observer.retried(id, failures, *seconds),
            Self::Parked { id, queue, kind, reason } => observer.parked(id, queue.as_deref(), kind, reason),
        }
    }
}

/// How many bytes of a reason an observer is told.
const REASON: usize = 1000;

/// An observer whose panics are its own: they end no worker. What senders have written reaches it in one line, and
/// bounded, since most observers write it to a log.
pub(super) struct Guarded(pub(super) Arc<dyn Observer>);

impl Guarded {
    fn tell(&self, what: impl FnOnce(&dyn Observer)) {
        panics::guarded("worker", || what(&*self.0));
    }
}

impl Observer for Guarded {
    fn connected(&self, broker: &str) {
        self.tell(|observer| observer.connected(broker));
    }

    fn disconnected(&self, error: &BrokerError) {
        self.tell(|observer| observer.disconnected(error));
    }

    fn expired(&self, id: &str, task: &str) {
        self.tell(|observer| observer.expired(&shown(id), &shown(task)));
    }

    fn delayed(&self, id: &str, task: &str, seconds: f64) {
        self.tell(|observer| observer.delayed(&shown(id), &shown(task), seconds));
    }

    fn redelivered(&self, id: &str, deliveries: u32) {
        self.tell(|observer| observer.redelivered(&shown(id), deliveries));
    }

    fn parked(&self, id: &str, queue: Option<&str>, kind: &str, reason: &str) {
        self.tell(|observer| observer.parked(&shown(id), queue, kind, &line(reason, REASON)));
    }

    fn retried(&self, id: &str, failures: &[Failure], seconds: f64) {
        self.tell(|observer| observer.retried(&shown(id), failures, seconds));
    }

    fn hindered(&self, id: &str, queue: &str, error: &dyn fmt::Display) {
        self.tell(|observer| observer.hindered(&shown(id), queue, error));
    }
}
