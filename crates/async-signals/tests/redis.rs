//! What only Redis does: kombu's layout, and Redis' own refusals.
#![cfg(all(feature = "redis", feature = "rustls"))]

mod servers;

use std::{
    collections::HashSet,
    path::PathBuf,
    sync::Arc,
    time::{Duration, Instant},
};

use async_signals::{
    broker::{self, Broker, BrokerConfig, BrokerError, Tls},
    message::{Exchange, Message, Outgoing, Queue, Route},
};
use redis::Commands;
use serde_json::{Value, json};
use servers::{
    Bench, DEADLINE,
    messages::{assert_ok, numbered},
    redis::{PASSWORD, Redis},
};

/// How long kombu keeps the bindings of a queue that expires in no time.
const SHORTEST_LIFETIME: Duration = Duration::from_secs(60 * 60);

#[tokio::test]
async fn priorities_have_lists_of_their_own() {
    let Some(redis) = Redis::start(&[]) else { return };
    let broker = connect(&redis.config()).await.expect("a connection");
    let batch: Vec<_> = [0, 2, 3, 5, 6, 9, 255].map(|priority| outgoing("q", priority)).into();
    assert_ok(&broker.publish(&batch).await);
    let lengths = ["q", "q\x06\x163", "q\x06\x166", "q\x06\x169"].map(|list| redis.take(list).len());
    assert_eq!(lengths, [2, 2, 1, 2]);
}

#[tokio::test]
async fn options_shape_the_keys() {
    let Some(redis) = Redis::start(&[]) else { return };
    let options = json!({"global_keyprefix": "shop:", "sep": "|", "priority_steps": [0, 5]});
    let broker = connect(&configured(&redis, options)).await.expect("a connection");
    assert_ok(&broker.publish(&[outgoing("q", 4), outgoing("q", 7)]).await);
    let binding = ["shop:_kombu.binding.q", "shop:_kombu.binding_permanent.q"];
    assert_eq!(keys(&redis), HashSet::from(["shop:q", "shop:q|5", binding[0], binding[1]].map(str::to_owned)));
    assert_eq!(members(&redis, binding[0]), HashSet::from(["q||q".to_owned()]));
    let nonsense = connect(&configured(&redis, json!({"priority_steps": []}))).await.expect_err("no steps");
    assert!(matches!(nonsense, BrokerError::InvalidOption { .. }), "{nonsense:?}");
}

#[tokio::test]
async fn bindings_are_those_that_kombu_writes() {
    let Some(redis) = Redis::start(&[]) else { return };
    let broker = connect(&redis.config()).await.expect("a connection");
    let topic = Exchange { kind: "topic".to_owned(), ..Exchange::direct("shop") };
    let queue = |name: &str, key: &str, arguments: Value| Queue {
        exchange: Some(topic.clone()),
        routing_key: key.to_owned(),
        arguments: arguments.as_object().expect("a map").clone(),
        ..Queue::direct(name)
    };
    let declare =
        vec![queue("orders", "order.*.eu-1", json!({"x-expires": 60_000})), queue("all", "order.#", json!({}))];
    let route = Route { exchange: "shop".to_owned(), routing_key: "order.a.eu-1".to_owned(), declare };
    assert_ok(&broker.publish(&[Outgoing { route: Arc::new(route), message: message(0) }]).await);

    // Seen in a Redis that kombu 5.7 had published to in the same way.
    let all = "order.#\x06\x16^order\\..*?$\x06\x16all".to_owned();
    let orders = "order.*.eu-1\x06\x16^order\\.[^\\.]+\\.eu\\-1$\x06\x16orders".to_owned();
    assert_eq!(members(&redis, "_kombu.binding.shop"), HashSet::from([all.clone(), orders]));
    assert_eq!(members(&redis, "_kombu.binding_permanent.shop"), HashSet::from([all]));
    let mut connection = redis.connection();
    let deadlines: Vec<(String, f64)> = connection.zrange_withscores("_kombu.binding_deadlines", 0, -1).expect("a set");
    let (seconds, _): (f64, f64) = redis::cmd("TIME").query(&mut connection).expect("the time");
    let [(exchange, deadline)] = &deadlines[..] else { panic!("{deadlines:?}") };
    let lifetime = deadline / 1000.0 - seconds;
    assert_eq!(exchange, "shop");
    assert!((lifetime - SHORTEST_LIFETIME.as_secs_f64()).abs() < 60.0, "{lifetime}");
    let expires: i64 = connection.pttl("orders").expect("a time");
    assert!((1..=60_000).contains(&expires), "{expires}");
    let lasts: i64 = connection.pttl("all").expect("a time");
    assert_eq!(lasts, -1);
}

