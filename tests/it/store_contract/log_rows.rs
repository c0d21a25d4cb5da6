//! Clauses about log rows: in order, whole, found again. This module writes and pages through the lines of processes.

use sentinel::component::Component;
use sentinel::domain::log_row::{Level, LogRow};
use sentinel::store::{LogFilter, Page, Reader, StoredLog};

use super::{DAY, SECOND, Site, acme, each, first, pages, process};
use crate::harness::PATIENCE;

/// A line that is said now.
pub(super) fn row(site: &Site, name: &str, message: &str) -> LogRow {
    LogRow::plain(acme(), process(name), Level::Info, message, site.now())
}

fn list(site: &mut Site, name: &str, filter: &LogFilter, limit: usize) -> Vec<StoredLog> {
    let ask = |reader: &mut dyn Reader, page: &Page| {
        reader.logs(&acme(), &process(name), filter, page).unwrap().expect("it is known")
    };
    pages(site, limit, ask, |_| {})
}

#[test]
fn a_line_comes_back_as_it_was_said() {
    each(|site| {
        let plain = row(site, "p", "plain");
        let full = LogRow {
            level: Level::Fatal,
            event_type: Some("STEP".into()),
            component: Some("loader".into()),
            details: Some(r#"{"a":[1,2.50,"ä\u001b"]}"#.into()),
            stack_trace: Some("at line 1\nat line 2".into()),
            logged_at: site.now().minus(DAY),
            duration_us: Some(u64::from(u32::MAX) * 1000),
            correlation_id: Some("c-1".into()),
            trace_id: Some("t-1".into()),
            span_id: Some("s-1".into()),
            ..row(site, "p", "full \u{1b}[31m \u{1f600}")
        };
        let received = site.now();
        site.store.logs().unwrap().write(&[plain.clone(), full.clone()]).unwrap();
        let found = list(site, "p", &LogFilter::default(), 10);
        let rows: Vec<&LogRow> = found.iter().map(|stored| &stored.row).collect();
        assert_eq!(rows, [&full, &plain], "in the order of the process's own clock");
        assert!(found.iter().all(|stored| stored.ingested_at == received));
        assert!(found[0].log_id > found[1].log_id, "ids rise in the order of receipt");
    });
}

#[test]
fn lines_are_paged_oldest_first_without_skip_or_repeat_while_others_come() {
    each(|site| {
        let mut session = site.store.logs().unwrap();
        let mut wanted = Vec::new();
        for batch in 0..6 {
            let rows: Vec<LogRow> =
                (0..9).map(|n| row(site, ["p", "q"][n % 2], &format!("{batch}-{n}"))).collect();
            session.write(&rows).unwrap();
            wanted.extend(rows.into_iter().filter(|row| row.process == process("p")));
            // Some batches say things of one instant, and rows go to another table on another day.
            if batch % 2 == 0 {
                site.clock.forward(DAY);
            }
        }
        for limit in [1, 4, 100] {
            let mut added = 0;
            let seen = pages(
                site,
                limit,
                |reader, page| {
                    let all = LogFilter::default();
                    reader.logs(&acme(), &process("p"), &all, page).unwrap().unwrap()
                },
                |site| {
                    added += 1;
                    site.clock.forward(SECOND);
                    let other = row(site, "q", "between");
                    session.write(&[other]).unwrap();
                },
            );
            let rows: Vec<LogRow> = seen.into_iter().map(|stored| stored.row).collect();
            assert_eq!(rows, wanted, "pages of {limit}, with {added} lines in between");
        }
        // Later lines of its own follow where the reading was.
        let page = first(20);
        let all = LogFilter::default();
        let found = site.reader.logs(&acme(), &process("p"), &all, &page).unwrap().unwrap();
        let next = found.next.expect("there are more than twenty lines");
        site.clock.forward(SECOND);
        let last = row(site, "p", "last");
        session.write(std::slice::from_ref(&last)).unwrap();
        site.reader.end_turn();
        let page = Page { limit: 100, after: Some(next) };
        let rest = site.reader.logs(&acme(), &process("p"), &all, &page).unwrap().unwrap();
        let rest: Vec<LogRow> = rest.rows.into_iter().map(|stored| stored.row).collect();
        wanted.push(last);
        assert_eq!(rest, wanted[20..]);
    });
}

#[test]
fn lines_are_filtered_by_level_and_time() {
    each(|site| {
        let mut rows = Vec::new();
        let begin = site.now();
        for n in 0..30 {
            let level = Level::ALL[n % 6];
            rows.push(LogRow { level, ..row(site, "p", &format!("{n}")) });
            site.clock.forward(SECOND);
        }
        site.store.logs().unwrap().write(&rows).unwrap();
        let (from, to) = (begin.plus(SECOND * 5), begin.plus(SECOND * 25));
        for level in Level::ALL.map(Some).into_iter().chain([None]) {
            for (from, to) in
                [(None, None), (Some(from), None), (None, Some(to)), (Some(from), Some(to))]
            {
                let filter = LogFilter { level, from, to, ..LogFilter::default() };
                let found: Vec<LogRow> =
                    list(site, "p", &filter, 4).into_iter().map(|stored| stored.row).collect();
                let wanted: Vec<LogRow> = rows
                    .iter()
                    .filter(|row| {
                        level.is_none_or(|level| row.level >= level)
                            && from.is_none_or(|from| row.logged_at >= from)
                            && to.is_none_or(|to| row.logged_at < to)
                    })
                    .cloned()
                    .collect();
                assert_eq!(found, wanted, "{filter:?}");
            }
        }
    });
}

#[test]
fn lines_of_an_unknown_process_are_unknown_and_of_a_silent_one_none() {
    each(|site| {
        let all = LogFilter::default();
        assert_eq!(site.reader.logs(&acme(), &process("p"), &all, &first(9)).unwrap(), None);
        site.post("p", "process.started", "{}");
        assert!(list(site, "p", &all, 9).is_empty(), "known by its event alone");
        let line = row(site, "q", "hello");
        site.store.logs().unwrap().write(&[line]).unwrap();
        site.reader.end_turn();
        assert_eq!(list(site, "q", &all, 9).len(), 1, "known by its line alone");
        assert_eq!(site.status("q"), None, "a line makes no process");
        assert_eq!(site.backlog().0, 1, "and is no event");
    });
}

#[test]
fn a_write_of_lines_is_seen_whole_or_not_at_all() {
    const BATCHES: usize = 40;
    const ROWS: usize = 100;
    each(|site| {
        let line = row(site, "p", "hello");
        let mut session = site.store.logs().unwrap();
        session.write(&vec![line.clone(); ROWS]).unwrap();
        let (ended, _) = crossbeam::channel::unbounded();
        let mut writer = Component::start("logs", ended, move |_stop| {
            for _ in 1..BATCHES {
                session.write(&vec![line.clone(); ROWS])?;
            }
            Ok(())
        })
        .unwrap();
        let all = LogFilter::default();
        let mut seen = 0;
        while seen < BATCHES * ROWS {
            let page = first(10_000);
            let found = site.reader.logs(&acme(), &process("p"), &all, &page).unwrap().unwrap();
            assert_eq!(found.rows.len() % ROWS, 0, "a part of a write was seen");
            assert!(found.rows.len() >= seen, "what was seen stays");
            seen = found.rows.len();
            site.reader.end_turn();
        }
        let end = writer.join_by(std::time::Instant::now() + PATIENCE);
        assert!(matches!(end, sentinel::component::End::Clean), "{end:?}");
    });
}

#[test]
fn lines_outlive_the_sessions_that_wrote_them() {
    each(|site| {
        let line = row(site, "p", "hello");
        site.store.logs().unwrap().write(std::slice::from_ref(&line)).unwrap();
        let before = list(site, "p", &LogFilter::default(), 9);
        site.reopen();
        assert_eq!(list(site, "p", &LogFilter::default(), 9), before);
        site.store.logs().unwrap().write(&[line]).unwrap();
        site.reader.end_turn();
        let after = list(site, "p", &LogFilter::default(), 9);
        assert!(after[1].log_id > after[0].log_id, "an id is never given twice");
    });
}

#[test]
fn what_is_stored_and_what_is_new_touch_and_do_not_overlap() {
    each(|site| {
        let mut session = site.store.logs().unwrap();
        let messages = |rows: &[StoredLog]| -> Vec<String> {
            rows.iter().map(|stored| stored.row.message.to_string()).collect()
        };
        assert_eq!(site.reader.newest_log_id().unwrap(), 0);
        let unknown =
            site.reader.new_logs(&acme(), &process("p"), &LogFilter::default(), 9).unwrap();
        assert!(unknown.rows.is_empty() && !unknown.more);
        site.reader.end_turn();
        let mut newest = 0;
        for batch in 0..4 {
            // Each process's own time runs backwards, so the order of receipt is another one.
            let rows: Vec<LogRow> = (0..10)
                .map(|n| LogRow {
                    logged_at: site.now().minus(DAY * (batch * 10 + n)),
                    level: Level::ALL[usize::try_from(n).unwrap() % 6],
                    ..row(
                        site,
                        ["p", "q"][usize::try_from(n).unwrap() % 2],
                        &format!("{batch}-{n}"),
                    )
                })
                .collect();
            session.write(&rows).unwrap();
            site.clock.forward(site.differs().lines_settle_after);
            let wanted: Vec<&LogRow> =
                rows.iter().filter(|row| row.process == process("p")).collect();
            // The new part, in the order of receipt, in portions.
            let (mut new, mut above) = (Vec::new(), newest);
            loop {
                let filter = LogFilter { log_id_above: Some(above), ..LogFilter::default() };
                let found = site.reader.new_logs(&acme(), &process("p"), &filter, 2).unwrap();
                assert!(found.rows.len() <= 2 && found.through >= above);
                new.extend(found.rows);
                above = found.through;
                if !found.more {
                    break;
                }
            }
            assert_eq!(new.iter().map(|stored| &stored.row).collect::<Vec<_>>(), wanted);
            assert_eq!(above, site.reader.newest_log_id().unwrap());
            let loud = LogFilter {
                level: Some(Level::Error),
                log_id_above: Some(newest),
                ..LogFilter::default()
            };
            let found = site.reader.new_logs(&acme(), &process("p"), &loud, 9).unwrap();
            assert_eq!(messages(&found.rows), [format!("{batch}-4")]);
            // The stored part does not change by what came after it, and a window shows what it says.
            let stored = LogFilter { log_id_max: Some(newest), ..LogFilter::default() };
            let before = site.reader.logs(&acme(), &process("p"), &stored, &first(99)).unwrap();
            assert_eq!(before.unwrap().rows.len(), usize::try_from(batch).unwrap() * 5);
            let window = LogFilter { log_id_above: Some(newest), ..LogFilter::default() };
            let page = site.reader.logs(&acme(), &process("p"), &window, &first(99)).unwrap();
            let mut backwards = messages(&page.unwrap().rows);
            backwards.reverse();
            assert_eq!(backwards, messages(&new));
            newest = above;
            site.reader.end_turn();
            site.clock.forward(SECOND);
        }
    });
}

#[test]
fn the_place_of_a_line_is_where_the_next_page_begins() {
    each(|site| {
        let rows: Vec<LogRow> = (0..5).map(|n| row(site, "p", &n.to_string())).collect();
        site.store.logs().unwrap().write(&rows).unwrap();
        let all = list(site, "p", &LogFilter::default(), 9);
        for (index, stored) in all.iter().enumerate() {
            let page = Page { limit: 9, after: Some(site.reader.log_cursor(stored)) };
            let rest = site.reader.logs(&acme(), &process("p"), &LogFilter::default(), &page);
            assert_eq!(rest.unwrap().unwrap().rows, all[index + 1..]);
        }
    });
}
