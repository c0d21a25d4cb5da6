//! A stop answers what is in flight, and what was acknowledged is there afterwards, however often that happens.

use std::collections::BTreeMap;
use std::sync::mpsc;
use std::thread;
use std::time::{Duration, Instant};

use serde_json::{Value, json};

use super::{Site, ended};
use crate::harness::{Client, PATIENCE, envelope, eventually};

const DEADLINE: Duration = Duration::from_secs(20);

/// Posts one event after the other until the door is closed: number and id of each that was acknowledged.
fn post_until_closed(
    client: &mut Client,
    stream: &str,
    offset: u128,
    under_way: &mpsc::Sender<()>,
) -> Vec<(u64, String)> {
    let mut acknowledged = Vec::new();
    for n in 0u128.. {
        let body = envelope(offset + n, stream, json!({})).to_string();
        let key = format!("k{}", offset + n);
        let fields = [("Content-Type", "application/json"), ("Idempotency-Key", key.as_str())];
        match client.try_request("POST", "/v1/events", &fields, body.as_bytes()) {
            Ok(response) if response.status == 202 => {
                let answer = response.json();
                let seq = answer["streamSeq"].as_u64().expect("a number");
                acknowledged.push((seq, answer["eventId"].as_str().expect("an id").to_owned()));
            }
            Ok(response) => assert_eq!(response.status, 503, "{}", response.text()),
            Err(_) => break,
        }
        if n == 5 {
            let _ = under_way.send(());
        }
    }
    acknowledged
}

#[test]
fn ten_restarts_under_load_lose_and_double_nothing() {
    const SENDERS: u128 = 4;
    let Some(site) = Site::start() else { return };
    let settings = [("SENTINEL_SHUTDOWN_TIMEOUT_SEC", "20")];
    let mut acknowledged: BTreeMap<u64, String> = BTreeMap::new();
    let mut slowest = Duration::ZERO;
    let rounds = 10;
    for round in 0..rounds {
        let instance = site.instance(&settings);
        let got = thread::scope(|scope| {
            let (ready, go) = mpsc::channel();
            let senders: Vec<_> = (0..SENDERS)
                .map(|sender| {
                    let mut client = site.client(&instance, "demo");
                    let (ready, offset) = (ready.clone(), (round * SENDERS + sender) << 32);
                    scope.spawn(move || post_until_closed(&mut client, "s", offset, &ready))
                })
                .collect();
            for _ in 0..SENDERS {
                go.recv_timeout(PATIENCE).expect("the senders get on");
            }
            let before = Instant::now();
            instance.signal_term();
            let got: Vec<(u64, String)> = senders
                .into_iter()
                .flat_map(|sender| sender.join().expect("it is answered"))
                .collect();
            ended(instance);
            slowest = slowest.max(before.elapsed());
            got
        });
        assert!(got.len() >= 20, "{} in round {round}", got.len());
        for (seq, id) in got {
            assert_eq!(acknowledged.insert(seq, id), None, "number {seq} was given twice");
        }
    }
    assert!(slowest < DEADLINE, "{slowest:?}");
    let instance = site.instance(&settings);
    let mut client = site.client(&instance, "demo");
    let highest = *acknowledged.last_key_value().expect("something was acknowledged").0;
    eventually("everything acknowledged is applied", || {
        let stream = client.get("/v1/streams/s").expect(200).json();
        (stream["appliedSeq"].as_u64()? >= highest).then_some(())
    });
    let mut found: BTreeMap<u64, String> = BTreeMap::new();
    let mut after = 0;
    while after < highest {
        let path = format!("/v1/streams/s/events?after={after}&limit=1000");
        for event in client.get(&path).expect(200).json()["events"].as_array().expect("events") {
            let seq = event["streamSeq"].as_u64().expect("a number");
            assert_eq!(seq, after + 1, "without a gap");
            found.insert(seq, event["eventId"].as_str().expect("an id").to_owned());
            after = seq;
        }
    }
    for (seq, id) in &acknowledged {
        assert_eq!(found.get(seq), Some(id), "number {seq}");
    }
    // What was accepted and could not be answered any more may be there too, but nothing is there twice.
    let mut ids: Vec<&String> = found.values().collect();
    ids.sort_unstable();
    ids.dedup();
    assert_eq!(ids.len(), found.len());
    // A key is remembered over all of that.
    let first: Value = client.event("k0", &envelope(0, "s", json!({}))).expect(202).json();
    assert_eq!(
        first["streamSeq"].as_u64().and_then(|seq| found.get(&seq)),
        first["eventId"].as_str().map(str::to_owned).as_ref()
    );
    println!(
        "{rounds} restarts, {} acknowledged, the slowest stop {slowest:?}",
        acknowledged.len()
    );
    instance.signal_term();
    ended(instance);
}
