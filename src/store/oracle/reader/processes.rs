//! Processes and their runs. This module pages through them, the process that became known last first.
//!
//! A process row holds the state that listeners have merged. One that was only started so far, by intake or by the
//! PL/SQL package, has no state yet; then its columns are the answer.

use oracle::Row as Found;

use super::super::bind::{self, Bind};
use super::super::sql::{self, statement, text};
use super::super::{projection, state};
use super::{Reader, foreign};
use crate::domain::ids::{EventId, ProcessId, TenantId};
use crate::domain::process::{Outcome, Policy, Row, RunRow, State, Status};
use crate::domain::time::Timestamp;
use crate::store::{Page, Paged, ProcessFilter, ProcessView, Result, cursor};

/// The kind of a cursor of the process listing.
const PROCESSES: u8 = b'P';
/// The kind of a cursor of the run listing.
const RUNS: u8 = b'R';

/// A row of `read_process` or `list_processes`.
struct Stored {
    process: String,
    digest: Option<String>,
    status: String,
    deadline_at: Option<Timestamp>,
    version: u64,
    median_ms: Option<u64>,
    registered_at: Timestamp,
    run_id: Option<String>,
    run_no: u64,
    reason: Option<String>,
    started_at: Option<Timestamp>,
    ended_at: Option<Timestamp>,
    current_step: Option<String>,
    progress_percent: Option<f64>,
    last_update_at: Option<Timestamp>,
    last_life_at: Option<Timestamp>,
    correlation_id: Option<String>,
    metadata: Option<String>,
    process_type: Option<String>,
    process_name: Option<String>,
    package_name: Option<String>,
    procedure_name: Option<String>,
}

fn stored(row: &Found) -> oracle::Result<Stored> {
    Ok(Stored {
        process: bind::text(row, "process_id")?,
        digest: bind::optional_text(row, "state_digest")?,
        status: bind::text(row, "status")?,
        deadline_at: bind::optional_time(row, "deadline_at")?,
        version: bind::count(row, "row_version")?,
        median_ms: bind::optional_count(row, "median_ms")?,
        registered_at: bind::time(row, "registered_at")?,
        run_id: bind::optional_text(row, "run_id")?,
        run_no: bind::count(row, "run_no")?,
        reason: bind::optional_text(row, "reason")?,
        started_at: bind::optional_time(row, "started_at")?,
        ended_at: bind::optional_time(row, "ended_at")?,
        current_step: bind::optional_text(row, "current_step")?,
        progress_percent: bind::optional_number(row, "progress_percent")?,
        last_update_at: bind::optional_time(row, "last_update_at")?,
        last_life_at: bind::optional_time(row, "last_life_at")?,
        correlation_id: bind::optional_text(row, "correlation_id")?,
        metadata: bind::optional_text(row, "metadata")?,
        process_type: bind::optional_text(row, "process_type")?,
        process_name: bind::optional_text(row, "process_name")?,
        package_name: bind::optional_text(row, "package_name")?,
        procedure_name: bind::optional_text(row, "procedure_name")?,
    })
}

/// What users see of a row.
fn view(tenant: &TenantId, stored: Stored, policy: &Policy) -> Result<ProcessView> {
    let process = ProcessId::parse(&stored.process).map_err(foreign)?;
    // What cannot be read, its listener or the reaper has told; the columns are as true.
    let state = stored.digest.as_deref().and_then(|digest| state::decode(digest).ok());
    let row = match state {
        Some(state) => {
            let mut row = state.row(tenant, &process, policy);
            if Status::parse(&stored.status) == Some(Status::Archived) {
                row.status = Status::Archived;
                row.deadline_at = None;
            }
            // Log lines prove life too, and put the deadline off in the row alone.
            if row.deadline_at.is_some() && stored.deadline_at > row.deadline_at {
                row.deadline_at = stored.deadline_at;
            }
            row
        }
        None => started_row(tenant, &process, &stored, policy)?,
    };
    // Version 0 is a row that no listener has written yet.
    Ok(ProcessView { row, median_ms: stored.median_ms, version: stored.version + 1 })
}

