//! Tests of this module's pure part: what rows become, and that every question names its tenant.

use super::*;
use std::time::Duration;

const POLICY: Policy =
    Policy { timeout: Duration::from_secs(9), heartbeat_interval: Duration::from_secs(3) };

fn at(second: i64) -> Timestamp {
    Timestamp::from_micros(second * 1_000_000)
}

fn started() -> Stored {
    Stored {
        process: "p".into(),
        digest: None,
        status: "RUNNING".into(),
        deadline_at: None,
        version: 0,
        median_ms: Some(4000),
        registered_at: at(10),
        run_id: Some("R1".into()),
        run_no: 1,
        reason: None,
        started_at: Some(at(11)),
        ended_at: None,
        current_step: None,
        progress_percent: None,
        last_update_at: Some(at(12)),
        last_life_at: None,
        correlation_id: Some("C1".into()),
        metadata: Some(r#"{"a":1}"#.into()),
        process_type: None,
        process_name: None,
        package_name: Some("CONTRACT_PKG".into()),
        procedure_name: Some("CREATE_CONTRACT".into()),
    }
}

#[test]
fn a_process_that_is_only_started_shows_its_columns() {
    let tenant = TenantId::parse("acme").unwrap();
    let shown = view(&tenant, started(), &POLICY).unwrap();
    assert_eq!(
        (shown.row.status, shown.version, shown.median_ms),
        (Status::Running, 1, Some(4000))
    );
    assert_eq!(shown.row.run_id.unwrap().as_str(), "R1");
    assert_eq!(shown.row.package_name.as_deref(), Some("CONTRACT_PKG"));
    assert_eq!(shown.row.metadata["a"], 1);
    assert_eq!((shown.row.started_at, shown.row.registered_at), (Some(at(11)), at(10)));
}

#[test]
fn a_state_is_what_is_shown_and_archiving_and_put_off_deadlines_come_from_the_columns() {
    let tenant = TenantId::parse("acme").unwrap();
    let digest = Some(state::encode(&State::default()));
    let archived =
        Stored { digest: digest.clone(), status: "ARCHIVED".into(), version: 6, ..started() };
    let shown = view(&tenant, archived, &POLICY).unwrap();
    assert_eq!((shown.row.status, shown.version), (Status::Archived, 7));
    let foreign = Stored { digest: Some("????".into()), ..started() };
    assert!(matches!(view(&tenant, foreign, &POLICY), Err(StoreError::Corrupt { .. })));
}

#[test]
fn a_stream_is_shown_up_to_the_first_number_that_is_not_there() {
    let found = |numbers: &[u64]| -> Vec<(u64, Timestamp)> {
        numbers.iter().map(|n| (*n, at(i64::try_from(*n).unwrap()))).collect()
    };
    let all = |after, numbers: &[u64], dead: &[u64]| {
        contiguous(after, &found(numbers), dead, Some(1), Some(at(0)))
    };
    assert_eq!(all(0, &[1, 2, 3], &[]), 3);
    assert_eq!(all(0, &[1, 3, 4], &[]), 1, "2 is on its way");
    assert_eq!(all(0, &[1, 3, 4], &[2]), 3, "2 is a dead letter");
    assert_eq!(all(0, &[3], &[1]), 0);
    assert_eq!(all(0, &[3], &[1, 2]), 1);
    assert_eq!(all(5, &[6, 7], &[]), 2);
    assert_eq!(all(0, &[], &[]), 0);
}

#[test]
fn a_beginning_that_retention_dropped_is_no_gap_unless_something_as_old_still_waits() {
    let found = [(7, at(100)), (8, at(101))];
    assert_eq!(contiguous(0, &found, &[], Some(7), None), 2, "nothing waits");
    assert_eq!(contiguous(0, &found, &[], Some(7), Some(at(200))), 2, "only younger ones wait");
    assert_eq!(contiguous(0, &found, &[], Some(7), Some(at(100))), 0, "it may be one of them");
    assert_eq!(contiguous(0, &found, &[], Some(2), None), 0, "older ones are kept");
}

#[test]
fn statuses_are_listed_once() {
    let filter = ProcessFilter {
        statuses: vec![Status::Running, Status::Active, Status::Running],
        ..ProcessFilter::default()
    };
    assert_eq!(statuses(&filter), ["ACTIVE", "RUNNING"]);
}

#[test]
fn the_statements_of_listings_have_the_parts_that_are_asked_for() {
    let ask = text(statement!("list_processes"), &["status", "after"]);
    let ask = sql::repeated(&ask, "(:status)", 2);
    assert!(ask.contains("IN ((:status_1), (:status_2))"), "{ask}");
    assert!(ask.contains(":before_id") && !ask.contains(":process_type"));
    let ask = text(statement!("list_events"), &["from", "after"]);
    assert!(ask.contains(":from_at") && !ask.contains(":to_at") && !ask.contains(":source"));
    for file in [
        statement!("read_process"),
        statement!("list_processes"),
        statement!("list_runs"),
        statement!("read_event"),
        statement!("list_events"),
        statement!("stream_events"),
        statement!("stream_tombstones"),
        statement!("stream_begins"),
        statement!("read_stream"),
        statement!("read_dead_letter"),
        statement!("list_dead_letters"),
        statement!("logs_page"),
        statement!("logs_newest"),
        statement!("logs_new"),
    ] {
        assert!(text(file, &[]).contains("tenant_id = :tenant_id"), "law 7: {file}");
    }
}
