//! The removal of a tenant from a stopped store. This module counts what there is of a tenant, and takes it out of the
//! three files.
//!
//! What must stay true: nothing of another tenant changes, neither its rows nor its numbers nor its positions; and
//! whatever moment it is cut off at, doing it again completes it. So everything accepted is applied first, then it goes
//! from the projection, from the log rows, and, after a snapshot without it has replaced the ones with it, from the log:
//! a rebuild finds no gap, and nothing to bring back. The files are written anew at the end, because `SQLite` leaves
//! what is deleted in free pages.

use std::fmt;
use std::fs;
use std::path::PathBuf;
use std::sync::Arc;

use rusqlite::{Connection, OptionalExtension, ToSql, Transaction, TransactionBehavior, params};

use super::connection::{classify, open_reader, open_writer};
use super::folder::Folder;
use super::log::{LogReader, salvage};
use super::projection::Session;
use super::snapshot::{self, io_error};
use super::streams::unsigned;
use super::tables::Tables;
use super::{Settings, idempotency, logs, schema};
use crate::domain::dead_letter::NO_TENANT;
use crate::domain::ids::TenantId;
use crate::store::{Message, Result};

const CALL: &str = "purge";
/// Messages of the log that are looked at, or applied, at a time.
const LOG_ROWS: usize = 4000;
/// What is removed by the number of the tenant, children before what names them.
const BY_NUMBER: [(&str, Kind); 4] = [
    ("process_run", Kind::Runs),
    ("process", Kind::Processes),
    ("history", Kind::Other),
    ("stream", Kind::Other),
];

#[derive(Clone, Copy)]
enum Kind {
    Runs,
    Processes,
    Other,
}

/// What there was of a tenant.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Purged {
    pub events: u64,
    pub processes: u64,
    pub runs: u64,
    pub dead_letters: u64,
    pub log_rows: u64,
    /// Rows of `log.db`, most of which are events too.
    pub accepted: u64,
    /// What could not be read, so that nobody knows whose it is: rows of `log.db`, or the dead letters of them.
    pub unreadable: u64,
    /// Files beside the store that may hold rows of the tenant.
    pub left: Vec<PathBuf>,
}

impl fmt::Display for Purged {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(
            f,
            "{} events, {} processes, {} runs, {} dead letters, {} log rows, {} rows of the log of accepted events",
            self.events, self.processes, self.runs, self.dead_letters, self.log_rows, self.accepted
        )?;
        if self.unreadable > 0 {
            write!(
                f,
                "\n{} dead letters of events that cannot be read may be of any tenant, and stay: \
                 /v1/dead-letters?tenant=%23none",
                self.unreadable
            )?;
        }
        for path in &self.left {
            write!(f, "\n{} may hold rows of the tenant too: remove it", path.display())?;
        }
        Ok(())
    }
}

/// Counts what a stopped store holds of `tenant`, and changes nothing.
///
/// # Errors
/// [`StoreError::Busy`](crate::store::StoreError::Busy) while a service holds the folder.
pub fn look_for(settings: &Settings, tenant: &TenantId) -> Result<Purged> {
    let folder = Folder::lock(&settings.folder)?;
    let fail = |error| classify(CALL, error);
    let mut found = Purged { left: set_aside(&folder)?, ..Purged::default() };
    if folder.events_db().exists() {
        let events = open_reader(&folder.events_db())?;
        count_projected(&events, tenant, &mut found).map_err(fail)?;
    }
    if folder.logs_db().exists() {
        let rows = open_reader(&folder.logs_db())?;
        found.log_rows = logs::count_of(&rows, tenant.as_str()).map_err(fail)?;
    }
    if folder.log_db().exists() {
        let (positions, unreadable) = accepted_of(&folder, tenant)?;
        found.accepted = count(positions.len());
        found.unreadable = found.unreadable.max(unreadable);
    }
    Ok(found)
}

