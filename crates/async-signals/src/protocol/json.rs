//! JSON ([RFC 8259]) as a stream, in both directions and within bounds: what a
//! send writes and what a worker reads never takes more memory, nesting or
//! items than [`Limits`] say.
//!
//! [`JsonWriter`] and [`JsonReader`] know no data model of their own, so that
//! another language's values become bytes, and bytes its values, without a
//! tree in between.
//!
//! [RFC 8259]: https://www.rfc-editor.org/rfc/rfc8259

mod number;
mod reader;
mod writer;

pub use reader::{JsonReader, Token};
use thiserror::Error;
pub use writer::{Checkpoint, JsonWriter};

/// How much one message may hold.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Limits {
    /// Bytes of JSON.
    pub max_bytes: usize,
    /// Arrays and objects within each other.
    pub max_depth: usize,
    /// Values, counted together: every array, object, key and scalar is one.
    pub max_nodes: usize,
}

impl Limits {
    /// How deep a value that is sent may nest.
    pub const SEND_DEPTH: usize = 64;
    /// How deep received JSON may nest: [`Self::SEND_DEPTH`] levels of which
    /// each may be a marker of up to four brackets, and the message around them.
    pub const RECEIVE_DEPTH: usize = 4 * Self::SEND_DEPTH + 4;

    /// The limits of a message that is sent, with another size.
    #[must_use]
    pub fn sending(max_bytes: usize) -> Self {
        Self { max_bytes, ..Self::default() }
    }

    /// The limits of a message that is received: what [`Self::sending`] lets
    /// through always fits.
    #[must_use]
    pub fn receiving(max_bytes: usize) -> Self {
        Self { max_bytes, max_depth: Self::RECEIVE_DEPTH, max_nodes: 2 * Self::default().max_nodes }
    }
}

impl Default for Limits {
    /// 1 MiB, 64 levels, a million values.
    fn default() -> Self {
        Self { max_bytes: 1 << 20, max_depth: Self::SEND_DEPTH, max_nodes: 1_000_000 }
    }
}

/// Why a value is no JSON, or some bytes are none.
#[derive(Clone, Debug, PartialEq, Eq, Error)]
#[non_exhaustive]
pub enum JsonError {
    /// More arrays and objects within each other than the limit.
    #[error("nests deeper than {limit} levels")]
    TooDeep {
        /// The levels allowed.
        limit: usize,
    },
    /// More bytes than the limit.
    #[error("is {size} bytes or more of JSON, and the limit is {limit}")]
    TooLarge {
        /// The bytes counted when the limit was passed; the whole may be larger.
        size: usize,
        /// The bytes allowed.
        limit: usize,
    },
    /// More values than the limit.
    #[error("holds more than {limit} values")]
    TooMany {
        /// The values allowed.
        limit: usize,
    },
    /// NaN and the infinities have no form in JSON.
    #[error("is a number that is not finite, and JSON has none")]
    NotFinite,
    /// The bytes break JSON's grammar.
    #[error("is no JSON: {expected} expected at byte {at}")]
    Malformed {
        /// What would have been right.
        expected: &'static str,
        /// Where, counted from 0.
        at: usize,
    },
}

#[cfg(test)]
mod tests;
