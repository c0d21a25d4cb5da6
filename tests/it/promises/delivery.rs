//! Once, in order, and the same answer again. This module posts at both doors.

use std::sync::Barrier;
use std::thread;

use serde_json::{Value, json};

use super::Promise;
use crate::harness::{Client, Response, envelope, eventually};

/// All of them, by name.
pub(crate) const ALL: &[(&str, Promise)] = &[
    (
        "a_replay_gets_the_first_answer_byte_for_byte_but_the_trace_id",
        a_replay_gets_the_first_answer_byte_for_byte_but_the_trace_id,
    ),
    ("a_retry_may_make_its_id_and_time_anew", a_retry_may_make_its_id_and_time_anew),
    (
        "the_same_key_with_another_payload_is_a_conflict",
        the_same_key_with_another_payload_is_a_conflict,
    ),
    (
        "the_same_event_id_under_another_key_is_a_replay_or_a_conflict",
        the_same_event_id_under_another_key_is_a_replay_or_a_conflict,
    ),
    ("lines_of_a_batch_never_roll_each_other_back", lines_of_a_batch_never_roll_each_other_back),
    ("a_process_log_is_a_log_row_and_no_event", a_process_log_is_a_log_row_and_no_event),
    (
        "a_batch_may_mix_events_and_log_rows_and_answers_each_line",
        a_batch_may_mix_events_and_log_rows_and_answers_each_line,
    ),
    (
        "a_batch_takes_no_key_and_a_single_event_needs_one",
        a_batch_takes_no_key_and_a_single_event_needs_one,
    ),
    ("cloudevents_come_in_all_three_forms", cloudevents_come_in_all_three_forms),
    ("a_trace_that_is_given_is_kept", a_trace_that_is_given_is_kept),
    (
        "two_concurrent_first_sends_of_one_key_give_one_event",
        two_concurrent_first_sends_of_one_key_give_one_event,
    ),
    (
        "a_start_with_a_key_is_one_run_however_often_it_is_sent",
        a_start_with_a_key_is_one_run_however_often_it_is_sent,
    ),
];

/// The events of a stream, once all of `count` are applied.
pub(crate) fn stream(client: &mut Client, key: &str, count: usize) -> Vec<Value> {
    eventually("the stream", || {
        let response = client.get(&format!("/v1/streams/{key}/events?limit=1000"));
        let events = response.json()["events"].as_array().cloned().unwrap_or_default();
        (events.len() >= count).then_some(events)
    })
}

/// Lines of NDJSON, posted.
pub(crate) fn post_lines(client: &mut Client, lines: &[Value]) -> Response {
    let lines: Vec<String> = lines.iter().map(Value::to_string).collect();
    let fields = [("Content-Type", "application/x-ndjson")];
    client.request("POST", "/v1/events", &fields, lines.join("\n").as_bytes())
}

/// An envelope whose payload is a log row.
pub(crate) fn log_line(id: u128, process: &str, row: Value) -> Value {
    let mut line = envelope(id, process, row);
    line["type"] = json!("process.log");
    line
}

pub(crate) fn a_replay_gets_the_first_answer_byte_for_byte_but_the_trace_id(
    [here, there]: &mut [Client; 2],
) {
    let event = envelope(1, "order-1", json!({"n": 1}));
    let first = here.event("key-1", &event).expect(202);
    let again = there.event("\"key-1\"", &event).expect(202);
    assert_eq!(first.header("idempotency-replayed"), None);
    assert_eq!(again.header("idempotency-replayed"), Some("true"));
    let without_trace = |response: &Response| {
        let text = response.text();
        let (before, _) = text.split_once("\"traceId\"").expect("an answer carries its traceId");
        before.to_owned()
    };
    assert_eq!(without_trace(&first), without_trace(&again));
    assert_eq!(stream(here, "order-1", 1).len(), 1);
}

pub(crate) fn a_retry_may_make_its_id_and_time_anew([here, there]: &mut [Client; 2]) {
    let first = here.event("key", &envelope(1, "order-1", json!({"a": 1, "b": 2}))).expect(202);
    let mut again = envelope(2, "order-1", json!({"b": 2, "a": 1}));
    again["timestampUtc"] = json!("2026-02-26T15:00:00Z");
    let again = there.event("key", &again).expect(202);
    assert_eq!(first.json()["eventId"], again.json()["eventId"]);
}

