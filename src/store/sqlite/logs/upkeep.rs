//! What `logs.db` needs from time to time. This module drops old tables and copies the write-ahead log into the file,
//! neither of them on a thread that somebody waits for.

use std::path::Path;
use std::time::Duration;

use rusqlite::{Connection, Transaction, TransactionBehavior};

use super::table::{self, Table};
use super::{failed, file};
use crate::domain::time::Timestamp;
use crate::store::Result;
use crate::store::sqlite::connection::{BUSY_WAIT, open_writer};

/// Copies without stopping the writer, one after the other, each smaller than the one before.
const ROUNDS_MAX: usize = 4;

/// So few pages are copied while the writer waits.
const LAST_PAGES_MAX: i64 = 500;

/// How long the last copy may keep the writer waiting for a reader to end.
const RESTART_WAIT: Duration = Duration::from_millis(50);

/// Opens `logs.db` in `folder` for [`checkpoint`] and [`drop_older_than`].
///
/// # Errors
/// When the file cannot be opened.
pub fn open_for_upkeep(folder: &Path) -> Result<Connection> {
    open_writer(&file(folder), true)
}

/// Copies the write-ahead log into the file and lets the writer begin again at the log's start. Returns how many
/// pages were copied.
///
/// A writer that never pauses always leaves something uncopied, so plain passive checkpoints let the log grow without
/// end, and writing into a growing file costs twice as much as overwriting an old log. So the bulk is copied beside
/// the writer, and the last few pages while it waits.
///
/// # Errors
/// When the file cannot be written. That a reader or writer was in the way is no error.
pub fn checkpoint(connection: &Connection) -> Result<u64> {
    let copy = || -> rusqlite::Result<u64> {
        connection.busy_timeout(RESTART_WAIT)?;
        let mut copied = 0;
        for _ in 0..ROUNDS_MAX {
            let before = copied;
            let (in_log, in_file) = run(connection, "PRAGMA wal_checkpoint(PASSIVE)")?;
            copied = in_file;
            if in_log - before.min(in_log) <= LAST_PAGES_MAX {
                break;
            }
        }
        let (_, in_file) = run(connection, "PRAGMA wal_checkpoint(RESTART)")?;
        Ok(u64::try_from(in_file.max(copied)).unwrap_or(0))
    };
    let copied = copy();
    connection.busy_timeout(BUSY_WAIT).and(copied).map_err(failed("checkpoint logs"))
}

/// Pages in the log, and how many of them are in the file too.
fn run(connection: &Connection, pragma: &str) -> rusqlite::Result<(i64, i64)> {
    connection.query_row(pragma, [], |row| Ok((row.get(1)?, row.get(2)?)))
}

/// Drops the tables whose newest row came in before `before`, for all tenants, one to a transaction so that writers
/// get their turn. Returns how many rows are gone.
///
/// # Errors
/// What is dropped by then stays dropped; the rest waits for the next call.
pub fn drop_older_than(connection: &mut Connection, before: Timestamp) -> Result<u64> {
    let mut gone = 0;
    loop {
        let transaction = connection
            .transaction_with_behavior(TransactionBehavior::Immediate)
            .map_err(failed("drop logs"))?;
        match drop_one(&transaction, before).map_err(failed("drop logs"))? {
            None => return Ok(gone),
            Some(rows) => gone += rows,
        }
        transaction.commit().map_err(failed("drop logs"))?;
    }
}

fn drop_one(transaction: &Transaction<'_>, before: Timestamp) -> rusqlite::Result<Option<u64>> {
    let tables = table::all(transaction)?;
    let old = |table: &&Table| table.last_ingested_us < before.micros() && !table.is_empty();
    let Some(table) = tables.iter().find(old) else { return Ok(None) };
    if tables.last() == Some(table) {
        // The newest row of log_table holds the last log_id, so there must be a newer one before this one goes.
        table::roll(transaction, table.number + 1, table.last_log_id + 1, before)?;
    }
    transaction
        .execute_batch(&format!("DROP VIEW process_logs; DROP TABLE logs_{}", table.number))?;
    transaction.execute("DELETE FROM log_table WHERE table_no = ?1", [table.number])?;
    // A process without rows in any table is forgotten: PL/SQL makes a new process id for each run.
    transaction.execute(
        "DELETE FROM log_process WHERE last_table < (SELECT min(table_no) FROM log_table)",
        [],
    )?;
    table::make_view(transaction)?;
    Ok(Some(u64::try_from(table.last_log_id - table.first_log_id + 1).unwrap_or(0)))
}
