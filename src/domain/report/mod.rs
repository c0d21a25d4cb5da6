//! What a process says about itself. This module reads the payload of the eight events that drive a process.
//!
//! The same [`parse`] runs at the door, before anything is durable, and later when the event is applied: a payload
//! that got in once must read the same for ever, so a limit here may be widened but never narrowed.

mod door;
mod log;

use std::time::Duration;

use super::canonical::{Object, compact};
use super::fields::{DoorError, Fields, event_id};
use super::ids::{EventId, ProcessId};
use super::time::Timestamp;

pub use door::{SOURCE, internal};
pub use log::{
    COMPONENT_CHARS_MAX, EVENT_TYPE_CHARS_MAX, LOG_ROWS_MAX, LOG_TYPE, SPAN_ID_CHARS_MAX,
    TRACE_ID_CHARS_MAX, is_log, log_rows, posted_log_row,
};

// The lengths of the columns that hold these texts, in characters.
pub const PROCESS_TYPE_CHARS_MAX: usize = 50;
pub const PROCESS_NAME_CHARS_MAX: usize = 200;
pub const PACKAGE_NAME_CHARS_MAX: usize = 128;
pub const PROCEDURE_NAME_CHARS_MAX: usize = 128;
pub const CORRELATION_ID_CHARS_MAX: usize = 100;
pub const CURRENT_STEP_CHARS_MAX: usize = 200;
pub const ERROR_CODE_CHARS_MAX: usize = 100;

/// The longest message or error message, in bytes. Their columns hold 4,000 characters, but one of our stores keeps
/// no more than 4,000 bytes in a column, whatever the characters.
pub const MESSAGE_BYTES_MAX: usize = 4000;

/// The longest stack trace, in bytes: some 500 frames, of which people read the first dozens.
pub const STACK_TRACE_BYTES_MAX: usize = 64 * 1024;

/// The most metadata, in bytes of canonical JSON: it is held in memory for every process and shown in every list.
pub const METADATA_BYTES_MAX: usize = 16 * 1024;

/// The longest expected duration: what runs for more than a year is not a process that ends.
pub const EXPECTED_DURATION_MAX: Duration = Duration::from_secs(366 * 86_400);

/// The longest pause between two heartbeats: with a longer one, silence says nothing within a working week.
pub const HEARTBEAT_INTERVAL_MAX: Duration = Duration::from_secs(7 * 86_400);

/// The longest silence before a process counts as lost: as long as the longest expected duration.
pub const TIMEOUT_MAX: Duration = EXPECTED_DURATION_MAX;

/// What ends a text that was cut.
const CUT_MARK: char = '…';

/// What a process can say.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum ReportKind {
    Register,
    Start,
    Progress,
    Heartbeat,
    Pause,
    Resume,
    Complete,
    Error,
}

impl ReportKind {
    pub const ALL: [Self; 8] = [
        Self::Register,
        Self::Start,
        Self::Progress,
        Self::Heartbeat,
        Self::Pause,
        Self::Resume,
        Self::Complete,
        Self::Error,
    ];

    /// The word in the path of `/internal/…`.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Register => "register",
            Self::Start => "start",
            Self::Progress => "progress",
            Self::Heartbeat => "heartbeat",
            Self::Pause => "pause",
            Self::Resume => "resume",
            Self::Complete => "complete",
            Self::Error => "error",
        }
    }

    pub fn parse(word: &str) -> Option<Self> {
        Self::ALL.into_iter().find(|kind| kind.as_str() == word)
    }

    /// The type of the event that says it.
    pub const fn event_type(self) -> &'static str {
        match self {
            Self::Register => "process.registered",
            Self::Start => "process.started",
            Self::Progress => "process.progress",
            Self::Heartbeat => "process.heartbeat",
            Self::Pause => "process.paused",
            Self::Resume => "process.resumed",
            Self::Complete => "process.completed",
            Self::Error => "process.failed",
        }
    }

    pub fn of_event_type(text: &str) -> Option<Self> {
        Self::ALL.into_iter().find(|kind| kind.event_type() == text)
    }
}

