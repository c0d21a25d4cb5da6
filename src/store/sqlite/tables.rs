//! The rolled event tables. This module makes `events_1`, `events_2`, … one after another, so that the cost of a
//! write stays flat as data grows (indexes of one small table stay in the cache) and retention is a drop.
//!
//! `event_table` says of each one which positions and times it holds, so that readers pass over tables that hold
//! nothing for them. `events_0` is never written by the listener: before retention drops a table it carries the events
//! of open runs into it, a portion at a time, so that nobody waits for long however many processes there are. What a
//! stream has there goes when events of it that are younger go with a table, for a stream is kept from some number on,
//! without a hole.
//!
//! # Finding an event by its id
//!
//! A plain index on a hash of the id would touch a random page for each event: about 800 pages of a full table for
//! every batch. [`mark`] puts the hash behind the position's band of 16,384 instead. A batch then writes into some
//! 60 neighbouring pages, and a look-up is one probe for each band: 13 for a full table, some thousands at most.

use std::time::Duration;

use rusqlite::{Connection, OptionalExtension, params};

use crate::domain::event::{Accepted, IdOrigin};
use crate::domain::time::Timestamp;

/// The table that holds what outlives its own table.
pub(super) const KEPT: i64 = 0;

/// Readers probe every table in the worst case, and `SQLite` takes 500 terms in a compound SELECT (the view).
const TABLES_MAX: u64 = 400;
/// So many tables, and the next ones hold twice the rows: 100 each of 1, 2, 4 and 8 times the size.
const TABLES_OF_ONE_SIZE: u64 = 100;
/// Positions that share the upper half of a mark: 2^14 of them.
const BAND_BITS: u32 = 14;

/// Bits of the column `flags`.
pub(super) const FLAG_CLOCK_SKEW: i64 = 1;
pub(super) const FLAG_ID_OF_CALLER: i64 = 2;

/// What one table holds.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Span {
    pub(super) n: i64,
    pub(super) rows: i64,
    pub(super) first_position: i64,
    pub(super) last_position: i64,
    pub(super) first_received_us: i64,
    pub(super) last_received_us: i64,
    pub(super) first_ordered_us: i64,
    pub(super) last_ordered_us: i64,
}

impl Span {
    fn of(n: i64, accepted: &Accepted) -> Self {
        Self {
            n,
            rows: 1,
            first_position: accepted.position,
            last_position: accepted.position,
            first_received_us: accepted.received_at.micros(),
            last_received_us: accepted.received_at.micros(),
            first_ordered_us: accepted.ordered_at.micros(),
            last_ordered_us: accepted.ordered_at.micros(),
        }
    }

    fn add(&mut self, accepted: &Accepted) {
        self.join(&Self::of(self.n, accepted));
    }

    fn join(&mut self, other: &Self) {
        self.rows += other.rows;
        self.first_position = self.first_position.min(other.first_position);
        self.last_position = self.last_position.max(other.last_position);
        self.first_received_us = self.first_received_us.min(other.first_received_us);
        self.last_received_us = self.last_received_us.max(other.last_received_us);
        self.first_ordered_us = self.first_ordered_us.min(other.first_ordered_us);
        self.last_ordered_us = self.last_ordered_us.max(other.last_ordered_us);
    }
}

/// The numbers of an event's names.
#[derive(Debug, Clone, Copy)]
pub(super) struct Numbers {
    pub(super) tenant: i64,
    pub(super) source: i64,
    pub(super) event_type: i64,
    pub(super) stream: i64,
}

/// The writer's view of the tables: which one takes rows now.
pub(super) struct Tables {
    rows_max: u64,
    age_max: Duration,
    /// The table that takes rows, with its statement.
    current: Option<(Span, String)>,
    /// What this batch added to it.
    added: Option<Span>,
}

impl Tables {
    pub(super) fn new(rows_max: u64, age_max: Duration) -> Self {
        Self { rows_max, age_max, current: None, added: None }
    }

