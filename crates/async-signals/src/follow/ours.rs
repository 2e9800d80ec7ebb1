//! What is ours in a message's headers, under the key `async_signals`.

use serde_json::{Map, Value};

use super::text;
use crate::message::ReceivedHeaders;

/// The key of a message's headers that holds what is ours.
pub(super) const OURS: &str = "async_signals";

/// AMQP's limit for a queue's name, in bytes.
const LONGEST_QUEUE: usize = 255;

/// The beginning of the year 10000, which no calendar of Python's has, in seconds since 1970.
const YEAR_10000: f64 = 253_402_300_800.0;

/// What a message says of its way. Read leniently: what cannot be right is as
/// if it were not there.
#[derive(Clone, Debug, PartialEq)]
pub struct Ours {
    /// The queue that it was sent to, which may be another than a broker's
    /// routing key names.
    pub queue: Option<String>,
    /// When it was sent, in seconds since 1970.
    pub sent_at: Option<f64>,
    /// How often it was taken by a worker that did not finish it, within this try.
    pub deliveries: u32,
    /// Which try of its receivers this is, from 1.
    pub attempt: u32,
    /// The names of the receivers that it is still for; `None`: all.
    pub receivers: Option<Vec<String>>,
    /// Why it is in a dead-letter queue, if it is in one.
    pub parked: Option<Map<String, Value>>,
}

impl Ours {
    /// Reads it out of a message's headers.
    pub fn of(headers: &Map<String, Value>) -> Self {
        Self::in_value(headers.get(OURS))
    }

    /// The same, without reading what a message has no need of.
    pub(crate) fn received(headers: &ReceivedHeaders) -> Self {
        if headers.is_plain() { Self::in_value(headers.only(OURS).as_ref()) } else { Self::of(headers) }
    }

    fn in_value(ours: Option<&Value>) -> Self {
        let ours = ours.and_then(Value::as_object);
        let get = |name: &str| ours.and_then(|ours| ours.get(name));
        Self {
            queue: get("queue").and_then(Value::as_str).filter(|name| is_queue(name)).map(str::to_owned),
            sent_at: get("sent_at").and_then(Value::as_f64).filter(|seconds| (0.0..YEAR_10000).contains(seconds)),
            deliveries: count(get("deliveries")).unwrap_or(0),
            attempt: count(get("attempt")).unwrap_or(1).max(1),
            receivers: get("receivers").and_then(receivers),
            parked: get("parked").and_then(Value::as_object).cloned(),
        }
    }
}

/// Of [`Ours`] only the deliveries.
pub(super) fn deliveries(headers: &Map<String, Value>) -> u32 {
    count(headers.get(OURS).and_then(|ours| ours.get("deliveries"))).unwrap_or(0)
}

/// Writes a change of what is ours over what the headers held; the rest of it stays.
pub(super) fn change(headers: &mut Map<String, Value>, change: impl FnOnce(&mut Map<String, Value>)) {
    let ours = headers.entry(OURS).or_insert_with(|| Value::Object(Map::new()));
    if !ours.is_object() {
        *ours = Value::Object(Map::new());
    }
    if let Value::Object(ours) = ours {
        change(ours);
    }
}

/// Writes a count, or leaves it out where it says nothing.
pub(super) fn set_count(ours: &mut Map<String, Value>, name: &str, count: u32, default: u32) {
    if count == default {
        ours.shift_remove(name);
    } else {
        ours.insert(name.to_owned(), count.into());
    }
}

fn is_queue(name: &str) -> bool {
    !name.is_empty() && name.len() <= LONGEST_QUEUE && text::line(name, LONGEST_QUEUE) == name
}

fn count(value: Option<&Value>) -> Option<u32> {
    u32::try_from(value?.as_u64()?).ok()
}

/// Names, or nothing where it is anything else: better that all run than that one is forgotten.
fn receivers(value: &Value) -> Option<Vec<String>> {
    let names: Option<Vec<String>> = value.as_array()?.iter().map(|name| name.as_str().map(str::to_owned)).collect();
    names.filter(|names| !names.is_empty())
}
