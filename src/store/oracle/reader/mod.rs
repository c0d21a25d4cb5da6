//! Answers questions from the database. This module is the read session of the Oracle store: keyset pages, with the
//! tenant in every statement.
//!
//! A process row holds the state that listeners have merged. One that was only started so far, by intake or by the
//! PL/SQL package, has no state yet; then its columns are the answer.

#[cfg(test)]
mod tests;

use std::sync::Arc;

use oracle::{Connection, Row as Found};

use super::bind::{self, Bind};
use super::health::{Health, QueueState};
use super::session::Session;
use super::sql::{self, statement, text};
use super::{cursor, keeper, logs, message, projection, state};
use crate::domain::dead_letter::{DeadLetter, Reason};
use crate::domain::event::{Accepted, Envelope, IdOrigin, PayloadHash, TraceContext};
use crate::domain::ids::{
    EventId, EventType, IdempotencyKey, ProcessId, Source, StreamKey, TenantId,
};
use crate::domain::process::{Policy, Row, RunRow, State, Status};
use crate::domain::time::Timestamp;
use crate::store::{
    self, Cursor, DeadLetterFilter, EventFilter, LogFilter, Page, Paged, ProcessFilter,
    ProcessView, Received, Result, StoreError, StoredEvent, StoredLog, StreamState,
};

/// The kinds of cursors.
const PROCESSES: u8 = b'P';
const RUNS: u8 = b'R';
const EVENTS: u8 = b'E';
const STREAM_EVENTS: u8 = b'S';
const DEAD_LETTERS: u8 = b'D';

/// The read session.
pub(super) struct Reader {
    session: Session,
    health: Arc<Health>,
    policy: Policy,
}

/// A row of `read_process` or `list_processes`.
struct Stored {
    process: String,
    digest: Option<String>,
    status: String,
    deadline_at: Option<Timestamp>,
    version: u64,
    median_ms: Option<u64>,
    registered_at: Timestamp,
    run_id: Option<String>,
    run_no: u64,
    reason: Option<String>,
    started_at: Option<Timestamp>,
    ended_at: Option<Timestamp>,
    current_step: Option<String>,
    progress_percent: Option<f64>,
    last_update_at: Option<Timestamp>,
    last_life_at: Option<Timestamp>,
    correlation_id: Option<String>,
    metadata: Option<String>,
    process_type: Option<String>,
    process_name: Option<String>,
    package_name: Option<String>,
    procedure_name: Option<String>,
}

fn stored(row: &Found) -> oracle::Result<Stored> {
    Ok(Stored {
        process: bind::text(row, "process_id")?,
        digest: bind::optional_text(row, "state_digest")?,
        status: bind::text(row, "status")?,
        deadline_at: bind::optional_time(row, "deadline_at")?,
        version: bind::count(row, "row_version")?,
        median_ms: bind::optional_count(row, "median_ms")?,
        registered_at: bind::time(row, "registered_at")?,
        run_id: bind::optional_text(row, "run_id")?,
        run_no: bind::count(row, "run_no")?,
        reason: bind::optional_text(row, "reason")?,
        started_at: bind::optional_time(row, "started_at")?,
        ended_at: bind::optional_time(row, "ended_at")?,
        current_step: bind::optional_text(row, "current_step")?,
        progress_percent: bind::optional_number(row, "progress_percent")?,
        last_update_at: bind::optional_time(row, "last_update_at")?,
        last_life_at: bind::optional_time(row, "last_life_at")?,
        correlation_id: bind::optional_text(row, "correlation_id")?,
        metadata: bind::optional_text(row, "metadata")?,
        process_type: bind::optional_text(row, "process_type")?,
        process_name: bind::optional_text(row, "process_name")?,
        package_name: bind::optional_text(row, "package_name")?,
        procedure_name: bind::optional_text(row, "procedure_name")?,
    })
}

/// What users see of a row.
fn view(tenant: &TenantId, stored: Stored, policy: &Policy) -> Result<ProcessView> {
    let process = ProcessId::parse(&stored.process).map_err(foreign)?;
    let row = match &stored.digest {
        Some(digest) => {
            let mut row = state::decode(digest)?.row(tenant, &process, policy);
            if Status::parse(&stored.status) == Some(Status::Archived) {
                row.status = Status::Archived;
                row.deadline_at = None;
            }
            // Log lines prove life too, and put the deadline off in the row alone.
            if row.deadline_at.is_some() && stored.deadline_at > row.deadline_at {
                row.deadline_at = stored.deadline_at;
            }
            row
        }
        None => started_row(tenant, &process, &stored, policy)?,
    };
    // Version 0 is a row that no listener has written yet.
    Ok(ProcessView { row, median_ms: stored.median_ms, version: stored.version + 1 })
}

