//! Keeps the store in shape: checkpoints, trims, snapshots, retention. This module is the `keeper` thread.
//!
//! None of it is urgent and all of it is slow, so it has a thread of its own: a checkpoint on the acknowledging
//! thread would be the whole tail of a durable request. Each pass is bounded, and what fails for the moment waits
//! for the next one.

use std::io;
use std::sync::Arc;
use std::time::Duration;

use crossbeam::channel::Sender;

use crate::component::Component;
use crate::domain::time::Timestamp;
use crate::store::{KeeperSession, Result, StoreError, Upkeep};
use crate::telemetry::metrics::{Metrics, ProcessStatusLabel};

/// Between two rounds of upkeep. The WAL grows by what is written in between.
const UPKEEP_PAUSE: Duration = Duration::from_millis(250);
/// Between two counts of processes, each a walk over an index.
const COUNT_PAUSE: Duration = Duration::from_secs(15);
/// Between two looks at what retention may drop.
const ARCHIVE_PAUSE: Duration = Duration::from_secs(60);
/// Rows that one archiving transaction touches at most: some ten milliseconds of the writer's lock.
const ARCHIVE_ROWS: usize = 500;

/// What the keeper works with besides its session.
pub struct Keeper {
    pub retention: Duration,
    /// The store's clock.
    pub clock: Arc<dyn Fn() -> Timestamp + Send + Sync>,
    pub metrics: Arc<Metrics>,
    counted_at: Option<Timestamp>,
    archived_at: Option<Timestamp>,
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
        while stop.sleep(UPKEEP_PAUSE) {
            match keeper.pass(&mut *session, (keeper.clock)()) {
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
        Self { retention, clock, metrics, counted_at: None, archived_at: None }
    }

    /// One round: upkeep always, the slower duties when it is their time.
    ///
    /// # Errors
    /// Whatever the store says; what was done by then stays done.
    pub fn pass(&mut self, session: &mut dyn KeeperSession, now: Timestamp) -> Result<Upkeep> {
        let upkeep = session.upkeep(now)?;
        if is_due(self.counted_at, COUNT_PAUSE, now) {
            self.counted_at = Some(now);
            for (status, count) in session.count_processes()? {
                let label = ProcessStatusLabel { status: status.as_str() };
                let count = i64::try_from(count).unwrap_or(i64::MAX);
                self.metrics.processes.get_or_create(&label).set(count);
            }
        }
        if is_due(self.archived_at, ARCHIVE_PAUSE, now) {
            // One portion a round, so that checkpoints get their turn; zero ends it until the next time.
            match session.archive(now.minus(self.retention), ARCHIVE_ROWS) {
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
