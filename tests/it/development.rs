//! Development mode is for one machine and its owner: a web page that knows our port is turned away, and anything that
//! looks like production rules it out. Every clause of the contract's paragraph is held here.

use std::io::{BufRead, BufReader, Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::os::unix::fs::PermissionsExt;
use std::path::Path;
use std::process::{Command, Output, Stdio};

use sentinel::routes::table::ROUTES;
use sentinel::service::{Parts, wall_clock};

use crate::harness::{Client, InProcess, PATIENCE, Response, read_response, token};

/// Asks with a Host field of the caller's choice; None: HTTP/1.0 without one.
pub(crate) fn ask(address: SocketAddr, request: &str, host: Option<&str>, token: &str) -> Response {
    let mut stream = TcpStream::connect(address).unwrap();
    stream.set_read_timeout(Some(PATIENCE)).unwrap();
    let (version, host) = match host {
        Some(host) => ("1.1", format!("Host: {host}\r\n")),
        None => ("1.0", String::new()),
    };
    let fields = format!("{host}Authorization: Bearer {token}\r\nContent-Length: 0\r\n");
    stream.write_all(format!("{request} HTTP/{version}\r\n{fields}\r\n").as_bytes()).unwrap();
    read_response(&mut BufReader::new(stream), request.starts_with("HEAD")).unwrap()
}

#[test]
fn only_loopback_names_are_answered_on_either_port() {
    let folder = tempfile::tempdir().unwrap();
    // Port 0 would turn the metrics port off, so a free one is found first.
    let free = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    let port = free.local_addr().unwrap().port().to_string();
    drop(free);
    let service = InProcess::start(
        folder.path(),
        wall_clock(),
        Parts::ALL,
        &[("PROMETHEUS_METRICS_PORT", &port)],
    );
    let metrics = service.service.metrics_address().unwrap();
    for address in [service.service.api_address(), metrics] {
        let port = address.port();
        for host in ["localhost", "LocalHost", "127.0.0.1", "[::1]"] {
            assert_eq!(ask(address, "GET /health", Some(host), "").status, 200, "{host}");
            let with_port = format!("{host}:{port}");
            assert_eq!(
                ask(address, "GET /health", Some(&with_port), "").status,
                200,
                "{with_port}"
            );
        }
        for host in [
            "evil.example",
            "localhost.evil.example",
            "evil-localhost",
            "127.0.0.1.evil.example",
            "localhost.",
            "127.0.0.2",
            "127.1",
            "2130706433",
            "0x7f000001",
            "0.0.0.0",
            "192.168.0.1",
            "[::2]",
            "[::ffff:127.0.0.1]",
            "sentinel.local",
        ] {
            for host in [host.to_owned(), format!("{host}:{port}")] {
                let refused = ask(address, "GET /health", Some(&host), "");
                assert_eq!(refused.status, 421, "{host}");
                assert_eq!(refused.json()["type"], "/problems/misdirected-request");
            }
        }
        // No browser leaves the name out, so whoever does is no page.
        assert_eq!(ask(address, "GET /health", None, "").status, 200);
    }
    service.stop();
}

#[test]
fn a_page_that_was_rebound_learns_nothing_from_any_route_not_even_with_a_token() {
    let folder = tempfile::tempdir().unwrap();
    let service = InProcess::start(folder.path(), wall_clock(), Parts::ALL, &[]);
    let address = service.service.api_address();
    let token = token(folder.path(), "demo", &["sentinel:admin"]);
    for route in ROUTES {
        let path =
            route.path.replace("{id}", "x").replace("{key}", "x").replace("{name}", "not-found");
        let request = format!("{} {path}", route.method.as_str());
        for token in ["", token.as_str()] {
            let refused = ask(address, &request, Some("evil.example"), token);
            assert_eq!(refused.status, 421, "{request}");
        }
    }
    for request in ["GET /no-such-path", "DELETE /health", "OPTIONS /health", "HEAD /health"] {
        assert_eq!(ask(address, request, Some("evil.example"), "").status, 421, "{request}");
    }
    service.stop();
}

/// What must be named, the arguments and the variables of a start.
type Start<'s> = (String, Vec<String>, Vec<(&'s str, &'s str)>);

/// The program with these variables and arguments, expected to end by itself.
fn start(folder: &Path, arguments: &[&str], variables: &[(&str, &str)]) -> Output {
    Command::new(env!("CARGO_BIN_EXE_sentinel"))
        .args(arguments)
        .env_clear()
        .env("SENTINEL_DATABASE", format!("sqlite://{}", folder.display()))
        .env("PROMETHEUS_METRICS_PORT", "0")
        .env("SENTINEL_HTTP_PORT", "0")
        .envs(variables.iter().copied())
        .output()
        .unwrap()
}

#[test]
fn whatever_looks_like_production_rules_it_out_by_name_before_anything_is_made() {
    let folder = tempfile::tempdir().unwrap();
    let data = folder.path().join("data");
    let addresses = ["0.0.0.0", "::", "192.0.2.1", "10.0.0.1"];
    let mut starts: Vec<Start<'_>> = Vec::new();
    for address in addresses {
        let variable = vec![("SENTINEL_LISTEN_ADDRESS", address)];
        starts.push(("SENTINEL_LISTEN_ADDRESS".to_owned(), vec![], variable));
        let bracketed =
            if address.contains(':') { format!("[{address}]") } else { address.to_owned() };
        let bind = vec!["--bind".to_owned(), format!("tcp://{bracketed}:0")];
        starts.push(("--bind".to_owned(), bind, vec![]));
    }
    for (name, value) in [
        ("ORACLE_TNS_NAME", "db"),
        ("ORACLE_CONNECT_STRING", "db"),
        ("ORACLE_HOST", "db"),
        ("SENTINEL_TLS_CERT_FILE", "/nowhere/cert.pem"),
        ("SENTINEL_TLS_KEY_FILE", "/nowhere/key.pem"),
        ("SENTINEL_TLS_CLIENT_CA_FILE", "/nowhere/ca.pem"),
        ("SENTINEL_METRICS_TLS_CERT_FILE", "/nowhere/cert.pem"),
        ("SENTINEL_METRICS_TLS_KEY_FILE", "/nowhere/key.pem"),
        ("SENTINEL_METRICS_TLS_CLIENT_CA_FILE", "/nowhere/ca.pem"),
        ("NOTIFY_SOCKET", "/run/systemd/notify"),
        ("KUBERNETES_SERVICE_HOST", "10.96.0.1"),
    ] {
        starts.push((name.to_owned(), vec![], vec![(name, value)]));
    }
    for (name, arguments, mut variables) in starts {
        if name.starts_with("ORACLE") {
            // Two stores at once are another mistake.
            variables.push(("SENTINEL_DATABASE", ""));
        }
        let arguments: Vec<&str> = arguments.iter().map(String::as_str).collect();
        let output = start(&data, &arguments, &variables);
        let words = String::from_utf8_lossy(&output.stderr);
        assert_eq!(output.status.code(), Some(78), "{variables:?}: {words}");
        let told = words.lines().any(|line| {
            line.contains(&name)
                && line.contains("OAUTH2_ISSUER_URI")
                && ["development mode", "no development machine"]
                    .iter()
                    .any(|why| line.contains(why))
        });
        assert!(told, "{variables:?}: {words}");
        assert!(!data.exists(), "{variables:?}: no key is made for a mistake");
    }
}

/// The line of a greeting that holds `words`.
fn greeting_of<'g>(greeting: &'g str, words: &str) -> &'g str {
    greeting.lines().map(str::trim).find(|line| line.contains(words)).expect("it is there")
}

