//! A backlog expires nobody; true silence expires once; a sign of life revives.
//!
//! Listener and reaper are driven by hand here, and both clocks with them, so that an outage of hours takes none. The
//! promises are functions over a stage, so that they are held on every store.

use std::sync::{Arc, Barrier};
use std::time::Duration;

use sentinel::component::{Component, Stop};
use sentinel::domain::ids::{ProcessId, TenantId};
use sentinel::domain::process::Status;
use sentinel::domain::time::Timestamp;
use sentinel::listener::{Jitter, Listener, Watermark};
use sentinel::reaper::{Passed, Reaper};
use sentinel::service::{Parts, policy};
use sentinel::store::{KeeperSession, ListenerSession, Overdue, Result, Upkeep};
use serde_json::{Value, json};

use crate::harness::{Client, HandClock, InProcess, config};

const TIMEOUT: Duration = Duration::from_secs(3600);
const INTERVAL: Duration = Duration::from_secs(30);

/// A service whose listener and reapers move only when they are told to.
pub(crate) struct Stage {
    processes: usize,
    /// What is acknowledged is seen before a listener applies it.
    sees_at_once: bool,
    folder: tempfile::TempDir,
    clock: HandClock,
    /// How far the steady clock has come: it never jumps.
    steady: Duration,
    service: InProcess,
    client: Client,
    listener: Listener,
    session: Box<dyn ListenerSession>,
    watermark: Arc<Watermark>,
    jitter: Jitter,
    stop: Stop,
    _idle: Component,
}

impl Stage {
    /// What of a service goes on by itself on a stage.
    pub(crate) const PARTS: Parts = Parts { listener: false, reaper: false, keeper: false };

    /// The embedded store.
    fn new() -> Self {
        let folder = tempfile::tempdir().unwrap();
        let clock = HandClock::new();
        let service = InProcess::start(folder.path(), clock.as_clock(), Self::PARTS, &[]);
        let client = service.client("demo");
        Self { sees_at_once: true, ..Self::of(service, client, clock, folder, 1000) }
    }

    /// Around a service that was started with `clock` and [`Self::PARTS`], and as many processes as are wanted.
    pub(crate) fn of(
        service: InProcess,
        client: Client,
        clock: HandClock,
        folder: tempfile::TempDir,
        processes: usize,
    ) -> Self {
        let watermark = Arc::new(Watermark::default());
        let policy = policy(&config(folder.path(), &[]));
        let listener = service.service.listener(&clock.as_clock(), policy, &watermark);
        let session = service.service.store().listener().unwrap();
        let (stop, idle) = crate::harness::stop();
        let jitter = Jitter::new(0);
        Self {
            processes,
            sees_at_once: false,
            folder,
            clock,
            steady: Duration::ZERO,
            service,
            client,
            listener,
            session,
            watermark,
            jitter,
            stop,
            _idle: idle,
        }
    }

    fn forward(&mut self, pause: Duration) {
        self.clock.forward(pause);
        self.steady += pause;
    }

    /// Lets the listener apply everything that is there.
    fn apply(&mut self) {
        loop {
            let passed = self
                .listener
                .pass(&mut *self.session, Duration::ZERO, &self.stop, &mut self.jitter)
                .unwrap();
            if passed.drained {
                return;
            }
        }
    }

    fn reaper(&self) -> Reaper {
        let policy = policy(&config(self.folder.path(), &[]));
        let postings = self.service.service.shared().postings.clone();
        Reaper::new(
            policy,
            "test".to_owned(),
            Arc::clone(&self.watermark),
            postings,
            Arc::new(|| true),
        )
    }

    /// One pass of a reaper.
    fn reap(&self, reaper: &mut Reaper) -> Passed {
        let mut session = self.service.service.store().keeper().unwrap();
        reaper.pass(&mut *session, self.clock.now(), self.steady).unwrap()
    }

    /// Every process says `event_type` once, dated `at` (now, if None).
    fn everybody(&mut self, event_type: &str, round: usize, at: Option<&str>) {
        let lines: Vec<String> = (0..self.processes)
            .map(|n| {
                let mut event = json!({
                    "eventId": uuid::Uuid::from_u128((round as u128) << 64 | n as u128 | 7 << 76 | 2 << 62).to_string(),
                    "source": "test", "type": event_type, "streamKey": format!("p{n}"), "payload": {}
                });
                if let Some(at) = at {
                    event["timestampUtc"] = json!(at);
                }
                event.to_string()
            })
            .collect();
        let fields = [("Content-Type", "application/x-ndjson")];
        self.client.request("POST", "/v1/events", &fields, lines.join("\n").as_bytes()).expect(202);
    }

