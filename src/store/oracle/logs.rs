//! Lines of processes. This module writes them in arrays with one commit, and pages through those of one process.
//!
//! The statement is kept by the session, and the buffers live as long as one write: the driver's array is tied to its
//! connection and to its thread, so it cannot outlive a call that may have to reconnect.

use std::sync::Arc;
use std::time::Duration;

use oracle::{Connection, Row};

use super::bind::{self, Bind, Written};
use super::health::Health;
use super::session::Session;
use super::sql::{self, statement, text};
use crate::domain::ids::{ProcessId, TenantId};
use crate::domain::log_row::{Level, LogRow};
use crate::domain::time::Timestamp;
use crate::store::{
    Cursor, LogFilter, LogSession, Page, Paged, Received, Result, StoredLog, cursor,
};

/// The kind of a cursor of this listing.
const LOGS: u8 = b'l';
/// Rows on one page at most, whatever is asked for.
const PAGE_ROWS_MAX: usize = 10_000;
/// A page ends with the line that makes its texts reach this.
const PAGE_BYTES_MAX: usize = 256 * 1024;
/// How many lines at the end of a process's own time are looked at to find the newest by receipt.
const NEWEST_ROWS: usize = 32;

/// The session of a log writer.
pub(super) struct Writer {
    session: Session,
    health: Arc<Health>,
}

impl Writer {
    pub(super) fn new(session: Session, health: Arc<Health>) -> Self {
        Self { session, health }
    }
}

impl LogSession for Writer {
    fn write(&mut self, rows: &[LogRow]) -> Result<()> {
        const CALL: &str = "write logs";
        if rows.is_empty() {
            return Ok(());
        }
        let now = self.health.now();
        let connection = self.session.ready(CALL)?;
        let written = match insert(connection, rows, now) {
            Ok(written) => written,
            Err(error) => return Err(self.session.fail(CALL, &error)),
        };
        // All or nothing: whoever posted them is told one thing about all of them.
        if let Some(error) = written.errors.first() {
            let (class, words) = (error.class, error.text.clone());
            return Err(self.session.fail_as(CALL, class, &words));
        }
        if let Err(error) = connection.commit() {
            return Err(self.session.fail(CALL, &error));
        }
        self.session.went_well();
        Ok(())
    }
}

/// Inserts rows, sorted by process, and commits nothing. Errors name the rows as they were given.
pub(super) fn insert(
    connection: &Connection,
    rows: &[LogRow],
    now: Timestamp,
) -> oracle::Result<Written> {
    let mut sorted: Vec<(usize, &LogRow)> = rows.iter().enumerate().collect();
    // Lines of one process stay in the order given.
    sorted.sort_by(|(_, a), (_, b)| (&a.tenant, &a.process).cmp(&(&b.tenant, &b.process)));
    let binds: Vec<Vec<Bind<'_>>> = sorted.iter().map(|(_, row)| binds(row, now)).collect();
    let mut written = bind::write_all(connection, &text(statement!("insert_log"), &[]), &binds)?;
    for error in &mut written.errors {
        error.row = sorted.get(error.row).map_or(error.row, |(index, _)| *index);
    }
    Ok(written)
}

/// The parameters of `insert_log`, in their order.
fn binds(row: &LogRow, now: Timestamp) -> Vec<Bind<'_>> {
    let message = width(&row.message);
    vec![
        Bind::text(row.tenant.as_str(), 50),
        Bind::text(row.process.as_str(), 100),
        Bind::text(row.level.as_str(), 5),
        Bind::Text(row.event_type.as_deref(), 50),
        Bind::Text(row.component.as_deref(), 100),
        Bind::time(row.logged_at),
        Bind::time(now),
        Bind::Integer(row.duration_us.map(|us| i64::try_from(us).unwrap_or(i64::MAX))),
        Bind::Text(row.correlation_id.as_deref(), 100),
        Bind::Text(row.trace_id.as_deref(), 32),
        Bind::Text(row.span_id.as_deref(), 32),
        Bind::text(&row.message, message),
        Bind::Long(row.details.as_deref()),
        Bind::Long(row.stack_trace.as_deref()),
    ]
}

/// The width of a column that holds this text: few widths, so that arrays are made alike, and none wider than needed,
/// because every row of an array takes the widest.
fn width(text: &str) -> u32 {
    match text.len() {
        0..=250 => 250,
        251..=1000 => 1000,
        _ => 4000,
    }
}

