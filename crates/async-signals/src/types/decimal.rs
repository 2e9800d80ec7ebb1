//! Decimal numbers, digit for digit.

use std::{fmt, str::FromStr};

use serde::{Deserialize, Deserializer, Serialize, Serializer};
use thiserror::Error;

use super::text;
use crate::payload::token;

/// A `Decimal`, digit for digit. It does not calculate; crates that do read it as text.
///
/// Equal means the same digits: `1.0` is not `1.00`, though Python finds them equal.
///
/// ```
/// use async_signals::types::Decimal;
///
/// let price: Decimal = "12.50".parse()?;
/// assert_eq!(price.as_str(), "12.50");
/// assert_eq!(Decimal::from(12).to_string(), "12");
/// assert!("12,50".parse::<Decimal>().is_err());
/// # Ok::<(), async_signals::types::NoDecimal>(())
/// ```
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct Decimal(Box<str>);

/// A text that is no decimal number.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Error)]
#[error("not a decimal number, such as 12.50, -1E+5 or NaN")]
#[non_exhaustive]
pub struct NoDecimal;

impl Decimal {
    /// Its digits, as Python's `str()` or whoever made it wrote them.
    #[must_use]
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

macro_rules! from_whole_numbers {
    ($($type:ty),*) => {
        $(impl From<$type> for Decimal {
            fn from(number: $type) -> Self {
                Self(number.to_string().into())
            }
        })*
    };
}
from_whole_numbers!(i32, u32, i64, u64, i128, u128);

impl From<Decimal> for String {
    fn from(decimal: Decimal) -> Self {
        decimal.0.into()
    }
}

impl fmt::Display for Decimal {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(&self.0)
    }
}

impl FromStr for Decimal {
    type Err = NoDecimal;

    fn from_str(text: &str) -> Result<Self, NoDecimal> {
        if is_decimal(text) { Ok(Self(text.into())) } else { Err(NoDecimal) }
    }
}

/// The grammar of Python's `Decimal`, without the underscores and blanks that it does not write itself
/// (<https://docs.python.org/3/library/decimal.html#decimal.Decimal>).
fn is_decimal(text: &str) -> bool {
    let unsigned = text.strip_prefix(['+', '-']).unwrap_or(text);
    let all_digits = |text: &str| text.bytes().all(|digit| digit.is_ascii_digit());
    if unsigned.starts_with(|first: char| first.is_ascii_alphabetic()) {
        let word = unsigned.to_ascii_lowercase();
        let payload = word.strip_prefix('s').unwrap_or(&word).strip_prefix("nan");
        return matches!(word.as_str(), "inf" | "infinity") || payload.is_some_and(all_digits);
    }
    let (mantissa, exponent) = match unsigned.split_once(['e', 'E']) {
        Some((mantissa, exponent)) => (mantissa, exponent.strip_prefix(['+', '-']).unwrap_or(exponent)),
        None => (unsigned, "0"),
    };
    let (whole, fraction) = mantissa.split_once('.').unwrap_or((mantissa, ""));
    let some = !(whole.is_empty() && fraction.is_empty());
    some && all_digits(whole) && all_digits(fraction) && !exponent.is_empty() && all_digits(exponent)
}

impl Serialize for Decimal {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.serialize_newtype_struct(token::DECIMAL, self.as_str())
    }
}

impl<'de> Deserialize<'de> for Decimal {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        text::read(deserializer, token::DECIMAL, "a decimal number")
    }
}
