//! The doctor of the embedded store. This module runs it beside a running service, and on files that are damaged.

use std::fs;
use std::os::unix::fs::PermissionsExt;

use super::doctor;
use crate::harness::InChild;

#[test]
fn the_doctor_looks_at_a_running_store_and_names_what_must_be_mended() {
    let place = tempfile::tempdir().unwrap();
    let folder = place.path().join("data");
    let database = format!("sqlite://{}", folder.display());
    let service = InChild::start(&folder, &[]);
    let report = doctor(&database, &[]);
    report.is_complete();
    assert_eq!(report.code, Some(0), "{:#?}", report.findings);
    for check in ["folder", "lock", "space", "events.db", "logs.db", "log.db", "schema", "backlog"]
    {
        assert_eq!(report.verdict(check), "ok", "{:#?}", report.findings);
    }
    assert_eq!(report.found("lock"), format!("held by process {}", service.id()));
    assert_eq!(service.terminate(), 0);

    fs::set_permissions(&folder, fs::Permissions::from_mode(0o755)).unwrap();
    let report = doctor(&database, &[]);
    assert_eq!(
        (report.code, report.verdict("folder")),
        (Some(1), "warn"),
        "the worst is a warning"
    );
    assert_eq!(report.mend("folder"), format!("chmod 700 '{}'", folder.display()));

    fs::write(folder.join("logs.db"), "no database at all, and longer than a header is".repeat(99))
        .unwrap();
    let report = doctor(&database, &[]);
    report.is_complete();
    assert_eq!(report.code, Some(69), "{:#?}", report.findings);
    for (check, wanted) in
        [("folder", "warn"), ("logs.db", "fail"), ("events.db", "ok"), ("schema", "ok")]
    {
        assert_eq!(report.verdict(check), wanted, "{:#?}", report.findings);
    }
}

#[test]
fn a_clock_that_was_set_back_is_seen_by_the_newest_event() {
    let place = tempfile::tempdir().unwrap();
    let folder = place.path().join("data");
    let database = format!("sqlite://{}", folder.display());
    let service = InChild::start(&folder, &[]);
    assert_eq!(service.terminate(), 0);
    assert_eq!(doctor(&database, &[]).verdict("newest event"), "unknown", "there is none yet");
    let events = rusqlite::Connection::open(folder.join("events.db")).unwrap();
    let now_us = jiff::Timestamp::now().as_microsecond();
    let note = "INSERT OR REPLACE INTO event_table VALUES (1, 1, 1, 1, ?1, ?1, ?1, ?1)";
    for (received_us, wanted) in [(now_us - 1_000_000, "ok"), (now_us + 7_200_000_000, "fail")] {
        events.execute(note, [received_us]).unwrap();
        let report = doctor(&database, &[]);
        assert_eq!(report.verdict("newest event"), wanted, "{:#?}", report.findings);
    }
}
