//! What `logs.db` promises.

use std::time::Duration;

use rusqlite::Connection;

use super::*;
use crate::domain::ids::{ProcessId, TenantId};
use crate::domain::log_row::LogRow;
use crate::domain::time::Timestamp;
use crate::store::{LogFilter, Page, Paged, StoredLog};

const DAY: Duration = Duration::from_secs(86_400);

struct Logs {
    folder: tempfile::TempDir,
    session: Session,
    reader: Reader,
}

impl Logs {
    fn new() -> Self {
        let folder = tempfile::tempdir().unwrap();
        let session = Session::open(folder.path()).unwrap();
        let reader = Reader::open(folder.path()).unwrap();
        Self { folder, session, reader }
    }

    fn page(&mut self, process: &str, filter: &LogFilter, page: &Page) -> Option<Paged<StoredLog>> {
        let process = ProcessId::parse(process).unwrap();
        let found = self.reader.page(&tenant(), &process, filter, page).unwrap();
        self.reader.end_turn();
        found
    }

    fn all(&mut self, process: &str) -> Vec<StoredLog> {
        let page = Page { limit: 1000, after: None };
        self.page(process, &LogFilter::default(), &page).unwrap().rows
    }

    fn messages(&mut self, process: &str) -> Vec<String> {
        self.all(process).iter().map(|line| line.row.message.to_string()).collect()
    }

    fn writer(&self) -> Connection {
        open_for_upkeep(self.folder.path()).unwrap()
    }

    fn rows(&self) -> i64 {
        self.writer().query_row("SELECT count(*) FROM process_logs", [], |row| row.get(0)).unwrap()
    }

    fn tables(&self) -> i64 {
        self.writer().query_row("SELECT count(*) FROM log_table", [], |row| row.get(0)).unwrap()
    }
}

/// Drops what is older, with no run open. Returns how many rows went.
fn drop_older_than(logs: &Logs, before: Timestamp) -> i64 {
    let mut retention = Retention::default();
    let kept = logs.rows();
    let nobody = |_: &str, _: &str| Ok(Standing::Gone);
    while retention.pass(&mut logs.writer(), before, 100, nobody).unwrap() > 0 {}
    kept - logs.rows()
}

fn tenant() -> TenantId {
    TenantId::parse("contoso").unwrap()
}

fn noon() -> Timestamp {
    Timestamp::parse("2026-01-28T12:00:00Z").unwrap()
}

fn line(process: &str, logged_at: Timestamp, message: &str) -> LogRow {
    let process = ProcessId::parse(process).unwrap();
    LogRow::plain(tenant(), process, Level::Info, message, logged_at)
}

fn secs(count: u64) -> Duration {
    Duration::from_secs(count)
}