/// A page of lines, oldest first. None: no line of the process is known.
pub(super) fn page(
    connection: &Connection,
    tenant: &TenantId,
    process: &ProcessId,
    filter: &LogFilter,
    after: Option<[i64; 2]>,
    limit: usize,
) -> oracle::Result<Paged<StoredLog>> {
    let limit = limit.clamp(1, PAGE_ROWS_MAX);
    let from = filter.from.unwrap_or_default();
    let [at, id] = after.unwrap_or([0, 0]);
    let at = Timestamp::from_micros(at);
    let mut binds = vec![
        Bind::text(tenant.as_str(), 50),
        Bind::text(process.as_str(), 100),
        Bind::time(from),
        Bind::time(at),
        Bind::time(at),
        Bind::Integer(Some(id)),
    ];
    let mut wanted = Vec::new();
    if let Some(to) = filter.to {
        wanted.push("to");
        binds.push(Bind::time(to));
    }
    for (name, id) in [("above", filter.log_id_above), ("max", filter.log_id_max)] {
        if let Some(id) = id {
            wanted.push(name);
            binds.push(Bind::Integer(Some(id)));
        }
    }
    let levels = bind_levels(filter, &mut wanted, &mut binds);
    binds.push(Bind::size(limit + 1));
    let ask = sql::repeated(&text(statement!("logs_page"), &wanted), "(:log_level)", levels);
    let (rows, more) = lines(connection, &ask, &binds, limit, |row| stored(row, tenant, process))?;
    let next = rows.last().filter(|_| more).map(cursor_of);
    Ok(Paged { rows, next })
}

