//! Times in headers, as Celery writes them: ISO 8601, in UTC where nothing else is said.

use std::time::{Duration, SystemTime, UNIX_EPOCH};

use serde_json::{Map, Value};
use thiserror::Error;
use time::{
    OffsetDateTime, PrimitiveDateTime, format_description::BorrowedFormatItem, format_description::well_known::Iso8601,
    macros::format_description,
};

/// As `datetime.isoformat()` writes one that is in UTC.
const FORMAT: &[BorrowedFormatItem<'_>] =
    format_description!("[year]-[month]-[day]T[hour]:[minute]:[second].[subsecond digits:6]+00:00");

/// A header that should hold a time and does not.
#[derive(Clone, Debug, PartialEq, Error)]
#[error("its {header} is no ISO 8601 time")]
pub struct NoTime {
    /// The header's name.
    pub header: String,
}

/// The time that a header such as `eta` or `expires` holds; `None` where it is missing or null.
///
/// ```
/// use async_signals::protocol::time;
/// let headers = serde_json::json!({"eta": "1970-01-01T00:01:00+00:00", "expires": null});
/// let headers = headers.as_object().unwrap();
/// assert_eq!(time::seconds(time::read(headers, "eta")?.unwrap()), 60.0);
/// assert_eq!(time::read(headers, "expires")?, None);
/// # Ok::<(), time::NoTime>(())
/// ```
///
/// # Errors
///
/// [`NoTime`] for anything that is no ISO 8601 time.
pub fn read(headers: &Map<String, Value>, header: &str) -> Result<Option<SystemTime>, NoTime> {
    let no_time = || NoTime { header: header.to_owned() };
    let text = match headers.get(header) {
        None | Some(Value::Null) => return Ok(None),
        Some(Value::String(text)) => text,
        Some(_) => return Err(no_time()),
    };
    // `str()` of a datetime has a blank where `isoformat()` has a T.
    let time = parse(text).or_else(|| parse(&text.replacen(' ', "T", 1))).ok_or_else(no_time)?;
    let nanoseconds = time.unix_timestamp_nanos();
    let distance = Duration::from_nanos(u64::try_from(nanoseconds.unsigned_abs()).unwrap_or(u64::MAX));
    let moved = if nanoseconds < 0 { UNIX_EPOCH.checked_sub(distance) } else { UNIX_EPOCH.checked_add(distance) };
    moved.map(Some).ok_or_else(no_time)
}

fn parse(text: &str) -> Option<OffsetDateTime> {
    OffsetDateTime::parse(text, &Iso8601::DEFAULT)
        .or_else(|_| PrimitiveDateTime::parse(text, &Iso8601::DEFAULT).map(PrimitiveDateTime::assume_utc))
        .ok()
}

/// A time as Celery's `eta`; `None` beyond the year 9999.
pub fn iso(at: SystemTime) -> Option<String> {
    let since_epoch = at.duration_since(UNIX_EPOCH).unwrap_or_default();
    let nanoseconds = i128::try_from(since_epoch.as_nanos()).ok()?;
    OffsetDateTime::from_unix_timestamp_nanos(nanoseconds).ok()?.format(FORMAT).ok()
}

/// Seconds since 1970.
pub fn seconds(at: SystemTime) -> f64 {
    at.duration_since(UNIX_EPOCH).unwrap_or_default().as_secs_f64()
}
