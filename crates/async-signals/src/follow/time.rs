//! Times in headers, as Celery writes them: ISO 8601, in UTC where nothing else is said.

use std::time::{Duration, SystemTime, UNIX_EPOCH};

use serde_json::{Map, Value};
use time::{
    OffsetDateTime, PrimitiveDateTime, format_description::BorrowedFormatItem, format_description::well_known::Iso8601,
    macros::format_description,
};

/// As `datetime.isoformat()` writes one that is in UTC.
const FORMAT: &[BorrowedFormatItem<'_>] =
    format_description!("[year]-[month]-[day]T[hour]:[minute]:[second].[subsecond digits:6]+00:00");

/// When a message expires, where its header says so legibly.
pub(super) fn expires(headers: &Map<String, Value>) -> Option<SystemTime> {
    let text = headers.get("expires")?.as_str()?;
    let time = OffsetDateTime::parse(text, &Iso8601::DEFAULT)
        .or_else(|_| PrimitiveDateTime::parse(text, &Iso8601::DEFAULT).map(PrimitiveDateTime::assume_utc));
    let time = time.ok()?;
    // What is before 1970 has expired just as well in 1970.
    let seconds = u64::try_from(time.unix_timestamp()).unwrap_or(0);
    UNIX_EPOCH.checked_add(Duration::new(seconds, time.nanosecond()))
}

/// A time as Celery's `eta`; `None` beyond the year 9999.
pub(super) fn iso(at: SystemTime) -> Option<String> {
    let since_epoch = at.duration_since(UNIX_EPOCH).unwrap_or_default();
    let nanoseconds = i128::try_from(since_epoch.as_nanos()).ok()?;
    OffsetDateTime::from_unix_timestamp_nanos(nanoseconds).ok()?.format(FORMAT).ok()
}

/// Seconds since 1970.
pub(super) fn seconds(at: SystemTime) -> f64 {
    at.duration_since(UNIX_EPOCH).unwrap_or_default().as_secs_f64()
}
