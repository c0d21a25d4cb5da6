//! What `logs.db` needs from time to time. This module copies the write-ahead log into the file, on no thread that
//! somebody waits for.

use std::path::Path;
use std::time::Duration;

use rusqlite::Connection;

use super::{failed, file};
use crate::store::Result;
use crate::store::sqlite::connection::{BUSY_WAIT, open_writer};

/// Copies without stopping the writer, one after the other, each smaller than the one before.
const ROUNDS_MAX: usize = 4;

/// So few pages are copied while the writer waits.
const LAST_PAGES_MAX: i64 = 500;

/// How long the last copy may keep the writer waiting for a reader to end.
const RESTART_WAIT: Duration = Duration::from_millis(50);

/// Opens `logs.db` in `folder` for [`checkpoint`] and [`super::Retention`].
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
