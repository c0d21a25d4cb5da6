//! A stop while everybody waits for the database.

use std::time::{Duration, Instant};

use super::{Site, event};
use crate::harness::{InChild, eventually};

/// A dequeue waits for a second at most, and the rest is quick.
const QUICK: Duration = Duration::from_secs(2);
/// What a stop may take by default (`SENTINEL_SHUTDOWN_TIMEOUT_SEC`).
const DRAIN: Duration = Duration::from_secs(25);

fn stops_within(instance: InChild, bound: Duration) {
    let begun = Instant::now();
    instance.signal_term();
    let log = instance.log();
    assert_eq!(instance.wait(), 0, "{log}");
    assert!(begun.elapsed() < bound, "the stop took {:?}: {log}", begun.elapsed());
}

fn stops_quickly(instance: InChild) {
    stops_within(instance, QUICK);
}

#[test]
fn a_stop_while_listeners_wait_for_messages_takes_less_than_two_seconds() {
    let Some(site) = Site::start() else { return };
    // Idle from the start, and after some work: every listener is in its wait again.
    stops_quickly(site.instance(&[]));
    let (first, second) =
        (site.instance(&[]), site.instance(&[("SENTINEL_LISTENER_THREADS", "4")]));
    let mut client = site.client(&first, "demo");
    client.event("key-1", &event(1)).expect(202);
    super::applied_once(&site, 1);
    client.get("/processes").expect(200);
    // The connection stays open, as those of most clients do.
    stops_quickly(first);
    stops_quickly(second);
}

#[test]
fn a_stop_while_the_database_answers_no_more_ends_well_and_in_time() {
    let Some(site) = Site::start() else { return };
    let instance = site.instance(&[]);
    let mut client = site.client(&instance, "demo");
    let hung = site.standin.inject("on=OCIStmtExecute module=/listener text=insert do=hang");
    client.event("key-1", &event(1)).expect(202);
    eventually("a listener hangs", || (site.standin.hits(&hung) > 0).then_some(()));
    stops_within(instance, DRAIN);
    site.standin.mend(&hung);
    // What it had in hand is applied by the next one.
    let next = site.instance(&[]);
    super::applied_once(&site, 1);
    stops_quickly(next);
}
