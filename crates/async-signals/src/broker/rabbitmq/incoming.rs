//! A delivery's properties and headers, in the terms of a message: the way
//! back of [`headers`](super::headers).
//!
//! JSON has no word for some of AMQP's types. They become what py-amqp reads
//! them as and kombu then writes in JSON, so that a header looks the same
//! whichever broker it came through: `{"__type__": "datetime", …}` and its like.
//!
//! Nothing here fails: what RabbitMQ delivers, and lapin reads, is a message.
//! How deep tables nest has been bounded by the [`sieve`](super::sieve).

use std::sync::Arc;

use base64::{Engine, engine::general_purpose::STANDARD};
use lapin::{
    BasicProperties,
    message::Delivery,
    types::{AMQPValue, DecimalValue, FieldTable, ShortString},
};
use serde_json::{Map, Number, Value, json};
use time::OffsetDateTime;

use crate::message::{Incoming, Properties};

/// What AMQP takes a message for that does not say: one that need not survive a restart.
const TRANSIENT: u8 = 1;

/// The message that was delivered.
pub(super) fn incoming(delivery: Delivery) -> Incoming {
    let Delivery { exchange, routing_key, properties, data, .. } = delivery;
    Incoming {
        headers: properties.headers().as_ref().map(map).unwrap_or_default().into(),
        properties: self::properties(&properties),
        exchange: exchange.into(),
        routing_key: routing_key.into(),
        body: data.into(),
    }
}

fn properties(properties: &BasicProperties) -> Properties {
    let text = |text: &Option<ShortString>| text.as_ref().map(|text| Arc::from(text.as_str()));
    Properties {
        content_type: text(properties.content_type()).unwrap_or_default(),
        content_encoding: text(properties.content_encoding()).unwrap_or_default(),
        delivery_mode: properties.delivery_mode().unwrap_or(TRANSIENT),
        priority: properties.priority().unwrap_or_default(),
        correlation_id: properties.correlation_id().as_ref().map(ToString::to_string).unwrap_or_default(),
        reply_to: text(properties.reply_to()),
        // RabbitMQ takes nothing but milliseconds here.
        expiration_ms: properties.expiration().as_ref().and_then(|text| text.as_str().parse().ok()),
    }
}

fn map(table: &FieldTable) -> Map<String, Value> {
    table.into_iter().map(|(name, item)| (name.as_str().to_owned(), value(item))).collect()
}

fn value(value: &AMQPValue) -> Value {
    match value {
        AMQPValue::Void => Value::Null,
        AMQPValue::Boolean(flag) => (*flag).into(),
        AMQPValue::ShortShortInt(number) => (*number).into(),
        AMQPValue::ShortShortUInt(number) => (*number).into(),
        AMQPValue::ShortInt(number) => (*number).into(),
        AMQPValue::ShortUInt(number) => (*number).into(),
        AMQPValue::LongInt(number) => (*number).into(),
        AMQPValue::LongUInt(number) => (*number).into(),
        AMQPValue::LongLongInt(number) => (*number).into(),
        AMQPValue::Float(number) => float((*number).into()),
        AMQPValue::Double(number) => float(*number),
        AMQPValue::DecimalValue(number) => marker("decimal", decimal(*number)),
        AMQPValue::ShortString(text) => text.as_str().into(),
        AMQPValue::LongString(text) => match str::from_utf8(text.as_bytes()) {
            Ok(text) => text.into(),
            Err(_) => bytes(text.as_bytes()),
        },
        AMQPValue::ByteArray(array) => bytes(array.as_slice()),
        AMQPValue::Timestamp(seconds) => timestamp(*seconds),
        AMQPValue::FieldArray(items) => items.as_slice().iter().map(self::value).collect(),
        AMQPValue::FieldTable(table) => Value::Object(map(table)),
    }
}

fn marker(kind: &str, value: String) -> Value {
    json!({"__type__": kind, "__value__": value})
}

/// JSON has no NaN and no infinities: these go by their names.
fn float(number: f64) -> Value {
    Number::from_f64(number).map_or_else(|| number.to_string().into(), Value::Number)
}

/// As kombu writes bytes: as text where they are text.
fn bytes(bytes: &[u8]) -> Value {
    match str::from_utf8(bytes) {
        Ok(text) => marker("bytes", text.to_owned()),
        Err(_) => marker("base64", STANDARD.encode(bytes)),
    }
}

/// Seconds since 1970; a number where no calendar has the day.
fn timestamp(seconds: u64) -> Value {
    match i64::try_from(seconds).map(OffsetDateTime::from_unix_timestamp) {
        Ok(Ok(at)) => {
            let (hour, minute, second) = at.to_hms();
            marker("datetime", format!("{}T{hour:02}:{minute:02}:{second:02}+00:00", at.date()))
        }
        _ => seconds.into(),
    }
}

