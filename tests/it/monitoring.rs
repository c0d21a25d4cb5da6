//! What an operator sees of a process that reports itself.

use std::time::Duration;

use sentinel::service::{Parts, wall_clock};
use serde_json::{Value, json};

use crate::harness::{Client, HandClock, InProcess, eventually};

fn status(client: &mut Client, id: &str) -> Value {
    client.get(&format!("/status/{id}")).expect(200).json()
}

fn report(client: &mut Client, verb: &str, id: &str, body: &Value) -> Value {
    let fields = [("X-Sentinel-Process-Id", id), ("Content-Type", "application/json")];
    client
        .request("POST", &format!("/internal/{verb}"), &fields, body.to_string().as_bytes())
        .expect(202)
        .json()
}

#[test]
fn a_run_is_seen_from_start_to_end_at_once() {
    let folder = tempfile::tempdir().unwrap();
    let service = InProcess::start(folder.path(), wall_clock(), Parts::ALL, &[]);
    let mut client = service.client("demo");
    // An empty body is a ping.
    let fields = [("X-Sentinel-Process-Id", "nightly-import")];
    let started = client.request("POST", "/internal/start", &fields, b"").expect(202).json();
    assert_eq!(started["process_id"], "nightly-import");
    assert_eq!(started["run_id"], started["eventId"]);
    assert_eq!(status(&mut client, "nightly-import")["status"], "RUNNING");
    // curl -d says that JSON is a form; it is read as JSON all the same.
    let fields = [
        ("X-Sentinel-Process-Id", "nightly-import"),
        ("Content-Type", "application/x-www-form-urlencoded"),
    ];
    let body = br#"{"current_step":"LOADING","progress_percent":40,"metadata":{"rows":7,"package":"mine"}}"#;
    client.request("POST", "/internal/progress", &fields, body).expect(202);
    let now = status(&mut client, "nightly-import");
    assert_eq!((&now["current_step"], &now["progress_percent"]), (&json!("LOADING"), &json!(40.0)));
    assert_eq!(now["metadata"]["rows"], 7);
    assert_eq!(now["metadata"]["tenant_id"], "demo");
    assert_eq!(now["metadata"]["package"], Value::Null, "the fixed members win");
    report(&mut client, "complete", "nightly-import", &json!({"result": {"rows": 7}}));
    assert_eq!(status(&mut client, "nightly-import")["status"], "COMPLETED");
    let runs = eventually("the run", || {
        let runs = client.get("/processes/nightly-import/runs");
        (runs.status == 200 && runs.json()["runs"][0]["outcome"] == "completed")
            .then(|| runs.json())
    });
    assert_eq!(runs["runs"].as_array().unwrap().len(), 1);
    service.stop();
}

#[test]
fn a_late_progress_after_completed_changes_nothing_but_is_kept_in_the_stream() {
    let folder = tempfile::tempdir().unwrap();
    let service = InProcess::start(folder.path(), wall_clock(), Parts::ALL, &[]);
    let mut client = service.client("demo");
    report(&mut client, "start", "p", &json!({}));
    report(&mut client, "progress", "p", &json!({"current_step": "A", "progress_percent": 50}));
    report(&mut client, "complete", "p", &json!({}));
    let before = status(&mut client, "p");
    report(&mut client, "progress", "p", &json!({"current_step": "B", "progress_percent": 60}));
    report(&mut client, "heartbeat", "p", &json!({}));
    assert_eq!(status(&mut client, "p"), before);
    let events = eventually("the stream", || {
        let events = client.get("/v1/streams/p/events").json()["events"]
            .as_array()
            .cloned()
            .unwrap_or_default();
        (events.len() == 5).then_some(events)
    });
    assert_eq!(events[3]["type"], "process.progress");
    assert_eq!(status(&mut client, "p"), before, "also once everything is applied");
    service.stop();
}

