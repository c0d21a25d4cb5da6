//! Once, in order, and the same answer again, by two and three instances on one queue [AQ11].

use std::collections::BTreeMap;
use std::thread;
use std::time::Instant;

use serde_json::{Value, json};

use super::{Site, end};
use crate::harness::{Client, InChild, PATIENCE, envelope, full};
use crate::promises::delivery as promises;

#[test]
fn what_is_promised_about_repeats_batches_and_forms_holds_across_two_instances() {
    let Some(site) = Site::start() else { return };
    let instances = [site.instance(&[]), site.instance(&[])];
    for (number, (name, promise)) in (0..).zip(promises::ALL) {
        // Each promise is made to a tenant of its own; the name is told when it is broken.
        println!("{name}");
        let tenant = format!("tenant-{number}");
        promise(&mut [0, 1].map(|door: usize| site.client(&instances[door], &tenant)));
    }
    instances.into_iter().for_each(end);
}

/// An event as its poster saw it.
struct Posted {
    stream: usize,
    seq: u64,
    id: String,
    sent: Instant,
    answered: Instant,
}

/// Posts `each` events for each of `streams`, in batches of one event for each, forwards or backwards through them.
fn post(
    client: &mut Client,
    streams: usize,
    each: usize,
    offset: u128,
    backwards: bool,
) -> Vec<Posted> {
    let mut posted = Vec::with_capacity(streams * each);
    for round in 0..each {
        let mut order: Vec<usize> = (0..streams).collect();
        if backwards {
            order.reverse();
        }
        let lines: Vec<Value> = order
            .iter()
            .map(|stream| {
                let id = offset + (round * streams + stream) as u128;
                envelope(id, &format!("stream-{stream}"), json!({"n": round}))
            })
            .collect();
        let sent = Instant::now();
        let answer = promises::post_lines(client, &lines).expect(202);
        let answered = Instant::now();
        for (stream, line) in order.into_iter().zip(answer.text().lines()) {
            let line: Value = serde_json::from_str(line).expect("an answer is JSON");
            assert_eq!(line["replayed"], false, "{line}");
            let seq = line["streamSeq"].as_u64().expect("a number");
            let id = line["eventId"].as_str().expect("an id").to_owned();
            posted.push(Posted { stream, seq, id, sent, answered });
        }
    }
    posted
}

/// The ids of a stream's events by their numbers, once `count` are applied. As long as it goes on, it is waited for.
fn applied(client: &mut Client, stream: usize, count: usize) -> BTreeMap<u64, String> {
    let (mut found, mut after, mut moved) = (BTreeMap::new(), 0, Instant::now());
    while found.len() < count {
        let path = format!("/v1/streams/stream-{stream}/events?after={after}&limit=1000&wait=1s");
        let page = client.get(&path);
        let page = if page.status == 404 { json!({"events": []}) } else { page.expect(200).json() };
        for event in page["events"].as_array().expect("events") {
            let seq = event["streamSeq"].as_u64().expect("a number");
            assert_eq!(seq, after + 1, "without a gap and in order: stream-{stream}");
            found.insert(seq, event["eventId"].as_str().expect("an id").to_owned());
            (after, moved) = (seq, Instant::now());
        }
        assert!(moved.elapsed() < PATIENCE, "stream-{stream} stands at {after} of {count}");
    }
    found
}

#[test]
fn two_instances_number_every_stream_in_the_order_of_acceptance() {
    number_every_stream_in_the_order_of_acceptance(2);
}

#[test]
fn three_instances_number_every_stream_in_the_order_of_acceptance() {
    number_every_stream_in_the_order_of_acceptance(3);
}

