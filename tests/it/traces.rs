//! One event is one trace, from the request to its effect; and nobody waits for a collector.

use std::collections::BTreeMap;
use std::net::{Ipv4Addr, TcpListener};
use std::path::Path;
use std::sync::Arc;
use std::time::{Duration, Instant};

use opentelemetry_proto::tonic::trace::v1::Span;
use opentelemetry_proto::tonic::trace::v1::span::SpanKind;
use opentelemetry_proto::tonic::trace::v1::status::StatusCode;
use sentinel::component::Stop;
use sentinel::domain::apply::Change;
use sentinel::domain::ids::{ProcessId, TenantId};
use sentinel::domain::process::State;
use sentinel::domain::time::Timestamp;
use sentinel::listener::Jitter;
use sentinel::service::{Parts, policy, wall_clock};
use sentinel::store::{Claim, ListenerSession, Result, StoreError};
use sentinel::telemetry::traces::EVENTS_PER_REQUEST_MAX;
use serde_json::json;

use crate::collector::{Collector, Manner, attributes, hex};
use crate::harness::{Client, InProcess, config, envelope, eventually, stop, token};

const STEPS: [&str; 5] = ["receive", "durable", "claim", "apply", "publish"];
const CALLER: &str = "4bf92f3577b34da6a3ce929d0e0e4736";
const CALLER_SPAN: &str = "00f067aa0ba902b7";

/// A service that sends its traces to `endpoint` at once, with further variables.
fn traced(folder: &Path, endpoint: &str, variables: &[(&str, &str)]) -> InProcess {
    let mut all = variables.to_vec();
    all.extend([("OTEL_EXPORTER_OTLP_ENDPOINT", endpoint), ("OTEL_BSP_SCHEDULE_DELAY", "20")]);
    InProcess::start(folder, wall_clock(), Parts::ALL, &all)
}

/// Posts an event under the caller's trace, with these flags.
fn post(client: &mut Client, key: &str, id: u128, flags: &str) -> crate::harness::Response {
    let parent = format!("00-{CALLER}-{CALLER_SPAN}-{flags}");
    let fields = [
        ("Content-Type", "application/json"),
        ("Idempotency-Key", key),
        ("traceparent", parent.as_str()),
    ];
    let body = envelope(id, "order-1", json!({"card": "payload-marker"})).to_string();
    client.request("POST", "/v1/events", &fields, body.as_bytes())
}

/// The five spans of a trace by name, once all are there.
pub(crate) fn tree(collector: &Collector, trace_id: &str) -> BTreeMap<String, Span> {
    let spans = eventually("the whole trace arrives", || {
        let spans = collector.trace(trace_id);
        (spans.len() >= STEPS.len()).then_some(spans)
    });
    assert_eq!(spans.len(), STEPS.len(), "{spans:?}");
    spans.into_iter().map(|span| (span.name.clone(), span)).collect()
}

/// Each span is the child of the one before it, and none ends before it begins.
pub(crate) fn check_chain(tree: &BTreeMap<String, Span>) {
    for pair in STEPS.windows(2) {
        let (parent, child) = (&tree[pair[0]], &tree[pair[1]]);
        assert_eq!(hex(&child.parent_span_id), hex(&parent.span_id), "{pair:?}");
        assert_eq!(child.trace_id, parent.trace_id);
    }
    for span in tree.values() {
        assert!(span.start_time_unix_nano <= span.end_time_unix_nano, "{span:?}");
    }
}

