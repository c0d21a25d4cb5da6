//! Clauses about listings: pages never skip and never repeat, whatever is added between them, and filters show what
//! they say. This module pages through each listing but that of log rows.

use std::collections::BTreeSet;

use sentinel::domain::event::Envelope;
use sentinel::domain::ids::{EventType, Source};
use sentinel::domain::process::{Outcome, Status};
use sentinel::store::{
    Cursor, DeadLetterFilter, EventFilter, Page, ProcessFilter, ProcessView, StoreError,
};

use super::{SECOND, Site, acme, each, first, key, pages, process};

fn names(views: &[ProcessView]) -> Vec<String> {
    views.iter().map(|view| view.row.process.to_string()).collect()
}

/// Fails if something repeats, or if something that was there from the beginning is missing.
fn is_complete(what: &str, seen: &[String], from_the_beginning: &[String]) {
    let set: BTreeSet<&String> = seen.iter().collect();
    assert_eq!(set.len(), seen.len(), "{what}: nothing repeats in {seen:?}");
    let missing: Vec<_> = from_the_beginning.iter().filter(|name| !set.contains(name)).collect();
    assert!(missing.is_empty(), "{what}: {missing:?} were skipped in {seen:?}");
}

#[test]
fn processes_are_paged_without_skip_or_repeat_while_they_report_and_others_appear() {
    each(|site| {
        let beginning: Vec<String> = (0..23).map(|n| format!("p{n:02}")).collect();
        for name in &beginning {
            site.post(name, "process.started", "{}");
        }
        site.apply(5);
        for limit in [1, 4, 7, 100] {
            let mut round = 0;
            let all = ProcessFilter::default();
            let seen = pages(
                site,
                limit,
                |reader, page| reader.processes(&acme(), &all, page).unwrap(),
                |site| {
                    round += 1;
                    let known = format!("p{:02}", round * 7 % 23);
                    let kinds = ["process.heartbeat", "process.completed", "process.started"];
                    site.post(&known, kinds[round % 3], "{}");
                    site.post(&format!("new-{limit}-{round}"), "process.started", "{}");
                    site.apply(10);
                },
            );
            is_complete("processes", &names(&seen), &beginning);
        }
    });
}

