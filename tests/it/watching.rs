//! What `sentinel tail` and `sentinel top --once` show of a running service. This module cuts connections, restarts the
//! service and sends signals, and counts the lines.

use std::io::{BufRead, BufReader, Read};
use std::net::{Shutdown, SocketAddr, TcpListener, TcpStream};
use std::path::Path;
use std::process::{Child, ChildStdout, Command, Output, Stdio};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::time::{Duration, Instant};

use crossbeam::channel::{RecvTimeoutError, Sender, unbounded};
use rustix::process::{Pid, Signal, kill_process};
use sentinel::service::{Parts, wall_clock};
use serde_json::{Value, json};

use crate::harness::{
    Client, Dice, InChild, InProcess, PATIENCE, eventually, token, token_about_to_end,
};

/// A client command with a token of the service in `folder`.
fn command(folder: &Path, api: SocketAddr, arguments: &[&str]) -> Command {
    let mut program = Command::new(env!("CARGO_BIN_EXE_sentinel"));
    program.env_clear().args(arguments).env("SENTINEL_URL", format!("http://{api}"));
    program.env("SENTINEL_TOKEN", token(folder, "demo", &["sentinel:read"]));
    program.stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::piped());
    program
}

fn output(folder: &Path, api: SocketAddr, arguments: &[&str]) -> Output {
    let child = command(folder, api, arguments).spawn().unwrap();
    let watchdog = Watchdog::of(&child);
    watchdog.arm(PATIENCE);
    let output = child.wait_with_output().unwrap();
    assert!(!watchdog.has_bitten(), "{arguments:?} did not end within {PATIENCE:?}: {output:?}");
    output
}

/// Kills a child that is waited for in vain, so that whoever reads from it sees an end and can say what it got.
struct Watchdog {
    /// When to kill; None: nobody waits.
    deadlines: Sender<Option<Instant>>,
    bitten: Arc<AtomicBool>,
}

impl Watchdog {
    fn of(child: &Child) -> Self {
        let (deadlines, orders) = unbounded();
        let bitten = Arc::new(AtomicBool::new(false));
        let (pid, bites) = (Pid::from_child(child), Arc::clone(&bitten));
        aside(move || {
            let mut deadline: Option<Instant> = None;
            loop {
                let order = match deadline {
                    Some(deadline) => orders.recv_deadline(deadline),
                    None => orders.recv().map_err(|_| RecvTimeoutError::Disconnected),
                };
                match order {
                    Ok(next) => deadline = next,
                    Err(RecvTimeoutError::Timeout) => {
                        bites.store(true, Ordering::SeqCst);
                        // It may have ended by itself just now.
                        let _ = kill_process(pid, Signal::KILL);
                        return;
                    }
                    Err(RecvTimeoutError::Disconnected) => return,
                }
            }
        });
        Self { deadlines, bitten }
    }

    /// From now on it has so long.
    fn arm(&self, patience: Duration) {
        let _ = self.deadlines.send(Some(Instant::now() + patience));
    }

    fn disarm(&self) {
        let _ = self.deadlines.send(None);
    }

    fn has_bitten(&self) -> bool {
        self.bitten.load(Ordering::SeqCst)
    }
}

fn report(client: &mut Client, verb: &str, body: &Value) {
    let fields = [("X-Sentinel-Process-Id", "p")];
    let path = format!("/internal/{verb}");
    client.request("POST", &path, &fields, body.to_string().as_bytes()).expect(202);
}

fn say(client: &mut Client, level: &str, message: impl std::fmt::Display) {
    report(client, "log", &json!({"level": level, "message": message.to_string()}));
}

/// A running `sentinel tail`. Every wait for it has a deadline, and says what had come until then.
struct Tail {
    child: Child,
    /// None: closed on this side.
    stdout: Option<BufReader<ChildStdout>>,
    /// Everything it has printed.
    printed: String,
    watchdog: Watchdog,
    patience: Duration,
}

