//! The metrics of the contract. This module names them once; tenants and ids are never labels.

use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant, SystemTime};

use prometheus_client::encoding::EncodeLabelSet;
use prometheus_client::metrics::counter::Counter;
use prometheus_client::metrics::exemplar::HistogramWithExemplars;
use prometheus_client::metrics::family::Family;
use prometheus_client::metrics::gauge::Gauge;
use prometheus_client::metrics::histogram::Histogram;
use prometheus_client::registry::Registry;

use crate::domain::dead_letter::Reason;

/// A gauge that holds a fraction.
pub type FloatGauge = Gauge<f64, AtomicU64>;

/// `gateway_requests_total{status}`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, EncodeLabelSet)]
pub struct StatusLabel {
    pub status: u16,
}

/// `processor_events_total{result}`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, EncodeLabelSet)]
pub struct ResultLabel {
    pub result: &'static str,
}

/// `dlq_events_total{reason}`, `sentinel_tls_handshake_errors_total{reason}`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, EncodeLabelSet)]
pub struct ReasonLabel {
    pub reason: &'static str,
}

/// `sentinel_channel_depth{channel}`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, EncodeLabelSet)]
pub struct ChannelLabel {
    pub channel: &'static str,
}

/// `sentinel_inflight_bytes{pool}`, `sentinel_held_back_total{pool}`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, EncodeLabelSet)]
pub struct PoolLabel {
    pub pool: &'static str,
}

/// `sentinel_store_call_seconds{call}`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, EncodeLabelSet)]
pub struct CallLabel {
    pub call: &'static str,
}

/// The store calls that are timed: a closed set, since it is a metric's label. A claim is not among them, because it
/// waits; loading the states of a batch is a part of settling it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum StoreCall {
    Accept,
    Settle,
    WriteLogs,
    /// Timed once in a while only: a clock is dear beside such a read.
    Status,
    Processes,
    Runs,
    Logs,
    Event,
    Events,
    Stream,
    StreamEvents,
    DeadLetters,
    DeadLetter,
    Overdue,
    Deserted,
    PutOff,
    Archive,
    CountProcesses,
    Upkeep,
    Tail,
}

impl StoreCall {
    pub const ALL: [Self; 20] = [
        Self::Accept,
        Self::Settle,
        Self::WriteLogs,
        Self::Status,
        Self::Processes,
        Self::Runs,
        Self::Logs,
        Self::Event,
        Self::Events,
        Self::Stream,
        Self::StreamEvents,
        Self::DeadLetters,
        Self::DeadLetter,
        Self::Overdue,
        Self::Deserted,
        Self::PutOff,
        Self::Archive,
        Self::CountProcesses,
        Self::Upkeep,
        Self::Tail,
    ];

    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Accept => "accept",
            Self::Settle => "settle",
            Self::WriteLogs => "write_logs",
            Self::Status => "status",
            Self::Processes => "processes",
            Self::Runs => "runs",
            Self::Logs => "logs",
            Self::Event => "event",
            Self::Events => "events",
            Self::Stream => "stream",
            Self::StreamEvents => "stream_events",
            Self::DeadLetters => "dead_letters",
            Self::DeadLetter => "dead_letter",
            Self::Overdue => "overdue",
            Self::Deserted => "deserted",
            Self::PutOff => "put_off",
            Self::Archive => "archive",
            Self::CountProcesses => "count_processes",
            Self::Upkeep => "upkeep",
            Self::Tail => "tail",
        }
    }
}

/// `sentinel_processes{status}`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, EncodeLabelSet)]
pub struct ProcessStatusLabel {
    pub status: &'static str,
}

/// The exemplar of an observation: a recorded trace that it was made in.
#[derive(Debug, Clone, PartialEq, Eq, Hash, EncodeLabelSet)]
pub struct TraceLabel {
    pub trace_id: String,
}

/// `sentinel_thread_up{thread}`.
#[derive(Debug, Clone, PartialEq, Eq, Hash, EncodeLabelSet)]
pub struct ThreadLabel {
    pub thread: String,
}

const SECONDS: [f64; 14] =
    [0.0001, 0.00025, 0.0005, 0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 1.0, 5.0, 30.0];
/// With the bounds that the freshness objective is stated in: 10 s, and 20 s for its slowest hundredth [SL2].
const FRESHNESS_SECONDS: [f64; 14] =
    [0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 1.0, 5.0, 10.0, 20.0, 60.0, 300.0];
