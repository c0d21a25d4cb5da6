//! Once, in order, and the same answer again, by two and three instances on one queue [AQ11].

use std::thread;

use serde_json::json;

use super::Site;
use crate::harness::{envelope, eventually, full};

#[test]
fn two_instances_number_every_stream_in_the_order_of_acceptance() {
    let Some(site) = Site::start() else { return };
    let (first, second) = (site.instance(&[]), site.instance(&[]));
    let (streams, each) = if full() { (100, 1_000) } else { (20, 50) };
    let posted = |instance: &crate::harness::InChild, offset: u128| {
        let mut client = site.client(instance, "demo");
        let mut numbers = Vec::new();
        for event in 0..each / 2 {
            for stream in 0..streams {
                let id = offset + u128::from(event * streams + stream);
                let envelope = envelope(id, &format!("stream-{stream}"), json!({"n": event}));
                let answer = client.event(&format!("key-{id}"), &envelope).expect(202).json();
                numbers.push((stream, answer["streamSeq"].as_u64().expect("a number"), id));
            }
        }
        numbers
    };
    let (mut numbers, more) = thread::scope(|scope| {
        let other = scope.spawn(|| posted(&second, 1 << 64));
        (posted(&first, 0), other.join().expect("the other client is served too"))
    });
    numbers.extend(more);
    numbers.sort_unstable();
    let mut reader = site.client(&second, "demo");
    for stream in 0..streams {
        let accepted: Vec<u64> =
            numbers.iter().filter(|entry| entry.0 == stream).map(|entry| entry.1).collect();
        assert_eq!(accepted, (1..=each).collect::<Vec<u64>>(), "stream-{stream}");
        eventually("the stream is applied", || {
            let page = reader.get(&format!("/v1/streams/stream-{stream}/events?limit=1000"));
            let page = page.expect(200).json();
            (page["events"].as_array().expect("events").len() as u64 == each).then_some(())
        });
    }
    assert_eq!((first.terminate(), second.terminate()), (0, 0));
}
