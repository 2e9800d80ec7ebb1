//! Where a value stands in the arguments: `order.lines[2].price`.

use std::fmt::{self, Write as _};

/// One step from a value to one inside it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Step {
    /// An argument, a field or a map's entry, by name.
    Name(String),
    /// A place in a sequence.
    Index(usize),
    /// A member of a set.
    Member,
    /// A map's key itself.
    Key,
    /// The value of a map's entry whose key is no text.
    Entry,
}

/// The way to a value. It is found on the way back from it, so its steps come last first.
///
/// ```
/// use async_signals::payload::path::{Path, Step};
///
/// let mut path = Path::default();
/// for step in [Step::Name("price".into()), Step::Index(2), Step::Name("order".into())] {
///     path.add_outer(step);
/// }
/// assert_eq!(path.to_string(), "order[2].price");
/// ```
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Path {
    /// The last step first.
    steps: Vec<Step>,
}

/// More steps than this are cut: a value that contains itself has endless ones.
const STEPS_SHOWN: usize = 12;
/// Longer names are cut.
const NAME_SHOWN: usize = 40;

impl Path {
    /// Puts a step before those that are there.
    pub fn add_outer(&mut self, step: Step) {
        self.steps.push(step);
    }

    /// Whether no step is known.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.steps.is_empty()
    }
}

/// Nothing where no step is known.
impl fmt::Display for Path {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let mut path = String::new();
        for (index, step) in self.steps.iter().rev().enumerate() {
            if index == STEPS_SHOWN {
                path.push('…');
                break;
            }
            step.append_to(&mut path);
        }
        f.write_str(&path)
    }
}

impl Step {
    fn append_to(&self, path: &mut String) {
        // Writing to a string cannot fail.
        let _ = match self {
            Self::Name(name) if is_identifier(name) && path.is_empty() => write!(path, "{name}"),
            Self::Name(name) if is_identifier(name) => write!(path, ".{name}"),
            Self::Name(name) => {
                let shown: String = name.chars().take(NAME_SHOWN).collect();
                let more = if shown.len() < name.len() { "…" } else { "" };
                write!(path, "[{shown:?}{more}]")
            }
            Self::Index(index) => write!(path, "[{index}]"),
            Self::Member => write!(path, "{{…}}"),
            Self::Key => write!(path, " (a key)"),
            Self::Entry => write!(path, "[…]"),
        };
    }
}

fn is_identifier(name: &str) -> bool {
    let mut characters = name.chars();
    name.len() <= NAME_SHOWN
        && characters.next().is_some_and(|first| first.is_alphabetic() || first == '_')
        && characters.all(|character| character.is_alphanumeric() || character == '_')
}
