//! The two header fields that travel with an event: `Idempotency-Key` and `traceparent`. This module reads them.
//!
//! A key that cannot be read is refused, because the caller relies on it. A trace that cannot be read is replaced by
//! a new one, because tracing must never cost an event (W3C Trace Context, section 4.3).

use crate::domain::event::TraceContext;
use crate::domain::fields::DoorError;
use crate::domain::ids::IdempotencyKey;

const KEY: &str = "Idempotency-Key";

/// The flag by which a caller asks for its trace to be recorded.
const SAMPLED: u8 = 1;

/// Reads the value of `Idempotency-Key`: a quoted string of structured fields (RFC 9651), or the bare text.
///
/// # Errors
/// [`DoorError::Invalid`] where it is empty, too long, holds control characters or is quoted in part.
pub fn idempotency_key(header: &str) -> Result<IdempotencyKey, DoorError> {
    let header = header.trim();
    let parse = |text: &str| IdempotencyKey::parse(text).map_err(|error| DoorError::id(KEY, error));
    let Some(rest) = header.strip_prefix('"') else { return parse(header) };
    let mut key = String::with_capacity(rest.len());
    let mut letters = rest.chars();
    loop {
        match letters.next() {
            Some('"') => break,
            Some('\\') => match letters.next() {
                Some(letter @ ('"' | '\\')) => key.push(letter),
                _ => return Err(DoorError::invalid(KEY, "holds an unknown escape sequence")),
            },
            Some(letter) => key.push(letter),
            None => return Err(DoorError::invalid(KEY, "lacks its closing quote")),
        }
    }
    // Parameters mean nothing to us, and structured fields want such to be ignored.
    let rest = letters.as_str().trim_start();
    if rest.is_empty() || rest.starts_with(';') {
        parse(&key)
    } else {
        Err(DoorError::invalid(KEY, "goes on after its closing quote"))
    }
}

/// The trace that a request belongs to: the caller's, or a new one under the id that `fresh` makes.
pub fn traceparent(header: Option<&str>, fresh: impl FnOnce() -> [u8; 16]) -> TraceContext {
    header.and_then(parse_traceparent).unwrap_or_else(|| {
        let mut trace_id = fresh();
        if trace_id == [0; 16] {
            // All zero means no trace at all.
            trace_id[15] = 1;
        }
        TraceContext { trace_id, parent_id: [0; 8], sampled: false }
    })
}

/// Reads a `traceparent` of version 00, or of a later version, which may go on after what we know.
pub fn parse_traceparent(text: &str) -> Option<TraceContext> {
    let bytes = text.trim().as_bytes();
    let (known, more) = bytes.split_at_checked(55)?;
    let [version] = hex(&known[..2])?;
    let goes_on = more.first() == Some(&b'-');
    let fits = match version {
        0 => more.is_empty(),
        0xff => false,
        _ => more.is_empty() || goes_on,
    };
    if !fits || known[2] != b'-' || known[35] != b'-' || known[52] != b'-' {
        return None;
    }
    let (trace_id, parent_id) = (hex(&known[3..35])?, hex(&known[36..52])?);
    let [flags] = hex(&known[53..])?;
    (trace_id != [0; 16] && parent_id != [0; 8]).then_some(TraceContext {
        trace_id,
        parent_id,
        sampled: flags & SAMPLED != 0,
    })
}

/// The trace's id as users know it.
pub fn trace_id_hex(trace: &TraceContext) -> String {
    format!("{:032x}", u128::from_be_bytes(trace.trace_id))
}

/// The `traceparent` that hands `trace` on, with the sender's own span as the parent.
pub fn format_traceparent(trace: &TraceContext, span_id: [u8; 8]) -> String {
    let (span, flags) = (u64::from_be_bytes(span_id), u8::from(trace.sampled));
    format!("00-{}-{span:016x}-{flags:02x}", trace_id_hex(trace))
}

