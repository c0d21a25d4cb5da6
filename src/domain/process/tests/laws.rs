//! A test for each sentence of laws 3 and 4, and of PM2 to PM9. This module gives each set of events to the merge in
//! every rotation, forwards, backwards and doubled, and to the plain fold (`outcome_of`).

use super::super::{Outcome, RunRow, State, Status};
use super::{Draft, apply, at, draft, mark_of, merged, outcome_of, process, row_of, tenant};
use crate::domain::dead_letter::Reason;
use crate::domain::ids::Source;
use crate::domain::process::mark;
use crate::domain::time::Timestamp;
use std::sync::Arc;
use std::time::Duration;

fn status_of(drafts: &[Draft]) -> Status {
    outcome_of(drafts).0.status
}

/// A judgement of the sign of life `id` at `ms`, as the reaper writes it.
fn expired(id: &str, judged: &Draft, rank: u8) -> Draft {
    let event = judged.event();
    draft("expired", id, 0)
        .with(
            "judged",
            serde_json::json!({
                "at_us": event.ordered_at.micros(), "rank": rank,
                "source": "billing", "event_id": judged.id,
            }),
        )
        .with("last_life_at", event.received_at.to_string())
}

#[test]
fn a_process_starts_reports_and_completes() {
    let (row, runs) = outcome_of(&[
        draft("started", "r1", 0)
            .with("package_name", "CONTRACT_PKG")
            .with("procedure_name", "CREATE_CONTRACT")
            .with("expected_duration_s", 60)
            .with("metadata", serde_json::json!({"a": 1, "b": 1})),
        draft("progress", "p1", 5_000)
            .with("current_step", "VALIDATING")
            .with("progress_percent", 10),
        draft("progress", "p2", 9_000)
            .with("current_step", "INSERTING")
            .with("progress_percent", 40.125)
            .with("metadata", serde_json::json!({"b": 2})),
        draft("completed", "c1", 12_000),
    ]);
    assert_eq!(row.status, Status::Completed);
    assert_eq!(row.run_id.unwrap().as_str(), "r1");
    assert_eq!((row.started_at, row.ended_at), (Some(at(0)), Some(at(12_000))));
    assert_eq!(row.current_step.as_deref(), Some("INSERTING"));
    assert_eq!(row.progress_percent, Some(40.13), "two decimals, and no invented 100");
    assert_eq!(row.last_update_at, at(12_000));
    assert_eq!(row.deadline_at, None);
    assert_eq!(serde_json::Value::from(row.metadata), serde_json::json!({"a": 1, "b": 2}));
    assert_eq!(row.package_name.as_deref(), Some("CONTRACT_PKG"));
    assert_eq!((row.total_executions, row.successful_runs, row.failed_runs), (1, 1, 0));
    assert_eq!(row.avg_duration_ms, Some(12_000));
    assert_eq!(runs.len(), 1);
    assert_eq!(runs[0].outcome, Some(Outcome::Completed));
    assert_eq!(runs[0].duration_ms, Some(12_000));
}

#[test]
fn a_failure_tells_why() {
    let failure = draft("failed", "f1", 9)
        .with("error_code", -1403)
        .with("error_message", "ORA-01403: no data found")
        .with("stack_trace", "at line 5");
    let (row, runs) = outcome_of(&[draft("started", "r1", 0), failure]);
    assert_eq!(row.status, Status::Failed);
    assert_eq!(row.reason.as_deref(), Some("-1403: ORA-01403: no data found"));
    assert_eq!(runs[0].error_code.as_deref(), Some("-1403"));
    assert_eq!((row.successful_runs, row.failed_runs, row.avg_duration_ms), (0, 1, None));
}

#[test]
fn each_started_opens_a_run_whose_id_is_that_events_id() {
    let (row, runs) = outcome_of(&[
        draft("started", "r1", 0),
        draft("completed", "c1", 10_000),
        draft("started", "r2", 20_000).with("run_id", "something-else"),
    ]);
    assert_eq!((row.status, row.run_no), (Status::Running, 2));
    assert_eq!(row.run_id.unwrap().as_str(), "r2");
    assert_eq!(row.current_step, None);
    assert_eq!(runs.len(), 2);
}

