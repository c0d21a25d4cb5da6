//! Keeps the store in shape: checkpoints, trims, snapshots, retention. This module is the `keeper` thread.
//!
//! None of it is urgent and all of it is slow, so it has a thread of its own: a checkpoint on the acknowledging
//! thread would be the whole tail of a durable request. Each pass is bounded, and what fails for the moment waits
//! for the next one.
//!
//! What goes by its age is gone for good, and a clock that is wrong for a minute must not empty the store. So after the
//! wall clock jumped ahead of the steady one (a wrong time server, a mistyped date, a machine that slept), ages are told
//! by the time before the jump until the new time has stood for [`DOUBT`].

use std::io;
use std::sync::Arc;
use std::time::{Duration, Instant};

use crossbeam::channel::Sender;

use crate::component::{Component, allow_long_steps, step_back};
use crate::domain::time::Timestamp;
use crate::store::{KeeperSession, Result, StoreError, Upkeep};
use crate::telemetry::metrics::{Metrics, ProcessStatusLabel, StoreCall};

/// How long a round may take: a snapshot and a trim of files of many gigabytes on a slow disk.
const STEP_MAX: Duration = Duration::from_secs(600);
/// Between two rounds of upkeep. The WAL grows by what is written in between.
const UPKEEP_PAUSE: Duration = Duration::from_millis(250);
/// Between two counts of processes, each a walk over an index.
const COUNT_PAUSE: Duration = Duration::from_secs(15);
/// Between two looks at what retention may drop.
const ARCHIVE_PAUSE: Duration = Duration::from_secs(60);
/// Rows that one archiving transaction touches at most: some ten milliseconds of the writer's lock.
const ARCHIVE_ROWS: usize = 500;

/// Wall and steady clock may differ by this much between two passes before it counts as a jump.
const JUMP_MAX: Duration = Duration::from_secs(60);
/// How long a time is doubted to which the wall clock jumped ahead: long enough for somebody to see it and set it right.
pub const DOUBT: Duration = Duration::from_secs(3600);

/// What the keeper works with besides its session.
pub struct Keeper {
    pub retention: Duration,
    /// The store's clock.
    pub clock: Arc<dyn Fn() -> Timestamp + Send + Sync>,
    pub metrics: Arc<Metrics>,
    age_clock: AgeClock,
    counted_at: Option<Timestamp>,
    archived_at: Option<Timestamp>,
}

/// Tells the time that ages are told by.
#[derive(Debug, Default)]
struct AgeClock {
    /// What both clocks said when they were last believed.
    believed: Option<(Timestamp, Duration)>,
    /// Since when, on the steady clock, the wall clock is not.
    doubted_since: Option<Duration>,
}

impl AgeClock {
    fn tell(&mut self, wall: Timestamp, steady: Duration) -> Timestamp {
        if let Some((then, begun)) = self.believed {
            let expected = then.plus(steady.saturating_sub(begun));
            if wall.since(expected) > JUMP_MAX {
                if self.doubted_since.is_none() {
                    log::warn!(
                        "the wall clock jumped ahead: nothing goes by its new time for {DOUBT:?}"
                    );
                }
                let since = *self.doubted_since.get_or_insert(steady);
                if steady.saturating_sub(since) < DOUBT {
                    return expected;
                }
            }
        }
        self.believed = Some((wall, steady));
        self.doubted_since = None;
        wall
    }
}

/// Starts the keeper.
///
/// # Errors
/// When the system gives no thread.
pub fn start(
    mut session: Box<dyn KeeperSession>,
    mut keeper: Keeper,
    ended: Sender<String>,
) -> io::Result<Component> {
    Component::start("keeper", ended, move |stop| {
        step_back();
        allow_long_steps(STEP_MAX);
        let begun = Instant::now();
        while stop.sleep(UPKEEP_PAUSE) {
            match keeper.pass(&mut *session, (keeper.clock)(), begun.elapsed()) {
                Ok(_) => {}
                Err(error) if error.is_transient() => log::warn!("upkeep is put off: {error}"),
                Err(error) => return Err(error.into()),
            }
        }
        Ok(())
    })
}

impl Keeper {
    pub fn new(
        retention: Duration,
        clock: Arc<dyn Fn() -> Timestamp + Send + Sync>,
        metrics: Arc<Metrics>,
    ) -> Self {
        let age_clock = AgeClock::default();
        Self { retention, clock, metrics, age_clock, counted_at: None, archived_at: None }
    }

