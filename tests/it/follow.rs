//! What is new, as it commits: log rows that are followed, and events that are waited for. This module reads streams
//! piece by piece, cuts them, resumes them, and leaves them unread.

use std::collections::BTreeMap;
use std::io::{BufRead, BufReader, Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::time::{Duration, Instant};

use crossbeam::channel::unbounded;
use sentinel::component::{Component, End};
use sentinel::http::front::{Front, FrontHandle};
use sentinel::http::limits::Limits;
use sentinel::http::{turns, worker};
use sentinel::routes::Desk;
use sentinel::service::{Parts, wall_clock};
use serde_json::{Value, json};

use crate::harness::{
    Client, Dice, InProcess, PATIENCE, Response, envelope, eventually, read_response, token,
    token_about_to_end,
};

pub(crate) const SSE: &str = "Accept: text/event-stream\r\n";

/// A stream that is being read.
pub(crate) struct Follower {
    stream: BufReader<TcpStream>,
    head: String,
    /// Decoded, not taken yet.
    text: String,
    /// The last chunk has come.
    is_whole: bool,
}

impl Follower {
    /// Asks, and reads the head.
    pub(crate) fn open(api: SocketAddr, token: &str, target: &str, fields: &str) -> Self {
        let mut follower = Self::open_unread(api, token, target, fields);
        while !follower.head.ends_with("\r\n\r\n") {
            let read = follower.stream.read_line(&mut follower.head).unwrap();
            assert!(read > 0, "the head was cut off: {}", follower.head);
        }
        assert!(follower.head.starts_with("HTTP/1.1 200 "), "{}", follower.head);
        follower
    }

    pub(crate) fn open_unread(api: SocketAddr, token: &str, target: &str, fields: &str) -> Self {
        let mut stream = TcpStream::connect_timeout(&api, PATIENCE).unwrap();
        stream.set_read_timeout(Some(PATIENCE)).unwrap();
        let head = format!(
            "GET {target} HTTP/1.1\r\nHost: localhost\r\nAuthorization: Bearer {token}\r\n{fields}\r\n"
        );
        stream.write_all(head.as_bytes()).unwrap();
        let (head, text) = (String::new(), String::new());
        Self { stream: BufReader::new(stream), head, text, is_whole: false }
    }

    /// The reply as a whole, where that comes late.
    pub(crate) fn reply(mut self) -> Response {
        read_response(&mut self.stream, false).unwrap()
    }

    /// Takes one chunk. False: the stream has ended.
    fn chunk(&mut self) -> bool {
        let mut line = String::new();
        if self.is_whole || self.stream.read_line(&mut line).unwrap() == 0 {
            return false;
        }
        let size = usize::from_str_radix(line.trim(), 16).unwrap();
        let mut chunk = vec![0; size + 2];
        self.stream.read_exact(&mut chunk).unwrap();
        self.is_whole = size == 0;
        self.text.push_str(std::str::from_utf8(&chunk[..size]).unwrap());
        !self.is_whole
    }

    /// The text up to this mark, which is taken as well. None: the stream ended before.
    fn take(&mut self, mark: &str) -> Option<String> {
        loop {
            if let Some(at) = self.text.find(mark) {
                let rest = self.text.split_off(at + mark.len());
                let mut taken = std::mem::replace(&mut self.text, rest);
                taken.truncate(at);
                return Some(taken);
            }
            if !self.chunk() {
                return None;
            }
        }
    }

    /// The next event that is no comment: its id and its row. None: the stream ended before.
    pub(crate) fn event(&mut self) -> Option<(String, Value)> {
        let asked = Instant::now();
        loop {
            let event = self.take("\n\n")?;
            assert!(asked.elapsed() < PATIENCE, "nothing comes but {event:?}");
            if !event.starts_with(':') {
                let (id, data) = event.split_once('\n').unwrap();
                let row = serde_json::from_str(data.strip_prefix("data: ").unwrap()).unwrap();
                return Some((id.strip_prefix("id: ").unwrap().to_owned(), row));
            }
        }
    }

    fn message(&mut self) -> String {
        let (_, row) = self.event().expect("a row comes");
        row["message"].as_str().unwrap().to_owned()
    }

    /// Everything up to the end of the stream.
    fn rest(&mut self) -> String {
        while self.chunk() {}
        std::mem::take(&mut self.text)
    }
}

pub(crate) fn say(client: &mut Client, process: &str, row: Value) {
    let fields = [("X-Sentinel-Process-Id", process)];
    client.request("POST", "/internal/log", &fields, row.to_string().as_bytes()).expect(202);
}

/// Says batches of lines of process `p`, by clocks that are behind and ahead, and one of another process after each.
pub(crate) fn say_much(client: &mut Client, seed: u64, batches: usize) {
    let mut dice = Dice(100 + seed);
    for batch in 0..batches {
        let row = |n: u64, second: u64| {
            json!({
                "level": "INFO",
                "message": format!("{seed} {batch} {n}"),
                "logged_at": format!("2026-01-28T10:00:{second:02}Z"),
            })
        };
        let rows: Vec<Value> = (0..=dice.roll(20)).map(|n| row(n, dice.roll(60))).collect();
        say(client, "p", Value::Array(rows));
        say(client, "other", info("other"));
    }
}

pub(crate) fn info(message: impl std::fmt::Display) -> Value {
    json!({"level": "INFO", "message": message.to_string()})
}

/// Another front for a running service, with limits of its own and one worker.
struct Annex {
    api: SocketAddr,
    handle: FrontHandle,
    components: Vec<Component>,
}

impl Annex {
    fn open(service: &InProcess, limits: Limits) -> Self {
        let mut front = Front::bind("127.0.0.1:0".parse().unwrap(), None, 1, limits).unwrap();
        let (ended, _) = unbounded();
        let (jobs, queue) = turns::bounded(1000);
        let desk = || Desk::new(service.service.shared().clone()).unwrap();
        let face = front.start_loop(0, desk(), jobs, ended.clone()).unwrap();
        let worker = worker::start(0, desk(), queue, ended).unwrap();
        let (api, handle) = (front.api_address(), front.handle());
        Self { api, handle, components: vec![face, worker] }
    }

    fn close(mut self) {
        for component in &mut self.components {
            component.stop();
            self.handle.wake();
            let end = component.join_by(Instant::now() + PATIENCE);
            assert!(matches!(end, End::Clean), "{end:?}");
        }
    }
}

#[test]
fn rows_appear_as_they_commit_behind_those_that_are_stored() {
    let folder = tempfile::tempdir().unwrap();
    let service = InProcess::start(folder.path(), wall_clock(), Parts::ALL, &[]);
    let (api, token) =
        (service.service.api_address(), token(folder.path(), "demo", &["sentinel:read"]));
    let mut client = service.client("demo");
    say(&mut client, "p", json!([info("one"), info("two")]));
    let mut events = Follower::open(api, &token, "/logs/p", SSE);
    assert!(events.head.contains("Content-Type: text/event-stream\r\n"), "{}", events.head);
    let mut lines = Follower::open(api, &token, "/logs/p?follow=true", "");
    assert!(lines.head.contains("Content-Type: application/x-ndjson\r\n"), "{}", lines.head);
    let line = |lines: &mut Follower| {
        let row: Value = serde_json::from_str(&lines.take("\n").unwrap()).unwrap();
        row["message"].as_str().unwrap().to_owned()
    };
    for message in ["one", "two"] {
        assert_eq!((events.message(), line(&mut lines)), (message.into(), message.into()));
    }
    // A row that bears an early time is new all the same.
    let late = json!({"level": "INFO", "message": "late", "logged_at": "2020-01-01T00:00:00Z"});
    for row in [info("three"), late, info("\u{1b}[31mred\nand more")] {
        let message = row["message"].as_str().unwrap().to_owned();
        say(&mut client, "p", row);
        assert_eq!((events.message(), line(&mut lines)), (message.clone(), message));
    }
    service.stop();
}

#[test]
fn what_is_asked_for_holds_for_what_comes_as_well() {
    let folder = tempfile::tempdir().unwrap();
    let service = InProcess::start(folder.path(), wall_clock(), Parts::ALL, &[]);
    let (api, token) =
        (service.service.api_address(), token(folder.path(), "demo", &["sentinel:read"]));
    let mut client = service.client("demo");
    say(&mut client, "p", json!([info("no"), {"level": "ERROR", "message": "stored"}]));
    let mut follower =
        Follower::open(api, &token, "/logs/p?level=WARN&from=2020-01-01T00:00:00Z", SSE);
    assert_eq!(follower.message(), "stored");
    let early = json!({"level": "FATAL", "message": "no", "logged_at": "2019-01-01T00:00:00Z"});
    say(&mut client, "p", json!([info("no"), early, {"level": "WARN", "message": "new"}]));
    assert_eq!(follower.message(), "new");
    for bad in ["/logs/p?follow=perhaps", "/logs/p?follow=true&level=LOUD"] {
        client.get(bad).expect(400);
    }
    for bad in ["n.x", "7", "s.1.2.!!"] {
        let fields = [("Accept", "text/event-stream"), ("Last-Event-ID", bad)];
        client.request("GET", "/logs/p", &fields, b"").expect(400);
    }
    service.stop();
}

#[test]
fn a_process_that_is_not_known_cannot_be_followed_and_one_without_rows_can() {
    let folder = tempfile::tempdir().unwrap();
    let service = InProcess::start(folder.path(), wall_clock(), Parts::ALL, &[]);
    let (api, token) =
        (service.service.api_address(), token(folder.path(), "demo", &["sentinel:read"]));
    let mut client = service.client("demo");
    client.get("/logs/p?follow=true").expect(404);
    client.request("GET", "/logs/p", &[("Accept", "text/event-stream")], b"").expect(404);
    client.request("POST", "/internal/start", &[("X-Sentinel-Process-Id", "p")], b"").expect(202);
    let mut follower = Follower::open(api, &token, "/logs/p", SSE);
    say(&mut client, "p", info("first"));
    assert_eq!(follower.message(), "first");
    service.stop();
}

#[test]
fn nobody_hears_of_another_tenant() {
    let folder = tempfile::tempdir().unwrap();
    let service = InProcess::start(folder.path(), wall_clock(), Parts::ALL, &[]);
    let api = service.service.api_address();
    let (mut ours, mut theirs) = (service.client("ours"), service.client("theirs"));
    say(&mut theirs, "p", info("theirs"));
    ours.get("/logs/p?follow=true").expect(404);
    say(&mut ours, "p", info("ours"));
    let our_token = token(folder.path(), "ours", &["sentinel:read"]);
    let mut follower = Follower::open(api, &our_token, "/logs/p", SSE);
    assert_eq!(follower.message(), "ours");
    for n in 0..20 {
        say(&mut theirs, "p", info("theirs"));
        say(&mut ours, "p", info(n));
        assert_eq!(follower.message(), n.to_string());
    }
    service.stop();
}

/// Reads until `last` has come, cut off and resumed again and again, and counts every row by its `log_id`.
fn read_in_parts(api: SocketAddr, token: &str, mut dice: Dice, last: &str) -> BTreeMap<u64, usize> {
    let mut seen = BTreeMap::new();
    let mut id = None::<String>;
    loop {
        let resume = id.as_ref().map_or_else(String::new, |id| format!("Last-Event-ID: {id}\r\n"));
        let mut follower = Follower::open(api, token, "/logs/p", &format!("{SSE}{resume}"));
        for _ in 0..=dice.roll(400) {
            let (event, row) = follower.event().expect("the stream goes on");
            *seen.entry(row["log_id"].as_u64().unwrap()).or_default() += 1;
            id = Some(event);
            if row["message"] == last {
                return seen;
            }
        }
    }
}

#[test]
fn every_row_comes_once_whoever_writes_and_wherever_the_stream_is_cut() {
    let folder = tempfile::tempdir().unwrap();
    let variables = [("SENTINEL_LOG_WRITER_THREADS", "3"), ("SENTINEL_WORKER_THREADS", "3")];
    let service = InProcess::start(folder.path(), wall_clock(), Parts::ALL, &variables);
    let (api, token) =
        (service.service.api_address(), token(folder.path(), "demo", &["sentinel:read"]));
    say(&mut service.client("demo"), "p", info("first"));
    let seen = std::thread::scope(|scope| {
        let readers: Vec<_> = (0..4)
            .map(|seed| {
                let token = &token;
                scope.spawn(move || read_in_parts(api, token, Dice(seed), "the last one"))
            })
            .collect();
        let writers: Vec<_> = (0..3)
            .map(|seed| {
                let mut client = service.client("demo");
                scope.spawn(move || say_much(&mut client, seed, 120))
            })
            .collect();
        writers.into_iter().for_each(|writer| writer.join().unwrap());
        say(&mut service.client("demo"), "p", info("the last one"));
        readers.into_iter().map(|reader| reader.join().unwrap()).collect::<Vec<_>>()
    });
    let mut client = service.client("demo");
    let all = client.request("GET", "/logs/p", &[("Accept", "application/x-ndjson")], b"");
    let id = |line: &str| serde_json::from_str::<Value>(line).unwrap()["log_id"].as_u64().unwrap();
    let expected: BTreeMap<u64, usize> = all.text().lines().map(|line| (id(line), 1)).collect();
    assert!(expected.len() > 1000, "{}", expected.len());
    for seen in seen {
        let wrong = |id: &&u64| seen.get(id) != expected.get(id);
        let wrong: Vec<&u64> = seen.keys().chain(expected.keys()).filter(wrong).collect();
        assert_eq!(wrong, Vec::<&u64>::new(), "rows that came never, or more than once");
    }
    service.stop();
}

#[test]
fn two_hundred_followers_hold_no_worker() {
    let folder = tempfile::tempdir().unwrap();
    let variables = [("SENTINEL_WORKER_THREADS", "1")];
    let service = InProcess::start(folder.path(), wall_clock(), Parts::ALL, &variables);
    let (api, token) =
        (service.service.api_address(), token(folder.path(), "demo", &["sentinel:read"]));
    let mut client = service.client("demo");
    client.request("POST", "/internal/start", &[("X-Sentinel-Process-Id", "p")], b"").expect(202);
    say(&mut client, "p", info("first"));
    let mut followers: Vec<Follower> =
        (0..200).map(|_| Follower::open(api, &token, "/logs/p", SSE)).collect();
    for follower in &mut followers {
        assert_eq!(follower.message(), "first");
    }
    for n in 0..20 {
        client.get("/status/p").expect(200);
        client.get("/processes").expect(200);
        assert_eq!(
            client.get("/logs/p").expect(200).json()["logs"].as_array().unwrap().len(),
            n + 1
        );
        say(&mut client, "p", info(n));
    }
    for follower in &mut followers {
        for n in 0..20 {
            assert_eq!(follower.message(), n.to_string());
        }
    }
    assert_eq!(service.service.shared().live.len(), 200);
    drop(followers);
    eventually("who has gone is forgotten", || {
        service.service.shared().live.is_empty().then_some(())
    });
    service.stop();
}

#[test]
fn a_reader_that_never_reads_is_dropped_and_costs_the_others_nothing() {
    let folder = tempfile::tempdir().unwrap();
    let service = InProcess::start(folder.path(), wall_clock(), Parts::ALL, &[]);
    let token = token(folder.path(), "demo", &["sentinel:read"]);
    let brief = Duration::from_millis(300);
    let limits = Limits { write_time: brief, linger_time: brief, ..Limits::default() };
    let annex = Annex::open(&service, limits);
    let mut client = service.client("demo");
    say(&mut client, "p", info("first"));
    let mut brisk = Follower::open(annex.api, &token, "/logs/p", SSE);
    assert_eq!(brisk.message(), "first");
    let mut late = Follower::open(annex.api, &token, "/logs/p", SSE);
    let _never = Follower::open_unread(annex.api, &token, "/logs/p", SSE);
    eventually("both are there", || (service.service.shared().live.len() == 3).then_some(()));
    // More than the buffers of any socket hold, while the brisk one keeps up.
    let long = "x".repeat(3900);
    let mut rows = 0;
    while annex.handle.connections() > 1 {
        say(&mut client, "p", Value::Array(vec![info(&long); 100]));
        for _ in 0..100 {
            assert_eq!(brisk.message(), long);
        }
        rows += 100;
        assert!(rows < 1_000_000, "nobody is dropped");
    }
    assert_eq!(service.service.shared().live.len(), 1);
    // Reading at last, it gets whole rows, the comment that says why, or the end of the connection.
    let mut text = String::new();
    let mut part = [0; 64 << 10];
    while let Ok(bytes @ 1..) = late.stream.read(&mut part) {
        text.push_str(&String::from_utf8_lossy(&part[..bytes]));
    }
    assert!(text.len() < rows * long.len(), "it did not get everything");
    annex.close();
    service.stop();
}

#[test]
fn a_reader_that_reads_too_late_is_told_why_it_was_dropped() {
    let folder = tempfile::tempdir().unwrap();
    let service = InProcess::start(folder.path(), wall_clock(), Parts::ALL, &[]);
    let token = token(folder.path(), "demo", &["sentinel:read"]);
    let limits = Limits {
        write_time: Duration::from_millis(300),
        linger_time: PATIENCE,
        ..Limits::default()
    };
    let annex = Annex::open(&service, limits);
    let mut client = service.client("demo");
    let long = "x".repeat(3900);
    for _ in 0..50 {
        say(&mut client, "p", Value::Array(vec![info(&long); 100]));
    }
    let mut late = Follower::open(annex.api, &token, "/logs/p", SSE);
    eventually("it is dropped", || service.service.shared().live.is_empty().then_some(()));
    let text = late.rest();
    assert!(late.is_whole, "the stream ends as a stream does");
    assert!(text.ends_with("\n\n: the reader is too slow\n\n"), "{}", &text[text.len() - 99..]);
    assert!(text.len() < 5000 * long.len());
    annex.close();
    service.stop();
}

#[test]
fn silence_is_broken_by_a_comment_or_an_empty_line() {
    let folder = tempfile::tempdir().unwrap();
    let service = InProcess::start(folder.path(), wall_clock(), Parts::ALL, &[]);
    let token = token(folder.path(), "demo", &["sentinel:read"]);
    let limits = Limits { silence_time: Duration::from_millis(30), ..Limits::default() };
    let annex = Annex::open(&service, limits);
    let mut client = service.client("demo");
    say(&mut client, "p", info("first"));
    let mut events = Follower::open(annex.api, &token, "/logs/p", SSE);
    let mut lines = Follower::open(annex.api, &token, "/logs/p?follow=true", "");
    assert_eq!(events.message(), "first");
    assert!(lines.take("\n").unwrap().contains("first"));
    for _ in 0..3 {
        assert_eq!(events.take("\n\n").unwrap(), ":");
        assert_eq!(lines.take("\n").unwrap(), "");
    }
    say(&mut client, "p", info("second"));
    assert_eq!(events.message(), "second");
    assert_eq!(Limits::default().silence_time, Duration::from_secs(15));
    annex.close();
    service.stop();
}

#[test]
fn events_up_to_now_come_with_their_places_and_end() {
    let folder = tempfile::tempdir().unwrap();
    let service = InProcess::start(folder.path(), wall_clock(), Parts::ALL, &[]);
    let (api, token) =
        (service.service.api_address(), token(folder.path(), "demo", &["sentinel:read"]));
    let mut client = service.client("demo");
    // More than one piece.
    say(&mut client, "p", Value::Array((0..1000).map(info).collect()));
    let mut all = Follower::open(api, &token, "/logs/p?follow=false", SSE);
    let mut place = String::new();
    for n in 0..1000 {
        let (id, row) = all.event().unwrap();
        assert_eq!(row["message"], n.to_string());
        if n == 499 {
            place = id;
        }
    }
    assert_eq!(all.event(), None);
    assert!(all.is_whole, "it ends as a stream does");
    let fields = format!("{SSE}Last-Event-ID: {place}\r\n");
    let mut rest = Follower::open(api, &token, "/logs/p?follow=false", &fields);
    for n in 500..1000 {
        assert_eq!(rest.message(), n.to_string());
    }
    assert_eq!(rest.event(), None);
    service.stop();
}

#[test]
fn the_stop_ends_every_stream_with_a_word() {
    let folder = tempfile::tempdir().unwrap();
    let service = InProcess::start(folder.path(), wall_clock(), Parts::ALL, &[]);
    let (api, token) =
        (service.service.api_address(), token(folder.path(), "demo", &["sentinel:write"]));
    let mut client = service.client("demo");
    say(&mut client, "p", info("first"));
    client.event("k", &envelope(1, "s", json!({}))).expect(202);
    eventually("the stream is there", || (client.get("/v1/streams/s").status == 200).then_some(()));
    let mut events = Follower::open(api, &token, "/logs/p", SSE);
    let mut lines = Follower::open(api, &token, "/logs/p?follow=true", "");
    let wait = Follower::open_unread(api, &token, "/v1/streams/s/events?after=1&wait=60s", "");
    let live = &service.service.shared().live;
    eventually("all three wait", || (live.len() == 3).then_some(()));
    assert_eq!(events.message(), "first");
    assert!(lines.take("\n").unwrap().contains("first"));
    let before = Instant::now();
    service.stop();
    assert!(before.elapsed() < Duration::from_secs(20), "{:?}", before.elapsed());
    assert_eq!(events.rest(), ": the service is stopping\n\n");
    assert_eq!(lines.rest(), "{\"end\":\"the service is stopping\"}\n");
    let wait = wait.reply();
    assert_eq!(wait.expect(200).text(), "{\"events\":[],\"after\":1}");
    assert!(events.is_whole && lines.is_whole);
}

#[test]
fn what_goes_on_ends_with_its_token_and_a_new_one_goes_on_from_there() {
    let folder = tempfile::tempdir().unwrap();
    let service = InProcess::start(folder.path(), wall_clock(), Parts::ALL, &[]);
    let api = service.service.api_address();
    let mut client = service.client("demo");
    say(&mut client, "p", info("first"));
    client.event("k", &envelope(1, "s", json!({}))).expect(202);
    eventually("the stream is there", || (client.get("/v1/streams/s").status == 200).then_some(()));
    let left = Duration::from_secs(4);
    let brief = token_about_to_end(folder.path(), "demo", &["sentinel:read"], left);
    let begun = Instant::now();
    let mut events = Follower::open(api, &brief, "/logs/p", SSE);
    let mut lines = Follower::open(api, &brief, "/logs/p?follow=true", "");
    let wait = Follower::open_unread(api, &brief, "/v1/streams/s/events?after=1&wait=60s", "");
    let (place, row) = events.event().unwrap();
    assert_eq!(row["message"], "first");
    assert!(lines.take("\n").unwrap().contains("first"));
    assert_eq!(events.rest(), ": the token has expired\n\n");
    assert_eq!(lines.rest(), "{\"end\":\"the token has expired\"}\n");
    assert_eq!(wait.reply().expect(200).text(), "{\"events\":[],\"after\":1}");
    assert!(events.is_whole && lines.is_whole);
    // Not before the door refuses it, which counts whole seconds.
    assert!(begun.elapsed() > left - Duration::from_secs(1), "{:?}", begun.elapsed());
    Client::new(api, &brief).get("/status/p").expect(401);
    eventually("no stream is left", || service.service.shared().live.is_empty().then_some(()));
    say(&mut client, "p", info("second"));
    let fields = format!("{SSE}Last-Event-ID: {place}\r\n");
    let fresh = token(folder.path(), "demo", &["sentinel:read"]);
    assert_eq!(Follower::open(api, &fresh, "/logs/p", &fields).message(), "second");
    service.stop();
}

#[test]
fn who_waits_for_the_next_event_gets_it_when_it_is_applied() {
    let folder = tempfile::tempdir().unwrap();
    let variables = [("SENTINEL_WORKER_THREADS", "1")];
    let service = InProcess::start(folder.path(), wall_clock(), Parts::ALL, &variables);
    let (api, token) =
        (service.service.api_address(), token(folder.path(), "demo", &["sentinel:write"]));
    let mut client = service.client("demo");
    client.get("/v1/streams/s/events?wait=20s").expect(404);
    client.event("k1", &envelope(1, "s", json!({}))).expect(202);
    let first = eventually("the first is applied", || {
        let answer = client.get("/v1/streams/s/events?after=0&wait=20s");
        (answer.status == 200).then(|| answer.json())
    });
    assert_eq!((&first["after"], &first["events"][0]["streamSeq"]), (&json!(1), &json!(1)));
    let path = "/v1/streams/s/events?after=1&wait=60s";
    let waits: Vec<Follower> =
        (0..20).map(|_| Follower::open_unread(api, &token, path, "")).collect();
    let live = &service.service.shared().live;
    eventually("all of them wait", || (live.len() == waits.len()).then_some(()));
    client.get("/v1/streams/s").expect(200);
    client.event("k2", &envelope(2, "s", json!({}))).expect(202);
    for wait in waits {
        let answer = wait.reply().expect(200).json();
        assert_eq!((&answer["after"], &answer["events"][0]["streamSeq"]), (&json!(2), &json!(2)));
    }
    let nothing = client.get("/v1/streams/s/events?after=2&wait=50ms").expect(200).json();
    assert_eq!(nothing, json!({"events": [], "after": 2}));
    client.get("/v1/streams/s/events?after=2&wait=2h").expect(400);
    client.get("/status/s?seen=2&wait=2s").expect(404);
    service.stop();
}
