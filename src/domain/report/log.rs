//! The doors for log rows: `/internal/log`, and an envelope of the type [`LOG_TYPE`]. This module reads one row or an
//! array of them; a row is not an event.
//!
//! A message that is too long is cut with a mark, because losing a whole batch over one long line would help
//! nobody. Everything else that does not fit is refused by name, and then no row of the request goes in.

use super::{MESSAGE_BYTES_MAX, STACK_TRACE_BYTES_MAX, cut};
use crate::domain::canonical::{Object, compact};
use crate::domain::event::Envelope;
use crate::domain::fields::{DoorError, Fields, elements, in_element, utf8};
use crate::domain::ids::{ProcessId, TenantId};
use crate::domain::log_row::{Level, LogRow};
use crate::domain::time::Timestamp;

/// The type of an envelope whose payload is a log row.
pub const LOG_TYPE: &str = "process.log";

/// The most log rows in one request: ten inserts of the log writer.
pub const LOG_ROWS_MAX: usize = 10_000;

/// The largest `details`, in bytes.
const DETAILS_BYTES_MAX: usize = 64 * 1024;

// The lengths of the columns that hold these texts, in characters.
pub const EVENT_TYPE_CHARS_MAX: usize = 50;
pub const COMPONENT_CHARS_MAX: usize = 100;
const CORRELATION_ID_CHARS_MAX: usize = super::CORRELATION_ID_CHARS_MAX;
pub const TRACE_ID_CHARS_MAX: usize = 32;
pub const SPAN_ID_CHARS_MAX: usize = 32;

/// The longest duration in microseconds: what every store's 64-bit integers hold.
const DURATION_US_MAX: u64 = i64::MAX.unsigned_abs();

/// The members that mean something in a log row.
const MEMBERS: [&str; 12] = [
    "process_id",
    "level",
    "message",
    "event_type",
    "component",
    "details",
    "stack_trace",
    "logged_at",
    "duration_us",
    "correlation_id",
    "trace_id",
    "span_id",
];

/// Reads the rows of one request. `process_id` is what the header field says; each row may name it too.
///
/// # Errors
/// [`DoorError`] names the field that must be mended, and its element where the body is an array (from 0).
pub fn log_rows(
    tenant: &TenantId,
    process_id: Option<ProcessId>,
    body: &[u8],
    received_at: Timestamp,
) -> Result<Vec<LogRow>, DoorError> {
    // The blanks of JSON, and no others.
    let text = utf8(body)?.trim_matches([' ', '\t', '\n', '\r']);
    let named = process_id.as_ref().map(|process| (process, "the field X-Sentinel-Process-Id"));
    let one = |text: &str, element| row(tenant, named, "body", text, element, received_at);
    if text.starts_with('[') {
        let rows = elements(text, "log rows", LOG_ROWS_MAX)?;
        rows.into_iter().enumerate().map(|(at, text)| one(text, Some(at))).collect()
    } else {
        one(text, None).map(|row| vec![row])
    }
}

/// Whether an envelope is a log row and no event.
pub fn is_log(envelope: &Envelope) -> bool {
    envelope.event_type.as_str() == LOG_TYPE
}

/// The row that an envelope carries as its payload, about the process that its stream names. Where the row does not
/// say when it was said, the envelope's own time counts, and else the receipt.
///
/// # Errors
/// [`DoorError`] names the field that must be mended.
pub fn posted_log_row(envelope: &Envelope, received_at: Timestamp) -> Result<LogRow, DoorError> {
    let process = envelope.stream.process().ok_or_else(|| {
        DoorError::invalid("streamKey", "must be a process id of at most 100 characters")
    })?;
    let said_at = envelope.occurred_at.unwrap_or(received_at);
    let named = Some((&process, "the stream's key"));
    row(&envelope.tenant, named, "payload", &envelope.payload, None, said_at)
}

/// Reads one row. `named` is the process that the request names, and where. `base` is what the text is called.
fn row(
    tenant: &TenantId,
    named: Option<(&ProcessId, &'static str)>,
    base: &'static str,
    text: &str,
    element: Option<usize>,
    received_at: Timestamp,
) -> Result<LogRow, DoorError> {
    let object = Object::parse(text)
        .map_err(|error| in_element(DoorError::object(error, &MEMBERS, base), element))?;
    let fields = Fields::of_element(&object, element);
    let process = match (named, fields.id("process_id", ProcessId::parse)?) {
        (Some((named, place)), Some(own)) if *named != own => {
            return Err(fields.invalid("process_id", format!("differs from {place}")));
        }
        (_, Some(own)) => own,
        (Some((named, _)), None) => named.clone(),
        (None, None) => {
            return Err(fields.invalid(
                "process_id",
                "is missing: send it in the row or as X-Sentinel-Process-Id",
            ));
        }
    };
    let level = match fields.text("level")? {
        None => Level::Info,
        Some(word) => Level::parse(&word).ok_or_else(|| {
            fields.invalid("level", "is none of TRACE, DEBUG, INFO, WARN, ERROR, FATAL")
        })?,
    };
    let message = fields.required("message", fields.text("message")?)?;
    let details = fields.json("details").map(compact);
    if details.as_ref().is_some_and(|details| details.len() > DETAILS_BYTES_MAX) {
        return Err(fields.invalid("details", format!("is more than {DETAILS_BYTES_MAX} bytes")));
    }
    Ok(LogRow {
        tenant: tenant.clone(),
        process,
        level,
        message: cut(&message, MESSAGE_BYTES_MAX),
        event_type: fields.short_text("event_type", EVENT_TYPE_CHARS_MAX)?,
        component: fields.short_text("component", COMPONENT_CHARS_MAX)?,
        details,
        stack_trace: fields.text("stack_trace")?.map(|t| cut(&t, STACK_TRACE_BYTES_MAX)),
        logged_at: fields.moment("logged_at")?.unwrap_or(received_at),
        duration_us: fields.integer("duration_us", 0..=DURATION_US_MAX)?,
        correlation_id: fields.name("correlation_id", CORRELATION_ID_CHARS_MAX)?,
        trace_id: fields.name("trace_id", TRACE_ID_CHARS_MAX)?,
        span_id: fields.name("span_id", SPAN_ID_CHARS_MAX)?,
    })
}
