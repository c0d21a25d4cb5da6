//! Dead letters, the newest first. This module reads them as a listener or the database set them aside.

use oracle::Row as Found;

use super::super::bind::{self, Bind};
use super::super::sql::{statement, text};
use super::Reader;
use crate::domain::dead_letter::{DeadLetter, Reason};
use crate::domain::ids::TenantId;
use crate::store::{DeadLetterFilter, Page, Paged, Result, cursor};

/// The kind of a cursor of this listing.
const DEAD_LETTERS: u8 = b'D';

fn letter(row: &Found) -> oracle::Result<DeadLetter> {
    Ok(DeadLetter {
        id: bind::integer(row, "id")?,
        tenant: bind::text(row, "tenant_id")?,
        // A reason of a newer program reads as the vaguest of ours.
        reason: Reason::parse(&bind::text(row, "reason")?).unwrap_or(Reason::Undecodable),
        detail: bind::text(row, "detail")?,
        snapshot: bind::text(row, "event_snapshot")?,
        event_id: bind::optional_text(row, "event_id")?,
        source: bind::optional_text(row, "source")?,
        stream_key: bind::optional_text(row, "stream_key")?,
        stream_seq: bind::optional_count(row, "stream_seq")?,
        created_at: bind::time(row, "created_utc")?,
    })
}

impl Reader {
    pub(super) fn list_dead_letters(
        &mut self,
        tenant: &TenantId,
        filter: &DeadLetterFilter,
        page: &Page,
    ) -> Result<Paged<DeadLetter>> {
        const CALL: &str = "list dead letters";
        let after = cursor::read::<1>(CALL, DEAD_LETTERS, page)?;
        let limit = cursor::limit(page);
        let mut binds = vec![Bind::text(tenant.as_str(), 50)];
        let mut wanted = Vec::new();
        for (name, given, width) in
            [("reason", &filter.reason, 50), ("source", &filter.source, 200)]
        {
            if let Some(given) = given {
                wanted.push(name);
                binds.push(Bind::cut(given, width));
            }
        }
        for (name, moment) in [("from", filter.from), ("to", filter.to)] {
            if let Some(moment) = moment {
                wanted.push(name);
                binds.push(Bind::time(moment));
            }
        }
        if let Some(([id], _)) = after {
            wanted.push("after");
            binds.push(Bind::Integer(Some(id)));
        }
        binds.push(Bind::size(limit + 1));
        let ask = text(statement!("list_dead_letters"), &wanted);
        let bytes = |letter: &DeadLetter| letter.snapshot.len() + letter.detail.len();
        let (rows, more) = self.ask(CALL, tenant, |connection| {
            let most = (limit, cursor::PAGE_BYTES_MAX);
            bind::query_page(connection, &ask, &binds, most, bytes, letter)
        })?;
        let next =
            rows.last().filter(|_| more).map(|last| cursor::write(DEAD_LETTERS, [last.id], ""));
        Ok(Paged { rows, next })
    }

    pub(super) fn find_dead_letter(
        &mut self,
        tenant: &TenantId,
        id: i64,
    ) -> Result<Option<DeadLetter>> {
        let found = self.ask("read dead letter", tenant, |connection| {
            let binds = [Bind::text(tenant.as_str(), 50), Bind::Integer(Some(id))];
            bind::query(connection, &text(statement!("read_dead_letter"), &[]), &binds, 1, letter)
        })?;
        Ok(found.into_iter().next())
    }
}
