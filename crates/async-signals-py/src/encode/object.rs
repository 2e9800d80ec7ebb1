//! Values that JSON has no form for.

use pyo3::intern;
use pyo3::prelude::*;
use pyo3::types::{
    IntoPyDict, PyByteArray, PyBytes, PyDict, PyFloat, PyFrozenSet, PyInt, PyList, PyMemoryView, PySet, PyString,
};
use pyo3::types::{PyTuple, PyType};

use super::container::refuse_marker;
use super::{Encoder, encode_value, kombu_marker, our_marker};
use crate::classes::{is_a, is_exactly, model, multi_value_dict, promise, router, safe_string};
use crate::fault::{At, Checked, Fault, Step};
use crate::kombu::registration;
use crate::names::{class_name, find_class};
use crate::reference::{MARKER, Reference};

/// How often a value may turn into another before there is something to write.
const MOST_TURNS: usize = 64;

impl Encoder<'_> {
    /// What is no plain builtin, in the order that the module's doc gives.
    pub(super) fn object(&mut self, object: &Bound<'_, PyAny>) -> Checked<()> {
        let py = self.py;
        let classes = self.classes;
        // Kombu's own classes themselves first: they are the frequent ones, and
        // none of the other rules can fit.
        if is_exactly(object, &classes.datetime)
            || is_exactly(object, &classes.decimal)
            || is_exactly(object, &classes.uuid)
            || is_exactly(object, &classes.date)
            || is_exactly(object, &classes.time)
        {
            return self.kombu_type(object).map(drop);
        }
        if let Ok(reference) = object.cast::<Reference>() {
            return self.reference(reference);
        }
        if let Ok(class) = object.cast::<PyType>() {
            return Err(Fault::type_error(format!(
                "the class {} cannot be sent as an argument, only as the sender; send its name",
                class.qualname()?
            )));
        }
        if is_a(object, &classes.enumeration) {
            return self.enum_member(object);
        }
        if let Some(model) = model(py)
            // Asks the object too: `request.user` says that it is a user.
            && object.is_instance(model.bind(py))?
        {
            return self.model_instance(object);
        }
        if self.builtin(object)? {
            return Ok(());
        }
        if let Some(reducer) = object.getattr_opt(intern!(py, "__json__"))? {
            let value = reducer.call0()?;
            return self.turn(&value);
        }
        if let Some(promise) = promise(py)
            && is_a(object, promise)
        {
            // A translation is a str, and a template that is rendered late a safe one.
            return self.value(object.str()?.as_any());
        }
        if self.kombu_type(object)? || self.own_type(object)? {
            return Ok(());
        }
        if let Some(registered) = registration(object)? {
            let value = registered.encoder.call1((object,))?;
            let Some(name) = registered.marker else { return self.turn(&value) };
            self.json.open_frame(our_marker!("registered"))?;
            self.json.string(&name)?;
            self.turn(&value)?;
            return Ok(self.json.close_frame("]}")?);
        }
        if object.hasattr(intern!(py, "__dataclass_fields__"))? {
            return self.dataclass(object);
        }
        Err(unsupported(object)?)
    }

    /// Writes what a value turned into; that may turn again, but not for ever.
    fn turn(&mut self, value: &Bound<'_, PyAny>) -> Checked<()> {
        if self.turns >= MOST_TURNS {
            return Err(Fault::value_error(
                "turns into other values without end (__json__ or a registered encoder, perhaps)",
            ));
        }
        self.turns += 1;
        let written = self.value(value);
        self.turns -= 1;
        written
    }

    /// A subclass of a builtin class, as kombu writes it: as its base.
    fn builtin(&mut self, object: &Bound<'_, PyAny>) -> Checked<bool> {
        let plain = object.is_instance_of::<PyString>()
            || object.is_instance_of::<PyInt>()
            || object.is_instance_of::<PyFloat>()
            || object.is_instance_of::<PyDict>()
            || object.is_instance_of::<PyList>()
            || object.is_instance_of::<PyTuple>();
        if !plain {
            return Ok(false);
        }
        if object.get_type().hasattr(intern!(self.py, "__dataclass_fields__"))? {
            return Err(Fault::type_error(format!(
                "{} is a dataclass and a builtin type at once and cannot be sent; send one of the two",
                object.get_type().qualname()?
            )));
        }
        if let Ok(text) = object.cast::<PyString>() {
            self.string(text)?;
        } else if let Ok(whole) = object.cast::<PyInt>() {
            self.int(whole)?;
        } else if let Ok(float) = object.cast::<PyFloat>() {
            self.json.float(float.value())?;
        } else if let Ok(tuple) = object.cast::<PyTuple>() {
            if tuple.get_type().hasattr(intern!(self.py, "_fields"))? {
                self.named_tuple(tuple)?;
            } else {
                self.tuple(tuple)?;
            }
        } else if let Ok(list) = object.cast::<PyList>() {
            self.list(list)?;
        } else {
            if let Some(class) = multi_value_dict(self.py)
                && is_a(object, class)
            {
                return Err(Fault::type_error(format!(
                    "{} has several values for a key, of which one would be sent; send dict(value.lists()) or value.dict()",
                    object.get_type().qualname()?
                )));
            }
            // A subclass may keep its entries in its own way: ask for them.
            let entries = PyDict::from_sequence(&object.call_method0(intern!(self.py, "items"))?)?;
            self.dict(&entries)?;
        }
        Ok(true)
    }

    /// A subclass of str: text that is safe as HTML stays that, or templates would escape it once more.
    fn string(&mut self, text: &Bound<'_, PyString>) -> Checked<()> {
        match safe_string(self.py) {
            Some(class) if is_a(text, class) => {
                self.json.open_frame(our_marker!("safe_string"))?;
                self.text(text)?;
                Ok(self.json.close_frame("]}")?)
            }
            _ => self.text(text),
        }
    }

    fn named_tuple(&mut self, tuple: &Bound<'_, PyTuple>) -> Checked<()> {
        let class = findable(&tuple.get_type())?;
        self.json.open_frame(our_marker!("namedtuple"))?;
        self.json.string(&class)?;
        self.json.begin_array()?;
        for (index, item) in tuple.iter_borrowed().enumerate() {
            self.value(&item).at(|| Step::Index(index))?;
        }
        self.json.end_array()?;
        Ok(self.json.close_frame("]}")?)
    }

    /// The classes that kombu's JSON has a marker for, written as kombu does.
    fn kombu_type(&mut self, object: &Bound<'_, PyAny>) -> Checked<bool> {
        let py = self.py;
        let classes = self.classes;
        // A datetime is a date too. Subclasses of datetime (pendulum's) may
        // have an `isoformat` of their own that `fromisoformat` does not read.
        let (marker, text) = if is_a(object, &classes.datetime) {
            let isoformat = intern!(py, "isoformat");
            (kombu_marker!("datetime"), classes.datetime.bind(py).call_method1(isoformat, (object,))?)
        } else if is_a(object, &classes.decimal) {
            (kombu_marker!("decimal"), object.str()?.into_any())
        } else if is_a(object, &classes.uuid) {
            self.json.open_frame(concat!(kombu_marker!("uuid"), r#"{"hex":"#))?;
            self.text(object.getattr(intern!(py, "hex"))?.cast()?)?;
            self.json.close_frame("}}")?;
            return Ok(true);
        } else if is_a(object, &classes.date) {
            (kombu_marker!("date"), object.call_method0(intern!(py, "isoformat"))?)
        } else if is_a(object, &classes.time) {
            (kombu_marker!("time"), object.call_method0(intern!(py, "isoformat"))?)
        } else if let Ok(bytes) = object.cast::<PyBytes>() {
            self.bytes(bytes.as_bytes())?;
            return Ok(true);
        } else if object.is_instance_of::<PyByteArray>() || object.is_instance_of::<PyMemoryView>() {
            let bytes = py.get_type::<PyBytes>().call1((object,))?;
            self.bytes(bytes.cast::<PyBytes>()?.as_bytes())?;
            return Ok(true);
        } else {
            return Ok(false);
        };
        self.json.open_frame(marker)?;
        self.text(text.cast()?)?;
        self.json.close_frame("}")?;
        Ok(true)
    }

    fn bytes(&mut self, bytes: &[u8]) -> Checked<()> {
        if let Ok(text) = std::str::from_utf8(bytes) {
            self.json.open_frame(kombu_marker!("bytes"))?;
            self.json.string(text)?;
        } else {
            self.json.open_frame(kombu_marker!("base64"))?;
            self.json.base64(bytes)?;
        }
        Ok(self.json.close_frame("}")?)
    }

    /// The standard library's classes that only we have a marker for.
    fn own_type(&mut self, object: &Bound<'_, PyAny>) -> Checked<bool> {
        let py = self.py;
        if object.is_instance_of::<PySet>() {
            self.set(our_marker!("set"), object)?;
        } else if object.is_instance_of::<PyFrozenSet>() {
            self.set(our_marker!("frozenset"), object)?;
        } else if is_a(object, &self.classes.timedelta) {
            self.json.open_frame(our_marker!("timedelta"))?;
            for part in [intern!(py, "days"), intern!(py, "seconds"), intern!(py, "microseconds")] {
                self.json.int(object.getattr(part)?.extract()?)?;
            }
            self.json.close_frame("]}")?;
        } else {
            return Ok(false);
        }
        Ok(true)
    }

    /// Back to exactly what it came from.
    fn reference(&mut self, reference: &Bound<'_, Reference>) -> Checked<()> {
        let value = reference.get().value(self.py);
        debug_assert_eq!(MARKER, "async_signals", "the frame names it too");
        self.json.open_frame(kombu_marker!("async_signals"))?;
        if let Ok(parts) = value.cast_exact::<PyList>() {
            self.json.open_frame("[")?;
            for part in parts {
                self.turn(&part)?;
            }
            self.json.close_frame("]")?;
        } else {
            self.turn(value)?;
        }
        Ok(self.json.close_frame("}")?)
    }

    fn enum_member(&mut self, member: &Bound<'_, PyAny>) -> Checked<()> {
        let py = self.py;
        let class = findable(&member.get_type())?;
        self.json.open_frame(our_marker!("enum"))?;
        self.json.string(&class)?;
        let name = member.getattr(intern!(py, "_name_"))?;
        let members = member.get_type().getattr(intern!(py, "__members__"))?;
        if members.contains(&name)? {
            self.text(name.cast()?)?;
        } else {
            // Several flags in one have a value, and no name of their own.
            let value = member.getattr(intern!(py, "_value_"))?;
            self.int(value.cast()?)?;
        }
        Ok(self.json.close_frame("]}")?)
    }

    pub(crate) fn model_instance(&mut self, instance: &Bound<'_, PyAny>) -> Checked<()> {
        let py = self.py;
        let label = instance.getattr(intern!(py, "_meta"))?.getattr(intern!(py, "label"))?;
        let label = label.cast::<PyString>()?;
        let key = instance.getattr(intern!(py, "pk"))?;
        let state = instance.getattr(intern!(py, "_state"))?;
        // A composite key is a tuple, with a None for each part that is not set.
        let unset = key.is_none() || key.cast::<PyTuple>().is_ok_and(|parts| parts.iter().any(|part| part.is_none()));
        if unset || state.getattr(intern!(py, "adding"))?.is_truthy()? {
            return Err(Fault::value_error(format!(
                "{label} instance is not in the database, and only its key is sent; \
                 save it first, or send the values that receivers need"
            )));
        }
        self.json.open_frame(our_marker!("model"))?;
        self.text(label)?;
        self.primary_key(instance, &key).at(|| Step::Name("pk".into()))?;
        let mut database = state.getattr(intern!(py, "db"))?;
        // Where the row is written: a replica that it was read from may not have it yet.
        if !database.is_none()
            && let Some(router) = router(py)?
        {
            let hints = [("instance", instance)].into_py_dict(py)?;
            database = router.call_method(intern!(py, "db_for_write"), (instance.get_type(),), Some(&hints))?;
        }
        if database.is_none() {
            self.json.null()?;
        } else {
            self.text(database.cast()?)?;
        }
        Ok(self.json.close_frame("]}")?)
    }

    fn primary_key(&mut self, instance: &Bound<'_, PyAny>, key: &Bound<'_, PyAny>) -> Checked<()> {
        let frequent = key.is_exact_instance_of::<PyInt>()
            || key.is_exact_instance_of::<PyString>()
            || is_exactly(key, &self.classes.uuid)
            || key.is_exact_instance_of::<PyTuple>();
        if frequent {
            return self.value(key);
        }
        match encode_value(key) {
            Ok(_) => self.value(key),
            // An object that only its field knows: in the field's words, as in Django's serializers.
            Err(fault) => {
                let references = self.py.import(intern!(self.py, "async_signals.references"))?;
                let text = references.call_method1(intern!(self.py, "primary_key_text"), (instance,))?;
                if text.is_none() { Err(fault) } else { self.value(&text) }
            }
        }
    }

    fn dataclass(&mut self, object: &Bound<'_, PyAny>) -> Checked<()> {
        let py = self.py;
        let class = object.get_type();
        let name = findable(&class)?;
        let fields = py.import(intern!(py, "dataclasses"))?.call_method1(intern!(py, "fields"), (class,))?;
        let values = PyDict::new(py);
        for field in fields.try_iter()? {
            let field = field?.getattr(intern!(py, "name"))?.cast_into::<PyString>()?;
            values.set_item(&field, object.getattr(&field)?)?;
        }
        refuse_marker(&values)?;
        self.json.open_frame(our_marker!("dataclass"))?;
        self.json.string(&name)?;
        self.dict(&values)?;
        Ok(self.json.close_frame("]}")?)
    }
}

/// A class's name, if it can be found by that name: a worker must.
fn findable(class: &Bound<'_, PyType>) -> Checked<String> {
    let name = class_name(class)?;
    let why = if name.starts_with("__main__.") {
        "is defined in the script that was started, which no worker imports"
    } else if name.contains("<locals>") {
        "is defined inside a function"
    } else if !find_class(class.py(), &name).is_some_and(|found| found.is(class)) {
        "is not what stands under its name"
    } else {
        return Ok(name);
    };
    Err(Fault::type_error(format!(
        "{} cannot be sent, because its class {why}; put the class at the top of a module that the worker \
         imports, or send a plain value",
        class.qualname()?
    )))
}

fn unsupported(object: &Bound<'_, PyAny>) -> PyResult<Box<Fault>> {
    let class = object.get_type();
    let name = class.qualname()?;
    let instead = match name.to_str()? {
        "QuerySet" | "RawQuerySet" | "RelatedManager" | "ManyRelatedManager" => "a list of ids",
        "WSGIRequest" | "ASGIRequest" | "HttpRequest" => "the values of the request that receivers need",
        "function" | "method" | "builtin_function_or_method" | "module" => "its name",
        _ if object.hasattr("__next__")? || name.to_str()?.starts_with("dict_") || name.to_str()? == "range" => {
            "a list"
        }
        _ => "its id or a plain value",
    };
    Ok(Fault::type_error(format!("{name} cannot be sent through Celery; send {instead}")))
}
