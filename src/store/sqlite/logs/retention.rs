//! Drops lines by age. This module carries those of open runs away before it drops a table, and lets them go when their
//! run is over and archived.
//!
//! Everything is done a portion at a time, and what may be long is looked for outside of a write transaction, because a
//! writer waits for that. A call that was interrupted is simply made again.

use rusqlite::{Connection, OptionalExtension, Transaction, TransactionBehavior, params};

use super::failed;
use super::table::{self, KEPT, Table};
use crate::domain::time::Timestamp;
use crate::store::Result;

const CALL: &str = "drop logs";

/// Processes of a table that are looked at in one call: some 100 ms of reading, which nobody waits for.
const PROCESSES_LOOKED_AT: usize = 10_000;

/// How a process stands, which decides about its old lines.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Standing {
    /// It has an open run: nothing of it is dropped.
    Open,
    /// Its run is over and not archived yet: what was kept stays until then.
    Over,
    /// It is archived, or there is no such process: nothing is kept for it.
    Gone,
}

/// Where retention stands between two portions.
#[derive(Debug, Default)]
pub struct Retention {
    /// The table that is being dropped, and the process up to which open runs were carried out of it.
    carried: Option<(i64, i64)>,
    /// The process in [`KEPT`] up to which was looked for those that are gone.
    released: i64,
    /// The process up to which those without rows in any table were forgotten.
    forgotten: i64,
    /// That was done for all since a table was last dropped.
    is_forgotten: bool,
}

/// Processes of a table, looked at one after the other.
struct Looked {
    /// Those that stand as was asked for.
    found: Vec<i64>,
    /// The last one looked at.
    to: i64,
    /// There are none after it.
    is_all: bool,
}

impl Retention {
    /// Does one portion: carries or releases `limit` rows at most, or drops one table whose newest row came in before
    /// `before`, for all tenants. Returns how much it did; zero means done.
    ///
    /// # Errors
    /// What is done by then stays done; the rest waits for the next call.
    pub fn pass(
        &mut self,
        connection: &mut Connection,
        before: Timestamp,
        limit: usize,
        standing: impl Fn(&str, &str) -> rusqlite::Result<Standing>,
    ) -> Result<usize> {
        let dropped = self.drop(connection, before, limit, &standing).map_err(failed(CALL))?;
        let forgotten = self.forget(connection).map_err(failed(CALL))?;
        let released = self.release(connection, limit, &standing).map_err(failed(CALL))?;
        Ok(dropped + forgotten + released)
    }

    /// Works on the oldest table if everything in it is old.
    fn drop(
        &mut self,
        connection: &mut Connection,
        before: Timestamp,
        limit: usize,
        standing: &impl Fn(&str, &str) -> rusqlite::Result<Standing>,
    ) -> rusqlite::Result<usize> {
        let is_old = |table: &Table| {
            table.number != KEPT && table.last_ingested_us < before.micros() && !table.is_empty()
        };
        let Some(old) = table::all(connection)?.into_iter().find(is_old) else { return Ok(0) };
        let after = match self.carried {
            Some((number, process)) if number == old.number => process,
            Some(_) | None => i64::MIN,
        };
        let looked = look(connection, old.number, after, limit, Standing::Open, standing)?;
        let transaction = connection.transaction_with_behavior(TransactionBehavior::Immediate)?;
        // Looked up again: meanwhile the newest table may have taken rows.
        let tables = table::all(&transaction)?;
        let Some(old) = tables.iter().find(|table| table.number == old.number && is_old(table))
        else {
            return Ok(0);
        };
        if looked.found.is_empty() && looked.is_all {
            self.carried = None;
            (self.forgotten, self.is_forgotten) = (0, false);
            let rows = drop_table(&transaction, old, tables.last() == Some(old), before)?;
            transaction.commit()?;
            return Ok(rows.max(1));
        }
        let (mut moved, mut to) = (0, after);
        for process in &looked.found {
            moved += carry(&transaction, old.number, *process, limit - moved, before)?;
            if moved == limit {
                break;
            }
            to = *process;
        }
        transaction.commit()?;
        // There may be more of the process at which the portion was full, so that one is looked at again.
        self.carried = Some((old.number, if moved == limit { to } else { looked.to }));
        Ok(moved.max(1))
    }

