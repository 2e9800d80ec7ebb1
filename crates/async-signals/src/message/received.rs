//! Headers as they came. A worker asks every message for its task and its id
//! and hardly any for more, so that a whole map of them would cost more than
//! all else that it does with the message.

use std::{
    borrow::Cow,
    fmt,
    ops::{Deref, DerefMut},
    sync::OnceLock,
};

use serde::{
    Deserialize, Deserializer,
    de::{IgnoredAny, MapAccess, SeqAccess, Visitor},
};
use serde_json::{Map, Value};

/// With room for all that Celery writes: growing costs more than reading.
const CELERYS_HEADERS: usize = 28;

/// A message's headers, whoever made them: a map that is read when somebody asks for more than what
/// [`ReceivedHeaders::text`] and [`ReceivedHeaders::is_plain`] know without it.
///
/// ```
/// use async_signals::message::ReceivedHeaders;
///
/// let headers = ReceivedHeaders::read(r#"{"task": "shop.tasks.count", "id": "1", "eta": null}"#)?;
/// assert_eq!(headers.text("task"), Some("shop.tasks.count"));
/// assert!(headers.is_plain());
/// assert_eq!(headers.len(), 3);
/// # Ok::<(), serde_json::Error>(())
/// ```
#[derive(Clone)]
pub struct ReceivedHeaders {
    /// Empty where the map was there from the beginning.
    json: Box<str>,
    glance: Glance,
    map: OnceLock<Map<String, Value>>,
}

/// What is known without the map.
#[derive(Clone, Default)]
struct Glance {
    task: Option<Box<str>>,
    id: Option<Box<str>>,
    plain: bool,
}

impl ReceivedHeaders {
    /// Looks through a JSON object. Whatever is wrong with it is found out here.
    ///
    /// # Errors
    ///
    /// What `serde_json` says of anything that is no object.
    pub fn read(json: &str) -> Result<Self, serde_json::Error> {
        let glance = serde_json::from_str(json)?;
        Ok(Self { json: json.into(), glance, map: OnceLock::new() })
    }

    /// A header that is text.
    pub fn text(&self, name: &str) -> Option<&str> {
        let known = match name {
            "task" => &self.glance.task,
            "id" => &self.glance.id,
            _ => &None,
        };
        known.as_deref().or_else(|| self.get(name)?.as_str())
    }

    /// Whether it is known that nothing is said beyond which task is to be run:
    /// no eta, expiry, time limit, compression or trace, and nothing of ours but
    /// where and when it was sent. Not known of every message that is so.
    pub fn is_plain(&self) -> bool {
        self.glance.plain
    }

    /// One header, without reading the others.
    pub(crate) fn only(&self, name: &str) -> Option<Value> {
        if self.map.get().is_some() {
            return self.get(name).cloned();
        }
        let mut reader = serde_json::Deserializer::from_str(&self.json);
        reader.deserialize_map(One(name)).expect("it was looked through as it was received")
    }

    fn map(&self) -> &Map<String, Value> {
        self.map.get_or_init(|| {
            let Whole(map) = serde_json::from_str(&self.json).expect("it was looked through as it was received");
            map
        })
    }
}

impl Deref for ReceivedHeaders {
    type Target = Map<String, Value>;

    fn deref(&self) -> &Self::Target {
        self.map()
    }
}

impl DerefMut for ReceivedHeaders {
    fn deref_mut(&mut self) -> &mut Self::Target {
        self.map();
        // What is changed may be what was known.
        self.glance = Glance::default();
        self.map.get_mut().expect("it was read just now")
    }
}

impl Default for ReceivedHeaders {
    fn default() -> Self {
        Map::new().into()
    }
}

impl From<Map<String, Value>> for ReceivedHeaders {
    fn from(map: Map<String, Value>) -> Self {
        Self { json: Box::default(), glance: Glance::default(), map: map.into() }
    }
}

impl From<ReceivedHeaders> for Map<String, Value> {
    fn from(mut headers: ReceivedHeaders) -> Self {
        headers.map();
        headers.map.take().expect("it was read just now")
    }
}

