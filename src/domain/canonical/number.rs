//! How a number is written in canonical JSON. This module holds the rule by which equal numbers get equal text.
//!
//! RFC 8785 reads every number as a double and writes it as ECMAScript does. Taken alone, that would make two
//! different order numbers of 17 digits one and the same, and a retry with another payload would pass for a repeat.
//! So a number is reduced to its sign, its digits without zeros at either end, and the place of its point, and:
//!
//! * If the shortest decimal that names the nearest double has the same digits, the double holds the number as it
//!   was written, and RFC 8785 rules.
//! * A fraction of at most [`DOUBLE_DIGITS_MAX`] digits below 2^53 is what programs print for a double (`%.17g`), and
//!   is rounded as RFC 8785 has it: its own example does so.
//! * Anything else (integers that a double cannot hold, longer fractions, what is too large or too small) keeps its
//!   own digits, laid out in the same way: `9007199254740993.0` becomes `9007199254740993`.
//!
//! So two numbers with the same digits have the same text however they are written, and the text of a text is itself.

use smallvec::SmallVec;

/// So many digits name every double; programs print no more of them.
const DOUBLE_DIGITS_MAX: usize = 17;
/// So many digits always survive the way into a double and back.
const SAFE_DIGITS_MAX: usize = 15;
/// Below this, a double holds the whole part of a number exactly.
const WHOLE_MAX: f64 = 9_007_199_254_740_992.0;
/// The most digits of an exponent, so that sums with it stay within 64 bits.
const EXPONENT_DIGITS_MAX: usize = 17;
/// From this power of ten on, ECMAScript writes an exponent.
const PLAIN_POINT_MAX: i64 = 21;
/// Down to this place of the point, ECMAScript writes leading zeros instead of an exponent.
const PLAIN_POINT_MIN: i64 = -5;

/// A number as it stands in the text.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Written<'t> {
    pub(super) text: &'t [u8],
    negative: bool,
    whole: &'t [u8],
    fraction: &'t [u8],
    /// With its sign, without the letter; empty where there is none.
    exponent: &'t [u8],
}

