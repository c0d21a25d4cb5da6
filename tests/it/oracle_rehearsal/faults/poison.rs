//! What makes its reader stumble goes aside, whole, and nobody else is hurt by it.

use std::collections::BTreeMap;
use std::time::Duration;

use base64::Engine;
use base64::prelude::BASE64_STANDARD;
use sentinel::domain::apply::{self, Item};
use sentinel::domain::process::mark::Mark;
use sentinel::domain::process::{Policy, RunRow, State};
use sentinel::service::{Parts, wall_clock};
use sentinel::store::Message;
use serde_json::json;

use super::{Site, applied_once, post_lines};
use crate::harness::{Client, eventually, stop};

const POLICY: Policy =
    Policy { timeout: Duration::from_secs(3600), heartbeat_interval: Duration::from_secs(30) };

#[test]
fn a_panic_while_applying_is_one_dead_letter_and_no_restart() {
    let Some(site) = Site::start() else { return };
    // The listener is driven by hand, so that its merge can be made to panic on one event.
    let parts = Parts { listener: false, ..Parts::ALL };
    let service = site.in_process(wall_clock(), parts, &[]);
    let mut client = site.client_at(service.service.api_address(), "demo");
    for (verb, id) in [("start", "good-1"), ("progress", "poison"), ("heartbeat", "good-2")] {
        let body = json!({"event_id": id, "process_id": "p"}).to_string();
        client.request("POST", &format!("/internal/{verb}"), &[], body.as_bytes()).expect(202);
    }
    let merge = |state: &mut State, mark: Mark| -> Vec<RunRow> {
        assert!(mark.key.event_id.as_str() != "poison", "on purpose");
        state.merge(mark)
    };
    let store = service.service.store();
    let mut session = store.listener().expect("a session");
    let (stop, _idle) = stop();
    let claim = session.claim(100, Duration::ZERO, &stop).expect("messages");
    let items: Vec<Item<'_>> = claim
        .messages
        .iter()
        .map(|message| match message {
            Message::Event(event) => Item::Event(event),
            Message::Undecodable { problem, .. } => panic!("everything can be read: {problem}"),
        })
        .collect();
    assert_eq!(items.len(), 3);
    let touched = apply::touched(&items);
    let states = session.load(&touched).expect("rows");
    let loaded: BTreeMap<_, State> =
        touched.into_iter().zip(states).filter_map(|(name, state)| Some((name, state?))).collect();
    let change = apply::decide(&items, loaded, &POLICY, store.now(), &merge);
    session.settle(claim, change, store.now()).expect("settled");
    drop(session);

    let letters = client.get("/v1/dead-letters").expect(200).json();
    let letters = letters["dead_letters"].as_array().expect("letters").clone();
    assert_eq!(letters.len(), 1, "{letters:?}");
    assert_eq!(
        (&letters[0]["reason"], &letters[0]["eventId"]),
        (&json!("panic"), &json!("poison"))
    );
    let whole = client.get(&format!("/v1/dead-letters/{}", letters[0]["id"])).expect(200).json();
    assert_eq!(whole["event"]["envelope"]["event_id"], "poison", "it is kept whole: {whole}");
    assert_eq!(client.get("/status/p").expect(200).json()["status"], "RUNNING");
    let events = client.get("/v1/streams/p/events").expect(200).json();
    let numbers: Vec<u64> = events["events"]
        .as_array()
        .expect("events")
        .iter()
        .map(|event| event["streamSeq"].as_u64().expect("a number"))
        .collect();
    assert_eq!(numbers, [1, 3], "the number of the poison is a tombstone and no gap");
    service.stop();
}

#[test]
fn a_message_that_is_no_event_is_kept_for_an_admin_and_the_others_are_applied() {
    let Some(site) = Site::start() else { return };
    let instance = site.instance(&[]);
    let mut client = site.client(&instance, "demo");
    // Between good ones, so that they are taken with it.
    post_lines(&mut client, 0..5).expect(202);
    site.standin.sql(
        "INSERT INTO standin.message (event_id, event_type, process_id, tenant_id, priority, payload) \
         VALUES ('E1', 'ENVELOPE', 'p', 'demo', 5, 'no JSON, but 27 bytes of it')",
    );
    post_lines(&mut client, 5..10).expect(202);
    applied_once(&site, 10);
    let token = site.issuer.token(json!({"tenant_id": "demo", "roles": ["sentinel:admin"]}));
    let mut admin = Client::new(instance.api, &token);
    let letters = eventually("it is set aside", || {
        let letters = admin.get("/v1/dead-letters?tenant=%23none").expect(200).json();
        letters["dead_letters"].as_array().filter(|letters| !letters.is_empty()).cloned()
    });
    assert_eq!(letters.len(), 1, "{letters:?}");
    assert_eq!(
        (&letters[0]["reason"], &letters[0]["tenantId"]),
        (&json!("undecodable"), &json!("#none"))
    );
    let path = format!("/v1/dead-letters/{}?tenant=%23none", letters[0]["id"]);
    let whole = admin.get(&path).expect(200).json();
    let bytes = whole["event"]["bytes_base64"].as_str().expect("bytes");
    let bytes = BASE64_STANDARD.decode(bytes).expect("base64");
    let kept: serde_json::Value = serde_json::from_slice(&bytes).expect("JSON");
    assert_eq!(kept["payload"], "no JSON, but 27 bytes of it", "{kept}");
    assert_eq!(kept["process_id"], "p", "{kept}");
    // Nobody else sees whose it was.
    assert_eq!(client.get("/v1/dead-letters").expect(200).json()["dead_letters"], json!([]));
    client.get(&path).expect(403);
    assert_eq!(instance.terminate(), 0);
}
