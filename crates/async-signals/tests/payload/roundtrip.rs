//! Whatever the values: what is sent arrives, and no bytes make a receiver panic.

use std::collections::{BTreeMap, HashMap};

use async_signals::{
    payload::{self, Body},
    sender::Sender,
    types::{
        Bytes, Dataclass, Date, DateTime, Decimal, Enum, FrozenSet, Model, NaiveDateTime, Set, Time, Timedelta, Uuid,
    },
};
use proptest::prelude::*;
use serde::{Deserialize, Serialize, de::DeserializeOwned};
use serde_json::{Map, Value};

use super::{LIMIT, SIGNAL, arguments, body, read};

#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
struct Everything {
    plain: (bool, i64, u64, i128, f64, f32, char, String),
    maybe: Option<Box<Everything>>,
    at: (DateTime, NaiveDateTime, Date, Time, Timedelta),
    decimal: Decimal,
    ids: Vec<Uuid>,
    bytes: Bytes,
    set: Set<(i64, String)>,
    frozen: Set<FrozenSet<Uuid>>,
    text_keys: BTreeMap<String, Choice>,
    number_keys: BTreeMap<i8, Value>,
    odd_keys: BTreeMap<(bool, Date), FrozenSet<i64>>,
    line: Dataclass<BTreeMap<String, Decimal>>,
    references: (Model, Enum),
}

#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
enum Choice {
    Unit,
    Newtype(Uuid),
    Tuple(i64, Bytes),
    Struct { sender: Decimal, signal: Option<i64> },
}

fn choice() -> impl Strategy<Value = Choice> {
    prop_oneof![
        Just(Choice::Unit),
        any::<u128>().prop_map(|id| Choice::Newtype(uuid::Uuid::from_u128(id).into())),
        any::<(i64, Vec<u8>)>().prop_map(|(number, bytes)| Choice::Tuple(number, bytes.into())),
        any::<(u64, Option<i64>)>().prop_map(|(sender, signal)| Choice::Struct { sender: sender.into(), signal }),
    ]
}

fn json() -> impl Strategy<Value = Value> {
    let leaf = prop_oneof![
        Just(Value::Null),
        any::<bool>().prop_map(Value::from),
        any::<i64>().prop_map(Value::from),
        any::<u64>().prop_map(Value::from),
        any::<f64>().prop_filter("finite", |number| number.is_finite()).prop_map(Value::from),
        any::<String>().prop_map(Value::from),
    ];
    leaf.prop_recursive(4, 24, 4, |inner| {
        prop_oneof![
            prop::collection::vec(inner.clone(), 0..4).prop_map(Value::from),
            prop::collection::btree_map(any::<String>(), inner, 0..4)
                .prop_map(|map| Value::Object(map.into_iter().collect())),
        ]
    })
}

