//! Events out of the rolled tables. This module finds one by its id, lists them the newest first, and follows a
//! stream in its order.
//!
//! A tenant's events are listed by the time that orders them, and those of one stream by their numbers: each listing
//! walks the index that holds its order, from where the page before ended.
//!
//! Each table's span of positions and times says whether it can hold what is asked, so most questions touch one or
//! two tables. An event that came late lies in a newer table than its time suggests; the spans of times know that.

use rusqlite::{OptionalExtension, Row, params};

use super::super::connection::classify;
use super::super::names::unreadable;
use super::super::streams::{signed, unsigned};
use super::super::tables::{FLAG_CLOCK_SKEW, FLAG_ID_OF_CALLER, Span, bands, mark_in_band};
use super::Reader;
use super::cursor::{self, ROWS_LOOKED_AT_MAX};
use crate::domain::event::{Accepted, Envelope, IdOrigin, PayloadHash, TraceContext};
use crate::domain::ids::{EventId, IdempotencyKey, StreamKey, TenantId};
use crate::domain::time::Timestamp;
use crate::store::{EventFilter, Page, Paged, Result, StoredEvent};

/// The kind of a cursor of the event listing.
const EVENTS: u8 = b'e';
/// The kind of a cursor of that listing where it is of one stream.
const STREAM: u8 = b's';

/// Columns of an event, in the order that [`Reader::event_of`] reads them.
const COLUMNS: &str = "position, stream_seq, received_us, ordered_us, flags, event_id, source_id, type_id, \
     stream_id, occurred_us, schema_version, payload, idempotency_key, hash, trace, processed_us";
const COLUMN_POSITION: usize = 0;
const COLUMN_SEQ: usize = 1;
const COLUMN_ORDERED: usize = 3;
const COLUMN_SOURCE: usize = 6;
const COLUMN_TYPE: usize = 7;

/// Numbers of the names that a listing is filtered by.
struct Wanted {
    tenant: i64,
    source: Option<i64>,
    event_type: Option<i64>,
    stream: Option<i64>,
}

impl Wanted {
    /// Whether a row passes the filters by source and type.
    fn is(&self, row: &Row<'_>) -> bool {
        self.source.is_none_or(|source| row.get(COLUMN_SOURCE) == Ok(source))
            && self.event_type.is_none_or(|kind| row.get(COLUMN_TYPE) == Ok(kind))
    }
}

/// A place in the listing: newer events come first.
type Place = (i64, i64);

impl Reader {
    pub(super) fn find_event(
        &mut self,
        tenant: &TenantId,
        id: &EventId,
    ) -> rusqlite::Result<Option<StoredEvent>> {
        let Some(number) = self.tenant(tenant)? else { return Ok(None) };
        let spans = self.spans()?;
        let Self { connection, texts, .. } = self;
        // The newest first: that is what people ask about.
        for span in spans.iter().rev() {
            let mut read = connection.prepare_cached(&format!(
                "SELECT {COLUMNS} FROM events_{} WHERE event_mark = ?1 AND tenant_id = ?2 AND event_id = ?3",
                span.n
            ))?;
            for band in bands(span).rev() {
                let mark = mark_in_band(band, id.as_str());
                let found = read
                    .query_row(params![mark, number, id.as_str()], |row| {
                        event_of(connection, texts, tenant, row)
                    })
                    .optional()?;
                if found.is_some() {
                    return Ok(found);
                }
            }
        }
        Ok(None)
    }

    pub(super) fn list_events(
        &mut self,
        tenant: &TenantId,
        filter: &EventFilter,
        page: &Page,
    ) -> Result<Paged<StoredEvent>> {
        const CALL: &str = "list events";
        let fail = |error| classify(CALL, error);
        let limit = cursor::limit(page);
        if filter.stream.is_some() {
            let before = match cursor::read::<2>(CALL, STREAM, page)? {
                Some([seq, position]) => (seq, position),
                None => (i64::MAX, i64::MAX),
            };
            let Some(wanted) = self.wanted(tenant, filter).map_err(fail)? else {
                return Ok(Paged { rows: Vec::new(), next: None });
            };
            return self.newest_of_stream(tenant, filter, &wanted, before, limit).map_err(fail);
        }
        let before: Place = match cursor::read::<2>(CALL, EVENTS, page)? {
            Some([ordered, position]) => (ordered, position),
            None => (i64::MAX, i64::MAX),
        };
        let Some(wanted) = self.wanted(tenant, filter).map_err(fail)? else {
            return Ok(Paged { rows: Vec::new(), next: None });
        };
        self.newest_events(tenant, filter, &wanted, before, limit).map_err(fail)
    }

