//! The worker's connection: made, kept, lost.

use std::{
    sync::{Arc, atomic::Ordering},
    time::{Duration, Instant},
};

use super::{Effect, State};
use crate::{
    broker::{BrokerError, Tag},
    reconnect::Reconnect,
    worker::{Stop, WorkerConfig, observer::Notice},
};

const FIRST_PAUSE: Duration = Duration::from_millis(50);
const LONGEST_PAUSE: Duration = Duration::from_secs(2);
/// How many messages whose follow-ups are not published yet are held: with so many no more are taken.
pub(super) const MOST_FOLLOWING: usize = 1_000;

/// For how long they have filled the window by then. Most are gone sooner: more is not to be pushed for them.
const CROWDED_AFTER: Duration = Duration::from_secs(1);

/// Messages that wait for what follows them fill the window.
#[derive(Clone, Copy, Debug)]
pub(super) struct Crowded {
    /// When they have done so for long enough.
    at: Instant,
    is_so: bool,
}

impl Crowded {
    /// When it is to be looked at.
    pub(super) fn due_at(self) -> Option<Instant> {
        Some(self.at).filter(|_| !self.is_so)
    }
}

#[derive(Debug)]
enum Phase {
    Down { retry_at: Instant },
    Connecting,
    Up(Kind),
}

/// What a connection can do.
#[derive(Clone, Copy, Debug)]
pub(in crate::worker) struct Kind {
    /// What was taken stays the worker's when it is lost.
    pub(in crate::worker) keeps: bool,
    /// Two takes may be under way.
    pub(in crate::worker) overlaps: bool,
}

/// Whether there is one, and what becomes of the next.
#[derive(Debug)]
pub(super) struct Connection {
    phase: Phase,
    reconnect: Reconnect,
    /// Counts the attempts.
    generation: u32,
    /// What came over connections up to this one is the broker's again.
    void_until: u32,
    /// Whether there ever was one: from then on nothing is given up.
    is_proven: bool,
    /// Rounds of all addresses that may still fail before there ever was one.
    rounds_left: Option<u32>,
    /// What the broker was told to push ahead.
    prefetch: usize,
}

impl Connection {
    pub(super) fn new(config: &WorkerConfig, now: Instant) -> Self {
        Self {
            phase: Phase::Down { retry_at: now },
            reconnect: Reconnect::new(config.broker.urls.len(), FIRST_PAUSE, LONGEST_PAUSE),
            generation: 0,
            void_until: 0,
            is_proven: false,
            rounds_left: config.startup_rounds,
            prefetch: 0,
        }
    }

    pub(super) fn is_up(&self) -> bool {
        matches!(self.phase, Phase::Up(_))
    }

    pub(super) fn overlaps(&self) -> bool {
        matches!(self.phase, Phase::Up(Kind { overlaps: true, .. }))
    }

    /// When the next attempt is due.
    pub(super) fn retry_at(&self) -> Option<Instant> {
        match self.phase {
            Phase::Down { retry_at } => Some(retry_at),
            _ => None,
        }
    }

    /// Messages have come.
    pub(super) fn worked(&mut self) {
        self.reconnect.worked();
    }

    /// Whether a message is still the worker's: the broker has not taken it back with its connection.
    pub(super) fn has(&self, tag: Tag) -> bool {
        tag.generation > self.void_until
    }

    /// Nothing is pushed until the broker is told anew.
    pub(super) fn forget_prefetch(&mut self) {
        self.prefetch = 0;
    }
}

impl State {
    /// Whether there is a point in another connection: also for one that stops, as long as something runs or is to be told.
    pub(super) fn wants_connection(&self) -> bool {
        match self.stop {
            Stop::No => true,
            Stop::Drain(_) => !self.window.is_idle() || !self.settlements.is_empty(),
            Stop::Now => false,
        }
    }

    pub(super) fn connect(&mut self, now: Instant) {
        if self.wants_connection() && self.connection.retry_at().is_some_and(|at| at <= now) {
            self.connection.phase = Phase::Connecting;
            self.connection.generation += 1;
            self.effects.push_back(Effect::Connect {
                address: self.connection.reconnect.address(),
                generation: self.connection.generation,
                held: self.held(),
            });
        }
    }

