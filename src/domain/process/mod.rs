//! What a process is doing, computed from its events and nothing else (laws 2-4). This module is what others see of
//! it: a [`State`] that takes events in any order, and the [`Row`] and the [`RunRow`]s that follow from it.
//!
//! ```text
//! event ─▶ mark::read ─▶ State::merge ─▶ State::row, State::runs
//! ```
//!
//! `key.rs` says which event came first, `mark.rs` what an event means, `state.rs` what is kept, `runs.rs` which runs
//! there are, `settled.rs` which have left,
//! `row.rs` what is shown, and `expiry.rs` when silence makes a process lost. All of it is pure.

pub mod expiry;
pub mod key;
pub mod mark;
mod row;
mod runs;
mod settled;
mod state;
mod strand;
#[cfg(test)]
mod tests;
pub mod text;

use std::time::Duration;

use serde::{Deserialize, Serialize};

use super::ids::{EventId, ProcessId, TenantId};
use super::time::Timestamp;

pub use runs::SKEW;
pub use settled::SETTLED_KEPT;
pub use state::{
    ENDS_KEPT, JUDGEMENTS_KEPT, REGISTRATIONS_KEPT, RUNS_KEPT, STUBS_KEPT, State, StateError,
};
pub use strand::{LIVES_KEPT, MEMBER_VALUES_KEPT, REPORTS_KEPT};

/// What a process is doing [PM2].
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "UPPERCASE")]
pub enum Status {
    /// Known, nothing seen yet.
    Registered,
    /// Alive without a STARTED.
    Active,
    Running,
    Paused,
    Completed,
    Failed,
    /// Silent past its deadline; the next sign of life revives it.
    Expired,
    /// Ended and past retention.
    Archived,
}

impl Status {
    pub const ALL: [Self; 8] = [
        Self::Registered,
        Self::Active,
        Self::Running,
        Self::Paused,
        Self::Completed,
        Self::Failed,
        Self::Expired,
        Self::Archived,
    ];

    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Registered => "REGISTERED",
            Self::Active => "ACTIVE",
            Self::Running => "RUNNING",
            Self::Paused => "PAUSED",
            Self::Completed => "COMPLETED",
            Self::Failed => "FAILED",
            Self::Expired => "EXPIRED",
            Self::Archived => "ARCHIVED",
        }
    }

    /// Takes the word in either case.
    pub fn parse(text: &str) -> Option<Self> {
        Self::ALL.into_iter().find(|status| status.as_str().eq_ignore_ascii_case(text))
    }
}

/// How a run ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Outcome {
    Completed,
    Failed,
    /// A later STARTED came while it was open: neither success nor failure.
    Superseded,
}

impl Outcome {
    pub const ALL: [Self; 3] = [Self::Completed, Self::Failed, Self::Superseded];

    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Completed => "completed",
            Self::Failed => "failed",
            Self::Superseded => "superseded",
        }
    }

    pub fn parse(text: &str) -> Option<Self> {
        Self::ALL.into_iter().find(|outcome| outcome.as_str() == text)
    }
}

/// How long silence is borne where a process says nothing else itself.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Policy {
    /// Silence of this length makes a process EXPIRED [PM6].
    pub timeout: Duration,
    /// How often a process is expected to send heartbeats.
    pub heartbeat_interval: Duration,
}

/// Silence of this many heartbeat intervals makes a process stale [PM6].
pub const STALE_INTERVALS: u32 = 3;

/// One run, as `/processes/{id}/runs` shows it and as the history counts it.
///
/// A run without a name that has neither start nor outcome is none: it withdraws the one that was there before.
#[derive(Debug, Clone, PartialEq)]
pub struct RunRow {
    pub run_id: Option<EventId>,
    pub started_at: Option<Timestamp>,
    pub ended_at: Option<Timestamp>,
    /// None while it is open.
    pub outcome: Option<Outcome>,
    pub duration_ms: Option<u64>,
    pub error_code: Option<String>,
    pub error_message: Option<String>,
}

/// A process as it stands: what follows from its [`State`].
#[derive(Debug, Clone, PartialEq)]
pub struct Row {
    pub tenant: TenantId,
    pub process: ProcessId,
    pub status: Status,
    /// Why, in words: the error of a failure, the judgement of an expiry.
    pub reason: Option<String>,
    pub run_id: Option<EventId>,
    /// How many runs there have been, this one included.
    pub run_no: u64,
    pub started_at: Option<Timestamp>,
    pub ended_at: Option<Timestamp>,
    pub current_step: Option<String>,
    pub progress_percent: Option<f64>,
    /// The time of the newest event that counts.
    pub last_update_at: Timestamp,
    /// The newest receipt of a sign of life in this run.
    pub last_life_at: Option<Timestamp>,
    /// When silence makes it EXPIRED. None: it is not waited for.
    pub deadline_at: Option<Timestamp>,
    /// The run has sent at least one heartbeat, so silence can make it stale.
    pub heartbeat_seen: bool,
    pub heartbeat_interval: Duration,
    pub expected_duration: Option<Duration>,
    pub process_type: Option<String>,
    pub process_name: Option<String>,
    pub package_name: Option<String>,
    pub procedure_name: Option<String>,
    pub correlation_id: Option<String>,
    /// The user's own metadata, merged; JSON object text.
    pub metadata: serde_json::Map<String, serde_json::Value>,
    pub registered_at: Timestamp,
    pub total_executions: u64,
    pub successful_runs: u64,
    pub failed_runs: u64,
    pub avg_duration_ms: Option<u64>,
}

impl Row {
    /// Whether a process that sends heartbeats has been silent for [`STALE_INTERVALS`] of them.
    pub fn is_stale(&self, now: Timestamp) -> bool {
        self.stale_after().is_some_and(|last| now > last)
    }

    /// The last moment at which silence is borne. None: it may be silent for ever.
    pub fn stale_after(&self) -> Option<Timestamp> {
        let waited_for =
            self.heartbeat_seen && matches!(self.status, Status::Running | Status::Active);
        let life = self.last_life_at.filter(|_| waited_for)?;
        Some(life.plus(self.heartbeat_interval.saturating_mul(STALE_INTERVALS)))
    }
}
