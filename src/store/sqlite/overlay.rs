//! What is in the log and not yet in the projection, in memory. This module lets `/status` see every acknowledged
//! event at once, and hands accepted events to the listener without reading them back from the disk.
//!
//! What must stay true: an event is here from before its acknowledgement until after the commit that projects it,
//! so stored state merged with [`Overlay::of`] never lacks an acknowledged event. `trimmed_to` rises before entries
//! go: whoever misses an entry sees a higher `trimmed_to` afterwards, and takes a newer snapshot. So a reader whose
//! snapshot of `events.db` has the cursor `c` asks [`Overlay::of`] first and [`Overlay::trimmed_to`] second; if that
//! is above `c` it takes a new snapshot and asks again; else it merges the events above `c`.
//!
//! [`Overlay::stamp`] tells whether an answer about a process may have changed since it was given: what it counts rises
//! after an event is here and before its acknowledgement, and after each commit to `events.db`. So whoever takes the
//! stamp first and reads afterwards has an answer at least as new as the stamp.
//!
//! Only after a start with a longer backlog than fits does it not hold everything. Then intake takes nothing new,
//! the listener reads from `log.db` ([`Taken::Gap`]), and both go on as soon as the rest fits.

use std::collections::{HashMap, VecDeque};
use std::hash::{BuildHasher, RandomState};
use std::sync::Arc;
use std::sync::atomic::{AtomicI64, AtomicU64, Ordering};
use std::time::{Duration, Instant};

use crossbeam::channel::{self, Receiver, Sender};
use crossbeam::select;
use parking_lot::Mutex;
use smallvec::SmallVec;

use crate::component::Stop;
use crate::domain::event::{Accepted, Envelope};
use crate::domain::ids::{ProcessId, StreamKey, TenantId};
use crate::domain::time::Timestamp;
use crate::room::Naming;
use crate::store::Stamp;

/// Events that may wait for the projection: some two seconds of its work. More would be latency, not throughput.
pub(super) const EVENTS_MAX: usize = 100_000;

/// Bytes that they may hold.
pub(super) const BYTES_MAX: usize = 64 * 1024 * 1024;

/// What an event holds besides its payload, roughly: the structure, its ids, its places in the overlay.
const EVENT_BYTES: usize = 640;

/// Parts of the map by process, so that readers on several threads seldom meet. A power of two.
const SHARDS: usize = 64;

/// Counters of acceptance; processes share one by their hash. So many that a change of one process seldom touches the
/// answers about others, in 32 KiB.
const COUNTERS: usize = 4096;

type ByStream = HashMap<(TenantId, StreamKey), SmallVec<[Arc<Accepted>; 4]>>;

/// The accepted events that the projection has not reached. Shared by intake, listener and readers.
pub(super) struct Overlay {
    waiting: Mutex<Waiting>,
    naming: Naming,
    shards: Vec<Mutex<ByStream>>,
    hasher: RandomState,
    trimmed_to: AtomicI64,
    /// How many events that drive a process were accepted, by the hash of the process.
    accepted: Vec<AtomicU64>,
    /// How many transactions on `events.db` may have changed what is known of a process.
    commits: AtomicU64,
    /// The highest durable position.
    log_end: AtomicI64,
    /// Holds at most one ring: a listener that was not there to hear it finds it when it comes.
    bell: (Sender<()>, Receiver<()>),
}

#[derive(Default)]
struct Waiting {
    /// Ascending by position. Holes are rows that cannot be read; the listener finds them in the log.
    events: VecDeque<Arc<Accepted>>,
    bytes: usize,
    /// What of it is whose. Whoever is not here has nothing waiting.
    shares: HashMap<TenantId, Share>,
}

/// What waits of one tenant.
#[derive(Debug, Default, Clone, Copy, PartialEq, Eq)]
struct Share {
    events: usize,
    bytes: usize,
}