pub(crate) fn the_same_key_with_another_payload_is_a_conflict([here, there]: &mut [Client; 2]) {
    here.event("key", &envelope(1, "order-1", json!({"n": 1}))).expect(202);
    let conflict = there.event("key", &envelope(2, "order-1", json!({"n": 2}))).expect(409);
    assert_eq!(conflict.json()["type"], "/problems/idempotency-key-reused");
}

pub(crate) fn the_same_event_id_under_another_key_is_a_replay_or_a_conflict(
    [here, there]: &mut [Client; 2],
) {
    here.event("key-1", &envelope(1, "order-1", json!({"n": 1}))).expect(202);
    let replay = there.event("key-2", &envelope(1, "order-1", json!({"n": 1}))).expect(202);
    assert_eq!(replay.header("idempotency-replayed"), Some("true"));
    let conflict = there.event("key-3", &envelope(1, "order-1", json!({"n": 2}))).expect(409);
    assert_eq!(conflict.json()["type"], "/problems/event-id-reused");
}

pub(crate) fn lines_of_a_batch_never_roll_each_other_back([here, there]: &mut [Client; 2]) {
    let good = envelope(1, "order-1", json!({"n": 1})).to_string();
    let other = envelope(2, "order-1", json!({"n": 2})).to_string();
    let body = format!("{good}\n\n{{\"eventId\": 7}}\nnot json\n{other}\n{good}\n");
    let response = here
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
    let again = there
        .request("POST", "/v1/events", &[("Content-Type", "application/x-ndjson")], body.as_bytes())
        .expect(207);
    let replayed: Vec<bool> = again
        .text()
        .lines()
        .filter_map(|line| serde_json::from_str::<Value>(line).unwrap()["replayed"].as_bool())
        .collect();
    assert_eq!(replayed, [true; 3], "each line is answered as before, at any door");
    assert_eq!(stream(there, "order-1", 2).len(), 2);
}

pub(crate) fn a_process_log_is_a_log_row_and_no_event([here, there]: &mut [Client; 2]) {
    here.post("/internal/start", &json!({"process_id": "p"})).expect(202);
    let row = json!({"level": "WARN", "message": "disk at 91 %", "component": "loader",
                     "details": {"mount": "/data"}, "duration_us": 12});
    let first = here.event("key-1", &log_line(1, "p", row.clone())).expect(202);
    let answer = first.json();
    let envelope_id = log_line(1, "p", json!({}))["eventId"].clone();
    assert_eq!((&answer["eventId"], &answer["streamSeq"]), (&envelope_id, &Value::Null));
    assert!(answer["receivedAtUtc"].is_string() && answer["traceId"].is_string(), "{answer}");
    // It is committed when it is answered, and it bears the envelope's own time.
    let logs = here.get("/logs/p").expect(200).json();
    let found = &logs["logs"][0];
    for (member, value) in [
        ("level", json!("WARN")),
        ("message", json!("disk at 91 %")),
        ("component", json!("loader")),
        ("details", json!({"mount": "/data"})),
        ("duration_us", json!(12)),
        ("logged_at", json!("2026-02-26T14:22:31Z")),
    ] {
        assert_eq!(found[member], value, "{member} of {found}");
    }
    // No number, no change of status, no identity: the start alone is in the stream, and a repeat is a second row.
    let repeat = there.event("key-1", &log_line(1, "p", row)).expect(202);
    assert_eq!(repeat.header("idempotency-replayed"), None);
    let other =
        log_line(1, "p", json!({"message": "another", "logged_at": "2026-02-27T00:00:00Z"}));
    here.event("key-1", &other).expect(202);
    let logs = there.get("/logs/p").expect(200).json();
    assert_eq!(logs["logs"].as_array().unwrap().len(), 3);
    assert_eq!(logs["logs"][2]["logged_at"], "2026-02-27T00:00:00Z");
    assert_eq!(stream(here, "p", 1).len(), 1);
    assert_eq!(here.get("/status/p").expect(200).json()["status"], "RUNNING");
    let id = answer["eventId"].as_str().unwrap();
    here.get(&format!("/v1/events/{id}")).expect(404);

    // What is wrong with it is said by name, and then nothing is kept.
    let long = "p".repeat(101);
    for (line, field) in [
        (log_line(2, "p", json!({"level": "INFO"})), "message"),
        (log_line(2, "p", json!({"message": "m", "level": "LOUD"})), "level"),
        (log_line(2, "p", json!({"message": "m", "process_id": "q"})), "process_id"),
        (log_line(2, "p", json!([])), "payload"),
        (log_line(2, &long, json!({"message": "m"})), "streamKey"),
    ] {
        assert_eq!(here.event("key-2", &line).expect(400).json()["field"], field, "{line}");
    }
    let fields = [("Content-Type", "application/json")];
    let body = log_line(3, "p", json!({"message": "m"})).to_string();
    let missing = here.request("POST", "/v1/events", &fields, body.as_bytes()).expect(400);
    assert_eq!(missing.json()["type"], "/problems/idempotency-key-missing");
    assert_eq!(here.get("/logs/p").json()["logs"].as_array().unwrap().len(), 3);
}