#[test]
fn a_complete_dated_before_its_start_ends_the_run() {
    let folder = tempfile::tempdir().unwrap();
    let service = InProcess::start(folder.path(), wall_clock(), Parts::ALL, &[]);
    let mut client = service.client("demo");
    let start =
        sentinel::domain::time::Timestamp::from_micros((wall_clock())().micros() / 1000 * 1000);
    let early = start.minus(Duration::from_millis(200));
    report(&mut client, "complete", "p", &json!({"occurred_at": early.to_string()}));
    report(&mut client, "start", "p", &json!({"occurred_at": start.to_string()}));
    assert_eq!(status(&mut client, "p")["status"], "COMPLETED");
    service.stop();
}

#[test]
fn an_error_ends_the_run_with_its_reason() {
    let folder = tempfile::tempdir().unwrap();
    let service = InProcess::start(folder.path(), wall_clock(), Parts::ALL, &[]);
    let mut client = service.client("demo");
    report(
        &mut client,
        "start",
        "p",
        &json!({"package_name": "CONTRACT_PKG", "procedure_name": "CREATE_CONTRACT"}),
    );
    report(
        &mut client,
        "error",
        "p",
        &json!({"error_code": -20001, "error_message": "no such contract"}),
    );
    let now = status(&mut client, "p");
    assert_eq!(now["status"], "FAILED");
    assert!(now["reason"].as_str().unwrap().contains("no such contract"), "{now}");
    assert_eq!(now["metadata"]["package"], "CONTRACT_PKG");
    service.stop();
}

#[test]
fn a_known_history_tells_when_a_run_will_be_done() {
    let folder = tempfile::tempdir().unwrap();
    let clock = HandClock::new();
    let service = InProcess::start(folder.path(), clock.as_clock(), Parts::ALL, &[]);
    let mut client = service.client("demo");
    for seconds in [10, 20, 60] {
        report(&mut client, "start", "p", &json!({"process_name": "import"}));
        clock.forward(Duration::from_secs(seconds));
        report(&mut client, "complete", "p", &json!({}));
        clock.forward(Duration::from_secs(10));
    }
    let other = report(&mut client, "start", "q", &json!({"process_name": "import"}));
    let started = clock.now();
    assert_eq!(other["process_id"], "q");
    let expected = started.plus(Duration::from_secs(20)).to_string();
    eventually("the estimate", || {
        (status(&mut client, "q")["estimated_completion"] == expected).then_some(())
    });
    service.stop();
}

#[test]
fn processes_are_listed_in_pages_and_only_the_unfinished_unless_asked_otherwise() {
    let folder = tempfile::tempdir().unwrap();
    let service = InProcess::start(folder.path(), wall_clock(), Parts::ALL, &[]);
    let mut client = service.client("demo");
    for n in 0..7 {
        report(&mut client, "start", &format!("p{n}"), &json!({}));
    }
    report(&mut client, "complete", "p3", &json!({}));
    let mut seen = Vec::new();
    eventually("everything is applied", || {
        let all = client.get("/processes?status=all&limit=100").json();
        let rows = all["processes"].as_array().unwrap().clone();
        (rows.len() == 7 && rows.iter().any(|row| row["status"] == "COMPLETED")).then_some(())
    });
    let mut path = "/processes?limit=2".to_owned();
    loop {
        let response = client.get(&path).expect(200);
        let page = response.json();
        seen.extend(
            page["processes"]
                .as_array()
                .unwrap()
                .iter()
                .map(|row| row["process_id"].as_str().unwrap().to_owned()),
        );
        match page["next_cursor"].as_str() {
            None => break,
            Some(cursor) => {
                let link = response.header("link").expect("a page with a next one has a Link");
                assert!(link.contains(cursor) && link.ends_with("rel=\"next\""), "{link}");
                path = format!("/processes?limit=2&cursor={cursor}");
            }
        }
    }
    seen.sort();
    assert_eq!(seen, ["p0", "p1", "p2", "p4", "p5", "p6"]);
    assert_eq!(client.get("/processes?status=nonsense").expect(400).json()["field"], "status");
    assert_eq!(client.get("/processes?cursor=nonsense").expect(400).json()["field"], "cursor");
    service.stop();
}