    /// The numbers of the filter's names. None: one of them has never been seen, so nothing passes.
    fn wanted(
        &mut self,
        tenant: &TenantId,
        filter: &EventFilter,
    ) -> rusqlite::Result<Option<Wanted>> {
        let Some(number) = self.tenant(tenant)? else { return Ok(None) };
        let find = |sql: &str, name: &str| -> rusqlite::Result<Option<i64>> {
            self.connection.prepare_cached(sql)?.query_row([name], |row| row.get(0)).optional()
        };
        let mut wanted = Wanted { tenant: number, source: None, event_type: None, stream: None };
        if let Some(source) = &filter.source {
            wanted.source = find("SELECT source_id FROM source WHERE name = ?1", source.as_str())?;
            if wanted.source.is_none() {
                return Ok(None);
            }
        }
        if let Some(event_type) = &filter.event_type {
            wanted.event_type =
                find("SELECT type_id FROM event_type WHERE name = ?1", event_type.as_str())?;
            if wanted.event_type.is_none() {
                return Ok(None);
            }
        }
        if let Some(stream) = &filter.stream {
            wanted.stream = self.stream_number(tenant, stream)?;
            if wanted.stream.is_none() {
                return Ok(None);
            }
        }
        Ok(Some(wanted))
    }

    /// Merges the newest events of all tables, `limit` of them, strictly before `before`.
    fn newest_events(
        &mut self,
        tenant: &TenantId,
        filter: &EventFilter,
        wanted: &Wanted,
        before: Place,
        limit: usize,
    ) -> rusqlite::Result<Paged<StoredEvent>> {
        let from = filter.from.map_or(i64::MIN, Timestamp::micros);
        let to = filter.to.map_or(i64::MAX, Timestamp::micros);
        let mut spans = self.spans()?.to_vec();
        spans.retain(|span| {
            span.last_ordered_us >= from
                && span.first_ordered_us < to
                && span.first_ordered_us <= before.0
        });
        spans.sort_unstable_by_key(|span| std::cmp::Reverse(span.last_ordered_us));
        // Rows at or above the floor are complete; below it some table was not looked through to the end.
        let mut floor: Place = (from, 0);
        let mut is_cut = false;
        let mut rows: Vec<(Place, i64)> = Vec::new();
        for span in spans {
            if span.last_ordered_us < floor.0 {
                break;
            }
            let cut =
                self.newest_of_table(&span, wanted, before, to, floor, limit + 1, &mut rows)?;
            if let Some(place) = cut {
                floor = floor.max(place);
                is_cut = true;
            }
            rows.sort_unstable_by(|a, b| b.cmp(a));
            rows.truncate(limit + 1);
            if let Some((last, _)) = rows.get(limit) {
                floor = floor.max(*last);
            }
        }
        rows.retain(|(place, _)| *place >= floor);
        let mut next = if rows.len() > limit {
            rows.truncate(limit);
            rows.last().map(|(place, _)| *place)
        } else {
            is_cut.then_some(floor)
        };
        let mut events = Vec::with_capacity(rows.len());
        let (mut bytes, last) = (0, rows.len());
        for ((ordered, position), n) in rows {
            let event = self.event_at(tenant, n, position)?;
            bytes += event.event.envelope.payload.len();
            events.push(event);
            if bytes >= cursor::PAGE_BYTES_MAX && events.len() < last {
                next = Some((ordered, position));
                break;
            }
        }
        let next = next.map(|(ordered, position)| cursor::write(EVENTS, [ordered, position]));
        Ok(Paged { rows: events, next })
    }

    /// Adds the newest rows of one table that pass, `count` at most and none below `floor`. Returns where it stopped
    /// looking, if it stopped before it was done.
    #[expect(clippy::too_many_arguments, reason = "one table's part of a merge, called once")]
    fn newest_of_table(
        &self,
        span: &Span,
        wanted: &Wanted,
        before: Place,
        to: i64,
        floor: Place,
        count: usize,
        rows: &mut Vec<(Place, i64)>,
    ) -> rusqlite::Result<Option<Place>> {
        let sql = format!(
            "SELECT position, 0, 0, ordered_us, 0, 0, source_id, type_id FROM events_{} \
             WHERE tenant_id = ?1 AND ordered_us <= ?2 AND ordered_us >= ?3 AND ordered_us < ?4 \
             ORDER BY ordered_us DESC, position DESC",
            span.n
        );
        let mut read = self.connection.prepare_cached(&sql)?;
        let mut found = read.query(params![wanted.tenant, before.0, floor.0, to])?;
        let (mut added, mut looked_at) = (0, 0);
        while let Some(row) = found.next()? {
            let place: Place = (row.get(COLUMN_ORDERED)?, row.get(COLUMN_POSITION)?);
            if place < floor {
                return Ok(None);
            }
            looked_at += 1;
            if place < before && wanted.is(row) {
                rows.push((place, span.n));
                added += 1;
            }
            if added == count {
                return Ok(None);
            }
            if looked_at == ROWS_LOOKED_AT_MAX {
                return Ok(Some(place));
            }
        }
        Ok(None)
    }

