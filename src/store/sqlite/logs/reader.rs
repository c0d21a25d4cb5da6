//! Pages through the lines of one process, in the order of its own clock. This module merges the tables that hold them.
//!
//! A page is bounded three times: by the rows it returns, by their bytes, since a row may have a hundred kilobytes, and
//! by the rows it looks at, since a filter by level may pass over many. A page that stops at one of the latter bounds
//! holds fewer rows than asked, even none, and still names the next.

use std::cmp::Reverse;
use std::collections::{BinaryHeap, VecDeque};
use std::path::Path;

use rusqlite::{Connection, OptionalExtension, params};

use super::table::{self, Table};
use super::{Cursor, extra, failed, file, level_number, level_of};
use crate::domain::ids::{ProcessId, TenantId};
use crate::domain::log_row::{Level, LogRow};
use crate::domain::time::Timestamp;
use crate::store::sqlite::connection::open_reader;
use crate::store::{LogFilter, Page, Paged, Received, Result, StoreError, StoredLog};

/// Rows on one page at most, whatever is asked for.
const PAGE_ROWS_MAX: usize = 10_000;

/// A page ends with the row that reaches this: each reader of a stream that does not read holds two pages.
const PAGE_BYTES_MAX: usize = 256 * 1024;

/// Rows that one page looks at, at most: some tens of milliseconds.
const LOOKED_AT_MAX: usize = 50_000;

/// Rows read ahead from one table, so that a process spread over many tables does not fill the memory.
const READ_AHEAD_ROWS: i64 = 512;

/// Nor bytes, by more than a row.
const READ_AHEAD_BYTES: usize = 256 * 1024;

/// How many rows at the end of a process's own time are looked at to find the newest by receipt.
const NEWEST_ROWS: i64 = 32;

/// Reads from `logs.db`. It keeps one snapshot until [`Reader::end_turn`].
pub struct Reader {
    connection: Connection,
    in_turn: bool,
}

/// A process as `log_process` knows it.
struct Known {
    process_ref: i64,
    first_table: i64,
    last_table: i64,
    last_ingested_us: i64,
}

impl Known {
    fn may_be_in(&self, table: &Table) -> bool {
        (self.first_table..=self.last_table).contains(&table.number)
    }
}

impl Reader {
    /// Opens `logs.db` in `folder`.
    ///
    /// # Errors
    /// When the file is not there: a [`super::Session`] makes it.
    pub fn open(folder: &Path) -> Result<Self> {
        let connection = open_reader(&file(folder))?;
        Ok(Self { connection, in_turn: false })
    }

    /// Lines of `process` in the order `(logged_at, log_id)`, from `filter.from` up to but not including `filter.to`.
    /// None: no line of it is kept.
    ///
    /// # Errors
    /// [`StoreError::Refused`] when `page.after` is no cursor: check it with [`Cursor::parse`] before.
    pub fn page(
        &mut self,
        tenant: &TenantId,
        process: &ProcessId,
        filter: &LogFilter,
        page: &Page,
    ) -> Result<Option<Paged<StoredLog>>> {
        let after = match &page.after {
            None => None,
            Some(cursor) => Some(Cursor::parse(&cursor.0).ok_or_else(|| StoreError::Refused {
                call: "read logs",
                source: "not a cursor of this listing".into(),
            })?),
        };
        self.begin().map_err(failed("read logs"))?;
        let Some(known) = self.known(tenant, process).map_err(failed("read logs"))? else {
            return Ok(None);
        };
        // The place before the first line at or after `from`: a log_id is never below 1.
        let from = filter.from.map(|logged_at| Cursor { logged_at, log_id: 0 });
        let start = Cursor { logged_at: Timestamp::from_micros(i64::MIN), log_id: 0 };
        let after = after.max(from).unwrap_or(start);
        let mut merge = Merge::new(&self.connection, &known, after, filter.to)?;
        let limit = page.limit.clamp(1, PAGE_ROWS_MAX);
        let level_min = filter.level.map_or(0, level_number);
        let received = filter.log_id_above.map_or(0, |above| above.saturating_add(1))
            ..=filter.log_id_max.unwrap_or(i64::MAX);
        let mut rows: Vec<StoredLog> = Vec::new();
        let mut place = after;
        let (mut looked_at, mut bytes) = (0, 0);
        while let Some(line) = merge.next()? {
            let shown = line.level >= level_min && received.contains(&line.place.log_id);
            let full = rows.len() == limit || bytes >= PAGE_BYTES_MAX;
            if full && shown || looked_at == LOOKED_AT_MAX {
                return Ok(Some(Paged { rows, next: Some(place.into_store()) }));
            }
            looked_at += 1;
            place = line.place;
            if shown {
                bytes += line.bytes();
                rows.push(line.into_stored(tenant, process)?);
            }
        }
        Ok(Some(Paged { rows, next: None }))
    }

