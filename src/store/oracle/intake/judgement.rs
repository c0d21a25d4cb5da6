//! What of a batch is accepted, repeated or refused. This module decides it from what is remembered, without a database.

use std::collections::{BTreeMap, HashMap};

use crate::domain::event::{Envelope, IdOrigin, PayloadHash, Receipt, Verdict};
use crate::domain::time::Timestamp;

/// A request's name: (tenant, key).
pub(super) type ByKey = (String, String);
/// An event's own name: (tenant, source, event id).
pub(super) type ById = (String, String, String);

/// What is remembered of an accepted event.
#[derive(Debug, Clone, PartialEq)]
pub(super) struct Known {
    pub(super) hash: PayloadHash,
    pub(super) receipt: Receipt,
}

/// Everything remembered that a batch asks for.
#[derive(Debug, Default)]
pub(super) struct Memory {
    pub(super) by_key: HashMap<ByKey, Known>,
    pub(super) by_id: HashMap<ById, Known>,
}

/// What was decided about a batch.
#[derive(Debug, Default)]
pub(super) struct Decision {
    verdicts: Vec<Option<Verdict>>,
    /// Which of the batch are accepted, in its order.
    pub(super) accepted: Vec<usize>,
}

pub(super) fn key_of(envelope: &Envelope) -> Option<ByKey> {
    let key = envelope.key.as_ref()?;
    Some((envelope.tenant.as_str().to_string(), key.as_str().to_string()))
}

pub(super) fn id_of(envelope: &Envelope) -> Option<ById> {
    matches!(envelope.id_origin, IdOrigin::Caller).then(|| {
        (
            envelope.tenant.as_str().to_string(),
            envelope.source.as_str().to_string(),
            envelope.event_id.as_str().to_string(),
        )
    })
}

/// Numbers the accepted ones of a batch, in its order, onwards from the `last` of each stream.
pub(super) fn number(
    batch: &[Envelope],
    accepted: &[usize],
    last: &BTreeMap<(String, String), u64>,
) -> (Vec<u64>, BTreeMap<(String, String), u64>) {
    let mut counters = last.clone();
    let numbers = accepted
        .iter()
        .map(|index| {
            let counter = counters.entry(stream_of(&batch[*index])).or_insert(0);
            *counter += 1;
            *counter
        })
        .collect();
    (numbers, counters)
}

pub(super) fn stream_of(envelope: &Envelope) -> (String, String) {
    (envelope.tenant.as_str().to_string(), envelope.stream.as_str().to_string())
}

/// Which of a batch are repeats, of the past or of each other. A repeat within the batch is answered when the first
/// has its number: it names its place.
pub(super) fn judge(batch: &[Envelope], memory: &Memory) -> (Decision, Vec<Option<usize>>) {
    let mut decision = Decision::default();
    let mut repeats_of = vec![None; batch.len()];
    let mut keys: HashMap<ByKey, usize> = HashMap::new();
    let mut ids: HashMap<ById, usize> = HashMap::new();
    for (index, envelope) in batch.iter().enumerate() {
        let (by_key, by_id) = (key_of(envelope), id_of(envelope));
        let known = |known: &Known, reused: Verdict| {
            if known.hash == envelope.hash {
                Verdict::Replayed(known.receipt.clone())
            } else {
                reused
            }
        };
        let before = by_key
            .as_ref()
            .and_then(|key| memory.by_key.get(key))
            .map(|record| known(record, Verdict::KeyReused))
            .or_else(|| {
                let record = by_id.as_ref().and_then(|id| memory.by_id.get(id))?;
                Some(known(record, Verdict::EventIdReused))
            });
        if before.is_some() {
            decision.verdicts.push(before);
            continue;
        }
        let first = by_key
            .as_ref()
            .and_then(|key| keys.get(key))
            .map(|first| (*first, Verdict::KeyReused))
            .or_else(|| {
                let first = by_id.as_ref().and_then(|id| ids.get(id))?;
                Some((*first, Verdict::EventIdReused))
            });
        match first {
            Some((first, _)) if batch[first].hash == envelope.hash => {
                repeats_of[index] = Some(first);
                decision.verdicts.push(None);
            }
            Some((_, reused)) => decision.verdicts.push(Some(reused)),
            None => {
                if let Some(key) = by_key {
                    keys.insert(key, index);
                }
                if let Some(id) = by_id {
                    ids.insert(id, index);
                }
                decision.accepted.push(index);
                decision.verdicts.push(None);
            }
        }
    }
    (decision, repeats_of)
}

/// The verdict of each, once the accepted ones have their numbers.
pub(super) fn verdicts(
    batch: &[Envelope],
    decision: Decision,
    repeats_of: &[Option<usize>],
    numbers: &[u64],
    now: Timestamp,
) -> Vec<Verdict> {
    let receipts: HashMap<usize, Receipt> = decision
        .accepted
        .iter()
        .zip(numbers)
        .map(|(index, stream_seq)| {
            let envelope = &batch[*index];
            let receipt = Receipt {
                event_id: envelope.event_id.clone(),
                stream: envelope.stream.clone(),
                stream_seq: *stream_seq,
                received_at: now,
            };
            (*index, receipt)
        })
        .collect();
    let verdict = |(index, known): (usize, Option<Verdict>)| {
        let of = |place: usize| receipts.get(&place).cloned();
        known
            .or_else(|| Some(Verdict::Accepted(of(index)?)))
            .or_else(|| Some(Verdict::Replayed(of(repeats_of[index]?)?)))
            .unwrap_or(Verdict::Unavailable("the store did not decide"))
    };
    decision.verdicts.into_iter().enumerate().map(verdict).collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::domain::ids::{EventId, IdempotencyKey, StreamKey};

    fn envelope(stream: &str, key: Option<&str>, id: Option<&str>, hash: u8) -> Envelope {
        Envelope {
            id_origin: if id.is_some() { IdOrigin::Caller } else { IdOrigin::Door },
            key: key.map(|key| IdempotencyKey::parse(key).unwrap()),
            hash: PayloadHash([hash; 32]),
            ..Envelope::sample(id.unwrap_or("door-made"), stream, "Ordered")
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
}
