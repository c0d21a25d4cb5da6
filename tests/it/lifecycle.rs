//! How the service comes and goes.

use std::time::Duration;

use sentinel::service::{Parts, wall_clock};
use serde_json::json;

use crate::harness::{Client, InChild, InProcess, PATIENCE, envelope, eventually, full, token};

#[test]
fn start_and_stop_again_and_again_leaves_nothing_behind() {
    let rounds = if full() { 500 } else { 100 };
    let folder = tempfile::tempdir().unwrap();
    let threads = || std::fs::read_dir("/proc/self/task").map_or(0, Iterator::count);
    let files = || std::fs::read_dir("/proc/self/fd").map_or(0, Iterator::count);
    let mut after_first = None;
    for round in 0..rounds {
        let service = InProcess::start(folder.path(), wall_clock(), Parts::ALL, &[]);
        let mut client = service.client("demo");
        let answer =
            client.event(&format!("k{round}"), &envelope(round, "s", json!({}))).expect(202);
        assert_eq!(answer.json()["streamSeq"], json!(round + 1));
        drop(client);
        service.stop();
        // Other tests run beside this one, so only a steady growth would show.
        let now = (threads(), files());
        let first = *after_first.get_or_insert(now);
        assert!(
            now.0 < first.0 + 400 && now.1 < first.1 + 2000,
            "threads and files grow: {first:?} to {now:?}"
        );
    }
}

#[test]
fn sigterm_answers_what_is_in_flight_and_exits_cleanly_within_the_deadline() {
    let folder = tempfile::tempdir().unwrap();
    let service = InChild::start(folder.path(), &[("SENTINEL_SHUTDOWN_TIMEOUT_SEC", "20")]);
    let token = token(folder.path(), "demo", &["sentinel:write"]);
    let api = service.api;
    let acknowledged = std::thread::scope(|scope| {
        let (ready, go) = std::sync::mpsc::channel();
        let senders: Vec<_> = (0..4u128)
            .map(|sender| {
                let (ready, token) = (ready.clone(), &token);
                scope.spawn(move || {
                    let mut client = Client::new(api, token);
                    let mut acknowledged = Vec::new();
                    for n in 0u128.. {
                        let id = sender << 32 | n;
                        let body = envelope(id, "s", json!({})).to_string();
                        let key = format!("k{id}");
                        let fields = [
                            ("Content-Type", "application/json"),
                            ("Idempotency-Key", key.as_str()),
                        ];
                        match client.try_request("POST", "/v1/events", &fields, body.as_bytes()) {
                            Ok(response) if response.status == 202 => {
                                acknowledged.push(response.json()["streamSeq"].as_u64().unwrap())
                            }
                            Ok(response) => assert_eq!(response.status, 503, "{}", response.text()),
                            // The door is closed: only a request that was never begun may find that.
                            Err(_) => break,
                        }
                        if n == 20 {
                            let _ = ready.send(());
                        }
                    }
                    acknowledged
                })
            })
            .collect();
        for _ in 0..4 {
            go.recv_timeout(PATIENCE).expect("the senders get on");
        }
        let before = std::time::Instant::now();
        service.signal_term();
        assert_eq!(service.wait(), 0);
        assert!(before.elapsed() < Duration::from_secs(20), "{:?}", before.elapsed());
        senders.into_iter().flat_map(|sender| sender.join().unwrap()).collect::<Vec<_>>()
    });
    assert!(acknowledged.len() > 80);
    let again = InChild::start(folder.path(), &[]);
    let mut client = Client::new(again.api, &token);
    let highest = *acknowledged.iter().max().unwrap();
    eventually("everything acknowledged is there", || {
        let response = client.get("/v1/streams/s");
        (response.status == 200 && response.json()["appliedSeq"].as_u64().unwrap() >= highest)
            .then_some(())
    });
    assert_eq!(again.terminate(), 0);
}

#[test]
fn a_second_instance_on_the_same_folder_is_refused_in_words() {
    let folder = tempfile::tempdir().unwrap();
    let first = InChild::start(folder.path(), &[]);
    let second = std::process::Command::new(env!("CARGO_BIN_EXE_sentinel"))
        .env_clear()
        .env("SENTINEL_DATABASE", format!("sqlite://{}", folder.path().display()))
        .args(["--bind", "tcp://127.0.0.1:0"])
        .env("PROMETHEUS_METRICS_PORT", "0")
        .output()
        .unwrap();
    assert_eq!(second.status.code(), Some(75));
    let words = String::from_utf8_lossy(&second.stderr);
    assert!(words.contains("another instance"), "{words}");
    assert_eq!(first.terminate(), 0);
}

#[test]
fn an_impossible_configuration_is_refused_with_every_problem_at_once() {
    let output = std::process::Command::new(env!("CARGO_BIN_EXE_sentinel"))
        .env_clear()
        .env("SENTINEL_HTTP_PORT", "many")
        .env("SENTINEL_WORKER_THREADS", "0")
        .env("SENTINEL_RETENTION_DAYS", "-3")
        .output()
        .unwrap();
    assert_eq!(output.status.code(), Some(78));
    let words = String::from_utf8_lossy(&output.stderr);
    for name in ["SENTINEL_HTTP_PORT", "SENTINEL_WORKER_THREADS", "SENTINEL_RETENTION_DAYS"] {
        assert!(words.contains(name), "{words}");
    }
}

#[test]
fn a_port_that_is_taken_is_named() {
    let folder = tempfile::tempdir().unwrap();
    let taken = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    let address = taken.local_addr().unwrap();
    let output = std::process::Command::new(env!("CARGO_BIN_EXE_sentinel"))
        .args(["--bind", &format!("tcp://{address}")])
        .env_clear()
        .env("SENTINEL_DATABASE", format!("sqlite://{}", folder.path().display()))
        .env("PROMETHEUS_METRICS_PORT", "0")
        .output()
        .unwrap();
    let words = String::from_utf8_lossy(&output.stderr);
    assert_eq!(output.status.code(), Some(71), "{words}");
    assert!(
        words.contains(&address.to_string()) && words.contains("SENTINEL_HTTP_PORT"),
        "{words}"
    );
}
