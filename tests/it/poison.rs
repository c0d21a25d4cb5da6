//! Poison goes aside, whole, and nothing else is hurt by it.

use std::collections::BTreeMap;
use std::time::Duration;

use sentinel::domain::apply::{self, Item};
use sentinel::domain::process::mark::Mark;
use sentinel::domain::process::{Policy, RunRow, State};
use sentinel::service::{Parts, wall_clock};
use sentinel::store::{Message, Store};
use serde_json::json;

use crate::harness::{Client, InProcess, eventually, stop, token};

const POLICY: Policy =
    Policy { timeout: Duration::from_secs(3600), heartbeat_interval: Duration::from_secs(30) };

#[test]
fn a_panic_while_applying_is_one_dead_letter_and_no_restart() {
    let folder = tempfile::tempdir().unwrap();
    // The listener is driven by hand, so that its merge can be made to panic on one event.
    let service =
        InProcess::start(folder.path(), wall_clock(), Parts { listener: false, ..Parts::ALL }, &[]);
    let mut client = service.client("demo");
    for (verb, id) in [("start", "good-1"), ("progress", "poison"), ("heartbeat", "good-2")] {
        let body = json!({"event_id": id, "process_id": "p"}).to_string();
        client.request("POST", &format!("/internal/{verb}"), &[], body.as_bytes()).expect(202);
    }
    let merge = |state: &mut State, mark: Mark| -> Vec<RunRow> {
        assert!(mark.key.event_id.as_str() != "poison", "on purpose");
        state.merge(mark)
    };
    let store = service.service.store();
    let mut session = store.listener().unwrap();
    let (stop, _idle) = stop();
    let claim = session.claim(100, Duration::ZERO, &stop).unwrap();
    let items: Vec<Item<'_>> = claim
        .messages
        .iter()
        .map(|message| match message {
            Message::Event(event) => Item::Event(event),
            Message::Undecodable { .. } => panic!("everything can be read"),
        })
        .collect();
    assert_eq!(items.len(), 3);
    let loaded: BTreeMap<_, State> = BTreeMap::new();
    let change = apply::decide(&items, loaded, &POLICY, store.now(), &merge);
    session.settle(claim, change, store.now()).unwrap();

    let letters = client.get("/v1/dead-letters").expect(200).json();
    let letters = letters["dead_letters"].as_array().unwrap().clone();
    assert_eq!(letters.len(), 1, "{letters:?}");
    assert_eq!(
        (&letters[0]["reason"], &letters[0]["eventId"]),
        (&json!("panic"), &json!("poison"))
    );
    let whole = client.get(&format!("/v1/dead-letters/{}", letters[0]["id"])).expect(200).json();
    assert_eq!(
        whole["event"]["envelope"]["event_id"], "poison",
        "the event is kept whole: {whole}"
    );
    // The others took effect, and the number of the poison is a tombstone, not a gap that holds everybody up.
    let status = client.get("/status/p").expect(200).json();
    assert_eq!(status["status"], "RUNNING");
    let events = client.get("/v1/streams/p/events").expect(200).json();
    let numbers: Vec<_> = events["events"]
        .as_array()
        .unwrap()
        .iter()
        .map(|event| event["streamSeq"].as_u64().unwrap())
        .collect();
    assert_eq!(numbers, [1, 3]);
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
