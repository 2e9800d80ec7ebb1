use std::time::{Duration, SystemTime, UNIX_EPOCH};

use proptest::prelude::*;

use super::*;

const ID: &str = "0b9f4d3c-94d6-4c0e-9d4e-0b5d7f3e1a11";
/// 2026-01-01T00:00:00Z.
const NOW: u64 = 1_767_225_600;

fn now() -> SystemTime {
    UNIX_EPOCH + Duration::from_secs(NOW)
}

fn incoming(headers: Value) -> Incoming {
    let Value::Object(headers) = headers else { panic!("headers are an object") };
    Incoming {
        headers: headers.into(),
        properties: Properties { priority: 7, ..Properties::for_task(ID.parse().expect("an id")) },
        exchange: "shop".to_owned(),
        routing_key: "orders".to_owned(),
        body: Bytes::from_static(b"[[], {}, {}]"),
    }
}

fn sent(ours: Value) -> Incoming {
    incoming(json!({"task": "async_signals.propagate", "id": ID, "retries": 0, "eta": null, "async_signals": ours}))
}

fn headers(message: &Message) -> &Map<String, Value> {
    match &message.headers {
        Headers::Raw(headers) => headers,
        Headers::Task(_) => panic!("what follows keeps the headers it had"),
    }
}

fn ours(message: &Message) -> &Value {
    &headers(message)["async_signals"]
}

fn again(follow: &Follow) -> &Message {
    match follow {
        Follow::Again(message) => message,
        Follow::Parked(message) => panic!("parked: {message:?}"),
    }
}

fn in_dead_letters(follow: &Follow) -> &Message {
    match follow {
        Follow::Parked(message) => message,
        Follow::Again(message) => panic!("comes again: {message:?}"),
    }
}

fn failure(receiver: &str, retry: Option<RetryPolicy>) -> Failure {
    Failure {
        receiver: receiver.to_owned(),
        error: format!("OSError('{receiver}')"),
        traceback: Some("Traceback …\nOSError".to_owned()),
        retry,
        unknown: false,
    }
}

fn steady(max: u32, base: f64) -> Option<RetryPolicy> {
    Some(RetryPolicy { base, jitter: false, ..RetryPolicy::new(max) })
}

fn fail(incoming: &Incoming, failures: &[Failure]) -> Vec<Follow> {
    failed(incoming, "celery", failures, now(), &mut || 0.5)
}

mod delivered_before {
    use super::*;

    #[test]
    fn it_is_counted_and_keeps_everything_else() {
        let mut message = sent(json!({"queue": "orders", "sent_at": 5.5, "receivers": ["a"], "attempt": 3}));
        message.headers.insert("redelivered".to_owned(), true.into());
        message.headers.insert("x-delivery-count".to_owned(), 4.into());
        let follow = delivered_before(&message, "celery", 5, now());
        let next = again(&follow);
        assert_eq!(
            ours(next),
            &json!({"queue": "celery", "sent_at": 5.5, "receivers": ["a"], "attempt": 3, "deliveries": 1}),
            "the queue is the one that it was taken from"
        );
        assert!(!headers(next).contains_key("redelivered"));
        assert!(!headers(next).contains_key("x-delivery-count"));
        assert_eq!(next.id.to_string(), ID);
        assert_eq!((next.body.clone(), next.properties.priority), (message.body, 7));
    }

    #[test]
    fn it_is_parked_at_the_last_delivery() {
        let follow = delivered_before(&sent(json!({"queue": "orders", "deliveries": 4})), "celery", 5, now());
        let parked = in_dead_letters(&follow);
        assert_eq!(ours(parked)["deliveries"], 5);
        assert_eq!(
            ours(parked)["parked"],
            json!({
                "kind": "TooManyDeliveries",
                "reason": "taken 5 times by workers that did not finish it",
                "queue": "celery",
                "at": NOW as f64,
            })
        );
    }
}

mod failures {
    use super::*;

    #[test]
    fn without_a_policy_nothing_follows() {
        assert!(fail(&sent(json!({})), &[failure("a", None)]).is_empty());
    }

