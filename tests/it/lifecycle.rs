//! How the service comes and goes.

use std::io::{BufReader, Read, Write};
use std::net::TcpStream;
use std::os::unix::net::UnixDatagram;
use std::time::{Duration, Instant};

use crossbeam::channel::{Receiver, Sender, bounded, unbounded};
use rustix::process::{Pid, Signal, kill_process};
use sentinel::component::STEP_MAX;
use sentinel::domain::event::{Envelope, Verdict};
use sentinel::domain::time::Timestamp;
use sentinel::service::{Parts, Service, wall_clock};
use sentinel::store::{IntakeSession, StoreError};
use serde_json::json;

use crate::harness::{
    Client, InChild, InProcess, PATIENCE, config, envelope, eventually, full, read_response, token,
};

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
        let before = Instant::now();
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

#[test]
fn a_stop_fails_readiness_finishes_what_has_begun_and_closes_what_is_idle() {
    let folder = tempfile::tempdir().unwrap();
    let service = InChild::start(folder.path(), &[]);
    let token = token(folder.path(), "demo", &["sentinel:write"]);
    let connect = || {
        let stream = TcpStream::connect(service.api).unwrap();
        stream.set_read_timeout(Some(PATIENCE)).unwrap();
        BufReader::new(stream)
    };
    let (mut idle, mut probing, mut posting) = (connect(), connect(), connect());
    idle.get_mut().write_all(b"GET /ready HTTP/1.1\r\nHost: localhost\r\n\r\n").unwrap();
    assert_eq!(read_response(&mut idle, false).unwrap().status, 200);
    // Two requests that have begun: one in its head, one in its body.
    probing.get_mut().write_all(b"GET /ready HTTP/1.1\r\nHost: localhost\r\n").unwrap();
    let head = format!(
        "POST /internal/start HTTP/1.1\r\nHost: localhost\r\nAuthorization: Bearer {token}\r\n\
         X-Sentinel-Process-Id: p\r\nContent-Length: 2\r\nExpect: 100-continue\r\n\r\n"
    );
    posting.get_mut().write_all(head.as_bytes()).unwrap();
    assert_eq!(read_response(&mut posting, true).unwrap().status, 100);
    service.signal_term();
    let mut rest = Vec::new();
    idle.read_to_end(&mut rest).unwrap();
    assert!(rest.is_empty(), "an idle connection is closed without a word");
    probing.get_mut().write_all(b"\r\n").unwrap();
    let answer = read_response(&mut probing, false).unwrap();
    assert_eq!((answer.status, answer.header("connection")), (503, Some("close")));
    posting.get_mut().write_all(b"{}").unwrap();
    let answer = read_response(&mut posting, false).unwrap();
    assert_eq!((answer.status, answer.header("connection")), (202, Some("close")));
    assert!(TcpStream::connect(service.api).is_err(), "nobody listens any more");
    drop((probing, posting));
    assert_eq!(service.wait(), 0);
}

#[test]
fn systemd_hears_of_the_start_of_every_reload_of_the_stop_and_that_the_service_lives() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("notify");
    let socket = UnixDatagram::bind(&path).unwrap();
    socket.set_read_timeout(Some(PATIENCE)).unwrap();
    let next = || {
        let mut bytes = [0; 4096];
        let length = socket.recv(&mut bytes).expect("systemd is told");
        String::from_utf8_lossy(&bytes[..length]).into_owned()
    };
    // Nobody issues tokens there; that costs those who come with one a 503, and the service nothing.
    let service = InChild::start(
        &folder.path().join("data"),
        &[
            ("NOTIFY_SOCKET", path.to_str().unwrap()),
            ("WATCHDOG_USEC", "100000"),
            ("OAUTH2_ISSUER", "http://127.0.0.1:9/realm"),
            ("OAUTH2_JWK_SET_URI", "http://127.0.0.1:9/keys"),
        ],
    );
    let ready = format!("READY=1\nSTATUS=serving on {}\n", service.api);
    assert_eq!(next(), ready);
    for _ in 0..3 {
        assert_eq!(next(), "WATCHDOG=1\n");
    }
    let pid = Pid::from_raw(i32::try_from(service.id()).unwrap()).unwrap();
    let beside_the_watchdog = || loop {
        let message = next();
        if message != "WATCHDOG=1\n" {
            return message;
        }
    };
    let mut last = 0;
    for _ in 0..2 {
        kill_process(pid, Signal::HUP).unwrap();
        let reloading = beside_the_watchdog();
        let at = reloading.strip_prefix("RELOADING=1\nMONOTONIC_USEC=").expect(&reloading);
        let at: u64 = at.trim_end().parse().unwrap();
        assert!(at > last, "{at} {last}");
        last = at;
        assert_eq!(beside_the_watchdog(), "READY=1\n");
    }
    service.signal_term();
    let stopping = beside_the_watchdog();
    assert!(stopping.starts_with("STOPPING=1\nSTATUS=stopping"), "{stopping}");
    assert_eq!(service.wait(), 0);
}

/// A session that is stuck until it is released.
struct Stuck {
    begun: Sender<()>,
    release: Receiver<()>,
}

