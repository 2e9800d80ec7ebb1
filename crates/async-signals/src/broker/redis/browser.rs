//! Looking at queues in Redis and Valkey: `LLEN` and `LRANGE`.

use std::fmt;

use futures_util::future::{BoxFuture, FutureExt};
use redis::{Pipeline, Value};

use super::{routes::command, session::Session, taking::content};
use crate::broker::{
    BrokerConfig, BrokerError, BrokerUrl,
    browse::{Browser, Depth, Page, Position, sent_at},
};

/// How many bits of a position are the place in a list; the others are the list's number among its queue's.
const PLACE_BITS: u32 = 48;

/// One connection to a Redis or Valkey server that looks at its queues.
pub(crate) struct RedisBrowser {
    session: Session,
}

impl RedisBrowser {
    pub(in crate::broker) async fn connect(config: &BrokerConfig, url: &BrokerUrl) -> Result<Self, BrokerError> {
        Ok(Self { session: Session::open(config, url).await? })
    }

    async fn counted(&self, queue: &str) -> Result<Option<Depth>, BrokerError> {
        let lists: Vec<String> = self.session.keys.lists(queue).collect();
        let mut pipeline = Pipeline::with_capacity(2 * lists.len());
        for list in &lists {
            pipeline.add_command(command("LLEN", [list]));
            // kombu pushes on the left and takes from the right.
            pipeline.add_command(command("LINDEX", [list.as_str(), "-1"]));
        }
        let mut depth = Depth::default();
        for reply in self.session.send_all(&pipeline).await? {
            match reply {
                Value::Int(length) => depth.ready += u64::try_from(length).unwrap_or_default(),
                Value::BulkString(message) => {
                    let (_, content) = content(message);
                    let sent = sent_at(&content);
                    depth.oldest = match (depth.oldest, sent) {
                        (Some(oldest), Some(sent)) => Some(oldest.min(sent)),
                        (oldest, sent) => oldest.or(sent),
                    };
                }
                Value::Nil => {}
                other => return Err(self.session.unexpected(&other)),
            }
        }
        Ok(Some(depth))
    }

    async fn looked(&self, queue: &str, from: Position, limit: usize) -> Result<Option<Page>, BrokerError> {
        let lists: Vec<String> = self.session.keys.lists(queue).collect();
        let (mut list, mut place) = (usize::try_from(from.0 >> PLACE_BITS).unwrap_or(usize::MAX), place_of(from));
        let mut page = Page::default();
        while page.messages.len() < limit
            && let Some(name) = lists.get(list)
        {
            let wanted = (limit - page.messages.len()) as u64;
            let (first, last) = (format!("-{}", place + wanted), format!("-{}", place + 1));
            let reply = self.session.ask(command("LRANGE", [name.as_str(), &first, &last])).await?;
            let Value::Array(found) = reply else { return Err(self.session.unexpected(&reply)) };
            let is_last = (found.len() as u64) < wanted;
            place += found.len() as u64;
            for message in found.into_iter().rev() {
                let Value::BulkString(message) = message else { return Err(self.session.unexpected(&message)) };
                page.messages.push(content(message).1);
            }
            if is_last {
                (list, place) = (list + 1, 0);
            }
        }
        page.next = (list < lists.len()).then_some(Position(((list as u64) << PLACE_BITS) | place));
        Ok(Some(page))
    }
}

fn place_of(position: Position) -> u64 {
    position.0 & ((1 << PLACE_BITS) - 1)
}

impl Browser for RedisBrowser {
    fn depth<'a>(&'a self, queue: &'a str) -> BoxFuture<'a, Result<Option<Depth>, BrokerError>> {
        self.counted(queue).boxed()
    }

    fn page<'a>(
        &'a self,
        queue: &'a str,
        from: Position,
        limit: usize,
    ) -> BoxFuture<'a, Result<Option<Page>, BrokerError>> {
        self.looked(queue, from, limit).boxed()
    }
}

impl fmt::Debug for RedisBrowser {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("RedisBrowser").field("errors", &self.session.errors).finish_non_exhaustive()
    }
}
