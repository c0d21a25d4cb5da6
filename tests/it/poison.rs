//! Poison goes aside, whole, and nothing else is hurt by it.

use sentinel::service::{Parts, wall_clock};
use serde_json::json;

use crate::harness::{Client, InProcess, envelope, eventually, token};
use crate::promises::poison as promises;

#[test]
fn a_panic_while_applying_is_one_dead_letter_and_no_restart() {
    let folder = tempfile::tempdir().unwrap();
    let service =
        InProcess::start(folder.path(), wall_clock(), Parts { listener: false, ..Parts::ALL }, &[]);
    let mut client = service.client("demo");
    promises::a_panic_while_applying_is_one_dead_letter_and_no_restart(&service, &mut client);
    service.stop();
}

#[test]
fn bytes_that_are_no_event_are_set_aside_and_the_rest_goes_on() {
    let folder = tempfile::tempdir().unwrap();
    let service =
        InProcess::start(folder.path(), wall_clock(), Parts { listener: false, ..Parts::ALL }, &[]);
    let mut client = service.client("demo");
    for id in ["a", "b", "c"] {
        let body = json!({"event_id": id, "process_id": "p"}).to_string();
        client.request("POST", "/internal/heartbeat", &[], body.as_bytes()).expect(202);
    }
    service.stop();
    let log = rusqlite::Connection::open(folder.path().join("log.db")).unwrap();
    log.execute("UPDATE log SET body = x'ff00' WHERE id = 2", []).unwrap();
    drop(log);
    let service = InProcess::start(folder.path(), wall_clock(), Parts::ALL, &[]);
    let mut client = service.client("demo");
    eventually("the rest is applied", || {
        (client.get("/v1/streams/p").status == 200
            && client.get("/v1/streams/p").json()["appliedSeq"] == 3)
            .then_some(())
    });
    // Nobody knows whose it was, so only an admin can see it.
    assert_eq!(client.get("/v1/dead-letters").expect(200).json()["dead_letters"], json!([]));
    client.get("/v1/dead-letters/2").expect(404);
    for path in ["/v1/dead-letters?tenant=%23none", "/v1/dead-letters/2?tenant=%23none"] {
        assert_eq!(client.get(path).expect(403).json()["type"], "/problems/forbidden");
    }
    let admin = token(folder.path(), "demo", &["sentinel:admin"]);
    let mut admin = Client::new(service.service.api_address(), &admin);
    let letters = admin.get("/v1/dead-letters?tenant=%23none").expect(200).json();
    let letters = letters["dead_letters"].as_array().unwrap().clone();
    assert_eq!(letters.len(), 1, "{letters:?}");
    assert_eq!(
        (&letters[0]["reason"], &letters[0]["tenantId"], &letters[0]["id"]),
        (&json!("undecodable"), &json!("#none"), &json!(2))
    );
    let whole = admin.get("/v1/dead-letters/2?tenant=%23none").expect(200).json();
    assert_eq!(whole["event"]["bytes_base64"], "/wA=", "the bytes are kept whole: {whole}");
    // It is a shelf for what cannot be read, not a tenant: nothing can be asked of it or put into it.
    assert_eq!(admin.get("/processes?tenant=%23none").expect(400).json()["field"], "tenant");
    let body = json!({"process_id": "p"}).to_string();
    admin.request("POST", "/internal/start?tenant=%23none", &[], body.as_bytes()).expect(400);
    service.stop();
}

#[test]
fn an_event_whose_payload_is_damaged_keeps_its_number_and_is_known_when_it_is_sent_again() {
    let folder = tempfile::tempdir().unwrap();
    let service =
        InProcess::start(folder.path(), wall_clock(), Parts { listener: false, ..Parts::ALL }, &[]);
    let mut client = service.client("demo");
    let event = |id: u128| envelope(id, "order-1", json!({"text": format!("payload-{id}")}));
    for id in 1..=3 {
        client.event(&format!("key-{id}"), &event(id)).expect(202);
    }
    service.stop();
    let log = rusqlite::Connection::open(folder.path().join("log.db")).unwrap();
    for id in [2, 3] {
        let sql = "SELECT body FROM log WHERE id = ?1";
        let mut body: Vec<u8> = log.query_row(sql, [id], |row| row.get(0)).unwrap();
        let word = format!("payload-{id}").into_bytes();
        let at = body.windows(word.len()).position(|part| part == word).unwrap();
        // No text holds this byte.
        body[at] = 0xff;
        log.execute("UPDATE log SET body = ?2 WHERE id = ?1", (id, body)).unwrap();
    }
    drop(log);
    let is_known = |client: &mut Client| {
        for id in 1..=3 {
            // The first answer again, under the key and under the id alone.
            for key in [format!("key-{id}"), format!("another-{id}")] {
                let replay = client.event(&key, &event(id)).expect(202);
                assert_eq!(replay.header("idempotency-replayed"), Some("true"), "{key}");
                assert_eq!(replay.json()["streamSeq"], u64::try_from(id).unwrap());
            }
        }
        let mut changed = event(2);
        changed["payload"] = json!({"text": "another"});
        client.event("key-2", &changed).expect(409);
    };
    // Before anything is applied, while it is, and after one more start.
    let parts = [Parts { listener: false, ..Parts::ALL }, Parts::ALL, Parts::ALL];
    for parts in parts {
        let service = InProcess::start(folder.path(), wall_clock(), parts, &[]);
        let mut client = service.client("demo");
        is_known(&mut client);
        if parts.listener {
            eventually("all three numbers are passed", || {
                let answer = client.get("/v1/streams/order-1");
                (answer.status == 200 && answer.json()["appliedSeq"] == 3).then_some(())
            });
            is_known(&mut client);
        }
        service.stop();
    }
    let service = InProcess::start(folder.path(), wall_clock(), Parts::ALL, &[]);
    let mut client = service.client("demo");
    assert_eq!(client.event("key-4", &event(4)).expect(202).json()["streamSeq"], 4);
    // Readers are not held up by the numbers of what was set aside.
    let numbers = eventually("the fourth is applied", || {
        let events = client.get("/v1/streams/order-1/events").json();
        let numbers: Vec<u64> = events["events"]
            .as_array()?
            .iter()
            .map(|event| event["streamSeq"].as_u64().unwrap())
            .collect();
        (numbers.len() == 2).then_some(numbers)
    });
    assert_eq!(numbers, [1, 4]);
    // Nobody vouches for what was read of them, so they stay where only an admin sees them.
    assert_eq!(client.get("/v1/dead-letters").expect(200).json()["dead_letters"], json!([]));
    service.stop();
}
