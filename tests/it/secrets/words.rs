//! Text from outside that people read in a terminal: log lines, error messages, problem details. A control character
//! in it is shown and never obeyed.

use std::io::{Read, Write};
use std::net::TcpListener;
use std::process::{Command, Stdio};

use sentinel::component::Component;
use sentinel::service::{Parts, wall_clock};
use serde_json::json;

use super::Talkative;
use crate::harness::{Client, InProcess, token};

/// Clears the screen, sets the title, turns red by a control character beyond ASCII, goes back, ends a line, hides.
const EVIL: &str =
    "evil\u{1b}[2J\u{1b}]0;title\u{7}\u{9b}31m\r\n{\"level\":\"INFO\"}\u{8}\u{7f}\u{85}";

/// Fails when a text holds a control character other than the end of a line.
fn is_printable(what: &str, text: &str) {
    let found = text.chars().find(|letter| letter.is_control() && *letter != '\n');
    assert!(found.is_none(), "{what} holds {found:?}: {text:?}");
}

#[test]
fn a_problem_shows_control_characters_and_obeys_none() {
    let folder = tempfile::tempdir().unwrap();
    let service = InProcess::start(folder.path(), wall_clock(), Parts::ALL, &[]);
    let mut client = service.client("demo");
    let encoded: String = EVIL.bytes().map(|byte| format!("%{byte:02x}")).collect();
    let mut refused = 0;
    for path in [
        format!("/status/{encoded}"),
        format!("/logs/{encoded}"),
        format!("/v1/streams/{encoded}"),
        format!("/v1/events/{encoded}"),
        format!("/problems/{encoded}"),
        format!("/{encoded}"),
        format!("/processes?status={encoded}"),
        format!("/processes?cursor={encoded}"),
        format!("/processes?{encoded}=1"),
        format!("/v1/events?from={encoded}"),
        format!("/v1/dead-letters?reason={encoded}"),
        format!("/status/p?tenant={encoded}"),
    ] {
        let got = client.get(&path);
        is_printable(&path, &got.text());
        refused += usize::from(got.status >= 400);
    }
    assert!(refused > 8, "{refused} are refused");
    for body in [
        json!({"process_id": EVIL}),
        json!({"process_id": "p", "level": EVIL, "message": "m"}),
        json!({"process_id": "p", "progress_percent": EVIL}),
        json!({"process_id": "p", "occurred_at": EVIL, EVIL: EVIL}),
        json!({"eventId": EVIL, "tenantId": EVIL, "type": EVIL, "source": EVIL, "streamKey": EVIL}),
    ] {
        for path in ["/internal/progress", "/internal/log", "/v1/events"] {
            let fields = [("Content-Type", "application/json"), ("Idempotency-Key", "k")];
            let got = client.request("POST", path, &fields, body.to_string().as_bytes());
            if got.status >= 400 {
                is_printable(path, &got.text());
                refused += 1;
            }
        }
    }
    assert!(refused > 16, "{refused} are refused");
    service.stop();
}

#[test]
fn the_services_own_log_obeys_nothing_that_callers_say() {
    for format in ["text", "json"] {
        let folder = tempfile::tempdir().unwrap();
        let data = folder.path().join("data");
        let service = Talkative::start(&data, format, folder.path());
        let mut client = Client::new(service.api, &token(&data, "demo", &["sentinel:write"]));
        for n in 0..3 {
            let body = json!({
                "process_id": "p", "process_name": EVIL, "message": EVIL, "current_step": EVIL,
                "error_message": EVIL, "level": "ERROR", "metadata": {EVIL: EVIL}, "event_id": format!("e{n}"),
            });
            for verb in ["start", "progress", "error", "log"] {
                client.post(&format!("/internal/{verb}"), &body);
            }
            client.request("GET", "/status/p", &[("User-Agent", "\u{9b}31m")], b"");
        }
        let written = service.stop();
        is_printable(format, &written);
        assert!(written.lines().count() > 10);
        if format == "json" {
            let lines = written.lines().filter(|line| line.starts_with('{'));
            for line in lines {
                serde_json::from_str::<serde_json::Value>(line).expect("each line is an object");
            }
        }
    }
}

/// Arguments and variables of a command.
type Run<'r> = (Vec<&'r str>, Vec<(&'r str, &'r str)>);

