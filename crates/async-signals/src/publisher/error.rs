use std::time::Duration;

use thiserror::Error;

use crate::broker::BrokerError;

/// Why a message was not handed over.
#[derive(Clone, Debug, Error)]
#[non_exhaustive]
pub enum PublishError {
    /// The broker, or the way to it, said no.
    #[error("{error}{}", if *may_have_arrived { " (the broker may have it all the same)" } else { "" })]
    Broker {
        /// What it said.
        error: BrokerError,
        /// Whether the broker may have the message all the same, since an earlier try was not answered.
        may_have_arrived: bool,
    },
    /// The deadline passed first.
    #[error(
        "not confirmed within {timeout:?}{}{}",
        if *may_have_arrived { " (the broker may have it all the same)" } else { "" },
        because(last)
    )]
    Deadline {
        /// The time that the send had.
        timeout: Duration,
        /// Whether the message had been handed to the broker by then.
        may_have_arrived: bool,
        /// What stood in the way, where something said so.
        last: Option<BrokerError>,
    },
    /// The buffer of the background sends is full and did not empty in time.
    #[error(
        "the send buffer is full ({messages} messages){}; flush as you go, raise buffer_size or buffer_timeout, \
         or send with durability=\"confirmed\"",
        because(last)
    )]
    BufferFull {
        /// How many messages it holds.
        messages: usize,
        /// What stands in the broker's way, where something said so.
        last: Option<BrokerError>,
    },
    /// The publisher was closed, or its thread is gone.
    #[error("the publisher is closed")]
    Closed,
    /// The publisher's thread ended before the message was settled, which it only does if something in it panics.
    #[error(
        "the publisher has ended{}",
        if *may_have_arrived { " (the broker may have it all the same)" } else { "" }
    )]
    Stopped {
        /// Whether the message had been handed to the broker by then.
        may_have_arrived: bool,
    },
    /// The publisher belongs to the process that this one was forked from.
    #[error("this publisher belongs to process {owner}; start one of your own after a fork")]
    Forked {
        /// The process that started it.
        owner: u32,
    },
}

fn because(last: &Option<BrokerError>) -> String {
    last.as_ref().map(|error| format!(": {error}")).unwrap_or_default()
}

impl From<BrokerError> for PublishError {
    fn from(error: BrokerError) -> Self {
        Self::Broker { may_have_arrived: error.may_have_arrived(), error }
    }
}

impl PublishError {
    /// Whether the broker may have the message all the same.
    pub fn may_have_arrived(&self) -> bool {
        match self {
            Self::Broker { may_have_arrived, .. }
            | Self::Deadline { may_have_arrived, .. }
            | Self::Stopped { may_have_arrived } => *may_have_arrived,
            _ => false,
        }
    }
}
