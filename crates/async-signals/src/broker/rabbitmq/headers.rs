//! A message's headers and properties, and a queue's arguments, in AMQP's types.
//!
//! The types are those that py-amqp writes for the same values
//! (`amqp/serialization.py:_write_item`), because a queue that was declared by
//! Celery has to be declared alike: int → `I`, or 64 bits wide when it needs
//! them; str → `S`; bool → `t`; float → `d`; None → `V`; list → `A`; dict → `F`.
//! A table's entries are sorted here; AMQP gives their order no meaning.

use lapin::{
    BasicProperties,
    types::{AMQPValue, FieldArray, FieldTable, ShortString},
};
use serde_json::{Map, Number, Value};

use super::super::BrokerError;
use crate::message::{Headers, Message};

/// The message's properties, its headers among them.
pub(super) fn properties(message: &Message) -> Result<BasicProperties, BrokerError> {
    let properties = &message.properties;
    let mut encoded = BasicProperties::default()
        .with_content_type(short("content_type", &*properties.content_type)?)
        .with_content_encoding(short("content_encoding", &*properties.content_encoding)?)
        .with_headers(headers(&message.headers)?)
        .with_delivery_mode(properties.delivery_mode)
        .with_priority(properties.priority);
    if !properties.correlation_id.is_empty() {
        encoded = encoded.with_correlation_id(short("correlation_id", properties.correlation_id.as_str())?);
    }
    if let Some(reply_to) = &properties.reply_to {
        encoded = encoded.with_reply_to(short("reply_to", &**reply_to)?);
    }
    if let Some(milliseconds) = properties.expiration_ms {
        encoded = encoded.with_expiration(ShortString::from(milliseconds.to_string()));
    }
    Ok(encoded)
}

fn headers(headers: &Headers) -> Result<FieldTable, BrokerError> {
    match headers {
        Headers::Raw(map) => table(map.clone()),
        Headers::Task(task) => match serde_json::to_value(task) {
            Ok(Value::Object(map)) => table(map),
            Ok(_) => Err(invalid("headers", "they are no table")),
            Err(error) => Err(invalid("headers", error)),
        },
    }
}

/// A table of AMQP values.
pub(super) fn table(map: Map<String, Value>) -> Result<FieldTable, BrokerError> {
    let mut table = FieldTable::default();
    for (name, item) in map {
        let item = value(&name, item)?;
        table.insert(short("a name in a table", name)?, item);
    }
    Ok(table)
}

fn value(name: &str, value: Value) -> Result<AMQPValue, BrokerError> {
    Ok(match value {
        Value::Null => AMQPValue::Void,
        Value::Bool(bool) => AMQPValue::Boolean(bool),
        Value::Number(number) => self::number(name, &number)?,
        Value::String(text) => AMQPValue::LongString(text.into()),
        Value::Array(items) => {
            let items = items.into_iter().map(|item| self::value(name, item));
            AMQPValue::FieldArray(FieldArray::from(items.collect::<Result<Vec<_>, _>>()?))
        }
        Value::Object(map) => AMQPValue::FieldTable(table(map)?),
    })
}

fn number(name: &str, number: &Number) -> Result<AMQPValue, BrokerError> {
    if let Some(integer) = number.as_i64() {
        return Ok(match i32::try_from(integer) {
            // py-amqp's bound is symmetric: the lowest 32-bit number goes as 64 bits.
            Ok(narrow) if narrow != i32::MIN => AMQPValue::LongInt(narrow),
            _ => AMQPValue::LongLongInt(integer),
        });
    }
    match number.as_f64() {
        Some(float) if number.is_f64() => Ok(AMQPValue::Double(float)),
        _ => Err(invalid(name, format!("{number} needs more than the 64 bits that AMQP has"))),
    }
}

/// AMQP's names are at most 255 bytes long.
pub(super) fn short(what: &str, text: impl Into<String>) -> Result<ShortString, BrokerError> {
    let text = text.into();
    let length = text.len();
    ShortString::try_new(text).map_err(|_| invalid(what, format!("{length} bytes are too long, AMQP has 255")))
}

