//! `kill -9` at any instant loses nothing acknowledged and doubles nothing.
//!
//! A client keeps a ledger of every 202 it was given. The service is killed at random instants and started again;
//! whatever was cut off is sent once more with the same key. In the end the ledger and the store must agree.

use std::collections::{BTreeMap, HashMap};
use std::path::Path;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};

use parking_lot::{Mutex, RwLock};
use sentinel::domain::time::Timestamp;
use serde_json::{Value, json};

use crate::harness::{Client, Dice, InChild, envelope, eventually, full, token};

const SENDERS: u64 = 4;
const STREAMS: u64 = 7;
const PROCESSES: u64 = 5;

/// What the service has promised: event id → (stream, number).
type Ledger = BTreeMap<String, (String, u64)>;

/// Posts until it is told to stop. Whatever is not answered is sent again, the same, until it is.
fn send(
    sender: u64,
    address: &RwLock<Option<std::net::SocketAddr>>,
    token: &str,
    over: &AtomicBool,
    born: Timestamp,
    books: &Books,
) {
    let mut dice = Dice(sender + 1);
    let mut serial = 0u128;
    let mut client: Option<(std::net::SocketAddr, Client)> = None;
    while !over.load(Ordering::Relaxed) {
        serial += 1;
        let id = u128::from(sender) << 40 | serial << 8;
        let (path, fields, body): (&str, Vec<(&str, String)>, String) = match dice.roll(4) {
            0 => {
                let lines: Vec<String> = (0..1 + dice.roll(20))
                    .map(|n| {
                        let stream = format!("stream-{}", dice.roll(STREAMS));
                        envelope(id | u128::from(n), &stream, json!({"sender": sender, "n": n}))
                            .to_string()
                    })
                    .collect();
                (
                    "/v1/events",
                    vec![("Content-Type", "application/x-ndjson".into())],
                    lines.join("\n"),
                )
            }
            1 => {
                // Dated by the sender, so that whoever is newest does not depend on who was accepted last.
                let at = Timestamp::from_micros(
                    born.micros() + i64::try_from(serial * 10 + u128::from(sender)).unwrap() * 100,
                );
                let body = json!({
                    "event_id": format!("beat-{sender}-{serial}"),
                    "process_id": format!("process-{}", dice.roll(PROCESSES)),
                    "occurred_at": at.to_string(), "progress_percent": dice.roll(10_000) as f64 / 100.0,
                });
                (
                    "/internal/progress",
                    vec![("Idempotency-Key", format!("beat-{sender}-{serial}"))],
                    body.to_string(),
                )
            }
            _ => {
                let stream = format!("stream-{}", dice.roll(STREAMS));
                let fields = vec![
                    ("Content-Type", "application/json".into()),
                    ("Idempotency-Key", format!("key-{id}")),
                ];
                ("/v1/events", fields, envelope(id, &stream, json!({"sender": sender})).to_string())
            }
        };
        let fields: Vec<(&str, &str)> =
            fields.iter().map(|(name, value)| (*name, value.as_str())).collect();
        loop {
            let Some(current) = *address.read() else {
                std::thread::yield_now();
                continue;
            };
            if client.as_ref().is_none_or(|(at, _)| *at != current) {
                client = Some((current, Client::new(current, token)));
            }
            let (_, connection) = client.as_mut().expect("just made");
            match connection.try_request("POST", path, &fields, body.as_bytes()) {
                Ok(response) if response.status == 202 => {
                    note(&body, path, &response.text(), &mut books.ledger.lock());
                    if path == "/internal/progress" {
                        note_progress(&body, &mut books.newest.lock());
                    }
                    books.sent.fetch_add(1, Ordering::Relaxed);
                    break;
                }
                // Full or draining: the same again.
                Ok(response) if response.status == 503 => {}
                Ok(response) => panic!("{} {}", response.status, response.text()),
                // Cut off: nobody knows whether it was kept. The same again.
                Err(_) => client = None,
            }
        }
    }
}

/// What all senders enter what they were told into.
#[derive(Default)]
struct Books {
    ledger: Mutex<Ledger>,
    newest: Mutex<Newest>,
    /// How many requests were acknowledged.
    sent: AtomicU64,
}

/// The newest report that was acknowledged, by its own time: process → (time, percent). It is what `/status` must show.
type Newest = BTreeMap<String, (String, f64)>;

/// Enters what an acknowledged report says.
fn note_progress(body: &str, newest: &mut Newest) {
    let report: Value = serde_json::from_str(body).expect("we sent JSON");
    let text = |name: &str| report[name].as_str().expect("we sent text").to_owned();
    let at = Timestamp::parse(&text("occurred_at")).expect("we sent a time");
    let entry = newest.entry(text("process_id")).or_default();
    if Timestamp::parse(&entry.0).is_none_or(|earlier| earlier < at) {
        *entry = (at.to_string(), report["progress_percent"].as_f64().expect("we sent a number"));
    }
}

/// Enters what a 202 promises.
fn note(body: &str, path: &str, answer: &str, ledger: &mut Ledger) {
    let mut enter = |stream: &Value, answer: &Value| {
        let id = answer["eventId"].as_str().expect("a receipt names its event").to_owned();
        let entry = (
            stream.as_str().expect("the stream is known").to_owned(),
            answer["streamSeq"].as_u64().expect("a number"),
        );
        let earlier = ledger.insert(id.clone(), entry.clone());
        assert!(earlier.is_none_or(|earlier| earlier == entry), "{id} was promised two numbers");
    };
    let posted =
        body.lines().map(|line| serde_json::from_str::<Value>(line).expect("we sent JSON"));
    let answers =
        answer.lines().map(|line| serde_json::from_str::<Value>(line).expect("JSON came back"));
    for (posted, answer) in posted.zip(answers) {
        let stream =
            if path == "/internal/progress" { &posted["process_id"] } else { &posted["streamKey"] };
        enter(stream, &answer);
    }
}

