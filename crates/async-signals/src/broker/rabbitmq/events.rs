//! Events beside the messages: on a channel of their own, which may close for their sake, and without confirms.

use std::{
    sync::{Arc, OnceLock, Weak},
    time::Duration,
};

use lapin::{Channel, Connection, options::BasicPublishOptions};
use tokio::{
    sync::mpsc,
    time::{sleep, timeout},
};

use super::{
    declare::ask_for_exchange,
    headers::{properties, short},
};
use crate::message::{Exchange, TaskEvent};

/// Within how long a batch has to be on its way.
const DEADLINE: Duration = Duration::from_secs(5);
/// How many batches of events may wait for their channel.
const MOST_WAITING: usize = 64;
/// For how long no events go out after the broker has closed their channel, which it does for an exchange that is
/// declared otherwise, or not permitted.
const PAUSE: Duration = Duration::from_secs(5);

/// The way to the task that publishes events, which is started by the first of them.
#[derive(Debug)]
pub(super) struct Events {
    connection: Arc<Connection>,
    waiting: OnceLock<mpsc::Sender<Vec<TaskEvent>>>,
}

impl Events {
    pub(super) fn new(connection: Arc<Connection>) -> Self {
        Self { connection, waiting: OnceLock::new() }
    }

    /// Has events published, or drops them if too many wait.
    pub(super) fn publish(&self, events: Vec<TaskEvent>) {
        let waiting = self.waiting.get_or_init(|| {
            let (waiting, inbox) = mpsc::channel(MOST_WAITING);
            // It ends with the broker's connection, which holds the only sender.
            tokio::spawn(publish_all(Arc::downgrade(&self.connection), inbox));
            waiting
        });
        let _ = waiting.try_send(events);
    }
}

async fn publish_all(connection: Weak<Connection>, mut inbox: mpsc::Receiver<Vec<TaskEvent>>) {
    let mut channel: Option<(Channel, Vec<Arc<Exchange>>)> = None;
    while let Some(events) = inbox.recv().await {
        let Some(connection) = connection.upgrade() else { return };
        // A blocked connection takes nothing, and events are not worth keeping.
        if connection.status().blocked() {
            continue;
        }
        let is_refused = channel.is_some() && !is_open(&channel);
        let is_published =
            !is_refused && matches!(timeout(DEADLINE, publish(&connection, &mut channel, events)).await, Ok(Some(())));
        if !is_published {
            channel = None;
            tracing::debug!("Celery's events are not published: the broker refuses them, or is slow");
            drop(connection);
            sleep(PAUSE).await;
            while inbox.try_recv().is_ok() {}
        }
    }
}

/// Publishes events on the channel, which is opened if it is not. None if the broker does not take them.
async fn publish(
    connection: &Connection,
    place: &mut Option<(Channel, Vec<Arc<Exchange>>)>,
    events: Vec<TaskEvent>,
) -> Option<()> {
    if !is_open(place) {
        *place = Some((connection.create_channel().await.ok()?, Vec::new()));
    }
    let (channel, declared) = place.as_mut()?;
    for TaskEvent { exchange, routing_key, message } in events {
        if !declared.contains(&exchange) {
            ask_for_exchange(channel, &exchange, true).await.ok()?.ok()?;
            declared.push(exchange.clone());
        }
        let (name, key) = (short("exchange", exchange.name.as_str()).ok()?, short("routing_key", &*routing_key).ok()?);
        let options = BasicPublishOptions { mandatory: false, immediate: false };
        let properties = properties(&message).ok()?;
        channel.basic_publish(name, key, options, &message.body, properties).await.ok()?;
    }
    Some(())
}

fn is_open(place: &Option<(Channel, Vec<Arc<Exchange>>)>) -> bool {
    place.as_ref().is_some_and(|(channel, _)| channel.status().connected())
}
