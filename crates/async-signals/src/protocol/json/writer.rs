//! Values in, JSON bytes out.

use std::fmt::Write as _;
use std::ops::Range;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD as BASE64;

use super::number::{Text, python_repr};
use super::{JsonError, Limits};

/// Writes JSON value by value; commas and colons come by themselves.
///
/// Each method that writes checks the [`Limits`] first and fails with a
/// [`JsonError`], so the buffer never grows past them. After an error what is
/// written is incomplete: drop the writer, or go back to a [`Checkpoint`].
///
/// ```
/// use async_signals::protocol::json::{JsonWriter, Limits};
///
/// let mut json = JsonWriter::new(Limits::default());
/// json.begin_object()?;
/// json.key("order_id")?;
/// json.int(5)?;
/// json.end_object()?;
/// assert_eq!(json.finish(), br#"{"order_id":5}"#);
/// # Ok::<(), async_signals::protocol::json::JsonError>(())
/// ```
#[derive(Debug)]
pub struct JsonWriter {
    out: Vec<u8>,
    limits: Limits,
    at: Checkpoint,
}

/// A place in what a [`JsonWriter`] has written, to go back to.
#[derive(Clone, Copy, Debug, Default)]
pub struct Checkpoint {
    len: usize,
    depth: usize,
    nodes: usize,
    /// Whether a value stands before the place, so that the next needs a comma.
    comma: bool,
}

impl JsonWriter {
    /// An empty writer.
    #[must_use]
    pub fn new(limits: Limits) -> Self {
        Self { out: Vec::with_capacity(limits.max_bytes.min(512)), limits, at: Checkpoint::default() }
    }

    /// What was written.
    #[must_use]
    pub fn finish(self) -> Vec<u8> {
        debug_assert_eq!(self.at.depth, 0, "an array or object is still open");
        self.out
    }

    /// `null`.
    #[inline]
    pub fn null(&mut self) -> Result<(), JsonError> {
        self.scalar(b"null")
    }

    /// `true` or `false`.
    #[inline]
    pub fn bool(&mut self, value: bool) -> Result<(), JsonError> {
        self.scalar(if value { b"true" } else { b"false" })
    }

    /// A whole number.
    #[inline]
    pub fn int(&mut self, value: i64) -> Result<(), JsonError> {
        let mut text = Text::<20>::default();
        // 20 bytes hold every i64.
        let _ = write!(text, "{value}");
        self.scalar(text.as_bytes())
    }

    /// A whole number of any size, as decimal digits with or without a sign.
    pub fn big_int(&mut self, digits: &str) -> Result<(), JsonError> {
        debug_assert!(
            digits.strip_prefix('-').unwrap_or(digits).bytes().all(|digit| digit.is_ascii_digit()),
            "{digits:?} is no whole number"
        );
        self.scalar(digits.as_bytes())
    }

    /// A float, in the shortest form that reads back as the same one and as
    /// Python's `repr` writes it. NaN and the infinities are refused.
    pub fn float(&mut self, value: f64) -> Result<(), JsonError> {
        if !value.is_finite() {
            return Err(JsonError::NotFinite);
        }
        self.scalar(python_repr(value).as_bytes())
    }

    /// A string.
    #[inline]
    pub fn string(&mut self, value: &str) -> Result<(), JsonError> {
        self.node(value.len() + 2)?;
        self.separate();
        self.quoted(value)
    }

    /// Bytes as a string in base64.
    pub fn base64(&mut self, value: &[u8]) -> Result<(), JsonError> {
        let len = base64::encoded_len(value.len(), true).unwrap_or(usize::MAX - 2);
        self.node(len + 2)?;
        self.separate();
        self.out.push(b'"');
        let start = self.out.len();
        self.out.resize(start + len, 0);
        if BASE64.encode_slice(value, &mut self.out[start..]).is_err() {
            unreachable!("the slice has the encoded length");
        }
        self.out.push(b'"');
        Ok(())
    }

    /// Opens an array.
    #[inline]
    pub fn begin_array(&mut self) -> Result<(), JsonError> {
        self.begin(b'[')
    }

    /// Closes the array that was opened last.
    #[inline]
    pub fn end_array(&mut self) -> Result<(), JsonError> {
        self.end(b']')
    }

    /// Opens an object.
    #[inline]
    pub fn begin_object(&mut self) -> Result<(), JsonError> {
        self.begin(b'{')
    }

    /// The key of an object's next value.
    #[inline]
    pub fn key(&mut self, key: &str) -> Result<(), JsonError> {
        self.string(key)?;
        self.end_key()
    }

    /// Makes the [`string`](Self::string) that was written last the key of an object's next value.
    #[inline]
    pub fn end_key(&mut self) -> Result<(), JsonError> {
        debug_assert!(self.out.ends_with(b"\""), "a key is a string");
        self.room(1)?;
        self.out.push(b':');
        self.at.comma = false;
        Ok(())
    }

    /// Closes the object that was opened last.
    #[inline]
    pub fn end_object(&mut self) -> Result<(), JsonError> {
        self.end(b'}')
    }

    /// Opens a fixed frame around the next values, such as `{"kind":"set","items":`.
    /// A frame counts as one value, and not as nesting.
    #[inline]
    pub fn open_frame(&mut self, text: &'static str) -> Result<(), JsonError> {
        self.node(text.len())?;
        self.separate();
        self.out.extend_from_slice(text.as_bytes());
        self.at.comma = false;
        Ok(())
    }