    /// Chooses the table for a batch whose first event was received at `received`: the newest one, or a new one
    /// when that is full or old.
    pub(super) fn open(
        &mut self,
        connection: &Connection,
        received: Timestamp,
    ) -> rusqlite::Result<()> {
        self.added = None;
        let spans = match self.current {
            Some((span, _)) if self.has_room(&span, received) => return Ok(()),
            _ => spans(connection)?,
        };
        let tables = u64::try_from(spans.len()).unwrap_or(u64::MAX);
        let newest = spans.last().copied().filter(|span| span.n != KEPT);
        let factor = 1u64 << (tables / TABLES_OF_ONE_SIZE).min(3);
        let roomy = |span: &Span| {
            tables >= TABLES_MAX
                || (u64::try_from(span.rows).unwrap_or(0) < self.rows_max.saturating_mul(factor)
                    && self.is_young(span, received))
        };
        let n = match newest.filter(roomy) {
            Some(span) => {
                self.current = Some((span, insert_sql(span.n)));
                return Ok(());
            }
            None => newest.map_or(KEPT, |span| span.n) + 1,
        };
        create(connection, n)?;
        let now = received.micros();
        let empty = Span {
            n,
            rows: 0,
            first_position: i64::MAX,
            last_position: 0,
            first_received_us: now,
            last_received_us: now,
            first_ordered_us: i64::MAX,
            last_ordered_us: i64::MIN,
        };
        self.current = Some((empty, insert_sql(n)));
        Ok(())
    }

    fn has_room(&self, span: &Span, received: Timestamp) -> bool {
        u64::try_from(span.rows).unwrap_or(0) < self.rows_max && self.is_young(span, received)
    }

    fn is_young(&self, span: &Span, received: Timestamp) -> bool {
        received.since(Timestamp::from_micros(span.first_received_us)) < self.age_max
    }

    /// Writes one event into the chosen table.
    pub(super) fn insert(
        &mut self,
        connection: &Connection,
        accepted: &Accepted,
        numbers: Numbers,
        processed: Timestamp,
    ) -> rusqlite::Result<()> {
        let Some((span, sql)) = &self.current else {
            unreachable!("a batch opens its table before its first row");
        };
        let envelope = &accepted.envelope;
        let mut flags = 0;
        if accepted.clock_skew {
            flags |= FLAG_CLOCK_SKEW;
        }
        if envelope.id_origin == IdOrigin::Caller {
            flags |= FLAG_ID_OF_CALLER;
        }
        connection.prepare_cached(sql)?.execute(params![
            accepted.position,
            numbers.tenant,
            numbers.source,
            numbers.event_type,
            numbers.stream,
            i64::try_from(accepted.stream_seq).unwrap_or(i64::MAX),
            envelope.event_id.as_str(),
            mark(accepted.position, envelope.event_id.as_str()),
            flags,
            envelope.occurred_at.map(Timestamp::micros),
            accepted.ordered_at.micros(),
            accepted.received_at.micros(),
            processed.micros(),
            envelope.schema_version,
            envelope.key.as_ref().map(|key| key.as_str()),
            &envelope.hash.0[..],
            &trace_bytes(accepted)[..],
            &*envelope.payload,
        ])?;
        match &mut self.added {
            Some(added) => added.add(accepted),
            none => *none = Some(Span::of(span.n, accepted)),
        }
        Ok(())
    }

    /// Notes in the registry what the batch added.
    pub(super) fn close(&mut self, connection: &Connection) -> rusqlite::Result<()> {
        let Some(added) = self.added.take() else { return Ok(()) };
        register(connection, &added)?;
        if let Some((span, _)) = &mut self.current {
            span.rows += added.rows;
            span.first_received_us = span.first_received_us.min(added.first_received_us);
        }
        Ok(())
    }

    /// Forgets what a failed transaction may have made up.
    pub(super) fn forget(&mut self) {
        self.current = None;
        self.added = None;
    }
}

fn insert_sql(n: i64) -> String {
    include_str!("../../../sql/sqlite/insert_event.sql").replace("{n}", &n.to_string())
}

fn register(connection: &Connection, span: &Span) -> rusqlite::Result<()> {
    connection
        .prepare_cached(include_str!("../../../sql/sqlite/register_event_table.sql"))?
        .execute(params![
            span.n,
            span.rows,
            span.first_position,
            span.last_position,
            span.first_received_us,
            span.last_received_us,
            span.first_ordered_us,
            span.last_ordered_us
        ])?;
    Ok(())
}

