//! Sequences, tuples, sets, maps and structs.

use std::ops::Range;

use serde::{
    Serialize,
    ser::{
        SerializeMap, SerializeSeq, SerializeStruct, SerializeStructVariant, SerializeTuple, SerializeTupleStruct,
        SerializeTupleVariant,
    },
};

use super::{Encoder, our_marker};
use crate::payload::{
    fault::{At, Checked, Fault, Step},
    marker,
};

/// The names that Django calls receivers with: `receiver(signal=…, sender=…, **arguments)`.
const RESERVED: [&str; 2] = ["signal", "sender"];

impl Encoder {
    /// Opens an object and gives its place.
    pub(super) fn begin_object(&mut self) -> Checked<usize> {
        let start = self.json.next_value();
        self.json.begin_object()?;
        Ok(start)
    }

    pub(super) fn finish_object(&mut self, start: usize) -> Checked<()> {
        self.json.end_object()?;
        self.finished = start..self.json.position();
        Ok(())
    }

    /// Whether the object that begins at `start` can have a member of this name.
    #[inline]
    pub(super) fn check_name(&self, start: usize, name: &str) -> Checked<()> {
        if start == self.payload
            && let Some(name) = RESERVED.into_iter().find(|reserved| *reserved == name)
        {
            return Err(Fault::reserved(name));
        }
        Ok(())
    }
}

/// The names of an object's members, as far as they make a marker of it.
#[derive(Default)]
struct Names {
    type_: bool,
    value: bool,
    others: bool,
}

impl Names {
    #[inline]
    fn add(&mut self, name: &str) {
        match name {
            marker::TYPE => self.type_ = true,
            marker::VALUE => self.value = true,
            _ => self.others = true,
        }
    }

    /// An object of just these names would be taken for a marker where it arrives.
    fn refuse_marker(&self) -> Checked<()> {
        if self.type_ && self.value && !self.others {
            return Err(Fault::value(
                "a map or struct of just \"__type__\" and \"__value__\" cannot be sent, Celery's JSON keeps them for \
                 itself; rename one or add another",
            ));
        }
        Ok(())
    }
}

/// What is being listed, and so what closes it.
pub(crate) enum Close {
    List,
    Tuple,
    /// The members, which have no order of their own.
    Set(Vec<Range<usize>>),
    /// What stands in a marker of ours behind its kind.
    Parts,
    /// A tuple in the object of an enum's variant.
    Variant {
        name: &'static str,
        start: usize,
    },
}

/// Values one after the other.
pub(crate) struct Items<'a> {
    encoder: &'a mut Encoder,
    close: Close,
    index: usize,
}

impl<'a> Items<'a> {
    pub(super) fn new(encoder: &'a mut Encoder, close: Close) -> Self {
        Self { encoder, close, index: 0 }
    }

    fn item<T: Serialize + ?Sized>(&mut self, value: &T) -> Checked<()> {
        let index = self.index;
        self.index += 1;
        match &mut self.close {
            Close::Parts => self.encoder.value(value),
            Close::Set(members) => {
                let start = self.encoder.json.next_value();
                self.encoder.value(value).at(|| Step::Member)?;
                members.push(start..self.encoder.json.position());
                Ok(())
            }
            Close::List | Close::Tuple => self.encoder.value(value).at(|| Step::Index(index)),
            Close::Variant { name, .. } => {
                self.encoder.value(value).at(|| Step::Index(index)).at(|| Step::Name((*name).to_owned()))
            }
        }
    }

    fn close(self) -> Checked<()> {
        let encoder = self.encoder;
        match self.close {
            Close::List => Ok(encoder.json.end_array()?),
            Close::Tuple => encoder.end_marked_array(),
            // Equal sets are equal on the wire: their members go by the order of their bytes.
            Close::Set(mut members) => {
                encoder.json.sort_values(&mut members);
                encoder.end_marked_array()
            }
            Close::Parts => Ok(encoder.json.close_frame("]}")?),
            Close::Variant { start, .. } => {
                encoder.end_marked_array()?;
                encoder.finish_object(start)
            }
        }
    }
}

impl Encoder {
    fn end_marked_array(&mut self) -> Checked<()> {
        self.json.end_array()?;
        Ok(self.json.close_frame("]}")?)
    }
}

macro_rules! items {
    ($trait:ident, $method:ident) => {
        impl $trait for Items<'_> {
            type Ok = ();
            type Error = Fault;

            #[inline]
            fn $method<T: Serialize + ?Sized>(&mut self, value: &T) -> Checked<()> {
                self.item(value)
            }

            fn end(self) -> Checked<()> {
                self.close()
            }
        }
    };
}
items!(SerializeSeq, serialize_element);
items!(SerializeTuple, serialize_element);
items!(SerializeTupleStruct, serialize_field);
items!(SerializeTupleVariant, serialize_field);

/// A struct's fields.
pub(crate) struct Fields<'a> {
    encoder: &'a mut Encoder,
    start: usize,
    names: Names,
    /// The variant that holds them, and where its object begins.
    variant: Option<(&'static str, usize)>,
    /// Whether it is no struct but a number, and its field that number's text.
    is_number: bool,
}

