//! RabbitMQ, and whatever else speaks AMQP 0-9-1, through lapin.
//!
//! Two halves: [`RabbitMq`] publishes, `RabbitMqConsumer` takes and settles,
//! each on a connection of its own, because a broker that is short of memory
//! blocks the connections that publish, and acknowledgements with them.
//!
//! Messages go out with publisher confirms and `mandatory`, declarations on a
//! channel of their own. lapin's own recovery is off: a connection that is
//! lost stays lost, and the [publisher](crate::publisher) makes a new one.

mod browser;
mod consumer;
mod declare;
mod deliveries;
mod error;
mod events;
mod headers;
mod incoming;
mod ledger;
mod line;
mod publishing;
mod sieve;
mod unsettled;

use std::{fmt, sync::Arc, time::Duration};

use futures_util::future::{BoxFuture, FutureExt};
use lapin::{
    Connection, ConnectionProperties,
    protocol::AMQPError,
    uri::{AMQPAuthority, AMQPQueryString, AMQPScheme, AMQPUri, AMQPUserInfo},
};
use tokio::sync::{mpsc, oneshot, watch};

pub(super) use self::{browser::RabbitMqBrowser, consumer::RabbitMqConsumer};
use self::{
    declare::Declarations,
    error::code,
    events::Events,
    headers::{properties, short},
    ledger::{Mark, Verdict},
    line::{Cord, Line},
    publishing::{Batch, Parcel, Publishing, Request},
};
use super::{Broker, BrokerConfig, BrokerError, BrokerUrl, Published};
use crate::message::{Outgoing, Route, TaskEvent};

/// kombu's defaults for both (`kombu/transport/pyamqp.py`).
const GUEST: &str = "guest";

/// A message whose channel closes under it this often, each time for another
/// message's sake, is sent without company.
const MOST_CLOSINGS: u8 = 3;

/// One connection to RabbitMQ.
pub struct RabbitMq {
    connection: Arc<Connection>,
    url: Arc<str>,
    declarations: Declarations,
    events: Events,
    requests: mpsc::Sender<Request>,
    blocked: watch::Receiver<Option<String>>,
}

impl RabbitMq {
    pub(super) async fn connect(config: &BrokerConfig, url: &BrokerUrl) -> Result<Self, BrokerError> {
        let (connection, cord) = open(config, url, "async-signals").await?;
        let connection = Arc::new(connection);
        let url: Arc<str> = url.to_string().into();
        let (requests, blocked) = Publishing::start(connection.clone(), url.clone(), cord);
        let events = Events::new(connection.clone());
        Ok(Self { connection, url, declarations: Declarations::default(), events, requests, blocked })
    }

    /// Publishes everything, and again what deserves another try.
    async fn publish_all(&self, batch: &[Outgoing]) -> Vec<Published> {
        let mut outcomes: Vec<Option<Published>> = vec![None; batch.len()];
        let mut tries: Vec<Try> = (0..batch.len()).map(Try::first).collect();
        while !tries.is_empty() {
            let (alone, together): (Vec<_>, Vec<_>) = tries.drain(..).partition(|this| this.alone);
            tries = self.publish_once(batch, together, false, &mut outcomes).await;
            for this in alone {
                tries.extend(self.publish_once(batch, vec![this], true, &mut outcomes).await);
            }
        }
        let untold = || Err(error::lost(&self.url, "the message got no answer"));
        outcomes.into_iter().map(|outcome| outcome.unwrap_or_else(untold)).collect()
    }

    /// Publishes what `tries` says, enters the outcomes that are final, and
    /// returns what is to be tried again.
    async fn publish_once(
        &self,
        batch: &[Outgoing],
        tries: Vec<Try>,
        alone: bool,
        outcomes: &mut [Option<Published>],
    ) -> Vec<Try> {
        let mut sent = Vec::with_capacity(tries.len());
        let mut parcels = Vec::with_capacity(tries.len());
        let mut declared: Option<(&Arc<Route>, Published)> = None;
        for this in tries {
            let Outgoing { route, .. } = &batch[this.index];
            let known = match declared.take() {
                Some((last, known)) if Arc::ptr_eq(last, route) => known,
                _ => self.declare(route).await,
            };
            let parcel = known.clone().and_then(|()| parcel(&batch[this.index]));
            declared = Some((route, known));
            match parcel {
                Ok(parcel) => {
                    sent.push(this);
                    parcels.push(parcel);
                }
                Err(error) => outcomes[this.index] = Some(Err(error)),
            }
        }
        if sent.is_empty() {
            return Vec::new();
        }
        let verdicts = match self.hand_over(parcels, alone).await {
            Ok(verdicts) => verdicts,
            Err(error) => sent.iter().map(|_| Verdict::Failed(error.clone())).collect(),
        };
        let mut again = Vec::new();
        for (this, verdict) in sent.into_iter().zip(verdicts) {
            match self.judge(&batch[this.index].route, this, verdict) {
                Next::Done(outcome) => outcomes[this.index] = Some(outcome),
                Next::Again(this) => again.push(this),
            }
        }
        again
    }

