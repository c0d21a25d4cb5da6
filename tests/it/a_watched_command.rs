//! What `sentinel run` does for a command, and never does to it. This module runs the program against a service that
//! is well, busy, silent, away or not there at all.

use std::io::{BufRead, BufReader, Read, Write};
use std::net::TcpListener;
use std::process::{Child, Command, Output, Stdio};

use rustix::process::{Pid, Signal, kill_process};

use crate::fake_service::{FakeService, Reaction, Seen};
use crate::harness::eventually;

fn well(_: usize, _: &Seen) -> Reaction {
    Reaction::Answer(202)
}

/// `sentinel run` with these flags and this command, as a test of its own environment.
fn watch(url: &str, flags: &[&str], command: &[&str]) -> Command {
    let mut program = Command::new(env!("CARGO_BIN_EXE_sentinel"));
    program.args(["run", "--name", "nightly"]).args(flags).arg("--").args(command);
    program.env("SENTINEL_URL", url).env("SENTINEL_TOKEN", "a-token");
    program.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped());
    program
}

fn output(url: &str, flags: &[&str], script: &str) -> Output {
    watch(url, flags, &["sh", "-c", script]).output().unwrap()
}

fn paths(seen: &[Seen]) -> Vec<&str> {
    seen.iter().map(|seen| seen.path.as_str()).collect()
}

/// The messages of all log rows, in the order of arrival.
fn messages(seen: &[Seen]) -> Vec<String> {
    let rows = seen.iter().filter(|seen| seen.path == "/internal/log");
    rows.flat_map(|seen| seen.body.as_array().unwrap().clone())
        .map(|row| row["message"].as_str().unwrap().to_string())
        .collect()
}

/// A command that repeats what it is told, so that a test decides what it prints and when it ends.
struct Parrot {
    child: Child,
    stdout: BufReader<std::process::ChildStdout>,
}

impl Parrot {
    fn start(mut program: Command) -> Self {
        let mut child = program.spawn().unwrap();
        let stdout = BufReader::new(child.stdout.take().unwrap());
        Self { child, stdout }
    }

    /// Tells it a line and waits until it has repeated that.
    fn repeat(&mut self, line: &str) {
        writeln!(self.child.stdin.as_ref().unwrap(), "{line}").unwrap();
        assert_eq!(self.line(), line);
    }

    fn line(&mut self) -> String {
        let mut line = String::new();
        self.stdout.read_line(&mut line).unwrap();
        line.trim_end().to_string()
    }

    fn signal(&self, signal: Signal) {
        kill_process(Pid::from_child(&self.child), signal).unwrap();
    }

    /// Lets the command end; its exit code and our words on stderr.
    fn end(mut self) -> (Option<i32>, String) {
        drop(self.child.stdin.take());
        let mut words = String::new();
        self.child.stderr.take().unwrap().read_to_string(&mut words).unwrap();
        (self.child.wait().unwrap().code(), words)
    }
}

#[test]
fn a_command_is_told_of_from_start_to_end_and_its_output_is_untouched() {
    let service = FakeService::start(well);
    let script = "printf 'one\\n\\ntwo\\r\\nno end'; exit 0";
    let output = output(&service.url(), &[], script);
    assert_eq!(output.status.code(), Some(0));
    assert_eq!(output.stdout, b"one\n\ntwo\r\nno end");
    assert_eq!(output.stderr, b"");

    let seen = service.until_the_end();
    assert_eq!(paths(&seen), ["/internal/start", "/internal/log", "/internal/complete"]);
    assert_eq!(messages(&seen), ["one", "two", "no end"]);
    let run = &seen[0].body["event_id"];
    assert_eq!(seen[0].body["process_id"], "nightly");
    assert_eq!(seen[0].body["metadata"]["command"], "sh", "arguments may hold secrets");
    for (number, seen) in seen.iter().enumerate() {
        assert_eq!(seen.authorization, "Bearer a-token");
        assert!(!seen.key.is_empty());
        let first = seen.body.get(0).unwrap_or(&seen.body);
        assert_eq!(first["process_id"], "nightly");
        assert!(number == 0 || first["run_id"] == *run);
    }
    assert_eq!(seen[2].body["result"]["exit_code"], 0);
}