/// A page of lines, bounded in rows and bytes.
fn lines(
    connection: &Connection,
    ask: &str,
    binds: &[Bind<'_>],
    limit: usize,
    stored: impl Fn(&Row) -> oracle::Result<StoredLog>,
) -> oracle::Result<(Vec<StoredLog>, bool)> {
    let length = |text: &Option<Box<str>>| text.as_ref().map_or(0, |text| text.len());
    let bytes = |line: &StoredLog| {
        let LogRow { message, details, stack_trace, .. } = &line.row;
        message.len() + length(details) + length(stack_trace)
    };
    bind::query_page(connection, ask, binds, (limit, PAGE_BYTES_MAX), bytes, stored)
}

/// Adds the levels that a filter lets through. Returns how many.
fn bind_levels(
    filter: &LogFilter,
    wanted: &mut Vec<&'static str>,
    binds: &mut Vec<Bind<'_>>,
) -> usize {
    let Some(least) = filter.level else { return 0 };
    wanted.push("level");
    let levels = Level::ALL.into_iter().filter(|level| *level >= least);
    let before = binds.len();
    binds.extend(levels.map(|level| Bind::text(level.as_str(), 5)));
    binds.len() - before
}

/// The newest line is looked for in so much of the newest, one after the other, and then in all.
const NEWEST_WITHIN: [Duration; 2] = [Duration::from_secs(60), Duration::from_secs(2 * 24 * 3600)];

/// The highest number of a line before which everything is committed, where that is so of what came in until `settled`.
pub(super) fn newest_id(
    connection: &Connection,
    settled: Timestamp,
    now: Timestamp,
) -> oracle::Result<i64> {
    let of = |row: &Row| bind::optional_integer(row, "log_id");
    let ask = text(statement!("newest_log"), &["since"]);
    for within in NEWEST_WITHIN {
        let recent = [Bind::time(settled), Bind::time(settled), Bind::time(now.minus(within))];
        let found = bind::query(connection, &ask, &recent, 1, of)?;
        if let Some(id) = found.into_iter().next().flatten() {
            return Ok(id);
        }
    }
    let ask = text(statement!("newest_log"), &[]);
    let found = bind::query(connection, &ask, &[Bind::time(settled), Bind::time(settled)], 1, of)?;
    Ok(found.into_iter().next().flatten().unwrap_or(0))
}

/// The highest number of a line that is committed, whatever may still appear before it.
pub(super) fn highest_id(connection: &Connection, now: Timestamp) -> oracle::Result<i64> {
    // No moment of a line lies so far ahead, whatever the clocks of the instances differ by.
    newest_id(connection, now.plus(NEWEST_WITHIN[1]), now)
}

/// Lines of a process after `filter.log_id_above`, in the order of their numbers.
pub(super) fn new(
    connection: &Connection,
    tenant: &TenantId,
    process: &ProcessId,
    filter: &LogFilter,
    limit: usize,
    (settled, now): (Timestamp, Timestamp),
) -> oracle::Result<Received> {
    let limit = limit.clamp(1, PAGE_ROWS_MAX);
    let above = filter.log_id_above.unwrap_or(0);
    // Before the rows are asked for: what is committed in between has a higher number or is in the answer.
    let newest = newest_id(connection, settled, now)?;
    let newest = filter.log_id_max.map_or(newest, |max| newest.min(max)).max(above);
    let mut binds = vec![
        Bind::text(tenant.as_str(), 50),
        Bind::text(process.as_str(), 100),
        Bind::Integer(Some(above)),
        Bind::time(settled),
        Bind::Integer(Some(newest)),
    ];
    let mut wanted = vec!["max"];
    for (name, moment) in [("from", filter.from), ("to", filter.to)] {
        if let Some(moment) = moment {
            wanted.push(name);
            binds.push(Bind::time(moment));
        }
    }
    let levels = bind_levels(filter, &mut wanted, &mut binds);
    binds.push(Bind::size(limit + 1));
    let ask = sql::repeated(&text(statement!("logs_new"), &wanted), "(:log_level)", levels);
    let (rows, more) = lines(connection, &ask, &binds, limit, |row| stored(row, tenant, process))?;
    let through = rows.last().filter(|_| more).map_or(newest, |last| last.log_id);
    Ok(Received { rows, through, more })
}

/// The place of a line in its listing.
pub(super) fn cursor_of(row: &StoredLog) -> Cursor {
    cursor::write(LOGS, [row.row.logged_at.micros(), row.log_id], "")
}

/// Where a page begins.
///
/// # Errors
/// When the page's cursor is none of this listing.
pub(super) fn place(page: &Page) -> Result<Option<[i64; 2]>> {
    Ok(cursor::read("read logs", LOGS, page)?.map(|(key, _)| key))
}

fn stored(row: &Row, tenant: &TenantId, process: &ProcessId) -> oracle::Result<StoredLog> {
    let word = bind::text(row, "log_level")?;
    let boxed = |column| {
        Ok::<_, oracle::Error>(bind::optional_text(row, column)?.map(String::into_boxed_str))
    };
    Ok(StoredLog {
        log_id: bind::integer(row, "log_id")?,
        ingested_at: bind::time(row, "ingested_at")?,
        row: LogRow {
            tenant: tenant.clone(),
            process: process.clone(),
            // The column is checked, so another word is that of a newer program.
            level: Level::parse(&word).unwrap_or(Level::Info),
            message: bind::text(row, "message")?.into_boxed_str(),
            event_type: boxed("event_type")?,
            component: boxed("component")?,
            details: boxed("details")?,
            stack_trace: boxed("stack_trace")?,
            logged_at: bind::time(row, "logged_at")?,
            duration_us: bind::optional_count(row, "event_duration_us")?,
            correlation_id: boxed("correlation_id")?,
            trace_id: boxed("trace_id")?,
            span_id: boxed("span_id")?,
        },
    })
}

/// When the newest line of a process came in. None: no line of it is kept.
pub(super) fn newest(
    connection: &Connection,
    tenant: &str,
    process: &str,
) -> oracle::Result<Option<Timestamp>> {
    let binds = [Bind::text(tenant, 50), Bind::text(process, 100), Bind::size(NEWEST_ROWS)];
    let times = bind::query(
        connection,
        &text(statement!("logs_newest"), &[]),
        &binds,
        NEWEST_ROWS,
        |row| bind::time(row, "ingested_at"),
    )?;
    Ok(times.into_iter().max())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn row(message: &str) -> LogRow {
        let (tenant, process) = (TenantId::parse("acme").unwrap(), ProcessId::parse("p").unwrap());
        LogRow {
            component: Some("loader".into()),
            details: Some("{}".into()),
            duration_us: Some(7),
            ..LogRow::plain(tenant, process, Level::Warn, message, Timestamp::from_micros(5))
        }
    }

    #[test]
    fn the_parameters_of_a_line_are_those_of_its_statement_and_the_long_ones_come_last() {
        let line = row("hello");
        let binds = binds(&line, Timestamp::from_micros(9));
        let sql = text(statement!("insert_log"), &[]);
        assert_eq!(sql.matches(':').count(), binds.len());
        assert_eq!(binds[6], Bind::time(Timestamp::from_micros(9)));
        assert_eq!(binds[12..], [Bind::Long(Some("{}")), Bind::Long(None)]);
        assert!(binds[..12].iter().all(|bind| !matches!(bind, Bind::Long(_))));
    }

    #[test]
    fn a_column_is_no_wider_than_its_texts_need() {
        assert_eq!(width("short"), 250);
        assert_eq!(width(&"x".repeat(251)), 1000);
        assert_eq!(width(&"x".repeat(4000)), 4000);
    }
}
