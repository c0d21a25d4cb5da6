//! What readers see: every acknowledged event in `/status` at once, and listings without holes or repeats.

use std::collections::BTreeSet;

use super::*;
use crate::domain::process::{Outcome, Status};
use crate::store::{
    Cursor, DeadLetterFilter, EventFilter, ListenerSession, LogFilter, ProcessFilter,
};

fn process(name: &str) -> ProcessId {
    ProcessId::parse(name).unwrap()
}

fn stream(name: &str) -> StreamKey {
    StreamKey::parse(name).unwrap()
}

impl Site {
    /// Numbers of a stream after `after`.
    fn numbers(&mut self, key: &str, after: u64, limit: usize) -> Option<Vec<u64>> {
        let events = self.reader.stream_events(&acme(), &stream(key), after, limit).unwrap();
        events.map(|events| events.iter().map(|event| event.event.stream_seq).collect())
    }

    /// Positions of a whole listing of events, page by page.
    fn listed(&mut self, filter: &EventFilter, limit: usize) -> Vec<i64> {
        let (mut page, mut positions) = (first(limit), Vec::new());
        loop {
            let found = self.reader.events(&acme(), filter, &page).unwrap();
            assert!(found.rows.len() <= limit);
            positions.extend(found.rows.iter().map(|event| event.event.position));
            let Some(next) = found.next else { return positions };
            page.after = Some(next);
        }
    }
}