#[test]
fn it_makes_a_key_for_its_owner_alone_and_prints_a_session_that_works() {
    let folder = tempfile::tempdir().unwrap();
    // A shell would take it for two words, and for the beginning of a third.
    let data = folder.path().join("it's here");
    let mut child = Command::new(env!("CARGO_BIN_EXE_sentinel"))
        .env_clear()
        .env("SENTINEL_DATABASE", format!("sqlite://{}", data.display()))
        .env("PROMETHEUS_METRICS_PORT", "0")
        .env("SENTINEL_HTTP_PORT", "0")
        .env("SENTINEL_LOG", "off")
        .stdout(Stdio::piped())
        .stderr(Stdio::null())
        .spawn()
        .unwrap();
    let mut output = BufReader::new(child.stdout.take().unwrap());
    let mut greeting = String::new();
    while !greeting.contains("Ctrl-C") {
        assert!(output.read_line(&mut greeting).unwrap() > 0, "{greeting}");
    }
    let line = |start: &str| {
        let line = greeting.lines().map(str::trim).find(|line| line.starts_with(start));
        line.unwrap_or_else(|| panic!("no {start:?} in {greeting}")).to_owned()
    };
    assert!(greeting.contains("development mode, loopback only"), "{greeting}");
    let (_, address) = greeting.split_once("http://").unwrap();
    let address: SocketAddr = address.split_once(' ').unwrap().0.parse().unwrap();
    assert!(address.ip().is_loopback());
    // The first two lines as they are: a token, and a process that starts with it.
    let (export, curl) = (line("export TOKEN=$("), line("curl -X POST"));
    let command = export.strip_prefix("export TOKEN=$(").unwrap().strip_suffix(')').unwrap();
    let made = Command::new("sh").args(["-c", command]).output().unwrap();
    assert!(made.status.success(), "{command}: {}", String::from_utf8_lossy(&made.stderr));
    let token = String::from_utf8(made.stdout).unwrap();
    assert!(curl.ends_with(&format!("{address}/internal/start")), "{curl}");
    let fields = [("X-Sentinel-Process-Id", "nightly-import")];
    let mut client = Client::new(address, token.trim());
    client.request("POST", "/internal/start", &fields, b"").expect(202);
    assert_eq!(client.get("/status/nightly-import").expect(200).json()["status"], "RUNNING");
    // The last two lines, where the service is not on the port that client commands go by.
    let watch =
        format!("{}\n{}", line("export SENTINEL_URL="), greeting_of(&greeting, " run --name"));
    let watched =
        Command::new("sh").args(["-c", &watch.replace("sleep 1", "true")]).output().unwrap();
    let words = String::from_utf8_lossy(&watched.stderr);
    assert!(watched.status.success() && words.is_empty(), "{watch}: {words}");
    assert_eq!(client.get("/status/nightly-import").expect(200).json()["status"], "COMPLETED");
    // Nobody but the owner can read what signs tokens.
    let mut keys = 0;
    for entry in std::fs::read_dir(&data).unwrap() {
        let entry = entry.unwrap();
        if entry.file_name().to_string_lossy().contains("key") {
            let mode = entry.metadata().unwrap().permissions().mode();
            assert_eq!(mode & 0o077, 0, "{:?} has mode {mode:o}", entry.file_name());
            keys += 1;
        }
    }
    assert!(keys > 0, "the key is in the data folder");
    let pid = rustix::process::Pid::from_child(&child);
    rustix::process::kill_process(pid, rustix::process::Signal::TERM).unwrap();
    output.read_to_string(&mut greeting).unwrap();
    assert!(child.wait().unwrap().success());
}
