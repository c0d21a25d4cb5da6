//! A bug of ours in the middle of a request or of an event: the request is answered with 500 and a trace id by which the
//! log knows it, the words of the panic stay out of the log, and everybody else is served on.

use std::io::{BufRead, BufReader, Read};
use std::net::SocketAddr;
use std::process::{Command, Stdio};
use std::sync::Arc;
use std::time::Duration;

use crossbeam::channel::unbounded;
use sentinel::config::{LogFilter, LogFormat, LogSettings};
use sentinel::domain::ids::{EventId, ProcessId, StreamKey, TenantId};
use sentinel::domain::process::mark::Mark;
use sentinel::domain::process::{RunRow, State};
use sentinel::domain::time::Timestamp;
use sentinel::http::front::Front;
use sentinel::http::limits::Limits;
use sentinel::http::{turns, worker};
use sentinel::routes::{Desk, Shared};
use sentinel::service::{Parts, wall_clock};
use sentinel::store::{self, Page, Paged, ProcessView, Result, Store};
use sentinel::telemetry::logging;
use serde_json::json;

use super::{PAYLOAD, holds_none_of, parts};
use crate::by_hand;
use crate::harness::{Client, InProcess, stop, token};

/// Set for the child process: its data folder.
const FOLDER: &str = "SECRETS_TEST_FOLDER";

/// A store whose readers fail over a process called `clumsy`, with its payload on their lips.
struct Clumsy(Arc<dyn Store>);

struct ClumsyReader(Box<dyn store::Reader>);

impl Store for Clumsy {
    fn intake(&self) -> Result<Box<dyn store::IntakeSession>> {
        self.0.intake()
    }

    fn listener(&self) -> Result<Box<dyn store::ListenerSession>> {
        self.0.listener()
    }

    fn logs(&self) -> Result<Box<dyn store::LogSession>> {
        self.0.logs()
    }

    fn keeper(&self) -> Result<Box<dyn store::KeeperSession>> {
        self.0.keeper()
    }

    fn reader(&self) -> Result<Box<dyn store::Reader>> {
        Ok(Box::new(ClumsyReader(self.0.reader()?)))
    }

    fn now(&self) -> Timestamp {
        self.0.now()
    }

    fn write_state(&self) -> store::WriteState {
        self.0.write_state()
    }

    fn backlog(&self) -> (u64, Option<Timestamp>) {
        self.0.backlog()
    }
}

impl store::Reader for ClumsyReader {
    fn status(&mut self, tenant: &TenantId, process: &ProcessId) -> Result<Option<ProcessView>> {
        assert!(process.as_str() != "clumsy", "{PAYLOAD} could not be read");
        self.0.status(tenant, process)
    }

    fn shows_acknowledged(&self) -> bool {
        self.0.shows_acknowledged()
    }

    fn processes(
        &mut self,
        tenant: &TenantId,
        filter: &store::ProcessFilter,
        page: &Page,
    ) -> Result<Paged<ProcessView>> {
        self.0.processes(tenant, filter, page)
    }

    fn runs(
        &mut self,
        tenant: &TenantId,
        process: &ProcessId,
        page: &Page,
    ) -> Result<Option<Paged<RunRow>>> {
        assert!(process.as_str() != "clumsy", "a panic whose words stand in the source");
        self.0.runs(tenant, process, page)
    }

    fn event(&mut self, tenant: &TenantId, id: &EventId) -> Result<Option<store::StoredEvent>> {
        if id.as_str() == "clumsy" {
            let what = "a table is gone".into();
            return Err(store::StoreError::Other { call: "read an event", source: what });
        }
        self.0.event(tenant, id)
    }

    fn events(
        &mut self,
        tenant: &TenantId,
        filter: &store::EventFilter,
        page: &Page,
    ) -> Result<Paged<store::StoredEvent>> {
        self.0.events(tenant, filter, page)
    }