impl IntakeSession for Stuck {
    fn accept(&mut self, _: Timestamp, _: Vec<Envelope>) -> Result<Vec<Verdict>, StoreError> {
        self.begun.send(()).unwrap();
        let _ = self.release.recv_timeout(PATIENCE);
        Err(StoreError::Busy { call: "accept", source: "stuck on purpose".into() })
    }
}

#[test]
fn a_thread_that_is_stuck_is_named_and_one_that_waits_is_not() {
    let folder = tempfile::tempdir().unwrap();
    let (begun, begins) = unbounded();
    let (release, released) = bounded(0);
    let stuck = Box::new(Stuck { begun, release: released });
    let config = config(folder.path(), &[]);
    let service = Service::start_with_intake(&config, wall_clock(), Parts::ALL, stuck).unwrap();
    // The time is moved by hand, so a thread at any other step then is named as well.
    let is_stuck = |after: Duration| {
        let stalled = service.stalled(Instant::now() + after);
        stalled.iter().any(|(name, took)| name == "intake" && *took >= after)
    };
    let long = STEP_MAX + Duration::from_secs(1);
    assert!(!is_stuck(long), "it waits for work");
    let mut client =
        Client::new(service.api_address(), &token(folder.path(), "demo", &["sentinel:write"]));
    std::thread::scope(|scope| {
        let post = scope.spawn(move || client.event("k", &envelope(1, "s", json!({}))).status);
        begins.recv_timeout(PATIENCE).unwrap();
        assert!(!is_stuck(Duration::ZERO), "a step may take a while");
        assert!(is_stuck(long));
        drop(release);
        assert_eq!(post.join().unwrap(), 503);
    });
    eventually("it waits for work again", || (!is_stuck(long)).then_some(()));
    service.stop().unwrap();
}

#[test]
fn a_thread_that_ends_uninvited_ends_the_service_by_its_own_exit_code_and_nothing_acknowledged_is_lost()
 {
    let folder = tempfile::tempdir().unwrap();
    let service = InChild::start(folder.path(), &[]);
    let token = token(folder.path(), "demo", &["sentinel:write"]);
    let mut client = Client::new(service.api, &token);
    client.event("k1", &envelope(1, "s", json!({}))).expect(202);
    eventually("the first event is applied", || {
        (client.get("/v1/streams/s").status == 200).then_some(())
    });
    // Somebody tampers with the derived file while the service runs: no retry can mend what the listener meets then.
    let events = rusqlite::Connection::open(folder.path().join("events.db")).unwrap();
    events.busy_timeout(PATIENCE).unwrap();
    events.execute_batch("DROP TABLE process").unwrap();
    drop(events);
    let body = json!({"process_id": "p", "event_id": "e2"});
    // It may be gone before it has answered, and then nothing is promised.
    let posted = client.try_request("POST", "/internal/start", &[], body.to_string().as_bytes());
    let acknowledged = posted.is_ok_and(|answer| answer.status == 202);
    assert_eq!(service.wait(), 70);
    // What it derives is made anew from what it has accepted.
    let rebuilt = std::process::Command::new(env!("CARGO_BIN_EXE_sentinel"))
        .args(["--database", &format!("sqlite://{}", folder.path().display()), "rebuild"])
        .output()
        .unwrap();
    assert!(rebuilt.status.success(), "{}", String::from_utf8_lossy(&rebuilt.stderr));
    let service = InChild::start(folder.path(), &[]);
    let mut client = Client::new(service.api, &token);
    client.get("/v1/streams/s").expect(200);
    if acknowledged {
        assert_eq!(client.get("/status/p").expect(200).json()["status"], "RUNNING");
    }
    assert_eq!(service.terminate(), 0);
}

/// The nice value of each thread of a process, by its name (`proc(5)`).
#[cfg(target_os = "linux")]
fn nice_values(process: u32) -> std::collections::BTreeMap<String, i32> {
    let tasks = std::fs::read_dir(format!("/proc/{process}/task")).unwrap();
    let stats =
        tasks.map(|task| std::fs::read_to_string(task.unwrap().path().join("stat")).unwrap());
    stats
        .map(|stat| {
            // The name is in parentheses and may hold anything; nice is the 17th field after it.
            let (before, after) = stat.rsplit_once(") ").unwrap();
            let (_, name) = before.split_once('(').unwrap();
            (name.to_owned(), after.split(' ').nth(16).unwrap().parse().unwrap())
        })
        .collect()
}

#[test]
#[cfg(target_os = "linux")]
fn only_what_nobody_waits_for_steps_back() {
    let folder = tempfile::tempdir().unwrap();
    let service = InChild::start(folder.path(), &[]);
    let own = eventually("the listener has stepped back", || {
        // A thread takes its name by itself, a moment after it has begun.
        let nice = nice_values(service.id());
        let all = ["listener-0", "http-0", "work-0", "work-1", "intake", "reaper", "logs-0"];
        let named = all.iter().all(|name| nice.contains_key(*name));
        (named && nice["listener-0"] > nice["http-0"]).then_some(nice)
    });
    let usual = rustix::process::getpriority_process(None).unwrap();
    assert_eq!(own["listener-0"], (usual + 5).min(19), "{own:?}");
    for name in ["http-0", "work-0", "work-1", "intake", "reaper", "logs-0"] {
        assert_eq!(own[name], usual, "{name}: {own:?}");
    }
    assert_eq!(service.terminate(), 0);
}