/// What a process said. A field is None where it was absent, empty, or not for this kind of report.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct Report {
    /// Who says it, where the payload repeats what the stream's key says.
    pub process_id: Option<ProcessId>,
    /// The event's id, where the payload carries it (Advanced Queuing).
    pub event_id: Option<EventId>,
    /// The run that it is about. None: time decides (law 3).
    pub run_id: Option<EventId>,
    /// When it happened, by the process's own clock, where the payload carries it (Advanced Queuing).
    pub occurred_at: Option<Timestamp>,

    // Register and start.
    pub process_name: Option<Box<str>>,
    pub process_type: Option<Box<str>>,
    pub package_name: Option<Box<str>>,
    pub procedure_name: Option<Box<str>>,
    pub correlation_id: Option<Box<str>>,
    pub expected_duration: Option<Duration>,
    pub heartbeat_interval: Option<Duration>,
    pub timeout: Option<Duration>,
    /// Register, start and progress.
    pub metadata: Option<serde_json::Map<String, serde_json::Value>>,

    // Progress.
    pub current_step: Option<Box<str>>,
    /// 0 to 100, to two decimals.
    pub progress_percent: Option<f64>,

    /// Heartbeat, pause and resume. Cut to [`MESSAGE_BYTES_MAX`]; the payload keeps it whole.
    pub message: Option<Box<str>>,

    /// Complete: JSON text.
    pub result: Option<Box<str>>,

    // Error. Message and stack trace are cut to their limits; the payload keeps them whole.
    pub error_code: Option<Box<str>>,
    pub error_message: Option<Box<str>>,
    pub stack_trace: Option<Box<str>>,
}

/// The members that mean something in a report.
const MEMBERS: [&str; 20] = [
    "process_id",
    "event_id",
    "run_id",
    "occurred_at",
    "process_name",
    "process_type",
    "package_name",
    "procedure_name",
    "correlation_id",
    "expected_duration_s",
    "heartbeat_interval_s",
    "timeout_s",
    "metadata",
    "current_step",
    "progress_percent",
    "message",
    "result",
    "error_code",
    "error_message",
    "stack_trace",
];

/// Reads the payload of an event that drives a process. `null` says as much as `{}`.
///
/// # Errors
/// [`DoorError`] names the field that does not fit.
pub fn parse(kind: ReportKind, payload: &str) -> Result<Report, DoorError> {
    if payload.trim_ascii() == "null" {
        return Ok(Report::default());
    }
    let object =
        Object::parse(payload).map_err(|error| DoorError::object(error, &MEMBERS, "payload"))?;
    read(kind, &object)
}

fn read(kind: ReportKind, object: &Object<'_>) -> Result<Report, DoorError> {
    let fields = Fields::of(object);
    let common = Report {
        process_id: fields.id("process_id", ProcessId::parse)?,
        event_id: fields.id("event_id", event_id)?,
        run_id: fields.id("run_id", event_id)?,
        occurred_at: fields.moment("occurred_at")?,
        ..Report::default()
    };
    Ok(match kind {
        ReportKind::Register | ReportKind::Start => Report {
            process_name: fields.name("process_name", PROCESS_NAME_CHARS_MAX)?,
            process_type: fields.name("process_type", PROCESS_TYPE_CHARS_MAX)?,
            package_name: fields.name("package_name", PACKAGE_NAME_CHARS_MAX)?,
            procedure_name: fields.name("procedure_name", PROCEDURE_NAME_CHARS_MAX)?,
            correlation_id: fields.name("correlation_id", CORRELATION_ID_CHARS_MAX)?,
            expected_duration: seconds(&fields, "expected_duration_s", EXPECTED_DURATION_MAX)?,
            heartbeat_interval: seconds(&fields, "heartbeat_interval_s", HEARTBEAT_INTERVAL_MAX)?,
            timeout: seconds(&fields, "timeout_s", TIMEOUT_MAX)?,
            metadata: metadata(&fields)?,
            ..common
        },
        ReportKind::Progress => Report {
            current_step: fields.short_text("current_step", CURRENT_STEP_CHARS_MAX)?,
            progress_percent: percent(&fields)?,
            metadata: metadata(&fields)?,
            ..common
        },
        ReportKind::Heartbeat | ReportKind::Pause | ReportKind::Resume => {
            let message = fields.text("message")?;
            Report { message: message.map(|text| cut(&text, MESSAGE_BYTES_MAX)), ..common }
        }
        ReportKind::Complete => Report { result: fields.json("result").map(compact), ..common },
        ReportKind::Error => {
            let (message, trace) = (fields.text("error_message")?, fields.text("stack_trace")?);
            Report {
                error_code: error_code(&fields)?,
                error_message: message.map(|text| cut(&text, MESSAGE_BYTES_MAX)),
                stack_trace: trace.map(|text| cut(&text, STACK_TRACE_BYTES_MAX)),
                ..common
            }
        }
    })
}

