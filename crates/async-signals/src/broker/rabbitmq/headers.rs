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
        .with_priority(properties.priority)
        .with_correlation_id(short("correlation_id", properties.correlation_id.as_str())?);
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