impl fmt::Debug for ReceivedHeaders {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.map().fmt(f)
    }
}

impl<'de> Deserialize<'de> for Glance {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct Reader;

        impl<'de> Visitor<'de> for Reader {
            type Value = Glance;

            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("headers")
            }

            fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<Glance, A::Error> {
                let mut glance = Glance { plain: true, ..Glance::default() };
                while let Some(Text(name)) = map.next_key()? {
                    match &*name {
                        "task" => glance.task = map.next_value::<Seen<'_>>()?.into_text(),
                        "id" => glance.id = map.next_value::<Seen<'_>>()?.into_text(),
                        "eta" | "expires" | "timelimit" | "compression" | "redelivered" | "traceparent" => {
                            glance.plain &= matches!(map.next_value()?, Seen::Nothing);
                        }
                        "async_signals" => {
                            glance.plain &=
                                matches!(map.next_value()?, Seen::Nothing | Seen::Members { of_sending: true });
                        }
                        _ => drop(map.next_value::<Seen<'_>>()?),
                    }
                }
                Ok(glance)
            }
        }

        deserializer.deserialize_map(Reader)
    }
}

/// Looks for one member. The last of a name counts, as in a map.
struct One<'a>(&'a str);

impl<'de> Visitor<'de> for One<'_> {
    type Value = Option<Value>;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("headers")
    }

    fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<Self::Value, A::Error> {
        let mut found = None;
        while let Some(Text(name)) = map.next_key()? {
            if name == self.0 {
                found = Some(map.next_value()?);
            } else {
                map.next_value::<IgnoredAny>()?;
            }
        }
        Ok(found)
    }
}

/// Text that is borrowed where it can be.
#[derive(Deserialize)]
struct Text<'a>(#[serde(borrow)] Cow<'a, str>);

/// A value that was looked through, as strictly as if it had been kept.
enum Seen<'a> {
    /// `null`, or a list of nothing else.
    Nothing,
    Text(Cow<'a, str>),
    /// An object.
    Members {
        /// It says no more than where and when a message was sent.
        of_sending: bool,
    },
    Other,
}

impl Seen<'_> {
    fn into_text(self) -> Option<Box<str>> {
        match self {
            Self::Text(text) => Some(text.into()),
            _ => None,
        }
    }
}

impl<'de: 'a, 'a> Deserialize<'de> for Seen<'a> {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct Reader;

        impl<'de> Visitor<'de> for Reader {
            type Value = Seen<'de>;

            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("any value")
            }

            fn visit_borrowed_str<E>(self, text: &'de str) -> Result<Self::Value, E> {
                Ok(Seen::Text(Cow::Borrowed(text)))
            }

            fn visit_str<E>(self, text: &str) -> Result<Self::Value, E> {
                Ok(Seen::Text(Cow::Owned(text.to_owned())))
            }

            fn visit_u64<E>(self, _: u64) -> Result<Self::Value, E> {
                Ok(Seen::Other)
            }

            fn visit_i64<E>(self, _: i64) -> Result<Self::Value, E> {
                Ok(Seen::Other)
            }

            fn visit_f64<E>(self, _: f64) -> Result<Self::Value, E> {
                Ok(Seen::Other)
            }

            fn visit_bool<E>(self, _: bool) -> Result<Self::Value, E> {
                Ok(Seen::Other)
            }

            fn visit_unit<E>(self) -> Result<Self::Value, E> {
                Ok(Seen::Nothing)
            }

            fn visit_seq<A: SeqAccess<'de>>(self, mut items: A) -> Result<Self::Value, A::Error> {
                let mut nothing = true;
                while let Some(item) = items.next_element::<Seen<'de>>()? {
                    nothing &= matches!(item, Seen::Nothing);
                }
                Ok(if nothing { Seen::Nothing } else { Seen::Other })
            }

            fn visit_map<A: MapAccess<'de>>(self, mut members: A) -> Result<Self::Value, A::Error> {
                let mut of_sending = true;
                while let Some((Text(name), _)) = members.next_entry::<Text<'de>, Seen<'de>>()? {
                    of_sending &= matches!(&*name, "queue" | "sent_at");
                }
                Ok(Seen::Members { of_sending })
            }
        }

        deserializer.deserialize_any(Reader)
    }
}

