//! The shapes that the API's description names. This module writes them down once, with the limits that the doors keep.
//!
//! What must stay true: what is sent and fits a shape of a request is taken, but for what only the store can know; and
//! every answer fits its shape, with each member that is `required` there.

use serde_json::{Map, Value, json};

use super::super::problem::Kind;
use crate::domain::dead_letter::Reason;
use crate::domain::door::SCHEMA_VERSION_MAX;
use crate::domain::ids::{EventType, IdempotencyKey, ProcessId, Source, StreamKey};
use crate::domain::log_row::Level;
use crate::domain::process::Status;
use crate::domain::report::{
    COMPONENT_CHARS_MAX, CORRELATION_ID_CHARS_MAX, CURRENT_STEP_CHARS_MAX, ERROR_CODE_CHARS_MAX,
    EVENT_TYPE_CHARS_MAX, EXPECTED_DURATION_MAX, HEARTBEAT_INTERVAL_MAX, PACKAGE_NAME_CHARS_MAX,
    PROCEDURE_NAME_CHARS_MAX, PROCESS_NAME_CHARS_MAX, PROCESS_TYPE_CHARS_MAX, ReportKind,
    SPAN_ID_CHARS_MAX, TIMEOUT_MAX, TRACE_ID_CHARS_MAX,
};

/// Text without U+0000, which no store keeps.
const TEXT: &str = "^[^\\u0000]*$";
/// A name: no control characters.
const NAME: &str = "^[^\\u0000-\\u001f\\u007f-\\u009f]*$";
/// Visible ASCII.
const VISIBLE: &str = "^[!-~]*$";

/// The name of the shape of a report's body.
pub(super) fn report_name(kind: ReportKind) -> &'static str {
    match kind {
        ReportKind::Register | ReportKind::Start => "StartReport",
        ReportKind::Progress => "ProgressReport",
        ReportKind::Heartbeat | ReportKind::Pause | ReportKind::Resume => "LifeReport",
        ReportKind::Complete => "CompleteReport",
        ReportKind::Error => "ErrorReport",
    }
}

/// A reference to one of the shapes.
pub(super) fn reference(name: &str) -> Value {
    json!({ "$ref": format!("#/components/schemas/{name}") })
}

/// One of some words.
pub(super) fn words(words: impl Iterator<Item = &'static str>) -> Value {
    json!({ "type": "string", "enum": words.collect::<Vec<_>>() })
}

/// A moment of the years 1970 to 9999.
pub(super) fn time() -> Value {
    json!({ "type": "string", "format": "date-time" })
}

/// A process's id, as a header or in a body.
pub(super) fn process_id() -> Value {
    name(ProcessId::CHARS_MAX)
}

/// A key, as a header.
pub(super) fn key() -> Value {
    given(IdempotencyKey::CHARS_MAX)
}

fn text() -> Value {
    json!({ "type": "string", "pattern": TEXT })
}

fn short_text(chars_max: usize) -> Value {
    json!({ "type": "string", "maxLength": chars_max, "pattern": TEXT })
}

/// A text without control characters.
pub(super) fn name(chars_max: usize) -> Value {
    json!({ "type": "string", "maxLength": chars_max, "pattern": NAME })
}

/// A name that must be there.
fn given(chars_max: usize) -> Value {
    json!({ "type": "string", "minLength": 1, "maxLength": chars_max, "pattern": NAME })
}

fn seconds(max: std::time::Duration) -> Value {
    json!({ "type": "number", "exclusiveMinimum": 0, "maximum": max.as_secs() })
}

fn any_text() -> Value {
    json!({ "type": "string" })
}

fn maybe_text() -> Value {
    json!({ "type": ["string", "null"] })
}

fn maybe_time() -> Value {
    json!({ "type": ["string", "null"], "format": "date-time" })
}

fn count() -> Value {
    json!({ "type": "integer", "minimum": 0 })
}

fn maybe_count() -> Value {
    json!({ "type": ["integer", "null"], "minimum": 0 })
}

fn levels() -> Value {
    words(Level::ALL.iter().map(|level| level.as_str()))
}

/// The shape of an answer: each of its members is always there.
pub(super) fn whole(properties: Value) -> Value {
    let names: Vec<String> =
        properties.as_object().map(|all| all.keys().cloned().collect()).unwrap_or_default();
    json!({ "type": "object", "required": names, "properties": properties })
}

/// A page of a listing.
pub(super) fn page_of(member: &str, schema: &str) -> Value {
    whole(json!({
        member: { "type": "array", "items": reference(schema) },
        "next_cursor": { "type": ["string", "null"], "description": "the cursor of the next page; null on the last one" },
    }))
}

/// All shapes, by name.
pub(super) fn all() -> Value {
    let mut all = requests();
    all.append(&mut answers());
    Value::Object(all)
}