/// Every table that holds rows, the oldest first.
pub(super) fn spans(connection: &Connection) -> rusqlite::Result<Vec<Span>> {
    connection
        .prepare_cached(
            "SELECT n, rows, first_position, last_position, first_received_us, last_received_us, \
             first_ordered_us, last_ordered_us FROM event_table ORDER BY n",
        )?
        .query_map([], |row| {
            Ok(Span {
                n: row.get(0)?,
                rows: row.get(1)?,
                first_position: row.get(2)?,
                last_position: row.get(3)?,
                first_received_us: row.get(4)?,
                last_received_us: row.get(5)?,
                first_ordered_us: row.get(6)?,
                last_ordered_us: row.get(7)?,
            })
        })?
        .collect()
}

/// Makes table `n` and joins it to the view.
pub(super) fn create(connection: &Connection, n: i64) -> rusqlite::Result<()> {
    connection.execute_batch(
        &include_str!("../../../sql/sqlite/event_table.sql").replace("{n}", &n.to_string()),
    )?;
    join(connection)
}

/// Streams of a table, looked at one after the other.
pub(super) struct Looked {
    /// Those that were looked for.
    pub(super) found: Vec<i64>,
    /// The last one looked at.
    pub(super) to: i64,
    /// There are none after it.
    pub(super) is_all: bool,
}

/// Looks at the streams of table `n` after stream `after`, `streams_max` at most, until `found_max` of them drive a
/// process with an open run. An expired run is open: a sign of life revives it, until it is archived.
pub(super) fn look_for_open_runs(
    connection: &Connection,
    n: i64,
    after: i64,
    streams_max: usize,
    found_max: usize,
) -> rusqlite::Result<Looked> {
    let is_open = "SELECT EXISTS (SELECT 1 FROM process WHERE stream_id = ?1 \
         AND status IN ('ACTIVE', 'RUNNING', 'PAUSED', 'EXPIRED'))";
    look(connection, n, after, streams_max, found_max, is_open)
}

/// Looks at the streams of [`KEPT`] in the same way, until `found_max` of them have events in table `n` too.
pub(super) fn look_for_kept(
    connection: &Connection,
    n: i64,
    after: i64,
    streams_max: usize,
    found_max: usize,
) -> rusqlite::Result<Looked> {
    let is_there = format!("SELECT EXISTS (SELECT 1 FROM events_{n} WHERE stream_id = ?1)");
    look(connection, KEPT, after, streams_max, found_max, &is_there)
}

fn look(
    connection: &Connection,
    n: i64,
    after: i64,
    streams_max: usize,
    found_max: usize,
    is_wanted: &str,
) -> rusqlite::Result<Looked> {
    // One snapshot, which is cheaper than one for each of many reads. Dropping it ends it.
    let reading = connection.unchecked_transaction()?;
    // A table holds many events of few streams, so this steps from one stream to the next instead of walking it.
    let mut next = reading.prepare_cached(&format!(
        "SELECT stream_id FROM events_{n} WHERE stream_id > ?1 ORDER BY stream_id LIMIT 1"
    ))?;
    let mut is_wanted = reading.prepare_cached(is_wanted)?;
    let mut looked = Looked { found: Vec::new(), to: after, is_all: false };
    for _ in 0..streams_max {
        let Some(stream) = next.query_row([looked.to], |row| row.get(0)).optional()? else {
            looked.is_all = true;
            break;
        };
        looked.to = stream;
        if is_wanted.query_row([stream], |row| row.get(0))? {
            looked.found.push(stream);
            if looked.found.len() == found_max {
                break;
            }
        }
    }
    Ok(looked)
}

/// Drops the oldest events that a stream has in [`KEPT`], `rows_max` at most. Returns how many.
pub(super) fn release(
    connection: &Connection,
    stream: i64,
    rows_max: usize,
) -> rusqlite::Result<usize> {
    let released = connection
        .prepare_cached(
            "DELETE FROM events_0 WHERE position IN \
             (SELECT position FROM events_0 WHERE stream_id = ?1 ORDER BY stream_seq LIMIT ?2)",
        )?
        .execute(params![stream, i64::try_from(rows_max).unwrap_or(i64::MAX)])?;
    if released > 0 {
        connection
            .prepare_cached("UPDATE event_table SET rows = rows - ?2 WHERE n = ?1")?
            .execute(params![KEPT, i64::try_from(released).unwrap_or(i64::MAX)])?;
    }
    Ok(released)
}