/// The whole map.
struct Whole(Map<String, Value>);

impl<'de> Deserialize<'de> for Whole {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct Reader;

        impl<'de> Visitor<'de> for Reader {
            type Value = Whole;

            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("headers")
            }

            fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<Whole, A::Error> {
                let mut headers = Map::with_capacity(CELERYS_HEADERS);
                while let Some((name, value)) = map.next_entry()? {
                    headers.insert(name, value);
                }
                Ok(Whole(headers))
            }
        }

        deserializer.deserialize_map(Reader)
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;
    use serde_json::json;

    use super::*;

    fn read(headers: Value) -> ReceivedHeaders {
        ReceivedHeaders::read(&headers.to_string()).expect("headers")
    }

    #[test]
    fn knows_what_is_plain() {
        let nothing = json!({"eta": null, "expires": null, "timelimit": [null, null], "async_signals": {"queue": "q", "sent_at": 1.5}});
        assert!(read(nothing).is_plain());
        for more in [
            json!({"eta": "2026-01-01T00:00:00Z"}),
            json!({"expires": 5}),
            json!({"timelimit": [null, 3]}),
            json!({"compression": "application/x-gzip"}),
            json!({"traceparent": "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01"}),
            json!({"async_signals": {"queue": "q", "deliveries": 1}}),
        ] {
            assert!(!read(more.clone()).is_plain(), "{more}");
        }
    }

    #[test]
    fn a_change_is_seen() {
        let mut headers = read(json!({"task": "a", "id": "1"}));
        headers.insert("task".to_owned(), "b".into());
        headers.insert("eta".to_owned(), "2026-01-01T00:00:00Z".into());
        assert_eq!((headers.text("task"), headers.text("id"), headers.is_plain()), (Some("b"), Some("1"), false));
    }

    /// What `serde_json` itself makes of a text.
    fn plainly(json: &str) -> Option<Map<String, Value>> {
        serde_json::from_str(json).ok()
    }

    #[test]
    fn is_as_strict_as_a_map() {
        for odd in [
            r#"{"a": 1e400}"#,
            r#"{"a": "\ud800"}"#,
            r#"{"\ud800": 1}"#,
            r#"{"a": [{"b": "\x"}]}"#,
            r#"{"task": "a", "task": 5}"#,
            r#"{"id": "a", "id": "b"}"#,
            "[]",
            "null",
            "{",
            "{} {}",
        ] {
            let read = ReceivedHeaders::read(odd).ok();
            assert_eq!(read.as_deref().cloned(), plainly(odd), "{odd}");
            if let (Some(read), Some(map)) = (read, plainly(odd)) {
                for name in ["task", "id"] {
                    assert_eq!(read.text(name), map.get(name).and_then(Value::as_str), "{odd}");
                    let fresh = ReceivedHeaders::read(odd).expect("it was read before");
                    assert_eq!(fresh.only(name).as_ref(), map.get(name), "{odd}");
                }
            }
        }
        let deep = format!(r#"{{"a": {}1{}}}"#, "[".repeat(126), "]".repeat(126));
        assert_eq!(ReceivedHeaders::read(&deep).is_ok(), plainly(&deep).is_some());
        let deeper = format!(r#"{{"a": {}1{}}}"#, "[".repeat(127), "]".repeat(127));
        assert_eq!(ReceivedHeaders::read(&deeper).is_ok(), plainly(&deeper).is_some());
    }

    proptest! {
        #[test]
        fn reads_what_a_map_reads(json in r#"[\[\]{}:,"\\a-c0-9.e\-]{0,40}"#) {
            let json = format!("{{{json}}}");
            prop_assert_eq!(ReceivedHeaders::read(&json).ok().as_deref().cloned(), plainly(&json));
        }
    }
}
