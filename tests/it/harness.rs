//! What the promises are tested with: a service in this process or in a child, a clock moved by hand, a small client.
//! This module is the only one that knows how the service is started and spoken to.

use std::io::{BufRead, BufReader, Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::sync::Arc;
use std::sync::atomic::{AtomicI64, Ordering};
use std::time::Duration;

use sentinel::config::{Config, Sources};
use sentinel::domain::time::Timestamp;
use sentinel::http::auth::development;
use sentinel::service::{Clock, Parts, Service, wall_clock};
use serde_json::Value;

/// Nothing in these tests takes longer, or something hangs.
pub const PATIENCE: Duration = Duration::from_secs(60);

/// A clock that moves only when it is told to.
#[derive(Clone)]
pub struct HandClock(Arc<AtomicI64>);

impl HandClock {
    /// A clock that stands at the present.
    pub fn new() -> Self {
        Self(Arc::new(AtomicI64::new((wall_clock())().micros())))
    }

    pub fn forward(&self, pause: Duration) {
        self.0.fetch_add(i64::try_from(pause.as_micros()).unwrap(), Ordering::SeqCst);
    }

    pub fn now(&self) -> Timestamp {
        Timestamp::from_micros(self.0.load(Ordering::SeqCst))
    }

    pub fn as_clock(&self) -> Clock {
        let clock = self.clone();
        Arc::new(move || clock.now())
    }
}

/// The configuration of a service on free ports in `folder`, with further variables.
pub fn config(folder: &Path, variables: &[(&str, &str)]) -> Config {
    let database = format!("sqlite://{}", folder.display());
    let lookup = |name: &str| {
        if let Some((_, value)) = variables.iter().find(|(variable, _)| *variable == name) {
            return Some((*value).to_owned());
        }
        match name {
            "SENTINEL_DATABASE" => Some(database.clone()),
            "SENTINEL_HTTP_PORT" => Some("0".to_owned()),
            "PROMETHEUS_METRICS_PORT" => Some("0".to_owned()),
            // Test machines may have little space, and small file systems are made on purpose.
            "SENTINEL_MIN_FREE_BYTES" => Some("1048576".to_owned()),
            _ => None,
        }
    };
    Config::load(&Sources::of(&lookup)).expect("the test's configuration is valid").0
}

/// A service in this process.
pub struct InProcess {
    pub folder: std::path::PathBuf,
    pub service: Service,
}

impl InProcess {
    pub fn start(folder: &Path, clock: Clock, parts: Parts, variables: &[(&str, &str)]) -> Self {
        let service =
            Service::start(&config(folder, variables), clock, parts).expect("the service starts");
        Self { folder: folder.to_owned(), service }
    }

    pub fn client(&self, tenant: &str) -> Client {
        Client::new(self.service.api_address(), &token(&self.folder, tenant, &["sentinel:operate"]))
    }

    pub fn stop(self) {
        self.service.stop().expect("the service stops cleanly");
    }
}

/// A token of the development key in `folder`.
pub fn token(folder: &Path, tenant: &str, roles: &[&str]) -> String {
    let roles: Vec<String> = roles.iter().map(|role| (*role).to_owned()).collect();
    let now = (wall_clock())().micros() / 1_000_000;
    development::token(
        folder,
        tenant,
        &roles,
        Duration::from_secs(3600),
        u64::try_from(now).unwrap(),
    )
    .expect("the development key signs")
}

/// A service in a process of its own, which can be killed.
pub struct InChild {
    child: Child,
    pub api: SocketAddr,
}

impl InChild {
    /// Starts the service and waits until it says where it listens.
    pub fn start(folder: &Path, variables: &[(&str, &str)]) -> Self {
        let mut command = Command::new(env!("CARGO_BIN_EXE_sentinel"));
        command
            .arg("serve")
            .env_clear()
            .env("SENTINEL_DATABASE", format!("sqlite://{}", folder.display()))
            .env("SENTINEL_HTTP_PORT", "0")
            .env("PROMETHEUS_METRICS_PORT", "0")
            .env("SENTINEL_MIN_FREE_BYTES", "1048576")
            .env("SENTINEL_LOG", "info")
            .env("SENTINEL_LOG_FORMAT", "json")
            .envs(variables.iter().copied())
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .stderr(Stdio::piped());
        let mut child = command.spawn().expect("the binary runs");
        let mut lines = BufReader::new(child.stderr.take().expect("stderr is piped"));
        let mut line = String::new();
        let api = loop {
            line.clear();
            let read = lines.read_line(&mut line).expect("the log can be read");
            assert!(read > 0, "the service ended before it listened: {:?}", child.wait());
            let record: Value = serde_json::from_str(&line).unwrap_or_default();
            if let Some(address) = record["address"].as_str() {
                break address.parse().expect("the log names an address");
            }
        };
        // The rest of the log is read and dropped, so that the child never waits for us.
        std::thread::Builder::new()
            .spawn(move || {
                let _ = std::io::copy(&mut lines, &mut std::io::sink());
            })
            .expect("a thread starts");
        Self { child, api }
    }

    /// `kill -9`.
    pub fn kill(mut self) {
        self.child.kill().expect("the child can be killed");
        self.child.wait().expect("the child is gone");
    }

    /// SIGTERM, and the exit code.
    pub fn terminate(self) -> i32 {
        self.signal_term();
        self.wait()
    }

    pub fn signal_term(&self) {
        let pid = i32::try_from(self.child.id()).unwrap();
        let pid = rustix::process::Pid::from_raw(pid).expect("a child has an id");
        rustix::process::kill_process(pid, rustix::process::Signal::TERM)
            .expect("the child takes the signal");
    }

    pub fn id(&self) -> u32 {
        self.child.id()
    }

    pub fn wait(mut self) -> i32 {
        self.child.wait().expect("the child is gone").code().expect("the child exits by itself")
    }
}

/// A reply, taken apart.
#[derive(Debug, Clone, PartialEq)]
pub struct Response {
    pub status: u16,
    pub headers: Vec<(String, String)>,
    pub body: Vec<u8>,
}

impl Response {
    pub fn header(&self, name: &str) -> Option<&str> {
        self.headers
            .iter()
            .find(|(field, _)| field.eq_ignore_ascii_case(name))
            .map(|(_, value)| value.as_str())
    }

    pub fn json(&self) -> Value {
        serde_json::from_slice(&self.body)
            .unwrap_or_else(|error| panic!("{error}: {}", self.text()))
    }

    pub fn text(&self) -> String {
        String::from_utf8_lossy(&self.body).into_owned()
    }

    /// The reply, if its status is `status`; else the test fails with the body.
    pub fn expect(self, status: u16) -> Self {
        assert_eq!(self.status, status, "{}", self.text());
        self
    }
}

/// A keep-alive client for one address and token.
pub struct Client {
    address: SocketAddr,
    token: String,
    connection: Option<BufReader<TcpStream>>,
}

impl Client {
    pub fn new(address: SocketAddr, token: &str) -> Self {
        Self { address, token: token.to_owned(), connection: None }
    }

    pub fn get(&mut self, path: &str) -> Response {
        self.request("GET", path, &[], b"")
    }

    pub fn post(&mut self, path: &str, body: &Value) -> Response {
        self.request(
            "POST",
            path,
            &[("Content-Type", "application/json")],
            body.to_string().as_bytes(),
        )
    }

    /// One event with a key.
    pub fn event(&mut self, key: &str, envelope: &Value) -> Response {
        let fields = [("Content-Type", "application/json"), ("Idempotency-Key", key)];
        self.request("POST", "/v1/events", &fields, envelope.to_string().as_bytes())
    }

    pub fn request(
        &mut self,
        method: &str,
        path: &str,
        fields: &[(&str, &str)],
        body: &[u8],
    ) -> Response {
        self.try_request(method, path, fields, body).expect("the service answers")
    }

    /// The reply, or the error that cut it off.
    pub fn try_request(
        &mut self,
        method: &str,
        path: &str,
        fields: &[(&str, &str)],
        body: &[u8],
    ) -> std::io::Result<Response> {
        let mut text = format!(
            "{method} {path} HTTP/1.1\r\nHost: localhost\r\nContent-Length: {}\r\n",
            body.len()
        );
        if !self.token.is_empty() {
            text.push_str(&format!("Authorization: Bearer {}\r\n", self.token));
        }
        for (name, value) in fields {
            text.push_str(&format!("{name}: {value}\r\n"));
        }
        text.push_str("\r\n");
        let mut bytes = text.into_bytes();
        bytes.extend_from_slice(body);
        let reply = self.exchange(&bytes, method == "HEAD");
        let closes =
            |reply: &Response| reply.header("connection").is_some_and(|value| value == "close");
        if reply.as_ref().map_or(true, closes) {
            self.connection = None;
        }
        reply
    }

    fn exchange(&mut self, bytes: &[u8], no_body: bool) -> std::io::Result<Response> {
        if self.connection.is_none() {
            let stream = TcpStream::connect_timeout(&self.address, PATIENCE)?;
            stream.set_read_timeout(Some(PATIENCE))?;
            stream.set_nodelay(true)?;
            self.connection = Some(BufReader::new(stream));
        }
        let connection = self.connection.as_mut().expect("just connected");
        connection.get_mut().write_all(bytes)?;
        read_response(connection, no_body)
    }
}

fn cut_off() -> std::io::Error {
    std::io::Error::new(std::io::ErrorKind::UnexpectedEof, "the reply was cut off")
}

/// Reads one reply.
pub fn read_response(connection: &mut impl BufRead, no_body: bool) -> std::io::Result<Response> {
    let mut line = String::new();
    if connection.read_line(&mut line)? == 0 {
        return Err(cut_off());
    }
    let status = line.split(' ').nth(1).and_then(|word| word.parse().ok()).ok_or_else(cut_off)?;
    let mut headers = Vec::new();
    loop {
        line.clear();
        if connection.read_line(&mut line)? == 0 {
            return Err(cut_off());
        }
        let line = line.trim_end();
        if line.is_empty() {
            break;
        }
        let (name, value) = line.split_once(':').ok_or_else(cut_off)?;
        headers.push((name.to_owned(), value.trim().to_owned()));
    }
    let mut response = Response { status, headers, body: Vec::new() };
    if no_body || status == 304 {
        return Ok(response);
    }
    if response.header("transfer-encoding") == Some("chunked") {
        loop {
            line.clear();
            connection.read_line(&mut line)?;
            let size = usize::from_str_radix(line.trim(), 16).map_err(|_| cut_off())?;
            let mut chunk = vec![0; size + 2];
            connection.read_exact(&mut chunk)?;
            if size == 0 {
                break;
            }
            response.body.extend_from_slice(&chunk[..size]);
        }
    } else {
        let length =
            response.header("content-length").and_then(|value| value.parse().ok()).unwrap_or(0);
        response.body = vec![0; length];
        connection.read_exact(&mut response.body)?;
    }
    Ok(response)
}

/// An envelope of a domain event.
pub fn envelope(id: u128, stream: &str, payload: Value) -> Value {
    serde_json::json!({
        "eventId": uuid::Uuid::from_u128(id | 7 << 76 | 2 << 62).to_string(), "source": "orders-api", "type": "OrderCreated",
        "timestampUtc": "2026-02-26T14:22:31Z", "schemaVersion": 1, "streamKey": stream, "payload": payload
    })
}

/// A small generator of numbers for tests (splitmix64): the same seed gives the same numbers.
pub struct Dice(pub u64);

impl Dice {
    pub fn roll(&mut self, sides: u64) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut z = self.0;
        z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        (z ^ (z >> 31)) % sides
    }
}

/// Whether the long forms are wanted.
pub fn full() -> bool {
    std::env::var_os("SENTINEL_TEST_FULL").is_some_and(|value| value == "1")
}

/// Asks again until the answer is good. Bounded by [`PATIENCE`]; yields to other threads between two questions.
pub fn eventually<T>(what: &str, mut question: impl FnMut() -> Option<T>) -> T {
    let start = std::time::Instant::now();
    loop {
        if let Some(answer) = question() {
            return answer;
        }
        assert!(start.elapsed() < PATIENCE, "{what} did not come true within {PATIENCE:?}");
        std::thread::yield_now();
    }
}
