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

/// What makes somebody look at a process.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Why {
    /// Its deadline may have passed.
    Deadline,
    /// The session of the database that started it is gone, and everything that it said has been applied.
    SessionGone,
}

/// Judges a process.
///
/// `silent_until` is the watermark: everything received before it has been applied, so whoever seems silent until
/// then is silent. `last_log_at` is the receipt of the newest log row, a sign of life that is no event. `instance`
/// is who judges, for people.
#[expect(
    clippy::too_many_arguments,
    reason = "each is a fact that the judgement rests on, and a struct would only name them twice"
)]
pub fn judge(
    state: &State,
    tenant: &TenantId,
    process: &ProcessId,
    policy: &Policy,
    silent_until: Timestamp,
    last_log_at: Option<Timestamp>,
    instance: &str,
    why: Why,
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
    let silence_from = match why {
        Why::Deadline => deadline,
        Why::SessionGone => last_life_at,
    };
    if silent_until < silence_from {
        return Verdict::Lives { deadline: Some(deadline) };
    }
    let mut payload = serde_json::json!({
        "run_id": life.run_id,
        "judged": {
            "at_us": life.key.at.micros(),
            "rank": life.key.rank.number(),
            "source": life.key.source,
            "event_id": life.key.event_id,
        },
        "last_life_at": last_life_at.to_string(),
        "watermark": silent_until.to_string(),
        "instance": instance,
    });
    match why {
        Why::Deadline => payload["deadline_at"] = deadline.to_string().into(),
        Why::SessionGone => payload["session_gone"] = true.into(),
    }
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

#[cfg(test)]
mod tests {
    use super::super::tests::{POLICY, TRACE, apply, at, draft, merged, process, row_of, tenant};
    use super::*;
    use crate::domain::event::{Accepted, ordered_at};
    use std::sync::Arc;
    use std::time::Duration;

    const HOUR_MS: i64 = 3_600_000;

    fn verdict(state: &State, until: i64, log: Option<i64>, instance: &str) -> Verdict {
        let log = log.map(at);
        judge(state, &tenant(), &process(), &POLICY, at(until), log, instance, Why::Deadline, TRACE)
    }

    fn deserted(state: &State, until: i64, log: Option<i64>) -> Verdict {
        let (until, log, why) = (at(until), log.map(at), Why::SessionGone);
        judge(state, &tenant(), &process(), &POLICY, until, log, "a", why, TRACE)
    }

    fn lost(state: &State, until: i64, instance: &str) -> Envelope {
        match verdict(state, until, None, instance) {
            Verdict::Lost(envelope) => *envelope,
            lives @ Verdict::Lives { .. } => panic!("{lives:?}"),
        }
    }

    fn accepted(envelope: Envelope, received: i64) -> Arc<Accepted> {
        let (ordered_at, clock_skew) =
            ordered_at(envelope.occurred_at, at(received), Duration::from_secs(86_400));
        let received_at = at(received);
        let (position, stream_seq) = (9, 9);
        Arc::new(Accepted { position, stream_seq, received_at, ordered_at, clock_skew, envelope })
    }

    #[test]
    fn silence_up_to_the_watermark_is_lost_and_not_a_moment_before() {
        let state =
            merged(&[draft("started", "r1", 0).event(), draft("heartbeat", "h", 5).event()]);
        assert_eq!(
            verdict(&state, HOUR_MS + 4, None, "a"),
            Verdict::Lives { deadline: Some(at(HOUR_MS + 5)) }
        );
        let envelope = lost(&state, HOUR_MS + 5, "a");
        assert_eq!(envelope.occurred_at, Some(at(5)));
        assert_eq!(envelope.stream, process().stream());
        let change = apply(Some(state), &[accepted(envelope, HOUR_MS + 6)]);
        let row = &change.processes[0].row;
        assert_eq!(row.status, Status::Expired);
        assert_eq!(
            row.reason.as_deref(),
            Some(
                "no sign of life since 2026-01-28T10:00:00.005Z; the deadline was \
                 2026-01-28T11:00:00.005Z; everything received until 2026-01-28T11:00:00.005Z had \
                 been applied; judged by a"
            )
        );
    }

    #[test]
    fn a_log_row_is_a_sign_of_life() {
        let state = merged(&[draft("started", "r1", 0).event()]);
        assert_eq!(
            verdict(&state, HOUR_MS, Some(1_000), "a"),
            Verdict::Lives { deadline: Some(at(HOUR_MS + 1_000)) }
        );
        assert!(matches!(verdict(&state, HOUR_MS, Some(-1_000), "a"), Verdict::Lost(_)));
    }

    #[test]
    fn two_reapers_derive_one_event() {
        let state = merged(&[draft("started", "r1", 0).event()]);
        let (a, b) = (lost(&state, HOUR_MS, "a"), lost(&state, HOUR_MS + 777, "b"));
        assert_eq!((&a.event_id, a.hash), (&b.event_id, b.hash));
        assert_eq!((&a.source, &a.stream, a.occurred_at), (&b.source, &b.stream, b.occurred_at));
        assert_ne!(a.payload, b.payload);
        let revived =
            merged(&[draft("started", "r1", 0).event(), draft("heartbeat", "h", 1).event()]);
        assert_ne!(lost(&revived, HOUR_MS + 1, "a").event_id, a.event_id);
        let uuid = uuid::Uuid::try_parse(a.event_id.as_str()).unwrap();
        assert_eq!(uuid.get_version_num(), 8);
    }

    #[test]
    fn whose_session_is_gone_is_lost_without_a_deadline_and_revived_by_a_later_sign_of_life() {
        let state =
            merged(&[draft("started", "r1", 0).event(), draft("heartbeat", "h", 5).event()]);
        let deadline = Some(at(HOUR_MS + 5));
        assert_eq!(deserted(&state, 4, None), Verdict::Lives { deadline }, "it said more");
        let Verdict::Lost(envelope) = deserted(&state, 12, None) else { panic!() };
        let late = lost(&state, HOUR_MS + 5, "b");
        assert_eq!((&envelope.event_id, envelope.hash), (&late.event_id, late.hash), "one event");
        let state = apply(Some(state), &[accepted(*envelope, 13)]).processes.remove(0).state;
        let row = row_of(&state);
        assert_eq!(row.status, Status::Expired);
        assert_eq!(
            row.reason.as_deref(),
            Some(
                "the database session that started it is gone; no sign of life since \
                 2026-01-28T10:00:00.005Z; everything received until 2026-01-28T10:00:00.012Z had \
                 been applied; judged by a"
            )
        );
        let revived = apply(Some(state), &[Arc::new(draft("progress", "g", 20).event())]);
        assert_eq!(revived.processes[0].row.status, Status::Running);
    }

    #[test]
    fn nobody_waits_for_what_is_over_paused_lost_or_only_registered() {
        for drafts in [
            vec![draft("registered", "g", 0)],
            vec![draft("started", "r1", 0), draft("completed", "c", 1)],
            vec![draft("started", "r1", 0), draft("paused", "z", 1)],
        ] {
            let state =
                merged(&drafts.iter().map(super::super::tests::Draft::event).collect::<Vec<_>>());
            let verdict = verdict(&state, 9 * HOUR_MS, None, "a");
            assert_eq!(verdict, Verdict::Lives { deadline: None }, "{drafts:?}");
        }
        let state = merged(&[draft("started", "r1", 0).event()]);
        let expired = accepted(lost(&state, HOUR_MS, "a"), HOUR_MS);
        let state = apply(Some(state), &[expired]).processes.remove(0).state;
        assert_eq!(verdict(&state, 9 * HOUR_MS, None, "a"), Verdict::Lives { deadline: None });
    }

    #[test]
    fn a_life_older_than_the_retention_is_judged_all_the_same() {
        // The event is then ordered by its receipt, but it is placed by what it judged.
        let state = merged(&[draft("heartbeat", "h", 0).event()]);
        let expired = accepted(lost(&state, 100 * 24 * HOUR_MS, "a"), 100 * 24 * HOUR_MS);
        assert!(expired.clock_skew);
        let state = apply(Some(state), &[expired]).processes.remove(0).state;
        assert_eq!(row_of(&state).status, Status::Expired);
    }
}
