//! What a thread of Python's does: one job after the other.

use std::{sync::Arc, time::Duration};

use async_signals::{
    follow::Failure,
    protocol::celery::TASK,
    worker::{Job as CoreJob, Outcome},
};
use pyo3::{
    exceptions::PyException,
    intern,
    prelude::*,
    types::{PyDict, PyList, PyString, PyTuple},
};
use serde_json::Value;

use super::{
    Shared,
    job::{Held, Job},
    limits::{Slot, TimeLimits},
    pool::Next,
};
use crate::{
    convert,
    decode::{self, Decoded, MalformedMessage},
};

/// How often an idle main thread looks for signals.
const SIGNAL_CHECK: Duration = Duration::from_millis(100);
/// After how many messages in a row the receiver is asked again which way signals take.
const ASK_EVERY: u32 = 64;

/// One thread at work.
pub(super) struct Receiving<'a, 'py> {
    py: Python<'py>,
    shared: &'a Shared,
    slot: Arc<Slot>,
    receiver: &'a Bound<'py, PyAny>,
    /// `signal(name, sender, named, bare, job)`: calls the receivers of a signal.
    signal: Bound<'py, PyAny>,
    /// `task(job)`: runs any other task, and settles it.
    task: Bound<'py, PyAny>,
}

impl<'a, 'py> Receiving<'a, 'py> {
    pub(super) fn new(shared: &'a Shared, receiver: &'a Bound<'py, PyAny>) -> PyResult<Self> {
        let py = receiver.py();
        let ident: u64 = py.import("threading")?.call_method0("get_ident")?.extract()?;
        let (signal, task) = (receiver.getattr("signal")?, receiver.getattr("task")?);
        shared.pool.entered();
        Ok(Self { py, shared, slot: shared.watch.enter(ident), receiver, signal, task })
    }

    /// Until the worker ends. Raises what a receiver raised to end the process.
    pub(super) fn run(&self, is_main: bool) -> PyResult<()> {
        let patience = is_main.then_some(SIGNAL_CHECK);
        let mut through_celery = self.goes_through_celery()?;
        let mut in_a_row = 0;
        loop {
            let job = match self.shared.pool.try_take() {
                Some(job) => job,
                None => {
                    in_a_row = ASK_EVERY;
                    match self.py.detach(|| self.shared.pool.take(patience)) {
                        Next::Job(job) => job,
                        Next::Closed => return Ok(()),
                        Next::Nothing => {
                            self.py.check_signals()?;
                            continue;
                        }
                    }
                }
            };
            if in_a_row >= ASK_EVERY {
                (in_a_row, through_celery) = (0, self.goes_through_celery()?);
            }
            in_a_row += 1;
            self.receive(job, through_celery)?;
        }
    }

    /// Whether somebody watches how Celery runs tasks, and signals are to take that way.
    fn goes_through_celery(&self) -> PyResult<bool> {
        self.receiver.getattr(intern!(self.py, "wants_signals"))?.is_truthy()
    }

    fn receive(&self, job: CoreJob, through_celery: bool) -> PyResult<()> {
        let is_signal = job.is_signal() && !through_celery;
        let held = Arc::new(Held::new(job));
        let limits = if is_signal { own_limits(&held).or(self.shared.limits) } else { TimeLimits::default() };
        self.shared.watch.begin(&self.slot, &held, limits);
        let outcome = if is_signal { self.run_signal(&held) } else { self.run_task(&held) };
        self.shared.watch.end(self.py, &self.slot);
        match outcome {
            Ok(Some(outcome)) => {
                held.finish(outcome);
                Ok(())
            }
            Ok(None) => Ok(()),
            // The end of the process, as in a pool of Celery's: the message comes again, and is counted.
            Err(error) => {
                held.finish(Outcome::Unfinished);
                self.shared.pool.stop_beginning(self.shared.patience);
                Err(error)
            }
        }
    }

    /// `None` where it is settled already.
    fn run_task(&self, held: &Arc<Held>) -> PyResult<Option<Outcome>> {
        // Celery decompresses a signal, too, and asks for no limit.
        if let Some(Err(error)) = (held.text("task") == TASK).then(|| held.incoming.plain_body()) {
            return Ok(Some(unfit("Malformed", error.to_string())));
        }
        let job = Bound::new(self.py, Job { held: held.clone() })?;
        match self.task.call1((job,)) {
            Ok(_) => Ok(None),
            Err(error) => self.escaped(error).map(Some),
        }
    }

