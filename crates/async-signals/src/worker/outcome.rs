//! What can become of a message, and what each means for the broker.
//!
//! | message | what happens | acknowledged |
//! |---|---|---|
//! | all receivers ran, or nobody listens | nothing more | yes |
//! | receivers failed, no retry was asked for | they are logged | yes |
//! | receivers failed, tries are left | a follow-up for just those, due later | once the follow-up is published |
//! | receivers failed, tries are spent | parked with their failures | once it is parked |
//! | unknown signal or task, row gone, reference unknown here | parked with the reason | once it is parked |
//! | bytes that are no message | parked as they are | once they are parked |
//! | taken before and not settled | counted in a copy at the queue's end; parked at the limit | once the copy is published |
//! | counted | runs alone | as any other |
//! | taken together with one that is to run alone, not begun | comes again in a copy at the queue's end, uncounted | once the copy is published |
//! | not due yet | held, its lease renewed, outside the prefetch window | when it ran |
//! | expired, also while it waits to begin | dropped with a line in the log, as in Celery | yes |
//! | another task, expired | run, by which Celery marks it as revoked | as Celery does |
//! | comes again while its first copy runs here | waits for that one's end | with the first copy |
//! | its signal or its queue is paused | moved aside as it is | once it is there |
//! | rejected by a task (`Reject`) | dropped or given back, as the task says | as the task says |
//! | unfinished at the deadline of a stop | given back | no |
//! | a follow-up or parking cannot be published | tried again with growing pauses | not before |

use std::borrow::Cow;

use crate::follow::Failure;

/// What a [`Runner`](super::Runner) says of a job.
#[derive(Debug)]
pub enum Outcome {
    /// Everything ran that was to run.
    Done,
    /// At least one receiver failed; the others ran.
    Failed(Vec<Failure>),
    /// It cannot be run here: parked.
    Unfit {
        /// A word for programs: `UnknownSignal`, `MissingRow`, …
        kind: Cow<'static, str>,
        /// A sentence for people.
        reason: String,
    },
    /// It is not to run until somebody says so: moved to the queue that the worker's
    /// configuration has for it ([`paused_queue`](super::WorkerConfig::paused_queue)).
    Paused,
    /// Not to be run by anybody, and not to be kept by us: dropped, which on
    /// RabbitMQ means the queue's own dead-letter exchange if it has one.
    Rejected,
    /// It was not finished: back into its queue.
    Unfinished,
}