fn number_every_stream_in_the_order_of_acceptance(doors: usize) {
    let Some(site) = Site::start() else { return };
    let instances: Vec<InChild> = (0..doors).map(|_| site.instance(&[])).collect();
    let (streams, each): (usize, usize) = if full() { (100, 1_000) } else { (20, 100) };
    // A multiple of the doors, so that each is posted through as often.
    let rounds = each.div_ceil(doors);
    let each = rounds * doors;
    let began = Instant::now();
    let mut posted: Vec<Posted> = thread::scope(|scope| {
        let posters: Vec<_> = (0u32..)
            .zip(&instances)
            .map(|(number, instance)| {
                let mut client = site.client(instance, "demo");
                scope.spawn(move || {
                    let offset = u128::from(number) << 64;
                    post(&mut client, streams, rounds, offset, number == 1)
                })
            })
            .collect();
        posters.into_iter().flat_map(|poster| poster.join().expect("it is served")).collect()
    });
    let accepted = began.elapsed();
    posted.sort_by_key(|posted| (posted.stream, posted.seq));
    assert_eq!(posted.len(), streams * each);
    let mut readers: Vec<Client> =
        instances.iter().map(|instance| site.client(instance, "demo")).collect();
    for (stream, posted) in (0..).zip(posted.chunks(each)) {
        let numbers: Vec<u64> = posted.iter().map(|posted| posted.seq).collect();
        assert_eq!(numbers, (1..=each as u64).collect::<Vec<u64>>(), "stream-{stream}");
        // Whoever had the answer before another was sent was accepted before it, at whichever instance.
        let mut newest = posted[0].sent;
        for posted in posted {
            assert!(newest <= posted.answered, "stream-{stream}: {} came too late", posted.seq);
            newest = newest.max(posted.sent);
        }
        let expected: BTreeMap<u64, String> =
            posted.iter().map(|posted| (posted.seq, posted.id.clone())).collect();
        for reader in &mut readers {
            assert_eq!(applied(reader, stream, each), expected, "stream-{stream}");
        }
    }
    let dead = readers[0].get("/v1/dead-letters").expect(200).json();
    assert_eq!(dead["dead_letters"], json!([]));
    println!(
        "{} events were accepted by {doors} instances in {accepted:?} and applied in {:?}",
        posted.len(),
        began.elapsed()
    );
    instances.into_iter().for_each(end);
}

#[test]
fn three_instances_report_for_the_same_processes_in_opposite_order() {
    let Some(site) = Site::start() else { return };
    let instances = [(); 3].map(|()| site.instance(&[]));
    let (processes, rounds) = (20, if full() { 50 } else { 10 });
    let id = |door: usize, round: usize, process: usize| {
        (door as u128) << 64 | (round as u128) << 32 | process as u128
    };
    thread::scope(|scope| {
        for (door, instance) in instances.iter().enumerate() {
            let mut client = site.client(instance, "demo");
            scope.spawn(move || {
                for round in 0..rounds {
                    let mut lines: Vec<Value> = (0..processes)
                        .map(|process| {
                            let percent = (round * 3 + door) as f64 * 0.5;
                            let payload = json!({"progress_percent": percent});
                            let stream = format!("stream-{process}");
                            let mut line = envelope(id(door, round, process), &stream, payload);
                            line["type"] = json!("process.progress");
                            line
                        })
                        .collect();
                    // Each instance begins elsewhere, and one goes backwards.
                    lines.rotate_left(door * 7);
                    if door == 1 {
                        lines.reverse();
                    }
                    promises::post_lines(&mut client, &lines).expect(202);
                }
            });
        }
    });
    let mut readers: Vec<Client> =
        instances.iter().map(|instance| site.client(instance, "demo")).collect();
    for process in 0..processes {
        let mut told: Vec<Value> = Vec::new();
        for reader in &mut readers {
            assert_eq!(applied(reader, process, rounds * 3).len(), rounds * 3);
            told.push(reader.get(&format!("/status/stream-{process}")).expect(200).json());
        }
        assert!(told.iter().all(|status| *status == told[0]), "{told:?}");
        assert_eq!(told[0]["status"], "ACTIVE", "{}", told[0]);
    }
    instances.into_iter().for_each(end);
}
