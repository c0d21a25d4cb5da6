//! How a file of the embedded store is opened, and what its errors mean to us. This module is the only place that opens one.
//!
//! What must stay true: no connection checkpoints on its own (a checkpoint is the whole tail of a durable commit,
//! so it happens where nobody waits for an answer), and an input/output error never passes as something to retry.

use std::path::Path;
use std::time::Duration;

use rusqlite::config::DbConfig;
use rusqlite::{Connection, Error, ErrorCode, OpenFlags};

use super::folder;
use crate::store::{Result, StoreError};

/// How long a writer waits for another one. Writers of one file are few and their transactions are short; whoever
/// waits longer than this is stuck, and answering "busy" is better than holding up everybody behind it.
pub(super) const BUSY_WAIT: Duration = Duration::from_secs(2);

/// Prepared statements kept for each connection: more than any session uses, so none is prepared twice.
const STATEMENTS_MAX: usize = 128;

/// Pages of a writer kept in memory, in KiB. A projection batch touches a few thousand pages.
const WRITER_CACHE_KIB: i64 = 16 * 1024;

/// Pages of a reader kept in memory, in KiB. There is a reader on each thread, and the system caches the file too.
const READER_CACHE_KIB: i64 = 4 * 1024;

/// A WAL that has grown beyond this, by a burst or a long reader, is cut back when it starts over.
const WAL_BYTES_KEPT: i64 = 64 * 1024 * 1024;

/// Makes a file that is not there for its owner alone, whatever the umask; `SQLite` takes an empty one for a new one,
/// and gives the files that it keeps beside it the same rights. Whoever opened a file that is there and closed it
/// again would give up the locks that this process has on it.
fn make_private(path: &Path) {
    // Where it cannot be made, opening it says why.
    let _ = folder::make(path);
}

/// Opens a file for writing and makes it if it is not there. `synchronous_full`: a commit that returned is on disk.
pub(super) fn open_writer(path: &Path, synchronous_full: bool) -> Result<Connection> {
    const CALL: &str = "open for writing";
    let flags = OpenFlags::SQLITE_OPEN_READ_WRITE
        | OpenFlags::SQLITE_OPEN_CREATE
        | OpenFlags::SQLITE_OPEN_NO_MUTEX;
    make_private(path);
    let open = || -> rusqlite::Result<(Connection, String)> {
        let connection = Connection::open_with_flags(path, flags)?;
        prepare(&connection)?;
        let mode =
            connection.query_row("PRAGMA journal_mode = WAL", [], |row| row.get::<_, String>(0))?;
        connection.pragma_update(
            None,
            "synchronous",
            if synchronous_full { "FULL" } else { "NORMAL" },
        )?;
        connection.pragma_update(None, "wal_autocheckpoint", 0)?;
        connection.pragma_update(None, "journal_size_limit", WAL_BYTES_KEPT)?;
        connection.pragma_update(None, "cache_size", -WRITER_CACHE_KIB)?;
        // A mapped file turns an input/output error into a signal that kills the process.
        connection.pragma_update(None, "mmap_size", 0)?;
        Ok((connection, mode))
    };
    let (connection, mode) = open().map_err(|error| not_opened(CALL, path, error))?;
    if mode.eq_ignore_ascii_case("wal") {
        Ok(connection)
    } else {
        let source = format!("{} stays in journal mode {mode}, not WAL", path.display()).into();
        Err(StoreError::Other { call: CALL, source })
    }
}

/// Opens a file that exists for reading only.
pub(super) fn open_reader(path: &Path) -> Result<Connection> {
    let flags = OpenFlags::SQLITE_OPEN_READ_ONLY | OpenFlags::SQLITE_OPEN_NO_MUTEX;
    let open = || -> rusqlite::Result<Connection> {
        let connection = Connection::open_with_flags(path, flags)?;
        prepare(&connection)?;
        connection.pragma_update(None, "query_only", true)?;
        connection.pragma_update(None, "cache_size", -READER_CACHE_KIB)?;
        Ok(connection)
    };
    open().map_err(|error| not_opened("open for reading", path, error))
}

/// What writers and readers have in common.
fn prepare(connection: &Connection) -> rusqlite::Result<()> {
    connection.busy_timeout(BUSY_WAIT)?;
    // A misspelt column in double quotes is an error, not a text.
    connection.set_db_config(DbConfig::SQLITE_DBCONFIG_DQS_DML, false)?;
    connection.set_db_config(DbConfig::SQLITE_DBCONFIG_DQS_DDL, false)?;
    // Without it a statement is planned anew whenever a parameter of it is bound that an index with a condition might
    // depend on: two thirds of the CPU of a status request. Conditions of ours name their values, so nothing is lost.
    connection.set_db_config(DbConfig::SQLITE_DBCONFIG_ENABLE_QPSG, true)?;
    connection.pragma_update(None, "trusted_schema", false)?;
    connection.pragma_update(None, "temp_store", "MEMORY")?;
    connection.set_prepared_statement_cache_capacity(STATEMENTS_MAX);
    Ok(())
}

