//! Who says that it happened: what a receiver asks for when it is connected,
//! and what a message names.

use std::{borrow::Cow, fmt};

use serde_json::{Map, Value};

use crate::payload::marker;

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
    Row {
        label: String,
        /// As it is on the wire.
        key: Value,
        using: Option<String>,
    },
    Member {
        class: String,
        /// Its name; several flags in one have a number and no name.
        member: Value,
    },
    /// What no sender of ours looks like. It matches no receiver but those that take any.
    Other(Value),
}

impl Sender {
    /// Nobody in particular: Python's `None`.
    pub const NONE: Self = Self(Kind::None);

    /// A text.
    #[must_use]
    pub const fn name(name: &'static str) -> Self {
        Self(Kind::Text(Cow::Borrowed(name)))
    }

    /// A Python class, by `module.qualified_name`. A class in Rust may take a name of this kind too.
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

    /// A text that is made while the program runs.
    #[must_use]
    pub fn text(text: impl Into<String>) -> Self {
        Self(Kind::Text(Cow::Owned(text.into())))
    }

    /// A row of a Django model, by `app.Model` and primary key. It is a row of no database in particular until
    /// [`Self::using`] names one.
    #[must_use]
    pub fn instance(label: impl Into<String>, key: impl Into<Value>) -> Self {
        Self(Kind::Row { label: label.into(), key: key.into(), using: None })
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
            Kind::Row { label, key, .. } => Self(Kind::Row { label, key, using: Some(database.into()) }),
            other => Self(other),
        }
    }

    /// A member of a Python enum, by its class's `module.qualified_name` and its own name.
    #[must_use]
    pub fn member(class: impl Into<String>, member: impl Into<String>) -> Self {
        Self(Kind::Member { class: class.into(), member: Value::String(member.into()) })
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

    /// As it stands in a task's arguments.
    pub(crate) fn to_wire(&self) -> Value {
        let text = |text: &str| Value::from(text);
        match &self.0 {
            Kind::None => Value::Null,
            Kind::Bool(value) => Value::Bool(*value),
            Kind::Int(number) => Value::from(*number),
            Kind::Text(value) => text(value),
            Kind::Class(label) => marker::ours("class", [text(label)]),
            Kind::ModelClass(label) => marker::ours("model_class", [text(label)]),
            Kind::Row { label, key, using } => {
                marker::ours("model", [text(label), key.clone(), using.as_deref().map_or(Value::Null, text)])
            }
            Kind::Member { class, member } => marker::ours("enum", [text(class), member.clone()]),
            Kind::Other(value) => value.clone(),
        }
    }

    /// What stands in a task's arguments. Nothing is refused: what no receiver can be connected to finds none.
    pub(crate) fn from_wire(value: Value) -> Self {
        Self(match value {
            Value::Null => Kind::None,
            Value::Bool(value) => Kind::Bool(value),
            Value::String(text) => Kind::Text(Cow::Owned(text)),
            Value::Number(number) => match number.as_i64() {
                Some(number) => Kind::Int(number),
                None => Kind::Other(Value::Number(number)),
            },
            Value::Object(object) => Self::from_marker(&object).unwrap_or(Kind::Other(Value::Object(object))),
            other => Kind::Other(other),
        })
    }

    fn from_marker(object: &Map<String, Value>) -> Option<Kind> {
        let (kind, parts) = marker::parts(object)?;
        let owned = |text: &String| text.clone();
        Some(match (kind, parts) {
            ("class", [Value::String(label)]) => Kind::Class(Cow::Owned(owned(label))),
            ("model_class", [Value::String(label)]) => Kind::ModelClass(Cow::Owned(owned(label))),
            ("model", [Value::String(label), key, Value::Null]) => {
                Kind::Row { label: owned(label), key: key.clone(), using: None }
            }
            ("model", [Value::String(label), key, Value::String(using)]) => {
                Kind::Row { label: owned(label), key: key.clone(), using: Some(owned(using)) }
            }
            ("enum", [Value::String(class), member @ (Value::String(_) | Value::Number(_))]) => {
                Kind::Member { class: owned(class), member: member.clone() }
            }
            _ => return None,
        })
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
            Kind::Text(text) => write!(f, "{text:?}"),
            Kind::Class(label) | Kind::ModelClass(label) => f.write_str(label),
            Kind::Row { label, key, .. } => write!(f, "{label} pk={key}"),
            Kind::Member { class, member: Value::String(member) } => write!(f, "{class}.{member}"),
            Kind::Member { class, member } => write!(f, "{class}({member})"),
            Kind::Other(_) => f.write_str("something unknown"),
        }
    }
}