/// Removes everything of `tenant` from a stopped store.
///
/// # Errors
/// [`StoreError::Busy`](crate::store::StoreError::Busy) while a service holds the folder; else as the files. After an error it is to be done again.
pub fn purge(settings: &Settings, tenant: &TenantId) -> Result<Purged> {
    let folder = Arc::new(Folder::lock(&settings.folder)?);
    let fail = |error| classify(CALL, error);
    snapshot::mend(&folder, settings)?;
    apply_all(&folder, settings)?;
    let (positions, _) = accepted_of(&folder, tenant)?;
    let mut purged = Purged { accepted: count(positions.len()), ..Purged::default() };

    let mut events = open_writer(&folder.events_db(), true)?;
    count_projected(&events, tenant, &mut purged).map_err(fail)?;
    let transaction =
        events.transaction_with_behavior(TransactionBehavior::Immediate).map_err(fail)?;
    remove_projected(&transaction, tenant, positions.clone())?;
    transaction.commit().map_err(fail)?;
    write_anew(&events)?;

    let mut rows = open_writer(&folder.logs_db(), true)?;
    logs::migrate(&mut rows)?;
    let transaction =
        rows.transaction_with_behavior(TransactionBehavior::Immediate).map_err(fail)?;
    purged.log_rows = logs::remove(&transaction, tenant.as_str()).map_err(fail)?;
    transaction.commit().map_err(fail)?;
    write_anew(&rows)?;

    // Before the log loses rows: from here on a rebuild begins with this one.
    snapshot::replace(&folder, &events)?;
    let mut log = open_writer(&folder.log_db(), true)?;
    let transaction =
        log.transaction_with_behavior(TransactionBehavior::Immediate).map_err(fail)?;
    for position in positions {
        let mut delete =
            transaction.prepare_cached("DELETE FROM log WHERE id = ?1").map_err(fail)?;
        delete.execute([position]).map_err(fail)?;
    }
    transaction.commit().map_err(fail)?;
    write_anew(&log)?;
    purged.left = set_aside(&folder)?;
    Ok(purged)
}

/// Applies what is accepted and not applied: what is left of a tenant in the log alone would come back later.
fn apply_all(folder: &Arc<Folder>, settings: &Settings) -> Result<()> {
    let now = (settings.clock)();
    let mut events = open_writer(&folder.events_db(), false)?;
    schema::migrate(&mut events, now)?;
    idempotency::migrate(&events)?;
    // Makes the file where there is none.
    drop(super::log::Log::open(folder)?);
    let tables = Tables::new(settings.event_table_rows, settings.event_table_age);
    let log = LogReader::open(folder)?;
    let mut session = Session::new(Arc::clone(folder), events, log, None, Arc::default(), tables)?;
    while session.replay(LOG_ROWS, &settings.policy, now)? > 0 {}
    session.close()
}

/// The positions of a tenant's rows in the log, and how many rows cannot be read.
fn accepted_of(folder: &Folder, tenant: &TenantId) -> Result<(Vec<i64>, u64)> {
    let mut log = LogReader::open(folder)?;
    let (mut found, mut unreadable, mut after) = (Vec::new(), 0, 0);
    loop {
        let messages = log.read_after(after, LOG_ROWS)?;
        if messages.is_empty() {
            return Ok((found, unreadable));
        }
        for message in messages {
            let (position, owner) = match message {
                Message::Event(event) => (event.position, Some(event.envelope.tenant.clone())),
                Message::Undecodable { position, bytes, .. } => {
                    (position, salvage(position, &bytes).map(|event| event.envelope.tenant))
                }
            };
            after = position;
            match owner {
                Some(owner) if owner == *tenant => found.push(position),
                Some(_) => {}
                None => unreadable += 1,
            }
        }
    }
}

fn number_of(connection: &Connection, tenant: &TenantId) -> rusqlite::Result<Option<i64>> {
    connection
        .query_row("SELECT tenant_id FROM tenant WHERE name = ?1", [tenant.as_str()], |row| {
            row.get(0)
        })
        .optional()
}

/// The event tables there are, [`super::tables::KEPT`] among them.
fn event_tables(connection: &Connection) -> rusqlite::Result<Vec<i64>> {
    let names = "SELECT CAST(substr(name, 8) AS INTEGER) FROM sqlite_schema \
                 WHERE type = 'table' AND name GLOB 'events_[0-9]*' ORDER BY 1";
    connection.prepare(names)?.query_map([], |row| row.get(0))?.collect()
}