#[test]
fn a_report_that_carries_a_run_id_belongs_to_that_run_and_time_decides_nothing() {
    // Dated minutes before its start, and still of the second run.
    let (row, _) = outcome_of(&[
        draft("started", "r1", 0),
        draft("completed", "c1", 100_000).tagged("r1"),
        draft("started", "r2", 300_000),
        draft("progress", "p1", 50_000).tagged("r2").with("current_step", "early"),
    ]);
    assert_eq!((row.status, row.current_step.as_deref()), (Status::Running, Some("early")));
    // A late end of the first run leaves the second alone, and is believed more than the conclusion of its absence.
    let (row, runs) = outcome_of(&[
        draft("started", "r1", 0),
        draft("started", "r2", 10_000),
        draft("completed", "c1", 20_000).tagged("r1"),
    ]);
    assert_eq!(row.status, Status::Running);
    assert_eq!(runs[0].outcome, Some(Outcome::Completed));
    assert_eq!(runs[0].duration_ms, Some(20_000));
}

#[test]
fn what_sorts_before_the_first_started_belongs_to_the_first_run() {
    let (row, runs) = outcome_of(&[
        draft("heartbeat", "h1", -60_000),
        draft("progress", "p1", -50_000).with("current_step", "warming up"),
        draft("started", "r1", 0),
    ]);
    assert_eq!((row.status, row.current_step.as_deref()), (Status::Running, Some("warming up")));
    assert!(row.heartbeat_seen);
    assert_eq!((row.total_executions, runs.len()), (1, 1));
}

#[test]
fn a_complete_dated_200_ms_before_its_start_ends_completed() {
    let (row, runs) = outcome_of(&[draft("started", "r1", 0), draft("completed", "c1", -200)]);
    assert_eq!((row.status, row.total_executions), (Status::Completed, 1));
    assert_eq!((runs.len(), runs[0].duration_ms), (1, Some(0)));
    let (row, _) = outcome_of(&[draft("started", "r1", 0), draft("completed", "c1", -5_000)]);
    assert_eq!(row.status, Status::Completed, "five seconds are within the skew");
}

#[test]
fn an_end_that_falls_into_an_ended_run_belongs_to_the_next_if_that_starts_within_5_s() {
    let runs = |end: i64| {
        outcome_of(&[
            draft("started", "r1", 0),
            draft("completed", "c1", 10_000),
            draft("started", "r2", 20_000),
            draft("failed", "f1", end),
        ])
    };
    assert_eq!(runs(19_800).0.status, Status::Failed);
    assert_eq!(runs(15_000).0.status, Status::Failed);
    assert_eq!(runs(14_999).0.status, Status::Running, "more than five seconds: a repeated end");
    assert_eq!(runs(14_999).1[0].outcome, Some(Outcome::Completed));
}

#[test]
fn an_early_end_does_not_replace_the_next_runs_own() {
    let (row, runs) = outcome_of(&[
        draft("started", "r1", 0),
        draft("completed", "c1", 10_000),
        draft("failed", "f1", 19_900),
        draft("started", "r2", 20_000),
        draft("completed", "c2", 30_000),
    ]);
    assert_eq!(row.status, Status::Completed);
    assert_eq!(runs[1].ended_at, Some(at(30_000)));
}

#[test]
fn an_end_inside_an_open_run_ends_that_run_even_just_before_the_next() {
    let (row, runs) = outcome_of(&[
        draft("started", "r1", 0),
        draft("completed", "c1", 19_900),
        draft("started", "r2", 20_000),
    ]);
    assert_eq!(row.status, Status::Running);
    assert_eq!(runs[0].outcome, Some(Outcome::Completed));
}

#[test]
fn an_end_long_before_any_start_is_that_of_a_run_whose_start_was_lost() {
    let (row, runs) = outcome_of(&[
        draft("progress", "p1", -100_000).with("current_step", "of the lost one"),
        draft("completed", "c1", -60_000),
        draft("started", "r1", 0),
    ]);
    assert_eq!((row.status, row.current_step, row.run_no), (Status::Running, None, 2));
    assert_eq!((row.total_executions, row.successful_runs), (2, 1));
    assert_eq!((runs[0].started_at, runs[0].outcome), (None, Some(Outcome::Completed)));
}

