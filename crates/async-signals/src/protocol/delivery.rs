//! kombu's envelope on the consuming side: read as a message, and marked when
//! it goes back into its queue (`kombu/transport/redis.py`, `Channel._do_restore_message`).

use std::{borrow::Cow, fmt, sync::Arc};

use bytes::Bytes;
use serde::{
    Deserialize, Deserializer,
    de::{MapAccess, Visitor},
};
use serde_json::{Map, Value, value::RawValue};

use super::kombu::{Envelope, EnvelopeError};
use crate::message::{Incoming, Properties};

/// A message that came in an envelope.
#[derive(Clone, Debug)]
pub struct Delivery {
    /// The message.
    pub incoming: Incoming,
    /// Whether it was delivered before, to someone who did not settle it.
    pub redelivered: bool,
}

impl Delivery {
    /// Reads an envelope of at most `limit` bytes.
    ///
    /// # Errors
    ///
    /// As [`Envelope::read`].
    pub fn read(bytes: &[u8], limit: usize) -> Result<Self, EnvelopeError> {
        let envelope = Envelope::read(bytes, limit)?;
        let is_true = |map: Option<&Map<String, Value>>| {
            map.and_then(|map| map.get("redelivered")).and_then(Value::as_bool).unwrap_or_default()
        };
        let info = envelope.properties.get("delivery_info").and_then(Value::as_object);
        let redelivered = is_true(Some(&envelope.headers)) || is_true(info);
        let text = |name: &str| envelope.properties.get(name).and_then(Value::as_str);
        let number = |name: &str| match envelope.properties.get(name) {
            Some(Value::String(text)) => text.trim().parse().ok(),
            Some(value) => value.as_u64(),
            None => None,
        };
        let properties = Properties {
            content_type: envelope.content_type.as_deref().unwrap_or_default().into(),
            content_encoding: envelope.content_encoding.as_deref().unwrap_or_default().into(),
            delivery_mode: number("delivery_mode").and_then(|mode| mode.try_into().ok()).unwrap_or(1),
            // kombu bounds the list that it lies in, not what it says.
            priority: number("priority").map_or(envelope.priority(), |priority| priority.min(255) as u8),
            correlation_id: text("correlation_id").unwrap_or_default().to_owned(),
            reply_to: text("reply_to").map(Arc::from),
            expiration_ms: number("expiration"),
        };
        let (exchange, routing_key) = (envelope.exchange(), envelope.routing_key());
        let incoming = Incoming {
            exchange: exchange.unwrap_or_default().to_owned(),
            routing_key: routing_key.unwrap_or_default().to_owned(),
            properties,
            headers: envelope.headers,
            body: Bytes::from(envelope.body),
        };
        Ok(Self { incoming, redelivered })
    }
}

/// Marks an envelope as delivered before, where kombu does: in its headers and
/// in its `delivery_info`. All else stays as it is, byte for byte. What has no
/// such place comes back unchanged.
///
/// ```
/// use async_signals::protocol::delivery::mark_redelivered;
///
/// let envelope = br#"{"headers": {"id": 1e400}, "properties": {"delivery_info": {}}}"#;
/// let marked = br#"{"headers":{"id":1e400,"redelivered":true},"properties":{"delivery_info":{"redelivered":true}}}"#;
/// assert_eq!(mark_redelivered(envelope), marked);
/// assert_eq!(mark_redelivered(b"no envelope"), b"no envelope");
/// ```
pub fn mark_redelivered(envelope: &[u8]) -> Vec<u8> {
    let Ok(text) = std::str::from_utf8(envelope) else { return envelope.to_vec() };
    let headers = set_true(text, &["headers", "redelivered"]);
    let text = headers.as_deref().unwrap_or(text);
    let both = set_true(text, &["properties", "delivery_info", "redelivered"]);
    both.as_deref().unwrap_or(text).as_bytes().to_vec()
}

