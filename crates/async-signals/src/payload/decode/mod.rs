//! A task's body becomes Rust values. What Python's encoder writes as a marker
//! arrives as the type that the payload asks for, or as the plain value that
//! comes closest. Nothing is looked up, and nothing a message holds is run.

mod access;
mod reading;
mod view;
mod wire;

use bytes::Bytes;
use serde::de::DeserializeOwned;

use self::{reading::Reading, wire::Wire};
use super::{
    encode::EMBED,
    error::DecodeError,
    fault::{Fault, short},
    marker,
};
use crate::{
    protocol::json::{JsonError, JsonReader, Limits, Token},
    sender::Sender,
};

/// How a body ends behind its arguments, as Celery writes it; ours has no blanks.
const CELERYS_END: &[u8] = br#", {"callbacks": null, "errbacks": null, "chain": null, "chord": null}]"#;

/// The named arguments of a body, as they came.
#[derive(Clone, Debug)]
pub(super) struct Arguments {
    /// One JSON object.
    json: Bytes,
    /// Whether `serde_json` reads it as we do: it holds no marker, and no
    /// number that it would round.
    plain: bool,
}

impl Arguments {
    pub(super) fn read<P: DeserializeOwned>(&self) -> Result<P, DecodeError> {
        // Many times faster. What it refuses is read again: we say where it stands, and may be more lenient.
        if self.plain
            && let Ok(payload) = serde_json::from_slice(&self.json)
        {
            return Ok(payload);
        }
        let wire = Wire::parse(&self.json).map_err(malformed)?;
        P::deserialize(Reading::arguments(&wire)).map_err(Fault::into_decode_error)
    }
}

/// The arguments of a body that was encoded here: one object.
pub(super) fn own_arguments(object: Bytes) -> Result<Arguments, DecodeError> {
    let mut json = JsonReader::new(&object, Limits::receiving(object.len())).map_err(malformed)?;
    expect(&mut json, Token::BeginObject, "its arguments are an object")?;
    let plain = are_plain(&mut json)?;
    Ok(Arguments { json: object, plain })
}

/// A value that is JSON by itself.
pub(super) fn value<T: DeserializeOwned>(json: &[u8]) -> Result<T, DecodeError> {
    let wire = Wire::parse(json).map_err(malformed)?;
    T::deserialize(Reading::value(&wire)).map_err(Fault::into_decode_error)
}

/// The signal's name, the sender and the arguments of a body.
pub(super) fn body(bytes: &[u8]) -> Result<(String, Sender, Arguments), DecodeError> {
    // The bytes are here already; depth and count bound what they unfold to.
    let mut json = JsonReader::new(bytes, Limits::receiving(bytes.len())).map_err(malformed)?;
    expect(&mut json, Token::BeginArray, "a body is a list of three parts")?;
    expect(&mut json, Token::BeginArray, "its first part is a list")?;
    let Some(Token::String(signal)) = json.next().map_err(malformed)? else {
        return Err(shape("its arguments are not a signal's name and a sender"));
    };
    let sender = Wire::next(&mut json).map_err(malformed)?;
    let Some(sender) = sender else {
        return Err(shape("its arguments are not a signal's name and a sender"));
    };
    expect(&mut json, Token::EndArray, "its arguments are not a signal's name and a sender")?;
    expect(&mut json, Token::BeginObject, "its second part is an object")?;
    let arguments = arguments(&mut json, bytes)?;
    // Nearly always it is one of these, and nothing is left to look at.
    let end = bytes.get(json.position()..).unwrap_or_default();
    if end == EMBED.as_bytes() || end == CELERYS_END {
        return Ok((signal.into_owned(), sender.to_sender(), arguments));
    }
    let embed = Wire::next(&mut json).map_err(malformed)?;
    refuse_more(&embed.ok_or_else(|| shape("a body has three parts"))?)?;
    expect(&mut json, Token::EndArray, "a body has three parts")?;
    match json.next().map_err(malformed)? {
        None => Ok((signal.into_owned(), sender.to_sender(), arguments)),
        Some(_) => Err(shape("there is something behind it")),
    }
}

fn arguments(json: &mut JsonReader<'_>, bytes: &[u8]) -> Result<Arguments, DecodeError> {
    let start = json.position() - "{".len();
    let plain = are_plain(json)?;
    let json = bytes.get(start..json.position()).unwrap_or_default();
    Ok(Arguments { json: Bytes::copy_from_slice(json), plain })
}

/// Goes through an object that has begun, to its end.
fn are_plain(json: &mut JsonReader<'_>) -> Result<bool, DecodeError> {
    let (mut open, mut plain) = (1_usize, true);
    while open > 0 {
        match json.next().map_err(malformed)? {
            Some(Token::BeginObject | Token::BeginArray) => open += 1,
            Some(Token::EndObject | Token::EndArray) => open -= 1,
            Some(Token::Key(key)) => plain &= key != marker::TYPE,
            // What has fewer digits fits into 64 bits.
            Some(Token::Int(digits)) => plain &= digits.len() < 20,
            Some(_) => {}
            None => return Err(shape("it ends too early")),
        }
    }
    Ok(plain)
}

/// The third part may ask for tasks to be run after this one: whoever may send
/// a signal could otherwise have any task run.
fn refuse_more(embed: &Wire<'_>) -> Result<(), DecodeError> {
    match embed {
        Wire::Null => Ok(()),
        Wire::Map(members) => match members.iter().find(|(_, value)| !matches!(value, Wire::Null)) {
            None => Ok(()),
            Some((name, _)) => Err(DecodeError::Refused { asks: short(name) }),
        },
        _ => Err(DecodeError::Refused { asks: "it is no object".to_owned() }),
    }
}

fn expect(json: &mut JsonReader<'_>, token: Token<'_>, otherwise: &str) -> Result<(), DecodeError> {
    match json.next().map_err(malformed)? {
        Some(found) if found == token => Ok(()),
        _ => Err(shape(otherwise)),
    }
}

fn shape(reason: &str) -> DecodeError {
    DecodeError::Malformed { reason: reason.to_owned() }
}

#[expect(clippy::needless_pass_by_value, reason = "stands in map_err")]
fn malformed(error: JsonError) -> DecodeError {
    DecodeError::Malformed { reason: error.to_string() }
}