#[test]
fn a_started_while_a_run_is_open_closes_it_as_superseded() {
    let (row, runs) = outcome_of(&[
        draft("started", "r1", 0),
        draft("progress", "p1", 1_000).with("current_step", "of the first"),
        draft("started", "r2", 10_000),
    ]);
    assert_eq!((row.status, row.current_step), (Status::Running, None));
    assert_eq!(runs[0].outcome, Some(Outcome::Superseded));
    assert_eq!(runs[0].ended_at, Some(at(10_000)));
    assert_eq!((row.total_executions, row.successful_runs, row.failed_runs), (2, 0, 0));
    assert_eq!(row.avg_duration_ms, None);
}

#[test]
fn the_first_end_counts_for_good() {
    let (row, _) = outcome_of(&[
        draft("started", "r1", 0),
        draft("failed", "f1", 10_000).with("error_code", "E1"),
        draft("completed", "c1", 20_000),
        draft("failed", "f2", 30_000).tagged("r1"),
    ]);
    assert_eq!((row.status, row.reason.as_deref()), (Status::Failed, Some("E1")));
    assert_eq!((row.total_executions, row.failed_runs), (1, 1));
}

#[test]
fn a_late_report_after_completed_changes_nothing() {
    let life = [
        draft("started", "r1", 0),
        draft("progress", "p1", 5_000).with("current_step", "last").with("progress_percent", 90),
        draft("completed", "c1", 10_000),
    ];
    let (before, runs_before) = outcome_of(&life);
    for (kind, tag) in [
        ("progress", None),
        ("progress", Some("r1")),
        ("heartbeat", None),
        ("heartbeat", Some("r1")),
        ("paused", None),
        ("resumed", Some("r1")),
        ("completed", None),
        ("failed", Some("r1")),
    ] {
        let late = draft(kind, "late", 11_000)
            .with("current_step", "too late")
            .with("progress_percent", 95)
            .with("metadata", serde_json::json!({"late": true}));
        let late = match tag {
            Some(tag) => late.tagged(tag),
            None => late,
        };
        let (after, runs_after) = outcome_of(&[life.as_slice(), &[late]].concat());
        assert_eq!((&after, &runs_after), (&before, &runs_before), "{kind} {tag:?}");
    }
}

#[test]
fn a_progress_from_before_the_end_counts_however_late_it_comes() {
    let (row, _) = outcome_of(&[
        draft("started", "r1", 0),
        draft("completed", "c1", 10_000),
        draft("progress", "p1", 9_000).received(60_000).with("current_step", "delayed"),
    ]);
    assert_eq!((row.status, row.current_step.as_deref()), (Status::Completed, Some("delayed")));
    assert_eq!(row.last_update_at, at(10_000));
}

#[test]
fn a_first_sign_of_life_without_a_started_makes_a_stub() {
    let ended = |kind| outcome_of(&[draft(kind, "e", 0)]);
    assert_eq!(ended("completed").0.status, Status::Completed);
    assert_eq!(ended("failed").0.status, Status::Failed);
    assert_eq!((ended("completed").0.total_executions, ended("completed").1.len()), (1, 1));
    for kind in ["heartbeat", "progress", "resumed"] {
        let (row, runs) = outcome_of(&[draft(kind, "e", 0)]);
        assert_eq!((row.status, row.run_no), (Status::Active, 1), "{kind}");
        assert_eq!((row.total_executions, runs.len()), (0, 0), "{kind}");
        assert_eq!(row.deadline_at, Some(at(3_600_000)), "{kind}");
    }
    assert_eq!(status_of(&[draft("heartbeat", "h", 0), draft("paused", "e", 1)]), Status::Paused);
    let (row, runs) = outcome_of(&[draft("registered", "e", 0).with("process_name", "nightly")]);
    assert_eq!((row.status, row.deadline_at, row.last_life_at), (Status::Registered, None, None));
    assert_eq!((row.process_name.as_deref(), runs.len()), (Some("nightly"), 0));
}