    /// Events of one stream by their numbers, the newest first, `limit` of them or fewer large ones, strictly before `before`: a number and
    /// its position. Positions rise with the numbers of a stream, and with the tables.
    fn newest_of_stream(
        &mut self,
        tenant: &TenantId,
        filter: &EventFilter,
        wanted: &Wanted,
        mut before: Place,
        limit: usize,
    ) -> rusqlite::Result<Paged<StoredEvent>> {
        let from = filter.from.map_or(i64::MIN, Timestamp::micros);
        let to = filter.to.map_or(i64::MAX, Timestamp::micros);
        let spans = self.spans()?;
        let Self { connection, texts, .. } = self;
        let (mut events, mut looked_at, mut bytes) = (Vec::new(), 0, 0);
        for span in spans.iter().rev() {
            let may_hold = span.first_position < before.1
                && span.last_ordered_us >= from
                && span.first_ordered_us < to;
            if !may_hold {
                continue;
            }
            let mut read = connection.prepare_cached(&format!(
                "SELECT {COLUMNS} FROM events_{} WHERE stream_id = ?1 AND stream_seq < ?2 \
                 ORDER BY stream_seq DESC",
                span.n
            ))?;
            let mut found = read.query(params![wanted.stream, before.0])?;
            while let Some(row) = found.next()? {
                let is_full = events.len() == limit || bytes >= cursor::PAGE_BYTES_MAX;
                if is_full || looked_at == ROWS_LOOKED_AT_MAX {
                    let next = Some(cursor::write(STREAM, [before.0, before.1]));
                    return Ok(Paged { rows: events, next });
                }
                looked_at += 1;
                before = (row.get(COLUMN_SEQ)?, row.get(COLUMN_POSITION)?);
                let ordered: i64 = row.get(COLUMN_ORDERED)?;
                if (from..to).contains(&ordered) && wanted.is(row) {
                    let event = event_of(connection, texts, tenant, row)?;
                    bytes += event.event.envelope.payload.len();
                    events.push(event);
                }
            }
        }
        Ok(Paged { rows: events, next: None })
    }

    fn event_at(
        &mut self,
        tenant: &TenantId,
        n: i64,
        position: i64,
    ) -> rusqlite::Result<StoredEvent> {
        let Self { connection, texts, .. } = self;
        connection
            .prepare_cached(&format!("SELECT {COLUMNS} FROM events_{n} WHERE position = ?1"))?
            .query_row([position], |row| event_of(connection, texts, tenant, row))
    }

    /// Events of a stream after number `after`, ascending. A number that is missing ends the answer, unless it is a
    /// dead letter's or lies before everything that retention has kept.
    pub(super) fn follow_stream(
        &mut self,
        tenant: &TenantId,
        stream: &StreamKey,
        after: u64,
        limit: usize,
    ) -> rusqlite::Result<Option<Vec<StoredEvent>>> {
        let Some(state) = self.read_stream(tenant, stream)? else { return Ok(None) };
        if after >= state.applied_seq {
            return Ok(Some(Vec::new()));
        }
        let Some(number) = self.stream_number(tenant, stream)? else { return Ok(None) };
        let limit = cursor::limit(&Page { limit, after: None });
        let spans = self.spans()?;
        let first = self.first_table(&spans, number, after)?;
        let mut events: Vec<StoredEvent> = Vec::new();
        let (mut expected, mut bytes) = (after + 1, 0);
        for span in &spans[first..] {
            let Self { connection, texts, .. } = self;
            let mut read = connection.prepare_cached(&format!(
                "SELECT {COLUMNS} FROM events_{} WHERE stream_id = ?1 AND stream_seq >= ?2 \
                 ORDER BY stream_seq LIMIT ?3",
                span.n
            ))?;
            let missing = i64::try_from(limit - events.len()).unwrap_or(i64::MAX);
            let mut found = read.query(params![number, signed(expected), missing])?;
            while let Some(row) = found.next()? {
                let event = event_of(connection, texts, tenant, row)?;
                let seq = event.event.stream_seq;
                if seq > expected {
                    let is_first = events.is_empty();
                    if !is_gap_explained(connection, &spans, number, expected, seq, is_first)? {
                        return Ok(Some(events));
                    }
                }
                expected = seq + 1;
                bytes += event.event.envelope.payload.len();
                events.push(event);
                // Whoever asks for more asks with the last number.
                if bytes >= cursor::PAGE_BYTES_MAX {
                    return Ok(Some(events));
                }
            }
            if events.len() == limit {
                break;
            }
        }
        Ok(Some(events))
    }

