//! Days.

use std::{fmt, str::FromStr};

use serde::{Deserialize, Deserializer, Serialize, Serializer, ser::Error};

use super::{iso, iso::NoIsoFormat, text};
use crate::payload::token;

/// A `date`.
///
/// ```
/// use async_signals::types::Date;
/// use time::macros::date;
///
/// let day = Date::from(date!(2020-02-29));
/// assert_eq!(day.to_string(), "2020-02-29");
/// assert_eq!("2020-02-29".parse(), Ok(day));
/// assert!("2021-02-29".parse::<Date>().is_err());
/// ```
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Date(::time::Date);

impl Date {
    /// The day.
    #[must_use]
    pub const fn get(self) -> ::time::Date {
        self.0
    }
}

impl From<::time::Date> for Date {
    fn from(date: ::time::Date) -> Self {
        Self(date)
    }
}

impl From<Date> for ::time::Date {
    fn from(date: Date) -> Self {
        date.0
    }
}

impl fmt::Display for Date {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        iso::write_date(f, self.0)
    }
}

impl FromStr for Date {
    type Err = NoIsoFormat;

    fn from_str(text: &str) -> Result<Self, NoIsoFormat> {
        iso::date(text).map(Self).ok_or(NoIsoFormat { expected: "a date, such as 2020-02-29" })
    }
}

impl Serialize for Date {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        if !iso::is_pythons(self.0) {
            return Err(S::Error::custom("Python has no year before 1 or after 9999; send a text"));
        }
        serializer.serialize_newtype_struct(token::DATE, &self.to_string())
    }
}

impl<'de> Deserialize<'de> for Date {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        text::read(deserializer, token::DATE, "a date")
    }
}