/// Carries the oldest events that a stream has in table `n` into [`KEPT`], `rows_max` at most. Returns how many.
pub(super) fn carry(
    connection: &Connection,
    n: i64,
    stream: i64,
    rows_max: usize,
) -> rusqlite::Result<usize> {
    let sql = include_str!("../../../sql/sqlite/carry_events.sql").replace("{n}", &n.to_string());
    let mut carried: Option<(Span, i64)> = None;
    let mut statement = connection.prepare_cached(&sql)?;
    let mut rows = statement.query([stream, i64::try_from(rows_max).unwrap_or(i64::MAX)])?;
    while let Some(row) = rows.next()? {
        let (position, seq, received, ordered): (i64, i64, i64, i64) =
            (row.get(0)?, row.get(1)?, row.get(2)?, row.get(3)?);
        let one = Span {
            n: KEPT,
            rows: 1,
            first_position: position,
            last_position: position,
            first_received_us: received,
            last_received_us: received,
            first_ordered_us: ordered,
            last_ordered_us: ordered,
        };
        match &mut carried {
            Some((span, last)) => {
                span.join(&one);
                *last = seq.max(*last);
            }
            none => *none = Some((one, seq)),
        }
    }
    drop(rows);
    let Some((span, last)) = carried else { return Ok(0) };
    connection
        .prepare_cached(&format!(
            "DELETE FROM events_{n} WHERE stream_id = ?1 AND stream_seq <= ?2"
        ))?
        .execute([stream, last])?;
    connection
        .prepare_cached("UPDATE event_table SET rows = rows - ?2 WHERE n = ?1")?
        .execute([n, span.rows])?;
    register(connection, &span)?;
    Ok(usize::try_from(span.rows).unwrap_or(usize::MAX))
}

/// Drops a table, whose events of open runs were carried away before. Returns how many rows it held.
pub(super) fn drop_table(connection: &Connection, span: &Span) -> rusqlite::Result<i64> {
    let number = span.n.to_string();
    connection.execute_batch(&format!("DROP VIEW IF EXISTS events; DROP TABLE events_{number}"))?;
    connection.execute("DELETE FROM event_table WHERE n = ?1", [span.n])?;
    join(connection)?;
    Ok(span.rows)
}

/// Makes the view `events` anew, over all tables there are.
fn join(connection: &Connection) -> rusqlite::Result<()> {
    let names = connection
        .prepare(
            "SELECT name FROM sqlite_schema WHERE type = 'table' AND name GLOB 'events_[0-9]*' \
             ORDER BY CAST(substr(name, 8) AS INTEGER)",
        )?
        .query_map([], |row| row.get(0))?
        .collect::<rusqlite::Result<Vec<String>>>()?;
    let selects: Vec<String> = names.iter().map(|name| format!("SELECT * FROM {name}")).collect();
    connection.execute_batch(&format!(
        "DROP VIEW IF EXISTS events;\n{}",
        include_str!("../../../sql/sqlite/events_view.sql")
            .replace("{tables}", &selects.join(" UNION ALL "))
    ))
}

/// The bands that a table's positions fall into.
pub(super) fn bands(span: &Span) -> std::ops::RangeInclusive<i64> {
    (span.first_position >> BAND_BITS)..=(span.last_position >> BAND_BITS)
}

/// What the index by event id holds: the band of the position above, a hash of the id below.
pub(super) fn mark(position: i64, event_id: &str) -> i64 {
    mark_in_band(position >> BAND_BITS, event_id)
}

/// The mark of an event id in one band.
pub(super) fn mark_in_band(band: i64, event_id: &str) -> i64 {
    // FNV-1a: stable for ever, because the value is stored. Equal hashes cost one more row read, nothing else.
    let hash = event_id
        .bytes()
        .fold(0x811c_9dc5u32, |hash, byte| (hash ^ u32::from(byte)).wrapping_mul(0x0100_0193));
    (band << 32) | i64::from(hash)
}

/// Trace id, parent id and the sampled bit, as they are kept.
fn trace_bytes(accepted: &Accepted) -> [u8; 25] {
    let trace = &accepted.envelope.trace;
    let mut bytes = [0; 25];
    bytes[..16].copy_from_slice(&trace.trace_id);
    bytes[16..24].copy_from_slice(&trace.parent_id);
    bytes[24] = u8::from(trace.sampled);
    bytes
}
