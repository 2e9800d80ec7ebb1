//! What a worker knows and decides: events in, effects out.
//!
//! There is no clock, no connection, no thread and no chance in here: each event comes with its [`Moment`], the broker
//! and the runner are asked by [`Effect`]s, and chance comes from a seed. The [loop](super::run) performs the effects.
//! Jobs are memory that the runner shares, and come back as events.
//!
//! # The states of a message
//!
//! | it is | where | what happens next |
//! |---|---|---|
//! | delayed | `in_flight` | it is due |
//! | in quarantine | `in_flight`, `quarantine` | it runs once nothing else does |
//! | running | `in_flight`, `running` if it is a signal | its job comes back |
//! | followed | `in_flight` | what follows it is with the broker: then it is acknowledged |
//! | a twin | `in_flight` | it ends with its first copy, which runs here |
//! | over | `settlements` | the broker confirms that it has heard so |
//!
//! - `connection`: made, kept, lost.
//! - `takes`: asking for messages.
//! - `quarantine`: messages that were delivered before, each of which runs alone.
//! - `outcomes`: what becomes of a message that has ended, and of one that must not begin.

mod connection;
mod outcomes;
mod quarantine;
mod takes;

use std::{
    collections::{HashMap, VecDeque},
    sync::Arc,
    time::{Instant, SystemTime},
};

use tokio::sync::mpsc;
use uuid::Uuid;

pub(super) use self::connection::Kind;
use self::{
    connection::{Connection, Crowded},
    quarantine::Quarantine,
    takes::Takes,
};
use super::{
    Stop, WorkerConfig,
    admission::{Admission, admit},
    follow_up::FollowUp,
    in_flight::InFlight,
    job::{Arrival, Finished, Job, Revocation},
    observer::Notice,
    settlement::{Batch, Settlements},
    window::Window,
};
use crate::{
    broker::{Content, Tag, Taken},
    clock::Moment,
    follow,
    message::Incoming,
    protocol::time,
};

/// What the loop is to do.
#[derive(Debug)]
pub(super) enum Effect {
    /// Connect to the address with this index, and tell [`State::connected`] or [`State::not_connected`].
    Connect { address: usize, generation: u32, held: Vec<Tag> },
    /// Drop the connection, and every request that is under way over it.
    Disconnect,
    /// Acknowledge, and ask for messages; `waits`: until there are some. Tell [`State::taken`] or [`State::lost`].
    Take { done: Vec<Tag>, limit: usize, waits: bool },
    /// Tell the broker what is over, with `answer` until it has heard; then tell [`State::settled`] or [`State::lost`].
    Settle { batch: Batch, answer: bool },
    /// Tell the broker how many messages it may push ahead; then as with [`Effect::Settle`].
    Prefetch(usize),
    /// Give a sign of life, and tell [`State::renewed`] or [`State::lost`].
    Renew { held: Vec<Tag> },
    /// Have the broker push nothing more, for good if the worker `stops`, and tell [`State::paused`] what it had pushed.
    Pause { stops: bool },
    /// Have takes wait no more.
    Interrupt,
    /// Publish what follows a message, and tell [`State::followed`].
    FollowUp(FollowUp),
    /// Hand messages to the runner.
    Start(Vec<Job>),
    /// Tell the observer.
    Notice(Notice),
}

/// See the [module](self).
pub(super) struct State {
    config: Arc<WorkerConfig>,
    chance: fastrand::Rng,
    stop: Stop,
    /// Whether the broker knows of the stop.
    interrupted: bool,
    connection: Connection,
    revocation: Revocation,
    takes: Takes,
    /// Whether the broker is being told what is over, or how many messages to push.
    is_settling: bool,
    is_renewing: bool,
    /// Whether the broker is being told to push nothing.
    is_pausing: bool,
    /// How many messages wait until what follows them is published.
    following: usize,
    crowded: Option<Crowded>,
    in_flight: InFlight,
    /// Signals that are with the runner, by id.
    running: HashMap<Uuid, Tag>,
    window: Window,
    settlements: Settlements,
    jobs: Vec<Job>,
    quarantine: Quarantine,
    /// Where jobs come back.
    finished: mpsc::UnboundedSender<Finished>,
    effects: VecDeque<Effect>,
}

impl State {
    pub(super) fn new(
        config: Arc<WorkerConfig>,
        finished: mpsc::UnboundedSender<Finished>,
        now: Instant,
        seed: u64,
    ) -> Self {
        Self {
            connection: Connection::new(&config, now),
            window: Window::new(config.least_prefetch, config.most_prefetch, now),
            revocation: Revocation { clock: config.clock, ..Revocation::default() },
            config,
            chance: fastrand::Rng::with_seed(seed),
            stop: Stop::No,
            interrupted: false,
            takes: Takes::default(),
            is_settling: false,
            is_renewing: false,
            is_pausing: false,
            following: 0,
            crowded: None,
            in_flight: InFlight::default(),
            running: HashMap::new(),
            settlements: Settlements::default(),
            jobs: Vec::new(),
            quarantine: Quarantine::default(),
            finished,
            effects: VecDeque::new(),
        }
    }

