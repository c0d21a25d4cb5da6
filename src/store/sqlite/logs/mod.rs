//! `logs.db`: the lines that processes say, in a file of their own. This module writes them in bulk, pages through
//! those of one process, and drops them by age.
//!
//! Lines are many, narrow and rarely read, so everything is arranged for the insert: process ids are interned, the
//! rare fields share one column, there is one index, and rows go to the newest of a row of tables `logs_<n>` that is
//! rolled by day and by size, so that cost stays flat as data grows and retention is a drop of tables.
//!
//! What must stay true:
//!
//! * `log_id` rises in the order of receipt over all tables and is never given twice, not even after every row is
//!   gone: the newest row of `log_table` holds the last one and is never deleted.
//! * A row of `log_process` lives as long as a table that may hold rows of that process.
//! * A row is in one table at any time. `logs_0` is never written by a [`Session`]: before [`Retention`] drops a table
//!   it carries the rows of open runs there.
//! * Tables roll by receipt, and a page is ordered by the process's own clock, so a page merges tables.
//!
//! The view `process_logs` shows all of it under the column names of the Oracle store.

mod cursor;
mod extra;
mod reader;
mod removal;
mod retention;
mod session;
mod table;
mod upkeep;

#[cfg(test)]
mod tests;

use std::path::{Path, PathBuf};

pub use cursor::Cursor;
pub use reader::Reader;
pub use removal::{count_of, remove};
pub use retention::{Retention, Standing};
pub use session::Session;
pub use table::migrate;
pub use upkeep::{checkpoint, open_for_upkeep};

use super::connection::classify;
use crate::domain::log_row::Level;
use crate::store::StoreError;

/// The file's name in the data folder.
pub const FILE_NAME: &str = "logs.db";

/// Says what to do about log rows that cannot be opened: events need none of them.
pub fn with_advice(folder: &Path, error: StoreError) -> StoreError {
    match error {
        StoreError::Corrupt { what } => StoreError::Corrupt {
            what: format!(
                "{what}: nothing in it was changed. It holds the log rows and no event: move {FILE_NAME} and {FILE_NAME}-wal \
                 out of {} and start again, and rows begin anew; or restore the folder from a backup",
                folder.display()
            ),
        },
        other => other,
    }
}

fn file(folder: &Path) -> PathBuf {
    folder.join(FILE_NAME)
}

/// Turns a driver's error into the store's, for `map_err`.
fn failed(call: &'static str) -> impl Fn(rusqlite::Error) -> StoreError {
    move |error| classify(call, error)
}

/// A level as it is stored: it orders like the levels do.
fn level_number(level: Level) -> i64 {
    match level {
        Level::Trace => 0,
        Level::Debug => 1,
        Level::Info => 2,
        Level::Warn => 3,
        Level::Error => 4,
        Level::Fatal => 5,
    }
}

fn level_of(number: i64) -> Option<Level> {
    Level::ALL.into_iter().find(|level| level_number(*level) == number)
}
