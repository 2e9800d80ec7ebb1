//! kombu's envelope: how a message lies in a Redis list or an SQLite row.
//!
//! One JSON object, as written by `kombu/transport/virtual/base.py`
//! (`Channel.prepare_message` and `Channel._inplace_augment_message`):
//!
//! ```json
//! {"body": "<base64>", "content-encoding": "utf-8", "content-type": "application/json",
//!  "headers": {…},
//!  "properties": {"correlation_id": "…", "reply_to": "…", "delivery_mode": 2, "expiration": "60000",
//!                 "delivery_info": {"exchange": "", "routing_key": "celery"},
//!                 "priority": 0, "body_encoding": "base64", "delivery_tag": "…"}}
//! ```

use std::borrow::Cow;

use base64::{Engine, engine::general_purpose::STANDARD};
use serde::{Deserialize, Serialize, Serializer};
use serde_json::{Map, Value};
use thiserror::Error;
use uuid::Uuid;

use super::object::Object;
use crate::message::{Headers, Message};

/// Appends the envelope of a message to a buffer.
///
/// `delivery_tag` must be fresh for every copy of a message: consumers keep
/// what they have not acknowledged under it.
///
/// # Errors
///
/// What `serde_json` says of headers that it cannot write.
pub fn write_envelope(
    out: &mut Vec<u8>,
    message: &Message,
    exchange: &str,
    routing_key: &str,
    delivery_tag: Uuid,
) -> Result<(), serde_json::Error> {
    let properties = &message.properties;
    out.reserve(base64::encoded_len(message.body.len(), true).unwrap_or_default() + 1536);
    out.extend_from_slice(br#"{"body":""#);
    write_base64(out, &message.body);
    out.extend_from_slice(br#"","content-encoding":"#);
    serde_json::to_writer(&mut *out, &*properties.content_encoding)?;
    out.extend_from_slice(br#","content-type":"#);
    serde_json::to_writer(&mut *out, &*properties.content_type)?;
    out.extend_from_slice(br#","headers":"#);
    match &message.headers {
        Headers::Task(headers) => headers.write_json(out)?,
        Headers::Raw(headers) => serde_json::to_writer(&mut *out, headers)?,
    }
    out.extend_from_slice(br#","properties":"#);
    let properties = Properties {
        correlation_id: &properties.correlation_id,
        reply_to: properties.reply_to.as_deref(),
        delivery_mode: properties.delivery_mode,
        expiration: properties.expiration_ms,
        delivery_info: DeliveryInfo { exchange, routing_key },
        priority: properties.priority,
        body_encoding: "base64",
        delivery_tag,
    };
    serde_json::to_writer(&mut *out, &properties)?;
    out.push(b'}');
    Ok(())
}

fn write_base64(out: &mut Vec<u8>, bytes: &[u8]) {
    let start = out.len();
    let length = base64::encoded_len(bytes.len(), true).expect("what is in memory has a length in base64");
    out.resize(start + length, 0);
    STANDARD.encode_slice(bytes, &mut out[start..]).expect("exactly this length was made");
}

#[derive(Serialize)]
struct Properties<'a> {
    #[serde(skip_serializing_if = "str::is_empty")]
    correlation_id: &'a str,
    #[serde(skip_serializing_if = "Option::is_none")]
    reply_to: Option<&'a str>,
    delivery_mode: u8,
    #[serde(skip_serializing_if = "Option::is_none", serialize_with = "write_expiration")]
    expiration: Option<u64>,
    delivery_info: DeliveryInfo<'a>,
    priority: u8,
    body_encoding: &'static str,
    delivery_tag: Uuid,
}

#[derive(Serialize)]
struct DeliveryInfo<'a> {
    exchange: &'a str,
    routing_key: &'a str,
}

/// AMQP's `expiration` is milliseconds as text.
fn write_expiration<S: Serializer>(expiration: &Option<u64>, serializer: S) -> Result<S::Ok, S::Error> {
    match expiration {
        Some(milliseconds) => serializer.collect_str(milliseconds),
        None => serializer.serialize_none(),
    }
}

/// An envelope that was read. Headers and properties are kept whole, so that
/// what we do not know survives a message's way back into its queue.
#[derive(Clone, Debug, PartialEq)]
pub struct Envelope {
    /// The message's headers.
    pub headers: Map<String, Value>,
    /// Its properties, `delivery_info` and `delivery_tag` among them.
    pub properties: Map<String, Value>,
    /// `application/json`, …
    pub content_type: Option<String>,
    /// `utf-8`, …
    pub content_encoding: Option<String>,
    /// The body, decoded.
    pub body: Vec<u8>,
}

/// Why bytes are no envelope.
#[derive(Clone, Debug, PartialEq, Error)]
#[non_exhaustive]
pub enum EnvelopeError {
    /// More bytes than the reader allows.
    #[error("an envelope of {size} bytes, over the limit of {limit}")]
    TooLarge {
        /// How many bytes it has.
        size: usize,
        /// How many were allowed.
        limit: usize,
    },
    /// Not JSON, nested too deep, or not of the envelope's shape.
    #[error("not an envelope: {reason}")]
    Malformed {
        /// What the JSON reader said.
        reason: String,
    },
    /// The body does not decode.
    #[error("the body of the envelope is not {encoding}")]
    Body {
        /// The encoding that the envelope names.
        encoding: String,
    },
}

#[derive(Deserialize)]
#[serde(rename_all = "kebab-case")]
struct Raw<'a> {
    #[serde(borrow, default)]
    body: Option<Cow<'a, str>>,
    #[serde(default)]
    content_encoding: Option<String>,
    #[serde(default)]
    content_type: Option<String>,
    #[serde(default)]
    headers: Option<Map<String, Value>>,
    properties: Map<String, Value>,
}

impl Envelope {
    /// Reads an envelope of at most `limit` bytes, as a consumer of kombu would.
    ///
    /// ```
    /// use async_signals::protocol::kombu::Envelope;
    ///
    /// let bytes = br#"{"body": "W10=", "properties": {"body_encoding": "base64", "priority": 3}}"#;
    /// let envelope = Envelope::read(bytes, 1024)?;
    /// assert_eq!((envelope.body.as_slice(), envelope.priority()), (b"[]".as_slice(), 3));
    /// # Ok::<(), async_signals::protocol::kombu::EnvelopeError>(())
    /// ```
    ///
    /// # Errors
    ///
    /// [`EnvelopeError`]. No input makes it panic; nesting is bounded by `serde_json`.
    pub fn read(bytes: &[u8], limit: usize) -> Result<Self, EnvelopeError> {
        if bytes.len() > limit {
            return Err(EnvelopeError::TooLarge { size: bytes.len(), limit });
        }
        let Object(raw): Object<Raw<'_>> =
            serde_json::from_slice(bytes).map_err(|error| EnvelopeError::Malformed { reason: error.to_string() })?;
        let body = raw.body.unwrap_or_default();
        let body = match raw.properties.get("body_encoding") {
            None | Some(Value::Null) => body.into_owned().into_bytes(),
            Some(encoding) if encoding == "base64" => STANDARD.decode(body.as_bytes()).map_err(|_| bad(encoding))?,
            Some(encoding) => return Err(bad(encoding)),
        };
        Ok(Self {
            headers: raw.headers.unwrap_or_default(),
            properties: raw.properties,
            content_type: raw.content_type,
            content_encoding: raw.content_encoding,
            body,
        })
    }

    /// What a consumer keeps the message under until it acknowledges.
    pub fn delivery_tag(&self) -> Option<&str> {
        self.properties.get("delivery_tag")?.as_str()
    }

    /// The exchange it was published to; empty for the default exchange.
    pub fn exchange(&self) -> Option<&str> {
        self.properties.get("delivery_info")?.get("exchange")?.as_str()
    }

    /// The routing key it was published with.
    pub fn routing_key(&self) -> Option<&str> {
        self.properties.get("delivery_info")?.get("routing_key")?.as_str()
    }

    /// The priority from 0 to 9, as kombu bounds it; 0 where none can be read.
    pub fn priority(&self) -> u8 {
        let number = match self.properties.get("priority") {
            Some(Value::Number(number)) => number.as_f64(),
            Some(Value::String(text)) => text.trim().parse::<i64>().ok().map(|number| number as f64),
            _ => None,
        };
        // Bounded first: the cast cuts the fraction off, as Python's int() does.
        number.unwrap_or_default().clamp(0.0, 9.0) as u8
    }
}

fn bad(encoding: &Value) -> EnvelopeError {
    let mut encoding = encoding.as_str().map_or_else(|| encoding.to_string(), str::to_owned);
    if let Some((cut, _)) = encoding.char_indices().nth(32) {
        encoding.truncate(cut);
    }
    EnvelopeError::Body { encoding }
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use bytes::Bytes;
    use proptest::prelude::*;

    use super::*;
    use crate::message::Properties as MessageProperties;

    const LIMIT: usize = 1 << 20;

    fn message(headers: Map<String, Value>, properties: MessageProperties, body: Vec<u8>) -> Message {
        Message { id: Uuid::new_v4(), headers: Headers::Raw(headers), properties, body: Bytes::from(body) }
    }

    fn write(message: &Message, exchange: &str, routing_key: &str, tag: Uuid) -> Vec<u8> {
        let mut out = Vec::new();
        write_envelope(&mut out, message, exchange, routing_key, tag).expect("a message of JSON values");
        out
    }

    /// The path of every key, in their order.
    fn outline(bytes: &[u8]) -> Vec<String> {
        fn walk(path: &str, value: &Value, found: &mut Vec<String>) {
            let Value::Object(map) = value else { return };
            for (key, value) in map {
                found.push(format!("{path}{key}"));
                if path.is_empty() || key == "delivery_info" {
                    walk(&format!("{path}{key}."), value, found);
                }
            }
        }
        let mut found = Vec::new();
        walk("", &serde_json::from_slice(bytes).expect("JSON"), &mut found);
        found
    }

    /// Published by Celery 5.7 on kombu 5.7.
    const CAPTURED: [&[u8]; 4] = [
        include_bytes!("../../tests/fixtures/celery-5.7-redis-plain.json"),
        include_bytes!("../../tests/fixtures/celery-5.7-redis-expires.json"),
        include_bytes!("../../tests/fixtures/celery-5.7-sqlite-plain.json"),
        include_bytes!("../../tests/fixtures/celery-5.7-sqlite-expires.json"),
    ];

    #[test]
    fn reads_what_celery_wrote() {
        for (bytes, queue, priority, expiration) in [
            (CAPTURED[0], "celery", 0, None),
            (CAPTURED[1], "high_priority", 7, Some("60000")),
            (CAPTURED[2], "celery", 0, None),
            (CAPTURED[3], "high_priority", 7, Some("60000")),
        ] {
            let envelope = Envelope::read(bytes, LIMIT).expect("an envelope");
            assert_eq!(envelope.headers["task"], "async_signals.propagate");
            assert_eq!(envelope.headers["id"], envelope.properties["correlation_id"]);
            assert_eq!(envelope.content_type.as_deref(), Some("application/json"));
            assert_eq!(envelope.content_encoding.as_deref(), Some("utf-8"));
            assert_eq!((envelope.exchange(), envelope.routing_key()), (Some(""), Some(queue)));
            assert_eq!(envelope.priority(), priority);
            assert_eq!(envelope.properties.get("expiration").and_then(Value::as_str), expiration);
            assert!(envelope.delivery_tag().is_some_and(|tag| tag.parse::<Uuid>().is_ok()));
            let body: Value = serde_json::from_slice(&envelope.body).expect("a body of JSON");
            assert_eq!(body[0][0], "shop.signals.order_placed");
        }
    }

    #[test]
    fn writes_what_celery_would_have_written() {
        for captured in CAPTURED {
            let theirs = Envelope::read(captured, LIMIT).expect("an envelope");
            let text = |name: &str| theirs.properties.get(name).and_then(Value::as_str);
            let properties = MessageProperties {
                content_type: theirs.content_type.as_deref().expect("a content type").into(),
                content_encoding: theirs.content_encoding.as_deref().expect("an encoding").into(),
                delivery_mode: 2,
                priority: theirs.priority(),
                correlation_id: text("correlation_id").expect("an id").to_owned(),
                reply_to: text("reply_to").map(Arc::from),
                expiration_ms: text("expiration").map(|ms| ms.parse().expect("a number")),
            };
            let message = message(theirs.headers.clone(), properties, theirs.body.clone());
            let tag = text("delivery_tag").expect("a tag").parse().expect("a UUID");
            let ours = write(&message, "", theirs.routing_key().expect("a key"), tag);
            assert_eq!(Envelope::read(&ours, LIMIT).expect("an envelope"), theirs);
            assert_eq!(outline(&ours), outline(captured), "the same keys in the same order");
        }
    }

    #[test]
    fn refuses_what_is_no_envelope() {
        let read = |text: &str| Envelope::read(text.as_bytes(), 64).expect_err(text);
        assert_eq!(read(&" ".repeat(65)), EnvelopeError::TooLarge { size: 65, limit: 64 });
        for malformed in [
            "",
            "[]",
            "{}",
            "null",
            "{\"properties\": 1}",
            "{\"properties\": {}, \"body\": 1}",
            "[null, null, null, {}, {}]",
        ] {
            assert!(matches!(read(malformed), EnvelopeError::Malformed { .. }), "{malformed}");
        }
        let encoding = |text: &str| EnvelopeError::Body { encoding: text.to_owned() };
        assert_eq!(read(r#"{"body": "*", "properties": {"body_encoding": "base64"}}"#), encoding("base64"));
        assert_eq!(read(r#"{"body": "", "properties": {"body_encoding": "rot13"}}"#), encoding("rot13"));
        let deep = format!(r#"{{"properties": {}{} }}"#, "[".repeat(100_000), "]".repeat(100_000));
        assert!(matches!(Envelope::read(deep.as_bytes(), LIMIT), Err(EnvelopeError::Malformed { .. })));
    }

    #[test]
    fn bounds_priorities_as_kombu_does() {
        for (priority, bounded) in
            [("5", 5), ("255", 9), ("-1", 0), ("\"7\"", 7), ("null", 0), ("\"x\"", 0), ("3.9", 3)]
        {
            let bytes = format!(r#"{{"properties": {{"priority": {priority}}}}}"#);
            assert_eq!(Envelope::read(bytes.as_bytes(), LIMIT).expect("an envelope").priority(), bounded, "{priority}");
        }
    }

    fn json() -> impl Strategy<Value = Value> {
        let leaf = prop_oneof![
            Just(Value::Null),
            any::<bool>().prop_map(Value::from),
            any::<i64>().prop_map(Value::from),
            any::<String>().prop_map(Value::from),
        ];
        leaf.prop_recursive(3, 16, 4, |inner| {
            prop_oneof![
                prop::collection::vec(inner.clone(), 0..4).prop_map(Value::from),
                prop::collection::btree_map(any::<String>(), inner, 0..4)
                    .prop_map(|map| Value::Object(map.into_iter().collect())),
            ]
        })
    }

    proptest! {
        #[test]
        fn what_is_written_is_read_back(
            headers in prop::collection::btree_map(any::<String>(), json(), 0..6),
            body in prop::collection::vec(any::<u8>(), 0..512),
            (delivery_mode, priority) in (1..=2u8, any::<u8>()),
            (correlation_id, exchange, routing_key) in any::<(String, String, String)>(),
            (reply_to, expiration_ms) in any::<(Option<String>, Option<u64>)>(),
        ) {
            let headers: Map<_, _> = headers.into_iter().collect();
            let properties = MessageProperties {
                delivery_mode,
                priority,
                correlation_id: correlation_id.clone(),
                reply_to: reply_to.as_deref().map(Arc::from),
                expiration_ms,
                ..MessageProperties::for_task(Uuid::nil())
            };
            let tag = Uuid::new_v4();
            let bytes = write(&message(headers.clone(), properties, body.clone()), &exchange, &routing_key, tag);
            let read = Envelope::read(&bytes, LIMIT).expect("an envelope");
            prop_assert_eq!(read.delivery_tag().map(str::to_owned), Some(tag.to_string()));
            prop_assert_eq!(read.exchange(), Some(exchange.as_str()));
            prop_assert_eq!(read.routing_key(), Some(routing_key.as_str()));
            prop_assert_eq!(read.priority(), priority.min(9));
            prop_assert_eq!(&read.properties["delivery_mode"], delivery_mode);
            prop_assert_eq!(
                read.properties.get("correlation_id").and_then(Value::as_str),
                Some(correlation_id.as_str()).filter(|id| !id.is_empty())
            );
            prop_assert_eq!(read.properties.get("reply_to").and_then(Value::as_str), reply_to.as_deref());
            let expiration = expiration_ms.map(|ms| ms.to_string());
            prop_assert_eq!(read.properties.get("expiration").and_then(Value::as_str), expiration.as_deref());
            prop_assert_eq!((read.headers, read.body), (headers, body));
        }

        #[test]
        fn no_bytes_make_it_panic(bytes in prop::collection::vec(any::<u8>(), 0..256), cut in 0..2000usize) {
            let _ = Envelope::read(&bytes, LIMIT);
            let captured = CAPTURED[1];
            let _ = Envelope::read(&captured[..cut.min(captured.len())], LIMIT);
        }
    }
}
