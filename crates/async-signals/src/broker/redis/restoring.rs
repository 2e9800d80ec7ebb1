//! Putting back what was taken and not settled: to the front of its queue,
//! marked as delivered before where somebody may have begun it.

use std::{
    borrow::Cow,
    collections::HashMap,
    time::{Duration, Instant, SystemTime, UNIX_EPOCH},
};

use redis::{Pipeline, Value};
use serde_json::value::RawValue;

use super::{
    keys::Keys,
    presence::Expired,
    routes::command,
    session::{Script, Session, pairs, text},
    tags,
};
use crate::{
    broker::{BrokerError, Tag, binding::Kind},
    protocol::{delivery::mark_redelivered, kombu::Envelope},
};

/// So many go back in one script: others wait for it.
const BATCH: usize = 128;
/// So many tags are looked at in one step of the search for a worker's.
const SEARCHED: usize = 1000;

/// For how long a record that nobody can read is left alone.
const A_DAY: Duration = Duration::from_secs(86_400);

static RESTORE: Script = Script::new(include_str!("scripts/restore.lua"));

/// Whether somebody may have begun a message that goes back.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Was {
    Delivered,
    /// The answer that brought it was lost: nobody has seen it.
    NotDelivered,
}

/// A message to put back.
struct Return {
    tag: String,
    /// It goes back only while it has this lease. Empty: whichever.
    lease: String,
    lists: Vec<String>,
    envelope: Vec<u8>,
}

/// What lies in `unacked` under a tag.
#[derive(Debug, PartialEq)]
struct Record<'a> {
    envelope: &'a [u8],
    exchange: Cow<'a, str>,
    routing_key: Cow<'a, str>,
}

impl Session {
    /// What stands under a worker's name, the newest first.
    pub(super) async fn held_by(&self, worker: &str) -> Result<Vec<Tag>, BrokerError> {
        let mut found = Vec::new();
        let mut cursor = String::from("0");
        loop {
            let mut scan = command("ZSCAN", [self.keys.unacked_index(), &cursor]);
            scan.arg("MATCH").arg(format!("{worker}.*")).arg("COUNT").arg(SEARCHED);
            let (next, members) = match self.ask(scan).await? {
                Value::Array(mut parts) if parts.len() == 2 => {
                    let members = pairs(parts.pop().unwrap_or(Value::Nil));
                    (parts.pop().and_then(text), members)
                }
                other => return Err(self.unexpected(&other)),
            };
            let tags = members.iter().filter_map(|(name, _)| tags::read(name));
            found.extend(tags.filter(|(owner, _)| *owner == worker).map(|(_, tag)| tag));
            match next {
                Some(next) if next != "0" => cursor = next,
                _ => break,
            }
        }
        found.sort_unstable_by(|one, other| other.cmp(one));
        // A member may be told of twice while the set grows.
        found.dedup();
        Ok(found)
    }

    /// Puts messages of a worker back. They come in any order, and stand in their queue in the one
    /// in which they were taken. Stops after `until`: `false` if some are left.
    pub(super) async fn restore(
        &self,
        worker: &str,
        tags: &[Tag],
        was: Was,
        until: Option<Instant>,
    ) -> Result<bool, BrokerError> {
        let mut tags = tags.to_vec();
        // Each goes before those that went back earlier.
        tags.sort_unstable_by(|one, other| other.cmp(one));
        for batch in tags.chunks(BATCH) {
            if until.is_some_and(|until| Instant::now() >= until) {
                return Ok(false);
            }
            let batch = batch.iter().map(|tag| (tags::write(worker, *tag), String::new()));
            self.restore_batch(batch.collect(), was).await?;
        }
        Ok(true)
    }

    /// Puts back messages whose lease has expired, unless it is renewed by now.
    pub(super) async fn restore_expired(&self, mut expired: Vec<Expired>) -> Result<(), BrokerError> {
        // They came oldest first.
        expired.reverse();
        for batch in expired.chunks(BATCH) {
            let batch = batch.iter().map(|entry| (entry.tag.clone(), entry.lease.clone()));
            self.restore_batch(batch.collect(), Was::Delivered).await?;
        }
        Ok(())
    }

