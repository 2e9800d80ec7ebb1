//! One value, or a few, of each type that crosses the wire. `shopapp/matrix.py` has the same ones.

use std::{collections::BTreeMap, fmt, str::FromStr};

use async_signals::types::{
    Bytes, Dataclass, Date, DateTime, Decimal, Enum, FrozenSet, Model, NaiveDateTime, Set, Time, Timedelta, Uuid,
};

use crate::describe::described;

described! {
    /// What JSON has words for.
    struct Plain {
        nothing: Option<i64>,
        yes: bool,
        no: bool,
        zero: i64,
        negative: i64,
        most: i64,
        fraction: f64,
        whole: f64,
        tiny: f64,
        huge: f64,
        minus_zero: f64,
        empty: String,
        text: String,
        items: Vec<i64>,
        no_items: Vec<String>,
        table: Table,
        nested: Vec<Part>,
    }
}

described! {
    struct Table {
        name: String,
        count: i64,
    }
}

described! {
    struct Part {
        name: String,
        rows: Vec<Vec<i64>>,
        of: Option<Table>,
    }
}

described! {
    /// What JSON has no words for, and whole numbers that few of its readers keep.
    struct Marked {
        least: i64,
        past_63_bits: u64,
        past_64_bits: i128,
        far_below: i128,
        pair: (i64, String),
        single: (String,),
        pairs_in_a_pair: ((i64, i64), Vec<i64>),
        tags: Set<String>,
        numbers: Set<i64>,
        no_members: Set<i64>,
        frozen: FrozenSet<i64>,
        sets: Set<FrozenSet<i64>>,
        binary: Bytes,
        readable: Bytes,
        no_bytes: Bytes,
        aware: DateTime,
        elsewhere: DateTime,
        naive: NaiveDateTime,
        naive_to_the_microsecond: NaiveDateTime,
        day: Date,
        time: Time,
        time_to_the_microsecond: Time,
        short: Timedelta,
        back: Timedelta,
        long: Timedelta,
        no_time: Timedelta,
        price: Decimal,
        exponent: Decimal,
        small: Decimal,
        less_than_nothing: Decimal,
        digits: Decimal,
        id: Uuid,
        color: Enum,
        level: Enum,
        rights: Enum,
        line: Dataclass<Line>,
        order: Model,
        by_number: BTreeMap<i64, String>,
        by_pair: BTreeMap<(i64, String), i64>,
        by_day: BTreeMap<Date, Time>,
        deep: Vec<Deep>,
    }
}

described! {
    struct Line {
        sku: String,
        price: Decimal,
        parts: Vec<Dataclass<Line>>,
    }
}

described! {
    struct Deep {
        at: DateTime,
        tags: Set<String>,
        seat: (String, i64),
    }
}

fn text(text: &str) -> String {
    text.to_owned()
}

fn read<T: FromStr<Err: fmt::Debug>>(text: &str) -> T {
    text.parse().expect("it is written here")
}

pub(crate) fn plain() -> Plain {
    let table = |count| Table { name: text("ä"), count };
    Plain {
        nothing: None,
        yes: true,
        no: false,
        zero: 0,
        negative: -7,
        most: i64::MAX,
        fraction: 0.1,
        whole: 5.0,
        tiny: 5e-324,
        huge: f64::MAX,
        minus_zero: -0.0,
        empty: text(""),
        text: text("Größe, 漢字, 😀, \"quoted\"\n\\\0"),
        items: vec![3, 1, 2],
        no_items: vec![],
        table: table(3),
        nested: vec![
            Part { name: text("a"), rows: vec![vec![1, 2], vec![]], of: Some(table(-1)) },
            Part { name: text("b"), rows: vec![], of: None },
        ],
    }
}

pub(crate) fn marked() -> Marked {
    let line =
        |sku, price, parts| Dataclass::new("shopapp.matrix.Line", Line { sku: text(sku), price: read(price), parts });
    let timedelta = |days, seconds, microseconds| Timedelta::new(days, seconds, microseconds).expect("it is one");
    Marked {
        least: i64::MIN,
        past_63_bits: u64::MAX,
        past_64_bits: 1 << 100,
        far_below: i128::from(i64::MIN) - 1,
        pair: (1, text("one")),
        single: (text("alone"),),
        pairs_in_a_pair: ((1, 2), vec![3]),
        tags: Set::from(["new", "gift", "ü"].map(text)),
        numbers: Set::from([3, 1, 2]),
        no_members: Set::default(),
        frozen: FrozenSet::from([2, 1]),
        sets: Set::from([FrozenSet::from([1, 2]), FrozenSet::from([])]),
        binary: Bytes::from(vec![0xff, 0x00, 0xd8]),
        readable: Bytes::from("text ü".as_bytes()),
        no_bytes: Bytes::default(),
        aware: read("2020-02-29T12:30:05+00:00"),
        elsewhere: read("1999-12-31T23:59:59.000001+05:45"),
        naive: read("2020-02-29T12:30:05"),
        naive_to_the_microsecond: read("0001-01-01T00:00:00.999999"),
        day: read("2020-02-29"),
        time: read("09:30:00"),
        time_to_the_microsecond: read("23:59:59.999999"),
        short: timedelta(0, 0, 5),
        back: timedelta(-1, 0, 5),
        long: timedelta(365, 86399, 999_999),
        no_time: timedelta(0, 0, 0),
        price: read("12.50"),
        exponent: read("1E+5"),
        small: read("-1E-28"),
        less_than_nothing: read("-0.00"),
        digits: read("3.14159265358979323846264338327950288419716939937510"),
        id: read("12345678-1234-5678-1234-567812345678"),
        color: Enum::new("shopapp.matrix.Color", "RED"),
        level: Enum::new("shopapp.matrix.Level", "HIGH"),
        rights: Enum::flags("shopapp.matrix.Right", 3),
        line: line("pen", "1.10", vec![line("ink", "0.05", vec![])]),
        order: Model::new("shopapp.Order", 5).using("default"),
        by_number: BTreeMap::from([(1, text("one")), (-2, text("minus two"))]),
        by_pair: BTreeMap::from([((1, text("a")), 2)]),
        by_day: BTreeMap::from([(read("2020-02-29"), read("09:30:00"))]),
        deep: vec![Deep {
            at: read("2020-02-29T12:30:05+00:00"),
            tags: Set::from([text("inside")]),
            seat: (text("A"), 5),
        }],
    }
}
