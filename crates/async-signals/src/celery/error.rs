use thiserror::Error;

use crate::broker::BrokerError;

/// What is wrong with a Celery app's configuration.
#[derive(Clone, Debug, Error)]
#[non_exhaustive]
pub enum ConfigError {
    /// Something about its broker.
    #[error(transparent)]
    Broker(#[from] BrokerError),
    /// It was told of no broker. Celery's silent `amqp://localhost` is not taken.
    #[error("no broker is configured: give a broker URL, or set CELERY_BROKER_URL")]
    NotConfigured,
    /// Another app is the process's already.
    #[error("this process has an installed Celery app; send through another one with options().via(…)")]
    AlreadyInstalled,
    /// A queue's name that no broker takes.
    #[error("{name:?} is no name for a queue: it has to have 1 to 255 bytes and no control characters")]
    QueueName {
        /// The name.
        name: String,
    },
}
