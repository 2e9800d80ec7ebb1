//! One message on its way through the receivers.

use std::sync::{
    Arc,
    atomic::{AtomicBool, Ordering},
};

use tokio::sync::mpsc;

use super::outcome::Outcome;
use crate::{broker::Tag, follow::Ours, message::Incoming, protocol::celery::TASK};

/// A message to run, and the promise to say what became of it.
///
/// A job that is dropped without [`Job::finish`] counts as
/// [`Outcome::Unfinished`]: its message goes back into the queue.
#[derive(Debug)]
pub struct Job {
    /// The queue it was taken from.
    pub queue: Arc<str>,
    /// Whether it was taken before and not settled. Never true of a signal:
    /// those are counted first (see [`outcome`](super::outcome)).
    pub redelivered: bool,
    tag: Tag,
    incoming: Arc<Incoming>,
    is_finished: bool,
    void: Arc<AtomicBool>,
    finished: mpsc::UnboundedSender<Finished>,
}

/// What comes back of a job.
#[derive(Debug)]
pub(super) struct Finished {
    pub(super) tag: Tag,
    pub(super) incoming: Arc<Incoming>,
    pub(super) outcome: Outcome,
}

impl Job {
    pub(super) fn new(
        queue: Arc<str>,
        redelivered: bool,
        tag: Tag,
        incoming: Arc<Incoming>,
        void: Arc<AtomicBool>,
        finished: mpsc::UnboundedSender<Finished>,
    ) -> Self {
        Self { queue, redelivered, tag, incoming, is_finished: false, void, finished }
    }

    /// The message. It may be kept longer than the job.
    pub fn incoming(&self) -> &Arc<Incoming> {
        &self.incoming
    }

    /// The task's id, or nothing where the message has none (which only a foreign task may).
    pub fn id(&self) -> &str {
        text(self.incoming(), "id")
    }

    /// The task's name.
    pub fn task(&self) -> &str {
        text(self.incoming(), "task")
    }

    /// Whether it is a signal; otherwise it is another task of Celery's.
    pub fn is_signal(&self) -> bool {
        self.task() == TASK
    }

    /// What our own headers say.
    pub fn ours(&self) -> Ours {
        Ours::of(&self.incoming().headers)
    }

    /// Whether the broker has taken the message back meanwhile, since the
    /// connection it came over is gone: whoever has it next runs it, and it
    /// should not be begun here any more.
    pub fn is_void(&self) -> bool {
        self.void.load(Ordering::Relaxed)
    }

    /// Says what became of it.
    pub fn finish(mut self, outcome: Outcome) {
        self.send(outcome);
    }

    fn send(&mut self, outcome: Outcome) {
        if !std::mem::replace(&mut self.is_finished, true) {
            // Nobody hears it when the worker has stopped: then the broker has the message back.
            let _ = self.finished.send(Finished { tag: self.tag, incoming: self.incoming.clone(), outcome });
        }
    }
}

impl Drop for Job {
    fn drop(&mut self) {
        self.send(Outcome::Unfinished);
    }
}

fn text<'a>(incoming: &'a Incoming, header: &str) -> &'a str {
    incoming.headers.text(header).unwrap_or_default()
}
