use thiserror::Error;

/// Why a broker does not have a message. URLs in it never hold a password.
#[derive(Clone, Debug, Error)]
#[non_exhaustive]
pub enum BrokerError {
    /// Nobody answers there, or the answer is no broker's.
    #[error("cannot connect to {url}: {reason}")]
    Connect {
        /// The address, without its password.
        url: String,
        /// What the operating system or the broker said.
        reason: String,
    },
    /// The broker does not let us in.
    #[error("{url} refuses the user name or password: {reason}; check the broker URL")]
    Authentication {
        /// The address, without its password.
        url: String,
        /// What the broker said.
        reason: String,
    },
    /// The certificates do not fit.
    #[error(
        "no trusted TLS connection to {url}: {reason}; name who signed its certificate in ca_certs of broker_use_ssl, \
         or say that any is good enough by ssl_cert_reqs=none"
    )]
    Tls {
        /// The address, without its password.
        url: String,
        /// What the TLS library said.
        reason: String,
    },
    /// The connection broke: whether the broker has the message is not known.
    #[error("lost the connection to {url}: {reason}")]
    Disconnected {
        /// The address, without its password.
        url: String,
        /// What was seen.
        reason: String,
    },
    /// The broker has stopped taking messages (memory or disk alarm).
    #[error("the broker is blocked and takes no messages: {reason}; free its memory or disk")]
    Blocked {
        /// What the broker said.
        reason: String,
    },
    /// The broker is there and takes no messages for now: it is loading its
    /// data, is a replica, or another process holds its file.
    #[error("{url} takes no messages for now: {reason}")]
    Unavailable {
        /// The address, without its password.
        url: String,
        /// What the broker said.
        reason: String,
    },
    /// No queue takes a message that goes this way.
    #[error(
        "no queue is bound to exchange {exchange:?} with routing key {routing_key:?}; declare the queue or correct the route"
    )]
    Unroutable {
        /// The exchange; empty for the default exchange.
        exchange: String,
        /// The routing key.
        routing_key: String,
    },
    /// There is no such queue, and it was not to be declared.
    #[error("queue {queue:?} does not exist and is not to be declared: {reason}; create it, or let it be declared")]
    QueueMissing {
        /// The queue.
        queue: String,
        /// What the broker said.
        reason: String,
    },
    /// The queue or exchange is there already, with other arguments.
    #[error(
        "{entity} exists with other arguments: {reason}; make task_queues agree with the broker, or delete it there"
    )]
    PreconditionFailed {
        /// What was declared, as `queue 'x'` or `exchange 'x'`.
        entity: String,
        /// What the broker said.
        reason: String,
    },
    /// The user may not do this.
    #[error("the broker does not permit it: {reason}; grant the user the right")]
    AccessRefused {
        /// What the broker said.
        reason: String,
    },
    /// The broker refused the message (`basic.nack`): its queue is full, or cannot store it for now.
    #[error("queue {queue:?} refuses messages: it is full (x-max-length with reject-publish), or cannot store them")]
    QueueFull {
        /// The queue, or the routing key where the queue is not known.
        queue: String,
    },
    /// The broker has no room for it.
    #[error("the broker is out of memory: {reason}; raise its limit or drain its queues")]
    OutOfMemory {
        /// What the broker said.
        reason: String,
    },
    /// An answer that none of the others describes.
    #[error("the broker refused the message: {reason}")]
    Refused {
        /// What the broker said.
        reason: String,
    },
    /// A URL that cannot be read. It is not repeated, since it may hold a password.
    #[error("not a broker URL: {reason}")]
    InvalidUrl {
        /// What is wrong with it.
        reason: String,
    },
    /// An option that makes no sense.
    #[error("{option}: {reason}")]
    InvalidOption {
        /// Its name, as the user wrote it.
        option: String,
        /// What is wrong with it.
        reason: String,
    },
    /// A kind of broker that this build does not speak.
    #[error("no broker speaks {scheme:?} here; use amqp, amqps, redis, rediss or sqla+sqlite")]
    Unsupported {
        /// The URL's scheme.
        scheme: String,
    },
}

/// When what has failed may be tried again.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum RetryAdvice {
    /// Now, over a new connection to the same address.
    Now,
    /// Over a connection to the next address: this one leads where nobody takes messages (after a failover, to a
    /// replica), or nowhere.
    NextAddress,
    /// After a pause: the broker takes no messages at all.
    BackOff,
    /// After a pause: the broker takes no messages that go this way.
    BackOffRoute,
    /// Never: trying again changes nothing.
    Never,
}

impl BrokerError {
    /// When what has failed may be tried again.
    pub fn advice(&self) -> RetryAdvice {
        match self {
            Self::Disconnected { .. } => RetryAdvice::Now,
            Self::Connect { .. } | Self::Unavailable { .. } => RetryAdvice::NextAddress,
            Self::Blocked { .. } => RetryAdvice::BackOff,
            Self::QueueFull { .. } | Self::OutOfMemory { .. } => RetryAdvice::BackOffRoute,
            _ => RetryAdvice::Never,
        }
    }

    /// Whether the next try needs a new connection.
    pub fn is_disconnect(&self) -> bool {
        matches!(self.advice(), RetryAdvice::Now | RetryAdvice::NextAddress)
    }

    /// Whether trying again, with the same id, may help before the deadline.
    pub fn is_transient(&self) -> bool {
        self.is_disconnect() || self.advice() == RetryAdvice::BackOff
    }

    /// Whether the broker may have the message all the same.
    pub fn may_have_arrived(&self) -> bool {
        matches!(self, Self::Disconnected { .. })
    }
}
