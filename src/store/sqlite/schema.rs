//! The shape of `events.db` and how it comes about. This module holds the migrations: forward only, each applied
//! once in one transaction, and each with a checksum, so that a migration that was edited after its release is
//! found out instead of half believed.

use rusqlite::{Connection, TransactionBehavior};
use sha2::{Digest, Sha256};

use super::connection::classify;
use super::tables;
use crate::domain::time::Timestamp;
use crate::store::{Result, StoreError};

/// One step of the schema.
struct Migration {
    version: i64,
    sql: &'static str,
}

const MIGRATIONS: [Migration; 2] = [
    Migration { version: 1, sql: include_str!("../../../sql/sqlite/001_events.sql") },
    Migration { version: 2, sql: include_str!("../../../sql/sqlite/views.sql") },
];

const CREATE_VERSIONS: &str = "CREATE TABLE IF NOT EXISTS sentinel_schema_version \
     (version INTEGER PRIMARY KEY, applied_at TEXT NOT NULL, checksum TEXT NOT NULL)";

/// What `sentinel migrate` found or did.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Migrated {
    /// The version that the file had.
    pub from: i64,
    /// The version that this program needs.
    pub to: i64,
}

fn checksum(sql: &str) -> String {
    Sha256::digest(sql.as_bytes()).iter().map(|byte| format!("{byte:02x}")).collect()
}

/// What a file that is not there has and needs.
pub(super) fn nothing() -> Migrated {
    Migrated { from: 0, to: MIGRATIONS[MIGRATIONS.len() - 1].version }
}

/// Which version the file has, after comparing the checksum of everything that was applied to it.
///
/// # Errors
/// [`StoreError::Corrupt`] when the file was written by a newer program, or by a migration that is not ours.
pub(super) fn check(connection: &Connection) -> Result<Migrated> {
    let fail = |error| classify("check schema", error);
    let to = MIGRATIONS[MIGRATIONS.len() - 1].version;
    let known: bool = connection
        .query_row(
            "SELECT count(*) FROM sqlite_schema WHERE type = 'table' AND name = 'sentinel_schema_version'",
            [],
            |row| row.get(0),
        )
        .map_err(fail)?;
    if !known {
        return Ok(Migrated { from: 0, to });
    }
    let mut statement = connection
        .prepare("SELECT version, checksum FROM sentinel_schema_version ORDER BY version")
        .map_err(fail)?;
    let applied = statement
        .query_map([], |row| Ok((row.get(0)?, row.get(1)?)))
        .and_then(Iterator::collect::<rusqlite::Result<Vec<(i64, String)>>>)
        .map_err(fail)?;
    for (version, found) in &applied {
        let Some(ours) = MIGRATIONS.iter().find(|migration| migration.version == *version) else {
            return Err(StoreError::Corrupt {
                what: format!(
                    "events.db has schema version {version}, this program knows up to {to}: run a newer program"
                ),
            });
        };
        if *found != checksum(ours.sql) {
            return Err(StoreError::Corrupt {
                what: format!(
                    "schema version {version} of events.db is not the one that was released"
                ),
            });
        }
    }
    Ok(Migrated { from: applied.last().map_or(0, |(version, _)| *version), to })
}

/// Brings the file to the version of this program. Doing it again changes nothing.
///
/// # Errors
/// As [`check`], and whatever the database says.
pub(super) fn migrate(connection: &mut Connection, now: Timestamp) -> Result<Migrated> {
    let found = check(connection)?;
    let fail = |error| classify("migrate", error);
    for migration in MIGRATIONS.iter().filter(|migration| migration.version > found.from) {
        let transaction =
            connection.transaction_with_behavior(TransactionBehavior::Immediate).map_err(fail)?;
        transaction.execute(CREATE_VERSIONS, []).map_err(fail)?;
        transaction.execute_batch(migration.sql).map_err(fail)?;
        transaction
            .execute(
                "INSERT INTO sentinel_schema_version (version, applied_at, checksum) VALUES (?1, ?2, ?3)",
                (migration.version, now.to_string(), checksum(migration.sql)),
            )
            .map_err(fail)?;
        if migration.version == 1 {
            tables::create(&transaction, tables::KEPT).map_err(fail)?;
        }
        transaction.commit().map_err(fail)?;
    }
    Ok(found)
}
