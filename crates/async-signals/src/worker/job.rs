//! One message on its way through the receivers.

use std::{
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
    time::SystemTime,
};

use tokio::sync::mpsc;

use super::outcome::Outcome;
use crate::{broker::Tag, clock::Clock, follow::Ours, message::Incoming};

/// A message to run, and the promise to say what became of it.
///
/// Right before its receivers run it is to be [begun](Job::begin). A job that
/// is dropped without [`Job::finish`] counts as [`Outcome::Unfinished`]: its
/// message goes back into the queue.
#[derive(Debug)]
pub struct Job {
    /// The queue it was taken from.
    pub queue: Arc<str>,
    /// Whether it was taken before and not settled. Never true of a signal:
    /// those are counted first (see [`outcome`](super::outcome)).
    pub redelivered: bool,
    tag: Tag,
    incoming: Arc<Incoming>,
    /// When it is too late to begin; only signals say so here.
    expires: Option<SystemTime>,
    is_finished: bool,
    void: Arc<AtomicBool>,
    recalled: Arc<AtomicBool>,
    clock: Clock,
    finished: mpsc::UnboundedSender<Finished>,
}

/// A message that was taken and has not begun.
#[derive(Clone, Debug)]
pub(super) struct Arrival {
    pub(super) queue: Arc<str>,
    pub(super) redelivered: bool,
    pub(super) expires: Option<SystemTime>,
    pub(super) incoming: Arc<Incoming>,
}

/// What comes back of a job.
#[derive(Debug)]
pub(super) struct Finished {
    pub(super) tag: Tag,
    pub(super) incoming: Arc<Incoming>,
    pub(super) end: End,
}

/// How a job ended.
#[derive(Debug)]
pub(super) enum End {
    /// As the runner says.
    Ran(Outcome),
    /// It expired before it began.
    Expired,
    /// It was not begun, and is nobody's fault.
    NotBegun,
}

/// Takes back jobs that have not begun, all at once.
#[derive(Clone, Debug, Default)]
pub(super) struct Revocation {
    /// What came over the current connection is the broker's again.
    pub(super) void: Arc<AtomicBool>,
    /// They are wanted back.
    pub(super) recalled: Arc<AtomicBool>,
    /// What tells that they have expired.
    pub(super) clock: Clock,
}

impl Job {
    pub(super) fn new(
        tag: Tag,
        arrival: Arrival,
        revocation: &Revocation,
        finished: mpsc::UnboundedSender<Finished>,
    ) -> Self {
        let Arrival { queue, redelivered, expires, incoming } = arrival;
        let Revocation { void, recalled, clock } = revocation.clone();
        Self { queue, redelivered, tag, incoming, expires, is_finished: false, void, recalled, clock, finished }
    }

    /// The message. It may be kept longer than the job.
    pub fn incoming(&self) -> &Arc<Incoming> {
        &self.incoming
    }

    /// The task's id, or nothing where the message has none (which only a foreign task may).
    pub fn id(&self) -> &str {
        self.incoming.text("id")
    }

    /// The task's name.
    pub fn task(&self) -> &str {
        self.incoming.text("task")
    }

    /// Whether it is a signal; otherwise it is another task of Celery's.
    pub fn is_signal(&self) -> bool {
        self.incoming.is_signal()
    }

    /// What our own headers say.
    pub fn ours(&self) -> Ours {
        Ours::of(&self.incoming().headers)
    }

    /// To be asked right before the receivers run: the job, unless they are not
    /// to run any more. Then the worker has seen to it already:
    ///
    /// - it has expired while it waited: it is left alone, as Celery does;
    /// - the connection it came over is gone, and the broker has taken it back:
    ///   whoever has it next runs it;
    /// - another message is to run alone first: it goes back into its queue.
    ///
    /// ```
    /// use async_signals::worker::{Job, Outcome};
    ///
    /// fn run(job: Job, receivers: impl FnOnce(&Job)) {
    ///     if let Some(job) = job.begin() {
    ///         receivers(&job);
    ///         job.finish(Outcome::Done);
    ///     }
    /// }
    /// ```
    pub fn begin(mut self) -> Option<Self> {
        let end = if self.void.load(Ordering::Relaxed) || self.recalled.load(Ordering::Acquire) {
            End::NotBegun
        } else if self.expires.is_some_and(|expires| expires <= self.clock.moment().date) {
            End::Expired
        } else {
            return Some(self);
        };
        self.send(end);
        None
    }

    /// It was not begun and is not going to be: back into its queue, as if it had not been taken.
    pub fn hand_back(mut self) {
        self.send(End::NotBegun);
    }

    /// Says what became of it.
    pub fn finish(mut self, outcome: Outcome) {
        self.send(End::Ran(outcome));
    }

    fn send(&mut self, end: End) {
        if !std::mem::replace(&mut self.is_finished, true) {
            // Nobody hears it when the worker has stopped: then the broker has the message back.
            let _ = self.finished.send(Finished { tag: self.tag, incoming: self.incoming.clone(), end });
        }
    }
}

impl Drop for Job {
    fn drop(&mut self) {
        self.send(End::Ran(Outcome::Unfinished));
    }
}
