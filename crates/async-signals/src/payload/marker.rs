//! `{"__type__": …, "__value__": …}`: a value that JSON has no word for
//! (`kombu/utils/json.py`). Ours all go by one name, with their kind inside.

use serde_json::{Map, Value};

/// The key of a marker's name.
pub(crate) const TYPE: &str = "__type__";
/// The key of what it marks.
pub(crate) const VALUE: &str = "__value__";
/// The name of all markers that are ours.
pub(crate) const OURS: &str = "async_signals";

/// A marker of kombu's.
pub(crate) fn kombus(name: &str, value: Value) -> Value {
    Value::Object(Map::from_iter([(TYPE.to_owned(), Value::from(name)), (VALUE.to_owned(), value)]))
}

/// The kind and what follows it; `None` for what is no marker of ours.
pub(crate) fn parts(object: &Map<String, Value>) -> Option<(&str, &[Value])> {
    if object.len() != 2 || object.get(TYPE)?.as_str()? != OURS {
        return None;
    }
    let [Value::String(kind), parts @ ..] = object.get(VALUE)?.as_array()?.as_slice() else { return None };
    Some((kind, parts))
}
