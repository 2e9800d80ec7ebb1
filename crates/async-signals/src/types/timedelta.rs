//! Lengths of time.

use std::fmt;

use serde::{
    Deserialize, Deserializer, Serialize, Serializer,
    de::{Error, SeqAccess, Visitor},
};
use thiserror::Error;

use crate::payload::token;

const SECONDS_OF_A_DAY: i128 = 86_400;
const MICROSECONDS: i128 = 1_000_000;
/// As many as Python has, in either direction.
const MOST_DAYS: i128 = 999_999_999;

/// A `timedelta`: a length of time to the microsecond, which may be negative.
///
/// ```
/// use std::time::Duration;
/// use async_signals::types::Timedelta;
///
/// let pause = Timedelta::try_from(Duration::from_millis(1500))?;
/// assert_eq!((pause.days(), pause.seconds(), pause.microseconds()), (0, 1, 500_000));
/// assert_eq!(pause.to_string(), "0:00:01.500000");
/// assert_eq!(Timedelta::new(0, -1, 0)?.to_string(), "-1 day, 23:59:59");
/// # Ok::<(), async_signals::types::TimedeltaRange>(())
/// ```
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Timedelta {
    days: i32,
    /// Less than a day of them.
    seconds: u32,
    /// Less than a second of them.
    microseconds: u32,
}

/// A length of time that Python's `timedelta` does not hold.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Error)]
#[error("a timedelta holds at most 999999999 days; send a number of seconds")]
#[non_exhaustive]
pub struct TimedeltaRange;

impl Timedelta {
    /// The sum of the three.
    ///
    /// # Errors
    ///
    /// [`TimedeltaRange`] beyond 999999999 days.
    pub fn new(days: i64, seconds: i64, microseconds: i64) -> Result<Self, TimedeltaRange> {
        let seconds = i128::from(days) * SECONDS_OF_A_DAY + i128::from(seconds);
        Self::from_microseconds(seconds * MICROSECONDS + i128::from(microseconds))
    }

    fn from_microseconds(all: i128) -> Result<Self, TimedeltaRange> {
        let (seconds, microseconds) = (all.div_euclid(MICROSECONDS), all.rem_euclid(MICROSECONDS));
        let (days, seconds) = (seconds.div_euclid(SECONDS_OF_A_DAY), seconds.rem_euclid(SECONDS_OF_A_DAY));
        if days.abs() > MOST_DAYS {
            return Err(TimedeltaRange);
        }
        Ok(Self {
            days: i32::try_from(days).map_err(|_| TimedeltaRange)?,
            seconds: u32::try_from(seconds).map_err(|_| TimedeltaRange)?,
            microseconds: u32::try_from(microseconds).map_err(|_| TimedeltaRange)?,
        })
    }

    /// Whole days, rounded down: -1 for anything from the day before zero.
    #[must_use]
    pub const fn days(self) -> i32 {
        self.days
    }

    /// Whole seconds beside the days: 0 to 86399.
    #[must_use]
    pub const fn seconds(self) -> u32 {
        self.seconds
    }

    /// Microseconds beside the seconds: 0 to 999999.
    #[must_use]
    pub const fn microseconds(self) -> u32 {
        self.microseconds
    }
}

impl TryFrom<std::time::Duration> for Timedelta {
    type Error = TimedeltaRange;

    fn try_from(length: std::time::Duration) -> Result<Self, TimedeltaRange> {
        let microseconds = i128::try_from(length.as_micros()).map_err(|_| TimedeltaRange)?;
        Self::from_microseconds(microseconds)
    }
}

impl TryFrom<time::Duration> for Timedelta {
    type Error = TimedeltaRange;

    fn try_from(length: time::Duration) -> Result<Self, TimedeltaRange> {
        Self::from_microseconds(length.whole_microseconds())
    }
}

impl From<Timedelta> for time::Duration {
    fn from(length: Timedelta) -> Self {
        Self::days(length.days.into())
            + Self::seconds(length.seconds.into())
            + Self::microseconds(length.microseconds.into())
    }
}

/// As Python's `str()`.
impl fmt::Display for Timedelta {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.days {
            0 => {}
            1 | -1 => write!(f, "{} day, ", self.days)?,
            days => write!(f, "{days} days, ")?,
        }
        let (minutes, seconds) = (self.seconds / 60, self.seconds % 60);
        write!(f, "{}:{:02}:{seconds:02}", minutes / 60, minutes % 60)?;
        match self.microseconds {
            0 => Ok(()),
            microseconds => write!(f, ".{microseconds:06}"),
        }
    }
}

impl Serialize for Timedelta {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.serialize_newtype_struct(token::TIMEDELTA, &(self.days, self.seconds, self.microseconds))
    }
}

impl<'de> Deserialize<'de> for Timedelta {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        deserializer.deserialize_newtype_struct(token::TIMEDELTA, Parts)
    }
}

struct Parts;

impl<'de> Visitor<'de> for Parts {
    type Value = Timedelta;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("a timedelta (days, seconds, microseconds)")
    }

    fn visit_newtype_struct<D: Deserializer<'de>>(self, deserializer: D) -> Result<Timedelta, D::Error> {
        deserializer.deserialize_tuple(3, self)
    }

    fn visit_seq<A: SeqAccess<'de>>(self, mut parts: A) -> Result<Timedelta, A::Error> {
        let mut part = |index| parts.next_element()?.ok_or_else(|| A::Error::invalid_length(index, &Parts));
        let (days, seconds, microseconds) = (part(0)?, part(1)?, part(2)?);
        Timedelta::new(days, seconds, microseconds).map_err(A::Error::custom)
    }
}
