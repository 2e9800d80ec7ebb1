//! How kombu lays its queues and bindings out in a Redis database
//! (`kombu/transport/redis.py:Channel`).

use serde_json::{Map, Value};

use crate::broker::BrokerError;

/// The names of keys, as `broker_transport_options` shape them.
#[derive(Clone, Debug)]
pub(super) struct Keys {
    /// Stands before every key.
    prefix: String,
    /// Stands between a queue's name and its priority, and between the parts of a binding.
    separator: String,
    /// What follows a queue's name for each priority from 0 to 9.
    suffixes: [String; 10],
    /// The suffixes of all steps, each once: all lists of a queue.
    steps: Vec<String>,
    unacked: String,
    unacked_index: String,
    /// Stands before the names of fanout exchanges, `{db}` in place of the database's number.
    fanout: String,
    /// Whether the routing key stands behind them.
    fanout_patterns: bool,
}

impl Keys {
    /// Reads `global_keyprefix`, `sep`, `priority_steps`, `unacked_key`, `unacked_index_key`, `fanout_prefix` and
    /// `fanout_patterns`.
    pub(super) fn new(options: &Map<String, Value>) -> Result<Self, BrokerError> {
        let separator = text(options, "sep")?.unwrap_or("\x06\x16").to_owned();
        if separator.is_empty() {
            return Err(invalid("sep", "must not be empty: it tells a queue from its priorities"));
        }
        let steps = match options.get("priority_steps") {
            None | Some(Value::Null) => vec![0, 3, 6, 9],
            Some(steps) => priority_steps(steps).ok_or_else(|| {
                invalid("priority_steps", "must be a rising list of whole numbers, such as [0, 3, 6, 9]")
            })?,
        };
        let suffix = |step: i64| if step == 0 { String::new() } else { format!("{separator}{step}") };
        let suffixes = std::array::from_fn(|priority| {
            // As kombu's bisect has it: below the first step comes the last one.
            let above = steps.partition_point(|step| *step <= priority as i64);
            suffix(steps[above.checked_sub(1).unwrap_or(steps.len() - 1)])
        });
        let prefix = text(options, "global_keyprefix")?.unwrap_or_default().to_owned();
        let key = |option: &str, default: &str| Ok([&prefix, text(options, option)?.unwrap_or(default)].concat());
        Ok(Self {
            unacked: key("unacked_key", "unacked")?,
            unacked_index: key("unacked_index_key", "unacked_index")?,
            fanout: match options.get("fanout_prefix") {
                Some(Value::String(prefix)) if !prefix.is_empty() => prefix.clone(),
                Some(given) if !truth(given) => String::new(),
                _ => "/{db}.".to_owned(),
            },
            fanout_patterns: options.get("fanout_patterns").is_none_or(truth),
            prefix,
            suffixes,
            steps: steps.iter().map(|step| suffix(*step)).collect(),
            separator,
        })
    }

    /// The list that holds a queue's messages of one priority.
    pub(super) fn list(&self, queue: &str, priority: u8) -> String {
        [&self.prefix, queue, &self.suffixes[usize::from(priority.min(9))]].concat()
    }

    /// Every list that a queue may have, in the order in which kombu serves them.
    pub(super) fn lists(&self, queue: &str) -> impl Iterator<Item = String> {
        self.steps.iter().map(move |suffix| [&self.prefix, queue, suffix].concat())
    }

    /// The set of an exchange's bindings.
    pub(super) fn bindings(&self, exchange: &str) -> String {
        [&self.prefix, "_kombu.binding.", exchange].concat()
    }

    /// The set of those bindings whose queue does not expire: while it has
    /// members, kombu's sweep leaves the bindings alone.
    pub(super) fn permanent_bindings(&self, exchange: &str) -> String {
        [&self.prefix, "_kombu.binding_permanent.", exchange].concat()
    }

    /// The sorted set of exchanges with expiring queues, by when they may be swept.
    pub(super) fn deadlines(&self) -> String {
        [&self.prefix, "_kombu.binding_deadlines"].concat()
    }

    /// A member of an exchange's bindings.
    pub(super) fn binding(&self, routing_key: &str, pattern: &str, queue: &str) -> String {
        [routing_key, pattern, queue].join(&self.separator)
    }

    /// The key, the pattern and the queue of a member of an exchange's bindings.
    pub(super) fn parse_binding<'a>(&self, member: &'a str) -> Option<(&'a str, &'a str, &'a str)> {
        let mut parts = member.split(&self.separator);
        let (routing_key, pattern, queue) = (parts.next()?, parts.next()?, parts.next()?);
        (parts.next().is_none() && !queue.is_empty()).then_some((routing_key, pattern, queue))
    }

    /// The channel that a fanout exchange's messages of a routing key are published to.
    pub(super) fn fanout_channel(&self, database: i64, exchange: &str, routing_key: &str) -> String {
        let fanout = self.fanout.replace("{db}", &database.to_string());
        if self.fanout_patterns && !routing_key.is_empty() {
            [&self.prefix, &fanout, exchange, "/", routing_key].concat()
        } else {
            [&self.prefix, &fanout, exchange].concat()
        }
    }

    /// The hash of what was taken and not settled: tag → `[envelope, exchange, routing key]`.
    pub(super) fn unacked(&self) -> &str {
        &self.unacked
    }

    /// The sorted set of its tags, by the second in which each was taken or renewed last.
    pub(super) fn unacked_index(&self) -> &str {
        &self.unacked_index
    }

    /// Ours alone: the sorted set of workers, by the millisecond of their last sign of life.
    /// Whoever holds something stands in it.
    pub(super) fn workers(&self) -> String {
        [&self.prefix, "async_signals.workers"].concat()
    }

    /// Ours alone: the hash of the connection by which each worker may take.
    pub(super) fn generations(&self) -> String {
        [&self.prefix, "async_signals.generations"].concat()
    }
}