/// A positive number of seconds, to the millisecond.
fn seconds(
    fields: &Fields<'_, '_>,
    field: &'static str,
    max: Duration,
) -> Result<Option<Duration>, DoorError> {
    let Some(number) = fields.number(field)? else { return Ok(None) };
    let duration = (number > 0.0).then(|| Duration::try_from_secs_f64(number).ok()).flatten();
    match duration {
        Some(duration) if duration <= max => Ok(Some(
            Duration::from_millis(u64::try_from(duration.as_millis()).expect("below the maximum"))
                .max(Duration::from_millis(1)),
        )),
        _ => Err(fields.invalid(
            field,
            format!("is not a positive number of seconds up to {}", max.as_secs()),
        )),
    }
}

fn percent(fields: &Fields<'_, '_>) -> Result<Option<f64>, DoorError> {
    let Some(number) = fields.number("progress_percent")? else { return Ok(None) };
    if !(0.0..=100.0).contains(&number) {
        return Err(fields.invalid("progress_percent", "is not within 0 to 100"));
    }
    // The sum makes a minus zero a zero.
    Ok(Some((number * 100.0).round() / 100.0 + 0.0))
}

fn metadata(
    fields: &Fields<'_, '_>,
) -> Result<Option<serde_json::Map<String, serde_json::Value>>, DoorError> {
    let Some(raw) = fields.json("metadata") else { return Ok(None) };
    if !raw.starts_with('{') {
        return Err(fields.invalid("metadata", "is not a JSON object"));
    }
    if fields.canonical_len("metadata") > METADATA_BYTES_MAX {
        return Err(fields.invalid("metadata", format!("is more than {METADATA_BYTES_MAX} bytes")));
    }
    serde_json::from_str(raw)
        .map(Some)
        .map_err(|error| fields.invalid("metadata", error.to_string()))
}

/// SQLCODE is a number, other codes are words.
fn error_code(fields: &Fields<'_, '_>) -> Result<Option<Box<str>>, DoorError> {
    let number = fields
        .json("error_code")
        .filter(|raw| raw.starts_with(|first: char| first == '-' || first.is_ascii_digit()));
    match number {
        None => fields.name("error_code", ERROR_CODE_CHARS_MAX),
        Some(digits) if digits.len() <= ERROR_CODE_CHARS_MAX => Ok(Some(Box::from(digits))),
        Some(_) => Err(fields
            .invalid("error_code", format!("is longer than {ERROR_CODE_CHARS_MAX} characters"))),
    }
}

/// The text, or its beginning with a mark, `bytes_max` bytes at most.
fn cut(text: &str, bytes_max: usize) -> Box<str> {
    if text.len() <= bytes_max {
        return Box::from(text);
    }
    let room = bytes_max - CUT_MARK.len_utf8();
    let end = (0..=room).rev().find(|&at| text.is_char_boundary(at)).unwrap_or(0);
    format!("{}{CUT_MARK}", &text[..end]).into_boxed_str()
}

#[cfg(test)]
mod tests;
