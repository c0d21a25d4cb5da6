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

#[cfg(test)]
mod tests {
    use super::*;
    use crate::domain::ids::{ProcessId, TenantId};
    use crate::domain::process::{Policy, State};

    fn row() -> Row {
        let policy =
            Policy { timeout: Duration::from_secs(9), heartbeat_interval: Duration::from_secs(3) };
        let tenant = TenantId::parse("contoso").unwrap();
        State::default().row(&tenant, &ProcessId::parse("ABC123").unwrap(), &policy)
    }

    #[test]
    fn history_is_kept_under_what_runs_have_in_common() {
        let mut row = row();
        assert_eq!(history_key(&row), "ABC123");
        row.package_name = Some("CONTRACT_PKG".to_string());
        assert_eq!(history_key(&row), "ABC123", "a package alone says too little");
        row.process_name = Some("nightly".to_string());
        assert_eq!(history_key(&row), "nightly");
        row.procedure_name = Some("CREATE_CONTRACT".to_string());
        assert_eq!(history_key(&row), "CONTRACT_PKG.CREATE_CONTRACT");
    }

    #[test]
    fn a_median_needs_three_samples() {
        assert_eq!(median(&mut []), None);
        assert_eq!(median(&mut [5, 1]), None);
        assert_eq!(median(&mut [9, 1, 5]), Some(5));
        assert_eq!(median(&mut [9, 1, 5, 6]), Some(5));
        assert_eq!(median(&mut [u64::MAX, u64::MAX, u64::MAX - 2, 0]), Some(u64::MAX - 1));
    }

    #[test]
    fn a_running_process_is_done_at_its_start_and_the_median() {
        let start = Timestamp::parse("2026-01-28T10:30:00Z").unwrap();
        let mut row = row();
        (row.status, row.started_at) = (Status::Running, Some(start));
        assert_eq!(estimated_completion(&row, None), None);
        row.expected_duration = Some(Duration::from_secs(60));
        assert_eq!(estimated_completion(&row, None), Timestamp::parse("2026-01-28T10:31:00Z"));
        assert_eq!(
            estimated_completion(&row, Some(30_000)),
            Timestamp::parse("2026-01-28T10:30:30Z")
        );
        row.status = Status::Completed;
        assert_eq!(estimated_completion(&row, Some(30_000)), None);
    }
}