#[test]
fn a_failure_is_told_with_its_code_and_last_words() {
    let service = FakeService::start(well);
    let output = output(&service.url(), &[], "echo out; echo the disk is full >&2; exit 3");
    assert_eq!(output.status.code(), Some(3));
    assert_eq!((&*output.stdout, &*output.stderr), (&b"out\n"[..], &b"the disk is full\n"[..]));
    let seen = service.until_the_end();
    let end = seen.last().unwrap();
    assert_eq!((end.path.as_str(), &end.body["error_code"]), ("/internal/error", &"3".into()));
    assert_eq!(end.body["error_message"], "the disk is full");
    let rows = seen.iter().filter(|seen| seen.path == "/internal/log");
    let mut levels: Vec<String> = rows
        .flat_map(|seen| seen.body.as_array().unwrap().clone())
        .map(|row| format!("{} {} {}", row["component"], row["level"], row["message"]))
        .collect();
    levels.sort();
    assert_eq!(levels, [r#""stderr" "WARN" "the disk is full""#, r#""stdout" "INFO" "out""#]);
}

#[test]
fn a_command_that_is_killed_or_cannot_start_ends_as_in_a_shell() {
    let service = FakeService::start(well);
    assert_eq!(output(&service.url(), &[], "kill -9 $$").status.code(), Some(137));
    assert_eq!(service.until_the_end().last().unwrap().body["error_message"], "killed by signal 9");
    let missing = watch(&service.url(), &[], &["./no-such-command"]).output().unwrap();
    assert_eq!(missing.status.code(), Some(127));
    let seen = service.until_the_end();
    assert_eq!(paths(&seen), ["/internal/start", "/internal/error"]);
    assert_eq!(watch(&service.url(), &[], &["/"]).output().unwrap().status.code(), Some(126));
}

#[test]
fn heartbeats_are_sent_while_the_command_runs() {
    let service = FakeService::start(well);
    let parrot = Parrot::start(watch(&service.url(), &["--heartbeat", "1s"], &["cat"]));
    assert_eq!(service.next().path, "/internal/start");
    assert_eq!(service.next().path, "/internal/heartbeat");
    assert_eq!(parrot.end().0, Some(0));
    assert_eq!(service.until_the_end().last().unwrap().path, "/internal/complete");
}

#[test]
fn signals_reach_the_command() {
    let signals =
        [Signal::TERM, Signal::INT, Signal::HUP, Signal::QUIT, Signal::USR1, Signal::USR2];
    let service = FakeService::start(well);
    for signal in signals {
        let script =
            "trap 'exit 9' TERM INT HUP QUIT USR1 USR2; echo ready; while :; do sleep 0.05; done";
        // Whoever runs the tests in the background or behind nohup has some of them ignored, and that is passed down.
        let watched = watch(&service.url(), &[], &["sh", "-c", script]);
        let mut program = Command::new("env");
        program.arg("--default-signal=HUP,INT,QUIT").arg(watched.get_program());
        program
            .args(watched.get_args())
            .envs(watched.get_envs().filter_map(|(n, v)| v.map(|v| (n, v))));
        program.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped());
        let mut parrot = Parrot::start(program);
        assert_eq!(parrot.line(), "ready");
        parrot.signal(signal);
        let code = eventually("it ends", || parrot.child.try_wait().unwrap()).code();
        assert_eq!(code, Some(9), "{signal:?}");
    }
}

#[test]
fn a_command_that_is_to_survive_a_hang_up_does() {
    let service = FakeService::start(well);
    let mut program = Command::new("sh");
    program.args(["-c", "trap '' HUP; exec \"$0\" run --name nightly -- cat"]);
    program.arg(env!("CARGO_BIN_EXE_sentinel")).env("SENTINEL_URL", service.url());
    program.env("SENTINEL_TOKEN", "a-token");
    program.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped());
    let mut parrot = Parrot::start(program);
    parrot.repeat("before");
    parrot.signal(Signal::HUP);
    parrot.repeat("after");
    assert_eq!(parrot.end().0, Some(0));
}

#[test]
fn a_silent_service_does_not_delay_the_command_or_its_end() {
    let service = FakeService::start(|_, _| Reaction::Silence);
    let mut parrot = Parrot::start(watch(&service.url(), &["--flush-timeout", "0s"], &["cat"]));
    assert_eq!(service.next().path, "/internal/start");
    parrot.repeat("the start has not been answered");
    let (code, words) = parrot.end();
    assert_eq!(code, Some(0));
    assert!(words.contains("1 lines and 2 reports are missing there"), "{words}");
}

