//! Full has an answer, and it passes by itself.

use std::io::{BufReader, Write};
use std::net::{SocketAddr, TcpStream};
use std::time::{Duration, Instant};

use parking_lot::Mutex;
use sentinel::service::{Parts, wall_clock};
use serde_json::json;

use crate::harness::{
    Client, InChild, InProcess, PATIENCE, Response, envelope, eventually, read_response, token,
};

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
    let room = service.service.shared().event_rooms.take(160).unwrap();
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

/// The bytes that are in flight, by pool, as they are scraped.
pub(crate) fn in_flight(client: &mut Client, pool: &str) -> u64 {
    let text = client.get("/metrics").expect(200).text();
    let series = format!("sentinel_inflight_bytes{{pool=\"{pool}\"}} ");
    let value = text.lines().find_map(|line| line.strip_prefix(&series));
    value.unwrap_or_else(|| panic!("no {series}")).parse().unwrap()
}

#[test]
fn payloads_that_wait_for_their_commit_are_bounded_by_their_bytes() {
    let folder = tempfile::tempdir().unwrap();
    let fields = [("Content-Type", "application/x-ndjson")];
    let service = InProcess::start(
        folder.path(),
        wall_clock(),
        Parts::ALL,
        &[("SENTINEL_INFLIGHT_BYTES", "65536")],
    );
    let mut client = service.client("demo");
    let payload = json!({"filler": "x".repeat(5000)});
    let events: Vec<String> =
        (0..3).map(|id| envelope(id, "s", payload.clone()).to_string()).collect();
    let row = json!({
        "eventId": "01900000-0000-7000-8000-0000000000ff", "source": "s", "type": "process.log", "schemaVersion": 1,
        "streamKey": "s", "payload": {"level": "INFO", "message": "x", "details": {"filler": "x".repeat(5000)}}
    });
    let shared = service.service.shared();
    // As if the payloads of others waited: there is room for one of ours beside as much that is left, and not for three.
    let room = shared.payload_rooms.take(65_536 - 12_000).unwrap();
    assert_eq!(in_flight(&mut client, "payload"), 65_536 - 12_000);
    let batch = client.request("POST", "/v1/events", &fields, events.join("\n").as_bytes());
    let batch = batch.expect(503);
    assert_eq!(batch.json()["type"], "/problems/unavailable");
    assert!(batch.header("retry-after").is_some());
    client.get("/v1/streams/s").expect(404);
    // A batch of both kinds is refused whole as well, whichever of them does not fit.
    let mixed = format!("{}\n{row}", events[0]);
    client.request("POST", "/v1/events", &fields, mixed.as_bytes()).expect(503);
    client.get("/v1/streams/s").expect(404);
    client.request("POST", "/v1/events", &fields, events[0].as_bytes()).expect(202);
    client.request("POST", "/v1/events", &fields, row.to_string().as_bytes()).expect(202);
    drop(room);
    // A repeat is known by its id.
    client.request("POST", "/v1/events", &fields, events.join("\n").as_bytes()).expect(202);
    client.request("POST", "/v1/events", &fields, mixed.as_bytes()).expect(202);
    eventually("exactly the accepted ones are there", || {
        let response = client.get("/v1/streams/s");
        (response.status == 200 && response.json()["appliedSeq"] == 3).then_some(())
    });
    assert_eq!(in_flight(&mut client, "payload"), 0, "all room is given back");
    service.stop();
}

/// What the lines of a large batch hold.
const LINES_BYTES: usize = 300_000;

/// A batch of [`BODY_BYTES`] for the stream of `sender`, and how many lines it has.
pub(crate) fn large_batch(sender: u128, round: u128) -> (u64, Vec<u8>) {
    let payload = json!({"filler": "x".repeat(8000)});
    let mut lines = String::new();
    let mut count = 0;
    while lines.len() < LINES_BYTES {
        let id = sender << 40 | round << 20 | u128::from(count) << 4;
        lines += &envelope(id, &format!("s{sender}"), payload.clone()).to_string();
        lines.push('\n');
        count += 1;
    }
    let mut lines = lines.into_bytes();
    // Blanks make it long and take no time to read.
    lines.resize(BODY_BYTES, b' ');
    (count, lines)
}

/// A peer that has sent the head of a batch and half of its body.
pub(crate) struct Half {
    stream: BufReader<TcpStream>,
    rest: Vec<u8>,
}

impl Half {
    pub(crate) fn send(api: SocketAddr, token: &str, body: &[u8]) -> Self {
        let (now, rest) = body.split_at(body.len() / 2);
        Self { rest: rest.to_vec(), ..Self::begin(api, token, body.len(), now) }
    }

    /// Announces a body and sends the beginning.
    fn begin(api: SocketAddr, token: &str, length: usize, now: &[u8]) -> Self {
        let mut stream = TcpStream::connect_timeout(&api, PATIENCE).unwrap();
        stream.set_read_timeout(Some(PATIENCE)).unwrap();
        let head = format!(
            "POST /v1/events HTTP/1.1\r\nHost: localhost\r\nAuthorization: Bearer {token}\r\n\
             Content-Type: application/x-ndjson\r\nContent-Length: {length}\r\n\r\n"
        );
        stream.write_all(&[head.as_bytes(), now].concat()).unwrap();
        Self { stream: BufReader::new(stream), rest: Vec::new() }
    }