    #[test]
    fn those_with_tries_left_share_one_follow_up() {
        let first = sent(json!({"queue": "orders", "deliveries": 2}));
        let follows = fail(&first, &[failure("a", steady(2, 10.0)), failure("b", None), failure("c", steady(1, 30.0))]);
        assert_eq!(follows.len(), 1);
        let next = again(&follows[0]);
        assert_eq!(ours(next), &json!({"queue": "celery", "attempt": 2, "receivers": ["a", "c"]}));
        assert_eq!(headers(next)["eta"], "2026-01-01T00:00:30.000000+00:00");
        assert_eq!(headers(next)["retries"], 1);
        assert_eq!(next.id.to_string(), ID);
    }

    #[test]
    fn those_whose_tries_are_spent_are_parked_by_themselves() {
        let third = sent(json!({"attempt": 3, "receivers": ["a", "b"]}));
        let follows = fail(&third, &[failure("a", steady(2, 1.0)), failure("b", steady(3, 1.0))]);
        let [next, parked] = follows.as_slice() else { panic!("{follows:?}") };
        assert_eq!(ours(again(next))["receivers"], json!(["b"]));
        assert_eq!(headers(again(next))["eta"], "2026-01-01T00:00:04.000000+00:00");
        let parked = ours(in_dead_letters(parked));
        assert_eq!(parked["receivers"], json!(["a"]));
        assert_eq!(parked["parked"]["kind"], "ReceiversFailed");
        assert_eq!(parked["parked"]["reason"], "a failed in try 3, the last one: OSError('a')");
        assert_eq!(parked["parked"]["queue"], "celery");
        assert_eq!(
            parked["parked"]["failures"],
            json!([{"receiver": "a", "error": "OSError('a')", "traceback": "Traceback …\nOSError"}])
        );
    }

    #[test]
    fn no_tries_at_all_park_at_once() {
        let follows = fail(&sent(json!({})), &[failure("a", steady(0, 1.0))]);
        assert_eq!(ours(in_dead_letters(&follows[0]))["parked"]["kind"], "ReceiversFailed");
    }

    #[test]
    fn what_expires_before_its_next_try_is_spent() {
        let mut message = sent(json!({}));
        message.properties.expiration_ms = Some(60_000);
        for expires in ["2026-01-01T00:00:10+00:00", "2026-01-01T00:00:10", "2025-12-31T23:00:00.5-01:00"] {
            message.headers.insert("expires".to_owned(), expires.into());
            let follows = fail(&message, &[failure("a", steady(2, 10.0))]);
            let parked = in_dead_letters(&follows[0]);
            assert_eq!(parked.properties.expiration_ms, None, "a parked message does not expire");
            let reason = ours(parked)["parked"]["reason"].as_str().expect("a reason");
            assert!(reason.contains("expires before the next"), "{reason}");
        }
        message.headers.insert("expires".to_owned(), "2026-01-01T00:00:11+00:00".into());
        let follows = fail(&message, &[failure("a", steady(2, 10.0))]);
        let next = again(&follows[0]);
        assert_eq!(headers(next)["expires"], "2026-01-01T00:00:11+00:00");
        assert_eq!(next.properties.expiration_ms, Some(11_000), "the broker gets what is left of it");
    }

    #[test]
    fn a_receiver_that_is_not_here_is_parked_by_itself() {
        let follows = fail(&sent(json!({})), &[failure("a", None), Failure::unknown("gone".to_owned())]);
        assert_eq!(follows.len(), 1);
        let parked = ours(in_dead_letters(&follows[0]));
        assert_eq!(parked["receivers"], json!(["gone"]));
        assert_eq!(parked["parked"]["kind"], "UnknownReceiver");
        assert_eq!(parked["parked"]["failures"], json!([{"receiver": "gone"}]));
    }

    #[test]
    fn the_longest_pause_is_each_ones_own_jitter() {
        let mut numbers = [0.0, 1.0].into_iter();
        let jittered = |base| Some(RetryPolicy { base, ..RetryPolicy::new(3) });
        let failures = [failure("a", jittered(10.0)), failure("b", jittered(8.0))];
        let follows =
            failed(&sent(json!({})), "celery", &failures, now(), &mut || numbers.next().expect("one for each"));
        assert_eq!(headers(again(&follows[0]))["eta"], "2026-01-01T00:00:08.000000+00:00");
    }

