//! What stands inside of a received value, one after the other.

use std::borrow::Cow;

use serde::{
    Deserializer,
    de::{
        DeserializeSeed, EnumAccess, Error, MapAccess, SeqAccess, Unexpected, VariantAccess, Visitor,
        value::BorrowedStrDeserializer,
    },
    forward_to_deserialize_any,
};

use super::{reading::Reading, view::Members, wire::Wire};
use crate::payload::fault::{At, Checked, Fault, Step};

/// The items of a list or tuple, or the members of a set.
pub(super) struct Items<'de> {
    within: Reading<'de>,
    items: std::iter::Enumerate<std::slice::Iter<'de, Wire<'de>>>,
    ordered: bool,
}

impl<'de> Items<'de> {
    pub(super) fn new(within: Reading<'de>, items: &'de [Wire<'de>]) -> Self {
        Self { within, items: items.iter().enumerate(), ordered: true }
    }

    pub(super) fn members(within: Reading<'de>, members: &'de [Wire<'de>]) -> Self {
        Self { ordered: false, ..Self::new(within, members) }
    }
}

impl<'de> SeqAccess<'de> for Items<'de> {
    type Error = Fault;

    fn next_element_seed<T: DeserializeSeed<'de>>(&mut self, seed: T) -> Checked<Option<T::Value>> {
        let Some((index, item)) = self.items.next() else { return Ok(None) };
        let step = || if self.ordered { Step::Index(index) } else { Step::Member };
        seed.deserialize(self.within.inside(item)).at(step).map(Some)
    }

    fn size_hint(&self) -> Option<usize> {
        Some(self.items.len())
    }
}

/// What stands in a marker behind its kind. The parts are no steps of a path: they are one value.
#[derive(Clone)]
pub(super) struct Parts<'de> {
    within: Reading<'de>,
    parts: std::slice::Iter<'de, Wire<'de>>,
}

impl<'de> Parts<'de> {
    pub(super) fn new(within: Reading<'de>, parts: &'de [Wire<'de>]) -> Self {
        Self { within, parts: parts.iter() }
    }
}

impl<'de> SeqAccess<'de> for Parts<'de> {
    type Error = Fault;

    fn next_element_seed<T: DeserializeSeed<'de>>(&mut self, seed: T) -> Checked<Option<T::Value>> {
        self.parts.next().map(|part| seed.deserialize(self.within.inside(part))).transpose()
    }

    fn size_hint(&self) -> Option<usize> {
        Some(self.parts.len())
    }
}

impl<'de> Deserializer<'de> for Parts<'de> {
    type Error = Fault;

    fn deserialize_any<V: Visitor<'de>>(self, visitor: V) -> Checked<V::Value> {
        visitor.visit_seq(self)
    }

    forward_to_deserialize_any! {
        bool i8 i16 i32 i64 i128 u8 u16 u32 u64 u128 f32 f64 char str string bytes byte_buf option unit unit_struct
        newtype_struct seq tuple tuple_struct map struct enum identifier ignored_any
    }
}

/// The entries of an object.
pub(super) struct Entries<'de> {
    within: Reading<'de>,
    entries: std::slice::Iter<'de, (Cow<'de, str>, Wire<'de>)>,
    /// The entry whose key was given out last.
    at: Option<&'de (Cow<'de, str>, Wire<'de>)>,
}

impl<'de> Entries<'de> {
    pub(super) fn new(within: Reading<'de>, entries: Members<'de>) -> Self {
        Self { within, entries: entries.iter(), at: None }
    }
}

impl<'de> MapAccess<'de> for Entries<'de> {
    type Error = Fault;

    fn next_key_seed<K: DeserializeSeed<'de>>(&mut self, seed: K) -> Checked<Option<K::Value>> {
        self.at = self.entries.next();
        let Some((name, _)) = self.at else { return Ok(None) };
        seed.deserialize(Key(name)).at(|| Step::Key).at(|| Step::Name(name.clone().into_owned())).map(Some)
    }

    fn next_value_seed<V: DeserializeSeed<'de>>(&mut self, seed: V) -> Checked<V::Value> {
        let Some((name, value)) = self.at else { return Err(no_key()) };
        seed.deserialize(self.within.inside(value)).at(|| Step::Name(name.clone().into_owned()))
    }

    fn size_hint(&self) -> Option<usize> {
        Some(self.entries.len())
    }
}

/// The entries of a dictionary whose keys are not all text.
pub(super) struct Pairs<'de> {
    within: Reading<'de>,
    pairs: std::slice::Iter<'de, Wire<'de>>,
    /// The pair whose key was given out last.
    at: Option<(&'de Wire<'de>, &'de Wire<'de>)>,
}

impl<'de> Pairs<'de> {
    /// `pairs` are lists of two.
    pub(super) fn new(within: Reading<'de>, pairs: &'de [Wire<'de>]) -> Self {
        Self { within, pairs: pairs.iter(), at: None }
    }
}

impl<'de> MapAccess<'de> for Pairs<'de> {
    type Error = Fault;

