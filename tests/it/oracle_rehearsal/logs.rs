//! What processes say, in bulk and in order, page by page, and as much of it as is asked for.

use std::collections::BTreeSet;
use std::thread;

use serde_json::{Value, json};

use super::{Site, end};
use crate::harness::{Client, Dice, InChild};

fn say(client: &mut Client, process: &str, rows: &[Value]) {
    let fields = [("X-Sentinel-Process-Id", process)];
    let body = json!(rows).to_string();
    client.request("POST", "/internal/log", &fields, body.as_bytes()).expect(202);
}

/// All rows that the pages of a query give, in their order.
fn pages(client: &mut Client, path: &str) -> Vec<Value> {
    let (mut rows, mut cursor) = (Vec::new(), String::new());
    loop {
        let mut page = client.get(&format!("{path}{cursor}")).expect(200).json();
        rows.append(page["logs"].as_array_mut().expect("rows"));
        match page["next_cursor"].as_str() {
            Some(next) => cursor = format!("&cursor={next}"),
            None => return rows,
        }
    }
}

fn messages(rows: &[Value]) -> Vec<&str> {
    rows.iter().map(|row| row["message"].as_str().expect("a message")).collect()
}

/// All rows, streamed.
fn streamed(client: &mut Client, process: &str) -> Vec<Value> {
    let fields = [("Accept", "application/x-ndjson")];
    let answer = client.request("GET", &format!("/logs/{process}"), &fields, b"").expect(200);
    answer.text().lines().map(|line| serde_json::from_str(line).expect("a row")).collect()
}

const LEVELS: [&str; 6] = ["TRACE", "DEBUG", "INFO", "WARN", "ERROR", "FATAL"];

/// Row number `n` of poster `poster`: everything in it follows from the two.
fn row(poster: usize, n: usize) -> Value {
    let second = n * 4 + poster;
    let at =
        format!("2026-01-28T{:02}:{:02}:{:02}Z", 8 + second / 3600, second / 60 % 60, second % 60);
    json!({
        "level": LEVELS[n % LEVELS.len()], "message": format!("{poster} {n}"), "logged_at": at,
        "component": format!("CONTRACT_PKG.STEP_{}", n % 7), "details": {"n": n, "text": "ä\"\\\n"},
        "duration_us": n, "correlation_id": format!("c{poster}"),
    })
}

#[test]
fn ten_thousand_rows_of_four_posters_come_back_whole_in_order_and_as_asked() {
    const POSTERS: usize = 4;
    const EACH: usize = 2_500;
    let Some(site) = Site::start() else { return };
    let instances = [site.instance(&[]), site.instance(&[])];
    thread::scope(|scope| {
        for poster in 0..POSTERS {
            let mut client = site.client(&instances[poster % 2], "demo");
            scope.spawn(move || {
                let mut dice = Dice(poster as u64);
                let rows: Vec<Value> = (0..EACH).map(|n| row(poster, n)).collect();
                let mut rest = &rows[..];
                while !rest.is_empty() {
                    let size =
                        usize::try_from(1 + dice.roll(1_500)).expect("a size").min(rest.len());
                    say(&mut client, "p", &rest[..size]);
                    // Another process of the same batch writer, in between.
                    say(&mut client, "other", &[json!({"level": "INFO", "message": "other"})]);
                    rest = &rest[size..];
                }
            });
        }
    });
    let mut expected: Vec<Value> =
        (0..EACH).flat_map(|n| (0..POSTERS).map(move |poster| row(poster, n))).collect();
    expected.sort_by_key(|row| row["logged_at"].as_str().map(str::to_owned));
    for instance in &instances {
        let mut client = site.client(instance, "demo");
        let all = streamed(&mut client, "p");
        assert_eq!(messages(&all), messages(&expected), "each row once, the oldest first");
        let ids: BTreeSet<u64> =
            all.iter().map(|row| row["log_id"].as_u64().expect("an id")).collect();
        assert_eq!(ids.len(), all.len());
        for (found, expected) in all.iter().zip(&expected) {
            for (member, value) in expected.as_object().expect("a row") {
                assert_eq!(found[member], *value, "{member} of {found}");
            }
        }
    }
    let mut client = site.client(&instances[0], "demo");
    assert_eq!(messages(&pages(&mut client, "/logs/p?limit=777")), messages(&expected));
    let severe =
        |row: &&Value| ["WARN", "ERROR", "FATAL"].contains(&row["level"].as_str().unwrap());
    let within = |row: &&Value| {
        let at = row["logged_at"].as_str().expect("a time");
        ("2026-01-28T08:30:00Z".."2026-01-28T09:30:00Z").contains(&at)
    };
    let window = "from=2026-01-28T08:30:00Z&to=2026-01-28T09:30:00Z";
    let asked = pages(&mut client, &format!("/logs/p?limit=500&level=WARN&{window}"));
    let wanted: Vec<Value> = expected.iter().filter(severe).filter(within).cloned().collect();
    assert_eq!(messages(&asked), messages(&wanted));
    assert!(wanted.len() > 1_000, "{}", wanted.len());
    let others = streamed(&mut client, "other");
    assert!(others.iter().all(|row| row["message"] == "other") && !others.is_empty());
    instances.into_iter().for_each(end);
}

#[test]
fn rows_without_a_time_stay_in_the_order_in_which_they_were_said() {
    let Some(site) = Site::start() else { return };
    let instance: InChild = site.instance(&[("SENTINEL_LOG_WRITER_THREADS", "3")]);
    let mut client = site.client(&instance, "demo");
    let said: Vec<Value> =
        (0..3_000).map(|n| json!({"level": "INFO", "message": n.to_string()})).collect();
    for rows in said.chunks(1_000) {
        say(&mut client, "p", rows);
    }
    assert_eq!(messages(&pages(&mut client, "/logs/p?limit=1000")), messages(&said));
    // What is wrong with one row is said by its name, and none is kept.
    let fields = [("X-Sentinel-Process-Id", "p")];
    let rows = json!([{"level": "INFO", "message": "good"}, {"level": "LOUD", "message": "bad"}]);
    let refused = client.request("POST", "/internal/log", &fields, rows.to_string().as_bytes());
    assert!(refused.expect(400).text().contains("level"));
    // The longest message, and one that is cut.
    let longest = "😀".repeat(1_000);
    for message in [longest.clone(), format!("{longest}.")] {
        say(&mut client, "q", &[json!({"level": "INFO", "message": message})]);
    }
    let said_last = streamed(&mut client, "q");
    assert_eq!(said_last[0]["message"], longest);
    let cut = said_last[1]["message"].as_str().expect("a message");
    assert!(cut.starts_with(&"😀".repeat(900)) && cut.len() <= longest.len(), "{cut}");
    assert_eq!(streamed(&mut client, "p").len(), said.len());
    end(instance);
}
