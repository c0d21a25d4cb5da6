//! What a client may rely on when it posts: once, in order, and the same answer again.

use sentinel::service::{Parts, wall_clock};
use serde_json::{Value, json};

use crate::harness::{Client, InProcess, Response, envelope, eventually};

fn service(folder: &tempfile::TempDir) -> InProcess {
    InProcess::start(folder.path(), wall_clock(), Parts::ALL, &[])
}

/// The events of a stream, once all of `count` are applied.
fn stream(client: &mut Client, key: &str, count: usize) -> Vec<Value> {
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
    let without_trace = |response: &Response| {
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

/// Lines of NDJSON, posted.
fn post_lines(client: &mut Client, lines: &[Value]) -> Response {
    let lines: Vec<String> = lines.iter().map(Value::to_string).collect();
    let fields = [("Content-Type", "application/x-ndjson")];
    client.request("POST", "/v1/events", &fields, lines.join("\n").as_bytes())
}

#[test]
fn a_batch_that_the_backlog_has_no_room_for_is_503_whole_and_fits_when_it_is_applied() {
    let folder = tempfile::tempdir().unwrap();
    let parts = Parts { listener: false, ..Parts::ALL };
    let service = InProcess::start(folder.path(), wall_clock(), parts, &[]);
    let mut client = service.client("demo");
    // Nothing is applied, so 64 MiB of accepted payload are the bound. Each line is about a MiB.
    let filler = "x".repeat(1_000_000);
    let mut accepted = 0;
    loop {
        let ids = accepted * 10..(accepted + 1) * 10;
        let lines: Vec<Value> =
            ids.map(|id| envelope(id, "heavy", json!({"filler": &filler}))).collect();
        let answer = post_lines(&mut client, &lines);
        if answer.status == 503 {
            break;
        }
        answer.expect(202);
        accepted += 1;
        assert!(accepted < 20, "the backlog is bounded");
    }
    assert!(accepted >= 6, "{accepted} batches of 10 MB");
    // A line that is known, one that is wrong and one that is new: whole means that no line is answered.
    let known = envelope(0, "heavy", json!({"filler": &filler}));
    let new = envelope(1 << 50, "light", json!({}));
    let row = log_line(1 << 51, "light", json!({"message": "with an event"}));
    let batch = [known.clone(), json!({"eventId": 7}), new.clone(), row];
    let refused = post_lines(&mut client, &batch).expect(503);
    assert_eq!(refused.json()["type"], "/problems/unavailable");
    assert!(refused.header("retry-after").is_some());
    assert_eq!(refused.header("content-type"), Some("application/problem+json"));
    let alone = client.event("light-1", &new).expect(503);
    assert!(alone.header("retry-after").is_some());
    let replay = post_lines(&mut client, &[known]).expect(202);
    assert!(replay.text().contains("\"replayed\":true"), "what is known is answered all the same");
    client.get("/logs/light").expect(404);
    service.stop();

    let service = self::service(&folder);
    let mut client = service.client("demo");
    let again = eventually("what waited is applied, and then there is room", || {
        let answer = post_lines(&mut client, &batch);
        (answer.status != 503).then_some(answer)
    });
    let lines: Vec<Value> =
        again.text().lines().map(|line| serde_json::from_str(line).unwrap()).collect();
    let statuses: Vec<_> = lines.iter().map(|line| line["status"].as_u64().unwrap()).collect();
    assert_eq!((again.status, statuses), (207, vec![202, 400, 202, 202]));
    assert_eq!(lines[2]["streamSeq"], 1, "nothing of what was refused took a number");
    assert_eq!(stream(&mut client, "light", 1).len(), 1);
    assert_eq!(client.get("/logs/light").expect(200).json()["logs"].as_array().unwrap().len(), 1);
    service.stop();
}

/// An envelope whose payload is a log row.
fn log_line(id: u128, process: &str, row: Value) -> Value {
    let mut line = envelope(id, process, row);
    line["type"] = json!("process.log");
    line
}

#[test]
fn a_process_log_is_a_log_row_and_no_event() {
    let folder = tempfile::tempdir().unwrap();
    let service = service(&folder);
    let mut client = service.client("demo");
    client.post("/internal/start", &json!({"process_id": "p"})).expect(202);
    let row = json!({"level": "WARN", "message": "disk at 91 %", "component": "loader",
                     "details": {"mount": "/data"}, "duration_us": 12});
    let first = client.event("key-1", &log_line(1, "p", row.clone())).expect(202);
    let answer = first.json();
    let envelope_id = log_line(1, "p", json!({}))["eventId"].clone();
    assert_eq!((&answer["eventId"], &answer["streamSeq"]), (&envelope_id, &Value::Null));
    assert!(answer["receivedAtUtc"].is_string() && answer["traceId"].is_string(), "{answer}");
    // It is committed when it is answered, and it bears the envelope's own time.
    let logs = client.get("/logs/p").expect(200).json();
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
    let repeat = client.event("key-1", &log_line(1, "p", row)).expect(202);
    assert_eq!(repeat.header("idempotency-replayed"), None);
    let other =
        log_line(1, "p", json!({"message": "another", "logged_at": "2026-02-27T00:00:00Z"}));
    client.event("key-1", &other).expect(202);
    let logs = client.get("/logs/p").expect(200).json();
    assert_eq!(logs["logs"].as_array().unwrap().len(), 3);
    assert_eq!(logs["logs"][2]["logged_at"], "2026-02-27T00:00:00Z");
    assert_eq!(stream(&mut client, "p", 1).len(), 1);
    assert_eq!(client.get("/status/p").expect(200).json()["status"], "RUNNING");
    let id = answer["eventId"].as_str().unwrap();
    client.get(&format!("/v1/events/{id}")).expect(404);

    // What is wrong with it is said by name, and then nothing is kept.
    let long = "p".repeat(101);
    for (line, field) in [
        (log_line(2, "p", json!({"level": "INFO"})), "message"),
        (log_line(2, "p", json!({"message": "m", "level": "LOUD"})), "level"),
        (log_line(2, "p", json!({"message": "m", "process_id": "q"})), "process_id"),
        (log_line(2, "p", json!([])), "payload"),
        (log_line(2, &long, json!({"message": "m"})), "streamKey"),
    ] {
        assert_eq!(client.event("key-2", &line).expect(400).json()["field"], field, "{line}");
    }
    let fields = [("Content-Type", "application/json")];
    let body = log_line(3, "p", json!({"message": "m"})).to_string();
    let missing = client.request("POST", "/v1/events", &fields, body.as_bytes()).expect(400);
    assert_eq!(missing.json()["type"], "/problems/idempotency-key-missing");
    assert_eq!(client.get("/logs/p").json()["logs"].as_array().unwrap().len(), 3);
    service.stop();
}

#[test]
fn a_batch_may_mix_events_and_log_rows_and_answers_each_line() {
    let folder = tempfile::tempdir().unwrap();
    let service = service(&folder);
    let mut client = service.client("demo");
    let batch = [
        log_line(1, "p", json!({"message": "one"})),
        envelope(2, "p", json!({"n": 1})),
        log_line(3, "p", json!({"level": "INFO"})),
        log_line(4, "p", json!({"message": "two"})),
        envelope(2, "p", json!({"n": 1})),
    ];
    let response = post_lines(&mut client, &batch).expect(207);
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
    assert_eq!(messages(&mut client, "p"), ["one", "two"]);
    assert_eq!(stream(&mut client, "p", 1).len(), 1);
    // Log rows alone, as CloudEvents.
    let cloud = json!([{"specversion": "1.0", "id": "l1", "source": "/jobs", "type": "process.log",
                        "subject": "q", "data": {"message": "three"}}]);
    let fields = [("Content-Type", "application/cloudevents-batch+json")];
    let answer =
        client.request("POST", "/v1/events", &fields, cloud.to_string().as_bytes()).expect(202);
    assert_eq!(
        (&answer.json()[0]["eventId"], &answer.json()[0]["streamSeq"]),
        (&json!("l1"), &Value::Null)
    );
    assert_eq!(messages(&mut client, "q"), ["three"]);
    service.stop();
}

#[test]
fn a_mixed_batch_whose_log_rows_do_not_fit_now_is_503_whole() {
    let folder = tempfile::tempdir().unwrap();
    let variables = [("SENTINEL_QUEUE_CAPACITY", "10")];
    let service = InProcess::start(folder.path(), wall_clock(), Parts::ALL, &variables);
    let mut client = service.client("demo");
    let batch = [envelope(1, "p", json!({})), log_line(2, "p", json!({"message": "one"}))];
    let room = service.service.shared().log_rooms.take(10).unwrap();
    let refused = post_lines(&mut client, &batch).expect(503);
    assert!(refused.header("retry-after").is_some());
    drop(room);
    let answer = post_lines(&mut client, &batch).expect(202);
    let first: Value = serde_json::from_str(answer.text().lines().next().unwrap()).unwrap();
    assert_eq!(
        (&first["streamSeq"], &first["replayed"]),
        (&json!(1), &json!(false)),
        "first sent now"
    );
    let many: Vec<Value> =
        (0..11).map(|n| log_line(10 + n, "p", json!({"message": "m"}))).collect();
    let never = post_lines(&mut client, &many).expect(413);
    assert_eq!(never.json()["type"], "/problems/content-too-large");
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
