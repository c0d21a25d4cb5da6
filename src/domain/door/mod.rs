//! The door for events: bytes become an [`Envelope`], or an answer that says what to mend. This module reads the
//! native envelope and holds the rules that every door shares.
//!
//! A body is read once: the same pass splits it, refuses what two readers could understand differently, and writes
//! the canonical form that is hashed. Empty strings and null count as absent, an unknown member is ignored, and a
//! UUID is kept in lower case. What gets through a door fits every store.

mod headers;

use super::canonical::{Object, hash_canonical};
use super::event::{Envelope, IdOrigin, TraceContext};
use super::fields::{DoorError, Fields, hyphenated, utf8};
use super::ids::{EventId, EventType, IdempotencyKey, Source, StreamKey, TenantId};
use super::process::expiry;
use super::report::{self, ReportKind};
use super::time::Timestamp;

pub use headers::{
    format_traceparent, idempotency_key, parse_traceparent, trace_id_hex, traceparent,
};

/// The most events in one batch: what a commit takes without making its neighbours wait.
pub const BATCH_EVENTS_MAX: usize = 10_000;

/// The highest schema version: anything above is a mistake, such as a time.
pub const SCHEMA_VERSION_MAX: u32 = 1_000_000;

/// Types with this prefix are about processes; a caller may send those of [`ReportKind`], and [`report::LOG_TYPE`],
/// which is no event but a log row.
pub const PROCESS_PREFIX: &str = "process.";

/// The members of the native envelope.
const MEMBERS: [&str; 9] = [
    "eventId",
    "tenantId",
    "source",
    "type",
    "timestampUtc",
    "schemaVersion",
    "streamKey",
    "payload",
    "idempotencyKey",
];

/// Reads one native envelope, the whole body or a line of a batch. Where `key` (the header) is None, the envelope's
/// own `idempotencyKey` counts; where there is none either, source and event id make a repeat known.
///
/// # Errors
/// [`DoorError`] names the field that must be mended.
pub fn native(
    tenant: &TenantId,
    body: &[u8],
    key: Option<IdempotencyKey>,
    trace: TraceContext,
) -> Result<Envelope, DoorError> {
    let object =
        Object::parse(utf8(body)?).map_err(|error| DoorError::object(error, &MEMBERS, "body"))?;
    let fields = Fields::of(&object);
    if fields.text("tenantId")?.is_some_and(|named| named != tenant.as_str()) {
        return Err(DoorError::TenantMismatch);
    }
    let event_id = fields.required("eventId", fields.text("eventId")?)?;
    let uuid = hyphenated(&event_id)
        .ok_or_else(|| DoorError::invalid("eventId", "is not a UUID with hyphens"))?;
    let key = match key {
        None => fields.id("idempotencyKey", IdempotencyKey::parse)?,
        given => given,
    };
    let schema_version = fields.integer("schemaVersion", 1..=u64::from(SCHEMA_VERSION_MAX))?;
    Draft {
        tenant,
        event_id: EventId::from_uuid(uuid),
        source: fields.required("source", fields.id("source", Source::parse)?)?,
        event_type: fields.required("type", fields.id("type", EventType::parse)?)?,
        stream: fields.id("streamKey", StreamKey::parse)?,
        stream_field: "streamKey",
        occurred_at: fields.moment("timestampUtc")?,
        schema_version: schema_version.and_then(|v| u32::try_from(v).ok()).unwrap_or(1),
        payload: object.raw("payload").unwrap_or("{}"),
        canonical: object.canonical("payload").unwrap_or(b"{}"),
        key,
        trace,
    }
    .envelope()
}

/// The lines of a batch, numbered from 1. Blank lines are skipped but counted; a line may end in CRLF, and the last
/// one may end without.
pub fn ndjson_lines(body: &[u8]) -> impl Iterator<Item = (usize, &[u8])> {
    // The blanks of JSON, and no others.
    let means_something = |byte: &u8| !matches!(byte, b' ' | b'\t' | b'\r');
    body.split(|&byte| byte == b'\n').zip(1..).filter_map(move |(line, number)| {
        let first = line.iter().position(means_something)?;
        let last = line.iter().rposition(means_something)?;
        Some((number, &line[first..=last]))
    })
}

/// What any door has read of an event: the last step to an envelope is the same for all.
pub(crate) struct Draft<'d> {
    pub(crate) tenant: &'d TenantId,
    pub(crate) event_id: EventId,
    pub(crate) source: Source,
    pub(crate) event_type: EventType,
    /// None: the source is the stream.
    pub(crate) stream: Option<StreamKey>,
    /// What this door calls the stream's key.
    pub(crate) stream_field: &'static str,
    pub(crate) occurred_at: Option<Timestamp>,
    pub(crate) schema_version: u32,
    pub(crate) payload: &'d str,
    /// The canonical form of the payload.
    pub(crate) canonical: &'d [u8],
    pub(crate) key: Option<IdempotencyKey>,
    pub(crate) trace: TraceContext,
}

impl Draft<'_> {
    /// Checks the rules for process events, and hashes.
    pub(crate) fn envelope(self) -> Result<Envelope, DoorError> {
        let field = self.stream_field;
        let stream = match self.stream {
            Some(stream) => stream,
            None => StreamKey::parse(self.source.as_str())
                .map_err(|error| DoorError::id(field, error))?,
        };
        check_process(&self.event_type, &stream, field, self.payload)?;
        // Whoever could take the id of an expiry beforehand could keep a process from ever being told lost.
        if self.source.as_str() == expiry::SOURCE {
            let problem = format!("{} is the service itself", expiry::SOURCE);
            return Err(DoorError::invalid("source", problem));
        }
        let hash = hash_canonical(
            &self.source,
            &self.event_type,
            Some(&stream),
            self.schema_version,
            self.canonical,
        );
        Ok(Envelope {
            tenant: self.tenant.clone(),
            event_id: self.event_id,
            id_origin: IdOrigin::Caller,
            source: self.source,
            event_type: self.event_type,
            stream,
            occurred_at: self.occurred_at,
            schema_version: self.schema_version,
            payload: Box::from(self.payload),
            key: self.key,
            hash,
            trace: self.trace,
        })
    }
}

/// An event that drives a process must be one that a caller may send, about a stream that can be a process.
fn check_process(
    event_type: &EventType,
    stream: &StreamKey,
    stream_field: &'static str,
    payload: &str,
) -> Result<(), DoorError> {
    let text = event_type.as_str();
    if !text.starts_with(PROCESS_PREFIX) {
        return Ok(());
    }
    let kind = ReportKind::of_event_type(text);
    if kind.is_none() && text != report::LOG_TYPE {
        return Err(DoorError::invalid(
            "type",
            match text {
                "process.expired" => "process.expired is written by the service itself".to_string(),
                _ => format!(
                    "{text:?} is none of the types that drive a process: {}",
                    ReportKind::ALL.map(ReportKind::event_type).join(", ")
                ),
            },
        ));
    }
    let Some(process) = stream.process() else {
        return Err(DoorError::invalid(
            stream_field,
            "must be a process id of at most 100 characters for this type",
        ));
    };
    // The payload of a log row is read when the row is made of it (`report::posted_log_row`).
    let Some(kind) = kind else { return Ok(()) };
    let report = report::parse(kind, payload)?;
    if report.process_id.is_some_and(|named| named != process) {
        return Err(DoorError::invalid("process_id", format!("differs from {stream_field}")));
    }
    Ok(())
}

#[cfg(test)]
pub(super) mod tests;
