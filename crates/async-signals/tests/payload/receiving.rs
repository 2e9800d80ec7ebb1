//! What Python sends arrives in the type that the payload has, or says where it does not.

use std::collections::{BTreeMap, BTreeSet, HashMap, HashSet};

use async_signals::{
    payload::{Body, DecodeError},
    types::{
        Bytes, Dataclass, Date, DateTime, Decimal, Enum, FrozenSet, Model, NaiveDateTime, Set, Time, Timedelta, Uuid,
    },
};
use serde::{Deserialize, de::IgnoredAny};
use serde_json::{Value, json};

use super::{SIGNAL, kombus, ours, read, value};

const ID: uuid::Uuid = uuid::uuid!("67e55044-10b1-426f-9247-bb680e5fe0c8");
const HEX: &str = r#"{"hex":"67e5504410b1426f9247bb680e5fe0c8"}"#;

#[derive(Debug, PartialEq, Deserialize)]
struct Line {
    sku: String,
    #[serde(default)]
    amount: u32,
}

#[derive(Debug, PartialEq, Eq, Hash, PartialOrd, Ord, Deserialize)]
enum Status {
    #[serde(rename = "PAID")]
    Paid,
    #[serde(rename = "OPEN")]
    Open {
        since: i64,
    },
    Late(i64),
    Split(i64, i64),
}

