//! What follows a message that could not simply be finished: it comes again,
//! or it is parked in the dead-letter queue with the reason.
//!
//! Nothing here does any I/O. A worker publishes what it is told, and only then
//! acknowledges what it had: at worst there are both, under one id.
//!
//! Whatever is ours stands in the headers under `async_signals`:
//!
//! ```json
//! {"queue": "celery", "sent_at": 1767225600.0,
//!  "deliveries": 1, "attempt": 2, "receivers": ["shop.receivers.email"],
//!  "parked": {"kind": "ReceiversFailed", "reason": "…", "queue": "celery", "at": 1767225660.0,
//!             "failures": [{"receiver": "…", "error": "…", "traceback": "…"}]}}
//! ```

use std::time::{Duration, SystemTime};

use bytes::Bytes;
use serde::Deserialize;
use serde_json::{Map, Value, json};
use uuid::Uuid;

mod ours;

pub use ours::Ours;

use crate::{
    message::{Headers, Incoming, Message, Properties},
    protocol::time,
    retry::RetryPolicy,
    text,
};

/// How many bytes of a reason are kept.
const REASON: usize = 1000;
/// How many bytes of one error are kept.
const ERROR: usize = 500;
/// How many bytes of one traceback are kept, from its end.
const TRACEBACK: usize = 4096;
/// How many bytes of failures are kept altogether: all headers of a message
/// have to go into one frame of AMQP, 128 KiB by default.
const FAILURES: usize = 32 * 1024;

/// One receiver that did not do its work.
#[derive(Clone, Debug, Default, PartialEq, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Failure {
    /// The receiver's name.
    pub receiver: String,
    /// What it failed with, in a line.
    pub error: String,
    /// Where, if somebody knows.
    pub traceback: Option<String>,
    /// Whether it is tried again; `None`: it is not, nor is it parked.
    pub retry: Option<RetryPolicy>,
    /// The message names a receiver that this worker does not have. It is
    /// parked, whatever `retry` says.
    pub unknown: bool,
}

impl Failure {
    /// A receiver that the message is still for and that this worker does not have.
    pub fn unknown(receiver: String) -> Self {
        Self { receiver, unknown: true, ..Self::default() }
    }
}

/// A message that is published in the place of one that was taken.
#[derive(Clone, Debug)]
pub enum Follow {
    /// Back into its queue.
    Again(Message),
    /// Into the dead-letter queue of its own queue.
    Parked(Message),
}

/// The queue of a message whose worker does not know which one it has read, and
/// only has the routing key: the one that the message names, to which its sender
/// has routed it, else that key. A worker that knows its queue believes no header.
pub fn own_queue(incoming: &Incoming, taken_from: &str) -> String {
    Ours::of(&incoming.headers).queue.unwrap_or_else(|| taken_from.to_owned())
}

/// How often a message was taken by workers that did not finish it, within its try. Asked of every
/// message, and told without reading the rest of what is ours.
pub fn deliveries(incoming: &Incoming) -> u32 {
    if incoming.headers.is_plain() { 0 } else { ours::deliveries(&incoming.headers) }
}

/// What follows a message that was taken and not begun: itself, and nothing has happened.
pub fn untouched(incoming: &Incoming, queue: &str, now: SystemTime) -> Message {
    let mut message = copy(incoming);
    keep_expiry(&mut message, incoming, now);
    stay_in(&mut message, queue);
    message
}

/// What follows a message that was taken before and not settled: it is counted
/// in its header and comes again, or is parked when it comes for the `most`th
/// time. Brokers tell that a message came before, but not how often.
pub fn delivered_before(incoming: &Incoming, queue: &str, most: u32, now: SystemTime) -> Follow {
    let deliveries = Ours::of(&incoming.headers).deliveries.saturating_add(1);
    if deliveries >= most {
        let reason = format!("taken {deliveries} times by workers that did not finish it");
        let parking = Parking { kind: "TooManyDeliveries", reason: &reason, deliveries, ..Parking::of(incoming) };
        return Follow::Parked(parking.message(incoming, queue, now));
    }
    let mut message = copy(incoming);
    keep_expiry(&mut message, incoming, now);
    stay_in(&mut message, queue);
    change(&mut message, |ours| {
        ours.shift_remove("parked");
        ours::set_count(ours, "deliveries", deliveries, 0);
    });
    Follow::Again(message)
}