/// The row of a process of which only the start is known: its columns.
fn started_row(
    tenant: &TenantId,
    process: &ProcessId,
    stored: &Stored,
    policy: &Policy,
) -> Result<Row> {
    let metadata = stored.metadata.as_deref().and_then(|text| serde_json::from_str(text).ok());
    Ok(Row {
        status: Status::parse(&stored.status).unwrap_or(Status::Active),
        reason: stored.reason.clone(),
        run_id: stored.run_id.as_deref().map(EventId::parse).transpose().map_err(foreign)?,
        run_no: stored.run_no,
        started_at: stored.started_at,
        ended_at: stored.ended_at,
        current_step: stored.current_step.clone(),
        progress_percent: stored.progress_percent,
        last_update_at: stored.last_update_at.unwrap_or(stored.registered_at),
        last_life_at: stored.last_life_at,
        deadline_at: stored.deadline_at,
        process_type: stored.process_type.clone(),
        process_name: stored.process_name.clone(),
        package_name: stored.package_name.clone(),
        procedure_name: stored.procedure_name.clone(),
        correlation_id: stored.correlation_id.clone(),
        metadata: metadata.unwrap_or_default(),
        registered_at: stored.registered_at,
        ..State::default().row(tenant, process, policy)
    })
}

/// A run with its place and its name.
fn run(row: &Found) -> oracle::Result<(Timestamp, String, RunRow)> {
    let outcome = bind::optional_text(row, "outcome")?;
    Ok((
        bind::time(row, "sort_at")?,
        bind::text(row, "run_id")?,
        RunRow {
            run_id: None,
            started_at: bind::optional_time(row, "started_at")?,
            ended_at: bind::optional_time(row, "ended_at")?,
            outcome: outcome.as_deref().and_then(Outcome::parse),
            duration_ms: bind::optional_count(row, "duration_ms")?,
            error_code: bind::optional_text(row, "error_code")?,
            error_message: bind::optional_text(row, "error_message")?,
        },
    ))
}

/// The statuses that a listing wants, all of them as none.
fn statuses(filter: &ProcessFilter) -> Vec<&'static str> {
    let mut words: Vec<&'static str> =
        filter.statuses.iter().map(|status| status.as_str()).collect();
    words.sort_unstable();
    words.dedup();
    words
}

impl Reader {
    pub(super) fn find_process(
        &mut self,
        tenant: &TenantId,
        process: &ProcessId,
    ) -> Result<Option<ProcessView>> {
        let found = self.ask("read status", tenant, |connection| {
            let binds = [Bind::text(tenant.as_str(), 50), Bind::text(process.as_str(), 100)];
            bind::query(connection, &text(statement!("read_process"), &[]), &binds, 1, stored)
        })?;
        found.into_iter().next().map(|stored| view(tenant, stored, &self.policy)).transpose()
    }

    pub(super) fn list_processes(
        &mut self,
        tenant: &TenantId,
        filter: &ProcessFilter,
        page: &Page,
    ) -> Result<Paged<ProcessView>> {
        const CALL: &str = "list processes";
        let after = cursor::read::<1>(CALL, PROCESSES, page)?;
        let limit = cursor::limit(page);
        let words = statuses(filter);
        let mut wanted = Vec::new();
        let mut binds = vec![Bind::text(tenant.as_str(), 50)];
        if !words.is_empty() {
            wanted.push("status");
            binds.extend(words.iter().map(|word| Bind::text(word, 20)));
        }
        for (name, given, width) in
            [("type", &filter.process_type, 50), ("name", &filter.name, 200)]
        {
            if let Some(given) = given {
                wanted.push(name);
                binds.push(Bind::cut(given, width));
            }
        }
        if let Some(([at], id)) = &after {
            wanted.push("after");
            let at = Timestamp::from_micros(*at);
            binds.extend([Bind::time(at), Bind::time(at), Bind::text(id, 100)]);
        }
        binds.push(Bind::size(limit + 1));
        let ask = text(statement!("list_processes"), &wanted);
        let ask = sql::repeated(&ask, "(:status)", words.len());
        let mut found = self.ask(CALL, tenant, |connection| {
            bind::query(connection, &ask, &binds, limit + 1, stored)
        })?;
        let more = found.len() > limit;
        found.truncate(limit);
        let next = found
            .last()
            .filter(|_| more)
            .map(|last| cursor::write(PROCESSES, [last.registered_at.micros()], &last.process));
        let rows = found
            .into_iter()
            .map(|stored| view(tenant, stored, &self.policy))
            .collect::<Result<Vec<_>>>()?;
        Ok(Paged { rows, next })
    }

