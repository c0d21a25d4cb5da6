//! What the promises are tested with: a service in this process or in a child, a clock moved by hand, a small client.
//! This module is the only one that knows how the service is started and spoken to.

use std::io::{BufRead, BufReader, Write};
use std::net::{SocketAddr, TcpStream};
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::sync::Arc;
use std::sync::atomic::{AtomicI64, Ordering};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use crossbeam::channel::{Receiver, unbounded};
use parking_lot::Mutex;
use sentinel::component::{Component, Stop};
use sentinel::config::{Config, LogFormat, Overrides, Surroundings};
use sentinel::domain::ids::TenantId;
use sentinel::domain::time::Timestamp;
use sentinel::http::auth::{Role, development, unix_seconds};
use sentinel::service::{Clock, Parts, Service, wall_clock};
use sentinel::telemetry::logging;
use serde_json::Value;

/// Nothing in these tests takes longer, or something hangs.
pub(crate) const PATIENCE: Duration = Duration::from_secs(60);

/// So many bytes of a child's log are kept, to be shown when a test fails.
const LOG_KEPT: usize = 1024 * 1024;

/// So many lines of it.
const LINES_SHOWN: usize = 30;

/// A clock that moves only when it is told to.
#[derive(Clone)]
pub(crate) struct HandClock(Arc<AtomicI64>);

impl HandClock {
    /// A clock that stands at the present.
    pub(crate) fn new() -> Self {
        Self(Arc::new(AtomicI64::new((wall_clock())().micros())))
    }

    /// A clock that stands at this time.
    pub(crate) fn at(time: &str) -> Self {
        let time = Timestamp::parse(time).expect("a time in RFC 3339");
        Self(Arc::new(AtomicI64::new(time.micros())))
    }

    pub(crate) fn forward(&self, pause: Duration) {
        self.0.fetch_add(i64::try_from(pause.as_micros()).unwrap(), Ordering::SeqCst);
    }

    pub(crate) fn now(&self) -> Timestamp {
        Timestamp::from_micros(self.0.load(Ordering::SeqCst))
    }

    pub(crate) fn as_clock(&self) -> Clock {
        let clock = self.clone();
        Arc::new(move || clock.now())
    }
}

/// The configuration of a service on free ports in `folder`, with further variables.
pub(crate) fn config(folder: &Path, variables: &[(&str, &str)]) -> Config {
    let database = format!("sqlite://{}", folder.display());
    let lookup = |name: &str| {
        if let Some((_, value)) = variables.iter().find(|(variable, _)| *variable == name) {
            return Some((*value).to_owned());
        }
        match name {
            "SENTINEL_DATABASE" => Some(database.clone()),
            "PROMETHEUS_METRICS_PORT" => Some("0".to_owned()),
            // Test machines may have little space, and small file systems are made on purpose.
            "SENTINEL_MIN_FREE_BYTES" => Some("1048576".to_owned()),
            _ => None,
        }
    };
    let surroundings = Surroundings {
        lookup: &lookup,
        names: &[],
        read_file: &|path| std::fs::read_to_string(path),
        overrides: Overrides { database: None, bind: Some("tcp://127.0.0.1:0".to_owned()) },
        cores: 2,
        terminal: false,
    };
    Config::load(&surroundings).expect("the test's configuration is valid").0
}

/// The signatures of all tokens that a test has made.
static SIGNATURES: Mutex<Vec<String>> = Mutex::new(Vec::new());

/// Reads every log record of the services in this process, at every level. A token in one of them ends the whole run:
/// no single test could be blamed for it.
struct Censor;

impl log::Log for Censor {
    fn enabled(&self, _: &log::Metadata<'_>) -> bool {
        true
    }

    fn log(&self, record: &log::Record<'_>) {
        let now = Timestamp::from_micros(0);
        let line = logging::line(LogFormat::Json, record, "", now);
        if SIGNATURES.lock().iter().any(|signature| line.contains(signature)) {
            let _ = writeln!(std::io::stderr(), "a token is in the log: {line}");
            std::process::abort();
        }
    }

    fn flush(&self) {}
}

