//! Which message came back: the account of what is in flight on a channel.
//!
//! An unroutable message is confirmed like any other, but returned first.
//! lapin hangs a returned message on whichever confirm it resolves next, and
//! resolves the confirms under one `multiple` acknowledgement in no order: so
//! the confirm that carries a returned message often belongs to another one.
//! Taking it at its word would report a success that is none.
//!
//! So each returned message is matched by what it says of itself, and no
//! verdict leaves the ledger while a returned message has been seen whose own
//! confirm has not. That is enough. Confirms resolve one after the other, and
//! each takes the oldest returned message that waits. Suppose the ledger holds
//! every confirm up to some moment, that of message *y* among them; that *y*
//! came back; and that none of these confirms carries *y*. Then returned
//! messages have been waiting from *y*'s return to that moment, so each confirm
//! in that time took one that came before *y*. The last time that nothing was
//! waiting lies further back; every confirm since then took one, *y*'s own
//! too. Hence there are more confirms since then than owners of what they
//! took, unless one of the owners is not yet confirmed: and for that one the
//! ledger waits.

use std::{
    collections::{HashMap, HashSet},
    sync::Arc,
};

use lapin::{Confirmation, ErrorKind, message::BasicReturnMessage, protocol::AMQPError};
use tokio::sync::oneshot;

use super::{
    super::BrokerError,
    error::{lost, refusal},
};
use crate::message::Route;

/// What became of one message, as far as its channel can tell.
#[derive(Debug)]
pub(super) enum Verdict {
    /// The broker has it.
    Taken,
    /// Negatively acknowledged: its queue is full.
    Full,
    /// No queue took it.
    Returned,
    /// The broker closed the channel under it, for this message's sake or another's.
    Closed(AMQPError),
    /// Its channel was no longer open.
    Again,
    /// What concerns the whole connection.
    Failed(BrokerError),
}

/// A message's place in the ledger.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub(super) struct Place {
    pub(super) batch: u64,
    pub(super) index: usize,
}

/// What a message is known by when it comes back.
#[derive(Debug)]
pub(super) struct Mark {
    pub(super) route: Arc<Route>,
    pub(super) correlation_id: String,
}

impl Mark {
    fn is_on(&self, returned: &BasicReturnMessage) -> bool {
        returned.properties.correlation_id().as_ref().map_or("", |id| id.as_str()) == self.correlation_id
            && returned.exchange.as_str() == self.route.exchange
            && returned.routing_key.as_str() == self.route.routing_key
    }
}

/// A batch whose verdicts are not all known.
#[derive(Debug)]
struct Open {
    marks: Vec<Mark>,
    answered: Vec<bool>,
    verdicts: Vec<Option<Verdict>>,
    missing: usize,
    reply: oneshot::Sender<Vec<Verdict>>,
}

/// What is in flight on a channel, and what is known of it.
#[derive(Debug)]
pub(super) struct Ledger {
    url: Arc<str>,
    next: u64,
    open: HashMap<u64, Open>,
    /// Answers that have not become verdicts yet.
    answers: Vec<(Place, lapin::Result<Confirmation>)>,
    /// The messages among the open ones that came back.
    returned: HashSet<Place>,
    /// Those of them whose own answer is still to come.
    awaited: HashSet<Place>,
}

impl Ledger {
    pub(super) fn new(url: Arc<str>) -> Self {
        Self {
            url,
            next: 0,
            open: HashMap::new(),
            answers: Vec::new(),
            returned: HashSet::new(),
            awaited: HashSet::new(),
        }
    }

    /// Takes up a batch, to be replied to when each of its messages has a verdict.
    pub(super) fn open(&mut self, marks: Vec<Mark>, reply: oneshot::Sender<Vec<Verdict>>) -> u64 {
        let batch = self.next;
        self.next += 1;
        let count = marks.len();
        let verdicts = marks.iter().map(|_| None).collect();
        self.open.insert(batch, Open { marks, answered: vec![false; count], verdicts, missing: count, reply });
        batch
    }

    /// Notes an answer, and the returned message that may hang on it.
    pub(super) fn answer(&mut self, place: Place, outcome: lapin::Result<Confirmation>) {
        if let Some(open) = self.open.get_mut(&place.batch) {
            open.answered[place.index] = true;
        }
        self.awaited.remove(&place);
        if let Ok(Confirmation::Ack(Some(returned)) | Confirmation::Nack(Some(returned))) = &outcome {
            self.came_back(returned);
        }
        self.answers.push((place, outcome));
    }

    fn came_back(&mut self, returned: &BasicReturnMessage) {
        for (&batch, open) in &self.open {
            for (index, mark) in open.marks.iter().enumerate() {
                // Two of one mark cannot be told apart: both count as returned,
                // since sending one twice is better than losing one.
                if open.verdicts[index].is_none() && mark.is_on(returned) {
                    self.returned.insert(Place { batch, index });
                    if !open.answered[index] {
                        self.awaited.insert(Place { batch, index });
                    }
                }
            }
        }
    }