    /// The index of the table to begin with: the newest that holds something at or before `after`. People mostly
    /// follow the end of a stream, so the search goes from there.
    fn first_table(&self, spans: &[Span], stream: i64, after: u64) -> rusqlite::Result<usize> {
        if after == 0 {
            return Ok(0);
        }
        for (index, span) in spans.iter().enumerate().rev() {
            if holds_before(&self.connection, span, stream, after + 1)? {
                return Ok(index);
            }
        }
        Ok(0)
    }
}

/// Whether a table holds an event of the stream with a number below `seq`.
fn holds_before(
    connection: &rusqlite::Connection,
    span: &Span,
    stream: i64,
    seq: u64,
) -> rusqlite::Result<bool> {
    connection
        .prepare_cached(&format!(
            "SELECT EXISTS (SELECT 1 FROM events_{} WHERE stream_id = ?1 AND stream_seq < ?2)",
            span.n
        ))?
        .query_row(params![stream, signed(seq)], |row| row.get(0))
}

/// Whether nothing is missing between `expected` and `seq`: each number is a dead letter's, or retention has dropped
/// the beginning of the stream up to there.
fn is_gap_explained(
    connection: &rusqlite::Connection,
    spans: &[Span],
    stream: i64,
    expected: u64,
    seq: u64,
    is_first: bool,
) -> rusqlite::Result<bool> {
    let dead: i64 = connection
        .prepare_cached(
            "SELECT count(*) FROM tombstone WHERE stream_id = ?1 AND stream_seq >= ?2 AND stream_seq < ?3",
        )?
        .query_row(params![stream, signed(expected), signed(seq)], |row| row.get(0))?;
    if unsigned(dead) == seq - expected {
        return Ok(true);
    }
    if !is_first {
        return Ok(false);
    }
    for span in spans {
        if holds_before(connection, span, stream, seq)? {
            return Ok(false);
        }
    }
    Ok(true)
}

/// Makes an event from a row of [`COLUMNS`].
fn event_of(
    connection: &rusqlite::Connection,
    texts: &mut super::Texts,
    tenant: &TenantId,
    row: &Row<'_>,
) -> rusqlite::Result<StoredEvent> {
    let flags: i64 = row.get(4)?;
    let hash = row.get_ref(13)?.as_blob()?;
    let hash: [u8; 32] = hash.try_into().map_err(unreadable)?;
    let trace = row.get_ref(14)?.as_blob()?;
    let trace: [u8; 25] = trace.try_into().map_err(unreadable)?;
    let mut context =
        TraceContext { trace_id: [0; 16], parent_id: [0; 8], sampled: trace[24] != 0 };
    context.trace_id.copy_from_slice(&trace[..16]);
    context.parent_id.copy_from_slice(&trace[16..24]);
    let key = row.get_ref(12)?.as_str_or_null()?;
    let origin = if flags & FLAG_ID_OF_CALLER == 0 { IdOrigin::Door } else { IdOrigin::Caller };
    let envelope = Envelope {
        tenant: tenant.clone(),
        event_id: EventId::parse(row.get_ref(5)?.as_str()?).map_err(unreadable)?,
        id_origin: origin,
        source: texts.source(connection, row.get(COLUMN_SOURCE)?)?,
        event_type: texts.event_type(connection, row.get(COLUMN_TYPE)?)?,
        stream: texts.stream(connection, row.get(8)?)?,
        occurred_at: row.get::<_, Option<i64>>(9)?.map(Timestamp::from_micros),
        schema_version: row.get(10)?,
        payload: row.get(11)?,
        key: key.map(IdempotencyKey::parse).transpose().map_err(unreadable)?,
        hash: PayloadHash(hash),
        trace: context,
    };
    Ok(StoredEvent {
        event: Accepted {
            position: row.get(COLUMN_POSITION)?,
            stream_seq: unsigned(row.get(1)?),
            received_at: Timestamp::from_micros(row.get(2)?),
            ordered_at: Timestamp::from_micros(row.get(COLUMN_ORDERED)?),
            clock_skew: flags & FLAG_CLOCK_SKEW != 0,
            envelope,
        },
        processed_at: Timestamp::from_micros(row.get(15)?),
    })
}
