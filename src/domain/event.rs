//! An event: what a caller posts, and what it is once accepted. This module holds the two shapes and their rules.
//!
//! An [`Envelope`] is what came through a door, parsed and checked. It becomes an [`Accepted`] event when a store
//! has given it a number in its stream and made it durable; only then is it acknowledged (law 1).

use std::time::Duration;

use serde::{Deserialize, Serialize};

use super::ids::{EventId, EventType, IdempotencyKey, Source, StreamKey, TenantId};
use super::time::Timestamp;

/// How far ahead of its receipt an event may be dated before its own time stops counting (law 3).
pub const AHEAD_MAX: Duration = Duration::from_secs(5 * 60);

/// The source of what PL/SQL reports. It comes by the queue and passes no door of ours, so what a door decides of an
/// event is decided when it is claimed.
pub const PLSQL: &str = "plsql";

/// The W3C trace context that an event carries (<https://www.w3.org/TR/trace-context/>).
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct TraceContext {
    /// Names the whole trace; never all zero.
    pub trace_id: [u8; 16],
    /// The span that caused this event; all zero where we started the trace.
    pub parent_id: [u8; 8],
    /// The caller asked for the trace to be recorded.
    pub sampled: bool,
}

/// SHA-256 over the RFC 8785 canonical JSON of what an event says: source, type, streamKey, schemaVersion, payload.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub struct PayloadHash(pub [u8; 32]);

/// Who chose the event's id, which decides whether a second one with the same id is a repeat.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub enum IdOrigin {
    /// The caller: unique per (tenant, source, eventId), so a repeat is a replay or a conflict.
    Caller,
    /// We did, at the door: nothing to compare it with.
    Door,
}

/// What a caller posted, whichever door it came through, parsed and checked.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Envelope {
    pub tenant: TenantId,
    pub event_id: EventId,
    pub id_origin: IdOrigin,
    pub source: Source,
    pub event_type: EventType,
    pub stream: StreamKey,
    /// When it happened, by the caller's clock. None: when we received it.
    pub occurred_at: Option<Timestamp>,
    pub schema_version: u32,
    /// JSON text, exactly as it was posted.
    pub payload: Box<str>,
    /// The caller's name for this request, where one was given.
    pub key: Option<IdempotencyKey>,
    pub hash: PayloadHash,
    pub trace: TraceContext,
}

#[cfg(test)]
impl Envelope {
    /// An event as a caller posts one, for tests that are about something else.
    pub(crate) fn sample(event_id: &str, stream: &str, event_type: &str) -> Self {
        Self {
            tenant: TenantId::parse("acme").unwrap(),
            event_id: EventId::parse(event_id).unwrap(),
            id_origin: IdOrigin::Caller,
            source: Source::parse("orders-api").unwrap(),
            event_type: EventType::parse(event_type).unwrap(),
            stream: StreamKey::parse(stream).unwrap(),
            occurred_at: None,
            schema_version: 1,
            payload: "{}".into(),
            key: None,
            hash: PayloadHash([0; 32]),
            trace: TraceContext { trace_id: [1; 16], parent_id: [0; 8], sampled: false },
        }
    }
}

/// An event that is durable: it has a place in the log and a number in its stream.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Accepted {
    /// Its place in the log of this store: rises with acceptance, never used twice.
    pub position: i64,
    /// Its number in its stream: 1, 2, 3 … without a gap, in the order of acceptance (law 5).
    pub stream_seq: u64,
    /// When the store accepted it, by the store's clock.
    pub received_at: Timestamp,
    /// The time that orders it within its stream: its own, unless that is out of bounds (law 3).
    pub ordered_at: Timestamp,
    /// Its own time was out of bounds, and `ordered_at` is the receipt.
    pub clock_skew: bool,
    pub envelope: Envelope,
}

/// The time that orders an event, and whether its own time had to be set aside (law 3).
pub fn ordered_at(
    occurred_at: Option<Timestamp>,
    received_at: Timestamp,
    retention: Duration,
) -> (Timestamp, bool) {
    match occurred_at {
        None => (received_at, false),
        Some(own) if own > received_at.plus(AHEAD_MAX) || own < received_at.minus(retention) => {
            (received_at, true)
        }
        Some(own) => (own, false),
    }
}

/// What the caller is told once its event is durable, and told again when it repeats the request.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Receipt {
    pub event_id: EventId,
    pub stream: StreamKey,
    pub stream_seq: u64,
    pub received_at: Timestamp,
}

/// What became of one envelope. Decided before the commit, told after it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Verdict {
    /// Durable now.
    Accepted(Receipt),
    /// Durable since an earlier request with the same key (or source and id) and the same hash.
    Replayed(Receipt),
    /// The key was used before for something else: 409.
    KeyReused,
    /// The (source, eventId) was used before for something else: 409.
    EventIdReused,
    /// Not taken, nothing written: try again later, 503. The text says why, for people.
    Unavailable(&'static str),
    /// Likewise, but others find room: this tenant has its share of it.
    HeldBack(&'static str),
}

#[cfg(test)]
mod tests {
    use super::*;

    const DAY: Duration = Duration::from_secs(86_400);

    #[test]
    fn an_event_is_ordered_by_its_own_time_within_bounds() {
        let receipt = Timestamp::parse("2026-01-28T10:00:00Z").unwrap();
        assert_eq!(ordered_at(None, receipt, DAY), (receipt, false));
        let own = receipt.minus(Duration::from_secs(60));
        assert_eq!(ordered_at(Some(own), receipt, DAY), (own, false));
        let soon = receipt.plus(AHEAD_MAX);
        assert_eq!(ordered_at(Some(soon), receipt, DAY), (soon, false));
    }

    #[test]
    fn a_time_out_of_bounds_gives_way_to_the_receipt() {
        let receipt = Timestamp::parse("2026-01-28T10:00:00Z").unwrap();
        for own in ["2099-01-01T00:00:00Z", "2026-01-28T10:05:00.000001Z", "2026-01-27T09:59:59Z"] {
            assert_eq!(ordered_at(Timestamp::parse(own), receipt, DAY), (receipt, true), "{own}");
        }
    }
}