impl Waiting {
    fn push(&mut self, event: Arc<Accepted>) {
        let bytes = weight(&event);
        let tenant = &event.envelope.tenant;
        if !self.shares.contains_key(tenant) {
            self.shares.insert(tenant.clone(), Share::default());
        }
        let share = self.shares.get_mut(tenant).expect("it is there now");
        share.events += 1;
        share.bytes += bytes;
        self.bytes += bytes;
        self.events.push_back(event);
    }

    fn drain_to(&mut self, position: i64) -> Vec<Arc<Accepted>> {
        let count = self.events.partition_point(|event| event.position <= position);
        let gone: Vec<_> = self.events.drain(..count).collect();
        for event in &gone {
            let (tenant, bytes) = (&event.envelope.tenant, weight(event));
            self.bytes -= bytes;
            let share = self.shares.get_mut(tenant).expect("it has at least this event");
            share.events -= 1;
            share.bytes -= bytes;
            if share.events == 0 {
                self.shares.remove(tenant);
            }
        }
        gone
    }
}

/// What the hand-off had for the listener.
#[derive(Debug)]
pub(super) enum Taken {
    /// The next events, without a gap.
    Events(Vec<Arc<Accepted>>),
    /// There is nothing after that position.
    Empty,
    /// There is something, but not here: read it from the log.
    Gap,
}

impl Overlay {
    /// An empty overlay behind a projection that has applied everything up to `projected`.
    pub(super) fn new(projected: i64) -> Self {
        Self {
            waiting: Mutex::default(),
            naming: Naming::default(),
            shards: (0..SHARDS).map(|_| Mutex::default()).collect(),
            hasher: RandomState::new(),
            trimmed_to: AtomicI64::new(projected),
            accepted: (0..COUNTERS).map(|_| AtomicU64::new(0)).collect(),
            commits: AtomicU64::new(0),
            log_end: AtomicI64::new(projected),
            bell: channel::bounded(1),
        }
    }

    /// Everything up to `position` is durable, whether it is here or not: said once at the start.
    pub(super) fn log_ends_at(&self, position: i64) {
        self.log_end.fetch_max(position, Ordering::AcqRel);
        self.ring();
    }

    /// Takes in events that are durable, before anybody is told so.
    pub(super) fn add(&self, events: &[Arc<Accepted>]) {
        let Some(newest) = events.last() else { return };
        {
            // Under the lock of `waiting` from end to end: the projection cannot overtake in between.
            let mut waiting = self.waiting.lock();
            let projected = self.trimmed_to.load(Ordering::Acquire);
            for event in events.iter().filter(|event| event.position > projected) {
                if drives_a_process(event) {
                    let key = (event.envelope.tenant.clone(), event.envelope.stream.clone());
                    let counter = self.counter(key.0.as_str(), key.1.as_str());
                    let mut shard = self.shard(&key).lock();
                    shard.entry(key).or_default().push(Arc::clone(event));
                    // Afterwards, see the head of this file.
                    counter.fetch_add(1, Ordering::Release);
                }
                waiting.push(Arc::clone(event));
            }
            self.log_end.fetch_max(newest.position, Ordering::AcqRel);
        }
        self.ring();
    }

    /// The events of a process that are not in the projection yet, in the order of acceptance.
    pub(super) fn of(
        &self,
        tenant: &TenantId,
        process: &ProcessId,
    ) -> SmallVec<[Arc<Accepted>; 4]> {
        let key = (tenant.clone(), process.stream());
        let shard = self.shard(&key).lock();
        shard.get(&key).cloned().unwrap_or_default()
    }

    /// What an answer about a process hangs on, for a snapshot of `events.db` that shows `commits` at least.
    pub(super) fn stamp(&self, tenant: &TenantId, process: &str, commits: u64) -> Stamp {
        let accepted = self.counter(tenant.as_str(), process).load(Ordering::Acquire);
        Stamp { accepted, commits }
    }