#[test]
fn an_event_is_one_trace_from_the_request_to_its_effect_and_carries_no_secret() {
    let folder = tempfile::tempdir().unwrap();
    let collector = Collector::start(Manner::Takes);
    let variables = [
        ("OTEL_EXPORTER_OTLP_HEADERS", "api-key=header%20secret"),
        ("OTEL_SERVICE_NAME", "sentinel-under-test"),
        ("OTEL_RESOURCE_ATTRIBUTES", "deployment.environment.name=test,service.name=other"),
    ];
    let service = traced(folder.path(), &collector.url(), &variables);
    let mut client = service.client("demo");
    let answer = post(&mut client, "key-1", 1, "01").expect(202).json();
    assert_eq!(answer["traceId"], CALLER, "the answer names the trace that is recorded");

    let tree = tree(&collector, CALLER);
    check_chain(&tree);
    assert_eq!(hex(&tree["receive"].parent_span_id), CALLER_SPAN);
    let kinds = STEPS.map(|step| tree[step].kind());
    let (server, producer) = (SpanKind::Server, SpanKind::Producer);
    assert_eq!(kinds, [server, producer, SpanKind::Consumer, SpanKind::Internal, producer]);
    for step in STEPS {
        let attributes = attributes(&tree[step].attributes);
        for (name, value) in [
            ("tenant.id", "demo"),
            ("event.id", answer["eventId"].as_str().unwrap()),
            ("event.type", "OrderCreated"),
            ("source", "orders-api"),
            ("streamKey", "order-1"),
            ("idempotencyKey", "key-1"),
        ] {
            assert_eq!(attributes[name], value, "{step}");
        }
        assert!(!attributes.contains_key("process.id"), "{step}: an order is no process");
    }
    let receive = attributes(&tree["receive"].attributes);
    assert_eq!(receive["http.route"], "/v1/events");
    assert_eq!(receive["http.request.method"], "POST");
    assert_eq!(receive["http.response.status_code"], "202");
    assert_eq!(attributes(&tree["durable"].attributes)["sentinel.outcome"], "accepted");

    let taken = collector.taken.lock();
    assert_eq!(taken.resource["service.name"], "sentinel-under-test");
    assert_eq!(taken.resource["deployment.environment.name"], "test");
    assert!(taken.heads[0].starts_with("POST /v1/traces HTTP/1.1\r\n"), "{}", taken.heads[0]);
    assert!(taken.heads[0].contains("api-key: header secret\r\n"), "{}", taken.heads[0]);
    assert!(taken.heads[0].contains("content-type: application/x-protobuf\r\n"));
    let token = token(&service.folder, "demo", &["sentinel:operate"]);
    let (_, signature) = token.rsplit_once('.').unwrap();
    for body in &taken.bodies {
        let text = String::from_utf8_lossy(body);
        for secret in ["payload-marker", "Bearer", signature, "header secret"] {
            assert!(!text.contains(secret), "{secret} is in a span");
        }
    }
    drop(taken);
    service.stop();
}

#[test]
fn a_report_of_a_process_begins_a_trace_of_its_own_and_names_the_process() {
    let folder = tempfile::tempdir().unwrap();
    let collector = Collector::start(Manner::Takes);
    let service = traced(folder.path(), &collector.url(), &[]);
    let mut client = service.client("demo");
    let start = client.post("/internal/start", &json!({"process_id": "import-17"})).expect(202);
    let trace_id = start.json()["traceId"].as_str().unwrap().to_owned();
    let tree = tree(&collector, &trace_id);
    check_chain(&tree);
    assert!(tree["receive"].parent_span_id.is_empty(), "the trace begins here");
    for step in STEPS {
        assert_eq!(attributes(&tree[step].attributes)["process.id"], "import-17", "{step}");
    }
    assert_eq!(attributes(&tree["receive"].attributes)["http.route"], "/internal/start");
    service.stop();
}

#[test]
fn a_repeat_is_received_and_not_applied_again() {
    let folder = tempfile::tempdir().unwrap();
    let collector = Collector::start(Manner::Takes);
    let service = traced(folder.path(), &collector.url(), &[]);
    let mut client = service.client("demo");
    client.event("key-1", &envelope(1, "order-1", json!({}))).expect(202);
    let again = client.event("key-1", &envelope(1, "order-1", json!({}))).expect(202).json();
    let trace_id = again["traceId"].as_str().unwrap().to_owned();
    // What is sent last comes last, so the repeat's spans are there when these are.
    let last = client.event("key-2", &envelope(2, "order-1", json!({}))).expect(202).json();
    tree(&collector, last["traceId"].as_str().unwrap());
    let names: Vec<String> =
        collector.trace(&trace_id).iter().map(|span| span.name.clone()).collect();
    assert_eq!(names, ["durable", "receive"]);
    let durable = collector.trace(&trace_id).remove(0);
    assert_eq!(attributes(&durable.attributes)["sentinel.outcome"], "replayed");
    service.stop();
}

#[test]
fn a_caller_and_a_sampler_decide_what_is_recorded() {
    for (variables, flags, is_recorded) in [
        (&[][..], "00", false),
        (&[][..], "01", true),
        (&[("OTEL_TRACES_SAMPLER", "always_on")][..], "00", true),
        (&[("OTEL_TRACES_SAMPLER", "always_off")][..], "01", false),
        (&[("OTEL_TRACES_SAMPLER", "parentbased_always_off")][..], "01", true),
        (
            &[("OTEL_TRACES_SAMPLER", "traceidratio"), ("OTEL_TRACES_SAMPLER_ARG", "0")][..],
            "01",
            false,
        ),
    ] {
        let folder = tempfile::tempdir().unwrap();
        let collector = Collector::start(Manner::Takes);
        let service = traced(folder.path(), &collector.url(), variables);
        let mut client = service.client("demo");
        post(&mut client, "key-1", 1, flags).expect(202);
        eventually("the event is applied", || {
            (client.get("/v1/streams/order-1").status == 200).then_some(())
        });
        // A stop sends everything that was recorded.
        service.stop();
        let expected = if is_recorded { STEPS.len() } else { 0 };
        assert_eq!(collector.trace(CALLER).len(), expected, "{variables:?} {flags}");
    }
}

