//! Law 2 as a property. This module makes sets of events at random and lets every order, duplication and batching of
//! each end in the row and the runs of the plain fold.

use std::collections::BTreeMap;
use std::sync::Arc;

use proptest::prelude::*;
use proptest::strategy::ValueTree;
use proptest::test_runner::{Config, TestRunner};

use super::super::{RunRow, State};
use super::reference;
use super::{Draft, apply, draft, row_of};
use crate::domain::event::Accepted;
use crate::domain::ids::EventId;
use crate::domain::time::Timestamp;

/// How many sets are tried, and how many with `SENTINEL_TEST_FULL=1`.
const CASES: u32 = 2_000;
const CASES_FULL: u32 = 100_000;

/// Enough for several runs, and within all bounds, so that the digest must be exact.
const EVENTS_MAX: usize = 22;
const STARTS_MAX: usize = 4;
const LIVES_MAX: usize = 14;
const JUDGEMENTS_MAX: usize = 4;
const METADATA_MAX: usize = 4;
const REGISTRATIONS_MAX: usize = 3;

/// The raw material of one event.
#[derive(Debug, Clone)]
struct Grain {
    kind: u8,
    /// Ticks of 500 ms, few enough that some coincide.
    sent: i64,
    /// How far the sender's clock is off, in ticks.
    skew: i64,
    delay_ms: i64,
    run: u8,
    detail: u8,
}

fn grain() -> impl Strategy<Value = Grain> {
    (0u8..20, 0i64..60, -20i64..=20, 0i64..3000, 0u8..12, any::<u8>()).prop_map(
        |(kind, sent, skew, delay_ms, run, detail)| {
            // Half of the clocks are right.
            let skew = if detail % 2 == 0 { 0 } else { skew };
            Grain { kind, sent, skew, delay_ms, run, detail }
        },
    )
}

fn drafts(grains: &[Grain]) -> Vec<Draft> {
    let mut drafts: Vec<Draft> = Vec::new();
    let (mut starts, mut lives, mut judgements, mut described, mut registered) = (0, 0, 0, 0, 0);
    for (index, grain) in grains.iter().enumerate() {
        let kind = match grain.kind {
            0..=2 => "started",
            3..=7 => "progress",
            8..=9 => "heartbeat",
            10..=12 => "completed",
            13..=14 => "failed",
            15 => "paused",
            16 => "resumed",
            17 => "registered",
            _ => "expired",
        };
        let (count, max) = match kind {
            "started" => (&mut starts, STARTS_MAX),
            "expired" => (&mut judgements, JUDGEMENTS_MAX),
            "registered" => (&mut registered, REGISTRATIONS_MAX),
            "completed" | "failed" => (&mut 0, 1),
            _ => (&mut lives, LIVES_MAX),
        };
        if *count == max {
            continue;
        }
        *count += 1;
        let id = if kind == "started" { format!("run-{count}") } else { format!("event-{index}") };
        let mut made = draft(kind, &id, (grain.sent + grain.skew) * 500)
            .received(grain.sent * 500 + grain.delay_ms);
        if grain.detail == 77 {
            made.occurred_at = Timestamp::parse("2099-01-01T00:00:00Z");
        }
        if grain.detail == 78 {
            made.occurred_at = None;
        }
        // Two of three reports name no run; some name one that never starts.
        if (1..=4).contains(&grain.run) && !matches!(kind, "started" | "registered" | "expired") {
            made = made.tagged(&format!("run-{}", grain.run));
        }
        let detail = grain.detail;
        made = match kind {
            "started" | "registered" => {
                if detail % 3 == 0 {
                    made = made.with("process_name", format!("name-{detail}"));
                }
                if detail % 4 == 0 {
                    made = made.with("timeout_s", detail);
                }
                made.with("metadata", serde_json::json!({ "team": detail, "zone": kind }))
            }
            "progress" => {
                if detail % 3 != 0 {
                    made = made.with("current_step", format!("step-{detail}"));
                }
                if detail % 4 != 0 {
                    made = made.with("progress_percent", f64::from(detail) / 2.0);
                }
                if detail % 5 == 0 && described < METADATA_MAX {
                    described += 1;
                    made = made.with("metadata", serde_json::json!({ "team": detail, "rows": 5 }));
                }
                made
            }
            "failed" => made.with("error_code", detail).with("error_message", "it broke"),
            "expired" => {
                // A judgement of an earlier event of the set, whatever that is.
                let Some(judged) = drafts.get(usize::from(detail) % drafts.len().max(1)) else {
                    continue;
                };
                made.judging(judged)
            }
            _ => made,
        };
        drafts.push(made);
    }
    drafts
}