    fn stream(
        &mut self,
        tenant: &TenantId,
        stream: &StreamKey,
    ) -> Result<Option<store::StreamState>> {
        self.0.stream(tenant, stream)
    }

    fn stream_events(
        &mut self,
        tenant: &TenantId,
        stream: &StreamKey,
        after: u64,
        limit: usize,
    ) -> Result<Option<Vec<store::StoredEvent>>> {
        self.0.stream_events(tenant, stream, after, limit)
    }

    fn logs(
        &mut self,
        tenant: &TenantId,
        process: &ProcessId,
        filter: &store::LogFilter,
        page: &Page,
    ) -> Result<Option<Paged<store::StoredLog>>> {
        self.0.logs(tenant, process, filter, page)
    }

    fn log_cursor(&self, row: &store::StoredLog) -> store::Cursor {
        self.0.log_cursor(row)
    }

    fn newest_log_id(&mut self) -> Result<i64> {
        self.0.newest_log_id()
    }

    fn new_logs(
        &mut self,
        tenant: &TenantId,
        process: &ProcessId,
        filter: &store::LogFilter,
        limit: usize,
    ) -> Result<store::Received> {
        self.0.new_logs(tenant, process, filter, limit)
    }

    fn dead_letters(
        &mut self,
        tenant: &TenantId,
        filter: &store::DeadLetterFilter,
        page: &Page,
    ) -> Result<Paged<sentinel::domain::dead_letter::DeadLetter>> {
        self.0.dead_letters(tenant, filter, page)
    }

    fn dead_letter(
        &mut self,
        tenant: &TenantId,
        id: i64,
    ) -> Result<Option<sentinel::domain::dead_letter::DeadLetter>> {
        self.0.dead_letter(tenant, id)
    }

    fn ping(&mut self) -> Result<()> {
        self.0.ping()
    }

    fn end_turn(&mut self) {
        self.0.end_turn();
    }
}

#[test]
fn a_panic_is_500_with_a_trace_id_that_the_log_knows_and_says_nothing_of_the_payload() {
    let folder = tempfile::tempdir().unwrap();
    let mut child = Command::new(std::env::current_exe().unwrap())
        .args(["--ignored", "--exact", "--nocapture", "secrets::panics::a_service_with_a_bug"])
        .env(FOLDER, folder.path())
        .env_remove("RUST_BACKTRACE")
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(std::fs::File::create(folder.path().join("stderr")).unwrap())
        .spawn()
        .unwrap();
    let mut lines = BufReader::new(child.stdout.take().unwrap()).lines();
    let address: SocketAddr = lines
        .find_map(|line| line.unwrap().split_once("listens on ")?.1.parse().ok())
        .expect("the service says where it listens");
    let bearer = token(folder.path(), "demo", &["sentinel:write"]);
    let mut neighbour = Client::new(address, &bearer);
    neighbour.post("/internal/start", &json!({"process_id": "p"})).expect(202);
    let mut trace_ids = Vec::new();
    // On the loop, on the only worker, and an error that no retry can mend; each again and again.
    for _ in 0..3 {
        for path in ["/status/clumsy", "/processes/clumsy/runs", "/v1/events/clumsy"] {
            let failed = Client::new(address, &bearer).get(path).expect(500);
            assert_eq!(failed.header("content-type"), Some("application/problem+json"));
            let problem = failed.json();
            assert_eq!(problem["type"], "/problems/internal-error");
            holds_none_of(&failed.text(), [PAYLOAD]);
            trace_ids.push(problem["traceId"].as_str().unwrap().to_owned());
            // The same thread serves on, and the neighbour's connection is still the same.
            neighbour.get("/status/p").expect(200);
            neighbour.get("/processes/p/runs").expect(200);
        }
    }
    // The caller's own trace is kept.
    let traceparent = ("traceparent", "00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01");
    let traced =
        Client::new(address, &bearer).request("GET", "/status/clumsy", &[traceparent], b"");
    assert_eq!(traced.expect(500).json()["traceId"], "4bf92f3577b34da6a3ce929d0e0e4736");
    trace_ids.push("4bf92f3577b34da6a3ce929d0e0e4736".to_owned());
    drop(child.stdin.take());
    assert!(child.wait().unwrap().success());
    let log = std::fs::read_to_string(folder.path().join("stderr")).unwrap();
    for trace_id in &trace_ids {
        let told = log.lines().filter(|line| line.contains(trace_id)).count();
        assert_eq!(told, 1, "{trace_id} is in one line: {log}");
    }
    assert!(log.contains("a thread panicked: a panic whose words stand in the source"), "{log}");
    assert!(log.contains("secrets/panics.rs:"), "where it happened is told: {log}");
    assert!(log.contains("a table is gone"), "what went wrong is told to us: {log}");
    // Four times over a status, and over an event: once among others, once alone.
    assert_eq!(log.matches("its words are left out").count(), 6, "{log}");
    holds_none_of(&log, [PAYLOAD]);
    holds_none_of(&log, parts(&bearer).skip(1));
}

