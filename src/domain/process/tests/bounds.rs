//! What happens at and beyond the bounds of a state. This module holds it small, and right for events in the order of
//! acceptance however many they are.

use super::super::{Outcome, RUNS_KEPT, RunRow, SETTLED_KEPT, STUBS_KEPT, State, Status};
use super::{Draft, apply, at, draft, mark_of, merged, outcome_of, row_of};
use std::sync::Arc;

/// Completed every minute, so many times, each run with its reports.
fn nights(count: i64) -> Vec<Draft> {
    (0..count)
        .flat_map(|night| {
            let begin = night * 60_000;
            [
                draft("started", &format!("r{night}"), begin).with("process_name", "nightly"),
                draft("progress", &format!("p{night}"), begin + 500).with("current_step", night),
                draft("completed", &format!("c{night}"), begin + 1_000),
            ]
        })
        .collect()
}

fn merged_drafts(drafts: &[Draft]) -> State {
    merged(&drafts.iter().map(Draft::event).collect::<Vec<_>>())
}

#[test]
fn settled_runs_stay_in_the_counters_and_go_into_the_history_once() {
    let mut state = None;
    let mut history: Vec<RunRow> = Vec::new();
    for chunk in nights(100).chunks(7) {
        let events: Vec<_> = chunk.iter().map(|draft| Arc::new(draft.event())).collect();
        let change = apply(state, &events).processes.remove(0);
        for run in change.runs {
            history.retain(|known| known.run_id != run.run_id);
            history.push(run);
        }
        state = Some(change.state);
    }
    let state = state.unwrap();
    let row = row_of(&state);
    assert_eq!((row.status, row.current_step.as_deref()), (Status::Completed, Some("99")));
    assert_eq!((row.total_executions, row.successful_runs, row.run_no), (100, 100, 100));
    assert_eq!(row.avg_duration_ms, Some(1_000));
    assert_eq!(state.runs().len(), RUNS_KEPT);
    assert_eq!(history.len(), 100);
    assert!(history.iter().all(|run| run.outcome == Some(Outcome::Completed)));
    let size = state.to_bytes().len();
    assert!(size < 2_000, "a process that has run a hundred times takes {size} bytes");
}

#[test]
fn all_runs_of_one_batch_go_into_the_history() {
    let events: Vec<_> = nights(30).iter().map(|draft| Arc::new(draft.event())).collect();
    let change = apply(None, &events).processes.remove(0);
    assert_eq!(change.runs.len(), 30);
    assert_eq!(change.row.total_executions, 30);
}

#[test]
fn what_comes_late_for_a_settled_run_changes_nothing() {
    let state = merged_drafts(&nights(20));
    let row = row_of(&state);
    for late in [
        draft("progress", "l1", 60_500).with("current_step", "late"),
        draft("failed", "l2", 61_500),
        draft("started", "l3", 62_000),
        draft("started", "r10", 600_000),
        draft("progress", "l4", 99_999_000).tagged("r10").with("current_step", "late"),
        draft("completed", "l5", 99_999_000).tagged("r9"),
    ] {
        let mut state = state.clone();
        assert_eq!(state.merge(mark_of(&late.event())), []);
        assert_eq!(row_of(&state), row, "{late:?}");
    }
}

#[test]
fn an_end_dated_before_its_start_survives_the_settling_of_the_run_before() {
    let mut drafts = vec![draft("started", "a", -10_000), draft("completed", "a1", -9_000)];
    // Dated 200 ms before the start of the run that becomes the oldest kept one.
    drafts.push(draft("failed", "b1", -200));
    drafts.push(draft("started", "b", 0));
    for later in 1..i64::try_from(RUNS_KEPT).unwrap() {
        drafts.push(draft("started", &format!("r{later}"), later * 60_000));
    }
    let state = merged_drafts(&drafts);
    assert_eq!(state.runs().len(), RUNS_KEPT);
    assert_eq!(state.runs()[0].outcome, Some(Outcome::Failed));
    let row = row_of(&state);
    assert_eq!((row.successful_runs, row.failed_runs), (1, 1));
    assert_eq!(row.total_executions, u64::try_from(RUNS_KEPT).unwrap() + 1);
}