fn count_projected(
    connection: &Connection,
    tenant: &TenantId,
    found: &mut Purged,
) -> rusqlite::Result<()> {
    let ask = |sql: &str, value: &dyn ToSql| {
        connection.query_row(sql, [value], |row| row.get(0)).map(unsigned)
    };
    let dead = "SELECT count(*) FROM tombstone WHERE tenant = ?1";
    found.dead_letters = ask(dead, &tenant.as_str())?;
    found.unreadable = ask(dead, &NO_TENANT)?;
    let Some(number) = number_of(connection, tenant)? else { return Ok(()) };
    for n in event_tables(connection)? {
        found.events +=
            ask(&format!("SELECT count(*) FROM events_{n} WHERE tenant_id = ?1"), &number)?;
    }
    for (place, kind) in BY_NUMBER {
        let rows = ask(&format!("SELECT count(*) FROM {place} WHERE tenant_id = ?1"), &number)?;
        match kind {
            Kind::Runs => found.runs = rows,
            Kind::Processes => found.processes = rows,
            Kind::Other => {}
        }
    }
    Ok(())
}

/// Removes a tenant from the projection. `positions`: what the log knows of its.
fn remove_projected(
    transaction: &Transaction<'_>,
    tenant: &TenantId,
    mut positions: Vec<i64>,
) -> Result<()> {
    let fail = |error| classify(CALL, error);
    // Where the log tells whose it was, the dead letter of an event that cannot be read goes, too.
    for position in &positions {
        let mut delete = transaction
            .prepare_cached("DELETE FROM tombstone WHERE position = ?1")
            .map_err(fail)?;
        delete.execute([position]).map_err(fail)?;
    }
    let dead = "DELETE FROM tombstone WHERE tenant = ?1 RETURNING position";
    positions.extend(returned(transaction, dead, tenant.as_str()).map_err(fail)?);
    if let Some(number) = number_of(transaction, tenant).map_err(fail)? {
        for n in event_tables(transaction).map_err(fail)? {
            let delete = format!("DELETE FROM events_{n} WHERE tenant_id = ?1 RETURNING position");
            let removed = returned(transaction, &delete, number).map_err(fail)?;
            let rows = i64::try_from(removed.len()).unwrap_or(i64::MAX);
            transaction
                .execute("UPDATE event_table SET rows = rows - ?2 WHERE n = ?1", params![n, rows])
                .map_err(fail)?;
            positions.extend(removed);
        }
        for (place, _) in BY_NUMBER {
            let delete = format!("DELETE FROM {place} WHERE tenant_id = ?1");
            transaction.execute(&delete, [number]).map_err(fail)?;
        }
        transaction.execute("DELETE FROM tenant WHERE tenant_id = ?1", [number]).map_err(fail)?;
    }
    positions.sort_unstable();
    positions.dedup();
    idempotency::remove(transaction, &positions)
}

fn returned(
    transaction: &Transaction<'_>,
    sql: &str,
    parameter: impl ToSql,
) -> rusqlite::Result<Vec<i64>> {
    transaction.prepare(sql)?.query_map([parameter], |row| row.get(0))?.collect()
}

/// Writes a file anew without what was deleted, and leaves nothing beside it.
fn write_anew(connection: &Connection) -> Result<()> {
    // The copy that this makes on its way may be larger than the memory.
    connection
        .execute_batch("PRAGMA temp_store = FILE; VACUUM")
        .and_then(|()| connection.query_row("PRAGMA wal_checkpoint(TRUNCATE)", [], |_| Ok(())))
        .map_err(|error| classify(CALL, error))
}

/// Projections that were set aside as damaged, and snapshots as those of another history.
fn set_aside(folder: &Folder) -> Result<Vec<PathBuf>> {
    let entries = fs::read_dir(folder.path()).map_err(io_error(CALL, folder.path()))?;
    let mut found = Vec::new();
    for entry in entries {
        let entry = entry.map_err(io_error(CALL, folder.path()))?;
        let name = entry.file_name();
        let name = name.to_string_lossy();
        if name.starts_with("events.db.damaged-") || name.starts_with("events.db.set-aside-") {
            found.push(entry.path());
        }
    }
    found.sort();
    Ok(found)
}

fn count(rows: usize) -> u64 {
    u64::try_from(rows).unwrap_or(u64::MAX)
}