/// A service in this process.
pub(crate) struct InProcess {
    pub folder: std::path::PathBuf,
    pub service: Service,
}

impl InProcess {
    pub(crate) fn start(
        folder: &Path,
        clock: Clock,
        parts: Parts,
        variables: &[(&str, &str)],
    ) -> Self {
        // One that is there already serves as well: a test of the log itself reads what comes of it.
        if log::set_logger(&Censor).is_ok() {
            log::set_max_level(log::LevelFilter::Trace);
        }
        let service =
            Service::start(&config(folder, variables), clock, parts).expect("the service starts");
        Self { folder: folder.to_owned(), service }
    }

    pub(crate) fn client(&self, tenant: &str) -> Client {
        Client::new(self.service.api_address(), &token(&self.folder, tenant, &["sentinel:operate"]))
    }

    pub(crate) fn stop(self) {
        self.service.stop().expect("the service stops cleanly");
    }
}

/// A token of the development key in `folder`.
pub(crate) fn token(folder: &Path, tenant: &str, roles: &[&str]) -> String {
    signed(folder, tenant, roles, unix_seconds())
}

/// A token whose time is over, and which the door takes for `left` yet: it gives it [`LEEWAY`] more.
pub(crate) fn token_about_to_end(
    folder: &Path,
    tenant: &str,
    roles: &[&str],
    left: Duration,
) -> String {
    let age = TTL + LEEWAY - left;
    signed(folder, tenant, roles, unix_seconds() - age.as_secs())
}

/// How long tokens are good for.
const TTL: Duration = Duration::from_secs(3600);
/// What the door gives a token after its end.
const LEEWAY: Duration = Duration::from_secs(30);

/// A token made at `now_s`, whose signature must be in no log.
fn signed(folder: &Path, tenant: &str, roles: &[&str], now_s: u64) -> String {
    let roles: Vec<Role> =
        roles.iter().map(|role| Role::parse(role).expect("a known role")).collect();
    let tenant = TenantId::parse(tenant).expect("a valid tenant");
    let token =
        development::token(folder, &tenant, &roles, TTL, now_s).expect("the development key signs");
    let (_, signature) = token.rsplit_once('.').expect("a token has three parts");
    SIGNATURES.lock().push(signature.to_owned());
    token
}

/// A service in a process of its own, which can be killed.
pub(crate) struct InChild {
    child: Child,
    pub api: SocketAddr,
    log: Arc<Mutex<String>>,
    /// What its log has said since it listened, record by record.
    lines: Receiver<Value>,
    reading: Option<JoinHandle<()>>,
}

impl InChild {
    /// Starts the service and waits until it says where it listens.
    pub(crate) fn start(folder: &Path, variables: &[(&str, &str)]) -> Self {
        Self::start_on(folder, 0, variables)
    }

    /// The same on a port of the caller's choice; 0: any.
    pub(crate) fn start_on(folder: &Path, port: u16, variables: &[(&str, &str)]) -> Self {
        let mut command = Command::new(env!("CARGO_BIN_EXE_sentinel"));
        command
            .args(["serve", "--bind", &format!("tcp://127.0.0.1:{port}")])
            .env_clear()
            .env("SENTINEL_DATABASE", format!("sqlite://{}", folder.display()))
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
        let log = Arc::new(Mutex::new(String::new()));
        let api = loop {
            line.clear();
            let read = lines.read_line(&mut line).expect("the log can be read");
            assert!(
                read > 0,
                "the service ended before it listened: {:?}\n{}",
                child.wait(),
                log.lock()
            );
            log.lock().push_str(&line);
            let record: Value = serde_json::from_str(&line).unwrap_or_default();
            if let Some(address) = record["address"].as_str() {
                break address.parse().expect("the log names an address");
            }
        };
        // The rest of the log is read as it comes, so that the child never waits for us.
        let (say, said) = unbounded();
        let kept = Arc::clone(&log);
        let reading = std::thread::Builder::new()
            .spawn(move || {
                for line in lines.lines().map_while(Result::ok) {
                    let mut kept = kept.lock();
                    if kept.len() < LOG_KEPT {
                        kept.push_str(&line);
                        kept.push('\n');
                    }
                    drop(kept);
                    // A test that is over listens no more, and the child must not notice.
                    let _ = say.send(serde_json::from_str(&line).unwrap_or(Value::String(line)));
                }
            })
            .expect("a thread starts");
        Self { child, api, log, lines: said, reading: Some(reading) }
    }

