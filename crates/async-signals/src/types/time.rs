//! Times of day.

use std::{fmt, str::FromStr};

use super::{iso, iso::NoIsoFormat, text::text_type};
use crate::payload::token;

/// A `time` of no time zone.
///
/// Python counts microseconds; what is finer is cut off.
///
/// ```
/// use async_signals::types::Time;
/// use time::macros::time;
///
/// let opens = Time::from(time!(9:30));
/// assert_eq!(opens.to_string(), "09:30:00");
/// assert_eq!("09:30:00".parse(), Ok(opens));
/// ```
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Time(::time::Time);

impl Time {
    /// The time of day.
    #[must_use]
    pub const fn get(self) -> ::time::Time {
        self.0
    }
}

impl From<::time::Time> for Time {
    fn from(time: ::time::Time) -> Self {
        Self(iso::whole_microseconds(time))
    }
}

impl From<Time> for ::time::Time {
    fn from(time: Time) -> Self {
        time.0
    }
}

impl fmt::Display for Time {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        iso::write_time(f, self.0)
    }
}

impl FromStr for Time {
    type Err = NoIsoFormat;

    fn from_str(text: &str) -> Result<Self, NoIsoFormat> {
        match iso::time(text) {
            Some((time, "")) => Ok(Self(time)),
            _ => Err(NoIsoFormat { expected: "a time without an offset, such as 12:30:05" }),
        }
    }
}

text_type!(Time, token::TIME, "a time of day");