#[test]
fn a_line_comes_back_with_every_field_as_it_was_given() {
    let mut logs = Logs::new();
    let full = LogRow {
        level: Level::Fatal,
        event_type: Some("STEP".into()),
        component: Some("loader".into()),
        details: Some(r#"{"a" : 1.0, "ü":"\n"}"#.into()),
        stack_trace: Some("at \"x\"\n\tat y".into()),
        duration_us: Some(u64::MAX),
        correlation_id: Some("c-1".into()),
        trace_id: Some("4bf92f3577b34da6a3ce929d0e0e4736".into()),
        span_id: Some("00f067aa0ba902b7".into()),
        ..line("p", noon(), "everything")
    };
    let bare = line("p", noon().plus(secs(1)), "");
    logs.session.write_at(&[full.clone(), bare.clone()], noon().plus(secs(2))).unwrap();
    let found = logs.all("p");
    assert_eq!(found.iter().map(|line| &line.row).collect::<Vec<_>>(), [&full, &bare]);
    assert_eq!(found[0].ingested_at, noon().plus(secs(2)));
    assert_eq!((found[0].log_id, found[1].log_id), (1, 2));
}

#[test]
fn a_process_without_lines_is_unknown_and_tenants_never_see_each_other() {
    let mut logs = Logs::new();
    logs.session.write_at(&[line("p", noon(), "mine")], noon()).unwrap();
    let page = Page { limit: 10, after: None };
    assert_eq!(logs.page("q", &LogFilter::default(), &page), None);
    let (other, process) = (TenantId::parse("fabrikam").unwrap(), ProcessId::parse("p").unwrap());
    assert_eq!(logs.reader.page(&other, &process, &LogFilter::default(), &page).unwrap(), None);
    assert_eq!(logs.reader.newest(&other, &process).unwrap(), None);
    logs.reader.end_turn();
    let theirs = LogRow { tenant: other.clone(), ..line("p", noon(), "theirs") };
    logs.session.write_at(&[theirs], noon()).unwrap();
    assert_eq!(logs.messages("p"), ["mine"]);
}

#[test]
fn pages_join_without_a_gap_or_a_repeat_even_where_all_lines_bear_one_time() {
    let mut logs = Logs::new();
    let rows: Vec<LogRow> = (0..1234_u64)
        .map(|i| line("p", noon().plus(secs(i / 1000)), &format!("line {i}")))
        .collect();
    for batch in rows.chunks(57) {
        logs.session.write_at(batch, noon()).unwrap();
    }
    let mut found = Vec::new();
    let mut page = Page { limit: 100, after: None };
    loop {
        let paged = logs.page("p", &LogFilter::default(), &page).unwrap();
        assert!(paged.rows.len() <= 100);
        found.extend(paged.rows.into_iter().map(|line| line.row));
        match paged.next {
            Some(next) => page.after = Some(next),
            None => break,
        }
    }
    assert_eq!(found, rows);
}

#[test]
fn the_page_that_takes_the_last_line_says_that_it_is_the_last() {
    let mut logs = Logs::new();
    let rows = [line("p", noon(), "a"), line("p", noon(), "b")];
    logs.session.write_at(&rows, noon()).unwrap();
    let of = |limit| Page { limit, after: None };
    assert!(logs.page("p", &LogFilter::default(), &of(1)).unwrap().next.is_some());
    assert!(logs.page("p", &LogFilter::default(), &of(2)).unwrap().next.is_none());
}

#[test]
fn a_filter_by_level_shows_that_level_and_the_more_severe_ones() {
    let mut logs = Logs::new();
    let rows: Vec<LogRow> = Level::ALL
        .into_iter()
        .rev()
        .map(|level| LogRow { level, ..line("p", noon(), level.as_str()) })
        .collect();
    logs.session.write_at(&rows, noon()).unwrap();
    let filter = LogFilter { level: Some(Level::Warn), ..LogFilter::default() };
    let paged = logs.page("p", &filter, &Page { limit: 3, after: None }).unwrap();
    let words: Vec<&str> = paged.rows.iter().map(|line| &*line.row.message).collect();
    assert_eq!(words, ["FATAL", "ERROR", "WARN"]);
    assert_eq!(paged.next, None, "lines that are not shown make no further page");
}

#[test]
fn a_filter_by_time_takes_the_first_moment_in_and_leaves_the_last_out() {
    let mut logs = Logs::new();
    let rows: Vec<LogRow> =
        (0..5).map(|i| line("p", noon().plus(secs(i)), &i.to_string())).collect();
    logs.session.write_at(&rows, noon()).unwrap();
    let filter = LogFilter {
        from: Some(noon().plus(secs(1))),
        to: Some(noon().plus(secs(4))),
        ..LogFilter::default()
    };
    let paged = logs.page("p", &filter, &Page { limit: 2, after: None }).unwrap();
    let next = logs.page("p", &filter, &Page { limit: 2, after: paged.next.clone() }).unwrap();
    let words: Vec<_> = paged.rows.iter().chain(&next.rows).map(|l| &*l.row.message).collect();
    assert_eq!((words, next.next), (vec!["1", "2", "3"], None));
}

#[test]
fn a_rare_level_among_very_many_lines_is_found_page_by_page() {
    let mut logs = Logs::new();
    for batch in 0..51 {
        let mut rows = vec![line("p", noon(), "noise"); 1000];
        if batch == 50 {
            rows.push(LogRow { level: Level::Fatal, ..line("p", noon(), "needle") });
        }
        logs.session.write_at(&rows, noon()).unwrap();
    }
    let filter = LogFilter { level: Some(Level::Fatal), ..LogFilter::default() };
    let first = logs.page("p", &filter, &Page { limit: 10, after: None }).unwrap();
    assert_eq!(first.rows, [], "the first page has looked at as much as a page may");
    let second = logs.page("p", &filter, &Page { limit: 10, after: first.next.clone() }).unwrap();
    assert_eq!((&*second.rows[0].row.message, second.next), ("needle", None));
}

#[test]
fn tables_roll_by_day_and_a_page_merges_them_by_the_time_of_the_process() {
    let mut logs = Logs::new();
    let (today, tomorrow) = (noon(), noon().plus(DAY));
    logs.session.write_at(&[line("p", today, "1"), line("p", tomorrow, "3")], today).unwrap();
    logs.session.write_at(&[line("q", today, "other")], today).unwrap();
    let late = [line("p", today.plus(secs(9)), "2"), line("p", tomorrow.plus(secs(9)), "4")];
    logs.session.write_at(&late, tomorrow).unwrap();
    assert_eq!(logs.tables(), 2);
    assert_eq!(logs.messages("p"), ["1", "2", "3", "4"]);
    let ids: Vec<i64> = logs.all("p").iter().map(|line| line.log_id).collect();
    assert_eq!(ids, [1, 4, 2, 5], "log ids follow the receipt");
    let mut words = Vec::new();
    let mut page = Page { limit: 1, after: None };
    while let Some(paged) = logs.page("p", &LogFilter::default(), &page) {
        words.extend(paged.rows.iter().map(|line| line.row.message.to_string()));
        let Some(next) = paged.next else { break };
        page.after = Some(next);
    }
    assert_eq!(words, ["1", "2", "3", "4"]);
}

#[test]
fn retention_drops_whole_tables_forgets_their_processes_and_never_gives_a_log_id_again() {
    let mut logs = Logs::new();
    let day = |n: u32| noon().plus(DAY * n);
    logs.session.write_at(&[line("old", day(0), "a"), line("p", day(0), "b")], day(0)).unwrap();
    logs.session.write_at(&[line("p", day(1), "c")], day(1)).unwrap();
    assert_eq!(drop_older_than(&logs, day(0)), 0);
    assert_eq!(drop_older_than(&logs, day(1)), 2);
    assert_eq!(logs.messages("p"), ["c"]);
    let page = Page { limit: 1, after: None };
    assert_eq!(logs.page("old", &LogFilter::default(), &page), None);

    assert_eq!(drop_older_than(&logs, day(9)), 1);
    assert_eq!(drop_older_than(&logs, day(9)), 0, "an empty table stays");
    assert_eq!(logs.page("p", &LogFilter::default(), &page), None);

    logs.session.write_at(&[line("p", day(9), "d")], day(9)).unwrap();
    assert_eq!(logs.all("p")[0].log_id, 4);
    assert_eq!(logs.tables(), 1);
}

#[test]
fn rows_of_an_open_run_are_carried_over_by_portions_each_there_once_at_any_time() {
    let mut logs = Logs::new();
    let day = |n: u32| noon().plus(DAY * n);
    // Many lines of one instant, so that a portion ends within it.
    for n in 0..3 {
        let rows: Vec<LogRow> = (0..40)
            .flat_map(|m| ["open", "over"].map(|name| line(name, day(0), &format!("{n}-{m:02}"))))
            .collect();
        logs.session.write_at(&rows, day(n)).unwrap();
    }
    logs.session.write_at(&[line("open", day(9), "young")], day(9)).unwrap();
    let before = logs.all("open");
    assert_eq!(before.len(), 121);
    let standing = |tenant: &str, process: &str| {
        assert_eq!(tenant, "contoso");
        Ok(if process == "open" { Standing::Open } else { Standing::Gone })
    };
    let mut retention = Retention::default();
    let (mut kept, mut portions) = (0, 0);
    while retention.pass(&mut logs.writer(), day(5), 7, standing).unwrap() > 0 {
        let sql = "SELECT count(*) FROM logs_0";
        let now: i64 = logs.writer().query_row(sql, [], |row| row.get(0)).unwrap();
        assert!(now - kept <= 7, "{} rows at once", now - kept);
        kept = now;
        portions += 1;
        assert_eq!(logs.all("open"), before, "after portion {portions}");
        // Whoever was interrupted begins anew.
        if portions % 5 == 0 {
            retention = Retention::default();
        }
    }
    assert_eq!((kept, logs.tables()), (120, 2), "the kept and the newest");
    let page = Page { limit: 1, after: None };
    assert_eq!(logs.page("over", &LogFilter::default(), &page), None);
    let newest = logs.reader.newest(&tenant(), &ProcessId::parse("open").unwrap()).unwrap();
    logs.reader.end_turn();
    assert_eq!(newest, Some(day(9)));

    let over = |_: &str, _: &str| Ok(Standing::Over);
    while retention.pass(&mut logs.writer(), day(5), 7, over).unwrap() > 0 {}
    assert_eq!(logs.all("open"), before, "what is over and not archived stays");
    let gone = |_: &str, _: &str| Ok(Standing::Gone);
    while retention.pass(&mut logs.writer(), day(5), 7, gone).unwrap() > 0 {}
    assert_eq!(logs.messages("open"), ["young"]);
}

#[test]
fn a_file_of_the_first_version_gets_a_place_for_rows_that_are_kept() {
    let mut logs = Logs::new();
    logs.session.write_at(&[line("p", noon(), "a")], noon()).unwrap();
    logs.writer().execute_batch("DROP TABLE logs_0; PRAGMA user_version = 1").unwrap();
    logs.session = Session::open(logs.folder.path()).unwrap();
    assert_eq!(logs.messages("p"), ["a"]);
    let day = noon().plus(DAY);
    logs.session.write_at(&[line("p", day, "b")], day).unwrap();
    let open = |_: &str, _: &str| Ok(Standing::Open);
    let mut retention = Retention::default();
    while retention.pass(&mut logs.writer(), day, 7, open).unwrap() > 0 {}
    assert_eq!(logs.messages("p"), ["a", "b"]);
}

#[test]
fn a_table_filled_while_the_clock_was_ahead_keeps_no_other_from_being_dropped() {
    let mut logs = Logs::new();
    let day = |n: u32| noon().plus(DAY * n);
    for (received, message) in [(day(0), "a"), (day(900), "b"), (day(1), "c")] {
        logs.session.write_at(&[line("p", day(0), message)], received).unwrap();
    }
    assert_eq!(drop_older_than(&logs, day(30)), 2);
    assert_eq!(logs.messages("p"), ["b"]);
    let newest = logs.reader.newest(&tenant(), &ProcessId::parse("p").unwrap()).unwrap();
    assert_eq!(newest, Some(day(900)));
    logs.reader.end_turn();
    logs.session.write_at(&[line("p", day(2), "d")], day(2)).unwrap();
    assert_eq!(logs.messages("p"), ["b", "d"]);
}

#[test]
fn two_writers_share_one_file_also_across_a_roll() {
    let mut logs = Logs::new();
    let mut other = Session::open(logs.folder.path()).unwrap();
    logs.session.write_at(&[line("p", noon(), "a")], noon()).unwrap();
    other.write_at(&[line("p", noon(), "b")], noon()).unwrap();
    let tomorrow = noon().plus(DAY);
    other.write_at(&[line("p", tomorrow, "c")], tomorrow).unwrap();
    logs.session.write_at(&[line("p", tomorrow, "d"), line("q", noon(), "e")], tomorrow).unwrap();
    assert_eq!(logs.messages("p"), ["a", "b", "c", "d"]);
    assert_eq!(logs.messages("q"), ["e"]);
}

#[test]
fn the_newest_line_is_the_one_received_last_whatever_its_own_time() {
    let mut logs = Logs::new();
    let process = ProcessId::parse("p").unwrap();
    let future = noon().plus(DAY * 300);
    for i in 0..100 {
        logs.session.write_at(&[line("p", future, "fast clock")], noon().plus(secs(i))).unwrap();
    }
    logs.session.write_at(&[line("p", noon(), "right clock")], noon().plus(secs(500))).unwrap();
    let newest = logs.reader.newest(&tenant(), &process).unwrap();
    assert_eq!(newest, Some(noon().plus(secs(500))));
}

#[test]
fn the_view_shows_lines_under_the_names_of_the_oracle_columns() {
    let mut logs = Logs::new();
    let connection = logs.writer();
    let count = |connection: &Connection| -> i64 {
        connection.query_row("SELECT count(*) FROM process_logs", [], |row| row.get(0)).unwrap()
    };
    assert_eq!(count(&connection), 0);
    let full = LogRow {
        details: Some(r#"{"a":1}"#.into()),
        duration_us: Some(7),
        ..line("p", noon().plus(Duration::from_micros(25)), "said")
    };
    logs.session.write_at(&[full], noon()).unwrap();
    logs.session.write_at(&[line("p", noon(), "later")], noon().plus(DAY)).unwrap();
    assert_eq!(count(&connection), 2);
    let text: String = connection
        .query_row(
            "SELECT concat_ws(' ', log_id, process_id, tenant_id, log_level, message, details, logged_at, ingested_at,
             event_duration_us) FROM process_logs WHERE event_type IS NULL AND component IS NULL
             AND stack_trace IS NULL AND correlation_id IS NULL AND span_id IS NULL AND trace_id IS NULL
             AND process_id = 'p' ORDER BY log_id LIMIT 1",
            [],
            |row| row.get(0),
        )
        .unwrap();
    assert_eq!(
        text,
        r#"1 p contoso INFO said {"a":1} 2026-01-28T12:00:00.000025Z 2026-01-28T12:00:00.000000Z 7"#
    );
}

#[test]
fn a_page_is_read_along_the_index_and_never_sorted() {
    let mut logs = Logs::new();
    logs.session.write_at(&[line("p", noon(), "a")], noon()).unwrap();
    let connection = logs.writer();
    let check = |sql: &str, plan: &str| {
        let found: Vec<String> = connection
            .prepare(&format!("EXPLAIN QUERY PLAN {}", sql.replace("{n}", "1")))
            .unwrap()
            .query_map([1, 1, 1, 1], |row| row.get(3))
            .unwrap()
            .collect::<Result<_, _>>()
            .unwrap();
        assert_eq!(found, [plan]);
    };
    check(
        include_str!("../../../../sql/sqlite/logs_page.sql"),
        "SEARCH logs_1 USING INDEX logs_1_by_process (process_ref=? AND logged_us>? AND logged_us<?)",
    );
    check(
        include_str!("../../../../sql/sqlite/logs_page_moment.sql"),
        "SEARCH logs_1 USING INDEX logs_1_by_process (process_ref=? AND logged_us=? AND rowid>?)",
    );
}

#[test]
fn a_file_of_a_newer_version_is_left_alone() {
    let logs = Logs::new();
    logs.writer().pragma_update(None, "user_version", 99).unwrap();
    let error = Session::open(logs.folder.path()).err().unwrap();
    assert_eq!(error.to_string(), "logs.db has form 99, and this version knows 2");
}

#[test]
fn after_a_checkpoint_the_write_ahead_log_is_used_again_from_its_start() {
    let mut logs = Logs::new();
    let keeper = logs.writer();
    let rows = vec![line("p", noon(), &"x".repeat(500)); 1000];
    let mut sizes = Vec::new();
    for _ in 0..5 {
        logs.session.write_at(&rows, noon()).unwrap();
        assert!(checkpoint(&keeper).unwrap() > 0);
        let log = logs.folder.path().join(format!("{FILE_NAME}-wal"));
        sizes.push(std::fs::metadata(log).unwrap().len());
    }
    assert!(sizes[4] < sizes[0] * 2, "{sizes:?}");
}

#[test]
fn a_reader_in_the_way_of_a_checkpoint_delays_the_writer_only_briefly() {
    let mut logs = Logs::new();
    logs.session.write_at(&[line("p", noon(), "a")], noon()).unwrap();
    let process = ProcessId::parse("p").unwrap();
    let page = Page { limit: 1, after: None };
    logs.reader.page(&tenant(), &process, &LogFilter::default(), &page).unwrap();
    logs.session.write_at(&[line("p", noon(), "b")], noon()).unwrap();
    checkpoint(&logs.writer()).unwrap();
    logs.session.write_at(&[line("p", noon(), "c")], noon()).unwrap();
    logs.reader.end_turn();
    assert_eq!(logs.messages("p"), ["a", "b", "c"]);
}

#[test]
fn new_lines_among_very_many_of_others_are_found_a_part_at_a_time() {
    let mut logs = Logs::new();
    logs.session.write_at(&[line("p", noon(), "old")], noon()).unwrap();
    for _ in 0..52 {
        logs.session.write_at(&vec![line("q", noon(), "noise"); 1000], noon()).unwrap();
    }
    logs.session.write_at(&[line("p", noon().plus(DAY), "new")], noon().plus(DAY)).unwrap();
    assert_eq!(
        (logs.tables(), crate::store::LogSession::written_above(&logs.session)),
        (2, Some(52_001))
    );
    let mut received = |above| {
        let filter = LogFilter { log_id_above: Some(above), ..LogFilter::default() };
        let (tenant, process) = (tenant(), ProcessId::parse("p").unwrap());
        let found = logs.reader.received(&tenant, &process, &filter, 10).unwrap();
        logs.reader.end_turn();
        let words: Vec<String> =
            found.rows.iter().map(|line| line.row.message.to_string()).collect();
        (words, found.through, found.more)
    };
    assert_eq!(received(0), (vec!["old".to_owned()], 50_000, true));
    assert_eq!(received(1), (vec![], 50_001, true));
    assert_eq!(received(50_001), (vec!["new".to_owned()], 52_002, false));
    assert_eq!(received(52_002), (vec![], 52_002, false));
}