    /// The highest `log_id` given, whether or not its row is still there.
    ///
    /// # Errors
    /// When the file cannot be read.
    pub fn newest_log_id(&mut self) -> Result<i64> {
        let mut newest = || -> rusqlite::Result<i64> {
            self.begin()?;
            Ok(table::all(&self.connection)?.last().map_or(0, |table| table.last_log_id))
        };
        newest().map_err(failed("read newest log_id"))
    }

    /// Lines of `process` in the order of receipt, after `filter.log_id_above`. The lines of all processes are passed
    /// over by their `log_id`, [`LOOKED_AT_MAX`] at most, so this is for what has just come in.
    ///
    /// # Errors
    /// When the file cannot be read.
    pub fn received(
        &mut self,
        tenant: &TenantId,
        process: &ProcessId,
        filter: &LogFilter,
        limit: usize,
    ) -> Result<Received> {
        self.begin().map_err(failed("read new logs"))?;
        let newest = self.newest_log_id()?;
        let end = filter.log_id_max.map_or(newest, |max| max.min(newest));
        let after = filter.log_id_above.unwrap_or(0);
        let nothing = Received { rows: Vec::new(), through: end.max(after), more: false };
        let Some(known) = self.known(tenant, process).map_err(failed("read new logs"))? else {
            return Ok(nothing);
        };
        // Log_ids have no gaps but where rows were dropped, so this bounds the rows that are passed over.
        let far = after.saturating_add(i64::try_from(LOOKED_AT_MAX).unwrap_or(i64::MAX));
        let tables = table::all(&self.connection).map_err(failed("read new logs"))?;
        let mut tables: Vec<Table> =
            tables.into_iter().filter(|table| table.last_log_id > after).collect();
        tables.sort_by_key(|table| table.number);
        // Where old tables are gone, the look begins with what is there.
        let first =
            tables.iter().find(|table| known.may_be_in(table)).map(|table| table.first_log_id);
        let Some(first) = first else { return Ok(nothing) };
        let until = end.min(far.max((first - 1).saturating_add(far - after)));
        let mut found = Received { through: until.max(after), more: until < end, ..nothing };
        let level_min = filter.level.map_or(0, level_number);
        let limit = limit.clamp(1, PAGE_ROWS_MAX);
        let mut bytes = 0;
        for table in tables.iter().filter(|table| known.may_be_in(table)) {
            let sql = include_str!("../../../../sql/sqlite/logs_received.sql")
                .replace("{n}", &table.number.to_string());
            let lines = || -> rusqlite::Result<Vec<Line>> {
                let mut statement = self.connection.prepare_cached(&sql)?;
                let wanted = limit - found.rows.len() + 1;
                let mut rows = statement.query(params![
                    after,
                    until,
                    known.process_ref,
                    level_min,
                    filter.from.map_or(i64::MIN, Timestamp::micros),
                    filter.to.map_or(i64::MAX, Timestamp::micros),
                    i64::try_from(wanted).unwrap_or(i64::MAX),
                ])?;
                let (mut lines, mut bytes) = (Vec::new(), bytes);
                while let Some(row) = rows.next()? {
                    // One behind the page is enough to know that there is one.
                    let is_behind = bytes >= PAGE_BYTES_MAX;
                    let line = Line::read(row)?;
                    bytes += line.bytes();
                    lines.push(line);
                    if is_behind {
                        break;
                    }
                }
                Ok(lines)
            };
            for line in lines().map_err(failed("read new logs"))? {
                if found.rows.len() == limit || bytes >= PAGE_BYTES_MAX {
                    found.through = found.rows.last().map_or(after, |row| row.log_id);
                    found.more = true;
                    return Ok(found);
                }
                bytes += line.bytes();
                found.rows.push(line.into_stored(tenant, process)?);
            }
        }
        Ok(found)
    }

