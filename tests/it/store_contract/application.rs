//! Clauses about applying: claim, load, settle, exactly once. This module breaks off between any two of them.

use std::time::Duration;

use sentinel::domain::process::{Outcome, Status};
use sentinel::store::{Claim, DeadLetterFilter, EventFilter, ProcessFilter, StoreError};

use super::{SECOND, Site, acme, each, first, key, positions, process};
use crate::harness::stop;

#[test]
fn a_claim_takes_what_was_accepted_first_and_says_when_there_is_no_more() {
    each(|site| {
        let empty = site.claim(5);
        assert!(empty.messages.is_empty() && empty.drained);
        for n in 0..7 {
            site.post(&format!("s{}", n % 2), "Ordered", "{}");
        }
        let claim = site.claim(5);
        assert_eq!((positions(&claim).len(), claim.drained), (5, false));
        let mut sorted = positions(&claim);
        sorted.sort_unstable();
        assert_eq!(positions(&claim), sorted);
        site.apply_once(5);
        let rest = site.claim(5);
        assert_eq!((positions(&rest).len(), rest.drained), (2, true));
        assert!(positions(&rest)[0] > sorted[4]);
    });
}

#[test]
fn a_claim_that_was_not_settled_is_claimed_again() {
    each(|site| {
        for _ in 0..3 {
            site.post("s", "Ordered", "{}");
        }
        let lost = site.claim(2);
        let wanted = lost.messages;
        site.listener = site.store.listener().unwrap();
        site.give_back();
        assert_eq!(site.claim(2).messages, wanted, "by another session");
        site.reopen();
        site.give_back();
        assert_eq!(site.claim(2).messages, wanted, "after the store was opened again");
    });
}

#[test]
fn what_is_settled_is_never_claimed_again() {
    each(|site| {
        for _ in 0..3 {
            site.post("s", "Ordered", "{}");
        }
        assert_eq!(site.apply_once(2), 2);
        site.reopen();
        assert_eq!(site.claim(9).messages.len(), 1);
        site.apply(9);
        site.listener = site.store.listener().unwrap();
        assert!(site.claim(9).messages.is_empty());
        site.reopen();
        assert!(site.claim(9).messages.is_empty());
        assert_eq!(site.numbers("s", 0).unwrap(), [1, 2, 3]);
    });
}

#[test]
fn a_settle_that_is_repeated_because_its_answer_was_lost_changes_nothing() {
    each(|site| {
        run_of(site, "p");
        let claim = site.claim(100);
        let change = site.decide(&claim);
        let copy = Claim { messages: claim.messages.clone(), drained: claim.drained };
        let now = site.now();
        site.listener.settle(claim, change.clone(), now).unwrap();
        site.reader.end_turn();
        let once = everything(site);
        site.clock.forward(SECOND);
        let later = site.now();
        site.listener.settle(copy, change, later).unwrap();
        site.reader.end_turn();
        assert_eq!(everything(site), once);
        assert_eq!(site.backlog(), (0, None));
    });
}