/// A signed number, and how many of its digits come after the point.
fn decimal(DecimalValue { scale, value }: DecimalValue) -> String {
    let (scale, value) = (usize::from(scale), value.cast_signed());
    let sign = if value < 0 { "-" } else { "" };
    let digits = format!("{:0>width$}", value.unsigned_abs(), width = scale + 1);
    let (whole, fraction) = digits.split_at(digits.len() - scale);
    if fraction.is_empty() { format!("{sign}{whole}") } else { format!("{sign}{whole}.{fraction}") }
}

#[cfg(test)]
mod tests {
    use lapin::{
        protocol::basic::parse_properties,
        types::{ByteArray, FieldArray},
    };

    use super::*;

    #[test]
    fn reads_what_celery_wrote() {
        let captured: Value = serde_json::from_str(include_str!("../../../tests/fixtures/celery_amqp_publish.json"))
            .expect("the fixture is JSON");
        let hex = captured["property_list"].as_str().expect("bytes");
        let bytes: Vec<u8> =
            (0..hex.len()).step_by(2).map(|at| u8::from_str_radix(&hex[at..at + 2], 16).expect("hex")).collect();
        let (_, celery) = parse_properties(&bytes[..]).expect("a property list");
        let mut delivery = Delivery::mock(1, "captured".into(), "key".into(), false, b"[[], {}, {}]".to_vec());
        delivery.properties = celery;
        let incoming = incoming(delivery);
        assert_eq!(Value::Object(incoming.headers.into()), captured["headers"]);
        let (properties, text) = (incoming.properties, |name: &str| captured["properties"][name].as_str());
        assert_eq!(Some(&*properties.content_type), text("content_type"));
        assert_eq!(Some(&*properties.content_encoding), text("content_encoding"));
        assert_eq!(Some(&*properties.correlation_id), text("correlation_id"));
        assert_eq!(properties.reply_to.as_deref(), text("reply_to"));
        assert_eq!((properties.delivery_mode, properties.priority), (2, 7));
        assert_eq!(properties.expiration_ms, Some(600_000));
        assert_eq!((incoming.exchange.as_str(), incoming.routing_key.as_str()), ("captured", "key"));
        assert_eq!(incoming.body, "[[], {}, {}]");
    }

    #[test]
    fn what_is_missing_is_what_amqp_takes_it_for() {
        let incoming = incoming(Delivery::mock(1, "".into(), "q".into(), false, Vec::new()));
        let properties = incoming.properties;
        assert!(incoming.headers.is_empty() && incoming.body.is_empty());
        assert_eq!((&*properties.content_type, &*properties.content_encoding), ("", ""));
        assert_eq!((properties.delivery_mode, properties.priority), (1, 0));
        assert_eq!(
            (properties.correlation_id.as_str(), properties.reply_to, properties.expiration_ms),
            ("", None, None)
        );
    }

    #[test]
    fn every_type_has_its_json() {
        let mut table = FieldTable::default();
        table.insert("in".into(), AMQPValue::FieldArray(FieldArray::from(vec![AMQPValue::Void])));
        for (amqp, expected) in [
            (AMQPValue::Boolean(true), json!(true)),
            (AMQPValue::ShortShortInt(-8), json!(-8)),
            (AMQPValue::ShortShortUInt(200), json!(200)),
            (AMQPValue::ShortInt(-300), json!(-300)),
            (AMQPValue::ShortUInt(60_000), json!(60_000)),
            (AMQPValue::LongInt(i32::MIN), json!(i32::MIN)),
            (AMQPValue::LongUInt(u32::MAX), json!(u32::MAX)),
            (AMQPValue::LongLongInt(i64::MIN), json!(i64::MIN)),
            (AMQPValue::Float(1.5), json!(1.5)),
            (AMQPValue::Double(0.1), json!(0.1)),
            (AMQPValue::Double(f64::NAN), json!("NaN")),
            (AMQPValue::Float(f32::NEG_INFINITY), json!("-inf")),
            (AMQPValue::ShortString("é".into()), json!("é")),
            (AMQPValue::LongString("é".into()), json!("é")),
            (AMQPValue::LongString(vec![0xff, 0].into()), json!({"__type__": "base64", "__value__": "/wA="})),
            (AMQPValue::ByteArray(ByteArray::from(&b"ab"[..])), json!({"__type__": "bytes", "__value__": "ab"})),
            (
                AMQPValue::Timestamp(1_700_000_000),
                json!({"__type__": "datetime", "__value__": "2023-11-14T22:13:20+00:00"}),
            ),
            (AMQPValue::Timestamp(u64::MAX), json!(u64::MAX)),
            (AMQPValue::FieldTable(table), json!({"in": [null]})),
        ] {
            assert_eq!(value(&amqp), expected, "{amqp:?}");
        }
    }

    #[test]
    fn decimals_keep_their_digits() {
        let text = |scale, value: i32| decimal(DecimalValue { scale, value: value.cast_unsigned() });
        assert_eq!(text(2, 12345), "123.45");
        assert_eq!(text(0, 7), "7");
        assert_eq!(text(3, -5), "-0.005");
        assert_eq!(text(255, 1), format!("0.{}1", "0".repeat(254)));
    }
}