    async fn restore_batch(&self, batch: Vec<(String, String)>, was: Was) -> Result<(), BrokerError> {
        let mut ask = command("HMGET", [self.keys.unacked()]);
        batch.iter().for_each(|(tag, _)| {
            ask.arg(tag);
        });
        let records = match self.ask(ask).await? {
            Value::Array(records) if records.len() == batch.len() => records,
            other => return Err(self.unexpected(&other)),
        };
        let mut unreadable = Vec::new();
        let read = batch.iter().zip(&records).map(|((tag, _), record)| {
            let Value::BulkString(record) = record else { return None };
            let read = Record::read(tag, record);
            if read.is_none() {
                tracing::warn!(tag, "cannot put a message back for a day: what kombu keeps of it makes no sense");
                unreadable.push(tag.as_str());
            }
            read
        });
        let read: Vec<Option<Record<'_>>> = read.collect();
        self.postpone(&unreadable).await?;
        let bindings = self.bindings(read.iter().flatten()).await?;
        let returns = batch.into_iter().zip(&records).zip(read).filter_map(|(((tag, lease), found), record)| {
            match (found, record) {
                (Value::Nil, _) => Some(Return { tag, lease, lists: Vec::new(), envelope: Vec::new() }),
                (_, Some(record)) => Some(record.to_return((tag, lease), was, &bindings, &self.keys)),
                _ => None,
            }
        });
        let returns: Vec<Return> = returns.collect();
        if returns.is_empty() {
            return Ok(());
        }
        let lists = returns.iter().map(|entry| entry.lists.len()).sum::<usize>();
        let reply = self.run(&RESTORE, 2 + lists, |command| {
            command.arg(self.keys.unacked()).arg(self.keys.unacked_index());
            returns.iter().for_each(|entry| {
                command.arg(&entry.lists);
            });
            for entry in &returns {
                command.arg(&entry.tag).arg(&entry.lease).arg(&entry.envelope).arg(entry.lists.len());
            }
        });
        match reply.await? {
            Value::Int(restored) => {
                if restored > 0 {
                    tracing::debug!(restored, "put messages back into their queues");
                }
                Ok(())
            }
            other => Err(self.unexpected(&other)),
        }
    }

    /// Leaves records alone that nobody can read, for a day: they would stand before all others whose lease has expired.
    async fn postpone(&self, tags: &[&str]) -> Result<(), BrokerError> {
        if tags.is_empty() {
            return Ok(());
        }
        let until = SystemTime::now() + A_DAY;
        let until = until.duration_since(UNIX_EPOCH).unwrap_or_default().as_secs();
        let mut add = command("ZADD", [self.keys.unacked_index(), "XX"]);
        tags.iter().for_each(|tag| {
            add.arg(until).arg(*tag);
        });
        self.ask(add).await.map(drop)
    }

    /// The bindings of the exchanges that records name.
    async fn bindings<'a>(
        &self,
        records: impl Iterator<Item = &'a Record<'a>>,
    ) -> Result<HashMap<String, Vec<String>>, BrokerError> {
        let mut exchanges: Vec<&str> =
            records.map(|record| &*record.exchange).filter(|exchange| !exchange.is_empty()).collect();
        exchanges.sort_unstable();
        exchanges.dedup();
        let mut pipeline = Pipeline::new();
        for exchange in &exchanges {
            pipeline.add_command(command("SMEMBERS", [self.keys.bindings(exchange)]));
        }
        let replies = self.send_all(&pipeline).await?;
        let members = |reply: &Value| {
            let members = reply.as_sequence().unwrap_or_default().iter().cloned();
            members.filter_map(text).collect()
        };
        Ok(exchanges.into_iter().map(str::to_owned).zip(replies.iter().map(members)).collect())
    }
}

impl<'a> Record<'a> {
    fn read(tag: &str, record: &'a [u8]) -> Option<Self> {
        match tags::read(tag) {
            Some(_) => Self::read_ours(record),
            None => Self::read_kombus(record),
        }
    }

    /// `[<envelope>,"",<queue>]`, where the envelope may be anything at all.
    fn read_ours(record: &'a [u8]) -> Option<Self> {
        const BETWEEN: &[u8] = br#","","#;
        let inner = record.strip_prefix(b"[")?.strip_suffix(b"]")?;
        // No name of a queue contains it: its quotes are escaped.
        let end = inner.windows(BETWEEN.len()).rposition(|window| window == BETWEEN)?;
        let routing_key: String = serde_json::from_slice(&inner[end + BETWEEN.len()..]).ok()?;
        Some(Self { envelope: &inner[..end], exchange: Cow::Borrowed(""), routing_key: Cow::Owned(routing_key) })
    }