impl<'t> Written<'t> {
    /// The number at the start of `bytes`.
    pub(super) fn read(bytes: &'t [u8]) -> Result<Self, &'static str> {
        let negative = bytes.first() == Some(&b'-');
        let mut at = usize::from(negative);
        let whole = digits(&bytes[at..]);
        if whole.is_empty() {
            return Err("a minus without digits");
        }
        if whole.len() > 1 && whole[0] == b'0' {
            return Err("a number with leading zeros");
        }
        at += whole.len();
        let mut fraction: &[u8] = &[];
        if bytes.get(at) == Some(&b'.') {
            fraction = digits(&bytes[at + 1..]);
            if fraction.is_empty() {
                return Err("a point without digits");
            }
            at += 1 + fraction.len();
        }
        let mut exponent: &[u8] = &[];
        if let Some(b'e' | b'E') = bytes.get(at) {
            let sign = usize::from(matches!(bytes.get(at + 1), Some(b'+' | b'-')));
            let len = digits(&bytes[at + 1 + sign..]).len();
            if len == 0 {
                return Err("an exponent without digits");
            }
            exponent = &bytes[at + 1..at + 1 + sign + len];
            at += 1 + sign + len;
        }
        Ok(Self { text: &bytes[..at], negative, whole, fraction, exponent })
    }

    /// Writes the canonical text. Returns false when the exponent is out of bounds.
    pub(super) fn push(self, out: &mut Vec<u8>) -> bool {
        if self.is_canonical() {
            out.extend_from_slice(self.text);
            return true;
        }
        let Some(decimal) = self.decimal() else { return false };
        if decimal.digits.is_empty() {
            out.push(b'0');
            return true;
        }
        let text = std::str::from_utf8(self.text).expect("digits, signs, a point and an e");
        let double: f64 = text.parse().expect("the grammar of JSON is within that of Rust");
        if double.is_normal() || double.is_subnormal() {
            let mut buffer = ryu_js::Buffer::new();
            let shortest = buffer.format_finite(double).as_bytes();
            let same =
                Written::read(shortest).ok().and_then(Written::decimal).as_ref() == Some(&decimal);
            let printed = decimal.digits.len() <= DOUBLE_DIGITS_MAX
                && decimal.is_fraction()
                && double.is_normal()
                && double.abs() < WHOLE_MAX;
            if same || printed {
                out.extend_from_slice(shortest);
                return true;
            }
        }
        decimal.push(out);
        true
    }

    /// It is short and laid out as ECMAScript would do it: nothing to compute. Most numbers are.
    fn is_canonical(self) -> bool {
        self.exponent.is_empty()
            && self.whole.len() + self.fraction.len() <= SAFE_DIGITS_MAX
            && match self.fraction.last() {
                None => self.text != b"-0",
                Some(b'0') => false,
                // Zeros behind the point are written out down to 0.000001.
                Some(_) => {
                    self.whole != b"0" || self.fraction.iter().take(6).any(|&digit| digit != b'0')
                }
            }
    }

    fn decimal(self) -> Option<Decimal> {
        let mut digits: SmallVec<[u8; 32]> =
            self.whole.iter().chain(self.fraction).copied().collect();
        let leading = digits.iter().take_while(|&&digit| digit == b'0').count();
        digits.drain(..leading);
        let trailing = digits.iter().rev().take_while(|&&digit| digit == b'0').count();
        digits.truncate(digits.len() - trailing);
        if digits.is_empty() {
            // Zero is zero, whatever its sign and exponent.
            return Some(Decimal { negative: false, digits, point: 0 });
        }
        let exponent = match self.exponent {
            [] => 0,
            [b'-', rest @ ..] => -small(rest)?,
            [b'+', rest @ ..] | rest => small(rest)?,
        };
        let places =
            i64::try_from(self.whole.len()).ok()?.checked_sub(i64::try_from(leading).ok()?)?;
        Some(Decimal { negative: self.negative, digits, point: exponent.checked_add(places)? })
    }
}

/// A number reduced to what it says: ±0.`digits` × 10^`point`, without zeros at either end of the digits.
#[derive(Debug, PartialEq, Eq)]
struct Decimal {
    negative: bool,
    digits: SmallVec<[u8; 32]>,
    point: i64,
}

impl Decimal {
    fn is_fraction(&self) -> bool {
        i64::try_from(self.digits.len()).is_ok_and(|len| self.point < len)
    }

    /// Lays the digits out as ECMAScript's `Number::toString` does.
    fn push(&self, out: &mut Vec<u8>) {
        if self.negative {
            out.push(b'-');
        }
        let digits = &self.digits[..];
        match usize::try_from(self.point) {
            Ok(point) if point > 0 && self.point <= PLAIN_POINT_MAX => {
                if digits.len() <= point {
                    out.extend_from_slice(digits);
                    out.extend(std::iter::repeat_n(b'0', point - digits.len()));
                } else {
                    out.extend_from_slice(&digits[..point]);
                    out.push(b'.');
                    out.extend_from_slice(&digits[point..]);
                }
            }
            _ if (PLAIN_POINT_MIN..=0).contains(&self.point) => {
                out.extend_from_slice(b"0.");
                out.extend((self.point..0).map(|_| b'0'));
                out.extend_from_slice(digits);
            }
            _ => {
                out.push(digits[0]);
                if digits.len() > 1 {
                    out.push(b'.');
                    out.extend_from_slice(&digits[1..]);
                }
                out.push(b'e');
                let exponent = self.point - 1;
                out.push(if exponent < 0 { b'-' } else { b'+' });
                out.extend_from_slice(exponent.unsigned_abs().to_string().as_bytes());
            }
        }
    }
}

fn digits(bytes: &[u8]) -> &[u8] {
    let len = bytes.iter().position(|b| !b.is_ascii_digit()).unwrap_or(bytes.len());
    &bytes[..len]
}

/// The value of `digits`, unless there are too many of them.
fn small(digits: &[u8]) -> Option<i64> {
    let leading = digits.iter().take_while(|&&digit| digit == b'0').count();
    let digits = &digits[leading..];
    (digits.len() <= EXPONENT_DIGITS_MAX)
        .then(|| digits.iter().fold(0, |value, digit| value * 10 + i64::from(digit - b'0')))
}
