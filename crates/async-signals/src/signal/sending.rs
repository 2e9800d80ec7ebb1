//! How a send finds its way: to the broker, or to the receivers here.

use std::{
    collections::HashSet,
    panic::Location,
    ptr,
    sync::{
        Arc, Mutex, PoisonError,
        atomic::{AtomicPtr, Ordering},
    },
    time::{Duration, Instant, SystemTime},
};

use bytes::Bytes;
use serde::{Serialize, de::DeserializeOwned};
use uuid::Uuid;

use super::{AsyncSignal, SendError, SendOptions};
use crate::{
    celery::{Celery, MAX_MESSAGE_BYTES, MessageTemplate, Wanted},
    delivery::Delivery,
    durability::Durability,
    ids,
    message::Outgoing,
    payload::{self, Body},
    publisher::{PublishError, Publisher},
    receiver::Given,
    registry,
    sender::Sender,
    sent::{Response, Sent},
};

/// How soon to look again for room in a full buffer.
const AGAIN: Duration = Duration::from_millis(5);

/// A send that is encoded, and knows its way.
pub(super) struct Sending<'a, P> {
    signal: &'a AsyncSignal<P>,
    id: Uuid,
    way: Way,
}

enum Way {
    Broker { publisher: Arc<Publisher>, outgoing: Box<Outgoing>, durability: Durability, patience: Duration },
    Here { arguments: Bytes, sender: Sender, robust: bool },
}

impl<'a, P: Serialize + DeserializeOwned + Send + 'static> Sending<'a, P> {
    #[track_caller]
    pub(super) fn new(
        options: SendOptions<'a, P>,
        sender: Sender,
        payload: &P,
        robust: bool,
    ) -> Result<Self, SendError> {
        let signal = options.signal;
        let app = options.app.as_ref().or_else(|| Celery::installed());
        let most = app.map_or(MAX_MESSAGE_BYTES, Celery::max_message_bytes);
        let (body, place) = payload::encode_with_place(signal.name, &sender, payload, most)
            .map_err(|source| SendError::Payload { signal: signal.name, source })?;
        let Some(app) = app else {
            warn_not_configured(signal.name, Location::caller());
            let id = options.id.unwrap_or_else(ids::next);
            return Ok(Self { signal, id, way: Way::Here { arguments: body.slice(place), sender, robust } });
        };
        let publisher = match app.publisher() {
            Ok(publisher) => publisher,
            Err(source) => {
                let id = options.id.unwrap_or_else(Uuid::new_v4);
                return Err(SendError::NotSent { signal: signal.name, id, source });
            }
        };
        let id = options.id.unwrap_or_else(|| publisher.next_id());
        let template = template_for(&options, app, SystemTime::now())?;
        let trace = options.trace.or_else(|| app.trace_context());
        let outgoing = template.outgoing(id, body, trace.as_ref());
        let durability = options.durability.unwrap_or(app.durability());
        let patience = app.buffer_timeout();
        Ok(Self { signal, id, way: Way::Broker { publisher, outgoing: Box::new(outgoing), durability, patience } })
    }

    pub(super) async fn finish(self) -> Result<Sent, SendError> {
        let published = match self.way {
            Way::Here { arguments, sender, robust } => {
                return here(self.signal, self.id, arguments, sender, robust).await;
            }
            Way::Broker { publisher, outgoing, durability: Durability::Confirmed, .. } => {
                match publisher.send(*outgoing, None) {
                    Ok(receipt) => receipt.await,
                    Err(error) => Err(error),
                }
            }
            Way::Broker { publisher, outgoing, durability: Durability::Background, patience } => {
                buffer(&publisher, *outgoing, patience).await
            }
        };
        sent(self.signal.name, self.id, published)
    }

    pub(super) fn finish_blocking(self) -> Result<Sent, SendError> {
        let published = match self.way {
            Way::Here { arguments, sender, robust } => {
                return block_on(here(self.signal, self.id, arguments, sender, robust));
            }
            Way::Broker { publisher, outgoing, durability: Durability::Confirmed, .. } => {
                publisher.send(*outgoing, None).and_then(|receipt| receipt.wait())
            }
            Way::Broker { publisher, outgoing, durability: Durability::Background, .. } => publisher.buffer(*outgoing),
        };
        sent(self.signal.name, self.id, published)
    }
}

fn sent(signal: &'static str, id: Uuid, published: Result<(), PublishError>) -> Result<Sent, SendError> {
    match published {
        Ok(()) => Ok(Sent { id, responses: Vec::new() }),
        Err(source) => Err(SendError::NotSent { signal, id, source }),
    }
}

