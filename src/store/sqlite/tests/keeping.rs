//! What housekeeping may and may not do: nothing that is needed ever goes.

use super::*;
use crate::domain::log_row::{Level, LogRow};
use crate::store::KeeperSession;

const DAY: Duration = Duration::from_secs(86_400);

fn archive_all(keeper: &mut dyn KeeperSession, before: Timestamp) {
    for _ in 0..1000 {
        if keeper.archive(before, 3).unwrap() == 0 {
            return;
        }
    }
    panic!("archiving comes to no end");
}

fn overdue(keeper: &mut dyn KeeperSession, until: Timestamp) -> Vec<String> {
    let found = keeper.overdue(until, 10).unwrap();
    found.into_iter().map(|overdue| overdue.process.as_str().to_string()).collect()
}

#[test]
fn retention_drops_what_is_over_and_keeps_an_open_run_with_all_its_events() {
    let mut site = Site::new();
    site.post("daemon", "process.started", "{}");
    site.post("import", "process.started", "{}");
    site.post("import", "process.bogus", "{}");
    site.post("import", "process.completed", "{}");
    for _ in 0..20 {
        site.post("daemon", "process.heartbeat", "{}");
        site.post("order", "Ordered", "{}");
    }
    site.apply(5);
    site.wait(40 * DAY);
    for _ in 0..11 {
        site.post("daemon", "process.heartbeat", "{}");
    }
    site.apply(5);
    let before = site.now().minus(30 * DAY);
    let version = version_of(&mut site, "import");
    let mut keeper = site.store.keeper().unwrap();
    archive_all(&mut *keeper, before);
    site.reader.end_turn();

    assert_eq!(site.status("import").as_deref(), Some("ARCHIVED"));
    assert_eq!(version_of(&mut site, "import"), version + 1, "an ETag from before is stale");
    assert_eq!(site.status("daemon").as_deref(), Some("RUNNING"));
    let daemon = site.ask("SELECT count(*) FROM events WHERE stream_key = 'daemon'");
    assert_eq!(daemon, ["Integer(32)"], "every event of the open run");
    let others = site.ask("SELECT DISTINCT stream_key FROM events");
    assert_eq!(others, ["daemon"]);
    let numbers = site
        .reader
        .stream_events(&acme(), &StreamKey::parse("daemon").unwrap(), 0, 100)
        .unwrap()
        .unwrap();
    assert_eq!(numbers.len(), 32);
    assert_eq!(site.ask("SELECT count(*) FROM process_run WHERE stream_id = 2"), ["Integer(0)"]);
    assert_eq!(site.ask("SELECT count(*) FROM dead_letter"), ["Integer(0)"]);
    let order = site.reader.stream(&acme(), &StreamKey::parse("order").unwrap()).unwrap().unwrap();
    assert_eq!(order.applied_seq, 20, "the last number outlives the events");

    // The archived one comes back, with its numbers going on.
    site.post("import", "process.started", "{}");
    assert_eq!(site.status("import").as_deref(), Some("RUNNING"));
    site.apply(5);
    assert_eq!(site.status("import").as_deref(), Some("RUNNING"));
    let applied = site.reader.stream(&acme(), &StreamKey::parse("import").unwrap()).unwrap();
    assert_eq!(applied.unwrap().applied_seq, 4);

    // When the daemon ends and is over for long, its events go too.
    site.post("daemon", "process.completed", "{}");
    site.apply(5);
    site.wait(40 * DAY);
    archive_all(&mut *keeper, site.now().minus(30 * DAY));
    site.reader.end_turn();
    assert_eq!(site.status("daemon").as_deref(), Some("ARCHIVED"));
    assert_eq!(site.ask("SELECT count(*) FROM events_0 WHERE stream_id = 1"), ["Integer(0)"]);
}