    pub(super) fn list_runs(
        &mut self,
        tenant: &TenantId,
        process: &ProcessId,
        page: &Page,
    ) -> Result<Option<Paged<RunRow>>> {
        const CALL: &str = "list runs";
        let after = cursor::read::<1>(CALL, RUNS, page)?;
        let limit = cursor::limit(page);
        if self.find_process(tenant, process)?.is_none() {
            return Ok(None);
        }
        let mut binds = vec![Bind::text(tenant.as_str(), 50), Bind::text(process.as_str(), 100)];
        let mut wanted = Vec::new();
        if let Some(([at], id)) = &after {
            wanted.push("after");
            let at = Timestamp::from_micros(*at);
            binds.extend([Bind::time(at), Bind::time(at), Bind::text(id, 100)]);
        }
        binds.push(Bind::size(limit + 1));
        let ask = text(statement!("list_runs"), &wanted);
        let mut found = self.ask(CALL, tenant, |connection| {
            bind::query(connection, &ask, &binds, limit + 1, run)
        })?;
        let more = found.len() > limit;
        found.truncate(limit);
        let next = found
            .last()
            .filter(|_| more)
            .map(|(sort_at, run_id, _)| cursor::write(RUNS, [sort_at.micros()], run_id));
        let rows = found
            .into_iter()
            .map(|(_, run_id, mut run)| {
                if run_id != projection::NAMELESS {
                    run.run_id = Some(EventId::parse(&run_id).map_err(foreign)?);
                }
                Ok(run)
            })
            .collect::<Result<Vec<_>>>()?;
        Ok(Some(Paged { rows, next }))
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;

    const POLICY: Policy =
        Policy { timeout: Duration::from_secs(9), heartbeat_interval: Duration::from_secs(3) };

    fn at(second: i64) -> Timestamp {
        Timestamp::from_micros(second * 1_000_000)
    }

    fn started() -> Stored {
        Stored {
            process: "p".into(),
            digest: None,
            status: "RUNNING".into(),
            deadline_at: None,
            version: 0,
            median_ms: Some(4000),
            registered_at: at(10),
            run_id: Some("R1".into()),
            run_no: 1,
            reason: None,
            started_at: Some(at(11)),
            ended_at: None,
            current_step: None,
            progress_percent: None,
            last_update_at: Some(at(12)),
            last_life_at: None,
            correlation_id: Some("C1".into()),
            metadata: Some(r#"{"a":1}"#.into()),
            process_type: None,
            process_name: None,
            package_name: Some("CONTRACT_PKG".into()),
            procedure_name: Some("CREATE_CONTRACT".into()),
        }
    }

    #[test]
    fn a_process_that_is_only_started_shows_its_columns() {
        let tenant = TenantId::parse("acme").unwrap();
        let shown = view(&tenant, started(), &POLICY).unwrap();
        assert_eq!(
            (shown.row.status, shown.version, shown.median_ms),
            (Status::Running, 1, Some(4000))
        );
        assert_eq!(shown.row.run_id.unwrap().as_str(), "R1");
        assert_eq!(shown.row.package_name.as_deref(), Some("CONTRACT_PKG"));
        assert_eq!(shown.row.metadata["a"], 1);
        assert_eq!((shown.row.started_at, shown.row.registered_at), (Some(at(11)), at(10)));
    }

    #[test]
    fn a_state_is_what_is_shown_but_for_archiving_and_columns_where_it_cannot_be_read() {
        let tenant = TenantId::parse("acme").unwrap();
        let digest = Some(state::encode(&State::default()));
        let archived =
            Stored { digest: digest.clone(), status: "ARCHIVED".into(), version: 6, ..started() };
        let shown = view(&tenant, archived, &POLICY).unwrap();
        assert_eq!((shown.row.status, shown.version), (Status::Archived, 7));
        let foreign = Stored { digest: Some("????".into()), ..started() };
        let (shown, columns) = (view(&tenant, foreign, &POLICY), view(&tenant, started(), &POLICY));
        assert_eq!(shown.unwrap().row, columns.unwrap().row);
    }

    #[test]
    fn statuses_are_listed_once() {
        let filter = ProcessFilter {
            statuses: vec![Status::Running, Status::Active, Status::Running],
            ..ProcessFilter::default()
        };
        assert_eq!(statuses(&filter), ["ACTIVE", "RUNNING"]);
    }
}
