//! How connections are made.

use std::{fmt, sync::Arc, time::Duration};

use futures_util::future::{BoxFuture, FutureExt};
use tokio::time::timeout;

use super::{Broker, BrokerConfig, BrokerError, BrokerUrl, Consumer, Subscription, connect, consume};
use crate::panics;

/// Makes connections. The one that is configured by default is [`ByScheme`]; a test may put a broker of its own here.
pub trait Connector: fmt::Debug + Send + Sync {
    /// Connects to one of the configuration's URLs, without a time limit of its own. The caller drops the future when
    /// it has waited long enough.
    ///
    /// # Errors
    ///
    /// As [`connect`].
    fn connect<'a>(
        &'a self,
        config: &'a BrokerConfig,
        url: &'a BrokerUrl,
    ) -> BoxFuture<'a, Result<Arc<dyn Broker>, BrokerError>>;

    /// The same, to take messages.
    ///
    /// # Errors
    ///
    /// As [`consume`].
    fn consume<'a>(
        &'a self,
        config: &'a BrokerConfig,
        url: &'a BrokerUrl,
        subscription: Subscription,
    ) -> BoxFuture<'a, Result<Arc<dyn Consumer>, BrokerError>> {
        consume(config, url, subscription).boxed()
    }
}

/// Connects to the address with this index, within `patience`.
pub(crate) async fn attempt<'a, T>(
    config: &'a BrokerConfig,
    address: usize,
    patience: Duration,
    connect: impl FnOnce(&'a BrokerUrl) -> BoxFuture<'a, Result<T, BrokerError>>,
) -> Result<T, BrokerError> {
    let Some(url) = config.urls.get(address) else {
        return Err(BrokerError::InvalidUrl { reason: "no URL is given; set broker_url".to_owned() });
    };
    let failed = |reason| Err(BrokerError::Connect { url: url.to_string(), reason });
    match timeout(patience, panics::caught_in(async || connect(url).await)).await {
        Ok(Ok(connected)) => connected,
        Ok(Err(text)) => failed(format!("connecting panicked: {text}")),
        Err(_) => failed(format!("no answer in {patience:?}")),
    }
}

/// Connects to what a URL's scheme names.
#[derive(Clone, Copy, Debug, Default)]
pub struct ByScheme;

impl Connector for ByScheme {
    fn connect<'a>(
        &'a self,
        config: &'a BrokerConfig,
        url: &'a BrokerUrl,
    ) -> BoxFuture<'a, Result<Arc<dyn Broker>, BrokerError>> {
        connect(config, url).boxed()
    }
}
