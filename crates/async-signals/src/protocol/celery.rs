//! The headers of a task in Celery's message protocol, version 2.
//!
//! Format: <https://docs.celeryq.dev/en/stable/internals/protocol.html#version-2>,
//! as written by `celery/app/amqp.py:AMQP.as_task_v2`.

use std::sync::Arc;

use serde::Serialize;
use uuid::Uuid;

/// The task that carries every signal.
pub const TASK: &str = "async_signals.propagate";

/// A task's headers, in the order in which Celery writes them.
#[derive(Clone, Debug, Serialize)]
pub struct TaskHeaders {
    /// The language of the sender: always `py`, which a stock worker expects.
    pub lang: &'static str,
    /// The task's name, [`TASK`].
    pub task: &'static str,
    /// The task's id.
    pub id: Uuid,
    /// A name for logs instead of the task's.
    pub shadow: Option<Arc<str>>,
    /// Not before, ISO 8601.
    pub eta: Option<String>,
    /// Not after, ISO 8601.
    pub expires: Option<String>,
    /// The group that the task belongs to.
    pub group: Option<()>,
    /// Its place in the group.
    pub group_index: Option<()>,
    /// How often Celery itself retried the task.
    pub retries: u32,
    /// Hard and soft time limit, in seconds.
    pub timelimit: (Option<f64>, Option<f64>),
    /// The first task of the chain of calls; the task itself if there is none.
    pub root_id: Arc<str>,
    /// The task that sent this one.
    pub parent_id: Option<Arc<str>>,
    /// What monitors show instead of the arguments: the signal's name, no values.
    pub argsrepr: Arc<str>,
    /// What monitors show instead of the keyword arguments.
    pub kwargsrepr: Arc<str>,
    /// `gen<pid>@<host>`.
    pub origin: Arc<str>,
    /// A signal has no result.
    pub ignore_result: bool,
    /// How often the task replaced itself.
    pub replaced_task_nesting: u32,
    /// The names of the stamps.
    pub stamped_headers: Option<Vec<String>>,
    /// The stamps.
    pub stamps: serde_json::Map<String, serde_json::Value>,
    /// What is ours.
    pub async_signals: SignalHeaders,
}

/// What is ours in the headers, under the key `async_signals`.
#[derive(Clone, Debug, Serialize)]
pub struct SignalHeaders {
    /// The queue's name, which a broker does not tell on every way.
    pub queue: Arc<str>,
    /// When it was sent, in seconds since 1970.
    pub sent_at: f64,
    /// How often it was taken by a worker that then died.
    #[serde(skip_serializing_if = "is_zero")]
    pub deliveries: u32,
}

fn is_zero(number: &u32) -> bool {
    *number == 0
}