const ARENA_BYTES: [f64; 8] = [256.0, 512.0, 1024.0, 2048.0, 4096.0, 16384.0, 65536.0, 1_048_576.0];

/// Every metric, shared by all threads.
pub struct Metrics {
    pub gateway_requests: Family<StatusLabel, Counter>,
    pub gateway_request_duration_ms: Histogram,
    pub gateway_request_duration_seconds: HistogramWithExemplars<TraceLabel>,
    pub processor_events: Family<ResultLabel, Counter>,
    pub processor_lag_seconds: FloatGauge,
    pub dlq_events: Family<ReasonLabel, Counter>,
    pub end_to_end_freshness_seconds: HistogramWithExemplars<TraceLabel>,
    pub dequeue_latency_seconds: Histogram,
    pub log_rows: Counter,
    pub log_rows_shed: Counter,
    pub log_batch_seconds: Histogram,
    pub channel_depth: Family<ChannelLabel, Gauge>,
    pub inflight_bytes: Family<PoolLabel, Gauge>,
    pub held_back: Family<PoolLabel, Counter>,
    pub store_call_seconds: Family<CallLabel, Histogram>,
    pub store_reconnects: Counter,
    pub store_up: Gauge,
    pub connection_reuse_ratio: FloatGauge,
    pub request_arena_bytes: Histogram,
    pub projection_lag_seconds: FloatGauge,
    pub processes: Family<ProcessStatusLabel, Gauge>,
    pub process_expired: Counter,
    pub thread_up: Family<ThreadLabel, Gauge>,
    pub connections: Gauge,
    pub connections_refused: Counter,
    pub accept_errors: Counter,
    pub tls_handshake_errors: Family<ReasonLabel, Counter>,
    pub spans_exported: Counter,
    pub spans_dropped: Counter,
    /// Store calls of any kind, for the share that found an open session.
    store_calls: AtomicU64,
    registry: Registry,
}

impl Metrics {
    /// Makes and registers every metric.
    pub fn new() -> Self {
        let seconds = || Histogram::new(SECONDS);
        let mut metrics = Self {
            gateway_requests: Family::default(),
            gateway_request_duration_ms: Histogram::new(SECONDS.map(|s| s * 1000.0)),
            gateway_request_duration_seconds: HistogramWithExemplars::new(SECONDS.into_iter()),
            processor_events: Family::default(),
            processor_lag_seconds: FloatGauge::default(),
            dlq_events: Family::default(),
            end_to_end_freshness_seconds: HistogramWithExemplars::new(
                FRESHNESS_SECONDS.into_iter(),
            ),
            dequeue_latency_seconds: seconds(),
            log_rows: Counter::default(),
            log_rows_shed: Counter::default(),
            log_batch_seconds: seconds(),
            channel_depth: Family::default(),
            inflight_bytes: Family::default(),
            held_back: Family::default(),
            store_call_seconds: Family::new_with_constructor(|| Histogram::new(SECONDS)),
            store_reconnects: Counter::default(),
            store_up: Gauge::default(),
            connection_reuse_ratio: FloatGauge::default(),
            request_arena_bytes: Histogram::new(ARENA_BYTES),
            projection_lag_seconds: FloatGauge::default(),
            processes: Family::default(),
            process_expired: Counter::default(),
            thread_up: Family::default(),
            connections: Gauge::default(),
            connections_refused: Counter::default(),
            accept_errors: Counter::default(),
            tls_handshake_errors: Family::default(),
            spans_exported: Counter::default(),
            spans_dropped: Counter::default(),
            store_calls: AtomicU64::new(0),
            registry: Registry::default(),
        };
        metrics.register();
        // A series that appears with its first event has no increase to alert on.
        for reason in Reason::ALL {
            let _ = metrics.dlq_events.get_or_create(&ReasonLabel { reason: reason.as_str() });
        }
        for result in ["success", "retry", "dlq", "duplicate"] {
            let _ = metrics.processor_events.get_or_create(&ResultLabel { result });
        }
        for status in [500, 503] {
            let _ = metrics.gateway_requests.get_or_create(&StatusLabel { status });
        }
        metrics
    }