#[test]
fn a_status_that_has_not_changed_is_not_sent_again() {
    let folder = tempfile::tempdir().unwrap();
    let service = InProcess::start(folder.path(), wall_clock(), Parts::ALL, &[]);
    let mut client = service.client("demo");
    report(&mut client, "start", "p", &json!({}));
    let first = client.get("/status/p").expect(200);
    let tag = first.header("etag").expect("a status has a tag").to_owned();
    client.request("GET", "/status/p", &[("If-None-Match", &tag)], b"").expect(304);
    report(&mut client, "progress", "p", &json!({"progress_percent": 1}));
    let changed = client.request("GET", "/status/p", &[("If-None-Match", &tag)], b"").expect(200);
    assert_ne!(changed.header("etag"), Some(tag.as_str()));
    let head = client.request("HEAD", "/status/p", &[], b"").expect(200);
    assert!(head.body.is_empty() && head.header("content-length") != Some("0"));
    service.stop();
}

#[test]
fn what_a_process_says_is_kept_and_read_in_pages_or_as_lines() {
    let folder = tempfile::tempdir().unwrap();
    let service = InProcess::start(folder.path(), wall_clock(), Parts::ALL, &[]);
    let mut client = service.client("demo");
    let rows: Vec<Value> = (0..2500)
        .map(|n| json!({"level": if n % 10 == 0 { "ERROR" } else { "INFO" }, "message": format!("line {n}"), "logged_at": format!("2026-01-28T10:{:02}:{:02}Z", n / 60, n % 60)}))
        .collect();
    let answer = report(&mut client, "log", "p", &Value::Array(rows));
    assert_eq!(answer["accepted"], 2500);
    report(
        &mut client,
        "log",
        "p",
        &json!({"level": "WARN", "message": "\u{1b}[31mred", "logged_at": "2026-01-28T12:00:00Z", "details": {"a": 1}}),
    );
    let page = client.get("/logs/p?limit=3").expect(200).json();
    assert_eq!(page["logs"][2]["message"], "line 2");
    let errors = client.get("/logs/p?level=ERROR&limit=1000").expect(200).json();
    assert_eq!(errors["logs"].as_array().unwrap().len(), 250);
    let lines =
        client.request("GET", "/logs/p", &[("Accept", "application/x-ndjson")], b"").expect(200);
    let text = lines.text();
    assert_eq!(text.lines().count(), 2501);
    assert!(!text.contains('\u{1b}'), "control characters are escaped");
    let last: Value = serde_json::from_str(text.lines().last().unwrap()).unwrap();
    assert_eq!((&last["level"], &last["details"]["a"]), (&json!("WARN"), &json!(1)));
    client.get("/logs/unknown").expect(404);
    service.stop();
}

#[test]
fn an_impossible_report_is_refused_by_the_name_of_the_field() {
    let folder = tempfile::tempdir().unwrap();
    let service = InProcess::start(folder.path(), wall_clock(), Parts::ALL, &[]);
    let mut client = service.client("demo");
    let cases = [
        ("progress", json!({"progress_percent": 101}), "progress_percent"),
        ("progress", json!({"current_step": "x".repeat(201)}), "current_step"),
        ("start", json!({"timeout_s": -1}), "timeout_s"),
        ("log", json!({"level": "LOUD", "message": "x"}), "level"),
        ("heartbeat", json!({"occurred_at": "yesterday"}), "occurred_at"),
    ];
    for (verb, body, field) in cases {
        let fields = [("X-Sentinel-Process-Id", "p")];
        let refused = client
            .request("POST", &format!("/internal/{verb}"), &fields, body.to_string().as_bytes())
            .expect(400);
        assert_eq!(refused.json()["field"], field, "{}", refused.text());
    }
    let refused = client.request("POST", "/internal/heartbeat", &[], b"").expect(400);
    assert_eq!(refused.json()["field"], "process_id");
    client.get("/status/p").expect(404);
    service.stop();
}