    /// One round: upkeep always, the slower duties when it is their time. `wall` is the store's clock, which may jump,
    /// and `steady` one that only runs.
    ///
    /// # Errors
    /// Whatever the store says; what was done by then stays done.
    pub fn pass(
        &mut self,
        session: &mut dyn KeeperSession,
        wall: Timestamp,
        steady: Duration,
    ) -> Result<Upkeep> {
        let now = self.age_clock.tell(wall, steady);
        let metrics = &self.metrics;
        let upkeep = metrics.timed(StoreCall::Upkeep, || session.upkeep(now))?;
        if is_due(self.counted_at, COUNT_PAUSE, now) {
            self.counted_at = Some(now);
            let counts = metrics.timed(StoreCall::CountProcesses, || session.count_processes())?;
            for (status, count) in counts {
                let label = ProcessStatusLabel { status: status.as_str() };
                let count = i64::try_from(count).unwrap_or(i64::MAX);
                self.metrics.processes.get_or_create(&label).set(count);
            }
        }
        if is_due(self.archived_at, ARCHIVE_PAUSE, now) {
            // One portion a round, so that checkpoints get their turn; zero ends it until the next time.
            let before = now.minus(self.retention);
            match metrics.timed(StoreCall::Archive, || session.archive(before, ARCHIVE_ROWS)) {
                Ok(0) => self.archived_at = Some(now),
                Ok(rows) => log::debug!(rows; "past retention: dropped"),
                Err(StoreError::Busy { .. }) => {}
                Err(error) => return Err(error),
            }
        }
        Ok(upkeep)
    }
}

fn is_due(last: Option<Timestamp>, pause: Duration, now: Timestamp) -> bool {
    last.is_none_or(|last| now.since(last) >= pause || now < last)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::domain::ids::{ProcessId, TenantId};
    use crate::domain::process::Status;
    use crate::store::Overdue;

    /// Counts what it is asked for; `old` portions are past retention.
    #[derive(Default)]
    struct Session {
        upkeeps: u32,
        counts: u32,
        archived_before: Vec<Timestamp>,
        old: usize,
    }

    impl KeeperSession for Session {
        fn overdue(&mut self, _until: Timestamp, _limit: usize) -> Result<Vec<Overdue>> {
            unreachable!("that is the reaper's")
        }

        fn put_off(&mut self, _: &TenantId, _: &ProcessId, _: Timestamp) -> Result<()> {
            unreachable!("that is the reaper's")
        }

        fn archive(&mut self, before: Timestamp, _limit: usize) -> Result<usize> {
            self.archived_before.push(before);
            let left = self.old;
            self.old = self.old.saturating_sub(1);
            Ok(left)
        }

        fn count_processes(&mut self) -> Result<Vec<(Status, u64)>> {
            self.counts += 1;
            Ok(vec![(Status::Running, 7)])
        }

        fn upkeep(&mut self, _now: Timestamp) -> Result<Upkeep> {
            self.upkeeps += 1;
            Ok(Upkeep::default())
        }
    }

    #[test]
    fn upkeep_runs_each_time_and_the_slow_duties_when_they_are_due() {
        let metrics = Arc::new(Metrics::new());
        let retention = Duration::from_secs(1000);
        let mut keeper = Keeper::new(retention, Arc::new(Timestamp::default), Arc::clone(&metrics));
        let mut session = Session { old: 2, ..Session::default() };
        let begin = Timestamp::from_micros(10_000_000_000);
        for second in 0..=60 {
            let steady = Duration::from_secs(second);
            keeper.pass(&mut session, begin.plus(steady), steady).unwrap();
        }
        assert_eq!((session.upkeeps, session.counts), (61, 5));
        // Two portions and the empty one that ends it, and once more a minute after that.
        assert_eq!(session.archived_before.len(), 3);
        assert_eq!(session.archived_before[0], begin.minus(retention));
        let steady = Duration::from_secs(62);
        keeper.pass(&mut session, begin.plus(steady), steady).unwrap();
        assert_eq!(session.archived_before.len(), 4);
        let label = ProcessStatusLabel { status: "RUNNING" };
        assert_eq!(metrics.processes.get_or_create(&label).get(), 7);
    }

    #[test]
    fn a_wall_clock_that_jumps_ahead_ages_nothing_before_its_time_has_stood() {
        const YEAR: Duration = Duration::from_secs(366 * 86_400);
        let retention = Duration::from_secs(30 * 86_400);
        let mut keeper = Keeper::new(retention, Arc::new(Timestamp::default), Arc::default());
        let begin = Timestamp::parse("2026-01-28T10:00:00Z").unwrap();
        // The newest moment before which something was dropped, when both clocks have run for `minutes` and the wall
        // clock is ahead by `ahead` besides.
        let mut dropped = |minutes: u64, ahead: Duration| {
            let mut session = Session::default();
            let steady = Duration::from_secs(minutes * 60);
            keeper.pass(&mut session, begin.plus(steady).plus(ahead), steady).unwrap();
            session.archived_before.last().map(|before| before.plus(retention))
        };
        let after = |minutes: u64| Some(begin.plus(Duration::from_secs(minutes * 60)));
        assert_eq!(dropped(0, Duration::ZERO), after(0));
        // Wrong for ten minutes.
        for minutes in 2..12 {
            assert_eq!(dropped(minutes, YEAR), after(minutes), "in minute {minutes}");
        }
        assert_eq!(dropped(12, Duration::ZERO), after(12));
        // Wrong again, so the doubt begins anew, and this time it is nobody's error.
        for minutes in 13..73 {
            assert_eq!(dropped(minutes, YEAR), after(minutes), "in minute {minutes}");
        }
        assert_eq!(dropped(73, YEAR), after(73).map(|at| at.plus(YEAR)));
        // Set back, it is believed at once: nothing is older for it.
        assert_eq!(dropped(74, Duration::ZERO), after(74));
    }
}