    /// What the service has said so far, up to [`LOG_KEPT`] bytes.
    pub(crate) fn log(&self) -> String {
        self.log.lock().clone()
    }

    /// The next record of the log with these words in its message. Those before it are dropped.
    pub(crate) fn says(&self, words: &str) -> Value {
        let deadline = Instant::now() + PATIENCE;
        loop {
            let record = self.lines.recv_deadline(deadline);
            let record = record.unwrap_or_else(|error| panic!("{words:?} is not said: {error}"));
            if record["msg"].as_str().is_some_and(|said| said.contains(words)) {
                return record;
            }
        }
    }

    /// What the log has said and nobody has asked for.
    pub(crate) fn said(&self) -> Vec<Value> {
        self.lines.try_iter().collect()
    }

    /// `kill -9`.
    pub(crate) fn kill(mut self) {
        self.child.kill().expect("the child can be killed");
        self.child.wait().expect("the child is gone");
    }

    /// SIGTERM, and the exit code.
    pub(crate) fn terminate(self) -> i32 {
        self.signal_term();
        self.wait()
    }

    pub(crate) fn signal_term(&self) {
        self.signal(rustix::process::Signal::TERM);
    }

    pub(crate) fn signal(&self, signal: rustix::process::Signal) {
        let pid = rustix::process::Pid::from_child(&self.child);
        rustix::process::kill_process(pid, signal).expect("the child takes the signal");
    }

    pub(crate) fn id(&self) -> u32 {
        self.child.id()
    }

    pub(crate) fn wait(self) -> i32 {
        self.end().0
    }

    /// Waits for the end: the exit code, and what the service has said until then, up to [`LOG_KEPT`] bytes.
    pub(crate) fn end(mut self) -> (i32, String) {
        let code = self.child.wait().expect("the child is gone").code();
        if let Some(reading) = self.reading.take() {
            reading.join().expect("the log is read to its end");
        }
        (code.expect("the child exits by itself"), self.log.lock().clone())
    }
}

/// A test that fails leaves nothing behind that goes on running.
impl Drop for InChild {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let end = self.child.wait();
        if std::thread::panicking() {
            // Where a test fails, the reason is often here.
            let log = self.log.lock();
            let last = log.lines().rev().take(LINES_SHOWN).collect::<Vec<_>>();
            let last = last.into_iter().rev().collect::<Vec<_>>().join("\n");
            println!("the service {end:?} said at last:\n{last}");
        }
    }
}

/// A reply, taken apart.
#[derive(Debug, Clone, PartialEq)]
pub(crate) struct Response {
    pub status: u16,
    pub headers: Vec<(String, String)>,
    pub body: Vec<u8>,
}

impl Response {
    pub(crate) fn header(&self, name: &str) -> Option<&str> {
        self.headers
            .iter()
            .find(|(field, _)| field.eq_ignore_ascii_case(name))
            .map(|(_, value)| value.as_str())
    }

    pub(crate) fn json(&self) -> Value {
        serde_json::from_slice(&self.body)
            .unwrap_or_else(|error| panic!("{error}: {}", self.text()))
    }

    pub(crate) fn text(&self) -> String {
        String::from_utf8_lossy(&self.body).into_owned()
    }

    /// The reply, if its status is `status`; else the test fails with the body.
    pub(crate) fn expect(self, status: u16) -> Self {
        assert_eq!(self.status, status, "{}", self.text());
        self
    }
}

/// A keep-alive client for one address and token.
pub(crate) struct Client {
    address: SocketAddr,
    token: String,
    connection: Option<BufReader<TcpStream>>,
    used: Instant,
}

/// The service closes a connection that was idle for 75 s; whoever asks just then is cut off.
const KEPT: Duration = Duration::from_secs(60);

