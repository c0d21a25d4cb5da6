//! How an event looks from outside. This module is the shape of `/v1/events` and of a stream's events.

use super::json::Json;
use crate::domain::door::trace_id_hex;
use crate::store::{StoredEvent, StreamState};

/// Writes the envelope as it was posted, with what the store added to it.
pub fn write(json: &mut Json<'_>, stored: &StoredEvent) {
    let event = &stored.event;
    let envelope = &event.envelope;
    json.object(|json| {
        json.member("eventId").text(envelope.event_id.as_str());
        json.member("tenantId").text(envelope.tenant.as_str());
        json.member("source").text(envelope.source.as_str());
        json.member("type").text(envelope.event_type.as_str());
        json.member("timestampUtc").time(envelope.occurred_at.unwrap_or(event.received_at));
        json.member("schemaVersion").number(u64::from(envelope.schema_version));
        json.member("streamKey").text(envelope.stream.as_str());
        json.member("streamSeq").number(event.stream_seq);
        json.member("receivedAtUtc").time(event.received_at);
        json.member("processedAtUtc").time(stored.processed_at);
        if event.clock_skew {
            json.member("clockSkew").boolean(true);
        }
        json.member("traceId").text(&trace_id_hex(&envelope.trace));
        json.member("payload").raw(&envelope.payload);
    });
}

/// Writes what is known of a stream.
pub fn write_stream(json: &mut Json<'_>, key: &str, state: &StreamState) {
    json.object(|json| {
        json.member("streamKey").text(key);
        json.member("appliedSeq").number(state.applied_seq);
        json.member("lastSeenUtc").time(state.last_seen_at);
        json.member("lastType").text(state.last_type.as_str());
    });
}
