use std::{
    fmt,
    time::{Duration, SystemTime},
};

use serde::{Serialize, de::DeserializeOwned};
use uuid::Uuid;

use super::{AsyncSignal, SendError, sending::Sending};
use crate::{
    celery::{Celery, TraceContext},
    durability::Durability,
    sender::Sender,
    sent::Sent,
};

/// A signal with options for the sends that are made through it. What is not
/// said here is as the signal has it.
#[must_use = "it says how to send, and sends nothing"]
pub struct SendOptions<'a, P> {
    pub(super) signal: &'a AsyncSignal<P>,
    pub(super) app: Option<Celery>,
    pub(super) id: Option<Uuid>,
    pub(super) queue: Option<String>,
    pub(super) durability: Option<Durability>,
    pub(super) priority: Option<u8>,
    pub(super) due: Option<When>,
    pub(super) expires: Option<When>,
    pub(super) trace: Option<TraceContext>,
}

/// A time, or so long after the send.
#[derive(Clone, Copy, Debug)]
pub(super) enum When {
    At(SystemTime),
    After(Duration),
}

impl When {
    /// A time too far away to be written is none.
    pub(super) fn from(self, now: SystemTime) -> Option<SystemTime> {
        match self {
            Self::At(time) => Some(time),
            Self::After(pause) => now.checked_add(pause),
        }
    }
}

impl<P> fmt::Debug for SendOptions<'_, P> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("SendOptions").field("signal", self.signal).finish_non_exhaustive()
    }
}

impl<P> Clone for SendOptions<'_, P> {
    fn clone(&self) -> Self {
        let Self { app, queue, trace, .. } = self;
        Self { app: app.clone(), queue: queue.clone(), trace: trace.clone(), ..*self }
    }
}

impl<'a, P> SendOptions<'a, P> {
    pub(super) fn new(signal: &'a AsyncSignal<P>) -> Self {
        let (durability, priority) = (signal.durability, signal.priority);
        let expires = signal.expires.map(When::After);
        Self { signal, app: None, id: None, queue: None, durability, priority, due: None, expires, trace: None }
    }

    /// Sends through this app, whether it is the process's or not.
    pub fn via(mut self, app: &Celery) -> Self {
        self.app = Some(app.clone());
        self
    }

    /// The task's id, for who wants to know it before anything is published.
    pub fn id(mut self, id: Uuid) -> Self {
        self.id = Some(id);
        self
    }

    /// The queue for the task.
    pub fn queue(mut self, queue: impl Into<String>) -> Self {
        self.queue = Some(queue.into());
        self
    }

    /// How sure the send is before it returns.
    pub fn durability(mut self, durability: Durability) -> Self {
        self.durability = Some(durability);
        self
    }

    /// The task's priority, as [`AsyncSignal::priority`].
    pub fn priority(mut self, priority: u8) -> Self {
        self.priority = Some(priority);
        self
    }

    /// How long receivers wait before they run.
    pub fn countdown(mut self, pause: Duration) -> Self {
        self.due = Some(When::After(pause));
        self
    }

    /// The time until which receivers wait.
    pub fn eta(mut self, eta: SystemTime) -> Self {
        self.due = Some(When::At(eta));
        self
    }

    /// For how long after the send it is worth running the receivers.
    pub fn expires(mut self, after: Duration) -> Self {
        self.expires = Some(When::After(after));
        self
    }

    /// Until when it is worth running the receivers.
    pub fn expires_at(mut self, time: SystemTime) -> Self {
        self.expires = Some(When::At(time));
        self
    }

    /// The trace that the send belongs to, as in W3C's header `traceparent`,
    /// instead of the one that the app's hook knows.
    pub fn traceparent(mut self, traceparent: impl Into<String>) -> Self {
        self.trace = Some(TraceContext { traceparent: traceparent.into(), tracestate: None });
        self
    }
}

impl<'a, P: Serialize + DeserializeOwned + Send + 'static> SendOptions<'a, P> {
    /// As [`AsyncSignal::send`].
    ///
    /// # Errors
    ///
    /// [`SendError`].
    #[track_caller]
    pub fn send(
        self,
        sender: Sender,
        payload: &P,
    ) -> impl Future<Output = Result<Sent, SendError>> + Send + use<'a, P> {
        let sending = Sending::new(self, sender, payload, false);
        async { sending?.finish().await }
    }

    /// As [`AsyncSignal::send_robust`].
    ///
    /// # Errors
    ///
    /// [`SendError`], but never [`SendError::Receiver`].
    #[track_caller]
    pub fn send_robust(
        self,
        sender: Sender,
        payload: &P,
    ) -> impl Future<Output = Result<Sent, SendError>> + Send + use<'a, P> {
        let sending = Sending::new(self, sender, payload, true);
        async { sending?.finish().await }
    }

    /// As [`AsyncSignal::send_blocking`].
    ///
    /// # Errors
    ///
    /// [`SendError`].
    #[track_caller]
    pub fn send_blocking(self, sender: Sender, payload: &P) -> Result<Sent, SendError> {
        Sending::new(self, sender, payload, false)?.finish_blocking()
    }
}