    /// There is a connection. Whether it is of use, its first messages tell.
    pub(in crate::worker) fn connected(&mut self, kind: Kind, now: Instant) {
        let address = self.connection.reconnect.address();
        let broker = self.config.broker.urls.get(address).map(ToString::to_string).unwrap_or_default();
        self.notice(Notice::Connected { broker });
        self.connection.is_proven = true;
        self.connection.reconnect.connected(now);
        self.connection.prefetch = self.config.least_prefetch;
        self.connection.phase = Phase::Up(kind);
        self.revocation.void = Arc::default();
        self.interrupted = false;
        self.heartbeat();
    }

    /// An attempt to connect has failed.
    ///
    /// # Errors
    ///
    /// The same, where there is no point in trying again.
    pub(in crate::worker) fn not_connected(&mut self, error: BrokerError, now: Instant) -> Result<(), BrokerError> {
        self.notice(Notice::Disconnected { error: error.clone() });
        let Connection { reconnect, rounds_left, is_proven, phase, .. } = &mut self.connection;
        reconnect.failed(&error, now, self.chance.f64());
        if reconnect.begins_a_round() {
            *rounds_left = rounds_left.map(|rounds| rounds.saturating_sub(1));
        }
        *phase = Phase::Down { retry_at: now + reconnect.pause() };
        let may_try_again = *is_proven || (!reconnect.is_hopeless() && *rounds_left != Some(0));
        if may_try_again { Ok(()) } else { Err(error) }
    }

    /// The connection cannot be used any more.
    pub(in crate::worker) fn lost(&mut self, error: BrokerError, now: Instant) {
        let Phase::Up(Kind { keeps, .. }) = self.connection.phase else { return };
        self.notice(Notice::Disconnected { error });
        self.connection.reconnect.lost(now, self.chance.f64());
        self.connection.phase = Phase::Down { retry_at: now + self.connection.reconnect.pause() };
        self.effects.push_back(Effect::Disconnect);
        self.takes.forget();
        (self.is_settling, self.is_renewing, self.is_pausing) = (false, false, false);
        self.settlements.lost(keeps, now);
        self.quarantine.lost(keeps);
        if !keeps {
            self.revocation.void.store(true, Ordering::Relaxed);
            self.connection.void_until = self.connection.generation;
            self.in_flight.forget_lost();
        }
    }

    /// It is time for a sign of life.
    pub(in crate::worker) fn heartbeat(&mut self) {
        if self.connection.is_up() && !self.is_renewing {
            self.is_renewing = true;
            let held = self.held();
            self.effects.push_back(Effect::Renew { held });
        }
    }

    /// The broker has seen the sign of life.
    pub(in crate::worker) fn renewed(&mut self) {
        self.is_renewing = false;
    }

    /// Whether messages that wait for what follows them have filled the window for so long that they may stay.
    fn is_crowded(&mut self, now: Instant) -> bool {
        if self.following < self.window.size() {
            self.crowded = None;
            return false;
        }
        let crowded = self.crowded.get_or_insert(Crowded { at: now + CROWDED_AFTER, is_so: false });
        crowded.is_so |= now >= crowded.at;
        crowded.is_so
    }

    /// Tells a broker that pushes how many: as many as the window holds and,
    /// while receivers are fast, as are about to be acknowledged. What waits
    /// for its time does not count, nor do messages that wait for what follows
    /// them once they have filled the window for a while. One by one while the
    /// quarantine expects more.
    pub(super) fn adjust_prefetch(&mut self, now: Instant) {
        let is_crowded = self.is_crowded(now);
        let (prefetch, delayed) = (self.connection.prefetch, self.in_flight.delayed());
        let (mut wanted, mut exactly) = if self.quarantine.expects_more(now) {
            (self.quarantine.prefetch(delayed), true)
        } else {
            let following = if is_crowded { self.following.min(MOST_FOLLOWING) } else { 0 };
            let beside = delayed + following;
            (self.window.size() + beside, self.window.is_least() && beside == 0)
        };
        if self.following >= MOST_FOLLOWING {
            // Nothing more is taken, so that nothing more is to be pushed.
            (wanted, exactly) = (self.following + delayed, true);
        }
        let fits = if exactly { prefetch == wanted } else { (wanted..=wanted * 4).contains(&prefetch) };
        if fits || self.is_settling || self.quarantine.has_any() {
            return;
        }
        self.connection.prefetch = if exactly { wanted } else { (wanted * 2).next_power_of_two() };
        self.is_settling = true;
        self.effects.push_back(Effect::Prefetch(self.connection.prefetch));
    }
}