    fn register(&mut self) {
        let r = &mut self.registry;
        super::process::register(r);
        r.register(
            "gateway_requests",
            "Requests answered, by status; probes and scrapes are not counted",
            self.gateway_requests.clone(),
        );
        r.register(
            "gateway_request_duration_ms",
            "Milliseconds from a complete request to its reply",
            self.gateway_request_duration_ms.clone(),
        );
        r.register(
            "gateway_request_duration_seconds",
            "Seconds from a complete request to its reply",
            self.gateway_request_duration_seconds.clone(),
        );
        r.register(
            "processor_events",
            "Events processed, by result",
            self.processor_events.clone(),
        );
        r.register(
            "processor_lag_seconds",
            "Age of the oldest event that is accepted and not yet applied",
            self.processor_lag_seconds.clone(),
        );
        r.register("dlq_events", "Events set aside, by reason", self.dlq_events.clone());
        r.register(
            "end_to_end_freshness_seconds",
            "Seconds from the receipt of an event to its committed effect",
            self.end_to_end_freshness_seconds.clone(),
        );
        r.register(
            "sentinel_dequeue_latency_seconds",
            "Seconds from the commit of an event to its claim",
            self.dequeue_latency_seconds.clone(),
        );
        r.register("sentinel_log_rows", "Log rows committed", self.log_rows.clone());
        r.register(
            "sentinel_log_rows_shed",
            "Log rows lost for lack of space or room",
            self.log_rows_shed.clone(),
        );
        r.register(
            "sentinel_log_batch_seconds",
            "Seconds that one bulk insert of log rows took",
            self.log_batch_seconds.clone(),
        );
        r.register(
            "sentinel_channel_depth",
            "Entries waiting in a channel",
            self.channel_depth.clone(),
        );
        r.register(
            "sentinel_inflight_bytes",
            "Bytes held by bodies that are read or wait for a worker, and by payloads that wait for their commit",
            self.inflight_bytes.clone(),
        );
        r.register(
            "sentinel_held_back",
            "Requests answered 503 because their tenant holds as much of a queue as is left to others",
            self.held_back.clone(),
        );
        r.register(
            "sentinel_store_call_seconds",
            "Seconds that a store call took; of status, one call in 64 is timed",
            self.store_call_seconds.clone(),
        );
        r.register(
            "sentinel_store_reconnects",
            "Store sessions that were lost and opened again",
            self.store_reconnects.clone(),
        );
        r.register(
            "sentinel_store_up",
            "1 while the store answers reads and takes writes",
            self.store_up.clone(),
        );
        r.register(
            "sentinel_connection_reuse_ratio",
            "Share of store calls served by a session that was already open",
            self.connection_reuse_ratio.clone(),
        );
        r.register(
            "sentinel_request_arena_bytes",
            "Arena bytes used by one request",
            self.request_arena_bytes.clone(),
        );
        r.register(
            "sentinel_projection_lag_seconds",
            "Seconds by which lists and streams are behind acceptance",
            self.projection_lag_seconds.clone(),
        );
        r.register("sentinel_processes", "Processes known, by status", self.processes.clone());
        r.register(
            "sentinel_process_expired",
            "Processes that fell silent past their deadline",
            self.process_expired.clone(),
        );
        r.register("sentinel_thread_up", "1 while the thread runs", self.thread_up.clone());
        r.register("sentinel_connections", "Open HTTP connections", self.connections.clone());
        r.register(
            "sentinel_connections_refused",
            "HTTP connections turned away because there are too many",
            self.connections_refused.clone(),
        );
        r.register(
            "sentinel_accept_errors",
            "Accepts of a connection that failed",
            self.accept_errors.clone(),
        );
        r.register(
            "sentinel_tls_handshake_errors",
            "TLS handshakes that came to nothing, by reason",
            self.tls_handshake_errors.clone(),
        );
        r.register(
            "sentinel_spans_exported",
            "Spans of traces that the collector took",
            self.spans_exported.clone(),
        );
        r.register(
            "sentinel_spans_dropped",
            "Spans of traces lost for lack of room or of a collector that takes them",
            self.spans_dropped.clone(),
        );
    }

