//! Who matches whom.

use async_signals::{
    payload::{self, Body},
    sender::Sender,
    types::{Enum, Model, Uuid},
};

use super::{LIMIT, SIGNAL};

/// Different ones, each of which Python finds different too.
fn senders() -> Vec<Sender> {
    vec![
        Sender::bool(true),
        Sender::int(1),
        Sender::name("1"),
        Sender::name("True"),
        Sender::bool(false),
        Sender::int(0),
        Sender::name("shop.Order"),
        Sender::class("shop.Order"),
        Sender::model("shop.Order"),
        Sender::instance("shop.Order", 1),
        Sender::instance("shop.Order", "1"),
        Sender::instance("shop.Order", true),
        Sender::instance("shop.Order", 1).using("default"),
        Sender::instance("shop.Order", 1).using("other"),
        Sender::instance("shop.Order", Uuid::from(uuid::Uuid::nil())),
        Sender::member("shop.models.Status", "PAID"),
        Enum::flags("shop.models.Status", 1).into(),
    ]
}

#[test]
fn each_matches_itself_alone() {
    let senders = senders();
    for (index, connected) in senders.iter().enumerate() {
        let matching: Vec<_> = (0..senders.len()).filter(|&sent| connected.matches(&senders[sent])).collect();
        assert_eq!(matching, [index], "{connected}");
        assert!(Sender::NONE.matches(connected));
        assert!(!connected.matches(&Sender::NONE), "{connected}");
    }
    assert!(Sender::NONE.matches(&Sender::NONE));
    assert_eq!(Sender::default(), Sender::NONE);
}

#[test]
fn a_sender_is_the_same_after_the_wire() {
    for sender in senders() {
        let body = payload::encode(SIGNAL, &sender, &(), LIMIT).expect("a sender");
        let body = Body::read(&body).expect("a body");
        assert_eq!(body.sender, sender);
        let again = payload::encode(SIGNAL, &body.sender, &(), LIMIT).expect("a sender");
        assert_eq!(Body::read(&again).expect("a body").sender, sender);
    }
}

#[test]
fn what_is_made_while_the_program_runs_is_the_same() {
    assert_eq!(Sender::text("shop".to_owned()), Sender::name("shop"));
    assert_eq!(
        Sender::from(Model::new("shop.Order", 5).using("default")),
        Sender::instance("shop.Order", 5).using("default")
    );
    assert_eq!(Sender::name("shop").using("default"), Sender::name("shop"), "only a row has a database");
}

#[test]
fn whatever_stands_in_its_place_is_read_and_goes_on_as_it_came() {
    for odd in [
        "[]",
        "1.5",
        "18446744073709551615",
        r#"{"a":[1,{"__type__":"datetime","__value__":1}]}"#,
        r#"{"__type__":"async_signals","__value__":["newer",1]}"#,
        r#"{"__type__":"async_signals","__value__":["class",1]}"#,
        r#"{"__type__":"async_signals","__value__":["model","shop.Order",1]}"#,
        r#"{"__type__":"async_signals","__value__":null}"#,
        r#"{"__type__":"uuid","__value__":{"hex":"00"}}"#,
    ] {
        let sent = format!(r#"[["{SIGNAL}",{odd}],{{}},null]"#);
        let body = Body::read(sent.as_bytes()).expect(odd);
        assert!(Sender::NONE.matches(&body.sender));
        assert!(!body.sender.matches(&body.sender), "nothing can be connected to {odd}");
        let again = payload::encode(SIGNAL, &body.sender, &(), LIMIT).expect(odd);
        assert!(again.starts_with(format!(r#"[["{SIGNAL}",{odd}],"#).as_bytes()), "{odd}: {again:?}");
    }
}

#[test]
fn logs_show_names_and_keys() {
    let shown = [
        (Sender::NONE, "None"),
        (Sender::bool(true), "True"),
        (Sender::int(-5), "-5"),
        (Sender::name("shop"), "\"shop\""),
        (Sender::class("shop.models.Cart"), "shop.models.Cart"),
        (Sender::model("shop.Order"), "shop.Order"),
        (Sender::instance("shop.Order", 5).using("default"), "shop.Order pk=5"),
        (Sender::member("shop.models.Status", "PAID"), "shop.models.Status.PAID"),
    ];
    for (sender, text) in shown {
        assert_eq!(sender.to_string(), text);
    }
}
