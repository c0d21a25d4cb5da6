//! What makes its reader stumble goes aside, whole, and nothing else is hurt by it. This module drives the listener of a
//! service by hand, which has none of its own, so that its merge can be made to panic on one event.

use std::time::Duration;

use sentinel::domain::process::mark::Mark;
use sentinel::domain::process::{RunRow, State};
use serde_json::json;

use crate::by_hand;
use crate::harness::{Client, InProcess, stop};

/// The client is of a tenant whose queue is empty.
pub(crate) fn a_panic_while_applying_is_one_dead_letter_and_no_restart(
    service: &InProcess,
    client: &mut Client,
) {
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
    assert_eq!(claim.messages.len(), 3);
    let change = by_hand::decide_with(&mut *session, &claim, store.now(), &merge);
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
    // The others took effect, and the number of the poison is a tombstone, not a gap that holds everybody up.
    assert_eq!(client.get("/status/p").expect(200).json()["status"], "RUNNING");
    let events = client.get("/v1/streams/p/events").expect(200).json();
    let numbers: Vec<u64> = events["events"]
        .as_array()
        .expect("events")
        .iter()
        .map(|event| event["streamSeq"].as_u64().expect("a number"))
        .collect();
    assert_eq!(numbers, [1, 3]);
}
