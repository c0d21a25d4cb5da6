//! Clauses about what is seen when: an acknowledged event at once, a listing as of one moment. This module holds the
//! reader against both.

use sentinel::domain::process::Status;
use sentinel::store::{Condition, DeadLetterFilter, EventFilter, LogFilter, ProcessFilter};

use super::places::Place;
use super::{Site, acme, each, first, key, process, tenant};

#[test]
fn what_is_accepted_is_seen_at_once_and_looks_the_same_once_it_is_applied() {
    each(|site| {
        assert_eq!(site.status("p"), None);
        let events = [
            ("process.registered", r#"{"process_type":"batch"}"#),
            ("process.started", r#"{"process_name":"import","metadata":{"a":1}}"#),
            ("process.progress", r#"{"current_step":"LOAD","progress_percent":40}"#),
            ("Ordered", "{}"),
            ("process.heartbeat", "{}"),
            ("process.bogus", "{}"),
            ("process.paused", "{}"),
            ("process.resumed", "{}"),
            ("process.failed", r#"{"error_code":"E1","error_message":"broken"}"#),
            ("process.started", "{}"),
            ("Ordered", "{}"),
        ];
        for batch in [1, 3, 100] {
            for (event_type, payload) in events {
                site.post("p", event_type, payload);
                site.catch_up();
                let before = site.status("p").expect("it is known at once");
                site.reader.end_turn();
                assert_eq!(site.status("p"), Some(before.clone()), "in the next turn, too");
                if batch == 1 {
                    site.apply(1);
                    assert_eq!(site.status("p"), Some(before), "after {event_type}");
                }
            }
            let before = site.status("p");
            site.apply(batch);
            assert_eq!(site.status("p"), before, "applied {batch} at a time");
        }
    });
}

#[test]
fn a_start_is_seen_from_its_acknowledgement_on() {
    each(|site| {
        let body = r#"{"process_name":"import","metadata":{"a":1}}"#;
        let receipt = site.post("p", "process.started", body);
        let seen = site.status("p").expect("it is known at once").row;
        assert_eq!(seen.status, Status::Running);
        assert_eq!(seen.run_id, Some(receipt.event_id));
        assert_eq!(seen.started_at, Some(receipt.received_at));
        assert_eq!(site.apply_once(10), 1);
        assert_eq!(site.status("p").unwrap().row.process_name.as_deref(), Some("import"));
    });
}

#[test]
fn a_status_in_the_middle_of_a_turn_sees_what_was_acknowledged_and_applied_since() {
    each(|site| {
        site.post("p", "process.started", "{}");
        site.apply(10);
        let all = ProcessFilter::default();
        site.reader.processes(&acme(), &all, &first(10)).unwrap();
        // The turn goes on: end_turn is not called.
        site.post("p", "process.completed", "{}");
        let seen = if site.differs().applies_late { Status::Running } else { Status::Completed };
        assert_eq!(site.status("p").unwrap().row.status, seen);
        let (claim, now) = (site.claim(10), site.now());
        let change = site.decide(&claim);
        site.listener.settle(claim, change, now).unwrap();
        assert_eq!(site.status("p").unwrap().row.status, Status::Completed);
    });
}

#[test]
fn the_version_rises_with_each_change_and_stays_while_nothing_changes() {
    each(|site| {
        let mut last = 0;
        for (round, event_type) in
            ["process.started", "process.progress", "process.heartbeat", "process.completed"]
                .iter()
                .cycle()
                .take(12)
                .enumerate()
        {
            site.post("p", event_type, "{}");
            site.catch_up();
            let version = site.status("p").unwrap().version;
            assert!(version > last, "{event_type}: {version} after {last}");
            if round % 3 == 0 {
                site.apply(10);
            }
            assert_eq!(site.status("p").unwrap().version, version);
            site.post("q", event_type, "{}");
            site.catch_up();
            assert_eq!(site.status("p").unwrap().version, version, "another one's change");
            last = version;
        }
        site.reopen();
        assert_eq!(site.status("p").unwrap().version, last);
    });
}

#[test]
fn a_turn_shows_one_moment_and_its_end_moves_on() {
    each(|site| {
        site.post("s", "Ordered", "{}");
        site.apply(10);
        let look = |site: &mut Site| {
            let events = site.reader.events(&acme(), &EventFilter::default(), &first(10));
            let numbers = site.numbers("s", 0).unwrap().len();
            let state = site.reader.stream(&acme(), &key("s")).unwrap().unwrap().applied_seq;
            (events.unwrap().rows.len(), numbers, state)
        };
        assert_eq!(look(site), (1, 1, 1));
        site.post("s", "Ordered", "{}");
        let (claim, now) = (site.claim(10), site.now());
        let change = site.decide(&claim);
        site.listener.settle(claim, change, now).unwrap();
        let wanted = if site.differs().has_no_turns { (2, 2, 2) } else { (1, 1, 1) };
        assert_eq!(look(site), wanted, "the turn goes on");
        let mut other = site.store.reader().unwrap();
        let seen = other.events(&acme(), &EventFilter::default(), &first(10)).unwrap();
        assert_eq!(seen.rows.len(), 2, "another session has its own turn");
        site.reader.end_turn();
        assert_eq!(look(site), (2, 2, 2));
        site.reader.ping().unwrap();
    });
}

#[test]
fn two_tenants_never_see_each_other_through_any_question() {
    each(|site| {
        site.post("p", "process.started", "{}");
        site.post("p", "process.completed", "{}");
        let id = site.post("p", "Ordered", "{}").event_id;
        site.post("p", "process.bogus", "{}");
        let row = super::log_rows::row(site, "p", "theirs");
        site.store.logs().unwrap().write(&[row]).unwrap();
        let (us, other) = (acme(), tenant("other"));
        let p = process("p");
        for applied in [false, true] {
            assert_eq!(site.reader.status(&other, &p).unwrap(), None, "applied: {applied}");
            assert_eq!(site.reader.runs(&other, &p, &first(9)).unwrap(), None);
            let logs = site.reader.logs(&other, &p, &LogFilter::default(), &first(9)).unwrap();
            assert_eq!(logs, None);
            assert_eq!(site.reader.event(&other, &id).unwrap(), None);
            assert_eq!(site.reader.stream(&other, &key("p")).unwrap(), None);
            assert_eq!(site.reader.stream_events(&other, &key("p"), 0, 9).unwrap(), None);
            let page = first(9);
            let processes = site.reader.processes(&other, &ProcessFilter::default(), &page);
            assert_eq!(processes.unwrap().rows, []);
            let filter = EventFilter { stream: Some(key("p")), ..EventFilter::default() };
            for filter in [EventFilter::default(), filter] {
                assert_eq!(site.reader.events(&other, &filter, &page).unwrap().rows, []);
            }
            let letters = DeadLetterFilter::default();
            assert_eq!(site.reader.dead_letters(&other, &letters, &page).unwrap().rows, []);
            let ours = site.reader.dead_letters(&us, &letters, &page).unwrap().rows;
            for letter in &ours {
                assert_eq!(site.reader.dead_letter(&other, letter.id).unwrap(), None);
                assert!(site.reader.dead_letter(&us, letter.id).unwrap().is_some());
            }
            assert_eq!(ours.len(), usize::from(applied));
            site.apply(10);
        }
        // One who has the same names sees its own, and only that.
        let mut theirs = site.envelope("p", "process.started", r#"{"process_name":"theirs"}"#);
        theirs.tenant = other.clone();
        site.accept_one(theirs);
        site.apply(10);
        let status = site.reader.status(&other, &p).unwrap().unwrap();
        assert_eq!(status.row.process_name.as_deref(), Some("theirs"));
        assert_eq!(site.reader.stream_events(&other, &key("p"), 0, 9).unwrap().unwrap().len(), 1);
        let logs = site.reader.logs(&other, &p, &LogFilter::default(), &first(9)).unwrap();
        assert_eq!(logs.unwrap().rows, []);
        assert_eq!(site.status("p").unwrap().row.status, Status::Completed);
    });
}

#[test]
fn what_an_alias_hides_about_its_sessions_is_a_condition_that_is_not_fine() {
    each(|site| {
        let of_address = |line: &Condition| line.name == "address";
        let first = site.store.condition().into_iter().filter(of_address).collect::<Vec<_>>();
        assert_eq!(first, []);
        let Place::Service(standin) = &site.place else { return };
        let named = |site: &Site| {
            let store = (site.backend.open)(&site.place, &site.clock);
            store.condition().into_iter().filter(of_address).collect::<Vec<_>>()
        };
        standin.sql("UPDATE standin.session_kind SET server = 'POOLED', failover_type = 'SELECT'");
        let found = named(site);
        assert_eq!(found.len(), 2, "{found:?}");
        assert!(found.iter().all(|line| !line.fine && !line.vital));
        assert!(found[0].detail.contains("POOLED") && found[1].detail.contains("SELECT"));
        // An older schema knows no such question, which is no reason to stay away.
        let refusal = standin.inject("on=OCIStmtExecute text=session_kind do=ora:6550");
        assert_eq!(named(site), []);
        assert_eq!(standin.hits(&refusal), 1);
        standin.mend(&refusal);
    });
}
