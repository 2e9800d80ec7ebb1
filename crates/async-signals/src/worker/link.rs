//! Connecting, again and again.

use std::{sync::Arc, time::Duration};

use tokio::time::{Instant, sleep, timeout};

use super::WorkerConfig;
use crate::{
    backoff::Backoff,
    broker::{self, BrokerConfig, BrokerError, Consumer, Subscription, Tag},
    message::Queue,
    retry,
};

const FIRST_PAUSE: Duration = Duration::from_millis(50);
const LONGEST_PAUSE: Duration = Duration::from_secs(2);
/// A connection that has lived for so long worked, even if no message came.
const LIVED: Duration = Duration::from_secs(10);

/// Makes the worker's connections, one URL after the other, with growing pauses between rounds.
#[derive(Debug)]
pub(super) struct Link {
    broker: Arc<BrokerConfig>,
    queues: Vec<Queue>,
    name: String,
    prefetch: usize,
    patience: Duration,
    url: usize,
    backoff: Backoff,
    /// When the connection was made; `None` once it has brought messages.
    unproven_since: Option<Instant>,
    generation: u32,
    /// Whether it ever worked: from then on nothing is given up.
    proven: bool,
    /// How many URLs in a row have said what trying again does not mend.
    hopeless: usize,
    /// Rounds that may still fail before it ever worked.
    rounds_left: Option<u32>,
}

impl Link {
    pub(super) fn new(config: &WorkerConfig) -> Self {
        Self {
            broker: Arc::new(config.broker.clone()),
            queues: config.queues.clone(),
            name: config.name.clone(),
            prefetch: config.least_prefetch,
            patience: config.timeout,
            url: 0,
            backoff: Backoff::new(FIRST_PAUSE, LONGEST_PAUSE),
            unproven_since: None,
            generation: 0,
            proven: false,
            hopeless: 0,
            rounds_left: config.startup_rounds,
        }
    }

    /// One attempt, after the pause that the failures before it call for.
    pub(super) fn connect(
        &mut self,
        held: Vec<Tag>,
    ) -> impl Future<Output = Result<Arc<dyn Consumer>, BrokerError>> + Send + use<> {
        self.generation += 1;
        let subscription = Subscription {
            queues: self.queues.clone(),
            worker: self.name.clone(),
            generation: self.generation,
            held,
            prefetch: self.prefetch,
        };
        let (config, index, patience, pause) = (self.broker.clone(), self.url, self.patience, self.backoff.pause());
        async move {
            sleep(pause).await;
            let Some(url) = config.urls.get(index) else {
                return Err(BrokerError::InvalidUrl { reason: "no URL is given; set broker_url".to_owned() });
            };
            let silent =
                |_| BrokerError::Connect { url: url.to_string(), reason: format!("no answer in {patience:?}") };
            timeout(patience, broker::consume(&config, url, subscription)).await.map_err(silent)?
        }
    }

    /// Which attempt the last one was.
    pub(super) fn generation(&self) -> u32 {
        self.generation
    }

    /// Where the last attempt went, without the password.
    pub(super) fn address(&self) -> String {
        self.broker.urls.get(self.url).map(ToString::to_string).unwrap_or_default()
    }

    /// There is a connection. Whether it is of use, its first messages tell.
    pub(super) fn connected(&mut self) {
        self.proven = true;
        self.hopeless = 0;
        self.unproven_since = Some(Instant::now());
    }

    /// Messages have come.
    pub(super) fn worked(&mut self) {
        if self.unproven_since.take().is_some() {
            self.backoff.reset();
        }
    }

    /// The connection is gone. The next one is made at once and by the same URL, unless this one never did anything.
    pub(super) fn lost(&mut self) {
        match self.unproven_since.take() {
            Some(since) if since.elapsed() < LIVED => self.next_url(),
            _ => self.backoff.reset(),
        }
    }

    /// It did not work. Whether there is a point in trying again.
    pub(super) fn may_try_again(&mut self, error: &BrokerError) -> bool {
        self.next_url();
        if self.url == 0 {
            self.rounds_left = self.rounds_left.map(|rounds| rounds.saturating_sub(1));
        }
        self.hopeless = if error.is_transient() { 0 } else { self.hopeless + 1 };
        self.proven || (self.hopeless < self.broker.urls.len() && self.rounds_left != Some(0))
    }

    fn next_url(&mut self) {
        self.url = (self.url + 1) % self.broker.urls.len().max(1);
        if self.url == 0 {
            self.backoff.failed(retry::random());
        }
    }
}
