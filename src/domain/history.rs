//! How long runs of one kind take. This module names the kind and reckons when a running one should be done [PM8].
//!
//! PL/SQL gets a new process id for each run, so history is kept under what the runs have in common.

use super::process::{Row, Status};
use super::time::Timestamp;
use std::time::Duration;

/// How many of the newest successes count: the past says less about the future the longer ago it is.
pub const SAMPLES_MAX: usize = 20;
/// How many it takes at least: one or two say nothing.
pub const SAMPLES_MIN: usize = 3;

/// Under which name the durations of a process are kept: package.procedure, else its name, else its id.
pub fn history_key(row: &Row) -> String {
    match (&row.package_name, &row.procedure_name, &row.process_name) {
        (Some(package), Some(procedure), _) => format!("{package}.{procedure}"),
        (_, _, Some(name)) => name.clone(),
        _ => row.process.as_str().to_string(),
    }
}

/// The median, in whole milliseconds, of what `durations_ms` holds. None below [`SAMPLES_MIN`]. It sorts its input.
pub fn median(durations_ms: &mut [u64]) -> Option<u64> {
    if durations_ms.len() < SAMPLES_MIN {
        return None;
    }
    durations_ms.sort_unstable();
    let middle = durations_ms.len() / 2;
    Some(if durations_ms.len() % 2 == 1 {
        durations_ms[middle]
    } else {
        durations_ms[middle - 1].midpoint(durations_ms[middle])
    })
}

/// When a running process should be done: its start and the median of the past, else what it said it would take.
pub fn estimated_completion(row: &Row, median_ms: Option<u64>) -> Option<Timestamp> {
    if row.status != Status::Running {
        return None;
    }
    let takes = median_ms.map(Duration::from_millis).or(row.expected_duration)?;
    Some(row.started_at?.plus(takes))
}
