//! Processes and their runs. This module merges what is stored with what is only in the log so far.
//!
//! # Order of the listing
//!
//! The process that became known last comes first. That order never changes, so a page neither skips nor repeats a
//! process while others report progress, and the index on (tenant, status) serves it with no entry that moves on
//! every heartbeat, as an order by the last update would need.

use rusqlite::{OptionalExtension, Row, params};

use super::super::connection::classify;
use super::super::names::unreadable;
use super::super::processes::{state_of, version};
use super::super::streams::unsigned;
use super::Reader;
use super::cursor::{self, ROWS_LOOKED_AT_MAX};
use crate::domain::event::Accepted;
use crate::domain::ids::{EventId, ProcessId, TenantId};
use crate::domain::process::{Outcome, RunRow, State, Status, mark};
use crate::domain::time::Timestamp;
use crate::store::{Page, Paged, ProcessFilter, ProcessView, Result};

/// The kind of a cursor of the process listing.
const PROCESSES: u8 = b'p';
/// The kind of a cursor of the run listing.
const RUNS: u8 = b'r';

/// A process as its row holds it.
struct Stored {
    state: Vec<u8>,
    archived: bool,
    deadline: Option<Timestamp>,
    version: i64,
    median_ms: Option<u64>,
    process: String,
}

fn stored(row: &Row<'_>) -> rusqlite::Result<Stored> {
    Ok(Stored {
        state: row.get(0)?,
        archived: row.get_ref(1)?.as_str()? == Status::Archived.as_str(),
        deadline: row.get::<_, Option<i64>>(2)?.map(Timestamp::from_micros),
        version: row.get(3)?,
        median_ms: row.get::<_, Option<i64>>(4)?.map(unsigned),
        process: row.get(5)?,
    })
}

impl Reader {
    /// The stored state merged with everything acknowledged since, see the head of the module above.
    pub(super) fn read_status(
        &mut self,
        tenant: &TenantId,
        process: &ProcessId,
    ) -> Result<Option<ProcessView>> {
        let fail = |error| classify("read status", error);
        loop {
            let position = self.begin().map_err(fail)?;
            let waiting = self.overlay.of(tenant, process);
            // After the overlay was asked: what it had lost by then is in every snapshot begun from here on.
            if self.overlay.trimmed_to() > position {
                self.give_up();
                continue;
            }
            let stored = self
                .connection
                .prepare_cached(include_str!("../../../../sql/sqlite/read_process.sql"))
                .and_then(|mut read| {
                    read.query_row((tenant.as_str(), process.as_str()), stored).optional()
                })
                .map_err(fail)?;
            let fresh: Vec<&Accepted> = waiting
                .iter()
                .map(|event| &**event)
                .filter(|event| event.position > position)
                .collect();
            return self.view(tenant, process, stored, &fresh);
        }
    }

    /// Makes the view of a process from its row and the events that its row does not hold yet.
    fn view(
        &self,
        tenant: &TenantId,
        process: &ProcessId,
        stored: Option<Stored>,
        fresh: &[&Accepted],
    ) -> Result<Option<ProcessView>> {
        let mut is_known = stored.is_some();
        let mut state = match &stored {
            Some(stored) => state_of(&stored.state)?,
            None => State::default(),
        };
        let mut newest = stored.as_ref().map_or(0, |stored| stored.version);
        let mut changed = false;
        for event in fresh {
            // One that cannot be applied becomes a dead letter, and drives nothing.
            if let Ok(Some(mark)) = mark::read(event) {
                // Runs that are settled by it belong to the projection.
                let _settled = state.merge(mark);
                newest = version(event.position);
                is_known = true;
                changed = true;
            }
        }
        if !is_known {
            return Ok(None);
        }
        let mut row = state.row(tenant, process, &self.policy);
        if let Some(stored) = &stored {
            if stored.archived && !changed {
                row.status = Status::Archived;
                row.deadline_at = None;
            }
            // Log lines prove life too, and put the deadline off in the row alone.
            if row.deadline_at.is_some() && stored.deadline > row.deadline_at {
                row.deadline_at = stored.deadline;
            }
        }
        let median_ms = stored.and_then(|stored| stored.median_ms);
        Ok(Some(ProcessView { row, median_ms, version: unsigned(newest) }))
    }

