//! Redis and Valkey, in kombu's layout.
//!
//! One multiplexed connection. A batch is one `LPUSH` for each list that it
//! reaches, all of them in one pipeline; each reply is the confirmation of the
//! messages it carried. Taking is in `consumer.rs`, looking in `browser.rs`.

mod address;
mod browser;
mod connection;
mod consumer;
mod error;
mod keys;
mod presence;
mod push;
mod restoring;
mod routes;
mod session;
mod tags;
mod taking;
mod tls;
mod waking;

use std::{collections::HashMap, fmt, future::poll_fn, pin::pin, sync::Arc, task::Poll};

use futures_util::future::{BoxFuture, FutureExt};
use redis::{Pipeline, RedisResult, Value, aio::MultiplexedConnection};
use tokio::sync::Mutex;

pub(super) use self::{browser::RedisBrowser, consumer::RedisConsumer};
use self::{
    error::Errors,
    keys::Keys,
    push::Pushes,
    routes::{Known, Routes, Targets, command},
};
use super::{Broker, BrokerConfig, BrokerError, BrokerUrl, Published};
use crate::{
    ids::Ids,
    message::{Outgoing, Route, TaskEvent},
    protocol::kombu::write_envelope,
};

/// One connection to a Redis or Valkey server.
pub struct Redis {
    connection: MultiplexedConnection,
    database: i64,
    keys: Keys,
    ids: Ids,
    errors: Errors,
    /// Whoever holds it is the next to hand its commands to the connection, so
    /// that no later batch overtakes one that has to look its queues up.
    routes: Mutex<Routes>,
}

impl fmt::Debug for Redis {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Redis").field("errors", &self.errors).finish_non_exhaustive()
    }
}

impl Redis {
    pub(super) async fn connect(config: &BrokerConfig, url: &BrokerUrl) -> Result<Self, BrokerError> {
        let keys = Keys::new(&config.transport_options)?;
        let (connection, errors) = connection::open(config, url).await?;
        let database = address::database(url)?.into();
        Ok(Self { connection, database, keys, ids: Ids::default(), errors, routes: Mutex::default() })
    }

    async fn publish_all(&self, batch: &[Outgoing]) -> Vec<Published> {
        let mut routes = self.routes.lock().await;
        let ways = self.ways(&mut routes, batch).await;
        let mut outcomes = vec![Ok(()); batch.len()];
        let mut pushes = Pushes::new(&self.keys, &self.ids, batch.len());
        for way in &ways.distinct {
            if let (route, Ok(Way { stale: true, .. })) = way {
                match routes.declare(route, &self.keys, &mut pushes.pipeline) {
                    Ok(()) => routes.refreshed(route),
                    Err(error) => tracing::warn!(%error, "cannot bind the queues again"),
                }
            }
        }
        let refreshes = pushes.pipeline.len();
        for (index, Outgoing { route, message }) in batch.iter().enumerate() {
            let pushed = match &ways.distinct[ways.of[index]].1 {
                Ok(way) => pushes.add(index, message, route, &way.targets),
                Err(error) => Err(error.clone()),
            };
            outcomes[index] = pushed;
        }
        let (pipeline, pushed) = pushes.finish();
        if pipeline.is_empty() {
            return outcomes;
        }
        let mut connection = self.connection.clone();
        let mut reply = pin!(connection.send_packed_commands(&pipeline, 0, pipeline.len()));
        // The first poll hands the commands over, the rest waits for the replies: the next batch need not.
        let first = poll_fn(|context| Poll::Ready(reply.as_mut().poll(context))).await;
        drop(routes);
        let replies = match first {
            Poll::Ready(replies) => replies,
            Poll::Pending => reply.await,
        };
        self.settle(&replies, refreshes, &pushed, &mut outcomes);
        if let Ok(replies) = &replies
            && let Some(Value::ServerError(error)) = replies.iter().take(refreshes).find(|reply| is_refusal(reply))
        {
            tracing::warn!(error = %self.errors.server(error), "cannot bind the queues again");
            let mut routes = self.routes.lock().await;
            ways.distinct.iter().for_each(|(route, _)| routes.forget(route));
        }
        outcomes
    }

