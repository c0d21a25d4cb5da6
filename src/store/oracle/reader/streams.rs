//! Streams, read without gaps. This module shows the events of a stream up to the first number that is not there yet,
//! and tells one that is on its way from one that will never come.

use std::time::Duration;

use super::super::bind::{self, Bind};
use super::super::facts;
use super::super::health::QueueState;
use super::super::sql::{statement, text};
use super::events::{event_of, event_page};
use super::{Reader, foreign};
use crate::domain::ids::{EventType, StreamKey, TenantId};
use crate::domain::time::Timestamp;
use crate::store::{Page, Result, StoredEvent, StreamState, cursor};

/// The queue tells times to the second.
const QUEUE_CLOCK_GRAIN: Duration = Duration::from_secs(1);

/// The contiguous part of what was found of a stream after number `after`: a number that is missing ends it, unless
/// it is a dead letter's, or lies before everything that is kept and nothing that old can still be on its way.
fn contiguous(
    after: u64,
    found: &[(u64, Timestamp)],
    tombstones: &[u64],
    first_kept: Option<u64>,
    oldest_waiting: Option<Timestamp>,
) -> usize {
    let mut expected = after + 1;
    for (index, (seq, received_at)) in found.iter().enumerate() {
        if *seq > expected {
            let dead = tombstones.iter().filter(|n| (expected..*seq).contains(n)).count();
            let explained = u64::try_from(dead).is_ok_and(|dead| dead == *seq - expected);
            // Numbers are given in the order of acceptance, so a lower one was accepted before this one; if the queue
            // holds nothing that old, retention has dropped it.
            let dropped = index == 0
                && first_kept.is_none_or(|first| first >= *seq)
                && oldest_waiting.is_none_or(|oldest| oldest > received_at.plus(QUEUE_CLOCK_GRAIN));
            if !explained && !dropped {
                return index;
            }
        }
        expected = seq + 1;
    }
    found.len()
}

impl Reader {
    pub(super) fn read_stream(
        &mut self,
        tenant: &TenantId,
        stream: &StreamKey,
    ) -> Result<Option<StreamState>> {
        let found = self.ask("read stream", tenant, |connection| {
            let binds = [Bind::text(tenant.as_str(), 50), Bind::text(stream.as_str(), 200)];
            bind::query(connection, &text(statement!("read_stream"), &[]), &binds, 1, |row| {
                let seq = bind::count(row, "applied_seq")?;
                Ok((seq, bind::time(row, "last_seen_utc")?, bind::text(row, "last_type")?))
            })
        })?;
        found
            .into_iter()
            .next()
            .map(|(applied_seq, last_seen_at, last_type)| {
                let last_type = EventType::parse(&last_type).map_err(foreign)?;
                Ok(StreamState { applied_seq, last_seen_at, last_type })
            })
            .transpose()
    }

    /// Events of a stream after number `after`, ascending, up to the first number that is not there yet.
    pub(super) fn follow_stream(
        &mut self,
        tenant: &TenantId,
        stream: &StreamKey,
        after: u64,
        limit: usize,
    ) -> Result<Option<Vec<StoredEvent>>> {
        const CALL: &str = "read stream events";
        if self.read_stream(tenant, stream)?.is_none() {
            return Ok(None);
        }
        let limit = cursor::limit(&Page { limit, after: None });
        let names = [Bind::text(tenant.as_str(), 50), Bind::text(stream.as_str(), 200)];
        let mut binds = names.to_vec();
        binds.extend([Bind::count(after), Bind::size(limit + 1)]);
        let ask = text(statement!("stream_events"), &[]);
        let (mut found, _) =
            self.ask(CALL, tenant, |connection| event_page(connection, &ask, &binds, limit))?;
        let last = found.last().map_or(after, |event| event.seq);
        let has_gap = u64::try_from(found.len()).is_ok_and(|count| count < last - after);
        if has_gap {
            let (again, tombstones, first_kept, queue) = self.ask(CALL, tenant, |connection| {
                // The queue first: what it does not hold any more by now shows in everything that is read after it.
                let queue: Option<QueueState> = facts::main_queue(connection)?;
                let (again, _) = event_page(connection, &ask, &binds, limit)?;
                let mut within = names.to_vec();
                within.extend([Bind::count(after), Bind::count(last)]);
                let ask = text(statement!("stream_tombstones"), &[]);
                let tombstones = bind::query(connection, &ask, &within, limit, |row| {
                    bind::count(row, "stream_seq")
                })?;
                let ask = text(statement!("stream_begins"), &[]);
                let first = bind::query(connection, &ask, &names, 1, |row| {
                    bind::optional_count(row, "first_seq")
                })?;
                Ok((again, tombstones, first.into_iter().next().flatten(), queue))
            })?;
            // Beyond what was there before the queue was asked, something may have been accepted since.
            found = again;
            found.retain(|event| event.seq <= last);
            let numbers: Vec<(u64, Timestamp)> =
                found.iter().map(|event| (event.seq, event.received_at())).collect();
            let oldest = queue.and_then(|queue| {
                // What waits for its retry has no time to compare: then nothing is taken for dropped.
                let waits = queue.waiting > 0 || queue.expired > 0;
                if waits {
                    Some(Timestamp::default())
                } else {
                    queue.oldest.filter(|_| queue.ready > 0)
                }
            });
            found.truncate(contiguous(after, &numbers, &tombstones, first_kept, oldest));
        }
        found.into_iter().map(|found| event_of(tenant, found)).collect::<Result<Vec<_>>>().map(Some)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn at(second: i64) -> Timestamp {
        Timestamp::from_micros(second * 1_000_000)
    }

    #[test]
    fn a_stream_is_shown_up_to_the_first_number_that_is_not_there() {
        let found = |numbers: &[u64]| -> Vec<(u64, Timestamp)> {
            numbers.iter().map(|n| (*n, at(i64::try_from(*n).unwrap()))).collect()
        };
        let all = |after, numbers: &[u64], dead: &[u64]| {
            contiguous(after, &found(numbers), dead, Some(1), Some(at(0)))
        };
        assert_eq!(all(0, &[1, 2, 3], &[]), 3);
        assert_eq!(all(0, &[1, 3, 4], &[]), 1, "2 is on its way");
        assert_eq!(all(0, &[1, 3, 4], &[2]), 3, "2 is a dead letter");
        assert_eq!(all(0, &[3], &[1]), 0);
        assert_eq!(all(0, &[3], &[1, 2]), 1);
        assert_eq!(all(5, &[6, 7], &[]), 2);
        assert_eq!(all(0, &[], &[]), 0);
    }

    #[test]
    fn a_beginning_that_retention_dropped_is_no_gap_unless_something_as_old_still_waits() {
        let found = [(7, at(100)), (8, at(101))];
        assert_eq!(contiguous(0, &found, &[], Some(7), None), 2, "nothing waits");
        assert_eq!(contiguous(0, &found, &[], Some(7), Some(at(200))), 2, "only younger ones wait");
        assert_eq!(contiguous(0, &found, &[], Some(7), Some(at(100))), 0, "it may be one of them");
        assert_eq!(contiguous(0, &found, &[], Some(2), None), 0, "older ones are kept");
    }
}