#[tokio::test]
async fn other_queues_of_the_exchange_get_their_messages_too() {
    let Some(redis) = Redis::start(&[]) else { return };
    // As a worker with this queue has left it.
    let _: () = redis.connection().sadd("_kombu.binding.celery", "celery\x06\x16\x06\x16audit").expect("a set");
    let broker = connect(&redis.config()).await.expect("a connection");
    let route = Route { exchange: "celery".to_owned(), ..Route::to_queue("celery") };
    assert_ok(&broker.publish(&[Outgoing { route: Arc::new(route), message: message(0) }]).await);
    let tags = ["celery", "audit"].map(|queue| {
        let envelopes: Vec<String> = redis.connection().lrange(queue, 0, -1).expect("a list");
        let envelope: Value = serde_json::from_str(&envelopes[0]).expect("an envelope");
        envelope["properties"]["delivery_tag"].clone()
    });
    assert_ne!(tags[0], tags[1], "consumers keep both in one hash, by their tags");
}

#[tokio::test]
async fn a_flushed_database_heals() {
    let Some(redis) = Redis::start(&[]) else { return };
    let broker = connect(&redis.config()).await.expect("a connection");
    let direct = Arc::new(Route::to_queue("plain"));
    let routed = Arc::new(Route { exchange: "routed".to_owned(), ..Route::to_queue("routed") });
    let batch = [direct, routed].map(|route| Outgoing { route, message: message(0) });
    assert_ok(&broker.publish(&batch).await);
    let _: () = redis::cmd("FLUSHALL").query(&mut redis.connection()).expect("flushed");
    let started = Instant::now();
    while ["plain", "routed"].iter().any(|queue| members(&redis, &format!("_kombu.binding.{queue}")).is_empty()) {
        assert!(started.elapsed() < DEADLINE, "the bindings do not come back");
        assert_ok(&broker.publish(&batch).await);
    }
}

#[tokio::test]
async fn a_broadcast_is_refused_with_advice() {
    let Some(redis) = Redis::start(&[]) else { return };
    let broker = connect(&redis.config()).await.expect("a connection");
    let fanout = Exchange { kind: "fanout".to_owned(), ..Exchange::direct("all") };
    let queue = Queue { exchange: Some(fanout), ..Queue::direct("one") };
    let route = Arc::new(Route { exchange: "all".to_owned(), routing_key: String::new(), declare: vec![queue] });
    let error = broker.publish(&[Outgoing { route, message: message(0) }]).await.remove(0).expect_err("a broadcast");
    assert!(matches!(error, BrokerError::InvalidOption { .. }), "{error:?}");
    assert!(error.to_string().contains("\"all\"") && error.to_string().contains("topic exchange"), "{error}");
}

#[tokio::test]
async fn two_types_of_one_exchange_are_an_error() {
    let Some(redis) = Redis::start(&[]) else { return };
    let broker = connect(&redis.config()).await.expect("a connection");
    let outcomes = ["direct", "topic"].map(|kind| {
        let exchange = Exchange { kind: kind.to_owned(), ..Exchange::direct("shop") };
        let declare = vec![Queue { exchange: Some(exchange), ..Queue::direct("q") }];
        Outgoing { route: Arc::new(Route { declare, ..Route::to_queue("q") }), message: message(0) }
    });
    let published = broker.publish(&outcomes).await;
    assert!(
        matches!(&published[..], [Ok(()), Err(BrokerError::PreconditionFailed { entity, .. })] if entity.contains("shop")),
        "{published:?}"
    );
}

