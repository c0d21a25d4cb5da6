//! What is recorded, and what is written into the trace context of an event. This module needs no collector.

use std::path::PathBuf;
use std::time::Duration;

use super::*;
use crate::config::WebAddress;
use crate::domain::event::{Envelope, IdOrigin, PayloadHash};
use crate::domain::ids::{EventId, EventType, Source, StreamKey, TenantId};
use crate::mailbox::Answer;

const OTHERS_SPAN: [u8; 8] = [0xaa; 8];

fn tracer(sampling: Sampling, queue_spans_max: usize) -> (Tracer, Receiver<Recorded>, Counter) {
    let settings = Traces {
        endpoint: WebAddress::parse("http://127.0.0.1:4318/v1/traces").unwrap(),
        headers: Vec::new(),
        timeout: Duration::from_secs(10),
        ca_file: None::<PathBuf>,
        service_name: "test".to_owned(),
        service_name_is_given: false,
        resource: Vec::new(),
        sampling,
        queue_spans_max,
        batch_spans_max: 1,
        batch_wait: Duration::from_secs(1),
    };
    let dropped = Counter::default();
    let clock = Arc::new(|| Timestamp::from_micros(1_000));
    let (tracer, recorded) = Tracer::new(&settings, clock, dropped.clone());
    (tracer, recorded, dropped)
}

fn trace(id: u8, parent_id: [u8; 8], sampled: bool) -> TraceContext {
    TraceContext { trace_id: [id; 16], parent_id, sampled }
}

fn envelope(trace: TraceContext) -> Envelope {
    Envelope {
        tenant: TenantId::parse("t1").unwrap(),
        event_id: EventId::parse("e1").unwrap(),
        id_origin: IdOrigin::Door,
        source: Source::parse("orders-api").unwrap(),
        event_type: EventType::parse("OrderCreated").unwrap(),
        stream: StreamKey::parse("order-1").unwrap(),
        occurred_at: None,
        schema_version: 1,
        payload: "{}".into(),
        key: None,
        hash: PayloadHash([0; 32]),
        trace,
    }
}

fn request(trace: TraceContext) -> Request {
    Request { method: "POST", route: "/v1/events", begun: Timestamp::from_micros(10), trace }
}

const ALL: Sampling = Sampling { parent_based: true, root: RootSampler::AlwaysOn };
const ROOM: usize = 1000;

#[test]
fn a_share_of_the_traces_is_recorded_and_a_caller_goes_before_it() {
    let sampling = Sampling { parent_based: true, root: RootSampler::TraceIdRatio(0.25) };
    let (tracer, _recorded, _) = tracer(sampling, ROOM);
    let begun = (0..4000).filter(|_| tracer.begin().sampled).count();
    assert!((800..1200).contains(&begun), "{begun} of 4000 is no quarter");
    for sampled in [true, false] {
        assert_eq!(tracer.samples(&trace(0xff, OTHERS_SPAN, sampled)), sampled);
    }
}

#[test]
fn an_event_goes_on_under_the_span_that_makes_it_durable() {
    let (tracer, recorded, _) = tracer(ALL, ROOM);
    let mut envelopes = [envelope(trace(1, OTHERS_SPAN, true))];
    let Opened { receiving, durable } =
        tracer.open(request(trace(9, [0; 8], false)), &mut envelopes).unwrap();
    durable.answered(&Answer::Unavailable("full"));
    assert_eq!(receiving.answered(503), [1; 16], "a single event decides its request's trace");
    let spans: Vec<Span> = recorded.try_iter().flat_map(Recorded::into_spans).collect();
    let [durable, receive] = &spans[..] else { panic!("{spans:?}") };
    assert_eq!(
        envelopes[0].trace,
        TraceContext { parent_id: durable.span_id, ..trace(1, [0; 8], true) }
    );
    assert_eq!((durable.parent_id, receive.parent_id), (receive.span_id, OTHERS_SPAN));
    assert_eq!(durable.failure.as_deref(), Some("full"));
    assert!(receive.failure.is_some() && receive.parent_is_remote);
}

#[test]
fn of_a_batch_some_events_are_traced_and_one_with_a_trace_of_its_own_stays_in_it() {
    let (tracer, _recorded, _) = tracer(ALL, ROOM);
    let of_request = trace(1, OTHERS_SPAN, true);
    let mut envelopes: Vec<Envelope> = (0..100).map(|_| envelope(of_request)).collect();
    envelopes[0] = envelope(trace(2, [0xbb; 8], true));
    envelopes[1] = envelope(trace(3, [0xcc; 8], false));
    let opened = tracer.open(request(of_request), &mut envelopes).unwrap();
    let traced: Vec<usize> = (0..100).filter(|n| envelopes[*n].trace.sampled).collect();
    assert_eq!(traced.len(), EVENTS_PER_REQUEST_MAX);
    assert_eq!(traced[..3], [0, 2, 3]);
    assert_eq!(
        envelopes[0].trace,
        trace(2, [0xbb; 8], true),
        "its own caller's span is its parent"
    );
    assert!(traced[1..].iter().all(|n| envelopes[*n].trace.parent_id != OTHERS_SPAN));
    drop(opened);
}

#[test]
fn what_is_not_recorded_is_stored_as_such() {
    let sampling = Sampling { parent_based: false, root: RootSampler::AlwaysOff };
    let (tracer, recorded, dropped) = tracer(sampling, ROOM);
    let mut envelopes = [envelope(trace(1, OTHERS_SPAN, true))];
    assert!(tracer.open(request(trace(1, OTHERS_SPAN, true)), &mut envelopes).is_none());
    assert_eq!(envelopes[0].trace, trace(1, OTHERS_SPAN, false));
    assert_eq!((recorded.len(), dropped.get()), (0, 0));
}

#[test]
fn a_full_queue_drops_and_counts_and_has_room_again() {
    let (tracer, recorded, dropped) = tracer(ALL, 3);
    let open =
        || tracer.open(request(trace(1, [0; 8], false)), &mut [envelope(trace(1, [0; 8], false))]);
    // Dropping both records one span, since a posting that is never answered has none.
    for _ in 0..5 {
        drop(open().unwrap());
    }
    assert_eq!((recorded.len(), dropped.get()), (3, 2));
    let spans = recorded.try_iter().flat_map(Recorded::into_spans).count();
    drop(open().unwrap());
    assert_eq!((spans, recorded.len(), dropped.get()), (3, 1, 2));
}