    /// Makes seen what was acknowledged.
    fn settle(&mut self) {
        if !self.sees_at_once {
            self.apply();
        }
    }

    fn status(&mut self, process: usize) -> Value {
        self.client.get(&format!("/status/p{process}")).expect(200).json()
    }

    /// How many are in each status that matters here.
    fn count(&mut self, status: &str) -> usize {
        let mut path = format!("/processes?status={status}&limit=1000");
        let mut count = 0;
        loop {
            let page = self.client.get(&path).expect(200).json();
            count += page["processes"].as_array().unwrap().len();
            match page["next_cursor"].as_str() {
                Some(cursor) => {
                    path = format!("/processes?status={status}&limit=1000&cursor={cursor}")
                }
                None => return count,
            }
        }
    }
}

/// A session that goes on from its first look at who is overdue only when another has looked, too.
struct Together<'b> {
    inner: Box<dyn KeeperSession>,
    barrier: Option<&'b Barrier>,
}

impl KeeperSession for Together<'_> {
    fn overdue(&mut self, until: Timestamp, limit: usize) -> Result<Vec<Overdue>> {
        let found = self.inner.overdue(until, limit);
        if let Some(barrier) = self.barrier.take() {
            barrier.wait();
        }
        found
    }

    fn put_off(
        &mut self,
        tenant: &TenantId,
        process: &ProcessId,
        deadline: Timestamp,
    ) -> Result<()> {
        self.inner.put_off(tenant, process, deadline)
    }

    fn archive(&mut self, before: Timestamp, limit: usize) -> Result<usize> {
        self.inner.archive(before, limit)
    }

    fn count_processes(&mut self) -> Result<Vec<(Status, u64)>> {
        self.inner.count_processes()
    }

    fn upkeep(&mut self, now: Timestamp) -> Result<Upkeep> {
        self.inner.upkeep(now)
    }
}

#[test]
fn a_backlog_expires_nobody_then_silence_expires_each_once_and_a_heartbeat_revives() {
    promises::a_backlog_expires_nobody_then_silence_expires_each_once_and_a_heartbeat_revives(
        Stage::new(),
    );
}

#[test]
fn a_heartbeat_that_arrives_before_the_judgement_of_an_older_one_keeps_the_process_alive() {
    promises::a_heartbeat_that_arrives_before_the_judgement_of_an_older_one_keeps_the_process_alive(
        Stage::new(),
    );
}

#[test]
fn a_jump_of_the_wall_clock_expires_nobody() {
    promises::a_jump_of_the_wall_clock_expires_nobody(Stage::new());
}

#[test]
fn a_log_row_is_a_sign_of_life() {
    promises::a_log_row_is_a_sign_of_life(Stage::new());
}

pub(crate) mod promises {
    use super::*;

