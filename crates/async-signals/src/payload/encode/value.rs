//! What each of serde's shapes is in JSON.

use serde::{Serialize, Serializer};

use super::{
    Encoder, Next,
    container::{Close, Fields, Items, MapEntries},
    kombu_marker, our_marker,
};
use crate::payload::{
    fault::{At, Checked, Fault, Step},
    token::Token,
};

impl<'a> Serializer for &'a mut Encoder {
    type Ok = ();
    type Error = Fault;
    type SerializeSeq = Items<'a>;
    type SerializeTuple = Items<'a>;
    type SerializeTupleStruct = Items<'a>;
    type SerializeTupleVariant = Items<'a>;
    type SerializeMap = MapEntries<'a>;
    type SerializeStruct = Fields<'a>;
    type SerializeStructVariant = Fields<'a>;

    fn serialize_bool(self, value: bool) -> Checked<()> {
        Ok(self.json.bool(value)?)
    }

    fn serialize_i8(self, value: i8) -> Checked<()> {
        self.serialize_i64(value.into())
    }

    fn serialize_i16(self, value: i16) -> Checked<()> {
        self.serialize_i64(value.into())
    }

    fn serialize_i32(self, value: i32) -> Checked<()> {
        self.serialize_i64(value.into())
    }

    #[inline]
    fn serialize_i64(self, value: i64) -> Checked<()> {
        Ok(self.json.int(value)?)
    }

    fn serialize_i128(self, value: i128) -> Checked<()> {
        Ok(self.json.big_int(&value.to_string())?)
    }

    fn serialize_u8(self, value: u8) -> Checked<()> {
        self.serialize_i64(value.into())
    }

    fn serialize_u16(self, value: u16) -> Checked<()> {
        self.serialize_i64(value.into())
    }

    fn serialize_u32(self, value: u32) -> Checked<()> {
        self.serialize_i64(value.into())
    }

    fn serialize_u64(self, value: u64) -> Checked<()> {
        match i64::try_from(value) {
            Ok(small) => self.serialize_i64(small),
            Err(_) => Ok(self.json.big_int(&value.to_string())?),
        }
    }

    fn serialize_u128(self, value: u128) -> Checked<()> {
        Ok(self.json.big_int(&value.to_string())?)
    }

    fn serialize_f32(self, value: f32) -> Checked<()> {
        // The digits that it is printed with, not those of the nearest f64: 0.1 stays 0.1.
        self.serialize_f64(value.to_string().parse().unwrap_or_else(|_| value.into()))
    }

    fn serialize_f64(self, value: f64) -> Checked<()> {
        Ok(self.json.float(value)?)
    }

    fn serialize_char(self, value: char) -> Checked<()> {
        self.serialize_str(value.encode_utf8(&mut [0; 4]))
    }

    #[inline]
    fn serialize_str(self, value: &str) -> Checked<()> {
        if std::mem::take(&mut self.next) == Next::Uuid {
            let hex: String = value.chars().filter(|character| *character != '-').collect();
            self.json.open_frame(concat!(kombu_marker!("uuid"), r#"{"hex":"#))?;
            self.json.string(&hex)?;
            return Ok(self.json.close_frame("}}")?);
        }
        Ok(self.json.string(value)?)
    }

    fn serialize_bytes(self, value: &[u8]) -> Checked<()> {
        if let Ok(text) = std::str::from_utf8(value) {
            self.json.open_frame(kombu_marker!("bytes"))?;
            self.json.string(text)?;
        } else {
            self.json.open_frame(kombu_marker!("base64"))?;
            self.json.base64(value)?;
        }
        Ok(self.json.close_frame("}")?)
    }

    fn serialize_none(self) -> Checked<()> {
        Ok(self.json.null()?)
    }

    fn serialize_some<T: Serialize + ?Sized>(self, value: &T) -> Checked<()> {
        self.value(value)
    }

    fn serialize_unit(self) -> Checked<()> {
        Ok(self.json.null()?)
    }

    fn serialize_unit_struct(self, _name: &'static str) -> Checked<()> {
        Ok(self.json.null()?)
    }

    fn serialize_unit_variant(self, _name: &'static str, _index: u32, variant: &'static str) -> Checked<()> {
        Ok(self.json.string(variant)?)
    }

    fn serialize_newtype_struct<T: Serialize + ?Sized>(self, name: &'static str, value: &T) -> Checked<()> {
        let marker = match Token::of(name) {
            None => return self.value(value),
            Some(Token::Text(marker)) => marker,
            Some(Token::Decimal) => kombu_marker!("decimal"),
            Some(Token::AsItIs) => return self.as_it_is(value),
            Some(token) => {
                self.next = match token {
                    Token::Set => Next::Members(our_marker!("set")),
                    Token::FrozenSet => Next::Members(our_marker!("frozenset")),
                    Token::Timedelta => Next::Parts(our_marker!("timedelta")),
                    Token::Enum => Next::Parts(our_marker!("enum")),
                    Token::Model => Next::Parts(our_marker!("model")),
                    Token::Dataclass => Next::Parts(our_marker!("dataclass")),
                    _ => Next::Uuid,
                };
                self.value(value)?;
                return match token {
                    Token::Dataclass => self.check_fields(),
                    _ => Ok(()),
                };
            }
        };
        self.json.open_frame(marker)?;
        self.value(value)?;
        Ok(self.json.close_frame("}")?)
    }

    fn serialize_newtype_variant<T: Serialize + ?Sized>(
        self,
        _name: &'static str,
        _index: u32,
        variant: &'static str,
        value: &T,
    ) -> Checked<()> {
        let start = self.begin_variant(variant)?;
        self.value(value).at(|| Step::Name(variant.to_owned()))?;
        self.finish_object(start)
    }

    fn serialize_seq(self, _len: Option<usize>) -> Checked<Items<'a>> {
        match std::mem::take(&mut self.next) {
            Next::Members(marker) => {
                self.json.open_frame(marker)?;
                self.json.begin_array()?;
                Ok(Items::new(self, Close::Set(Vec::new())))
            }
            _ => {
                self.json.begin_array()?;
                Ok(Items::new(self, Close::List))
            }
        }
    }

    fn serialize_tuple(self, _len: usize) -> Checked<Items<'a>> {
        match std::mem::take(&mut self.next) {
            Next::Parts(marker) => {
                self.json.open_frame(marker)?;
                Ok(Items::new(self, Close::Parts))
            }
            _ => {
                self.begin_tuple()?;
                Ok(Items::new(self, Close::Tuple))
            }
        }
    }