    /// Turns answers into verdicts. To be called only when every answer up to
    /// some moment has been noted.
    pub(super) fn settle(&mut self) {
        if !self.awaited.is_empty() {
            return;
        }
        let answers = std::mem::take(&mut self.answers);
        let returned = std::mem::take(&mut self.returned);
        // A confirm that failed took no returned message with it: another
        // message's return may have gone down with the channel.
        let untrue = answers.iter().any(|(place, outcome)| outcome.is_err() && returned.contains(place));
        for (place, outcome) in answers {
            let verdict = match outcome {
                Ok(_) if returned.contains(&place) => Verdict::Returned,
                Ok(_) if untrue => Verdict::Failed(lost(&self.url, "the channel closed while messages came back")),
                outcome => self.verdict(outcome),
            };
            self.conclude(place, verdict);
        }
    }

    fn verdict(&self, outcome: lapin::Result<Confirmation>) -> Verdict {
        match outcome {
            Ok(Confirmation::Ack(_)) => Verdict::Taken,
            Ok(Confirmation::Nack(_)) => Verdict::Full,
            Ok(Confirmation::NotRequested) => Verdict::Failed(lost(&self.url, "the channel does not confirm")),
            Err(error) => match (refusal(&error), error.kind()) {
                (Some(error), _) => Verdict::Closed(error.clone()),
                (None, ErrorKind::InvalidChannelState(..) | ErrorKind::InvalidChannel(_)) => Verdict::Again,
                (None, _) => Verdict::Failed(lost(&self.url, error)),
            },
        }
    }

    /// Enters a verdict, and replies if it was the batch's last.
    fn conclude(&mut self, place: Place, verdict: Verdict) {
        let Some(open) = self.open.get_mut(&place.batch) else { return };
        if open.verdicts[place.index].replace(verdict).is_none() {
            open.missing -= 1;
        }
        if open.missing == 0
            && let Some(open) = self.open.remove(&place.batch)
        {
            // Nobody listens any more if the caller's deadline has passed.
            let _ = open.reply.send(open.verdicts.into_iter().flatten().collect());
        }
    }
}

#[cfg(test)]
mod tests {
    use std::collections::VecDeque;

    use lapin::{BasicProperties, message::Delivery};
    use proptest::prelude::*;

    use super::*;

    fn returned(index: usize) -> BasicReturnMessage {
        let mut delivery = Delivery::mock(0, "".into(), "q".into(), false, Vec::new());
        delivery.properties = BasicProperties::default().with_correlation_id(index.to_string().into());
        BasicReturnMessage { delivery, reply_code: 312, reply_text: "NO_ROUTE".into() }
    }

    /// lapin's end of it, which hangs returned messages on the wrong confirms.
    #[derive(Default)]
    struct Confirms(VecDeque<BasicReturnMessage>);

    impl Confirms {
        fn resolve(&mut self) -> lapin::Result<Confirmation> {
            Ok(Confirmation::Ack(self.0.pop_front()))
        }
    }

    fn ledger(count: usize) -> (Ledger, oneshot::Receiver<Vec<Verdict>>) {
        let route = Arc::new(Route { routing_key: "q".to_owned(), ..Route::default() });
        let (reply, verdicts) = oneshot::channel();
        let mut ledger = Ledger::new("amqp://".into());
        let marks = (0..count).map(|index| Mark { route: route.clone(), correlation_id: index.to_string() });
        assert_eq!(ledger.open(marks.collect(), reply), 0);
        (ledger, verdicts)
    }

    proptest! {
        /// Whatever the order of the confirms and of the looks into the
        /// ledger, exactly those that came back are said to have come back.
        #[test]
        fn finds_the_returned(
            routable in prop::collection::vec(any::<bool>(), 1..40),
            delays in prop::collection::vec(0..40_usize, 40),
            looks in prop::collection::vec(any::<bool>(), 40),
        ) {
            let (mut ledger, mut verdicts) = ledger(routable.len());
            let mut confirms = Confirms::default();
            // A message is returned at its own moment, and confirmed at it or later.
            let mut order: Vec<_> = (0..routable.len()).map(|index| (index + delays[index], index)).collect();
            order.sort_unstable();
            let mut handled = 0;
            for (step, (moment, index)) in order.into_iter().enumerate() {
                while handled < routable.len() && handled <= moment {
                    if !routable[handled] {
                        confirms.0.push_back(returned(handled));
                    }
                    handled += 1;
                }
                ledger.answer(Place { batch: 0, index }, confirms.resolve());
                if looks[step] {
                    ledger.settle();
                }
            }
            ledger.settle();
            let verdicts = verdicts.try_recv().expect("all are answered");
            for (verdict, routable) in verdicts.iter().zip(routable) {
                prop_assert!(matches!((verdict, routable), (Verdict::Taken, true) | (Verdict::Returned, false)));
            }
        }
    }

    #[test]
    fn believes_no_confirm_when_a_return_may_be_lost() {
        let (mut ledger, mut verdicts) = ledger(2);
        // Both came back; 0 took the return of 1, whose confirm then failed.
        ledger.answer(Place { batch: 0, index: 0 }, Ok(Confirmation::Ack(Some(returned(1)))));
        ledger.settle();
        assert!(verdicts.try_recv().is_err(), "the owner of the returned message is awaited");
        ledger.answer(Place { batch: 0, index: 1 }, Err(ErrorKind::InvalidChannel(1).into()));
        ledger.settle();
        let verdicts = verdicts.try_recv().expect("both are answered");
        assert!(matches!(verdicts[..], [Verdict::Failed(BrokerError::Disconnected { .. }), Verdict::Again]));
    }
}
