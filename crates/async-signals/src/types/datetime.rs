//! Points in time.

use std::{fmt, str::FromStr, time::SystemTime};

use serde::{Deserialize, Deserializer, Serialize, Serializer, ser::Error};
use time::{OffsetDateTime, PrimitiveDateTime};

use super::{iso, iso::NoIsoFormat, text};
use crate::payload::token;

const AWARE: &str = "a datetime with an offset, such as 2020-02-29T12:30:05+00:00 (a naive one is a NaiveDateTime)";
const NAIVE: &str = "a datetime without an offset, such as 2020-02-29T12:30:05 (an aware one is a DateTime)";
const YEARS: &str = "Python has no year before 1 or after 9999; send a text";

/// A `datetime` that knows its offset from UTC: an "aware" one, as Django makes them with `USE_TZ`.
///
/// Python counts microseconds; what is finer is cut off.
///
/// ```
/// use async_signals::types::DateTime;
/// use time::macros::datetime;
///
/// let placed_at = DateTime::from(datetime!(2020-02-29 12:30:05 +2));
/// assert_eq!(placed_at.to_string(), "2020-02-29T12:30:05+02:00");
/// assert_eq!("2020-02-29T12:30:05+02:00".parse(), Ok(placed_at));
/// assert!("2020-02-29T12:30:05".parse::<DateTime>().is_err());
/// ```
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct DateTime(OffsetDateTime);

impl DateTime {
    /// Now, in UTC.
    #[must_use]
    pub fn now() -> Self {
        OffsetDateTime::now_utc().into()
    }

    /// The point in time.
    #[must_use]
    pub const fn get(self) -> OffsetDateTime {
        self.0
    }
}

impl From<OffsetDateTime> for DateTime {
    fn from(at: OffsetDateTime) -> Self {
        Self(at.replace_time(iso::whole_microseconds(at.time())))
    }
}

impl From<SystemTime> for DateTime {
    fn from(at: SystemTime) -> Self {
        OffsetDateTime::from(at).into()
    }
}

impl From<DateTime> for OffsetDateTime {
    fn from(at: DateTime) -> Self {
        at.0
    }
}

impl fmt::Display for DateTime {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        iso::write_date(f, self.0.date())?;
        f.write_str("T")?;
        iso::write_time(f, self.0.time())?;
        iso::write_offset(f, self.0.offset())
    }
}

impl FromStr for DateTime {
    type Err = NoIsoFormat;

    fn from_str(text: &str) -> Result<Self, NoIsoFormat> {
        let read = || {
            let (date, time, rest) = iso::date_and_time(text)?;
            Some(PrimitiveDateTime::new(date, time).assume_offset(iso::offset(rest)?))
        };
        read().map(Self).ok_or(NoIsoFormat { expected: AWARE })
    }
}

impl Serialize for DateTime {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        if !iso::is_pythons(self.0.date()) {
            return Err(S::Error::custom(YEARS));
        }
        serializer.serialize_newtype_struct(token::DATETIME, &self.to_string())
    }
}

impl<'de> Deserialize<'de> for DateTime {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        text::read(deserializer, token::DATETIME, "a datetime with an offset")
    }
}

/// A `datetime` of no time zone: a "naive" one.
///
/// Python counts microseconds; what is finer is cut off.
///
/// ```
/// use async_signals::types::NaiveDateTime;
/// use time::macros::datetime;
///
/// let opens_at = NaiveDateTime::from(datetime!(2020-02-29 12:30:05.5));
/// assert_eq!(opens_at.to_string(), "2020-02-29T12:30:05.500000");
/// assert_eq!("2020-02-29T12:30:05.500000".parse(), Ok(opens_at));
/// ```
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct NaiveDateTime(PrimitiveDateTime);

impl NaiveDateTime {
    /// The date and the time.
    #[must_use]
    pub const fn get(self) -> PrimitiveDateTime {
        self.0
    }
}

impl From<PrimitiveDateTime> for NaiveDateTime {
    fn from(at: PrimitiveDateTime) -> Self {
        Self(at.replace_time(iso::whole_microseconds(at.time())))
    }
}

impl From<NaiveDateTime> for PrimitiveDateTime {
    fn from(at: NaiveDateTime) -> Self {
        at.0
    }
}

impl fmt::Display for NaiveDateTime {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        iso::write_date(f, self.0.date())?;
        f.write_str("T")?;
        iso::write_time(f, self.0.time())
    }
}

impl FromStr for NaiveDateTime {
    type Err = NoIsoFormat;

    fn from_str(text: &str) -> Result<Self, NoIsoFormat> {
        match iso::date_and_time(text) {
            Some((date, time, "")) => Ok(Self(PrimitiveDateTime::new(date, time))),
            _ => Err(NoIsoFormat { expected: NAIVE }),
        }
    }
}

impl Serialize for NaiveDateTime {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        if !iso::is_pythons(self.0.date()) {
            return Err(S::Error::custom(YEARS));
        }
        serializer.serialize_newtype_struct(token::DATETIME, &self.to_string())
    }
}

impl<'de> Deserialize<'de> for NaiveDateTime {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        text::read(deserializer, token::DATETIME, "a datetime without an offset")
    }
}
