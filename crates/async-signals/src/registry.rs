//! Which signals this process knows, by the names that messages have for them.
//!
//! A signal is known once a receiver is connected to it, by hand or by
//! [`#[receiver]`](macro@crate::receiver), or once a worker is told of it
//! ([`WorkerBuilder::signal`](crate::worker::WorkerBuilder::signal)). Nothing
//! else makes a message reach any code.

use std::{
    collections::HashMap,
    panic::Location,
    sync::{OnceLock, PoisonError, RwLock},
};

use thiserror::Error;

use crate::{connection::ConnectError, dispatch::Dispatch};

/// Two signals have one name, or an alias of one is the name of the other:
/// nobody could say whose receivers a message is for.
#[derive(Clone, Debug, Error)]
#[error("two signals have the name {name:?}: one made at {first}, one at {second}; give one of them another name")]
#[non_exhaustive]
pub struct DuplicateSignal {
    /// The name.
    pub name: &'static str,
    /// Where the one was made that is known already, …
    pub first: &'static Location<'static>,
    /// … and where the other one.
    pub second: &'static Location<'static>,
}

type Signals = HashMap<&'static str, &'static dyn Dispatch>;

static SIGNALS: RwLock<Option<Signals>> = RwLock::new(None);

/// Makes a signal known under its name and its aliases.
pub(crate) fn register(signal: &'static dyn Dispatch) -> Result<(), DuplicateSignal> {
    let names = || signal.aliases().iter().copied().chain([signal.name()]);
    if names().all(|name| lookup(name).is_some_and(|known| is_same(known, signal))) {
        return Ok(());
    }
    let mut signals = SIGNALS.write().unwrap_or_else(PoisonError::into_inner);
    let signals = signals.get_or_insert_default();
    for name in names() {
        if let Some(other) = signals.get(name).filter(|known| !is_same(**known, signal)) {
            return Err(DuplicateSignal { name, first: other.place(), second: signal.place() });
        }
    }
    signals.extend(names().map(|name| (name, signal)));
    Ok(())
}

/// The signal that has this name or alias.
pub(crate) fn find(name: &str) -> Option<&'static dyn Dispatch> {
    // What could not be linked is said by whoever starts a worker.
    let _ = link();
    lookup(name)
}

/// The names of all signals that this process knows, without aliases, in their order.
///
/// ```
/// use async_signals::{AsyncSignal, registry};
///
/// static ORDER_PLACED: AsyncSignal<()> = AsyncSignal::new("shop.signals.order_placed");
/// ORDER_PLACED.connect(|(): ()| println!("an order"));
/// assert_eq!(registry::names(), ["shop.signals.order_placed"]);
/// ```
pub fn names() -> Vec<&'static str> {
    let _ = link();
    let signals = SIGNALS.read().unwrap_or_else(PoisonError::into_inner);
    let mut names: Vec<_> = signals.iter().flatten().filter(|(name, signal)| **name == signal.name()).collect();
    names.sort_unstable_by_key(|(name, _)| **name);
    names.into_iter().map(|(name, _)| *name).collect()
}

fn lookup(name: &str) -> Option<&'static dyn Dispatch> {
    SIGNALS.read().unwrap_or_else(PoisonError::into_inner).as_ref()?.get(name).copied()
}

/// Whether both are one static.
fn is_same(one: &'static dyn Dispatch, other: &'static dyn Dispatch) -> bool {
    std::ptr::addr_eq(one, other)
}

/// A receiver that `#[receiver]` has put into the program.
#[doc(hidden)]
#[derive(Debug)]
pub struct Linked {
    connect: fn() -> Result<(), ConnectError>,
}

impl Linked {
    #[doc(hidden)]
    pub const fn new(connect: fn() -> Result<(), ConnectError>) -> Self {
        Self { connect }
    }
}

inventory::collect!(Linked);

/// Connects what `#[receiver]` has put into the program, once for each process.
pub(crate) fn link() -> Result<(), ConnectError> {
    static LINKED: OnceLock<Result<(), ConnectError>> = OnceLock::new();
    let linked = LINKED.get_or_init(|| {
        let mut first = Ok(());
        for linked in inventory::iter::<Linked> {
            if let Err(error) = (linked.connect)() {
                tracing::error!("a receiver is not connected: {error}");
                first = first.and(Err(error));
            }
        }
        first
    });
    linked.clone()
}
