use std::{sync::Arc, time::Duration};

use tokio::time::{sleep, timeout};

use crate::broker::{self, Broker, BrokerConfig, BrokerError};

const FIRST_PAUSE: Duration = Duration::from_millis(20);
const LONGEST_PAUSE: Duration = Duration::from_secs(1);

/// Makes connections, one URL after the other, with growing pauses between rounds.
#[derive(Debug)]
pub(super) struct Link {
    config: Arc<BrokerConfig>,
    next_url: usize,
    pause: Duration,
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
        Self { patience: timeout / shares, config: Arc::new(config), next_url: 0, pause: Duration::ZERO }
    }

    /// One attempt, after the pause that the failures before it call for.
    pub(super) fn connect(&mut self) -> impl Future<Output = Result<Arc<dyn Broker>, BrokerError>> + use<> {
        let (config, patience, pause) = (self.config.clone(), self.patience, self.pause);
        let index = self.next_url;
        let urls = config.urls.len();
        self.next_url = if urls == 0 { 0 } else { (index + 1) % urls };
        if urls == 0 || self.next_url == 0 {
            self.pause = (self.pause * 2).clamp(FIRST_PAUSE, LONGEST_PAUSE);
        }
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

    /// It worked: the next loss is answered at once, by the same URL.
    pub(super) fn connected(&mut self) {
        let urls = self.config.urls.len().max(1);
        self.next_url = (self.next_url + urls - 1) % urls;
        self.pause = Duration::ZERO;
    }
}