pub(crate) fn a_batch_may_mix_events_and_log_rows_and_answers_each_line(
    [here, there]: &mut [Client; 2],
) {
    let batch = [
        log_line(1, "p", json!({"message": "one"})),
        envelope(2, "p", json!({"n": 1})),
        log_line(3, "p", json!({"level": "INFO"})),
        log_line(4, "p", json!({"message": "two"})),
        envelope(2, "p", json!({"n": 1})),
    ];
    let response = post_lines(here, &batch).expect(207);
    let lines: Vec<Value> =
        response.text().lines().map(|line| serde_json::from_str(line).unwrap()).collect();
    let summary: Vec<_> = lines
        .iter()
        .map(|line| (line["status"].clone(), line["streamSeq"].clone(), line["replayed"].clone()))
        .collect();
    let (row, none) = ((json!(202), Value::Null, json!(false)), Value::Null);
    assert_eq!(
        summary,
        [
            row.clone(),
            (json!(202), json!(1), json!(false)),
            (json!(400), none.clone(), none),
            row,
            (json!(202), json!(1), json!(true)),
        ]
    );
    let messages = |client: &mut Client, process: &str| -> Vec<Value> {
        let logs = client.get(&format!("/logs/{process}")).expect(200).json();
        logs["logs"].as_array().unwrap().iter().map(|row| row["message"].clone()).collect()
    };
    assert_eq!(messages(there, "p"), ["one", "two"]);
    assert_eq!(stream(here, "p", 1).len(), 1);
    // Log rows alone, as CloudEvents.
    let cloud = json!([{"specversion": "1.0", "id": "l1", "source": "/jobs", "type": "process.log",
                        "subject": "q", "data": {"message": "three"}}]);
    let fields = [("Content-Type", "application/cloudevents-batch+json")];
    let answer =
        here.request("POST", "/v1/events", &fields, cloud.to_string().as_bytes()).expect(202);
    assert_eq!(
        (&answer.json()[0]["eventId"], &answer.json()[0]["streamSeq"]),
        (&json!("l1"), &Value::Null)
    );
    assert_eq!(messages(there, "q"), ["three"]);
}

pub(crate) fn a_batch_takes_no_key_and_a_single_event_needs_one([here, there]: &mut [Client; 2]) {
    let line = envelope(1, "order-1", json!({})).to_string();
    let fields = [("Content-Type", "application/x-ndjson"), ("Idempotency-Key", "k")];
    let refused = here.request("POST", "/v1/events", &fields, line.as_bytes()).expect(400);
    assert_eq!(refused.json()["type"], "/problems/idempotency-key-on-batch");
    let refused = there.post("/v1/events", &envelope(1, "order-1", json!({}))).expect(400);
    assert_eq!(refused.json()["type"], "/problems/idempotency-key-missing");
}

pub(crate) fn cloudevents_come_in_all_three_forms([here, there]: &mut [Client; 2]) {
    let cloud = |id: &str| {
        json!({"specversion": "1.0", "id": id, "source": "/orders", "type": "com.example.created",
               "subject": "order-9", "datacontenttype": "application/json", "data": {"id": id}})
    };
    let fields = [("Content-Type", "application/cloudevents+json"), ("Idempotency-Key", "k1")];
    here.request("POST", "/v1/events", &fields, cloud("a").to_string().as_bytes()).expect(202);
    let fields = [
        ("Content-Type", "application/json"),
        ("Idempotency-Key", "k2"),
        ("ce-specversion", "1.0"),
        ("ce-id", "b"),
        ("ce-source", "/orders"),
        ("ce-type", "com.example.created"),
        ("ce-subject", "order-9"),
    ];
    there.request("POST", "/v1/events", &fields, b"{\"id\":\"b\"}").expect(202);
    let batch = json!([cloud("c"), cloud("a"), {"specversion": "1.0"}]);
    let fields = [("Content-Type", "application/cloudevents-batch+json")];
    let response =
        there.request("POST", "/v1/events", &fields, batch.to_string().as_bytes()).expect(207);
    let lines = response.json();
    let statuses: Vec<_> =
        lines.as_array().unwrap().iter().map(|line| line["status"].as_u64().unwrap()).collect();
    assert_eq!(statuses, [202, 202, 400]);
    assert_eq!(lines[1]["replayed"], true);
    let events = stream(here, "order-9", 3);
    let payloads: Vec<_> = events.iter().map(|event| event["payload"]["id"].clone()).collect();
    assert_eq!(payloads, [json!("a"), json!("b"), json!("c")]);
}