impl Tail {
    fn start(mut command: Command) -> Self {
        let mut child = command.spawn().unwrap();
        let stdout = child.stdout.take().map(BufReader::new);
        let watchdog = Watchdog::of(&child);
        Self { child, stdout, printed: String::new(), watchdog, patience: PATIENCE }
    }

    /// Does what waits for the child.
    fn wait<T>(&mut self, what: &str, work: impl FnOnce(&mut Self) -> T) -> T {
        self.watchdog.arm(self.patience);
        let done = work(self);
        self.watchdog.disarm();
        if self.watchdog.has_bitten() {
            let (words, printed) = (self.words(), &self.printed);
            panic!(
                "{what} did not come within {:?}\nit printed:\n{printed}\nand said:\n{words}",
                self.patience
            );
        }
        done
    }

    /// Everything on stderr, to its end.
    fn words(&mut self) -> String {
        let mut words = String::new();
        if let Some(mut stderr) = self.child.stderr.take() {
            stderr.read_to_string(&mut words).unwrap();
        }
        words
    }

    /// The next line as JSON. None: there is none any more.
    fn line(&mut self) -> Option<Value> {
        let mut line = String::new();
        self.wait("a line, or the end,", |tail| {
            let stdout = tail.stdout.as_mut().expect("it is open");
            stdout.read_line(&mut line).unwrap()
        });
        self.printed += &line;
        (!line.is_empty()).then(|| serde_json::from_str(&line).unwrap())
    }

    /// The message of the next log row.
    fn message(&mut self) -> String {
        loop {
            let Some(line) = self.line() else {
                let (words, printed) = (self.words(), &self.printed);
                panic!("it ends before the row comes; it printed:\n{printed}\nand said:\n{words}");
            };
            if let Some(message) = line["log"]["message"].as_str() {
                return message.to_owned();
            }
        }
    }

    /// The exit code and what was said on stderr.
    fn end(mut self) -> (Option<i32>, String) {
        self.wait("its end", |tail| {
            let words = tail.words();
            (tail.child.wait().unwrap().code(), words)
        })
    }
}

impl Drop for Tail {
    /// A test that fails leaves nobody behind.
    fn drop(&mut self) {
        let _ = self.child.kill().and_then(|()| self.child.wait());
    }
}

#[test]
fn who_waits_for_a_tail_in_vain_ends_it_and_hears_what_it_printed() {
    let mut silent = Command::new("/bin/sh");
    silent.args(["-c", "echo '{\"log\":{\"message\":\"one\"}}'; echo words >&2; exec sleep 600"]);
    silent.stdout(Stdio::piped()).stderr(Stdio::piped());
    let mut tail = Tail::start(silent);
    assert_eq!(tail.message(), "one");
    let pid = Pid::from_child(&tail.child);
    tail.patience = Duration::from_millis(50);
    let caught = std::panic::catch_unwind(std::panic::AssertUnwindSafe(|| tail.message()));
    let words = *caught.unwrap_err().downcast::<String>().unwrap();
    assert!(words.contains("did not come within 50ms"), "{words}");
    assert!(words.contains("\"one\"") && words.contains("words"), "{words}");
    drop(tail);
    kill_process(pid, Signal::KILL).unwrap_err();
}