#[test]
fn a_thousand_events_of_one_request_make_a_bounded_number_of_spans() {
    let folder = tempfile::tempdir().unwrap();
    let collector = Collector::start(Manner::Takes);
    let service = traced(folder.path(), &collector.url(), &[]);
    let mut client = service.client("demo");
    let lines: Vec<String> =
        (0..1000).map(|id| envelope(id << 4, "order-1", json!({})).to_string()).collect();
    let fields = [("Content-Type", "application/x-ndjson")];
    client.request("POST", "/v1/events", &fields, lines.join("\n").as_bytes()).expect(202);
    eventually("all are applied", || {
        let stream = client.get("/v1/streams/order-1");
        (stream.status == 200 && stream.json()["appliedSeq"] == 1000).then_some(())
    });
    service.stop();
    assert_eq!(collector.count(), 2 + 3 * EVENTS_PER_REQUEST_MAX);
    let taken = collector.taken.lock();
    let named =
        |name: &str| taken.spans.iter().filter(|span| span.name == name).collect::<Vec<_>>();
    let (receive, durable) = (named("receive"), named("durable"));
    assert_eq!((receive.len(), durable.len()), (1, 1));
    assert_eq!(attributes(&durable[0].attributes)["messaging.batch.message_count"], "1000");
    for claim in named("claim") {
        assert_eq!(claim.parent_span_id, durable[0].span_id);
    }
}

/// A session that takes no event, only dead letters.
struct Refusing(Box<dyn ListenerSession>);

impl ListenerSession for Refusing {
    fn claim(&mut self, max: usize, wait: Duration, stop: &Stop) -> Result<Claim> {
        self.0.claim(max, wait, stop)
    }

    fn load(&mut self, processes: &[(TenantId, ProcessId)]) -> Result<Vec<Option<State>>> {
        self.0.load(processes)
    }

    fn settle(&mut self, claim: Claim, change: Change, now: Timestamp) -> Result<()> {
        if change.events.is_empty() {
            return self.0.settle(claim, change, now);
        }
        Err(StoreError::Refused { call: "settle", source: "on purpose".into() })
    }
}

#[test]
fn a_dead_letter_is_a_failed_span_with_its_reason() {
    let folder = tempfile::tempdir().unwrap();
    let collector = Collector::start(Manner::Takes);
    let url = collector.url();
    let variables = [("OTEL_EXPORTER_OTLP_ENDPOINT", url.as_str())];
    let parts = Parts { listener: false, ..Parts::ALL };
    let service = InProcess::start(folder.path(), wall_clock(), parts, &variables);
    let answer =
        service.client("demo").event("key-1", &envelope(1, "s", json!({}))).expect(202).json();
    let policy = policy(&config(folder.path(), &variables));
    let mut listener = service.service.listener(&wall_clock(), policy, &Arc::default());
    let mut session = Refusing(service.service.store().listener().unwrap());
    let (stop, _idle) = stop();
    let mut jitter = Jitter::new(0);
    let passed = listener.pass(&mut session, Duration::ZERO, &stop, &mut jitter).unwrap();
    assert_eq!(passed.settled, 1);
    drop((listener, session));
    service.stop();
    let tree = tree(&collector, answer["traceId"].as_str().unwrap());
    check_chain(&tree);
    let status = tree["apply"].status.as_ref().unwrap();
    assert_eq!(status.code(), StatusCode::Error, "{status:?}");
    let attributes = attributes(&tree["apply"].attributes);
    assert_eq!(attributes["sentinel.dead_letter.reason"], "invalid_payload");
}

/// The value of a counter without labels.
fn counter(client: &mut Client, name: &str) -> f64 {
    let text = client.get("/metrics").expect(200).text();
    let line = text.lines().find_map(|line| line.strip_prefix(&format!("{name} ")));
    line.expect("the counter is there").parse().unwrap()
}

