//! Identities on the disk: the tables in `events.db` that intake asks when its filters cannot say no. This module
//! writes them with the projection, looks into them, and drops those that are past their time.
//!
//! The table of an identity follows from its position in the log, so intake and projection agree on it without a
//! word. Within a table the rows lie in buckets by position, because a batch of random digests over a whole table
//! would rewrite a page for nearly every row; within a small bucket it fills the pages that it touches (measured:
//! 3 us for an event with two identities, and not rising, against 20-30 us with one bucket a table). A look-up
//! pays for that with a probe for each bucket, which is right because nearly every look-up is spared by the filter.
//! A table that is full gets its filter stored beside it, so that a start reads one blob and not a million rows.

use std::collections::BTreeMap;
use std::sync::Arc;

use rusqlite::{Connection, OptionalExtension, Transaction};

use super::filter::Filter;
use super::{Digest, Identity, Record};
use crate::domain::event::Accepted;
use crate::domain::time::Timestamp;
use crate::store::sqlite::connection::classify;
use crate::store::{Result, StoreError};

/// 2^18 positions share a table: at most twice as many identities, some 60 MB. See [`Filter`] for its size.
const TABLE_SHIFT: u32 = 18;

/// 2^11 positions share a bucket: at most 4,096 identities, some 110 pages. Four times as many make a batch touch that
/// many more pages (4 KB more written for each event at 10,000 events a second, 3 us more of the listener); fewer make
/// a look-up slow, which is one probe for each of 128 buckets now.
const BUCKET_SHIFT: u32 = 11;

/// Rows of one INSERT.
const ROWS_PER_INSERT: usize = 16;

/// The table that holds the identities of the event at `position`.
pub(super) fn table_of(position: i64) -> i64 {
    position >> TABLE_SHIFT
}

/// Makes the catalogue of the tables. Run again, it changes nothing.
pub(in crate::store::sqlite) fn migrate(connection: &Connection) -> Result<()> {
    connection
        .execute_batch(include_str!("../../../../sql/sqlite/idempotency.sql"))
        .map_err(|error| classify("make the idempotency tables", error))
}

/// Keeps the identities of events in the transaction that projects them.
pub(in crate::store::sqlite) fn record(tx: &Transaction, events: &[Arc<Accepted>]) -> Result<()> {
    let mut newest = BTreeMap::<i64, Timestamp>::new();
    let mut rows = Vec::with_capacity(events.len() * 2);
    for event in events {
        let table = table_of(event.position);
        let newest = newest.entry(table).or_insert(event.received_at);
        *newest = event.received_at.max(*newest);
        let record = Record::of(event).to_bytes();
        for digest in Identity::of(&event.envelope).digests() {
            rows.push((
                table,
                event.position >> BUCKET_SHIFT,
                digest,
                event.position,
                record.clone(),
            ));
        }
    }
    // In the order of the key, and among repeats of an identity the newest last, so that it stays.
    rows.sort_unstable_by_key(|(table, bucket, digest, position, _)| {
        (*table, *bucket, *digest, *position)
    });
    let write = || -> rusqlite::Result<()> {
        for (table, received_at) in &newest {
            catalogue(tx, *table, *received_at)?;
        }
        for rows in rows.chunk_by(|a, b| a.0 == b.0) {
            let table = rows[0].0;
            for chunk in rows.chunks(ROWS_PER_INSERT) {
                let count = if chunk.len() == ROWS_PER_INSERT { ROWS_PER_INSERT } else { 1 };
                let sql = format!(
                    "INSERT OR REPLACE INTO idempotency_{table} (bucket, digest, record) VALUES (?,?,?){}",
                    ",(?,?,?)".repeat(count - 1)
                );
                let mut statement = tx.prepare_cached(&sql)?;
                for rows in chunk.chunks(count) {
                    let mut parameter = 1;
                    for (_, bucket, digest, _, record) in rows {
                        statement.raw_bind_parameter(parameter, bucket)?;
                        statement.raw_bind_parameter(parameter + 1, &digest[..])?;
                        statement.raw_bind_parameter(parameter + 2, &record[..])?;
                        parameter += 3;
                    }
                    statement.raw_execute()?;
                }
            }
        }
        Ok(())
    };
    write().map_err(|error| classify("keep identities", error))
}

/// Notes the newest receipt in a table, and makes the table when it is the first.
fn catalogue(tx: &Transaction, table: i64, received_at: Timestamp) -> rusqlite::Result<()> {
    const NOTE: &str = "UPDATE idempotency_table SET newest_received = max(newest_received, ?2) \
        WHERE number = ?1";
    let parameters = [table, received_at.micros()];
    if tx.prepare_cached(NOTE)?.execute(parameters)? > 0 {
        return Ok(());
    }
    tx.execute_batch(&format!(
        "CREATE TABLE idempotency_{table} (bucket INTEGER NOT NULL, digest BLOB NOT NULL, \
         record BLOB NOT NULL, PRIMARY KEY (bucket, digest)) WITHOUT ROWID"
    ))?;
    tx.execute(
        "INSERT INTO idempotency_table (number, newest_received) VALUES (?, ?)",
        parameters,
    )?;
    // Positions rise, so the tables before this one are full.
    let full: Vec<i64> = tx
        .prepare(
            "SELECT number FROM idempotency_table WHERE number < ? \
             AND number NOT IN (SELECT number FROM idempotency_filter)",
        )?
        .query_map([table], |row| row.get(0))?
        .collect::<rusqlite::Result<_>>()?;
    for number in full {
        let filter = scan(tx, number)?.to_bytes();
        tx.execute(
            "INSERT INTO idempotency_filter (number, bits) VALUES (?, ?)",
            rusqlite::params![number, filter],
        )?;
    }
    Ok(())
}