    /// A transaction on `events.db` has been committed.
    pub(super) fn committed(&self) {
        self.commits.fetch_add(1, Ordering::AcqRel);
    }

    /// How often that was said: a snapshot begun after this call shows at least these.
    pub(super) fn commits(&self) -> u64 {
        self.commits.load(Ordering::Acquire)
    }

    /// Everything at or below was removed, and is in `events.db` for any snapshot begun after this call.
    pub(super) fn trimmed_to(&self) -> i64 {
        self.trimmed_to.load(Ordering::Acquire)
    }

    /// The projection has committed everything up to this position.
    pub(super) fn projected(&self, up_to_position: i64) {
        self.committed();
        let gone: Vec<_> = {
            let mut waiting = self.waiting.lock();
            // First, see the head of this file.
            self.trimmed_to.fetch_max(up_to_position, Ordering::AcqRel);
            self.log_end.fetch_max(up_to_position, Ordering::AcqRel);
            let gone = waiting.drain_to(up_to_position);
            if waiting.events.is_empty() {
                // After a burst the memory goes back.
                waiting.events.shrink_to(1024);
            }
            gone
        };
        // Intake need not wait for this: it only adds behind what goes.
        for event in gone.iter().filter(|event| drives_a_process(event)) {
            let key = (event.envelope.tenant.clone(), event.envelope.stream.clone());
            let mut shard = self.shard(&key).lock();
            if let Some(events) = shard.get_mut(&key)
                // The first event of a stream takes the others of the batch along.
                && events.first().is_some_and(|first| first.position <= up_to_position)
            {
                events.retain(|event| event.position > up_to_position);
                if events.is_empty() {
                    shard.remove(&key);
                }
            }
        }
    }

    /// Accepted and not projected: how many, and when the oldest of them was received.
    pub(super) fn backlog(&self) -> (u64, Option<Timestamp>) {
        let waiting = self.waiting.lock();
        let oldest = waiting.events.front().map(|event| event.received_at);
        let count = self.log_end.load(Ordering::Acquire) - self.trimmed_to();
        (u64::try_from(count).unwrap_or(0), oldest)
    }

    /// Whether there is room for another batch. Asked once for a whole batch, so that a request is not cut in the
    /// middle: what is above the bounds is one batch at most.
    pub(super) fn has_room(&self) -> bool {
        let waiting = self.waiting.lock();
        waiting.events.len() < EVENTS_MAX && waiting.bytes < BYTES_MAX
    }

    /// The tenants of `batch` that have their share: as much waits of theirs as there is room left for all the others
    /// (see [`crate::room`]). Asked once for a whole batch, like [`Self::has_room`].
    pub(super) fn with_their_share(&self, batch: &[Envelope]) -> Vec<TenantId> {
        let mut full = Vec::new();
        let waiting = self.waiting.lock();
        let left = Share {
            events: EVENTS_MAX.saturating_sub(waiting.events.len()),
            bytes: BYTES_MAX.saturating_sub(waiting.bytes),
        };
        for part in batch.chunk_by(|one, next| one.tenant == next.tenant) {
            let tenant = &part[0].tenant;
            let Some(share) = waiting.shares.get(tenant) else { continue };
            let (held, capacity, things) = if share.events >= left.events {
                (share.events, EVENTS_MAX, "places for events that wait to be applied")
            } else if share.bytes >= left.bytes {
                (share.bytes, BYTES_MAX, "bytes for events that wait to be applied")
            } else {
                continue;
            };
            if !full.contains(tenant) {
                self.naming.name(tenant, held, capacity, things);
                full.push(tenant.clone());
            }
        }
        full
    }

