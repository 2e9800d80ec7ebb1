//! Which queues a message reaches, by the rules of kombu's virtual transports
//! (`kombu/transport/virtual/exchange.py`): Redis, SQLite and memory have no
//! exchanges of their own.

use super::BrokerError;
use crate::message::{Exchange, Queue, Route};

/// The kinds of exchange that kombu's virtual transports know.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Kind {
    /// A queue gets what has exactly its key.
    Direct,
    /// A queue gets what matches its pattern.
    Topic,
    /// Every queue gets everything. Not spoken here, see [`Kind::matches`].
    Fanout,
}

impl Kind {
    /// The kind of a declared exchange.
    pub(super) fn of(exchange: &Exchange) -> Result<Self, BrokerError> {
        match exchange.kind.as_str() {
            "" | "direct" => Ok(Self::Direct),
            "topic" => Ok(Self::Topic),
            "fanout" => Ok(Self::Fanout),
            other => Err(BrokerError::InvalidOption {
                option: format!("exchange {:?}", exchange.name),
                reason: format!("this broker has no {other:?} exchanges; use a direct or a topic exchange"),
            }),
        }
    }

    /// Whether a message of that routing key reaches a queue bound with this key.
    ///
    /// A fanout exchange has no queues to look up: kombu broadcasts through it
    /// (Redis) or drops what goes there (SQLite), neither of which a signal can use.
    pub(super) fn matches(self, exchange: &str, bound: &str, routing_key: &str) -> Result<bool, BrokerError> {
        match self {
            Self::Direct => Ok(bound == routing_key),
            Self::Topic => Ok(topic_matches(bound, routing_key)),
            Self::Fanout => Err(BrokerError::InvalidOption {
                option: format!("exchange {exchange:?}"),
                reason: "a fanout exchange keeps no messages for workers on this broker; \
                         route signals to a direct or a topic exchange"
                    .to_owned(),
            }),
        }
    }

    /// What kombu stores as the pattern of a binding: a regular expression for a topic, else nothing.
    #[cfg(feature = "redis")]
    pub(super) fn pattern(self, routing_key: &str) -> String {
        if self != Self::Topic {
            return String::new();
        }
        let mut pattern = String::from("^");
        for (index, word) in routing_key.split('.').enumerate() {
            if index > 0 {
                pattern.push_str(r"\.");
            }
            match word {
                "*" => pattern.push_str(r"[^\.]+"),
                "#" => pattern.push_str(".*?"),
                word => word.chars().for_each(|char| push_escaped(&mut pattern, char)),
            }
        }
        pattern.push('$');
        pattern
    }
}

#[cfg(feature = "redis")]
fn push_escaped(pattern: &mut String, char: char) {
    match char {
        '#' | '*' => pattern.push(char),
        '\0' => pattern.push_str(r"\000"),
        char if char.is_alphanumeric() => pattern.push(char),
        char => pattern.extend(['\\', char]),
    }
}

/// One step of a topic's pattern.
#[derive(Clone, Copy)]
enum Step {
    One(char),
    /// A `*` inside a word repeats what stands before it, since kombu leaves it to the regular expression.
    Repeated(char),
    /// `*`: a word.
    Word,
    /// `#`: anything, dots included.
    Anything,
}

/// Matches as the regular expression that kombu makes of the key would.
///
/// That differs from AMQP in `#`: `order.#` does not match `order`.
fn topic_matches(bound: &str, routing_key: &str) -> bool {
    let mut steps = Vec::new();
    for (index, word) in bound.split('.').enumerate() {
        if index > 0 {
            steps.push(Step::One('.'));
        }
        match word {
            "*" => steps.push(Step::Word),
            "#" => steps.push(Step::Anything),
            word => {
                for char in word.chars() {
                    match (char, steps.last_mut()) {
                        ('*', Some(last @ Step::One(_))) => {
                            if let Step::One(repeated) = *last {
                                *last = Step::Repeated(repeated);
                            }
                        }
                        // No regular expression: kombu raises, nothing ever matches.
                        ('*', _) => return false,
                        (char, _) => steps.push(Step::One(char)),
                    }
                }
            }
        }
    }
    // Where in the key each step may begin: all ways at once, so that no
    // pattern takes more than steps × characters.
    let key: Vec<char> = routing_key.chars().collect();
    let mut reached = vec![false; key.len() + 1];
    reached[0] = true;
    for step in steps {
        let mut next = vec![false; key.len() + 1];
        for at in 0..=key.len() {
            let stays = matches!(step, Step::Anything | Step::Repeated(_)) && reached[at];
            let moves = at > 0
                && match step {
                    Step::One(char) => reached[at - 1] && key[at - 1] == char,
                    Step::Repeated(char) => next[at - 1] && key[at - 1] == char,
                    Step::Word => (reached[at - 1] || next[at - 1]) && key[at - 1] != '.',
                    Step::Anything => next[at - 1],
                };
            next[at] = stays || moves;
        }
        reached = next;
    }
    reached[key.len()]
}