fn invalid(option: &str, reason: impl ToString) -> BrokerError {
    BrokerError::InvalidOption { option: option.to_owned(), reason: reason.to_string() }
}

#[cfg(test)]
mod tests {
    use lapin::protocol::basic::parse_properties;
    use serde_json::json;
    use uuid::Uuid;

    use super::*;
    use crate::message::Properties;

    fn encoded(value: Value) -> AMQPValue {
        super::value("it", value).expect("a value of AMQP's")
    }

    #[test]
    fn writes_what_celery_writes() {
        let captured: Value = serde_json::from_str(include_str!("../../../tests/fixtures/celery_amqp_publish.json"))
            .expect("the fixture is JSON");
        let hex = captured["property_list"].as_str().expect("bytes");
        let bytes: Vec<u8> =
            (0..hex.len()).step_by(2).map(|at| u8::from_str_radix(&hex[at..at + 2], 16).expect("hex")).collect();
        let (rest, celery) = parse_properties(&bytes[..]).expect("a property list");
        assert!(rest.is_empty());

        let text = |name: &str| captured["properties"][name].as_str().expect("text").to_owned();
        let id = text("correlation_id");
        let ours = properties(&Message {
            id: id.parse().expect("a UUID"),
            headers: Headers::Raw(captured["headers"].as_object().expect("headers").clone()),
            properties: Properties {
                content_type: text("content_type").into(),
                content_encoding: text("content_encoding").into(),
                delivery_mode: 2,
                priority: 7,
                correlation_id: id,
                reply_to: Some(text("reply_to").into()),
                expiration_ms: Some(600_000),
            },
            body: "".into(),
        });
        assert_eq!(ours.expect("properties"), celery);
    }

    #[test]
    fn gives_each_value_the_type_that_py_amqp_gives_it() {
        assert_eq!(encoded(json!(null)), AMQPValue::Void);
        assert_eq!(encoded(json!(true)), AMQPValue::Boolean(true));
        assert_eq!(encoded(json!(1.0)), AMQPValue::Double(1.0));
        assert_eq!(encoded(json!("é")), AMQPValue::LongString("é".into()));
        assert_eq!(encoded(json!(2_147_483_647)), AMQPValue::LongInt(i32::MAX));
        assert_eq!(encoded(json!(2_147_483_648_u32)), AMQPValue::LongLongInt(2_147_483_648));
        assert_eq!(encoded(json!(-2_147_483_647)), AMQPValue::LongInt(-i32::MAX));
        assert_eq!(encoded(json!(i32::MIN)), AMQPValue::LongLongInt(i32::MIN.into()));
        assert_eq!(encoded(json!([])), AMQPValue::FieldArray(FieldArray::default()));
        assert_eq!(encoded(json!({})), AMQPValue::FieldTable(FieldTable::default()));
    }

    #[test]
    fn priority_is_always_there_and_the_rest_only_when_given() {
        let id = Uuid::nil();
        let headers = Headers::Raw(Map::new());
        let message = Message { id, headers, properties: Properties::for_task(id), body: "".into() };
        let properties = properties(&message).expect("properties");
        assert_eq!((*properties.priority(), *properties.delivery_mode()), (Some(0), Some(2)));
        assert!(properties.reply_to().is_none() && properties.expiration().is_none());
        assert!(properties.message_id().is_none() && properties.timestamp().is_none());
    }

    #[test]
    fn refuses_what_amqp_cannot_hold() {
        let refusal = |value: Value| super::value("size", value).expect_err("too much").to_string();
        assert_eq!(refusal(json!(u64::MAX)), "size: 18446744073709551615 needs more than the 64 bits that AMQP has");
        let long = "n".repeat(256);
        assert_eq!(refusal(json!({long: 1})), "a name in a table: 256 bytes are too long, AMQP has 255");
    }
}
