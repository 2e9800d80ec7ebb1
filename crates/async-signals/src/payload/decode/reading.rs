//! A received value, as serde asks for it.

use serde::{
    Deserializer,
    de::{
        Error, Unexpected, Visitor,
        value::{BorrowedStrDeserializer, SeqDeserializer},
    },
    forward_to_deserialize_any,
};

use super::{
    access::{Entries, Items, Pairs, Parts, Variant},
    view::View,
    wire::Wire,
};
use crate::payload::{
    fault::{Checked, Fault},
    token::Token,
};

/// A value that is being read.
#[derive(Clone, Copy)]
pub(super) struct Reading<'de> {
    wire: &'de Wire<'de>,
    how: How,
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum How {
    /// With its markers understood.
    Value,
    /// As the JSON that it is.
    AsItIs,
    /// The arguments themselves: no marker, whatever they are called.
    Arguments,
}

impl<'de> Reading<'de> {
    pub(super) fn value(wire: &'de Wire<'de>) -> Self {
        Self { wire, how: How::Value }
    }

    pub(super) fn arguments(wire: &'de Wire<'de>) -> Self {
        Self { wire, how: How::Arguments }
    }

    /// A value inside of this one.
    pub(super) fn inside(self, wire: &'de Wire<'de>) -> Self {
        Self { wire, how: if self.how == How::AsItIs { How::AsItIs } else { How::Value } }
    }

    fn view(self) -> Checked<View<'de>> {
        match self.how {
            How::Value => View::of(self.wire),
            How::AsItIs | How::Arguments => Ok(View::plain(self.wire)),
        }
    }

    fn visit<V: Visitor<'de>>(self, view: View<'de>, visitor: V) -> Checked<V::Value> {
        let what = view.what();
        let visited = match view {
            View::Null => visitor.visit_unit(),
            View::Bool(value) => visitor.visit_bool(value),
            View::Int(digits) => whole(digits, visitor),
            View::Float(value) => visitor.visit_f64(value),
            View::Text(text) | View::Named(text) | View::TextBytes(text) => visitor.visit_borrowed_str(text),
            View::Uuid(id) => visitor.visit_str(id.hyphenated().encode_lower(&mut uuid::Uuid::encode_buffer())),
            View::Bytes(bytes) => visitor.visit_byte_buf(bytes),
            View::List(items) | View::Tuple(items) => visitor.visit_seq(Items::new(self, items)),
            View::Set(members) => visitor.visit_seq(Items::members(self, members)),
            View::Map(members) => visitor.visit_map(Entries::new(self, members)),
            View::Dataclass(_, fields) => visitor.visit_map(Entries::new(self, fields)),
            View::Pairs(pairs) => visitor.visit_map(Pairs::new(self, pairs)),
            View::Timedelta(parts) | View::Model(parts) => visitor.visit_seq(Parts::new(self, parts)),
            View::Enum(parts) => match parts {
                [_, member] => self.inside(member).deserialize_any(visitor),
                _ => visitor.visit_unit(),
            },
            View::Registered(value) => self.inside(value).deserialize_any(visitor),
        };
        match what {
            Some(what) => visited.map_err(|fault| fault.found(what)),
            None => visited,
        }
    }
}

/// A whole number, in the smallest form that holds it.
fn whole<'de, V: Visitor<'de>>(digits: &str, visitor: V) -> Checked<V::Value> {
    const BIG: &str = "a whole number of more than 64 bits";
    if let Ok(number) = digits.parse::<i64>() {
        visitor.visit_i64(number)
    } else if let Ok(number) = digits.parse::<u64>() {
        visitor.visit_u64(number)
    } else if let Ok(number) = digits.parse::<i128>() {
        visitor.visit_i128(number).map_err(|fault: Fault| fault.found(BIG))
    } else if let Ok(number) = digits.parse::<u128>() {
        visitor.visit_u128(number).map_err(|fault: Fault| fault.found(BIG))
    } else {
        Err(Fault::value(format!("a whole number of {} digits, which no type of Rust's holds", digits.len())))
    }
}

