use std::{sync::Arc, time::Duration};

use tokio::time::{sleep, timeout};

use crate::{
    backoff::Backoff,
    broker::{self, Broker, BrokerConfig, BrokerError},
    retry,
};

const FIRST_PAUSE: Duration = Duration::from_millis(20);
const LONGEST_PAUSE: Duration = Duration::from_secs(1);

/// Makes connections, one URL after the other, with growing pauses between rounds.
#[derive(Debug)]
pub(super) struct Link {
    config: Arc<BrokerConfig>,
    /// Which URL the last attempt went to, and the next one goes to.
    url: usize,
    backoff: Backoff,
    /// Whether the connection has carried a message.
    works: bool,
    /// How many URLs in a row have said what trying again does not mend.
    hopeless: usize,
    patience: Duration,
}

impl Link {
    /// `timeout` is what one send has: with several URLs each gets a share of
    /// it, so that a silent first one does not use it up.
    pub(super) fn new(config: BrokerConfig, timeout: Duration) -> Self {
        let shares = match config.urls.len() {
            0 | 1 => 1,
            several => u32::try_from(several).unwrap_or(u32::MAX).saturating_add(1),
        };
        let backoff = Backoff::new(FIRST_PAUSE, LONGEST_PAUSE);
        Self { patience: timeout / shares, config: Arc::new(config), url: 0, backoff, works: false, hopeless: 0 }
    }

    /// One attempt, after the pause that the failures before it call for.
    pub(super) fn connect(&mut self) -> impl Future<Output = Result<Arc<dyn Broker>, BrokerError>> + use<> {
        let (config, patience, pause) = (self.config.clone(), self.patience, self.backoff.pause());
        let index = self.url;
        async move {
            if !pause.is_zero() {
                sleep(pause).await;
            }
            let Some(url) = config.urls.get(index) else {
                return Err(BrokerError::InvalidUrl { reason: "no URL is given; set broker_url".to_owned() });
            };
            let silent =
                |_| BrokerError::Connect { url: url.to_string(), reason: format!("no answer in {patience:?}") };
            timeout(patience, broker::connect(&config, url)).await.map_err(silent)?
        }
    }

    /// The broker has taken a message, or has said what is wrong with one.
    pub(super) fn worked(&mut self) {
        self.works = true;
        self.hopeless = 0;
        self.backoff.reset();
    }

    /// The connection is gone. The next one is made at once and by the same URL, unless this one never did anything.
    pub(super) fn lost(&mut self) {
        if !std::mem::take(&mut self.works) {
            self.failed();
        }
    }

    /// There is no connection; the next attempt goes to the next URL. Whether there is no point in waiting for it: each
    /// of the URLs has said what trying again does not mend, such as a wrong password.
    pub(super) fn refused(&mut self, error: &BrokerError) -> bool {
        self.failed();
        self.hopeless = if error.is_transient() { 0 } else { self.hopeless + 1 };
        self.hopeless >= self.config.urls.len()
    }

    fn failed(&mut self) {
        self.url = (self.url + 1) % self.config.urls.len().max(1);
        if self.url == 0 {
            self.backoff.failed(retry::random());
        }
    }
}
