use std::{
    fmt,
    ops::Deref,
    pin::Pin,
    sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError},
    task::{Context, Poll, Waker},
    time::{Duration, Instant},
};

use super::PublishError;
use crate::{broker::BrokerError, clock, panics};

/// What a message came to.
pub type Outcome = Result<(), PublishError>;

/// Where a confirmed message stands. Shared by who waits and by the pump.
#[derive(Debug)]
pub(super) struct Slot {
    state: Mutex<State>,
    settled: Condvar,
    pub(super) deadline: Instant,
    timeout: Duration,
}

struct State {
    /// Handed to the broker at least once, so that it may have arrived.
    taken: bool,
    outcome: Option<Outcome>,
    listener: Listener,
}

/// Who is to be told, beside a thread that waits on the condition variable.
enum Listener {
    Nobody,
    Task(Waker),
    Callback(Box<dyn FnOnce(Outcome) + Send>),
}

impl fmt::Debug for State {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "State {{ taken: {}, outcome: {:?} }}", self.taken, self.outcome)
    }
}

impl Slot {
    pub(super) fn new(timeout: Duration) -> Arc<Self> {
        let state = State { taken: false, outcome: None, listener: Listener::Nobody };
        Arc::new(Self { state: Mutex::new(state), settled: Condvar::new(), deadline: clock::now() + timeout, timeout })
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Marks the message as handed over. False if nobody wants it any more.
    pub(super) fn take(&self) -> bool {
        let mut state = self.lock();
        state.taken |= state.outcome.is_none();
        state.outcome.is_none()
    }

    pub(super) fn is_settled(&self) -> bool {
        self.lock().outcome.is_some()
    }

    /// The first outcome stands; a later one is of no interest to anybody.
    pub(super) fn settle(&self, outcome: Outcome) -> Option<Call> {
        self.settle_with(|_| outcome)
    }

    /// Settles as too late, because of `last`.
    pub(super) fn expire(&self, last: Option<BrokerError>) -> Option<Call> {
        let timeout = self.timeout;
        self.settle_with(|taken| Err(PublishError::Deadline { timeout, may_have_arrived: taken, last }))
    }

    fn settle_with(&self, outcome: impl FnOnce(bool) -> Outcome) -> Option<Call> {
        let mut state = self.lock();
        if state.outcome.is_some() {
            return None;
        }
        let outcome = outcome(state.taken);
        state.outcome = Some(outcome.clone());
        let listener = std::mem::replace(&mut state.listener, Listener::Nobody);
        drop(state);
        self.settled.notify_all();
        match listener {
            Listener::Nobody => None,
            Listener::Task(waker) => {
                // It is an executor's of the user's.
                let _ = panics::caught(|| waker.wake());
                None
            }
            Listener::Callback(callback) => Some(Call { callback: Some(callback), outcome }),
        }
    }
}

/// A sender's callback that is to be called.
#[must_use = "its sender waits for it"]
pub(super) struct Call {
    callback: Option<Box<dyn FnOnce(Outcome) + Send>>,
    outcome: Outcome,
}

impl Call {
    /// Calls back. A callback that panics takes nothing along.
    pub(super) fn call(mut self) {
        self.call_once();
    }

    fn call_once(&mut self) {
        let Some(callback) = self.callback.take() else { return };
        if let Err(text) = panics::caught(|| callback(self.outcome.clone())) {
            let tell = || tracing::error!("a callback panicked that was told what became of a message: {text}");
            // Where the log goes is the user's, too.
            let _ = panics::caught(tell);
        }
    }
}

/// Whoever waits is told, even if the publisher's loop has ended with this in hand.
impl Drop for Call {
    fn drop(&mut self) {
        self.call_once();
    }
}

impl fmt::Debug for Call {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Call").field("outcome", &self.outcome).finish_non_exhaustive()
    }
}

/// The pump's hold on a slot. If the pump ends with it in hand, nobody waits for what cannot come any more.
#[derive(Debug)]
pub(super) struct Settler(Arc<Slot>);

impl Settler {
    pub(super) fn new(slot: Arc<Slot>) -> Self {
        Self(slot)
    }

    pub(super) fn slot(&self) -> &Arc<Slot> {
        &self.0
    }

    /// Whether it holds this slot.
    pub(super) fn is_of(&self, slot: &Arc<Slot>) -> bool {
        Arc::ptr_eq(&self.0, slot)
    }
}

impl Deref for Settler {
    type Target = Slot;

    fn deref(&self) -> &Slot {
        &self.0
    }
}

impl Drop for Settler {
    fn drop(&mut self) {
        let stopped = |may_have_arrived| Err(PublishError::Stopped { may_have_arrived });
        if let Some(call) = self.0.settle_with(stopped) {
            call.call();
        }
    }
}

/// The promise of an outcome for one message. It is kept by the message's deadline.
///
/// A thread [waits](Receipt::wait) for it, a task awaits it, and who does
/// neither can have itself [called](Receipt::on_settled). A receipt that is
/// dropped leaves the message on its way.
#[derive(Debug)]
#[must_use = "a message is only known to be confirmed once its receipt says so"]
pub struct Receipt {
    pub(super) slot: Arc<Slot>,
}

impl Receipt {
    /// Blocks this thread until the outcome is known, at the latest at the deadline.
    ///
    /// # Errors
    ///
    /// [`PublishError`] when the message was not confirmed.
    pub fn wait(&self) -> Outcome {
        loop {
            if let Some(outcome) = self.wait_for(Duration::from_secs(3600)) {
                return outcome;
            }
        }
    }

    /// Blocks this thread for at most `patience`. `None`: not known by then.
    pub fn wait_for(&self, patience: Duration) -> Option<Outcome> {
        // The pump keeps the deadline and knows what stood in the way; a thread
        // speaks for itself only if the pump has not spoken soon after.
        let last_word = self.slot.deadline + Duration::from_millis(50);
        let give_up = clock::now() + patience;
        let until = give_up.min(last_word);
        let mut state = self.slot.lock();
        while state.outcome.is_none() {
            let left = until.saturating_duration_since(clock::now());
            if left.is_zero() {
                drop(state);
                if last_word <= give_up {
                    // Nobody but this thread is to be told.
                    let _ = self.slot.expire(None);
                    return self.outcome();
                }
                return None;
            }
            state = self.slot.settled.wait_timeout(state, left).unwrap_or_else(PoisonError::into_inner).0;
        }
        state.outcome.clone()
    }

    /// The outcome, if it is known yet.
    pub fn outcome(&self) -> Option<Outcome> {
        self.slot.lock().outcome.clone()
    }

    /// Calls `callback` with the outcome: at once if it is known, else later on
    /// the publisher's thread, which it must not hold up.
    pub fn on_settled(self, callback: impl FnOnce(Outcome) + Send + 'static) {
        let mut state = self.slot.lock();
        match &state.outcome {
            Some(outcome) => {
                let outcome = outcome.clone();
                drop(state);
                callback(outcome);
            }
            None => state.listener = Listener::Callback(Box::new(callback)),
        }
    }
}

impl Future for Receipt {
    type Output = Outcome;

    fn poll(self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<Outcome> {
        let mut state = self.slot.lock();
        match &state.outcome {
            Some(outcome) => Poll::Ready(outcome.clone()),
            None => {
                state.listener = Listener::Task(context.waker().clone());
                Poll::Pending
            }
        }
    }
}
