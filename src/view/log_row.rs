//! How a log row looks from outside. This module is the shape of `/logs/{id}`.

use super::json::Json;
use crate::store::StoredLog;

/// Writes one row.
pub fn write(json: &mut Json<'_>, stored: &StoredLog) {
    let row = &stored.row;
    json.object(|json| {
        json.member("log_id").number(u64::try_from(stored.log_id).unwrap_or(0));
        json.member("logged_at").time(row.logged_at);
        json.member("level").text(row.level.as_str());
        json.text_or_null("event_type", row.event_type.as_deref());
        json.text_or_null("component", row.component.as_deref());
        json.member("message").text(&row.message);
        match &row.details {
            Some(details) => json.member("details").raw(details),
            None => json.member("details").null(),
        }
        json.text_or_null("stack_trace", row.stack_trace.as_deref());
        match row.duration_us {
            Some(duration) => json.member("duration_us").number(duration),
            None => json.member("duration_us").null(),
        }
        json.text_or_null("correlation_id", row.correlation_id.as_deref());
        json.text_or_null("trace_id", row.trace_id.as_deref());
        json.text_or_null("span_id", row.span_id.as_deref());
    });
}