/// Random numbers that follow from a seed (Knuth's generator), enough to shuffle.
struct Dice(u64);

impl Dice {
    fn roll(&mut self, sides: usize) -> usize {
        self.0 =
            self.0.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        usize::try_from(self.0 >> 33).unwrap() % sides
    }

    /// Any order, some of them twice.
    fn delivery(&mut self, events: &[Arc<Accepted>]) -> Vec<Arc<Accepted>> {
        let mut delivery = events.to_vec();
        for _ in 0..self.roll(4) {
            delivery.push(Arc::clone(&events[self.roll(events.len())]));
        }
        for last in (1..delivery.len()).rev() {
            let other = self.roll(last + 1);
            delivery.swap(last, other);
        }
        delivery
    }
}

#[test]
fn every_order_duplication_and_batching_ends_in_the_row_of_the_plain_fold() {
    let full = std::env::var("SENTINEL_TEST_FULL").is_ok_and(|value| value == "1");
    let cases = if full { CASES_FULL } else { CASES };
    let mut runner =
        TestRunner::new(Config { cases, failure_persistence: None, ..Config::default() });
    let strategy = (prop::collection::vec(grain(), 1..EVENTS_MAX), any::<u64>());
    let result = runner.run(&strategy, |(grains, seed)| {
        let events: Vec<Accepted> = drafts(&grains).iter().map(Draft::event).collect();
        if events.is_empty() {
            return Ok(());
        }
        let expected = reference::fold(&events);
        let events: Vec<Arc<Accepted>> = events.into_iter().map(Arc::new).collect();
        let mut dice = Dice(seed);

        // One by one, in an order of its own.
        let state = super::merged(dice.delivery(&events).iter().map(|event| &**event));
        prop_assert_eq!(&row_of(&state), &expected.0);
        prop_assert_eq!(&state.runs(), &expected.1);

        // In batches, written and read between them, with the history that a store would keep.
        let mut stored: Option<Vec<u8>> = None;
        let mut history: BTreeMap<Option<EventId>, RunRow> = BTreeMap::new();
        let mut row = None;
        let delivery = dice.delivery(&events);
        let mut rest = delivery.as_slice();
        while !rest.is_empty() {
            let (batch, later) = rest.split_at(1 + dice.roll(rest.len()));
            rest = later;
            let loaded = stored.as_deref().map(|bytes| State::from_bytes(bytes).unwrap());
            let change = apply(loaded, batch).processes.remove(0);
            stored = Some(change.state.to_bytes());
            for run in change.runs {
                if run.started_at.is_none() && run.outcome.is_none() {
                    history.remove(&run.run_id);
                } else {
                    history.insert(run.run_id.clone(), run);
                }
            }
            row = Some(change.row);
        }
        prop_assert_eq!(row.as_ref(), Some(&expected.0));
        let listed: BTreeMap<_, _> =
            expected.1.into_iter().map(|run| (run.run_id.clone(), run)).collect();
        prop_assert_eq!(&history, &listed);
        Ok(())
    });
    if let Err(problem) = result {
        panic!("{problem}");
    }
}

