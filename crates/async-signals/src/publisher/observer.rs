//! Who is told what no sender waits for.

use std::sync::Arc;

use super::PublishError;
use crate::{broker::BrokerError, message::Message, panics};

/// Hears what no sender waits for. Called on the publisher's thread, which it must not hold up.
pub trait Observer: Send + Sync {
    /// A background message will not be delivered.
    fn lost(&self, _message: &Message, _error: &PublishError) {}
    /// The connection is gone, or could not be made. Called once until it is back.
    fn disconnected(&self, _error: &BrokerError) {}
    /// The connection is back after it was gone.
    fn reconnected(&self) {}
    /// Background messages are held, since their queue takes none for now. Called once until it takes some again.
    fn held(&self, _error: &BrokerError) {}
}

impl Observer for () {}

/// An observer whose panics are its own: they end no publisher.
pub(super) struct Guarded(pub(super) Arc<dyn Observer>);

impl Guarded {
    fn tell(&self, what: impl FnOnce(&dyn Observer)) {
        panics::guarded("publisher", || what(&*self.0));
    }
}

impl Observer for Guarded {
    fn lost(&self, message: &Message, error: &PublishError) {
        self.tell(|observer| observer.lost(message, error));
    }

    fn disconnected(&self, error: &BrokerError) {
        self.tell(|observer| observer.disconnected(error));
    }

    fn reconnected(&self) {
        self.tell(|observer| observer.reconnected());
    }

    fn held(&self, error: &BrokerError) {
        self.tell(|observer| observer.held(error));
    }
}
