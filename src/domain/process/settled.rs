//! Runs that have left a state because newer ones came. This module counts them and remembers as little of them as
//! keeps what comes late for them from making a new run.
//!
//! **Invariant:** a run leaves once, with its outcome counted, and nothing that comes afterwards changes it. So it is
//! settled only when [`RUNS_KEPT`](super::RUNS_KEPT) newer ones have started; with events in the order of acceptance it is long over.

use serde::{Deserialize, Serialize};
use smallvec::SmallVec;

use super::key::{self, Key};
use super::runs::{self, Run};
use super::state::{STUBS_KEPT, State};
use super::{Outcome, RunRow};
use crate::domain::ids::EventId;

/// How many ids of settled runs are remembered, so that their late reports do not make a new run.
pub const SETTLED_KEPT: usize = 16;

/// How many runs there have been, and how they went. Sums of integers, so that order cannot matter.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct Tally {
    pub(super) total: u64,
    pub(super) successful: u64,
    pub(super) failed: u64,
    /// Successful runs with a known start, and how long they took together.
    pub(super) timed: u64,
    pub(super) timed_ms: u64,
}

impl Tally {
    pub(super) fn count(&mut self, run: &RunRow) {
        self.total += 1;
        match run.outcome {
            Some(Outcome::Completed) => {
                self.successful += 1;
                if let Some(duration_ms) = run.duration_ms {
                    self.timed += 1;
                    self.timed_ms = self.timed_ms.saturating_add(duration_ms);
                }
            }
            Some(Outcome::Failed) => self.failed += 1,
            Some(Outcome::Superseded) | None => {}
        }
    }
}

/// Runs that cannot change any more.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
pub(super) struct Settled {
    pub(super) tally: Tally,
    /// The start after the newest settled run: nothing that sorts before it is looked at any more.
    pub(super) horizon: Option<Key>,
    /// The newest ids, oldest first.
    ids: Vec<SettledId>,
}

#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
struct SettledId(
    #[serde(serialize_with = "key::serialize_id", deserialize_with = "key::deserialize_id")]
    EventId,
);

impl Settled {
    pub(super) fn knows(&self, id: &EventId) -> bool {
        self.ids.iter().any(|known| known.0 == *id)
    }

    pub(super) fn is_past(&self, key: &Key) -> bool {
        self.horizon.as_ref().is_some_and(|horizon| key < horizon)
    }

    fn remember(&mut self, id: EventId) {
        if self.ids.len() == SETTLED_KEPT {
            self.ids.remove(0);
        }
        self.ids.push(SettledId(id));
    }
}

impl State {
    /// Settles the oldest started run and every stub that lies before its successor.
    pub(super) fn settle_oldest_run(&mut self) -> Vec<RunRow> {
        let runs = runs::of(self);
        let Some(successor) = runs.iter().filter(|run| run.start.is_some()).nth(1) else {
            return Vec::new();
        };
        let horizon = successor.position.clone();
        // An end that was dated too early to fall into its run must survive what is forgotten before the run.
        let early_end = successor.end.map(|end| end.key.clone());
        let settled: SmallVec<[(RunRow, Option<EventId>); 4]> = runs
            .iter()
            .filter(|run| *run.position < horizon)
            .map(|run| (run.row(), run.id.cloned()))
            .collect();
        drop(runs);
        let kept = |key: &Key| *key >= horizon || Some(key) == early_end.as_ref();
        self.entries.retain(|entry| entry.position().is_some_and(|at| *at >= horizon));
        self.ends.retain(|end| kept(&end.key));
        self.untagged.forget_before(&horizon);
        self.settled.horizon = Some(horizon);
        settled.into_iter().filter_map(|(run, id)| self.settle(run, id)).collect()
    }

    /// Settles the oldest runs without a start that are too many.
    pub(super) fn settle_stubs(&mut self) -> Vec<RunRow> {
        if self.entries.iter().filter(|entry| entry.start.is_none()).count() <= STUBS_KEPT {
            return Vec::new();
        }
        let runs = runs::of(self);
        let is_stub = |run: &&Run<'_>| run.start.is_none() && run.id.is_some();
        let Some((run, Some(id))) =
            runs.iter().find(is_stub).map(|stub| (stub.row(), stub.id.cloned()))
        else {
            return Vec::new();
        };
        drop(runs);
        self.entries.retain(|entry| entry.id != id);
        self.settle(run, Some(id)).into_iter().collect()
    }

    /// Counts a run that leaves. Returns it if it is one that people see.
    fn settle(&mut self, run: RunRow, id: Option<EventId>) -> Option<RunRow> {
        if let Some(id) = id {
            self.settled.remember(id);
        }
        runs::counts(&run).then(|| {
            self.settled.tally.count(&run);
            run
        })
    }
}