/// A filter of everything in a table.
fn scan(connection: &Connection, table: i64) -> rusqlite::Result<Filter> {
    let mut filter = Filter::new();
    let mut statement = connection.prepare(&format!("SELECT digest FROM idempotency_{table}"))?;
    let mut rows = statement.query([])?;
    while let Some(row) = rows.next()? {
        filter.add(&row.get(0)?);
    }
    Ok(filter)
}

/// Drops the tables in which every identity was received before `received_before`. Returns how many.
pub(in crate::store::sqlite) fn drop_older_than(
    connection: &Connection,
    received_before: Timestamp,
) -> Result<u64> {
    const STALE: &str =
        "SELECT number FROM idempotency_table WHERE newest_received < ? ORDER BY number";
    let drop = || -> rusqlite::Result<u64> {
        let stale: Vec<i64> = connection
            .prepare_cached(STALE)?
            .query_map([received_before.micros()], |row| row.get(0))?
            .collect::<rusqlite::Result<_>>()?;
        for number in &stale {
            // Each in its own transaction: a table of this size is quick to drop, many are not.
            let tx =
                Transaction::new_unchecked(connection, rusqlite::TransactionBehavior::Immediate)?;
            tx.execute_batch(&format!("DROP TABLE IF EXISTS idempotency_{number}"))?;
            tx.execute("DELETE FROM idempotency_filter WHERE number = ?", [number])?;
            tx.execute("DELETE FROM idempotency_table WHERE number = ?", [number])?;
            tx.commit()?;
        }
        Ok(u64::try_from(stale.len()).unwrap_or(u64::MAX))
    };
    drop().map_err(|error| classify("drop old identities", error))
}

/// Removes the identities of the events at `positions`, which are sorted. The filters go on saying that they may be
/// there, which costs a look-up and nothing else.
pub(in crate::store::sqlite) fn remove(tx: &Transaction, positions: &[i64]) -> Result<()> {
    let remove = || -> rusqlite::Result<()> {
        for (number, _) in listed(tx)? {
            let mut found: Vec<(i64, Vec<u8>)> = Vec::new();
            let sql = format!("SELECT bucket, digest, record FROM idempotency_{number}");
            let mut statement = tx.prepare(&sql)?;
            let mut rows = statement.query([])?;
            while let Some(row) = rows.next()? {
                let record = Record::from_bytes(row.get_ref(2)?.as_blob()?);
                if record.is_some_and(|record| positions.binary_search(&record.position).is_ok()) {
                    found.push((row.get(0)?, row.get(1)?));
                }
            }
            let sql = format!("DELETE FROM idempotency_{number} WHERE bucket = ? AND digest = ?");
            let mut delete = tx.prepare(&sql)?;
            for (bucket, digest) in found {
                delete.execute(rusqlite::params![bucket, digest])?;
            }
        }
        Ok(())
    };
    remove().map_err(|error| classify("remove identities", error))
}

/// The tables there are, newest first, each with its newest receipt.
pub(super) fn list(connection: &Connection) -> Result<Vec<(i64, Timestamp)>> {
    listed(connection).map_err(|error| classify("list the idempotency tables", error))
}

fn listed(connection: &Connection) -> rusqlite::Result<Vec<(i64, Timestamp)>> {
    connection
        .prepare("SELECT number, newest_received FROM idempotency_table ORDER BY number DESC")?
        .query_map([], |row| Ok((row.get(0)?, Timestamp::from_micros(row.get(1)?))))?
        .collect()
}

/// The filter of a table: the stored one, else one made by reading the table.
pub(super) fn filter(connection: &Connection, table: i64) -> Result<Filter> {
    let load = || -> rusqlite::Result<Filter> {
        let stored: Option<Vec<u8>> = connection
            .query_row("SELECT bits FROM idempotency_filter WHERE number = ?", [table], |row| {
                row.get(0)
            })
            .optional()?;
        match stored.as_deref().and_then(Filter::from_bytes) {
            Some(filter) => Ok(filter),
            None => scan(connection, table),
        }
    };
    load().map_err(|error| classify("load an idempotency filter", error))
}

/// The newest record of an identity in a table. None also where the table is not there, or not any more.
/// `connection` is in a read transaction, so that the catalogue and the table are of one moment.
pub(super) fn find(connection: &Connection, table: i64, digest: &Digest) -> Result<Option<Record>> {
    let find = || -> rusqlite::Result<Option<Vec<u8>>> {
        let there = connection
            .prepare_cached("SELECT 1 FROM idempotency_table WHERE number = ?")?
            .exists([table])?;
        if !there {
            return Ok(None);
        }
        let sql = format!("SELECT record FROM idempotency_{table} WHERE bucket = ? AND digest = ?");
        let mut statement = connection.prepare_cached(&sql)?;
        let buckets = 1 << (TABLE_SHIFT - BUCKET_SHIFT);
        for bucket in (table * buckets..(table + 1) * buckets).rev() {
            let found = statement
                .query_row(rusqlite::params![bucket, &digest[..]], |row| row.get(0))
                .optional()?;
            if found.is_some() {
                return Ok(found);
            }
        }
        Ok(None)
    };
    let bytes = find().map_err(|error| classify("look up an identity", error))?;
    bytes
        .map(|bytes| {
            Record::from_bytes(&bytes).ok_or_else(|| StoreError::Corrupt {
                what: format!(
                    "idempotency_{table} in events.db holds a record that cannot be read"
                ),
            })
        })
        .transpose()
}
