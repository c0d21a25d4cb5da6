//! Damaged or mismatched files are refused in words or rebuilt from the log; nothing is lost in silence.

use std::fs;
use std::io::Read;
use std::path::Path;
use std::process::{Child, Command, Output, Stdio};

use sentinel::service::{Parts, wall_clock};
use serde_json::json;
use tempfile::TempDir;

use crate::harness::{Client, InChild, InProcess, envelope, eventually, token};

/// Posts `count` events to one stream, waits until they are applied, and stops.
fn fill(folder: &Path, first: u128, count: u128) {
    let service = InProcess::start(folder, wall_clock(), Parts::ALL, &[]);
    let mut client = service.client("demo");
    for id in first..first + count {
        client
            .event(&format!("k{id}"), &envelope(id, "s", json!({"filler": "x".repeat(400)})))
            .expect(202);
    }
    eventually("they are applied", || {
        let applied = client.get("/v1/streams/s").json()["appliedSeq"].as_u64();
        (applied == u64::try_from(first + count).ok()).then_some(())
    });
    // The keeper copies the write-ahead logs into their files by and by.
    let enough =
        |name: &str| fs::metadata(folder.join(name)).is_ok_and(|file| file.len() > 24 << 10);
    eventually("the files have pages", || (enough("log.db") && enough("events.db")).then_some(()));
    service.stop();
}

/// Runs the service where it must not start.
fn refused(folder: &Path) -> Output {
    let child = Command::new(env!("CARGO_BIN_EXE_sentinel"))
        .env_clear()
        .env("SENTINEL_DATABASE", format!("sqlite://{}", folder.display()))
        .args(["--bind", "tcp://127.0.0.1:0"])
        .env("PROMETHEUS_METRICS_PORT", "0")
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .unwrap();
    let mut child = Mortal(child);
    let status = eventually("it refuses to serve", || child.0.try_wait().unwrap());
    let (mut stdout, mut stderr) = (Vec::new(), Vec::new());
    child.0.stdout.take().unwrap().read_to_end(&mut stdout).unwrap();
    child.0.stderr.take().unwrap().read_to_end(&mut stderr).unwrap();
    Output { status, stdout, stderr }
}

/// A process that does not outlive its test.
struct Mortal(Child);

impl Drop for Mortal {
    fn drop(&mut self) {
        let _ = self.0.kill();
    }
}

/// Overwrites the middle of a file.
fn spoil(file: &Path) {
    let mut bytes = fs::read(file).unwrap();
    let (from, to) = (bytes.len() / 3 / 4096 * 4096, bytes.len() / 3 / 4096 * 4096 + 8192);
    bytes[from..to].fill(0x5a);
    fs::write(file, bytes).unwrap();
}

fn applied(folder: &Path) -> u64 {
    let service = InProcess::start(folder, wall_clock(), Parts::ALL, &[]);
    let mut client = service.client("demo");
    let applied = eventually("the stream is there", || {
        let response = client.get("/v1/streams/s");
        (response.status == 200).then(|| response.json()["appliedSeq"].as_u64().unwrap())
    });
    service.stop();
    applied
}

#[test]
fn damaged_pages_of_the_log_are_refused_in_words() {
    let folder = tempfile::tempdir().unwrap();
    fill(folder.path(), 0, 200);
    spoil(&folder.path().join("log.db"));
    let output = refused(folder.path());
    let words = String::from_utf8_lossy(&output.stderr);
    assert_eq!(output.status.code(), Some(65), "{words}");
    assert!(words.contains("log.db") && words.contains("backup"), "{words}");
}

#[test]
fn log_rows_that_cannot_be_opened_are_named_with_a_way_on_that_costs_no_event() {
    let folder = tempfile::tempdir().unwrap();
    fill(folder.path(), 0, 200);
    let logs = folder.path().join("logs.db");
    fs::write(&logs, [0x5a; 8192]).unwrap();
    let output = refused(folder.path());
    let words = String::from_utf8_lossy(&output.stderr);
    assert_eq!(output.status.code(), Some(65), "{words}");
    assert!(words.contains("logs.db is damaged") && words.contains("move logs.db"), "{words}");
    // As it says.
    for name in ["logs.db", "logs.db-wal"] {
        let _ = fs::rename(folder.path().join(name), folder.path().join(format!("{name}.old")));
    }
    assert_eq!(applied(folder.path()), 200);
}

#[test]
fn a_rebuild_from_a_damaged_log_names_it() {
    let folder = tempfile::tempdir().unwrap();
    fill(folder.path(), 0, 200);
    fs::write(folder.path().join("log.db"), [0x5a; 8192]).unwrap();
    let output = Command::new(env!("CARGO_BIN_EXE_sentinel"))
        .env_clear()
        .env("SENTINEL_DATABASE", format!("sqlite://{}", folder.path().display()))
        .arg("rebuild")
        .output()
        .unwrap();
    let words = String::from_utf8_lossy(&output.stderr);
    assert_eq!(output.status.code(), Some(65), "{words}");
    assert!(words.contains("log.db is damaged") && words.contains("backup"), "{words}");
}