/// What follows a message some of whose receivers failed.
///
/// Those that may be tried again share one follow-up, which waits for the
/// longest of their pauses and runs only them. Those whose tries are spent
/// share a parked copy with their failures, whose replay runs only them; so do
/// those that are unknown. Nothing follows for receivers without a policy:
/// they are in the log.
///
/// `random` gives numbers from 0 to 1.
pub fn failed(
    incoming: &Incoming,
    queue: &str,
    failures: &[Failure],
    now: SystemTime,
    random: &mut dyn FnMut() -> f64,
) -> Vec<Follow> {
    let attempt = Ours::of(&incoming.headers).attempt;
    let unknown: Vec<&Failure> = failures.iter().filter(|failure| failure.unknown).collect();
    let (mut again, mut spent) = (Vec::new(), Vec::new());
    let mut pause = None;
    for failure in failures.iter().filter(|failure| !failure.unknown) {
        match &failure.retry {
            Some(policy) if policy.allows(attempt) => {
                again.push(failure);
                pause = pause.max(Some(policy.pause(attempt, random())));
            }
            Some(_) => spent.push(failure),
            None => {}
        }
    }
    let mut why = format!("failed in try {attempt}, the last one");
    // What expires before its next try has no tries left.
    let due = pause.and_then(|pause| now.checked_add(pause));
    let expired = match (expires(incoming), due) {
        (Some(expires), Some(due)) => expires <= due,
        (_, due) => due.is_none(),
    };
    if expired && !again.is_empty() {
        why = format!("failed in try {attempt}, and the message expires before the next");
        spent.append(&mut again);
    }

    let mut follows = Vec::new();
    if let (false, Some(due)) = (again.is_empty(), due) {
        follows.push(Follow::Again(tried_again(incoming, queue, attempt, &again, due, now)));
    }
    if !spent.is_empty() {
        let parking = Parking {
            kind: "ReceiversFailed",
            reason: &reason(&spent, &why),
            failures: &spent,
            ..Parking::of(incoming)
        };
        follows.push(Follow::Parked(parking.message(incoming, queue, now)));
    }
    if !unknown.is_empty() {
        let reason = reason(&unknown, "not here: this worker has no receiver of that name");
        let parking = Parking { kind: "UnknownReceiver", reason: &reason, failures: &unknown, ..Parking::of(incoming) };
        follows.push(Follow::Parked(parking.message(incoming, queue, now)));
    }
    follows
}

/// The message as it lies in the dead-letter queue of `queue`: without anything that would let it expire there.
///
/// `kind` is a word for programs, `reason` a sentence for people.
pub fn parked(incoming: &Incoming, queue: &str, kind: &str, reason: &str, now: SystemTime) -> Message {
    Parking { kind, reason, ..Parking::of(incoming) }.message(incoming, queue, now)
}

/// The word that tells a message that was [paused] from dead letters.
const PAUSED: &str = "Paused";

/// The message as it waits in a queue aside until it is [replayed]: nothing has happened, and it does not expire there
/// unseen.
pub fn paused(incoming: &Incoming, queue: &str, now: SystemTime) -> Message {
    let mut message = copy(incoming);
    never_expires(&mut message);
    message.properties.delivery_mode = 2;
    change(&mut message, |ours| {
        ours.insert("parked".to_owned(), parked_header(PAUSED, "its signal or its queue is paused", queue, now));
        ours.insert("queue".to_owned(), queue.into());
    });
    message
}

/// Why a message lies in the dead-letter queue: a word for programs, and a sentence for people.
pub fn why_parked(message: &Message) -> Option<(&str, &str)> {
    let Headers::Raw(headers) = &message.headers else { return None };
    let parked = headers.get("async_signals")?.get("parked")?;
    Some((parked.get("kind")?.as_str()?, parked.get("reason")?.as_str()?))
}

/// Bytes that are no message, as they lie in the dead-letter queue: the body is
/// just them, under a fresh id.
pub fn parked_bytes(raw: &[u8], queue: &str, reason: &str, now: SystemTime) -> Message {
    let id = Uuid::new_v4();
    let mut headers = Map::new();
    headers.insert("id".to_owned(), id.to_string().into());
    ours::change(&mut headers, |ours| {
        ours.insert("queue".to_owned(), queue.into());
        ours.insert("parked".to_owned(), parked_header("Malformed", reason, queue, now));
    });
    Message {
        id,
        headers: Headers::Raw(headers),
        properties: Properties {
            content_type: "application/octet-stream".into(),
            content_encoding: "binary".into(),
            ..Properties::for_task(id)
        },
        body: Bytes::copy_from_slice(raw),
    }
}