    fn next_key_seed<K: DeserializeSeed<'de>>(&mut self, seed: K) -> Checked<Option<K::Value>> {
        self.at = match self.pairs.next() {
            Some(Wire::List(pair)) => pair.first().zip(pair.get(1)),
            _ => None,
        };
        let Some((key, _)) = self.at else { return Ok(None) };
        seed.deserialize(self.within.inside(key)).at(|| Step::Key).map(Some)
    }

    fn next_value_seed<V: DeserializeSeed<'de>>(&mut self, seed: V) -> Checked<V::Value> {
        let Some((key, value)) = self.at else { return Err(no_key()) };
        seed.deserialize(self.within.inside(value)).at(|| match key {
            Wire::Text(name) => Step::Name(name.clone().into_owned()),
            _ => Step::Entry,
        })
    }

    fn size_hint(&self) -> Option<usize> {
        Some(self.pairs.len())
    }
}

fn no_key() -> Fault {
    Fault::value("a value was asked for before its key")
}

/// A key of an object. JSON writes numbers there as text, and so does kombu.
struct Key<'de>(&'de str);

macro_rules! parsed_keys {
    ($($method:ident $visit:ident)*) => {
        $(fn $method<V: Visitor<'de>>(self, visitor: V) -> Checked<V::Value> {
            match self.0.parse() {
                Ok(value) => visitor.$visit(value),
                Err(_) => visitor.visit_borrowed_str(self.0),
            }
        })*
    };
}

impl<'de> Deserializer<'de> for Key<'de> {
    type Error = Fault;

    fn deserialize_any<V: Visitor<'de>>(self, visitor: V) -> Checked<V::Value> {
        visitor.visit_borrowed_str(self.0)
    }

    parsed_keys! {
        deserialize_bool visit_bool
        deserialize_i8 visit_i8 deserialize_i16 visit_i16 deserialize_i32 visit_i32 deserialize_i64 visit_i64
        deserialize_u8 visit_u8 deserialize_u16 visit_u16 deserialize_u32 visit_u32 deserialize_u64 visit_u64
        deserialize_i128 visit_i128 deserialize_u128 visit_u128 deserialize_f32 visit_f32 deserialize_f64 visit_f64
    }

    fn deserialize_option<V: Visitor<'de>>(self, visitor: V) -> Checked<V::Value> {
        visitor.visit_some(self)
    }

    fn deserialize_newtype_struct<V: Visitor<'de>>(self, _name: &'static str, visitor: V) -> Checked<V::Value> {
        visitor.visit_newtype_struct(self)
    }

    fn deserialize_enum<V: Visitor<'de>>(
        self,
        _name: &'static str,
        _variants: &'static [&'static str],
        visitor: V,
    ) -> Checked<V::Value> {
        visitor.visit_enum(Variant::unit(self.0))
    }

    forward_to_deserialize_any! {
        char str string bytes byte_buf unit unit_struct seq tuple tuple_struct map struct identifier ignored_any
    }
}

/// A variant of a Rust enum.
pub(super) struct Variant<'de> {
    name: &'de str,
    content: Option<Reading<'de>>,
}

impl<'de> Variant<'de> {
    pub(super) fn unit(name: &'de str) -> Self {
        Self { name, content: None }
    }

    pub(super) fn with(name: &'de str, content: Reading<'de>) -> Self {
        Self { name, content: Some(content) }
    }

    fn content<T>(self, read: impl FnOnce(Reading<'de>) -> Checked<T>) -> Checked<T> {
        match self.content {
            Some(content) => read(content).at(|| Step::Name(self.name.to_owned())),
            None => Err(Fault::invalid_type(Unexpected::UnitVariant, &"what the variant holds"))
                .map_err(|fault| fault.found("a variant's name alone")),
        }
    }
}

impl<'de> EnumAccess<'de> for Variant<'de> {
    type Error = Fault;
    type Variant = Self;

    fn variant_seed<V: DeserializeSeed<'de>>(self, seed: V) -> Checked<(V::Value, Self)> {
        let variant = seed.deserialize(BorrowedStrDeserializer::<Fault>::new(self.name))?;
        Ok((variant, self))
    }
}

impl<'de> VariantAccess<'de> for Variant<'de> {
    type Error = Fault;

    fn unit_variant(self) -> Checked<()> {
        match self.content {
            None => Ok(()),
            Some(_) => self.content(serde::Deserialize::deserialize),
        }
    }

    fn newtype_variant_seed<T: DeserializeSeed<'de>>(self, seed: T) -> Checked<T::Value> {
        self.content(|content| seed.deserialize(content))
    }

    fn tuple_variant<V: Visitor<'de>>(self, len: usize, visitor: V) -> Checked<V::Value> {
        self.content(|content| content.deserialize_tuple(len, visitor))
    }

    fn struct_variant<V: Visitor<'de>>(self, fields: &'static [&'static str], visitor: V) -> Checked<V::Value> {
        self.content(|content| content.deserialize_struct("", fields, visitor))
    }
}
