//! The worker's connection: made, kept, lost.

use std::sync::{Arc, atomic::Ordering};

use futures_util::FutureExt;
use tokio::time::Instant;

use super::Loop;
use crate::broker::{BrokerError, Consumer, Tag, in_time};

impl Loop {
    pub(super) fn connected(&mut self, result: Result<Arc<dyn Consumer>, BrokerError>) -> Result<(), BrokerError> {
        match result {
            Ok(consumer) => {
                self.config.observer.connected(&self.link.address());
                self.link.connected();
                self.words.void = Arc::default();
                self.prefetch = self.config.least_prefetch;
                self.consumer = Some(consumer);
                self.interrupted = false;
                self.renew();
                Ok(())
            }
            Err(error) => {
                self.config.observer.disconnected(&error);
                if self.link.may_try_again(&error) { Ok(()) } else { Err(error) }
            }
        }
    }

    /// The connection cannot be used any more.
    pub(super) fn lost(&mut self, error: &BrokerError) {
        let Some(consumer) = self.consumer.take() else { return };
        self.config.observer.disconnected(error);
        self.link.lost();
        self.takes.forget();
        (self.settling, self.renewing, self.quieting) = (None, None, None);
        let keeps = consumer.keeps_over_reconnect();
        self.settlements.lost(keeps);
        self.suspects.lost(keeps);
        if !keeps {
            self.words.void.store(true, Ordering::Relaxed);
            self.void_until = self.link.generation();
            self.ledger.forget_lost();
        }
    }

    /// Whether a message is still the worker's: the broker has not taken it back with its connection.
    pub(super) fn has(&self, tag: Tag) -> bool {
        tag.generation > self.void_until
    }

    pub(super) fn renew(&mut self) {
        let Some(consumer) = self.consumer.clone() else { return };
        if self.renewing.is_some() {
            return;
        }
        let held = self.held();
        let patience = self.config.timeout;
        self.renewing = Some(in_time(patience, async move { consumer.renew(&held).await }).boxed());
    }

    /// Tells a broker that pushes how many: as many as the window holds and,
    /// while receivers are fast, as are about to be acknowledged. What waits
    /// for its time does not count. One by one while suspects are expected.
    pub(super) fn adjust_prefetch(&mut self, now: Instant) {
        let Some(consumer) = &self.consumer else { return };
        let delayed = self.ledger.delayed();
        let (wanted, exactly) = if self.suspects.are_expected(now) {
            (self.suspects.prefetch(delayed), true)
        } else {
            (self.window.size() + delayed, self.window.is_least() && delayed == 0)
        };
        let fits = if exactly { self.prefetch == wanted } else { (wanted..=wanted * 4).contains(&self.prefetch) };
        if fits || self.settling.is_some() || self.suspects.are_here() {
            return;
        }
        self.prefetch = if exactly { wanted } else { (wanted * 2).next_power_of_two() };
        let (consumer, count) = (consumer.clone(), self.prefetch);
        self.settling = Some(in_time(self.config.timeout, async move { consumer.prefetch(count).await }).boxed());
    }
}
