//! A place in a listing. This module writes it as opaque text and checks what comes back.
//!
//! A cursor names the last row that was shown, never an offset, so rows that come or go between two pages make
//! nothing repeat or vanish. It begins with a letter for the kind of listing: one of another kind is refused.

use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;

use super::{Cursor, Page, Result, StoreError};

/// Rows of one page at most, whatever is asked: a page is built in memory.
const PAGE_ROWS_MAX: usize = 1000;

/// A page ends with the row that makes its payloads reach this: rows are as large as whoever wrote them wanted.
pub(super) const PAGE_BYTES_MAX: usize = 1024 * 1024;

/// How many rows a page may have.
pub(super) fn limit(page: &Page) -> usize {
    page.limit.clamp(1, PAGE_ROWS_MAX)
}

/// Writes the key of the last row shown: numbers, then a text.
pub(super) fn write<const N: usize>(kind: u8, key: [i64; N], text: &str) -> Cursor {
    let mut bytes = vec![kind];
    for part in key {
        bytes.extend_from_slice(&part.to_be_bytes());
    }
    bytes.extend_from_slice(text.as_bytes());
    Cursor(URL_SAFE_NO_PAD.encode(bytes))
}

/// Reads the key back.
///
/// # Errors
/// [`StoreError::Refused`] when the page's cursor is none of this listing: the caller's fault, a 400.
pub(super) fn read<const N: usize>(
    call: &'static str,
    kind: u8,
    page: &Page,
) -> Result<Option<([i64; N], String)>> {
    let Some(Cursor(text)) = &page.after else { return Ok(None) };
    let parse = || {
        let bytes = URL_SAFE_NO_PAD.decode(text).ok()?;
        let (&found, rest) = bytes.split_first()?;
        let (numbers, text) = rest.split_at_checked(N * 8)?;
        if found != kind {
            return None;
        }
        let mut key = [0; N];
        for (part, bytes) in key.iter_mut().zip(numbers.chunks_exact(8)) {
            *part = i64::from_be_bytes(bytes.try_into().ok()?);
        }
        Some((key, std::str::from_utf8(text).ok()?.to_string()))
    };
    parse().map(Some).ok_or_else(|| refused(call))
}

/// The cursor is none of this listing.
pub(super) fn refused(call: &'static str) -> StoreError {
    StoreError::Refused { call, source: "not a cursor of this listing".into() }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_cursor_comes_back_as_it_went_out_and_another_is_refused() {
        let page = |after| Page { limit: 5, after: Some(after) };
        let cursor = write(b'e', [-7, i64::MAX], "ä");
        let found = read::<2>("test", b'e', &page(cursor.clone())).unwrap();
        assert_eq!(found, Some(([-7, i64::MAX], "ä".to_string())));
        assert!(read::<2>("test", b'p', &page(cursor)).is_err(), "another listing's");
        for bad in ["", "x", "!!", "AAAA", "nonsense"] {
            let refusal = read::<1>("test", b'e', &page(Cursor(bad.into()))).unwrap_err();
            assert!(matches!(refusal, StoreError::Refused { .. }), "{bad:?}");
        }
        assert_eq!(read::<1>("test", b'e', &Page { limit: 5, after: None }).unwrap(), None);
    }
}
