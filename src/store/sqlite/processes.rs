//! How a process is written. This module writes its row, its runs and the median of its kind.
//!
//! Most changes are a heartbeat or a progress report: status and next look of the reaper stay as they are. Those
//! are written without moving an index entry. `sweep_us` may lie before the deadline, never after it; the reaper's
//! query moves it up when it finds it too early, once for each deadline instead of once for each heartbeat.

use std::collections::BTreeSet;

use rusqlite::{Connection, OptionalExtension, Statement, params};

use super::streams::signed;
use crate::domain::apply::ProcessChange;
use crate::domain::history;
use crate::domain::process::{Outcome, RunRow, State};
use crate::domain::time::Timestamp;
use crate::store::{Result, StoreError};

/// Reads a state back as the domain wrote it.
pub(super) fn state_of(bytes: &[u8]) -> Result<State> {
    State::from_bytes(bytes).map_err(|error| StoreError::Corrupt {
        what: format!("events.db holds a process state that cannot be read: {error}"),
    })
}

/// What a row held that decides how it is written.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Before {
    pub(super) status: String,
    pub(super) sweep_us: Option<i64>,
}

/// What a row held before, as the transaction sees it.
fn before(connection: &Connection, stream: i64) -> rusqlite::Result<Option<Before>> {
    connection
        .prepare_cached("SELECT status, sweep_us FROM process WHERE stream_id = ?1")?
        .query_row([stream], |row| Ok(Before { status: row.get(0)?, sweep_us: row.get(1)? }))
        .optional()
}

/// Kinds of processes whose history a batch touched: tenant number and history key.
pub(super) type Kinds = BTreeSet<(i64, String)>;

/// Writes one process and its changed runs. `position` is that of the newest event that touched it.
pub(super) fn write(
    connection: &Connection,
    tenant: i64,
    stream: i64,
    position: i64,
    change: &ProcessChange,
    kinds: &mut Kinds,
) -> rusqlite::Result<()> {
    let row = &change.row;
    let before = before(connection, stream)?;
    let deadline = row.deadline_at.map(Timestamp::micros);
    let sweep = match (deadline, before.as_ref().and_then(|before| before.sweep_us)) {
        (None, _) => None,
        (Some(deadline), Some(sweep)) if sweep <= deadline => Some(sweep),
        (Some(deadline), _) => Some(deadline),
    };
    let status = row.status.as_str();
    match before {
        None => {
            let mut insert = connection
                .prepare_cached(include_str!("../../../sql/sqlite/insert_process.sql"))?;
            bind(&mut insert, stream, position, change)?;
            insert.raw_bind_parameter(27, sweep)?;
            insert.raw_bind_parameter(28, tenant)?;
            insert.raw_bind_parameter(29, row.process.as_str())?;
            insert.raw_execute()?;
        }
        Some(before) if before.status == status && before.sweep_us == sweep => {
            let mut update = connection
                .prepare_cached(include_str!("../../../sql/sqlite/update_quiet_process.sql"))?;
            bind(&mut update, stream, position, change)?;
            update.raw_execute()?;
        }
        Some(_) => {
            let mut update = connection
                .prepare_cached(include_str!("../../../sql/sqlite/update_process.sql"))?;
            bind(&mut update, stream, position, change)?;
            update.raw_bind_parameter(27, sweep)?;
            update.raw_execute()?;
        }
    }
    for run in &change.runs {
        if run.started_at.is_none() && run.outcome.is_none() {
            // Withdrawn: its start has turned up and has taken it in.
            connection
                .prepare_cached("DELETE FROM process_run WHERE stream_id = ?1 AND run_id = ?2")?
                .execute(params![stream, run.run_id.as_ref().map_or("", |id| id.as_str())])?;
            kinds.insert((tenant, change.history_key.clone()));
            continue;
        }
        write_run(connection, tenant, stream, &change.history_key, run)?;
        if run.outcome.is_some() {
            kinds.insert((tenant, change.history_key.clone()));
        }
    }
    Ok(())
}

