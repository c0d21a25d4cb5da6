//! The load generator against a small service that answers by script.

use std::collections::{HashMap, HashSet};
use std::io::{BufRead, BufReader, Write};
use std::net::{TcpListener, TcpStream};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use base64::Engine;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use clap::{Args, FromArgMatches};
use parking_lot::Mutex;

use super::*;

/// A request as the small service sees it.
struct Heard {
    line: String,
    fields: HashMap<String, String>,
    body: String,
}

/// Status, further fields, body.
type Answer = (u16, &'static str, String);

/// Answers every request on every connection with what `answer` says, and returns where.
fn serve(answer: impl Fn(&Heard) -> Answer + Send + Sync + 'static) -> String {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let url = format!("http://{}", listener.local_addr().unwrap());
    let answer = Arc::new(answer);
    let accept = move || {
        for stream in listener.incoming() {
            let answer = Arc::clone(&answer);
            let converse = move || converse(&stream.unwrap(), &*answer);
            std::thread::Builder::new().spawn(converse).unwrap();
        }
    };
    std::thread::Builder::new().spawn(accept).unwrap();
    url
}

fn converse(stream: &TcpStream, answer: &dyn Fn(&Heard) -> Answer) {
    stream.set_nodelay(true).unwrap();
    let mut reader = BufReader::new(stream);
    while let Some(heard) = hear(&mut reader) {
        let (status, fields, body) = answer(&heard);
        let head = format!("HTTP/1.1 {status} X\r\n{fields}Content-Length: {}\r\n\r\n", body.len());
        let whole = head + &body;
        // In two pieces, so that answers are put together again.
        let (first, second) = whole.as_bytes().split_at(whole.len() / 2);
        let mut stream = stream;
        if stream.write_all(first).and_then(|()| stream.write_all(second)).is_err()
            || fields.contains("close")
        {
            return;
        }
    }
}

fn hear(reader: &mut impl BufRead) -> Option<Heard> {
    let mut line = String::new();
    reader.read_line(&mut line).ok().filter(|read| *read > 0)?;
    let mut fields = HashMap::new();
    loop {
        let mut field = String::new();
        reader.read_line(&mut field).ok()?;
        let Some((name, value)) = field.trim_end().split_once(": ") else { break };
        fields.insert(name.to_ascii_lowercase(), value.to_string());
    }
    let length = fields.get("content-length").map_or(0, |length| length.parse().unwrap());
    let mut body = vec![0; length];
    reader.read_exact(&mut body).ok()?;
    Some(Heard { line, fields, body: String::from_utf8(body).unwrap() })
}

fn token() -> String {
    format!("e30.{}.sig", URL_SAFE_NO_PAD.encode(r#"{"tenant_id":"contoso"}"#))
}

fn args(url: &str, more: &[&str]) -> LoadArgs {
    let command = LoadArgs::augment_args(clap::Command::new("load"));
    let words = ["load", "--url", url].into_iter().chain(more.iter().copied());
    LoadArgs::from_arg_matches(&command.try_get_matches_from(words).unwrap()).unwrap()
}

fn load(url: &str, more: &[&str]) -> Tally {
    measure(&args(url, more), &token(), None, false).unwrap()
}

/// A service that remembers the keys it has seen and numbers what it accepts.
fn gateway() -> String {
    let seen = Mutex::new(HashSet::new());
    let numbered: Mutex<Vec<String>> = Mutex::default();
    serve(move |heard| {
        assert_eq!(heard.fields["authorization"], format!("Bearer {}", token()));
        if heard.line.starts_with("GET /v1/streams/load-stream-") {
            let after = heard.line.split(['=', '&']).nth(1).unwrap().parse::<usize>().unwrap();
            let id = &numbered.lock()[after];
            return (200, "", format!(r#"{{"events":[{{"eventId":"{id}"}}]}}"#));
        }
        let judge = |json: &str| {
            let event: serde_json::Value = serde_json::from_str(json).unwrap();
            assert_eq!(event["tenantId"], "contoso");
            let id = event["eventId"].as_str().unwrap().to_string();
            if uuid::Uuid::parse_str(&id).is_err() {
                return (400, false, 0);
            }
            let number = {
                let mut numbered = numbered.lock();
                numbered.push(id.clone());
                numbered.len()
            };
            (202, !seen.lock().insert(id), number)
        };
        if heard.fields["content-type"] == "application/json" {
            assert!(!heard.fields["idempotency-key"].is_empty());
            let (status, replayed, number) = judge(&heard.body);
            let field = if replayed { "Idempotency-Replayed: true\r\n" } else { "" };
            return (status, field, format!(r#"{{"streamSeq":{number}}}"#));
        }
        assert_eq!(heard.fields["content-type"], "application/x-ndjson");
        let mut whole = 202;
        let mut lines = String::new();
        for (index, json) in heard.body.lines().enumerate() {
            let (status, replayed, number) = judge(json);
            whole = if status == 202 { whole } else { 207 };
            let rest = match status {
                202 => format!(r#""streamSeq":{number},"replayed":{replayed}"#),
                _ => r#""problem":{"status":400}"#.to_string(),
            };
            lines.push_str(&format!("{{\"line\":{},\"status\":{status},{rest}}}\n", index + 1));
        }
        (whole, "", lines)
    })
}

#[test]
fn single_events_are_sent_checked_and_counted() {
    let tally = load(
        &gateway(),
        &["--requests", "500", "--duplicates", "0.2", "--invalid", "0.1", "--processes", "0.3"],
    );
    assert!(tally.is_clean(), "{}", tally.summary());
    assert_eq!((tally.sent, tally.requests, tally.latencies.count()), (500, 500, 500));
    assert_eq!(tally.accepted + tally.replayed + tally.rejected[&400], 500);
    assert!(tally.replayed > 50 && tally.rejected[&400] > 20, "{}", tally.summary());
}

#[test]
fn the_events_of_a_batch_are_counted_one_by_one() {
    let tally = load(
        &gateway(),
        &["--requests", "20", "--batch", "50", "--duplicates", "0.2", "--invalid", "0.1"],
    );
    assert!(tally.is_clean(), "{}", tally.summary());
    assert_eq!((tally.sent, tally.requests), (1000, 20));
    assert_eq!(tally.accepted + tally.replayed + tally.rejected[&400], 1000);
}

#[test]
fn an_answer_that_should_not_be_makes_the_load_fail() {
    let url = serve(|_| (503, "Retry-After: 1\r\n", "{}".into()));
    let tally = load(&url, &["--requests", "10"]);
    assert!(!tally.is_clean());
    assert_eq!((tally.accepted, tally.rejected[&503]), (0, 10));
    assert!(load(&url, &["--requests", "10", "--accept", "503"]).is_clean());
    assert!(run(args(&url, &["--requests", "10"]), token(), None).is_err());
}

#[test]
fn a_replay_that_was_not_asked_for_makes_the_load_fail() {
    let url = serve(|_| (202, "Idempotency-Replayed: true\r\n", "{}".into()));
    assert!(!load(&url, &["--requests", "10"]).is_clean());
}

#[test]
fn a_connection_that_the_service_closes_in_good_order_is_opened_again() {
    let url = serve(|_| (200, "Connection: close\r\n", "{}".into()));
    let tally = load(&url, &["--mode", "constant", "--requests", "50"]);
    assert!(tally.is_clean(), "{}", tally.summary());
    assert_eq!(tally.accepted, 50);
}

#[test]
fn status_and_logs_start_their_processes_first() {
    let starts = Arc::new(AtomicU64::new(0));
    let count = Arc::clone(&starts);
    let url = serve(move |heard| {
        let id = heard.fields.get("x-sentinel-process-id");
        if heard.line.starts_with("POST /internal/start ") {
            assert!(id.unwrap().starts_with("load-process-"));
            count.fetch_add(1, Ordering::Relaxed);
            (202, "", "{}".into())
        } else if heard.line.starts_with("POST /internal/log ") {
            let rows: Vec<serde_json::Value> = serde_json::from_str(&heard.body).unwrap();
            assert_eq!(rows.len(), 10);
            (202, "", "{}".into())
        } else {
            assert!(heard.line.starts_with("GET /status/load-process-"));
            (200, "", "{}".into())
        }
    });
    assert_eq!(load(&url, &["--mode", "status", "--requests", "20"]).accepted, 20);
    assert_eq!(load(&url, &["--mode", "logs", "--requests", "20", "--batch", "10"]).accepted, 200);
    assert_eq!(starts.load(Ordering::Relaxed), 2 * 1000);
}

#[test]
fn idle_connections_are_asked_at_the_beginning_and_at_the_end() {
    let asked = Arc::new(AtomicU64::new(0));
    let count = Arc::clone(&asked);
    let url = serve(move |_| {
        count.fetch_add(1, Ordering::Relaxed);
        (200, "", "{}".into())
    });
    let more = ["--mode", "idle", "--connections", "20", "--duration", "50ms"];
    let tally = load(&url, &more);
    assert!(tally.is_clean(), "{}", tally.summary());
    assert_eq!((tally.accepted, asked.load(Ordering::Relaxed)), (40, 40));
    let closing = serve(|_| (200, "Connection: close\r\n", "{}".into()));
    assert!(!load(&closing, &more).is_clean());
}

#[test]
fn at_a_fixed_rate_a_stall_shows_in_the_requests_that_it_held_up() {
    let first = AtomicU64::new(0);
    let url = serve(move |_| {
        if first.fetch_add(1, Ordering::Relaxed) == 0 {
            // The service stalls, which only time can show.
            std::thread::park_timeout(Duration::from_millis(100));
        }
        (200, "", "{}".into())
    });
    let more = ["--mode", "constant", "--rate", "1000", "--requests", "100"];
    let mut args = args(&url, &more);
    args.connections = 1;
    let tally = measure(&args, "", None, false).unwrap();
    assert_eq!(tally.accepted, 100);
    let half = tally.latencies.quantile_ms(0.5);
    assert!(half > 20.0, "half of the requests were due in the stall: {half} ms");
}

#[test]
fn freshness_is_the_time_from_the_answer_until_the_event_is_in_its_stream() {
    let tally = load(&gateway(), &["--rate", "500", "--requests", "200", "--freshness"]);
    assert!(tally.is_clean(), "{}", tally.summary());
    assert!(tally.freshness.count() > 0);
    assert!(tally.json()["freshness_ms"]["p50"].is_number());
}

#[test]
fn the_progress_of_a_process_is_looked_for_in_its_status() {
    let (newest, all) = (Mutex::new(String::new()), Mutex::new(String::new()));
    let url = serve(move |heard| {
        if heard.line.starts_with("GET /v1/streams/load-process-") {
            return (200, "", all.lock().clone());
        }
        if heard.line.starts_with("GET /status/load-process-") {
            return (200, "", format!(r#"{{"last_update_at":"{}"}}"#, newest.lock()));
        }
        let event: serde_json::Value = serde_json::from_str(&heard.body).unwrap();
        all.lock().push_str(&heard.body);
        *newest.lock() = event["timestampUtc"].as_str().unwrap().to_string();
        (202, "", r#"{"streamSeq":1}"#.into())
    });
    let more = ["--rate", "2000", "--requests", "2400", "--processes", "1", "--freshness"];
    let tally = load(&url, &more);
    assert!(tally.is_clean(), "{}", tally.summary());
    // The first thousand only start the processes.
    assert!(tally.freshness.count() > 0 && tally.status_freshness.count() > 0);
}

#[test]
fn the_results_are_written_as_json() {
    let url = serve(|_| (200, "", "{}".into()));
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("r.json");
    let more = ["--mode", "constant", "--requests", "5", "--json", file.to_str().unwrap()];
    run(args(&url, &more), String::new(), None).unwrap();
    let json: serde_json::Value = serde_json::from_slice(&std::fs::read(file).unwrap()).unwrap();
    assert_eq!((&json["sent"], &json["accepted"]), (&5.into(), &5.into()));
}

#[test]
fn options_that_make_no_sense_are_refused_by_name() {
    for (url, more, named) in [
        ("ftp://localhost", &[][..], "http://host:port or https://host:port"),
        ("http://localhost:1/path", &[], "host and port only"),
        ("http://localhost:1", &["--connections", "0"], "--connections"),
        ("http://localhost:1", &["--batch", "10001"], "--batch"),
        ("http://localhost:1", &["--invalid", "2"], "--invalid"),
    ] {
        let error = measure(&args(url, more), &token(), None, false).err().unwrap();
        assert!(error.to_string().contains(named), "{error}");
    }
    assert_eq!(duration("1.5m").unwrap(), Duration::from_secs(90));
    assert_eq!(duration("250ms").unwrap(), Duration::from_millis(250));
    for bad in ["", "s", "5 parsecs", "-1s", "1d"] {
        assert!(duration(bad).is_err(), "{bad:?}");
    }
}
