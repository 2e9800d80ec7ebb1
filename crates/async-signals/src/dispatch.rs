//! From a message to its receivers, and to what became of it.

use std::{
    panic::Location,
    time::{Duration, SystemTime},
};

use futures_util::future::BoxFuture;
use tracing::Instrument;
use uuid::Uuid;

use crate::{
    delivery::Delivery,
    follow::{Failure, Ours},
    message::Incoming,
    panics,
    payload::{Body, DecodeError},
    receiver::BoxError,
    registry,
    retry::RetryPolicy,
    text,
    worker::Outcome,
};

/// A signal, whatever its payload is.
pub(crate) trait Dispatch: Sync {
    fn name(&self) -> &'static str;

    fn aliases(&self) -> &'static [&'static str];

    /// Where it was made.
    fn place(&self) -> &'static Location<'static>;

    /// Calls the receivers that a message is for, one after the other, whatever
    /// the others do. `only` names those that it is still for; `None`: all.
    fn dispatch<'a>(
        &'a self,
        body: &'a Body,
        delivery: &'a Delivery,
        only: Option<&'a [String]>,
    ) -> BoxFuture<'a, Result<Vec<Failure>, DecodeError>>;
}

/// Runs one message, and says of which signal it was and what became of it.
pub(crate) async fn run(incoming: &Incoming, taken_from: &str) -> (Option<&'static str>, Outcome) {
    let plain = match incoming.plain_body() {
        Ok(plain) => plain,
        Err(error) => return (None, Outcome::Unfit { kind: "Malformed".into(), reason: error.to_string() }),
    };
    let body = match Body::read(&plain) {
        Ok(body) => body,
        Err(error) => return (None, unfit(&error)),
    };
    let Some(signal) = registry::find(&body.signal) else {
        let reason = format!("this worker has no signal {:?}", text::shown(&body.signal));
        return (None, Outcome::Unfit { kind: "UnknownSignal".into(), reason });
    };
    let ours = Ours::received(&incoming.headers);
    let only = ours.receivers.as_deref();
    let delivery = Delivery {
        // A worker takes no signal whose id is no UUID.
        id: incoming.headers.text("id").and_then(|id| id.parse().ok()).unwrap_or(Uuid::nil()),
        signal: body.signal.clone(),
        sender: body.sender.clone(),
        attempt: ours.attempt,
        redeliveries: ours.deliveries,
        queue: Some(taken_from.to_owned()),
        sent_at: ours
            .sent_at
            .and_then(|seconds| SystemTime::UNIX_EPOCH.checked_add(Duration::try_from_secs_f64(seconds).ok()?)),
        traceparent: trace(incoming, "traceparent"),
        tracestate: trace(incoming, "tracestate"),
    };
    let span = tracing::info_span!(
        "signal",
        name = signal.name(),
        id = %delivery.id,
        attempt = delivery.attempt,
        queue = delivery.queue,
        traceparent = delivery.traceparent,
    );
    let outcome = match signal.dispatch(&body, &delivery, only).instrument(span).await {
        Ok(failures) if failures.is_empty() => Outcome::Done,
        Ok(failures) => Outcome::Failed(failures),
        Err(error) => unfit(&error),
    };
    (Some(signal.name()), outcome)
}

/// What no worker can run. A payload of another type is none for this program's workers.
fn unfit(error: &DecodeError) -> Outcome {
    let kind = if matches!(error, DecodeError::Refused { .. }) { "Refused" } else { "Malformed" };
    Outcome::Unfit { kind: kind.into(), reason: error.to_string() }
}

fn trace(incoming: &Incoming, header: &str) -> Option<String> {
    if incoming.headers.is_plain() { None } else { incoming.headers.text(header).map(str::to_owned) }
}

/// What a failed receiver says to whoever looks after it.
pub(crate) fn failure(receiver: &str, error: BoxError, retry: Option<&RetryPolicy>) -> Failure {
    let told = panics::caught(|| (error.to_string(), causes(&error)));
    let _ = panics::caught(|| drop(error));
    let (error, traceback) =
        told.unwrap_or_else(|text| (format!("an error that cannot be shown: it panicked: {text}"), None));
    Failure { receiver: receiver.to_owned(), error, traceback, retry: retry.cloned(), unknown: false }
}

/// What has caused an error, a line each.
fn causes(error: &BoxError) -> Option<String> {
    let mut causes = Vec::new();
    let mut cause = error.source();
    while let Some(error) = cause {
        causes.push(format!("caused by: {error}"));
        cause = error.source();
    }
    (!causes.is_empty()).then(|| causes.join("\n"))
}
