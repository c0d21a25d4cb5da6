//! The laws of processes as tests. This module makes events by hand; `laws.rs` has a table for each sentence,
//! `bounds.rs` what happens at and beyond the bounds, and `property.rs` compares the merge with `reference.rs`.

mod bounds;
mod laws;
mod property;
mod reference;

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use self::reference::rank_of;
use super::mark::{self, Mark};
use super::{Outcome, Policy, Row, RunRow, State};
use crate::domain::apply::{Change, Item, decide};
use crate::domain::event::{Accepted, Envelope, IdOrigin, PayloadHash, TraceContext, ordered_at};
use crate::domain::ids::{EventId, EventType, ProcessId, Source, StreamKey, TenantId};
use crate::domain::time::Timestamp;

pub(super) const POLICY: Policy =
    Policy { timeout: Duration::from_secs(3600), heartbeat_interval: Duration::from_secs(30) };
pub(super) const RETENTION: Duration = Duration::from_secs(30 * 86_400);
pub(super) const TRACE: TraceContext =
    TraceContext { trace_id: [1; 16], parent_id: [0; 8], sampled: false };

pub(super) fn tenant() -> TenantId {
    TenantId::parse("tenant-001").unwrap()
}

pub(super) fn process() -> ProcessId {
    ProcessId::parse("nightly").unwrap()
}

/// So many milliseconds after 2026-01-28T10:00:00Z.
pub(super) fn at(ms: i64) -> Timestamp {
    Timestamp::from_micros(Timestamp::parse("2026-01-28T10:00:00Z").unwrap().micros() + ms * 1000)
}

/// An event in the making: `kind` happened at `ms` and was received at once.
#[derive(Debug, Clone)]
pub(super) struct Draft {
    pub(super) kind: &'static str,
    pub(super) id: String,
    pub(super) occurred_at: Option<Timestamp>,
    pub(super) received_at: Timestamp,
    pub(super) payload: serde_json::Value,
}

pub(super) fn draft(kind: &'static str, id: &str, ms: i64) -> Draft {
    Draft {
        kind,
        id: id.to_string(),
        occurred_at: Some(at(ms)),
        received_at: at(ms),
        payload: serde_json::json!({}),
    }
}

impl Draft {
    pub(super) fn received(mut self, ms: i64) -> Self {
        self.received_at = at(ms);
        self
    }

    pub(super) fn with(mut self, name: &str, value: impl Into<serde_json::Value>) -> Self {
        self.payload[name] = value.into();
        self
    }

    pub(super) fn tagged(self, run: &str) -> Self {
        self.with("run_id", run)
    }

    /// An expiry, for the silence since `judged`.
    pub(super) fn judging(self, judged: &Self) -> Self {
        let event = judged.event();
        let key = serde_json::json!({
            "at_us": event.ordered_at.micros(),
            "rank": rank_of(judged.kind).number(),
            "source": event.envelope.source,
            "event_id": event.envelope.event_id,
        });
        self.with("judged", key).with("last_life_at", event.received_at.to_string())
    }

    pub(super) fn event(&self) -> Accepted {
        let (ordered_at, clock_skew) = ordered_at(self.occurred_at, self.received_at, RETENTION);
        Accepted {
            position: 1,
            stream_seq: 1,
            received_at: self.received_at,
            ordered_at,
            clock_skew,
            envelope: Envelope {
                tenant: tenant(),
                event_id: EventId::parse(&self.id).unwrap(),
                id_origin: IdOrigin::Caller,
                source: Source::parse("billing").unwrap(),
                event_type: EventType::parse(&format!("process.{}", self.kind)).unwrap(),
                stream: StreamKey::parse("nightly").unwrap(),
                occurred_at: self.occurred_at,
                schema_version: 1,
                payload: self.payload.to_string().into_boxed_str(),
                key: None,
                hash: PayloadHash([0; 32]),
                trace: TRACE,
            },
        }
    }
}

pub(super) fn mark_of(event: &Accepted) -> Mark {
    mark::read(event).unwrap().unwrap()
}

pub(super) fn row_of(state: &State) -> Row {
    state.row(&tenant(), &process(), &POLICY)
}

/// Merges events one by one.
pub(super) fn merged<'a>(events: impl IntoIterator<Item = &'a Accepted>) -> State {
    let mut state = State::default();
    for event in events {
        let _ = state.merge(mark_of(event));
    }
    state
}

/// What follows from these events, after making sure that it follows from them in any order and from the plain fold.
pub(super) fn outcome_of(drafts: &[Draft]) -> (Row, Vec<RunRow>) {
    let events: Vec<Accepted> = drafts.iter().map(Draft::event).collect();
    let expected = reference::fold(&events);
    for rotation in 0..events.len() {
        let turned = || events[rotation..].iter().chain(&events[..rotation]);
        for state in [merged(turned()), merged(turned().rev()), merged(turned().chain(&events))] {
            assert_eq!(row_of(&state), expected.0, "rotated by {rotation}");
            assert_eq!(state.runs(), expected.1, "rotated by {rotation}");
            assert_eq!(State::from_bytes(&state.to_bytes()).unwrap(), state);
        }
    }
    expected
}

/// Applies a batch to a state, through the door that the listener uses.
pub(super) fn apply(state: Option<State>, events: &[Arc<Accepted>]) -> Change {
    let items: Vec<Item<'_>> = events.iter().map(Item::Event).collect();
    let loaded: BTreeMap<_, _> =
        state.into_iter().map(|state| ((tenant(), process()), state)).collect();
    decide(&items, loaded, &POLICY, at(0), &State::merge)
}

#[test]
fn an_outcome_comes_back_from_its_word() {
    for outcome in Outcome::ALL {
        assert_eq!(Outcome::parse(outcome.as_str()), Some(outcome));
    }
    assert_eq!(Outcome::parse("odd"), None);
}
