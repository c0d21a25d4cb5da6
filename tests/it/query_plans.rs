//! No statement of the embedded store reads a whole table. This module takes every statement out of the sources, so
//! that a new one is held to it too, and asks `SQLite` how it would go about it.
//!
//! The store makes no statistics (no `ANALYZE`), so a plan follows from the schema alone, and is the same here as
//! with a hundred million rows.

use std::collections::BTreeSet;
use std::time::Duration;

use rusqlite::Connection;
use sentinel::domain::ids::{ProcessId, TenantId};
use sentinel::domain::log_row::{Level, LogRow};
use sentinel::service::{Parts, wall_clock};
use serde_json::json;

use crate::harness::{InProcess, envelope, eventually};
use crate::tidy::files;

/// The catalogues: a few hundred rows each at most, by the bounds on rolled tables, and mostly one.
const SMALL: [&str; 9] = [
    "event_table",
    "log_table",
    "idempotency_table",
    "idempotency_filter",
    "probe",
    "projection",
    "sentinel_schema_version",
    "sqlite_schema",
    "sqlite_sequence",
];

/// Statements that walk a whole table or sort what they found on purpose: a part of the text, and why. None of them
/// is polled, and one alone answers a request.
const EXCEPTIONS: [(&str, &str); 6] = [
    ("SELECT status, count(*) FROM process", "four times a minute, over the narrow index alone"),
    ("SELECT digest FROM idempotency_", "once for each table at a start, and when it is full"),
    ("SELECT bucket, digest, record FROM", "when a tenant is purged, from a stopped store"),
    ("FROM process_run WHERE tenant_id = ?1", "the same"),
    ("AND name GLOB 'events_[0-9]*'", "names of tables, when one comes or goes"),
    ("SELECT * FROM ", "a part of a view, which only people read"),
];

/// A part of each statement that is polled or asked by a request, so that none of them gets lost on the way here.
const EVERY_REQUEST: [&str; 14] = [
    // A status.
    "JOIN process p ON p.stream_id = s.stream_id",
    // Who is overdue.
    "p.sweep_us <= ?1 ORDER BY p.sweep_us",
    // A claim that the overlay cannot serve.
    "FROM log WHERE id > ? ORDER BY id",
    // Events of a stream in either direction, of a tenant, and one by its id.
    "WHERE stream_id = ?1 AND stream_seq >= ?2",
    "WHERE stream_id = ?1 AND stream_seq < ?2 ORDER BY stream_seq DESC",
    "WHERE tenant_id = ?1 AND ordered_us <= ?2",
    "WHERE event_mark = ?1 AND tenant_id = ?2",
    // Processes and runs.
    "WHERE tenant_id = ?1 AND status = ?2 AND stream_id < ?3",
    "WHERE p.stream_id = ?1 AND (?2 IS NULL",
    "FROM process_run WHERE stream_id = ?1 AND (sort_us, run_no)",
    // A page of log rows.
    "WHERE process_ref = ?1 AND logged_us > ?2",
    // Dead letters.
    "FROM tombstone WHERE tenant = ?1 AND position < ?2",
    // A repeat, and the last number of a stream.
    "WHERE bucket = ? AND digest = ?",
    "SELECT applied_seq FROM stream",
];

/// What is filled into a statement that is made at run time, one way after the other.
const FILLINGS: [&[(&str, &str)]; 2] = [
    &[
        ("({COLUMNS})", ""),
        ("{COLUMNS}", "*"),
        ("logs_{n}", "logs_1"),
        ("logs_{table_no}", "logs_1"),
        ("{name}", "events_1"),
        ("{n}", "1"),
        ("{table}", "0"),
        ("{place}", "process_run"),
        ("{number}", "0"),
        ("(?,?){}", "(?,?)"),
        ("(?,?,?){}", "(?,?,?)"),
        ("{}", "1"),
    ],
    &[
        ("({COLUMNS})", ""),
        ("{COLUMNS}", "*"),
        ("logs_{n}", "logs_1"),
        ("logs_{table_no}", "logs_1"),
        ("{name}", "events_1"),
        ("{n}", "0"),
        ("{table}", "0"),
        ("{place}", "process"),
        ("{number}", "0"),
        ("(?,?){}", "(?,?)"),
        ("(?,?,?){}", "(?,?,?)"),
        ("{}", "1"),
    ],
];

/// The text literals of a source file, with its escapes undone as far as statements use them.
fn literals(source: &str) -> Vec<String> {
    let mut found = Vec::new();
    let code: String = source
        .lines()
        .filter(|line| !line.trim_start().starts_with("//"))
        .map(|line| format!("{line}\n"))
        .collect();
    let mut letters = code.chars().peekable();
    while let Some(letter) = letters.next() {
        if letter != '"' {
            continue;
        }
        let mut text = String::new();
        while let Some(letter) = letters.next() {
            match letter {
                '"' => break,
                '\\' => match letters.next() {
                    Some('\n') => {
                        while letters.peek().is_some_and(|next| next.is_whitespace()) {
                            letters.next();
                        }
                    }
                    Some(escaped) => text.push(escaped),
                    None => break,
                },
                other => text.push(other),
            }
        }
        found.push(text);
    }
    found
}