    /// Up to `max` events that follow `after_position` without a gap. They stay until they are projected.
    pub(super) fn take(&self, after_position: i64, max: usize) -> Taken {
        let waiting = self.waiting.lock();
        let start = waiting.events.partition_point(|event| event.position <= after_position);
        let events: Vec<_> = waiting
            .events
            .range(start..)
            .take(max)
            .zip(after_position + 1..)
            .take_while(|(event, position)| event.position == *position)
            .map(|(event, _)| Arc::clone(event))
            .collect();
        if !events.is_empty() {
            Taken::Events(events)
        } else if self.log_end.load(Ordering::Acquire) > after_position {
            Taken::Gap
        } else {
            Taken::Empty
        }
    }

    /// Sleeps until there is something after `after_position`, for `wait` at most. Returns whether there is; false
    /// at once when it is time to stop.
    pub(super) fn wait(&self, after_position: i64, wait: Duration, stop: &Stop) -> bool {
        let deadline = Instant::now() + wait;
        loop {
            if stop.is_set() {
                return false;
            }
            if self.log_end.load(Ordering::Acquire) > after_position {
                return true;
            }
            let pause = deadline.saturating_duration_since(Instant::now());
            if pause.is_zero() {
                return false;
            }
            select! {
                recv(self.bell.1) -> _ring => {}
                recv(stop.channel()) -> _stop => return false,
                default(pause) => {}
            }
        }
    }

    fn ring(&self) {
        // Full: the listener will hear the ring that is there.
        let _ = self.bell.0.try_send(());
    }

    /// The counter of a process, found without making a key of its names.
    fn counter(&self, tenant: &str, process: &str) -> &AtomicU64 {
        let hash = self.hasher.hash_one((tenant, process));
        let index = usize::try_from(hash % COUNTERS as u64).expect("less than the counters");
        &self.accepted[index]
    }

    fn shard(&self, key: &(TenantId, StreamKey)) -> &Mutex<ByStream> {
        let hash = self.hasher.hash_one(key);
        let index = usize::try_from(hash % SHARDS as u64).expect("less than the number of shards");
        &self.shards[index]
    }
}

/// Whether `/status` can depend on it.
fn drives_a_process(event: &Accepted) -> bool {
    event.envelope.event_type.as_str().starts_with("process.")
}

fn weight(event: &Accepted) -> usize {
    event.envelope.payload.len() + EVENT_BYTES
}

#[cfg(test)]
mod tests {
    use super::super::log::tests::accepted;
    use super::*;
    use crate::component::{Component, End};

    fn add(overlay: &Overlay, events: &[(i64, &str)]) {
        let events: Vec<_> = events
            .iter()
            .map(|(position, stream)| {
                Arc::new(accepted(*position, stream, position.unsigned_abs()))
            })
            .collect();
        overlay.add(&events);
    }

    fn positions_of(overlay: &Overlay, process: &str) -> Vec<i64> {
        let tenant = TenantId::parse("t1").unwrap();
        let events = overlay.of(&tenant, &ProcessId::parse(process).unwrap());
        events.iter().map(|event| event.position).collect()
    }

    fn taken(overlay: &Overlay, after: i64, max: usize) -> Vec<i64> {
        match overlay.take(after, max) {
            Taken::Events(events) => events.iter().map(|event| event.position).collect(),
            other => panic!("{other:?}"),
        }
    }

    #[test]
    fn an_event_is_seen_until_it_is_projected() {
        let overlay = Overlay::new(4);
        add(&overlay, &[(5, "a"), (6, "b"), (7, "a")]);
        assert_eq!(positions_of(&overlay, "a"), [5, 7]);
        assert_eq!(overlay.backlog(), (3, Some(Timestamp::from_micros(1_000_005))));
        overlay.projected(6);
        assert_eq!(overlay.trimmed_to(), 6);
        assert_eq!(positions_of(&overlay, "a"), [7]);
        assert_eq!(positions_of(&overlay, "b"), [0; 0]);
        overlay.projected(7);
        assert_eq!(overlay.backlog(), (0, None));
        assert!(overlay.shards.iter().all(|shard| shard.lock().is_empty()));
    }

