//! JSON bytes in, tokens out.

use std::borrow::Cow;

use super::{JsonError, Limits};

/// One piece of JSON, in the order of the bytes.
#[derive(Clone, Debug, PartialEq)]
pub enum Token<'a> {
    /// `null`
    Null,
    /// `true` or `false`
    Bool(bool),
    /// A whole number: its digits, however many, with or without a minus.
    Int(&'a str),
    /// A number with a fraction or an exponent; always finite.
    Float(f64),
    /// A string.
    String(Cow<'a, str>),
    /// `[`
    BeginArray,
    /// `]`
    EndArray,
    /// `{`; a [`Token::Key`] or [`Token::EndObject`] follows.
    BeginObject,
    /// The key of the value that follows.
    Key(Cow<'a, str>),
    /// `}`
    EndObject,
}

/// Reads one JSON text token by token. Strict: no NaN, no lone surrogates, no
/// trailing bytes. Recursion and memory are bounded by the [`Limits`].
///
/// ```
/// use async_signals::protocol::json::{JsonReader, Limits, Token};
///
/// let mut json = JsonReader::new(b"[5]", Limits::default())?;
/// assert_eq!(json.next()?, Some(Token::BeginArray));
/// assert_eq!(json.next()?, Some(Token::Int("5")));
/// assert_eq!(json.next()?, Some(Token::EndArray));
/// assert_eq!(json.next()?, None);
/// # Ok::<(), async_signals::protocol::json::JsonError>(())
/// ```
#[derive(Debug)]
pub struct JsonReader<'a> {
    text: &'a str,
    at: usize,
    limits: Limits,
    nodes: usize,
    /// The arrays and objects that are open, the outermost first.
    open: Vec<Container>,
    expect: Expect,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Container {
    Array,
    Object,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Expect {
    Value,
    /// After `[`
    ValueOrEnd,
    /// After `{`
    KeyOrEnd,
    /// After a value
    CommaOrEnd,
    /// After the outermost value
    Nothing,
}

impl<'a> JsonReader<'a> {
    /// A reader of `bytes`, which must be UTF-8.
    pub fn new(bytes: &'a [u8], limits: Limits) -> Result<Self, JsonError> {
        if bytes.len() > limits.max_bytes {
            return Err(JsonError::TooLarge { size: bytes.len(), limit: limits.max_bytes });
        }
        let text = std::str::from_utf8(bytes)
            .map_err(|error| JsonError::Malformed { expected: "UTF-8", at: error.valid_up_to() })?;
        Ok(Self { text, at: 0, limits, nodes: 0, open: Vec::new(), expect: Expect::Value })
    }

    /// The next token; `None` after the last.
    #[expect(clippy::should_implement_trait, reason = "an iterator would go on after an error")]
    pub fn next(&mut self) -> Result<Option<Token<'a>>, JsonError> {
        loop {
            self.skip_whitespace();
            let Some(byte) = self.peek() else {
                return if self.expect == Expect::Nothing { Ok(None) } else { Err(self.malformed("more")) };
            };
            match (self.expect, byte) {
                (Expect::Nothing, _) => return Err(self.malformed("the end")),
                (Expect::ValueOrEnd, b']') | (Expect::KeyOrEnd, b'}') => return Ok(Some(self.end())),
                (Expect::Value | Expect::ValueOrEnd, _) => return self.value(byte).map(Some),
                (Expect::KeyOrEnd, _) => return self.key().map(Some),
                (Expect::CommaOrEnd, b',') => {
                    self.at += 1;
                    if self.open.last() == Some(&Container::Array) {
                        self.expect = Expect::Value;
                    } else {
                        self.skip_whitespace();
                        return self.key().map(Some);
                    }
                }
                (Expect::CommaOrEnd, b']') if self.open.last() == Some(&Container::Array) => {
                    return Ok(Some(self.end()));
                }
                (Expect::CommaOrEnd, b'}') if self.open.last() == Some(&Container::Object) => {
                    return Ok(Some(self.end()));
                }
                (Expect::CommaOrEnd, _) => return Err(self.malformed("a comma or a closing bracket")),
            }
        }
    }

    /// The byte behind the last token, counted from 0.
    #[must_use]
    pub fn position(&self) -> usize {
        self.at
    }

    fn value(&mut self, first: u8) -> Result<Token<'a>, JsonError> {
        self.count()?;
        let token = match first {
            b'{' => return self.begin(Container::Object),
            b'[' => return self.begin(Container::Array),
            b'"' => Token::String(self.string()?),
            b'n' => self.word("null", Token::Null)?,
            b't' => self.word("true", Token::Bool(true))?,
            b'f' => self.word("false", Token::Bool(false))?,
            b'-' | b'0'..=b'9' => self.number()?,
            _ => return Err(self.malformed("a value")),
        };
        self.after_value();
        Ok(token)
    }

    fn begin(&mut self, container: Container) -> Result<Token<'a>, JsonError> {
        if self.open.len() >= self.limits.max_depth {
            return Err(JsonError::TooDeep { limit: self.limits.max_depth });
        }
        self.at += 1;
        self.open.push(container);
        Ok(match container {
            Container::Array => {
                self.expect = Expect::ValueOrEnd;
                Token::BeginArray
            }
            Container::Object => {
                self.expect = Expect::KeyOrEnd;
                Token::BeginObject
            }
        })
    }

    fn end(&mut self) -> Token<'a> {
        self.at += 1;
        let container = self.open.pop();
        self.after_value();
        if container == Some(Container::Array) { Token::EndArray } else { Token::EndObject }
    }

    fn after_value(&mut self) {
        self.expect = if self.open.is_empty() { Expect::Nothing } else { Expect::CommaOrEnd };
    }

    fn key(&mut self) -> Result<Token<'a>, JsonError> {
        if self.peek() != Some(b'"') {
            return Err(self.malformed("a key"));
        }
        self.count()?;
        let key = self.string()?;
        self.skip_whitespace();
        if self.peek() != Some(b':') {
            return Err(self.malformed("a colon"));
        }
        self.at += 1;
        self.expect = Expect::Value;
        Ok(Token::Key(key))
    }

    fn word(&mut self, word: &'static str, token: Token<'a>) -> Result<Token<'a>, JsonError> {
        if !self.rest().starts_with(word) {
            return Err(self.malformed(word));
        }
        self.at += word.len();
        Ok(token)
    }

    fn number(&mut self) -> Result<Token<'a>, JsonError> {
        let start = self.at;
        if self.peek() == Some(b'-') {
            self.at += 1;
        }
        if self.peek() == Some(b'0') {
            self.at += 1;
        } else {
            self.digits()?;
        }
        let mut whole = true;
        if self.peek() == Some(b'.') {
            whole = false;
            self.at += 1;
            self.digits()?;
        }
        if matches!(self.peek(), Some(b'e' | b'E')) {
            whole = false;
            self.at += 1;
            if matches!(self.peek(), Some(b'+' | b'-')) {
                self.at += 1;
            }
            self.digits()?;
        }
        let text = &self.text[start..self.at];
        if whole {
            return Ok(Token::Int(text));
        }
        match text.parse::<f64>() {
            Ok(value) if value.is_finite() => Ok(Token::Float(value)),
            _ => Err(JsonError::NotFinite),
        }
    }

    fn digits(&mut self) -> Result<(), JsonError> {
        let digits = self.rest().bytes().take_while(u8::is_ascii_digit).count();
        if digits == 0 {
            return Err(self.malformed("a digit"));
        }
        self.at += digits;
        Ok(())
    }

    /// A string, from its opening quote on. Without escapes it is borrowed.
    fn string(&mut self) -> Result<Cow<'a, str>, JsonError> {
        self.at += 1;
        let mut unescaped: Option<String> = None;
        loop {
            let rest = self.rest();
            let plain = rest.bytes().take_while(|&byte| byte >= 0x20 && byte != b'"' && byte != b'\\').count();
            let piece = &rest[..plain];
            self.at += plain;
            match self.peek() {
                Some(b'"') => {
                    self.at += 1;
                    return Ok(match unescaped {
                        None => Cow::Borrowed(piece),
                        Some(text) => Cow::Owned(text + piece),
                    });
                }
                Some(b'\\') => {
                    self.at += 1;
                    let character = self.escaped()?;
                    let text = unescaped.get_or_insert_default();
                    text.push_str(piece);
                    text.push(character);
                }
                _ => return Err(self.malformed("a closing quote")),
            }
        }
    }

    fn escaped(&mut self) -> Result<char, JsonError> {
        let character = match self.peek() {
            Some(byte @ (b'"' | b'\\' | b'/')) => char::from(byte),
            Some(b'b') => '\u{8}',
            Some(b'f') => '\u{c}',
            Some(b'n') => '\n',
            Some(b'r') => '\r',
            Some(b't') => '\t',
            Some(b'u') => {
                self.at += 1;
                return self.escaped_unicode();
            }
            _ => return Err(self.malformed("an escape")),
        };
        self.at += 1;
        Ok(character)
    }

    /// Four hexadecimal digits, and four more where the first are half of a pair.
    fn escaped_unicode(&mut self) -> Result<char, JsonError> {
        let high = self.hex()?;
        let code = if (0xd800..0xdc00).contains(&high) {
            self.word("\\u", Token::Null)?;
            let low = self.hex()?;
            if !(0xdc00..0xe000).contains(&low) {
                return Err(self.malformed("the second half of a surrogate pair"));
            }
            0x1_0000 + ((high - 0xd800) << 10) + (low - 0xdc00)
        } else {
            high
        };
        char::from_u32(code).ok_or_else(|| self.malformed("a character"))
    }

    fn hex(&mut self) -> Result<u32, JsonError> {
        let digits = self.text.as_bytes().get(self.at..self.at + 4).unwrap_or_default();
        if digits.len() != 4 || !digits.iter().all(u8::is_ascii_hexdigit) {
            return Err(self.malformed("four hexadecimal digits"));
        }
        self.at += 4;
        Ok(digits.iter().fold(0, |code, &digit| code * 16 + char::from(digit).to_digit(16).unwrap_or(0)))
    }

    fn count(&mut self) -> Result<(), JsonError> {
        if self.nodes >= self.limits.max_nodes {
            return Err(JsonError::TooMany { limit: self.limits.max_nodes });
        }
        self.nodes += 1;
        Ok(())
    }

    fn skip_whitespace(&mut self) {
        while matches!(self.peek(), Some(b' ' | b'\t' | b'\n' | b'\r')) {
            self.at += 1;
        }
    }

    fn peek(&self) -> Option<u8> {
        self.text.as_bytes().get(self.at).copied()
    }

    fn rest(&self) -> &'a str {
        &self.text[self.at..]
    }

    fn malformed(&self, expected: &'static str) -> JsonError {
        JsonError::Malformed { expected, at: self.at }
    }
}
