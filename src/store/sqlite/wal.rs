//! Keeps the write-ahead logs short. This module copies them back in the background, and lets the acknowledging
//! thread start a log over when that costs it next to nothing.
//!
//! A WAL that is written without a pause never starts over by itself: whenever a background checkpoint ends, newer
//! pages are there already. So the keeper copies nearly everything on its own connection and raises a flag, and
//! intake, between two commits, copies the few pages that are left and goes back to the start of the file. What
//! must stay true: intake never copies more than [`REMAINDER_PAGES_MAX`] pages and never waits for a reader.

use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use rusqlite::Connection;

use super::connection::{BUSY_WAIT, classify};
use crate::store::Result;

/// From this size on a WAL should start over: 16 MiB. A longer one makes readers search longer; a shorter one is
/// started over so often that intake notices.
pub(super) const WAL_PAGES_MAX: u64 = 4096;

/// What intake may have left to copy: 2 MiB, some milliseconds on a slow disk.
pub(super) const REMAINDER_PAGES_MAX: u64 = 512;

/// How long intake waits for a reader to leave the old part of the WAL. After that it tries another time.
const READER_WAIT: Duration = Duration::from_millis(5);

/// Copies what it can of the WAL into the file without waiting for anybody. Returns whether it was kept from
/// finishing, how many pages the WAL holds, and how many of them are copied.
pub(super) fn checkpoint(connection: &Connection) -> Result<(bool, u64, u64)> {
    run(connection, "PRAGMA wal_checkpoint(PASSIVE)")
}

/// The same, for a WAL that is about to start over: while a long one is copied much is written behind it, and whoever
/// starts it over must copy that. So a long one is copied twice, and what is left is what came during the short time.
pub(super) fn checkpoint_nearly_all(connection: &Connection) -> Result<(bool, u64, u64)> {
    match checkpoint(connection)? {
        (_, pages, _) if pages > WAL_PAGES_MAX => checkpoint(connection),
        short => Ok(short),
    }
}

fn run(connection: &Connection, pragma: &str) -> Result<(bool, u64, u64)> {
    connection
        .query_row(pragma, [], |row| {
            let pages = |column| -> rusqlite::Result<u64> {
                // -1 where there is no WAL yet.
                Ok(u64::try_from(row.get::<_, i64>(column)?).unwrap_or(0))
            };
            Ok((row.get::<_, i64>(0)? != 0, pages(1)?, pages(2)?))
        })
        .map_err(|error| classify("checkpoint", error))
}

/// What the keeper tells intake about the WAL of `log.db`.
#[derive(Debug, Default)]
pub(super) struct WalGauge {
    restart_wanted: AtomicBool,
}

impl WalGauge {
    /// The keeper reports a background checkpoint of `log.db`.
    pub(super) fn observe(&self, wal_pages: u64, copied_pages: u64) {
        let left = wal_pages.saturating_sub(copied_pages);
        if wal_pages > WAL_PAGES_MAX && left <= REMAINDER_PAGES_MAX {
            self.restart_wanted.store(true, Ordering::Relaxed);
        }
    }

    /// Intake, between two commits: starts the WAL over if the keeper has asked for it. Returns whether it did.
    pub(super) fn restart_if_wanted(&self, connection: &Connection) -> Result<bool> {
        if !self.restart_wanted.swap(false, Ordering::Relaxed) {
            return Ok(false);
        }
        let call = "restart the log's WAL";
        connection.busy_timeout(READER_WAIT).map_err(|error| classify(call, error))?;
        let outcome = run(connection, "PRAGMA wal_checkpoint(RESTART)");
        connection.busy_timeout(BUSY_WAIT).map_err(|error| classify(call, error))?;
        // When a reader was in the way, the keeper's next report asks again.
        outcome.map(|(kept, _, _)| !kept)
    }
}
