//! What one side writes the other reads, and serde_json is the judge of both.

use proptest::prelude::*;
use serde_json::{Map, Number, Value};

use super::{JsonError, JsonReader, JsonWriter, Limits, Token};

fn write(json: &mut JsonWriter, value: &Value) -> Result<(), JsonError> {
    match value {
        Value::Null => json.null(),
        Value::Bool(value) => json.bool(*value),
        Value::String(value) => json.string(value),
        Value::Number(number) => match number.as_i64() {
            Some(whole) => json.int(whole),
            None if number.is_u64() => json.big_int(&number.to_string()),
            None => json.float(number.as_f64().unwrap_or(f64::NAN)),
        },
        Value::Array(values) => {
            json.begin_array()?;
            values.iter().try_for_each(|value| write(json, value))?;
            json.end_array()
        }
        Value::Object(map) => {
            json.begin_object()?;
            for (key, value) in map {
                json.key(key)?;
                write(json, value)?;
            }
            json.end_object()
        }
    }
}

fn written(value: &Value, limits: Limits) -> Result<Vec<u8>, JsonError> {
    let mut json = JsonWriter::new(limits);
    write(&mut json, value)?;
    Ok(json.finish())
}

fn read(bytes: &[u8], limits: Limits) -> Result<Value, JsonError> {
    let mut json = JsonReader::new(bytes, limits)?;
    let first = json.next()?.expect("a first token");
    let value = read_value(first, &mut json)?;
    assert_eq!(json.next()?, None);
    Ok(value)
}

fn read_value(token: Token<'_>, json: &mut JsonReader<'_>) -> Result<Value, JsonError> {
    Ok(match token {
        Token::Null => Value::Null,
        Token::Bool(value) => Value::Bool(value),
        Token::Int(digits) => Value::Number(digits.parse().expect("a whole number")),
        Token::Float(value) => Number::from_f64(value).map_or(Value::Null, Value::Number),
        Token::String(text) => Value::String(text.into_owned()),
        Token::BeginArray => {
            let mut values = Vec::new();
            loop {
                match json.next()?.expect("the array's end") {
                    Token::EndArray => break Value::Array(values),
                    token => values.push(read_value(token, json)?),
                }
            }
        }
        Token::BeginObject => {
            let mut map = Map::new();
            loop {
                match json.next()?.expect("the object's end") {
                    Token::EndObject => break Value::Object(map),
                    Token::Key(key) => {
                        let token = json.next()?.expect("the key's value");
                        map.insert(key.into_owned(), read_value(token, json)?);
                    }
                    token => panic!("{token:?} in an object"),
                }
            }
        }
        token @ (Token::EndArray | Token::EndObject | Token::Key(_)) => panic!("{token:?} as a value"),
    })
}

fn values() -> impl Strategy<Value = Value> {
    let scalar = prop_oneof![
        Just(Value::Null),
        any::<bool>().prop_map(Value::from),
        any::<i64>().prop_map(Value::from),
        any::<u64>().prop_map(Value::from),
        // serde_json may be off by the last bit where a float has many digits;
        // those are tested in `number`, with the standard library as the judge.
        any::<i32>().prop_map(|eighths| Value::from(f64::from(eighths) / 8.0)),
        any::<String>().prop_map(Value::from),
        "[\"\\\\/\u{0}-\u{1f}\u{7f}a-é€😀]*".prop_map(Value::from),
    ];
    scalar.prop_recursive(6, 64, 8, |value| {
        prop_oneof![
            prop::collection::vec(value.clone(), 0..8).prop_map(Value::from),
            prop::collection::hash_map(any::<String>(), value, 0..8)
                .prop_map(|map| Value::Object(map.into_iter().collect())),
        ]
    })
}

proptest! {
    #[test]
    fn what_is_written_is_what_serde_json_reads(value in values()) {
        let bytes = written(&value, Limits::default()).expect("within the limits");
        let back: Value = serde_json::from_slice(&bytes).expect("JSON");
        prop_assert_eq!(&back, &value);
    }

    #[test]
    fn what_serde_json_writes_is_what_is_read(value in values(), pretty: bool) {
        let bytes =
            if pretty { serde_json::to_vec_pretty(&value) } else { serde_json::to_vec(&value) }.expect("JSON");
        let limits = Limits::receiving(bytes.len());
        prop_assert_eq!(read(&bytes, limits).expect("JSON"), value);
    }

    #[test]
    fn the_size_limit_is_exact(value in values()) {
        let size = written(&value, Limits::default()).expect("within the limits").len();
        prop_assert!(written(&value, Limits::sending(size)).is_ok());
        let too_small = written(&value, Limits::sending(size - 1));
        let refused = matches!(too_small, Err(JsonError::TooLarge { limit, .. }) if limit == size - 1);
        prop_assert!(refused, "{:?}", too_small);
    }

    #[test]
    fn any_bytes_are_read_or_refused_as_serde_json_does(text in "[\\[\\]{}\",:0-9eE+.a-f\\\\ntrulsé -]{0,24}") {
        let ours = check(text.as_bytes());
        let theirs = serde_json::from_str::<Value>(&text);
        // serde_json calls a float that overflows an error too.
        prop_assert_eq!(ours.is_ok(), theirs.is_ok(), "{:?} and {:?} of {:?}", ours, theirs, text);
    }
}

