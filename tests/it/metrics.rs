//! Every number that the service promises to be scraped is there and moves. This module scrapes both ports.

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use sentinel::listener::{Jitter, Watermark};
use sentinel::reaper::Reaper;
use sentinel::service::{Parts, policy, wall_clock};
use sentinel::telemetry::metrics::StoreCall;
use serde_json::json;

use crate::harness::{Client, HandClock, InProcess, config, envelope, eventually, stop};

/// The names of the contract that have something to count in this build. Jobs, workers and objectives have none yet.
pub(crate) const NAMES: [&str; 31] = [
    "gateway_requests_total",
    "gateway_request_duration_ms",
    "gateway_request_duration_seconds",
    "processor_events_total",
    "processor_lag_seconds",
    "dlq_events_total",
    "end_to_end_freshness_seconds",
    "sentinel_dequeue_latency_seconds",
    "sentinel_log_rows_total",
    "sentinel_log_rows_shed_total",
    "sentinel_log_batch_seconds",
    "sentinel_channel_depth",
    "sentinel_inflight_bytes",
    "sentinel_held_back_total",
    "sentinel_store_call_seconds",
    "sentinel_store_reconnects_total",
    "sentinel_store_up",
    "sentinel_connection_reuse_ratio",
    "sentinel_request_arena_bytes",
    "sentinel_projection_lag_seconds",
    "sentinel_processes",
    "sentinel_process_expired_total",
    "sentinel_thread_up",
    "sentinel_connections",
    "sentinel_connections_refused_total",
    "sentinel_accept_errors_total",
    "sentinel_tls_handshake_errors_total",
    "sentinel_spans_exported_total",
    "sentinel_spans_dropped_total",
    "process_resident_memory_bytes",
    "process_open_fds",
];

/// What was scraped: the value of each series, by its name and labels.
struct Scrape(BTreeMap<String, f64>);

impl Scrape {
    fn of(client: &mut Client) -> Self {
        let text = client.get("/metrics").expect(200).text();
        let series = text.lines().filter(|line| !line.starts_with('#'));
        Self(
            series
                .map(|line| {
                    let (name, value) = line.rsplit_once(' ').expect("a series has a value");
                    (name.to_owned(), value.parse().expect("a value is a number"))
                })
                .collect(),
        )
    }

    /// The value of a series; one that is not there has counted nothing.
    fn value(&self, series: &str) -> f64 {
        self.0.get(series).copied().unwrap_or(0.0)
    }

    /// The metrics that are there, without labels and without the parts of a histogram.
    fn names(&self) -> BTreeSet<&str> {
        self.0
            .keys()
            .map(|series| series.split('{').next().unwrap_or_default())
            .map(|name| {
                let parts = ["_bucket", "_sum", "_count"];
                parts.iter().find_map(|part| name.strip_suffix(part)).unwrap_or(name)
            })
            .collect()
    }
}

