use futures_util::future::{BoxFuture, FutureExt};

use super::Memory;
use crate::broker::{
    BrokerError,
    browse::{Browser, Depth, Page, Position, sent_at},
};

impl Browser for Memory {
    fn depth<'a>(&'a self, queue: &'a str) -> BoxFuture<'a, Result<Option<Depth>, BrokerError>> {
        let queues = self.host.queues();
        let depth = queues.counts(queue).map(|(waiting, held)| Depth {
            ready: waiting as u64,
            in_flight: Some(held as u64),
            consumers: None,
            oldest: queues.look(queue, 0, 1).first().and_then(sent_at),
        });
        std::future::ready(Ok(depth)).boxed()
    }

    fn page<'a>(
        &'a self,
        queue: &'a str,
        from: Position,
        limit: usize,
    ) -> BoxFuture<'a, Result<Option<Page>, BrokerError>> {
        let skipped = usize::try_from(from.0).unwrap_or(usize::MAX);
        let messages = self.host.queues().look(queue, skipped, limit);
        let next = (messages.len() == limit).then(|| Position(from.0 + limit as u64));
        std::future::ready(Ok(Some(Page { messages, next }))).boxed()
    }
}
