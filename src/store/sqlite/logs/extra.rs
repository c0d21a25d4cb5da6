//! The fields of a line that are rarely set. This module keeps them together in one column, as JSON.
//!
//! JSON and not something denser, because the view `process_logs` takes it apart with the database's own functions.
//! `details` is kept as text within it, so that it comes back byte for byte.

use std::borrow::Cow;

use serde::{Deserialize, Serialize};

use crate::domain::log_row::LogRow;

#[derive(Debug, Default, Serialize, Deserialize)]
#[serde(default)]
pub(super) struct Extra<'a> {
    #[serde(borrow, skip_serializing_if = "Option::is_none")]
    event_type: Option<Cow<'a, str>>,
    #[serde(borrow, skip_serializing_if = "Option::is_none")]
    component: Option<Cow<'a, str>>,
    #[serde(borrow, skip_serializing_if = "Option::is_none")]
    details: Option<Cow<'a, str>>,
    #[serde(borrow, skip_serializing_if = "Option::is_none")]
    stack_trace: Option<Cow<'a, str>>,
    #[serde(skip_serializing_if = "Option::is_none")]
    duration_us: Option<u64>,
    #[serde(borrow, skip_serializing_if = "Option::is_none")]
    correlation_id: Option<Cow<'a, str>>,
    #[serde(borrow, skip_serializing_if = "Option::is_none")]
    trace_id: Option<Cow<'a, str>>,
    #[serde(borrow, skip_serializing_if = "Option::is_none")]
    span_id: Option<Cow<'a, str>>,
}

/// The column for `row`; None where nothing rare is set.
pub(super) fn encode(row: &LogRow) -> Option<String> {
    let bare = row.event_type.is_none()
        && row.component.is_none()
        && row.details.is_none()
        && row.stack_trace.is_none()
        && row.duration_us.is_none()
        && row.correlation_id.is_none()
        && row.trace_id.is_none()
        && row.span_id.is_none();
    if bare {
        return None;
    }
    let extra = Extra {
        event_type: row.event_type.as_deref().map(Cow::Borrowed),
        component: row.component.as_deref().map(Cow::Borrowed),
        details: row.details.as_deref().map(Cow::Borrowed),
        stack_trace: row.stack_trace.as_deref().map(Cow::Borrowed),
        duration_us: row.duration_us,
        correlation_id: row.correlation_id.as_deref().map(Cow::Borrowed),
        trace_id: row.trace_id.as_deref().map(Cow::Borrowed),
        span_id: row.span_id.as_deref().map(Cow::Borrowed),
    };
    Some(serde_json::to_string(&extra).expect("texts and a number always fit JSON"))
}

/// Sets the rare fields of `row` from the column.
pub(super) fn decode(column: &str, row: &mut LogRow) -> serde_json::Result<()> {
    let extra: Extra<'_> = serde_json::from_str(column)?;
    let own = |text: Option<Cow<'_, str>>| text.map(|text| Box::from(&*text));
    row.event_type = own(extra.event_type);
    row.component = own(extra.component);
    row.details = own(extra.details);
    row.stack_trace = own(extra.stack_trace);
    row.duration_us = extra.duration_us;
    row.correlation_id = own(extra.correlation_id);
    row.trace_id = own(extra.trace_id);
    row.span_id = own(extra.span_id);
    Ok(())
}