fn object(value: Value) -> Map<String, Value> {
    match value {
        Value::Object(members) => members,
        _ => Map::new(),
    }
}

/// A report: what all of them may say, and what this one says.
fn report(own: Value) -> Value {
    let event_id = json!({ "type": "string", "maxLength": 100, "pattern": VISIBLE });
    let mut properties = object(json!({
        "process_id": process_id(), "event_id": event_id, "run_id": event_id, "occurred_at": time(),
    }));
    properties.append(&mut object(own));
    json!({ "type": "object", "properties": properties })
}

fn requests() -> Map<String, Value> {
    let metadata = json!({ "type": "object", "description": "16 KiB at most" });
    object(json!({
        "Envelope": {
            "type": "object", "required": ["eventId", "source", "type"],
            "properties": {
                "eventId": { "type": "string", "format": "uuid" },
                "tenantId": { "type": "string", "description": "the token's tenant, and no other (403)" },
                "source": given(Source::CHARS_MAX), "type": given(EventType::CHARS_MAX),
                "timestampUtc": time(),
                "schemaVersion": { "type": "integer", "minimum": 1, "maximum": SCHEMA_VERSION_MAX },
                "streamKey": name(StreamKey::CHARS_MAX),
                "idempotencyKey": { "type": "string", "maxLength": IdempotencyKey::CHARS_MAX, "pattern": NAME,
                    "description": "of a line of a batch" },
                "payload": { "description":
                    "anything; of a type process.* what its report says, of process.log a LogRow, which becomes a log row and no event" },
            },
        },
        "CloudEvent": {
            "type": "object", "required": ["specversion", "id", "source", "type"],
            "description": "CloudEvents 1.0.2: id becomes eventId, time timestampUtc, subject (else source) streamKey, data payload",
            "properties": {
                "specversion": { "const": "1.0" },
                "id": { "type": "string", "minLength": 1, "maxLength": 100, "pattern": VISIBLE },
                "source": given(Source::CHARS_MAX), "type": given(EventType::CHARS_MAX),
                "subject": name(StreamKey::CHARS_MAX), "time": time(), "data": {},
                "data_base64": { "type": "string", "contentEncoding": "base64" },
                "idempotencykey": name(IdempotencyKey::CHARS_MAX),
            },
        },
        "StartReport": report(json!({
            "process_name": name(PROCESS_NAME_CHARS_MAX), "process_type": name(PROCESS_TYPE_CHARS_MAX),
            "package_name": name(PACKAGE_NAME_CHARS_MAX), "procedure_name": name(PROCEDURE_NAME_CHARS_MAX),
            "correlation_id": name(CORRELATION_ID_CHARS_MAX), "expected_duration_s": seconds(EXPECTED_DURATION_MAX),
            "heartbeat_interval_s": seconds(HEARTBEAT_INTERVAL_MAX), "timeout_s": seconds(TIMEOUT_MAX),
            "metadata": metadata,
        })),
        "ProgressReport": report(json!({
            "current_step": short_text(CURRENT_STEP_CHARS_MAX),
            "progress_percent": { "type": "number", "minimum": 0, "maximum": 100 },
            "metadata": metadata,
        })),
        "LifeReport": report(json!({ "message": text() })),
        "CompleteReport": report(json!({ "result": {} })),
        "ErrorReport": report(json!({
            "error_code": { "type": ["string", "number"], "maxLength": ERROR_CODE_CHARS_MAX, "pattern": NAME },
            "error_message": text(), "stack_trace": text(),
        })),
        "LogRow": {
            "type": "object", "required": ["message"],
            "properties": {
                "level": levels(),
                "message": { "type": "string", "minLength": 1, "pattern": TEXT, "description": "cut to 4,000 bytes" },
                "event_type": short_text(EVENT_TYPE_CHARS_MAX), "component": short_text(COMPONENT_CHARS_MAX),
                "details": { "description": "any JSON, 64 KiB at most" },
                "stack_trace": { "type": "string", "pattern": TEXT, "description": "cut to 64 KiB" },
                "logged_at": time(), "duration_us": { "type": "integer", "minimum": 0, "maximum": i64::MAX },
                "correlation_id": name(CORRELATION_ID_CHARS_MAX), "trace_id": name(TRACE_ID_CHARS_MAX),
                "span_id": name(SPAN_ID_CHARS_MAX), "process_id": process_id(),
            },
        },
    }))
}

