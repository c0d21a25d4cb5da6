//! Processes that are overdue: their deadline has passed, or their session is gone. This module reads them as they are to
//! be judged.

use oracle::Connection;

use super::bind::{self, Bind};
use super::sql::{statement, text};
use super::{logs, state};
use crate::domain::ids::{IdError, ProcessId, TenantId};
use crate::domain::time::Timestamp;
use crate::store::{Overdue, Result, StoreError};

/// Tenant, process, the digest of its state, and when its newest line came in.
pub(super) type Judged = (String, String, Option<String>, Option<Timestamp>);

/// What is to be judged. None: nothing was merged yet, so there is nothing to judge.
pub(super) fn parsed(found: Judged) -> Result<Option<Overdue>> {
    let foreign = |error: IdError| StoreError::Corrupt {
        what: format!("process_live_status holds what this program never writes: {error}"),
    };
    let (tenant, process, digest, last_log_at) = found;
    let Some(digest) = digest else { return Ok(None) };
    Ok(Some(Overdue {
        tenant: TenantId::parse(&tenant).map_err(foreign)?,
        process: ProcessId::parse(&process).map_err(foreign)?,
        state: state::decode(&digest)?,
        last_log_at,
    }))
}

/// Those whose deadline is not after `until`.
pub(super) fn due(
    connection: &Connection,
    until: Timestamp,
    limit: usize,
) -> oracle::Result<Vec<Judged>> {
    let binds = [Bind::time(until), Bind::size(limit)];
    let found = bind::query(connection, &text(statement!("overdue"), &[]), &binds, limit, |row| {
        Ok((
            bind::text(row, "tenant_id")?,
            bind::text(row, "process_id")?,
            bind::optional_text(row, "state_digest")?,
        ))
    })?;
    let mut overdue = Vec::with_capacity(found.len());
    for (tenant, process, digest) in found {
        let newest = logs::newest(connection, &tenant, &process)?;
        overdue.push((tenant, process, digest, newest));
    }
    Ok(overdue)
}