    /// Closes a frame.
    #[inline]
    pub fn close_frame(&mut self, text: &'static str) -> Result<(), JsonError> {
        self.room(text.len())?;
        self.out.extend_from_slice(text.as_bytes());
        self.at.comma = true;
        Ok(())
    }

    /// This place, to [go back](Self::rollback) to.
    #[must_use]
    pub fn checkpoint(&self) -> Checkpoint {
        Checkpoint { len: self.out.len(), ..self.at }
    }

    /// Forgets what was written after `checkpoint`.
    pub fn rollback(&mut self, checkpoint: Checkpoint) {
        self.out.truncate(checkpoint.len);
        self.at = checkpoint;
    }

    /// Where the next value of an array begins, its comma not counted.
    #[must_use]
    pub fn next_value(&self) -> usize {
        self.out.len() + usize::from(self.at.comma)
    }

    /// Where the last value ends.
    #[must_use]
    pub fn position(&self) -> usize {
        self.out.len()
    }

    /// What was written from `start` on.
    #[must_use]
    pub fn written(&self, start: usize) -> &[u8] {
        self.out.get(start..).unwrap_or_default()
    }

    /// Puts the values of an array in the order of their bytes, so that what
    /// has no order of its own is written the same every time. `values` are
    /// all of the array's values so far, in the order they were written.
    pub fn sort_values(&mut self, values: &mut [Range<usize>]) {
        let (Some(first), Some(last)) = (values.first(), values.last()) else { return };
        let written = first.start..last.end;
        values.sort_unstable_by(|a, b| self.out[a.clone()].cmp(&self.out[b.clone()]));
        let mut sorted = Vec::with_capacity(written.len());
        for value in values {
            if !sorted.is_empty() {
                sorted.push(b',');
            }
            sorted.extend_from_slice(&self.out[value.clone()]);
        }
        self.out[written].copy_from_slice(&sorted);
    }

    #[inline]
    fn begin(&mut self, bracket: u8) -> Result<(), JsonError> {
        if self.at.depth >= self.limits.max_depth {
            return Err(JsonError::TooDeep { limit: self.limits.max_depth });
        }
        self.node(1)?;
        self.separate();
        self.out.push(bracket);
        self.at.depth += 1;
        self.at.comma = false;
        Ok(())
    }

    #[inline]
    fn end(&mut self, bracket: u8) -> Result<(), JsonError> {
        debug_assert!(self.at.depth > 0, "nothing is open");
        self.room(1)?;
        self.out.push(bracket);
        self.at.depth -= 1;
        self.at.comma = true;
        Ok(())
    }

    #[inline]
    fn scalar(&mut self, text: &[u8]) -> Result<(), JsonError> {
        self.node(text.len())?;
        self.separate();
        self.out.extend_from_slice(text);
        Ok(())
    }

    /// Counts a value and asks for its room, a comma's included.
    #[inline]
    fn node(&mut self, len: usize) -> Result<(), JsonError> {
        self.room(len + usize::from(self.at.comma))?;
        if self.at.nodes >= self.limits.max_nodes {
            return Err(JsonError::TooMany { limit: self.limits.max_nodes });
        }
        self.at.nodes += 1;
        Ok(())
    }

    #[inline]
    fn room(&self, more: usize) -> Result<(), JsonError> {
        let size = self.out.len() + more;
        if size > self.limits.max_bytes {
            return Err(JsonError::TooLarge { size, limit: self.limits.max_bytes });
        }
        Ok(())
    }

    #[inline]
    fn separate(&mut self) {
        if self.at.comma {
            self.out.push(b',');
        }
        self.at.comma = true;
    }

    /// A string between quotes; the room for all but its escapes is there.
    #[inline]
    fn quoted(&mut self, value: &str) -> Result<(), JsonError> {
        self.out.push(b'"');
        let bytes = value.as_bytes();
        let mut plain_from = 0;
        for (index, &byte) in bytes.iter().enumerate() {
            if !needs_escape(byte) {
                continue;
            }
            self.out.extend_from_slice(&bytes[plain_from..index]);
            plain_from = index + 1;
            self.escape(byte, bytes.len() - plain_from + 1)?;
        }
        self.out.extend_from_slice(&bytes[plain_from..]);
        self.out.push(b'"');
        Ok(())
    }

    /// An escaped character, if `rest` bytes still fit behind it.
    #[cold]
    fn escape(&mut self, byte: u8, rest: usize) -> Result<(), JsonError> {
        const HEX: &[u8; 16] = b"0123456789abcdef";
        let short = match byte {
            b'\n' => b'n',
            b'\r' => b'r',
            b'\t' => b't',
            0x08 => b'b',
            0x0c => b'f',
            control if control < 0x20 => {
                self.room(6 + rest)?;
                let digits = [HEX[usize::from(byte >> 4)], HEX[usize::from(byte & 15)]];
                self.out.extend_from_slice(b"\\u00");
                self.out.extend_from_slice(&digits);
                return Ok(());
            }
            itself => itself,
        };
        self.room(2 + rest)?;
        self.out.extend_from_slice(&[b'\\', short]);
        Ok(())
    }
}

#[inline]
const fn needs_escape(byte: u8) -> bool {
    byte < 0x20 || byte == b'"' || byte == b'\\'
}
