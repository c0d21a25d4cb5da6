//! When silence makes a process lost. This module judges one process and builds the event that says so (law 4).
//!
//! Silence proves nothing: the process may be dead, slow, or cut off from us. So an expiry is an event like any
//! other, which any later sign of life undoes. Its id follows from what it judged, so that two instances that judge
//! one silence write one event, and so does its hash: what differs between them (their names, how far each had read)
//! is told in the payload and left out of the hash.

use sha2::{Digest, Sha256};

use super::key::Key;
use super::{Policy, State, Status};
use crate::domain::event::{Envelope, IdOrigin, PayloadHash, TraceContext};
use crate::domain::ids::{EventId, EventType, ProcessId, Source, TenantId};
use crate::domain::time::Timestamp;

/// The source of every judgement.
pub const SOURCE: &str = "sentinel.reaper";
/// The type of every judgement.
pub const TYPE: &str = "process.expired";

/// What was found about a process.
#[derive(Debug, Clone, PartialEq)]
pub enum Verdict {
    /// It is not lost, and cannot be before `deadline`. None: it is not waited for at all.
    Lives { deadline: Option<Timestamp> },
    /// It is lost, and this event says so once it is accepted.
    Lost(Box<Envelope>),
}

/// Judges a process.
///
/// `silent_until` is the watermark: everything received before it has been applied, so whoever seems silent until
/// then is silent. `last_log_at` is the receipt of the newest log row, a sign of life that is no event. `instance`
/// is who judges, for people.
pub fn judge(
    state: &State,
    tenant: &TenantId,
    process: &ProcessId,
    policy: &Policy,
    silent_until: Timestamp,
    last_log_at: Option<Timestamp>,
    instance: &str,
    trace: TraceContext,
) -> Verdict {
    let row = state.row(tenant, process, policy);
    let waited_for = matches!(row.status, Status::Running | Status::Active);
    let (Some(deadline), Some(heard_at), Some(life), true) =
        (row.deadline_at, row.last_life_at, state.newest_life(), waited_for)
    else {
        return Verdict::Lives { deadline: None };
    };
    let last_life_at = last_log_at.map_or(heard_at, |log| log.max(heard_at));
    let deadline = deadline.plus(last_life_at.since(heard_at));
    if silent_until < deadline {
        return Verdict::Lives { deadline: Some(deadline) };
    }
    let payload = serde_json::json!({
        "run_id": life.run_id,
        "judged": {
            "at_us": life.key.at.micros(),
            "rank": life.key.rank.number(),
            "source": life.key.source,
            "event_id": life.key.event_id,
        },
        "last_life_at": last_life_at.to_string(),
        "deadline_at": deadline.to_string(),
        "watermark": silent_until.to_string(),
        "instance": instance,
    });
    let digest = fingerprint(tenant, process, life.run_id, life.key);
    Verdict::Lost(Box::new(Envelope {
        tenant: tenant.clone(),
        event_id: derived_id(&digest),
        id_origin: IdOrigin::Caller,
        source: Source::parse(SOURCE).expect("the constant is a valid source"),
        event_type: EventType::parse(TYPE).expect("the constant is a valid type"),
        stream: process.stream(),
        occurred_at: Some(life.key.at),
        schema_version: 1,
        payload: payload.to_string().into_boxed_str(),
        key: None,
        hash: PayloadHash(digest),
        trace,
    }))
}

/// SHA-256 over what a judgement is about. Each part goes in behind its length, so that no two are confused.
fn fingerprint(
    tenant: &TenantId,
    process: &ProcessId,
    run_id: Option<&EventId>,
    judged: &Key,
) -> [u8; 32] {
    let mut hasher = Sha256::new();
    let mut part = |bytes: &[u8]| {
        hasher.update(u64::try_from(bytes.len()).unwrap_or(u64::MAX).to_be_bytes());
        hasher.update(bytes);
    };
    part(TYPE.as_bytes());
    part(tenant.as_str().as_bytes());
    part(process.as_str().as_bytes());
    part(run_id.map_or("", EventId::as_str).as_bytes());
    part(&judged.at.micros().to_be_bytes());
    part(&[judged.rank.number()]);
    part(judged.source.as_str().as_bytes());
    part(judged.event_id.as_str().as_bytes());
    hasher.finalize().into()
}

/// A UUID of version 8, which is what RFC 9562 calls one whose bits follow a rule of our own.
fn derived_id(digest: &[u8; 32]) -> EventId {
    let mut bytes = [0; 16];
    bytes.copy_from_slice(&digest[..16]);
    EventId::from_uuid(uuid::Builder::from_custom_bytes(bytes).into_uuid())
}