/// A run from start to end, with a domain event and a dead letter in between: five numbers.
fn run_of(site: &mut Site, name: &str) {
    site.post(name, "process.started", r#"{"process_name":"import"}"#);
    site.post(name, "process.progress", r#"{"current_step":"LOAD"}"#);
    site.post(name, "process.bogus", r#"{"odd":1}"#);
    site.post(name, "Ordered", "{}");
    site.post(name, "process.completed", "{}");
}

/// What a tenant sees of everything, as text.
fn everything(site: &mut Site) -> String {
    let reader = &mut *site.reader;
    let page = first(1000);
    format!(
        "{:#?}{:#?}{:#?}{:#?}{:#?}{:#?}",
        reader.processes(&acme(), &ProcessFilter::default(), &page).unwrap(),
        reader.status(&acme(), &process("p")).unwrap(),
        reader.runs(&acme(), &process("p"), &page).unwrap(),
        reader.events(&acme(), &EventFilter::default(), &page).unwrap(),
        reader.stream(&acme(), &key("p")).unwrap(),
        reader.dead_letters(&acme(), &DeadLetterFilter::default(), &page).unwrap(),
    )
}

#[test]
fn a_settled_change_is_there_whole_and_before_that_nothing_of_it() {
    each(|site| {
        run_of(site, "p");
        let claim = site.claim(100);
        let change = site.decide(&claim);
        let page = first(10);
        let all = ProcessFilter::default();
        let listed = site.reader.processes(&acme(), &all, &page).unwrap().rows;
        // What intake itself writes down of a start may be listed, and nothing else.
        let started: Vec<_> = listed.iter().map(|view| view.row.status).collect();
        let wanted: &[Status] = if site.differs().applies_late { &[Status::Running] } else { &[] };
        assert_eq!(started, wanted);
        assert_eq!(
            site.reader
                .runs(&acme(), &process("p"), &page)
                .unwrap()
                .map_or(0, |runs| { runs.rows.iter().filter(|run| run.outcome.is_some()).count() }),
            0
        );
        assert_eq!(site.reader.stream(&acme(), &key("p")).unwrap(), None);
        site.reader.end_turn();
        let now = site.now();
        site.listener.settle(claim, change, now).unwrap();

        let listed = site.reader.processes(&acme(), &all, &page).unwrap().rows;
        assert_eq!(listed.len(), 1);
        assert_eq!(listed[0].row.status, Status::Completed);
        let runs = site.reader.runs(&acme(), &process("p"), &page).unwrap().unwrap().rows;
        assert_eq!(runs.len(), 1);
        assert_eq!((runs[0].outcome, runs[0].duration_ms), (Some(Outcome::Completed), Some(4000)));
        let events = site.reader.events(&acme(), &EventFilter::default(), &page).unwrap().rows;
        assert_eq!(events.len(), 4);
        let letters =
            site.reader.dead_letters(&acme(), &DeadLetterFilter::default(), &page).unwrap().rows;
        assert_eq!(letters.len(), 1);
        let stream = site.reader.stream(&acme(), &key("p")).unwrap().unwrap();
        assert_eq!((stream.applied_seq, stream.last_type.as_str()), (5, "process.completed"));
        assert_eq!(stream.last_seen_at, site.now());
        assert_eq!(site.backlog(), (0, None));
    });
}

#[test]
fn a_change_that_the_schema_refuses_leaves_nothing_behind() {
    each(|site| {
        run_of(site, "p");
        let before = everything(site);
        site.reader.end_turn();
        let claim = site.claim(100);
        let wanted = claim.messages.clone();
        let mut change = site.decide(&claim);
        // One dead letter twice, and what the second one keeps is no JSON.
        let mut twice = change.dead_letters[0].clone();
        twice.snapshot = "no JSON".into();
        change.dead_letters.push(twice);
        let now = site.now();
        let refusal = site.listener.settle(claim, change, now).unwrap_err();
        assert!(matches!(refusal, StoreError::Refused { .. }), "{refusal:?}");
        assert_eq!(everything(site), before);
        assert_eq!(site.claim(100).messages, wanted);
        assert_eq!(site.apply_once(100), wanted.len(), "and what is right goes through");
        assert_eq!(site.numbers("p", 0).unwrap(), [1, 2, 4, 5]);
    });
}

#[test]
fn a_dead_letter_keeps_its_number_and_the_rest_of_the_stream_is_shown() {
    each(|site| {
        let mut wanted = Vec::new();
        let mut dead = Vec::new();
        for number in 1..=25 {
            if number % 4 == 1 {
                site.post("s", "process.bogus", "{}");
                dead.push(Some(number));
            } else {
                site.post("s", "Ordered", "{}");
                wanted.push(number);
            }
            site.post("t", "Ordered", "{}");
        }
        site.apply(7);
        assert_eq!(site.numbers("s", 0).unwrap(), wanted);
        for after in 0..=25 {
            let rest: Vec<u64> = wanted.iter().copied().filter(|n| *n > after).collect();
            assert_eq!(site.numbers("s", after).unwrap(), rest, "after {after}");
        }
        let letters = site.reader.dead_letters(&acme(), &DeadLetterFilter::default(), &first(99));
        let letters = letters.unwrap().rows;
        let mut numbers: Vec<_> = letters.iter().map(|letter| letter.stream_seq).collect();
        numbers.reverse();
        assert_eq!(numbers, dead);
        assert_eq!(site.reader.stream(&acme(), &key("s")).unwrap().unwrap().applied_seq, 25);
        assert_eq!(site.post("s", "Ordered", "{}").stream_seq, 26, "and the number stays taken");
        site.apply(9);
        site.reopen();
        assert_eq!(site.numbers("s", 23).unwrap(), [24, 26]);
    });
}

#[test]
fn nothing_after_a_number_that_is_not_applied_is_shown() {
    each(|site| {
        for _ in 0..10 {
            site.post("s", "Ordered", "{}");
        }
        for applied in [0, 4, 7, 10] {
            while site.numbers("s", 0).map_or(0, |numbers| numbers.len()) < applied {
                site.apply_once(1);
            }
            let wanted: Vec<u64> = (1..).take(applied).collect();
            assert_eq!(site.numbers("s", 0).unwrap_or_default(), wanted);
            let state = site.reader.stream(&acme(), &key("s")).unwrap();
            assert_eq!(state.map_or(0, |state| state.applied_seq), wanted.len() as u64);
            assert_eq!(site.numbers("s", 10).unwrap_or_default(), [0; 0]);
        }
    });
}

#[test]
fn states_are_loaded_in_the_order_asked_and_an_unknown_process_has_none() {
    each(|site| {
        site.post("a", "process.started", "{}");
        site.post("b", "process.paused", "{}");
        site.apply(10);
        let asked: Vec<_> = ["b", "nobody", "a"].map(|name| (acme(), process(name))).into();
        let states = site.listener.load(&asked).unwrap();
        let known: Vec<bool> = states.iter().map(Option::is_some).collect();
        assert_eq!(known, [true, false, true]);
        let status = |place: usize| {
            let state = states[place].as_ref().unwrap();
            state.row(&acme(), &process("x"), &super::POLICY).status
        };
        assert_eq!((status(0), status(2)), (Status::Paused, Status::Running));
        let other = [(super::tenant("other"), process("a"))];
        assert_eq!(site.listener.load(&other).unwrap(), [None], "of another tenant");
    });
}

#[test]
fn a_claim_that_waits_ends_when_it_is_time_to_stop() {
    each(|site| {
        let (signal, mut holder) = stop();
        holder.stop();
        let claim = site.listener.claim(10, Duration::from_secs(3600), &signal).unwrap();
        assert!(claim.messages.is_empty());
    });
}

#[test]
fn the_same_events_give_the_same_rows_however_they_are_batched() {
    each(|site| {
        if site.differs().is_the_only_one {
            return;
        }
        let mut seen = Vec::new();
        for batch in [1, 2, 3, 100] {
            let mut other = Site::new(site.backend);
            run_of(&mut other, "p");
            other.post("p", "process.started", "{}");
            other.post("p", "Ordered", "{}");
            other.post("p", "process.bogus", "{}");
            loop {
                let claim = other.claim(batch);
                if claim.messages.is_empty() {
                    break;
                }
                let now = other.now();
                let change = other.decide(&claim);
                other.listener.settle(claim, change, now).unwrap();
            }
            let mut rows = everything(&mut other);
            // What hangs on the batches, where it does.
            if site.differs().versions_are_commits {
                rows = without_numbers(&rows, "version");
            }
            if site.differs().gives_by_priority {
                rows = without_numbers(&rows, "position");
            }
            seen.push(rows);
        }
        for other in &seen[1..] {
            let mut lines = other.lines().zip(seen[0].lines());
            assert_eq!(lines.find(|(this, first)| this != first), None, "the first difference");
        }
    });
}

/// The text without the number after `name`, wherever that stands.
fn without_numbers(text: &str, name: &str) -> String {
    let parts = text.split(name).map(|part| {
        let start = part.find(|letter: char| letter.is_ascii_alphanumeric()).unwrap_or(part.len());
        part[start..].trim_start_matches(|letter: char| letter.is_ascii_digit())
    });
    parts.collect::<Vec<_>>().join(name)
}