    /// What is to be done next, in the order in which it was decided.
    pub(super) fn next_effect(&mut self) -> Option<Effect> {
        self.effects.pop_front()
    }

    /// Whether the worker has stopped, all but its goodbye.
    pub(super) fn is_over(&self, now: Instant) -> bool {
        match self.stop {
            Stop::No => false,
            Stop::Now => true,
            Stop::Drain(until) => {
                let nothing_left = self.in_flight.is_empty()
                    && self.takes.is_empty()
                    && !self.is_pausing
                    && !self.is_settling
                    && self.settlements.is_empty();
                // Without a connection what is held goes back to others in time, all but what is over here.
                let is_cut_off = !self.connection.is_up() && !self.wants_connection();
                nothing_left || now >= until || is_cut_off
            }
        }
    }

    /// When something is due without anything having happened.
    pub(super) fn alarm(&self) -> Option<Instant> {
        let is_up = self.connection.is_up();
        let is_free = self.stop == Stop::No && !self.quarantine.has_any();
        let dues = [
            self.settlements.due_at().filter(|_| is_up && !self.is_settling),
            self.stop.until(),
            self.in_flight.next_due().filter(|_| is_free),
            self.quarantine.due_at(self.config.timeout).filter(|_| is_up && !self.is_pausing),
            self.crowded.and_then(Crowded::due_at).filter(|_| is_up),
            self.connection.retry_at().filter(|_| self.wants_connection()),
        ];
        dues.into_iter().flatten().min()
    }

    // Events.

    /// The worker is to stop.
    pub(super) fn stop(&mut self, stop: Stop) {
        self.stop = stop;
    }

    /// Messages have come: the answer to the oldest [`Effect::Take`].
    pub(super) fn taken(&mut self, taken: Vec<Taken>, now: Moment, knows: impl Fn(&str) -> bool) {
        self.takes.answered(taken.len());
        self.connection.worked();
        self.settlements.taken();
        self.admit_all(taken, now, knows);
    }

    /// The broker pushes nothing more, and this is what it had pushed.
    pub(super) fn paused(&mut self, pushed: Vec<Taken>, now: Moment, knows: impl Fn(&str) -> bool) {
        self.is_pausing = false;
        if self.stop == Stop::No {
            self.admit_all(pushed, now, knows);
        } else {
            self.return_all(pushed, now);
        }
    }

    /// The broker has been told what is over, or how many messages to push.
    pub(super) fn settled(&mut self) {
        self.is_settling = false;
        self.settlements.settled();
        self.quarantine
            .forget(|tag| self.in_flight.queue(tag).is_none() && !self.settlements.tags().any(|other| other == tag));
    }

    /// What follows a message is with the broker.
    pub(super) fn followed(&mut self, tag: Tag, now: Moment) {
        self.following -= 1;
        self.acknowledge(tag, now);
    }

    /// Jobs have ended.
    pub(super) fn finished(&mut self, finished: impl ExactSizeIterator<Item = Finished>, now: Moment) {
        self.window.ended(finished.len(), now.at);
        finished.for_each(|finished| self.finish(finished, now));
    }

    /// Does all that can be done without waiting.
    pub(super) fn advance(&mut self, now: Moment) {
        if self.stop != Stop::No {
            self.interrupt();
            // Again, since a take that was under way may bring back what has just been given back.
            self.settlements.give_back(self.in_flight.drop_delayed());
        }
        while self.stop == Stop::No
            && !self.quarantine.has_any()
            && let Some((tag, arrival)) = self.in_flight.take_due(now.at)
        {
            self.begin(tag, arrival, now);
        }
        self.isolate(now);
        if !self.jobs.is_empty() {
            self.window.begun(self.jobs.len(), now.at);
            self.effects.push_back(Effect::Start(std::mem::take(&mut self.jobs)));
        }
        if !self.connection.is_up() {
            return self.connect(now.at);
        }
        if self.stop == Stop::No {
            self.take(now.at);
        }
        self.adjust_prefetch(now.at);
        let is_urgent = self.stop != Stop::No || self.quarantine.is_waiting();
        if !self.is_settling && self.settlements.are_due(now.at, is_urgent) {
            self.is_settling = true;
            let (batch, answer) = (self.settlements.begin(), self.quarantine.needs_answers());
            self.effects.push_back(Effect::Settle { batch, answer });
        }
    }