    pub(crate) fn a_backlog_expires_nobody_then_silence_expires_each_once_and_a_heartbeat_revives(
        mut stage: Stage,
    ) {
        let mut reaper = stage.reaper();
        stage.everybody("process.started", 1, None);
        stage.apply();
        assert!(stage.reap(&mut reaper).held, "nobody is judged in the first interval of a reaper");
        stage.forward(INTERVAL);
        stage.apply();
        assert_eq!(stage.reap(&mut reaper).expired, 0);

        // The listener is stopped for two timeouts. Everybody goes on living, unheard.
        for round in 2..=9 {
            stage.forward(TIMEOUT / 4);
            stage.everybody("process.heartbeat", round, None);
            assert_eq!(stage.reap(&mut reaper).expired, 0, "nobody is judged beyond the watermark");
        }
        stage.apply();
        let judged = stage.reap(&mut reaper);
        assert_eq!(judged.expired, 0, "a backlog expires nobody");
        assert_eq!(stage.count("RUNNING"), stage.processes);

        // True silence, judged by two reapers at the same instant.
        stage.forward(TIMEOUT + Duration::from_secs(1));
        stage.apply();
        let mut other = stage.reaper();
        stage.reap(&mut other);
        stage.forward(INTERVAL);
        stage.apply();
        let barrier = Barrier::new(2);
        let (store, now, steady) = (stage.service.service.store(), stage.clock.now(), stage.steady);
        let judged: usize = std::thread::scope(|scope| {
            let judging = [&mut reaper, &mut other].map(|reaper| {
                let barrier = &barrier;
                scope.spawn(move || {
                    let inner = store.keeper().unwrap();
                    let mut session = Together { inner, barrier: Some(barrier) };
                    reaper.pass(&mut session, now, steady).unwrap().expired
                })
            });
            judging.into_iter().map(|thread| thread.join().unwrap()).sum()
        });
        let found = stage.processes.min(sentinel::reaper::BATCH_MAX);
        assert_eq!(judged, 2 * found, "both found the same, and both were answered");
        stage.apply();
        for _ in 0..3 {
            stage.reap(&mut reaper);
            stage.reap(&mut other);
            stage.apply();
        }
        assert_eq!(stage.count("EXPIRED"), stage.processes);
        for process in [0, stage.processes / 2, stage.processes - 1] {
            let events =
                stage.client.get(&format!("/v1/streams/p{process}/events")).expect(200).json();
            let expired = events["events"]
                .as_array()
                .unwrap()
                .iter()
                .filter(|event| event["type"] == "process.expired")
                .count();
            assert_eq!(expired, 1, "two reapers write one event");
            let reason = stage.status(process)["reason"].as_str().unwrap_or_default().to_owned();
            assert!(
                reason.contains("received until") && reason.contains("judged by test"),
                "{reason}"
            );
        }

        // A heartbeat timed after the last one revives, although it is older than the judgement.
        let last = stage.status(7)["last_update_at"].as_str().unwrap().to_owned();
        let after = Timestamp::parse(&last).unwrap().plus(Duration::from_millis(1));
        stage.everybody("process.heartbeat", 20, Some(&after.to_string()));
        stage.settle();
        assert_eq!(stage.status(7)["status"], "RUNNING", "at once");
        stage.apply();
        assert_eq!(stage.count("RUNNING"), stage.processes);
        stage.service.stop();
    }

    pub(crate) fn a_heartbeat_that_arrives_before_the_judgement_of_an_older_one_keeps_the_process_alive(
        mut stage: Stage,
    ) {
        let mut reaper = stage.reaper();
        stage.everybody("process.started", 1, None);
        stage.apply();
        stage.reap(&mut reaper);
        stage.forward(TIMEOUT + INTERVAL);
        stage.apply();
        // It is accepted but not yet applied when the reaper judges what it knows.
        stage.everybody("process.heartbeat", 2, None);
        let judged = stage.reap(&mut reaper);
        assert!(judged.expired > 0, "the reaper judges what the projection knows");
        assert_eq!(stage.status(0)["status"], "RUNNING", "whoever asks sees both, and life wins");
        stage.apply();
        assert_eq!(stage.count("RUNNING"), stage.processes);
        stage.service.stop();
    }

    pub(crate) fn a_jump_of_the_wall_clock_expires_nobody(mut stage: Stage) {
        let mut reaper = stage.reaper();
        stage.everybody("process.started", 1, None);
        stage.apply();
        stage.reap(&mut reaper);
        stage.forward(INTERVAL);
        stage.reap(&mut reaper);
        // Suspended for a day: the wall clock has moved, the steady one has not.
        stage.clock.forward(Duration::from_secs(86_400));
        stage.apply();
        assert!(stage.reap(&mut reaper).held);
        assert_eq!(stage.count("RUNNING"), stage.processes);
        // Everybody gets one interval to be heard.
        stage.everybody("process.heartbeat", 2, None);
        stage.forward(INTERVAL);
        stage.apply();
        assert_eq!(stage.reap(&mut reaper).expired, 0);
        stage.service.stop();
    }

    pub(crate) fn a_log_row_is_a_sign_of_life(mut stage: Stage) {
        let mut reaper = stage.reaper();
        for id in ["quiet", "talking"] {
            let fields = [("X-Sentinel-Process-Id", id)];
            stage.client.request("POST", "/internal/start", &fields, b"").expect(202);
        }
        stage.apply();
        stage.reap(&mut reaper);
        stage.forward(TIMEOUT - Duration::from_secs(10));
        let fields = [("X-Sentinel-Process-Id", "talking")];
        stage
            .client
            .request("POST", "/internal/log", &fields, br#"{"message":"still here"}"#)
            .expect(202);
        stage.forward(Duration::from_secs(20));
        stage.apply();
        let passed = stage.reap(&mut reaper);
        assert_eq!((passed.expired, passed.put_off), (1, 1));
        stage.apply();
        assert_eq!(stage.client.get("/status/quiet").json()["status"], "EXPIRED");
        assert_eq!(stage.client.get("/status/talking").json()["status"], "RUNNING");
        stage.service.stop();
    }
}