    /// When the newest line of `process` came in, to within a few seconds and never later than it did. None: no line
    /// of it is kept.
    ///
    /// # Errors
    /// When the file cannot be read.
    pub fn newest(&mut self, tenant: &TenantId, process: &ProcessId) -> Result<Option<Timestamp>> {
        let mut newest = || -> rusqlite::Result<Option<Timestamp>> {
            self.begin()?;
            let Some(known) = self.known(tenant, process)? else { return Ok(None) };
            // Its last table may be gone before an older one, where the clock once jumped ahead.
            let tables = table::all(&self.connection)?;
            let last = tables.iter().rfind(|table| known.may_be_in(table));
            let Some(last) = last else {
                return Ok(Some(Timestamp::from_micros(known.last_ingested_us)));
            };
            let sql = include_str!("../../../../sql/sqlite/logs_newest.sql")
                .replace("{n}", &last.number.to_string());
            let seen: Option<i64> = self
                .connection
                .prepare_cached(&sql)?
                .query_row(params![known.process_ref, NEWEST_ROWS], |row| row.get(0))?;
            let micros = seen.unwrap_or(i64::MIN).max(known.last_ingested_us);
            Ok(Some(Timestamp::from_micros(micros)))
        };
        newest().map_err(failed("read newest log"))
    }

    /// Gives up the snapshot.
    pub fn end_turn(&mut self) {
        if std::mem::take(&mut self.in_turn)
            && let Err(error) = self.connection.execute_batch("COMMIT")
        {
            log::warn!("a read of logs.db did not end well: {error}");
        }
    }

    fn begin(&mut self) -> rusqlite::Result<()> {
        if !self.in_turn {
            self.connection.prepare_cached("BEGIN")?.execute([])?;
            self.in_turn = true;
        }
        Ok(())
    }

    fn known(&self, tenant: &TenantId, process: &ProcessId) -> rusqlite::Result<Option<Known>> {
        self.connection
            .prepare_cached(include_str!("../../../../sql/sqlite/logs_process.sql"))?
            .query_row([tenant.as_str(), process.as_str()], |row| {
                Ok(Known {
                    process_ref: row.get(0)?,
                    first_table: row.get(1)?,
                    last_table: row.get(2)?,
                    last_ingested_us: row.get(3)?,
                })
            })
            .optional()
    }
}

/// A line as it was read.
struct Line {
    place: Cursor,
    ingested_us: i64,
    level: i64,
    message: String,
    extra: Option<String>,
}

impl Line {
    fn read(row: &rusqlite::Row<'_>) -> rusqlite::Result<Self> {
        let place = Cursor { logged_at: Timestamp::from_micros(row.get(1)?), log_id: row.get(0)? };
        Ok(Self {
            place,
            ingested_us: row.get(2)?,
            level: row.get(3)?,
            message: row.get(4)?,
            extra: row.get(5)?,
        })
    }

    fn bytes(&self) -> usize {
        self.message.len() + self.extra.as_ref().map_or(0, String::len)
    }

    fn into_stored(self, tenant: &TenantId, process: &ProcessId) -> Result<StoredLog> {
        let log_id = self.place.log_id;
        let level: Level = level_of(self.level).ok_or_else(|| StoreError::Corrupt {
            what: format!("log row {log_id} has level {}", self.level),
        })?;
        let mut row = LogRow::plain(
            tenant.clone(),
            process.clone(),
            level,
            self.message,
            self.place.logged_at,
        );
        if let Some(column) = &self.extra {
            extra::decode(column, &mut row).map_err(|error| StoreError::Corrupt {
                what: format!("log row {log_id} has unreadable fields: {error}"),
            })?;
        }
        Ok(StoredLog { log_id, ingested_at: Timestamp::from_micros(self.ingested_us), row })
    }
}

/// One table's part of a merge.
struct Source {
    table_no: i64,
    ahead: VecDeque<Line>,
    /// Where to read on.
    place: Cursor,
    /// The table holds no more.
    dry: bool,
}

