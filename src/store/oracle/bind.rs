//! How a value goes to the database and comes back. This module is the only one that hands a parameter to the driver,
//! and it takes [`Bind`]s alone, each of which carries its type.
//!
//! That matters: the driver binds a bare string as NVARCHAR2, which turns off every index on a VARCHAR2 column, and a
//! bare time with a time zone, which turns off partition pruning. Here neither can happen, because a `&str` is no
//! [`Bind`].

use oracle::sql_type::{OracleType, RefCursor, ToSql};
use oracle::{Connection, Error, ErrorKind, Row, SqlValue, Statement};

use super::errors::{self, Class};
use crate::domain::time::Timestamp;

/// A parameter with its type. Texts are in characters.
#[derive(Debug, Clone, PartialEq)]
pub(super) enum Bind<'a> {
    /// VARCHAR2 of at most so many characters.
    Text(Option<&'a str>, u32),
    /// The same, owned.
    Owned(Option<String>, u32),
    /// A text of any length, sent in line with the statement: must come last in it.
    Long(Option<&'a str>),
    /// A text beyond what a call of PL/SQL takes in line.
    Clob(&'a str),
    /// TIMESTAMP(6), in UTC.
    Time(Option<Timestamp>),
    Integer(Option<i64>),
    Number(Option<f64>),
    /// An answer: a cursor.
    Cursor,
}

impl<'a> Bind<'a> {
    pub(super) const fn text(text: &'a str, chars_max: u32) -> Self {
        Self::Text(Some(text), chars_max)
    }

    /// A text that must fit, else it is cut: for words to people only.
    pub(super) fn cut(text: &'a str, chars_max: u32) -> Self {
        Self::Text(Some(cut(text, chars_max)), chars_max)
    }

    pub(super) const fn time(moment: Timestamp) -> Self {
        Self::Time(Some(moment))
    }

    /// A number that counts from 0 by ones and never comes near the limit.
    pub(super) fn count(number: u64) -> Self {
        Self::Integer(Some(i64::try_from(number).unwrap_or(i64::MAX)))
    }

    pub(super) fn size(number: usize) -> Self {
        Self::Integer(Some(i64::try_from(number).unwrap_or(i64::MAX)))
    }

    /// The type that it is sent as.
    pub(super) fn oracle_type(&self) -> OracleType {
        match self {
            Self::Text(_, chars_max) | Self::Owned(_, chars_max) => {
                OracleType::Varchar2(*chars_max)
            }
            Self::Long(_) => OracleType::Long,
            Self::Clob(_) => OracleType::CLOB,
            Self::Time(_) => OracleType::Timestamp(6),
            Self::Integer(_) => OracleType::Number(19, 0),
            Self::Number(_) => OracleType::Number(0, 0),
            Self::Cursor => OracleType::RefCursor,
        }
    }
}

impl ToSql for Bind<'_> {
    fn oratype(&self, _: &Connection) -> oracle::Result<OracleType> {
        Ok(self.oracle_type())
    }

    fn to_sql(&self, value: &mut SqlValue<'_>) -> oracle::Result<()> {
        match self {
            Self::Text(Some(text), _) | Self::Long(Some(text)) | Self::Clob(text) => {
                text.to_sql(value)
            }
            Self::Owned(Some(text), _) => text.to_sql(value),
            Self::Time(Some(moment)) => oracle_time(*moment)?.to_sql(value),
            Self::Integer(Some(number)) => number.to_sql(value),
            Self::Number(Some(number)) => number.to_sql(value),
            Self::Text(None, _)
            | Self::Owned(None, _)
            | Self::Long(None)
            | Self::Time(None)
            | Self::Integer(None)
            | Self::Number(None)
            | Self::Cursor => value.set_null(),
        }
    }
}

/// The first `chars_max` characters.
fn cut(text: &str, chars_max: u32) -> &str {
    let chars_max = usize::try_from(chars_max).unwrap_or(usize::MAX);
    text.char_indices().nth(chars_max).map_or(text, |(end, _)| &text[..end])
}

fn failed(what: impl Into<String>) -> Error {
    Error::new(ErrorKind::Other, what.into())
}

/// A moment as the driver takes it: its fields in UTC, without a zone.
fn oracle_time(moment: Timestamp) -> oracle::Result<oracle::sql_type::Timestamp> {
    let outside = |_| failed(format!("{moment} is no time that a database can hold"));
    let moment = jiff::Timestamp::from_microsecond(moment.micros()).map_err(outside)?;
    let civil = jiff::tz::Offset::UTC.to_datetime(moment);
    let part = |number: i8| u32::try_from(number).unwrap_or(0);
    oracle::sql_type::Timestamp::new(
        i32::from(civil.year()),
        part(civil.month()),
        part(civil.day()),
        part(civil.hour()),
        part(civil.minute()),
        part(civil.second()),
        u32::try_from(civil.subsec_nanosecond()).unwrap_or(0),
    )
}

/// The way back. The session's columns have no zone, and are UTC.
fn moment(time: &oracle::sql_type::Timestamp) -> oracle::Result<Timestamp> {
    let part = |number: u32| i8::try_from(number).unwrap_or(i8::MAX);
    let micros = jiff::civil::DateTime::new(
        i16::try_from(time.year()).unwrap_or(i16::MAX),
        part(time.month()),
        part(time.day()),
        part(time.hour()),
        part(time.minute()),
        part(time.second()),
        i32::try_from(time.nanosecond()).unwrap_or(0),
    )
    .ok()
    .and_then(|civil| jiff::tz::Offset::UTC.to_timestamp(civil).ok())
    .ok_or_else(|| failed("a time of the database is outside of what we can hold"))?;
    Ok(Timestamp::from_micros(micros.as_microsecond()))
}

fn as_parameters<'b>(binds: &'b [Bind<'_>]) -> Vec<&'b dyn ToSql> {
    binds.iter().map(|bind| bind as &dyn ToSql).collect()
}

/// Runs a statement and returns how many rows it touched.
pub(super) fn execute(
    connection: &Connection,
    sql: &str,
    binds: &[Bind<'_>],
) -> oracle::Result<u64> {
    connection.execute(sql, &as_parameters(binds))?.row_count()
}

/// Runs a statement for what it gives back in its parameters.
pub(super) fn call(
    connection: &Connection,
    sql: &str,
    binds: &[Bind<'_>],
) -> oracle::Result<Statement> {
    connection.execute(sql, &as_parameters(binds))
}

/// Runs a statement of which nothing is kept: for scripts, each of whose texts comes once.
pub(super) fn run_once(connection: &Connection, sql: &str) -> oracle::Result<()> {
    connection.statement(sql).exclude_from_cache().build()?.execute(&[])
}

/// Asks, and makes something of each row. `rows` is how many are expected, and fetched in one trip.
pub(super) fn query<T>(
    connection: &Connection,
    sql: &str,
    binds: &[Bind<'_>],
    rows: usize,
    mut of: impl FnMut(&Row) -> oracle::Result<T>,
) -> oracle::Result<Vec<T>> {
    let fetch = u32::try_from(rows.clamp(1, FETCH_ROWS_MAX)).unwrap_or(1);
    let mut statement = connection.statement(sql).fetch_array_size(fetch).build()?;
    let mut found = Vec::new();
    for row in statement.query(&as_parameters(binds))? {
        found.push(of(&row?)?);
    }
    Ok(found)
}

/// Asks for a page of rows that may be large: until there are `limit`, or until the row that makes them reach
/// `bytes_max` together. True: there is a row behind them. The statement must ask for one row more than `limit`.
pub(super) fn query_page<T>(
    connection: &Connection,
    sql: &str,
    binds: &[Bind<'_>],
    (limit, bytes_max): (usize, usize),
    bytes: impl Fn(&T) -> usize,
    mut of: impl FnMut(&Row) -> oracle::Result<T>,
) -> oracle::Result<(Vec<T>, bool)> {
    let fetch = u32::try_from((limit + 1).min(FETCH_LARGE_ROWS_MAX)).unwrap_or(1);
    let mut statement = connection.statement(sql).fetch_array_size(fetch).build()?;
    let (mut found, mut size) = (Vec::new(), 0);
    for row in statement.query(&as_parameters(binds))? {
        let row = row?;
        if found.len() == limit || size >= bytes_max {
            return Ok((found, true));
        }
        let one = of(&row)?;
        size += bytes(&one);
        found.push(one);
    }
    Ok((found, false))
}

/// Calls a procedure whose last parameter is a cursor, and makes something of each row of it.
pub(super) fn call_for_rows<T>(
    connection: &Connection,
    sql: &str,
    binds: &[Bind<'_>],
    mut of: impl FnMut(&Row) -> oracle::Result<T>,
) -> oracle::Result<Vec<T>> {
    // The cursor takes its fetch from the call: so large a one brings all rows and the end of them in one trip.
    let mut statement = connection.statement(sql).fetch_array_size(CURSOR_ROWS_FETCHED).build()?;
    statement.execute(&as_parameters(binds))?;
    let mut cursor: RefCursor = statement.bind_value(binds.len())?;
    let mut found = Vec::new();
    for row in cursor.query()? {
        found.push(of(&row?)?);
    }
    Ok(found)
}

/// Rows of one fetch: beyond this a trip costs nothing beside its rows.
const FETCH_ROWS_MAX: usize = 500;

/// The same where each may be as large as a request: they are all in memory at once, however few the page takes.
const FETCH_LARGE_ROWS_MAX: usize = 20;

/// Rows of one fetch of a cursor: one more than any procedure is asked for.
const CURSOR_ROWS_FETCHED: u32 = 1001;

/// Rows of one array statement, at most.
const ARRAY_ROWS_MAX: usize = 1000;

/// Bytes of the buffers of one array statement, roughly.
const ARRAY_BYTES_MAX: usize = 16 * 1024 * 1024;

/// One row that an array statement could not write.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct RowError {
    /// Which of the rows given, from 0.
    pub(super) row: usize,
    pub(super) class: Class,
    pub(super) text: String,
}

/// What an array statement did.
#[derive(Debug, Default)]
pub(super) struct Written {
    /// For each row given, how many rows it touched.
    pub(super) counts: Vec<u64>,
    /// In the order of the rows.
    pub(super) errors: Vec<RowError>,
}

impl Written {
    /// The rows that touched nothing and met no error, from 0.
    pub(super) fn untouched(&self) -> Vec<usize> {
        let failed = |row: usize| self.errors.iter().any(|error| error.row == row);
        (0..self.counts.len()).filter(|row| self.counts[*row] == 0 && !failed(*row)).collect()
    }
}

/// Writes `rows` with one statement. Rows that fail are told one by one, and the others are written; nothing is
/// committed.
pub(super) fn write_all(
    connection: &Connection,
    sql: &str,
    rows: &[Vec<Bind<'_>>],
) -> oracle::Result<Written> {
    let mut written = Written::default();
    let mut start = 0;
    while start < rows.len() {
        let portion = &rows[start..][..portion(&rows[start..])];
        let types = widest(portion);
        let mut batch =
            connection.batch(sql, portion.len()).with_batch_errors().with_row_counts().build()?;
        for (index, oracle_type) in types.iter().enumerate() {
            batch.set_type(index + 1, oracle_type)?;
        }
        for row in portion {
            batch.append_row(&as_parameters(row))?;
        }
        match batch.execute() {
            Ok(()) => {}
            Err(error) => match error.batch_errors() {
                Some(errors) => written.errors.extend(errors.iter().map(|error| RowError {
                    row: start + usize::try_from(error.offset()).unwrap_or(0),
                    class: errors::ora_of(error).map_or(Class::Unknown, Class::of_ora),
                    text: errors::clean(error.message()),
                })),
                None => return Err(error),
            },
        }
        let mut counts = batch.row_counts()?;
        counts.resize(portion.len(), 0);
        written.counts.extend(counts);
        start += portion.len();
    }
    written.errors.sort_by_key(|error| error.row);
    Ok(written)
}

/// Calls a procedure once for each of `rows`, all in one trip. The first that fails ends it.
pub(super) fn call_all(
    connection: &Connection,
    sql: &str,
    rows: &[Vec<Bind<'_>>],
) -> oracle::Result<()> {
    let mut start = 0;
    while start < rows.len() {
        let portion = &rows[start..][..portion(&rows[start..])];
        // One more than there are, so that it is sent when we say so and not with the last row.
        let mut batch = connection.batch(sql, portion.len() + 1).build()?;
        for (index, oracle_type) in widest(portion).iter().enumerate() {
            batch.set_type(index + 1, oracle_type)?;
        }
        for row in portion {
            batch.append_row(&as_parameters(row))?;
        }
        batch.execute()?;
        start += portion.len();
    }
    Ok(())
}

/// How many of `rows` go into one array statement: as many as its buffers should hold.
fn portion(rows: &[Vec<Bind<'_>>]) -> usize {
    let mut widest = 0;
    for (index, row) in rows.iter().enumerate().take(ARRAY_ROWS_MAX) {
        widest = widest.max(row.iter().map(buffer_bytes).sum());
        if index > 0 && widest.saturating_mul(index + 1) > ARRAY_BYTES_MAX {
            return index;
        }
    }
    rows.len().min(ARRAY_ROWS_MAX)
}

/// What one value takes in the buffers: four bytes for each character of a column's width.
fn buffer_bytes(bind: &Bind<'_>) -> usize {
    match bind {
        Bind::Text(_, chars_max) | Bind::Owned(_, chars_max) => {
            usize::try_from(*chars_max).unwrap_or(usize::MAX).saturating_mul(4)
        }
        Bind::Long(text) => text.map_or(0, str::len) + 64,
        Bind::Clob(text) => text.len(),
        Bind::Time(_) | Bind::Integer(_) | Bind::Number(_) | Bind::Cursor => 32,
    }
}

/// The type of each column that holds the values of all rows.
fn widest(rows: &[Vec<Bind<'_>>]) -> Vec<OracleType> {
    let mut types: Vec<OracleType> = Vec::new();
    for row in rows {
        for (index, bind) in row.iter().enumerate() {
            let own = bind.oracle_type();
            match (types.get_mut(index), own) {
                (None, own) => types.push(own),
                (Some(OracleType::Varchar2(known)), OracleType::Varchar2(own)) => {
                    *known = (*known).max(own);
                }
                (Some(_), _) => {}
            }
        }
    }
    types
}

/// A column that is never NULL. Oracle's empty text is NULL, so it reads as empty.
pub(super) fn text(row: &Row, column: &str) -> oracle::Result<String> {
    Ok(optional_text(row, column)?.unwrap_or_default())
}

pub(super) fn optional_text(row: &Row, column: &str) -> oracle::Result<Option<String>> {
    row.get(column)
}

pub(super) fn time(row: &Row, column: &str) -> oracle::Result<Timestamp> {
    optional_time(row, column)?.ok_or_else(|| failed(format!("{column} is NULL")))
}

pub(super) fn optional_time(row: &Row, column: &str) -> oracle::Result<Option<Timestamp>> {
    row.get::<_, Option<oracle::sql_type::Timestamp>>(column)?.as_ref().map(moment).transpose()
}

pub(super) fn integer(row: &Row, column: &str) -> oracle::Result<i64> {
    Ok(row.get::<_, Option<i64>>(column)?.unwrap_or(0))
}

pub(super) fn optional_integer(row: &Row, column: &str) -> oracle::Result<Option<i64>> {
    row.get(column)
}

/// A count or a number in a stream: nothing below zero was ever written.
pub(super) fn count(row: &Row, column: &str) -> oracle::Result<u64> {
    Ok(u64::try_from(integer(row, column)?).unwrap_or(0))
}

pub(super) fn optional_count(row: &Row, column: &str) -> oracle::Result<Option<u64>> {
    Ok(optional_integer(row, column)?.map(|number| u64::try_from(number).unwrap_or(0)))
}

pub(super) fn optional_number(row: &Row, column: &str) -> oracle::Result<Option<f64>> {
    row.get(column)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_bind_carries_a_type_that_keeps_indexes_and_partitions_usable() {
        let cases = [
            (Bind::text("x", 50), OracleType::Varchar2(50)),
            (Bind::Text(None, 200), OracleType::Varchar2(200)),
            (Bind::Owned(None, 9), OracleType::Varchar2(9)),
            (Bind::Long(None), OracleType::Long),
            (Bind::Clob("x"), OracleType::CLOB),
            (Bind::Time(None), OracleType::Timestamp(6)),
            (Bind::Integer(None), OracleType::Number(19, 0)),
            (Bind::Number(None), OracleType::Number(0, 0)),
            (Bind::Cursor, OracleType::RefCursor),
        ];
        for (bind, wanted) in cases {
            assert_eq!(bind.oracle_type(), wanted, "{bind:?}");
        }
    }

    #[test]
    fn a_moment_keeps_its_microseconds_both_ways() {
        for text in
            ["1970-01-01T00:00:00Z", "2026-01-28T10:30:00.123456Z", "9999-12-30T21:59:59.999999Z"]
        {
            let wanted = Timestamp::parse(text).unwrap();
            let there = oracle_time(wanted).unwrap();
            assert!(!there.with_tz() || there.tz_offset() == 0);
            assert_eq!(moment(&there).unwrap(), wanted, "{text}");
        }
        let there = oracle_time(Timestamp::parse("2026-01-28T11:30:00+01:00").unwrap()).unwrap();
        assert_eq!((there.hour(), there.minute()), (10, 30));
    }

    #[test]
    fn an_array_takes_as_many_rows_as_its_buffers_hold() {
        let narrow = vec![vec![Bind::text("x", 50), Bind::count(1)]; 5000];
        assert_eq!(portion(&narrow), ARRAY_ROWS_MAX);
        let wide = vec![vec![Bind::text("x", 4000), Bind::text("x", 4000)]; 5000];
        assert_eq!(portion(&wide), ARRAY_BYTES_MAX / 32_000);
        let huge = "x".repeat(ARRAY_BYTES_MAX * 2);
        assert_eq!(portion(&[vec![Bind::Long(Some(&huge))]]), 1, "one always goes");
    }

    #[test]
    fn a_column_of_an_array_is_as_wide_as_its_widest_value() {
        let rows = [
            vec![Bind::text("x", 50), Bind::Time(None)],
            vec![Bind::text("x", 80), Bind::Time(None)],
        ];
        assert_eq!(widest(&rows), [OracleType::Varchar2(80), OracleType::Timestamp(6)]);
    }

    #[test]
    fn words_are_cut_between_characters() {
        assert_eq!(Bind::cut("äöü", 2), Bind::text("äö", 2));
        assert_eq!(Bind::cut("äö", 2), Bind::text("äö", 2));
    }

    #[test]
    fn rows_that_touched_nothing_and_did_not_fail_are_found() {
        let error = RowError { row: 2, class: Class::Duplicate, text: String::new() };
        let written = Written { counts: vec![1, 0, 0, 0], errors: vec![error] };
        assert_eq!(written.untouched(), [1, 3]);
    }
}