    fn run_signal(&self, held: &Arc<Held>) -> PyResult<Option<Outcome>> {
        let py = self.py;
        let body = match held.incoming.plain_body() {
            Ok(body) => body,
            Err(error) => return Ok(Some(unfit("Malformed", error.to_string()))),
        };
        let Decoded { args, kwargs: named, embed, bare } = match decode::decode(py, &body) {
            Ok(body) => body,
            Err(error) if error.is_instance_of::<MalformedMessage>(py) => {
                return Ok(Some(unfit("Malformed", error.value(py).to_string())));
            }
            Err(error) => return self.escaped(error).map(Some),
        };
        if let Some(more) = more_than_a_task(&embed)? {
            return Ok(Some(unfit("Refused", format!("it asks for more to be run after it ({more}); signals do not"))));
        }
        let Some((name, sender)) = name_and_sender(&args) else {
            return Ok(Some(unfit("Malformed", "its arguments are not a signal's name and a sender".to_owned())));
        };
        let job = Bound::new(py, Job { held: held.clone() })?;
        let outcome = match self.signal.call1((name, sender, named, bare, job)) {
            Ok(said) => outcome(&said),
            Err(error) => Err(error),
        };
        match outcome {
            Ok(outcome) => Ok(Some(outcome)),
            Err(error) => self.escaped(error).map(Some),
        }
    }

    /// An exception that no receiver's failure explains: the message is kept, with what it says.
    fn escaped(&self, error: PyErr) -> PyResult<Outcome> {
        let py = self.py;
        if !error.is_instance_of::<PyException>(py) {
            return Err(error);
        }
        let kind = error.get_type(py).name().map_or_else(|_| "Error".to_owned(), |name| name.to_string());
        let reason = format!("{kind}: {}", error.value(py));
        self.receiver.call_method1("escaped", (error,))?;
        Ok(Outcome::Unfit { kind: kind.into(), reason })
    }
}

impl Drop for Receiving<'_, '_> {
    fn drop(&mut self) {
        self.shared.watch.leave(&self.slot);
        self.shared.pool.left();
    }
}

/// What a receiver has said: None, a list of failures, "paused", or why it cannot be run here.
fn outcome(said: &Bound<'_, PyAny>) -> PyResult<Outcome> {
    if said.is_none() {
        return Ok(Outcome::Done);
    }
    if let Ok(failures) = said.cast::<PyList>() {
        let failures = failures.iter().map(|failure| convert::to_core(failure.cast()?, "failure"));
        let failures: Vec<Failure> = failures.collect::<PyResult<_>>()?;
        return Ok(if failures.is_empty() { Outcome::Done } else { Outcome::Failed(failures) });
    }
    if said.cast::<PyString>().is_ok_and(|word| word == "paused") {
        return Ok(Outcome::Paused);
    }
    let (kind, reason): (String, String) = said.cast::<PyTuple>()?.extract()?;
    Ok(Outcome::Unfit { kind: kind.into(), reason })
}

/// A signal's two arguments.
fn name_and_sender<'py>(args: &Bound<'py, PyList>) -> Option<(Bound<'py, PyString>, Bound<'py, PyAny>)> {
    if args.len() != 2 {
        return None;
    }
    Some((args.get_item(0).ok()?.cast_into().ok()?, args.get_item(1).ok()?))
}

fn unfit(kind: &'static str, reason: String) -> Outcome {
    Outcome::Unfit { kind: kind.into(), reason }
}

/// What the third part of a body asks for, if it is anything: whoever may send
/// a signal could otherwise have any task run.
fn more_than_a_task(embed: &Bound<'_, PyAny>) -> PyResult<Option<String>> {
    if embed.is_none() {
        return Ok(None);
    }
    let Ok(embed) = embed.cast::<PyDict>() else { return Ok(Some("it is no object".to_owned())) };
    for (name, value) in embed {
        if !value.is_none() {
            return Ok(Some(name.to_string()));
        }
    }
    Ok(None)
}

/// The limits that the message itself asks for.
fn own_limits(held: &Held) -> TimeLimits {
    if held.incoming.headers.is_plain() {
        return TimeLimits::default();
    }
    let Some(Value::Array(limits)) = held.incoming.headers.get("timelimit") else { return TimeLimits::default() };
    let limit = |at: usize| {
        let seconds = limits.get(at)?.as_f64().filter(|seconds| *seconds > 0.0)?;
        Duration::try_from_secs_f64(seconds).ok()
    };
    TimeLimits { hard: limit(0), soft: limit(1) }
}
