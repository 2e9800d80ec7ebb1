//! What a signal carries: a typed payload becomes the body of a Celery task,
//! and the body of a task a typed payload.
//!
//! A payload is a struct (or a map with text keys, or `()` for none): its fields are the named arguments that a
//! Python receiver is called with, and that a Python sender sends. They are written as kombu's extended JSON
//! (`kombu/utils/json.py`) with our own markers, byte for byte as the Python side writes the same values;
//! [`types`](crate::types) has those that JSON has no word for.
//!
//! ```
//! use async_signals::{payload::{self, Body}, sender::Sender, types::Decimal};
//!
//! #[derive(Debug, PartialEq, serde::Serialize, serde::Deserialize)]
//! struct OrderPlaced { order_id: i64, total: Decimal }
//!
//! let placed = OrderPlaced { order_id: 5, total: "12.50".parse()? };
//! let sender = Sender::model("shop.Order");
//! let body = payload::encode("shop.signals.order_placed", &sender, &placed, 1 << 20)?;
//!
//! let body = Body::read(&body)?;
//! assert_eq!((body.signal.as_str(), &body.sender), ("shop.signals.order_placed", &sender));
//! assert_eq!(body.payload::<OrderPlaced>()?, placed);
//! # Ok::<(), Box<dyn std::error::Error>>(())
//! ```

mod as_it_is;
mod decode;
pub(crate) mod encode;
mod error;
pub(crate) mod fault;
pub(crate) mod marker;
pub mod path;
pub(crate) mod token;

use std::ops::Range;

use bytes::Bytes;
use serde::{Serialize, de::DeserializeOwned};

pub(crate) use self::as_it_is::AsItIs;
pub use self::error::{DecodeError, EncodeError};
use crate::sender::Sender;

/// The body of a signal's task: `[[signal, sender], arguments, embed]`, of at most `max_bytes`.
///
/// # Errors
///
/// [`EncodeError`] for what cannot cross the wire; it names the argument by its path.
pub fn encode<P: Serialize + ?Sized>(
    signal: &str,
    sender: &Sender,
    payload: &P,
    max_bytes: usize,
) -> Result<Bytes, EncodeError> {
    encode_with_place(signal, sender, payload, max_bytes).map(|(body, _)| body)
}

/// The body of a signal's task, and where its arguments stand in it: what [`Body::sent_here`] makes do with.
pub(crate) fn encode_with_place<P: Serialize + ?Sized>(
    signal: &str,
    sender: &Sender,
    payload: &P,
    max_bytes: usize,
) -> Result<(Bytes, Range<usize>), EncodeError> {
    encode::encode(signal, sender, payload, max_bytes).map(|(body, place)| (Bytes::from(body), place))
}

/// What a body holds, before the payload is given its type.
#[derive(Clone, Debug)]
pub struct Body {
    /// The signal's name on the wire.
    pub signal: String,
    /// Who sent it.
    pub sender: Sender,
    arguments: decode::Arguments,
}

impl Body {
    /// Reads a task's body: all of it is JSON, and it is the body of a signal's task.
    ///
    /// # Errors
    ///
    /// [`DecodeError::Malformed`] for any other bytes, and [`DecodeError::Refused`] if it asks for tasks to be run
    /// after it. No input makes it panic, and none takes more memory than a few times its size.
    pub fn read(bytes: &[u8]) -> Result<Self, DecodeError> {
        let (signal, sender, arguments) = decode::body(bytes)?;
        Ok(Self { signal, sender, arguments })
    }

    /// What a worker would read of a body whose arguments these are: one JSON object, encoded here.
    pub(crate) fn sent_here(signal: &str, sender: Sender, arguments: Bytes) -> Result<Self, DecodeError> {
        Ok(Self { signal: signal.to_owned(), sender, arguments: decode::own_arguments(arguments)? })
    }

    /// The payload as the type that a receiver takes. Each call starts anew, so that each receiver may take another
    /// type. Arguments that the type does not have are not looked at; `()` takes any.
    ///
    /// # Errors
    ///
    /// [`DecodeError::Argument`] names the argument that is not of this type.
    pub fn payload<P: DeserializeOwned>(&self) -> Result<P, DecodeError> {
        self.arguments.read()
    }
}
