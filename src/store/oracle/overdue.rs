//! Processes that are overdue: their deadline has passed, or their session is gone. This module reads them as they are to
//! be judged.

use std::collections::BTreeSet;

use oracle::Connection;

use super::bind::{self, Bind};
use super::sql::{statement, text};
use super::{errors, logs, state};
use crate::domain::ids::{ProcessId, TenantId};
use crate::domain::time::Timestamp;
use crate::store::{Overdue, Result, StoreError};

/// Tenant, process, the digest of its state, and when its newest line came in.
pub(super) type Judged = (String, String, Option<String>, Option<Timestamp>);

/// Rows that cannot be judged, each told once: nobody else would notice that they are watched no more.
#[derive(Default)]
pub(super) struct Unjudged(BTreeSet<(String, String)>);

/// So many rows are remembered as told.
const UNJUDGED_MAX: usize = 1000;

impl Unjudged {
    /// Those that can be judged. Not among them: of whom nothing was merged yet, and whose row cannot be read.
    ///
    /// # Errors
    /// [`StoreError::Corrupt`]: a newer program has written here.
    pub(super) fn part(&mut self, found: Vec<Judged>) -> Result<Vec<Overdue>> {
        found.into_iter().filter_map(|found| self.overdue_of(found).transpose()).collect()
    }

    fn overdue_of(&mut self, found: Judged) -> Result<Option<Overdue>> {
        const CALL: &str = "judge";
        let (tenant, process, digest, last_log_at) = found;
        let Some(digest) = digest else { return Ok(None) };
        let problem = match (TenantId::parse(&tenant), ProcessId::parse(&process)) {
            (Ok(tenant), Ok(process)) => match state::decode(&digest) {
                Ok(state) => return Ok(Some(Overdue { tenant, process, state, last_log_at })),
                Err(error) => match error.into_error(CALL, process.as_str()) {
                    StoreError::Refused { source, .. } => source.to_string(),
                    newer => return Err(newer),
                },
            },
            (Err(error), _) | (_, Err(error)) => {
                format!(
                    "process_live_status holds a row of {process:?} that no door lets in: {error}"
                )
            }
        };
        if self.0.len() >= UNJUDGED_MAX {
            self.0.clear();
        }
        if self.0.insert((tenant.clone(), process)) {
            log::error!(tenant = tenant.as_str(); "nobody watches a process any more: {}", errors::clean(&problem));
        }
        Ok(None)
    }
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
