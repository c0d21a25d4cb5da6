//! Oracle's number in 22 bytes: a length, an exponent of 100, and digits to the base of 100. This module turns it into
//! decimal text and back; PostgreSQL does the arithmetic.

/// The bytes of an `OCINumber`.
pub(crate) const SIZE: usize = 22;

/// More pairs of digits than this do not fit.
const PAIRS_MAX: usize = 20;

/// None where the text is no number, or one that Oracle's numbers can't hold.
pub(crate) fn from_text(text: &str) -> Option<[u8; SIZE]> {
    let (negative, text) = match text.strip_prefix('-') {
        Some(rest) => (true, rest),
        None => (false, text.strip_prefix('+').unwrap_or(text)),
    };
    let (mantissa, exponent) = match text.split_once(['e', 'E']) {
        Some((mantissa, exponent)) => (mantissa, exponent.parse::<i32>().ok()?),
        None => (text, 0),
    };
    let (whole, fraction) = mantissa.split_once('.').unwrap_or((mantissa, ""));
    let mut digits = Vec::with_capacity(mantissa.len());
    for byte in whole.bytes().chain(fraction.bytes()) {
        digits.push(byte.is_ascii_digit().then(|| byte - b'0')?);
    }
    if digits.is_empty() {
        return None;
    }
    // The value is 0.d1d2d3… times 10 to the power of `point`.
    let mut point = i32::try_from(whole.len()).ok()? + exponent;
    let leading = digits.iter().take_while(|digit| **digit == 0).count();
    digits.drain(..leading);
    point -= i32::try_from(leading).ok()?;
    while digits.last() == Some(&0) {
        digits.pop();
    }
    let mut number = [0; SIZE];
    if digits.is_empty() {
        number[0] = 1;
        number[1] = 0x80;
        return Some(number);
    }
    if point.rem_euclid(2) == 1 {
        digits.insert(0, 0);
        point += 1;
    }
    if digits.len() % 2 == 1 {
        digits.push(0);
    }
    let power = point / 2;
    if !(-64..=63).contains(&power) {
        return None;
    }
    let pairs: Vec<u8> =
        digits.chunks(2).take(PAIRS_MAX).map(|pair| pair[0] * 10 + pair[1]).collect();
    let exponent = u8::try_from(power + 192).ok()?;
    number[1] = if negative { !exponent } else { exponent };
    for (place, pair) in number[2..].iter_mut().zip(&pairs) {
        *place = if negative { 101 - pair } else { pair + 1 };
    }
    number[0] = u8::try_from(pairs.len() + 1).ok()?;
    if negative && pairs.len() < PAIRS_MAX {
        number[2 + pairs.len()] = 102;
        number[0] += 1;
    }
    Some(number)
}

pub(crate) fn to_text(number: &[u8; SIZE]) -> String {
    let length = usize::from(number[0]).clamp(1, SIZE - 1);
    if number[1] == 0x80 {
        return "0".to_owned();
    }
    let negative = number[1] & 0x80 == 0;
    let exponent = if negative { !number[1] } else { number[1] };
    let point = (i32::from(exponent) - 192) * 2;
    let mut digits = String::new();
    for byte in &number[2..=length] {
        let pair = match negative {
            true if *byte == 102 => break,
            true => 101 - byte,
            false => byte - 1,
        };
        digits.push(char::from(b'0' + pair / 10));
        digits.push(char::from(b'0' + pair % 10));
    }
    let sign = if negative { "-" } else { "" };
    let plain = match usize::try_from(point) {
        Err(_) | Ok(0) => {
            let zeros = "0".repeat(usize::try_from(-point).unwrap_or(0));
            format!("0.{zeros}{digits}")
        }
        Ok(point) if point >= digits.len() => {
            let zeros = "0".repeat(point - digits.len());
            format!("{digits}{zeros}")
        }
        Ok(point) => format!("{}.{}", &digits[..point], &digits[point..]),
    };
    let plain = if plain.contains('.') {
        plain.trim_end_matches('0').trim_end_matches('.')
    } else {
        &plain
    };
    let trimmed = plain.trim_start_matches('0');
    let whole = if trimmed.is_empty() || trimmed.starts_with('.') { "0" } else { "" };
    format!("{sign}{whole}{trimmed}")
}

#[cfg(test)]
mod tests {
    use super::{from_text, to_text};

    #[test]
    fn a_number_comes_back_as_it_went() {
        for text in [
            "0",
            "1",
            "-1",
            "10",
            "100",
            "-100",
            "99",
            "123456789",
            "9223372036854775807",
            "-9223372036854775808",
            "0.5",
            "-0.5",
            "0.05",
            "0.005",
            "12.5",
            "-987654321.125",
            "1000000000000000000000",
            "18446744073709551615",
        ] {
            let number = from_text(text).unwrap();
            assert_eq!(to_text(&number), text, "{number:?}");
        }
    }

    #[test]
    fn the_bytes_are_those_of_the_manual() {
        assert_eq!(from_text("1").unwrap()[..3], [2, 193, 2]);
        assert_eq!(from_text("-1").unwrap()[..4], [3, 62, 100, 102]);
        assert_eq!(from_text("123").unwrap()[..4], [3, 194, 2, 24]);
        assert_eq!(from_text("0.1").unwrap()[..3], [2, 192, 11]);
    }

    #[test]
    fn what_is_no_number_is_none() {
        for text in ["", "-", "x", "1x", "1e999"] {
            assert!(from_text(text).is_none(), "{text}");
        }
    }
}
