//! JSON as a tree that borrows from its bytes.

use std::borrow::Cow;

use serde_json::{Map, Number, Value};

use crate::protocol::json::{JsonError, JsonReader, Limits, Token};

/// A value as it came: markers are maps.
#[derive(Debug)]
pub(super) enum Wire<'a> {
    Null,
    Bool(bool),
    /// Its digits, however many.
    Int(&'a str),
    Float(f64),
    Text(Cow<'a, str>),
    List(Vec<Wire<'a>>),
    Map(Vec<(Cow<'a, str>, Wire<'a>)>),
}

impl<'a> Wire<'a> {
    /// One JSON text.
    pub(super) fn parse(bytes: &'a [u8]) -> Result<Self, JsonError> {
        let mut json = JsonReader::new(bytes, Limits::receiving(bytes.len()))?;
        let value = Self::next(&mut json)?.unwrap_or(Self::Null);
        // Nothing follows, or this fails.
        json.next()?;
        Ok(value)
    }

    /// The next value; `None` where there is none.
    pub(super) fn next(json: &mut JsonReader<'a>) -> Result<Option<Self>, JsonError> {
        match json.next()? {
            Some(token) => Self::from(token, json),
            None => Ok(None),
        }
    }

    /// The value that begins with `token`. The reader bounds how deep this goes.
    fn from(token: Token<'a>, json: &mut JsonReader<'a>) -> Result<Option<Self>, JsonError> {
        Ok(Some(match token {
            Token::Null => Self::Null,
            Token::Bool(value) => Self::Bool(value),
            Token::Int(digits) => Self::Int(digits),
            Token::Float(value) => Self::Float(value),
            Token::String(text) => Self::Text(text),
            Token::BeginArray => {
                let mut items = Vec::new();
                while let Some(item) = Self::next(json)? {
                    items.push(item);
                }
                Self::List(items)
            }
            Token::BeginObject => {
                let mut members = Vec::new();
                while let Some(Token::Key(key)) = json.next()? {
                    let Some(value) = Self::next(json)? else { break };
                    members.push((key, value));
                }
                Self::Map(members)
            }
            Token::EndArray | Token::EndObject | Token::Key(_) => return Ok(None),
        }))
    }

    /// The same as another tree.
    pub(super) fn to_value(&self) -> Value {
        match self {
            Self::Null => Value::Null,
            Self::Bool(value) => Value::Bool(*value),
            Self::Int(digits) => serde_json::from_str(digits).unwrap_or_default(),
            Self::Float(value) => Number::from_f64(*value).map_or(Value::Null, Value::Number),
            Self::Text(text) => Value::from(text.as_ref()),
            Self::List(items) => items.iter().map(Self::to_value).collect(),
            Self::Map(members) => {
                let members = members.iter().map(|(name, value)| (name.clone().into_owned(), value.to_value()));
                Value::Object(members.collect::<Map<_, _>>())
            }
        }
    }
}
