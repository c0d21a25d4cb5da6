//! A line that a process said. This module is its shape; it is not an event and has no number.

use serde::{Deserialize, Serialize};

use super::ids::{ProcessId, TenantId};
use super::time::Timestamp;

/// How severe a line is, the least first.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "UPPERCASE")]
pub enum Level {
    Trace,
    Debug,
    Info,
    Warn,
    Error,
    Fatal,
}

impl Level {
    pub const ALL: [Self; 6] =
        [Self::Trace, Self::Debug, Self::Info, Self::Warn, Self::Error, Self::Fatal];

    /// Takes the word in either case.
    pub fn parse(text: &str) -> Option<Self> {
        Self::ALL.into_iter().find(|level| level.as_str().eq_ignore_ascii_case(text))
    }

    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Trace => "TRACE",
            Self::Debug => "DEBUG",
            Self::Info => "INFO",
            Self::Warn => "WARN",
            Self::Error => "ERROR",
            Self::Fatal => "FATAL",
        }
    }
}

/// One line, parsed and checked.
#[derive(Debug, Clone, PartialEq)]
pub struct LogRow {
    pub tenant: TenantId,
    pub process: ProcessId,
    pub level: Level,
    pub message: Box<str>,
    pub event_type: Option<Box<str>>,
    pub component: Option<Box<str>>,
    /// JSON text.
    pub details: Option<Box<str>>,
    pub stack_trace: Option<Box<str>>,
    /// When the process said it, by its own clock; the receipt where it gave none.
    pub logged_at: Timestamp,
    pub duration_us: Option<u64>,
    pub correlation_id: Option<Box<str>>,
    pub trace_id: Option<Box<str>>,
    pub span_id: Option<Box<str>>,
}

impl LogRow {
    /// A line with its message, and with nothing that may be left out.
    pub fn plain(
        tenant: TenantId,
        process: ProcessId,
        level: Level,
        message: impl Into<Box<str>>,
        logged_at: Timestamp,
    ) -> Self {
        Self {
            tenant,
            process,
            level,
            message: message.into(),
            event_type: None,
            component: None,
            details: None,
            stack_trace: None,
            logged_at,
            duration_us: None,
            correlation_id: None,
            trace_id: None,
            span_id: None,
        }
    }

    /// How long its texts are together, in bytes.
    pub fn bytes(&self) -> usize {
        let Self { message, event_type, component, details, stack_trace, .. } = self;
        let Self { correlation_id, trace_id, span_id, .. } = self;
        let texts =
            [event_type, component, details, stack_trace, correlation_id, trace_id, span_id];
        message.len() + texts.into_iter().flatten().map(|text| text.len()).sum::<usize>()
    }
}
