//! What a client may rely on when it posts: once, in order, and the same answer again.

use sentinel::service::{Parts, wall_clock};
use serde_json::{Value, json};

use crate::harness::{InProcess, envelope, eventually};
use crate::promises::Promise;
use crate::promises::delivery::{self as promises, log_line, post_lines, stream};

fn service(folder: &tempfile::TempDir) -> InProcess {
    InProcess::start(folder.path(), wall_clock(), Parts::ALL, &[])
}

/// Holds a promise by a service of its own.
fn at_one_door(promise: Promise) {
    let folder = tempfile::tempdir().unwrap();
    let service = service(&folder);
    promise(&mut [service.client("demo"), service.client("demo")]);
    service.stop();
}

#[test]
fn a_replay_gets_the_first_answer_byte_for_byte_but_the_trace_id() {
    at_one_door(promises::a_replay_gets_the_first_answer_byte_for_byte_but_the_trace_id);
}

#[test]
fn a_retry_may_make_its_id_and_time_anew() {
    at_one_door(promises::a_retry_may_make_its_id_and_time_anew);
}

#[test]
fn the_same_key_with_another_payload_is_a_conflict() {
    at_one_door(promises::the_same_key_with_another_payload_is_a_conflict);
}

#[test]
fn the_same_event_id_under_another_key_is_a_replay_or_a_conflict() {
    at_one_door(promises::the_same_event_id_under_another_key_is_a_replay_or_a_conflict);
}

#[test]
fn two_concurrent_first_sends_of_one_key_give_one_event() {
    at_one_door(promises::two_concurrent_first_sends_of_one_key_give_one_event);
}

#[test]
fn a_start_with_a_key_is_one_run_however_often_it_is_sent() {
    at_one_door(promises::a_start_with_a_key_is_one_run_however_often_it_is_sent);
}

#[test]
fn lines_of_a_batch_never_roll_each_other_back() {
    at_one_door(promises::lines_of_a_batch_never_roll_each_other_back);
}

#[test]
fn a_batch_that_the_backlog_has_no_room_for_is_503_whole_and_fits_when_it_is_applied() {
    let folder = tempfile::tempdir().unwrap();
    let parts = Parts { listener: false, ..Parts::ALL };
    let service = InProcess::start(folder.path(), wall_clock(), parts, &[]);
    let mut client = service.client("demo");
    // Nothing is applied, so 64 MiB of accepted payload are the bound, of which one tenant alone gets half. Each line is
    // about a MiB.
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
    assert_eq!(accepted, 4, "batches of 10 MB: the one that goes beyond the half is taken whole");
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

#[test]
fn a_process_log_is_a_log_row_and_no_event() {
    at_one_door(promises::a_process_log_is_a_log_row_and_no_event);
}

#[test]
fn a_batch_may_mix_events_and_log_rows_and_answers_each_line() {
    at_one_door(promises::a_batch_may_mix_events_and_log_rows_and_answers_each_line);
}

#[test]
fn a_mixed_batch_whose_log_rows_do_not_fit_now_is_503_whole() {
    let folder = tempfile::tempdir().unwrap();
    let variables = [("SENTINEL_QUEUE_CAPACITY", "10")];
    let service = InProcess::start(folder.path(), wall_clock(), Parts::ALL, &variables);
    let mut client = service.client("demo");
    let batch = [envelope(1, "p", json!({})), log_line(2, "p", json!({"message": "one"}))];
    let room = service.service.shared().log_rooms.take(20).unwrap();
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
    at_one_door(promises::a_batch_takes_no_key_and_a_single_event_needs_one);
}

#[test]
fn cloudevents_come_in_all_three_forms() {
    at_one_door(promises::cloudevents_come_in_all_three_forms);
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
    at_one_door(promises::a_trace_that_is_given_is_kept);
}
