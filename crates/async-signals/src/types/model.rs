//! Rows of Django's models.

use std::fmt;

use serde::{
    Deserialize, Deserializer, Serialize, Serializer,
    de::{DeserializeOwned, Error, SeqAccess, Visitor},
};
use serde_json::Value;

use crate::payload::{AsItIs, DecodeError, EncodeError, token};

/// A row of a Django model, by its primary key: a Python receiver gets the instance, fetched where it runs. Here
/// nothing is ever fetched.
///
/// ```
/// use async_signals::types::Model;
///
/// let order = Model::new("shop.Order", 5).using("default");
/// assert_eq!((order.label(), order.key::<i64>()?, order.database()), ("shop.Order", 5, Some("default")));
/// assert_eq!(order.to_string(), "shop.Order pk=5");
/// # Ok::<(), async_signals::payload::DecodeError>(())
/// ```
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct Model {
    label: String,
    key: AsItIs,
    database: Option<String>,
}

impl Model {
    /// The row of this primary key, in the database that Django's router would read from.
    pub fn new(label: impl Into<String>, key: impl Into<Value>) -> Self {
        Self { label: label.into(), key: AsItIs(key.into()), database: None }
    }

    /// The row of a primary key of any type that crosses the wire: a tuple, say, for a composite one.
    ///
    /// ```
    /// use async_signals::types::Model;
    /// let seat = Model::keyed("shop.Seat", &("A", 5))?;
    /// assert_eq!(seat.key::<(String, u32)>()?, ("A".to_owned(), 5));
    /// # Ok::<(), Box<dyn std::error::Error>>(())
    /// ```
    ///
    /// # Errors
    ///
    /// [`EncodeError`] for a key that cannot cross the wire.
    pub fn keyed<K: Serialize + ?Sized>(label: impl Into<String>, key: &K) -> Result<Self, EncodeError> {
        Ok(Self { label: label.into(), key: AsItIs::write(key)?, database: None })
    }

    /// The same row in this database, one of Django's `DATABASES`.
    #[must_use]
    pub fn using(mut self, database: impl Into<String>) -> Self {
        self.database = Some(database.into());
        self
    }

    /// `app.Model`.
    #[must_use]
    pub fn label(&self) -> &str {
        &self.label
    }

    /// The primary key.
    ///
    /// # Errors
    ///
    /// [`DecodeError::Argument`] if it is of another type.
    pub fn key<T: DeserializeOwned>(&self) -> Result<T, DecodeError> {
        self.key.read()
    }

    /// The database that it was sent with; `None` leaves that to Django's router.
    #[must_use]
    pub fn database(&self) -> Option<&str> {
        self.database.as_deref()
    }
}

impl fmt::Display for Model {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} pk={}", self.label, self.key.0)
    }
}

impl Serialize for Model {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.serialize_newtype_struct(token::MODEL, &(&self.label, &self.key, &self.database))
    }
}

impl<'de> Deserialize<'de> for Model {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        deserializer.deserialize_newtype_struct(token::MODEL, Parts)
    }
}

struct Parts;

impl<'de> Visitor<'de> for Parts {
    type Value = Model;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("a row of a Django model (its label, key and database)")
    }

    fn visit_newtype_struct<D: Deserializer<'de>>(self, deserializer: D) -> Result<Model, D::Error> {
        deserializer.deserialize_tuple(3, self)
    }

    fn visit_seq<A: SeqAccess<'de>>(self, mut parts: A) -> Result<Model, A::Error> {
        let label = parts.next_element()?.ok_or_else(|| A::Error::invalid_length(0, &self))?;
        let key = parts.next_element()?.ok_or_else(|| A::Error::invalid_length(1, &self))?;
        let database = parts.next_element()?.ok_or_else(|| A::Error::invalid_length(2, &self))?;
        Ok(Model { label, key, database })
    }
}
