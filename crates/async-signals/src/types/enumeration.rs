//! Members of Python's enums.

use std::{borrow::Cow, fmt};

use serde::{
    Deserialize, Deserializer, Serialize, Serializer,
    de::{Error, SeqAccess, Visitor},
};

use crate::payload::token;

/// A member of a Python enum. A Python receiver gets the member itself, if its process has imported the class.
///
/// A Rust enum in a payload goes as its variant's name, and is read from a member of that name.
///
/// ```
/// use async_signals::types::Enum;
///
/// let status = Enum::new("shop.models.Status", "PAID");
/// assert_eq!(status.name(), Some("PAID"));
/// assert_eq!(status.to_string(), "shop.models.Status.PAID");
/// ```
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct Enum {
    class: Cow<'static, str>,
    member: Member,
}

#[derive(Clone, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(untagged)]
enum Member {
    Name(Cow<'static, str>),
    /// Several flags in one have a value, and no name of their own.
    Flags(i64),
}

impl Enum {
    /// A member, by its class's `module.qualified_name` and its own name.
    pub fn new(class: impl Into<Cow<'static, str>>, name: impl Into<Cow<'static, str>>) -> Self {
        Self { class: class.into(), member: Member::Name(name.into()) }
    }

    /// Several members of a `Flag` in one, by their value.
    pub fn flags(class: impl Into<Cow<'static, str>>, value: i64) -> Self {
        Self { class: class.into(), member: Member::Flags(value) }
    }

    /// The class's `module.qualified_name`.
    #[must_use]
    pub fn class(&self) -> &str {
        &self.class
    }

    /// The member's name; `None` for several flags in one.
    #[must_use]
    pub fn name(&self) -> Option<&str> {
        match &self.member {
            Member::Name(name) => Some(name),
            Member::Flags(_) => None,
        }
    }

    /// The value of several flags in one; `None` for a member that has a name.
    #[must_use]
    pub fn value(&self) -> Option<i64> {
        match self.member {
            Member::Name(_) => None,
            Member::Flags(value) => Some(value),
        }
    }
}

impl fmt::Display for Enum {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match &self.member {
            Member::Name(name) => write!(f, "{}.{name}", self.class),
            Member::Flags(value) => write!(f, "{}({value})", self.class),
        }
    }
}

impl Serialize for Enum {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.serialize_newtype_struct(token::ENUM, &(&self.class, &self.member))
    }
}

impl<'de> Deserialize<'de> for Enum {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        deserializer.deserialize_newtype_struct(token::ENUM, Parts)
    }
}

struct Parts;

impl<'de> Visitor<'de> for Parts {
    type Value = Enum;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("a member of an enum of Python's (its class and its name)")
    }

    fn visit_newtype_struct<D: Deserializer<'de>>(self, deserializer: D) -> Result<Enum, D::Error> {
        deserializer.deserialize_tuple(2, self)
    }

    fn visit_seq<A: SeqAccess<'de>>(self, mut parts: A) -> Result<Enum, A::Error> {
        let class: String = parts.next_element()?.ok_or_else(|| A::Error::invalid_length(0, &self))?;
        let member = parts.next_element()?.ok_or_else(|| A::Error::invalid_length(1, &self))?;
        Ok(Enum { class: class.into(), member })
    }
}
