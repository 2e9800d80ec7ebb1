//! What cannot be sent, and bytes that are no body: each says where and why.

use std::collections::BTreeMap;

use async_signals::{
    payload::{self, Body, DecodeError, EncodeError},
    sender::Sender,
    types::{Dataclass, Date},
};
use serde::{Deserialize, Serialize, Serializer, ser::Error as _};
use serde_json::{Value, json};

use super::{LIMIT, SIGNAL, arguments, body, read};

fn refused<P: Serialize + ?Sized>(payload: &P) -> EncodeError {
    payload::encode(SIGNAL, &Sender::NONE, payload, LIMIT).expect_err("what cannot be sent")
}

fn nested(depth: usize) -> Value {
    (0..depth).fold(json!(1), |inside, _| json!([inside]))
}

struct Broken;

impl Serialize for Broken {
    fn serialize<S: Serializer>(&self, _: S) -> Result<S::Ok, S::Error> {
        Err(S::Error::custom("is broken"))
    }
}

#[derive(Serialize)]
enum Choice<T> {
    Tuple(i64, T),
    Struct { inside: T },
    Newtype(T),
}

#[derive(Serialize)]
struct With<T> {
    order: T,
}

#[test]
fn what_cannot_be_sent_is_named() {
    let cases = [
        (
            refused(&With { order: BTreeMap::from([("lines", vec![Ok(1), Err(Broken)])]) }),
            "order.lines[1].Err: is broken",
        ),
        (refused(&With { order: BTreeMap::from([("total price", [Broken])]) }), "order[\"total price\"][0]: is broken"),
        (refused(&With { order: BTreeMap::from([(1, Broken)]) }), "order[…]: is broken"),
        (refused(&With { order: Choice::Tuple(1, Broken) }), "order.Tuple[1]: is broken"),
        (refused(&With { order: Choice::Struct { inside: Broken } }), "order.Struct.inside: is broken"),
        (refused(&With { order: Choice::Newtype((1, Broken)) }), "order.Newtype[1]: is broken"),
        (refused(&With { order: Some((1, Broken)) }), "order[1]: is broken"),
        (refused(&With { order: Dataclass::new("shop.Line", With { order: Broken }) }), "order.order: is broken"),
        (refused(&BTreeMap::from([("order", Broken)])), "order: is broken"),
    ];
    for (error, message) in cases {
        assert_eq!(error.to_string(), message);
        assert!(matches!(error, EncodeError::Value { .. }));
    }
}

