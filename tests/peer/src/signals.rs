//! The signals that Django has too, and what listens to them here.

use async_signals::{
    AsyncSignal, BoxError, Connect, Delivery, RetryPolicy, Sender, connection::ConnectError, receiver,
};
use serde::{Deserialize, Serialize};
use serde_json::json;

use crate::{
    describe::Fields,
    effects::record,
    values::{Marked, Plain},
};

pub(crate) static PLAIN: AsyncSignal<Plain> = AsyncSignal::new("shopapp.matrix.plain");
pub(crate) static MARKED: AsyncSignal<Marked> = AsyncSignal::new("shopapp.matrix.marked");
pub(crate) static SENT_BY: AsyncSignal<SentBy> = AsyncSignal::new("shopapp.matrix.sent_by");
pub(crate) static SHAKY: AsyncSignal<Shaky> = AsyncSignal::new("shopapp.matrix.shaky");
pub(crate) static ONE_SIDED: AsyncSignal<()> = AsyncSignal::new("shopapp.matrix.one_sided");
pub(crate) static COUNTED: AsyncSignal<Counted> = AsyncSignal::new("shopapp.matrix.counted");

#[derive(Debug, Serialize, Deserialize)]
pub(crate) struct SentBy {
    /// Which program sent it.
    pub(crate) by: String,
    /// The name that its sender has in [`senders`].
    pub(crate) kind: String,
}

#[derive(Debug, Serialize, Deserialize)]
pub(crate) struct Shaky {
    pub(crate) number: i64,
    /// Where its receiver fails: in `python`, in `rust`, or `once`.
    pub(crate) fails: String,
}

#[derive(Debug, Serialize, Deserialize)]
pub(crate) struct Counted {
    pub(crate) number: i64,
}

/// A sender of each kind.
pub(crate) fn senders() -> [(&'static str, Sender); 8] {
    [
        ("anybody", Sender::NONE),
        ("text", Sender::name("web")),
        ("number", Sender::int(7)),
        ("boolean", Sender::bool(true)),
        ("class", Sender::class("shopapp.matrix.Shop")),
        ("model", Sender::model("shopapp.Order")),
        ("row", Sender::instance("shopapp.Order", 5).using("default")),
        ("member", Sender::member("shopapp.matrix.Color", "GREEN")),
    ]
}

/// Again and again: whoever may succeed gets it some time.
const SOON: RetryPolicy = RetryPolicy { base: 0.05, factor: 1.0, jitter: false, ..RetryPolicy::new(100_000) };

/// The programs' names are senders that are a text.
fn by(delivery: &Delivery) -> String {
    ["django", "celery", "send_task", "rust"]
        .into_iter()
        .find(|name| delivery.sender == Sender::name(name))
        .map_or_else(|| delivery.sender.to_string(), str::to_owned)
}

fn tell(values: &impl Fields, delivery: &Delivery) -> Result<(), BoxError> {
    for (name, value) in values.fields() {
        record("told", &by(delivery), delivery, json!({"name": name, "value": value}))?;
    }
    Ok(())
}

#[receiver(PLAIN)]
fn told_plain(values: &Plain, delivery: &Delivery) -> Result<(), BoxError> {
    tell(values, delivery)
}

#[receiver(MARKED)]
async fn told_marked(values: Marked, delivery: Delivery) -> Result<(), BoxError> {
    tell(&values, &delivery)
}

/// Connects a receiver for each kind of sender.
pub(crate) fn connect_by_sender() -> Result<(), ConnectError> {
    for (wanted, sender) in senders() {
        let hears = move |told: &SentBy, delivery: &Delivery| {
            let same = senders().iter().any(|(kind, sender)| *kind == told.kind && *sender == delivery.sender);
            record("hears", &told.by, delivery, json!({"wanted": wanted, "kind": told.kind, "same": same}))
        };
        SENT_BY.try_connect_with(hears, Connect::new().sender(sender).dispatch_uid(wanted))?;
    }
    Ok(())
}

#[receiver(SHAKY)]
fn steady(shaky: &Shaky, delivery: &Delivery) -> Result<(), BoxError> {
    Ok(record("steady", &by(delivery), delivery, json!({"number": shaky.number}))?)
}

#[receiver(SHAKY, retry = SOON, dispatch_uid = "matrix.shaky")]
async fn tried(shaky: Shaky, delivery: Delivery) -> Result<(), BoxError> {
    record("shaky", &by(&delivery), &delivery, json!({"number": shaky.number}))?;
    match &*shaky.fails {
        "rust" => Err("not here, not now".into()),
        "once" if delivery.attempt == 1 => Err("not now".into()),
        _ => Ok(()),
    }
}

#[receiver(SHAKY)]
fn steady_too(shaky: &Shaky, delivery: &Delivery) -> Result<(), BoxError> {
    Ok(record("steady_too", &by(delivery), delivery, json!({"number": shaky.number}))?)
}

#[receiver(ONE_SIDED, retry = SOON, dispatch_uid = "matrix.only_in_rust")]
fn in_vain(_: ()) -> Result<(), &'static str> {
    Err("never")
}

#[receiver(COUNTED)]
fn counts(counted: &Counted, delivery: &Delivery) -> Result<(), BoxError> {
    Ok(record("counts", &by(delivery), delivery, json!({"number": counted.number}))?)
}