/// The way out: made once for each signal and app, as long as a send wants nothing of its own.
fn template_for<P>(
    options: &SendOptions<'_, P>,
    app: &Celery,
    now: SystemTime,
) -> Result<Arc<MessageTemplate>, SendError> {
    let signal = options.signal;
    let never_due = || SendError::NeverDue { signal: signal.name };
    let eta = options.due.map(|due| due.from(now).ok_or_else(never_due)).transpose()?;
    let wanted = Wanted {
        signal: signal.name,
        queue: options.queue.as_deref().or(signal.queue),
        priority: options.priority,
        eta,
        expires: options.expires.and_then(|expires| expires.from(now)),
        now,
    };
    let is_usual = options.queue.is_none()
        && options.priority == signal.priority
        && options.due.is_none()
        && options.expires.is_none();
    if !is_usual {
        return Ok(Arc::new(app.message_template(&wanted)?));
    }
    let mut kept = signal.template.lock().unwrap_or_else(PoisonError::into_inner);
    if let Some(template) = kept.as_ref().filter(|template| template.is_of(app)) {
        return Ok(template.clone());
    }
    let template = Arc::new(app.message_template(&wanted)?);
    *kept = Some(template.clone());
    Ok(template)
}

/// Waits for room in a full buffer without blocking the thread, as far as its runtime is tokio's.
async fn buffer(publisher: &Publisher, outgoing: Outgoing, patience: Duration) -> Result<(), PublishError> {
    if tokio::runtime::Handle::try_current().is_err() {
        return publisher.buffer(outgoing);
    }
    let give_up = Instant::now() + patience;
    while !publisher.has_room(&outgoing) && Instant::now() < give_up {
        tokio::time::sleep(AGAIN).await;
    }
    publisher.try_buffer(outgoing)
}

/// Calls the receivers where the signal is sent, one after the other.
async fn here<P: Serialize + DeserializeOwned + Send + 'static>(
    signal: &AsyncSignal<P>,
    id: Uuid,
    arguments: Bytes,
    sender: Sender,
    robust: bool,
) -> Result<Sent, SendError> {
    // What is wrong with another signal's receivers is in the log.
    let _ = registry::link();
    let not_readable = |source| SendError::NotReadable { signal: signal.name, source };
    let mut responses = Vec::new();
    let connected = signal.connections.of(&sender);
    if connected.is_empty() {
        return Ok(Sent { id, responses });
    }
    let delivery = Delivery::here(id, signal.name, sender.clone());
    let body = Body::sent_here(signal.name, sender, arguments).map_err(not_readable)?;
    let mut given = Given::new(&body, &delivery).map_err(not_readable)?;
    for connected in &connected {
        let result = connected.receiver.call(&mut given).await;
        let receiver = connected.name.to_string();
        match result {
            Err(source) if !robust => return Err(SendError::Receiver { signal: signal.name, receiver, source }),
            result => {
                if let Err(error) = &result {
                    tracing::error!("receiver {receiver} of signal {} failed: {error}", signal.name);
                }
                responses.push(Response { receiver, result });
            }
        }
    }
    Ok(Sent { id, responses })
}

/// Waits for receivers on a thread that may be anybody's: a runtime cannot be
/// started on one that drives another.
fn block_on<T: Send>(running: impl Future<Output = T> + Send) -> T {
    let on_its_own = || {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build();
        runtime.expect("the system has room for a runtime").block_on(running)
    };
    std::thread::scope(|scope| match scope.spawn(on_its_own).join() {
        Ok(value) => value,
        Err(panic) => std::panic::resume_unwind(panic),
    })
}

/// Says once for each place of the program that its signals run where they are sent.
fn warn_not_configured(signal: &str, place: &'static Location<'static>) {
    static LAST: AtomicPtr<Location<'static>> = AtomicPtr::new(ptr::null_mut());
    static SAID: Mutex<Option<HashSet<&'static Location<'static>>>> = Mutex::new(None);
    if ptr::eq(LAST.swap(ptr::from_ref(place).cast_mut(), Ordering::Relaxed), place) {
        return;
    }
    if SAID.lock().unwrap_or_else(PoisonError::into_inner).get_or_insert_default().insert(place) {
        tracing::warn!(
            "Celery is not configured: no Celery app is installed, so the receivers of {signal} run here, where it is \
             sent ({place}); install one with Celery::from_env()?.install(), or name one with options().via(…)"
        );
    }
}