    /// Declares a route, unless the broker is blocked: it would not answer.
    async fn declare(&self, route: &Route) -> Published {
        let mut blocked = self.blocked.clone();
        let blocked = async { blocked.wait_for(Option::is_some).await.ok().and_then(|reason| reason.clone()) };
        tokio::select! {
            biased;
            // None if the task has ended, and with it the connection: declaring will say so.
            Some(reason) = blocked, if self.connection.status().connected() => Err(BrokerError::Blocked { reason }),
            declared = self.declarations.ensure(&self.connection, &self.url, route) => declared,
        }
    }

    async fn hand_over(&self, parcels: Vec<Parcel>, alone: bool) -> Result<Vec<Verdict>, BrokerError> {
        let (reply, verdicts) = oneshot::channel();
        let batch = Batch { parcels, alone, reply };
        let closed = || error::lost(&self.url, "it is closed");
        self.requests.send(Request::Publish(batch)).await.map_err(|_| closed())?;
        verdicts.await.map_err(|_| closed())
    }

    /// What a verdict means for the message.
    fn judge(&self, route: &Route, this: Try, verdict: Verdict) -> Next {
        match verdict {
            Verdict::Taken => Next::Done(Ok(())),
            Verdict::Full => Next::Done(Err(BrokerError::QueueFull { queue: queue_name(route) })),
            Verdict::Failed(error) => Next::Done(Err(error)),
            // The queue may have been deleted since it was declared.
            Verdict::Returned if !this.declared_again && self.declarations.forget(route) => {
                Next::Again(Try { declared_again: true, ..this })
            }
            Verdict::Returned => Next::Done(Err(BrokerError::Unroutable {
                exchange: route.exchange.clone(),
                routing_key: route.routing_key.clone(),
            })),
            Verdict::Again if this.alone && this.closings >= MOST_CLOSINGS => {
                Next::Done(Err(error::lost(&self.url, "its channels keep closing")))
            }
            Verdict::Again => Next::Again(this.after_closing()),
            Verdict::Closed(error) => match blame(&error, &route.exchange, this.alone) {
                Blame::Other => Next::Again(this.after_closing()),
                Blame::Unclear => Next::Again(Try { alone: true, ..this }),
                Blame::This
                    if error.get_id() == code::NOT_FOUND && !this.declared_again && self.declarations.forget(route) =>
                {
                    Next::Again(Try { declared_again: true, ..this })
                }
                Blame::This => Next::Done(Err(error::refused(&error))),
            },
        }
    }
}

impl Broker for RabbitMq {
    fn publish<'a>(&'a self, batch: &'a [Outgoing]) -> BoxFuture<'a, Vec<Published>> {
        self.publish_all(batch).boxed()
    }

    fn publish_events(&self, events: Vec<TaskEvent>) -> BoxFuture<'_, ()> {
        self.events.publish(events);
        std::future::ready(()).boxed()
    }

    // Four batches of 256: about a thousand confirms outstanding, beyond which
    // RabbitMQ's own flow control sets the pace.
    fn pipeline(&self) -> usize {
        4
    }

    fn blocked(&self) -> Option<BrokerError> {
        let reason = self.blocked.borrow().clone().filter(|_| self.connection.status().connected())?;
        Some(BrokerError::Blocked { reason })
    }

    fn close(&self) -> BoxFuture<'_, ()> {
        async {
            let (done, closed) = oneshot::channel();
            if self.requests.send(Request::Close(done)).await.is_ok() {
                let _ = closed.await;
            }
        }
        .boxed()
    }
}

impl fmt::Debug for RabbitMq {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("RabbitMq").field("url", &self.url).finish_non_exhaustive()
    }
}

/// Opens a connection that the broker lists under `name`. It ends with its cord.
async fn open(config: &BrokerConfig, url: &BrokerUrl, name: &str) -> Result<(Connection, Cord), BrokerError> {
    let (line, cord) = Line::connect(url, config.tls.as_ref()).await?;
    let properties = ConnectionProperties::default().with_connection_name(name.into());
    // If this is given up, the cord is dropped and takes lapin's thread with it.
    let connection = line.open(uri(config, url)?, properties).await;
    Ok((connection.map_err(|error| error::connecting(url, &error))?, cord))
}

/// One message's next try, and what its earlier ones have shown.
#[derive(Clone, Copy, Debug)]
struct Try {
    index: usize,
    /// Its route was declared anew because nothing took it.
    declared_again: bool,
    /// How often a channel closed under it for another message's sake.
    closings: u8,
    /// To be sent without company, to tell whether it closes the channel.
    alone: bool,
}

impl Try {
    fn first(index: usize) -> Self {
        Self { index, declared_again: false, closings: 0, alone: false }
    }