/// All lines of one process after a place, in order, over all tables.
struct Merge<'c> {
    connection: &'c Connection,
    process_ref: i64,
    end_us: i64,
    after: Cursor,
    /// Tables not looked into yet. The one whose lines begin first is the last.
    closed: Vec<Table>,
    open: Vec<Source>,
    /// The next line of each open table that has one.
    heads: BinaryHeap<Reverse<(Cursor, usize)>>,
}

impl<'c> Merge<'c> {
    fn new(
        connection: &'c Connection,
        known: &Known,
        after: Cursor,
        to: Option<Timestamp>,
    ) -> Result<Self> {
        let end_us = to.map_or(i64::MAX, Timestamp::micros);
        let mut closed = table::all(connection).map_err(failed("read logs"))?;
        closed.retain(|table| {
            known.may_be_in(table)
                && table.logged_us_max >= after.logged_at.micros()
                && table.logged_us_min < end_us
        });
        closed.sort_by_key(|table| Reverse((table.logged_us_min, table.number)));
        let heads = BinaryHeap::new();
        let process_ref = known.process_ref;
        Ok(Self { connection, process_ref, end_us, after, closed, open: Vec::new(), heads })
    }

    fn next(&mut self) -> Result<Option<Line>> {
        loop {
            let head = self.heads.peek().map(|Reverse((place, _))| place.logged_at.micros());
            match self.closed.last() {
                // Only a table whose lines may begin before the head can change what comes next.
                Some(table) if head.is_none_or(|head| table.logged_us_min <= head) => {
                    let table_no = table.number;
                    self.closed.pop();
                    let ahead = VecDeque::new();
                    self.open.push(Source { table_no, ahead, place: self.after, dry: false });
                    self.put_head(self.open.len() - 1)?;
                }
                _ => break,
            }
        }
        let Some(Reverse((_, index))) = self.heads.pop() else { return Ok(None) };
        let line = self.open[index].ahead.pop_front();
        self.put_head(index)?;
        Ok(line)
    }

    /// Puts the next line of an open table among the heads, if it has one.
    fn put_head(&mut self, index: usize) -> Result<()> {
        let source = &mut self.open[index];
        if source.ahead.is_empty() && !source.dry {
            source
                .read_ahead(self.connection, self.process_ref, self.end_us)
                .map_err(failed("read logs"))?;
        }
        if let Some(line) = source.ahead.front() {
            self.heads.push(Reverse((line.place, index)));
        }
        Ok(())
    }
}

impl Source {
    fn read_ahead(
        &mut self,
        connection: &Connection,
        process_ref: i64,
        end_us: i64,
    ) -> rusqlite::Result<()> {
        let mut whole = true;
        let number = self.table_no.to_string();
        let place_us = self.place.logged_at.micros();
        if place_us < end_us {
            let sql = include_str!("../../../../sql/sqlite/logs_page_moment.sql");
            let mut moment = connection.prepare_cached(&sql.replace("{n}", &number))?;
            let log_id = self.place.log_id;
            whole = self.take(moment.query([process_ref, place_us, log_id, READ_AHEAD_ROWS])?)?;
        }
        let taken = i64::try_from(self.ahead.len()).unwrap_or(i64::MAX);
        if whole && taken < READ_AHEAD_ROWS {
            let sql = include_str!("../../../../sql/sqlite/logs_page.sql");
            let mut later = connection.prepare_cached(&sql.replace("{n}", &number))?;
            let wanted = READ_AHEAD_ROWS - taken;
            whole = self.take(later.query([process_ref, place_us, end_us, wanted])?)?;
        }
        let rows_max = usize::try_from(READ_AHEAD_ROWS).unwrap_or(usize::MAX);
        self.dry = whole && self.ahead.len() < rows_max;
        Ok(())
    }

    /// Takes rows, until they have enough bytes. Returns whether those were all.
    fn take(&mut self, mut rows: rusqlite::Rows<'_>) -> rusqlite::Result<bool> {
        let mut bytes: usize = self.ahead.iter().map(Line::bytes).sum();
        while let Some(row) = rows.next()? {
            let line = Line::read(row)?;
            self.place = line.place;
            bytes += line.bytes();
            self.ahead.push_back(line);
            if bytes >= READ_AHEAD_BYTES {
                return Ok(false);
            }
        }
        Ok(true)
    }
}
