//! Asking for messages.
//!
//! Usually one request at a time, which waits for messages. While there are
//! plenty, and where the broker can, two: it looks for the next messages while
//! the last ones are read.

use std::{collections::VecDeque, sync::Arc};

use futures_util::future::{self, FutureExt};
use tokio::time::Instant;

use super::{BATCH, Loop, Request};
use crate::broker::{BrokerError, Consumer, Tag, Taken};

/// How many messages each of two requests asks for.
const PART: usize = BATCH / 2;

/// The requests that are under way.
#[derive(Default)]
pub(super) struct Takes {
    /// The oldest first. Only that one is waited for, so that none overtakes another.
    requests: VecDeque<Take>,
    /// Whether the last one found all that it asked for.
    plenty: bool,
}

struct Take {
    limit: usize,
    request: Request<Vec<Taken>>,
}

impl Takes {
    /// The answer to the oldest one. Not ready while there is none.
    pub(super) async fn next(&mut self) -> Result<Vec<Taken>, BrokerError> {
        let Some(Take { limit, request }) = self.requests.front_mut() else { return future::pending().await };
        let answer = request.await;
        self.plenty = answer.as_ref().is_ok_and(|taken| taken.len() >= *limit);
        self.requests.pop_front();
        answer
    }

    pub(super) fn is_empty(&self) -> bool {
        self.requests.is_empty()
    }

    /// The connection is gone, and every answer with it.
    pub(super) fn forget(&mut self) {
        *self = Self::default();
    }

    /// How many messages may be about to come.
    fn coming(&self) -> usize {
        self.requests.iter().map(|take| take.limit).sum()
    }

    /// Sends a request.
    fn send(&mut self, consumer: Arc<dyn Consumer>, done: Vec<Tag>, limit: usize, waits: bool) {
        let request = async move {
            if waits { consumer.take(&done, limit).await } else { consumer.take_ready(&done, limit).await }
        };
        let mut request = request.boxed();
        // It is on its way when it was polled once, whoever is waited for.
        let request = match (&mut request).now_or_never() {
            Some(answer) => future::ready(answer).boxed(),
            None => request,
        };
        self.requests.push_back(Take { limit, request });
    }
}

impl Loop {
    /// Asks for messages, as far as there is room for them.
    pub(super) fn take(&mut self, now: Instant) {
        let Some(consumer) = self.consumer.clone() else { return };
        let overlaps = self.takes.plenty && consumer.overlaps();
        let limit = match self.takes.requests.len() {
            0 => self.room(now).min(if overlaps { PART } else { BATCH }),
            1 if overlaps && self.room(now).min(self.window.room_beside(self.takes.coming())) >= PART => PART,
            _ => return,
        };
        if limit > 0 {
            // What is urgent must not wait for messages to come.
            let done = self.settlements.begin_take(self.suspects.need_answers());
            self.takes.send(consumer, done, limit, !overlaps);
        }
    }

    /// How many messages are worth taking.
    fn room(&self, now: Instant) -> usize {
        if self.suspects.are_here() {
            0
        } else if self.suspects.are_expected(now) {
            usize::from(self.window.is_idle())
        } else {
            self.window.room()
        }
    }
}
