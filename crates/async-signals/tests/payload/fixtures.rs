//! The bytes that Python's encoder made (`fixtures/payload/make.py`) are what we write, and are read back.

use std::{
    cell::RefCell,
    collections::{BTreeMap, BTreeSet},
    fmt::Debug,
};

use async_signals::{
    payload::{self, Body},
    sender::Sender,
    types::{
        Bytes, Dataclass, Date, DateTime, Decimal, Enum, FrozenSet, Model, NaiveDateTime, Set, Time, Timedelta, Uuid,
    },
};
use serde::{Deserialize, Serialize, de::DeserializeOwned};
use serde_json::json;
use time::macros::{date, datetime, time};

use super::{Argument, LIMIT, SIGNAL};

const ID: uuid::Uuid = uuid::uuid!("67e55044-10b1-426f-9247-bb680e5fe0c8");

/// The bodies by their names, and which of them were looked at.
struct Fixtures {
    bodies: BTreeMap<&'static str, &'static str>,
    seen: RefCell<BTreeSet<&'static str>>,
}

impl Fixtures {
    fn new() -> Self {
        let lines = include_str!("../fixtures/payload/bodies.txt").lines();
        let bodies = lines.map(|line| line.split_once('\t').expect("a name and a body")).collect();
        Self { bodies, seen: RefCell::default() }
    }

