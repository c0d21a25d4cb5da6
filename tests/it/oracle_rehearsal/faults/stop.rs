//! A stop while everybody waits for the database.

use std::time::{Duration, Instant};

use super::{Site, event};

/// A dequeue waits for a second at most, and the rest is quick.
const QUICK: Duration = Duration::from_secs(2);

#[test]
fn a_stop_while_listeners_wait_for_messages_takes_less_than_two_seconds() {
    let Some(site) = Site::start() else { return };
    let instance = site.instance(&[]);
    let mut client = site.client(&instance, "demo");
    client.event("key-1", &event(1)).expect(202);
    super::applied_once(&site, 1);
    drop(client);
    // Every listener is in its wait again after a batch.
    let begun = Instant::now();
    assert_eq!(instance.terminate(), 0);
    assert!(begun.elapsed() < QUICK, "the stop took {:?}", begun.elapsed());
}