#[tokio::test]
async fn a_full_memory_is_named() {
    let Some(redis) = Redis::start(&["--maxmemory", "1", "--maxmemory-policy", "noeviction"]) else { return };
    let broker = connect(&redis.config()).await.expect("a connection");
    let error = broker.publish(&[outgoing("q", 0)]).await.remove(0).expect_err("no memory");
    assert!(matches!(error, BrokerError::OutOfMemory { .. }), "{error:?}");
    set(&redis, "maxmemory", "0");
    assert_ok(&broker.publish(&[outgoing("q", 0)]).await);
    // Full while the route is known.
    set(&redis, "maxmemory", "1");
    let error = broker.publish(&[outgoing("q", 0)]).await.remove(0).expect_err("no memory");
    assert!(matches!(error, BrokerError::OutOfMemory { .. }), "{error:?}");
    assert_eq!(redis.take("q").len(), 1);
}

#[tokio::test]
async fn a_replica_takes_nothing_for_now() {
    let Some(redis) = Redis::start(&[]) else { return };
    let broker = connect(&redis.config()).await.expect("a connection");
    let _: () = redis::cmd("REPLICAOF").arg("127.0.0.1").arg(1).query(&mut redis.connection()).expect("a replica");
    let error = broker.publish(&[outgoing("q", 0)]).await.remove(0).expect_err("a replica");
    assert!(matches!(error, BrokerError::Unavailable { .. }), "{error:?}");
    assert!(error.is_transient() && error.is_disconnect() && !error.may_have_arrived());
}

#[tokio::test]
async fn a_user_without_the_right_is_told_so() {
    let Some(redis) = Redis::start(&[]) else { return };
    let rights = ["SETUSER", "reader", "on", ">secret", "~*", "+@read", "+ping"];
    let _: () = redis::cmd("ACL").arg(&rights).query(&mut redis.connection()).expect("a user");
    let config = BrokerConfig::new(&redis.url("reader:secret@")).expect("a URL");
    let broker = connect(&config).await.expect("a connection");
    let error = broker.publish(&[outgoing("q", 0)]).await.remove(0).expect_err("no right");
    assert!(matches!(error, BrokerError::AccessRefused { .. }), "{error:?}");
    assert!(!error.to_string().contains("secret"), "{error}");
    // Who may only push may push.
    let rights = ["SETUSER", "writer", "on", ">secret", "~*", "+lpush", "+sadd"];
    let _: () = redis::cmd("ACL").arg(&rights).query(&mut redis.connection()).expect("a user");
    let config = BrokerConfig::new(&redis.url("writer:secret@")).expect("a URL");
    assert_ok(&connect(&config).await.expect("a connection").publish(&[outgoing("q", 0)]).await);
}

#[tokio::test]
async fn no_password_where_one_is_needed_is_named() {
    let Some(redis) = Redis::start(&[]) else { return };
    let error = connect(&BrokerConfig::new(&redis.url("")).expect("a URL")).await.expect_err("no password");
    assert!(matches!(error, BrokerError::Authentication { .. }), "{error:?}");
    let _: () = redis::cmd("CONFIG").arg(&["SET", "requirepass", ""]).query(&mut redis.connection()).expect("open");
    let error = connect(&redis.config()).await.expect_err("a password that nobody asked for");
    assert!(matches!(error, BrokerError::Authentication { .. }), "{error:?}");
    assert!(!error.to_string().contains(PASSWORD), "{error}");
}

#[tokio::test]
async fn a_key_of_another_type_fails_its_messages_alone() {
    let Some(redis) = Redis::start(&[]) else { return };
    let _: () = redis.connection().set("taken", "text").expect("a key");
    let broker = connect(&redis.config()).await.expect("a connection");
    let published = broker.publish(&[outgoing("free", 0), outgoing("taken", 0), outgoing("free", 0)]).await;
    assert!(matches!(published[..], [Ok(()), Err(BrokerError::Refused { .. }), Ok(())]), "{published:?}");
    assert_eq!(redis.take("free").len(), 2);
}

