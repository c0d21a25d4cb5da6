//! What a client may rely on when it posts: once, in order, and the same answer again.

use sentinel::service::{Parts, wall_clock};
use serde_json::{Value, json};

use crate::harness::{InProcess, envelope, eventually};

fn service(folder: &tempfile::TempDir) -> InProcess {
    InProcess::start(folder.path(), wall_clock(), Parts::ALL, &[])
}

/// The events of a stream, once all of `count` are applied.
fn stream(client: &mut crate::harness::Client, key: &str, count: usize) -> Vec<Value> {
    eventually("the stream", || {
        let response = client.get(&format!("/v1/streams/{key}/events?limit=1000"));
        let events = response.json()["events"].as_array().cloned().unwrap_or_default();
        (events.len() >= count).then_some(events)
    })
}

#[test]
fn a_replay_gets_the_first_answer_byte_for_byte_but_the_trace_id() {
    let folder = tempfile::tempdir().unwrap();
    let service = service(&folder);
    let mut client = service.client("demo");
    let event = envelope(1, "order-1", json!({"n": 1}));
    let first = client.event("key-1", &event).expect(202);
    let again = client.event("\"key-1\"", &event).expect(202);
    assert_eq!(first.header("idempotency-replayed"), None);
    assert_eq!(again.header("idempotency-replayed"), Some("true"));
    let without_trace = |response: &crate::harness::Response| {
        let text = response.text();
        let (before, _) = text.split_once("\"traceId\"").expect("an answer carries its traceId");
        before.to_owned()
    };
    assert_eq!(without_trace(&first), without_trace(&again));
    assert_eq!(stream(&mut client, "order-1", 1).len(), 1);
    service.stop();
}

#[test]
fn a_retry_may_make_its_id_and_time_anew() {
    let folder = tempfile::tempdir().unwrap();
    let service = service(&folder);
    let mut client = service.client("demo");
    let first = client.event("key", &envelope(1, "order-1", json!({"a": 1, "b": 2}))).expect(202);
    let mut again = envelope(2, "order-1", json!({"b": 2, "a": 1}));
    again["timestampUtc"] = json!("2026-02-26T15:00:00Z");
    let again = client.event("key", &again).expect(202);
    assert_eq!(first.json()["eventId"], again.json()["eventId"]);
    service.stop();
}

#[test]
fn the_same_key_with_another_payload_is_a_conflict() {
    let folder = tempfile::tempdir().unwrap();
    let service = service(&folder);
    let mut client = service.client("demo");
    client.event("key", &envelope(1, "order-1", json!({"n": 1}))).expect(202);
    let conflict = client.event("key", &envelope(2, "order-1", json!({"n": 2}))).expect(409);
    assert_eq!(conflict.json()["type"], "/problems/idempotency-key-reused");
    service.stop();
}

#[test]
fn the_same_event_id_under_another_key_is_a_replay_or_a_conflict() {
    let folder = tempfile::tempdir().unwrap();
    let service = service(&folder);
    let mut client = service.client("demo");
    client.event("key-1", &envelope(1, "order-1", json!({"n": 1}))).expect(202);
    let replay = client.event("key-2", &envelope(1, "order-1", json!({"n": 1}))).expect(202);
    assert_eq!(replay.header("idempotency-replayed"), Some("true"));
    let conflict = client.event("key-3", &envelope(1, "order-1", json!({"n": 2}))).expect(409);
    assert_eq!(conflict.json()["type"], "/problems/event-id-reused");
    service.stop();
}

#[test]
fn two_concurrent_first_sends_of_one_key_give_one_event() {
    let folder = tempfile::tempdir().unwrap();
    let service = service(&folder);
    let rounds = 20;
    for round in 0..rounds {
        let barrier = std::sync::Barrier::new(4);
        let answers: Vec<(u16, Value, bool)> = std::thread::scope(|scope| {
            let senders: Vec<_> = (0..4)
                .map(|_| {
                    scope.spawn(|| {
                        let mut client = service.client("demo");
                        client.get("/health").expect(200);
                        barrier.wait();
                        let response = client.event(
                            &format!("key-{round}"),
                            &envelope(round, "order-1", json!({"n": 1})),
                        );
                        let replayed = response.header("idempotency-replayed").is_some();
                        (response.status, response.json()["streamSeq"].clone(), replayed)
                    })
                })
                .collect();
            senders.into_iter().map(|sender| sender.join().unwrap()).collect()
        });
        assert!(
            answers.iter().all(|(status, seq, _)| *status == 202 && *seq == json!(round + 1)),
            "{answers:?}"
        );
        assert_eq!(answers.iter().filter(|(_, _, replayed)| !replayed).count(), 1, "{answers:?}");
    }
    let events = stream(&mut service.client("demo"), "order-1", rounds as usize);
    assert_eq!(events.len(), rounds as usize);
    service.stop();
}