#[test]
fn a_tail_goes_on_after_a_restart_of_the_service_with_every_row_once() {
    let folder = tempfile::tempdir().unwrap();
    let service = InChild::start(folder.path(), &[]);
    let api = service.api;
    let writer = token(folder.path(), "demo", &["sentinel:write"]);
    let mut client = Client::new(api, &writer);
    report(&mut client, "start", &json!({}));
    let mut tail =
        Tail::start(command(folder.path(), api, &["tail", "p", "--json", "--until-end"]));
    for n in 0..20 {
        say(&mut client, "INFO", n);
        assert_eq!(tail.message(), n.to_string());
    }
    // Acknowledged, and perhaps not sent to the reader.
    (20..40).for_each(|n| say(&mut client, "INFO", n));
    service.kill();
    let service = InChild::start_on(folder.path(), api.port(), &[]);
    let mut client = Client::new(api, &writer);
    (40..60).for_each(|n| say(&mut client, "INFO", n));
    for n in 20..60 {
        assert_eq!(tail.message(), n.to_string());
    }
    // An orderly stop says so in the stream.
    assert_eq!(service.terminate(), 0);
    let service = InChild::start_on(folder.path(), api.port(), &[]);
    let mut client = Client::new(api, &writer);
    (60..80).for_each(|n| say(&mut client, "INFO", n));
    report(&mut client, "complete", &json!({}));
    let (mut expected, mut statuses) = (60, Vec::new());
    while let Some(line) = tail.line() {
        match line["status"]["status"].as_str() {
            Some(status) => {
                assert!(status != "COMPLETED" || expected == 80, "the end comes last: {expected}");
                statuses.push(status.to_owned());
            }
            None => {
                assert_eq!(line["log"]["message"], expected.to_string());
                expected += 1;
            }
        }
    }
    assert_eq!(expected, 80, "every row came before the end");
    assert_eq!(statuses.last().map(String::as_str), Some("COMPLETED"));
    let (code, words) = tail.end();
    assert_eq!(code, Some(0), "{words}");
    assert!(words.contains("sentinel tail: the stream is cut: "), "{words}");
    assert!(words.contains("the service is stopping; connecting again in "), "{words}");
    assert!(words.contains("sentinel tail: connected again"), "{words}");
    assert_eq!(service.terminate(), 0);
}

/// Does something beside the test, for as long as the test program runs.
fn aside(work: impl FnOnce() + Send + 'static) {
    std::thread::Builder::new().spawn(work).unwrap();
}

/// Passes connections through to a service and cuts each answer after some bytes. Returns its address and how many it
/// has cut.
fn start_cutter(service: SocketAddr) -> (SocketAddr, Arc<AtomicUsize>) {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let address = listener.local_addr().unwrap();
    let cuts = Arc::new(AtomicUsize::new(0));
    let counter = Arc::clone(&cuts);
    aside(move || {
        let mut dice = Dice(7);
        for client in listener.incoming() {
            let (client, upstream) = (client.unwrap(), TcpStream::connect(service).unwrap());
            let bytes = 1 + dice.roll(9000);
            let (mut from, mut to) = (client.try_clone().unwrap(), upstream.try_clone().unwrap());
            aside(move || {
                let _ = std::io::copy(&mut from, &mut to);
            });
            let counter = Arc::clone(&counter);
            aside(move || {
                let sent = std::io::copy(&mut (&upstream).take(bytes), &mut &client);
                if sent.is_ok_and(|sent| sent == bytes) {
                    counter.fetch_add(1, Ordering::SeqCst);
                }
                let _ = client.shutdown(Shutdown::Both);
                let _ = upstream.shutdown(Shutdown::Both);
            });
        }
    });
    (address, cuts)
}

#[test]
fn a_connection_that_is_cut_anywhere_loses_no_row_and_doubles_none() {
    let folder = tempfile::tempdir().unwrap();
    let service = InProcess::start(folder.path(), wall_clock(), Parts::ALL, &[]);
    let mut client = service.client("demo");
    report(&mut client, "start", &json!({}));
    (0..100).for_each(|n| say(&mut client, "INFO", n));
    let (relay, cuts) = start_cutter(service.service.api_address());
    // Before the first row there is no place to go on from, and a cut there is an error like at any start.
    let begun = Instant::now();
    let mut tail = loop {
        assert!(begun.elapsed() < PATIENCE, "no tail got as far as the first row");
        let arguments = ["tail", "p", "--json", "--until-end"];
        let mut tail = Tail::start(command(folder.path(), relay, &arguments));
        match tail.line() {
            Some(line) if line["log"]["message"] == "0" => break tail,
            _ => drop(tail),
        }
    };
    for n in 1..100 {
        assert_eq!(tail.message(), n.to_string());
    }
    (100..200).for_each(|n| say(&mut client, "INFO", n));
    report(&mut client, "error", &json!({"error_message": "on purpose"}));
    for n in 100..200 {
        assert_eq!(tail.message(), n.to_string());
    }
    while let Some(line) = tail.line() {
        assert!(line["log"].is_null(), "{line}");
    }
    let (code, words) = tail.end();
    assert_eq!(code, Some(0), "{words}");
    assert!(cuts.load(Ordering::SeqCst) > 5, "{cuts:?}\n{words}");
    service.stop();
}

