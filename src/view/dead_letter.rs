//! How a dead letter looks from outside. This module is the shape of `/v1/dead-letters`.

use super::json::Json;
use crate::domain::dead_letter::DeadLetter;

/// Writes a dead letter; whole, with the event, where `whole` says so.
pub fn write(json: &mut Json<'_>, letter: &DeadLetter, whole: bool) {
    json.object(|json| {
        json.member("id").number(u64::try_from(letter.id).unwrap_or(0));
        json.member("tenantId").text(&letter.tenant);
        json.member("reason").text(letter.reason.as_str());
        json.member("detail").text(&letter.detail);
        json.text_or_null("eventId", letter.event_id.as_deref());
        json.text_or_null("source", letter.source.as_deref());
        json.text_or_null("streamKey", letter.stream_key.as_deref());
        match letter.stream_seq {
            Some(seq) => json.member("streamSeq").number(seq),
            None => json.member("streamSeq").null(),
        }
        json.member("createdAtUtc").time(letter.created_at);
        if whole {
            json.member("event").raw(&letter.snapshot);
        }
    });
}
