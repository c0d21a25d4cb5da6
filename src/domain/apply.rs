//! Decides what a batch of messages changes: pure, and the same whatever way the events are batched (law 2).

use super::dead_letter::DeadLetter;
use super::event::Accepted;
use super::ids::{ProcessId, TenantId};
use super::process::{Row, RunRow, State};
use std::sync::Arc;

/// One process after a batch.
#[derive(Debug, Clone, PartialEq)]
pub struct ProcessChange {
    pub state: State,
    pub row: Row,
    /// Runs that are new or different, for the history.
    pub runs: Vec<RunRow>,
    /// Under which name the durations of its runs are averaged (package.procedure, else name, else process id).
    pub history_key: String,
}

/// Everything that a batch changes.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct Change {
    /// Every event that was applied, in the order of acceptance.
    pub events: Vec<Arc<Accepted>>,
    /// Sorted by (tenant, process) (law 11).
    pub processes: Vec<ProcessChange>,
    pub dead_letters: Vec<DeadLetter>,
}

/// The processes that a message touches, for the store to load.
pub type Touched = Vec<(TenantId, ProcessId)>;
