//! Clauses about large rows: a page of them ends early, with a place to go on from, and nothing is left out (law 8).
//! This module writes rows that are large enough for a few to fill a page.

use sentinel::domain::dead_letter::DeadLetter;
use sentinel::domain::log_row::LogRow;
use sentinel::store::{
    DeadLetterFilter, EventFilter, LogFilter, Page, Paged, Reader, StoredEvent, StoredLog,
};

use super::{SECOND, Site, acme, each, first, key, log_rows, pages, process};

/// What a page of events or dead letters holds before its last row, at most.
const PAGE_BYTES: usize = 1 << 20;
/// The same of lines.
const LINES_BYTES: usize = 256 << 10;

const ROWS: usize = 9;

fn payload(bytes: usize) -> String {
    format!("{{\"t\":\"{}\"}}", "x".repeat(bytes))
}

/// Holds the pages of a listing to their bound. Returns what was in them.
fn bounded<T>(
    site: &mut Site,
    bytes_max: usize,
    bytes: impl Fn(&T) -> usize,
    mut ask: impl FnMut(&mut dyn Reader, &Page) -> Paged<T>,
) -> Vec<T> {
    let mut sizes = Vec::new();
    let rows = pages(
        site,
        1000,
        |reader, page| {
            let found = ask(reader, page);
            let all: usize = found.rows.iter().map(&bytes).sum();
            let before_last = all - found.rows.last().map_or(0, &bytes);
            assert!(before_last < bytes_max, "{} rows of {all} bytes", found.rows.len());
            assert!(!found.rows.is_empty() || found.next.is_none(), "a page gets on");
            sizes.push(found.rows.len());
            found
        },
        |_| {},
    );
    assert!(sizes.len() > 2, "one page would be too large: {sizes:?}");
    rows
}

#[test]
fn pages_of_large_events_end_early_and_leave_nothing_out() {
    each(|site| {
        for _ in 0..ROWS {
            site.post("s", "Ordered", &payload(400 << 10));
        }
        site.apply(2);
        let bytes = |stored: &StoredEvent| stored.event.envelope.payload.len();
        for stream in [None, Some(key("s"))] {
            let filter = EventFilter { stream, ..EventFilter::default() };
            let ask =
                |reader: &mut dyn Reader, page: &_| reader.events(&acme(), &filter, page).unwrap();
            let found = bounded(site, PAGE_BYTES, bytes, ask);
            let numbers: Vec<u64> = found.iter().map(|event| event.event.stream_seq).collect();
            assert_eq!(numbers, (1..=9).rev().collect::<Vec<_>>(), "the newest first");
        }
        // The next ones of a stream: fewer than asked for, and never none while there are any.
        let (mut after, mut portions) = (0, 0);
        loop {
            let found = site.reader.stream_events(&acme(), &key("s"), after, 1000).unwrap();
            let found = found.expect("the stream is known");
            let Some(last) = found.last() else { break };
            let before_last: usize = found[..found.len() - 1].iter().map(bytes).sum();
            assert!(before_last < PAGE_BYTES, "{} events", found.len());
            let numbers: Vec<u64> = found.iter().map(|event| event.event.stream_seq).collect();
            assert_eq!(numbers, (after + 1..=last.event.stream_seq).collect::<Vec<_>>());
            after = last.event.stream_seq;
            portions += 1;
        }
        assert_eq!(after, 9);
        assert!(portions > 2, "{portions}");
    });
}

#[test]
fn pages_of_large_dead_letters_end_early_and_leave_nothing_out() {
    each(|site| {
        for _ in 0..ROWS {
            site.post("s", "process.bogus", &payload(400 << 10));
            site.apply(1);
        }
        let all = DeadLetterFilter::default();
        let found = bounded(
            site,
            PAGE_BYTES,
            |letter: &DeadLetter| letter.snapshot.len(),
            |reader, page| reader.dead_letters(&acme(), &all, page).unwrap(),
        );
        let numbers: Vec<_> = found.iter().map(|letter| letter.stream_seq).collect();
        assert_eq!(numbers, (1..=9).rev().map(Some).collect::<Vec<_>>());
    });
}

#[test]
fn pages_of_large_lines_end_early_and_leave_nothing_out() {
    each(|site| {
        let rows: Vec<LogRow> = (0..ROWS)
            .map(|n| LogRow {
                details: Some(payload(60 << 10).into()),
                stack_trace: Some("s".repeat(60 << 10).into()),
                ..log_rows::row(site, "p", &n.to_string())
            })
            .collect();
        site.store.logs().unwrap().write(&rows).unwrap();
        site.clock.forward(site.differs().lines_settle_after + SECOND);
        site.reader.end_turn();
        let bytes = |row: &LogRow| {
            let length = |text: &Option<Box<str>>| text.as_ref().map_or(0, |text| text.len());
            row.message.len() + length(&row.details) + length(&row.stack_trace)
        };
        let all = LogFilter::default();
        let found = bounded(
            site,
            LINES_BYTES,
            |stored: &StoredLog| bytes(&stored.row),
            |reader, page| reader.logs(&acme(), &process("p"), &all, page).unwrap().unwrap(),
        );
        assert_eq!(found.into_iter().map(|stored| stored.row).collect::<Vec<_>>(), rows);
        // The same by receipt.
        let (mut above, mut received, mut portions) = (0, Vec::new(), 0);
        loop {
            let filter = LogFilter { log_id_above: Some(above), ..LogFilter::default() };
            let found = site.reader.new_logs(&acme(), &process("p"), &filter, 1000).unwrap();
            let before_last = found.rows.len().saturating_sub(1);
            let before_last: usize =
                found.rows[..before_last].iter().map(|stored| bytes(&stored.row)).sum();
            assert!(before_last < LINES_BYTES, "{} lines", found.rows.len());
            received.extend(found.rows.into_iter().map(|stored| stored.row));
            above = found.through;
            portions += 1;
            if !found.more {
                break;
            }
        }
        assert_eq!(received, rows);
        assert!(portions > 2, "{portions}");
        assert!(site.reader.logs(&acme(), &process("p"), &all, &first(1)).unwrap().is_some());
    });
}
