//! Which address the next connection goes to, and when: the same rules for senders and workers.

use std::time::{Duration, Instant};

use crate::{backoff::Backoff, broker::BrokerError};

/// A connection that has done work counts as good once it has lived for so long.
const LIVED_WITH_WORK: Duration = Duration::from_secs(1);
/// A connection that had nothing to do counts as good once it has lived for so long.
const LIVED: Duration = Duration::from_secs(10);

/// Chooses addresses, one after the other, with a growing pause after each round of them.
///
/// A connection that was good is made anew at once, and to the same address. Good is what has done work and has lived
/// for a while: a server that has become a replica lets everybody in and refuses all work, and one that ends each
/// connection soon after it was made would otherwise be asked for hundreds a second.
#[derive(Debug)]
pub(crate) struct Reconnect {
    addresses: usize,
    address: usize,
    backoff: Backoff,
    /// Since when there is a connection.
    since: Option<Instant>,
    worked: bool,
    /// How many addresses in a row have said what trying again does not mend.
    hopeless: usize,
}

impl Reconnect {
    /// Pauses from `first` on, doubled up to `longest` after each round of all addresses.
    pub(crate) const fn new(addresses: usize, first: Duration, longest: Duration) -> Self {
        let backoff = Backoff::new(first, longest);
        Self { addresses, address: 0, backoff, since: None, worked: false, hopeless: 0 }
    }

    /// The address that the next attempt goes to, or the last one went to.
    pub(crate) fn address(&self) -> usize {
        self.address
    }

    /// How long to wait before the next attempt.
    pub(crate) fn pause(&self) -> Duration {
        self.backoff.pause()
    }

    /// There is a connection. Whether it is of use, work tells.
    pub(crate) fn connected(&mut self, now: Instant) {
        self.since = Some(now);
        self.worked = false;
    }

    /// The connection has done some of what it is for.
    pub(crate) fn worked(&mut self) {
        self.worked = true;
        self.hopeless = 0;
    }

    /// The connection is gone. `random` is from 0 to 1.
    pub(crate) fn lost(&mut self, now: Instant, random: f64) {
        self.hopeless = 0;
        if self.was_good(now) {
            self.backoff.reset();
        } else {
            self.next_address(random);
        }
    }

    /// Whether the connection that ends now was good.
    fn was_good(&mut self, now: Instant) -> bool {
        let lived = self.since.take().map_or(Duration::ZERO, |since| now.saturating_duration_since(since));
        lived >= if self.worked { LIVED_WITH_WORK } else { LIVED }
    }

    /// An attempt has failed, or the server is of no use any more: the next attempt goes to the next address. `random` is
    /// from 0 to 1.
    pub(crate) fn failed(&mut self, error: &BrokerError, now: Instant, random: f64) {
        if self.was_good(now) {
            self.backoff.reset();
        }
        self.hopeless = if error.is_transient() { 0 } else { self.hopeless + 1 };
        self.next_address(random);
    }

    /// Whether each of the addresses has said, one after the other, what trying again does not mend, such as a wrong
    /// password.
    pub(crate) fn is_hopeless(&self) -> bool {
        self.hopeless >= self.addresses
    }

    /// Whether the next attempt begins a round of all addresses.
    pub(crate) fn begins_a_round(&self) -> bool {
        self.address == 0
    }

    fn next_address(&mut self, random: f64) {
        self.address = (self.address + 1) % self.addresses.max(1);
        if self.address == 0 {
            self.backoff.failed(random);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const FIRST: Duration = Duration::from_millis(20);

    fn silent() -> BrokerError {
        BrokerError::Connect { url: "redis://a".to_owned(), reason: "no answer".to_owned() }
    }

    fn wrong() -> BrokerError {
        BrokerError::Authentication { url: "redis://a".to_owned(), reason: "WRONGPASS".to_owned() }
    }

    #[test]
    fn a_pause_follows_each_round_of_addresses() {
        let mut reconnect = Reconnect::new(2, FIRST, Duration::from_secs(1));
        let mut tried = Vec::new();
        for _ in 0..5 {
            tried.push((reconnect.address(), reconnect.pause().as_millis()));
            reconnect.failed(&silent(), Instant::now(), 0.0);
        }
        assert_eq!(tried, [(0, 0), (1, 0), (0, 20), (1, 20), (0, 40)]);
    }

    #[test]
    fn a_connection_that_worked_for_a_while_is_made_anew_at_once() {
        let (mut reconnect, start) = (Reconnect::new(1, FIRST, Duration::from_secs(1)), Instant::now());
        reconnect.failed(&silent(), Instant::now(), 0.0);
        reconnect.connected(start);
        reconnect.worked();
        reconnect.lost(start + LIVED_WITH_WORK, 0.0);
        assert_eq!(reconnect.pause(), Duration::ZERO);
        // What is lost soon after each start is not.
        for pause in [20, 40, 80] {
            reconnect.connected(start);
            reconnect.worked();
            reconnect.lost(start + LIVED_WITH_WORK / 2, 0.0);
            assert_eq!(reconnect.pause().as_millis(), pause);
        }
        // Nor is what does no work, unless it had long enough to do some.
        reconnect.connected(start);
        reconnect.lost(start + LIVED / 2, 0.0);
        assert_eq!(reconnect.pause().as_millis(), 160);
        reconnect.connected(start);
        reconnect.lost(start + LIVED, 0.0);
        assert_eq!(reconnect.pause(), Duration::ZERO);
    }

    #[test]
    fn it_is_hopeless_once_every_address_has_said_so() {
        let mut reconnect = Reconnect::new(2, FIRST, Duration::from_secs(1));
        reconnect.failed(&wrong(), Instant::now(), 0.0);
        assert!(!reconnect.is_hopeless());
        reconnect.failed(&silent(), Instant::now(), 0.0);
        reconnect.failed(&wrong(), Instant::now(), 0.0);
        assert!(!reconnect.is_hopeless());
        reconnect.failed(&wrong(), Instant::now(), 0.0);
        assert!(reconnect.is_hopeless());
        reconnect.connected(Instant::now());
        reconnect.worked();
        assert!(!reconnect.is_hopeless());
    }
}
