//! Exchanges, queues and bindings, declared as kombu does
//! (`kombu/entity.py:Queue.declare`) and once per connection.

use std::{
    collections::HashMap,
    sync::{Mutex, MutexGuard, PoisonError},
};

use lapin::{
    Channel, Connection, ExchangeKind,
    options::{ExchangeDeclareOptions, QueueBindOptions, QueueDeclareOptions},
};

use super::{
    super::BrokerError,
    error,
    headers::{short, table},
};
use crate::message::{Exchange, Queue, Route};

/// Names of queues may be made up as one goes; a cache that has grown this
/// long is begun anew.
const MOST_KNOWN: usize = 10_000;

/// Exchanges of this prefix are the broker's own: kombu never declares them.
const BROKERS_OWN: &str = "amq.";

/// What has been declared on this connection.
#[derive(Debug, Default)]
pub(super) struct Declarations {
    /// By name; the same name with other arguments is another declaration,
    /// which the broker must see, to refuse it.
    known: Mutex<HashMap<String, Vec<Queue>>>,
    /// A refused declaration closes its channel, so these have one apart from
    /// the messages in flight. It is taken out while in use: a declaration
    /// whose caller goes away leaves no channel with a reply still to come.
    channel: tokio::sync::Mutex<Option<Channel>>,
}

impl Declarations {
    /// Declares whatever of the route is not known yet.
    pub(super) async fn ensure(&self, connection: &Connection, url: &str, route: &Route) -> Result<(), BrokerError> {
        if route.declare.iter().all(|queue| self.knows(queue)) {
            return Ok(());
        }
        // Whoever comes for the same queue meanwhile waits here, and finds it known.
        let mut place = self.channel.lock().await;
        for queue in &route.declare {
            if self.knows(queue) {
                continue;
            }
            let channel = match place.take() {
                Some(channel) if channel.status().connected() => channel,
                _ => connection.create_channel().await.map_err(|error| error::lost(url, error))?,
            };
            declare(&channel, url, queue).await?;
            *place = Some(channel);
            self.remember(queue);
        }
        Ok(())
    }

    /// Declares the route's queues again before the next message, and says
    /// whether there are any.
    pub(super) fn forget(&self, route: &Route) -> bool {
        let mut known = self.known();
        for queue in &route.declare {
            known.remove(&queue.name);
        }
        route.declare.iter().any(|queue| queue.declare)
    }

    fn knows(&self, queue: &Queue) -> bool {
        // kombu's no_declare holds for the queue, its exchange and its binding.
        !queue.declare || self.known().get(&queue.name).is_some_and(|known| known.contains(queue))
    }

    fn remember(&self, queue: &Queue) {
        let mut known = self.known();
        if known.len() >= MOST_KNOWN {
            known.clear();
        }
        known.entry(queue.name.clone()).or_default().push(queue.clone());
    }

    fn known(&self) -> MutexGuard<'_, HashMap<String, Vec<Queue>>> {
        self.known.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

async fn declare(channel: &Channel, url: &str, queue: &Queue) -> Result<(), BrokerError> {
    let name = short("queue", queue.name.as_str())?;
    let exchange = queue.exchange.as_ref().filter(|exchange| !exchange.name.is_empty());
    if let Some(exchange) = exchange {
        declare_exchange(channel, url, exchange).await?;
    }
    let options = QueueDeclareOptions {
        passive: false,
        durable: queue.durable,
        exclusive: queue.exclusive,
        auto_delete: queue.auto_delete,
        nowait: false,
    };
    let declared = channel.queue_declare(name.clone(), options, table(queue.arguments.clone())?).await;
    declared.map_err(|error| error::declaring(url, &format!("queue '{}'", queue.name), &error))?;
    let Some(exchange) = exchange else { return Ok(()) };
    let bound = channel.queue_bind(
        name,
        short("exchange", exchange.name.as_str())?,
        short("routing_key", queue.routing_key.as_str())?,
        QueueBindOptions::default(),
        table(queue.binding_arguments.clone())?,
    );
    let binding = || format!("the binding of queue '{}' to exchange '{}'", queue.name, exchange.name);
    bound.await.map_err(|error| error::declaring(url, &binding(), &error))
}

async fn declare_exchange(channel: &Channel, url: &str, exchange: &Exchange) -> Result<(), BrokerError> {
    let declared = ask_for_exchange(channel, exchange, false).await?;
    declared.map_err(|error| error::declaring(url, &format!("exchange '{}'", exchange.name), &error))
}

/// Asks for an exchange. `nowait`: without waiting for the broker's word, which closes the channel if it is a refusal.
pub(super) async fn ask_for_exchange(
    channel: &Channel,
    exchange: &Exchange,
    nowait: bool,
) -> Result<lapin::Result<()>, BrokerError> {
    if !exchange.declare || exchange.name.starts_with(BROKERS_OWN) {
        return Ok(Ok(()));
    }
    let kind = match exchange.kind.as_str() {
        "direct" => ExchangeKind::Direct,
        "fanout" => ExchangeKind::Fanout,
        "headers" => ExchangeKind::Headers,
        "topic" => ExchangeKind::Topic,
        custom => ExchangeKind::Custom(short("exchange_type", custom)?.to_string()),
    };
    let options = ExchangeDeclareOptions {
        passive: false,
        durable: exchange.durable,
        auto_delete: exchange.auto_delete,
        internal: false,
        nowait,
    };
    let name = short("exchange", exchange.name.as_str())?;
    Ok(channel.exchange_declare(name, kind, options, table(exchange.arguments.clone())?).await)
}