#[test]
fn every_promised_number_is_scraped_and_moves() {
    let folder = tempfile::tempdir().unwrap();
    let clock = HandClock::new();
    // An event that cannot be read waits for the service, so that there is a dead letter to count.
    let service = InProcess::start(
        folder.path(),
        clock.as_clock(),
        Parts { listener: false, ..Parts::ALL },
        &[],
    );
    service.client("demo").event("k0", &envelope(1, "s", json!({}))).expect(202);
    service.stop();
    let log = rusqlite::Connection::open(folder.path().join("log.db")).unwrap();
    log.execute("UPDATE log SET body = x'ff00'", []).unwrap();
    drop(log);

    let service = InProcess::start(folder.path(), clock.as_clock(), Parts::ALL, &[]);
    let mut client = service.client("demo");
    for _ in 0..2 {
        client.event("k1", &envelope(2, "s", json!({"n": 1}))).expect(202);
    }
    client.event("k1", &envelope(3, "s", json!({"n": 2}))).expect(409);
    client.post("/internal/start", &json!({"process_id": "p"})).expect(202);
    let row = json!({"process_id": "p", "level": "INFO", "message": "hello"});
    client.post("/internal/log", &row).expect(202);
    client.get("/status/nobody").expect(404);
    client.get("/health").expect(200);
    // Processes are counted four times a minute.
    clock.forward(Duration::from_secs(16));
    let moved = [
        r#"gateway_requests_total{status="202"}"#,
        r#"gateway_requests_total{status="409"}"#,
        r#"gateway_requests_total{status="404"}"#,
        "gateway_request_duration_ms_count",
        "gateway_request_duration_seconds_count",
        r#"processor_events_total{result="success"}"#,
        r#"processor_events_total{result="duplicate"}"#,
        r#"processor_events_total{result="dlq"}"#,
        r#"dlq_events_total{reason="undecodable"}"#,
        "end_to_end_freshness_seconds_count",
        "sentinel_dequeue_latency_seconds_count",
        "sentinel_log_rows_total",
        "sentinel_log_batch_seconds_count",
        r#"sentinel_store_call_seconds_count{call="accept"}"#,
        r#"sentinel_store_call_seconds_count{call="settle"}"#,
        r#"sentinel_store_call_seconds_count{call="write_logs"}"#,
        r#"sentinel_store_call_seconds_count{call="upkeep"}"#,
        r#"sentinel_store_call_seconds_count{call="count_processes"}"#,
        r#"sentinel_store_call_seconds_count{call="archive"}"#,
        r#"sentinel_store_call_seconds_count{call="status"}"#,
        "sentinel_connection_reuse_ratio",
        "sentinel_request_arena_bytes_count",
        r#"sentinel_processes{status="RUNNING"}"#,
        r#"sentinel_thread_up{thread="intake"}"#,
        r#"sentinel_thread_up{thread="listener-0"}"#,
        "sentinel_connections",
        "sentinel_store_up",
    ];
    let scrape = eventually("every number moves", || {
        // Whatever the keeper had counted by then, it counts again.
        clock.forward(Duration::from_secs(1));
        let scrape = Scrape::of(&mut client);
        moved.iter().all(|series| scrape.value(series) > 0.0).then_some(scrape)
    });
    assert_eq!(scrape.value(r#"processor_events_total{result="duplicate"}"#), 1.0);
    assert_eq!(scrape.value(r#"processor_events_total{result="success"}"#), 2.0);
    assert_eq!(scrape.value("sentinel_log_rows_total"), 1.0);
    let of_users = scrape.value(r#"gateway_requests_total{status="200"}"#);
    assert_eq!(of_users, 0.0, "probes and scrapes are no requests of users");
    assert_eq!(scrape.value("sentinel_connection_reuse_ratio"), 1.0, "nothing was opened again");
    assert_eq!(scrape.value("sentinel_connections"), 1.0);
    let names = scrape.names();
    let missing: Vec<_> = NAMES.iter().filter(|name| !names.contains(**name)).collect();
    assert!(missing.is_empty(), "{missing:?} are not in {names:?}");
    let labels = ["demo", "\"p\"", "orders-api", "\"s\""];
    let named = scrape.0.keys().find(|series| labels.iter().any(|label| series.contains(label)));
    assert_eq!(named, None, "no tenant and no id is a label");
    service.stop();
}

#[test]
fn every_read_of_the_store_is_timed_under_a_name_of_a_closed_set_and_a_status_once_in_a_while() {
    let folder = tempfile::tempdir().unwrap();
    let variables = [("SENTINEL_HTTP_LOOPS", "1"), ("SENTINEL_WORKER_THREADS", "1")];
    let service = InProcess::start(folder.path(), wall_clock(), Parts::ALL, &variables);
    let mut client = service.client("demo");
    client.post("/internal/start", &json!({"process_id": "p", "event_id": "e"})).expect(202);
    for (path, status, call) in [
        ("/processes", 200, "processes"),
        ("/processes/p/runs", 200, "runs"),
        ("/logs/p", 200, "logs"),
        ("/v1/events", 200, "events"),
        ("/v1/events/nobody", 404, "event"),
        ("/v1/streams/nobody", 404, "stream"),
        ("/v1/streams/nobody/events", 404, "stream_events"),
        ("/v1/dead-letters", 200, "dead_letters"),
        ("/v1/dead-letters/7", 404, "dead_letter"),
    ] {
        eventually("the start is applied, and the answer as expected", || {
            (client.get(path).status == status).then_some(())
        });
        let series = format!(r#"sentinel_store_call_seconds_count{{call="{call}"}}"#);
        assert!(Scrape::of(&mut client).value(&series) > 0.0, "{path} is timed as {call}");
    }
    // Nobody is no process, so each of these is a read of the store.
    for _ in 0..65 {
        client.get("/status/nobody").expect(404);
    }
    let scrape = Scrape::of(&mut client);
    let timed = scrape.value(r#"sentinel_store_call_seconds_count{call="status"}"#);
    assert_eq!(timed, 2.0, "the first of 64 and the 65th");
    let known: BTreeSet<&str> = StoreCall::ALL.iter().map(|call| call.as_str()).collect();
    assert_eq!(known.len(), StoreCall::ALL.len());
    for series in scrape.0.keys() {
        let Some((_, call)) = series.split_once("sentinel_store_call_seconds_count{call=\"") else {
            continue;
        };
        assert!(known.contains(call.trim_end_matches("\"}")), "{series}");
    }
    service.stop();
}

#[test]
fn an_expiry_is_counted_once() {
    let folder = tempfile::tempdir().unwrap();
    let clock = HandClock::new();
    let parts = Parts { listener: false, reaper: false, ..Parts::ALL };
    let service = InProcess::start(folder.path(), clock.as_clock(), parts, &[]);
    let mut client = service.client("demo");
    client.post("/internal/start", &json!({"process_id": "p", "timeout_s": 60})).expect(202);
    let policy = policy(&config(folder.path(), &[]));
    let watermark = std::sync::Arc::<Watermark>::default();
    let mut listener = service.service.listener(&clock.as_clock(), policy, &watermark);
    let (stop, _idle) = stop();
    let store = service.service.store();
    let (mut session, mut keeper) = (store.listener().unwrap(), store.keeper().unwrap());
    let mut listen = || {
        let mut jitter = Jitter::new(0);
        while listener.pass(&mut *session, Duration::ZERO, &stop, &mut jitter).unwrap().settled > 0
        {
        }
    };
    listen();
    let postings = service.service.shared().postings.clone();
    let takes_writes = std::sync::Arc::new(|| true);
    let mut reaper = Reaper::new(policy, "test".into(), watermark, postings, takes_writes);
    let begin = clock.now();
    let mut judge = |listen: &mut dyn FnMut()| {
        listen();
        reaper.pass(&mut *keeper, clock.now(), clock.now().since(begin)).unwrap()
    };
    assert!(judge(&mut listen).held, "first everybody gets the time to be heard");
    clock.forward(Duration::from_secs(61));
    assert_eq!(judge(&mut listen).expired, 1);
    assert_eq!(judge(&mut listen).expired, 0);
    listen();
    assert_eq!(Scrape::of(&mut client).value("sentinel_process_expired_total"), 1.0);
    assert_eq!(client.get("/status/p").expect(200).json()["status"], "EXPIRED");
    service.stop();
}

#[test]
fn the_metrics_port_answers_a_scraper_without_a_token() {
    let folder = tempfile::tempdir().unwrap();
    let port = free_port();
    let variables = [("PROMETHEUS_METRICS_PORT", port.as_str())];
    let service = InProcess::start(folder.path(), wall_clock(), Parts::ALL, &variables);
    let address = service.service.metrics_address().expect("there is a metrics port");
    let mut scraper = Client::new(address, "");
    let scrape = Scrape::of(&mut scraper);
    assert_eq!(scrape.value(r#"sentinel_thread_up{thread="keeper"}"#), 1.0);
    let fields = [("Accept", "application/openmetrics-text; version=1.0.0")];
    let open = scraper.request("GET", "/metrics", &fields, b"").expect(200);
    assert!(open.header("content-type").unwrap().starts_with("application/openmetrics-text"));
    assert!(open.text().ends_with("# EOF\n"));
    // What belongs to users is not on this port.
    scraper.get("/status/p").expect(404);
    service.stop();
}

/// A port that nobody listens on right now.
fn free_port() -> String {
    let socket = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    socket.local_addr().unwrap().port().to_string()
}
