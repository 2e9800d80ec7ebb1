//! How the types of [`types`](crate::types) say to our own encoder and decoder
//! what they are: as a newtype of a name that nothing else has. Any other
//! format sees what is inside, a plain text or sequence.

pub(crate) const DATETIME: &str = "$async_signals::datetime";
pub(crate) const DATE: &str = "$async_signals::date";
pub(crate) const TIME: &str = "$async_signals::time";
pub(crate) const DECIMAL: &str = "$async_signals::decimal";
pub(crate) const UUID: &str = "$async_signals::uuid";
pub(crate) const SET: &str = "$async_signals::set";
pub(crate) const FROZENSET: &str = "$async_signals::frozenset";
pub(crate) const TIMEDELTA: &str = "$async_signals::timedelta";
pub(crate) const ENUM: &str = "$async_signals::enum";
pub(crate) const DATACLASS: &str = "$async_signals::dataclass";
pub(crate) const MODEL: &str = "$async_signals::model";
/// JSON that goes as it is, markers included.
pub(crate) const AS_IT_IS: &str = "$async_signals::as_it_is";

/// What a value is on the wire.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Token {
    /// A text with a marker of kombu's around it, which begins so.
    Text(&'static str),
    Decimal,
    Uuid,
    Set,
    FrozenSet,
    Timedelta,
    Enum,
    Dataclass,
    Model,
    AsItIs,
}

impl Token {
    /// The token of a newtype's name; `None` for everybody else's newtypes.
    #[inline]
    pub(super) fn of(name: &'static str) -> Option<Self> {
        if name.starts_with('$') { Self::named(name) } else { None }
    }

    fn named(name: &'static str) -> Option<Self> {
        Some(match name {
            DATETIME => Self::Text(r#"{"__type__":"datetime","__value__":"#),
            DATE => Self::Text(r#"{"__type__":"date","__value__":"#),
            TIME => Self::Text(r#"{"__type__":"time","__value__":"#),
            DECIMAL => Self::Decimal,
            UUID => Self::Uuid,
            SET => Self::Set,
            FROZENSET => Self::FrozenSet,
            TIMEDELTA => Self::Timedelta,
            ENUM => Self::Enum,
            DATACLASS => Self::Dataclass,
            MODEL => Self::Model,
            AS_IT_IS => Self::AsItIs,
            _ => return None,
        })
    }
}
