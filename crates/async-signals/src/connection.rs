//! Connecting receivers to a signal: with what options, and which is which.

use std::{
    any::TypeId,
    borrow::Cow,
    panic::Location,
    sync::{
        Arc, PoisonError, RwLock,
        atomic::{AtomicU64, Ordering},
    },
};

use thiserror::Error;

use crate::{receiver::Receiver, registry::DuplicateSignal, retry::RetryPolicy, sender::Sender};

/// How a receiver is connected, for
/// [`AsyncSignal::connect_with`](crate::AsyncSignal::connect_with).
///
/// ```
/// use async_signals::{Connect, Sender, retry::RetryPolicy};
///
/// let connect = Connect::new().sender(Sender::name("shop")).dispatch_uid("shop.email").retry(RetryPolicy::new(5));
/// ```
#[derive(Clone, Debug, Default)]
#[must_use = "it says how to connect, and connects nothing"]
pub struct Connect {
    pub(crate) sender: Option<Sender>,
    pub(crate) dispatch_uid: Option<Cow<'static, str>>,
    pub(crate) name: Option<Cow<'static, str>>,
    pub(crate) retry: Retry,
}

/// What was said of a receiver's retries.
#[derive(Clone, Debug, Default)]
pub(crate) enum Retry {
    /// Nothing: as the signal says.
    #[default]
    Signals,
    Never,
    Own(RetryPolicy),
}

impl Connect {
    /// For any sender, with the signal's retries, under the function's own name.
    pub fn new() -> Self {
        Self::default()
    }

    /// Only for what this sender sends. [`Sender::NONE`] is any sender.
    pub fn sender(mut self, sender: impl Into<Sender>) -> Self {
        let sender = sender.into();
        self.sender = (sender != Sender::NONE).then_some(sender);
        self
    }

    /// What tells the receiver from others: connecting a second one of the same
    /// uid and sender does nothing. It is also the receiver's name in messages.
    pub fn dispatch_uid(mut self, uid: impl Into<Cow<'static, str>>) -> Self {
        self.dispatch_uid = Some(uid.into());
        self
    }

    /// The receiver's name in messages that are tried again and in logs, where
    /// there is no [`dispatch_uid`](Connect::dispatch_uid). A function has its
    /// path for a name; a closure has none of its own.
    pub fn name(mut self, name: impl Into<Cow<'static, str>>) -> Self {
        self.name = Some(name.into());
        self
    }

    /// Has it tried again when it fails, whatever the signal says.
    pub fn retry(mut self, policy: RetryPolicy) -> Self {
        self.retry = Retry::Own(policy);
        self
    }

    /// Never has it tried again, whatever the signal says.
    pub fn no_retry(mut self) -> Self {
        self.retry = Retry::Never;
        self
    }
}

/// Why a receiver was not connected.
#[derive(Clone, Debug, Error)]
#[non_exhaustive]
pub enum ConnectError {
    /// Two signals have one name.
    #[error(transparent)]
    Duplicate(#[from] DuplicateSignal),
    /// A closure that is to be tried again: messages could not say which one.
    #[error(
        "the closure connected to {signal} at {place} is to be tried again, and messages have no name for it; \
         give it one with Connect::dispatch_uid or Connect::name, or say Connect::no_retry"
    )]
    Nameless {
        /// The signal's name.
        signal: &'static str,
        /// Where it was connected.
        place: &'static Location<'static>,
    },
}

/// A receiver's connection to a signal. Dropping it changes nothing: it is for
/// [`AsyncSignal::disconnect`](crate::AsyncSignal::disconnect).
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct Connection(u64);

/// Which receivers are to be disconnected: one [`Connection`], or all of a `dispatch_uid`.
#[derive(Clone, Debug)]
pub struct Disconnect<'a>(Which<'a>);

#[derive(Clone, Debug)]
enum Which<'a> {
    One(Connection),
    Uid(&'a str),
}

impl From<Connection> for Disconnect<'_> {
    fn from(connection: Connection) -> Self {
        Self(Which::One(connection))
    }
}

impl<'a> From<&'a str> for Disconnect<'a> {
    fn from(uid: &'a str) -> Self {
        Self(Which::Uid(uid))
    }
}

