//! A moment in UTC, to the microsecond. This module parses and prints it as RFC 3339 and reads no clock.

use std::fmt;
use std::time::Duration;

/// Microseconds since 1970-01-01T00:00:00Z.
#[derive(
    Debug,
    Clone,
    Copy,
    PartialEq,
    Eq,
    PartialOrd,
    Ord,
    Hash,
    Default,
    serde::Serialize,
    serde::Deserialize,
)]
#[serde(transparent)]
pub struct Timestamp(i64);

impl Timestamp {
    /// The moment `micros` after the epoch.
    pub const fn from_micros(micros: i64) -> Self {
        Self(micros)
    }

    /// Microseconds since the epoch.
    pub const fn micros(self) -> i64 {
        self.0
    }

    /// Parses RFC 3339 with any offset, such as `2026-01-28T10:30:00Z` or `2026-01-28T11:30:00.25+01:00`.
    ///
    /// Returns None when it is not a date and time with an offset, or lies outside the years 1970-9999.
    pub fn parse(text: &str) -> Option<Self> {
        // jiff also takes forms that RFC 3339 does not know (a zone in brackets, hours alone), so look first.
        let plain = text.len() >= 20
            && text.len() <= 40
            && text.bytes().all(|b| {
                matches!(
                    b,
                    b'0'..=b'9' | b'-' | b'+' | b':' | b'.' | b'T' | b't' | b' ' | b'Z' | b'z'
                )
            });
        if !plain {
            return None;
        }
        let moment: jiff::Timestamp = text.parse().ok()?;
        let micros = moment.as_microsecond();
        (0..=253_402_300_799_999_999).contains(&micros).then_some(Self(micros))
    }

    /// The moment `pause` later.
    pub fn plus(self, pause: Duration) -> Self {
        Self(self.0.saturating_add(i64::try_from(pause.as_micros()).unwrap_or(i64::MAX)))
    }

    /// The moment `pause` earlier.
    pub fn minus(self, pause: Duration) -> Self {
        Self(self.0.saturating_sub(i64::try_from(pause.as_micros()).unwrap_or(i64::MAX)))
    }

    /// How long after `earlier` this is; zero if it is before.
    pub fn since(self, earlier: Self) -> Duration {
        Duration::from_micros(u64::try_from(self.0.saturating_sub(earlier.0)).unwrap_or(0))
    }
}

impl fmt::Display for Timestamp {
    /// RFC 3339 in UTC with `Z`, with as many fractional digits as the moment has.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match jiff::Timestamp::from_microsecond(self.0) {
            Ok(moment) => fmt::Display::fmt(&moment, f),
            Err(_) => write!(f, "{} us", self.0),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn parses_and_prints_rfc_3339() {
        let moment = Timestamp::parse("2026-01-28T11:30:00.25+01:00").unwrap();
        assert_eq!(moment.to_string(), "2026-01-28T10:30:00.25Z");
        assert_eq!(
            Timestamp::parse("2026-01-28T10:30:00Z").unwrap().to_string(),
            "2026-01-28T10:30:00Z"
        );
    }

    #[test]
    fn refuses_what_has_no_offset_or_is_no_date() {
        for bad in [
            "",
            "2026-01-28",
            "2026-01-28T10:30:00",
            "2026-13-01T00:00:00Z",
            "yesterday",
            "2026-01-28T10:30:00[UTC]",
        ] {
            assert_eq!(Timestamp::parse(bad), None, "{bad:?}");
        }
    }

    #[test]
    fn differences_never_go_below_zero() {
        let (a, b) = (Timestamp::from_micros(5), Timestamp::from_micros(9));
        assert_eq!(b.since(a), Duration::from_micros(4));
        assert_eq!(a.since(b), Duration::ZERO);
    }
}