/// The row of a process of which only the start is known: its columns.
fn started_row(
    tenant: &TenantId,
    process: &ProcessId,
    stored: &Stored,
    policy: &Policy,
) -> Result<Row> {
    let metadata = stored.metadata.as_deref().and_then(|text| serde_json::from_str(text).ok());
    Ok(Row {
        status: Status::parse(&stored.status).unwrap_or(Status::Active),
        reason: stored.reason.clone(),
        run_id: stored.run_id.as_deref().map(EventId::parse).transpose().map_err(foreign)?,
        run_no: stored.run_no,
        started_at: stored.started_at,
        ended_at: stored.ended_at,
        current_step: stored.current_step.clone(),
        progress_percent: stored.progress_percent,
        last_update_at: stored.last_update_at.unwrap_or(stored.registered_at),
        last_life_at: stored.last_life_at,
        deadline_at: stored.deadline_at,
        process_type: stored.process_type.clone(),
        process_name: stored.process_name.clone(),
        package_name: stored.package_name.clone(),
        procedure_name: stored.procedure_name.clone(),
        correlation_id: stored.correlation_id.clone(),
        metadata: metadata.unwrap_or_default(),
        registered_at: stored.registered_at,
        ..State::default().row(tenant, process, policy)
    })
}

/// A value that no door of ours lets through.
fn foreign(error: impl std::fmt::Display) -> StoreError {
    StoreError::Corrupt {
        what: format!("the database holds what this program never writes: {error}"),
    }
}