#[test]
fn a_tail_shows_what_is_asked_for_and_nothing_that_a_terminal_acts_on() {
    let folder = tempfile::tempdir().unwrap();
    let service = InProcess::start(folder.path(), wall_clock(), Parts::ALL, &[]);
    let api = service.service.api_address();
    let mut client = service.client("demo");
    report(
        &mut client,
        "log",
        &json!([
            {"level": "INFO", "message": "old", "logged_at": "2026-01-28T10:30:00Z"},
            {"level": "DEBUG", "message": "too quiet"},
            {"level": "ERROR", "message": "a\nb\u{1b}[31m\u{9b}1m\u{202e}", "component": "db", "stack_trace": "x\n\ty"},
        ]),
    );
    let flags = ["tail", "p", "--no-follow", "--since", "1h", "--level", "info"];
    let shown = output(folder.path(), api, &flags);
    let text = String::from_utf8(shown.stdout).unwrap();
    assert_eq!(shown.status.code(), Some(0));
    let (_, line) = text.split_once(' ').unwrap();
    assert_eq!(line.trim_start(), "ERROR db: a\\nb\\u{1b}[31m\\u{9b}1m\\u{202e}\n    x\n      y\n");
    let json = output(folder.path(), api, &["tail", "p", "--no-follow", "--json"]);
    let lines: Vec<Value> = String::from_utf8(json.stdout)
        .unwrap()
        .lines()
        .map(|line| {
            assert!(!line.contains(['\u{1b}', '\u{9b}', '\u{202e}']), "{line}");
            serde_json::from_str(line).unwrap()
        })
        .collect();
    assert_eq!(lines.len(), 3);
    assert_eq!(lines[2]["log"]["message"], "a\nb\u{1b}[31m\u{9b}1m\u{202e}");
    service.stop();
}

#[test]
fn a_tail_that_is_refused_says_why_and_ends_with_one() {
    let folder = tempfile::tempdir().unwrap();
    let service = InProcess::start(folder.path(), wall_clock(), Parts::ALL, &[]);
    let api = service.service.api_address();
    let unknown = output(folder.path(), api, &["tail", "nobody"]);
    let words = String::from_utf8(unknown.stderr).unwrap();
    assert_eq!(unknown.status.code(), Some(1));
    assert!(words.contains("the service answers 404"), "{words}");
    service.stop();
    let nobody = output(folder.path(), api, &["tail", "p"]);
    let words = String::from_utf8(nobody.stderr).unwrap();
    assert_eq!(nobody.status.code(), Some(1));
    assert!(words.contains("cannot reach the service") && words.lines().count() == 1, "{words}");
}

#[test]
fn an_interrupted_tail_has_printed_everything_and_ends_as_in_a_shell() {
    let folder = tempfile::tempdir().unwrap();
    let service = InProcess::start(folder.path(), wall_clock(), Parts::ALL, &[]);
    let api = service.service.api_address();
    let mut client = service.client("demo");
    for (signal, code) in [(Signal::INT, 130), (Signal::TERM, 143)] {
        say(&mut client, "INFO", "here");
        let mut tail = Tail::start(command(folder.path(), api, &["tail", "p", "--json"]));
        assert_eq!(tail.message(), "here");
        kill_process(Pid::from_child(&tail.child), signal).unwrap();
        while tail.line().is_some() {}
        assert_eq!(tail.end(), (Some(code), String::new()));
    }
    service.stop();
}

