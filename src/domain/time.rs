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
        PRINTED.contains(&micros).then_some(Self(micros))
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

/// The longest text of [`Timestamp::print`]: `2026-01-28T10:30:00.123456Z`.
pub const TEXT_BYTES: usize = 27;

/// The moments of the years 1970 to 9999.
const PRINTED: std::ops::RangeInclusive<i64> = 0..=253_402_300_799_999_999;

impl Timestamp {
    /// Writes RFC 3339 in UTC with `Z` and as many fractional digits as the moment has. Every answer holds several, so
    /// it is done by hand. None: it lies outside the years 1970-9999.
    pub fn print(self, text: &mut [u8; TEXT_BYTES]) -> Option<&str> {
        if !PRINTED.contains(&self.0) {
            return None;
        }
        let micros = self.0.unsigned_abs();
        let (seconds, fraction) = (micros / 1_000_000, micros % 1_000_000);
        let (days, second) = (seconds / 86_400, seconds % 86_400);
        let (year, month, day) = date(days);
        *text = *b"0000-00-00T00:00:00.000000Z";
        digits(&mut text[0..4], year);
        digits(&mut text[5..7], month);
        digits(&mut text[8..10], day);
        digits(&mut text[11..13], second / 3600);
        digits(&mut text[14..16], second / 60 % 60);
        digits(&mut text[17..19], second % 60);
        digits(&mut text[20..26], fraction);
        // Without a fraction the point goes, too.
        let end = if fraction == 0 {
            19
        } else {
            text[..26].iter().rposition(|digit| *digit != b'0').map_or(19, |last| last + 1)
        };
        text[end] = b'Z';
        std::str::from_utf8(&text[..=end]).ok()
    }
}

/// Year, month and day of the day number `days` after 1970-01-01: in eras of 400 years and years that begin in March, so
/// that the leap day is a year's last.
fn date(days: u64) -> (u64, u64, u64) {
    let days = days + 719_468;
    let (era, day_of_era) = (days / 146_097, days % 146_097);
    let year_of_era =
        (day_of_era - day_of_era / 1460 + day_of_era / 36_524 - day_of_era / 146_096) / 365;
    let day_of_year = day_of_era - (365 * year_of_era + year_of_era / 4 - year_of_era / 100);
    let from_march = (5 * day_of_year + 2) / 153;
    let day = day_of_year - (153 * from_march + 2) / 5 + 1;
    let month = if from_march < 10 { from_march + 3 } else { from_march - 9 };
    let year = era * 400 + year_of_era + u64::from(month <= 2);
    (year, month, day)
}

/// Fills `text` with the last digits of `number`.
fn digits(text: &mut [u8], mut number: u64) {
    for place in text.iter_mut().rev() {
        *place = b'0' + u8::try_from(number % 10).unwrap_or(0);
        number /= 10;
    }
}

impl fmt::Display for Timestamp {
    /// As [`Timestamp::print`] does; a moment outside its years in microseconds.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.print(&mut [0; TEXT_BYTES]) {
            Some(text) => f.write_str(text),
            None => write!(f, "{} us", self.0),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The library ends a day before the year 9999 does.
    const LIBRARY: std::ops::RangeInclusive<i64> = 0..=253_402_207_199_999_999;

    fn library(micros: i64) -> String {
        jiff::Timestamp::from_microsecond(micros).unwrap().to_string()
    }

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
    fn prints_the_first_and_the_last_moment_and_every_day_as_the_library_does() {
        let check = |micros| assert_eq!(Timestamp(micros).to_string(), library(micros));
        check(*PRINTED.start());
        check(*LIBRARY.end());
        (0..)
            .map(|day| day * 86_400_000_000)
            .take_while(|day| LIBRARY.contains(day))
            .for_each(check);
        assert_eq!(Timestamp(*PRINTED.end()).to_string(), "9999-12-31T23:59:59.999999Z");
        for outside in [-1, *PRINTED.end() + 1] {
            assert_eq!(Timestamp(outside).to_string(), format!("{outside} us"));
        }
    }

    proptest::proptest! {
        #[test]
        fn prints_any_moment_as_the_library_does(micros in LIBRARY, coarse in 0..7_u32) {
            let unit = 10_i64.pow(coarse);
            let micros = micros / unit * unit;
            let library = library(micros);
            assert_eq!(Timestamp(micros).to_string(), library);
            assert_eq!(Timestamp::parse(&library), Some(Timestamp(micros)));
        }
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
