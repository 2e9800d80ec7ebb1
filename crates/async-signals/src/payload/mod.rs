//! What a signal carries: a typed payload becomes the body of a Celery task,
//! and the body of a task a typed payload.

mod error;
pub(crate) mod marker;

use bytes::Bytes;
use serde::{Serialize, de::DeserializeOwned};
use serde_json::{Map, Value};

pub use error::{DecodeError, EncodeError};

use crate::{protocol::json::Limits, sender::Sender};

/// The body of a signal's task: `[[signal, sender], arguments, embed]`.
///
/// # Errors
///
/// [`EncodeError`] for what cannot cross the wire.
pub fn encode<P: Serialize + ?Sized>(
    signal: &str,
    sender: &Sender,
    payload: &P,
    max_bytes: usize,
) -> Result<Bytes, EncodeError> {
    let arguments = match serde_json::to_value(payload) {
        Ok(Value::Null) => Value::Object(Map::new()),
        Ok(arguments) => arguments,
        Err(error) => return Err(EncodeError::Value { path: String::new(), reason: error.to_string() }),
    };
    if !arguments.is_object() {
        return Err(EncodeError::Unnamed { found: "no struct" });
    }
    let embed = serde_json::json!({"callbacks": null, "errbacks": null, "chain": null, "chord": null});
    let body = serde_json::to_vec(&((signal, sender.to_wire()), arguments, embed))
        .map_err(|error| EncodeError::Value { path: String::new(), reason: error.to_string() })?;
    if body.len() > max_bytes {
        return Err(EncodeError::TooLarge { path: String::new(), limit: max_bytes });
    }
    Ok(body.into())
}

/// What a body holds, before the payload is given its type.
#[derive(Clone, Debug)]
pub struct Body {
    /// The signal's name on the wire.
    pub signal: String,
    /// Who sent it.
    pub sender: Sender,
    arguments: Map<String, Value>,
}

impl Body {
    /// Reads a task's body.
    ///
    /// # Errors
    ///
    /// [`DecodeError`] for what is no body of a signal's task.
    pub fn read(bytes: &[u8]) -> Result<Self, DecodeError> {
        let _ = Limits::receiving(bytes.len());
        let ((signal, sender), arguments, _): ((String, Value), Map<String, Value>, Map<String, Value>) =
            serde_json::from_slice(bytes).map_err(|error| DecodeError::Malformed { reason: error.to_string() })?;
        Ok(Self { signal, sender: Sender::from_wire(sender), arguments })
    }

    /// The payload as the type that a receiver takes. Each call starts anew.
    ///
    /// # Errors
    ///
    /// [`DecodeError::Argument`] names the argument that is not of this type.
    pub fn payload<P: DeserializeOwned>(&self) -> Result<P, DecodeError> {
        serde_json::from_value(Value::Object(self.arguments.clone()))
            .map_err(|error| DecodeError::Argument { path: String::new(), reason: error.to_string() })
    }
}