/// Every event of a stream, once nothing is left to apply.
fn whole_stream(client: &mut Client, key: &str, promised: u64) -> Vec<(u64, String)> {
    eventually("the stream is applied", || {
        let mut events = Vec::new();
        let mut after = 0;
        loop {
            let response =
                client.get(&format!("/v1/streams/{key}/events?after={after}&limit=1000"));
            if response.status != 200 {
                return None;
            }
            let page = response.json();
            let rows = page["events"].as_array().cloned().unwrap_or_default();
            if rows.is_empty() {
                break;
            }
            events.extend(rows.iter().map(|row| {
                (row["streamSeq"].as_u64().unwrap(), row["eventId"].as_str().unwrap().to_owned())
            }));
            after = events.last().expect("not empty").0;
        }
        (after >= promised).then_some(events)
    })
}

/// Whether the first rows of the log are gone.
fn is_trimmed(folder: &Path) -> bool {
    let flags = rusqlite::OpenFlags::SQLITE_OPEN_READ_ONLY;
    let log = rusqlite::Connection::open_with_flags(folder.join("log.db"), flags).unwrap();
    let first = log.query_row("SELECT min(id) FROM log", [], |row| row.get::<_, Option<i64>>(0));
    // Busy: it is asked again.
    first.is_ok_and(|first| first.is_none_or(|first| first > 1))
}

#[test]
fn kill_9_at_random_instants_loses_nothing_acknowledged_and_doubles_nothing() {
    let kills = if full() { 500 } else { 15 };
    let folder = tempfile::tempdir().unwrap();
    // Trims, snapshots and checkpoints go on as often as they can.
    let variables = [("SENTINEL_LOG_KEEP_HOURS", "0")];
    let mut service = InChild::start(folder.path(), &variables);
    let token = token(folder.path(), "demo", &["sentinel:write"]);
    let address = RwLock::new(Some(service.api));
    let born = (sentinel::service::wall_clock())();
    let (over, books) = (AtomicBool::new(false), Books::default());
    let service = std::thread::scope(|scope| {
        let senders: Vec<_> = (0..SENDERS)
            .map(|sender| {
                let (address, token, over, books) = (&address, &token, &over, &books);
                scope.spawn(move || send(sender, address, token, over, born, books))
            })
            .collect();
        let mut dice = Dice(42);
        for kill in 0..kills {
            if kill == kills / 2 {
                // Half of the kills meet a log that has lost its beginning, however slow this machine is.
                eventually("the log is trimmed", || is_trimmed(folder.path()).then_some(()));
            }
            // The instant is random in work done, not in time: between 5 and 300 answers from now.
            let target = books.sent.load(Ordering::Relaxed) + 5 + dice.roll(295);
            eventually("the senders get on", || {
                (books.sent.load(Ordering::Relaxed) >= target).then_some(())
            });
            service.kill();
            *address.write() = None;
            service = InChild::start(folder.path(), &variables);
            *address.write() = Some(service.api);
        }
        let target = books.sent.load(Ordering::Relaxed) + 50;
        eventually("the senders get on", || {
            (books.sent.load(Ordering::Relaxed) >= target).then_some(())
        });
        over.store(true, Ordering::Relaxed);
        senders.into_iter().for_each(|sender| sender.join().expect("a sender is satisfied"));
        service
    });
    let ledger = books.ledger.into_inner();
    let mut client = Client::new(service.api, &token);
    let mut promised: HashMap<&str, u64> = HashMap::new();
    for (stream, number) in ledger.values() {
        let highest = promised.entry(stream).or_default();
        *highest = (*highest).max(*number);
    }
    let mut found = 0;
    for (stream, highest) in &promised {
        let events = whole_stream(&mut client, stream, *highest);
        let numbers: Vec<u64> = events.iter().map(|(number, _)| *number).collect();
        assert_eq!(
            numbers,
            (1..=events.len() as u64).collect::<Vec<_>>(),
            "{stream} has a gap or a repeat"
        );
        for (number, id) in &events {
            match ledger.get(id) {
                Some(promise) => {
                    assert_eq!((promise.0.as_str(), promise.1), (*stream, *number), "{id}")
                }
                None => panic!(
                    "{id} was never acknowledged to the end, though its sender ended satisfied"
                ),
            }
            found += 1;
        }
    }
    assert_eq!(found, ledger.len(), "an acknowledged event is gone");
    for (process, (at, percent)) in books.newest.into_inner() {
        let status = client.get(&format!("/status/{process}")).expect(200).json();
        assert_eq!(status["status"], "ACTIVE", "it never said that it began");
        assert_eq!(
            (&status["last_update_at"], &status["progress_percent"]),
            (&json!(at), &json!(percent)),
            "{process}"
        );
    }
    assert!(is_trimmed(folder.path()), "the log was trimmed meanwhile");
    println!("{kills} kills, {} events acknowledged, all there once", ledger.len());
    assert_eq!(service.terminate(), 0);
}
