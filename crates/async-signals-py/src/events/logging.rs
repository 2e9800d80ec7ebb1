//! The core's log, as records of Python's `logging`.

use std::{
    fmt::{self, Write},
    sync::{
        Once,
        atomic::{AtomicUsize, Ordering},
    },
};

use pyo3::{intern, prelude::*, types::PyTuple};
use tracing::{
    Event, Level, Metadata, Subscriber,
    callsite::rebuild_interest_cache,
    field::{Field, Visit},
    level_filters::LevelFilter,
    span,
    subscriber::{self, Interest},
};

use super::{Event as Told, process::Process};

/// The logger of everything that the core says.
const LOGGER: &str = "async_signals.core";
/// The module path of everything that is logged: other crates have logs of their own, for themselves.
const CORE: &str = "async_signals";
/// How long a line may be, in characters.
const MOST_CHARACTERS: usize = 2_000;

/// What is logged, as `logging` counts: the place in [`LEVELS`] of the least severe, or none of them.
static LEAST: AtomicUsize = AtomicUsize::new(LEVELS.len());
/// The levels, by Python's numbers.
const LEVELS: [(u8, LevelFilter); 4] =
    [(10, LevelFilter::DEBUG), (20, LevelFilter::INFO), (30, LevelFilter::WARN), (40, LevelFilter::ERROR)];

/// A line of the log.
pub(super) struct Record {
    level: u8,
    text: String,
    file: &'static str,
    line: u32,
}

impl Record {
    /// Gives it to whoever handles the records of this logger.
    pub(super) fn log(self, py: Python<'_>) -> PyResult<()> {
        let logger = logger(py)?;
        if !is_enabled(&logger, self.level)? {
            return Ok(());
        }
        let arguments = PyTuple::empty(py);
        let record = logger.call_method1(
            intern!(py, "makeRecord"),
            (LOGGER, self.level, self.file, self.line, self.text, arguments, py.None()),
        )?;
        logger.call_method1(intern!(py, "handle"), (record,)).map(drop)
    }
}

/// The lines about events that were too many to wait: so many log lines, so many others.
pub(super) fn dropped((records, others): (u64, u64)) -> impl Iterator<Item = Record> {
    let line = |level, text| Record { level, text, file: file!(), line: line!() };
    let records = (records > 0).then(|| line(30, format!("{records} more log lines came too fast to be logged")));
    let others = (others > 0).then(|| {
        line(40, format!("{others} more background signals were not sent, too fast to be reported one by one"))
    });
    records.into_iter().chain(others)
}

/// Has the core log what Python's `logging` would take now. Cheap, and done whenever something else is done anyway.
pub(crate) fn follow_levels(py: Python<'_>) {
    static INSTALLED: Once = Once::new();
    let Ok(least) = least_level(py) else { return };
    let changed = LEAST.swap(least, Ordering::Relaxed) != least;
    // The process may hold another of ours only if it holds two copies of this module.
    INSTALLED.call_once(|| drop(subscriber::set_global_default(Logging)));
    if changed {
        rebuild_interest_cache();
    }
}

fn least_level(py: Python<'_>) -> PyResult<usize> {
    let logger = logger(py)?;
    for (place, (level, _)) in LEVELS.iter().enumerate() {
        if is_enabled(&logger, *level)? {
            return Ok(place);
        }
    }
    Ok(LEVELS.len())
}

fn logger(py: Python<'_>) -> PyResult<Bound<'_, PyAny>> {
    py.import(intern!(py, "logging"))?.call_method1(intern!(py, "getLogger"), (LOGGER,))
}

fn is_enabled(logger: &Bound<'_, PyAny>, level: u8) -> PyResult<bool> {
    logger.call_method1(intern!(logger.py(), "isEnabledFor"), (level,))?.is_truthy()
}

/// Takes what the core says by `tracing`.
struct Logging;

impl Subscriber for Logging {
    fn register_callsite(&self, metadata: &'static Metadata<'static>) -> Interest {
        // What is enabled may change, so each event is asked for; those beyond the hint below never get here.
        if is_of_core(metadata) { Interest::sometimes() } else { Interest::never() }
    }

    fn enabled(&self, metadata: &Metadata<'_>) -> bool {
        metadata.is_event() && is_of_core(metadata) && *metadata.level() <= most_verbose()
    }

    fn max_level_hint(&self) -> Option<LevelFilter> {
        Some(most_verbose())
    }

    fn new_span(&self, _: &span::Attributes<'_>) -> span::Id {
        span::Id::from_u64(1)
    }

    fn record(&self, _: &span::Id, _: &span::Record<'_>) {}

    fn record_follows_from(&self, _: &span::Id, _: &span::Id) {}

    fn event(&self, event: &Event<'_>) {
        let metadata = event.metadata();
        let mut sentence = Sentence::default();
        event.record(&mut sentence);
        Process::current().put(Told::Record(Record {
            level: match *metadata.level() {
                Level::ERROR => 40,
                Level::WARN => 30,
                Level::INFO => 20,
                _ => 10,
            },
            text: sentence.finish(),
            file: metadata.file().unwrap_or_default(),
            line: metadata.line().unwrap_or_default(),
        }));
    }

    fn enter(&self, _: &span::Id) {}

    fn exit(&self, _: &span::Id) {}
}

fn most_verbose() -> LevelFilter {
    LEVELS.get(LEAST.load(Ordering::Relaxed)).map_or(LevelFilter::OFF, |(_, filter)| *filter)
}

fn is_of_core(metadata: &Metadata<'_>) -> bool {
    metadata.target().split("::").next() == Some(CORE)
}

/// A message with its fields: `Cannot bind the queues (worker 5): the connection is gone`.
#[derive(Default)]
struct Sentence {
    message: String,
    fields: String,
    error: String,
}

impl Sentence {
    fn finish(mut self) -> String {
        if let Some(first) = self.message.get_mut(..1) {
            first.make_ascii_uppercase();
        }
        if !self.fields.is_empty() {
            self.message += " (";
            self.message += &self.fields;
            self.message += ")";
        }
        if !self.error.is_empty() {
            self.message += ": ";
            self.message += &self.error;
        }
        plain(&self.message)
    }

    fn add(&mut self, field: &Field, value: &dyn fmt::Display) {
        // A String takes everything; a value that cannot be written leaves its place empty.
        let _ = match field.name() {
            "message" => write!(self.message, "{value}"),
            "error" => write!(self.error, "{value}"),
            name => {
                let comma = if self.fields.is_empty() { "" } else { ", " };
                write!(self.fields, "{comma}{name} {value}")
            }
        };
    }
}

impl Visit for Sentence {
    fn record_debug(&mut self, field: &Field, value: &dyn fmt::Debug) {
        self.add(field, &format_args!("{value:?}"));
    }

    fn record_str(&mut self, field: &Field, value: &str) {
        self.add(field, &value);
    }
}

/// A text without what would break a log line or a terminal, and of a length that a log can take.
pub(super) fn plain(text: &str) -> String {
    let mut plain = String::with_capacity(text.len().min(MOST_CHARACTERS));
    for (count, char) in text.chars().enumerate() {
        if count == MOST_CHARACTERS {
            plain.push('…');
            break;
        }
        if char.is_control()
            || matches!(char, '\u{2028}' | '\u{2029}' | '\u{202a}'..='\u{202e}' | '\u{2066}'..='\u{2069}')
        {
            plain.extend(char.escape_default());
        } else {
            plain.push(char);
        }
    }
    plain
}