#[test]
fn one_portion_of_retention_moves_no_more_rows_than_it_is_allowed() {
    let mut site = Site::new();
    for n in 0..8 {
        site.post(&format!("p{n}"), "process.started", "{}");
    }
    for _ in 0..60 {
        site.post("p3", "process.heartbeat", "{}");
        site.post("order", "Ordered", "{}");
    }
    site.apply(50);
    site.wait(40 * DAY);
    for _ in 0..11 {
        site.post("young", "Ordered", "{}");
    }
    site.apply(50);
    let before = site.now().minus(30 * DAY);
    let mut keeper = site.store.keeper().unwrap();
    let count = |site: &Site, table: &str| -> i64 {
        let rows = site.ask(&format!("SELECT 'n', count(*) FROM {table}"));
        let digits: String = rows[0].chars().filter(char::is_ascii_digit).collect();
        digits.parse().unwrap()
    };
    let (mut kept, mut moves) = (0, 0);
    while keeper.archive(before, 4).unwrap() > 0 {
        let now = count(&site, "events_0");
        assert!(now - kept <= 4, "{} at once", now - kept);
        moves += i64::from(now > kept);
        kept = now;
        assert_eq!(count(&site, "events WHERE stream_key LIKE 'p%'"), 68, "each is there once");
    }
    assert_eq!(kept, 68);
    assert!(moves >= 17, "{moves} portions");
    let spans = site.ask("SELECT rows, first_position, last_position FROM event_table WHERE n = 0");
    assert_eq!(spans, ["Integer(68) Integer(1) Integer(127)"], "readers know what is in it");
}

fn version_of(site: &mut Site, process: &str) -> u64 {
    let process = ProcessId::parse(process).unwrap();
    site.reader.status(&acme(), &process).unwrap().unwrap().version
}

#[test]
fn the_overdue_are_found_by_their_newest_life_the_longest_silent_first() {
    let mut site = Site::new();
    for name in ["a", "b", "c"] {
        site.post(name, "process.started", "{}");
    }
    site.apply(10);
    site.wait(HOUR / 2);
    site.post("a", "process.heartbeat", "{}");
    site.post("c", "process.completed", "{}");
    site.apply(10);
    let mut keeper = site.store.keeper().unwrap();
    assert_eq!(overdue(&mut *keeper, site.now()), [""; 0]);
    site.wait(HOUR * 3 / 4);
    assert_eq!(overdue(&mut *keeper, site.now()), ["b"], "the heartbeat of a is younger");
    let a = "SELECT sweep_us = deadline_us FROM process WHERE process_id = 'a'";
    assert_eq!(site.ask(a), ["Integer(1)"], "the look that was too early is put right");
    site.wait(HOUR);
    assert_eq!(overdue(&mut *keeper, site.now()), ["b", "a"]);
}

#[test]
fn a_log_row_is_seen_as_a_sign_of_life_and_puts_the_deadline_off() {
    let mut site = Site::new();
    site.post("a", "process.started", "{}");
    site.apply(10);
    let process = ProcessId::parse("a").unwrap();
    let row = LogRow::plain(acme(), process, Level::Info, "still here", site.now());
    site.store.logs().unwrap().write(&[row]).unwrap();
    site.wait(2 * HOUR);
    let mut keeper = site.store.keeper().unwrap();
    let found = keeper.overdue(site.now(), 10).unwrap();
    assert!(found[0].last_log_at.is_some());
    let deadline = site.now().plus(HOUR);
    keeper.put_off(&acme(), &found[0].process, deadline).unwrap();
    assert_eq!(overdue(&mut *keeper, site.now()), [""; 0]);
    let view = site.reader.status(&acme(), &found[0].process).unwrap().unwrap();
    assert_eq!(view.row.deadline_at, Some(deadline));
    assert_eq!(overdue(&mut *keeper, deadline), ["a"]);
}

#[test]
fn processes_are_counted_by_status() {
    let mut site = Site::new();
    for name in ["a", "b", "c"] {
        site.post(name, "process.started", "{}");
    }
    site.post("b", "process.failed", "{}");
    site.apply(10);
    let counts = site.store.keeper().unwrap().count_processes().unwrap();
    let counts: Vec<String> = counts
        .into_iter()
        .filter(|(_, count)| *count > 0)
        .map(|(status, count)| format!("{} {count}", status.as_str()))
        .collect();
    assert_eq!(counts, ["RUNNING 2", "FAILED 1"]);
}

