//! What the broker has pushed and nobody has taken yet, over all queues.
//!
//! lapin keeps what a consumer was pushed in that consumer's own stream,
//! without a bound of its own: the prefetch is the bound, since the broker
//! pushes no more than that before something is settled.

use std::{
    collections::VecDeque,
    sync::Arc,
    task::{Context, Poll, Waker},
};

use futures_util::StreamExt;
use lapin::{message::Delivery, types::ShortString};

/// The streams of all queues, merged fairly.
#[derive(Debug)]
pub(super) struct Deliveries {
    sources: Vec<Source>,
    /// Whose turn it is.
    turn: usize,
    /// Whoever waits for a delivery.
    taker: Option<Waker>,
    /// No more is wanted: every consumer is cancelled, or about to be.
    interrupted: bool,
}

/// One queue, and the consumers that read it: one, or an old and a new one
/// while the prefetch is changed.
#[derive(Debug)]
struct Source {
    queue: Arc<str>,
    /// The newest comes last.
    streams: Vec<Stream>,
    /// What came through several streams at once, in its order.
    ahead: VecDeque<Delivery>,
    /// A new consumer is under way. Until its stream is here, what the present ones are pushed may
    /// come after what that one was pushed.
    expecting: bool,
}

#[derive(Debug)]
struct Stream {
    consumer: lapin::Consumer,
    /// We have cancelled it ourselves.
    retired: bool,
}

/// A delivery, and the queue that it came from.
#[derive(Debug)]
pub(super) struct Pushed {
    pub(super) queue: Arc<str>,
    pub(super) delivery: Delivery,
}

/// The broker has cancelled the consumer of this queue.
#[derive(Debug)]
pub(super) struct Cancelled(pub(super) Arc<str>);

impl Deliveries {
    pub(super) fn new(consumers: Vec<(Arc<str>, lapin::Consumer)>) -> Self {
        let source = |(queue, consumer)| Source {
            queue,
            streams: vec![Stream { consumer, retired: false }],
            ahead: VecDeque::new(),
            expecting: false,
        };
        Self { sources: consumers.into_iter().map(source).collect(), turn: 0, taker: None, interrupted: false }
    }

    /// Waits for deliveries and takes up to `limit` of them: in turn from each
    /// queue, and from each in its order. Ready with none when interrupted.
    pub(super) fn poll_take(
        &mut self,
        context: &mut Context<'_>,
        limit: usize,
    ) -> Poll<Result<Vec<Pushed>, Cancelled>> {
        match self.ready(context, limit) {
            Ok(taken) if taken.is_empty() && !self.interrupted && limit > 0 => {
                self.taker = Some(context.waker().clone());
                Poll::Pending
            }
            ready => Poll::Ready(ready),
        }
    }

    /// Takes up to `limit` of those that are here already.
    pub(super) fn ready(&mut self, context: &mut Context<'_>, limit: usize) -> Result<Vec<Pushed>, Cancelled> {
        let mut taken = Vec::new();
        // A queue that had nothing has said so to the context: it is not asked again.
        let mut empty = 0;
        while taken.len() < limit && empty < self.sources.len() {
            self.turn = (self.turn + 1) % self.sources.len();
            let source = &mut self.sources[self.turn];
            match source.next(context) {
                Ok(Some(delivery)) => {
                    empty = 0;
                    taken.push(Pushed { queue: source.queue.clone(), delivery });
                }
                Ok(None) => empty += 1,
                // What was taken before is told first; the end will be there again.
                Err(_) if !taken.is_empty() => break,
                Err(cancelled) => return Err(cancelled),
            }
        }
        Ok(taken)
    }

    /// No more is wanted of these queues for now. Returns the tags of the consumers that are to be cancelled.
    pub(super) fn pause(&mut self, queues: &[Arc<str>]) -> Vec<ShortString> {
        let paused = self.sources.iter_mut().filter(|source| queues.contains(&source.queue));
        paused.flat_map(Source::retire).collect()
    }