/// Bytes from lower-case hexadecimal digits.
fn hex<const N: usize>(digits: &[u8]) -> Option<[u8; N]> {
    let value = |digit: u8| match digit {
        b'0'..=b'9' => Some(digit - b'0'),
        b'a'..=b'f' => Some(digit - b'a' + 10),
        _ => None,
    };
    let mut bytes = [0; N];
    if digits.len() != 2 * N {
        return None;
    }
    for (byte, pair) in bytes.iter_mut().zip(digits.chunks_exact(2)) {
        *byte = value(pair[0])? << 4 | value(pair[1])?;
    }
    Some(bytes)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_key_may_be_quoted_or_bare() {
        for (header, key) in [
            ("8e03978e-40d5", "8e03978e-40d5"),
            ("\"8e03978e-40d5\"", "8e03978e-40d5"),
            ("  \"a b\"  ", "a b"),
            (r#""a\"b\\c""#, r#"a"b\c"#),
            (r#"a"b"#, r#"a"b"#),
            ("\"a\";p=1", "a"),
            ("a;b", "a;b"),
        ] {
            assert_eq!(idempotency_key(header).unwrap().as_str(), key, "{header}");
        }
        for (header, problem) in [
            ("", "Idempotency-Key is empty"),
            ("\"\"", "Idempotency-Key is empty"),
            ("\"a", "Idempotency-Key lacks its closing quote"),
            ("\"a\\", "Idempotency-Key holds an unknown escape sequence"),
            ("\"a\\n\"", "Idempotency-Key holds an unknown escape sequence"),
            ("\"a\" b", "Idempotency-Key goes on after its closing quote"),
            ("a\tb", "Idempotency-Key holds a control character"),
            (&"x".repeat(256), "Idempotency-Key is longer than 255 characters"),
        ] {
            assert_eq!(idempotency_key(header).unwrap_err().to_string(), problem, "{header}");
        }
        idempotency_key(&format!("\"{}\"", "x".repeat(255))).unwrap();
    }

    const TRACE: &str = "4bf92f3577b34da6a3ce929d0e0e4736";

    #[test]
    fn a_trace_goes_on_where_it_can_be_read() {
        let own = traceparent(Some(&format!("00-{TRACE}-00f067aa0ba902b7-01")), || [9; 16]);
        assert_eq!(trace_id_hex(&own), TRACE);
        assert_eq!(own.parent_id, [0, 0xf0, 0x67, 0xaa, 0x0b, 0xa9, 0x02, 0xb7]);
        assert!(own.sampled);
        assert_eq!(format_traceparent(&own, [1; 8]), format!("00-{TRACE}-0101010101010101-01"));
        for later in [
            format!("cc-{TRACE}-00f067aa0ba902b7-00"),
            format!("01-{TRACE}-00f067aa0ba902b7-02-what-comes"),
        ] {
            let trace = parse_traceparent(&later).unwrap();
            assert_eq!((trace.trace_id, trace.sampled), (own.trace_id, false), "{later}");
        }
    }

    #[test]
    fn a_malformed_trace_never_rejects_but_starts_a_new_one() {
        for bad in [
            "".to_string(),
            "x".to_string(),
            "ä".repeat(40),
            format!("00-{TRACE}-00f067aa0ba902b7"),
            format!("00-{TRACE}-00f067aa0ba902b7-01-"),
            format!("00-{TRACE}-00f067aa0ba902b7-0g"),
            format!("00-{}-00f067aa0ba902b7-01", TRACE.to_uppercase()),
            format!("00-{TRACE}-0000000000000000-01"),
            format!("00-{}-00f067aa0ba902b7-01", "0".repeat(32)),
            format!("ff-{TRACE}-00f067aa0ba902b7-01"),
            format!("01-{TRACE}-00f067aa0ba902b7-01x"),
            format!("00_{TRACE}-00f067aa0ba902b7-01"),
        ] {
            let trace = traceparent(Some(&bad), || [9; 16]);
            assert_eq!((trace.trace_id, trace.parent_id), ([9; 16], [0; 8]), "{bad}");
            assert!(!trace.sampled);
        }
        assert_ne!(traceparent(None, || [0; 16]).trace_id, [0; 16]);
    }
}