#[test]
fn processes_are_filtered_by_status_type_and_name() {
    each(|site| {
        for n in 0..12 {
            let kind = ["batch", "daemon"][n % 2];
            let body = format!(r#"{{"process_type":"{kind}","process_name":"job-{}"}}"#, n % 3);
            let name = format!("p{n:02}");
            site.post(&name, "process.started", &body);
            if n % 4 == 0 {
                site.post(&name, "process.completed", "{}");
            }
        }
        site.post("known", "process.registered", "{}");
        site.apply(10);
        let list = |site: &mut Site, filter: &ProcessFilter| {
            let ask = |reader: &mut dyn sentinel::store::Reader, page: &Page| {
                reader.processes(&acme(), filter, page).unwrap()
            };
            let mut found = names(&pages(site, 2, ask, |_| {}));
            found.sort();
            found
        };
        let all = ProcessFilter::default();
        assert_eq!(list(site, &all).len(), 13);
        let completed = ProcessFilter { statuses: vec![Status::Completed], ..all.clone() };
        assert_eq!(list(site, &completed), ["p00", "p04", "p08"]);
        let two = ProcessFilter {
            statuses: vec![Status::Registered, Status::Completed, Status::Completed],
            ..all.clone()
        };
        assert_eq!(list(site, &two), ["known", "p00", "p04", "p08"]);
        let daemons = ProcessFilter { process_type: Some("daemon".into()), ..all.clone() };
        assert_eq!(list(site, &daemons), ["p01", "p03", "p05", "p07", "p09", "p11"]);
        let both = ProcessFilter {
            statuses: vec![Status::Running],
            process_type: Some("batch".into()),
            name: Some("job-1".into()),
        };
        assert_eq!(list(site, &both), ["p10"]);
        let nobody = ProcessFilter { name: Some("job".into()), ..all };
        assert_eq!(list(site, &nobody), [""; 0], "a name is the whole name");
    });
}

#[test]
fn a_listed_process_is_what_its_status_says() {
    each(|site| {
        for name in ["a", "b"] {
            site.post(name, "process.started", r#"{"metadata":{"n":1}}"#);
            site.post(name, "process.progress", r#"{"progress_percent":10}"#);
        }
        site.apply(10);
        let listed = site.reader.processes(&acme(), &ProcessFilter::default(), &first(9)).unwrap();
        for view in listed.rows {
            let name = view.row.process.to_string();
            assert_eq!(site.status(&name), Some(view));
        }
    });
}

#[test]
fn runs_are_paged_newest_first_while_new_ones_begin() {
    each(|site| {
        assert_eq!(site.reader.runs(&acme(), &process("p"), &first(9)).unwrap(), None);
        let mut started = Vec::new();
        for n in 0..9 {
            started.push(site.post("p", "process.started", "{}").event_id);
            let end = if n % 2 == 0 { "process.completed" } else { "process.failed" };
            site.post("p", end, "{}");
        }
        site.apply(4);
        let seen = pages(
            site,
            2,
            |reader, page| reader.runs(&acme(), &process("p"), page).unwrap().unwrap(),
            |site| {
                site.post("p", "process.started", "{}");
                site.apply(10);
            },
        );
        let ids: Vec<_> = seen.iter().filter_map(|run| run.run_id.clone()).collect();
        started.reverse();
        assert_eq!(ids, started, "what began later is before the first page");
        let outcomes: Vec<_> = seen.iter().map(|run| run.outcome).collect();
        assert_eq!(outcomes[0], Some(Outcome::Completed));
        assert_eq!(outcomes[1], Some(Outcome::Failed));
    });
}

/// Events of three streams, some of them late, and their ids.
fn events(site: &mut Site, count: u32) -> Vec<String> {
    let mut ids = Vec::new();
    for n in 0..count {
        let stream = match n % 3 {
            0 => "a",
            1 => "b",
            _ => "c",
        };
        let mut event: Envelope = site.envelope(stream, "Ordered", "{}");
        if n % 4 == 0 {
            event.event_type = EventType::parse("Shipped").unwrap();
        }
        if n % 5 == 0 {
            event.occurred_at = Some(site.now().minus(SECOND * (20 + n)));
        }
        if n % 6 == 0 {
            event.source = Source::parse("billing").unwrap();
        }
        ids.push(event.event_id.to_string());
        site.accept_one(event);
    }
    ids
}

#[test]
fn events_are_paged_newest_first_without_skip_or_repeat_while_others_come() {
    each(|site| {
        let beginning = events(site, 57);
        site.apply(6);
        for limit in [1, 4, 10, 100] {
            let mut late = 0;
            let all = EventFilter::default();
            let mut times = Vec::new();
            let seen = pages(
                site,
                limit,
                |reader, page| {
                    let found = reader.events(&acme(), &all, page).unwrap();
                    times.extend(found.rows.iter().map(|event| event.event.ordered_at));
                    found
                },
                |site| {
                    late += 1;
                    site.post("a", "Ordered", "{}");
                    if late % 3 == 0 {
                        let mut event = site.envelope("b", "Ordered", "{}");
                        event.occurred_at = Some(site.now().minus(SECOND * 30));
                        site.accept_one(event);
                    }
                    site.apply(10);
                },
            );
            let seen: Vec<String> =
                seen.iter().map(|event| event.event.envelope.event_id.to_string()).collect();
            is_complete("events", &seen, &beginning);
            assert!(times.is_sorted_by(|newer, older| newer >= older), "{times:?}");
        }
    });
}

#[test]
fn events_are_filtered_by_time_source_type_and_stream() {
    each(|site| {
        let begin = site.now();
        events(site, 60);
        site.apply(7);
        let all = EventFilter::default();
        let list = |site: &mut Site, filter: &EventFilter| {
            pages(site, 4, |reader, page| reader.events(&acme(), filter, page).unwrap(), |_| {})
        };
        let everything = list(site, &all);
        assert_eq!(everything.len(), 60);
        let (from, to) = (begin.plus(SECOND * 10), begin.plus(SECOND * 40));
        let filters = [
            EventFilter { from: Some(from), ..all.clone() },
            EventFilter { to: Some(to), ..all.clone() },
            EventFilter { from: Some(from), to: Some(to), ..all.clone() },
            EventFilter { source: Some(Source::parse("billing").unwrap()), ..all.clone() },
            EventFilter { event_type: Some(EventType::parse("Shipped").unwrap()), ..all.clone() },
            EventFilter { stream: Some(key("b")), ..all.clone() },
            EventFilter {
                from: Some(from),
                to: Some(to),
                source: Some(Source::parse("orders-api").unwrap()),
                event_type: Some(EventType::parse("Ordered").unwrap()),
                stream: Some(key("c")),
            },
        ];
        for filter in filters {
            let mut wanted: Vec<_> = everything
                .iter()
                .filter(|stored| {
                    let (event, at) = (&stored.event.envelope, stored.event.ordered_at);
                    filter.from.is_none_or(|from| at >= from)
                        && filter.to.is_none_or(|to| at < to)
                        && filter.source.as_ref().is_none_or(|source| event.source == *source)
                        && filter.event_type.as_ref().is_none_or(|kind| event.event_type == *kind)
                        && filter.stream.as_ref().is_none_or(|stream| event.stream == *stream)
                })
                .cloned()
                .collect();
            if filter.stream.is_some() {
                // One stream is listed by its numbers, whatever the times of its events.
                wanted.sort_by_key(|stored| std::cmp::Reverse(stored.event.stream_seq));
            }
            assert!(!wanted.is_empty() && wanted.len() < 60, "{filter:?} tells something apart");
            assert_eq!(list(site, &filter), wanted, "{filter:?}");
        }
        let nobody = EventFilter { stream: Some(key("nobody")), ..all };
        assert_eq!(list(site, &nobody), []);
    });
}

#[test]
fn events_of_a_stream_are_paged_by_number_while_others_come_and_late_ones_keep_their_place() {
    each(|site| {
        events(site, 60);
        site.apply(7);
        let of_b = EventFilter { stream: Some(key("b")), ..EventFilter::default() };
        for limit in [1, 3, 100] {
            let last = site.reader.stream(&acme(), &key("b")).unwrap().unwrap().applied_seq;
            let seen = pages(
                site,
                limit,
                |reader, page| reader.events(&acme(), &of_b, page).unwrap(),
                |site| {
                    let mut late = site.envelope("b", "Ordered", "{}");
                    late.occurred_at = Some(site.now().minus(SECOND * 300));
                    site.accept_one(late);
                    site.apply(10);
                },
            );
            let numbers: Vec<u64> = seen.iter().map(|stored| stored.event.stream_seq).collect();
            assert_eq!(numbers, (1..=last).rev().collect::<Vec<_>>(), "pages of {limit}");
        }
        // A place in another listing is none in this one.
        let page = site.reader.events(&acme(), &EventFilter::default(), &first(2)).unwrap();
        let elsewhere = Page { limit: 2, after: page.next };
        let refused = site.reader.events(&acme(), &of_b, &elsewhere).unwrap_err();
        assert!(matches!(refused, StoreError::Refused { .. }), "{refused:?}");
    });
}

#[test]
fn dead_letters_are_paged_newest_first_and_filtered() {
    each(|site| {
        let begin = site.now();
        for n in 0..11 {
            let (event_type, payload) = match n % 2 {
                0 => ("process.bogus", "{}"),
                _ => ("process.progress", r#"{"progress_percent":"much"}"#),
            };
            let mut event = site.envelope("s", event_type, payload);
            if n % 3 == 0 {
                event.source = Source::parse("billing").unwrap();
            }
            site.accept_one(event);
            // Each is set aside in a moment of its own.
            site.apply(1);
        }
        let all = DeadLetterFilter::default();
        let list = |site: &mut Site, filter: &DeadLetterFilter, limit, adding: bool| {
            pages(
                site,
                limit,
                |reader, page| reader.dead_letters(&acme(), filter, page).unwrap(),
                |site| {
                    if adding {
                        site.post("t", "process.bogus", "{}");
                        site.apply(10);
                    }
                },
            )
        };
        let everything = list(site, &all, 3, false);
        let numbers: Vec<_> = everything.iter().map(|letter| letter.stream_seq).collect();
        assert_eq!(numbers, (1..=11).rev().map(Some).collect::<Vec<_>>());
        let reason = DeadLetterFilter { reason: Some("unknown_type".into()), ..all.clone() };
        assert_eq!(list(site, &reason, 2, false).len(), 6);
        let source = DeadLetterFilter { source: Some("billing".into()), ..all.clone() };
        assert_eq!(list(site, &source, 2, false).len(), 4);
        let (from, to) = (begin.plus(SECOND * 3), begin.plus(SECOND * 6));
        let window = DeadLetterFilter { from: Some(from), to: Some(to), ..all.clone() };
        let found = list(site, &window, 2, false);
        let numbers: Vec<_> = found.iter().map(|letter| letter.stream_seq).collect();
        assert_eq!(numbers, [Some(5), Some(4), Some(3)]);
        assert_eq!(list(site, &all, 4, true), everything, "what is added comes before");
        let whole = site.reader.dead_letter(&acme(), everything[0].id).unwrap().unwrap();
        assert_eq!(whole, everything[0]);
        assert!(whole.snapshot.contains("process.bogus"), "{}", whole.snapshot);
        assert_eq!(site.reader.dead_letter(&acme(), i64::MAX).unwrap(), None);
    });
}

#[test]
fn a_cursor_that_is_none_of_the_listing_is_the_callers_mistake() {
    each(|site| {
        site.post("p", "process.started", "{}");
        site.apply(10);
        for text in ["", "x", "nonsense", "AAAAAAAAAAAA"] {
            let page = Page { limit: 5, after: Some(Cursor(text.into())) };
            let reader = &mut *site.reader;
            let errors = [
                reader.processes(&acme(), &ProcessFilter::default(), &page).err(),
                reader.runs(&acme(), &process("p"), &page).err(),
                reader.events(&acme(), &EventFilter::default(), &page).err(),
                reader.dead_letters(&acme(), &DeadLetterFilter::default(), &page).err(),
            ];
            for error in errors {
                assert!(matches!(error, Some(StoreError::Refused { .. })), "{text:?}: {error:?}");
            }
        }
    });
}
