//! Which faults there are at the moment.

use std::time::Duration;

/// What one address is like.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Address {
    /// A server that works.
    #[default]
    Open,
    /// Nobody listens.
    Closed,
    /// Somebody listens and never says anything.
    Silent,
    /// A server that lets everybody in and takes nothing.
    Replica,
    /// A server that knows another password.
    WrongPassword,
}

/// Probabilities are for each batch, unless it says something else. The default is fair weather.
#[derive(Clone, Debug, Default)]
pub struct Weather {
    /// What the addresses are like; those that are not named are open.
    pub addresses: Vec<Address>,
    /// The longest that anything takes.
    pub delay: Duration,
    /// How many bytes of bodies a connection carries in a second; 0: any number at once.
    pub bytes_per_second: usize,
    /// A sender's connection breaks in the middle of the batch.
    pub breaks: f64,
    /// For each request of a worker's: its connection breaks, before or after that was carried out.
    pub cuts: f64,
    /// The server goes on with what was handed over before a break, and nobody hears of it.
    pub goes_on: f64,
    /// The connection says nothing any more, and takes nothing.
    pub swallows: f64,
    /// The client's own library panics, before or after it has handed the request over.
    pub panics: f64,
    /// For each message: the broker has no room for it.
    pub nacks: f64,
    /// Queues that have room for nothing.
    pub full: Vec<String>,
    /// The server has no memory left.
    pub out_of_memory: bool,
    /// The broker says that it is blocked, and refuses all.
    pub blocked: bool,
    /// The broker says that it is blocked, and answers when it is so no more.
    pub withholds: bool,
}

impl Weather {
    pub fn address(&self, index: usize) -> Address {
        self.addresses.get(index).copied().unwrap_or_default()
    }
}