/// Whether Python takes a value for true.
fn truth(value: &Value) -> bool {
    match value {
        Value::Null => false,
        Value::Bool(truth) => *truth,
        Value::Number(number) => number.as_f64() != Some(0.0),
        Value::String(text) => !text.is_empty(),
        Value::Array(items) => !items.is_empty(),
        Value::Object(items) => !items.is_empty(),
    }
}

fn invalid(option: &str, reason: &str) -> BrokerError {
    BrokerError::InvalidOption { option: format!("broker_transport_options[{option:?}]"), reason: reason.to_owned() }
}

fn text<'a>(options: &'a Map<String, Value>, name: &str) -> Result<Option<&'a str>, BrokerError> {
    match options.get(name) {
        None | Some(Value::Null) => Ok(None),
        Some(Value::String(text)) => Ok(Some(text)),
        Some(_) => Err(invalid(name, "must be text")),
    }
}

fn priority_steps(steps: &Value) -> Option<Vec<i64>> {
    let steps: Vec<i64> = steps.as_array()?.iter().map(Value::as_i64).collect::<Option<_>>()?;
    (!steps.is_empty() && steps.is_sorted()).then_some(steps)
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn keys(options: Value) -> Result<Keys, BrokerError> {
        Keys::new(options.as_object().expect("a map"))
    }

    #[test]
    fn names_lists_as_kombu_does() {
        let plain = keys(json!({})).expect("the defaults");
        let lists: Vec<_> = [0, 2, 3, 5, 8, 9, 255].map(|priority| plain.list("q", priority)).into();
        assert_eq!(lists, ["q", "q", "q\x06\x163", "q\x06\x163", "q\x06\x166", "q\x06\x169", "q\x06\x169"]);
        assert_eq!(plain.lists("q").collect::<Vec<_>>(), ["q", "q\x06\x163", "q\x06\x166", "q\x06\x169"]);

        let own = keys(json!({"global_keyprefix": "shop:", "sep": ":", "priority_steps": [1, 5]})).expect("options");
        assert_eq!(
            [0, 1, 4, 5].map(|priority| own.list("q", priority)),
            ["shop:q:5", "shop:q:1", "shop:q:1", "shop:q:5"]
        );
        assert_eq!(own.bindings("x"), "shop:_kombu.binding.x");
        assert_eq!(own.permanent_bindings("x"), "shop:_kombu.binding_permanent.x");
        assert_eq!(own.deadlines(), "shop:_kombu.binding_deadlines");
        assert_eq!((own.unacked(), own.unacked_index()), ("shop:unacked", "shop:unacked_index"));
        let named = keys(json!({"global_keyprefix": "shop:", "unacked_key": "u", "unacked_index_key": "i"}));
        let named = named.expect("options");
        assert_eq!((named.unacked(), named.unacked_index()), ("shop:u", "shop:i"));
    }

    #[test]
    fn names_channels_as_kombu_does() {
        // Seen in `PUBSUB CHANNELS` and MONITOR under kombu 5.7.
        for (options, channel) in [
            (json!({}), "/3.celeryev/task.sent"),
            (json!({"global_keyprefix": "shop:", "fanout_prefix": true}), "shop:/3.celeryev/task.sent"),
            (json!({"fanout_prefix": "own-{db}-"}), "own-3-celeryev/task.sent"),
            (json!({"fanout_prefix": false, "fanout_patterns": false}), "celeryev"),
        ] {
            assert_eq!(keys(options).expect("options").fanout_channel(3, "celeryev", "task.sent"), channel);
        }
    }

    #[test]
    fn reads_the_bindings_it_writes() {
        let keys = keys(json!({})).expect("the defaults");
        assert_eq!(keys.binding("celery", "", "celery"), "celery\x06\x16\x06\x16celery");
        assert_eq!(keys.parse_binding("a.*\x06\x16^a$\x06\x16q"), Some(("a.*", "^a$", "q")));
        for member in ["", "a\x06\x16b", "a\x06\x16b\x06\x16", "a\x06\x16b\x06\x16c\x06\x16d"] {
            assert_eq!(keys.parse_binding(member), None, "{member:?}");
        }
    }

    #[test]
    fn names_the_option_that_makes_no_sense() {
        for options in [
            json!({"priority_steps": []}),
            json!({"priority_steps": "0369"}),
            json!({"priority_steps": [3, 0]}),
            json!({"sep": ""}),
            json!({"global_keyprefix": 1}),
        ] {
            let name = options.as_object().and_then(|map| map.keys().next()).expect("a name").clone();
            let error = keys(options).expect_err("no sense");
            assert!(error.to_string().contains(&name), "{error}");
        }
    }
}