/// What a replay of a parked message publishes, and the queue it goes to: as it
/// was when it was sent, except that it is only for the receivers that it was
/// parked for and no longer expires. Somebody wants it to run. One that was [paused] goes on where it was.
pub fn replayed(incoming: &Incoming, now: SystemTime) -> (String, Message) {
    let ours = Ours::of(&incoming.headers);
    let parked = |name: &str| ours.parked.as_ref()?.get(name)?.as_str();
    let parked_from = || parked("queue").map(str::to_owned);
    let queue = ours.queue.clone().or_else(parked_from).unwrap_or_else(|| incoming.routing_key.clone());
    let mut message = copy(incoming);
    if parked("kind") == Some(PAUSED) {
        // What has expired meanwhile is for the worker to leave alone, which says so.
        if expires(incoming).is_none_or(|expires| expires > now) {
            keep_expiry(&mut message, incoming, now);
        }
        change(&mut message, |ours| drop(ours.shift_remove("parked")));
        return (queue, message);
    }
    never_expires(&mut message);
    if let Headers::Raw(headers) = &mut message.headers {
        if headers.contains_key("retries") {
            headers.insert("retries".to_owned(), 0.into());
        }
        headers.entry("expires").and_modify(|expires| *expires = Value::Null);
    }
    change(&mut message, |ours| {
        for name in ["parked", "deliveries", "attempt"] {
            ours.shift_remove(name);
        }
    });
    (queue, message)
}

/// Whether a quorum queue has counted a delivery of this message: it drops what exceeds its limit.
pub fn was_counted(incoming: &Incoming) -> bool {
    incoming.headers.get("x-delivery-count").and_then(Value::as_u64).is_some_and(|count| count > 0)
}

/// A dead letter as it lay in its queue, and none of its deliveries is counted. Where its queue keeps dead letters for
/// `max_age`, it keeps this one for what is left of that.
pub fn put_back(incoming: &Incoming, max_age: Option<Duration>, now: SystemTime) -> Message {
    let mut message = copy(incoming);
    let dead_lettered_at = || Ours::of(&incoming.headers).parked?.get("at")?.as_f64();
    if let (Some(max_age), Some(at)) = (max_age, dead_lettered_at()) {
        let left = (at + max_age.as_secs_f64() - time::seconds(now)).max(0.001);
        message.properties.expiration_ms = Some((left * 1000.0).round() as u64);
    }
    message
}

/// When a message expires, where its header says so legibly.
fn expires(incoming: &Incoming) -> Option<SystemTime> {
    time::read(&incoming.headers, "expires").ok().flatten()
}

/// A message's way into the dead-letter queue.
struct Parking<'a> {
    kind: &'a str,
    reason: &'a str,
    deliveries: u32,
    /// Whom it is parked for; none: for whom it is anyway.
    failures: &'a [&'a Failure],
}

impl Parking<'_> {
    fn of(incoming: &Incoming) -> Self {
        let deliveries = Ours::of(&incoming.headers).deliveries;
        Self { kind: "", reason: "", deliveries, failures: &[] }
    }

    fn message(&self, incoming: &Incoming, queue: &str, now: SystemTime) -> Message {
        let mut message = copy(incoming);
        never_expires(&mut message);
        message.properties.delivery_mode = 2;
        let mut parked = parked_header(self.kind, self.reason, queue, now);
        change(&mut message, |ours| {
            ours::set_count(ours, "deliveries", self.deliveries, 0);
            if !self.failures.is_empty() {
                parked["failures"] = failures_header(self.failures);
                ours.insert("receivers".to_owned(), names(self.failures));
            }
            ours.insert("queue".to_owned(), queue.into());
            ours.insert("parked".to_owned(), parked);
        });
        message
    }
}

