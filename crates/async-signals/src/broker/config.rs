use std::{fmt, path::PathBuf, time::Duration};

use serde_json::{Map, Value};

use super::{BrokerError, BrokerUrl};

/// Which brokers, and how to speak to them.
///
/// Its `Debug` shows no password, and of the transport's options their names alone.
#[derive(Clone)]
pub struct BrokerConfig {
    /// Tried in their order, round and round.
    pub urls: Vec<BrokerUrl>,
    /// Celery's `broker_transport_options`: `global_keyprefix`, `sep`,
    /// `priority_steps`, … Unknown ones are left alone, as kombu does.
    pub transport_options: Map<String, Value>,
    /// How TLS is done. `None`: only where the URL asks for it, verified against
    /// the system's roots. As in Celery, settings here ask for it too.
    pub tls: Option<Tls>,
    /// AMQP's heartbeat. `None`: the broker's own.
    pub heartbeat: Option<Duration>,
}

impl fmt::Debug for BrokerConfig {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { urls, transport_options, tls, heartbeat } = self;
        f.debug_struct("BrokerConfig")
            .field("urls", urls)
            .field("transport_options", &transport_options.keys().collect::<Vec<_>>())
            .field("tls", tls)
            .field("heartbeat", heartbeat)
            .finish()
    }
}

/// How TLS is done. Certificates and host names are verified unless said otherwise.
#[derive(Clone, Debug)]
pub struct Tls {
    /// PEM file of the certificate authorities to trust instead of the system's.
    pub ca_certs: Option<PathBuf>,
    /// PEM file of the client's certificate chain.
    pub certfile: Option<PathBuf>,
    /// PEM file of the client's key.
    pub keyfile: Option<PathBuf>,
    /// Whether the broker's certificate must be valid.
    pub verify: bool,
}

impl Default for Tls {
    fn default() -> Self {
        Self { ca_certs: None, certfile: None, keyfile: None, verify: true }
    }
}

impl BrokerConfig {
    /// The configuration for URLs as Celery's `broker_url` holds them: one, or
    /// several with `;` between them.
    ///
    /// # Errors
    ///
    /// [`BrokerError::InvalidUrl`] and [`BrokerError::Unsupported`].
    ///
    /// ```
    /// let config = async_signals::broker::BrokerConfig::new("redis://a:6379/1;redis://b:6379/1")?;
    /// assert_eq!(config.urls.len(), 2);
    /// # Ok::<(), async_signals::broker::BrokerError>(())
    /// ```
    pub fn new(urls: &str) -> Result<Self, BrokerError> {
        let urls = urls.split(';').filter(|url| !url.trim().is_empty()).map(|url| url.trim().parse());
        Ok(Self { urls: urls.collect::<Result<_, _>>()?, transport_options: Map::new(), tls: None, heartbeat: None })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn shows_no_secret() {
        let urls = "amqp://me:hunter2@rabbit//;redis://hunter2@redis/0;redis://:hunter2@redis/0";
        let mut config = BrokerConfig::new(urls).expect("URLs");
        let sentinel = serde_json::json!({"password": "hunter2"});
        config.transport_options.insert("sentinel_kwargs".to_owned(), sentinel);
        let shown = format!("{config:?}");
        assert!(!shown.contains("hunter2"), "{shown}");
        assert!(shown.contains("sentinel_kwargs") && shown.contains("amqp://me:**@rabbit"), "{shown}");
    }
}
