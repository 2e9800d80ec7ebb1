//! Headers and properties of whoever publishes.

use async_signals::message::Exchange;
use lapin::types::{ByteArray, DecimalValue, FieldArray};

use super::*;

/// What arrives of a message with these properties.
async fn arrived(server: &Server, properties: BasicProperties) -> Incoming {
    let (queue, observer) = (fresh("q"), Observer::new(server).await);
    let consumer = consume(server, &queue, 10).await;
    observer.publish(&queue, properties).await;
    let taken = take_all(&consumer, 1).await;
    soon(consumer.acknowledge(&tags(&taken))).await.expect("acknowledged");
    message(&taken[0]).clone()
}

fn table(entries: impl IntoIterator<Item = (&'static str, AMQPValue)>) -> FieldTable {
    let mut table = FieldTable::default();
    for (name, value) in entries {
        table.insert(name.into(), value);
    }
    table
}

#[tokio::test(flavor = "multi_thread")]
async fn headers_of_every_type_arrive() {
    let server = server!();
    let nested = table([("list", AMQPValue::FieldArray(FieldArray::from(vec![AMQPValue::Void, true.into()])))]);
    let headers = table([
        ("boolean", true.into()),
        ("bytes", AMQPValue::ByteArray(ByteArray::from(vec![0xff]))),
        ("decimal", AMQPValue::DecimalValue(DecimalValue { scale: 2, value: 1995 })),
        ("double", 0.25_f64.into()),
        ("float", 0.5_f32.into()),
        ("i16", (-2_i16).into()),
        ("i32", (-3_i32).into()),
        ("i64", i64::MIN.into()),
        ("i8", (-1_i8).into()),
        ("no text", AMQPValue::LongString(vec![0xc3, 0x28].into())),
        ("table", AMQPValue::FieldTable(nested)),
        ("text", AMQPValue::LongString("grüezi".into())),
        ("time", AMQPValue::Timestamp(0)),
        ("u16", 60_000_u16.into()),
        ("u32", u32::MAX.into()),
        ("u8", 200_u8.into()),
        ("void", AMQPValue::Void),
    ]);
    let message = arrived(server, BasicProperties::default().with_headers(headers)).await;
    let expected = json!({
        "boolean": true,
        "bytes": {"__type__": "base64", "__value__": "/w=="},
        "decimal": {"__type__": "decimal", "__value__": "19.95"},
        "double": 0.25,
        "float": 0.5,
        "i16": -2,
        "i32": -3,
        "i64": i64::MIN,
        "i8": -1,
        "no text": {"__type__": "base64", "__value__": "wyg="},
        "table": {"list": [null, true]},
        "text": "grüezi",
        "time": {"__type__": "datetime", "__value__": "1970-01-01T00:00:00+00:00"},
        "u16": 60_000,
        "u32": u32::MAX,
        "u8": 200,
        "void": null,
    });
    assert_eq!(Value::Object(message.headers.into()), expected);
}

#[tokio::test(flavor = "multi_thread")]
async fn properties_arrive_and_missing_ones_are_amqps() {
    let server = server!();
    let bare = arrived(server, BasicProperties::default()).await;
    assert!(bare.headers.is_empty());
    assert_eq!((&*bare.properties.content_type, bare.properties.delivery_mode, bare.properties.priority), ("", 1, 0));
    let full = BasicProperties::default()
        .with_content_type("application/json".into())
        .with_content_encoding("utf-8".into())
        .with_delivery_mode(2)
        .with_priority(4)
        .with_correlation_id("an-id".into())
        .with_reply_to("answers".into())
        .with_expiration("60000".into())
        .with_message_id("m".into())
        .with_timestamp(1)
        .with_type("t".into())
        .with_user_id("guest".into())
        .with_app_id("a".into())
        .with_cluster_id("c".into());
    let properties = arrived(server, full).await.properties;
    assert_eq!((&*properties.content_type, &*properties.content_encoding), ("application/json", "utf-8"));
    assert_eq!((properties.delivery_mode, properties.priority), (2, 4));
    assert_eq!((properties.correlation_id.as_str(), properties.reply_to.as_deref()), ("an-id", Some("answers")));
    assert_eq!(properties.expiration_ms, Some(60_000));
}

/// Somebody else's bytes must neither end a worker nor come again and again.
#[tokio::test(flavor = "multi_thread")]
async fn what_lapin_cannot_read_does_no_harm() {
    let server = server!();
    let (queue, exchange) = (fresh("q"), fresh("x"));
    let topic = Queue {
        exchange: Some(Exchange { kind: "topic".to_owned(), ..Exchange::direct(&exchange) }),
        routing_key: "#".to_owned(),
        ..Queue::direct(&queue)
    };
    let consumer = try_consume(server, vec![topic], 10).await.expect("a consumer");
    tokio::task::block_in_place(|| {
        let publish = |key: &[u8], headers: &[u8]| raw::publish(&server.url(), &exchange, key, headers, b"body");
        publish(b"bottomless", &raw::nested(15_000));
        publish(b"no \xff text", b"\x02a\xffV");
        publish(b"fine", b"\x04fineV");
    });
    let taken = take_all(&consumer, 3).await;
    let messages: Vec<_> = taken.iter().map(message).collect();
    assert!(messages.iter().all(|message| message.body == "body"));
    assert_eq!(messages[0].routing_key, "bottomless");
    assert!(Value::Object(messages[0].headers.clone().into()).to_string().contains("__type__"));
    assert_eq!((messages[1].routing_key.as_str(), &messages[1].headers["a?"]), ("no ? text", &Value::Null));
    assert_eq!((messages[2].routing_key.as_str(), &messages[2].headers["fine"]), ("fine", &Value::Null));
    soon(consumer.acknowledge(&tags(&taken))).await.expect("acknowledged");
    soon(consumer.close()).await;
    Observer::new(server).await.until_ready(&queue, 0).await;
}
