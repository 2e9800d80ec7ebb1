//! Text that came from outside, fit for a header and a log.

use std::borrow::Cow;

/// At most `bytes` bytes of a text from its beginning, in one line without control characters.
pub(crate) fn line(text: &str, bytes: usize) -> String {
    let mut out = String::with_capacity(text.len().min(bytes));
    for character in text.chars() {
        if out.len() + character.len_utf8() > bytes {
            break;
        }
        out.push(if is_fit(character) { character } else { ' ' });
    }
    out
}

/// How many bytes of a name or an id a log line holds.
const SHOWN: usize = 200;

/// A name or an id that anybody may have written, for a log line.
pub(crate) fn shown(text: &str) -> Cow<'_, str> {
    if text.len() <= SHOWN && text.chars().all(is_fit) { Cow::Borrowed(text) } else { Cow::Owned(line(text, SHOWN)) }
}

/// At most `bytes` bytes of a text from its end, which of a traceback says the
/// most. Its lines stay lines.
pub(crate) fn last_lines(text: &str, bytes: usize) -> String {
    let mut start = text.len().saturating_sub(bytes);
    while !text.is_char_boundary(start) {
        start += 1;
    }
    text[start..]
        .chars()
        .map(|character| if is_fit(character) || character == '\n' { character } else { ' ' })
        .collect()
}

/// Neither a control character nor one that turns the direction of text
/// around or breaks its line.
fn is_fit(character: char) -> bool {
    !character.is_control()
        && !matches!(character, '\u{200e}' | '\u{200f}' | '\u{2028}'..='\u{202e}' | '\u{2066}'..='\u{2069}')
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn lines_are_cut_and_cleaned() {
        assert_eq!(line("a\nb\u{1b}[31m\u{202e}c", 100), "a b [31m c");
        assert_eq!(line("äöü", 5), "äö");
        assert_eq!(shown("0b9f4d3c\n"), "0b9f4d3c ");
        assert!(matches!(shown("0b9f4d3c"), Cow::Borrowed(_)));
        assert_eq!(shown(&"x".repeat(1 << 20)).len(), SHOWN);
        assert_eq!(last_lines("first\nlast\r", 6), "\nlast ");
        assert_eq!(last_lines("äöü", 5), "öü");
    }

    proptest! {
        #[test]
        fn never_longer_than_asked(text: String, bytes in 0..64usize) {
            prop_assert!(line(&text, bytes).len() <= bytes);
            prop_assert!(!line(&text, bytes).contains(char::is_control));
            prop_assert!(last_lines(&text, bytes).len() <= bytes);
        }
    }
}