pub(crate) fn a_trace_that_is_given_is_kept([here, there]: &mut [Client; 2]) {
    let fields = [
        ("Content-Type", "application/json"),
        ("Idempotency-Key", "k"),
        ("traceparent", "00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01"),
    ];
    let body = envelope(1, "order-1", json!({})).to_string();
    let answer = here.request("POST", "/v1/events", &fields, body.as_bytes()).expect(202);
    assert_eq!(answer.json()["traceId"], "4bf92f3577b34da6a3ce929d0e0e4736");
    assert_eq!(stream(there, "order-1", 1)[0]["traceId"], "4bf92f3577b34da6a3ce929d0e0e4736");
    let fresh = here.get("/status/nobody").expect(404);
    let trace = fresh.json()["traceId"].as_str().unwrap().to_owned();
    assert!(trace.len() == 32 && trace.bytes().any(|b| b != b'0'), "{trace}");
}

/// The answers of four clients that send the same at one instant, two at each door.
fn at_once(
    [here, there]: &mut [Client; 2],
    send: impl Fn(&mut Client) -> Response + Sync,
) -> Vec<Response> {
    let (barrier, send) = (&Barrier::new(4), &send);
    let clients = [here.another(), there.another(), here.another(), there.another()];
    thread::scope(|scope| {
        let senders: Vec<_> = clients
            .into_iter()
            .map(|mut client| {
                scope.spawn(move || {
                    client.get("/health").expect(200);
                    barrier.wait();
                    send(&mut client)
                })
            })
            .collect();
        senders.into_iter().map(|sender| sender.join().unwrap()).collect()
    })
}

pub(crate) fn two_concurrent_first_sends_of_one_key_give_one_event(doors: &mut [Client; 2]) {
    let rounds = 20;
    for round in 0..rounds {
        let body = envelope(round, "order-1", json!({"n": 1}));
        let answers = at_once(doors, |client| client.event(&format!("key-{round}"), &body));
        let told: Vec<_> = answers
            .iter()
            .map(|answer| (answer.status, answer.json()["streamSeq"].clone()))
            .collect();
        assert_eq!(told, vec![(202, json!(round + 1)); 4]);
        let first = answers.iter().filter(|answer| answer.header("idempotency-replayed").is_none());
        assert_eq!(first.count(), 1, "{answers:?}");
    }
    assert_eq!(stream(&mut doors[1], "order-1", rounds as usize).len(), rounds as usize);
}

pub(crate) fn a_start_with_a_key_is_one_run_however_often_it_is_sent(doors: &mut [Client; 2]) {
    let fields = [("X-Sentinel-Process-Id", "p"), ("Idempotency-Key", "start-1")];
    let body = json!({"process_name": "import", "metadata": {"n": 1}}).to_string();
    let answers = at_once(doors, |client| {
        client.request("POST", "/internal/start", &fields, body.as_bytes())
    });
    let told = |answer: &Response| {
        let answer = answer.json();
        ["process_id", "run_id", "eventId", "streamSeq", "receivedAtUtc"]
            .map(|name| answer[name].clone())
    };
    let again = doors[1].request("POST", "/internal/start", &fields, body.as_bytes());
    let first = told(&again);
    assert!(first.iter().all(|member| !member.is_null()), "{}", again.text());
    for answer in answers.into_iter().chain([again]) {
        assert_eq!(told(&answer.clone().expect(202)), first);
    }
    let [here, there] = doors;
    assert_eq!(stream(there, "p", 1).len(), 1);
    let runs = here.get("/processes/p/runs").expect(200).json();
    assert_eq!(runs["runs"].as_array().unwrap().len(), 1, "{runs}");
    assert_eq!(runs["runs"][0]["run_id"], first[1]);
    let other = json!({"process_name": "export"}).to_string();
    there.request("POST", "/internal/start", &fields, other.as_bytes()).expect(409);
}