/// What two connections of one sender must not share.
#[derive(Debug, PartialEq)]
enum Identity {
    Uid(Cow<'static, str>),
    Function(TypeId),
    Itself,
}

/// A connected receiver.
#[derive(Debug)]
pub(crate) struct Connected<P> {
    connection: Connection,
    identity: Identity,
    sender: Option<Sender>,
    retry: Retry,
    /// What messages and logs call it.
    pub(crate) name: Arc<str>,
    pub(crate) receiver: Receiver<P>,
}

impl<P> Connected<P> {
    /// Whether it is for what this sender sends.
    pub(crate) fn is_for(&self, sender: &Sender) -> bool {
        self.sender.as_ref().is_none_or(|own| own.matches(sender))
    }

    /// Its retries, where the signal has these.
    pub(crate) fn retry<'a>(&'a self, signals: Option<&'a RetryPolicy>) -> Option<&'a RetryPolicy> {
        match &self.retry {
            Retry::Signals => signals,
            Retry::Never => None,
            Retry::Own(policy) => Some(policy),
        }
    }

    fn is_meant(&self, which: &Which<'_>) -> bool {
        match which {
            Which::One(connection) => self.connection == *connection,
            Which::Uid(uid) => matches!(&self.identity, Identity::Uid(own) if own == uid),
        }
    }
}

/// The receivers of a signal, in the order in which they were connected. The
/// lock is held for a moment only, and never while a receiver runs.
#[derive(Debug)]
pub(crate) struct Connections<P>(RwLock<Vec<Arc<Connected<P>>>>);

impl<P> Connections<P> {
    pub(crate) const fn new() -> Self {
        Self(RwLock::new(Vec::new()))
    }

    /// Those for what a sender sends, in the order in which they were connected.
    pub(crate) fn of(&self, sender: &Sender) -> Vec<Arc<Connected<P>>> {
        let list = self.0.read().unwrap_or_else(PoisonError::into_inner);
        list.iter().filter(|connected| connected.is_for(sender)).cloned().collect()
    }

    pub(crate) fn has_any_of(&self, sender: &Sender) -> bool {
        let list = self.0.read().unwrap_or_else(PoisonError::into_inner);
        list.iter().any(|connected| connected.is_for(sender))
    }

    /// Adds a receiver, unless it is there already.
    pub(crate) fn add(
        &self,
        receiver: Receiver<P>,
        options: Connect,
        signal: (&'static str, Option<&RetryPolicy>),
        place: &'static Location<'static>,
    ) -> Result<Connection, ConnectError> {
        let identity = match (&options.dispatch_uid, receiver.type_id) {
            (Some(uid), _) => Identity::Uid(uid.clone()),
            (None, Some(function)) => Identity::Function(function),
            (None, None) => Identity::Itself,
        };
        // What the compiler calls a closure, or a pointer to a function, may be another's name tomorrow.
        let is_function = receiver.type_id.is_some() && !receiver.type_name.contains("{{closure}}");
        let given = options.dispatch_uid.or(options.name);
        let retries = match &options.retry {
            Retry::Signals => signal.1.is_some(),
            Retry::Never => false,
            Retry::Own(_) => true,
        };
        if given.is_none() && !is_function && retries {
            return Err(ConnectError::Nameless { signal: signal.0, place });
        }
        let name = match given {
            Some(name) => name.into(),
            None if is_function => receiver.type_name.into(),
            None => format!("closure at {}:{}", place.file(), place.line()).into(),
        };
        let mut list = self.0.write().unwrap_or_else(PoisonError::into_inner);
        let same = |other: &&Arc<Connected<P>>| {
            identity != Identity::Itself && other.identity == identity && other.sender == options.sender
        };
        if let Some(same) = list.iter().find(same) {
            return Ok(same.connection);
        }
        static NEXT: AtomicU64 = AtomicU64::new(0);
        let connection = Connection(NEXT.fetch_add(1, Ordering::Relaxed));
        let connected =
            Connected { connection, identity, sender: options.sender, retry: options.retry, name, receiver };
        list.push(Arc::new(connected));
        Ok(connection)
    }

    /// Takes receivers away. Whether there were any.
    pub(crate) fn remove(&self, Disconnect(which): &Disconnect<'_>) -> bool {
        let mut list = self.0.write().unwrap_or_else(PoisonError::into_inner);
        let before = list.len();
        list.retain(|connected| !connected.is_meant(which));
        list.len() < before
    }
}
