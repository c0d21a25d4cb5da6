//! No token, no password and no payload is in any line that the program writes about itself, at any level; and no text
//! from outside can forge a line or drive a terminal.
//!
//! Every secret and every payload of these tests holds a canary, and whatever the program has written is searched for
//! it. Besides, the harness searches every log record of the services that the other tests run in this process.

// Who may read what lies on the disk.
mod files;
// What a panic leaves in the log, and what it leaves alone.
mod panics;
// Whatever people read in a terminal.
mod words;

use std::fs::File;
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use sentinel::routes::table::{Body, ROUTES};
use serde_json::{Value, json};

use crate::harness::{Client, envelope, eventually, token};

/// Is part of every payload.
const PAYLOAD: &str = "canary-payload-5e1f";
/// Is part of every password and of every token that is none.
const PASSWORD: &str = "canary-password-90c7";

/// The service in a process of its own, which logs everything to a file.
struct Talkative {
    child: Child,
    log: PathBuf,
    output: PathBuf,
    api: SocketAddr,
}

impl Talkative {
    fn start(data: &Path, format: &str, folder: &Path) -> Self {
        let (log, output) = (folder.join("stderr"), folder.join("stdout"));
        let child = Command::new(env!("CARGO_BIN_EXE_sentinel"))
            .args(["serve", "--bind", "tcp://127.0.0.1:0"])
            .env_clear()
            .env("SENTINEL_DATABASE", format!("sqlite://{}", data.display()))
            .env("PROMETHEUS_METRICS_PORT", "0")
            .env("SENTINEL_MIN_FREE_BYTES", "1048576")
            .env("SENTINEL_LOG", "trace")
            .env("SENTINEL_LOG_FORMAT", format)
            .stdin(Stdio::null())
            .stdout(File::create(&output).unwrap())
            .stderr(File::create(&log).unwrap())
            .spawn()
            .unwrap();
        let api = eventually("the service says where it listens", || {
            let greeting = std::fs::read_to_string(&output).unwrap();
            let (_, address) = greeting.split_once("serves on http://")?;
            address.split_once(' ')?.0.parse().ok()
        });
        Self { child, log, output, api }
    }

    /// Stops it and returns all that it has written.
    fn stop(mut self) -> String {
        let pid = rustix::process::Pid::from_child(&self.child);
        rustix::process::kill_process(pid, rustix::process::Signal::TERM).unwrap();
        assert!(self.child.wait().unwrap().success());
        let read = |path| std::fs::read_to_string(path).unwrap();
        read(&self.log) + &read(&self.output)
    }
}

/// The parts of a token by which it can be recognised.
fn parts(token: &str) -> impl Iterator<Item = &str> {
    token.split('.').filter(|part| part.len() > 20)
}

/// Fails, with the line, when something was written that must not be.
fn holds_none_of<'s>(written: &str, secrets: impl IntoIterator<Item = &'s str>) {
    for secret in secrets {
        let line = written.lines().find(|line| line.contains(secret));
        assert!(line.is_none(), "{secret} is in {line:?}");
    }
}

/// Bodies that hold the canary in every place that a payload has: good ones, and bad ones of every kind.
fn bodies() -> Vec<(&'static str, String)> {
    let report = json!({
        "process_id": "p", "process_name": PAYLOAD, "current_step": PAYLOAD, "progress_percent": 40, "message": PAYLOAD,
        "error_code": PAYLOAD, "error_message": PAYLOAD, "stack_trace": PAYLOAD, "level": "INFO", "details": PAYLOAD,
        "metadata": {PAYLOAD: PAYLOAD}, "result": PAYLOAD,
    });
    let event = envelope(1, "s", json!({ PAYLOAD: PAYLOAD }));
    let cloud_event = json!({
        "specversion": "1.0", "id": "c1", "source": "orders", "type": "OrderCreated", "subject": "s",
        "data": {PAYLOAD: PAYLOAD}, "extension": PAYLOAD,
    });
    let json_type = "application/json";
    vec![
        (json_type, report.to_string()),
        (json_type, json!([report, report]).to_string()),
        (json_type, event.to_string()),
        (
            "application/x-ndjson",
            format!("{}\n{{\"payload\":\"{PAYLOAD}\n", envelope(2, "s", json!(PAYLOAD))),
        ),
        ("application/cloudevents+json", cloud_event.to_string()),
        ("application/cloudevents-batch+json", json!([cloud_event, PAYLOAD]).to_string()),
        (json_type, format!("{{\"message\": \"{PAYLOAD}")),
        (json_type, PAYLOAD.to_owned()),
        (json_type, format!("\"{PAYLOAD}\"")),
        (json_type, json!({"process_id": "p", "progress_percent": PAYLOAD}).to_string()),
        (json_type, json!({"process_id": "p", "level": PAYLOAD, "message": PAYLOAD}).to_string()),
        (
            json_type,
            json!({"process_id": "p", "metadata": PAYLOAD, "occurred_at": PAYLOAD}).to_string(),
        ),
        (
            json_type,
            json!({"eventId": PAYLOAD, "type": "process.bogus", "payload": PAYLOAD}).to_string(),
        ),
        // A member that is there twice is named; what it holds is not told.
        (json_type, format!("{{\"twice\":\"{PAYLOAD}\",\"twice\":\"{PAYLOAD}\"}}")),
        ("text/plain", PAYLOAD.to_owned()),
    ]
}

