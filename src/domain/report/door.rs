//! The door for reports: `/internal/start`, `/internal/progress` and so on. This module turns a report into the same
//! event that a caller could have posted as an envelope, so that everything behind the door knows one way in.

use super::{MEMBERS, ReportKind, read};
use crate::domain::canonical::{Object, canonical, hash_canonical};
use crate::domain::event::{Envelope, IdOrigin, TraceContext};
use crate::domain::fields::{DoorError, utf8};
use crate::domain::ids::{EventId, EventType, IdempotencyKey, ProcessId, Source, TenantId};

/// The source of every event that came in as a report.
pub const SOURCE: &str = "http";

/// What moves from the body into the envelope. `run_id` stays: it is part of what is said.
const ENVELOPE_MEMBERS: [&str; 3] = ["event_id", "occurred_at", "process_id"];

/// Reads one report. `process_id` is what the header field says; `fresh_id` makes a new UUID (version 7). A `start`
/// that names no process gets a new one, whose id is the stream of the envelope.
///
/// # Errors
/// [`DoorError`] names the field that must be mended.
pub fn internal(
    tenant: &TenantId,
    kind: ReportKind,
    process_id: Option<ProcessId>,
    body: &[u8],
    key: Option<IdempotencyKey>,
    trace: TraceContext,
    mut fresh_id: impl FnMut() -> uuid::Uuid,
) -> Result<Envelope, DoorError> {
    let text = match utf8(body)?.trim_matches([' ', '\t', '\n', '\r']) {
        "" | "null" => "{}",
        text => text,
    };
    let object = Object::parse(text).map_err(|error| DoorError::object(error, &MEMBERS, "body"))?;
    let report = read(kind, &object)?;
    let named = match (process_id, report.process_id) {
        (Some(header), Some(body)) if header != body => {
            return Err(DoorError::invalid(
                "process_id",
                "differs from the field X-Sentinel-Process-Id",
            ));
        }
        (header, body) => header.or(body),
    };
    let (process, made_here) = match named {
        Some(process) => (process, false),
        None if kind == ReportKind::Start => {
            let id = fresh_id().hyphenated().to_string();
            let process = ProcessId::parse(&id).map_err(|e| DoorError::id("process_id", e))?;
            (process, true)
        }
        None => {
            return Err(DoorError::invalid(
                "process_id",
                "is missing: send it in the body or as X-Sentinel-Process-Id",
            ));
        }
    };
    let stream = process.stream();
    let event_type = EventType::parse(kind.event_type()).map_err(|e| DoorError::id("type", e))?;
    let source = Source::parse(SOURCE).map_err(|e| DoorError::id("source", e))?;
    let payload = object.compact_without(&ENVELOPE_MEMBERS);
    let canonical =
        canonical(&payload).map_err(|problem| DoorError::invalid("body", problem.to_string()))?;
    // A process id that was made here is left out of the hash: the retry of a `start` makes another one, and must
    // still get the first answer for its key.
    let hashed_stream = (!made_here).then_some(&stream);
    let hash = hash_canonical(&source, &event_type, hashed_stream, 1, canonical.as_bytes());
    let (event_id, id_origin) = match report.event_id {
        Some(event_id) => (event_id, IdOrigin::Caller),
        None => (EventId::from_uuid(fresh_id()), IdOrigin::Door),
    };
    Ok(Envelope {
        tenant: tenant.clone(),
        event_id,
        id_origin,
        source,
        event_type,
        stream,
        occurred_at: report.occurred_at,
        schema_version: 1,
        payload: payload.into_boxed_str(),
        key,
        hash,
        trace,
    })
}
