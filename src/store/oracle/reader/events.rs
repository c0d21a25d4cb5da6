//! Events as the history keeps them. This module reads one by its id, and pages through them by their time, or by their
//! number in a stream.

use oracle::{Connection, Row as Found};

use super::super::bind::{self, Bind};
use super::super::sql::{statement, text};
use super::super::{message, projection};
use super::{Reader, foreign};
use crate::domain::event::{Accepted, Envelope, IdOrigin, PayloadHash, TraceContext};
use crate::domain::ids::{EventId, EventType, IdempotencyKey, Source, StreamKey, TenantId};
use crate::domain::time::Timestamp;
use crate::store::{EventFilter, Page, Paged, Result, StoredEvent, cursor};

/// The kind of a cursor of the listing by time.
const EVENTS: u8 = b'E';
/// The kind of a cursor of the listing of one stream.
const STREAM_EVENTS: u8 = b'S';

/// An event's row, with what needs parsing left as text.
pub(super) struct FoundEvent {
    id: i64,
    texts: [String; 6],
    key: Option<String>,
    hash: String,
    parent: String,
    pub(super) seq: u64,
    /// Ordered, received, processed at.
    times: [Timestamp; 3],
    occurred_at: Option<Timestamp>,
    clock_skew: bool,
    sampled: bool,
    schema_version: u32,
    payload: String,
}

impl FoundEvent {
    pub(super) fn received_at(&self) -> Timestamp {
        self.times[1]
    }
}

fn found_event(row: &Found) -> oracle::Result<FoundEvent> {
    Ok(FoundEvent {
        id: bind::integer(row, "id")?,
        texts: [
            bind::text(row, "source")?,
            bind::text(row, "type")?,
            bind::text(row, "stream_key")?,
            bind::text(row, "event_id")?,
            bind::text(row, "id_origin")?,
            bind::text(row, "trace_id")?,
        ],
        key: bind::optional_text(row, "idempotency_key")?,
        hash: bind::text(row, "payload_hash")?,
        parent: bind::text(row, "parent_span_id")?,
        seq: bind::count(row, "stream_seq")?,
        times: [
            bind::time(row, "timestamp_utc")?,
            bind::time(row, "received_utc")?,
            bind::time(row, "processed_utc")?,
        ],
        occurred_at: bind::optional_time(row, "occurred_utc")?,
        clock_skew: bind::integer(row, "clock_skew")? != 0,
        sampled: bind::integer(row, "trace_sampled")? != 0,
        schema_version: u32::try_from(bind::integer(row, "schema_version")?).unwrap_or(0),
        payload: bind::text(row, "payload")?,
    })
}

/// A page of events, bounded in rows and bytes.
pub(super) fn event_page(
    connection: &Connection,
    ask: &str,
    binds: &[Bind<'_>],
    limit: usize,
) -> oracle::Result<(Vec<FoundEvent>, bool)> {
    let most = (limit, cursor::PAGE_BYTES_MAX);
    bind::query_page(connection, ask, binds, most, |event| event.payload.len(), found_event)
}

pub(super) fn event_of(tenant: &TenantId, found: FoundEvent) -> Result<StoredEvent> {
    let [source, event_type, stream, event_id, origin, trace_id] = &found.texts;
    let [ordered_at, received_at, processed_at] = found.times;
    Ok(StoredEvent {
        event: Accepted {
            position: found.id,
            stream_seq: found.seq,
            received_at,
            ordered_at,
            clock_skew: found.clock_skew,
            envelope: Envelope {
                tenant: tenant.clone(),
                event_id: EventId::parse(event_id).map_err(foreign)?,
                id_origin: if origin == projection::origin_word(IdOrigin::Door) {
                    IdOrigin::Door
                } else {
                    IdOrigin::Caller
                },
                source: Source::parse(source).map_err(foreign)?,
                event_type: EventType::parse(event_type).map_err(foreign)?,
                stream: StreamKey::parse(stream).map_err(foreign)?,
                occurred_at: found.occurred_at,
                schema_version: found.schema_version,
                payload: found.payload.into(),
                key: found
                    .key
                    .as_deref()
                    .map(IdempotencyKey::parse)
                    .transpose()
                    .map_err(foreign)?,
                hash: PayloadHash(message::from_hex(&found.hash).unwrap_or_default()),
                trace: TraceContext {
                    trace_id: message::from_hex(trace_id).unwrap_or_default(),
                    parent_id: message::from_hex(&found.parent).unwrap_or_default(),
                    sampled: found.sampled,
                },
            },
        },
        processed_at,
    })
}

/// A number in a stream as a cursor holds it: none comes near the limit.
fn number(seq: u64) -> i64 {
    i64::try_from(seq).unwrap_or(i64::MAX)
}

impl Reader {
    pub(super) fn find_event(
        &mut self,
        tenant: &TenantId,
        id: &EventId,
    ) -> Result<Option<StoredEvent>> {
        let found = self.ask("read event", tenant, |connection| {
            let binds = [Bind::text(tenant.as_str(), 50), Bind::text(id.as_str(), 100)];
            bind::query(connection, &text(statement!("read_event"), &[]), &binds, 1, found_event)
        })?;
        found.into_iter().next().map(|found| event_of(tenant, found)).transpose()
    }

    pub(super) fn list_events(
        &mut self,
        tenant: &TenantId,
        filter: &EventFilter,
        page: &Page,
    ) -> Result<Paged<StoredEvent>> {
        const CALL: &str = "list events";
        let limit = cursor::limit(page);
        let mut binds = vec![Bind::text(tenant.as_str(), 50)];
        let mut wanted = Vec::new();
        if let Some(stream) = &filter.stream {
            binds.push(Bind::text(stream.as_str(), 200));
        }
        if let Some(source) = &filter.source {
            wanted.push("source");
            binds.push(Bind::text(source.as_str(), 200));
        }
        if let Some(event_type) = &filter.event_type {
            wanted.push("type");
            binds.push(Bind::text(event_type.as_str(), 200));
        }
        for (name, moment) in [("from", filter.from), ("to", filter.to)] {
            if let Some(moment) = moment {
                wanted.push(name);
                binds.push(Bind::time(moment));
            }
        }
        let before = binds.len();
        let statement = if filter.stream.is_some() {
            if let Some(([seq], _)) = cursor::read::<1>(CALL, STREAM_EVENTS, page)? {
                binds.push(Bind::Integer(Some(seq)));
            }
            statement!("list_stream_events")
        } else {
            if let Some(([at, id], _)) = cursor::read::<2>(CALL, EVENTS, page)? {
                let at = Timestamp::from_micros(at);
                binds.extend([Bind::time(at), Bind::time(at), Bind::Integer(Some(id))]);
            }
            statement!("list_events")
        };
        if binds.len() > before {
            wanted.push("after");
        }
        binds.push(Bind::size(limit + 1));
        let ask = text(statement, &wanted);
        let (found, more) =
            self.ask(CALL, tenant, |connection| event_page(connection, &ask, &binds, limit))?;
        let next = found.last().filter(|_| more).map(|last| match &filter.stream {
            Some(_) => cursor::write(STREAM_EVENTS, [number(last.seq)], ""),
            None => cursor::write(EVENTS, [last.times[0].micros(), last.id], ""),
        });
        let rows =
            found.into_iter().map(|found| event_of(tenant, found)).collect::<Result<Vec<_>>>()?;
        Ok(Paged { rows, next })
    }
}