impl<'de> Deserializer<'de> for Reading<'de> {
    type Error = Fault;

    fn deserialize_any<V: Visitor<'de>>(self, visitor: V) -> Checked<V::Value> {
        self.visit(self.view()?, visitor)
    }

    fn deserialize_option<V: Visitor<'de>>(self, visitor: V) -> Checked<V::Value> {
        match self.wire {
            Wire::Null => visitor.visit_none(),
            _ => visitor.visit_some(self),
        }
    }

    fn deserialize_unit<V: Visitor<'de>>(self, visitor: V) -> Checked<V::Value> {
        match self.how {
            // Who asks for nothing takes any signal.
            How::Arguments => visitor.visit_unit(),
            How::Value | How::AsItIs => self.deserialize_any(visitor),
        }
    }

    fn deserialize_unit_struct<V: Visitor<'de>>(self, _name: &'static str, visitor: V) -> Checked<V::Value> {
        self.deserialize_unit(visitor)
    }

    fn deserialize_newtype_struct<V: Visitor<'de>>(self, name: &'static str, visitor: V) -> Checked<V::Value> {
        let Some(token) = Token::of(name) else { return visitor.visit_newtype_struct(self) };
        if token == Token::AsItIs {
            return visitor.visit_newtype_struct(Self { wire: self.wire, how: How::AsItIs });
        }
        let parts = match (token, self.view()?) {
            (Token::Timedelta, View::Timedelta(parts))
            | (Token::Model, View::Model(parts))
            | (Token::Enum, View::Enum(parts))
            | (Token::Dataclass, View::Dataclass(parts, _)) => parts,
            (Token::Decimal, View::Int(digits)) => {
                return visitor.visit_newtype_struct(BorrowedStrDeserializer::new(digits));
            }
            _ => return visitor.visit_newtype_struct(self),
        };
        visitor.visit_newtype_struct(Parts::new(self, parts))
    }

    fn deserialize_bytes<V: Visitor<'de>>(self, visitor: V) -> Checked<V::Value> {
        match self.view()? {
            View::TextBytes(text) => visitor.visit_borrowed_bytes(text.as_bytes()),
            view => self.visit(view, visitor),
        }
    }

    fn deserialize_byte_buf<V: Visitor<'de>>(self, visitor: V) -> Checked<V::Value> {
        self.deserialize_bytes(visitor)
    }

    fn deserialize_seq<V: Visitor<'de>>(self, visitor: V) -> Checked<V::Value> {
        match self.view()? {
            View::TextBytes(text) => visitor.visit_seq(SeqDeserializer::new(text.bytes())),
            View::Bytes(bytes) => visitor.visit_seq(SeqDeserializer::new(bytes.into_iter())),
            view => self.visit(view, visitor),
        }
    }

    fn deserialize_tuple<V: Visitor<'de>>(self, _len: usize, visitor: V) -> Checked<V::Value> {
        self.deserialize_seq(visitor)
    }

    fn deserialize_tuple_struct<V: Visitor<'de>>(
        self,
        _name: &'static str,
        _len: usize,
        visitor: V,
    ) -> Checked<V::Value> {
        self.deserialize_seq(visitor)
    }

    fn deserialize_enum<V: Visitor<'de>>(
        self,
        _name: &'static str,
        _variants: &'static [&'static str],
        visitor: V,
    ) -> Checked<V::Value> {
        let view = self.view()?;
        match view {
            View::Text(name) | View::Named(name) => visitor.visit_enum(Variant::unit(name)),
            View::Enum([_, Wire::Text(name)]) => visitor.visit_enum(Variant::unit(name)),
            View::Map([(name, value)]) | View::Dataclass(_, [(name, value)]) => {
                visitor.visit_enum(Variant::with(name, self.inside(value)))
            }
            View::Registered(value) => self.inside(value).deserialize_enum(_name, _variants, visitor),
            view => Err(Fault::invalid_type(Unexpected::Enum, &"a variant's name, or a map from it to what it holds")
                .found(view.what().unwrap_or("something else"))),
        }
    }

    fn deserialize_ignored_any<V: Visitor<'de>>(self, visitor: V) -> Checked<V::Value> {
        // Not looked at: a marker that nobody knows is no fault where nobody wants it.
        visitor.visit_unit()
    }

    forward_to_deserialize_any! {
        bool i8 i16 i32 i64 i128 u8 u16 u32 u64 u128 f32 f64 char str string map struct identifier
    }
}
