use serde::Deserialize;
use serde_json::Value;

use super::DeadLetter;

/// Which dead letters are meant. The default is all of them; each field that is set leaves some out.
///
/// ```
/// use async_signals::dead_letters::Filter;
///
/// let failed_mails = Filter { receiver: Some("shop.mail.confirm".to_owned()), ..Filter::default() };
/// ```
#[derive(Clone, Debug, Default, PartialEq, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Filter {
    /// Those that have one of these ids.
    pub ids: Vec<String>,
    /// Those of this signal, or of another task of this name.
    pub signal: Option<String>,
    /// Those that this receiver failed for, by its name in messages.
    pub receiver: Option<String>,
    /// Those in whose reason, or in the error of a receiver, this exception is named: `TimeoutError`.
    pub exception: Option<String>,
    /// Those that were dead-lettered before this moment, in seconds since 1970.
    pub before: Option<f64>,
    /// Those that were dead-lettered at this moment or later, in seconds since 1970.
    pub since: Option<f64>,
}

impl Filter {
    /// Whether a message is meant. One that does not say when it was dead-lettered is at no moment.
    pub fn matches(&self, letter: &DeadLetter) -> bool {
        if !self.ids.is_empty() && !self.ids.iter().any(|id| id == letter.id()) {
            return false;
        }
        if self.signal.is_some() && letter.signal() != self.signal {
            return false;
        }
        if self.receiver.is_none() && self.exception.is_none() && self.before.is_none() && self.since.is_none() {
            return true;
        }
        let why = letter.why();
        let failures = why.get("failures").and_then(Value::as_array).map(Vec::as_slice).unwrap_or_default();
        let texts = |name: &'static str| failures.iter().filter_map(move |failure| failure.get(name)?.as_str());
        if let Some(receiver) = &self.receiver
            && !texts("receiver").any(|name| name == receiver)
        {
            return false;
        }
        if let Some(exception) = &self.exception {
            let said = ["kind", "reason"].into_iter().filter_map(|name| why.get(name)?.as_str());
            if !texts("error").chain(said).any(|text| names(text, exception)) {
                return false;
            }
        }
        let at = why.get("at").and_then(Value::as_f64);
        self.before.is_none_or(|before| at.is_some_and(|at| at < before))
            && self.since.is_none_or(|since| at.is_some_and(|at| at >= since))
    }
}

/// Whether a text has a word in it, and not only as a part of another word.
fn names(text: &str, word: &str) -> bool {
    let is_part = |character: char| character.is_alphanumeric() || character == '_';
    !word.is_empty()
        && text.match_indices(word).any(|(start, found)| {
            !text[..start].ends_with(is_part) && !text[start + found.len()..].starts_with(is_part)
        })
}

#[cfg(test)]
mod tests {
    use super::names;

    #[test]
    fn an_exception_is_a_whole_word() {
        assert!(names("shop.mail: TimeoutError('late') failed", "TimeoutError"));
        assert!(names("socket.TimeoutError: late", "TimeoutError"));
        assert!(names("socket.TimeoutError: late", "socket.TimeoutError"));
        assert!(!names("ReadTimeoutError: late", "TimeoutError"));
        assert!(!names("TimeoutErrors", "TimeoutError"));
        assert!(!names("anything", ""));
    }
}