#[test]
fn the_log_is_trimmed_only_as_far_as_it_is_old_and_a_snapshot_covers_it() {
    let mut site = Site::new();
    for _ in 0..30 {
        site.post("a", "Ordered", "{}");
    }
    site.wait(20 * HOUR);
    for _ in 0..10 {
        site.post("a", "Ordered", "{}");
    }
    let mut keeper = site.store.keeper().unwrap();
    let mut upkeep = |site: &Site, pause: Duration| {
        site.wait(pause);
        let upkeep = keeper.upkeep(site.now()).unwrap();
        (upkeep.trimmed_rows, upkeep.snapshot_position)
    };
    site.apply(10);
    assert_eq!(upkeep(&site, Duration::ZERO), (0, None), "nothing is old");
    assert_eq!(upkeep(&site, 5 * HOUR), (0, None), "old, but not so much that a copy is worth it");
    assert_eq!(upkeep(&site, 6 * HOUR), (30, Some(40)), "a snapshot, and then the old rows");
    assert_eq!(upkeep(&site, 14 * HOUR), (10, Some(40)), "the snapshot covers these, too");
    // Not applied, so no snapshot can cover it, however old it is.
    site.post("a", "Ordered", "{}");
    assert_eq!(upkeep(&site, 90 * HOUR), (0, Some(40)));
    site.apply(10);
    assert_eq!(upkeep(&site, HOUR), (1, Some(41)));
    drop(keeper);
    let mut site = site.restart(|_| {}).unwrap();
    site.post("a", "Ordered", "{}");
    site.apply(10);
    assert_eq!(site.projection.position(), 42, "positions go on after a trim to empty");
}

#[test]
fn a_clock_that_was_ahead_does_not_put_the_upkeep_off() {
    let mut site = Site::new();
    let mut keeper = site.store.keeper().unwrap();
    // The service began with a clock that was a year ahead, and was corrected.
    keeper.upkeep(site.now().plus(365 * DAY)).unwrap();
    for _ in 0..10 {
        site.post("a", "Ordered", "{}");
    }
    site.apply(10);
    site.wait(31 * HOUR);
    let upkeep = keeper.upkeep(site.now()).unwrap();
    assert_eq!((upkeep.trimmed_rows, upkeep.snapshot_position), (10, Some(10)));
}

/// The numbers that a reader of a stream gets who asks from the beginning and goes on with the last one.
fn read_through(site: &mut Site, stream: &str) -> Vec<u64> {
    let key = StreamKey::parse(stream).unwrap();
    let (mut after, mut numbers) = (0, Vec::new());
    loop {
        let page = site.reader.stream_events(&acme(), &key, after, 7).unwrap().unwrap();
        let Some(last) = page.last() else { return numbers };
        after = last.event.stream_seq;
        numbers.extend(page.iter().map(|event| event.event.stream_seq));
    }
}

#[test]
fn a_reader_from_the_beginning_gets_through_what_retention_kept_and_dropped() {
    let mut site = Site::new();
    // A process that runs again and again, and is at work in some of the nights in which a table is dropped.
    for night in 0..12 {
        site.post("nightly", "process.started", "{}");
        for _ in 0..12 {
            site.post("nightly", "process.heartbeat", "{}");
        }
        if night % 3 > 0 {
            site.post("nightly", "process.completed", "{}");
        }
        site.apply(5);
        site.wait(10 * DAY);
        let mut keeper = site.store.keeper().unwrap();
        archive_all(&mut *keeper, site.now().minus(30 * DAY));
        site.reader.end_turn();
        let state = site.reader.stream(&acme(), &StreamKey::parse("nightly").unwrap());
        let newest = state.unwrap().unwrap().applied_seq;
        let numbers = read_through(&mut site, "nightly");
        assert_eq!(numbers.last(), Some(&newest), "night {night}: {numbers:?}");
        assert!(numbers.is_sorted_by(|a, b| a + 1 == *b), "night {night}: {numbers:?}");
    }
    let kept = site.ask("SELECT count(*) FROM events WHERE stream_key = 'nightly'");
    assert_ne!(kept, ["Integer(0)"]);
}
