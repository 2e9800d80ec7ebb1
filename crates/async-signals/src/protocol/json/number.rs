//! Numbers as text, without an allocation.

use std::fmt::{self, Write as _};

/// As `float.__repr__`: plain from 1e-4 up to below 1e16, else with an
/// exponent of two digits or more.
pub(super) fn python_repr(value: f64) -> Text<32> {
    // "-d.dddddddddddddddde-ddd" is 24 bytes: Rust's shortest digits.
    let mut scientific = Text::<32>::default();
    let mut text = Text::default();
    let written = write!(scientific, "{value:e}").and_then(|()| reformat(scientific.as_str(), &mut text));
    debug_assert!(written.is_ok(), "{value:e} does not fit");
    text
}

fn reformat(scientific: &str, text: &mut Text<32>) -> fmt::Result {
    let (sign, unsigned) = match scientific.strip_prefix('-') {
        Some(unsigned) => ("-", unsigned),
        None => ("", scientific),
    };
    let (mantissa, exponent) = unsigned.split_once('e').ok_or(fmt::Error)?;
    let exponent: i32 = exponent.parse().map_err(|_| fmt::Error)?;
    let (first, rest) = mantissa.split_once('.').unwrap_or((mantissa, ""));
    text.write_str(sign)?;
    match exponent {
        0..16 => {
            let shift = exponent.unsigned_abs() as usize;
            if rest.len() > shift {
                let (whole, fraction) = rest.split_at(shift);
                write!(text, "{first}{whole}.{fraction}")
            } else {
                write!(text, "{first}{rest:0<shift$}.0")
            }
        }
        -4..0 => {
            let zeros = exponent.unsigned_abs() as usize - 1;
            write!(text, "0.{:0<zeros$}{first}{rest}", "")
        }
        _ => {
            let point = if rest.is_empty() { "" } else { "." };
            let sign = if exponent < 0 { '-' } else { '+' };
            write!(text, "{first}{point}{rest}e{sign}{:02}", exponent.unsigned_abs())
        }
    }
}

/// A little text without an allocation.
#[derive(Clone, Copy)]
pub(super) struct Text<const N: usize> {
    bytes: [u8; N],
    len: usize,
}

impl<const N: usize> Default for Text<N> {
    fn default() -> Self {
        Self { bytes: [0; N], len: 0 }
    }
}

impl<const N: usize> Text<N> {
    pub(super) fn as_bytes(&self) -> &[u8] {
        &self.bytes[..self.len]
    }

    fn as_str(&self) -> &str {
        std::str::from_utf8(self.as_bytes()).unwrap_or_default()
    }
}

impl<const N: usize> fmt::Write for Text<N> {
    fn write_str(&mut self, text: &str) -> fmt::Result {
        let end = self.len + text.len();
        self.bytes.get_mut(self.len..end).ok_or(fmt::Error)?.copy_from_slice(text.as_bytes());
        self.len = end;
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::python_repr;

    #[test]
    fn floats_look_as_python_prints_them() {
        let cases = [
            (0.0, "0.0"),
            (-0.0, "-0.0"),
            (1.0, "1.0"),
            (-12.5, "-12.5"),
            (100.0, "100.0"),
            (0.1, "0.1"),
            (0.0001, "0.0001"),
            (0.00001, "1e-05"),
            (1.5e-7, "1.5e-07"),
            (123456789012345.6, "123456789012345.6"),
            (1e15, "1000000000000000.0"),
            (1e16, "1e+16"),
            (1.25e100, "1.25e+100"),
            (f64::MAX, "1.7976931348623157e+308"),
            (f64::MIN_POSITIVE, "2.2250738585072014e-308"),
            (5e-324, "5e-324"),
        ];
        for (value, text) in cases {
            assert_eq!(python_repr(value).as_str(), text);
        }
    }

    proptest! {
        #[test]
        fn a_float_reads_back_as_itself(bits: u64) {
            let value = f64::from_bits(bits);
            prop_assume!(value.is_finite());
            let back: f64 = python_repr(value).as_str().parse().expect("a number");
            prop_assert_eq!(back.to_bits(), bits);
        }
    }
}