    pub(crate) fn finish(mut self) -> Response {
        self.stream.get_mut().write_all(&self.rest).unwrap();
        read_response(&mut self.stream, false).unwrap()
    }
}

/// What the bodies in a service may hold together in these tests, of which one tenant gets half; and one of them:
/// longer than what a connection takes in for no use, else.
const BUDGET: usize = 14_000_000;
pub(crate) const BODY_BYTES: usize = 3_000_000;

#[test]
fn bodies_on_their_way_are_bounded_by_their_bytes_and_small_posts_go_on() {
    let folder = tempfile::tempdir().unwrap();
    let service =
        InChild::start(folder.path(), &[("SENTINEL_INFLIGHT_BYTES", &BUDGET.to_string())]);
    let token = token(folder.path(), "demo", &["sentinel:write"]);
    let fields = [("Content-Type", "application/x-ndjson")];
    let mut client = Client::new(service.api, &token);
    let (_, body) = large_batch(9, 9);
    let halves: Vec<Half> =
        (0..2).map(|sender| Half::send(service.api, &token, &large_batch(sender, 0).1)).collect();
    eventually("both bodies hold their room", || {
        (in_flight(&mut client, "body") == 2 * BODY_BYTES as u64).then_some(())
    });
    let refused = client.request("POST", "/v1/events", &fields, &body).expect(503);
    assert!(refused.header("retry-after").is_some());
    assert_eq!(refused.json()["type"], "/problems/unavailable");
    assert_eq!(refused.header("content-type"), Some("application/problem+json"));
    let never = Half::begin(service.api, &token, BUDGET / 2 + 1, b"").finish().expect(413);
    assert_eq!(never.json()["type"], "/problems/content-too-large");
    // What comes with its head in one piece is never kept.
    client.event("small", &envelope(1, "small", json!({}))).expect(202);
    assert_eq!(in_flight(&mut client, "body"), 2 * BODY_BYTES as u64, "the refused one has none");
    // One goes through, one goes away: the room of both is there again.
    let mut halves = halves.into_iter();
    halves.next().unwrap().finish().expect(202);
    drop(halves);
    eventually("all room is given back", || (in_flight(&mut client, "body") == 0).then_some(()));
    client.request("POST", "/v1/events", &fields, &body).expect(202);
    assert_eq!(service.terminate(), 0);
}

#[test]
fn many_large_bodies_at_once_are_taken_as_far_as_they_fit_and_every_202_is_kept() {
    let folder = tempfile::tempdir().unwrap();
    let service =
        InChild::start(folder.path(), &[("SENTINEL_INFLIGHT_BYTES", &BUDGET.to_string())]);
    let token = token(folder.path(), "demo", &["sentinel:write"]);
    let fields = [("Content-Type", "application/x-ndjson")];
    let refused = Mutex::new(0);
    // A body that is held up leaves room for one more at a time, so the others meet a full house for certain.
    let half = Half::send(service.api, &token, &large_batch(100, 0).1);
    let mut client = Client::new(service.api, &token);
    eventually("it holds its room", || (in_flight(&mut client, "body") > 0).then_some(()));
    let accepted: Vec<u64> = std::thread::scope(|scope| {
        let senders: Vec<_> = (0..4)
            .map(|sender| {
                let (api, token, refused) = (service.api, &token, &refused);
                scope.spawn(move || {
                    let mut client = Client::new(api, token);
                    let mut accepted = 0;
                    for round in 0..3 {
                        let (count, body) = large_batch(sender, round);
                        eventually("it is taken in the end", || {
                            let answer = client.request("POST", "/v1/events", &fields, &body);
                            if answer.status == 503 {
                                assert!(answer.header("retry-after").is_some());
                                *refused.lock() += 1;
                                // Some other sender's turn.
                                std::thread::sleep(Duration::from_millis(20));
                                return None;
                            }
                            answer.expect(202);
                            Some(())
                        });
                        accepted += count;
                    }
                    accepted
                })
            })
            .collect();
        senders.into_iter().map(|sender| sender.join().unwrap()).collect()
    });
    assert!(*refused.lock() > 0, "four bodies do not fit beside one where two do");
    half.finish().expect(202);
    for pool in ["body", "payload"] {
        eventually("all room is given back", || (in_flight(&mut client, pool) == 0).then_some(()));
    }
    for (sender, accepted) in accepted.into_iter().enumerate() {
        let path = format!("/v1/streams/s{sender}");
        eventually("every accepted event is applied", || {
            let answer = client.get(&path);
            (answer.status == 200 && answer.json()["appliedSeq"] == accepted).then_some(())
        });
    }
    assert_eq!(service.terminate(), 0);
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