    /// Finds where each route leads, with one more round trip if any of them is new.
    async fn ways<'a>(&self, routes: &mut Routes, batch: &'a [Outgoing]) -> Ways<'a> {
        let mut ways = Ways::of(batch);
        let mut pipeline = Pipeline::new();
        let mut asked = Vec::new();
        for (index, (route, way)) in ways.distinct.iter_mut().enumerate() {
            *way = match routes.known(route) {
                Known::Fresh(targets) => Ok(Way { targets, stale: false }),
                Known::Stale(targets) => Ok(Way { targets, stale: true }),
                Known::Unknown => {
                    let start = pipeline.len();
                    routes.declare(route, &self.keys, &mut pipeline).map(|()| {
                        asked.push((index, start..pipeline.len()));
                        Way::default()
                    })
                }
            };
        }
        if asked.is_empty() {
            return ways;
        }
        let replies = if pipeline.is_empty() {
            Ok(Vec::new())
        } else {
            self.connection.clone().send_packed_commands(&pipeline, 0, pipeline.len()).await
        };
        for (index, range) in asked {
            let (route, way) = &mut ways.distinct[index];
            *way = match &replies {
                Err(error) => Err(self.errors.disconnected(error)),
                Ok(replies) => {
                    let replies = replies.get(range).unwrap_or_default();
                    match replies.iter().find(|reply| is_refusal(reply)) {
                        Some(Value::ServerError(error)) => Err(self.errors.server(error)),
                        // The look-up is the last of what a route asks.
                        _ => {
                            let learned = routes.learn(route, replies.last(), &self.keys);
                            learned.map(|targets| Way { targets, stale: false })
                        }
                    }
                }
            };
        }
        ways
    }

    /// Hands each message the reply to the command that carried it.
    fn settle(
        &self,
        replies: &RedisResult<Vec<Value>>,
        refreshes: usize,
        pushed: &[Vec<usize>],
        outcomes: &mut [Published],
    ) {
        for (command, messages) in pushed.iter().enumerate() {
            let outcome = match replies {
                Err(error) => Err(self.errors.disconnected(error)),
                Ok(replies) => match replies.get(refreshes + command) {
                    Some(Value::Int(_)) => continue,
                    Some(Value::ServerError(error)) => Err(self.errors.server(error)),
                    other => Err(BrokerError::Refused { reason: format!("LPUSH was answered with {other:?}") }),
                },
            };
            for message in messages {
                outcomes[*message].clone_from(&outcome);
            }
        }
    }
}

impl Broker for Redis {
    fn publish<'a>(&'a self, batch: &'a [Outgoing]) -> BoxFuture<'a, Vec<Published>> {
        self.publish_all(batch).boxed()
    }

    /// As kombu publishes to a fanout exchange. A server that refuses is not asked why.
    fn publish_events(&self, events: Vec<TaskEvent>) -> BoxFuture<'_, ()> {
        async move {
            let mut pipeline = Pipeline::with_capacity(events.len());
            let mut envelope = Vec::new();
            for TaskEvent { exchange, routing_key, message } in &events {
                envelope.clear();
                if write_envelope(&mut envelope, message, &exchange.name, routing_key, self.ids.next()).is_ok() {
                    let channel = self.keys.fanout_channel(self.database, &exchange.name, routing_key);
                    let mut publish = command("PUBLISH", [channel]);
                    publish.arg(&envelope);
                    pipeline.add_command(publish);
                }
            }
            if !pipeline.is_empty() {
                let _ = self.connection.clone().send_packed_commands(&pipeline, 0, pipeline.len()).await;
            }
        }
        .boxed()
    }

    fn batch(&self) -> usize {
        push::MOST_MESSAGES
    }

    /// Nothing is pending once the publishes have returned: dropping the connection closes it.
    fn close(&self) -> BoxFuture<'_, ()> {
        std::future::ready(()).boxed()
    }
}

/// Where one route leads.
#[derive(Default)]
struct Way {
    targets: Targets,
    /// Its bindings are to be written again.
    stale: bool,
}

/// Where the messages of a batch go.
struct Ways<'a> {
    distinct: Vec<(&'a Arc<Route>, Result<Way, BrokerError>)>,
    /// For each message, its route's place in `distinct`.
    of: Vec<usize>,
}

impl<'a> Ways<'a> {
    fn of(batch: &'a [Outgoing]) -> Self {
        let mut ways = Self { distinct: Vec::new(), of: Vec::with_capacity(batch.len()) };
        let mut places: HashMap<*const Route, usize> = HashMap::new();
        for (index, Outgoing { route, .. }) in batch.iter().enumerate() {
            let place = match index.checked_sub(1) {
                Some(last) if Arc::ptr_eq(route, &batch[last].route) => ways.of[last],
                _ => *places.entry(Arc::as_ptr(route)).or_insert_with(|| {
                    ways.distinct.push((route, Ok(Way::default())));
                    ways.distinct.len() - 1
                }),
            };
            ways.of.push(place);
        }
        ways
    }
}

fn is_refusal(reply: &Value) -> bool {
    matches!(reply, Value::ServerError(_))
}
