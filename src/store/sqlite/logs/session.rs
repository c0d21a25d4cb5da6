//! Inserts lines in bulk. This module is the embedded side of [`LogSession`]: one batch, one transaction, one fsync.
//!
//! The commit is fully synchronous, because whoever posted the lines is told that they are committed. Several
//! sessions may write the same file; they take turns by the file's write lock, and each looks up the current table
//! anew within its transaction.

use std::collections::HashMap;
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use rusqlite::{Connection, Transaction, TransactionBehavior, params};

use super::table::{self, Table};
use super::{extra, failed, file, level_number};
use crate::domain::ids::{ProcessId, TenantId};
use crate::domain::log_row::LogRow;
use crate::domain::time::Timestamp;
use crate::store::sqlite::connection::open_writer;
use crate::store::sqlite::{Clock, system_clock};
use crate::store::{LogSession, Result};

/// Rows in one INSERT: from some fifty on, a statement's own cost no longer shows.
const STATEMENT_ROWS: usize = 50;

/// What is left of a batch goes in portions of this size and then one by one, so that few statements are prepared.
const PORTION_ROWS: usize = 7;

const COLUMN_COUNT: usize = 7;

/// How long the note of a process's newest line may be behind: one small write per process and interval, not one
/// per batch. It is exact enough to tell that a process lives.
const NOTE_INTERVAL: Duration = Duration::from_secs(5);

/// Processes remembered with their numbers. Forgetting them costs one look-up each.
const KNOWN_MAX: usize = 100_000;

/// A process that rows of the current table belong to.
#[derive(Debug, Clone, Copy)]
struct Known {
    process_ref: i64,
    noted_at: Timestamp,
}

/// Writes to `logs.db`.
pub struct Session {
    connection: Connection,
    /// The store's clock: what a line's receipt is told by (law 4).
    clock: Clock,
    /// The table that `known` holds for. A process in it is noted in the file as having rows in that table.
    table_no: i64,
    known: HashMap<TenantId, HashMap<ProcessId, Known>>,
    known_count: usize,
    /// Every row of the last batch has a `log_id` above this one.
    written_above: i64,
}

impl Session {
    /// Opens `logs.db` in `folder`, and makes it where it is missing.
    ///
    /// # Errors
    /// When the file cannot be opened or was written by a newer version.
    pub fn open(folder: &Path) -> Result<Self> {
        let mut connection = open_writer(&file(folder), true)?;
        table::migrate(&mut connection)?;
        let clock: Clock = Arc::new(system_clock);
        let (known, known_count) = (HashMap::new(), 0);
        Ok(Self { connection, clock, table_no: 0, known, known_count, written_above: 0 })
    }

    /// The same session on the store's own clock, where that is not the system's.
    #[must_use]
    pub fn on_clock(mut self, clock: Clock) -> Self {
        self.clock = clock;
        self
    }

    /// Inserts all rows as received at `now`.
    pub(super) fn write_at(&mut self, rows: &[LogRow], now: Timestamp) -> Result<()> {
        if rows.is_empty() {
            return Ok(());
        }
        let Self { connection, table_no, known, known_count, written_above, clock: _ } = self;
        let mut write = || -> rusqlite::Result<()> {
            let transaction =
                connection.transaction_with_behavior(TransactionBehavior::Immediate)?;
            let mut table = table::current(&transaction, now)?;
            if table.number != *table_no || *known_count > KNOWN_MAX {
                known.clear();
                *known_count = 0;
                *table_no = table.number;
            }
            *written_above = table.last_log_id;
            let order = number_processes(&transaction, known, known_count, &table, rows, now)?;
            insert(&transaction, &mut table, rows, &order, now)?;
            table.save(&transaction)?;
            transaction.commit()
        };
        write().map_err(|error| {
            // What was noted in this transaction is gone with it.
            self.table_no = 0;
            failed("write logs")(error)
        })
    }
}

impl LogSession for Session {
    fn write(&mut self, rows: &[LogRow]) -> Result<()> {
        let now = (self.clock)();
        self.write_at(rows, now)
    }

    fn written_above(&self) -> Option<i64> {
        Some(self.written_above)
    }
}