    fn read_kombus(record: &'a [u8]) -> Option<Self> {
        let (envelope, exchange, routing_key): (&RawValue, Option<String>, Option<String>) =
            serde_json::from_slice(record).ok()?;
        Some(Self {
            envelope: envelope.get().as_bytes(),
            exchange: Cow::Owned(exchange.unwrap_or_default()),
            routing_key: Cow::Owned(routing_key.unwrap_or_default()),
        })
    }

    fn to_return(
        &self,
        (tag, lease): (String, String),
        was: Was,
        bindings: &HashMap<String, Vec<String>>,
        keys: &Keys,
    ) -> Return {
        let priority = Envelope::read(self.envelope, usize::MAX).map(|envelope| envelope.priority());
        let priority = priority.unwrap_or_default();
        let members = bindings.get(&*self.exchange).map(Vec::as_slice).unwrap_or_default();
        let mut queues = self.queues(members, keys);
        if queues.is_empty() {
            // kombu drops it here.
            tracing::warn!(
                exchange = %self.exchange,
                queue = %self.routing_key,
                "no queue is bound to take a message back: it goes into the one that its routing key names"
            );
            queues.push(&self.routing_key);
        }
        let lists = queues.into_iter().map(|queue| keys.list(queue, priority)).collect();
        let envelope = match was {
            Was::Delivered => mark_redelivered(self.envelope),
            Was::NotDelivered => self.envelope.to_vec(),
        };
        Return { tag, lease, lists, envelope }
    }

    /// The queues that it came from, among the bindings of its exchange.
    fn queues<'b>(&'b self, members: &'b [String], keys: &Keys) -> Vec<&'b str> {
        if self.exchange.is_empty() {
            return vec![&self.routing_key];
        }
        let mut queues = Vec::new();
        for (bound, pattern, queue) in members.iter().filter_map(|member| keys.parse_binding(member)) {
            // kombu stores a pattern with the bindings of topics alone.
            let kind = if pattern.is_empty() { Kind::Direct } else { Kind::Topic };
            let matches = kind.matches(&self.exchange, bound, &self.routing_key).unwrap_or_default();
            if matches && !queues.contains(&queue) {
                queues.push(queue);
            }
        }
        queues
    }
}

#[cfg(test)]
mod tests {
    use serde_json::Map;

    use super::*;

    #[test]
    fn reads_records_whatever_lies_in_them() {
        for envelope in ["{}", "", "]", r#"{"a": ["",""]}"#, r#"1,"","q""#, "\u{0}"] {
            for queue in ["celery", r#"","",""#, "ü]"] {
                let record = format!(r#"[{envelope},"",{}]"#, serde_json::Value::from(queue));
                let read = Record::read("w.1.1", record.as_bytes()).expect("a record");
                assert_eq!((read.envelope, &*read.routing_key), (envelope.as_bytes(), queue));
            }
        }
        let record = br#"[{"body": "x"}, "orders", "order.placed"]"#;
        let read = Record::read("fd0a2c0e", record).expect("a record");
        assert_eq!(read.envelope, br#"{"body": "x"}"#);
        assert_eq!((&*read.exchange, &*read.routing_key), ("orders", "order.placed"));
        for broken in ["", "[]", "{}", r#"[1, "x"]"#, r#"[{}, "", "", ""]"#] {
            assert_eq!(Record::read("fd0a2c0e", broken.as_bytes()), None, "{broken}");
        }
    }

    #[test]
    fn finds_the_queues_that_a_message_came_from() {
        let keys = Keys::new(&Map::new()).expect("the defaults");
        let members = [
            "order.*\x06\x16^order\\.[^\\.]+$\x06\x16orders",
            "order.placed\x06\x16\x06\x16placed",
            "other\x06\x16\x06\x16other",
        ]
        .map(str::to_owned);
        let record = |exchange: &'static str, key: &'static str| Record {
            envelope: b"{}",
            exchange: Cow::Borrowed(exchange),
            routing_key: Cow::Borrowed(key),
        };
        assert_eq!(record("shop", "order.placed").queues(&members, &keys), ["orders", "placed"]);
        assert_eq!(record("shop", "order.*.x").queues(&members, &keys), Vec::<&str>::new());
        assert_eq!(record("", "celery").queues(&[], &keys), ["celery"]);
        let bindings = HashMap::from([("shop".to_owned(), Vec::new())]);
        let unbound =
            record("shop", "gone").to_return(("t".to_owned(), String::new()), Was::Delivered, &bindings, &keys);
        assert_eq!(unbound.lists, ["gone"], "nothing is dropped");
    }
}