#[test]
fn keys_that_cannot_be_sent_are_named() {
    #[derive(PartialEq, Eq, PartialOrd, Ord)]
    struct Key;

    impl Serialize for Key {
        fn serialize<S: Serializer>(&self, _: S) -> Result<S::Ok, S::Error> {
            Err(S::Error::custom("is broken"))
        }
    }

    #[derive(Serialize, PartialEq, Eq, PartialOrd, Ord)]
    #[serde(untagged)]
    enum Mixed {
        Text(&'static str),
        Number(i64),
    }

    assert_eq!(refused(&With { order: BTreeMap::from([(Key, 1)]) }).to_string(), "order (a key): is broken");
    let mixed = BTreeMap::from([(Mixed::Text("a"), 1), (Mixed::Number(1), 2)]);
    let error = refused(&With { order: mixed }).to_string();
    assert!(error.starts_with("order: some keys of the map are text and some are not"), "{error}");
}

#[test]
fn numbers_that_json_has_not_are_refused() {
    for number in [f64::NAN, f64::INFINITY, f64::NEG_INFINITY] {
        let error = refused(&With { order: BTreeMap::from([("totals", [1.0, number])]) });
        assert_eq!(error, EncodeError::NotFinite { path: "order.totals[1]".to_owned() });
        assert_eq!(refused(&With { order: number as f32 }), EncodeError::NotFinite { path: "order".to_owned() });
    }
}

#[test]
fn nesting_is_bounded_as_in_python() {
    let deepest = With { order: nested(64) };
    assert_eq!(read::<BTreeMap<String, Value>>(&arguments(&deepest)).expect("64 levels")["order"], deepest.order);
    let EncodeError::TooDeep { path, limit: 64 } = refused(&With { order: nested(65) }) else { panic!("not too deep") };
    assert_eq!(path, format!("order{}…", "[0]".repeat(11)));
}

#[test]
fn levels_that_take_four_brackets_each_are_levels_too() {
    #[derive(Debug, PartialEq, Serialize, Deserialize)]
    #[serde(untagged)]
    enum Nest {
        Inside(BTreeMap<i64, Nest>),
        Leaf(i64),
    }

    let nest = |depth| (0..depth).fold(Nest::Leaf(1), |inside, _| Nest::Inside(BTreeMap::from([(5, inside)])));
    let deepest = With { order: nest(64) };
    assert_eq!(read::<BTreeMap<String, Nest>>(&arguments(&deepest)).expect("64 levels")["order"], deepest.order);
    assert!(matches!(refused(&With { order: nest(65) }), EncodeError::TooDeep { limit: 64, .. }));
}

#[test]
fn the_size_limit_is_exact() {
    let payload = With { order: "abc" };
    let size = payload::encode(SIGNAL, &Sender::NONE, &payload, LIMIT).expect("fits").len();
    assert!(payload::encode(SIGNAL, &Sender::NONE, &payload, size).is_ok());
    let error = payload::encode(SIGNAL, &Sender::NONE, &payload, size - 1).expect_err("one byte less");
    assert_eq!(error, EncodeError::TooLarge { path: String::new(), limit: size - 1 });
    let error = refused(&With { order: ["a".repeat(2_000_000)] });
    assert_eq!(error, EncodeError::TooLarge { path: "order[0]".to_owned(), limit: LIMIT });
    let error = payload::encode(SIGNAL, &Sender::NONE, &With { order: vec![(); 1_000_001] }, 1 << 30);
    assert!(matches!(error, Err(EncodeError::TooMany { limit: 1_000_000, .. })));
}

#[test]
fn a_payload_has_names() {
    #[derive(Serialize)]
    struct Nothing;
    #[derive(Serialize)]
    struct Wrapped(With<i64>);

    assert_eq!(arguments(&()), "{}");
    assert_eq!(arguments(&Nothing), "{}");
    assert_eq!(arguments(&None::<With<i64>>), "{}");
    assert_eq!(arguments(&Wrapped(With { order: 1 })), r#"{"order":1}"#);
    assert_eq!(arguments(&Some(json!({"b": 1, "a": 2}))), r#"{"b":1,"a":2}"#);
    assert_eq!(arguments(&Choice::Struct { inside: 1 }), r#"{"Struct":{"inside":1}}"#);
    assert_eq!(arguments(&BTreeMap::<i64, i64>::new()), "{}");

    let unnamed = [
        (refused("text"), "a text"),
        (refused(&5), "a number"),
        (refused(&true), "a boolean"),
        (refused(&[With { order: 1 }][..]), "a sequence"),
    ];
    for (error, found) in unnamed {
        assert_eq!(error, EncodeError::Unnamed { found });
    }
    for error in [
        refused(&(With { order: 1 }, 2)),
        refused(&BTreeMap::from([(1, With { order: 1 })])),
        refused(&Dataclass::new("shop.Line", With { order: 1 })),
        refused(&Date::from(time::macros::date!(2020 - 02 - 29))),
    ] {
        assert!(matches!(error, EncodeError::Unnamed { .. }), "{error}");
    }
}

#[test]
fn names_that_are_taken_are_refused() {
    for name in ["signal", "sender"] {
        assert_eq!(refused(&BTreeMap::from([(name, 1)])), EncodeError::Reserved { name });
        assert_eq!(arguments(&With { order: json!({ name: 1 }) }), format!(r#"{{"order":{{"{name}":1}}}}"#));
    }
    let error = refused(&With { order: json!([{"__value__": 1, "__type__": 2}]) }).to_string();
    assert!(error.starts_with("order[0]: a map or struct of just \"__type__\" and \"__value__\""), "{error}");
    let error = refused(&json!({"__value__": 1, "__type__": 2})).to_string();
    assert!(error.starts_with("a map or struct of just"), "{error}");
    assert_eq!(arguments(&json!({"__value__": 1})), r#"{"__value__":1}"#);
    assert_eq!(arguments(&json!({"__type__": 1, "__value__": 1, "x": 1})), r#"{"__type__":1,"__value__":1,"x":1}"#);
}

#[test]
fn values_that_python_has_not_are_refused() {
    let error = refused(&With { order: Date::from(time::macros::date!(0000 - 01 - 01)) }).to_string();
    assert!(error.starts_with("order: Python has no year before 1"), "{error}");
    let error = refused(&With { order: Dataclass::new("shop.Line", [With { order: 1 }]) }).to_string();
    assert_eq!(error, "order: the fields of a dataclass are a struct or a map with text keys");
    let error = refused(&With { order: Dataclass::new("shop.Line", (With { order: 1 }, 2)) }).to_string();
    assert_eq!(error, "order: the fields of a dataclass are a struct or a map with text keys");
    let raw = serde_json::value::RawValue::from_string("1".to_owned()).expect("JSON");
    let error = refused(&With { order: raw }).to_string();
    assert!(error.starts_with("order: serde_json's RawValue"), "{error}");
}

#[test]
fn numbers_of_arbitrary_precision_are_numbers() {
    /// What a number of serde_json's looks like with that feature, which is not on here.
    #[derive(Serialize)]
    #[serde(rename = "$serde_json::private::Number")]
    struct Number {
        #[serde(rename = "$serde_json::private::Number")]
        text: &'static str,
    }

    for (text, written) in
        [("5", "5"), ("-12345678901234567890123", "-12345678901234567890123"), ("1.50", "1.5"), ("1e5", "100000.0")]
    {
        assert_eq!(arguments(&With { order: Number { text } }), format!(r#"{{"order":{written}}}"#));
    }
    assert_eq!(refused(&With { order: Number { text: "1e999" } }), EncodeError::NotFinite { path: "order".to_owned() });
}

#[test]
fn bytes_that_are_no_body_are_malformed() {
    let deep = "[".repeat(100_000);
    for bytes in [
        &b""[..],
        b"garbage",
        b"\xff",
        b"null",
        b"{}",
        b"[[], {}]",
        b"[[], {}, {}, {}]",
        b"[{}, {}, {}]",
        br#"[["a", null], [], {}]"#,
        br#"[["a", null], {}]"#,
        br#"[["a", null], {}, {}, {}]"#,
        br#"[["a"], {}, {}]"#,
        br#"[["a", null, null], {}, {}]"#,
        br#"[[null, null], {}, {}]"#,
        br#"[["a", null], {}, {}] trailing"#,
        br#"[["a", null], {"x": NaN}, {}]"#,
        br#"[["a", null], {"x": 1e999}, {}]"#,
        br#"[["a", null], {"x": "\ud800"}, {}]"#,
        br#"[["a", null], {"x": 1"#,
        deep.as_bytes(),
    ] {
        let error = Body::read(bytes).expect_err("no body");
        assert!(matches!(error, DecodeError::Malformed { .. }), "{error}");
        assert!(error.to_string().starts_with("malformed message: ") && error.to_string().len() < 300);
    }
}

#[test]
fn a_body_that_asks_for_more_is_refused() {
    for name in ["callbacks", "errbacks", "chain", "chord", "whatever"] {
        let sent = format!(r#"[["a",null],{{}},{{"callbacks":null,"{name}":[{{"task":"evil"}}]}}]"#);
        assert_eq!(Body::read(sent.as_bytes()).err(), Some(DecodeError::Refused { asks: name.to_owned() }));
    }
    assert!(matches!(Body::read(br#"[["a",null],{},[]]"#), Err(DecodeError::Refused { .. })));
    for nothing in ["null", "{}", r#"{"chain": null}"#] {
        Body::read(format!(r#"[["a",null],{{}},{nothing}]"#).as_bytes()).expect(nothing);
    }
    Body::read(body("{}").as_bytes()).expect("what we write ourselves");
}