#[test]
fn a_stop_sends_what_was_recorded_and_waits() {
    let folder = tempfile::tempdir().unwrap();
    let collector = Collector::start(Manner::Takes);
    let variables = [
        ("OTEL_EXPORTER_OTLP_ENDPOINT", collector.url()),
        ("OTEL_BSP_SCHEDULE_DELAY", "600000".to_owned()),
    ];
    let variables = variables.each_ref().map(|(name, value)| (*name, value.as_str()));
    let service = InProcess::start(folder.path(), wall_clock(), Parts::ALL, &variables);
    let mut client = service.client("demo");
    for id in 0..20 {
        client.event(&format!("key-{id}"), &envelope(id << 4, "order-1", json!({}))).expect(202);
    }
    eventually("all are applied", || {
        let stream = client.get("/v1/streams/order-1");
        (stream.status == 200 && stream.json()["appliedSeq"] == 20).then_some(())
    });
    assert_eq!(collector.count(), 0, "the batch is not due yet");
    service.stop();
    assert_eq!(collector.count(), 20 * STEPS.len());
}

#[test]
fn a_dead_collector_costs_spans_and_nothing_else() {
    let nobody = {
        let socket = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).unwrap();
        format!("http://{}", socket.local_addr().unwrap())
    };
    let silent = Collector::start(Manner::Silent);
    let refusing = Collector::start(Manner::Refuses(403));
    for (endpoint, what) in [(silent.url(), "silent"), (refusing.url(), "403"), (nobody, "gone")] {
        let folder = tempfile::tempdir().unwrap();
        let variables = [
            ("OTEL_BSP_MAX_QUEUE_SIZE", "60"),
            ("OTEL_BSP_MAX_EXPORT_BATCH_SIZE", "10"),
            ("OTEL_EXPORTER_OTLP_TIMEOUT", "2000"),
            ("SENTINEL_SHUTDOWN_TIMEOUT_SEC", "20"),
        ];
        let service = traced(folder.path(), &endpoint, &variables);
        let mut client = service.client("demo");
        // Many times what the queue holds, and everything is taken and applied.
        for id in 0..200 {
            client
                .event(&format!("key-{id}"), &envelope(id << 4, "order-1", json!({})))
                .expect(202);
        }
        eventually("all are applied", || {
            let stream = client.get("/v1/streams/order-1");
            (stream.status == 200 && stream.json()["appliedSeq"] == 200).then_some(())
        });
        eventually("what is lost is counted", || {
            (counter(&mut client, "sentinel_spans_dropped_total") > 60.0).then_some(())
        });
        assert_eq!(counter(&mut client, "sentinel_spans_exported_total"), 0.0, "{what}");
        let begun = Instant::now();
        service.stop();
        // One batch under way, and no second one after its failure.
        assert!(begun.elapsed() < Duration::from_secs(10), "{what}: {:?}", begun.elapsed());
    }
}

#[test]
fn what_a_collector_rejects_of_a_batch_is_counted_as_dropped() {
    let folder = tempfile::tempdir().unwrap();
    let collector = Collector::start(Manner::Rejects(1));
    // All five spans make one batch.
    let variables = [("OTEL_BSP_MAX_EXPORT_BATCH_SIZE", "5"), ("OTEL_BSP_SCHEDULE_DELAY", "60000")];
    let service = traced(folder.path(), &collector.url(), &variables);
    let mut client = service.client("demo");
    post(&mut client, "key-1", 1, "01").expect(202);
    eventually("the batch is counted", || {
        (counter(&mut client, "sentinel_spans_exported_total") > 0.0).then_some(())
    });
    assert_eq!(counter(&mut client, "sentinel_spans_exported_total"), 4.0);
    assert_eq!(counter(&mut client, "sentinel_spans_dropped_total"), 1.0);
    service.stop();
}

#[test]
fn a_collector_that_comes_back_is_sent_traces_again() {
    let folder = tempfile::tempdir().unwrap();
    let port = {
        let socket = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).unwrap();
        socket.local_addr().unwrap().port()
    };
    let relay = format!("http://127.0.0.1:{port}");
    let service = traced(folder.path(), &relay, &[("OTEL_EXPORTER_OTLP_TIMEOUT", "1000")]);
    let mut client = service.client("demo");
    client.event("key-1", &envelope(1 << 4, "order-1", json!({}))).expect(202);
    eventually("the first spans are lost", || {
        (counter(&mut client, "sentinel_spans_dropped_total") > 0.0).then_some(())
    });
    let collector = Collector::start_on(port, Manner::Takes);
    let mut id = 2;
    eventually("spans arrive again", || {
        client.event(&format!("key-{id}"), &envelope(id << 4, "order-1", json!({}))).expect(202);
        id += 1;
        (collector.count() > 0).then_some(())
    });
    eventually("what arrived is counted once it is answered", || {
        (counter(&mut client, "sentinel_spans_exported_total") > 0.0).then_some(())
    });
    service.stop();
}