/// A long life in the order of acceptance, far beyond every bound: runs, ends, reports, judgements.
fn long_life(dice: &mut Dice, length: i64) -> Vec<Draft> {
    let mut life: Vec<Draft> = Vec::new();
    let mut newest_run = None;
    for index in 0..length {
        let sent = index * 900 + i64::try_from(dice.roll(800)).unwrap();
        let kind = [
            "started",
            "completed",
            "failed",
            "progress",
            "progress",
            "progress",
            "progress",
            "heartbeat",
            "heartbeat",
            "heartbeat",
            "paused",
            "resumed",
            "expired",
        ][dice.roll(13)];
        let id = format!("event-{index:04}");
        let mut made = draft(kind, &id, sent);
        match kind {
            "started" => newest_run = Some(id),
            "progress" => {
                for (name, sides) in [("current_step", 3), ("progress_percent", 2)] {
                    if dice.roll(sides) == 0 {
                        made = made.with(name, index % 100);
                    }
                }
                if dice.roll(4) == 0 {
                    let member = format!("m{}", dice.roll(9));
                    made = made.with("metadata", serde_json::json!({ member: index }));
                }
            }
            "expired" => {
                let Some(judged) = life.last() else { continue };
                made = draft(kind, &id, sent).judging(judged);
            }
            _ => {}
        }
        if let (Some(run), 0, false) = (&newest_run, dice.roll(3), kind == "started") {
            made = made.tagged(run);
        }
        life.push(made);
    }
    life
}

#[test]
fn events_in_the_order_of_acceptance_give_the_row_of_the_plain_fold_however_many_they_are() {
    for seed in 0..60 {
        let mut dice = Dice(seed);
        let life = long_life(&mut dice, 150);
        let mut state = State::default();
        let mut events: Vec<Accepted> = Vec::new();
        for (index, draft) in life.iter().enumerate() {
            let event = draft.event();
            let _ = state.merge(super::mark_of(&event));
            events.push(event);
            if index % 25 == 24 || index + 1 == life.len() {
                let (row, runs) = reference::fold(&events);
                assert_eq!(row_of(&state), row, "seed {seed}, after {index}");
                let kept = state.runs();
                assert_eq!(kept, runs[runs.len() - kept.len()..], "seed {seed}, after {index}");
            }
        }
        assert!(state.to_bytes().len() < 8_000, "seed {seed}: {} bytes", state.to_bytes().len());
    }
}

#[test]
fn the_sets_reach_what_they_are_meant_to_reach() {
    // A property that never sees a superseded run or an expiry proves nothing about them.
    let mut seen: BTreeMap<String, u32> = BTreeMap::new();
    let mut runner = TestRunner::deterministic();
    for _ in 0..1000 {
        let strategy = prop::collection::vec(grain(), 1..EVENTS_MAX);
        let grains = strategy.new_tree(&mut runner).unwrap().current();
        let events: Vec<Accepted> = drafts(&grains).iter().map(Draft::event).collect();
        if events.is_empty() {
            continue;
        }
        let (row, runs) = reference::fold(&events);
        *seen.entry(format!("{:?}", row.status)).or_default() += 1;
        for run in runs {
            *seen
                .entry(format!("{:?} start={}", run.outcome, run.started_at.is_some()))
                .or_default() += 1;
            if run.started_at.zip(run.ended_at).is_some_and(|(start, end)| end < start) {
                *seen.entry("ended before its start".to_string()).or_default() += 1;
            }
        }
        if events.iter().any(|event| event.clock_skew) {
            *seen.entry("clock skew".to_string()).or_default() += 1;
        }
    }
    for wanted in [
        "Registered",
        "Active",
        "Running",
        "Paused",
        "Expired",
        "Completed",
        "Failed",
        "Some(Superseded) start=true",
        "Some(Superseded) start=false",
        "Some(Completed) start=false",
        "None start=true",
        "ended before its start",
        "clock skew",
    ] {
        assert!(seen.get(wanted).is_some_and(|count| *count >= 1), "{wanted} is missing: {seen:?}");
    }
}