#[test]
fn a_report_that_names_an_unknown_run_makes_a_stub_where_its_oldest_report_stands() {
    let reports = [
        draft("started", "r1", 0),
        draft("progress", "p1", 5_000).tagged("r2").with("current_step", "second"),
        draft("heartbeat", "h1", 4_000).tagged("r2"),
        draft("heartbeat", "h2", 6_000).tagged("r1"),
    ];
    let (row, runs) = outcome_of(&reports);
    assert_eq!((row.status, row.run_no), (Status::Active, 2));
    assert_eq!(row.run_id.unwrap().as_str(), "r2");
    assert_eq!((runs.len(), runs[0].outcome), (1, None), "only a start closes a run");
    // Its start turns up.
    let (row, runs) = outcome_of(&[&reports[..], &[draft("started", "r2", 3_000)]].concat());
    assert_eq!((row.status, row.current_step.as_deref()), (Status::Running, Some("second")));
    assert_eq!(runs[0].outcome, Some(Outcome::Superseded));
}

#[test]
fn a_pause_holds_until_it_is_resumed() {
    let paused = [
        draft("started", "r1", 0),
        draft("paused", "z1", 1_000),
        draft("heartbeat", "h1", 2_000),
        draft("progress", "p1", 3_000).with("current_step", "still counts"),
    ];
    let (row, _) = outcome_of(&paused);
    assert_eq!((row.status, row.deadline_at), (Status::Paused, None));
    assert_eq!(row.current_step.as_deref(), Some("still counts"));
    let (row, _) = outcome_of(&[&paused[..], &[draft("resumed", "z2", 4_000)]].concat());
    assert_eq!((row.status, row.deadline_at), (Status::Running, Some(at(3_604_000))));
    let (row, _) = outcome_of(&[&paused[..], &[draft("started", "r2", 5_000)]].concat());
    assert_eq!(row.status, Status::Running, "a new run is not paused");
    let (row, _) = outcome_of(&[draft("paused", "z1", -1_000), draft("started", "r1", 0)]);
    assert_eq!(row.status, Status::Running, "whatever was paused before has been started");
    let (row, _) =
        outcome_of(&[draft("paused", "z1", -1_000).tagged("r1"), draft("started", "r1", 0)]);
    assert_eq!(row.status, Status::Paused, "a pause that names the run is of the run");
}

#[test]
fn an_event_dated_2099_is_ordered_by_its_receipt() {
    let mut future = draft("progress", "p1", 0).received(5_000).with("current_step", "future");
    future.occurred_at = Timestamp::parse("2099-01-01T00:00:00Z");
    let (row, _) = outcome_of(&[
        draft("started", "r1", 0),
        future,
        draft("progress", "p2", 6_000).with("current_step", "newer"),
    ]);
    assert_eq!((row.current_step.as_deref(), row.last_update_at), (Some("newer"), at(6_000)));
}

#[test]
fn an_expiry_holds_until_any_later_sign_of_life_in_any_order() {
    let start = draft("started", "r1", 0);
    let beat = draft("heartbeat", "h1", 10_000);
    let lost = [start.clone(), beat.clone(), expired("x1", &beat, 1)];
    let (row, runs) = outcome_of(&lost);
    assert_eq!((row.status, row.deadline_at), (Status::Expired, None));
    assert_eq!(row.reason.as_deref(), Some("no sign of life since 2026-01-28T10:00:10Z"));
    assert_eq!((runs.len(), runs[0].outcome), (1, None), "lost is not an end");
    for kind in ["heartbeat", "progress", "resumed"] {
        let later = draft(kind, "later", 10_001);
        assert_eq!(status_of(&[&lost[..], &[later]].concat()), Status::Running, "{kind}");
    }
    assert_eq!(
        status_of(&[&lost[..], &[draft("completed", "c", 10_001)]].concat()),
        Status::Completed
    );
    assert_eq!(
        status_of(&[&lost[..], &[draft("started", "r2", 10_001)]].concat()),
        Status::Running
    );
    let older = draft("heartbeat", "older", 9_000).received(99_000);
    assert_eq!(status_of(&[&lost[..], &[older]].concat()), Status::Expired, "no later sign");
    assert_eq!(status_of(&[start.clone(), expired("x1", &start, 0)]), Status::Expired);
    assert_eq!(status_of(&[beat.clone(), expired("x1", &beat, 1)]), Status::Expired, "a stub too");
}

#[test]
fn silence_is_measured_from_receipt_never_from_a_clients_time() {
    // Its clock is 200 s behind.
    let (row, _) = outcome_of(&[
        draft("started", "r1", -200_000).received(0).with("timeout_s", 90),
        draft("heartbeat", "h1", -190_000).received(10_000),
        draft("heartbeat", "h0", -195_000).received(12_000),
    ]);
    assert_eq!(row.last_life_at, Some(at(12_000)));
    assert_eq!(row.deadline_at, Some(at(102_000)));
    assert_eq!(row.last_update_at, at(-190_000));
}

