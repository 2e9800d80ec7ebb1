//! What a value is, in words that Python has for it too: `shopapp/matrix.py` describes its values alike.

use std::{collections::BTreeMap, hash::Hash};

use async_signals::types::{
    Bytes, Dataclass, Date, DateTime, Decimal, Enum, FrozenSet, Model, NaiveDateTime, Set, Time, Timedelta, Uuid,
};
use serde_json::{Value, json};

/// A value as JSON: the name of its type in Python, and what tells it from all others of the type.
pub(crate) trait Describe {
    fn describe(&self) -> Value;
}

/// A struct's fields, described.
pub(crate) trait Fields {
    fn fields(&self) -> Vec<(&'static str, Value)>;
}

/// A struct of values that can be described, by itself as a `dict`.
macro_rules! described {
    ($(#[$meta:meta])* struct $name:ident { $($field:ident: $type:ty,)* }) => {
        $(#[$meta])*
        #[derive(Clone, Debug, serde::Serialize, serde::Deserialize)]
        pub(crate) struct $name {
            $(pub(crate) $field: $type,)*
        }

        impl $crate::describe::Fields for $name {
            fn fields(&self) -> Vec<(&'static str, serde_json::Value)> {
                vec![$((stringify!($field), $crate::describe::Describe::describe(&self.$field)),)*]
            }
        }

        impl $crate::describe::Describe for $name {
            fn describe(&self) -> serde_json::Value {
                $crate::describe::fields(self)
            }
        }
    };
}
pub(crate) use described;

/// A struct as a `dict`.
pub(crate) fn fields(of: &impl Fields) -> Value {
    dict(of.fields().into_iter().map(|(name, value)| json!([name.to_owned().describe(), value])))
}

fn dict(entries: impl Iterator<Item = Value>) -> Value {
    json!(["dict", sorted(entries)])
}

/// What has no order in Python is put in the order of its text.
fn sorted(values: impl Iterator<Item = Value>) -> Vec<Value> {
    let mut values: Vec<Value> = values.collect();
    values.sort_by_key(Value::to_string);
    values
}

fn list<'a, T: Describe + 'a>(items: impl Iterator<Item = &'a T>) -> Vec<Value> {
    items.map(Describe::describe).collect()
}

impl Describe for bool {
    fn describe(&self) -> Value {
        json!(["bool", self])
    }
}

impl Describe for f64 {
    fn describe(&self) -> Value {
        json!(["float", format!("{:016x}", self.to_bits())])
    }
}

impl Describe for String {
    fn describe(&self) -> Value {
        json!(["str", self])
    }
}

impl Describe for Bytes {
    fn describe(&self) -> Value {
        let hex: String = self.iter().map(|byte| format!("{byte:02x}")).collect();
        json!(["bytes", hex])
    }
}

/// Types that are known by their text.
macro_rules! texts {
    ($($type:ty => $name:literal),* $(,)?) => {
        $(impl Describe for $type {
            fn describe(&self) -> Value {
                json!([$name, self.to_string()])
            }
        })*
    };
}
texts! {
    i64 => "int", u64 => "int", i128 => "int",
    DateTime => "datetime", NaiveDateTime => "datetime", Date => "date", Time => "time",
    Decimal => "Decimal", Uuid => "UUID",
}

impl Describe for Timedelta {
    fn describe(&self) -> Value {
        json!(["timedelta", self.days(), self.seconds(), self.microseconds()])
    }
}

impl Describe for Enum {
    fn describe(&self) -> Value {
        match self.name() {
            Some(name) => json!(["enum", self.class(), name]),
            None => json!(["enum", self.class(), self.value()]),
        }
    }
}

impl<T: Fields> Describe for Dataclass<T> {
    fn describe(&self) -> Value {
        json!(["dataclass", self.class, fields(&self.fields)])
    }
}

/// The rows of the tests have whole numbers for keys.
impl Describe for Model {
    fn describe(&self) -> Value {
        let key = self.key::<i64>().map_or_else(|error| json!(error.to_string()), |key| key.describe());
        json!(["row", self.label(), key, self.database()])
    }
}

impl<T: Describe> Describe for Option<T> {
    fn describe(&self) -> Value {
        self.as_ref().map_or_else(|| json!(["NoneType", null]), Describe::describe)
    }
}

impl<T: Describe> Describe for Vec<T> {
    fn describe(&self) -> Value {
        json!(["list", list(self.iter())])
    }
}

impl<T: Describe> Describe for (T,) {
    fn describe(&self) -> Value {
        json!(["tuple", [self.0.describe()]])
    }
}

impl<A: Describe, B: Describe> Describe for (A, B) {
    fn describe(&self) -> Value {
        json!(["tuple", [self.0.describe(), self.1.describe()]])
    }
}

impl<T: Describe + Eq + Hash> Describe for Set<T> {
    fn describe(&self) -> Value {
        json!(["set", sorted(self.iter().map(Describe::describe))])
    }
}

impl<T: Describe + Eq + Hash> Describe for FrozenSet<T> {
    fn describe(&self) -> Value {
        json!(["frozenset", sorted(self.iter().map(Describe::describe))])
    }
}

impl<K: Describe, V: Describe> Describe for BTreeMap<K, V> {
    fn describe(&self) -> Value {
        dict(self.iter().map(|(key, value)| json!([key.describe(), value.describe()])))
    }
}
