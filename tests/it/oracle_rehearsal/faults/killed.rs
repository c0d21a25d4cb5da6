//! `kill -9` in the middle of a transaction, with another instance on the same queue.

use std::thread;

use super::{Site, applied_once, event, post_lines};
use crate::harness::eventually;

/// So long that only the end of the process ends it.
const STUCK: &str = "do=delay:600000";

#[test]
fn a_listener_that_is_killed_before_its_commit_leaves_everything_to_the_other_instance() {
    let Some(site) = Site::start() else { return };
    let first = site.instance(&[]);
    // Faults are counted by each process for itself, so the other one starts when the first has met its own.
    let fault = site.standin.inject(&format!("on=OCITransCommit module=/listener {STUCK}"));
    let mut client = site.client(&first, "demo");
    post_lines(&mut client, 0..50).expect(202);
    eventually("a listener is at its commit", || (site.standin.hits(&fault) > 0).then_some(()));
    site.standin.mend(&fault);
    let second = site.instance(&[]);
    let mut other = site.client(&second, "demo");
    post_lines(&mut other, 50..60).expect(202);
    first.kill();
    applied_once(&site, 60);
    assert_eq!(site.standin.sql("SELECT count(*) FROM sentinel.dead_letter"), "0");
    assert_eq!(second.terminate(), 0);
}

#[test]
fn an_intake_that_is_killed_before_its_commit_has_accepted_nothing() {
    let Some(site) = Site::start() else { return };
    let (first, second) = (site.instance(&[]), site.instance(&[]));
    let fault = site.standin.inject(&format!("on=OCITransCommit module=/intake {STUCK}"));
    let mut client = site.client(&first, "demo");
    let body = event(1).to_string();
    let fields = [("Content-Type", "application/json"), ("Idempotency-Key", "key-1")];
    let cut_off = thread::scope(|scope| {
        let waiting =
            scope.spawn(|| client.try_request("POST", "/v1/events", &fields, body.as_bytes()));
        eventually("intake is at its commit", || (site.standin.hits(&fault) > 0).then_some(()));
        site.standin.mend(&fault);
        first.kill();
        waiting.join().expect("the client ends")
    });
    assert!(cut_off.is_err(), "{cut_off:?}");
    let mut other = site.client(&second, "demo");
    let again = other.event("key-1", &event(1)).expect(202);
    assert_eq!(again.header("idempotency-replayed"), None, "the first was never accepted");
    assert_eq!(again.json()["streamSeq"], 1);
    applied_once(&site, 1);
    assert_eq!(second.terminate(), 0);
}
