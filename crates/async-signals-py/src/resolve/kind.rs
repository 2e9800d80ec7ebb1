//! What each kind of stand-in resolves to.

use pyo3::intern;
use pyo3::prelude::*;
use pyo3::types::{PyDict, PyFrozenSet, PyInt, PyList, PySet, PyString, PyTuple};

use super::Resolver;
use crate::classes::classes;
use crate::encode::encode_value;
use crate::fault::{At, Checked, Fault, Step, short};
use crate::names::find_class;
use crate::reference::{parts, sender_ref};

const NOT_IMPORTED: &str = "no module that is imported here has it; import it where the worker starts";

impl<'py> Resolver<'_, 'py> {
    /// What `[kind, …]` stands for.
    pub(super) fn reference(&mut self, value: &Bound<'py, PyAny>) -> Checked<Bound<'py, PyAny>> {
        let Some((kind, rest)) = parts(value) else {
            return Err(Fault::unresolvable("unknown", "", "this is no marker of Async Signals"));
        };
        match (kind.as_str(), rest.as_slice()) {
            ("tuple", [items]) => Ok(PyTuple::new(self.py, self.all(&kind, items)?)?.into_any()),
            ("set" | "frozenset", [items]) => self.set(&kind, items),
            ("dict", [pairs]) => self.pairs(&kind, pairs),
            ("timedelta", [days, seconds, microseconds]) => {
                let class = classes(self.py)?.timedelta.bind(self.py);
                class.call1((days, seconds, microseconds)).map_err(|error| misshapen(&kind).because(error))
            }
            ("enum", [name, member]) => self.enum_member(&text(&kind, name)?, member),
            ("safe_string", [string]) => {
                let text = string.cast::<PyString>().map_err(|_| misshapen(&kind))?;
                let safestring = self.py.import(intern!(self.py, "django.utils.safestring"))?;
                Ok(safestring.call_method1(intern!(self.py, "mark_safe"), (text,))?)
            }
            ("namedtuple", [name, items]) => self.named_tuple(&text(&kind, name)?, items),
            ("dataclass", [name, fields]) => self.dataclass(&text(&kind, name)?, fields),
            ("model", [label, key, using]) => self.row(value, &text(&kind, label)?, key, using),
            ("class", [name]) => match find_class(self.py, &text(&kind, name)?) {
                Some(class) => Ok(class.into_any()),
                None => Ok(sender_ref(value.clone())?),
            },
            ("model_class", [label]) => match self.model(&text(&kind, label)?)? {
                Some(model) => Ok(model),
                None => Ok(sender_ref(value.clone())?),
            },
            ("registered", [name, encoded]) => {
                let name = name.cast::<PyString>().map_err(|_| misshapen(&kind))?;
                self.registered(name, encoded)
            }
            (
                "tuple" | "set" | "frozenset" | "dict" | "timedelta" | "enum" | "dataclass" | "model" | "class"
                | "model_class" | "registered" | "safe_string" | "namedtuple",
                _,
            ) => Err(misshapen(&kind)),
            _ => Err(Fault::unresolvable(
                &kind,
                "",
                "this version of Async Signals does not know the kind; the sender's may be newer",
            )),
        }
    }

    fn all(&mut self, kind: &str, items: &Bound<'py, PyAny>) -> Checked<Vec<Bound<'py, PyAny>>> {
        let items = items.cast::<PyList>().map_err(|_| misshapen(kind))?;
        items.iter().enumerate().map(|(index, item)| self.value(&item).at(|| Step::Index(index))).collect()
    }

    fn set(&mut self, kind: &str, members: &Bound<'py, PyAny>) -> Checked<Bound<'py, PyAny>> {
        let members = self.all(kind, members)?;
        if kind == "set" {
            PySet::new(self.py, members).map(Bound::into_any)
        } else {
            PyFrozenSet::new(self.py, members).map(Bound::into_any)
        }
        .map_err(|error| misshapen(kind).because(error))
    }

    fn pairs(&mut self, kind: &str, pairs: &Bound<'py, PyAny>) -> Checked<Bound<'py, PyAny>> {
        let dict = PyDict::new(self.py);
        for pair in pairs.cast::<PyList>().map_err(|_| misshapen(kind))? {
            let (key, value): (Bound<'py, PyAny>, Bound<'py, PyAny>) = match pair.cast::<PyList>() {
                Ok(pair) if pair.len() == 2 => (pair.get_item(0)?, pair.get_item(1)?),
                _ => return Err(misshapen(kind)),
            };
            let key = self.value(&key).at(|| Step::Key)?;
            let value = self.value(&value).at(|| key.extract().map_or(Step::Entry, Step::Name))?;
            dict.set_item(key, value).map_err(|error| misshapen(kind).because(error))?;
        }
        Ok(dict.into_any())
    }

    fn enum_member(&mut self, name: &str, member: &Bound<'py, PyAny>) -> Checked<Bound<'py, PyAny>> {
        let py = self.py;
        let classes = classes(py)?;
        let class = find_class(py, name).ok_or_else(|| Fault::unresolvable("enum", name, NOT_IMPORTED))?;
        if !class.is_subclass(classes.enumeration.bind(py))? {
            return Err(Fault::unresolvable("enum", name, "it is no enum here"));
        }
        let found = if member.is_instance_of::<PyString>() {
            class.getattr(intern!(py, "__members__"))?.get_item(member)
        } else if member.is_exact_instance_of::<PyInt>() && class.is_subclass(classes.flag.bind(py))? {
            class.call1((member,))
        } else {
            return Err(misshapen("enum"));
        };
        found.map_err(|error| {
            let reason = format!("it has no member {} here", short(&member.to_string()));
            Fault::unresolvable("enum", name, reason).because(error)
        })
    }

    fn named_tuple(&mut self, name: &str, items: &Bound<'py, PyAny>) -> Checked<Bound<'py, PyAny>> {
        let py = self.py;
        let class = find_class(py, name).ok_or_else(|| Fault::unresolvable("namedtuple", name, NOT_IMPORTED))?;
        // Whoever can send a message must not choose what is called.
        if !class.is_subclass_of::<PyTuple>()? || !class.hasattr(intern!(py, "_fields"))? {
            return Err(Fault::unresolvable("namedtuple", name, "it is no named tuple here"));
        }
        let items = PyTuple::new(py, self.all("namedtuple", items)?)?;
        class
            .call1(items)
            .map_err(|error| Fault::unresolvable("namedtuple", name, "it has other fields here").because(error))
    }

    /// A dataclass instance as it was, without running its `__init__`.
    fn dataclass(&mut self, name: &str, fields: &Bound<'py, PyAny>) -> Checked<Bound<'py, PyAny>> {
        let py = self.py;
        let class = find_class(py, name).ok_or_else(|| Fault::unresolvable("dataclass", name, NOT_IMPORTED))?;
        let sent = fields.cast::<PyDict>().map_err(|_| misshapen("dataclass"))?;
        if !class.hasattr(intern!(py, "__dataclass_fields__"))? {
            return Err(Fault::unresolvable("dataclass", name, "it is no dataclass here"));
        }
        let object = py.get_type::<PyAny>();
        let instance = object
            .call_method1(intern!(py, "__new__"), (&class,))
            .map_err(|error| Fault::unresolvable("dataclass", name, "it cannot be made here").because(error))?;
        let mut taken = 0;
        let declared = py.import(intern!(py, "dataclasses"))?.call_method1(intern!(py, "fields"), (&class,))?;
        for field in declared.try_iter()? {
            let field = field?;
            let field_name = field.getattr(intern!(py, "name"))?.cast_into::<PyString>()?;
            let value = match sent.get_item(&field_name)? {
                Some(value) => {
                    taken += 1;
                    self.value(&value).at(|| Step::Name(field_name.to_string_lossy().into_owned()))?
                }
                None => default(&field)?.ok_or_else(|| {
                    Fault::unresolvable("dataclass", name, format!("its field {field_name} was not sent"))
                })?,
            };
            object.call_method1(intern!(py, "__setattr__"), (&instance, field_name, value))?;
        }
        if taken != sent.len() {
            return Err(Fault::unresolvable(
                "dataclass",
                name,
                "fields were sent that it does not have here; the sender's may be newer",
            ));
        }
        Ok(instance)
    }

    fn row(
        &mut self,
        value: &Bound<'py, PyAny>,
        label: &str,
        key: &Bound<'py, PyAny>,
        using: &Bound<'py, PyAny>,
    ) -> Checked<Bound<'py, PyAny>> {
        let wire = encode_value(value).map_err(|_| misshapen("model"))?;
        if let Some(row) = self.rows.get(&wire) {
            return Ok(row.clone());
        }
        let Some(model) = self.model(label)? else {
            return Err(Fault::unresolvable("model", label, "no app that is installed here has this model"));
        };
        let key = self.value(key).at(|| Step::Name("pk".into()))?;
        let row = self.lookup.call_method1(intern!(self.py, "row"), (model, key, using))?;
        self.rows.insert(wire, row.clone());
        Ok(row)
    }

    fn model(&self, label: &str) -> Checked<Option<Bound<'py, PyAny>>> {
        let model = self.lookup.call_method1(intern!(self.py, "model"), (label,))?;
        Ok((!model.is_none()).then_some(model))
    }
}

/// What a field is without a value that was sent.
fn default<'py>(field: &Bound<'py, PyAny>) -> PyResult<Option<Bound<'py, PyAny>>> {
    let py = field.py();
    let missing = py.import(intern!(py, "dataclasses"))?.getattr(intern!(py, "MISSING"))?;
    let value = field.getattr(intern!(py, "default"))?;
    if !value.is(&missing) {
        return Ok(Some(value));
    }
    let factory = field.getattr(intern!(py, "default_factory"))?;
    if factory.is(&missing) { Ok(None) } else { factory.call0().map(Some) }
}

fn text(kind: &str, value: &Bound<'_, PyAny>) -> Checked<String> {
    value.extract().map_err(|_| misshapen(kind))
}

fn misshapen(kind: &str) -> Box<Fault> {
    Fault::unresolvable(kind, "", "it is not of the shape that this version of Async Signals reads")
}
