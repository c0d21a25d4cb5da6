//! What the threads know of the database together: whether writes go through, what waits in the queue, and how far
//! its clock is from ours. This module keeps it in memory, because who asks for it must never wait for a database.

use std::sync::Arc;
use std::sync::atomic::{AtomicI64, Ordering};
use std::time::Instant;

use parking_lot::Mutex;

use super::settled::Settled;
use crate::domain::time::Timestamp;
use crate::store::WriteState;

/// Why nothing is taken while no session can be had.
pub(super) const OUT_OF_REACH: &str = "the database is out of reach";
/// Why nothing is taken while somebody has stopped the queue.
pub(super) const QUEUE_CLOSED: &str = "the queue of the database takes no messages";

/// One queue as the database tells it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct QueueState {
    pub(super) name: String,
    pub(super) takes: bool,
    pub(super) gives: bool,
    pub(super) ready: u64,
    pub(super) waiting: u64,
    pub(super) expired: u64,
    pub(super) oldest: Option<Timestamp>,
}

/// Shared by all sessions of a store.
pub(super) struct Health {
    clock: Arc<dyn Fn() -> Timestamp + Send + Sync>,
    /// False: the offset stays 0.
    compares_clocks: bool,
    /// Microseconds that the clock of the database is ahead of ours.
    offset_us: AtomicI64,
    refused: Mutex<Option<&'static str>>,
    queue: Mutex<Option<QueueState>>,
    /// When a listener last came back from the queue.
    dequeued_at: Mutex<Option<Instant>>,
    settled: Settled,
}

impl Health {
    pub(super) fn new(clock: Arc<dyn Fn() -> Timestamp + Send + Sync>) -> Self {
        Self {
            clock,
            compares_clocks: true,
            offset_us: AtomicI64::new(0),
            refused: Mutex::new(None),
            queue: Mutex::new(None),
            dequeued_at: Mutex::new(None),
            settled: Settled::default(),
        }
    }

    /// The same, which goes by our own clock where `compares_clocks` is false.
    #[must_use]
    pub(super) fn comparing_clocks(self, compares_clocks: bool) -> Self {
        Self { compares_clocks, ..self }
    }

    /// The clock of the database, as far as it was last compared with ours (law 4).
    pub(super) fn now(&self) -> Timestamp {
        let ours = (self.clock)().micros();
        Timestamp::from_micros(ours.saturating_add(self.offset_us.load(Ordering::Relaxed)))
    }

    /// Notes what the database's clock said between two looks at ours.
    pub(super) fn compare_clocks(&self, theirs: Timestamp, before: Timestamp, after: Timestamp) {
        if !self.compares_clocks {
            return;
        }
        let ours = before.micros().midpoint(after.micros());
        self.offset_us.store(theirs.micros().saturating_sub(ours), Ordering::Relaxed);
    }

    /// Up to when everything that came in is committed.
    pub(super) fn settled(&self) -> &Settled {
        &self.settled
    }

    /// Our own clock.
    pub(super) fn own_clock(&self) -> Timestamp {
        (self.clock)()
    }

    pub(super) fn offset_us(&self) -> i64 {
        self.offset_us.load(Ordering::Relaxed)
    }

    pub(super) fn writes_go_through(&self) {
        *self.refused.lock() = None;
    }

    pub(super) fn writes_are_refused(&self, why: &'static str) {
        *self.refused.lock() = Some(why);
    }

    pub(super) fn write_state(&self) -> WriteState {
        if let Some(why) = *self.refused.lock() {
            return WriteState::Closed(why);
        }
        match &*self.queue.lock() {
            Some(queue) if !queue.takes => WriteState::Closed(QUEUE_CLOSED),
            _ => WriteState::Open,
        }
    }

    pub(super) fn note_queue(&self, state: QueueState) {
        *self.queue.lock() = Some(state);
    }

    pub(super) fn queue(&self) -> Option<QueueState> {
        self.queue.lock().clone()
    }

    /// What waits in the queue, as of the last look.
    pub(super) fn backlog(&self) -> (u64, Option<Timestamp>) {
        match &*self.queue.lock() {
            Some(queue) => {
                let waiting = queue.ready.saturating_add(queue.waiting);
                (waiting, queue.oldest.filter(|_| waiting > 0))
            }
            None => (0, None),
        }
    }

    pub(super) fn note_dequeue(&self) {
        *self.dequeued_at.lock() = Some(Instant::now());
    }

    pub(super) fn dequeued_at(&self) -> Option<Instant> {
        *self.dequeued_at.lock()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn health() -> Health {
        Health::new(Arc::new(|| Timestamp::from_micros(1_000_000)))
    }

    fn queue(takes: bool, ready: u64) -> QueueState {
        QueueState {
            name: "SENTINEL_QUEUE".into(),
            takes,
            gives: true,
            ready,
            waiting: 0,
            expired: 0,
            oldest: Some(Timestamp::from_micros(5)),
        }
    }

    #[test]
    fn the_stores_clock_is_that_of_the_database() {
        let health = health();
        assert_eq!(health.now(), Timestamp::from_micros(1_000_000));
        let (before, after) = (Timestamp::from_micros(100), Timestamp::from_micros(300));
        health.compare_clocks(Timestamp::from_micros(1200), before, after);
        assert_eq!(health.offset_us(), 1000);
        assert_eq!(health.now(), Timestamp::from_micros(1_001_000));
        let own = self::health().comparing_clocks(false);
        own.compare_clocks(Timestamp::from_micros(1200), before, after);
        assert_eq!(own.now(), Timestamp::from_micros(1_000_000));
    }

    #[test]
    fn doors_close_while_writes_are_refused_or_the_queue_is_and_open_again() {
        let health = health();
        assert_eq!(health.write_state(), WriteState::Open);
        health.writes_are_refused(OUT_OF_REACH);
        assert_eq!(health.write_state(), WriteState::Closed(OUT_OF_REACH));
        health.writes_go_through();
        health.note_queue(queue(false, 0));
        assert_eq!(health.write_state(), WriteState::Closed(QUEUE_CLOSED));
        health.note_queue(queue(true, 3));
        assert_eq!(health.write_state(), WriteState::Open);
        assert_eq!(health.backlog(), (3, Some(Timestamp::from_micros(5))));
        health.note_queue(queue(true, 0));
        assert_eq!(health.backlog(), (0, None));
    }
}