#[test]
fn damaged_pages_of_the_projection_are_rebuilt_from_the_log() {
    let folder = tempfile::tempdir().unwrap();
    fill(folder.path(), 0, 200);
    spoil(&folder.path().join("events.db"));
    assert_eq!(applied(folder.path()), 200);
    let kept = fs::read_dir(folder.path())
        .unwrap()
        .any(|entry| entry.unwrap().file_name().to_string_lossy().contains("damaged"));
    assert!(kept, "the damaged file is kept for whoever wants to look");
}

#[test]
fn a_lost_projection_is_rebuilt_from_the_log() {
    let folder = tempfile::tempdir().unwrap();
    fill(folder.path(), 0, 50);
    for name in ["events.db", "events.db-wal", "events.db-shm"] {
        let _ = fs::remove_file(folder.path().join(name));
    }
    assert_eq!(applied(folder.path()), 50);
}

#[test]
fn a_log_restored_older_than_its_projection_is_refused_in_words() {
    let folder = tempfile::tempdir().unwrap();
    fill(folder.path(), 0, 20);
    let old = fs::read(folder.path().join("log.db")).unwrap();
    fill(folder.path(), 20, 20);
    fs::write(folder.path().join("log.db"), old).unwrap();
    for name in ["log.db-wal", "log.db-shm"] {
        let _ = fs::remove_file(folder.path().join(name));
    }
    let output = refused(folder.path());
    let words = String::from_utf8_lossy(&output.stderr);
    assert_eq!(output.status.code(), Some(65), "{words}");
    assert!(words.contains("older"), "{words}");
}

#[test]
fn a_torn_tail_of_the_log_loses_nothing_that_was_applied_in_silence() {
    // Where the keeper has copied the write-ahead log into the file, there is no tail to tear.
    let folder = (0..5).find_map(|_| killed_with_a_tail()).expect("a tail, in one of five runs");
    let wal = folder.path().join("log.db-wal");
    let bytes = fs::read(&wal).unwrap();
    fs::write(&wal, &bytes[..bytes.len() / 2]).unwrap();
    let output = refused(folder.path());
    let words = String::from_utf8_lossy(&output.stderr);
    assert_eq!(output.status.code(), Some(65), "{words}");
    assert!(words.contains("older"), "{words}");
}

/// The folder of a service that has applied 50 events and was killed. None: its log is whole without its tail.
fn killed_with_a_tail() -> Option<TempDir> {
    let folder = tempfile::tempdir().unwrap();
    let service = InChild::start(folder.path(), &[]);
    let mut client = Client::new(service.api, &token(folder.path(), "demo", &["sentinel:write"]));
    for id in 0..50 {
        client
            .event(&format!("k{id}"), &envelope(id, "s", json!({"filler": "x".repeat(400)})))
            .expect(202);
    }
    eventually("they are applied", || {
        (client.get("/v1/streams/s").json()["appliedSeq"].as_u64() == Some(50)).then_some(())
    });
    service.kill();
    let alone = tempfile::tempdir().unwrap();
    fs::copy(folder.path().join("log.db"), alone.path().join("log.db")).unwrap();
    (rows(alone.path()) < 1).then_some(folder)
}

/// How many rows the log holds; -1: it has no table yet.
fn rows(folder: &Path) -> i64 {
    let flags = rusqlite::OpenFlags::SQLITE_OPEN_READ_ONLY;
    let log = rusqlite::Connection::open_with_flags(folder.join("log.db"), flags).unwrap();
    log.query_row("SELECT count(*) FROM log", [], |row| row.get(0)).unwrap_or(-1)
}

#[test]
fn a_log_trimmed_to_empty_gives_no_number_twice_and_hides_no_new_event() {
    let folder = tempfile::tempdir().unwrap();
    let service = InChild::start(folder.path(), &[("SENTINEL_LOG_KEEP_HOURS", "0")]);
    let token = token(folder.path(), "demo", &["sentinel:write"]);
    let mut client = Client::new(service.api, &token);
    for id in 0..10 {
        client.event(&format!("k{id}"), &envelope(id, "s", json!({}))).expect(202);
    }
    eventually("they are applied", || {
        let response = client.get("/v1/streams/s");
        (response.status == 200 && response.json()["appliedSeq"] == 10).then_some(())
    });
    assert_eq!(service.terminate(), 0);
    // The keeper trims soon after a start: everything is old, and a snapshot covers it.
    let service = InChild::start(folder.path(), &[("SENTINEL_LOG_KEEP_HOURS", "0")]);
    eventually("the log is empty", || (rows(folder.path()) == 0).then_some(()));
    assert_eq!(service.terminate(), 0);
    let service = InChild::start(folder.path(), &[]);
    let mut client = Client::new(service.api, &token);
    let answer = client.event("k10", &envelope(10, "s", json!({}))).expect(202);
    assert_eq!(answer.json()["streamSeq"], 11);
    let replay = client.event("k3", &envelope(3, "s", json!({}))).expect(202);
    assert_eq!(
        replay.json()["streamSeq"],
        4,
        "a repeat is known although its row of the log is gone"
    );
    eventually("the new event is visible", || {
        let events = client.get("/v1/streams/s/events?after=10").json()["events"]
            .as_array()
            .map_or(0, Vec::len);
        (events == 1).then_some(())
    });
    assert_eq!(service.terminate(), 0);
}
