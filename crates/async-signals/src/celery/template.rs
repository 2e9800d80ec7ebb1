//! What makes the messages of one signal over one app: all that stays the same from send to send, made once.

use std::{
    sync::{Arc, Weak},
    time::SystemTime,
};

use bytes::Bytes;
use serde_json::{Map, Value};
use uuid::Uuid;

use super::{App, Celery, TraceContext, builder::is_queue_name};
use crate::{
    message::{Headers, Message, Outgoing, Properties, Route},
    protocol::{
        celery::{CommonHeaders, TaskHeaders, Template},
        time,
    },
    signal::SendError,
};

/// What a send wants.
pub(crate) struct Wanted<'a> {
    pub(crate) signal: &'static str,
    pub(crate) queue: Option<&'a str>,
    pub(crate) priority: Option<u8>,
    pub(crate) eta: Option<SystemTime>,
    pub(crate) expires: Option<SystemTime>,
    pub(crate) now: SystemTime,
}

/// All of a message but its id, its time and its body.
pub(crate) struct MessageTemplate {
    /// Known again by its address: a signal lives as long as the process, and must not keep an app as long.
    app: Weak<App>,
    route: Arc<Route>,
    headers: Arc<CommonHeaders>,
    properties: Properties,
}

impl Celery {
    /// What makes the messages of sends that want this.
    pub(crate) fn message_template(&self, wanted: &Wanted<'_>) -> Result<MessageTemplate, SendError> {
        let config = &self.0.config;
        let name = wanted.queue.unwrap_or_else(|| self.queue_for(wanted.signal));
        if !is_queue_name(name) {
            return Err(SendError::QueueName { signal: wanted.signal, queue: name.to_owned() });
        }
        if !config.create_missing_queues && !config.queues.contains_key(name) {
            return Err(SendError::UnknownQueue { signal: wanted.signal, queue: name.to_owned() });
        }
        let queue = self.queue(name);
        // As in Celery: straight to the queue, unless its exchange has more to say.
        let (exchange, routing_key) = match &queue.exchange {
            Some(exchange) if exchange.kind != "direct" => (exchange.name.clone(), queue.routing_key.clone()),
            _ => (String::new(), name.to_owned()),
        };
        let never_due = || SendError::NeverDue { signal: wanted.signal };
        let eta = wanted.eta.map(|eta| time::iso(eta).ok_or_else(never_due)).transpose()?;
        let template = Template {
            eta,
            // What expires after the year 9999 does not expire.
            expires: wanted.expires.and_then(time::iso),
            argsrepr: format!("('{}', ...)", wanted.signal),
            kwargsrepr: "{...}".to_owned(),
            origin: config.origin.clone(),
            ignore_result: true,
            queue: name.to_owned(),
            ..Template::default()
        };
        let left = wanted.expires.map(|expires| expires.duration_since(wanted.now).unwrap_or_default().as_millis());
        let properties = Properties {
            priority: wanted.priority.or(config.default_priority).unwrap_or(0),
            reply_to: Some(config.reply_to.clone()),
            // RabbitMQ takes no more; whoever takes the message sees the header.
            expiration_ms: left.and_then(|left| u32::try_from(left).ok()).map(|left| u64::from(left).max(1)),
            ..Properties::for_task(Uuid::nil())
        };
        let headers = CommonHeaders::new(template).expect("text and numbers can be written as JSON");
        let route = Route { exchange, routing_key, declare: vec![queue] };
        Ok(MessageTemplate {
            app: Arc::downgrade(&self.0),
            route: Arc::new(route),
            headers: Arc::new(headers),
            properties,
        })
    }
}

impl MessageTemplate {
    pub(crate) fn is_of(&self, app: &Celery) -> bool {
        std::ptr::eq(self.app.as_ptr(), Arc::as_ptr(&app.0))
    }

    pub(crate) fn outgoing(&self, id: Uuid, body: Bytes, trace: Option<&TraceContext>) -> Outgoing {
        let sent_at = time::seconds(SystemTime::now());
        let headers = TaskHeaders { common: self.headers.clone(), id, root_id: None, parent_id: None, sent_at };
        let headers = match trace {
            None => Headers::Task(Box::new(headers)),
            Some(trace) => Headers::Raw(traced(&headers, trace)),
        };
        let properties = Properties { correlation_id: id.to_string(), ..self.properties.clone() };
        Outgoing { route: self.route.clone(), message: Message { id, headers, properties, body } }
    }
}

fn traced(headers: &TaskHeaders, trace: &TraceContext) -> Map<String, Value> {
    let Ok(Value::Object(mut headers)) = serde_json::to_value(headers) else {
        unreachable!("headers are written as an object of text and numbers")
    };
    headers.insert("traceparent".to_owned(), trace.traceparent.as_str().into());
    if let Some(tracestate) = &trace.tracestate {
        headers.insert("tracestate".to_owned(), tracestate.as_str().into());
    }
    headers
}
