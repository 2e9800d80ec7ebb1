//! UUIDs.

use std::{fmt, str::FromStr};

use serde_json::Value;

use super::text::text_type;
use crate::payload::{marker, token};

/// A `UUID`. A plain [`uuid::Uuid`] in a payload goes as its text.
///
/// ```
/// use async_signals::types::Uuid;
///
/// let id = Uuid::from(uuid::Uuid::from_u128(5));
/// assert_eq!(id.to_string(), "00000000-0000-0000-0000-000000000005");
/// assert_eq!("00000000-0000-0000-0000-000000000005".parse(), Ok(id));
/// ```
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Uuid(uuid::Uuid);

impl Uuid {
    /// The UUID.
    #[must_use]
    pub const fn get(self) -> uuid::Uuid {
        self.0
    }
}

impl From<uuid::Uuid> for Uuid {
    fn from(id: uuid::Uuid) -> Self {
        Self(id)
    }
}

impl From<Uuid> for uuid::Uuid {
    fn from(id: Uuid) -> Self {
        id.0
    }
}

/// As it stands in a message: the primary key of a [`Model`](super::Model) or a
/// [`Sender`](crate::sender::Sender), say.
impl From<Uuid> for Value {
    fn from(id: Uuid) -> Self {
        let hex = id.0.simple().to_string();
        marker::kombus("uuid", serde_json::json!({ "hex": hex }))
    }
}

impl fmt::Display for Uuid {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}

impl FromStr for Uuid {
    type Err = uuid::Error;

    fn from_str(text: &str) -> Result<Self, uuid::Error> {
        text.parse().map(Self)
    }
}

text_type!(Uuid, token::UUID, "a UUID");