    /// Forgets processes without rows in any table, of [`PROCESSES_LOOKED_AT`] at most: PL/SQL makes a new process id for
    /// each run. Returns how much it did.
    fn forget(&mut self, connection: &Connection) -> rusqlite::Result<usize> {
        if self.is_forgotten {
            return Ok(0);
        }
        let portion = i64::try_from(PROCESSES_LOOKED_AT).unwrap_or(i64::MAX);
        let to: Option<i64> = connection
            .prepare_cached(
                "SELECT max(process_ref) FROM \
                 (SELECT process_ref FROM log_process WHERE process_ref > ?1 ORDER BY process_ref LIMIT ?2)",
            )?
            .query_row([self.forgotten, portion], |row| row.get(0))?;
        let Some(to) = to else {
            self.is_forgotten = true;
            return Ok(0);
        };
        let forgotten = connection
            .prepare_cached(
                "DELETE FROM log_process WHERE process_ref > ?1 AND process_ref <= ?2 AND first_table > 0 \
                 AND last_table < (SELECT min(table_no) FROM log_table WHERE table_no > 0)",
            )?
            .execute([self.forgotten, to])?;
        self.forgotten = to;
        Ok(forgotten.max(1))
    }

    /// Lets kept rows go whose process is gone.
    fn release(
        &mut self,
        connection: &mut Connection,
        limit: usize,
        standing: &impl Fn(&str, &str) -> rusqlite::Result<Standing>,
    ) -> rusqlite::Result<usize> {
        let looked = look(connection, KEPT, self.released, limit, Standing::Gone, standing)?;
        self.released = if looked.is_all { 0 } else { looked.to };
        if looked.found.is_empty() {
            return Ok(usize::from(!looked.is_all));
        }
        let transaction = connection.transaction_with_behavior(TransactionBehavior::Immediate)?;
        let mut released = 0;
        for process in looked.found {
            released += release_process(&transaction, process, limit - released)?;
            if released == limit {
                self.released = 0;
                break;
            }
        }
        transaction.commit()?;
        Ok(released.max(1))
    }
}

/// Looks at the processes of a table after `after` until `limit` of them stand as `wanted`.
fn look(
    connection: &Connection,
    number: i64,
    after: i64,
    limit: usize,
    wanted: Standing,
    standing: &impl Fn(&str, &str) -> rusqlite::Result<Standing>,
) -> rusqlite::Result<Looked> {
    // One snapshot, which is cheaper than one for each of many reads. Dropping it ends it.
    let reading = connection.unchecked_transaction()?;
    let mut next = reading.prepare_cached(&format!(
        "SELECT process_ref FROM logs_{number} WHERE process_ref > ?1 ORDER BY process_ref LIMIT 1"
    ))?;
    let mut name = reading
        .prepare_cached("SELECT tenant, process_id FROM log_process WHERE process_ref = ?1")?;
    let mut looked = Looked { found: Vec::new(), to: after, is_all: false };
    for _ in 0..PROCESSES_LOOKED_AT {
        let Some(process) = next.query_row([looked.to], |row| row.get(0)).optional()? else {
            looked.is_all = true;
            break;
        };
        looked.to = process;
        let stands = name
            .query_row([process], |row| {
                standing(row.get_ref(0)?.as_str()?, row.get_ref(1)?.as_str()?)
            })
            .optional()?
            .unwrap_or(Standing::Gone);
        if stands == wanted {
            looked.found.push(process);
            if looked.found.len() == limit {
                break;
            }
        }
    }
    Ok(looked)
}