#[test]
fn silence_of_three_intervals_makes_a_process_with_heartbeats_stale() {
    let (row, _) = outcome_of(&[draft("started", "r1", 0), draft("heartbeat", "h1", 1_000)]);
    assert!(!row.is_stale(at(91_000)), "three intervals are borne");
    assert!(row.is_stale(at(91_001)));
    let (row, _) = outcome_of(&[draft("started", "r1", 0), draft("progress", "p1", 1_000)]);
    assert!(!row.is_stale(at(9_000_000)), "it never sent heartbeats");
    let own = draft("started", "r1", 0).with("heartbeat_interval_s", 1.5);
    let (row, _) = outcome_of(&[own, draft("heartbeat", "h1", 1_000)]);
    assert_eq!(row.heartbeat_interval, Duration::from_millis(1500));
    assert!(row.is_stale(at(5_501)));
    let (row, _) = outcome_of(&[
        draft("started", "r1", 0),
        draft("heartbeat", "h1", 1_000),
        draft("completed", "c1", 2_000),
    ]);
    assert!(!row.is_stale(at(9_000_000)), "an ended process is silent by right");
}

#[test]
fn a_start_wins_over_registrations_field_by_field() {
    let (row, _) = outcome_of(&[
        draft("registered", "g1", -9_000)
            .with("process_name", "first name")
            .with("process_type", "batch")
            .with("timeout_s", 10)
            .with("metadata", serde_json::json!({"a": "g1", "b": "g1"})),
        draft("registered", "g2", -8_000).with("process_name", "second name"),
        draft("started", "r1", 0)
            .with("correlation_id", "c-1")
            .with("metadata", serde_json::json!({"a": "r1"})),
    ]);
    assert_eq!(row.process_name.as_deref(), Some("second name"));
    assert_eq!(row.process_type.as_deref(), Some("batch"));
    assert_eq!(row.correlation_id.as_deref(), Some("c-1"));
    assert_eq!(row.deadline_at, Some(at(10_000)));
    assert_eq!(serde_json::Value::from(row.metadata), serde_json::json!({"a": "r1", "b": "g1"}));
    assert_eq!(row.registered_at, at(-9_000));
}

#[test]
fn counters_do_not_depend_on_order() {
    let (row, runs) = outcome_of(&[
        draft("started", "r1", 0),
        draft("completed", "c1", 1_000),
        draft("started", "r2", 10_000),
        draft("completed", "c2", 12_000),
        draft("started", "r3", 20_000),
        draft("failed", "f3", 29_000),
        draft("started", "r4", 30_000),
        draft("started", "r5", 40_000),
    ]);
    assert_eq!((row.total_executions, row.successful_runs, row.failed_runs), (5, 2, 1));
    assert_eq!((row.avg_duration_ms, row.run_no), (Some(1_500), 5));
    let outcomes: Vec<Option<Outcome>> = runs.iter().map(|run| run.outcome).collect();
    assert_eq!(
        outcomes,
        [
            Some(Outcome::Completed),
            Some(Outcome::Completed),
            Some(Outcome::Failed),
            Some(Outcome::Superseded),
            None
        ]
    );
}

#[test]
fn one_run_told_by_two_sources_is_one_run() {
    let first = draft("started", "r1", 0).event();
    let mut second = draft("started", "r1", 20).event();
    second.envelope.source = Source::parse("mirror").unwrap();
    let end = draft("completed", "c1", 1_000).tagged("r1").event();
    let events = [&first, &second, &end];
    for order in [[0, 1, 2], [1, 0, 2], [2, 1, 0], [1, 2, 0]] {
        let state = merged(order.map(|index| events[index]));
        assert_eq!(state.runs().len(), 1, "{order:?}");
        let row = row_of(&state);
        assert_eq!((row.status, row.started_at), (Status::Completed, Some(at(0))), "{order:?}");
    }
}