#[test]
fn plain_fields_take_what_comes_closest() {
    assert_eq!(value(&kombus("uuid", HEX)), Ok(ID));
    assert_eq!(value(&kombus("uuid", HEX)), Ok(ID.to_string()));
    assert_eq!(value(&kombus("decimal", r#""1.50""#)), Ok("1.50".to_owned()));
    assert_eq!(
        value(&kombus("datetime", r#""2020-02-29T12:30:05+00:00""#)),
        Ok("2020-02-29T12:30:05+00:00".to_owned())
    );
    assert_eq!(value(&kombus("date", r#""2020-02-29""#)), Ok("2020-02-29".to_owned()));
    assert_eq!(value(&kombus("bytes", r#""text""#)), Ok(b"text".to_vec()));
    assert_eq!(value(&kombus("bytes", r#""text""#)), Ok("text".to_owned()));
    assert_eq!(value(&kombus("base64", r#""/wA=""#)), Ok(vec![0xff_u8, 0]));
    for kind in ["set", "frozenset", "tuple"] {
        let marker = ours(&format!(r#""{kind}",[1,2]"#));
        assert_eq!(value(&marker), Ok(vec![1, 2]));
        assert_eq!(value(&marker), Ok(HashSet::from([1, 2])));
        assert_eq!(value(&marker), Ok(BTreeSet::from([1, 2])));
        assert_eq!(value(&marker), Ok((1_u8, 2.0)));
        assert_eq!(value(&marker), Ok(Set::from([1, 2])));
        assert_eq!(value(&marker), Ok(FrozenSet::from([1, 2])));
    }
    assert_eq!(value("[1,2]"), Ok(Set::from([1, 2])));
    assert_eq!(
        value(&ours(r#""dict",[[1,"a"],[2,"b"]]"#)),
        Ok(BTreeMap::from([(1, "a".to_owned()), (2, "b".to_owned())]))
    );
    assert_eq!(value(r#"{"1":"a"}"#), Ok(HashMap::from([(1, "a".to_owned())])), "as kombu itself sends such a dict");
    let line = || Line { sku: "pen".to_owned(), amount: 2 };
    let dataclass = ours(r#""dataclass","shop.Line",{"sku":"pen","amount":2,"newer":[1]}"#);
    assert_eq!(value(&dataclass), Ok(line()));
    assert_eq!(value(&dataclass), Ok(Dataclass::new("shop.Line", line())));
    assert_eq!(value(&ours(r#""tuple",["pen",2]"#)), Ok(line()));
    assert_eq!(value(&ours(r#""namedtuple","shop.Line",["pen",2]"#)), Ok(line()));
    assert_eq!(value(&ours(r#""safe_string","<b>""#)), Ok("<b>".to_owned()));
    assert_eq!(value(&ours(r#""enum","shop.Status","PAID""#)), Ok(Status::Paid));
    assert_eq!(value(&ours(r#""enum","shop.Status","PAID""#)), Ok("PAID".to_owned()));
    assert_eq!(value(&ours(r#""enum","shop.Permission",3"#)), Ok(3));
    assert_eq!(value(&ours(r#""registered","shop-money",{"sku":"pen","amount":2}"#)), Ok(line()));
    assert_eq!(value(&ours(r#""timedelta",1,2,3"#)), Ok((1, 2, 3)));
    assert_eq!(value("5"), Ok(Decimal::from(5)));
    assert_eq!(
        value("123456789012345678901234567890123456789012345678901234567890").map(|it: Decimal| it.as_str().len()),
        Ok(60)
    );
    assert_eq!(value(r#""67e55044-10b1-426f-9247-bb680e5fe0c8""#), Ok(Uuid::from(ID)));
    assert_eq!(
        value(r#""2020-02-29T12:30:05Z""#).map(|at: DateTime| at.to_string()),
        Ok("2020-02-29T12:30:05+00:00".to_owned())
    );
    assert_eq!(value(r#""text""#), Ok(Bytes::from(&b"text"[..])));
    assert_eq!(value("[116,0]"), Ok(Bytes::from(vec![116, 0])));
    assert_eq!(value(&kombus("uuid", HEX)), Ok(Some(ID)));
    assert_eq!(value("null"), Ok(None::<uuid::Uuid>));
    assert_eq!(value("5"), Ok(5.0));
}

#[test]
fn datetimes_go_into_what_reads_rfc_3339() {
    #[derive(Debug, Deserialize)]
    #[serde(transparent)]
    struct At(#[serde(with = "rfc3339")] time::OffsetDateTime);

    // What `time::serde::rfc3339` does, which is behind a feature of that crate.
    mod rfc3339 {
        use serde::{Deserialize, Deserializer, de::Error};
        use time::{OffsetDateTime, format_description::well_known::Rfc3339};

        pub(super) fn deserialize<'de, D: Deserializer<'de>>(deserializer: D) -> Result<OffsetDateTime, D::Error> {
            OffsetDateTime::parse(&String::deserialize(deserializer)?, &Rfc3339).map_err(D::Error::custom)
        }
    }

    let At(at) = value(&kombus("datetime", r#""2020-02-29T12:30:05.000001+02:00""#)).expect("RFC 3339");
    assert_eq!(at, time::macros::datetime!(2020-02-29 12:30:05.000001 +2));
}

#[test]
fn enums_of_rust_come_in_serdes_usual_form() {
    assert_eq!(value(r#""PAID""#), Ok(Status::Paid));
    assert_eq!(value(&ours(r#""tuple",["PAID",{"OPEN":{"since":5}}]"#)), Ok((Status::Paid, Status::Open { since: 5 })));
    assert_eq!(value(&ours(r#""tuple",[{"Late":5},{"Split":[1,2]}]"#)), Ok((Status::Late(5), Status::Split(1, 2))));
    assert_eq!(value(&ours(r#""tuple",[{"PAID":null}]"#)), Ok((Status::Paid,)));
    let split = format!(r#"{{"Split":{}}}"#, ours(r#""tuple",[1,2]"#));
    assert_eq!(value(&split), Ok(Status::Split(1, 2)));
    assert_eq!(value(&format!(r#"{{"PAID":{split}}}"#)), Ok(HashMap::from([(Status::Paid, Status::Split(1, 2))])));
}

#[test]
fn serdes_other_ways_work_with_markers_inside() {
    #[derive(Debug, PartialEq, Deserialize)]
    struct Order {
        id: Uuid,
        #[serde(flatten)]
        rest: Rest,
        #[serde(flatten)]
        more: HashMap<String, Value>,
    }
    #[derive(Debug, PartialEq, Deserialize)]
    struct Rest {
        total: Decimal,
        tags: Set<String>,
        took: Timedelta,
        picture: Bytes,
    }
    #[derive(Debug, PartialEq, Deserialize)]
    #[serde(untagged)]
    enum Id {
        Number(i64),
        Uuid(Uuid),
    }
    #[derive(Debug, PartialEq, Deserialize)]
    #[serde(tag = "kind")]
    enum Event {
        Paid { on: Date },
    }

    let order: Order = read(&format!(
        r#"{{"id":{},"total":{},"tags":{},"took":{},"picture":{},"date":{}}}"#,
        kombus("uuid", HEX),
        kombus("decimal", r#""1.5""#),
        ours(r#""set",["a"]"#),
        ours(r#""timedelta",0,1,0"#),
        kombus("base64", r#""/w==""#),
        kombus("date", r#""2020-02-29""#),
    ))
    .expect("an order");
    let rest = Rest {
        total: "1.5".parse().expect("a decimal"),
        tags: ["a".to_owned()].into(),
        took: Timedelta::new(0, 1, 0).expect("in range"),
        picture: vec![0xff].into(),
    };
    let more = HashMap::from([("date".to_owned(), json!("2020-02-29"))]);
    assert_eq!(order, Order { id: ID.into(), rest, more });
    assert_eq!(value(&kombus("uuid", HEX)), Ok(Id::Uuid(ID.into())));
    assert_eq!(value("5"), Ok(Id::Number(5)));
    let event = format!(r#"{{"kind":"Paid","on":{}}}"#, kombus("date", r#""2020-02-29""#));
    assert_eq!(value(&event), Ok(Event::Paid { on: time::macros::date!(2020 - 02 - 29).into() }));
}

#[test]
fn each_receiver_may_take_another_type() {
    let sent = format!(r#"[["{SIGNAL}", null], {{"order_id": 5, "id": {}}}, {{"chain": null}}]"#, kombus("uuid", HEX));
    let body = Body::read(sent.as_bytes()).expect("a body with blanks, as Celery itself writes it");

    #[derive(Deserialize)]
    struct Number {
        order_id: u8,
    }
    #[derive(Deserialize)]
    struct Text {
        #[expect(dead_code, reason = "it is no text")]
        order_id: String,
    }

    assert_eq!(body.payload::<Number>().expect("a number").order_id, 5);
    assert!(body.payload::<Text>().is_err());
    body.payload::<()>().expect("nothing is asked for");
    assert_eq!(body.payload::<Value>(), Ok(json!({"order_id": 5, "id": ID.to_string()})));
    assert_eq!(body.payload::<HashMap<String, IgnoredAny>>().expect("a map").len(), 2);
    assert_eq!(body.payload::<Number>().expect("again").order_id, 5);
}

#[test]
fn what_nobody_asks_for_is_not_looked_at() {
    #[derive(Debug, PartialEq, Deserialize)]
    struct Only {
        known: i64,
    }

    let unknown = kombus("somebody-elses", "1");
    let sent = format!(r#"{{"unknown":{unknown},"big":{},"known":5}}"#, "9".repeat(400));
    assert_eq!(read(&sent), Ok(Only { known: 5 }));
}

#[test]
fn what_does_not_fit_says_where_and_why() {
    #[derive(Debug, Deserialize)]
    struct Order {
        #[expect(dead_code, reason = "it is never read")]
        lines: Vec<Line>,
    }

    fn why<T: serde::de::DeserializeOwned>(json: &str) -> String {
        let error = value::<T>(json).err().expect("no such value");
        assert!(matches!(error, DecodeError::Argument { .. }));
        error.to_string()
    }

    let cases = [
        (
            why::<Order>(r#"{"lines":[{"sku":"a"},{"sku":5}]}"#),
            "value.lines[1].sku: a whole number where a string was expected",
        ),
        (
            why::<Dataclass<Order>>(&ours(r#""dataclass","shop.Order",{"lines":[{"sku":"a","amount":"x"}]}"#)),
            "value.lines[0].amount: a text where u32 was expected",
        ),
        (why::<Order>("{}"), "value: missing field `lines`"),
        (why::<u8>("300"), "value: a whole number that is not u8"),
        (why::<i64>("1.5"), "value: a number with a fraction where i64 was expected"),
        (
            why::<i64>("1267650600228229401496703205376"),
            "value: a whole number of more than 64 bits where i64 was expected",
        ),
        (why::<u128>(&"9".repeat(50)), "value: a whole number of 50 digits, which no type of Rust's holds"),
        (why::<String>("null"), "value: nothing (null) where a string was expected"),
        (why::<i64>(&kombus("uuid", HEX)), "value: a UUID where i64 was expected"),
        (
            why::<i64>(&ours(r#""model","shop.Order",5,"default""#)),
            "value: a row of a Django model (take a types::Model, or send its key) where i64 was expected",
        ),
        (why::<HashMap<i64, i64>>(r#"{"a":1}"#), "value.a (a key): a text where i64 was expected"),
        (why::<HashMap<i64, i64>>(&ours(r#""dict",[[1,"x"]]"#)), "value[…]: a text where i64 was expected"),
        (
            why::<HashMap<String, i64>>(&ours(r#""dict",[[1,1]]"#)),
            "value (a key): a whole number where a string was expected",
        ),
        (why::<Vec<i64>>(&ours(r#""set",["x"]"#)), "value{…}: a text where i64 was expected"),
        (why::<Date>(&kombus("datetime", r#""2020-02-29T00:00:00""#)), "value: not a date, such as 2020-02-29"),
        (why::<Time>(&kombus("time", r#""12:30:05+02:00""#)), "value: not a time without an offset, such as 12:30:05"),
        (
            why::<DateTime>(&kombus("datetime", r#""2020-02-29T12:30:05""#)),
            "value: not a datetime with an offset, such as 2020-02-29T12:30:05+00:00 (a naive one is a NaiveDateTime)",
        ),
        (
            why::<NaiveDateTime>(&kombus("datetime", r#""2020-02-29T12:30:05+00:00""#)),
            "value: not a datetime without an offset, such as 2020-02-29T12:30:05 (an aware one is a DateTime)",
        ),
        (
            why::<Timedelta>(&ours(r#""timedelta",1000000000,0,0"#)),
            "value: a timedelta holds at most 999999999 days; send a number of seconds",
        ),
        (why::<Decimal>("1.5"), "value: a number with a fraction where a decimal number was expected"),
        (
            why::<Model>("5"),
            "value: a whole number where a row of a Django model (its label, key and database) was expected",
        ),
        (
            why::<Enum>(r#""PAID""#),
            "value: a text where a member of an enum of Python's (its class and its name) was expected",
        ),
        (
            why::<Status>("5"),
            "value: something else where a variant's name, or a map from it to what it holds was expected",
        ),
        (why::<Status>(r#""Late""#), "value: a variant's name alone where what the variant holds was expected"),
        (why::<Status>(r#"{"Late":"x"}"#), "value.Late: a text where i64 was expected"),
        (
            why::<Value>(&kombus("somebody-elses", "1")),
            "value: a value of the type \"somebody-elses\", which somebody registered with kombu and Rust does not know; send a plain value",
        ),
        (
            why::<Value>(&ours(r#""newer",1"#)),
            "value: this version of Async Signals does not know the kind \"newer\"; the sender's may be newer",
        ),
        (
            why::<Value>(&ours(r#""set",1"#)),
            "value: a set that is not of the shape that this version of Async Signals reads",
        ),
        (
            why::<Value>(&kombus("uuid", r#"{"is_safe":1}"#)),
            "value: a uuid that is not of the shape that this version of Async Signals reads",
        ),
        (why::<Value>(r#"{"__type__":[],"__value__":1}"#), "value: a __type__ is no text"),
    ];
    for (error, message) in cases {
        assert_eq!(error, message);
    }
}

#[test]
fn errors_hold_no_values() {
    for json in [r#""secret""#, r#"{"secret":1}"#, &kombus("bytes", r#""secret""#), &kombus("datetime", r#""secret""#)]
    {
        for error in [value::<i64>(json).err(), value::<Date>(json).err(), value::<Uuid>(json).err()] {
            let error = error.expect("no such value").to_string();
            assert!(!error.contains("secret"), "{error}");
        }
    }
}
