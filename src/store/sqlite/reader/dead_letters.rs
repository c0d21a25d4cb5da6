//! Dead letters, the newest first. This module reads them as the projection set them aside.

use rusqlite::{OptionalExtension, Row, params};

use super::super::connection::classify;
use super::super::streams::unsigned;
use super::Reader;
use super::cursor::{self, PAGE_BYTES_MAX, ROWS_LOOKED_AT_MAX};
use crate::domain::dead_letter::{DeadLetter, Reason};
use crate::domain::ids::TenantId;
use crate::domain::time::Timestamp;
use crate::store::{DeadLetterFilter, Page, Paged, Result};

/// The kind of a cursor of this listing.
const DEAD_LETTERS: u8 = b'd';

impl Reader {
    pub(super) fn list_dead_letters(
        &mut self,
        tenant: &TenantId,
        filter: &DeadLetterFilter,
        page: &Page,
    ) -> Result<Paged<DeadLetter>> {
        const CALL: &str = "list dead letters";
        let below = cursor::read::<1>(CALL, DEAD_LETTERS, page)?.map_or(i64::MAX, |[id]| id);
        self.newest_dead_letters(tenant, filter, below, cursor::limit(page))
            .map_err(|error| classify(CALL, error))
    }

    fn newest_dead_letters(
        &mut self,
        tenant: &TenantId,
        filter: &DeadLetterFilter,
        below: i64,
        limit: usize,
    ) -> rusqlite::Result<Paged<DeadLetter>> {
        self.begin()?;
        let mut read = self.connection.prepare_cached(
            "SELECT position, tenant, reason, detail, snapshot, event_id, source, stream_key, stream_seq, created_us \
             FROM tombstone WHERE tenant = ?1 AND position < ?2 ORDER BY position DESC",
        )?;
        let mut found = read.query(params![tenant.as_str(), below])?;
        let (mut rows, mut last, mut looked_at, mut bytes) = (Vec::new(), below, 0, 0);
        while let Some(row) = found.next()? {
            if looked_at == ROWS_LOOKED_AT_MAX {
                return Ok(Paged { rows, next: Some(cursor::write(DEAD_LETTERS, [last])) });
            }
            looked_at += 1;
            if passes(row, filter)? {
                if rows.len() == limit || bytes >= PAGE_BYTES_MAX {
                    return Ok(Paged { rows, next: Some(cursor::write(DEAD_LETTERS, [last])) });
                }
                let letter = letter(row)?;
                bytes += letter.snapshot.len() + letter.detail.len();
                rows.push(letter);
            }
            last = row.get(0)?;
        }
        Ok(Paged { rows, next: None })
    }

    pub(super) fn find_dead_letter(
        &mut self,
        tenant: &TenantId,
        id: i64,
    ) -> rusqlite::Result<Option<DeadLetter>> {
        self.begin()?;
        self.connection
            .prepare_cached(
                "SELECT position, tenant, reason, detail, snapshot, event_id, source, stream_key, stream_seq, \
                 created_us FROM tombstone WHERE position = ?1 AND tenant = ?2",
            )?
            .query_row(params![id, tenant.as_str()], letter)
            .optional()
    }
}

fn passes(row: &Row<'_>, filter: &DeadLetterFilter) -> rusqlite::Result<bool> {
    let created = Timestamp::from_micros(row.get(9)?);
    Ok(filter.from.is_none_or(|from| created >= from)
        && filter.to.is_none_or(|to| created < to)
        && match &filter.reason {
            Some(reason) => row.get_ref(2)?.as_str()? == reason,
            None => true,
        }
        && match &filter.source {
            Some(source) => row.get_ref(6)?.as_str_or_null()? == Some(source.as_str()),
            None => true,
        })
}

fn letter(row: &Row<'_>) -> rusqlite::Result<DeadLetter> {
    // A reason of a newer program reads as the vaguest of ours.
    let reason = Reason::parse(row.get_ref(2)?.as_str()?).unwrap_or(Reason::Undecodable);
    Ok(DeadLetter {
        id: row.get(0)?,
        tenant: row.get(1)?,
        reason,
        detail: row.get(3)?,
        snapshot: row.get(4)?,
        event_id: row.get(5)?,
        source: row.get(6)?,
        stream_key: row.get(7)?,
        stream_seq: row.get::<_, Option<i64>>(8)?.map(unsigned),
        created_at: Timestamp::from_micros(row.get(9)?),
    })
}