#[test]
fn merging_an_event_again_changes_nothing() {
    let events = [
        draft("started", "r1", 0).event(),
        draft("progress", "p1", 1).with("current_step", "x").event(),
        draft("paused", "z1", 2).event(),
    ];
    let mut state = merged(&events);
    let before = state.clone();
    for event in &events {
        assert_eq!(state.merge(mark_of(event)), Vec::<RunRow>::new());
    }
    assert_eq!(state, before);
}

#[test]
fn a_bare_ping_is_a_sign_of_life() {
    for payload in ["", "null", "{}", "  {}\n", r#"{"unknown":[1,2]}"#] {
        let mut event = draft("heartbeat", "h1", 0).event();
        event.envelope.payload = payload.into();
        assert_eq!(mark_of(&event).what, mark::What::Heartbeat, "{payload:?}");
    }
}

#[test]
fn a_payload_is_read_as_generously_as_its_meaning_allows() {
    let read = |draft: Draft| mark::read(&draft.event());
    let progress = |value: serde_json::Value| match read(
        draft("progress", "p", 0).with("progress_percent", value),
    )
    .unwrap()
    .unwrap()
    .what
    {
        mark::What::Progress { percent, .. } => percent,
        other => panic!("{other:?}"),
    };
    assert_eq!(progress(150.into()), Some(100.0));
    assert_eq!(progress((-3).into()), Some(0.0));
    assert_eq!(progress(33.336.into()), Some(33.34));
    assert_eq!(progress("12.5".into()), Some(12.5));
    assert_eq!(progress(serde_json::Value::Null), None);
    for bad in [
        draft("progress", "p", 0).with("progress_percent", "half"),
        draft("progress", "p", 0).with("metadata", "text"),
        draft("progress", "p", 0).with("current_step", serde_json::json!({})),
        draft("started", "r", 0).with("timeout_s", -1),
        draft("heartbeat", "h", 0).with("run_id", "two words"),
        draft("expired", "x", 0),
    ] {
        assert_eq!(read(bad.clone()).unwrap_err().0, Reason::InvalidPayload, "{bad:?}");
    }
    let mut list = draft("heartbeat", "h", 0).event();
    list.envelope.payload = "[]".into();
    assert_eq!(mark::read(&list).unwrap_err().0, Reason::InvalidPayload);
    assert_eq!(read(draft("exploded", "e", 0)).unwrap_err().0, Reason::UnknownType);
    // What a kind does not know may hold anything.
    read(draft("completed", "c", 0).with("result", serde_json::json!([1]))).unwrap();
    read(draft("completed", "c", 0).with("progress_percent", "done")).unwrap();
}

#[test]
fn every_status_has_one_word_and_no_other_is_taken() {
    for status in Status::ALL {
        assert_eq!(Status::parse(status.as_str()), Some(status));
    }
    assert_eq!(Status::parse("running"), Some(Status::Running));
    assert_eq!(Status::parse("SLEEPING"), None);
}

#[test]
fn a_run_without_a_name_is_withdrawn_when_its_start_takes_it_in() {
    let events: Vec<_> = [draft("completed", "c1", -200), draft("started", "r1", 0)]
        .map(|d| Arc::new(d.event()))
        .into();
    let first = apply(None, &events[..1]).processes.remove(0);
    assert_eq!((first.runs.len(), first.runs[0].run_id.clone()), (1, None));
    let second = apply(Some(first.state), &events[1..]).processes.remove(0);
    assert_eq!(second.runs.len(), 2);
    assert_eq!(second.runs[0].run_id.as_ref().unwrap().as_str(), "r1");
    let withdrawn = &second.runs[1];
    assert_eq!((&withdrawn.run_id, withdrawn.started_at, withdrawn.outcome), (&None, None, None));
}

#[test]
fn an_unknown_format_is_told_apart_from_damage() {
    use super::super::StateError;
    assert!(matches!(State::from_bytes(&[9, 0]), Err(StateError::Format { found: 9 })));
    assert!(matches!(State::from_bytes(&[]), Err(StateError::Damaged(_))));
    assert!(matches!(State::from_bytes(&[1, 255]), Err(StateError::Damaged(_))));
    let empty = State::default().to_bytes();
    assert!(empty.len() < 32, "{} bytes", empty.len());
    assert_eq!(row_of(&State::from_bytes(&empty).unwrap()).tenant, tenant());
    assert_eq!(row_of(&State::default()).process, process());
}