impl<'a> Fields<'a> {
    pub(super) fn new(encoder: &'a mut Encoder, start: usize, variant: Option<(&'static str, usize)>) -> Self {
        Self { encoder, start, names: Names::default(), variant, is_number: false }
    }

    pub(super) fn number(encoder: &'a mut Encoder) -> Self {
        Self { is_number: true, ..Self::new(encoder, 0, None) }
    }

    #[inline]
    fn field<T: Serialize + ?Sized>(&mut self, name: &'static str, value: &T) -> Checked<()> {
        if self.is_number {
            return self.encoder.number(value);
        }
        self.encoder.check_name(self.start, name)?;
        self.names.add(name);
        let written = match self.encoder.json.key(name) {
            Ok(()) => self.encoder.value(value),
            Err(error) => Err(error.into()),
        };
        written.at(|| Step::Name(name.to_owned())).or_else(|fault| match self.variant {
            Some((variant, _)) => Err(fault).at(|| Step::Name(variant.to_owned())),
            None => Err(fault),
        })
    }

    fn close(self) -> Checked<()> {
        if self.is_number {
            return Ok(());
        }
        self.names.refuse_marker()?;
        self.encoder.finish_object(self.start)?;
        match self.variant {
            Some((_, outer)) => self.encoder.finish_object(outer),
            None => Ok(()),
        }
    }
}

macro_rules! fields {
    ($trait:ident) => {
        impl $trait for Fields<'_> {
            type Ok = ();
            type Error = Fault;

            #[inline]
            fn serialize_field<T: Serialize + ?Sized>(&mut self, name: &'static str, value: &T) -> Checked<()> {
                self.field(name, value)
            }

            fn end(self) -> Checked<()> {
                self.close()
            }
        }
    };
}
fields!(SerializeStruct);
fields!(SerializeStructVariant);

/// What a map's first key has made of it.
#[derive(Clone, Copy)]
enum Form {
    /// There was none yet.
    Empty,
    /// Its keys are text: an object, which begins here.
    Object(usize),
    /// They are not: pairs in a marker.
    Pairs,
}

/// A map's entries.
pub(crate) struct MapEntries<'a> {
    encoder: &'a mut Encoder,
    form: Form,
    names: Names,
    /// Where the last key stands.
    key: Range<usize>,
}

impl<'a> MapEntries<'a> {
    pub(super) fn new(encoder: &'a mut Encoder) -> Self {
        Self { encoder, form: Form::Empty, names: Names::default(), key: 0..0 }
    }

    /// Writes a key and says whether it is a text.
    fn write_key<T: Serialize + ?Sized>(&mut self, key: &T) -> Checked<bool> {
        let start = self.encoder.json.next_value();
        self.encoder.value(key).at(|| Step::Key)?;
        self.key = start..self.encoder.json.position();
        Ok(self.encoder.json.written(start).first() == Some(&b'"'))
    }

    fn first_key<T: Serialize + ?Sized>(&mut self, key: &T) -> Checked<()> {
        // Most are text, so that is tried first.
        let before = self.encoder.json.checkpoint();
        let start = self.encoder.begin_object()?;
        if self.write_key(key)? {
            self.form = Form::Object(start);
            return self.end_text_key(start);
        }
        self.encoder.json.rollback(before);
        self.encoder.json.open_frame(our_marker!("dict"))?;
        self.encoder.json.begin_array()?;
        self.form = Form::Pairs;
        self.pair_key(key)
    }

    fn end_text_key(&mut self, start: usize) -> Checked<()> {
        let written = &self.encoder.json.written(0)[self.key.clone()];
        let name = written.strip_prefix(b"\"").and_then(|name| name.strip_suffix(b"\"")).unwrap_or_default();
        // What is looked for holds nothing that would be escaped.
        let name = std::str::from_utf8(name).unwrap_or_default();
        self.encoder.check_name(start, name)?;
        self.names.add(name);
        self.encoder.json.end_key().map_err(Fault::from).at(|| Step::Key)
    }

    fn pair_key<T: Serialize + ?Sized>(&mut self, key: &T) -> Checked<()> {
        self.encoder.json.open_frame("[")?;
        self.write_key(key).map(drop)
    }

    /// The step to the last key's value.
    fn step(&self) -> Step {
        match serde_json::from_slice(&self.encoder.json.written(0)[self.key.clone()]) {
            Ok(name) => Step::Name(name),
            Err(_) => Step::Entry,
        }
    }
}

impl SerializeMap for MapEntries<'_> {
    type Ok = ();
    type Error = Fault;

    fn serialize_key<T: Serialize + ?Sized>(&mut self, key: &T) -> Checked<()> {
        match self.form {
            Form::Empty => self.first_key(key),
            Form::Pairs => self.pair_key(key),
            Form::Object(start) => {
                if self.write_key(key)? {
                    return self.end_text_key(start);
                }
                Err(Fault::value(
                    "some keys of the map are text and some are not; make all of them the one or the other",
                ))
            }
        }
    }

    fn serialize_value<T: Serialize + ?Sized>(&mut self, value: &T) -> Checked<()> {
        if let Err(fault) = self.encoder.value(value) {
            return Err(fault).at(|| self.step());
        }
        match self.form {
            Form::Pairs => Ok(self.encoder.json.close_frame("]")?),
            _ => Ok(()),
        }
    }

    fn end(self) -> Checked<()> {
        match self.form {
            Form::Empty => {
                let start = self.encoder.begin_object()?;
                self.encoder.finish_object(start)
            }
            Form::Object(start) => {
                if !self.encoder.as_it_is {
                    self.names.refuse_marker()?;
                }
                self.encoder.finish_object(start)
            }
            Form::Pairs => self.encoder.end_marked_array(),
        }
    }
}