    #[test]
    fn the_stamp_of_a_process_changes_with_its_events_and_with_each_commit() {
        let overlay = Overlay::new(0);
        let tenant = TenantId::parse("t1").unwrap();
        let stamp = || overlay.stamp(&tenant, "a", overlay.commits());
        let fresh = stamp();
        assert_eq!(stamp(), fresh);
        add(&overlay, &[(1, "a")]);
        let accepted = stamp();
        assert_ne!(accepted, fresh);
        overlay.projected(1);
        let projected = stamp();
        assert_ne!(projected, accepted);
        overlay.committed();
        assert_ne!(stamp(), projected);
    }

    #[test]
    fn the_listener_takes_what_follows_and_is_sent_to_the_log_for_the_rest() {
        let overlay = Overlay::new(0);
        assert!(matches!(overlay.take(0, 10), Taken::Empty));
        add(&overlay, &[(1, "a"), (2, "a"), (4, "a"), (5, "a")]);
        assert_eq!(taken(&overlay, 0, 10), [1, 2], "up to the hole");
        assert!(matches!(overlay.take(2, 10), Taken::Gap), "the hole lies in the log");
        assert_eq!(taken(&overlay, 3, 1), [4]);
        assert_eq!(taken(&overlay, 4, 9), [5]);
        assert!(matches!(overlay.take(5, 10), Taken::Empty));
        overlay.log_ends_at(9);
        assert!(matches!(overlay.take(5, 10), Taken::Gap));
        assert_eq!(overlay.backlog().0, 9);
    }

    #[test]
    fn an_event_that_was_projected_before_it_came_is_not_kept() {
        let overlay = Overlay::new(0);
        overlay.projected(2);
        add(&overlay, &[(1, "a"), (2, "a"), (3, "a")]);
        assert_eq!(positions_of(&overlay, "a"), [3]);
        assert_eq!(overlay.backlog().0, 1);
    }

    #[test]
    fn room_ends_by_bytes_and_by_count_and_comes_back() {
        let overlay = Overlay::new(0);
        let mut large = accepted(1, "a", 1);
        large.envelope.payload = "x".repeat(BYTES_MAX).into();
        overlay.add(&[Arc::new(large)]);
        assert!(!overlay.has_room());
        overlay.projected(1);
        assert!(overlay.has_room());
        let event = accepted(2, "a", 2);
        let many: Vec<_> = (2..)
            .take(EVENTS_MAX)
            .map(|position| Arc::new(Accepted { position, ..event.clone() }))
            .collect();
        overlay.add(&many);
        assert!(!overlay.has_room());
    }

    #[test]
    fn a_tenant_has_its_share_when_as_much_of_it_waits_as_is_left_to_the_others() {
        let overlay = Overlay::new(0);
        let of = |tenant: &str, position: i64, payload: usize| {
            let mut event = accepted(position, "a", position.unsigned_abs());
            event.envelope.tenant = TenantId::parse(tenant).unwrap();
            event.envelope.payload = "x".repeat(payload).into();
            Arc::new(event)
        };
        let batch: Vec<Envelope> =
            ["a", "b", "a", "c"].map(|tenant| of(tenant, 1, 0).envelope.clone()).into();
        let full = || -> Vec<String> {
            overlay.with_their_share(&batch).iter().map(ToString::to_string).collect()
        };
        let none: [&str; 0] = [];
        overlay.add(&[of("a", 1, BYTES_MAX / 2 - 2 * EVENT_BYTES)]);
        assert_eq!(full(), none);
        overlay.add(&[of("a", 2, 0)]);
        assert_eq!(full(), ["a"], "alone it gets half");
        overlay.add(&[of("b", 3, BYTES_MAX / 4)]);
        assert_eq!(full(), ["a", "b"], "nobody has more than is left, and there is something left");
        assert!(overlay.has_room());
        overlay.projected(2);
        assert_eq!(full(), none);
        overlay.projected(3);
        assert!(overlay.waiting.lock().shares.is_empty());
        // By their number as well as by their bytes.
        let small = of("a", 4, 0);
        let many: Vec<_> = (4..)
            .take(EVENTS_MAX / 2)
            .map(|position| Arc::new(Accepted { position, ..Accepted::clone(&small) }))
            .collect();
        overlay.add(&many[..many.len() - 1]);
        assert_eq!(full(), none);
        overlay.add(&many[many.len() - 1..]);
        assert_eq!(full(), ["a"]);
    }

