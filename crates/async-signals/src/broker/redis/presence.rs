//! Who is alive.
//!
//! A worker signs on before it takes anything, and stands among the workers
//! for as long as it holds something. With its generation goes the right to
//! take: a later connection of the same worker, or whoever found it dead,
//! takes that away first. So nothing is ever taken in the name of somebody
//! whose messages are being put back, nor by a request of a broken connection
//! that arrives late.

use std::{
    collections::HashMap,
    sync::{Mutex, PoisonError},
    time::{Duration, Instant},
};

use redis::Value;
use serde_json::{Map, Value as Json};

use super::{
    session::{Script, Session, pairs},
    tags,
};
use crate::broker::{
    BrokerError, Tag,
    consumer::{DEAD_AFTER, HEARTBEAT},
};

/// After this long without a sign of life a worker is suspected to be dead, …
const SILENCE: Duration = DEAD_AFTER.saturating_sub(HEARTBEAT);
/// … and if there was still none after this long, it is. Every worker is silent when a server that stood
/// still goes on: its first requests are waiting to be read.
const SECOND_LOOK: Duration = HEARTBEAT.saturating_sub(Duration::from_millis(500));

/// How many expired leases are told of at once.
const MOST_EXPIRED: usize = 512;

/// kombu's `visibility_timeout`, in seconds.
const VISIBILITY_TIMEOUT: f64 = 3600.0;

static SIGN_ON: Script = Script::new(
    "-- A write that needs no memory opens the way for those that do (see take.lua).
redis.call('ZREM', KEYS[1], '')
redis.call('HSET', KEYS[2], ARGV[1], ARGV[2])
local seconds, micros = unpack(redis.call('TIME'))
local now = seconds * 1000 + math.floor(micros / 1000)
return redis.call('ZADD', KEYS[1], string.format('%.0f', now), ARGV[1])",
);

static RENEW: Script = Script::new(include_str!("scripts/renew.lua"));

static BURY: Script = Script::new(
    "if redis.call('ZSCORE', KEYS[1], ARGV[1]) ~= ARGV[2] then return 0 end
redis.call('HDEL', KEYS[2], ARGV[1])
return 1",
);

static SIGN_OFF: Script = Script::new(
    "if redis.call('HGET', KEYS[2], ARGV[1]) ~= ARGV[2] then return 0 end
redis.call('HDEL', KEYS[2], ARGV[1])
return 1",
);

static FORGET: Script = Script::new(
    "if redis.call('HEXISTS', KEYS[2], ARGV[1]) == 1 then return 0 end
return redis.call('ZREM', KEYS[1], ARGV[1])",
);

/// One worker among the others.
#[derive(Debug)]
pub(super) struct Presence {
    worker: String,
    generation: u32,
    /// Seconds after which a lease has expired that nobody renews.
    visibility_timeout: f64,
    /// Who was silent at the last look: the last sign of life, and when the silence was noticed first.
    suspects: Mutex<HashMap<String, (String, Instant)>>,
}

/// A worker that died.
#[derive(Debug, PartialEq)]
pub(super) struct Dead {
    pub(super) worker: String,
    last_sign: String,
}

/// A message whose lease has expired.
#[derive(Debug)]
pub(super) struct Expired {
    pub(super) tag: String,
    pub(super) lease: String,
}

impl Presence {
    /// Reads `visibility_timeout`.
    pub(super) fn new(worker: &str, generation: u32, options: &Map<String, Json>) -> Result<Self, BrokerError> {
        let visibility_timeout = match options.get("visibility_timeout") {
            None | Some(Json::Null) => VISIBILITY_TIMEOUT,
            Some(timeout) => {
                timeout.as_f64().filter(|seconds| *seconds > 0.0).ok_or_else(|| BrokerError::InvalidOption {
                    option: "broker_transport_options[\"visibility_timeout\"]".to_owned(),
                    reason: "must be a number of seconds above 0".to_owned(),
                })?
            }
        };
        // Others find a worker's messages by its name.
        if worker.is_empty() || !worker.bytes().all(|byte| byte.is_ascii_alphanumeric() || byte == b'-') {
            return Err(BrokerError::InvalidOption {
                option: format!("worker {worker:?}"),
                reason: "a worker's name has letters, digits and hyphens".to_owned(),
            });
        }
        Ok(Self { worker: worker.to_owned(), generation, visibility_timeout, suspects: Mutex::default() })
    }

    pub(super) fn worker(&self) -> &str {
        &self.worker
    }

    /// From here on this connection may take, and no earlier one of this worker.
    pub(super) async fn sign_on(&self, session: &Session) -> Result<(), BrokerError> {
        let generation = self.generation.to_string();
        self.change(session, &SIGN_ON, &self.worker, &generation).await.map(drop)
    }