    /// A queue's new consumer is about to be asked for: only what is here by
    /// now is handed out before [`replace`](Self::replace) says that it has come.
    pub(super) fn expect(&mut self, queue: &str) {
        let Some(source) = self.sources.iter_mut().find(|source| &*source.queue == queue) else { return };
        // A consumer that the broker has cancelled says so again when it is read next.
        let _ = source.merge(&mut Context::from_waker(Waker::noop()));
        source.expecting = true;
        // Its streams have forgotten whom they were to wake.
        self.wake();
    }

    /// Puts a queue's new consumer in the place of its old one, whose stream
    /// is read to its end. Returns the tags of those that are to be cancelled now.
    pub(super) fn replace(&mut self, queue: &str, consumer: lapin::Consumer) -> Vec<ShortString> {
        let Some(source) = self.sources.iter_mut().find(|source| &*source.queue == queue) else { return Vec::new() };
        let mut cancel = source.retire();
        source.streams.push(Stream { consumer, retired: false });
        source.expecting = false;
        if self.interrupted {
            cancel.extend(source.retire());
        }
        self.wake();
        cancel
    }

    /// Ends the waiting, for good. Returns the tags of the consumers that are to be cancelled.
    pub(super) fn interrupt(&mut self) -> Vec<ShortString> {
        self.interrupted = true;
        self.wake();
        self.sources.iter_mut().flat_map(Source::retire).collect()
    }

    pub(super) fn interrupted(&self) -> bool {
        self.interrupted
    }

    fn wake(&mut self) {
        if let Some(taker) = self.taker.take() {
            taker.wake();
        }
    }
}

impl Source {
    fn next(&mut self, context: &mut Context<'_>) -> Result<Option<Delivery>, Cancelled> {
        if self.streams.len() > 1 && !self.expecting {
            self.merge(context)?;
        }
        if let Some(delivery) = self.ahead.pop_front() {
            return Ok(Some(delivery));
        }
        if self.streams.len() > 1 || self.expecting {
            // What comes to one of them now may follow on what comes to another.
            return Ok(None);
        }
        match self.streams.last_mut() {
            Some(stream) => match stream.next(context) {
                Poll::Ready(Some(delivery)) => Ok(Some(delivery)),
                Poll::Pending => Ok(None),
                Poll::Ready(None) if stream.retired => {
                    self.streams.pop();
                    Ok(None)
                }
                Poll::Ready(None) => Err(Cancelled(self.queue.clone())),
            },
            None => Ok(None),
        }
    }

    /// Brings what came through several streams into the order in which it was
    /// pushed. While one stream is read, the others go on: nothing is missing
    /// below what was found only when a look at all of them finds no more.
    fn merge(&mut self, context: &mut Context<'_>) -> Result<(), Cancelled> {
        while self.collect(context)? {}
        self.ahead.make_contiguous().sort_by_key(|delivery| delivery.delivery_tag);
        Ok(())
    }

    /// Reads each stream once, as far as it goes, and tells whether there was anything.
    fn collect(&mut self, context: &mut Context<'_>) -> Result<bool, Cancelled> {
        let before = self.ahead.len();
        let mut index = 0;
        while let Some(stream) = self.streams.get_mut(index) {
            match stream.next(context) {
                Poll::Ready(Some(delivery)) => self.ahead.push_back(delivery),
                Poll::Pending => index += 1,
                Poll::Ready(None) if stream.retired => drop(self.streams.remove(index)),
                Poll::Ready(None) => return Err(Cancelled(self.queue.clone())),
            }
        }
        Ok(self.ahead.len() > before)
    }

    fn retire(&mut self) -> Vec<ShortString> {
        let active = self.streams.iter_mut().filter(|stream| !stream.retired);
        active
            .map(|stream| {
                stream.retired = true;
                stream.consumer.tag()
            })
            .collect()
    }
}

impl Stream {
    /// The next delivery; ready without one at the stream's end.
    fn next(&mut self, context: &mut Context<'_>) -> Poll<Option<Delivery>> {
        match self.consumer.poll_next_unpin(context) {
            Poll::Ready(Some(Ok(delivery))) => Poll::Ready(Some(delivery)),
            // Why the channel closed is told by the connection. This stream has no more to say.
            Poll::Ready(Some(Err(_))) => {
                self.retired = true;
                Poll::Pending
            }
            Poll::Ready(None) => Poll::Ready(None),
            Poll::Pending => Poll::Pending,
        }
    }
}
