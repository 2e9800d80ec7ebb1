//! Rust values become JSON, straight into the bytes that are published: the
//! same bytes that Python's encoder (`crates/async-signals-py/src/encode.rs`)
//! writes for the same values.

mod container;
mod value;

use std::ops::Range;

use serde::Serialize;

use super::{
    error::EncodeError,
    fault::{Checked, Fault},
};
use crate::{
    protocol::json::{JsonWriter, Limits},
    sender::Sender,
};

/// The beginning of a marker of ours.
macro_rules! our_marker {
    ($kind:literal) => {
        concat!(r#"{"__type__":"async_signals","__value__":[""#, $kind, r#"","#)
    };
}
/// The beginning of a marker of kombu's.
macro_rules! kombu_marker {
    ($kind:literal) => {
        concat!(r#"{"__type__":""#, $kind, r#"","__value__":"#)
    };
}
pub(super) use kombu_marker;
pub(crate) use our_marker;

/// The third part of every body: we chain no tasks.
pub(super) const EMBED: &str = r#",{"callbacks":null,"errbacks":null,"chain":null,"chord":null}]"#;

/// One message being written.
pub(crate) struct Encoder {
    pub(crate) json: JsonWriter,
    /// What the value that is written next has said it is.
    next: Next,
    /// Where the payload begins: its names are those of arguments.
    payload: usize,
    /// The struct or map that was finished last: what stands there is one, and
    /// not a marker that looks alike.
    finished: Range<usize>,
    /// JSON is being written that holds markers of its own.
    as_it_is: bool,
}

/// What a value is, said just before it is written.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
enum Next {
    /// What serde says.
    #[default]
    Plain,
    /// A text that is a UUID.
    Uuid,
    /// A sequence that is a set, of this marker.
    Members(&'static str),
    /// A tuple whose parts stand in this marker.
    Parts(&'static str),
}

/// Not a place in any message.
const NOWHERE: usize = usize::MAX;

impl Encoder {
    fn new(max_bytes: usize) -> Self {
        // The payload is the one level that Python's encoder does not count.
        let limits = Limits { max_depth: Limits::SEND_DEPTH + 1, ..Limits::sending(max_bytes) };
        let json = JsonWriter::new(limits);
        Self { json, next: Next::Plain, payload: NOWHERE, finished: NOWHERE..NOWHERE, as_it_is: false }
    }

    /// Writes any value.
    #[inline]
    pub(crate) fn value<T: Serialize + ?Sized>(&mut self, value: &T) -> Checked<()> {
        value.serialize(self)
    }

    fn body<P: Serialize + ?Sized>(&mut self, signal: &str, sender: &Sender, payload: &P) -> Result<(), EncodeError> {
        self.head(signal, sender).map_err(Fault::into_encode_error)?;
        self.arguments(payload)?;
        self.json.close_frame(EMBED).map_err(|error| Fault::from(error).into_encode_error())
    }

    fn head(&mut self, signal: &str, sender: &Sender) -> Checked<()> {
        self.json.open_frame("[[")?;
        self.json.string(signal)?;
        sender.write(self)?;
        Ok(self.json.close_frame("]")?)
    }

    /// The payload, as named arguments.
    fn arguments<P: Serialize + ?Sized>(&mut self, payload: &P) -> Result<(), EncodeError> {
        let before = self.json.checkpoint();
        self.payload = self.json.next_value();
        self.value(payload).map_err(Fault::into_encode_error)?;
        if self.finished.start == self.payload {
            return Ok(());
        }
        match self.json.written(self.payload) {
            // `()`: there is nothing to say beside that it happened.
            b"null" => {
                self.json.rollback(before);
                self.json.open_frame("{}").map_err(|error| Fault::from(error).into_encode_error())?;
                self.json.close_frame("").map_err(|error| Fault::from(error).into_encode_error())
            }
            written => Err(EncodeError::Unnamed { found: looks(written) }),
        }
    }
}

fn looks(written: &[u8]) -> &'static str {
    match written.first() {
        Some(b'"') => "a text",
        Some(b'[') => "a sequence",
        Some(b't' | b'f') => "a boolean",
        Some(b'{') => "a value of another type of Python's, such as a tuple or a dictionary with other keys",
        _ => "a number",
    }
}

/// The body of a signal's task, and where its arguments stand in it.
pub(super) fn encode<P: Serialize + ?Sized>(
    signal: &str,
    sender: &Sender,
    payload: &P,
    max_bytes: usize,
) -> Result<(Vec<u8>, Range<usize>), EncodeError> {
    let mut encoder = Encoder::new(max_bytes);
    encoder.body(signal, sender, payload)?;
    let (start, body) = (encoder.payload, encoder.json.finish());
    let end = body.len() - EMBED.len();
    Ok((body, start..end))
}

/// A value by itself.
pub(super) fn value<T: Serialize + ?Sized>(value: &T) -> Result<Vec<u8>, EncodeError> {
    let mut encoder = Encoder::new(Limits::default().max_bytes);
    encoder.value(value).map_err(Fault::into_encode_error)?;
    Ok(encoder.json.finish())
}
