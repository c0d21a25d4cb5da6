//! A place in a listing of the embedded store, whose keys are numbers alone. This module adds what only its listings
//! need: a bound on the rows that a filter looks at.

use crate::store::cursor;
use crate::store::{Cursor, Page, Result};

pub(super) use crate::store::cursor::{PAGE_BYTES_MAX, limit};

/// Rows that a page looks at, at most, to find those that pass a filter. Then it ends early and its cursor goes on
/// from there, so that a filter that nothing passes cannot hold a reader for seconds.
pub(super) const ROWS_LOOKED_AT_MAX: usize = 50_000;

/// Writes the key of the last row shown.
pub(super) fn write<const N: usize>(kind: u8, key: [i64; N]) -> Cursor {
    cursor::write(kind, key, "")
}

/// Reads the key back.
///
/// # Errors
/// [`StoreError::Refused`](crate::store::StoreError::Refused) when the page's cursor is none of this listing: the
/// caller's fault, a 400.
pub(super) fn read<const N: usize>(
    call: &'static str,
    kind: u8,
    page: &Page,
) -> Result<Option<[i64; N]>> {
    match cursor::read(call, kind, page)? {
        Some((_, text)) if !text.is_empty() => Err(cursor::refused(call)),
        found => Ok(found.map(|(key, _)| key)),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::store::StoreError;

    #[test]
    fn a_cursor_comes_back_as_it_went_out_and_another_is_refused() {
        let page = |after| Page { limit: 5, after: Some(after) };
        let cursor = write(b'e', [-7, i64::MAX]);
        assert_eq!(read("test", b'e', &page(cursor.clone())).unwrap(), Some([-7, i64::MAX]));
        assert!(read::<2>("test", b'p', &page(cursor.clone())).is_err(), "another listing's");
        assert!(read::<1>("test", b'e', &page(cursor)).is_err(), "another key");
        for bad in ["", "x", "!!", "AAAA"] {
            let refusal = read::<1>("test", b'e', &page(Cursor(bad.into()))).unwrap_err();
            assert!(matches!(refusal, StoreError::Refused { .. }), "{bad:?}");
        }
    }
}
