//! The tables that rows go to, one after the other. This module lists them and rolls them.

use rusqlite::{Connection, OptionalExtension, TransactionBehavior, params};

use super::failed;
use crate::domain::time::Timestamp;
use crate::store::{Result, StoreError};

/// The form of `logs.db` that this build reads and writes.
const SCHEMA_VERSION: i64 = 2;

/// The table of rows that outlive their own table: those of open runs.
pub(super) const KEPT: i64 = 0;

/// Tables roll once a day, so that retention drops no more than a day at once.
const DAY_US: i64 = 86_400_000_000;

/// Rows in one table, while there are few tables: its index then stays in the page cache.
const ROWS_MAX: i64 = 1_000_000;

/// Tables at most: a page may have to look into each of them, and a view joins at most 500.
const TABLES_MAX: i64 = 400;

/// After so many tables [`ROWS_MAX`] doubles, so that the tables last for any amount of data.
const TABLES_PER_DOUBLING: i64 = 50;

/// One row of `log_table`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Table {
    pub(super) number: i64,
    /// The receipt of its first row.
    pub(super) opened_us: i64,
    pub(super) first_log_id: i64,
    pub(super) last_log_id: i64,
    pub(super) last_ingested_us: i64,
    /// The bounds of the lines' own times, so that a page passes over tables that cannot matter.
    pub(super) logged_us_min: i64,
    pub(super) logged_us_max: i64,
}

const COLUMNS: &str = "table_no, opened_us, first_log_id, last_log_id, last_ingested_us, logged_us_min, logged_us_max";

impl Table {
    fn read(row: &rusqlite::Row<'_>) -> rusqlite::Result<Self> {
        Ok(Self {
            number: row.get(0)?,
            opened_us: row.get(1)?,
            first_log_id: row.get(2)?,
            last_log_id: row.get(3)?,
            last_ingested_us: row.get(4)?,
            logged_us_min: row.get(5)?,
            logged_us_max: row.get(6)?,
        })
    }

    /// Whether rows that come in at `now` belong into a new table, where there are `tables` by now.
    fn is_full(&self, now: Timestamp, tables: i64) -> bool {
        let rows_max = ROWS_MAX << (tables / TABLES_PER_DOUBLING);
        let rows = self.last_log_id - self.first_log_id + 1;
        let another_day = self.opened_us / DAY_US != now.micros() / DAY_US;
        tables < TABLES_MAX && rows > 0 && (another_day || rows >= rows_max)
    }

    pub(super) fn is_empty(&self) -> bool {
        self.last_log_id < self.first_log_id
    }

    /// Notes the rows of one batch.
    pub(super) fn save(&self, connection: &Connection) -> rusqlite::Result<()> {
        connection
            .prepare_cached(include_str!("../../../../sql/sqlite/logs_note_table.sql"))?
            .execute(params![
                self.number,
                self.opened_us,
                self.last_log_id,
                self.last_ingested_us,
                self.logged_us_min,
                self.logged_us_max
            ])?;
        Ok(())
    }
}

/// Makes or checks what the file needs.
///
/// # Errors
/// [`StoreError::Corrupt`] when a newer version of this program has written the file.
pub fn migrate(connection: &mut Connection) -> Result<()> {
    let transaction = connection
        .transaction_with_behavior(TransactionBehavior::Immediate)
        .map_err(failed("migrate logs"))?;
    let version: i64 = transaction
        .pragma_query_value(None, "user_version", |row| row.get(0))
        .map_err(failed("migrate logs"))?;
    if version > SCHEMA_VERSION {
        let what = format!("logs.db has form {version}, and this version knows {SCHEMA_VERSION}");
        return Err(StoreError::Corrupt { what });
    }
    if version == SCHEMA_VERSION {
        return Ok(());
    }
    let upgrade = || -> rusqlite::Result<()> {
        transaction.execute_batch(include_str!("../../../../sql/sqlite/logs_schema.sql"))?;
        // The first version had no such table, and was the same otherwise.
        make(&transaction, KEPT)?;
        make_view(&transaction)?;
        transaction.pragma_update(None, "user_version", SCHEMA_VERSION)?;
        transaction.commit()
    };
    upgrade().map_err(failed("migrate logs"))
}

/// All tables, the oldest first.
pub(super) fn all(connection: &Connection) -> rusqlite::Result<Vec<Table>> {
    connection
        .prepare_cached(&format!("SELECT {COLUMNS} FROM log_table ORDER BY table_no"))?
        .query_map([], Table::read)?
        .collect()
}

/// The table for rows that come in at `now`: the newest, or a new one where that is full. In a write transaction.
pub(super) fn current(connection: &Connection, now: Timestamp) -> rusqlite::Result<Table> {
    let newest = connection
        .prepare_cached(&format!("SELECT {COLUMNS} FROM log_table ORDER BY table_no DESC LIMIT 1"))?
        .query_row([], Table::read)
        .optional()?;
    let Some(newest) = newest.filter(|table| table.number != KEPT) else {
        return roll(connection, 1, 1, now);
    };
    let tables = connection
        .prepare_cached("SELECT count(*) FROM log_table")?
        .query_row([], |row| row.get(0))?;
    if newest.is_full(now, tables) {
        roll(connection, newest.number + 1, newest.last_log_id + 1, now)
    } else {
        Ok(newest)
    }
}

fn make(connection: &Connection, number: i64) -> rusqlite::Result<()> {
    let template = include_str!("../../../../sql/sqlite/logs_table.sql");
    connection.execute_batch(&template.replace("{n}", &number.to_string()))
}

pub(super) fn roll(
    connection: &Connection,
    number: i64,
    first_log_id: i64,
    now: Timestamp,
) -> rusqlite::Result<Table> {
    make(connection, number)?;
    let table = Table {
        number,
        opened_us: now.micros(),
        first_log_id,
        last_log_id: first_log_id - 1,
        last_ingested_us: now.micros(),
        logged_us_min: i64::MAX,
        logged_us_max: i64::MIN,
    };
    connection.execute(
        &format!("INSERT INTO log_table ({COLUMNS}) VALUES (?1, ?2, ?3, ?4, ?5, ?6, ?7)"),
        params![
            table.number,
            table.opened_us,
            table.first_log_id,
            table.last_log_id,
            table.last_ingested_us,
            table.logged_us_min,
            table.logged_us_max
        ],
    )?;
    make_view(connection)?;
    Ok(table)
}

pub(super) fn make_view(connection: &Connection) -> rusqlite::Result<()> {
    let tables = all(connection)?;
    let rows = if tables.is_empty() {
        "SELECT NULL AS log_id, NULL AS process_ref, NULL AS logged_us, NULL AS ingested_us, NULL AS level, \
         NULL AS message, NULL AS extra WHERE 0"
            .to_string()
    } else {
        let each = tables.iter().map(|table| format!("SELECT * FROM logs_{}", table.number));
        each.collect::<Vec<_>>().join(" UNION ALL ")
    };
    connection.execute_batch("DROP VIEW IF EXISTS process_logs")?;
    let template = include_str!("../../../../sql/sqlite/logs_view.sql");
    connection.execute_batch(&template.replace("{rows}", &rows))
}
