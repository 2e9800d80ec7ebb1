//! ISO 8601 as Python's `isoformat()` writes it and `fromisoformat()` reads it back.

use std::fmt;

use ::time::{Date, Month, Time, UtcOffset};
use thiserror::Error;

/// A text that is no date or time as Python writes one.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Error)]
#[error("not {expected}")]
pub struct NoIsoFormat {
    /// What it should have been, with an example.
    pub expected: &'static str,
}

/// `2020-02-29`; `None` for what Python has no date for, such as the year 0.
pub(super) fn date(text: &str) -> Option<Date> {
    let (year, rest) = digits(text, 4)?;
    let (month, rest) = digits(rest.strip_prefix('-')?, 2)?;
    let (day, rest) = digits(rest.strip_prefix('-')?, 2)?;
    if !rest.is_empty() || year == 0 {
        return None;
    }
    let month = Month::try_from(u8::try_from(month).ok()?).ok()?;
    Date::from_calendar_date(i32::try_from(year).ok()?, month, u8::try_from(day).ok()?).ok()
}

/// `12:30`, `12:30:05` or `12:30:05.000001`, and what follows it. What is finer than a microsecond is cut off.
pub(super) fn time(text: &str) -> Option<(Time, &str)> {
    let (hour, rest) = digits(text, 2)?;
    let (minute, rest) = digits(rest.strip_prefix(':')?, 2)?;
    let (second, rest) = match rest.strip_prefix(':') {
        Some(rest) => digits(rest, 2)?,
        None => (0, rest),
    };
    let (microsecond, rest) = match rest.strip_prefix('.') {
        Some(rest) => fraction(rest)?,
        None => (0, rest),
    };
    let byte = |number: u32| u8::try_from(number).ok();
    Some((Time::from_hms_micro(byte(hour)?, byte(minute)?, byte(second)?, microsecond).ok()?, rest))
}

/// `2020-02-29T12:30:05.000001`, with a blank for the `T` as `str()` has it, and what follows it.
pub(super) fn date_and_time(text: &str) -> Option<(Date, Time, &str)> {
    let (day, rest) = text.split_at_checked(10)?;
    let (clock, rest) = time(rest.strip_prefix(['T', 't', ' '])?)?;
    Some((date(day)?, clock, rest))
}

/// `+02:00`, `-03:30:15`, `Z`.
pub(super) fn offset(text: &str) -> Option<UtcOffset> {
    let (sign, rest) = match text.split_at_checked(1)? {
        ("Z" | "z", "") => return Some(UtcOffset::UTC),
        ("+", rest) => (1, rest),
        ("-", rest) => (-1, rest),
        _ => return None,
    };
    // Python knows offsets of less than a second; nobody else does.
    let (clock, rest) = time(rest)?;
    if !rest.is_empty() || clock.microsecond() != 0 {
        return None;
    }
    let seconds = i32::from(clock.hour()) * 3600 + i32::from(clock.minute()) * 60 + i32::from(clock.second());
    UtcOffset::from_whole_seconds(sign * seconds).ok()
}

/// So many digits, and what follows them.
fn digits(text: &str, count: usize) -> Option<(u32, &str)> {
    let (digits, rest) = text.split_at_checked(count)?;
    if !digits.bytes().all(|digit| digit.is_ascii_digit()) {
        return None;
    }
    Some((digits.parse().ok()?, rest))
}

/// The digits of a fraction as microseconds, and what follows them.
fn fraction(text: &str) -> Option<(u32, &str)> {
    let count = text.bytes().take_while(u8::is_ascii_digit).count();
    if count == 0 {
        return None;
    }
    let (kept, _) = digits(text, count.min(6))?;
    let scale = 10_u32.pow(6 - u32::try_from(count.min(6)).ok()?);
    Some((kept * scale, &text[count..]))
}

pub(super) fn write_date(f: &mut fmt::Formatter<'_>, date: Date) -> fmt::Result {
    write!(f, "{:04}-{:02}-{:02}", date.year(), u8::from(date.month()), date.day())
}

pub(super) fn write_time(f: &mut fmt::Formatter<'_>, time: Time) -> fmt::Result {
    write!(f, "{:02}:{:02}:{:02}", time.hour(), time.minute(), time.second())?;
    match time.microsecond() {
        0 => Ok(()),
        microsecond => write!(f, ".{microsecond:06}"),
    }
}

pub(super) fn write_offset(f: &mut fmt::Formatter<'_>, offset: UtcOffset) -> fmt::Result {
    let (hours, minutes, seconds) = offset.as_hms();
    let sign = if offset.is_negative() { '-' } else { '+' };
    write!(f, "{sign}{:02}:{:02}", hours.unsigned_abs(), minutes.unsigned_abs())?;
    match seconds {
        0 => Ok(()),
        seconds => write!(f, ":{:02}", seconds.unsigned_abs()),
    }
}

/// A time as Python has it: to the microsecond.
pub(super) fn whole_microseconds(time: Time) -> Time {
    time.replace_microsecond(time.microsecond()).unwrap_or(time)
}

/// Python's years are 1 to 9999.
pub(super) fn is_pythons(date: Date) -> bool {
    (1..=9999).contains(&date.year())
}
