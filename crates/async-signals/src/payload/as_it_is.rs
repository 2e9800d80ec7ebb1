//! JSON that goes, and comes, as it is: its markers are not looked at.

use std::fmt;

use serde::{
    Deserialize, Deserializer, Serialize, Serializer,
    de::{DeserializeOwned, Error, Visitor},
};
use serde_json::Value;

use super::{decode, encode, error::DecodeError, error::EncodeError, token};

/// A value in the form that it has on the wire.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub(crate) struct AsItIs(pub(crate) Value);

impl AsItIs {
    /// What a value is on the wire.
    pub(crate) fn write<T: Serialize + ?Sized>(value: &T) -> Result<Self, EncodeError> {
        let json = encode::value(value)?;
        let json = serde_json::from_slice(&json);
        json.map(Self).map_err(|error| EncodeError::Value { path: String::new(), reason: error.to_string() })
    }

    /// What the value is, its markers understood.
    pub(crate) fn read<T: DeserializeOwned>(&self) -> Result<T, DecodeError> {
        decode::value(self.0.to_string().as_bytes())
    }
}

impl Serialize for AsItIs {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.serialize_newtype_struct(token::AS_IT_IS, &self.0)
    }
}

impl<'de> Deserialize<'de> for AsItIs {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct Inside;

        impl<'de> Visitor<'de> for Inside {
            type Value = Value;

            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("anything")
            }

            fn visit_newtype_struct<D: Deserializer<'de>>(self, deserializer: D) -> Result<Value, D::Error> {
                Value::deserialize(deserializer)
            }

            fn visit_seq<A: serde::de::SeqAccess<'de>>(self, items: A) -> Result<Value, A::Error> {
                Value::deserialize(serde::de::value::SeqAccessDeserializer::new(items))
            }

            fn visit_unit<E: Error>(self) -> Result<Value, E> {
                Ok(Value::Null)
            }
        }

        deserializer.deserialize_newtype_struct(token::AS_IT_IS, Inside).map(Self)
    }
}