/// Says what the caller is to do about an error of the database.
pub(super) fn classify(call: &'static str, error: Error) -> StoreError {
    let Some(code) = error.sqlite_error_code() else {
        return StoreError::Other { call, source: error.into() };
    };
    match code {
        ErrorCode::DiskFull => no_space(call, "the disk is full", error),
        ErrorCode::ReadOnly => no_space(call, "the store's files are read-only", error),
        ErrorCode::CannotOpen => no_space(call, "the store's files cannot be opened", error),
        ErrorCode::SystemIoFailure => StoreError::Io { call, source: error.into() },
        ErrorCode::DatabaseBusy
        | ErrorCode::DatabaseLocked
        | ErrorCode::FileLockingProtocolFailed => StoreError::Busy { call, source: error.into() },
        ErrorCode::DatabaseCorrupt | ErrorCode::NotADatabase => {
            StoreError::Corrupt { what: format!("{call}: a file of the store is damaged: {error}") }
        }
        ErrorCode::ConstraintViolation => StoreError::Refused { call, source: error.into() },
        _ => StoreError::Other { call, source: error.into() },
    }
}

/// Like [`classify`], and names the file: whoever reads this has no service that could tell which one it was.
fn not_opened(call: &'static str, path: &Path, error: Error) -> StoreError {
    let words = error.to_string();
    match classify(call, error) {
        StoreError::Corrupt { .. } => {
            StoreError::Corrupt { what: format!("{call}: {} is damaged: {words}", path.display()) }
        }
        other => other,
    }
}

fn no_space(call: &'static str, why: &'static str, error: Error) -> StoreError {
    StoreError::NoSpace { call, why, source: error.into() }
}

/// Looks at a file from front to back. None: it is whole; else what is wrong with it.
pub(super) fn quick_check(connection: &Connection) -> Result<Option<String>> {
    match connection.query_row("PRAGMA quick_check(1)", [], |row| row.get::<_, String>(0)) {
        Ok(word) if word == "ok" => Ok(None),
        Ok(problem) => Ok(Some(problem)),
        Err(error) => match classify("quick_check", error) {
            StoreError::Corrupt { what } => Ok(Some(what)),
            other => Err(other),
        },
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn failure(code: i32) -> Error {
        Error::SqliteFailure(rusqlite::ffi::Error::new(code), None)
    }

    #[test]
    fn errors_are_told_apart_by_what_to_do_next() {
        use rusqlite::ffi;
        for code in [ffi::SQLITE_FULL, ffi::SQLITE_READONLY, ffi::SQLITE_CANTOPEN] {
            assert!(
                matches!(classify("call", failure(code)), StoreError::NoSpace { .. }),
                "{code}"
            );
        }
        for code in [ffi::SQLITE_IOERR, ffi::SQLITE_IOERR_FSYNC, ffi::SQLITE_IOERR_SHMSIZE] {
            assert!(matches!(classify("call", failure(code)), StoreError::Io { .. }), "{code}");
        }
        for code in [ffi::SQLITE_BUSY, ffi::SQLITE_LOCKED, ffi::SQLITE_BUSY_SNAPSHOT] {
            assert!(matches!(classify("call", failure(code)), StoreError::Busy { .. }), "{code}");
        }
        for code in [ffi::SQLITE_CORRUPT, ffi::SQLITE_NOTADB] {
            assert!(
                matches!(classify("call", failure(code)), StoreError::Corrupt { .. }),
                "{code}"
            );
        }
        let refused = classify("call", failure(ffi::SQLITE_CONSTRAINT_UNIQUE));
        assert!(matches!(refused, StoreError::Refused { .. }));
        assert!(matches!(classify("call", failure(ffi::SQLITE_NOMEM)), StoreError::Other { .. }));
    }

    #[test]
    fn a_reader_cannot_write_and_a_quoted_typo_is_an_error() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("some.db");
        let writer = open_writer(&path, true).unwrap();
        writer.execute_batch("CREATE TABLE thing (name TEXT)").unwrap();
        writer.prepare("SELECT \"nmae\" FROM thing").unwrap_err();
        let reader = open_reader(&path).unwrap();
        reader.execute("INSERT INTO thing VALUES ('a')", []).unwrap_err();
        assert_eq!(quick_check(&reader).unwrap(), None);
    }
}
