//! What `sentinel top` shows and does. This module draws frames and presses keys without a terminal.

use std::time::Duration;

use expect_test::{Expect, expect};
use ratatui::Terminal;
use ratatui::backend::TestBackend;
use ratatui::crossterm::event::{KeyCode, KeyEvent, KeyModifiers};
use serde_json::{Value, json};

use super::draw;
use super::poll::{Answer, Detail, News};
use super::row::Row;
use super::screen::{Act, Screen, Sort};
use crate::domain::time::Timestamp;

fn at(second: u64) -> Timestamp {
    Timestamp::parse("2026-01-28T10:00:00Z").unwrap().plus(Duration::from_secs(second))
}

fn process(id: &str, status: &str, step: Value, percent: Value, life_s: u64) -> Value {
    json!({
        "process_id": id, "status": status, "current_step": step, "progress_percent": percent,
        "started_at": at(0).to_string(), "last_update_at": at(life_s).to_string(),
        "last_life_at": at(life_s).to_string(), "stale": status == "RUNNING" && life_s < 100,
        "estimated_completion": (status == "RUNNING").then(|| at(900).to_string()),
        "process_name": null, "process_type": "import"
    })
}

fn answer(values: &[Value]) -> News {
    let rows = values.iter().map(|value| Row::read(value).unwrap()).collect();
    News::Processes(Answer { all: false, rows, is_cut: false })
}

fn morning() -> Vec<Value> {
    vec![
        process("nightly-import", "RUNNING", json!("LOADING"), json!(40), 240),
        process(
            "invoice-run-2026-01-28-with-a-long-name",
            "RUNNING",
            json!("WAITING FOR THE BANK"),
            json!(99.5),
            30,
        ),
        process("evil\u{1b}[2J", "PAUSED", json!("a\nb\u{202e}"), Value::Null, 200),
        process("backup", "EXPIRED", Value::Null, json!(5), 10),
        process("数据导入", "REGISTERED", Value::Null, Value::Null, 0),
    ]
}

fn screen(values: &[Value]) -> Screen {
    let mut screen = Screen::new("http://127.0.0.1:8090", false, "");
    screen.hear(answer(values), at(300));
    screen
}

fn drawn(screen: &mut Screen, columns: u16, lines: u16) -> String {
    let mut terminal = Terminal::new(TestBackend::new(columns, lines)).unwrap();
    terminal
        .draw(|frame| {
            let area = frame.area();
            draw::frame(screen, at(300), area, frame.buffer_mut());
        })
        .unwrap();
    draw::text(terminal.backend().buffer())
}

fn check(screen: &mut Screen, columns: u16, lines: u16, expected: &Expect) {
    expected.assert_eq(&drawn(screen, columns, lines));
}

fn press(screen: &mut Screen, keys: &[KeyCode]) -> Act {
    let mut act = Act::Stay;
    for key in keys {
        act = screen.press(KeyEvent::new(*key, KeyModifiers::NONE));
    }
    act
}

fn type_text(screen: &mut Screen, text: &str) {
    text.chars().for_each(|letter| {
        press(screen, &[KeyCode::Char(letter)]);
    });
}

fn ids(screen: &Screen) -> Vec<&str> {
    screen.visible().iter().map(|row| row.id.as_str()).collect()
}

