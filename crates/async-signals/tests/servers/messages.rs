//! What the brokers' tests send.

use std::sync::Arc;

use async_signals::{
    broker::Published,
    message::{Exchange, Headers, Message, Outgoing, Properties, Queue, Route},
    protocol::celery::{CommonHeaders, TASK, TaskHeaders, Template},
};
use bytes::Bytes;
use serde_json::{Value, json};
use uuid::Uuid;

/// A name that no other test uses.
pub fn fresh(name: &str) -> String {
    format!("{name}-{}", Uuid::new_v4().simple())
}

pub fn outgoing(route: &Arc<Route>, message: Message) -> Outgoing {
    Outgoing { route: route.clone(), message }
}

/// A message that can be told from others.
pub fn numbered(number: u64) -> Message {
    let id = Uuid::new_v4();
    let headers = json!({"lang": "py", "task": TASK, "id": id, "number": number, "nested": {"list": [1, null, "ü"]}});
    let Value::Object(headers) = headers else { unreachable!("it is written as an object") };
    Message {
        id,
        headers: Headers::Raw(headers),
        properties: Properties::for_task(id),
        body: Bytes::from(format!(r#"[["shop.order_placed", null], {{"order_id": {number}}}, {{}}]"#)),
    }
}

/// A route to an exchange with these queues and their keys.
pub fn exchange_route(exchange: &str, kind: &str, routing_key: &str, bound: &[(&str, &str)]) -> Route {
    let exchange = Exchange { kind: kind.to_owned(), ..Exchange::direct(exchange) };
    let queue = |(name, key): &(&str, &str)| Queue {
        exchange: Some(exchange.clone()),
        routing_key: (*key).to_owned(),
        ..Queue::direct(name)
    };
    Route {
        exchange: exchange.name.clone(),
        routing_key: routing_key.to_owned(),
        declare: bound.iter().map(queue).collect(),
    }
}

pub fn task_headers() -> TaskHeaders {
    let template = Template {
        eta: Some("2030-01-01T00:00:00+00:00".to_owned()),
        timelimit: (Some(1.5), None),
        argsrepr: "('shop.order_placed',)".to_owned(),
        kwargsrepr: "{…}".to_owned(),
        origin: "gen1@host".to_owned(),
        ignore_result: true,
        queue: "celery".to_owned(),
        ..Template::default()
    };
    TaskHeaders {
        common: Arc::new(CommonHeaders::new(template).expect("values of JSON")),
        id: Uuid::new_v4(),
        root_id: None,
        parent_id: None,
        sent_at: 1_700_000_000.25,
    }
}

/// All of them are there.
pub fn assert_ok(published: &[Published]) {
    assert!(published.iter().all(Result::is_ok), "{published:?}");
}