    /// Gives a sign of life, renews the leases, and looks who died and what has expired.
    pub(super) async fn renew(
        &self,
        session: &Session,
        held: &[Tag],
    ) -> Result<(Vec<Dead>, Vec<Expired>), BrokerError> {
        let reply = session.run(&RENEW, 3, |command| {
            command.arg(session.keys.unacked_index()).arg(session.keys.workers()).arg(session.keys.generations());
            command.arg(&self.worker).arg(self.generation);
            command.arg(SILENCE.as_millis() as u64).arg(self.visibility_timeout).arg(MOST_EXPIRED);
            for tag in held {
                command.arg(tags::write(&self.worker, *tag));
            }
        });
        let (silent, expired) = match reply.await? {
            Value::Array(mut parts) if parts.len() == 2 => {
                let expired = pairs(parts.pop().unwrap_or(Value::Nil));
                (pairs(parts.pop().unwrap_or(Value::Nil)), expired)
            }
            other => return Err(session.unexpected(&other)),
        };
        let expired = expired.into_iter().map(|(tag, lease)| Expired { tag, lease }).collect();
        Ok((self.judge(silent, Instant::now()), expired))
    }

    /// Those of the silent that were silent long enough.
    fn judge(&self, silent: Vec<(String, String)>, now: Instant) -> Vec<Dead> {
        let mut suspects = self.suspects.lock().unwrap_or_else(PoisonError::into_inner);
        let mut still = HashMap::with_capacity(silent.len());
        let mut dead = Vec::new();
        for (worker, last_sign) in silent {
            let noticed = match suspects.remove(&worker) {
                Some((sign, noticed)) if sign == last_sign => noticed,
                _ => now,
            };
            if now.duration_since(noticed) >= SECOND_LOOK {
                dead.push(Dead { worker: worker.clone(), last_sign: last_sign.clone() });
            }
            still.insert(worker, (last_sign, noticed));
        }
        *suspects = still;
        dead
    }

    /// Takes a dead worker's right to take away. `false` if it has come back to life.
    pub(super) async fn bury(&self, session: &Session, dead: &Dead) -> Result<bool, BrokerError> {
        self.change(session, &BURY, &dead.worker, &dead.last_sign).await
    }

    /// From here on this connection may not take any more. `false` if that is so already.
    pub(super) async fn sign_off(&self, session: &Session) -> Result<bool, BrokerError> {
        let generation = self.generation.to_string();
        self.change(session, &SIGN_OFF, &self.worker, &generation).await
    }

    /// Strikes off a worker that may not take and holds nothing.
    pub(super) async fn forget(&self, session: &Session, worker: &str) -> Result<(), BrokerError> {
        self.change(session, &FORGET, worker, "").await.map(drop)
    }

    async fn change(
        &self,
        session: &Session,
        script: &Script,
        worker: &str,
        argument: &str,
    ) -> Result<bool, BrokerError> {
        let reply = session.run(script, 2, |command| {
            command.arg(session.keys.workers()).arg(session.keys.generations()).arg(worker).arg(argument);
        });
        Ok(reply.await? == Value::Int(1))
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn presence(options: Json) -> Result<Presence, BrokerError> {
        Presence::new("me", 1, options.as_object().expect("a map"))
    }

    #[test]
    fn nobody_is_dead_at_first_sight() {
        let presence = presence(json!({})).expect("the defaults");
        let start = Instant::now();
        let silent = |sign: &str| vec![("other".to_owned(), sign.to_owned())];
        assert_eq!(presence.judge(silent("1"), start), []);
        assert_eq!(presence.judge(silent("1"), start + SECOND_LOOK / 2), [], "too soon after");
        let dead = presence.judge(silent("1"), start + SECOND_LOOK);
        assert_eq!(dead.iter().map(|dead| dead.worker.as_str()).collect::<Vec<_>>(), ["other"]);
        assert_eq!(presence.judge(silent("2"), start + 2 * SECOND_LOOK), [], "it has given a sign since");
        assert_eq!(presence.judge(vec![], start + 3 * SECOND_LOOK), []);
        assert_eq!(presence.judge(silent("2"), start + 4 * SECOND_LOOK), [], "it was there in between");
    }

    #[test]
    fn names_what_makes_no_sense() {
        for timeout in [json!(0), json!(-1), json!("3600"), json!([])] {
            let error = presence(json!({"visibility_timeout": timeout})).expect_err("no sense");
            assert!(error.to_string().contains("visibility_timeout"), "{error}");
        }
        assert_eq!(presence(json!({"visibility_timeout": 1.5})).expect("seconds").visibility_timeout, 1.5);
        for name in ["", "a.b", "a*", "ü"] {
            let error = Presence::new(name, 1, &Map::new()).expect_err(name);
            assert!(matches!(error, BrokerError::InvalidOption { .. }), "{error}");
        }
    }
}
