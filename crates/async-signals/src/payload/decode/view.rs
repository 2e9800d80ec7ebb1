//! What a value is, its marker understood.

use std::borrow::Cow;

use base64::{Engine, engine::general_purpose::STANDARD as BASE64};
use uuid::Uuid;

use super::wire::Wire;
use crate::payload::{
    fault::{Checked, Fault, short},
    marker,
};

pub(super) type Members<'de> = &'de [(Cow<'de, str>, Wire<'de>)];

/// A value that is plain JSON, or what a marker says it is.
#[derive(Debug)]
pub(super) enum View<'de> {
    Null,
    Bool(bool),
    Int(&'de str),
    Float(f64),
    Text(&'de str),
    List(&'de [Wire<'de>]),
    Map(Members<'de>),
    /// A datetime, date, time, decimal or class, by its text.
    Named(&'de str),
    Uuid(Uuid),
    /// Bytes that are a text.
    TextBytes(&'de str),
    Bytes(Vec<u8>),
    Tuple(&'de [Wire<'de>]),
    Set(&'de [Wire<'de>]),
    /// A dictionary, as lists of a key and a value.
    Pairs(&'de [Wire<'de>]),
    /// Days, seconds, microseconds.
    Timedelta(&'de [Wire<'de>]),
    /// Label, key, database.
    Model(&'de [Wire<'de>]),
    /// Class, member.
    Enum(&'de [Wire<'de>]),
    /// Class, fields.
    Dataclass(&'de [Wire<'de>], Members<'de>),
    /// What the encoder made that somebody registered with kombu.
    Registered(&'de Wire<'de>),
}

impl<'de> View<'de> {
    /// Fails for a marker that is not known or not of its shape.
    pub(super) fn of(wire: &'de Wire<'de>) -> Checked<Self> {
        match wire {
            Wire::Map(members) => match marker(members) {
                None => Ok(Self::Map(members)),
                Some((Wire::Text(name), value)) => Self::marked(name, value),
                Some(_) => Err(Fault::value("a __type__ is no text")),
            },
            plain => Ok(Self::plain(plain)),
        }
    }

    /// A value that is taken as the JSON it is, markers included.
    pub(super) fn plain(wire: &'de Wire<'de>) -> Self {
        match wire {
            Wire::Null => Self::Null,
            Wire::Bool(value) => Self::Bool(*value),
            Wire::Int(digits) => Self::Int(digits),
            Wire::Float(value) => Self::Float(*value),
            Wire::Text(text) => Self::Text(text),
            Wire::List(items) => Self::List(items),
            Wire::Map(members) => Self::Map(members),
        }
    }

    fn marked(name: &'de str, value: &'de Wire<'de>) -> Checked<Self> {
        match (name, value) {
            (marker::OURS, Wire::List(parts)) => match parts.as_slice() {
                [Wire::Text(kind), parts @ ..] => Self::ours(kind, parts),
                _ => Err(misshapen(name)),
            },
            ("datetime" | "date" | "time" | "decimal", Wire::Text(text)) => Ok(Self::Named(text)),
            ("uuid", Wire::Map(members)) => match members.as_slice() {
                [(part, Wire::Text(hex))] if part == "hex" => hex.parse().map(Self::Uuid).map_err(|_| misshapen(name)),
                _ => Err(misshapen(name)),
            },
            ("bytes", Wire::Text(text)) => Ok(Self::TextBytes(text)),
            ("base64", Wire::Text(text)) => {
                BASE64.decode(text.as_bytes()).map(Self::Bytes).map_err(|_| misshapen(name))
            }
            (marker::OURS | "datetime" | "date" | "time" | "decimal" | "uuid" | "bytes" | "base64", _) => {
                Err(misshapen(name))
            }
            _ => Err(Fault::value(format!(
                "a value of the type {:?}, which somebody registered with kombu and Rust does not know; \
                 send a plain value",
                short(name)
            ))),
        }
    }

    fn ours(kind: &'de str, parts: &'de [Wire<'de>]) -> Checked<Self> {
        Ok(match (kind, parts) {
            ("tuple", [Wire::List(items)]) => Self::Tuple(items),
            ("namedtuple", [Wire::Text(_), Wire::List(items)]) => Self::Tuple(items),
            ("safe_string", [Wire::Text(text)]) => Self::Text(text),
            ("set" | "frozenset", [Wire::List(members)]) => Self::Set(members),
            ("dict", [Wire::List(pairs)]) if pairs.iter().all(is_pair) => Self::Pairs(pairs),
            ("timedelta", [Wire::Int(_), Wire::Int(_), Wire::Int(_)]) => Self::Timedelta(parts),
            ("enum", [Wire::Text(_), Wire::Text(_) | Wire::Int(_)]) => Self::Enum(parts),
            ("dataclass", [Wire::Text(_), Wire::Map(fields)]) => Self::Dataclass(parts, fields),
            ("model", [Wire::Text(_), _, Wire::Text(_) | Wire::Null]) => Self::Model(parts),
            ("class" | "model_class", [Wire::Text(label)]) => Self::Named(label),
            ("registered", [Wire::Text(_), value]) => Self::Registered(value),
            (
                "tuple" | "set" | "frozenset" | "dict" | "timedelta" | "enum" | "dataclass" | "model" | "class"
                | "model_class" | "registered" | "namedtuple" | "safe_string",
                _,
            ) => return Err(misshapen(kind)),
            _ => {
                return Err(Fault::value(format!(
                    "this version of Async Signals does not know the kind {:?}; the sender's may be newer",
                    short(kind)
                )));
            }
        })
    }

    /// What it is, in words; `None` for what JSON has itself.
    pub(super) fn what(&self) -> Option<&'static str> {
        Some(match self {
            Self::Named(_) => "a date, time, decimal or class",
            Self::Uuid(_) => "a UUID",
            Self::TextBytes(_) | Self::Bytes(_) => "bytes",
            Self::Tuple(_) => "a tuple",
            Self::Set(_) => "a set",
            Self::Pairs(_) => "a dictionary",
            Self::Timedelta(_) => "a timedelta",
            Self::Model(_) => "a row of a Django model (take a types::Model, or send its key)",
            Self::Enum(_) => "a member of an enum",
            Self::Dataclass(..) => "a dataclass",
            _ => return None,
        })
    }
}

/// The name and value of a marker; `None` for any other map.
fn marker<'de>(members: Members<'de>) -> Option<(&'de Wire<'de>, &'de Wire<'de>)> {
    match members {
        [(first, name), (second, value)] if first == marker::TYPE && second == marker::VALUE => Some((name, value)),
        [(first, value), (second, name)] if first == marker::VALUE && second == marker::TYPE => Some((name, value)),
        _ => None,
    }
}

fn is_pair(wire: &Wire<'_>) -> bool {
    matches!(wire, Wire::List(pair) if pair.len() == 2)
}

fn misshapen(kind: &str) -> Fault {
    Fault::value(format!("a {kind} that is not of the shape that this version of Async Signals reads"))
}
