//! Which queues a route reaches, and keeping the bindings where kombu looks for them.
//!
//! kombu puts a message back by looking its queue up in the bindings, and
//! drops it when they are gone. So they are written before a route's first
//! message on a connection, and again about every second while messages go
//! that way: a Redis that was flushed or restored from a backup heals.

use std::{
    collections::HashMap,
    hash::{Hash, Hasher},
    sync::Arc,
    time::{Duration, Instant},
};

use redis::{Cmd, Pipeline, Value};

use super::keys::Keys;
use crate::{
    broker::{
        BrokerError,
        binding::{self, Kind},
    },
    message::{Queue, Route},
};

/// How long a route is taken to be what it was.
const FRESH: Duration = Duration::from_secs(1);

/// Routing keys may be endless, what is known of them is not.
const MOST_ROUTES: usize = 4096;

/// kombu's rules for sweeping the bindings of expired queues (`BINDING_EXPIRES_FACTOR`, `MIN_BINDING_TTL`).
const LIFETIMES: u64 = 2;
const SHORTEST_LIFETIME_MS: u64 = 60 * 60 * 1000;

/// Binds an expiring queue: the binding itself, and by the server's clock
/// when a sweep may take the exchange's bindings away.
const BIND_EXPIRING: &str = "\
redis.call('SADD', KEYS[1], ARGV[1])
local seconds, micros = unpack(redis.call('TIME'))
local deadline = seconds * 1000 + math.floor(micros / 1000) + ARGV[3]
return redis.call('ZADD', KEYS[2], 'GT', deadline, ARGV[2])";

/// A queue that a message goes to.
#[derive(Clone, Debug)]
pub(super) struct Target {
    pub(super) queue: Arc<str>,
    /// Its `x-expires`: every publish puts its end off, as kombu's does.
    pub(super) expires_ms: Option<u64>,
}

/// Where the messages of a route go.
pub(super) type Targets = Arc<[Target]>;

/// What is known of a route.
pub(super) enum Known {
    /// Go ahead.
    Fresh(Targets),
    /// Go ahead, and write the bindings again on the way.
    Stale(Targets),
    /// Write the bindings and look the queues up first.
    Unknown,
}

/// The routes of one connection.
#[derive(Debug, Default)]
pub(super) struct Routes {
    known: HashMap<ByValue, (Targets, Instant)>,
    kinds: HashMap<String, Kind>,
    expires: HashMap<String, u64>,
}

impl Routes {
    pub(super) fn known(&self, route: &Arc<Route>) -> Known {
        match self.known.get(&ByValue(route.clone())) {
            Some((targets, since)) if since.elapsed() < FRESH => Known::Fresh(targets.clone()),
            // Nothing but the bindings of other queues can change where an exchange leads.
            Some((targets, _)) if route.exchange.is_empty() => Known::Stale(targets.clone()),
            _ => Known::Unknown,
        }
    }

    /// Adds what writes a route's bindings, and the look-up if it needs one, to a pipeline.
    pub(super) fn declare(&mut self, route: &Route, keys: &Keys, pipeline: &mut Pipeline) -> Result<(), BrokerError> {
        for queue in route.declare.iter().filter(|queue| queue.declare) {
            match expires_ms(queue) {
                Some(expires) => self.expires.insert(queue.name.clone(), expires),
                None => self.expires.remove(&queue.name),
            };
        }
        for (queue, exchange) in binding::bound(route) {
            let kind = Kind::of(exchange)?;
            if *self.kinds.entry(exchange.name.clone()).or_insert(kind) != kind {
                return Err(BrokerError::PreconditionFailed {
                    entity: format!("exchange {:?}", exchange.name),
                    reason: "two queues name different types for it".to_owned(),
                });
            }
            let member = keys.binding(&queue.routing_key, &kind.pattern(&queue.routing_key), &queue.name);
            self.bind(&exchange.name, &queue.name, &member, keys, pipeline);
        }
        if !route.exchange.is_empty() {
            // What no queue could be found by fails here, before anything is asked of Redis.
            self.kind(&route.exchange).matches(&route.exchange, "", "")?;
            pipeline.add_command(command("SMEMBERS", [keys.bindings(&route.exchange)]));
        }
        Ok(())
    }