/// Every statement that reads or writes rows, with what is filled in at run time.
fn statements() -> BTreeSet<String> {
    let mut raw = Vec::new();
    for (path, text) in files("src/store/sqlite", "rs") {
        if path.components().any(|part| part.as_os_str() == "tests") || path.ends_with("tests.rs") {
            continue;
        }
        let code = text.split("#[cfg(test)]\nmod tests {").next().unwrap_or_default();
        raw.extend(literals(code));
    }
    for text in files("sql/sqlite", "sql").into_values() {
        let lines = text.lines().filter(|line| !line.trim_start().starts_with("--"));
        let text = lines.collect::<Vec<_>>().join("\n");
        raw.extend(text.split(';').map(str::to_owned));
    }
    let verbs = ["SELECT ", "INSERT ", "UPDATE ", "DELETE "];
    let mut statements = BTreeSet::new();
    for text in raw {
        let text = text.trim();
        if verbs.iter().any(|verb| text.starts_with(verb)) {
            for filling in FILLINGS {
                let fill = |text: String, (from, to): &(&str, &str)| text.replace(from, to);
                statements.insert(filling.iter().fold(text.to_owned(), fill));
            }
        }
    }
    statements
}

/// The steps of a plan.
fn plan(file: &Connection, statement: &str) -> rusqlite::Result<Vec<String>> {
    let mut explain = file.prepare(&format!("EXPLAIN QUERY PLAN {statement}"))?;
    // Parameters that are not bound are NULL, and a plan does not look at them.
    let mut rows = explain.raw_query();
    let mut steps = Vec::new();
    while let Some(row) = rows.next()? {
        steps.push(row.get(3)?);
    }
    Ok(steps)
}

/// What is wrong with a step of a plan.
fn is_costly(step: &str) -> bool {
    let mut words = step.split_whitespace();
    match words.next() {
        Some("SCAN") => {
            let table = words.next().unwrap_or_default();
            // Rows that the statement itself brings, or has found by then, are as few as it says.
            let of_its_own = table.starts_with('(')
                || step.ends_with("VALUES CLAUSE")
                || step.ends_with("CONSTANT ROW");
            !of_its_own && !SMALL.contains(&table)
        }
        Some("USE") => true,
        _ => step.contains("AUTOMATIC"),
    }
}

#[test]
fn no_statement_reads_a_whole_table_or_sorts_one() {
    let folder = tempfile::tempdir().unwrap();
    // Every rolled table is there once something is in it.
    let service = InProcess::start(folder.path(), wall_clock(), Parts::ALL, &[]);
    let mut client = service.client("demo");
    client.event("k", &envelope(1, "s", json!({}))).expect(202);
    let line = LogRow::plain(
        TenantId::parse("demo").unwrap(),
        ProcessId::parse("p").unwrap(),
        Level::Info,
        "hello",
        service.service.store().now().minus(Duration::from_secs(1)),
    );
    service.service.store().logs().unwrap().write(&[line]).unwrap();
    eventually("the event is applied", || {
        (client.get("/v1/streams/s").status == 200).then_some(())
    });
    service.stop();
    let open = |name: &str| Connection::open(folder.path().join(name)).unwrap();
    let databases = [open("events.db"), open("logs.db"), open("log.db")];

    let statements = statements();
    assert!(statements.len() > 60, "the statements are where they were: {}", statements.len());
    for part in EVERY_REQUEST {
        let found = statements.iter().any(|statement| statement.contains(part));
        assert!(found, "{part:?} is in no statement: say here what has taken its place");
    }
    let mut offenders = Vec::new();
    let mut excused = BTreeSet::new();
    for statement in &statements {
        let plans: Vec<_> = databases.iter().map(|file| plan(file, statement)).collect();
        let Some(steps) = plans.iter().find_map(|plan| plan.as_ref().ok()) else {
            offenders.push(format!("{statement}\n    is no statement in any file: {plans:?}"));
            continue;
        };
        let costly: Vec<&String> = steps.iter().filter(|step| is_costly(step)).collect();
        if costly.is_empty() {
            continue;
        }
        match EXCEPTIONS.iter().position(|(part, _why)| statement.contains(part)) {
            Some(index) => {
                excused.insert(index);
            }
            None => offenders.push(format!("{statement}\n    {costly:?}")),
        }
    }
    assert!(offenders.is_empty(), "these read too much:\n{}", offenders.join("\n"));
    assert_eq!(excused.len(), EXCEPTIONS.len(), "an exception that nobody needs is taken away");
    // A plan that is found good is so because of an index: without it this test would fail.
    let look = statements.iter().find(|statement| statement.contains("p.sweep_us <= ?1")).unwrap();
    assert!(!plan(&databases[0], look).unwrap().iter().any(|step| is_costly(step)));
    databases[0].execute_batch("DROP INDEX process_sweep").unwrap();
    assert!(plan(&databases[0], look).unwrap().iter().any(|step| is_costly(step)));
}
