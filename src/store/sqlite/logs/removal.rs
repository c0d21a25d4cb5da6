//! All log rows of one tenant. This module counts them and takes them away, from a store that is stopped: a writer
//! remembers the numbers of processes.

use rusqlite::{Connection, Transaction};

use super::table;
use crate::store::sqlite::streams::unsigned;

/// How many there are.
pub fn count_of(connection: &Connection, tenant: &str) -> rusqlite::Result<u64> {
    let mut count = 0;
    for table in table::all(connection)? {
        let sql = format!(
            "SELECT count(*) FROM logs_{} \
             WHERE process_ref IN (SELECT process_ref FROM log_process WHERE tenant = ?1)",
            table.number
        );
        count += connection.query_row(&sql, [tenant], |row| row.get(0)).map(unsigned)?;
    }
    Ok(count)
}

/// Removes them and the names of their processes. Returns how many there were. What `log_table` says of the rows of a
/// table stays: it bounds what is there, and the last `log_id` must never be given again.
pub fn remove(transaction: &Transaction<'_>, tenant: &str) -> rusqlite::Result<u64> {
    let mut count = 0;
    for table in table::all(transaction)? {
        let sql = format!(
            "DELETE FROM logs_{} \
             WHERE process_ref IN (SELECT process_ref FROM log_process WHERE tenant = ?1)",
            table.number
        );
        count += u64::try_from(transaction.execute(&sql, [tenant])?).unwrap_or(u64::MAX);
    }
    transaction.execute("DELETE FROM log_process WHERE tenant = ?1", [tenant])?;
    Ok(count)
}
