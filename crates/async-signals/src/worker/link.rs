//! Connecting, again and again.

use std::{sync::Arc, time::Duration};

use tokio::time::{sleep, timeout};

use super::WorkerConfig;
use crate::{
    broker::{self, BrokerConfig, BrokerError, Consumer, Subscription, Tag},
    clock,
    message::Queue,
    reconnect::Reconnect,
    retry,
};

const FIRST_PAUSE: Duration = Duration::from_millis(50);
const LONGEST_PAUSE: Duration = Duration::from_secs(2);

/// Makes the worker's connections.
#[derive(Debug)]
pub(super) struct Link {
    broker: Arc<BrokerConfig>,
    queues: Vec<Queue>,
    name: String,
    prefetch: usize,
    patience: Duration,
    reconnect: Reconnect,
    generation: u32,
    /// Whether it ever worked: from then on nothing is given up.
    proven: bool,
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
            reconnect: Reconnect::new(config.broker.urls.len(), FIRST_PAUSE, LONGEST_PAUSE),
            generation: 0,
            proven: false,
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
        let (config, patience) = (self.broker.clone(), self.patience);
        let (index, pause) = (self.reconnect.address(), self.reconnect.pause());
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
        self.broker.urls.get(self.reconnect.address()).map(ToString::to_string).unwrap_or_default()
    }

    /// There is a connection. Whether it is of use, its first messages tell.
    pub(super) fn connected(&mut self) {
        self.proven = true;
        self.reconnect.connected(clock::now());
    }

    /// Messages have come.
    pub(super) fn worked(&mut self) {
        self.reconnect.worked();
    }

    /// The connection is gone.
    pub(super) fn lost(&mut self) {
        self.reconnect.lost(clock::now(), retry::random());
    }

    /// It did not work. Whether there is a point in trying again.
    pub(super) fn may_try_again(&mut self, error: &BrokerError) -> bool {
        self.reconnect.failed(error, retry::random());
        if self.reconnect.begins_a_round() {
            self.rounds_left = self.rounds_left.map(|rounds| rounds.saturating_sub(1));
        }
        self.proven || (!self.reconnect.is_hopeless() && self.rounds_left != Some(0))
    }
}