/// The other side of the test above: one loop, one worker, a store that makes them panic, and a merge that does so, too.
#[test]
#[ignore = "is started by another test"]
fn a_service_with_a_bug() {
    let Some(folder) = std::env::var_os(FOLDER) else { return };
    let settings =
        LogSettings { filter: LogFilter::Fixed("trace".into()), format: LogFormat::Json };
    let _log = logging::init(&settings).unwrap();
    let parts = Parts { listener: false, ..Parts::ALL };
    let service = InProcess::start(folder.as_ref(), wall_clock(), parts, &[]);
    apply_with_a_panic(&service);
    let shared = Shared {
        store: Arc::new(Clumsy(Arc::clone(service.service.store()) as Arc<dyn Store>)),
        ..(**service.service.shared()).clone()
    };
    let shared = Arc::new(shared);
    let loopback: SocketAddr = "127.0.0.1:0".parse().unwrap();
    let mut front = Front::bind(loopback, None, 1, Limits::default()).unwrap();
    let (ended, _names) = unbounded();
    let (jobs, queue) = turns::bounded(100);
    let desk = || Desk::new(Arc::clone(&shared)).unwrap();
    let mut worker = worker::start(0, desk(), queue, ended.clone()).unwrap();
    let mut poll_loop = front.start_loop(0, desk(), jobs, ended).unwrap();
    println!("listens on {}", front.api_address());
    std::io::stdin().read_to_end(&mut Vec::new()).unwrap();
    poll_loop.stop();
    front.handle().wake();
    let soon = std::time::Instant::now() + Duration::from_secs(20);
    for component in [&mut poll_loop, &mut worker] {
        let end = component.join_by(soon);
        assert!(matches!(end, sentinel::component::End::Clean), "{end:?}");
    }
    service.stop();
}

/// Posts an event and applies it by a merge that panics with the payload on its lips: one dead letter.
fn apply_with_a_panic(service: &InProcess) {
    let body = json!({"process_id": "q", "event_id": "poison", "metadata": {PAYLOAD: PAYLOAD}});
    service.client("demo").post("/internal/start", &body).expect(202);
    let merge = |state: &mut State, mark: Mark| -> Vec<RunRow> {
        assert!(mark.key.event_id.as_str() != "poison", "{PAYLOAD} cannot be merged");
        state.merge(mark)
    };
    let store = service.service.store();
    let mut session = store.listener().unwrap();
    let (stop, _idle) = stop();
    let claim = session.claim(100, Duration::ZERO, &stop).unwrap();
    let change = by_hand::decide_with(&mut *session, &claim, store.now(), &merge);
    assert_eq!(change.dead_letters.len(), 1);
    session.settle(claim, change, store.now()).unwrap();
}