fn answers() -> Map<String, Value> {
    let seq = json!({ "type": ["integer", "null"], "minimum": 1, "description": "null for a log row (type process.log)" });
    let problems = words(Kind::ALL.iter().map(|kind| kind.path()));
    let mut stored_event = whole(json!({
        "eventId": any_text(), "tenantId": any_text(), "source": any_text(), "type": any_text(),
        "timestampUtc": time(), "schemaVersion": count(), "streamKey": any_text(), "streamSeq": count(),
        "receivedAtUtc": time(), "processedAtUtc": time(), "traceId": any_text(), "payload": {},
    }));
    stored_event["properties"]["clockSkew"] = json!({ "const": true, "description": "there when timestampUtc was so far from our clock that the receipt orders it instead" });
    let dead_letter = json!({
        "id": count(), "tenantId": any_text(), "reason": words(Reason::ALL.iter().map(|reason| reason.as_str())),
        "detail": any_text(), "eventId": maybe_text(), "source": maybe_text(), "streamKey": maybe_text(),
        "streamSeq": maybe_count(), "createdAtUtc": time(),
    });
    let mut whole_letter = whole(dead_letter.clone());
    whole_letter["properties"]["event"] =
        json!({ "description": "what was sent, whole; not in a listing" });
    object(json!({
        "Index": whole(json!({
            "service": any_text(), "version": any_text(), "api": any_text(), "ready": any_text(), "metrics": any_text() })),
        "Health": whole(json!({ "status": { "const": "ok" } })),
        "Readiness": whole(json!({
            "status": { "type": "string", "enum": ["ready", "degraded", "unavailable"] },
            "checks": { "type": "array", "items": whole(json!({
                "name": any_text(), "state": { "type": "string", "enum": ["ok", "degraded", "failed"] },
                "detail": any_text() })) },
        })),
        "ProblemHelp": whole(json!({
            "type": problems, "title": any_text(), "status": { "type": "integer" }, "help": any_text() })),
        "Receipt": whole(json!({
            "eventId": any_text(), "streamSeq": seq, "receivedAtUtc": time(), "traceId": any_text() })),
        "ReportReceipt": whole(json!({
            "process_id": any_text(), "run_id": maybe_text(), "eventId": any_text(), "streamSeq": count(),
            "receivedAtUtc": time(), "traceId": any_text() })),
        "LogReceipt": whole(json!({ "accepted": count(), "traceId": any_text() })),
        "LineResult": {
            "type": "object", "required": ["line", "status"],
            "description": "of one line: 202 with eventId, streamSeq, receivedAtUtc and replayed, else a problem",
            "properties": {
                "line": { "type": "integer", "minimum": 1 }, "status": { "type": "integer" }, "eventId": any_text(),
                "streamSeq": seq, "receivedAtUtc": time(), "replayed": { "type": "boolean" },
                "problem": reference("Problem"),
            },
        },
        "Process": whole(json!({
            "process_id": any_text(), "status": words(Status::ALL.iter().map(|status| status.as_str())),
            "current_step": maybe_text(), "progress_percent": { "type": ["number", "null"], "minimum": 0, "maximum": 100 },
            "started_at": maybe_time(), "last_update_at": time(), "estimated_completion": maybe_time(),
            "stale": { "type": "boolean" }, "reason": maybe_text(), "run_id": maybe_text(), "run_no": count(),
            "ended_at": maybe_time(), "last_life_at": maybe_time(), "deadline_at": maybe_time(),
            "process_name": maybe_text(), "process_type": maybe_text(), "correlation_id": maybe_text(),
            "total_executions": count(), "successful_runs": count(), "failed_runs": count(),
            "avg_duration_ms": maybe_count(),
            "metadata": { "type": "object", "description": "the user's own, with package, procedure and tenant_id" },
        })),
        "Run": whole(json!({
            "run_id": maybe_text(), "started_at": maybe_time(), "ended_at": maybe_time(),
            "outcome": { "type": ["string", "null"], "enum": ["completed", "failed", "superseded", null] },
            "duration_ms": maybe_count(), "error_code": maybe_text(), "error_message": maybe_text(),
        })),
        "StoredLogRow": whole(json!({
            "log_id": count(), "logged_at": time(), "level": levels(), "event_type": maybe_text(),
            "component": maybe_text(), "message": any_text(), "details": {}, "stack_trace": maybe_text(),
            "duration_us": maybe_count(), "correlation_id": maybe_text(), "trace_id": maybe_text(),
            "span_id": maybe_text(),
        })),
        "StoredEvent": stored_event,
        "Stream": whole(json!({
            "streamKey": any_text(), "appliedSeq": count(), "lastSeenUtc": time(), "lastType": any_text() })),
        "DeadLetter": whole_letter,
        "Problem": {
            "type": "object", "required": ["type", "title", "status", "detail"],
            "properties": {
                "type": problems, "title": any_text(), "status": { "type": "integer" },
                "detail": { "type": "string", "description": "what is wrong here, and what to do" },
                "field": { "type": "string", "description": "the parameter or the member of the body that is wrong" },
                "instance": any_text(), "traceId": any_text(),
            },
        },
    }))
}
