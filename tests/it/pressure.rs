//! Full has an answer, and it passes by itself.

use std::time::Instant;

use parking_lot::Mutex;
use sentinel::service::{Parts, wall_clock};
use serde_json::json;

use crate::harness::{Client, InChild, InProcess, PATIENCE, envelope, eventually, token};

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

/// The most memory that a process has had resident, in bytes.
fn peak(pid: u32) -> u64 {
    let text = std::fs::read_to_string(format!("/proc/{pid}/status")).unwrap();
    let line = text.lines().find(|line| line.starts_with("VmHWM:")).expect("Linux keeps the peak");
    line.split_whitespace().nth(1).and_then(|kb| kb.parse::<u64>().ok()).unwrap() * 1024
}

/// Connections that post at the same time.
const SENDERS: u128 = 6;
/// How many times the offered load is what the service takes.
const OVERLOAD: u64 = 10;
/// The pod's limit [PF8].
const MEMORY_MAX: u64 = 512 << 20;

/// What became of the lines that one sender posted to its own stream.
#[derive(Debug, Default, Clone, Copy)]
struct Sent {
    accepted: u64,
    refused: u64,
    /// Answers of 503.
    refusals: u64,
}

/// A batch for a sender's stream: 100 lines of 8 KB, or 1,000 short ones.
fn batch(sender: u128, round: u128, is_heavy: bool) -> (u64, String) {
    let (count, filler) = if is_heavy { (100, 8000) } else { (1000, 10) };
    let lines: Vec<String> = (0..count)
        .map(|n| {
            let id = sender << 60 | round << 20 | n << 4;
            let payload = json!({"filler": "x".repeat(filler)});
            envelope(id, &format!("s{sender}"), payload).to_string()
        })
        .collect();
    (u64::try_from(count).unwrap(), lines.join("\n"))
}

#[test]
fn memory_stays_bounded_under_ten_times_the_load_that_is_taken_and_every_202_is_kept() {
    let folder = tempfile::tempdir().unwrap();
    let service = InChild::start(folder.path(), &[("SENTINEL_QUEUE_CAPACITY", "2000")]);
    let token = token(folder.path(), "demo", &["sentinel:write"]);
    let (api, pid) = (service.api, service.id());
    let idle = peak(pid);
    // Whoever holds the write lock of the projection holds up the listener, so what is taken is bounded for certain:
    // by the room for accepted events that are not applied.
    let holder = rusqlite::Connection::open(folder.path().join("events.db")).unwrap();
    holder.busy_timeout(PATIENCE).unwrap();
    holder.execute_batch("BEGIN IMMEDIATE").unwrap();
    let totals = Mutex::new(Sent::default());
    let start = Instant::now();
    let sent: Vec<Sent> = std::thread::scope(|scope| {
        let senders: Vec<_> = (0..SENDERS)
            .map(|sender| {
                let (token, totals) = (&token, &totals);
                scope.spawn(move || {
                    let mut client = Client::new(api, token);
                    let (mut own, mut is_heavy) = (Sent::default(), true);
                    for round in 0u128.. {
                        let (count, body) = batch(sender, round, is_heavy);
                        let fields = [("Content-Type", "application/x-ndjson")];
                        let answer = client.request("POST", "/v1/events", &fields, body.as_bytes());
                        let mut totals = totals.lock();
                        match answer.status {
                            202 => {
                                own.accepted += count;
                                totals.accepted += count;
                            }
                            503 => {
                                assert!(
                                    answer.header("retry-after").is_some(),
                                    "{}",
                                    answer.text()
                                );
                                // Whoever does not wait as told meets the same answer, with less to send.
                                is_heavy = false;
                                own.refused += count;
                                own.refusals += 1;
                                totals.refused += count;
                                totals.refusals += 1;
                            }
                            other => panic!("{other}: {}", answer.text()),
                        }
                        let offered = totals.accepted + totals.refused;
                        if offered >= OVERLOAD * totals.accepted && totals.refusals >= 100 {
                            break;
                        }
                        assert!(start.elapsed() < 2 * PATIENCE, "{totals:?}");
                    }
                    own
                })
            })
            .collect();
        senders.into_iter().map(|sender| sender.join().unwrap()).collect()
    });
    let (took, totals) = (start.elapsed(), totals.into_inner());
    println!("{totals:?} in {took:?}, peak {} MiB of {} at rest", peak(pid) >> 20, idle >> 20);
    assert!(totals.accepted >= 1000, "the doors were open at first: {totals:?}");
    assert!(totals.accepted + totals.refused >= OVERLOAD * totals.accepted, "{totals:?}");
    assert!(peak(pid) < MEMORY_MAX, "{} MiB", peak(pid) >> 20);

    // The load goes away, and so does what held up the listener. Nobody helps.
    drop(holder);
    let mut client = Client::new(api, &token);
    eventually("it takes events again", || {
        let answer = client.event("after", &envelope(u128::from(u32::MAX), "after", json!({})));
        (answer.status == 202).then_some(())
    });
    for (sender, own) in sent.iter().enumerate() {
        // Exactly what was answered with 202: nothing is lost, and nothing of what was refused was kept.
        let path = format!("/v1/streams/s{sender}");
        eventually("every accepted event is applied", || {
            let answer = client.get(&path);
            let applied = if own.accepted == 0 {
                answer.status == 404
            } else {
                answer.status == 200 && answer.json()["appliedSeq"] == own.accepted
            };
            applied.then_some(())
        });
    }
    assert!(peak(pid) < MEMORY_MAX, "{} MiB", peak(pid) >> 20);
    assert_eq!(service.terminate(), 0);
}
