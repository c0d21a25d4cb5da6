//! One event is one trace, also across a queue that other people's PL/SQL fills: the trace context travels in the payload.

use serde_json::json;

use super::Site;
use crate::collector::{Collector, Manner, attributes, hex};
use crate::harness::{envelope, eventually};
use crate::traces::{check_chain, tree};

const CALLER: &str = "0af7651916cd43dd8448eb211c80319c";
const CALLER_SPAN: &str = "b7ad6b7169203331";

#[test]
fn a_posted_event_is_one_trace_on_both_sides_of_the_queue() {
    let Some(site) = Site::start() else { return };
    let collector = Collector::start(Manner::Takes);
    let url = collector.url();
    let variables =
        [("OTEL_EXPORTER_OTLP_ENDPOINT", url.as_str()), ("OTEL_BSP_SCHEDULE_DELAY", "20")];
    let instance = site.instance(&variables);
    let mut client = site.client(&instance, "demo");
    let parent = format!("00-{CALLER}-{CALLER_SPAN}-01");
    let fields = [
        ("Content-Type", "application/json"),
        ("Idempotency-Key", "key-1"),
        ("traceparent", parent.as_str()),
    ];
    let body = envelope(1, "order-1", json!({"n": 1})).to_string();
    let answer = client.request("POST", "/v1/events", &fields, body.as_bytes()).expect(202).json();
    assert_eq!(answer["traceId"], CALLER);
    let tree = tree(&collector, CALLER);
    check_chain(&tree);
    assert_eq!(hex(&tree["receive"].parent_span_id), CALLER_SPAN);
    for (step, span) in &tree {
        let attributes = attributes(&span.attributes);
        assert_eq!(attributes["event.id"], answer["eventId"].as_str().unwrap(), "{step}");
        assert_eq!(attributes["idempotencyKey"], "key-1", "{step}");
    }
    assert_eq!(instance.terminate(), 0);
}

/// Puts a report into the queue as `sentinel_pkg` does, with further members of its payload.
fn report(site: &Site, event_id: &str, seq: u64, more: &str) {
    site.standin.sql(&format!(
        "INSERT INTO standin.message (event_id, event_type, process_id, tenant_id, priority, payload) \
         VALUES ('{event_id}', 'PROGRESS', 'nightly', 'demo', 5, \
         '{{\"streamSeq\":{seq},\"source\":\"plsql\",\"data\":{{}}{more}}}')"
    ));
}

#[test]
fn a_report_of_plsql_goes_on_in_its_callers_trace_or_begins_one_as_the_sampler_says() {
    let Some(site) = Site::start() else { return };
    let traceparent =
        |flags: &str| format!(r#","traceparent":"00-{CALLER}-{CALLER_SPAN}-{flags}""#);
    // The caller's word counts by default, and with always_off nothing is recorded, whoever asks for it.
    for (sampler, first_seq, expected) in
        [("parentbased_always_on", 1, &["with", "without"][..]), ("always_off", 4, &[][..])]
    {
        let collector = Collector::start(Manner::Takes);
        let url = collector.url();
        let variables =
            [("OTEL_EXPORTER_OTLP_ENDPOINT", url.as_str()), ("OTEL_TRACES_SAMPLER", sampler)];
        let instance = site.instance(&variables);
        report(&site, &format!("with-{first_seq}"), first_seq, &traceparent("01"));
        report(&site, &format!("without-{first_seq}"), first_seq + 1, "");
        report(&site, &format!("unwanted-{first_seq}"), first_seq + 2, &traceparent("00"));
        let mut client = site.client(&instance, "demo");
        // Two listeners share the queue, so the last one may be applied before the one in the middle.
        eventually("all are applied", || {
            let page = client.get("/v1/streams/nightly/events");
            let events =
                (page.status == 200).then(|| page.json()["events"].as_array().cloned())??;
            (events.len() as u64 == first_seq + 2).then_some(())
        });
        // A stop sends everything that was recorded.
        assert_eq!(instance.terminate(), 0);
        assert_eq!(collector.count(), expected.len() * 3, "{sampler}");
        for which in expected {
            let taken = collector.taken.lock();
            let span = |name: &str| {
                let mut named = taken.spans.iter().filter(|span| {
                    let attributes = attributes(&span.attributes);
                    span.name == name && attributes["event.id"] == format!("{which}-{first_seq}")
                });
                named.next().expect("the step is recorded").clone()
            };
            let (claim, apply, publish) = (span("claim"), span("apply"), span("publish"));
            assert_eq!(apply.parent_span_id, claim.span_id);
            assert_eq!(publish.parent_span_id, apply.span_id);
            assert_eq!(publish.trace_id, claim.trace_id);
            let facts = attributes(&claim.attributes);
            assert_eq!((&*facts["source"], &*facts["process.id"]), ("plsql", "nightly"));
            if *which == "with" {
                assert_eq!(hex(&claim.trace_id), CALLER);
                assert_eq!(hex(&claim.parent_span_id), CALLER_SPAN);
            } else {
                assert!(claim.parent_span_id.is_empty(), "the trace begins here");
            }
        }
    }
}