    fn serialize_tuple_struct(self, _name: &'static str, len: usize) -> Checked<Items<'a>> {
        self.serialize_tuple(len)
    }

    fn serialize_tuple_variant(
        self,
        _name: &'static str,
        _index: u32,
        variant: &'static str,
        _len: usize,
    ) -> Checked<Items<'a>> {
        let start = self.begin_variant(variant)?;
        self.begin_tuple()?;
        Ok(Items::new(self, Close::Variant { name: variant, start }))
    }

    fn serialize_map(self, _len: Option<usize>) -> Checked<MapEntries<'a>> {
        Ok(MapEntries::new(self))
    }

    fn serialize_struct(self, name: &'static str, _len: usize) -> Checked<Fields<'a>> {
        match name {
            // A number of serde_json's with its feature `arbitrary_precision`, which any crate may turn on.
            "$serde_json::private::Number" => return Ok(Fields::number(self)),
            "$serde_json::private::RawValue" => {
                return Err(Fault::value("serde_json's RawValue cannot be sent; send a serde_json::Value"));
            }
            _ => {}
        }
        let start = self.begin_object()?;
        Ok(Fields::new(self, start, None))
    }

    fn serialize_struct_variant(
        self,
        _name: &'static str,
        _index: u32,
        variant: &'static str,
        _len: usize,
    ) -> Checked<Fields<'a>> {
        let outer = self.begin_variant(variant)?;
        let start = self.begin_object()?;
        Ok(Fields::new(self, start, Some((variant, outer))))
    }
}

impl Encoder {
    fn as_it_is<T: Serialize + ?Sized>(&mut self, value: &T) -> Checked<()> {
        let before = std::mem::replace(&mut self.as_it_is, true);
        let written = self.value(value);
        self.as_it_is = before;
        written
    }

    fn begin_tuple(&mut self) -> Checked<()> {
        self.json.open_frame(our_marker!("tuple"))?;
        Ok(self.json.begin_array()?)
    }

    /// A variant that holds something: an object of its name and what it holds. Gives its place.
    fn begin_variant(&mut self, variant: &'static str) -> Checked<usize> {
        let start = self.begin_object()?;
        self.check_name(start, variant)?;
        self.json.key(variant)?;
        Ok(start)
    }

    /// A number that comes as its text.
    pub(super) fn number<T: Serialize + ?Sized>(&mut self, text: &T) -> Checked<()> {
        let (before, start) = (self.json.checkpoint(), self.json.next_value());
        self.value(text)?;
        let text = String::from_utf8_lossy(self.json.written(start)).replace('"', "");
        self.json.rollback(before);
        let digits = text.strip_prefix('-').unwrap_or(&text);
        if !digits.is_empty() && digits.bytes().all(|digit| digit.is_ascii_digit()) {
            return Ok(self.json.big_int(&text)?);
        }
        // Python would read it as a float, too.
        self.serialize_f64(text.parse().map_err(|_| Fault::value("not a number"))?)
    }

    /// The fields of a dataclass, which have just been written, are named.
    fn check_fields(&self) -> Checked<()> {
        if self.finished.end + "]}".len() == self.json.position() {
            return Ok(());
        }
        Err(Fault::value("the fields of a dataclass are a struct or a map with text keys"))
    }
}