    fn bind(&self, exchange: &str, queue: &str, member: &str, keys: &Keys, pipeline: &mut Pipeline) {
        match self.expires.get(queue) {
            Some(expires) => {
                let lifetime = expires.saturating_mul(LIFETIMES).max(SHORTEST_LIFETIME_MS);
                let mut eval = command("EVAL", [BIND_EXPIRING, "2", &keys.bindings(exchange), &keys.deadlines()]);
                eval.arg(member).arg(exchange).arg(lifetime);
                pipeline.add_command(eval);
            }
            None => {
                pipeline.add_command(command("SADD", [keys.bindings(exchange).as_str(), member]));
                pipeline.add_command(command("SADD", [keys.permanent_bindings(exchange).as_str(), member]));
            }
        }
    }

    /// Remembers a route whose bindings are written. `members` are its exchange's, if it has one.
    pub(super) fn learn(
        &mut self,
        route: &Arc<Route>,
        members: Option<&Value>,
        keys: &Keys,
    ) -> Result<Targets, BrokerError> {
        let queues = match route.exchange.as_str() {
            "" if route.routing_key.is_empty() => Vec::new(),
            "" => vec![route.routing_key.as_str()],
            _ => self.look_up(route, members, keys)?,
        };
        let targets: Targets = queues.into_iter().map(|queue| self.target(queue)).collect();
        if targets.is_empty() {
            return Err(binding::unroutable(route));
        }
        if self.known.len() >= MOST_ROUTES {
            self.known.clear();
        }
        self.known.insert(ByValue(route.clone()), (targets.clone(), Instant::now()));
        Ok(targets)
    }

    /// The route's bindings are on their way again.
    pub(super) fn refreshed(&mut self, route: &Arc<Route>) {
        if let Some((_, since)) = self.known.get_mut(&ByValue(route.clone())) {
            *since = Instant::now();
        }
    }

    /// Its bindings could not be written: the next message is to say so.
    pub(super) fn forget(&mut self, route: &Arc<Route>) {
        self.known.remove(&ByValue(route.clone()));
    }

    fn look_up<'a>(&self, route: &Route, members: Option<&'a Value>, keys: &Keys) -> Result<Vec<&'a str>, BrokerError> {
        let kind = self.kind(&route.exchange);
        let mut queues = Vec::new();
        for member in members.and_then(Value::as_sequence).unwrap_or_default() {
            let Value::BulkString(member) = member else { continue };
            // Not UTF-8 or not of three parts: no binding of kombu's.
            let binding = std::str::from_utf8(member).ok().and_then(|member| keys.parse_binding(member));
            let Some((bound, _, queue)) = binding else { continue };
            if kind.matches(&route.exchange, bound, &route.routing_key)? && !queues.contains(&queue) {
                queues.push(queue);
            }
        }
        Ok(queues)
    }

    /// An exchange that nobody declared is direct, as in kombu.
    fn kind(&self, exchange: &str) -> Kind {
        self.kinds.get(exchange).copied().unwrap_or(Kind::Direct)
    }

    fn target(&self, queue: &str) -> Target {
        Target { queue: queue.into(), expires_ms: self.expires.get(queue).copied() }
    }
}

/// `x-expires` as kombu reads it: whatever Python's `int()` takes.
fn expires_ms(queue: &Queue) -> Option<u64> {
    match queue.arguments.get("x-expires")? {
        serde_json::Value::Number(number) => number.as_u64().or_else(|| number.as_f64().map(|ms| ms as u64)),
        serde_json::Value::String(text) => text.trim().parse().ok(),
        _ => None,
    }
}

pub(super) fn command<const N: usize>(name: &str, arguments: [impl redis::ToRedisArgs; N]) -> Cmd {
    let mut command = redis::cmd(name);
    for argument in arguments {
        command.arg(argument);
    }
    command
}

/// A route as a key: two that say the same are the same.
#[derive(Debug)]
struct ByValue(Arc<Route>);

impl PartialEq for ByValue {
    fn eq(&self, other: &Self) -> bool {
        Arc::ptr_eq(&self.0, &other.0) || self.0 == other.0
    }
}

impl Eq for ByValue {}

impl Hash for ByValue {
    fn hash<H: Hasher>(&self, state: &mut H) {
        self.0.exchange.hash(state);
        self.0.routing_key.hash(state);
    }
}
