//! Tests of this module's pure part: what of a batch is accepted, repeated or refused.

use super::*;
use crate::domain::event::TraceContext;
use crate::domain::ids::{EventType, IdempotencyKey, Source};

fn envelope(stream: &str, key: Option<&str>, id: Option<&str>, hash: u8) -> Envelope {
    Envelope {
        tenant: TenantId::parse("acme").unwrap(),
        event_id: EventId::parse(id.unwrap_or("door-made")).unwrap(),
        id_origin: if id.is_some() { IdOrigin::Caller } else { IdOrigin::Door },
        source: Source::parse("orders-api").unwrap(),
        event_type: EventType::parse("Ordered").unwrap(),
        stream: StreamKey::parse(stream).unwrap(),
        occurred_at: None,
        schema_version: 1,
        payload: "{}".into(),
        key: key.map(|key| IdempotencyKey::parse(key).unwrap()),
        hash: PayloadHash([hash; 32]),
        trace: TraceContext { trace_id: [1; 16], parent_id: [0; 8], sampled: false },
    }
}

fn now() -> Timestamp {
    Timestamp::parse("2026-01-28T10:00:00Z").unwrap()
}

/// What a batch is answered where `memory` is remembered and each stream is at 4.
fn answers(batch: &[Envelope], memory: &Memory) -> Vec<String> {
    let (decision, repeats_of) = judge(batch, memory);
    let last = batch.iter().map(|envelope| (stream_of(envelope), 4)).collect();
    let (numbers, _) = number(batch, &decision.accepted, &last);
    verdicts(batch, decision, &repeats_of, &numbers, now())
        .into_iter()
        .map(|verdict| match verdict {
            Verdict::Accepted(receipt) => format!("accepted {}", receipt.stream_seq),
            Verdict::Replayed(receipt) => format!("replayed {}", receipt.stream_seq),
            other => format!("{other:?}"),
        })
        .collect()
}

fn known(stream_seq: u64, hash: u8) -> Known {
    Known {
        hash: PayloadHash([hash; 32]),
        receipt: Receipt {
            event_id: EventId::parse("first").unwrap(),
            stream: StreamKey::parse("s").unwrap(),
            stream_seq,
            received_at: now(),
        },
    }
}

#[test]
fn numbers_go_on_in_each_stream_and_a_refused_event_takes_none() {
    let batch = [
        envelope("s", Some("k"), None, 1),
        envelope("t", None, None, 2),
        envelope("s", Some("k"), None, 3),
        envelope("s", None, None, 4),
    ];
    assert_eq!(
        answers(&batch, &Memory::default()),
        ["accepted 5", "accepted 5", "KeyReused", "accepted 6"]
    );
}

#[test]
fn a_repeat_within_a_batch_gets_the_first_answer() {
    let batch = [
        envelope("s", Some("k"), Some("e"), 1),
        envelope("s", Some("k"), None, 1),
        envelope("s", Some("k2"), Some("e"), 1),
        envelope("s", Some("k3"), Some("e"), 9),
    ];
    assert_eq!(
        answers(&batch, &Memory::default()),
        ["accepted 5", "replayed 5", "replayed 5", "EventIdReused"]
    );
}

#[test]
fn a_repeat_of_the_past_gets_the_first_answer_and_the_key_counts_before_the_id() {
    let mut memory = Memory::default();
    memory.by_key.insert(("acme".into(), "k".into()), known(2, 1));
    memory.by_id.insert(("acme".into(), "orders-api".into(), "e".into()), known(3, 1));
    let batch = [
        envelope("s", Some("k"), None, 1),
        envelope("s", Some("k"), Some("e"), 1),
        envelope("s", Some("k"), None, 7),
        envelope("s", Some("new"), Some("e"), 1),
        envelope("s", None, Some("e"), 7),
        envelope("s", None, None, 1),
    ];
    assert_eq!(
        answers(&batch, &memory),
        ["replayed 2", "replayed 2", "KeyReused", "replayed 3", "EventIdReused", "accepted 5"]
    );
}

#[test]
fn an_id_that_the_door_made_is_no_identity() {
    let batch = [envelope("s", None, None, 1), envelope("s", None, None, 1)];
    assert_eq!(answers(&batch, &Memory::default()), ["accepted 5", "accepted 6"]);
}

#[test]
fn a_list_is_filled_with_its_last_element() {
    let filled: Vec<&i32> = fill(&[1, 2], 5).collect();
    assert_eq!(filled, [&1, &2, &2, &2, &2]);
}