    #[test]
    fn a_sleeping_listener_wakes_for_an_event_and_for_the_stop() {
        let overlay = Arc::new(Overlay::new(0));
        let (ended, _names) = channel::unbounded();
        let (said, words) = channel::unbounded();
        let mut component = Component::start("listener", ended, {
            let overlay = Arc::clone(&overlay);
            move |stop| {
                said.send(overlay.wait(0, Duration::from_secs(3600), &stop))?;
                said.send(overlay.wait(1, Duration::from_secs(3600), &stop))?;
                Ok(())
            }
        })
        .unwrap();
        let soon = Duration::from_secs(10);
        add(&overlay, &[(1, "a")]);
        assert!(words.recv_timeout(soon).unwrap(), "an event");
        assert!(matches!(component.join_by(Instant::now() + soon), End::Clean));
        assert!(!words.recv_timeout(soon).unwrap(), "the stop");
    }

    #[test]
    fn a_reader_never_misses_an_acknowledged_event() {
        const LAST: i64 = 20_000;
        let soon = Duration::from_secs(30);
        let overlay = Arc::new(Overlay::new(0));
        // What is acknowledged, and what the projection has committed.
        let (acknowledged, stored) = (Arc::new(AtomicI64::new(0)), Arc::new(AtomicI64::new(0)));
        let (ended, names) = channel::unbounded();
        let mut intake = Component::start("intake", ended.clone(), {
            let (overlay, acknowledged) = (Arc::clone(&overlay), Arc::clone(&acknowledged));
            move |_stop| {
                for position in 1..=LAST {
                    add(&overlay, &[(position, "a")]);
                    acknowledged.store(position, Ordering::SeqCst);
                }
                Ok(())
            }
        })
        .unwrap();
        let mut listener = Component::start("listener", ended, {
            let (overlay, stored) = (Arc::clone(&overlay), Arc::clone(&stored));
            move |stop| {
                while overlay.trimmed_to() < LAST {
                    let after = overlay.trimmed_to();
                    overlay.wait(after, Duration::from_secs(10), &stop);
                    if let Taken::Events(events) = overlay.take(after, 7) {
                        let newest = events[events.len() - 1].position;
                        stored.store(newest, Ordering::SeqCst);
                        overlay.projected(newest);
                    }
                }
                Ok(())
            }
        })
        .unwrap();
        let mut asked = 0;
        while stored.load(Ordering::SeqCst) < LAST {
            let promised = acknowledged.load(Ordering::SeqCst);
            let (snapshot, waiting) = loop {
                let snapshot = stored.load(Ordering::SeqCst);
                let waiting = positions_of(&overlay, "a");
                if overlay.trimmed_to() <= snapshot {
                    break (snapshot, waiting);
                }
            };
            let seen: Vec<_> = waiting.into_iter().filter(|at| *at > snapshot).collect();
            assert!(
                seen.iter().copied().eq((snapshot + 1..).take(seen.len())),
                "{snapshot} {seen:?}"
            );
            assert!(seen.last().copied().unwrap_or(snapshot) >= promised, "{snapshot} {seen:?}");
            asked += 1;
        }
        assert!(asked > 10, "{asked} questions");
        for component in [&mut intake, &mut listener] {
            assert!(matches!(component.join_by(Instant::now() + soon), End::Clean));
        }
        assert_eq!(names.try_iter().count(), 2);
    }
}
