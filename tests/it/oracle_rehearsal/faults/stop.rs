//! A stop while everybody waits for the database.

use std::time::{Duration, Instant};

use super::{Site, event};
use crate::harness::InChild;

/// A dequeue waits for a second at most, and the rest is quick.
const QUICK: Duration = Duration::from_secs(2);

fn stops_quickly(instance: InChild) {
    let begun = Instant::now();
    instance.signal_term();
    let log = instance.log();
    assert_eq!(instance.wait(), 0, "{log}");
    assert!(begun.elapsed() < QUICK, "the stop took {:?}: {log}", begun.elapsed());
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
