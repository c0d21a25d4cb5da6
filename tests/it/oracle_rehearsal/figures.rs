//! How fast the service is on the stand-in. These figures are about our own code, the crate and PostgreSQL on one small
//! machine, and say nothing about Oracle: they are here to show a step that is suddenly ten times as slow.

use std::io::Write;
use std::thread;
use std::time::{Duration, Instant};

use sentinel::service::{Parts, wall_clock};
use serde_json::json;

use super::{Site, trips};
use crate::harness::{envelope, eventually, full};

/// Says a figure past the test runner's capture, in the full form only: it is asked for there.
fn say(what: &str, count: usize, took: Duration) {
    if full() {
        let per_second = count as f64 / took.as_secs_f64();
        let line = format!(
            "ON THE STAND-IN, NOT ORACLE: {what}: {per_second:.0}/s ({count} in {took:.1?})\n"
        );
        let _ = std::io::stderr().write_all(line.as_bytes());
    }
}

#[test]
fn events_log_rows_and_status_reads_get_through() {
    let Some(site) = Site::start() else { return };
    let (events, rows, reads) = if full() { (20_000, 50_000, 4_000) } else { (1_000, 2_000, 100) };
    let service = site.in_process(wall_clock(), Parts { listener: false, ..Parts::ALL }, &[]);
    let api = service.service.api_address();
    let mut client = site.client_at(api, "demo");

    let begun = Instant::now();
    let fields = [("Content-Type", "application/x-ndjson")];
    for batch in 0..events / 1000 {
        let line = |n: usize| {
            let id = (batch * 1000 + n) as u128;
            envelope(id, &format!("stream-{}", n % 100), json!({"n": n})).to_string()
        };
        let lines: Vec<String> = (0..1000).map(line).collect();
        client.request("POST", "/v1/events", &fields, lines.join("\n").as_bytes()).expect(202);
    }
    say("events accepted, 1,000 a request", events, begun.elapsed());

    let mut session = service.service.store().logs().expect("a session");
    session.write(&trips::lines(1)).expect("written");
    let lines = trips::lines(1000);
    let begun = Instant::now();
    for _ in 0..rows / 1000 {
        session.write(&lines).expect("written");
    }
    say("log rows, 1,000 a batch", rows, begun.elapsed());
    drop(session);
    service.stop();

    // The listeners of an instance that starts with this backlog.
    let instance = site.instance(&[]);
    let begun = Instant::now();
    eventually("everything is applied", || {
        let count = site.standin.sql("SELECT count(*) FROM sentinel.events");
        (count == events.to_string()).then_some(())
    });
    say("events applied by two listeners", events, begun.elapsed());

    client = site.client(&instance, "demo");
    client.post("/internal/start", &json!({"process_id": "import-17"})).expect(202);
    let begun = Instant::now();
    thread::scope(|scope| {
        for _ in 0..4 {
            scope.spawn(|| {
                let mut client = site.client(&instance, "demo");
                for _ in 0..reads / 4 {
                    client.get("/status/import-17").expect(200);
                }
            });
        }
    });
    say("status reads, 4 clients", reads, begun.elapsed());
    assert_eq!(instance.terminate(), 0);
}