#[test]
fn status_sees_an_acknowledged_event_before_and_while_it_is_applied() {
    let mut site = Site::new();
    assert_eq!(site.status("a"), None);
    site.post("a", "process.started", "{}");
    assert_eq!(site.status("a").as_deref(), Some("RUNNING"), "in the overlay alone");
    site.post("a", "process.progress", r#"{"current_step":"LOAD"}"#);
    // The reader's snapshot is from before; the listener applies and trims under it.
    let (policy, now) = (site.store.settings.policy, site.now());
    site.projection.replay(10, &policy, now).unwrap();
    let view = site.reader.status(&acme(), &process("a")).unwrap().unwrap();
    assert_eq!(view.row.current_step.as_deref(), Some("LOAD"));
    let version = view.version;
    site.reader.end_turn();
    let again = site.reader.status(&acme(), &process("a")).unwrap().unwrap();
    assert_eq!(again.version, version);
    site.post("a", "process.completed", "{}");
    let view = site.reader.status(&acme(), &process("a")).unwrap().unwrap();
    assert_eq!(view.row.status, Status::Completed);
    assert!(view.version > version);
    let other = TenantId::parse("other").unwrap();
    assert_eq!(site.reader.status(&other, &process("a")).unwrap(), None);
}

#[test]
fn an_event_comes_back_as_it_was_accepted() {
    let mut site = Site::new();
    let mut envelope = site.event("a", "Ordered", r#"{"n":1}"#);
    envelope.occurred_at = Some(site.now().minus(HOUR));
    envelope.key = Some(crate::domain::ids::IdempotencyKey::parse("k-1").unwrap());
    let id = envelope.event_id.clone();
    site.accept(envelope.clone());
    for _ in 0..40 {
        site.post("b", "Ordered", "{}");
    }
    assert_eq!(site.reader.event(&acme(), &id).unwrap(), None, "not applied yet");
    site.apply(10);
    let stored = site.reader.event(&acme(), &id).unwrap().unwrap();
    assert_eq!(stored.event.envelope, envelope);
    assert_eq!((stored.event.position, stored.event.stream_seq), (1, 1));
    assert_eq!(stored.processed_at, site.now());
    assert_eq!(site.reader.event(&TenantId::parse("other").unwrap(), &id).unwrap(), None);
    assert_eq!(site.reader.event(&acme(), &EventId::parse("nobody").unwrap()).unwrap(), None);
}

#[test]
fn a_stream_is_read_without_a_gap_across_tables_and_dead_letters() {
    let mut site = Site::new();
    assert_eq!(site.numbers("a", 0, 10), None);
    for number in 1..=34 {
        let event_type = if number % 9 == 0 { "process.bogus" } else { "Ordered" };
        site.post("a", event_type, "{}");
        site.post("b", "Ordered", "{}");
    }
    site.apply(4);
    let all: Vec<u64> = (1..=34).filter(|number| number % 9 != 0).collect();
    assert_eq!(site.numbers("a", 0, 100).unwrap(), all);
    for after in 0..=34 {
        let wanted: Vec<u64> = all.iter().copied().filter(|n| *n > after).take(5).collect();
        assert_eq!(site.numbers("a", after, 5).unwrap(), wanted, "after {after}");
    }
    let state = site.reader.stream(&acme(), &stream("a")).unwrap().unwrap();
    assert_eq!((state.applied_seq, state.last_type.as_str()), (34, "Ordered"));
    // A hole that no dead letter explains ends the answer, wherever the reading begins.
    let writer = open_writer(&site.store.folder.events_db(), false).unwrap();
    let hole = site.ask("SELECT id FROM events WHERE stream_key = 'a' AND stream_seq = 20");
    let position = hole[0].trim_start_matches("Integer(").trim_end_matches(')');
    for n in site.ask("SELECT n FROM event_table") {
        let n = n.trim_start_matches("Integer(").trim_end_matches(')');
        writer
            .execute_batch(&format!("DELETE FROM events_{n} WHERE position = {position}"))
            .unwrap();
    }
    site.reader.end_turn();
    assert_eq!(site.numbers("a", 16, 100).unwrap(), [17, 19]);
    assert_eq!(site.numbers("a", 19, 100).unwrap(), [0; 0]);
}

#[test]
fn events_are_listed_newest_first_by_their_own_time_without_skip_or_repeat() {
    let mut site = Site::new();
    for number in 0u64..57 {
        let key = ["a", "b", "c"][usize::try_from(number % 3).unwrap()];
        let mut envelope = site.event(key, "Ordered", "{}");
        if number % 5 == 0 {
            // Late ones, which lie in a newer table than their time suggests.
            envelope.occurred_at = Some(site.now().minus(Duration::from_secs(number + 20)));
        }
        if number % 4 == 0 {
            envelope.event_type = EventType::parse("Shipped").unwrap();
        }
        site.accept(envelope);
    }
    site.apply(6);
    let order =
        "SELECT position FROM (SELECT position, ordered_us, type_id, stream_id FROM events_1";
    let tables: Vec<String> = (2..=5)
        .map(|n| {
            format!(" UNION ALL SELECT position, ordered_us, type_id, stream_id FROM events_{n}")
        })
        .collect();
    let wanted = |site: &Site, filter: &str| -> Vec<i64> {
        let sql = format!(
            "{order}{}) WHERE {filter} ORDER BY ordered_us DESC, position DESC",
            tables.concat()
        );
        let rows = site.ask(&sql);
        let number = |row: &String| {
            row.trim_start_matches("Integer(").trim_end_matches(')').parse().unwrap()
        };
        rows.iter().map(number).collect()
    };
    let all = EventFilter::default();
    for limit in [1, 4, 10, 100] {
        assert_eq!(site.listed(&all, limit), wanted(&site, "true"), "pages of {limit}");
    }
    let shipped = EventFilter {
        event_type: Some(EventType::parse("Shipped").unwrap()),
        ..EventFilter::default()
    };
    let number = "(SELECT type_id FROM event_type WHERE name = 'Shipped')";
    assert_eq!(site.listed(&shipped, 4), wanted(&site, &format!("type_id = {number}")));
    let of_b = EventFilter { stream: Some(stream("b")), ..EventFilter::default() };
    let number = "(SELECT stream_id FROM stream WHERE stream_key = 'b')";
    let mut in_b = wanted(&site, &format!("stream_id = {number}"));
    // One stream is listed by its numbers, which rise with the positions.
    in_b.sort_unstable_by(|a, b| b.cmp(a));
    assert_eq!(site.listed(&of_b, 4), in_b);
    let (from, to) = (site.now().minus(Duration::from_secs(30)), site.now().minus(HOUR / 360));
    let window = EventFilter { from: Some(from), to: Some(to), ..EventFilter::default() };
    let filter = format!("ordered_us >= {} AND ordered_us < {}", from.micros(), to.micros());
    assert_eq!(site.listed(&window, 3), wanted(&site, &filter));
    let nobody =
        EventFilter { source: Some(Source::parse("nobody").unwrap()), ..EventFilter::default() };
    assert_eq!(site.listed(&nobody, 3), [0; 0]);
}

#[test]
fn processes_are_listed_newest_known_first_while_others_report() {
    let mut site = Site::new();
    for number in 0..23 {
        let kind = if number % 2 == 0 { "even" } else { "odd" };
        let body = format!(r#"{{"process_type":"{kind}","process_name":"job-{number}"}}"#);
        site.post(&format!("p{number}"), "process.started", &body);
        if number % 3 == 0 {
            site.post(&format!("p{number}"), "process.completed", "{}");
        }
    }
    site.apply(10);
    let list = |site: &mut Site, filter: &ProcessFilter| -> Vec<String> {
        let (mut page, mut names) = (first(4), Vec::new());
        loop {
            let found = site.reader.processes(&acme(), filter, &page).unwrap();
            names.extend(found.rows.iter().map(|view| view.row.process.as_str().to_string()));
            // Somebody reports between two pages, and the listing does not mind.
            site.post("p5", "process.heartbeat", "{}");
            site.apply(10);
            let Some(next) = found.next else { return names };
            page.after = Some(next);
        }
    };
    let names = |keep: &dyn Fn(u32) -> bool| -> Vec<String> {
        (0..23).rev().filter(|n| keep(*n)).map(|n| format!("p{n}")).collect()
    };
    assert_eq!(list(&mut site, &ProcessFilter::default()), names(&|_| true));
    let running = ProcessFilter {
        statuses: vec![Status::Running, Status::Paused],
        ..ProcessFilter::default()
    };
    assert_eq!(list(&mut site, &running), names(&|n| n % 3 != 0));
    let even = ProcessFilter { process_type: Some("even".into()), ..ProcessFilter::default() };
    assert_eq!(list(&mut site, &even), names(&|n| n % 2 == 0));
    let named = ProcessFilter { name: Some("job-7".into()), ..ProcessFilter::default() };
    assert_eq!(list(&mut site, &named), ["p7"]);
    let foreign = Page { limit: 5, after: Some(Cursor("AAAA".into())) };
    let refusal = site.reader.processes(&acme(), &even, &foreign).unwrap_err();
    assert!(matches!(refusal, StoreError::Refused { .. }));
}

#[test]
fn runs_are_listed_newest_first_and_their_successes_make_the_median() {
    let mut site = Site::new();
    assert_eq!(site.reader.runs(&acme(), &process("a"), &first(9)).unwrap(), None);
    let mut starts = Vec::new();
    for minutes in [1, 3, 2, 9] {
        starts.push(site.post("a", "process.started", r#"{"process_name":"nightly"}"#));
        site.wait(Duration::from_secs(60 * minutes - 1));
        let end = if minutes == 9 { "process.failed" } else { "process.completed" };
        site.post("a", end, r#"{"error_code":"X"}"#);
    }
    site.apply(3);
    let (mut page, mut runs) = (first(3), Vec::new());
    loop {
        let found = site.reader.runs(&acme(), &process("a"), &page).unwrap().unwrap();
        runs.extend(found.rows);
        let Some(next) = found.next else { break };
        page.after = Some(next);
    }
    starts.reverse();
    let ids: Vec<EventId> = runs.iter().map(|run| run.run_id.clone().unwrap()).collect();
    assert_eq!(ids, starts);
    assert_eq!(runs[0].outcome, Some(Outcome::Failed));
    assert_eq!(runs[3].duration_ms, Some(60_000));
    let view = site.reader.status(&acme(), &process("a")).unwrap().unwrap();
    assert_eq!(view.median_ms, Some(120_000));
    assert_eq!(view.row.total_executions, 4);
}

#[test]
fn dead_letters_are_kept_whole_and_listed_newest_first() {
    let mut site = Site::new();
    let mut ids = BTreeSet::new();
    for number in 0..5 {
        ids.insert(site.post("a", "process.bogus", &format!("{number}")).as_str().to_string());
        site.post("b", "process.progress", r#"{"progress_percent":"much"}"#);
    }
    site.apply(4);
    let all = DeadLetterFilter::default();
    let (mut page, mut letters) = (first(2), Vec::new());
    loop {
        let found = site.reader.dead_letters(&acme(), &all, &page).unwrap();
        letters.extend(found.rows);
        let Some(next) = found.next else { break };
        page.after = Some(next);
    }
    let numbers: Vec<i64> = letters.iter().map(|letter| letter.id).collect();
    assert_eq!(numbers, [10, 9, 8, 7, 6, 5, 4, 3, 2, 1]);
    let unknown =
        DeadLetterFilter { reason: Some("unknown_type".into()), ..DeadLetterFilter::default() };
    let found = site.reader.dead_letters(&acme(), &unknown, &first(100)).unwrap();
    let found: BTreeSet<String> =
        found.rows.into_iter().map(|letter| letter.event_id.unwrap()).collect();
    assert_eq!(found, ids);
    let letter = site.reader.dead_letter(&acme(), 1).unwrap().unwrap();
    assert!(letter.snapshot.contains("process.bogus"), "{}", letter.snapshot);
    assert_eq!((letter.stream_key.as_deref(), letter.stream_seq), (Some("a"), Some(1)));
    let other = TenantId::parse("other").unwrap();
    assert_eq!(site.reader.dead_letter(&other, 1).unwrap(), None);
    assert_eq!(site.status("a"), None, "a dead letter makes no process");
}

#[test]
fn a_page_ends_with_the_row_that_makes_it_large_and_the_next_one_goes_on_there() {
    let mut site = Site::new();
    let large = format!("{{\"filler\":\"{}\"}}", "y".repeat(400_000));
    for _ in 0..7 {
        site.post("a", "Ordered", &large);
        site.post("a", "process.bogus", &large);
    }
    site.apply(4);
    let (mut page, mut sizes) = (first(1000), Vec::new());
    loop {
        let found = site.reader.events(&acme(), &EventFilter::default(), &page).unwrap();
        sizes.push(found.rows.len());
        let Some(next) = found.next else { break };
        page.after = Some(next);
    }
    assert_eq!(sizes, [3, 3, 1]);
    let (mut page, mut sizes) = (first(1000), Vec::new());
    loop {
        let found = site.reader.dead_letters(&acme(), &DeadLetterFilter::default(), &page).unwrap();
        sizes.push(found.rows.len());
        let Some(next) = found.next else { break };
        page.after = Some(next);
    }
    assert_eq!(sizes, [3, 3, 1]);
    assert_eq!(site.numbers("a", 0, 1000).unwrap(), [1, 3, 5]);
    assert_eq!(site.numbers("a", 5, 1000).unwrap(), [7, 9, 11]);
    assert_eq!(site.numbers("a", 11, 1000).unwrap(), [13]);
}

#[test]
fn logs_of_an_unknown_process_are_unknown_and_of_a_silent_one_empty() {
    let mut site = Site::new();
    let filter = LogFilter::default();
    assert_eq!(site.reader.logs(&acme(), &process("a"), &filter, &first(9)).unwrap(), None);
    site.post("a", "process.started", "{}");
    let found = site.reader.logs(&acme(), &process("a"), &filter, &first(9)).unwrap().unwrap();
    assert!(found.rows.is_empty() && found.next.is_none());
}

#[test]
fn states_are_loaded_in_the_order_asked() {
    let mut site = Site::new();
    site.post("a", "process.started", "{}");
    site.post("b", "process.registered", "{}");
    site.apply(10);
    let asked: Vec<_> = ["b", "nobody", "a"].map(|name| (acme(), process(name))).into();
    let states = site.projection.load(&asked).unwrap();
    let policy = site.store.settings.policy;
    let statuses: Vec<_> = states
        .into_iter()
        .map(|state| state.map(|state| state.row(&acme(), &process("x"), &policy).status))
        .collect();
    assert_eq!(statuses, [Some(Status::Registered), None, Some(Status::Running)]);
}

#[test]
fn the_views_answer_under_the_names_that_people_know() {
    let mut site = Site::new();
    site.post(
        "a",
        "process.started",
        r#"{"package_name":"P","procedure_name":"Q","metadata":{"batch":7}}"#,
    );
    site.post("a", "process.progress", r#"{"current_step":"LOAD","progress_percent":40}"#);
    site.post("a", "process.bogus", "{}");
    site.apply(10);
    let live = site.ask(
        "SELECT process_id, tenant_id, status, current_step, progress_percent, started_at FROM process_live_status",
    );
    assert_eq!(live, ["a acme RUNNING LOAD Real(40.0) 2026-01-28T10:00:01.000000Z"]);
    let registry =
        "SELECT process_id, package_name, procedure_name, status, tags FROM process_registry";
    assert_eq!(site.ask(registry), [r#"a P Q RUNNING {"batch":7}"#]);
    assert_eq!(site.ask("SELECT history_key, outcome FROM process_runs"), ["P.Q Null"]);
    assert_eq!(
        site.ask("SELECT stream_key, applied_seq, last_type FROM stream_state"),
        ["a Integer(3) process.bogus"]
    );
    assert_eq!(
        site.ask("SELECT id, tenant_id, reason, created_utc FROM dead_letter"),
        ["Integer(3) acme unknown_type 2026-01-28T10:00:03.000000Z"]
    );
    assert_eq!(
        site.ask("SELECT id, source, type, stream_seq, received_utc FROM events WHERE id = 2"),
        ["Integer(2) orders-api process.progress Integer(2) 2026-01-28T10:00:02.000000Z"]
    );
}
