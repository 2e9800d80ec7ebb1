//! Who says that it happened: what a receiver asks for when it is connected,
//! and what a message names.

use std::{borrow::Cow, fmt};

use serde_json::{Map, Value};

use crate::{
    payload::{
        AsItIs,
        encode::{Encoder, our_marker},
        fault::Fault,
        marker,
    },
    text::shown,
    types::{Enum, Model},
};

/// The sender of a signal, as it crosses the wire: by name.
///
/// ```
/// use async_signals::sender::Sender;
///
/// const ORDER: Sender = Sender::model("shop.Order");
/// assert!(Sender::NONE.matches(&ORDER), "connected without a sender: any will do");
/// assert!(ORDER.matches(&Sender::model("shop.Order")));
/// assert!(!ORDER.matches(&Sender::instance("shop.Order", 5)), "a row is not its model");
/// assert_eq!(Sender::instance("shop.Order", 5).to_string(), "shop.Order pk=5");
/// ```
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct Sender(Kind);

#[derive(Clone, Debug, PartialEq, Eq, Hash)]
enum Kind {
    None,
    Bool(bool),
    Int(i64),
    Text(Cow<'static, str>),
    Class(Cow<'static, str>),
    ModelClass(Cow<'static, str>),
    Row(Model),
    Member(Enum),
    /// What no sender of ours looks like. It matches no receiver but those that take any.
    Other(AsItIs),
}

impl Sender {
    /// Nobody in particular: Python's `None`.
    pub const NONE: Self = Self(Kind::None);

    /// A text.
    #[must_use]
    pub const fn name(name: &'static str) -> Self {
        Self(Kind::Text(Cow::Borrowed(name)))
    }

    /// A Python class, by `module.qualified_name`. A type of Rust's may go by a name of this kind too: in Python it is
    /// then a `SenderRef`.
    #[must_use]
    pub const fn class(label: &'static str) -> Self {
        Self(Kind::Class(Cow::Borrowed(label)))
    }

    /// A Django model, by `app.Model`.
    #[must_use]
    pub const fn model(label: &'static str) -> Self {
        Self(Kind::ModelClass(Cow::Borrowed(label)))
    }

    /// A whole number.
    #[must_use]
    pub const fn int(number: i64) -> Self {
        Self(Kind::Int(number))
    }

    /// A boolean, which to a receiver is no number: `True` is not 1.
    #[must_use]
    pub const fn bool(value: bool) -> Self {
        Self(Kind::Bool(value))
    }

    /// A text that is made while the program runs.
    #[must_use]
    pub fn text(text: impl Into<String>) -> Self {
        Self(Kind::Text(Cow::Owned(text.into())))
    }

    /// A row of a Django model, by `app.Model` and primary key. It is a row of no database in particular until
    /// [`Self::using`] names one.
    #[must_use]
    pub fn instance(label: impl Into<String>, key: impl Into<Value>) -> Self {
        Self(Kind::Row(Model::new(label, key)))
    }

    /// The name of the database that the row is in, as Django's `DATABASES` has it. A Django sender always says
    /// which, mostly `default`, and a row of another database is another sender.
    ///
    /// ```
    /// use async_signals::sender::Sender;
    /// let row = Sender::instance("shop.Order", 5);
    /// assert!(!row.matches(&row.clone().using("default")));
    /// ```
    #[must_use]
    pub fn using(self, database: impl Into<String>) -> Self {
        match self.0 {
            Kind::Row(row) => Self(Kind::Row(row.using(database))),
            other => Self(other),
        }
    }

    /// A member of a Python enum, by its class's `module.qualified_name` and its own name.
    #[must_use]
    pub fn member(class: impl Into<Cow<'static, str>>, member: impl Into<Cow<'static, str>>) -> Self {
        Self(Kind::Member(Enum::new(class, member)))
    }

    /// Whether a receiver that is connected to this sender takes a signal of `sent`: any, if it is connected to
    /// [`Self::NONE`]; else one that is the same on the wire.
    #[must_use]
    pub fn matches(&self, sent: &Self) -> bool {
        match &self.0 {
            Kind::None => true,
            Kind::Other(_) => false,
            own => *own == sent.0,
        }
    }

    /// Writes it as it stands in a task's arguments.
    pub(crate) fn write(&self, to: &mut Encoder) -> Result<(), Fault> {
        match &self.0 {
            Kind::None => to.json.null()?,
            Kind::Bool(value) => to.json.bool(*value)?,
            Kind::Int(number) => to.json.int(*number)?,
            Kind::Text(text) => to.json.string(text)?,
            Kind::Class(label) => {
                to.json.open_frame(our_marker!("class"))?;
                to.json.string(label)?;
                to.json.close_frame("]}")?;
            }
            Kind::ModelClass(label) => {
                to.json.open_frame(our_marker!("model_class"))?;
                to.json.string(label)?;
                to.json.close_frame("]}")?;
            }
            Kind::Row(row) => to.value(row)?,
            Kind::Member(member) => to.value(member)?,
            Kind::Other(json) => to.value(json)?,
        }
        Ok(())
    }

    /// What stands in a task's arguments. Nothing is refused: what no receiver can be connected to finds none.
    pub(crate) fn from_wire(value: Value) -> Self {
        Self(match value {
            Value::Null => Kind::None,
            Value::Bool(value) => Kind::Bool(value),
            Value::String(text) => Kind::Text(Cow::Owned(text)),
            Value::Number(number) if number.is_i64() => Kind::Int(number.as_i64().unwrap_or_default()),
            Value::Object(object) => Self::from_marker(&object).unwrap_or(Kind::Other(AsItIs(Value::Object(object)))),
            other => Kind::Other(AsItIs(other)),
        })
    }

    fn from_marker(object: &Map<String, Value>) -> Option<Kind> {
        Some(match marker::parts(object)? {
            ("class", [Value::String(label)]) => Kind::Class(Cow::Owned(label.clone())),
            ("model_class", [Value::String(label)]) => Kind::ModelClass(Cow::Owned(label.clone())),
            ("model", [Value::String(label), key, Value::Null]) => Kind::Row(Model::new(label, key.clone())),
            ("model", [Value::String(label), key, Value::String(database)]) => {
                Kind::Row(Model::new(label, key.clone()).using(database))
            }
            ("enum", [Value::String(class), Value::String(name)]) => {
                Kind::Member(Enum::new(class.clone(), name.clone()))
            }
            ("enum", [Value::String(class), Value::Number(value)]) => {
                Kind::Member(Enum::flags(class.clone(), value.as_i64()?))
            }
            _ => return None,
        })
    }
}

impl From<Model> for Sender {
    fn from(row: Model) -> Self {
        Self(Kind::Row(row))
    }
}

impl From<Enum> for Sender {
    fn from(member: Enum) -> Self {
        Self(Kind::Member(member))
    }
}

impl Default for Sender {
    fn default() -> Self {
        Self::NONE
    }
}

/// For logs: no values but a row's primary key.
impl fmt::Display for Sender {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match &self.0 {
            Kind::None => f.write_str("None"),
            Kind::Bool(true) => f.write_str("True"),
            Kind::Bool(false) => f.write_str("False"),
            Kind::Int(number) => write!(f, "{number}"),
            Kind::Text(text) => write!(f, "{:?}", shown(text)),
            Kind::Class(label) | Kind::ModelClass(label) => f.write_str(&shown(label)),
            Kind::Row(row) => row.fmt(f),
            Kind::Member(member) => member.fmt(f),
            Kind::Other(_) => f.write_str("something unknown"),
        }
    }
}
