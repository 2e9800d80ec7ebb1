//! Python's types that JSON has no word for, as fields of a payload: a Python
//! receiver gets the real thing, and so does a Rust one from a Python sender.
//!
//! | here | in Python |
//! |---|---|
//! | [`DateTime`], [`NaiveDateTime`], [`Date`], [`Time`] | `datetime` with and without `tzinfo`, `date`, `time` |
//! | [`Timedelta`] | `timedelta` |
//! | [`Decimal`] | `Decimal` |
//! | [`Uuid`] | `UUID` |
//! | [`Bytes`] | `bytes` |
//! | [`Set`], [`FrozenSet`] | `set`, `frozenset` |
//! | [`Enum`] | a member of an enum |
//! | [`Dataclass`] | an instance of a dataclass |
//! | [`Model`] | a row of a Django model, by its primary key |
//! | a tuple, a tuple struct, an array | `tuple` |
//! | `Vec` and other sequences | `list` |
//! | a struct, a map with text keys | `dict` |
//! | a map with other keys | `dict` |
//! | an enum of Rust's | its variant's name; with content, a `dict` of one entry |
//! | `Option`, `()` | `None`, or what is inside |
//!
//! Each of these reads in other formats, too: as the text or the sequence that it is.
//!
//! What is received may also go into a plainer field: a UUID, a decimal, a date or a time into a `String`, or into
//! whatever reads the text (`uuid::Uuid` reads the first of them); a set, a frozenset or a tuple into a `Vec` or a
//! `HashSet`; a dataclass into a struct of its own; an enum's member into a Rust enum of the same names; bytes into a
//! `Vec<u8>`.

mod bytes;
mod dataclass;
mod date;
mod datetime;
mod decimal;
mod enumeration;
mod iso;
mod model;
mod set;
mod text;
mod time;
mod timedelta;
mod uuid;

pub use bytes::Bytes;
pub use dataclass::Dataclass;
pub use date::Date;
pub use datetime::{DateTime, NaiveDateTime};
pub use decimal::{Decimal, NoDecimal};
pub use enumeration::Enum;
pub use iso::NoIsoFormat;
pub use model::Model;
pub use set::{FrozenSet, Set};
pub use time::Time;
pub use timedelta::{Timedelta, TimedeltaRange};
pub use uuid::Uuid;
