//! A backlog expires nobody; true silence expires once; a sign of life revives: with two instances that look.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread;
use std::time::{Duration, Instant};

use serde_json::{Value, json};

use super::{Site, end};
use crate::harness::{Client, HandClock, InChild, eventually, full};
use crate::outage::{Stage, promises};

/// A stage over this site: listener, reapers and all clocks are moved by hand.
fn stage(site: &Site, processes: usize) -> Stage {
    let clock = HandClock::new();
    let (moved, standin) = (clock.clone(), Arc::clone(&site.standin));
    // The database's clock is the same hand's.
    let held = Arc::new(move || {
        let now = moved.now();
        standin.hold_clock(now.micros());
        now
    });
    let service = site.in_process(held, Stage::PARTS, &[]);
    let client = site.client_at(service.service.api_address(), "demo");
    Stage::of(service, client, clock, tempfile::tempdir().expect("a folder"), processes)
}

#[test]
fn hours_of_outage_silence_and_jumping_clocks_expire_only_who_was_silent() {
    let held: [fn(Stage); 4] = [
        promises::a_backlog_expires_nobody_then_silence_expires_each_once_and_a_heartbeat_revives,
        promises::a_heartbeat_that_arrives_before_the_judgement_of_an_older_one_keeps_the_process_alive,
        promises::a_jump_of_the_wall_clock_expires_nobody,
        promises::a_log_row_is_a_sign_of_life,
    ];
    for promise in held {
        let Some(site) = Site::start() else { return };
        promise(stage(&site, if full() { 1_000 } else { 50 }));
    }
}

const INTERVAL: (&str, &str) = ("SENTINEL_HEARTBEAT_INTERVAL_SEC", "1");
const TIMEOUT_S: u64 = 3;
const TIMEOUT: (&str, &str) = ("SENTINEL_PROCESS_TIMEOUT_SEC", "3");

fn report(client: &mut Client, kind: &str, process: &str) -> Value {
    let fields = [("X-Sentinel-Process-Id", process)];
    client.request("POST", &format!("/internal/{kind}"), &fields, b"").expect(202).json()
}

fn status(client: &mut Client, process: &str) -> String {
    let answer = client.get(&format!("/status/{process}")).expect(200).json();
    answer["status"].as_str().expect("a status").to_owned()
}

fn expiries(client: &mut Client, process: &str) -> usize {
    let path = format!("/v1/streams/{process}/events?limit=1000");
    let page = client.get(&path).expect(200).json();
    let events = page["events"].as_array().expect("events");
    events.iter().filter(|event| event["type"] == "process.expired").count()
}

/// Goes on sending heartbeats of a process, to one instance and the other, until `enough`; the longest time between two
/// that were taken.
fn talk(site: &Site, instances: &[InChild], process: &str, enough: &AtomicBool) -> Duration {
    let mut clients: Vec<Client> =
        instances.iter().map(|instance| site.client(instance, "demo")).collect();
    let doors = clients.len();
    let (mut longest, mut last) = (Duration::ZERO, Instant::now());
    for turn in 0.. {
        if enough.load(Ordering::SeqCst) {
            break;
        }
        report(&mut clients[turn % doors], "heartbeat", process);
        longest = longest.max(last.elapsed());
        last = Instant::now();
        thread::sleep(Duration::from_millis(100));
    }
    longest
}

#[test]
fn silence_expires_once_a_backlog_nobody_and_a_late_sign_of_life_revives() {
    let Some(site) = Site::start() else { return };
    let instances = [site.instance(&[INTERVAL, TIMEOUT]), site.instance(&[INTERVAL, TIMEOUT])];
    let [mut here, mut there] = [0, 1].map(|door: usize| site.client(&instances[door], "demo"));
    report(&mut here, "start", "talking");
    report(&mut here, "start", "quiet");
    let enough = AtomicBool::new(false);
    thread::scope(|scope| {
        let talking = scope.spawn(|| talk(&site, &instances, "talking", &enough));
        // Whatever fails here, the talking ends.
        let last = LastWord(&enough);

        eventually("the quiet one expires", || {
            (status(&mut there, "quiet") == "EXPIRED").then_some(())
        });
        assert_eq!(status(&mut here, "quiet"), "EXPIRED");
        assert_eq!(status(&mut there, "talking"), "RUNNING");

        // For two timeouts nothing is applied. Everybody goes on living, unheard.
        site.standin.queue(true, false);
        report(&mut here, "start", "late");
        let stopped = Instant::now();
        while stopped.elapsed() < Duration::from_secs(2 * TIMEOUT_S) {
            assert_ne!(status(&mut there, "talking"), "EXPIRED");
            assert_ne!(status(&mut here, "late"), "EXPIRED");
            thread::sleep(Duration::from_millis(100));
        }
        let sign = report(&mut here, "heartbeat", "late")["streamSeq"].clone();
        site.standin.queue(true, true);
        eventually("the backlog is applied", || {
            let stream = there.get("/v1/streams/late").json();
            let is_applied = stream["appliedSeq"].as_u64()? >= sign.as_u64()?;
            let now = status(&mut there, "late");
            assert_ne!(now, "EXPIRED");
            // One listener may apply the sign before another one the start.
            (is_applied && now == "RUNNING").then_some(())
        });
        assert_eq!(expiries(&mut there, "late"), 0, "a backlog expires nobody");

        assert_eq!(expiries(&mut here, "quiet"), 1, "two reapers write one event");
        eventually("it revives", || {
            report(&mut there, "heartbeat", "quiet");
            (status(&mut here, "quiet") == "RUNNING").then_some(())
        });
        // Silent again, it is judged again: that is another silence.
        eventually("it expires again", || (status(&mut there, "quiet") == "EXPIRED").then_some(()));
        assert_eq!(expiries(&mut here, "quiet"), 2);
        drop(last);
        let longest = talking.join().expect("it is heard");
        // On a machine that stood still for that long it was silent.
        let was_silent = longest >= Duration::from_secs(TIMEOUT_S);
        assert!(was_silent || expiries(&mut here, "talking") == 0, "{longest:?}");
    });
    let dead = there.get("/v1/dead-letters").expect(200).json();
    assert_eq!(dead["dead_letters"], json!([]));
    instances.into_iter().for_each(end);
}

/// Ends the talking when it goes.
struct LastWord<'w>(&'w AtomicBool);

impl Drop for LastWord<'_> {
    fn drop(&mut self) {
        self.0.store(true, Ordering::SeqCst);
    }
}