/// Markers of all kinds with anything in them.
fn marked() -> impl Strategy<Value = String> {
    const KOMBUS: [&str; 9] =
        ["datetime", "date", "time", "decimal", "uuid", "bytes", "base64", "async_signals", "other"];
    const OURS: [&str; 12] = [
        "tuple",
        "set",
        "frozenset",
        "dict",
        "timedelta",
        "enum",
        "dataclass",
        "model",
        "class",
        "model_class",
        "registered",
        "newer",
    ];
    let leaf = json().prop_map(|value| value.to_string());
    leaf.prop_recursive(3, 12, 4, |inner| {
        let list = prop::collection::vec(inner.clone(), 0..4).prop_map(|items| format!("[{}]", items.join(",")));
        let inside = prop_oneof![inner.clone(), list, Just("{}".to_owned()), Just(r#"{"a":1}"#.to_owned())];
        let parts = prop::collection::vec(inside.clone(), 0..4);
        prop_oneof![
            (prop::sample::select(&KOMBUS[..]), inside)
                .prop_map(|(name, value)| format!(r#"{{"__type__":"{name}","__value__":{value}}}"#)),
            (prop::sample::select(&OURS[..]), parts).prop_map(|(kind, parts)| {
                let parts: String = parts.iter().map(|part| format!(",{part}")).collect();
                format!(r#"{{"__value__":["{kind}"{parts}],"__type__":"async_signals"}}"#)
            }),
        ]
    })
}

fn everything() -> impl Strategy<Value = Everything> {
    let date = (1..=9999_i32, 1..=366_u16)
        .prop_map(|(year, day)| time::Date::from_ordinal_date(year, day.min(365)).expect("a day of every year"));
    let clock = (0..24_u8, 0..60_u8, 0..60_u8, 0..1_000_000_u32).prop_map(|(hour, minute, second, micro)| {
        time::Time::from_hms_micro(hour, minute, second, micro).expect("a time")
    });
    let offset = (-86_399..=86_399_i32)
        .prop_map(|seconds| time::UtcOffset::from_whole_seconds(seconds).expect("less than a day"));
    let float = any::<f64>().prop_filter("finite", |number| number.is_finite());
    let float32 = any::<f32>().prop_filter("finite", |number| number.is_finite());
    let plain =
        (any::<bool>(), any::<i64>(), any::<u64>(), any::<i128>(), float, float32, any::<char>(), any::<String>());
    let at = (date, clock, offset, (-999_999_999..=999_999_998_i64, 0..86_400_i64, 0..1_000_000_i64));
    let ids = || prop::collection::vec(any::<u128>().prop_map(|id| Uuid::from(uuid::Uuid::from_u128(id))), 0..4);
    let keys = prop::collection::btree_map(any::<i8>(), json(), 0..3);
    let texts = prop::collection::btree_map(any::<String>(), choice(), 0..3);
    let rest = (any::<(Vec<u8>, i64, String)>(), ids(), ids(), texts, keys);
    (plain, at, rest, prop::collection::vec(any::<(bool, u16, i64)>(), 0..3)).prop_map(|(plain, at, rest, odd)| {
        let (date, clock, offset, (days, seconds, microseconds)) = at;
        let ((bytes, number, text), ids, frozen, text_keys, number_keys) = rest;
        let naive = time::PrimitiveDateTime::new(date, clock);
        let decimal: Decimal = format!("{number}E-3").parse().expect("a decimal");
        let odd_keys = odd.into_iter().map(|(flag, day, number)| {
            let date = time::Date::from_ordinal_date(2020, day % 366 + 1).expect("a day of a leap year");
            ((flag, date.into()), FrozenSet::from([number, 0]))
        });
        let inner = Everything {
            plain,
            maybe: None,
            at: (
                naive.assume_offset(offset).into(),
                naive.into(),
                date.into(),
                clock.into(),
                Timedelta::new(days, seconds, microseconds).expect("in range"),
            ),
            decimal: decimal.clone(),
            ids,
            bytes: bytes.into(),
            set: [(number, text.clone())].into(),
            frozen: [frozen.into_iter().collect()].into(),
            text_keys,
            number_keys,
            odd_keys: odd_keys.collect(),
            line: Dataclass::new("shop.Line", BTreeMap::from([(text.clone(), decimal)])),
            references: (Model::new("shop.Order", number).using(text.clone()), Enum::new("shop.Status", text)),
        };
        Everything { maybe: Some(Box::new(inner.clone())), ..inner }
    })
}

/// Reads as many types as there are; what matters is that it comes back.
fn read_as_anything(body: &Body) {
    fn read<T: DeserializeOwned>(body: &Body) {
        let _ = body.payload::<HashMap<String, T>>();
        let _ = body.payload::<HashMap<String, Vec<T>>>();
        let _ = body.payload::<HashMap<String, Option<HashMap<i64, T>>>>();
    }
    read::<Value>(body);
    read::<String>(body);
    read::<i64>(body);
    read::<u128>(body);
    read::<f32>(body);
    read::<char>(body);
    read::<()>(body);
    read::<(u8, Box<str>)>(body);
    read::<[i64; 2]>(body);
    read::<Choice>(body);
    read::<DateTime>(body);
    read::<NaiveDateTime>(body);
    read::<Date>(body);
    read::<Time>(body);
    read::<Timedelta>(body);
    read::<Decimal>(body);
    read::<Uuid>(body);
    read::<uuid::Uuid>(body);
    read::<Bytes>(body);
    read::<Set<String>>(body);
    read::<FrozenSet<i64>>(body);
    read::<Enum>(body);
    read::<Model>(body);
    read::<Dataclass<HashMap<String, Value>>>(body);
    read::<Everything>(body);
    let _ = body.payload::<Everything>();
}

proptest! {
    #[test]
    fn what_is_sent_arrives(sent in everything()) {
        let arrived: Everything = read(&arguments(&sent)).expect("what was sent");
        prop_assert_eq!(&arrived, &sent);
        prop_assert_eq!(arguments(&arrived), arguments(&sent), "equal values are equal bytes");
    }

    #[test]
    fn plain_json_is_what_serde_json_says(
        mut object in prop::collection::btree_map("[a-z_]{1,8}", json(), 0..4),
        blanks: bool,
    ) {
        object.retain(|name, _| name != "signal" && name != "sender");
        let object: Map<_, _> = object.into_iter().collect();
        let json = if blanks { serde_json::to_string_pretty(&object) } else { serde_json::to_string(&object) };
        prop_assert_eq!(&read::<Map<String, Value>>(&json.expect("JSON")).expect("a map"), &object);
        prop_assert_eq!(&read::<Map<String, Value>>(&arguments(&object)).expect("a map"), &object);
    }

    #[test]
    fn no_marker_makes_it_panic(markers in prop::collection::vec(marked(), 1..3)) {
        let members: Vec<_> = markers.iter().enumerate().map(|(index, json)| format!(r#""{index}":{json}"#)).collect();
        let sent = body(&format!("{{{}}}", members.join(",")));
        read_as_anything(&Body::read(sent.as_bytes()).expect("a body"));
        let sent = format!(r#"[["{SIGNAL}",{}],{{}},null]"#, markers[0]);
        let sender = Body::read(sent.as_bytes()).expect("a body").sender;
        let again = payload::encode(SIGNAL, &sender, &(), LIMIT).expect("a sender that came");
        prop_assert_eq!(Body::read(&again).expect("a body").sender, sender);
    }

    #[test]
    fn no_bytes_make_it_panic(
        bytes in prop::collection::vec(any::<u8>(), 0..256),
        (at, byte, cut) in any::<(prop::sample::Index, u8, prop::sample::Index)>(),
        sent in everything(),
    ) {
        prop_assert!(Body::read(&bytes).is_err());
        let mut sent = payload::encode(SIGNAL, &Sender::NONE, &sent, LIMIT).expect("fits").to_vec();
        prop_assert!(Body::read(&sent[..cut.index(sent.len())]).is_err());
        let at = at.index(sent.len());
        sent[at] = byte;
        if let Ok(body) = Body::read(&sent) {
            read_as_anything(&body);
        }
    }
}

#[test]
fn the_deepest_message_fits_on_the_stack() {
    #[derive(Deserialize)]
    struct Nest {
        inside: Option<Box<Nest>>,
    }

    let deep = format!("{}null{}", r#"{"inside":"#.repeat(250), "}".repeat(250));
    let mut nest: Nest = read(&deep).expect("within the bounds");
    let mut levels = 1;
    while let Some(inside) = nest.inside {
        nest = *inside;
        levels += 1;
    }
    assert_eq!(levels, 250);
    read::<Value>(&format!(r#"{{"x":{}{}}}"#, "[".repeat(250), "]".repeat(250))).expect("within the bounds");
}

#[test]
fn other_formats_see_plain_text_and_sequences() {
    fn same<T: Serialize + DeserializeOwned + PartialEq + std::fmt::Debug>(value: T, json: &str) {
        assert_eq!(serde_json::to_string(&value).expect("JSON"), json);
        assert_eq!(serde_json::from_str::<T>(json).expect(json), value);
    }
    same(DateTime::from(time::macros::datetime!(2020-02-29 12:30 UTC)), r#""2020-02-29T12:30:00+00:00""#);
    same("12.50".parse::<Decimal>().expect("a decimal"), r#""12.50""#);
    same(Uuid::from(uuid::Uuid::nil()), r#""00000000-0000-0000-0000-000000000000""#);
    same(Timedelta::new(1, 2, 3).expect("in range"), "[1,2,3]");
    same(Set::from([1]), "[1]");
    same(Enum::new("shop.Status", "PAID"), r#"["shop.Status","PAID"]"#);
    same(
        Model::keyed("shop.Seat", &("A", 5)).expect("a key"),
        r#"["shop.Seat",{"__type__":"async_signals","__value__":["tuple",["A",5]]},null]"#,
    );
    same(Dataclass::new("shop.Line", 5), r#"["shop.Line",5]"#);
    same(Bytes::from(vec![1, 2]), "[1,2]");
}