#[test]
fn a_tail_whose_token_runs_out_goes_on_with_the_one_that_has_taken_its_place() {
    let folder = tempfile::tempdir().unwrap();
    let service = InProcess::start(folder.path(), wall_clock(), Parts::ALL, &[]);
    let mut client = service.client("demo");
    say(&mut client, "INFO", "first");
    let (roles, left) = (&["sentinel:read"], Duration::from_secs(4));
    let file = folder.path().join("token");
    std::fs::write(&file, token_about_to_end(folder.path(), "demo", roles, left)).unwrap();
    let api = service.service.api_address();
    let mut command = command(folder.path(), api, &["tail", "p", "--json"]);
    command.env_remove("SENTINEL_TOKEN").env("SENTINEL_TOKEN_FILE", &file);
    let mut tail = Tail::start(command);
    assert_eq!(tail.message(), "first");
    std::fs::write(&file, token(folder.path(), "demo", roles)).unwrap();
    eventually("its stream has ended", || service.service.shared().live.is_empty().then_some(()));
    say(&mut client, "INFO", "second");
    assert_eq!(tail.message(), "second");
    kill_process(Pid::from_child(&tail.child), Signal::TERM).unwrap();
    while tail.line().is_some() {}
    let (code, words) = tail.end();
    assert_eq!(code, Some(143), "{words}");
    assert!(words.contains("the stream is cut: the token has expired; "), "{words}");
    assert!(words.contains("connected again, nothing is missing"), "{words}");
    service.stop();
}

#[test]
fn a_reader_that_has_seen_enough_ends_the_tail_without_words() {
    let folder = tempfile::tempdir().unwrap();
    let service = InProcess::start(folder.path(), wall_clock(), Parts::ALL, &[]);
    let mut client = service.client("demo");
    say(&mut client, "INFO", "one");
    let api = service.service.api_address();
    let mut tail = Tail::start(command(folder.path(), api, &["tail", "p", "--json"]));
    assert_eq!(tail.message(), "one");
    tail.stdout = None;
    tail.wait("its end", |tail| {
        while tail.child.try_wait().unwrap().is_none() {
            say(&mut client, "INFO", "more");
        }
    });
    assert_eq!(tail.end(), (Some(0), String::new()));
    service.stop();
}

#[test]
fn one_frame_of_top_goes_into_a_pipe_as_text() {
    let folder = tempfile::tempdir().unwrap();
    let service = InProcess::start(folder.path(), wall_clock(), Parts::ALL, &[]);
    let api = service.service.api_address();
    let mut client = service.client("demo");
    report(&mut client, "start", &json!({}));
    report(&mut client, "progress", &json!({"current_step": "LO\u{1b}AD", "progress_percent": 40}));
    let text = eventually("the listing knows of it", || {
        let shown = output(folder.path(), api, &["top", "--once"]);
        assert_eq!(shown.status.code(), Some(0));
        let text = String::from_utf8(shown.stdout).unwrap();
        // What was said last: both reports are in the listing then.
        text.contains("40%").then_some(text)
    });
    let lines: Vec<&str> = text.lines().collect();
    assert!(lines[0].starts_with("sentinel top  1 unfinished, 1 running"), "{text}");
    assert!(lines[3].starts_with("p  ") && lines[3].contains(r"LO\u{1b}AD"), "{text}");
    assert!(lines[3].contains("###.....  40%"), "{text}");
    assert!(lines.iter().all(|line| line.chars().count() <= 80), "{text}");
    let other = output(folder.path(), api, &["top", "--once", "--filter", "nothing-like-it"]);
    assert!(String::from_utf8(other.stdout).unwrap().contains("no process passes the filter"));
    let no_terminal = output(folder.path(), api, &["top"]);
    assert_eq!(no_terminal.status.code(), Some(2));
    assert!(String::from_utf8(no_terminal.stderr).unwrap().contains("use --once"));
    service.stop();
}
