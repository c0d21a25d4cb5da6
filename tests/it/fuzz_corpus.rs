//! Every input that the fuzzer has found worth keeping, again. This module holds the promises of `tests/fuzz` with its
//! corpus, in the gate and without a fuzzer: a find that was mended stays mended.

use std::fs;
use std::path::Path;

#[path = "../fuzz/promises/cloudevent.rs"]
mod cloudevent;
#[path = "../fuzz/promises/connection.rs"]
mod connection;
#[path = "../fuzz/promises/envelope.rs"]
mod envelope;
#[path = "../fuzz/promises/token.rs"]
mod token;

fn every_input(target: &str, check: fn(&[u8])) {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/fuzz/corpus").join(target);
    let mut inputs = 0;
    for entry in fs::read_dir(&folder).expect("the target has a corpus") {
        let path = entry.expect("the corpus can be read").path();
        let input = fs::read(&path).expect("an input can be read");
        let held = std::panic::catch_unwind(|| check(&input));
        assert!(held.is_ok(), "{} breaks a promise", path.display());
        inputs += 1;
    }
    assert!(inputs >= 5, "{} holds {inputs} inputs", folder.display());
}

#[test]
fn a_connection_keeps_its_promises_whatever_a_peer_sends() {
    every_input("connection", connection::check);
}

#[test]
fn the_doors_for_events_keep_their_promises_whatever_is_posted() {
    every_input("envelope", envelope::check);
}

#[test]
fn the_door_for_tokens_keeps_its_promises_whatever_is_brought() {
    every_input("token", token::check);
}

#[test]
fn the_door_for_cloudevents_keeps_its_promises_whatever_fields_come() {
    every_input("cloudevent", cloudevent::check);
}