    fn body(&self, name: &'static str) -> &'static str {
        self.seen.borrow_mut().insert(name);
        self.bodies[name]
    }

    /// This value is written as Python wrote it, and Python's is read as this value.
    fn value<T: Serialize + DeserializeOwned + PartialEq + Debug>(&self, name: &'static str, value: T) {
        let theirs = self.body(name);
        let argument = Argument { value };
        let ours = payload::encode(SIGNAL, &Sender::NONE, &argument, LIMIT).expect(name);
        assert_eq!(std::str::from_utf8(&ours).expect("UTF-8"), theirs, "{name}");
        let body = Body::read(theirs.as_bytes()).expect(name);
        assert_eq!((body.signal.as_str(), &body.sender), (SIGNAL, &Sender::NONE));
        assert_eq!(body.payload::<Argument<T>>().expect(name), argument, "{name}");
    }

    fn sender(&self, name: &'static str, sender: &Sender) {
        let theirs = self.body(name);
        let ours = payload::encode(SIGNAL, sender, &(), LIMIT).expect(name);
        assert_eq!(std::str::from_utf8(&ours).expect("UTF-8"), theirs, "{name}");
        let body = Body::read(theirs.as_bytes()).expect(name);
        assert_eq!(&body.sender, sender, "{name}");
        assert!(sender.matches(&body.sender), "{name}");
        body.payload::<()>().expect(name);
    }
}

#[derive(Debug, PartialEq, Serialize, Deserialize)]
struct Line {
    sku: String,
    price: Decimal,
    amount: u32,
}

#[test]
fn the_bytes_are_pythons() {
    let fixtures = Fixtures::new();
    plain_values(&fixtures);
    kombus_values(&fixtures);
    our_values(&fixtures);
    senders(&fixtures);
    let all: BTreeSet<_> = fixtures.bodies.keys().copied().collect();
    assert_eq!(fixtures.seen.into_inner(), all, "every fixture was looked at");
}

fn plain_values(fixtures: &Fixtures) {
    fixtures.value("null", None::<i64>);
    fixtures.value("booleans", vec![true, false]);
    fixtures.value("int", -5_i8);
    fixtures.value("most_int", i64::MAX);
    fixtures.value("u64", u64::MAX);
    fixtures.value("i128", i128::MIN);
    fixtures.value("u128", u128::MAX);
    fixtures.value("floats", vec![0.0, -0.0, 1.0, 0.1, 1e16, 1e-5, 1.5e300, 123_456_789.25]);
    fixtures.value("text", "é\n\"\\\0😀/".to_owned());
    fixtures.value("list", json!([1, [2, []]]));
    fixtures.value("dict", json!({"b": 1, "a": {}}));
    fixtures.value("tuple", (1, "a".to_owned(), (2.5,)));
}

fn kombus_values(fixtures: &Fixtures) {
    fixtures.value("datetime", DateTime::from(datetime!(2020-02-29 12:30:05.000001 UTC)));
    fixtures.value("datetime_offset", DateTime::from(datetime!(0001-01-01 0:00 +2)));
    fixtures.value("datetime_seconds_offset", DateTime::from(datetime!(2020-01-01 0:00 -03:30:15)));
    fixtures.value("naive_datetime", NaiveDateTime::from(datetime!(2020-02-29 12:30:05)));
    fixtures.value("date", Date::from(date!(2020 - 02 - 29)));
    fixtures.value("time", Time::from(time!(9:30)));
    fixtures.value("time_microseconds", Time::from(time!(23:59:59.999999)));
    let decimals = ["12.50", "-0", "1E+5", "1E-10", "NaN", "-Infinity", "0.00"];
    fixtures.value("decimals", decimals.map(|text| text.parse::<Decimal>().expect(text)).to_vec());
    fixtures.value("uuid", Uuid::from(ID));
    fixtures.value("bytes", Bytes::from(&b"text"[..]));
    fixtures.value("base64", Bytes::from(vec![0xff, 0]));
}

fn our_values(fixtures: &Fixtures) {
    // A map of one order, as Python's dictionaries have one.
    #[derive(Debug, PartialEq, Serialize, Deserialize)]
    #[serde(transparent)]
    struct Pairs(#[serde(with = "pairs")] Vec<(i64, String)>);

    fixtures.value("int_keys", Pairs(vec![(2, "b".to_owned()), (1, "a".to_owned())]));
    fixtures.value("tuple_keys", BTreeMap::from([((1, 2), vec![3])]));
    let status = || Enum::new("shop.models.Status", "PAID");
    fixtures.value("enum_keys", std::collections::HashMap::from([(status(), 1)]));
    fixtures.value("uuid_keys", BTreeMap::from([(Uuid::from(ID), 1)]));
    fixtures.value("timedelta", Timedelta::new(-1, 0, 5).expect("in range"));
    fixtures.value("set", Set::from(["pear", "fig", "apple", "ä"].map(str::to_owned)));
    fixtures.value("int_set", Set::from([10, 9, 100]));
    fixtures.value("frozensets", Set::from([FrozenSet::from([1, 2]), FrozenSet::from([3])]));
    fixtures.value("empty_set", Set::<u8>::default());
    fixtures.value("enum", status());
    fixtures.value("flags", Enum::flags("shop.models.Permission", 3));
    let line = Line { sku: "pen".to_owned(), price: "1.50".parse().expect("a decimal"), amount: 2 };
    fixtures.value("dataclass", Dataclass::new("shop.models.Line", line));
    fixtures.value("model", Model::new("shop.Order", 5).using("default"));
    fixtures.value("model_anywhere", Model::new("shop.Order", 5));
    fixtures.value("model_uuid", Model::new("shop.Ticket", Uuid::from(ID)).using("default"));
    fixtures.value("model_composite", Model::keyed("shop.Seat", &("A", 5)).expect("a key").using("default"));
}

fn senders(fixtures: &Fixtures) {
    fixtures.sender("sender_none", &Sender::NONE);
    fixtures.sender("sender_true", &Sender::bool(true));
    fixtures.sender("sender_int", &Sender::int(5));
    fixtures.sender("sender_text", &Sender::name("shop"));
    fixtures.sender("sender_class", &Sender::class("shop.models.Cart"));
    fixtures.sender("sender_model", &Sender::model("shop.Order"));
    fixtures.sender("sender_instance", &Sender::instance("shop.Order", 5).using("default"));
    fixtures.sender("sender_uuid_instance", &Sender::instance("shop.Ticket", Uuid::from(ID)));
    fixtures.sender("sender_enum", &Sender::member("shop.models.Status", "PAID"));
    fixtures.sender("sender_flags", &Enum::flags("shop.models.Permission", 3).into());
}

/// Pairs that are a map for serde.
mod pairs {
    use std::fmt;

    use serde::{
        Deserializer, Serializer,
        de::{MapAccess, Visitor},
    };

    pub(super) fn serialize<S: Serializer>(pairs: &[(i64, String)], serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_map(pairs.iter().map(|(key, value)| (key, value)))
    }

    pub(super) fn deserialize<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Vec<(i64, String)>, D::Error> {
        struct Pairs;

        impl<'de> Visitor<'de> for Pairs {
            type Value = Vec<(i64, String)>;

            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("a map")
            }

            fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<Self::Value, A::Error> {
                let mut pairs = Vec::new();
                while let Some(pair) = map.next_entry()? {
                    pairs.push(pair);
                }
                Ok(pairs)
            }
        }

        deserializer.deserialize_map(Pairs)
    }
}
