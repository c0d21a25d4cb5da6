//! Full has an answer, and it passes by itself.

use std::time::{Duration, Instant};

use sentinel::service::{Parts, wall_clock};
use serde_json::json;

use crate::harness::{Client, InChild, InProcess, envelope, eventually, token};

#[test]
fn a_full_queue_answers_503_with_a_time_and_recovers_by_itself() {
    let folder = tempfile::tempdir().unwrap();
    let service = InProcess::start(
        folder.path(),
        wall_clock(),
        Parts::ALL,
        &[("SENTINEL_QUEUE_CAPACITY", "100")],
    );
    let mut client = service.client("demo");
    let lines = |from: u128, count: u128| {
        let lines: Vec<String> =
            (from..from + count).map(|id| envelope(id, "s", json!({})).to_string()).collect();
        lines.join("\n")
    };
    let fields = [("Content-Type", "application/x-ndjson")];
    // What never fits is refused for good, whole.
    let never = client.request("POST", "/v1/events", &fields, lines(0, 101).as_bytes()).expect(413);
    assert_eq!(never.json()["type"], "/problems/content-too-large");
    // What does not fit now is refused for now, whole: the room is taken as if others waited.
    let room = service.service.shared().event_rooms.take(60).unwrap();
    let now = client.request("POST", "/v1/events", &fields, lines(0, 50).as_bytes()).expect(503);
    assert!(now.header("retry-after").is_some());
    assert_eq!(now.json()["type"], "/problems/unavailable");
    drop(room);
    client.request("POST", "/v1/events", &fields, lines(0, 50).as_bytes()).expect(202);
    eventually("exactly the accepted ones are there", || {
        let response = client.get("/v1/streams/s");
        (response.status == 200 && response.json()["appliedSeq"] == 50).then_some(())
    });
    service.stop();
}

/// Resident memory of a process in bytes.
fn resident(pid: u32) -> u64 {
    let text = std::fs::read_to_string(format!("/proc/{pid}/status")).unwrap_or_default();
    let line = text.lines().find(|line| line.starts_with("VmRSS:")).unwrap_or("VmRSS: 0 kB");
    line.split_whitespace().nth(1).and_then(|kb| kb.parse::<u64>().ok()).unwrap_or(0) * 1024
}

#[test]
fn memory_stays_bounded_under_far_more_than_the_service_can_apply() {
    let folder = tempfile::tempdir().unwrap();
    let service = InChild::start(folder.path(), &[]);
    let token = token(folder.path(), "demo", &["sentinel:write"]);
    let (api, pid) = (service.api, service.id());
    // Batches are accepted many times faster than they are applied, so the backlog meets its bound.
    let peak = std::thread::scope(|scope| {
        let senders: Vec<_> = (0..4u128)
            .map(|sender| {
                let token = &token;
                scope.spawn(move || {
                    let mut client = Client::new(api, token);
                    let start = Instant::now();
                    let (mut accepted, mut refused) = (0u64, 0u64);
                    for round in 0u128.. {
                        if start.elapsed() > Duration::from_secs(6) {
                            break;
                        }
                        let lines: Vec<String> = (0..1000u128)
                            .map(|n| {
                                envelope(
                                    sender << 60 | round << 20 | n << 4,
                                    &format!("s{n}"),
                                    json!({"filler": "x".repeat(300)}),
                                )
                                .to_string()
                            })
                            .collect();
                        let fields = [("Content-Type", "application/x-ndjson")];
                        match client
                            .request("POST", "/v1/events", &fields, lines.join("\n").as_bytes())
                            .status
                        {
                            202 => accepted += 1000,
                            207 | 503 => refused += 1000,
                            other => panic!("{other}"),
                        }
                    }
                    (accepted, refused)
                })
            })
            .collect();
        let mut peak = 0;
        while senders.iter().any(|sender| !sender.is_finished()) {
            peak = peak.max(resident(pid));
            std::thread::yield_now();
        }
        let totals = senders
            .into_iter()
            .map(|sender| sender.join().unwrap())
            .fold((0, 0), |a, b| (a.0 + b.0, a.1 + b.1));
        println!("accepted {}, refused for now {}, peak {} MiB", totals.0, totals.1, peak >> 20);
        assert!(totals.0 > 0);
        peak
    });
    // The pod's limit [PF8].
    assert!(peak < 512 << 20, "{} MiB", peak >> 20);
    let mut client = Client::new(api, &token);
    eventually("it recovers by itself", || {
        let answer = client.event("after", &envelope(u128::from(u32::MAX), "after", json!({})));
        (answer.status == 202).then_some(())
    });
    assert_eq!(service.terminate(), 0);
}