/// Reads all tokens.
fn check(bytes: &[u8]) -> Result<(), JsonError> {
    let mut json = JsonReader::new(bytes, Limits::receiving(1 << 20))?;
    while json.next()?.is_some() {}
    Ok(())
}

fn nested(depth: usize) -> Value {
    (0..depth).fold(Value::from(1), |inner, _| Value::from(vec![inner]))
}

#[test]
fn nesting_ends_at_the_limit_on_both_sides() {
    let limits = Limits { max_depth: 64, ..Limits::default() };
    let deepest = written(&nested(64), limits).expect("64 levels are allowed");
    assert_eq!(read(&deepest, limits), Ok(nested(64)));
    assert_eq!(written(&nested(65), limits), Err(JsonError::TooDeep { limit: 64 }));
    let too_deep = [b"[".repeat(65), b"]".repeat(65)].concat();
    assert_eq!(check(&too_deep[..]), Ok(()));
    let mut json = JsonReader::new(&too_deep, limits).expect("small");
    let error = std::iter::from_fn(|| json.next().transpose()).find_map(Result::err);
    assert_eq!(error, Some(JsonError::TooDeep { limit: 64 }));
}

#[test]
fn values_are_counted_on_both_sides() {
    let limits = Limits { max_nodes: 3, ..Limits::default() };
    let three = serde_json::json!({"key": 1});
    let four = serde_json::json!([1, 2, 3]);
    assert_eq!(written(&three, limits).expect("three values"), br#"{"key":1}"#);
    assert_eq!(written(&four, limits), Err(JsonError::TooMany { limit: 3 }));
    assert!(read(br#"{"key":1}"#, limits).is_ok());
    assert_eq!(read(b"[1,2,3]", limits), Err(JsonError::TooMany { limit: 3 }));
}

#[test]
fn numbers_that_are_not_finite_are_refused_on_both_sides() {
    for value in [f64::NAN, f64::INFINITY, f64::NEG_INFINITY] {
        assert_eq!(JsonWriter::new(Limits::default()).float(value), Err(JsonError::NotFinite));
    }
    assert_eq!(check(b"1e999"), Err(JsonError::NotFinite));
    for text in ["NaN", "Infinity", "-Infinity"] {
        assert!(matches!(check(text.as_bytes()), Err(JsonError::Malformed { .. })), "{text}");
    }
}

#[test]
fn numbers_of_any_length_pass() {
    let digits = "-123456789012345678901234567890123456789012345678901234567890";
    let mut json = JsonWriter::new(Limits::default());
    json.big_int(digits).expect("fits");
    let bytes = json.finish();
    let mut json = JsonReader::new(&bytes, Limits::default()).expect("small");
    assert_eq!(json.next(), Ok(Some(Token::Int(digits))));
}

#[test]
fn half_a_surrogate_pair_is_no_text() {
    assert_eq!(read(br#""\ud83d\ude00""#, Limits::default()), Ok(Value::from("😀")));
    for text in [r#""\ud83d""#, r#""\ude00""#, r#""\ud83dx""#, r#""\ud83d\u0041""#] {
        assert!(matches!(check(text.as_bytes()), Err(JsonError::Malformed { .. })), "{text}");
    }
    assert!(matches!(check(b"\"\xff\""), Err(JsonError::Malformed { expected: "UTF-8", at: 1 })));
}

#[test]
fn frames_carry_values_and_are_no_nesting() {
    let limits = Limits { max_depth: 1, ..Limits::default() };
    let mut json = JsonWriter::new(limits);
    json.begin_array().expect("one level");
    for name in ["a", "b"] {
        json.open_frame(r#"{"set":["#).expect("fits");
        json.string(name).expect("fits");
        json.int(1).expect("fits");
        json.close_frame("]}").expect("fits");
    }
    json.end_array().expect("fits");
    assert_eq!(json.finish(), br#"[{"set":["a",1]},{"set":["b",1]}]"#);
}

#[test]
fn a_checkpoint_is_gone_back_to() {
    let mut json = JsonWriter::new(Limits::default());
    json.begin_array().expect("fits");
    json.int(1).expect("fits");
    let before = json.checkpoint();
    json.begin_object().expect("fits");
    json.key("key").expect("fits");
    json.rollback(before);
    json.int(2).expect("fits");
    json.end_array().expect("fits");
    assert_eq!(json.finish(), b"[1,2]");
}

#[test]
fn sorted_values_stand_in_the_order_of_their_bytes() {
    let mut json = JsonWriter::new(Limits::default());
    json.begin_array().expect("fits");
    let mut values = Vec::new();
    for text in ["pear", "fig", "apple", ""] {
        let start = json.next_value();
        json.string(text).expect("fits");
        values.push(start..json.position());
    }
    json.sort_values(&mut values);
    json.end_array().expect("fits");
    assert_eq!(json.finish(), br#"["","apple","fig","pear"]"#);
}

#[test]
fn bytes_are_written_in_base64() {
    let mut json = JsonWriter::new(Limits::sending(10));
    json.base64(&[0xff, 0xfe]).expect("fits");
    assert_eq!(json.finish(), br#""//4=""#);
    let mut json = JsonWriter::new(Limits::sending(10));
    assert!(matches!(json.base64(&[0; 7]), Err(JsonError::TooLarge { size: 14, limit: 10 })));
}