#[test]
fn a_frame_fits_a_terminal_of_80_by_24() {
    check(
        &mut screen(&morning()),
        80,
        24,
        &expect![[r#"
        sentinel top  5 unfinished, 2 running, 1 expired, 1 paused, 1 registered
        http://127.0.0.1:8090  by urgency
        PROCESS               STATUS     STEP           PROGRESS        ETA   AGE  %/MIN
        invoice-run-2026-01-2 RUNNING    WAITING FOR TH ########  99%   10m   4m!  199.0
        backup                EXPIRED                   ........   5%     -    4m      -
        nightly-import        RUNNING    LOADING        ###.....  40%   10m   60s   10.0
        evil\u{1b}[2J         PAUSED     a\nb\u{202e}   -                 -  100s      -
        数据导入              REGISTERED                -                 -    5m      -















        q quit  arrows move  Enter detail  s sort  / filter  a all/unfinished
    "#]],
    );
}

#[test]
fn a_larger_terminal_shows_more_of_each_process() {
    check(
        &mut screen(&morning()),
        120,
        40,
        &expect![[r#"
        sentinel top  5 unfinished, 2 running, 1 expired, 1 paused, 1 registered
        http://127.0.0.1:8090  by urgency
        PROCESS                                       STATUS     STEP                           PROGRESS        ETA   AGE  %/MIN
        invoice-run-2026-01-28-with-a-long-name       RUNNING    WAITING FOR THE BANK           ########  99%   10m   4m!  199.0
        backup                                        EXPIRED                                   ........   5%     -    4m      -
        nightly-import                                RUNNING    LOADING                        ###.....  40%   10m   60s   10.0
        evil\u{1b}[2J                                 PAUSED     a\nb\u{202e}                   -                 -  100s      -
        数据导入                                      REGISTERED                                -                 -    5m      -































        q quit  arrows move  Enter detail  s sort  / filter  a all/unfinished
    "#]],
    );
}

#[test]
fn a_terminal_of_any_size_is_drawn_without_a_panic() {
    let mut screen = screen(&morning());
    for (columns, lines) in [(1, 1), (2, 3), (10, 5), (40, 10), (300, 4), (80, 200)] {
        drawn(&mut screen, columns, lines);
        press(&mut screen, &[KeyCode::Enter]);
        let detail = Detail { id: "nightly-import".into(), members: Vec::new(), lines: Vec::new() };
        screen.detail = Some(detail);
        drawn(&mut screen, columns, lines);
        press(&mut screen, &[KeyCode::Esc]);
    }
}

#[test]
fn a_frame_that_is_as_wide_as_it_takes_cuts_nothing() {
    let long = "step ".repeat(20);
    let step = long.trim_end();
    for values in [
        morning(),
        vec![process("p", "RUNNING", json!(step), json!(40), 240)],
        vec![process(&"i".repeat(99), "RUNNING", json!("x"), json!(40), 240)],
        vec![],
    ] {
        let mut screen = screen(&values);
        let columns = draw::columns_for(&screen, at(300));
        let text = drawn(&mut screen, columns.max(80), 24);
        for row in screen.visible() {
            let [id, _, step, ..] = row.cells(at(300));
            assert!(
                text.contains(&format!("{id} ")) && text.contains(&format!("{step} ")),
                "{text}"
            );
        }
    }
}

#[test]
fn foreign_text_cannot_touch_the_terminal() {
    let text = drawn(&mut screen(&morning()), 80, 24);
    assert!(!text.chars().any(|letter| letter.is_control() && letter != '\n'), "{text:?}");
    assert!(text.contains(r"evil\u{1b}[2J"), "{text}");
    assert!(!text.contains('\u{202e}'));
}

#[test]
fn s_sorts_by_the_next_column_and_comes_round() {
    let mut screen = screen(&morning());
    assert_eq!(ids(&screen)[..2], ["invoice-run-2026-01-28-with-a-long-name", "backup"]);
    let mut firsts = Vec::new();
    for _ in 0..7 {
        press(&mut screen, &[KeyCode::Char('s')]);
        firsts.push((screen.sort.as_str(), ids(&screen)[0].chars().take(4).collect::<String>()));
    }
    let firsts: Vec<(&str, &str)> = firsts.iter().map(|(sort, id)| (*sort, id.as_str())).collect();
    assert_eq!(
        firsts,
        [
            ("process", "back"),
            ("step", "nigh"),
            ("progress", "invo"),
            ("eta", "invo"),
            ("age", "数据导入"),
            ("rate", "invo"),
            ("urgency", "invo"),
        ]
    );
    assert_eq!(screen.sort, Sort::Urgency);
}

#[test]
fn a_filter_is_typed_kept_and_dropped() {
    let mut screen = screen(&morning());
    press(&mut screen, &[KeyCode::Char('/')]);
    type_text(&mut screen, "PAUSEDx");
    assert!(ids(&screen).is_empty());
    assert!(drawn(&mut screen, 80, 24).contains("no process passes the filter"));
    press(&mut screen, &[KeyCode::Backspace, KeyCode::Enter]);
    assert_eq!(ids(&screen), [r"evil\u{1b}[2J"]);
    assert!(drawn(&mut screen, 80, 24).contains("filter: PAUSED"));
    press(&mut screen, &[KeyCode::Esc]);
    assert_eq!(ids(&screen).len(), 5);
    press(&mut screen, &[KeyCode::Char('/')]);
    type_text(&mut screen, "q");
    assert_eq!(screen.filter, "q", "a key of a command is a letter here");
    press(&mut screen, &[KeyCode::Esc]);
    assert_eq!(ids(&screen).len(), 5);
}

#[test]
fn the_selection_stays_with_its_process() {
    let mut screen = screen(&morning());
    press(&mut screen, &[KeyCode::Down, KeyCode::Down]);
    assert_eq!(screen.selected.as_deref(), Some("nightly-import"));
    press(&mut screen, &[KeyCode::Char('s')]);
    let visible = screen.visible();
    assert_eq!(visible[screen.selected_at(&visible)].id, "nightly-import");
    press(&mut screen, &[KeyCode::End, KeyCode::Down, KeyCode::Down]);
    assert_eq!(screen.selected.as_deref(), Some("数据导入"));
    press(&mut screen, &[KeyCode::PageUp, KeyCode::Up]);
    assert_eq!(screen.selected.as_deref(), Some("backup"));
}

#[test]
fn the_selected_process_is_on_the_screen_however_many_there_are() {
    let many: Vec<Value> = (0..500)
        .map(|n| process(&format!("p{n:03}"), "RUNNING", Value::Null, Value::Null, 200))
        .collect();
    let mut screen = screen(&many);
    for (key, id) in [(KeyCode::End, "p499"), (KeyCode::PageUp, "p489"), (KeyCode::Home, "p000")] {
        press(&mut screen, &[key]);
        assert!(drawn(&mut screen, 80, 24).contains(id), "{id}");
    }
}

#[test]
fn a_asks_for_all_processes_and_an_answer_to_the_question_before_is_not_shown() {
    let mut screen = screen(&morning());
    assert!(!screen.wish().all);
    press(&mut screen, &[KeyCode::Char('a')]);
    assert!(screen.wish().all);
    screen.hear(answer(&[]), at(301));
    assert_eq!(screen.rows.len(), 5, "it was asked before");
}

#[test]
fn enter_shows_one_process_with_its_last_lines_and_esc_goes_back() {
    let mut screen = screen(&morning());
    press(
        &mut screen,
        &[KeyCode::End, KeyCode::Home, KeyCode::Down, KeyCode::Down, KeyCode::Enter],
    );
    assert_eq!(screen.wish().detail.as_deref(), Some("nightly-import"));
    assert!(drawn(&mut screen, 80, 24).contains("asking"));
    let other = Detail { id: "other".into(), members: Vec::new(), lines: Vec::new() };
    screen.hear(News::Detail(other), at(301));
    assert!(screen.detail.is_none(), "an answer to another question");
    let member = |name: &str, value: &str| (name.to_string(), value.to_string());
    let detail = Detail {
        id: "nightly-import".into(),
        members: vec![
            member("current_step", "LOADING"),
            member("metadata.tenant_id", "demo"),
            member("process_id", "nightly-import"),
            member("progress_percent", "40.0"),
            member("status", "RUNNING"),
        ],
        lines: (0..20).map(|n| format!("10:04:{n:02} INFO  step {n}")).collect(),
    };
    screen.hear(News::Detail(detail), at(301));
    check(
        &mut screen,
        80,
        24,
        &expect![[r#"
        sentinel top  5 unfinished, 2 running, 1 expired, 1 paused, 1 registered
        http://127.0.0.1:8090  by urgency
        nightly-import
        status              RUNNING
        current_step        LOADING
        progress_percent    40.0
        metadata.tenant_id  demo

        last log lines
        10:04:06 INFO  step 6
        10:04:07 INFO  step 7
        10:04:08 INFO  step 8
        10:04:09 INFO  step 9
        10:04:10 INFO  step 10
        10:04:11 INFO  step 11
        10:04:12 INFO  step 12
        10:04:13 INFO  step 13
        10:04:14 INFO  step 14
        10:04:15 INFO  step 15
        10:04:16 INFO  step 16
        10:04:17 INFO  step 17
        10:04:18 INFO  step 18
        10:04:19 INFO  step 19
        q quit  arrows other process  Esc back  a all/unfinished
    "#]],
    );
    assert_eq!(press(&mut screen, &[KeyCode::Esc]), Act::Stay);
    assert_eq!(screen.wish().detail, None);
}

#[test]
fn q_and_control_c_quit() {
    let mut screen = screen(&morning());
    assert_eq!(press(&mut screen, &[KeyCode::Char('q')]), Act::Quit);
    let control_c = KeyEvent::new(KeyCode::Char('c'), KeyModifiers::CONTROL);
    press(&mut screen, &[KeyCode::Char('/')]);
    assert_eq!(screen.press(control_c), Act::Quit);
}

#[test]
fn a_lost_connection_is_in_the_header_until_it_is_back() {
    let mut screen = screen(&morning());
    let lost = |why: &str| News::Lost { why: why.to_string() };
    screen.hear(lost("cannot reach the service\u{1b}"), at(170));
    screen.hear(lost("still not"), at(180));
    let text = drawn(&mut screen, 80, 24);
    assert!(text.starts_with("sentinel top  CONNECTION LOST 2m ago, as it was then: 5"), "{text}");
    assert!(text.contains("\nstill not\n") && text.contains("nightly-import"), "{text}");
    screen.hear(answer(&morning()), at(300));
    assert!(!drawn(&mut screen, 80, 24).contains("LOST"));
}

#[test]
fn a_rate_is_that_between_two_reports_that_differ() {
    let import = |percent: u64, s| process("i", "RUNNING", Value::Null, json!(percent), s);
    let mut screen = screen(&[import(40, 240)]);
    assert_eq!(screen.rows[0].rate, Some(10.0), "since the start");
    screen.hear(answer(&[import(50, 260)]), at(302));
    assert_eq!(screen.rows[0].rate, Some(30.0));
    assert_eq!(screen.lives_per_s, Some(0.5));
    screen.hear(answer(&[import(50, 270)]), at(304));
    assert_eq!(screen.rows[0].rate, Some(30.0), "a heartbeat says nothing of it");
}