impl Client {
    pub(crate) fn new(address: SocketAddr, token: &str) -> Self {
        Self { address, token: token.to_owned(), connection: None, used: Instant::now() }
    }

    /// The same client on a connection of its own.
    pub(crate) fn another(&self) -> Self {
        Self::new(self.address, &self.token)
    }

    /// A client at the same address with another token; empty: with none.
    pub(crate) fn with_token(&self, token: &str) -> Self {
        Self::new(self.address, token)
    }

    pub(crate) fn get(&mut self, path: &str) -> Response {
        self.request("GET", path, &[], b"")
    }

    pub(crate) fn post(&mut self, path: &str, body: &Value) -> Response {
        self.request(
            "POST",
            path,
            &[("Content-Type", "application/json")],
            body.to_string().as_bytes(),
        )
    }

    /// One event with a key.
    pub(crate) fn event(&mut self, key: &str, envelope: &Value) -> Response {
        let fields = [("Content-Type", "application/json"), ("Idempotency-Key", key)];
        self.request("POST", "/v1/events", &fields, envelope.to_string().as_bytes())
    }

    pub(crate) fn request(
        &mut self,
        method: &str,
        path: &str,
        fields: &[(&str, &str)],
        body: &[u8],
    ) -> Response {
        self.try_request(method, path, fields, body).expect("the service answers")
    }

    /// The reply, or the error that cut it off.
    pub(crate) fn try_request(
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
        if self.connection.is_none() || self.used.elapsed() > KEPT {
            let stream = TcpStream::connect_timeout(&self.address, PATIENCE)?;
            stream.set_read_timeout(Some(PATIENCE))?;
            stream.set_nodelay(true)?;
            self.connection = Some(BufReader::new(stream));
        }
        let connection = self.connection.as_mut().expect("just connected");
        connection.get_mut().write_all(bytes)?;
        let reply = read_response(connection, no_body);
        self.used = Instant::now();
        reply
    }
}

fn cut_off() -> std::io::Error {
    std::io::Error::new(std::io::ErrorKind::UnexpectedEof, "the reply was cut off")
}

/// Reads one reply.
pub(crate) fn read_response(
    connection: &mut impl BufRead,
    no_body: bool,
) -> std::io::Result<Response> {
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
pub(crate) fn envelope(id: u128, stream: &str, payload: Value) -> Value {
    serde_json::json!({
        "eventId": uuid::Uuid::from_u128(id | 7 << 76 | 2 << 62).to_string(), "source": "orders-api", "type": "OrderCreated",
        "timestampUtc": "2026-02-26T14:22:31Z", "schemaVersion": 1, "streamKey": stream, "payload": payload
    })
}

/// A stop signal that is given when the component is dropped, or told to.
pub(crate) fn stop() -> (Stop, Component) {
    let (sender, receiver) = std::sync::mpsc::channel();
    let (ended, _) = unbounded();
    let component = Component::start("idle", ended, move |stop| {
        sender.send(stop.clone()).expect("the test waits");
        while stop.sleep(PATIENCE) {}
        Ok(())
    })
    .expect("a thread starts");
    (receiver.recv().expect("the thread says so"), component)
}

/// A small generator of numbers for tests (splitmix64): the same seed gives the same numbers.
pub(crate) struct Dice(pub u64);

impl Dice {
    pub(crate) fn roll(&mut self, sides: u64) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut z = self.0;
        z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        (z ^ (z >> 31)) % sides
    }
}

/// Whether the long forms are wanted.
pub(crate) fn full() -> bool {
    std::env::var_os("SENTINEL_TEST_FULL").is_some_and(|value| value == "1")
}

/// Asks again until the answer is good. Bounded by [`PATIENCE`]; yields to other threads between two questions.
pub(crate) fn eventually<T>(what: &str, mut question: impl FnMut() -> Option<T>) -> T {
    let start = Instant::now();
    loop {
        if let Some(answer) = question() {
            return answer;
        }
        assert!(start.elapsed() < PATIENCE, "{what} did not come true within {PATIENCE:?}");
        std::thread::yield_now();
    }
}
