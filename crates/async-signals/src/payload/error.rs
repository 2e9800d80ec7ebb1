//! What is wrong with a payload, where it stands, and what to do.

use std::fmt;

use thiserror::Error;

/// A payload that cannot cross the wire. Nothing was sent.
#[derive(Clone, Debug, PartialEq, Eq, Error)]
#[non_exhaustive]
pub enum EncodeError {
    /// The payload's values have no names.
    #[error("a payload is a struct, a map with text keys or `()`, and this is {found}; give each value a name")]
    Unnamed {
        /// What it is.
        found: &'static str,
    },
    /// An argument has a name that Django gives to something else.
    #[error("{name}: no argument can have this name, receivers get the {name} itself under it; rename the field")]
    Reserved {
        /// `signal` or `sender`.
        name: &'static str,
    },
    /// A value has no form on the wire.
    #[error("{}{reason}", At(path))]
    Value {
        /// The way to the value, such as `order.lines[2].price`.
        path: String,
        /// What is wrong, and what to do.
        reason: String,
    },
    /// NaN and the infinities have no form in JSON.
    #[error("{}NaN and the infinities cannot be sent, JSON has none; send `None` or a text", At(path))]
    NotFinite {
        /// The way to the value.
        path: String,
    },
    /// More structs, maps and sequences within each other than the limit.
    #[error("{}nests deeper than {limit} levels; send an id or a flatter value", At(path))]
    TooDeep {
        /// The way to the value.
        path: String,
        /// The levels allowed.
        limit: usize,
    },
    /// More bytes than the limit.
    #[error("{}the message is larger than {limit} bytes; send an id instead, or raise the limit", At(path))]
    TooLarge {
        /// The way to the value with which it became too large.
        path: String,
        /// The bytes allowed.
        limit: usize,
    },
    /// More values than the limit.
    #[error("{}the message holds more than {limit} values; send an id instead", At(path))]
    TooMany {
        /// The way to the value that was one too many.
        path: String,
        /// The values allowed.
        limit: usize,
    },
}

/// A body that is none of a signal's task, or does not hold what a receiver takes.
#[derive(Clone, Debug, PartialEq, Eq, Error)]
#[non_exhaustive]
pub enum DecodeError {
    /// The bytes are no body of a signal's task. No receiver can take it.
    #[error("malformed message: {reason}")]
    Malformed {
        /// What is wrong with it.
        reason: String,
    },
    /// It asks for more to be run after it, which no signal does. No receiver can take it.
    #[error("it asks for more to be run after it ({asks}); signals do not")]
    Refused {
        /// What it asks for: `callbacks`, `chain`, …
        asks: String,
    },
    /// An argument is not of the type that this receiver takes. Another receiver may.
    #[error("{}{reason}", At(path))]
    Argument {
        /// The way to the value, such as `order.lines[2].price`.
        path: String,
        /// What is wrong with it.
        reason: String,
    },
}

/// A path in front of what is said about it.
struct At<'a>(&'a str);

impl fmt::Display for At<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if self.0.is_empty() { Ok(()) } else { write!(f, "{}: ", self.0) }
    }
}