#[test]
fn a_service_that_is_not_there_costs_a_line_on_stderr_and_nothing_else() {
    let nobody = TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap();
    let flags = ["--flush-timeout", "200ms"];
    let output = output(&format!("http://{nobody}"), &flags, "echo out; echo err >&2; exit 4");
    assert_eq!(output.status.code(), Some(4));
    assert_eq!(output.stdout, b"out\n");
    let stderr = String::from_utf8(output.stderr).unwrap();
    let lines: Vec<&str> = stderr.lines().collect();
    assert_eq!(lines[0], "err");
    assert_eq!(lines.len(), 2, "{stderr}");
    assert!(lines[1].starts_with("sentinel run: the service has not got everything"), "{stderr}");
    assert!(lines[1].contains("Connection refused"), "{stderr}");
}

#[test]
fn what_happens_while_the_service_is_away_is_told_when_it_is_back_in_order() {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let address = listener.local_addr().unwrap();
    drop(listener);
    let mut parrot = Parrot::start(watch(&format!("http://{address}"), &[], &["cat"]));
    let told: Vec<String> = (0..50).map(|number| format!("line {number}")).collect();
    for line in &told {
        parrot.repeat(line);
    }
    let service = FakeService::start_on(TcpListener::bind(address).unwrap(), well);
    assert_eq!(parrot.end(), (Some(0), String::new()));
    let seen = service.until_the_end();
    assert_eq!(seen[0].path, "/internal/start");
    assert_eq!(messages(&seen), told);
}

#[test]
fn a_busy_service_is_asked_again_with_the_same_request() {
    let service = FakeService::start(|number, _| match number {
        0 | 2 | 4 => Reaction::Answer(503),
        _ => Reaction::Answer(202),
    });
    assert_eq!(output(&service.url(), &[], "echo one; echo two").status.code(), Some(0));
    let mut seen = vec![service.next(), service.next(), service.next(), service.next()];
    seen.extend([service.next(), service.next()]);
    for pair in seen.chunks(2) {
        assert_eq!(pair[0].key, pair[1].key);
        assert_eq!(pair[0].body, pair[1].body);
    }
    assert_eq!(seen[5].path, "/internal/complete");
    assert_eq!(messages(&seen[3..]), ["one", "two"]);
}

#[test]
fn a_flood_of_output_is_kept_in_bounds_and_passes_through_whole() {
    let service = FakeService::start(|_, _| Reaction::Silence);
    let script = "seq 1 600000; echo over; read wait";
    let flags = ["--flush-timeout", "0s"];
    let mut parrot = Parrot::start(watch(&service.url(), &flags, &["sh", "-c", script]));
    for number in 1..=600_000 {
        assert_eq!(parrot.line(), number.to_string());
    }
    assert_eq!(parrot.line(), "over");
    let status = std::fs::read_to_string(format!("/proc/{}/status", parrot.child.id())).unwrap();
    let peak = status.lines().find_map(|line| line.strip_prefix("VmHWM:")).unwrap();
    let peak: u64 = peak.trim().trim_end_matches(" kB").parse().unwrap();
    assert!(peak < 80_000, "{peak} KB at most");
    let (_, words) = parrot.end();
    assert!(words.contains("600001 lines"), "{words}");
}

#[test]
fn without_a_token_the_command_runs_all_the_same() {
    let folder = tempfile::tempdir().unwrap();
    let mut program = watch("http://127.0.0.1:1", &[], &["echo", "out"]);
    program.env_remove("SENTINEL_TOKEN").current_dir(folder.path());
    let output = program.output().unwrap();
    assert_eq!(output.status.code(), Some(0));
    assert_eq!(output.stdout, b"out\n");
    let stderr = String::from_utf8(output.stderr).unwrap();
    assert!(stderr.starts_with("sentinel run: nothing is reported: there is no token"), "{stderr}");
}

#[test]
fn usage_errors_end_with_two_before_anything_starts() {
    let output = watch("http://127.0.0.1:1", &["--heartbeat", "soon"], &["echo", "out"]).output();
    let output = output.unwrap();
    assert_eq!((output.status.code(), &*output.stdout), (Some(2), &b""[..]));
}