#[test]
fn the_latency_histograms_point_to_recorded_traces_in_openmetrics_only() {
    let folder = tempfile::tempdir().unwrap();
    let collector = Collector::start(Manner::Takes);
    let service = traced(folder.path(), &collector.url(), &[]);
    let mut client = service.client("demo");
    post(&mut client, "key-1", 1, "01").expect(202);
    tree(&collector, CALLER);
    let fields = [("Accept", "application/openmetrics-text; version=1.0.0")];
    let open = client.request("GET", "/metrics", &fields, b"").expect(200).text();
    let exemplar = format!("# {{trace_id=\"{CALLER}\"}} ");
    for name in ["gateway_request_duration_seconds_bucket", "end_to_end_freshness_seconds_bucket"] {
        let pointing =
            open.lines().filter(|line| line.starts_with(name) && line.contains(&exemplar));
        assert_eq!(pointing.count(), 1, "{name}: {open}");
    }
    let plain = client.get("/metrics").expect(200).text();
    assert!(!plain.contains("trace_id"), "{plain}");
    // What is not recorded is no exemplar: nobody could find it.
    post(&mut client, "key-2", 2, "00").expect(202);
    let again = client.request("GET", "/metrics", &fields, b"").expect(200).text();
    let requests = again.lines().filter(|line| {
        line.starts_with("gateway_request_duration_seconds_bucket") && line.contains("trace_id")
    });
    assert_eq!(requests.count(), 1);
    service.stop();
}

#[test]
fn without_an_endpoint_or_when_disabled_there_is_no_exporter() {
    for variables in [
        &[][..],
        &[("OTEL_EXPORTER_OTLP_ENDPOINT", "http://127.0.0.1:1"), ("OTEL_SDK_DISABLED", "true")][..],
    ] {
        let folder = tempfile::tempdir().unwrap();
        let service = InProcess::start(folder.path(), wall_clock(), Parts::ALL, variables);
        let mut client = service.client("demo");
        post(&mut client, "key-1", 1, "01").expect(202);
        let text = client.get("/metrics").expect(200).text();
        assert!(text.contains("sentinel_thread_up{thread=\"listener-0\"} 1"));
        assert!(!text.contains("thread=\"exporter\""), "{text}");
        service.stop();
    }
}

/// A server's TLS of this version, and the certificate that vouches for it.
fn tls(version: &'static rustls::SupportedProtocolVersion) -> (Arc<rustls::ServerConfig>, String) {
    let certified = rcgen::generate_simple_self_signed(vec!["localhost".to_owned()]).unwrap();
    let key =
        rustls_pki_types::PrivateKeyDer::try_from(certified.key_pair.serialize_der()).unwrap();
    let ring = Arc::new(rustls::crypto::ring::default_provider());
    let config = rustls::ServerConfig::builder_with_provider(ring)
        .with_protocol_versions(&[version])
        .unwrap()
        .with_no_client_auth()
        .with_single_cert(vec![certified.cert.der().clone()], key)
        .unwrap();
    (Arc::new(config), certified.cert.pem())
}

#[test]
fn a_collector_is_spoken_to_over_tls_1_3_with_its_private_ca_and_not_over_1_2() {
    for (version, is_spoken_to) in
        [(&rustls::version::TLS13, true), (&rustls::version::TLS12, false)]
    {
        let folder = tempfile::tempdir().unwrap();
        let (config, pem) = tls(version);
        let ca_file = folder.path().join("ca.pem");
        std::fs::write(&ca_file, pem).unwrap();
        let collector = Collector::start(Manner::TakesOverTls(config));
        let endpoint = format!("https://localhost:{}", collector.address.port());
        let variables = [("OTEL_EXPORTER_OTLP_CERTIFICATE", ca_file.to_str().unwrap())];
        let service = traced(folder.path(), &endpoint, &variables);
        let mut client = service.client("demo");
        post(&mut client, "key-1", 1, "01").expect(202);
        if is_spoken_to {
            tree(&collector, CALLER);
        } else {
            eventually("the spans are lost", || {
                (counter(&mut client, "sentinel_spans_dropped_total") > 0.0).then_some(())
            });
            assert_eq!(collector.count(), 0);
        }
        service.stop();
    }
}