    #[test]
    fn their_texts_are_bounded_and_clean() {
        let long = Failure {
            error: "e\u{1b}[31m\n".repeat(100_000),
            traceback: Some("line\u{7}\n".repeat(100_000)),
            ..failure("a", steady(0, 1.0))
        };
        let follows = fail(&sent(json!({})), &vec![long; 40]);
        let parked = &ours(in_dead_letters(&follows[0]))["parked"];
        assert!(parked.to_string().len() < 40 * 1024);
        assert!(parked["reason"].as_str().expect("a reason").len() <= 1000);
        let first = &parked["failures"][0];
        assert!(!first["error"].as_str().expect("an error").contains(char::is_control));
        assert!(first["traceback"].as_str().expect("a traceback").ends_with("line \n"));
        assert_eq!(ours(in_dead_letters(&follows[0]))["receivers"].as_array().map(Vec::len), Some(40));
    }
}

mod parking {
    use super::*;

    #[test]
    fn the_own_queue_is_the_one_that_the_message_names() {
        assert_eq!(own_queue(&sent(json!({"queue": "orders"})), "celery"), "orders");
        for unfit in [json!({}), json!({"queue": ""}), json!({"queue": "a\nb"}), json!({"queue": "q".repeat(256)})] {
            assert_eq!(own_queue(&sent(unfit), "celery"), "celery");
        }
    }

    #[test]
    fn bytes_are_kept_as_they_are() {
        let raw = b"\x00{not a message";
        let message = parked_bytes(raw, "celery", "no JSON\n", now());
        assert_eq!(message.body.as_ref(), raw);
        assert_eq!(&*message.properties.content_type, "application/octet-stream");
        assert_eq!(headers(&message)["id"], message.id.to_string());
        assert_eq!(ours(&message)["parked"]["kind"], "Malformed");
        assert_eq!(ours(&message)["parked"]["reason"], "no JSON ");
        assert_ne!(message.id, parked_bytes(raw, "celery", "", now()).id);
    }

    #[test]
    fn a_replay_begins_anew_and_for_the_same_receivers() {
        let mut message = sent(json!({"queue": "orders", "deliveries": 1, "attempt": 3}));
        message.headers.insert("expires".to_owned(), "2026-01-01T00:00:10+00:00".into());
        message.headers.insert("retries".to_owned(), 2.into());
        let follows = fail(&message, &[failure("a", steady(2, 1.0))]);
        let parked = in_dead_letters(&follows[0]);
        let taken = Incoming {
            headers: headers(parked).clone().into(),
            properties: parked.properties.clone(),
            exchange: String::new(),
            routing_key: "orders.dead".to_owned(),
            body: parked.body.clone(),
        };
        let (queue, next) = replayed(&taken, now());
        assert_eq!(queue, "celery");
        assert_eq!(ours(&next), &json!({"queue": "celery", "receivers": ["a"]}));
        assert_eq!((&headers(&next)["retries"], &headers(&next)["expires"]), (&json!(0), &Value::Null));
        assert_eq!((next.id.to_string(), next.body), (ID.to_owned(), message.body));
    }
}

fn anything() -> impl Strategy<Value = Value> {
    let leaf = prop_oneof![
        Just(Value::Null),
        any::<bool>().prop_map(Value::from),
        any::<i64>().prop_map(Value::from),
        any::<f64>().prop_map(Value::from),
        ".{0,12}".prop_map(Value::from),
        Just("2026-01-01T00:00:10+00:00".into()),
        Just("9999-12-31T23:59:59.999999-23:59".into()),
    ];
    leaf.prop_recursive(2, 8, 3, |inner| {
        prop_oneof![
            prop::collection::vec(inner.clone(), 0..3).prop_map(Value::from),
            prop::collection::btree_map(".{0,6}", inner, 0..3).prop_map(|map| Value::Object(map.into_iter().collect())),
        ]
    })
}

/// Headers whose names we know, with any values.
fn garbage() -> impl Strategy<Value = Map<String, Value>> {
    let own = ["queue", "sent_at", "deliveries", "attempt", "receivers", "parked"];
    let all = ["id", "eta", "expires", "retries", "redelivered", "async_signals"];
    let map = |names: [&'static str; 6]| {
        prop::collection::btree_map(prop::sample::select(names.to_vec()), anything(), 0..6)
            .prop_map(|map| map.into_iter().map(|(name, value)| (name.to_owned(), value)).collect::<Map<_, _>>())
    };
    (map(all), prop::option::of(map(own))).prop_map(|(mut headers, own)| {
        if let Some(own) = own {
            headers.insert("async_signals".to_owned(), Value::Object(own));
        }
        headers
    })
}

