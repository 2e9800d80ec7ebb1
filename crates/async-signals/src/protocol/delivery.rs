//! kombu's envelope on the consuming side: read as a message, and marked when
//! it goes back into its queue (`kombu/transport/redis.py`, `Channel._do_restore_message`).

use std::{borrow::Cow, fmt, sync::Arc};

use base64::{Engine, engine::general_purpose::STANDARD};
use bytes::Bytes;
use serde::{
    Deserialize, Deserializer,
    de::{MapAccess, Visitor},
};
use serde_json::{Value, value::RawValue};

use super::{kombu::EnvelopeError, object::Object, scalar::Scalar};
use crate::message::{Incoming, Properties, ReceivedHeaders};

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
    /// The same as [`Envelope::read`](super::kombu::Envelope::read), without keeping what a message does not need.
    ///
    /// # Errors
    ///
    /// [`EnvelopeError`]. No input makes it panic; nesting is bounded by `serde_json`.
    pub fn read(bytes: &[u8], limit: usize) -> Result<Self, EnvelopeError> {
        if bytes.len() > limit {
            return Err(EnvelopeError::TooLarge { size: bytes.len(), limit });
        }
        let Object(wire): Object<Wire<'_>> =
            serde_json::from_slice(bytes).map_err(|error| EnvelopeError::Malformed { reason: error.to_string() })?;
        let headers = wire.headers.map(|headers| ReceivedHeaders::read(headers.get())).transpose();
        let headers = headers.map_err(|error| EnvelopeError::Malformed { reason: format!("its headers: {error}") })?;
        let (headers, properties) = (headers.unwrap_or_default(), wire.properties.0);
        let Object(info) = properties.delivery_info.unwrap_or_default();
        let redelivered =
            !headers.is_plain() && headers.get("redelivered").and_then(Value::as_bool).unwrap_or_default();
        Ok(Self {
            redelivered: redelivered || matches!(info.redelivered, Scalar::Bool(true)),
            incoming: Incoming {
                headers,
                properties: Properties {
                    content_type: text(wire.content_type).into(),
                    content_encoding: text(wire.content_encoding).into(),
                    delivery_mode: properties.delivery_mode.number().map_or(1, bounded),
                    // kombu bounds the list that it lies in, not what it says.
                    priority: properties.priority.number().map_or(0, bounded),
                    correlation_id: properties.correlation_id.text().unwrap_or_default().into_owned(),
                    reply_to: properties.reply_to.text().map(Arc::from),
                    expiration_ms: properties.expiration.number(),
                },
                exchange: info.exchange.text().unwrap_or_default().into_owned(),
                routing_key: info.routing_key.text().unwrap_or_default().into_owned(),
                body: Bytes::from(body(text(wire.body), properties.body_encoding)?),
            },
        })
    }
}

fn text(text: Option<Text<'_>>) -> Cow<'_, str> {
    text.map(|text| text.0).unwrap_or_default()
}

fn bounded(number: u64) -> u8 {
    number.try_into().unwrap_or(u8::MAX)
}

fn body(body: Cow<'_, str>, encoding: Scalar<'_>) -> Result<Vec<u8>, EnvelopeError> {
    let bad = |encoding: &str| EnvelopeError::Body { encoding: encoding.chars().take(32).collect() };
    match encoding {
        Scalar::Nothing => Ok(body.into_owned().into_bytes()),
        Scalar::Text(encoding) if encoding == "base64" => STANDARD.decode(body.as_bytes()).map_err(|_| bad(&encoding)),
        Scalar::Text(encoding) => Err(bad(&encoding)),
        other => Err(bad(&format!("{other:?}"))),
    }
}

#[derive(Deserialize)]
#[serde(rename_all = "kebab-case")]
struct Wire<'a> {
    #[serde(borrow)]
    body: Option<Text<'a>>,
    #[serde(borrow)]
    content_encoding: Option<Text<'a>>,
    #[serde(borrow)]
    content_type: Option<Text<'a>>,
    #[serde(borrow)]
    headers: Option<&'a RawValue>,
    #[serde(borrow)]
    properties: Object<WireProperties<'a>>,
}

#[derive(Default, Deserialize)]
#[serde(default, bound(deserialize = "'de: 'a"))]
struct WireProperties<'a> {
    correlation_id: Scalar<'a>,
    reply_to: Scalar<'a>,
    delivery_mode: Scalar<'a>,
    expiration: Scalar<'a>,
    delivery_info: Option<Object<WireInfo<'a>>>,
    priority: Scalar<'a>,
    body_encoding: Scalar<'a>,
}

#[derive(Default, Deserialize)]
#[serde(default, bound(deserialize = "'de: 'a"))]
struct WireInfo<'a> {
    exchange: Scalar<'a>,
    routing_key: Scalar<'a>,
    redelivered: Scalar<'a>,
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
                while let Some(key) = map.next_key::<Text<'de>>()? {
                    members.push((key.0, map.next_value::<&'de RawValue>()?.get()));
                }
                Ok(Members(members))
            }
        }

        deserializer.deserialize_map(Reader)
    }
}

/// Text that is borrowed where it can be.
#[derive(Deserialize)]
struct Text<'a>(#[serde(borrow)] Cow<'a, str>);

#[cfg(test)]
mod tests {
    use super::{super::kombu::Envelope, *};

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
    fn refuses_what_an_envelope_refuses() {
        let deep = format!(r#"{{"headers": {}}}"#, "[".repeat(100_000));
        for (text, limit) in [
            (r#"{"properties": {}}"#, 5),
            ("", 64),
            ("{}", 64),
            (r#"{"properties": 1}"#, 64),
            (r#"{"properties": {}, "body": 1}"#, 64),
            (r#"{"body": "*", "properties": {"body_encoding": "base64"}}"#, 64),
            (r#"{"body": "", "properties": {"body_encoding": "rot13"}}"#, 64),
            (&deep, 1 << 20),
        ] {
            let refused = Delivery::read(text.as_bytes(), limit).map(drop).expect_err(text);
            let envelope = Envelope::read(text.as_bytes(), limit).map(drop).expect_err(text);
            assert_eq!(std::mem::discriminant(&refused), std::mem::discriminant(&envelope), "{refused}, {envelope}");
        }
        assert!(Delivery::read(br#"{"properties": {"body_encoding": 5}}"#, 64).is_err());
    }

    #[test]
    fn odd_properties_are_no_matter() {
        let odd =
            br#"{"properties": {"correlation_id": {"a": [1]}, "reply_to": null, "delivery_mode": "2", "priority": -1,
            "expiration": 1.5, "delivery_tag": 1, "delivery_info": {"exchange": null, "redelivered": true}}}"#;
        let Delivery { incoming, redelivered } = Delivery::read(odd, 1024).expect("an envelope");
        assert!(redelivered);
        let properties = incoming.properties;
        assert_eq!((properties.delivery_mode, properties.priority, properties.expiration_ms), (2, 0, Some(1)));
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