/// A service that answers every connection with these bytes.
fn impostor(answer: Vec<u8>) -> String {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let url = format!("http://{}", listener.local_addr().unwrap());
    let (ended, _names) = crossbeam::channel::unbounded();
    Component::start("impostor", ended, move |_| {
        for stream in listener.incoming() {
            let mut stream = stream?;
            let mut request = [0; 64 << 10];
            let _ = stream.read(&mut request);
            let _ = stream.write_all(&answer);
        }
        Ok(())
    })
    .unwrap();
    url
}

#[test]
fn no_command_lets_a_service_or_an_argument_drive_the_terminal() {
    let folder = tempfile::tempdir().unwrap();
    // Some of them make folders of a relative name.
    let current = tempfile::tempdir().unwrap();
    let problem = json!({"title": EVIL, "detail": EVIL, "status": 400}).to_string();
    let answer = |status: &str, body: &str| {
        let length = body.len();
        impostor(
            format!(
                "HTTP/1.1 {status}\r\nContent-Length: {length}\r\nConnection: close\r\n\r\n{body}"
            )
            .into_bytes(),
        )
    };
    let refusing = answer("400 Bad Request", &problem);
    let raw = answer("503 Service Unavailable", &EVIL.replace('\r', ""));
    let garbled = impostor(format!("HTTP/1.1 200 {EVIL}\r\n\r\n").into_bytes());
    let evil_url = format!("http://{EVIL}");
    let evil_bind = format!("tcp://{EVIL}");
    let evil_database = format!("{EVIL}://x");
    let runs: Vec<Run<'_>> = vec![
        (vec!["health"], vec![("SENTINEL_URL", &refusing)]),
        (vec!["health", "--ready"], vec![("SENTINEL_URL", &raw)]),
        (vec!["health"], vec![("SENTINEL_URL", &garbled)]),
        (vec!["health", "--url", &evil_url], vec![]),
        (vec!["health"], vec![("SENTINEL_URL", &evil_url)]),
        (
            vec!["run", "--name", "n", "--", "true"],
            vec![("SENTINEL_URL", &refusing), ("SENTINEL_TOKEN", "t")],
        ),
        (
            vec!["run", "--name", EVIL, "--", "true"],
            vec![("SENTINEL_URL", &refusing), ("SENTINEL_TOKEN", "t")],
        ),
        (
            vec!["run", "--name", "n", "--", EVIL],
            vec![("SENTINEL_URL", &refusing), ("SENTINEL_TOKEN", "t")],
        ),
        (vec![EVIL], vec![]),
        (vec!["--nothing", EVIL], vec![]),
        (vec!["token", "--tenant", EVIL], vec![]),
        (vec!["token", "--tenant", "t", "--ttl", EVIL], vec![]),
        (vec!["--bind", &evil_bind, "check-config"], vec![]),
        (vec!["--database", &evil_database, "check-config"], vec![]),
        (vec!["check-config"], vec![("SENTINEL_HTTP_PORT", EVIL)]),
        (vec!["check-config"], vec![("SENTINEL_LOG", EVIL)]),
        (vec!["check-config"], vec![("OAUTH2_ISSUER_URI", EVIL)]),
        (vec!["check-config"], vec![("SENTINEL_TLS_CERT_FILE", EVIL)]),
        (vec!["backup", EVIL], vec![]),
        (vec!["serve"], vec![("SENTINEL_DATABASE", EVIL)]),
    ];
    for (arguments, variables) in runs {
        let output = Command::new(env!("CARGO_BIN_EXE_sentinel"))
            .args(&arguments)
            .current_dir(current.path())
            .env_clear()
            .env("PATH", std::env::var_os("PATH").unwrap_or_default())
            .env("SENTINEL_DATABASE", format!("sqlite://{}", folder.path().display()))
            .env("SENTINEL_LOG", "trace")
            .envs(variables.iter().copied())
            .stdin(Stdio::null())
            .output()
            .unwrap();
        let what = format!("{arguments:?} {variables:?}");
        let words = String::from_utf8([output.stdout, output.stderr].concat()).unwrap();
        assert!(!words.is_empty(), "{what} says nothing");
        is_printable(&what, &words);
    }
}