#[tokio::test]
async fn the_url_chooses_the_database() {
    let Some(redis) = Redis::start(&["--unixsocket", "redis.sock"]) else { return };
    let url = redis.url(&format!(":{PASSWORD}@"));
    let other = format!("{}/3", url.trim_end_matches("/0"));
    let broker = connect(&BrokerConfig::new(&other).expect("a URL")).await.expect("a connection");
    assert_ok(&broker.publish(&[outgoing("q", 0)]).await);
    assert!(keys(&redis).is_empty(), "not in database 0");
    let socket = |file: &str| {
        let url = format!("redis+socket://:{PASSWORD}@{}/{file}?virtual_host=3", redis.directory().display());
        BrokerConfig::new(&url).expect("a URL")
    };
    assert_ok(&connect(&socket("redis.sock")).await.expect("a connection").publish(&[outgoing("q", 0)]).await);
    assert!(keys(&redis).is_empty(), "nor through its socket");
    let error = connect(&socket("no.sock")).await.expect_err("no socket");
    assert!(matches!(error, BrokerError::Connect { .. }), "{error:?}");
    let missing = BrokerConfig::new(&url.replace("/0", "/99")).expect("a URL");
    let error = connect(&missing).await.expect_err("no such database");
    assert!(matches!(error, BrokerError::InvalidOption { .. }), "{error:?}");
    assert!(error.to_string().contains("no database 99") && !error.to_string().contains(PASSWORD), "{error}");
}

#[tokio::test]
async fn tls_verifies_unless_told_otherwise() {
    let file = |name: &str| PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("tests/fixtures/tls").join(name);
    let text = |name: &str| file(name).display().to_string();
    let port = servers::free_port().to_string();
    let (ca, certificate, key) = (text("ca.pem"), text("server.pem"), text("server.key"));
    let options =
        ["--tls-port", &port, "--tls-ca-cert-file", &ca, "--tls-cert-file", &certificate, "--tls-key-file", &key];
    let Some(redis) = Redis::start(&options) else { return };
    let config = |host: &str, query: &str, tls: Option<Tls>| {
        let url = format!("rediss://:{PASSWORD}@{host}:{port}/0{query}");
        BrokerConfig { tls, ..BrokerConfig::new(&url).expect("a URL") }
    };
    let both = Tls {
        ca_certs: Some(file("ca.pem")),
        certfile: Some(file("client.pem")),
        keyfile: Some(file("client.key")),
        verify: true,
    };
    let in_url = format!("?ssl_ca_certs={ca}&ssl_certfile={}&ssl_keyfile={}", text("client.pem"), text("client.key"));
    for config in [
        config("localhost", "", Some(both.clone())),
        config("localhost", &in_url, None),
        config("127.0.0.1", "?ssl_cert_reqs=none", Some(both.clone())),
        config("127.0.0.1", "?ssl_check_hostname=false", Some(both.clone())),
    ] {
        let broker = connect(&config).await.expect("a connection");
        assert_ok(&broker.publish(&[outgoing("q", 0)]).await);
    }
    assert_eq!(redis.take("q").len(), 4);
    let unknown_authority = Tls { ca_certs: None, ..both.clone() };
    for (why, config) in [
        ("an authority that nobody trusts", config("localhost", "", Some(unknown_authority))),
        ("another host's name", config("127.0.0.1", "", Some(both))),
        ("no client certificate", config("localhost", &format!("?ssl_ca_certs={ca}"), None)),
    ] {
        let error = connect(&config).await.expect_err(why);
        let lost = matches!(error, BrokerError::Connect { .. }) && why == "no client certificate";
        assert!(matches!(error, BrokerError::Tls { .. }) || lost, "{why}: {error:?}");
        assert!(!error.to_string().contains(PASSWORD), "{error}");
    }
}

async fn connect(config: &BrokerConfig) -> Result<Arc<dyn Broker>, BrokerError> {
    tokio::time::timeout(DEADLINE, broker::connect(config, &config.urls[0])).await.expect("an answer in time")
}

fn configured(redis: &Redis, options: Value) -> BrokerConfig {
    BrokerConfig { transport_options: options.as_object().expect("a map").clone(), ..redis.config() }
}

fn message(priority: u8) -> Message {
    let mut message = numbered(0);
    message.properties.priority = priority;
    message
}

fn outgoing(queue: &str, priority: u8) -> Outgoing {
    Outgoing { route: Arc::new(Route::to_queue(queue)), message: message(priority) }
}

fn keys(redis: &Redis) -> HashSet<String> {
    redis.connection().keys("*").expect("keys")
}

fn members(redis: &Redis, set: &str) -> HashSet<String> {
    redis.connection().smembers(set).expect("a set")
}

fn set(redis: &Redis, name: &str, value: &str) {
    let _: () = redis::cmd("CONFIG").arg("SET").arg(name).arg(value).query(&mut redis.connection()).expect("an option");
}