/// A JSON text in which the member at a path is `true`; `None` if there are no objects on the way to it.
fn set_true(text: &str, path: &[&str]) -> Option<String> {
    let [name, inner @ ..] = path else { return Some("true".to_owned()) };
    let mut members = serde_json::from_str::<Members<'_>>(text).ok()?.0;
    let changed;
    match members.iter_mut().find(|(key, _)| key == name) {
        Some((_, value)) => {
            changed = set_true(value, inner)?;
            *value = &changed;
        }
        None if inner.is_empty() => members.push((Cow::Borrowed(name), "true")),
        None => return None,
    }
    let mut out = String::with_capacity(text.len() + 32);
    for (key, value) in members {
        out.push(if out.is_empty() { '{' } else { ',' });
        out.push_str(&serde_json::to_string(&key).ok()?);
        out.push(':');
        out.push_str(value);
    }
    out.push('}');
    Some(out)
}

/// The members of an object, in their order, the values as they are written.
struct Members<'a>(Vec<(Cow<'a, str>, &'a str)>);

impl<'de> Deserialize<'de> for Members<'de> {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct Reader;

        impl<'de> Visitor<'de> for Reader {
            type Value = Members<'de>;

            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("an object")
            }

            fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<Self::Value, A::Error> {
                let mut members = Vec::new();
                while let Some(key) = map.next_key::<Key<'de>>()? {
                    members.push((key.0, map.next_value::<&'de RawValue>()?.get()));
                }
                Ok(Members(members))
            }
        }

        deserializer.deserialize_map(Reader)
    }
}

#[derive(Deserialize)]
struct Key<'a>(#[serde(borrow)] Cow<'a, str>);

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn reads_what_celery_wrote() {
        let captured = include_bytes!("../../tests/fixtures/celery-5.7-redis-expires.json");
        let Delivery { incoming, redelivered } = Delivery::read(captured, 1 << 20).expect("an envelope");
        assert!(!redelivered);
        assert_eq!(incoming.headers["task"], "async_signals.propagate");
        assert_eq!((incoming.exchange.as_str(), incoming.routing_key.as_str()), ("", "high_priority"));
        let properties = &incoming.properties;
        assert_eq!((properties.priority, properties.delivery_mode, properties.expiration_ms), (7, 2, Some(60_000)));
        assert_eq!(incoming.headers["id"], properties.correlation_id.as_str());
        assert_eq!((&*properties.content_type, &*properties.content_encoding), ("application/json", "utf-8"));
        let again = Delivery::read(&mark_redelivered(captured), 1 << 20).expect("an envelope");
        assert!(again.redelivered);
        assert_eq!(again.incoming.body, incoming.body);
    }

    #[test]
    fn what_is_missing_has_amqps_values() {
        let Delivery { incoming, redelivered } = Delivery::read(br#"{"properties": {}}"#, 1024).expect("an envelope");
        let properties = incoming.properties;
        assert!(!redelivered && incoming.headers.is_empty() && incoming.body.is_empty());
        assert_eq!((properties.delivery_mode, properties.priority, properties.expiration_ms), (1, 0, None));
        assert_eq!((properties.correlation_id.as_str(), properties.reply_to), ("", None));
    }

    #[test]
    fn marks_what_can_be_marked() {
        let mark = |text: &str| String::from_utf8(mark_redelivered(text.as_bytes())).expect("text");
        for untouched in ["", "[]", "{}", r#"{"headers": 1, "properties": {"delivery_info": null}}"#, "{\"headers\": {"]
        {
            assert_eq!(mark(untouched), untouched);
        }
        assert_eq!(
            mark(r#"{"body": "x", "headers": {"redelivered": false, "ü\n": 1.0000000000000000001}}"#),
            r#"{"body":"x","headers":{"redelivered":true,"ü\n":1.0000000000000000001}}"#
        );
        let marked = mark(r#"{"headers": {}, "properties": {"delivery_info": {"exchange": ""}, "priority": 0}}"#);
        assert_eq!(mark(&marked), marked, "once is enough");
    }
}