#[test]
fn a_flood_of_late_reports_leaves_the_ended_run_as_it_was() {
    let mut drafts = vec![
        draft("started", "r1", 0),
        draft("progress", "p1", 500)
            .with("current_step", "last")
            .with("progress_percent", 99)
            .with("metadata", serde_json::json!({"rows": 7})),
        draft("completed", "c1", 1_000),
    ];
    let row = row_of(&merged_drafts(&drafts));
    for late in 0..500 {
        drafts.push(
            draft("progress", &format!("l{late}"), 2_000 + late)
                .with("current_step", "late")
                .with("progress_percent", 1)
                .with("metadata", serde_json::json!({"rows": late, format!("m{late}"): 1})),
        );
        drafts.push(draft("failed", &format!("f{late}"), 2_000 + late));
    }
    let state = merged_drafts(&drafts);
    assert_eq!(row_of(&state), row);
    let size = state.to_bytes().len();
    assert!(size < 12_000, "{size} bytes");
}

#[test]
fn a_step_outlives_any_number_of_reports_without_one() {
    let mut drafts =
        vec![draft("started", "r1", 0), draft("progress", "s", 1).with("current_step", "LOADING")];
    for tick in 0..300 {
        drafts
            .push(draft("progress", &format!("p{tick}"), 10 + tick).with("progress_percent", tick));
    }
    let row = row_of(&merged_drafts(&drafts));
    assert_eq!((row.current_step.as_deref(), row.progress_percent), (Some("LOADING"), Some(100.0)));
    let small = merged_drafts(&drafts).to_bytes().len();
    assert!(small < 1_200, "{small} bytes");
}

#[test]
fn signs_of_life_that_come_backwards_keep_the_newest_of_both_orders() {
    let mut drafts = vec![draft("started", "r1", 0)];
    for step in 0..200 {
        drafts.push(draft("heartbeat", &format!("h{step}"), 1_000 - step).received(2_000 + step));
    }
    let row = row_of(&merged_drafts(&drafts));
    assert_eq!((row.last_life_at, row.last_update_at), (Some(at(2_199)), at(1_000)));
}

#[test]
fn runs_that_never_start_are_forgotten_from_the_oldest_on() {
    let mut state = State::default();
    for stub in 0..100 {
        let tag = format!("r{stub}");
        let beat = draft("heartbeat", &format!("h{stub}"), stub * 1_000).tagged(&tag);
        let _ = state.merge(mark_of(&beat.event()));
        let _ = state.merge(mark_of(
            &draft("completed", &format!("c{stub}"), stub * 1_000 + 1).tagged(&tag).event(),
        ));
    }
    let row = row_of(&state);
    assert_eq!((row.status, row.total_executions), (Status::Completed, 100));
    assert_eq!(state.runs().len(), STUBS_KEPT);
    assert!(state.to_bytes().len() < 150 * (STUBS_KEPT + SETTLED_KEPT));
}

#[test]
fn long_texts_and_wide_metadata_are_cut() {
    let members: serde_json::Map<String, serde_json::Value> =
        (0..200).map(|member| (format!("m{member:03}"), member.into())).collect();
    let (row, runs) = outcome_of(&[
        draft("started", "r1", 0)
            .with("metadata", serde_json::json!({"big": "x".repeat(5_000), "ok": 1})),
        draft("progress", "p1", 1)
            .with("current_step", "s".repeat(1_000))
            .with("metadata", members),
        draft("failed", "f1", 2).with("error_message", "é".repeat(100_000)),
    ]);
    assert_eq!(row.current_step.unwrap().chars().count(), 200);
    assert_eq!(runs[0].error_message.as_ref().unwrap().chars().count(), 1_000);
    assert!(!row.metadata.contains_key("big"));
    assert_eq!(row.metadata.len(), 65);
}