#[test]
fn what_was_paused_goes_on_where_it_was() {
    let mut incoming = sent(json!({"queue": "web", "attempt": 3, "receivers": ["a"]}));
    incoming.headers.insert("expires".to_owned(), time::iso(now() + Duration::from_secs(60)).into());
    incoming.properties.expiration_ms = Some(60_000);
    let waiting = paused(&incoming, "web", now());
    assert_eq!(why_parked(&waiting).map(|why| why.0), Some("Paused"));
    assert_eq!(waiting.properties.expiration_ms, None);
    let (headers_then, properties) = (headers(&waiting).clone().into(), waiting.properties);
    let waiting = Incoming { headers: headers_then, properties, ..incoming.clone() };
    let (queue, again) = replayed(&waiting, now() + Duration::from_secs(20));
    assert_eq!((queue.as_str(), again.properties.expiration_ms), ("web", Some(40_000)));
    let ours = Ours::of(headers(&again));
    assert_eq!((ours.attempt, ours.receivers, ours.parked), (3, Some(vec!["a".to_owned()]), None));
    assert_eq!(headers(&again)["expires"], incoming.headers["expires"]);
    let (_, late) = replayed(&waiting, now() + Duration::from_secs(90));
    assert_eq!(late.properties.expiration_ms, None, "the worker leaves it alone, and says so");
}

#[test]
fn what_is_put_back_keeps_its_age() {
    let parked = parked(&sent(json!({})), "celery", "Kind", "reason", now());
    let counted = Incoming { headers: headers(&parked).clone().into(), ..sent(json!({})) };
    let after = |seconds| now() + Duration::from_secs(seconds);
    assert_eq!(put_back(&counted, None, after(5)).properties.expiration_ms, None);
    let day = Some(Duration::from_secs(86_400));
    assert_eq!(put_back(&counted, day, after(6_400)).properties.expiration_ms, Some(80_000_000));
    assert_eq!(put_back(&counted, day, after(90_000)).properties.expiration_ms, Some(1));
}

proptest! {
    #[test]
    fn no_headers_make_it_panic(
        garbled in garbage(),
        seconds in any::<u32>(),
        (most, max) in (0..6u32, 0..6u32),
        numbers in (prop::num::f64::ANY, prop::num::f64::ANY, prop::num::f64::ANY),
    ) {
        let incoming = Incoming { headers: garbled.into(), ..sent(json!({})) };
        let now = UNIX_EPOCH + Duration::from_secs(seconds.into());
        let policy = RetryPolicy { max, base: numbers.0, factor: numbers.1, cap: numbers.2, jitter: true };
        let failures = [failure("a", Some(policy)), failure("b", None), Failure::unknown("c".to_owned())];
        let follows = failed(&incoming, "celery", &failures, now, &mut || numbers.0);
        // The one with a policy and the one that is unknown are each in exactly one follow-up.
        let named: Vec<Vec<String>> = follows
            .iter()
            .map(|follow| match follow { Follow::Again(message) | Follow::Parked(message) => message })
            .filter_map(|message| Ours::of(headers(message)).receivers)
            .collect();
        prop_assert_eq!(named, vec![vec!["a".to_owned()], vec!["c".to_owned()]]);
        delivered_before(&incoming, "celery", most, now);
        parked(&incoming, "celery", "Kind", "reason", now);
        let (_, again) = replayed(&incoming, now);
        prop_assert!(Ours::of(headers(&again)).parked.is_none());
        prop_assert_eq!(Ours::of(headers(&again)).attempt, 1);
    }

    #[test]
    fn retries_end(max in 0..20u32, attempt in 1..40u32) {
        let follows = fail(&sent(json!({"attempt": attempt})), &[failure("a", steady(max, 0.0))]);
        prop_assert_eq!(matches!(follows[0], Follow::Again(_)), attempt <= max);
    }

    #[test]
    fn a_poisonous_message_is_parked_after_as_many_deliveries_as_allowed(most in 1..10u32) {
        let mut message = sent(json!({}));
        let mut deliveries = 1;
        while let Follow::Again(next) = delivered_before(&message, "celery", most, now()) {
            message.headers = headers(&next).clone().into();
            deliveries += 1;
        }
        prop_assert_eq!(deliveries, most);
    }
}
