//! Instances of Python's dataclasses.

use std::{borrow::Cow, fmt, marker::PhantomData};

use serde::{
    Deserialize, Deserializer, Serialize, Serializer,
    de::{Error, SeqAccess, Visitor},
};

use crate::payload::token;

/// An instance of a Python dataclass: a Python receiver gets the real one, if its process has imported the class.
///
/// A struct in a payload goes as a `dict`, and is read from a dataclass of those fields.
///
/// ```
/// use async_signals::types::Dataclass;
///
/// #[derive(serde::Serialize)]
/// struct Line { sku: &'static str, amount: u32 }
///
/// let line = Dataclass::new("shop.models.Line", Line { sku: "pen", amount: 2 });
/// assert_eq!(line.fields.amount, 2);
/// ```
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct Dataclass<T> {
    /// The class's `module.qualified_name`.
    pub class: Cow<'static, str>,
    /// Its fields: a struct, or a map with text keys.
    pub fields: T,
}

impl<T> Dataclass<T> {
    /// An instance of the class with these fields.
    pub fn new(class: impl Into<Cow<'static, str>>, fields: T) -> Self {
        Self { class: class.into(), fields }
    }
}

impl<T: Serialize> Serialize for Dataclass<T> {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.serialize_newtype_struct(token::DATACLASS, &(&self.class, &self.fields))
    }
}

impl<'de, T: Deserialize<'de>> Deserialize<'de> for Dataclass<T> {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        deserializer.deserialize_newtype_struct(token::DATACLASS, Parts(PhantomData))
    }
}

struct Parts<T>(PhantomData<T>);

impl<'de, T: Deserialize<'de>> Visitor<'de> for Parts<T> {
    type Value = Dataclass<T>;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("a dataclass of Python's (its class and its fields)")
    }

    fn visit_newtype_struct<D: Deserializer<'de>>(self, deserializer: D) -> Result<Dataclass<T>, D::Error> {
        deserializer.deserialize_tuple(2, self)
    }

    fn visit_seq<A: SeqAccess<'de>>(self, mut parts: A) -> Result<Dataclass<T>, A::Error> {
        let class: String = parts.next_element()?.ok_or_else(|| A::Error::invalid_length(0, &self))?;
        let fields = parts.next_element()?.ok_or_else(|| A::Error::invalid_length(1, &self))?;
        Ok(Dataclass { class: class.into(), fields })
    }
}