    pub(super) fn list_processes(
        &mut self,
        tenant: &TenantId,
        filter: &ProcessFilter,
        page: &Page,
    ) -> Result<Paged<ProcessView>> {
        const CALL: &str = "list processes";
        let fail = |error| classify(CALL, error);
        let limit = cursor::limit(page);
        let after = cursor::read::<1>(CALL, PROCESSES, page)?;
        let mut below = after.map_or(i64::MAX, |[stream]| stream);
        let mut rows = Vec::new();
        let Some(number) = self.tenant(tenant).map_err(fail)? else {
            return Ok(Paged { rows, next: None });
        };
        let mut looked_at = 0;
        loop {
            let streams = self.newest_processes(number, filter, below, limit + 1).map_err(fail)?;
            let was_full = streams.len() > limit;
            for stream in streams {
                if rows.len() == limit || looked_at >= ROWS_LOOKED_AT_MAX {
                    return Ok(Paged { rows, next: Some(cursor::write(PROCESSES, [below])) });
                }
                looked_at += 1;
                below = stream;
                let found = self
                    .connection
                    .prepare_cached(include_str!("../../../../sql/sqlite/read_listed_process.sql"))
                    .and_then(|mut read| {
                        read.query_row(params![stream, filter.process_type, filter.name], stored)
                            .optional()
                    })
                    .map_err(fail)?;
                let Some(stored) = found else { continue };
                let process =
                    ProcessId::parse(&stored.process).map_err(unreadable).map_err(fail)?;
                rows.extend(self.view(tenant, &process, Some(stored), &[])?);
            }
            if !was_full {
                return Ok(Paged { rows, next: None });
            }
        }
    }

    /// The newest processes below a stream number, in any of the statuses: one index range for each status.
    fn newest_processes(
        &self,
        tenant: i64,
        filter: &ProcessFilter,
        below: i64,
        count: usize,
    ) -> rusqlite::Result<Vec<i64>> {
        let all = &Status::ALL[..];
        let statuses = if filter.statuses.is_empty() { all } else { &filter.statuses[..] };
        let limit = i64::try_from(count).unwrap_or(i64::MAX);
        let mut read = self.connection.prepare_cached(
            "SELECT stream_id FROM process WHERE tenant_id = ?1 AND status = ?2 AND stream_id < ?3 \
             ORDER BY stream_id DESC LIMIT ?4",
        )?;
        let mut streams: Vec<i64> = Vec::new();
        for status in statuses {
            let found =
                read.query_map(params![tenant, status.as_str(), below, limit], |row| row.get(0))?;
            for stream in found {
                streams.push(stream?);
            }
        }
        streams.sort_unstable_by(|a, b| b.cmp(a));
        streams.dedup();
        streams.truncate(count);
        Ok(streams)
    }

    pub(super) fn list_runs(
        &mut self,
        tenant: &TenantId,
        process: &ProcessId,
        page: &Page,
    ) -> Result<Option<Paged<RunRow>>> {
        const CALL: &str = "list runs";
        let after = cursor::read::<2>(CALL, RUNS, page)?;
        if self.read_status(tenant, process)?.is_none() {
            return Ok(None);
        }
        self.read_runs(tenant, process, after, cursor::limit(page))
            .map(Some)
            .map_err(|error| classify(CALL, error))
    }

    fn read_runs(
        &mut self,
        tenant: &TenantId,
        process: &ProcessId,
        after: Option<[i64; 2]>,
        limit: usize,
    ) -> rusqlite::Result<Paged<RunRow>> {
        let mut rows = Vec::new();
        let Some(stream) = self.stream_number(tenant, &process.stream())? else {
            return Ok(Paged { rows, next: None });
        };
        let [sort_us, run_no] = after.unwrap_or([i64::MAX, i64::MAX]);
        let mut read = self.connection.prepare_cached(
            "SELECT sort_us, run_no, run_id, started_us, ended_us, outcome, duration_ms, error_code, error_message \
             FROM process_run WHERE stream_id = ?1 AND (sort_us, run_no) < (?2, ?3) \
             ORDER BY sort_us DESC, run_no DESC LIMIT ?4",
        )?;
        let count = i64::try_from(limit + 1).unwrap_or(i64::MAX);
        let mut found = read.query(params![stream, sort_us, run_no, count])?;
        let mut last = [sort_us, run_no];
        while let Some(row) = found.next()? {
            if rows.len() == limit {
                return Ok(Paged { rows, next: Some(cursor::write(RUNS, last)) });
            }
            last = [row.get(0)?, row.get(1)?];
            rows.push(run(row)?);
        }
        Ok(Paged { rows, next: None })
    }
}

fn run(row: &Row<'_>) -> rusqlite::Result<RunRow> {
    let run_id: String = row.get(2)?;
    let run_id = match run_id.as_str() {
        "" => None,
        id => Some(EventId::parse(id).map_err(unreadable)?),
    };
    Ok(RunRow {
        run_id,
        started_at: row.get::<_, Option<i64>>(3)?.map(Timestamp::from_micros),
        ended_at: row.get::<_, Option<i64>>(4)?.map(Timestamp::from_micros),
        outcome: row.get::<_, Option<String>>(5)?.and_then(|word| Outcome::parse(&word)),
        duration_ms: row.get::<_, Option<i64>>(6)?.map(unsigned),
        error_code: row.get(7)?,
        error_message: row.get(8)?,
    })
}