/// The rows as `(process_ref, index)`, sorted, so that the index is written in its order and two writers never wait
/// for each other (law 11); rows of one process stay in the order given.
fn number_processes(
    transaction: &Transaction<'_>,
    known: &mut HashMap<TenantId, HashMap<ProcessId, Known>>,
    known_count: &mut usize,
    table: &Table,
    rows: &[LogRow],
    now: Timestamp,
) -> rusqlite::Result<Vec<(i64, usize)>> {
    let fresh = |known: &HashMap<TenantId, HashMap<ProcessId, Known>>, row: &LogRow| {
        let found = known.get(&row.tenant)?.get(&row.process)?;
        (now.since(found.noted_at) < NOTE_INTERVAL).then_some(found.process_ref)
    };
    let mut missing: Vec<&LogRow> = Vec::new();
    for (index, row) in rows.iter().enumerate() {
        let repeats = index > 0 && same_process(row, &rows[index - 1]);
        if !repeats && fresh(known, row).is_none() {
            missing.push(row);
        }
    }
    missing.sort_by(|a, b| (&a.tenant, &a.process).cmp(&(&b.tenant, &b.process)));
    missing.dedup_by(|a, b| same_process(a, b));
    if !missing.is_empty() {
        let mut note = transaction
            .prepare_cached(include_str!("../../../../sql/sqlite/logs_note_process.sql"))?;
        for row in missing {
            let process_ref = note.query_row(
                params![row.tenant.as_str(), row.process.as_str(), table.number, now.micros()],
                |found| found.get(0),
            )?;
            let of_tenant = known.entry(row.tenant.clone()).or_default();
            if of_tenant.insert(row.process.clone(), Known { process_ref, noted_at: now }).is_none()
            {
                *known_count += 1;
            }
        }
    }
    let mut order: Vec<(i64, usize)> = Vec::with_capacity(rows.len());
    for (index, row) in rows.iter().enumerate() {
        let process_ref = match order.last() {
            Some(&(last, _)) if same_process(row, &rows[index - 1]) => last,
            _ => fresh(known, row).expect("every process of the batch was noted above"),
        };
        order.push((process_ref, index));
    }
    order.sort_unstable();
    Ok(order)
}

fn same_process(a: &LogRow, b: &LogRow) -> bool {
    a.process == b.process && a.tenant == b.tenant
}

fn insert(
    transaction: &Transaction<'_>,
    table: &mut Table,
    rows: &[LogRow],
    order: &[(i64, usize)],
    now: Timestamp,
) -> rusqlite::Result<()> {
    if table.is_empty() {
        table.opened_us = now.micros();
    }
    table.last_ingested_us = now.micros();
    let mut left = order;
    for size in [STATEMENT_ROWS, PORTION_ROWS, 1] {
        if left.len() < size {
            continue;
        }
        let mut statement = transaction.prepare_cached(&insert_statement(table.number, size))?;
        while let Some((portion, rest)) = left.split_at_checked(size) {
            for (position, &(process_ref, index)) in portion.iter().enumerate() {
                let row = &rows[index];
                let logged_us = row.logged_at.micros();
                table.last_log_id += 1;
                table.logged_us_min = table.logged_us_min.min(logged_us);
                table.logged_us_max = table.logged_us_max.max(logged_us);
                let first = position * COLUMN_COUNT + 1;
                statement.raw_bind_parameter(first, table.last_log_id)?;
                statement.raw_bind_parameter(first + 1, process_ref)?;
                statement.raw_bind_parameter(first + 2, logged_us)?;
                statement.raw_bind_parameter(first + 3, now.micros())?;
                statement.raw_bind_parameter(first + 4, level_number(row.level))?;
                statement.raw_bind_parameter(first + 5, &*row.message)?;
                statement.raw_bind_parameter(first + 6, extra::encode(row))?;
            }
            statement.raw_execute()?;
            left = rest;
        }
    }
    Ok(())
}

fn insert_statement(table_no: i64, rows: usize) -> String {
    let mut sql = format!("INSERT INTO logs_{table_no} VALUES (?,?,?,?,?,?,?)");
    sql.push_str(&",(?,?,?,?,?,?,?)".repeat(rows - 1));
    sql
}