/// An event's row, with what needs parsing left as text.
struct FoundEvent {
    id: i64,
    texts: [String; 6],
    key: Option<String>,
    hash: String,
    parent: String,
    seq: u64,
    times: [Timestamp; 3],
    occurred_at: Option<Timestamp>,
    clock_skew: bool,
    sampled: bool,
    schema_version: u32,
    payload: String,
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
fn event_page(
    connection: &Connection,
    ask: &str,
    binds: &[Bind<'_>],
    limit: usize,
) -> oracle::Result<(Vec<FoundEvent>, bool)> {
    let most = (limit, cursor::PAGE_BYTES_MAX);
    bind::query_page(connection, ask, binds, most, |event| event.payload.len(), found_event)
}

fn event_of(tenant: &TenantId, found: FoundEvent) -> Result<StoredEvent> {
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

fn letter(row: &Found) -> oracle::Result<DeadLetter> {
    Ok(DeadLetter {
        id: bind::integer(row, "id")?,
        tenant: bind::text(row, "tenant_id")?,
        // A reason of a newer program reads as the vaguest of ours.
        reason: Reason::parse(&bind::text(row, "reason")?).unwrap_or(Reason::Undecodable),
        detail: bind::text(row, "detail")?,
        snapshot: bind::text(row, "event_snapshot")?,
        event_id: bind::optional_text(row, "event_id")?,
        source: bind::optional_text(row, "source")?,
        stream_key: bind::optional_text(row, "stream_key")?,
        stream_seq: bind::optional_count(row, "stream_seq")?,
        created_at: bind::time(row, "created_utc")?,
    })
}

/// The contiguous part of what was found of a stream after number `after`: a number that is missing ends it, unless
/// it is a dead letter's, or lies before everything that is kept and nothing that old can still be on its way.
fn contiguous(
    after: u64,
    found: &[(u64, Timestamp)],
    tombstones: &[u64],
    first_kept: Option<u64>,
    oldest_waiting: Option<Timestamp>,
) -> usize {
    let mut expected = after + 1;
    for (index, (seq, received_at)) in found.iter().enumerate() {
        if *seq > expected {
            let dead = tombstones.iter().filter(|n| (expected..*seq).contains(n)).count();
            let explained = u64::try_from(dead).is_ok_and(|dead| dead == *seq - expected);
            // Numbers are given in the order of acceptance, so a lower one was accepted before this one; if the queue
            // holds nothing that old, retention has dropped it.
            let dropped = index == 0
                && first_kept.is_none_or(|first| first >= *seq)
                && oldest_waiting.is_none_or(|oldest| oldest > received_at.plus(QUEUE_CLOCK_GRAIN));
            if !explained && !dropped {
                return index;
            }
        }
        expected = seq + 1;
    }
    found.len()
}

/// A number in a stream as a cursor holds it: none comes near the limit.
fn number(seq: u64) -> i64 {
    i64::try_from(seq).unwrap_or(i64::MAX)
}

/// The queue tells times to the second.
const QUEUE_CLOCK_GRAIN: std::time::Duration = std::time::Duration::from_secs(1);

/// The statuses that a listing wants, all of them as none.
fn statuses(filter: &ProcessFilter) -> Vec<&'static str> {
    let mut words: Vec<&'static str> =
        filter.statuses.iter().map(|status| status.as_str()).collect();
    words.sort_unstable();
    words.dedup();
    words
}

impl Reader {
    pub(super) fn new(session: Session, health: Arc<Health>, policy: Policy) -> Self {
        Self { session, health, policy }
    }

    fn ask<T>(
        &mut self,
        call: &'static str,
        tenant: &TenantId,
        work: impl Fn(&Connection) -> oracle::Result<T>,
    ) -> Result<T> {
        self.session.for_tenant(call, tenant)?;
        self.session.ask(call, work)
    }

    fn find_process(
        &mut self,
        tenant: &TenantId,
        process: &ProcessId,
    ) -> Result<Option<ProcessView>> {
        let found = self.ask("read status", tenant, |connection| {
            let binds = [Bind::text(tenant.as_str(), 50), Bind::text(process.as_str(), 100)];
            bind::query(connection, &text(statement!("read_process"), &[]), &binds, 1, stored)
        })?;
        found.into_iter().next().map(|stored| view(tenant, stored, &self.policy)).transpose()
    }
}

impl store::Reader for Reader {
    fn status(&mut self, tenant: &TenantId, process: &ProcessId) -> Result<Option<ProcessView>> {
        self.find_process(tenant, process)
    }

    fn shows_acknowledged(&self) -> bool {
        false
    }

    fn processes(
        &mut self,
        tenant: &TenantId,
        filter: &ProcessFilter,
        page: &Page,
    ) -> Result<Paged<ProcessView>> {
        const CALL: &str = "list processes";
        let after = cursor::read::<1>(CALL, PROCESSES, page)?;
        let limit = cursor::limit(page);
        let words = statuses(filter);
        let mut wanted = Vec::new();
        let mut binds = vec![Bind::text(tenant.as_str(), 50)];
        if !words.is_empty() {
            wanted.push("status");
            binds.extend(words.iter().map(|word| Bind::text(word, 20)));
        }
        for (name, given, width) in
            [("type", &filter.process_type, 50), ("name", &filter.name, 200)]
        {
            if let Some(given) = given {
                wanted.push(name);
                binds.push(Bind::cut(given, width));
            }
        }
        if let Some(([at], id)) = &after {
            wanted.push("after");
            let at = Timestamp::from_micros(*at);
            binds.extend([Bind::time(at), Bind::time(at), Bind::text(id, 100)]);
        }
        binds.push(Bind::size(limit + 1));
        let ask = text(statement!("list_processes"), &wanted);
        let ask = sql::repeated(&ask, "(:status)", words.len());
        let mut found = self.ask(CALL, tenant, |connection| {
            bind::query(connection, &ask, &binds, limit + 1, stored)
        })?;
        let more = found.len() > limit;
        found.truncate(limit);
        let next = found
            .last()
            .filter(|_| more)
            .map(|last| cursor::write(PROCESSES, [last.registered_at.micros()], &last.process));
        let rows = found
            .into_iter()
            .map(|stored| view(tenant, stored, &self.policy))
            .collect::<Result<Vec<_>>>()?;
        Ok(Paged { rows, next })
    }

    fn runs(
        &mut self,
        tenant: &TenantId,
        process: &ProcessId,
        page: &Page,
    ) -> Result<Option<Paged<RunRow>>> {
        const CALL: &str = "list runs";
        let after = cursor::read::<1>(CALL, RUNS, page)?;
        let limit = cursor::limit(page);
        if self.find_process(tenant, process)?.is_none() {
            return Ok(None);
        }
        let mut binds = vec![Bind::text(tenant.as_str(), 50), Bind::text(process.as_str(), 100)];
        let mut wanted = Vec::new();
        if let Some(([at], id)) = &after {
            wanted.push("after");
            let at = Timestamp::from_micros(*at);
            binds.extend([Bind::time(at), Bind::time(at), Bind::text(id, 100)]);
        }
        binds.push(Bind::size(limit + 1));
        let ask = text(statement!("list_runs"), &wanted);
        let mut found = self.ask(CALL, tenant, |connection| {
            bind::query(connection, &ask, &binds, limit + 1, run)
        })?;
        let more = found.len() > limit;
        found.truncate(limit);
        let next = found
            .last()
            .filter(|_| more)
            .map(|(sort_at, run_id, _)| cursor::write(RUNS, [sort_at.micros()], run_id));
        let rows = found
            .into_iter()
            .map(|(_, run_id, mut run)| {
                if run_id != projection::NAMELESS {
                    run.run_id = Some(EventId::parse(&run_id).map_err(foreign)?);
                }
                Ok(run)
            })
            .collect::<Result<Vec<_>>>()?;
        Ok(Some(Paged { rows, next }))
    }

    fn event(&mut self, tenant: &TenantId, id: &EventId) -> Result<Option<StoredEvent>> {
        let found = self.ask("read event", tenant, |connection| {
            let binds = [Bind::text(tenant.as_str(), 50), Bind::text(id.as_str(), 100)];
            bind::query(connection, &text(statement!("read_event"), &[]), &binds, 1, found_event)
        })?;
        found.into_iter().next().map(|found| event_of(tenant, found)).transpose()
    }

    fn events(
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

    fn stream(&mut self, tenant: &TenantId, stream: &StreamKey) -> Result<Option<StreamState>> {
        let found = self.ask("read stream", tenant, |connection| {
            let binds = [Bind::text(tenant.as_str(), 50), Bind::text(stream.as_str(), 200)];
            bind::query(connection, &text(statement!("read_stream"), &[]), &binds, 1, |row| {
                let seq = bind::count(row, "applied_seq")?;
                Ok((seq, bind::time(row, "last_seen_utc")?, bind::text(row, "last_type")?))
            })
        })?;
        found
            .into_iter()
            .next()
            .map(|(applied_seq, last_seen_at, last_type)| {
                let last_type = EventType::parse(&last_type).map_err(foreign)?;
                Ok(StreamState { applied_seq, last_seen_at, last_type })
            })
            .transpose()
    }

    fn stream_events(
        &mut self,
        tenant: &TenantId,
        stream: &StreamKey,
        after: u64,
        limit: usize,
    ) -> Result<Option<Vec<StoredEvent>>> {
        const CALL: &str = "read stream events";
        if self.stream(tenant, stream)?.is_none() {
            return Ok(None);
        }
        let limit = cursor::limit(&Page { limit, after: None });
        let names = [Bind::text(tenant.as_str(), 50), Bind::text(stream.as_str(), 200)];
        let mut binds = names.to_vec();
        binds.extend([Bind::count(after), Bind::size(limit + 1)]);
        let ask = text(statement!("stream_events"), &[]);
        let (mut found, _) =
            self.ask(CALL, tenant, |connection| event_page(connection, &ask, &binds, limit))?;
        let last = found.last().map_or(after, |event| event.seq);
        let has_gap = u64::try_from(found.len()).is_ok_and(|count| count < last - after);
        if has_gap {
            let (again, tombstones, first_kept, queue) = self.ask(CALL, tenant, |connection| {
                // The queue first: what it does not hold any more by now shows in everything that is read after it.
                let queue: Option<QueueState> = keeper::main_queue(connection)?;
                let (again, _) = event_page(connection, &ask, &binds, limit)?;
                let mut within = names.to_vec();
                within.extend([Bind::count(after), Bind::count(last)]);
                let ask = text(statement!("stream_tombstones"), &[]);
                let tombstones = bind::query(connection, &ask, &within, limit, |row| {
                    bind::count(row, "stream_seq")
                })?;
                let ask = text(statement!("stream_begins"), &[]);
                let first = bind::query(connection, &ask, &names, 1, |row| {
                    bind::optional_count(row, "first_seq")
                })?;
                Ok((again, tombstones, first.into_iter().next().flatten(), queue))
            })?;
            // Beyond what was there before the queue was asked, something may have been accepted since.
            found = again;
            found.retain(|event| event.seq <= last);
            let numbers: Vec<(u64, Timestamp)> =
                found.iter().map(|event| (event.seq, event.times[1])).collect();
            let oldest = queue.and_then(|queue| {
                // What waits for its retry has no time to compare: then nothing is taken for dropped.
                let waits = queue.waiting > 0 || queue.expired > 0;
                if waits {
                    Some(Timestamp::default())
                } else {
                    queue.oldest.filter(|_| queue.ready > 0)
                }
            });
            found.truncate(contiguous(after, &numbers, &tombstones, first_kept, oldest));
        }
        found.into_iter().map(|found| event_of(tenant, found)).collect::<Result<Vec<_>>>().map(Some)
    }

    fn logs(
        &mut self,
        tenant: &TenantId,
        process: &ProcessId,
        filter: &LogFilter,
        page: &Page,
    ) -> Result<Option<Paged<StoredLog>>> {
        const CALL: &str = "read logs";
        let after = logs::place(page)?;
        let found = self.ask(CALL, tenant, |connection| {
            logs::page(connection, tenant, process, filter, after, page.limit)
        })?;
        if !found.rows.is_empty() || self.find_process(tenant, process)?.is_some() {
            return Ok(Some(found));
        }
        let newest = self.ask(CALL, tenant, |connection| {
            logs::newest(connection, tenant.as_str(), process.as_str())
        })?;
        Ok(newest.map(|_| found))
    }

    fn log_cursor(&self, row: &StoredLog) -> Cursor {
        logs::cursor_of(row)
    }

    fn newest_log_id(&mut self) -> Result<i64> {
        let now = self.health.now();
        self.session.ask("newest log", |connection| logs::newest_id(connection, now))
    }

    fn new_logs(
        &mut self,
        tenant: &TenantId,
        process: &ProcessId,
        filter: &LogFilter,
        limit: usize,
    ) -> Result<Received> {
        let now = self.health.now();
        self.ask("read new logs", tenant, |connection| {
            logs::new(connection, tenant, process, filter, limit, now)
        })
    }

    fn dead_letters(
        &mut self,
        tenant: &TenantId,
        filter: &DeadLetterFilter,
        page: &Page,
    ) -> Result<Paged<DeadLetter>> {
        const CALL: &str = "list dead letters";
        let after = cursor::read::<1>(CALL, DEAD_LETTERS, page)?;
        let limit = cursor::limit(page);
        let mut binds = vec![Bind::text(tenant.as_str(), 50)];
        let mut wanted = Vec::new();
        for (name, given, width) in
            [("reason", &filter.reason, 50), ("source", &filter.source, 200)]
        {
            if let Some(given) = given {
                wanted.push(name);
                binds.push(Bind::cut(given, width));
            }
        }
        for (name, moment) in [("from", filter.from), ("to", filter.to)] {
            if let Some(moment) = moment {
                wanted.push(name);
                binds.push(Bind::time(moment));
            }
        }
        if let Some(([id], _)) = after {
            wanted.push("after");
            binds.push(Bind::Integer(Some(id)));
        }
        binds.push(Bind::size(limit + 1));
        let ask = text(statement!("list_dead_letters"), &wanted);
        let bytes = |letter: &DeadLetter| letter.snapshot.len() + letter.detail.len();
        let (rows, more) = self.ask(CALL, tenant, |connection| {
            let most = (limit, cursor::PAGE_BYTES_MAX);
            bind::query_page(connection, &ask, &binds, most, bytes, letter)
        })?;
        let next =
            rows.last().filter(|_| more).map(|last| cursor::write(DEAD_LETTERS, [last.id], ""));
        Ok(Paged { rows, next })
    }

    fn dead_letter(&mut self, tenant: &TenantId, id: i64) -> Result<Option<DeadLetter>> {
        let found = self.ask("read dead letter", tenant, |connection| {
            let binds = [Bind::text(tenant.as_str(), 50), Bind::Integer(Some(id))];
            bind::query(connection, &text(statement!("read_dead_letter"), &[]), &binds, 1, letter)
        })?;
        Ok(found.into_iter().next())
    }

    fn ping(&mut self) -> Result<()> {
        let health = Arc::clone(&self.health);
        self.session.ask("ping", move |connection| keeper::compare_clocks(connection, &health))
    }
}

/// A run with its place and its name.
fn run(row: &Found) -> oracle::Result<(Timestamp, String, RunRow)> {
    let outcome = bind::optional_text(row, "outcome")?;
    Ok((
        bind::time(row, "sort_at")?,
        bind::text(row, "run_id")?,
        RunRow {
            run_id: None,
            started_at: bind::optional_time(row, "started_at")?,
            ended_at: bind::optional_time(row, "ended_at")?,
            outcome: outcome.as_deref().and_then(projection::outcome),
            duration_ms: bind::optional_count(row, "duration_ms")?,
            error_code: bind::optional_text(row, "error_code")?,
            error_message: bind::optional_text(row, "error_message")?,
        },
    ))
}
