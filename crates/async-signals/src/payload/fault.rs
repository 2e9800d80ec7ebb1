//! What is wrong with a value, and where in the arguments it stands.

use std::fmt::{self, Display, Write as _};

use serde::{de, ser};

use super::error::{DecodeError, EncodeError};
use crate::protocol::json::{JsonError, Limits};

pub(crate) type Checked<T> = Result<T, Fault>;

/// A value that cannot cross the wire, in either direction. Boxed: the way without a fault stays as cheap as a pointer.
#[derive(Debug)]
pub(crate) struct Fault(Box<Inner>);

#[derive(Debug)]
struct Inner {
    problem: Problem,
    /// The way to the value, its last step first: callers add theirs on the way back.
    steps: Vec<Step>,
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

/// One step from a value to one inside it.
#[derive(Debug)]
pub(super) enum Step {
    /// An argument, a field or a map's entry, by name.
    Name(String),
    /// A place in a sequence.
    Index(usize),
    /// A member of a set.
    Member,
    /// A map's key itself.
    Key,
    /// The value of a map's entry whose key is no text.
    Entry,
}

/// More steps than this are cut.
const STEPS_SHOWN: usize = 12;
/// Longer text is cut in an error.
const TEXT_SHOWN: usize = 200;
/// Longer names are cut in a path.
const NAME_SHOWN: usize = 40;

impl Fault {
    #[cold]
    fn new(problem: Problem) -> Self {
        Self(Box::new(Inner { problem, steps: Vec::new() }))
    }

    pub(super) fn value(reason: impl Into<String>) -> Self {
        Self::new(Problem::Value(reason.into()))
    }

    pub(super) fn reserved(name: &'static str) -> Self {
        Self::new(Problem::Reserved(name))
    }

    /// Says what a value is, where serde knows only what it looks like.
    pub(super) fn found(mut self, what: &str) -> Self {
        if let (Problem::Mismatch { found, .. }, true) = (&mut self.0.problem, self.0.steps.is_empty()) {
            what.clone_into(found);
        }
        self
    }

    pub(super) fn into_encode_error(self) -> EncodeError {
        let Inner { problem, steps } = *self.0;
        let path = path(steps);
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
        DecodeError::Argument { path: path(self.0.steps), reason: self.0.problem.to_string() }
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
            fault.0.steps.push(step());
            fault
        })
    }
}

/// `order.lines[2].price`; nothing where no step is known.
fn path(steps: Vec<Step>) -> String {
    let mut path = String::new();
    for (index, step) in steps.into_iter().rev().enumerate() {
        if index == STEPS_SHOWN {
            path.push('…');
            break;
        }
        step.append_to(&mut path);
    }
    path
}

impl Step {
    fn append_to(&self, path: &mut String) {
        // Writing to a string cannot fail.
        let _ = match self {
            Self::Name(name) if is_identifier(name) && path.is_empty() => write!(path, "{name}"),
            Self::Name(name) if is_identifier(name) => write!(path, ".{name}"),
            Self::Name(name) => {
                let shown: String = name.chars().take(NAME_SHOWN).collect();
                let more = if shown.len() < name.len() { "…" } else { "" };
                write!(path, "[{shown:?}{more}]")
            }
            Self::Index(index) => write!(path, "[{index}]"),
            Self::Member => write!(path, "{{…}}"),
            Self::Key => write!(path, " (a key)"),
            Self::Entry => write!(path, "[…]"),
        };
    }
}

fn is_identifier(name: &str) -> bool {
    let mut characters = name.chars();
    name.len() <= NAME_SHOWN
        && characters.next().is_some_and(|first| first.is_alphabetic() || first == '_')
        && characters.all(|character| character.is_alphanumeric() || character == '_')
}