/// The queues that a route reaches by what it declares itself: for brokers
/// that keep no bindings where others could see them.
pub(super) fn declared_queues(route: &Route) -> Result<Vec<&str>, BrokerError> {
    if route.exchange.is_empty() {
        return if route.routing_key.is_empty() { Err(unroutable(route)) } else { Ok(vec![&route.routing_key]) };
    }
    let mut queues: Vec<&str> = Vec::new();
    for (queue, exchange) in bound(route).filter(|(_, exchange)| exchange.name == route.exchange) {
        let matches = Kind::of(exchange)?.matches(&exchange.name, &queue.routing_key, &route.routing_key)?;
        if matches && !queues.contains(&queue.name.as_str()) {
            queues.push(&queue.name);
        }
    }
    if queues.is_empty() { Err(unroutable(route)) } else { Ok(queues) }
}

/// The queues that a route declares, each with the exchange it is bound to.
pub(super) fn bound(route: &Route) -> impl Iterator<Item = (&Queue, &Exchange)> {
    route.declare.iter().filter(|queue| queue.declare).filter_map(|queue| {
        let exchange = queue.exchange.as_ref().filter(|exchange| !exchange.name.is_empty())?;
        Some((queue, exchange))
    })
}

/// Nobody would get it.
pub(super) fn unroutable(route: &Route) -> BrokerError {
    BrokerError::Unroutable { exchange: route.exchange.clone(), routing_key: route.routing_key.clone() }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[cfg(feature = "redis")]
    #[test]
    fn stores_the_patterns_that_kombu_stores() {
        // Seen in the sets that kombu 5.7 writes.
        assert_eq!(Kind::Topic.pattern("order.*.eu-1"), r"^order\.[^\.]+\.eu\-1$");
        assert_eq!(Kind::Topic.pattern("order.#"), r"^order\..*?$");
        assert_eq!(Kind::Topic.pattern("a_b.ü*"), r"^a\_b\.ü*$");
        assert_eq!(Kind::Direct.pattern("order.*"), "");
    }

    #[test]
    fn matches_topics_as_kombu_does() {
        for (bound, matching, other) in [
            ("order.*", vec!["order.placed"], vec!["order", "order.", "order.placed.eu", "xorder.placed"]),
            ("order.#", vec!["order.", "order.placed", "order.placed.eu"], vec!["order", "orders.placed"]),
            ("#", vec!["", "order", "order.placed"], vec![]),
            ("#.eu", vec![".eu", "a.eu", "a.b.eu"], vec!["eu", "a.eus"]),
            ("*.b.*", vec!["a.b.c"], vec!["a.b", "b.b.", ".b.c", "a.x.c"]),
            ("a.b", vec!["a.b"], vec!["a,b", "a.bb", ""]),
            ("fo*", vec!["f", "fo", "fooo"], vec!["fox"]),
            ("*x", vec![], vec!["x", "ax"]),
        ] {
            for key in matching {
                assert!(topic_matches(bound, key), "{bound} should match {key}");
            }
            for key in other {
                assert!(!topic_matches(bound, key), "{bound} should not match {key}");
            }
        }
    }

    #[test]
    fn says_what_to_do_about_exchanges_that_no_signal_can_use() {
        let to = |kind: &str| {
            let mut queue = Queue::direct("a");
            queue.exchange = Some(Exchange { kind: kind.to_owned(), ..Exchange::direct("all") });
            Route { exchange: "all".to_owned(), routing_key: "a".to_owned(), declare: vec![queue] }
        };
        for kind in ["fanout", "headers"] {
            let error = declared_queues(&to(kind)).expect_err(kind).to_string();
            assert!(error.contains("\"all\"") && error.contains("topic exchange"), "{error}");
        }
        assert_eq!(declared_queues(&to("direct")).expect("a queue"), ["a"]);
    }
}
