//! What crosses the wire: the bytes that Python's encoder writes, in both directions.

#[path = "payload/fixtures.rs"]
mod fixtures;
#[path = "payload/receiving.rs"]
mod receiving;
#[path = "payload/refusing.rs"]
mod refusing;
#[path = "payload/roundtrip.rs"]
mod roundtrip;
#[path = "payload/senders.rs"]
mod senders;

use async_signals::{
    payload::{self, Body, DecodeError},
    sender::Sender,
};
use serde::{Deserialize, Serialize, de::DeserializeOwned};

const SIGNAL: &str = "shop.signals.order_placed";
const LIMIT: usize = 1 << 20;

/// A payload of one argument.
#[derive(Debug, PartialEq, Serialize, Deserialize)]
struct Argument<T> {
    value: T,
}

/// The body of a signal with these arguments, as JSON.
fn body(arguments: &str) -> String {
    format!(r#"[["{SIGNAL}",null],{arguments},{{"callbacks":null,"errbacks":null,"chain":null,"chord":null}}]"#)
}

/// The arguments that a payload becomes, as JSON.
fn arguments<P: Serialize + ?Sized>(payload: &P) -> String {
    let bytes = payload::encode(SIGNAL, &Sender::NONE, payload, LIMIT).expect("what crosses the wire");
    let text = String::from_utf8(bytes.into()).expect("JSON is UTF-8");
    let (before, after) = (format!(r#"[["{SIGNAL}",null],"#), r#",{"callbacks":null,"errbacks":null,"#);
    let arguments = text.strip_prefix(&before).and_then(|rest| rest.split_once(after));
    arguments.unwrap_or_else(|| panic!("a body: {text}")).0.to_owned()
}

/// Arguments of JSON as a payload.
fn read<P: DeserializeOwned>(arguments: &str) -> Result<P, DecodeError> {
    Body::read(body(arguments).as_bytes())?.payload()
}

/// The one argument `value`, of JSON, as a `T`.
fn value<T: DeserializeOwned>(json: &str) -> Result<T, DecodeError> {
    read::<Argument<T>>(&format!(r#"{{"value":{json}}}"#)).map(|argument| argument.value)
}

/// A marker of ours around these parts.
fn ours(parts: &str) -> String {
    format!(r#"{{"__type__":"async_signals","__value__":[{parts}]}}"#)
}

/// A marker of kombu's.
fn kombus(name: &str, value: &str) -> String {
    format!(r#"{{"__type__":"{name}","__value__":{value}}}"#)
}