    /// Counts a reply. `trace`: the recorded trace that it belongs to.
    pub fn replied(
        &self,
        status: u16,
        took: Duration,
        arena_bytes: usize,
        trace: Option<[u8; 16]>,
    ) {
        self.gateway_requests.get_or_create(&StatusLabel { status }).inc();
        self.gateway_request_duration_ms.observe(took.as_secs_f64() * 1000.0);
        observe(&self.gateway_request_duration_seconds, took.as_secs_f64(), trace);
        self.request_arena_bytes.observe(f64::from(u32::try_from(arena_bytes).unwrap_or(u32::MAX)));
    }

    /// Counts an event whose effect is committed. `trace`: the recorded trace that it belongs to.
    pub fn fresh(&self, took: Duration, trace: Option<[u8; 16]>) {
        observe(&self.end_to_end_freshness_seconds, took.as_secs_f64(), trace);
    }

    /// Counts a dead letter.
    pub fn dead_letter(&self, reason: Reason) {
        self.dlq_events.get_or_create(&ReasonLabel { reason: reason.as_str() }).inc();
    }

    /// Counts `count` processed events with `result`: success, retry, dlq or duplicate.
    pub fn processed(&self, result: &'static str, count: u64) {
        self.processor_events.get_or_create(&ResultLabel { result }).inc_by(count);
    }

    /// Notes how long a store call took.
    pub fn store_call(&self, call: StoreCall, took: Duration) {
        self.store_calls.fetch_add(1, Ordering::Relaxed);
        let label = CallLabel { call: call.as_str() };
        self.store_call_seconds.get_or_create(&label).observe(took.as_secs_f64());
    }

    /// Makes a store call and notes how long it took.
    pub fn timed<T>(&self, call: StoreCall, work: impl FnOnce() -> T) -> T {
        let begun = Instant::now();
        let done = work();
        self.store_call(call, begun.elapsed());
        done
    }

    /// Notes what the front has counted by now: `open` connections, and since the start those `refused` for lack of
    /// room and the accepts that `failed`.
    pub fn front(&self, open: usize, refused: u64, failed: u64) {
        self.connections.set(i64::try_from(open).unwrap_or(i64::MAX));
        // Two scrapes may come at once, and a counter never falls.
        self.connections_refused.inner().fetch_max(refused, Ordering::Relaxed);
        self.accept_errors.inner().fetch_max(failed, Ordering::Relaxed);
    }

    /// Notes that by now `failed` TLS handshakes have come to nothing for `reason`.
    pub fn handshakes_failed(&self, reason: &'static str, failed: u64) {
        let counter = self.tls_handshake_errors.get_or_create(&ReasonLabel { reason });
        counter.inner().fetch_max(failed, Ordering::Relaxed);
    }

    /// Notes how many bytes `pool` holds now.
    pub fn inflight(&self, pool: &'static str, bytes: usize) {
        let gauge = self.inflight_bytes.get_or_create(&PoolLabel { pool });
        gauge.set(i64::try_from(bytes).unwrap_or(i64::MAX));
    }

    /// Notes that by now `requests` found no room in `pool` because their tenant had its share.
    pub fn held_back(&self, pool: &'static str, requests: u64) {
        let counter = self.held_back.get_or_create(&PoolLabel { pool });
        counter.inner().fetch_max(requests, Ordering::Relaxed);
    }

    /// Notes that by now so many sessions were lost and opened again, and with it the share of store calls that found
    /// an open one: all of them, where nothing was opened again.
    pub fn reconnected(&self, times: u64) {
        self.store_reconnects.inner().fetch_max(times, Ordering::Relaxed);
        let calls = self.store_calls.load(Ordering::Relaxed);
        let fresh = self.store_reconnects.get().min(calls);
        let share = if calls == 0 { 1.0 } else { (calls - fresh) as f64 / calls as f64 };
        self.connection_reuse_ratio.set(share);
    }

    /// The registry, for the encoders.
    pub fn registry(&self) -> &Registry {
        &self.registry
    }
}

/// Observes `value`, with `trace` as its exemplar.
fn observe(histogram: &HistogramWithExemplars<TraceLabel>, value: f64, trace: Option<[u8; 16]>) {
    match trace {
        None => histogram.observe(value, None, None),
        Some(trace) => {
            let trace_id = format!("{:032x}", u128::from_be_bytes(trace));
            histogram.observe(value, Some(TraceLabel { trace_id }), Some(SystemTime::now()));
        }
    }
}

impl Default for Metrics {
    fn default() -> Self {
        Self::new()
    }
}