fn tried_again(
    incoming: &Incoming,
    queue: &str,
    attempt: u32,
    failures: &[&Failure],
    due: SystemTime,
    now: SystemTime,
) -> Message {
    let mut message = copy(incoming);
    keep_expiry(&mut message, incoming, now);
    stay_in(&mut message, queue);
    if let Headers::Raw(headers) = &mut message.headers {
        headers.insert("eta".to_owned(), time::iso(due).into());
        let retries = headers.get("retries").and_then(Value::as_u64).unwrap_or_else(|| u64::from(attempt) - 1);
        headers.insert("retries".to_owned(), retries.saturating_add(1).into());
    }
    change(&mut message, |ours| {
        ours.shift_remove("parked");
        // The deliveries of this try are over: it came to its end.
        ours.shift_remove("deliveries");
        ours::set_count(ours, "attempt", attempt.saturating_add(1), 1);
        ours.insert("receivers".to_owned(), names(failures));
    });
    message
}

/// The same message, without what only told of the way it has come.
fn copy(incoming: &Incoming) -> Message {
    let mut headers = (*incoming.headers).clone();
    // kombu writes the first, RabbitMQ's quorum queues the others.
    for name in ["redelivered", "x-delivery-count", "x-acquired-count"] {
        headers.shift_remove(name);
    }
    let id = headers.get("id").and_then(Value::as_str).and_then(|id| id.parse().ok());
    let id = id.or_else(|| incoming.properties.correlation_id.parse().ok());
    Message {
        // Only tells messages apart on their way: what names the task stays in headers and properties.
        id: id.unwrap_or_else(Uuid::new_v4),
        headers: Headers::Raw(headers),
        properties: incoming.properties.clone(),
        body: incoming.body.clone(),
    }
}

fn change(message: &mut Message, how: impl FnOnce(&mut Map<String, Value>)) {
    if let Headers::Raw(headers) = &mut message.headers {
        ours::change(headers, how);
    }
}

/// Names its queue anew, where its sender has named another one: a copy of what went to two queues, say.
fn stay_in(message: &mut Message, queue: &str) {
    change(message, |ours| {
        if let Some(named) = ours.get_mut("queue")
            && named.as_str() != Some(queue)
        {
            *named = queue.into();
        }
    });
}

/// The broker counts from each publish anew: it gets what is left.
fn keep_expiry(message: &mut Message, incoming: &Incoming, now: SystemTime) {
    if let Some(expires) = expires(incoming) {
        let left = expires.duration_since(now).unwrap_or_default().as_millis();
        message.properties.expiration_ms = Some(u64::try_from(left).unwrap_or(u64::MAX).max(1));
    }
}

/// Lets no broker drop it.
fn never_expires(message: &mut Message) {
    message.properties.expiration_ms = None;
}

fn parked_header(kind: &str, reason: &str, queue: &str, now: SystemTime) -> Value {
    json!({"reason": text::line(reason, REASON), "kind": kind, "queue": queue, "at": time::seconds(now)})
}

fn names(failures: &[&Failure]) -> Value {
    failures.iter().map(|failure| failure.receiver.as_str()).collect()
}

fn reason(failures: &[&Failure], why: &str) -> String {
    let names: Vec<&str> = failures.iter().map(|failure| failure.receiver.as_str()).collect();
    let errors: Vec<&str> = failures.iter().map(|failure| failure.error.as_str()).filter(|e| !e.is_empty()).collect();
    let separator = if errors.is_empty() { "" } else { ": " };
    format!("{} {why}{separator}{}", names.join(", "), errors.join("; "))
}

/// What they failed with: tracebacks as far as there is room, errors as far as there is more of it.
fn failures_header(failures: &[&Failure]) -> Value {
    let mut room = FAILURES;
    let mut told: Vec<Map<String, Value>> = Vec::new();
    for failure in failures {
        let error = text::line(&failure.error, ERROR);
        let Some(left) = room.checked_sub(error.len() + failure.receiver.len()) else { break };
        room = left;
        let mut one = Map::new();
        one.insert("receiver".to_owned(), failure.receiver.as_str().into());
        if !failure.unknown {
            one.insert("error".to_owned(), error.into());
        }
        told.push(one);
    }
    for (one, failure) in told.iter_mut().zip(failures) {
        let traceback = failure.traceback.as_deref().map(|traceback| text::last_lines(traceback, TRACEBACK));
        let Some(traceback) = traceback else { continue };
        let Some(left) = room.checked_sub(traceback.len()) else { break };
        room = left;
        one.insert("traceback".to_owned(), traceback.into());
    }
    told.into_iter().map(Value::Object).collect()
}

#[cfg(test)]
mod tests;