#[test]
fn nothing_that_the_service_logs_at_any_level_holds_a_token_a_password_or_a_payload() {
    for format in ["json", "text"] {
        let folder = tempfile::tempdir().unwrap();
        let data = folder.path().join("data");
        let service = Talkative::start(&data, format, folder.path());
        let tokens = ["sentinel:read", "sentinel:write", "sentinel:operate", "sentinel:admin"]
            .map(|role| token(&data, "demo", &[role]));
        let of_nobody = format!("{PASSWORD}.{PASSWORD}.{PASSWORD}");
        let basic = STANDARD.encode(format!("admin:{PASSWORD}"));
        let mut authorizations: Vec<String> =
            tokens.iter().map(|token| format!("Bearer {token}")).collect();
        let (_, signature) = tokens[0].rsplit_once('.').unwrap();
        authorizations.extend([
            format!("Bearer {of_nobody}"),
            // Its payload is changed, so its signature is wrong; its header is that of another kind.
            format!("Bearer {}", tokens[1].replacen('.', ".AA", 1)),
            format!("Bearer eyJhbGciOiJub25lIn0.{PASSWORD}."),
            format!("Bearer {signature}"),
            format!("Basic {basic}"),
            format!("Bearer {}", PASSWORD.repeat(400)),
        ]);
        let mut answers = std::collections::BTreeMap::<u16, usize>::new();
        for route in ROUTES {
            let path = route.path.replace("{id}", "p").replace("{key}", "s").replace("{name}", "x");
            let known = route.query.iter().map(|(name, _)| format!("{name}={PAYLOAD}"));
            let queries = [String::new(), format!("?unknown={PAYLOAD}&ticket={PASSWORD}")];
            let paths: Vec<String> = queries
                .into_iter()
                .chain(known.map(|one| format!("?{one}")))
                .map(|query| format!("{path}{query}"))
                .collect();
            for (authorization, path) in
                authorizations.iter().flat_map(|one| paths.iter().map(move |path| (one, path)))
            {
                let mut client = Client::new(service.api, "");
                let bodies =
                    if route.body == Body::None { vec![("", String::new())] } else { bodies() };
                for (number, (media_type, body)) in bodies.iter().enumerate() {
                    let key = format!("k{number}");
                    let mut fields = vec![
                        ("Authorization", authorization.as_str()),
                        ("Content-Type", media_type),
                        ("Cookie", PASSWORD),
                        ("X-Api-Key", PASSWORD),
                    ];
                    if !media_type.contains("ndjson") && !media_type.contains("batch") {
                        fields.push(("Idempotency-Key", key.as_str()));
                    }
                    let got =
                        client.try_request(route.method.as_str(), path, &fields, body.as_bytes());
                    // A head of more than 16 KiB may be cut off while it is sent.
                    *answers.entry(got.map_or(0, |got| got.status)).or_default() += 1;
                }
            }
        }
        // What is no request at all, and a body that never comes whole.
        for head in [
            format!("GET /{PAYLOAD} HTTP/1.1\r\nHost: localhost\r\nX: {PASSWORD}\0\r\n\r\n"),
            format!("GET / HTTP/1.1\r\nHost: {PASSWORD}\r\nX: {PAYLOAD}\r\n\r\n"),
            format!(
                "POST /internal/start HTTP/1.1\r\nHost: localhost\r\nContent-Length: 5{PAYLOAD}\r\n\r\n"
            ),
            format!(
                "POST /internal/log HTTP/1.1\r\nHost: localhost\r\nAuthorization: Bearer {}\r\nContent-Length: 999\r\n\r\n{PAYLOAD}",
                tokens[3]
            ),
        ] {
            let mut stream = std::net::TcpStream::connect(service.api).unwrap();
            std::io::Write::write_all(&mut stream, head.as_bytes()).unwrap();
        }
        // A stream of what was logged, which holds the payload for whoever may read it.
        let mut client = Client::new(service.api, &tokens[0]);
        let logs = client.request("GET", "/logs/p", &[("Accept", "application/x-ndjson")], b"");
        assert!(logs.text().contains(PAYLOAD), "the payloads have arrived");
        for status in [200, 202, 207, 400, 401, 403, 409] {
            assert!(answers.contains_key(&status), "{status} was not met: {answers:?}");
        }
        let written = service.stop();
        assert!(written.contains("serving"), "the log is there");
        let (debug, trace) = (written.contains("DEBUG"), written.contains("TRACE"));
        assert!(debug && trace, "everything is logged: {written:.2000}");
        holds_none_of(&written, [PAYLOAD, PASSWORD, basic.as_str(), of_nobody.as_str()]);
        // The first part of a token says how it is signed, and is the same for all of one key.
        let secret_parts = tokens.iter().flat_map(|token| parts(token).skip(1));
        holds_none_of(&written, secret_parts);
    }
}