#[test]
fn lines_of_a_batch_never_roll_each_other_back() {
    let folder = tempfile::tempdir().unwrap();
    let service = service(&folder);
    let mut client = service.client("demo");
    let good = envelope(1, "order-1", json!({"n": 1})).to_string();
    let other = envelope(2, "order-1", json!({"n": 2})).to_string();
    let body = format!("{good}\n\n{{\"eventId\": 7}}\nnot json\n{other}\n{good}\n");
    let response = client
        .request("POST", "/v1/events", &[("Content-Type", "application/x-ndjson")], body.as_bytes())
        .expect(207);
    assert_eq!(response.header("content-type"), Some("application/x-ndjson"));
    let lines: Vec<Value> =
        response.text().lines().map(|line| serde_json::from_str(line).unwrap()).collect();
    let summary: Vec<(u64, u64)> = lines
        .iter()
        .map(|line| (line["line"].as_u64().unwrap(), line["status"].as_u64().unwrap()))
        .collect();
    assert_eq!(summary, [(1, 202), (3, 400), (4, 400), (5, 202), (6, 202)]);
    assert_eq!((&lines[0]["streamSeq"], &lines[3]["streamSeq"]), (&json!(1), &json!(2)));
    assert_eq!(lines[4]["replayed"], true, "the same source and id again");
    assert_eq!(lines[1]["problem"]["field"], "eventId");
    assert_eq!(stream(&mut client, "order-1", 2).len(), 2);
    service.stop();
}

#[test]
fn a_batch_takes_no_key_and_a_single_event_needs_one() {
    let folder = tempfile::tempdir().unwrap();
    let service = service(&folder);
    let mut client = service.client("demo");
    let line = envelope(1, "order-1", json!({})).to_string();
    let fields = [("Content-Type", "application/x-ndjson"), ("Idempotency-Key", "k")];
    let refused = client.request("POST", "/v1/events", &fields, line.as_bytes()).expect(400);
    assert_eq!(refused.json()["type"], "/problems/idempotency-key-on-batch");
    let refused = client.post("/v1/events", &envelope(1, "order-1", json!({}))).expect(400);
    assert_eq!(refused.json()["type"], "/problems/idempotency-key-missing");
    service.stop();
}

#[test]
fn cloudevents_come_in_all_three_forms() {
    let folder = tempfile::tempdir().unwrap();
    let service = service(&folder);
    let mut client = service.client("demo");
    let cloud = |id: &str| {
        json!({"specversion": "1.0", "id": id, "source": "/orders", "type": "com.example.created",
               "subject": "order-9", "datacontenttype": "application/json", "data": {"id": id}})
    };
    let fields = [("Content-Type", "application/cloudevents+json"), ("Idempotency-Key", "k1")];
    client.request("POST", "/v1/events", &fields, cloud("a").to_string().as_bytes()).expect(202);
    let fields = [
        ("Content-Type", "application/json"),
        ("Idempotency-Key", "k2"),
        ("ce-specversion", "1.0"),
        ("ce-id", "b"),
        ("ce-source", "/orders"),
        ("ce-type", "com.example.created"),
        ("ce-subject", "order-9"),
    ];
    client.request("POST", "/v1/events", &fields, b"{\"id\":\"b\"}").expect(202);
    let batch = json!([cloud("c"), cloud("a"), {"specversion": "1.0"}]);
    let fields = [("Content-Type", "application/cloudevents-batch+json")];
    let response =
        client.request("POST", "/v1/events", &fields, batch.to_string().as_bytes()).expect(207);
    let lines = response.json();
    let statuses: Vec<_> =
        lines.as_array().unwrap().iter().map(|line| line["status"].as_u64().unwrap()).collect();
    assert_eq!(statuses, [202, 202, 400]);
    assert_eq!(lines[1]["replayed"], true);
    let events = stream(&mut client, "order-9", 3);
    let payloads: Vec<_> = events.iter().map(|event| event["payload"]["id"].clone()).collect();
    assert_eq!(payloads, [json!("a"), json!("b"), json!("c")]);
    service.stop();
}

#[test]
fn numbers_are_given_in_the_order_of_acceptance_and_survive_a_restart() {
    let folder = tempfile::tempdir().unwrap();
    for round in 0..3u128 {
        let service = service(&folder);
        let mut client = service.client("demo");
        for n in 0..5u128 {
            let id = round * 5 + n;
            let answer = client
                .event(&format!("k{id}"), &envelope(id, "order-1", json!({"n": id.to_string()})))
                .expect(202);
            assert_eq!(answer.json()["streamSeq"], json!(id + 1));
        }
        service.stop();
    }
    let service = service(&folder);
    let mut client = service.client("demo");
    let events = stream(&mut client, "order-1", 15);
    let numbers: Vec<_> = events.iter().map(|event| event["streamSeq"].as_u64().unwrap()).collect();
    assert_eq!(numbers, (1..=15).collect::<Vec<_>>());
    let rest = client.get("/v1/streams/order-1/events?after=12").expect(200).json();
    assert_eq!(rest["events"].as_array().unwrap().len(), 3);
    let replay = client.event("k3", &envelope(3, "order-1", json!({"n": "3"}))).expect(202);
    assert_eq!(replay.json()["streamSeq"], 4, "keys are remembered over restarts");
    service.stop();
}

#[test]
fn a_trace_that_is_given_is_kept() {
    let folder = tempfile::tempdir().unwrap();
    let service = service(&folder);
    let mut client = service.client("demo");
    let fields = [
        ("Content-Type", "application/json"),
        ("Idempotency-Key", "k"),
        ("traceparent", "00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01"),
    ];
    let body = envelope(1, "order-1", json!({})).to_string();
    let answer = client.request("POST", "/v1/events", &fields, body.as_bytes()).expect(202);
    assert_eq!(answer.json()["traceId"], "4bf92f3577b34da6a3ce929d0e0e4736");
    assert_eq!(stream(&mut client, "order-1", 1)[0]["traceId"], "4bf92f3577b34da6a3ce929d0e0e4736");
    let fresh = client.get("/status/nobody").expect(404);
    let trace = fresh.json()["traceId"].as_str().unwrap().to_owned();
    assert!(trace.len() == 32 && trace.bytes().any(|b| b != b'0'), "{trace}");
    service.stop();
}