/// Carries the oldest rows that a process has in a table into [`KEPT`], `rows_max` at most. Returns how many.
fn carry(
    transaction: &Transaction<'_>,
    number: i64,
    process: i64,
    rows_max: usize,
    now: Timestamp,
) -> rusqlite::Result<usize> {
    let number = number.to_string();
    let sql = include_str!("../../../../sql/sqlite/logs_carry.sql").replace("{n}", &number);
    let mut statement = transaction.prepare_cached(&sql)?;
    let carried = statement
        .query_map([process, i64::try_from(rows_max).unwrap_or(i64::MAX)], |row| {
            Ok((row.get(0)?, row.get(1)?, row.get(2)?))
        })?
        .collect::<rusqlite::Result<Vec<(i64, i64, i64)>>>()?;
    let Some(last) = carried.iter().map(|(log_id, logged, _)| (*logged, *log_id)).max() else {
        return Ok(0);
    };
    transaction
        .prepare_cached(&format!(
            "DELETE FROM logs_{number} WHERE process_ref = ?1 AND (logged_us, log_id) <= (?2, ?3)"
        ))?
        .execute([process, last.0, last.1])?;
    let is_first = !transaction
        .prepare_cached("SELECT 1 FROM log_table WHERE table_no = ?1")?
        .exists([KEPT])?;
    let ids = || carried.iter().map(|(log_id, _, _)| *log_id);
    let logged = || carried.iter().map(|(_, logged, _)| *logged);
    transaction.prepare_cached(include_str!("../../../../sql/sqlite/logs_keep.sql"))?.execute(
        params![
            now.micros(),
            ids().min(),
            ids().max(),
            carried.iter().map(|(_, _, ingested)| *ingested).max(),
            logged().min(),
            logged().max()
        ],
    )?;
    transaction
        .prepare_cached("UPDATE log_process SET first_table = ?2 WHERE process_ref = ?1")?
        .execute([process, KEPT])?;
    if is_first {
        table::make_view(transaction)?;
    }
    Ok(carried.len())
}

/// Drops the kept rows of a process, `rows_max` at most, and forgets the process when nothing is left of it.
fn release_process(
    transaction: &Transaction<'_>,
    process: i64,
    rows_max: usize,
) -> rusqlite::Result<usize> {
    let released = transaction
        .prepare_cached(
            "DELETE FROM logs_0 WHERE log_id IN (SELECT log_id FROM logs_0 WHERE process_ref = ?1 LIMIT ?2)",
        )?
        .execute([process, i64::try_from(rows_max).unwrap_or(i64::MAX)])?;
    if released < rows_max {
        transaction
            .prepare_cached(
                "UPDATE log_process SET first_table = (SELECT min(table_no) FROM log_table WHERE table_no > 0) \
                 WHERE process_ref = ?1",
            )?
            .execute([process])?;
        transaction
            .prepare_cached(
                "DELETE FROM log_process WHERE process_ref = ?1 AND last_table < first_table",
            )?
            .execute([process])?;
    }
    Ok(released)
}

/// Drops a table, out of which open runs were carried. Returns how many rows it had taken.
fn drop_table(
    transaction: &Transaction<'_>,
    table: &Table,
    is_newest: bool,
    before: Timestamp,
) -> rusqlite::Result<usize> {
    if is_newest {
        // The newest row of log_table holds the last log_id, so there must be a newer one before this one goes.
        table::roll(transaction, table.number + 1, table.last_log_id + 1, before)?;
    }
    transaction
        .execute_batch(&format!("DROP VIEW process_logs; DROP TABLE logs_{}", table.number))?;
    transaction.execute("DELETE FROM log_table WHERE table_no = ?1", [table.number])?;
    table::make_view(transaction)?;
    Ok(usize::try_from(table.last_log_id - table.first_log_id + 1).unwrap_or(0))
}
