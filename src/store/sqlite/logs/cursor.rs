//! A place in the lines of a process. This module writes it as opaque text and checks what comes back.

use base64::Engine;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;

use crate::domain::time::Timestamp;
use crate::store::{self, StoredLog};

/// The first byte of a cursor, so that a later form can be told from this one.
const FORM: u8 = 1;

/// Strictly after this line, in the order `(logged_at, log_id)`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub struct Cursor {
    pub logged_at: Timestamp,
    pub log_id: i64,
}

impl Cursor {
    /// The place right after `line`.
    pub fn after(line: &StoredLog) -> Self {
        Self { logged_at: line.row.logged_at, log_id: line.log_id }
    }

    /// Reads what a caller sent. None: it is no cursor of ours, which is the caller's fault.
    pub fn parse(text: &str) -> Option<Self> {
        let bytes = URL_SAFE_NO_PAD.decode(text).ok()?;
        let (form, rest) = bytes.split_first()?;
        let (logged_us, log_id) = rest.split_at_checked(8)?;
        let cursor = Self {
            logged_at: Timestamp::from_micros(i64::from_be_bytes(logged_us.try_into().ok()?)),
            log_id: i64::from_be_bytes(log_id.try_into().ok()?),
        };
        (*form == FORM && cursor.log_id >= 0).then_some(cursor)
    }

    /// The place as the listings of the store carry it.
    pub fn into_store(self) -> store::Cursor {
        let mut bytes = [FORM; 17];
        bytes[1..9].copy_from_slice(&self.logged_at.micros().to_be_bytes());
        bytes[9..].copy_from_slice(&self.log_id.to_be_bytes());
        store::Cursor(URL_SAFE_NO_PAD.encode(bytes))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_cursor_comes_back_as_it_went_out() {
        for (micros, log_id) in [(0, 0), (-5, 1), (1_769_596_200_000_000, i64::MAX)] {
            let cursor = Cursor { logged_at: Timestamp::from_micros(micros), log_id };
            assert_eq!(Cursor::parse(&cursor.into_store().0), Some(cursor));
        }
    }

    #[test]
    fn text_that_is_no_cursor_is_refused() {
        let good = Cursor { logged_at: Timestamp::from_micros(7), log_id: 7 }.into_store().0;
        let other_form = URL_SAFE_NO_PAD.encode([2; 17]);
        let negative = URL_SAFE_NO_PAD.encode([[FORM; 9].as_slice(), &[0xff; 8]].concat());
        for bad in ["", "x", "!!", &good[1..], &format!("{good}AA"), &other_form, &negative] {
            assert_eq!(Cursor::parse(bad), None, "{bad:?}");
        }
    }
}