/// Binds the parameters that the three statements share: 1 to 26.
fn bind(
    statement: &mut Statement<'_>,
    stream: i64,
    position: i64,
    change: &ProcessChange,
) -> rusqlite::Result<()> {
    let row = &change.row;
    let metadata = if row.metadata.is_empty() {
        None
    } else {
        Some(serde_json::Value::Object(row.metadata.clone()).to_string())
    };
    statement.raw_bind_parameter(1, stream)?;
    statement.raw_bind_parameter(2, row.status.as_str())?;
    statement.raw_bind_parameter(3, row.reason.as_deref())?;
    statement.raw_bind_parameter(4, row.process_type.as_deref())?;
    statement.raw_bind_parameter(5, row.process_name.as_deref())?;
    statement.raw_bind_parameter(6, row.package_name.as_deref())?;
    statement.raw_bind_parameter(7, row.procedure_name.as_deref())?;
    statement.raw_bind_parameter(8, row.correlation_id.as_deref())?;
    statement.raw_bind_parameter(9, row.run_id.as_ref().map(|id| id.as_str()))?;
    statement.raw_bind_parameter(10, signed(row.run_no))?;
    statement.raw_bind_parameter(11, row.registered_at.micros())?;
    statement.raw_bind_parameter(12, row.started_at.map(Timestamp::micros))?;
    statement.raw_bind_parameter(13, row.ended_at.map(Timestamp::micros))?;
    statement.raw_bind_parameter(14, row.last_update_at.micros())?;
    statement.raw_bind_parameter(15, row.last_life_at.map(Timestamp::micros))?;
    statement.raw_bind_parameter(16, row.deadline_at.map(Timestamp::micros))?;
    statement.raw_bind_parameter(17, row.current_step.as_deref())?;
    statement.raw_bind_parameter(18, row.progress_percent)?;
    statement.raw_bind_parameter(19, signed(row.total_executions))?;
    statement.raw_bind_parameter(20, signed(row.successful_runs))?;
    statement.raw_bind_parameter(21, signed(row.failed_runs))?;
    statement.raw_bind_parameter(22, row.avg_duration_ms.map(signed))?;
    statement.raw_bind_parameter(23, metadata)?;
    statement.raw_bind_parameter(24, change.history_key.as_str())?;
    statement.raw_bind_parameter(25, version(position))?;
    statement.raw_bind_parameter(26, change.state.to_bytes())?;
    Ok(())
}

/// The version of a process whose newest event lies at `position`. Archiving adds one, which no event can.
pub(super) fn version(position: i64) -> i64 {
    position.saturating_mul(2)
}

fn write_run(
    connection: &Connection,
    tenant: i64,
    stream: i64,
    history_key: &str,
    run: &RunRow,
) -> rusqlite::Result<()> {
    connection.prepare_cached(include_str!("../../../sql/sqlite/upsert_run.sql"))?.execute(
        params![
            stream,
            run.run_id.as_ref().map_or("", |id| id.as_str()),
            tenant,
            history_key,
            run.started_at.or(run.ended_at).unwrap_or_default().micros(),
            run.started_at.map(Timestamp::micros),
            run.ended_at.map(Timestamp::micros),
            run.outcome.map(Outcome::as_str),
            run.duration_ms.map(signed),
            run.error_code,
            run.error_message
        ],
    )?;
    Ok(())
}

/// Takes the median of each kind anew, from its newest successes.
pub(super) fn write_history(connection: &Connection, kinds: &Kinds) -> rusqlite::Result<()> {
    let newest = i64::try_from(history::SAMPLES_MAX).unwrap_or(i64::MAX);
    for (tenant, key) in kinds {
        let mut durations = connection
            .prepare_cached(
                "SELECT duration_ms FROM process_run WHERE tenant_id = ?1 AND history_key = ?2 \
                 AND outcome = 'completed' AND duration_ms IS NOT NULL ORDER BY ended_us DESC LIMIT ?3",
            )?
            .query_map((tenant, key, newest), |row| row.get::<_, i64>(0))?
            .map(|duration| duration.map(super::streams::unsigned))
            .collect::<rusqlite::Result<Vec<u64>>>()?;
        connection
            .prepare_cached(
                "INSERT INTO history (tenant_id, history_key, samples, median_ms) VALUES (?1, ?2, ?3, ?4) \
                 ON CONFLICT (tenant_id, history_key) DO UPDATE SET samples = excluded.samples, \
                 median_ms = excluded.median_ms",
            )?
            .execute(params![
                tenant,
                key,
                i64::try_from(durations.len()).unwrap_or(i64::MAX),
                history::median(&mut durations).map(signed)
            ])?;
    }
    Ok(())
}