    /// What is still to be told as the worker ends; whether what was being told is known to have arrived.
    pub(super) fn last_words(&mut self, arrived: bool) -> Batch {
        if arrived {
            self.settlements.settled();
        }
        // The broker may not have heard what went with a take.
        self.settlements.tell_again();
        self.settlements.begin()
    }

    // What follows from them.

    /// Everything that the broker must not give to others.
    fn held(&self) -> Vec<Tag> {
        self.in_flight.tags().chain(self.settlements.tags()).collect()
    }

    fn notice(&mut self, notice: Notice) {
        self.effects.push_back(Effect::Notice(notice));
    }

    fn admit_all(&mut self, taken: Vec<Taken>, now: Moment, knows: impl Fn(&str) -> bool) {
        for Taken { tag, queue, redelivered, content } in taken {
            match content {
                Content::Message(incoming) => self.admit(tag, queue, redelivered, incoming.into(), now, &knows),
                Content::Malformed { raw, reason } => {
                    let message = follow::parked_bytes(&raw, &queue, &reason, now.date);
                    self.park(tag, queue, message);
                }
            }
        }
    }

    fn admit(
        &mut self,
        tag: Tag,
        queue: Arc<str>,
        redelivered: bool,
        incoming: Arc<Incoming>,
        now: Moment,
        knows: impl FnOnce(&str) -> bool,
    ) {
        match admit(&incoming, now.date, knows) {
            Admission::Now { expires } => self.begin(tag, Arrival { queue, redelivered, expires, incoming }, now),
            Admission::Later { eta, expires } => {
                let wait = eta.duration_since(now.date).unwrap_or_default();
                self.notice(Notice::Delayed { incoming: incoming.clone(), seconds: wait.as_secs_f64() });
                // Whoever had it before has not begun it: there is nothing to count.
                let redelivered = redelivered && !incoming.is_signal();
                self.in_flight.delay(tag, now.at + wait, Arrival { queue, redelivered, expires, incoming });
            }
            Admission::Expired => self.expire(tag, incoming, now),
            Admission::Unfit { kind, reason } => {
                let message = follow::parked(&incoming, &queue, kind, &reason, now.date);
                self.park(tag, queue, message);
            }
        }
    }

    /// Runs a message that is due, unless it was taken before: then it is
    /// counted, or waits for its other copy.
    fn begin(&mut self, tag: Tag, arrival: Arrival, now: Moment) {
        if !arrival.incoming.is_signal() {
            return self.start_or_release(tag, arrival, now);
        }
        if arrival.redelivered {
            let original = arrival.incoming.id().and_then(|id| self.running.get(&id).copied());
            if !original.is_some_and(|original| self.in_flight.tie(original, tag)) {
                self.count(tag, arrival.queue, &arrival.incoming, now);
            }
        } else if follow::deliveries(&arrival.incoming) > 0 {
            self.quarantine(tag, arrival, now);
        } else {
            self.start_or_release(tag, arrival, now);
        }
    }

    fn start_or_release(&mut self, tag: Tag, arrival: Arrival, now: Moment) {
        if self.quarantine.has_any() {
            self.release(tag, arrival.queue, &arrival.incoming, now);
        } else {
            self.start(tag, arrival);
        }
    }

    fn start(&mut self, tag: Tag, arrival: Arrival) {
        if arrival.incoming.is_signal()
            && let Some(id) = arrival.incoming.id()
        {
            self.running.insert(id, tag);
        }
        self.in_flight.run(tag, arrival.queue.clone());
        self.jobs.push(Job::new(tag, arrival, &self.revocation, self.finished.clone()));
    }

    /// Takes nothing more.
    fn interrupt(&mut self) {
        if self.interrupted {
            return;
        }
        self.interrupted = true;
        if !self.connection.is_up() {
            return;
        }
        if self.is_pausing {
            self.effects.push_back(Effect::Interrupt);
        } else {
            self.is_pausing = true;
            self.effects.push_back(Effect::Pause { stops: true });
        }
    }

    /// What was pushed and is not wanted any more. Signals are given back uncounted: their broker would
    /// mark them as delivered before. All else it takes back with the connection.
    fn return_all(&mut self, pushed: Vec<Taken>, now: Moment) {
        for Taken { tag, queue, redelivered, content } in pushed {
            match content {
                Content::Message(incoming) if !redelivered && incoming.is_signal() => {
                    self.release(tag, queue, &incoming, now);
                }
                _ => {}
            }
        }
    }
}

/// When a signal expires. Of other tasks Celery looks after that.
fn signal_expiry(incoming: &Incoming) -> Option<SystemTime> {
    let asks = incoming.is_signal() && !incoming.headers.is_plain();
    if asks { time::read(&incoming.headers, "expires").ok().flatten() } else { None }
}
