//! A store that is driven by hand, so that a test sees each step. This module does what a door and a listener do
//! between the calls of the store.

use std::collections::BTreeMap;
use std::time::Duration;

use sentinel::domain::apply::{self, Change, Item, Merge};
use sentinel::domain::event::{Envelope, IdOrigin, PayloadHash, TraceContext};
use sentinel::domain::ids::{EventId, EventType, Source, StreamKey, TenantId};
use sentinel::domain::process::{Policy, State};
use sentinel::domain::time::Timestamp;
use sentinel::store::{Claim, ListenerSession, Message};

pub(crate) const POLICY: Policy =
    Policy { timeout: Duration::from_secs(3600), heartbeat_interval: Duration::from_secs(30) };

/// An event of `stream` with an id that its caller gave it, and a hash of its own while `number` is.
pub(crate) fn envelope(
    tenant: &TenantId,
    event_id: EventId,
    stream: &str,
    event_type: &str,
    payload: &str,
    number: u128,
) -> Envelope {
    let mut hash = [0; 32];
    hash[..16].copy_from_slice(&number.to_be_bytes());
    Envelope {
        tenant: tenant.clone(),
        event_id,
        id_origin: IdOrigin::Caller,
        source: Source::parse("orders-api").expect("a source"),
        event_type: EventType::parse(event_type).expect("a type"),
        stream: StreamKey::parse(stream).expect("a stream key"),
        occurred_at: None,
        schema_version: 1,
        payload: payload.into(),
        key: None,
        hash: PayloadHash(hash),
        trace: TraceContext { trace_id: [7; 16], parent_id: [3; 8], sampled: true },
    }
}

/// What a claim changes, by the rules of the domain and the states of the store.
pub(crate) fn decide(session: &mut dyn ListenerSession, claim: &Claim, now: Timestamp) -> Change {
    decide_with(session, claim, now, &State::merge)
}

/// The same with another merge.
pub(crate) fn decide_with(
    session: &mut dyn ListenerSession,
    claim: &Claim,
    now: Timestamp,
    merge: Merge<'_>,
) -> Change {
    let items: Vec<Item<'_>> = claim.messages.iter().map(Message::item).collect();
    let touched = apply::touched(&items);
    let states = session.load(&touched).expect("states are loaded");
    let loaded: BTreeMap<_, State> = touched
        .into_iter()
        .zip(states)
        .filter_map(|(process, state)| Some((process, state?)))
        .collect();
    apply::decide(&items, loaded, &POLICY, now, merge)
}
