//! Numbers the events of each stream: 1, 2, 3 … in the order of acceptance, without a gap (law 5). This module keeps
//! the last number of the streams in use in memory and looks the others up in the projection.
//!
//! What must stay true: a number that memory has forgotten is in `events.db`, so only streams whose last event is
//! projected are forgotten; and numbers of a batch that was not committed are taken back.

use std::collections::HashMap;

use rusqlite::{Connection, OptionalExtension};

use super::connection::classify;
use crate::domain::event::Accepted;
use crate::domain::ids::{StreamKey, TenantId};
use crate::store::{Result, StoreError};

/// Streams in one of the two generations. Twice as many are remembered, at some 150 bytes each; a stream that is
/// not is looked up in some microseconds.
const GENERATION_MAX: usize = 65_536;

type Key = (TenantId, StreamKey);

/// Where a stream stands.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Last {
    seq: u64,
    /// Of the event that has this number; 0 where the projection supplied it.
    position: i64,
}

/// The last number of each stream. Owned by intake.
#[derive(Debug, Default)]
pub(super) struct Numbers {
    /// What was used lately.
    young: HashMap<Key, Last>,
    /// What was used before that. Forgotten when `young` is full and takes its place.
    old: HashMap<Key, Last>,
    /// What the batch at hand has changed, to take it back.
    before: Vec<(Key, Last)>,
}

impl Numbers {
    /// The next number of a stream, for the event at `position`. `look_up` asks the projection.
    pub(super) fn next(
        &mut self,
        tenant: &TenantId,
        stream: &StreamKey,
        position: i64,
        look_up: impl FnOnce() -> Result<Option<u64>>,
    ) -> Result<u64> {
        let key = (tenant.clone(), stream.clone());
        let last = match self.young.get(&key).copied().or_else(|| self.old.remove(&key)) {
            Some(last) => last,
            None => Last { seq: look_up()?.unwrap_or(0), position: 0 },
        };
        let next = Last { seq: last.seq + 1, position };
        self.before.push((key.clone(), last));
        self.young.insert(key, next);
        Ok(next.seq)
    }

    /// The batch at hand is durable.
    pub(super) fn keep(&mut self) {
        self.before.clear();
    }

    /// The batch at hand was not committed.
    pub(super) fn take_back(&mut self) {
        for (key, last) in self.before.drain(..).rev() {
            self.young.insert(key, last);
        }
    }

    /// Takes note of an event that lies in the log since before the start.
    pub(super) fn replay(&mut self, event: &Accepted) {
        let key = (event.envelope.tenant.clone(), event.envelope.stream.clone());
        let last = Last { seq: event.stream_seq, position: event.position };
        self.young.insert(key, last);
    }

    /// Forgets streams that were not used lately, if there are too many. `trimmed_to`: what the projection has.
    pub(super) fn forget(&mut self, trimmed_to: i64) {
        if self.young.len() < GENERATION_MAX {
            return;
        }
        let older = std::mem::replace(&mut self.old, std::mem::take(&mut self.young));
        for (key, last) in older {
            if last.position > trimmed_to {
                self.old.entry(key).or_insert(last);
            }
        }
    }
}

/// The last number of a stream in the projection. None: it knows no such stream.
pub(super) fn applied_seq(
    events: &Connection,
    tenant: &TenantId,
    stream: &StreamKey,
) -> Result<Option<u64>> {
    const LOOK_UP: &str = "SELECT applied_seq FROM stream \
        WHERE tenant_id = (SELECT tenant_id FROM tenant WHERE name = ?) AND stream_key = ?";
    let seq: Option<i64> = events
        .prepare_cached(LOOK_UP)
        .and_then(|mut statement| {
            statement.query_row([tenant.as_str(), stream.as_str()], |row| row.get(0)).optional()
        })
        .map_err(|error| classify("look up a stream's number", error))?;
    seq.map(|seq| {
        u64::try_from(seq).map_err(|_| StoreError::Corrupt {
            what: format!(
                "stream {stream:?} of tenant {tenant} has the last number {seq} in events.db"
            ),
        })
    })
    .transpose()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn next(numbers: &mut Numbers, stream: &str, position: i64, known: Option<u64>) -> u64 {
        let (tenant, stream) = (TenantId::parse("t1").unwrap(), StreamKey::parse(stream).unwrap());
        numbers.next(&tenant, &stream, position, || Ok(known)).unwrap()
    }

    #[test]
    fn numbers_follow_each_other_and_go_on_where_the_projection_is() {
        let mut numbers = Numbers::default();
        assert_eq!(next(&mut numbers, "new", 1, None), 1);
        assert_eq!(next(&mut numbers, "new", 2, Some(99)), 2, "memory is asked first");
        assert_eq!(next(&mut numbers, "known", 3, Some(17)), 18);
    }

    #[test]
    fn numbers_of_a_batch_that_failed_are_given_again() {
        let mut numbers = Numbers::default();
        assert_eq!(next(&mut numbers, "a", 1, None), 1);
        numbers.keep();
        assert_eq!(next(&mut numbers, "a", 2, None), 2);
        assert_eq!(next(&mut numbers, "a", 3, None), 3);
        assert_eq!(next(&mut numbers, "b", 4, Some(5)), 6);
        numbers.take_back();
        assert_eq!(next(&mut numbers, "a", 2, None), 2);
        assert_eq!(next(&mut numbers, "b", 3, Some(5)), 6);
    }

    #[test]
    fn only_streams_that_the_projection_has_are_forgotten() {
        let mut numbers = Numbers::default();
        for round in 0..3_i64 {
            for index in 0..GENERATION_MAX {
                let position = round * 65_536 + i64::try_from(index).unwrap() + 1;
                next(&mut numbers, &format!("{round}-{index}"), position, None);
            }
            numbers.keep();
            numbers.forget(10);
        }
        assert_eq!(next(&mut numbers, "0-9", 1_000_000, Some(41)), 42, "position 10 is projected");
        assert_eq!(next(&mut numbers, "0-10", 1_000_001, Some(41)), 2, "position 11 is not");
    }
}
