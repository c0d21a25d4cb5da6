//! OCI's timestamp descriptors. This module keeps one moment in each, alone or in an array, and knows them as text.

/// A date and a time of day, and the offset of a time zone.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(crate) struct Moment {
    pub year: i16,
    pub month: u8,
    pub day: u8,
    pub hour: u8,
    pub minute: u8,
    pub second: u8,
    pub nanosecond: u32,
    pub offset_minutes: i16,
    /// How many are in the array that this is the first of; 0: it stands alone.
    pub array: usize,
}

impl Moment {
    pub(crate) fn alone() -> Self {
        Self { year: 1, month: 1, day: 1, ..Self::default() }
    }

    /// A new array, handed out as pointers to each.
    ///
    /// # Safety
    ///
    /// `places` has room for `count` pointers.
    pub(crate) unsafe fn array(places: *mut *mut std::ffi::c_void, count: usize) {
        let mut moments = vec![Self::alone(); count].into_boxed_slice();
        if let Some(first) = moments.first_mut() {
            first.array = count;
        }
        let start = Box::into_raw(moments).cast::<Self>();
        for place in 0..count {
            // SAFETY: both arrays have `count` elements.
            unsafe { *places.add(place) = start.add(place).cast() };
        }
    }

    /// Frees an array by the pointer to its first.
    ///
    /// # Safety
    ///
    /// `first` came from [`Self::array`] and is freed once.
    pub(crate) unsafe fn free_array(first: *mut Self) {
        // SAFETY: the first of an array knows how many there are, and all were allocated as one slice.
        unsafe {
            let count = (*first).array;
            drop(Box::from_raw(std::ptr::slice_from_raw_parts_mut(first, count)));
        }
    }

    /// Takes over everything but the place in memory.
    pub(crate) fn set(&mut self, from: Self) {
        *self = Self { array: self.array, ..from };
    }

    pub(crate) fn to_text(self, with_zone: bool) -> String {
        let Self { year, month, day, hour, minute, second, nanosecond, offset_minutes, .. } = self;
        let micros = nanosecond / 1000;
        let mut text =
            format!("{year:04}-{month:02}-{day:02} {hour:02}:{minute:02}:{second:02}.{micros:06}");
        if with_zone {
            let sign = if offset_minutes < 0 { '-' } else { '+' };
            let minutes = offset_minutes.unsigned_abs();
            text.push_str(&format!("{sign}{:02}:{:02}", minutes / 60, minutes % 60));
        }
        text
    }

    /// Reads PostgreSQL's text of a date or a timestamp.
    pub(crate) fn from_text(text: &str) -> Option<Self> {
        let mut moment = Self::alone();
        let (date, time) = text.split_once(' ').unwrap_or((text, "00:00:00"));
        let mut parts = date.splitn(3, '-');
        moment.year = parts.next()?.parse().ok()?;
        moment.month = parts.next()?.parse().ok()?;
        moment.day = parts.next()?.parse().ok()?;
        let zone = time.find(['+', '-']);
        let (time, zone) = time.split_at(zone.unwrap_or(time.len()));
        let mut parts = time.splitn(3, ':');
        moment.hour = parts.next()?.parse().ok()?;
        moment.minute = parts.next()?.parse().ok()?;
        let seconds = parts.next()?;
        let (whole, fraction) = seconds.split_once('.').unwrap_or((seconds, ""));
        moment.second = whole.parse().ok()?;
        moment.nanosecond = format!("{fraction:0<9}").parse().ok()?;
        if let Some(sign) = zone.chars().next() {
            let mut parts = zone[1..].splitn(2, ':');
            let hours: i16 = parts.next()?.parse().ok()?;
            let minutes: i16 = parts.next().map_or(Some(0), |part| part.parse().ok())?;
            let all = hours * 60 + minutes;
            moment.offset_minutes = if sign == '-' { -all } else { all };
        }
        Some(moment)
    }
}

#[cfg(test)]
mod tests {
    use super::Moment;

    #[test]
    fn a_moment_comes_back_as_it_went() {
        for text in ["2026-01-28 10:30:00.123456", "0001-01-01 00:00:00.000000"] {
            assert_eq!(Moment::from_text(text).unwrap().to_text(false), text);
        }
        let zoned = Moment::from_text("2026-01-28 10:30:00.5-03:30").unwrap();
        assert_eq!(zoned.to_text(true), "2026-01-28 10:30:00.500000-03:30");
        assert_eq!(Moment::from_text("2026-01-28 10:30:00+00").unwrap().offset_minutes, 0);
        assert_eq!(Moment::from_text("never"), None);
    }
}