/// Arguments and variables of a command.
type Run<'r> = (&'r [&'r str], &'r [(&'r str, &'r str)]);

#[test]
fn no_command_prints_the_secrets_that_it_was_given() {
    let folder = tempfile::tempdir().unwrap();
    let secret_file = folder.path().join("token");
    std::fs::write(&secret_file, PASSWORD).unwrap();
    let nobody = "http://127.0.0.1:1";
    let by_file = secret_file.to_str().unwrap();
    let runs: &[Run<'_>] = &[
        (&["check-config"], &[("SENTINEL_TOKEN", PASSWORD)]),
        (&["check-config"], &[("SENTINEL_TOKEN_FILE", by_file)]),
        (&["check-config"], &[("ORACLE_PASSWORD", PASSWORD)]),
        (&["check-config"], &[("SENTINEL_TOKEN", PASSWORD), ("SENTINEL_TOKEN_FILE", by_file)]),
        (&["check-config"], &[("SENTINEL_TOKEN", concat!("canary-password-90c7", "\u{1b}"))]),
        (
            &["check-config"],
            &[("OAUTH2_ISSUER_URI", "https://me:canary-password-90c7@id.example.com")],
        ),
        (&["check-config"], &[("SENTINEL_DATABASE", "oracle://me:canary-password-90c7@db")]),
        (&["health"], &[("SENTINEL_URL", "http://me:canary-password-90c7@127.0.0.1:1")]),
        (&["health"], &[("SENTINEL_URL", nobody), ("SENTINEL_TOKEN", PASSWORD)]),
        (
            &["run", "--name", "n", "--", "true"],
            &[("SENTINEL_URL", nobody), ("SENTINEL_TOKEN", PASSWORD)],
        ),
        (&["load", "--url", nobody, "--duration", "1s"], &[("SENTINEL_TOKEN", PASSWORD)]),
    ];
    for (arguments, variables) in runs {
        let output = Command::new(env!("CARGO_BIN_EXE_sentinel"))
            .args(*arguments)
            .env_clear()
            .env("SENTINEL_DATABASE", format!("sqlite://{}", folder.path().display()))
            .env("SENTINEL_LOG", "trace")
            .envs(variables.iter().copied())
            .stdin(Stdio::null())
            .output()
            .unwrap();
        let written = [output.stdout, output.stderr].concat();
        let written = String::from_utf8_lossy(&written);
        assert!(!written.is_empty() || output.status.success(), "{arguments:?} {variables:?}");
        holds_none_of(&written, [PASSWORD]);
    }
}

#[test]
fn a_refusal_repeats_neither_the_token_nor_the_payload() {
    let folder = tempfile::tempdir().unwrap();
    let data = folder.path().join("data");
    let service = Talkative::start(&data, "json", folder.path());
    let writer = token(&data, "demo", &["sentinel:write"]);
    let forged = format!("{writer}{PASSWORD}");
    for bearer in [writer.as_str(), forged.as_str()] {
        let mut client = Client::new(service.api, bearer);
        for (number, (media_type, body)) in bodies().iter().enumerate() {
            for path in ["/v1/events", "/internal/progress", "/internal/log"] {
                let key = format!("k{number}");
                let fields = [("Content-Type", *media_type), ("Idempotency-Key", key.as_str())];
                let got = client.request("POST", path, &fields, body.as_bytes());
                if got.status >= 400 {
                    holds_none_of(&got.text(), [PAYLOAD, PASSWORD, bearer]);
                    assert_eq!(got.json()["traceId"].as_str().map(str::len), Some(32), "{path}");
                }
            }
        }
    }
    let unreadable: Value = Client::new(service.api, "").get("/health").json();
    assert_eq!(unreadable["status"], "ok");
    service.stop();
}
