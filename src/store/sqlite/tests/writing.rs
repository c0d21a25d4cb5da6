//! What applying promises: once, whole, and the same however the log is cut into batches.

use super::*;
use crate::domain::apply::Change;
use crate::store::{Claim, ListenerSession};

/// Three processes in several runs, a domain stream, a message that nobody may send.
fn busy_hour(site: &mut Site) {
    for round in 0..4 {
        for process in ["import-1", "import-2", "export"] {
            site.post(process, "process.started", r#"{"process_name":"nightly"}"#);
            site.post(process, "process.heartbeat", "{}");
            site.post(
                process,
                "process.progress",
                r#"{"current_step":"LOAD","progress_percent":40}"#,
            );
            site.post("order-1", "OrderCreated", r#"{"orderId":"1"}"#);
            if round == 2 {
                site.post(process, "process.bogus", "{}");
            }
            let end = if process == "export" { "process.failed" } else { "process.completed" };
            site.post(process, end, "{}");
        }
    }
}

#[test]
fn the_rows_are_the_same_however_the_log_is_cut_into_batches() {
    let everything = [1, 7, 4000].map(|batch| {
        let mut site = Site::new();
        busy_hour(&mut site);
        // One moment for all, because the time of processing is in the rows.
        site.apply(batch);
        site.everything()
    });
    assert!(everything[0].len() > 70, "{} rows", everything[0].len());
    assert_eq!(everything[0], everything[1]);
    assert_eq!(everything[1], everything[2]);
}

#[test]
fn a_batch_that_is_settled_twice_changes_nothing_the_second_time() {
    let mut site = Site::new();
    busy_hour(&mut site);
    let mut late = site.store.projection().unwrap();
    site.apply(4000);
    let before = site.everything();
    let now = site.now();
    assert_eq!(late.replay(4000, &site.store.settings.policy, now).unwrap(), before_count(&site));
    assert_eq!(site.everything(), before);
    assert_eq!(late.position(), site.projection.position());
}

fn before_count(site: &Site) -> usize {
    usize::try_from(site.projection.position()).unwrap()
}

#[test]
fn a_second_listener_that_is_half_behind_is_refused() {
    let mut site = Site::new();
    busy_hour(&mut site);
    let mut late = site.store.projection().unwrap();
    let (policy, now) = (site.store.settings.policy, site.now());
    site.projection.replay(5, &policy, now).unwrap();
    let refusal = late.replay(10, &policy, now).unwrap_err();
    assert!(matches!(refusal, StoreError::Corrupt { .. }), "{refusal}");
}

#[test]
fn a_batch_that_is_refused_leaves_nothing_and_can_be_settled_in_parts() {
    let mut site = Site::new();
    for number in 1..=3 {
        site.post("a", "Ordered", &format!("{number}"));
    }
    let messages = log::LogReader::open(&site.store.folder).unwrap().read_after(0, 10).unwrap();
    // Somebody's row stands where the second event of the stream belongs.
    let blocker = "CREATE TRIGGER no BEFORE UPDATE ON projection WHEN new.position = 3 \
         BEGIN SELECT raise(ABORT, 'no'); END";
    let writer = open_writer(&site.store.folder.events_db(), false).unwrap();
    writer.execute_batch(blocker).unwrap();
    let events = |messages: &[crate::store::Message]| -> Change {
        let events = messages.iter().map(|message| match message {
            crate::store::Message::Event(event) => Arc::clone(event),
            crate::store::Message::Undecodable { problem, .. } => panic!("{problem}"),
        });
        Change { events: events.collect(), ..Change::default() }
    };
    let now = site.now();
    let claim = Claim { messages: messages.clone(), drained: true };
    let change = events(&messages);
    let refusal = site.projection.settle(claim, change, now).unwrap_err();
    assert!(matches!(refusal, StoreError::Refused { .. }), "{refusal}");
    assert_eq!(site.ask("SELECT count(*) FROM stream"), ["Integer(0)"]);
    for part in messages[..2].chunks(1) {
        let claim = Claim { messages: part.to_vec(), drained: false };
        site.projection.settle(claim, events(part), now).unwrap();
    }
    writer.execute_batch("DROP TRIGGER no").unwrap();
    site.apply(10);
    assert_eq!(
        site.ask("SELECT stream_seq, payload FROM events ORDER BY id"),
        ["Integer(1) 1", "Integer(2) 2", "Integer(3) 3"]
    );
}

#[test]
fn a_claim_is_repeated_until_it_is_settled_and_is_drained_only_at_the_end_of_the_log() {
    let mut site = Site::new();
    for _ in 0..5 {
        site.post("a", "Ordered", "{}");
    }
    let mut site = site
        .restart(|folder| {
            let writer = open_writer(&folder.join("log.db"), true).unwrap();
            writer.execute_batch("UPDATE log SET body = x'09' WHERE id = 3").unwrap();
        })
        .unwrap();
    let (_holder, stop) = stop();
    let mut claim = |max: usize| {
        let claim = site.projection.claim(max, Duration::ZERO, &stop).unwrap();
        (claim.messages.len(), claim.drained)
    };
    assert_eq!(claim(1), (1, false));
    assert_eq!(claim(10), (2, false), "up to the one that cannot be read");
    assert_eq!(claim(10), (2, false), "and again, because nobody settled it");
    let (policy, now) = (site.store.settings.policy, site.now());
    site.projection.replay(2, &policy, now).unwrap();
    let claim = site.projection.claim(10, Duration::ZERO, &stop).unwrap();
    assert_eq!((claim.messages.len(), claim.drained), (3, true));
    assert!(matches!(claim.messages[0], crate::store::Message::Undecodable { position: 3, .. }));
    site.apply(10);
    let claim = site.projection.claim(10, Duration::ZERO, &stop).unwrap();
    assert_eq!((claim.messages.len(), claim.drained), (0, true));
    assert_eq!(site.ask("SELECT tenant_id, reason FROM dead_letter"), ["#none undecodable"]);
}

#[test]
fn tables_roll_by_rows_and_by_age() {
    let mut site = Site::new();
    for _ in 0..25 {
        site.post("a", "Ordered", "{}");
    }
    site.apply(5);
    assert_eq!(
        site.ask("SELECT n, rows, first_position, last_position FROM event_table"),
        [
            "Integer(1) Integer(10) Integer(1) Integer(10)",
            "Integer(2) Integer(10) Integer(11) Integer(20)",
            "Integer(3) Integer(5) Integer(21) Integer(25)",
        ]
    );
    site.wait(24 * HOUR);
    site.post("a", "Ordered", "{}");
    site.apply(5);
    assert_eq!(site.ask("SELECT max(n) FROM event_table"), ["Integer(4)"]);
    let mut site = site.restart(|_| {}).unwrap();
    site.post("a", "Ordered", "{}");
    site.apply(5);
    assert_eq!(site.ask("SELECT n, rows FROM event_table WHERE n > 3"), ["Integer(4) Integer(2)"]);
    assert_eq!(site.ask("SELECT count(*) FROM events"), ["Integer(27)"]);
}

#[test]
fn a_heartbeat_moves_no_index_entry_and_an_end_takes_the_look_away() {
    let mut site = Site::new();
    site.post("a", "process.started", "{}");
    site.apply(10);
    let sweep = site.ask("SELECT sweep_us FROM process");
    let deadline = site.ask("SELECT deadline_us FROM process");
    assert_eq!(sweep, deadline);
    site.post("a", "process.heartbeat", "{}");
    site.apply(10);
    assert_eq!(site.ask("SELECT sweep_us FROM process"), sweep);
    assert_ne!(site.ask("SELECT deadline_us FROM process"), deadline);
    site.post("a", "process.completed", "{}");
    site.apply(10);
    assert_eq!(site.ask("SELECT sweep_us, deadline_us FROM process"), ["Null Null"]);
}

#[test]
fn migrating_twice_changes_nothing_and_a_foreign_schema_is_refused() {
    let site = Site::new();
    let settings = site.store.settings.clone();
    let site = site
        .restart(|_| {
            let to = schema::nothing().to;
            assert_eq!(migrate(&settings, true).unwrap(), Migrated { from: to, to });
            assert_eq!(migrate(&settings, false).unwrap(), Migrated { from: to, to });
        })
        .unwrap();
    let foreign = "UPDATE sentinel_schema_version SET checksum = 'x' WHERE version = 1";
    open_writer(&site.store.folder.events_db(), false).unwrap().execute_batch(foreign).unwrap();
    let refusal = site.restart(|_| {}).err().unwrap().to_string();
    assert_eq!(refusal, "schema version 1 of events.db is not the one that was released");

    let site = Site::new();
    let newer = "INSERT INTO sentinel_schema_version VALUES (99, '', '')";
    open_writer(&site.store.folder.events_db(), false).unwrap().execute_batch(newer).unwrap();
    let refusal = site.restart(|_| {}).err().unwrap().to_string();
    assert!(refusal.contains("run a newer program"), "{refusal}");
}

#[test]
fn a_run_begins_after_the_one_before_ended_also_when_the_clock_is_set_back_in_between() {
    let mut site = Site::new();
    site.post("import", "process.started", "{}");
    site.post("import", "process.completed", "{}");
    // A step of a time server, and the process goes on a moment later.
    site.clock.fetch_sub(90_000_000, Ordering::Relaxed);
    site.post("import", "process.started", "{}");
    assert_eq!(site.status("import").as_deref(), Some("RUNNING"), "the second run is open");
    let mut site = site.restart(|_| {}).unwrap();
    site.post("import", "process.failed", "{}");
    site.apply(10);
    let outcomes = site.ask("SELECT outcome FROM process_run ORDER BY run_no");
    assert_eq!(outcomes, ["completed", "failed"]);
    assert_eq!(site.status("import").as_deref(), Some("FAILED"));
}

#[test]
fn events_of_one_batch_that_bring_no_time_are_ordered_as_they_were_posted() {
    let mut site = Site::new();
    let percents = [40, 20, 90, 10];
    let mut batch = vec![site.event("import", "process.started", "{}")];
    for (percent, id) in percents.into_iter().zip(["d", "a", "c", "b"]) {
        let payload = format!(r#"{{"progress_percent":{percent}}}"#);
        let mut event = site.event("import", "process.progress", &payload);
        event.event_id = EventId::parse(id).unwrap();
        batch.push(event);
    }
    batch.push(site.event("import", "process.completed", "{}"));
    batch.push(site.event("import", "process.started", "{}"));
    batch.push(site.event("import", "process.progress", r#"{"progress_percent":5}"#));
    let now = site.now();
    let verdicts = site.intake.accept(now, batch).unwrap();
    let receipts: Vec<Timestamp> = verdicts
        .iter()
        .map(|verdict| match verdict {
            Verdict::Accepted(receipt) => receipt.received_at,
            other => panic!("{other:?}"),
        })
        .collect();
    assert!(receipts.is_sorted_by(|a, b| a < b), "receipts rise with acceptance");
    assert_eq!(receipts[0], now);
    assert_eq!(site.status("import").as_deref(), Some("RUNNING"), "of the second run");
    site.apply(10);
    let process = ProcessId::parse("import").unwrap();
    let row = site.reader.status(&acme(), &process).unwrap().unwrap().row;
    assert_eq!(
        (row.progress_percent, row.successful_runs, row.total_executions),
        (Some(5.0), 1, 2)
    );
}

#[test]
fn a_clock_that_was_far_ahead_is_not_followed_for_long() {
    let mut site = Site::new();
    let right = site.now();
    site.wait(2 * HOUR);
    site.post("a", "Ordered", "{}");
    site.clock.store(right.micros(), Ordering::Relaxed);
    let event = site.event("a", "Ordered", "{}");
    let verdict = site.intake.accept(right, vec![event]).unwrap().remove(0);
    assert!(matches!(verdict, Verdict::Accepted(receipt) if receipt.received_at == right));
}
