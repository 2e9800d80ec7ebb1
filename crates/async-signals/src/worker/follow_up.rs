//! Publishing what follows a message, for as long as that takes.

use std::{sync::Arc, time::Duration};

use tokio::time::sleep;

use super::{Observer, observer::Notice};
use crate::{
    backoff::Backoff,
    broker::{BrokerError, Tag},
    message::{Outgoing, Route},
    publisher::{PublishError, Publisher},
};

const FIRST_PAUSE: Duration = Duration::from_millis(100);
const LONGEST_PAUSE: Duration = Duration::from_secs(10);

/// What follows one message. The original is acknowledged once all of it is with the broker.
#[derive(Debug)]
pub(super) struct FollowUp {
    pub(super) tag: Tag,
    /// Each with what the observer is told, and only once it is true.
    pub(super) outgoing: Vec<(Outgoing, Option<Notice>)>,
    /// What chance begins with.
    pub(super) seed: u64,
}

impl FollowUp {
    /// Publishes all of it; does not give up. Dropping it half-way costs a duplicate at most.
    pub(super) async fn publish(self, publisher: Arc<Publisher>, observer: Arc<dyn Observer>) -> Tag {
        let mut chance = fastrand::Rng::with_seed(self.seed);
        for (mut outgoing, notice) in self.outgoing {
            let mut backoff = Backoff::new(FIRST_PAUSE, LONGEST_PAUSE);
            while let Err(error) = send(&publisher, outgoing.clone()).await {
                let queue = outgoing.route.routing_key.clone();
                let declares = !outgoing.route.declare.is_empty();
                if is_other_arguments(&error) && declares {
                    // The queue is there with other bounds, which is better than no parking.
                    outgoing = undeclared(outgoing);
                    continue;
                }
                // It may be there already, for a user who may write to it and no more.
                if is_not_permitted(&error) && declares && send(&publisher, undeclared(outgoing.clone())).await.is_ok()
                {
                    break;
                }
                observer.hindered(&outgoing.message.properties.correlation_id, &queue, &error);
                backoff.failed(chance.f64());
                sleep(backoff.pause()).await;
            }
            if let Some(notice) = notice {
                notice.tell(&*observer);
            }
        }
        self.tag
    }
}

async fn send(publisher: &Publisher, outgoing: Outgoing) -> Result<(), PublishError> {
    publisher.send(outgoing, None)?.await
}

fn is_other_arguments(error: &PublishError) -> bool {
    matches!(error, PublishError::Broker { error: BrokerError::PreconditionFailed { .. }, .. })
}

fn is_not_permitted(error: &PublishError) -> bool {
    matches!(error, PublishError::Broker { error: BrokerError::AccessRefused { .. }, .. })
}

/// The same message, for a queue that is there.
fn undeclared(outgoing: Outgoing) -> Outgoing {
    let route = Route { declare: Vec::new(), ..(*outgoing.route).clone() };
    Outgoing { route: Arc::new(route), ..outgoing }
}
