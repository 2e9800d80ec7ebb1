//! What is wrong with a value, and where in the arguments it stands.

use std::fmt::{self, Display};

use serde::{de, ser};

pub(super) use super::path::Step;
use super::{
    error::{DecodeError, EncodeError},
    path::Path,
};
use crate::protocol::json::{JsonError, Limits};

pub(crate) type Checked<T> = Result<T, Fault>;

/// A value that cannot cross the wire, in either direction. Boxed: the way without a fault stays as cheap as a pointer.
#[derive(Debug)]
pub(crate) struct Fault(Box<Inner>);

#[derive(Debug)]
struct Inner {
    problem: Problem,
    /// The way to the value: callers add their steps on the way back.
    path: Path,
}

#[derive(Debug)]
enum Problem {
    /// It does not fit into JSON or its limits.
    Json(JsonError),
    /// An argument's name is taken.
    Reserved(&'static str),
    /// It is something else than its type wants.
    Mismatch { found: String, expected: String },
    /// What its own code, or ours, says of it.
    Value(String),
}

/// Longer text is cut in an error.
const TEXT_SHOWN: usize = 200;

impl Fault {
    #[cold]
    fn new(problem: Problem) -> Self {
        Self(Box::new(Inner { problem, path: Path::default() }))
    }

    pub(super) fn value(reason: impl Into<String>) -> Self {
        Self::new(Problem::Value(reason.into()))
    }

    pub(super) fn reserved(name: &'static str) -> Self {
        Self::new(Problem::Reserved(name))
    }

    /// Says what a value is, where serde knows only what it looks like.
    pub(super) fn found(mut self, what: &str) -> Self {
        if let (Problem::Mismatch { found, .. }, true) = (&mut self.0.problem, self.0.path.is_empty()) {
            what.clone_into(found);
        }
        self
    }

    pub(super) fn into_encode_error(self) -> EncodeError {
        let Inner { problem, path } = *self.0;
        let path = path.to_string();
        match problem {
            // Above the values stands the payload itself, which is no nesting.
            Problem::Json(JsonError::TooDeep { .. }) => EncodeError::TooDeep { path, limit: Limits::SEND_DEPTH },
            Problem::Json(JsonError::TooLarge { limit, .. }) => EncodeError::TooLarge { path, limit },
            Problem::Json(JsonError::TooMany { limit }) => EncodeError::TooMany { path, limit },
            Problem::Json(JsonError::NotFinite) => EncodeError::NotFinite { path },
            Problem::Reserved(name) => EncodeError::Reserved { name },
            problem => EncodeError::Value { path, reason: problem.to_string() },
        }
    }

    pub(super) fn into_decode_error(self) -> DecodeError {
        DecodeError::Argument { path: self.0.path.to_string(), reason: self.0.problem.to_string() }
    }
}

impl Display for Problem {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Json(error) => error.fmt(f),
            Self::Reserved(name) => write!(f, "{name} is no name for an argument"),
            Self::Mismatch { found, expected } => write!(f, "{found} where {expected} was expected"),
            Self::Value(reason) => f.write_str(reason),
        }
    }
}

impl Display for Fault {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.problem.fmt(f)
    }
}

impl std::error::Error for Fault {}

impl From<JsonError> for Fault {
    #[cold]
    fn from(error: JsonError) -> Self {
        Self::new(Problem::Json(error))
    }
}

impl ser::Error for Fault {
    fn custom<T: Display>(message: T) -> Self {
        Self::value(short(&message.to_string()))
    }
}

/// What was received is not repeated in an error, so that logs hold none of it.
impl de::Error for Fault {
    fn custom<T: Display>(message: T) -> Self {
        Self::value(short(&message.to_string()))
    }

    fn invalid_type(found: de::Unexpected<'_>, expected: &dyn de::Expected) -> Self {
        Self::new(Problem::Mismatch { found: looks(found).to_owned(), expected: short(&expected.to_string()) })
    }

    fn invalid_value(found: de::Unexpected<'_>, expected: &dyn de::Expected) -> Self {
        Self::value(format!("{} that is not {}", looks(found), short(&expected.to_string())))
    }
}

fn looks(value: de::Unexpected<'_>) -> &'static str {
    match value {
        de::Unexpected::Bool(_) => "a boolean",
        de::Unexpected::Unsigned(_) | de::Unexpected::Signed(_) => "a whole number",
        de::Unexpected::Float(_) => "a number with a fraction",
        de::Unexpected::Char(_) | de::Unexpected::Str(_) => "a text",
        de::Unexpected::Bytes(_) => "bytes",
        de::Unexpected::Unit | de::Unexpected::Option => "nothing (null)",
        de::Unexpected::Seq => "a sequence",
        de::Unexpected::Map => "a map",
        _ => "something else",
    }
}

/// Text of a message, fit for a log.
pub(super) fn short(text: &str) -> String {
    let mut shown: String = text.chars().take(TEXT_SHOWN).collect();
    if shown.len() < text.len() {
        shown.push('…');
    }
    shown
}

/// Adds the step that led to a fault.
pub(super) trait At<T> {
    fn at(self, step: impl FnOnce() -> Step) -> Checked<T>;
}

impl<T> At<T> for Checked<T> {
    #[inline]
    fn at(self, step: impl FnOnce() -> Step) -> Self {
        self.map_err(|mut fault| {
            fault.0.path.add_outer(step());
            fault
        })
    }
}