    fn after_closing(self) -> Self {
        let closings = self.closings + 1;
        Self { closings, alone: self.alone || closings >= MOST_CLOSINGS, ..self }
    }
}

enum Next {
    Done(Published),
    Again(Try),
}

/// For whose sake the broker closed a channel.
#[derive(Debug, PartialEq)]
enum Blame {
    This,
    Other,
    Unclear,
}

/// The broker closes the whole channel for one message, and says which only in
/// words: `NOT_FOUND - no exchange 'x' in vhost '/'`.
fn blame(error: &AMQPError, exchange: &str, alone: bool) -> Blame {
    let text = error.get_message().as_str();
    if alone {
        Blame::This
    } else if !text.contains("exchange '") || text.contains("topic '") {
        // About one message's size or expiration, or one routing key of an exchange.
        Blame::Unclear
    } else {
        let name = if exchange.is_empty() { "amq.default" } else { exchange };
        if text.contains(&format!("exchange '{name}'")) { Blame::This } else { Blame::Other }
    }
}

fn parcel(Outgoing { route, message }: &Outgoing) -> Result<Parcel, BrokerError> {
    Ok(Parcel {
        exchange: short("exchange", route.exchange.as_str())?,
        routing_key: short("routing_key", route.routing_key.as_str())?,
        properties: properties(message)?,
        body: message.body.clone(),
        mark: Mark { route: route.clone(), correlation_id: message.properties.correlation_id.clone() },
    })
}

/// The queue that a route leads to, as far as the route tells.
fn queue_name(route: &Route) -> String {
    match &route.declare[..] {
        [queue] if !route.exchange.is_empty() => queue.name.clone(),
        _ => route.routing_key.clone(),
    }
}

/// The URL in lapin's terms, with kombu's defaults. The scheme tells lapin
/// nothing: encryption is the [`Line`]'s.
fn uri(config: &BrokerConfig, url: &BrokerUrl) -> Result<AMQPUri, BrokerError> {
    short("virtual host", url.virtual_host())?;
    // AMQP counts whole seconds, and 0 would mean none.
    let seconds = |heartbeat: Duration| u16::try_from(heartbeat.as_millis().div_ceil(1000)).unwrap_or(u16::MAX);
    let heartbeat = config.heartbeat.map(seconds);
    Ok(AMQPUri {
        scheme: AMQPScheme::AMQP,
        authority: AMQPAuthority {
            userinfo: AMQPUserInfo {
                username: url.username().unwrap_or(GUEST).to_owned(),
                password: url.password().unwrap_or(GUEST).to_owned(),
            },
            host: url.host().to_owned(),
            port: url.port(),
        },
        vhost: url.virtual_host().to_owned(),
        query: AMQPQueryString { heartbeat, ..AMQPQueryString::default() },
    })
}

#[cfg(test)]
mod tests {
    use lapin::protocol::AMQPSoftError;

    use super::*;

    fn blamed(text: &str, exchange: &str) -> Blame {
        blame(&AMQPError::new(AMQPSoftError::NOTFOUND.into(), text.into()), exchange, false)
    }

    #[test]
    fn blames_the_exchange_that_the_broker_names() {
        let missing = "NOT_FOUND - no exchange 'orders' in vhost '/'";
        assert_eq!(blamed(missing, "orders"), Blame::This);
        assert_eq!(blamed(missing, "order"), Blame::Other);
        assert_eq!(blamed(missing, ""), Blame::Other);
        let refused = "ACCESS_REFUSED - access to exchange 'amq.default' in vhost '/' refused for user 'me'";
        assert_eq!(blamed(refused, ""), Blame::This);
    }

    #[test]
    fn blames_nobody_in_company_when_one_message_is_meant() {
        let expiration = "PRECONDITION_FAILED - invalid expiration '99999999999'";
        assert_eq!(blamed(expiration, ""), Blame::Unclear);
        let topic = "ACCESS_REFUSED - access to topic 'a.b' in exchange 'amq.topic' in vhost '/' refused for user 'me'";
        assert_eq!(blamed(topic, "amq.topic"), Blame::Unclear);
        assert_eq!(blame(&AMQPError::new(AMQPSoftError::NOTFOUND.into(), topic.into()), "x", true), Blame::This);
    }

    #[test]
    fn fills_in_kombus_defaults_and_asks_for_whole_seconds() {
        let mut config = BrokerConfig::new("amqp://rabbit").expect("a URL");
        config.heartbeat = Some(Duration::from_millis(1500));
        let uri = uri(&config, &config.urls[0]).expect("a URI");
        assert_eq!(
            (uri.authority.userinfo.username.as_str(), uri.authority.userinfo.password.as_str()),
            (GUEST, GUEST)
        );
        assert_eq!((uri.vhost.as_str(), uri.authority.port, uri.query.heartbeat), ("/", 5672, Some(2)));
    }
}
