//! The laws in the plainest words. This module folds the complete, sorted set of a process's events; it keeps
//! everything, is slow, and shares nothing with the merge but the reading of one event.

use std::collections::BTreeMap;

use super::super::key::{Key, Rank};
use super::super::mark::{Attributes, Mark, What};
use super::super::{Outcome, Row, RunRow, Status};
use super::{POLICY, mark_of, process, tenant};
use crate::domain::event::Accepted;
use crate::domain::ids::EventId;
use crate::domain::time::Timestamp;

#[derive(Debug)]
struct Run {
    id: Option<EventId>,
    start: Option<Mark>,
    position: Key,
    /// Ascending, ends excepted.
    reports: Vec<Mark>,
    ends: Vec<Mark>,
    end: Option<Mark>,
    closed_at: Option<Timestamp>,
}

fn is_report(mark: &Mark) -> bool {
    matches!(mark.what, What::Progress { .. } | What::Heartbeat | What::Paused | What::Resumed)
}

fn is_end(mark: &Mark) -> bool {
    matches!(mark.what, What::Ended(_))
}

pub(super) fn fold(events: &[Accepted]) -> (Row, Vec<RunRow>) {
    let mut marks: BTreeMap<Key, Mark> = BTreeMap::new();
    for event in events {
        let mark = mark_of(event);
        marks.insert(mark.key.clone(), mark);
    }
    let marks: Vec<Mark> = marks.into_values().collect();
    let runs = runs(&marks);
    (row(&marks, &runs), runs.iter().filter_map(run_row).collect())
}

fn runs(marks: &[Mark]) -> Vec<Run> {
    // Each STARTED opens a run, whose id is that event's id.
    let mut runs: Vec<Run> = Vec::new();
    for mark in marks.iter().filter(|mark| matches!(mark.what, What::Started(_))) {
        runs.push(Run {
            id: Some(mark.key.event_id.clone()),
            start: Some(mark.clone()),
            position: mark.key.clone(),
            reports: vec![],
            ends: vec![],
            end: None,
            closed_at: None,
        });
    }
    let starts = runs.len();
    // A report that carries a run id belongs to that run; if its STARTED has not come, the run is a stub.
    for mark in marks.iter().filter(|mark| is_report(mark) || is_end(mark)) {
        let Some(tag) = &mark.tag else { continue };
        let found = runs.iter().position(|run| run.id.as_ref() == Some(tag));
        let index = found.unwrap_or_else(|| {
            runs.push(Run {
                id: Some(tag.clone()),
                start: None,
                position: mark.key.clone(),
                reports: vec![],
                ends: vec![],
                end: None,
                closed_at: None,
            });
            runs.len() - 1
        });
        let list = if is_end(mark) { &mut runs[index].ends } else { &mut runs[index].reports };
        list.push(mark.clone());
    }
    // What carries none belongs to the newest STARTED before it.
    let mut before: Vec<&Mark> = vec![];
    let mut home: Vec<Vec<&Mark>> = vec![vec![]; starts];
    for mark in marks.iter().filter(|m| m.tag.is_none() && (is_report(m) || is_end(m))) {
        match (0..starts).rev().find(|&index| runs[index].position < mark.key) {
            Some(index) => home[index].push(mark),
            None => before.push(mark),
        }
    }
    // The first end of a run counts.
    let mut spare_ends: Vec<Vec<&Mark>> =
        vec![before.iter().copied().filter(|m| is_end(m)).collect()];
    for index in 0..starts {
        let mut own: Vec<Mark> = runs[index].ends.clone();
        own.extend(home[index].iter().filter(|m| is_end(m)).map(|m| (*m).clone()));
        runs[index].end = own.into_iter().min_by(|a, b| a.key.cmp(&b.key));
        let counted = runs[index].end.clone();
        spare_ends.push(
            home[index]
                .iter()
                .copied()
                .filter(|m| is_end(m) && Some(&m.key) != counted.as_ref().map(|c| &c.key))
                .collect(),
        );
    }
    // An end that falls into a run already ended, or before any start, belongs to the next run if that starts within
    // 5 s and has no end yet.
    for index in 0..starts {
        if runs[index].end.is_none() {
            let start = runs[index].position.at.micros();
            let taken =
                spare_ends[index].iter().rposition(|end| start - end.key.at.micros() <= 5_000_000);
            if let Some(taken) = taken {
                runs[index].end = Some(spare_ends[index].remove(taken).clone());
            }
        }
    }
    for stub in &mut runs[starts..] {
        stub.end = stub.ends.first().cloned();
    }
    // Without any STARTED there is one run without a name; and an end before all of them is that of a lost start.
    let nameless_end = spare_ends[0].first().map(|end| (*end).clone());
    if (starts == 0 && !before.is_empty()) || nameless_end.is_some() {
        let position = if starts == 0 { before[0] } else { nameless_end.as_ref().unwrap() };
        runs.push(Run {
            id: None,
            start: None,
            position: position.key.clone(),
            reports: before.iter().filter(|m| is_report(m)).map(|m| (*m).clone()).collect(),
            ends: vec![],
            end: nameless_end,
            closed_at: None,
        });
    } else if starts > 0 {
        // What sorts before the first STARTED belongs to the first run.
        runs[0].reports.extend(before.iter().filter(|m| is_report(m)).map(|m| (*m).clone()));
    }
    for index in 0..starts {
        runs[index]
            .reports
            .extend(home[index].iter().filter(|m| is_report(m)).map(|m| (*m).clone()));
    }
    for run in &mut runs {
        run.reports.sort_by(|a, b| a.key.cmp(&b.key));
    }
    runs.sort_by(|a, b| a.position.cmp(&b.position));
    // A STARTED while a run is open closes it.
    for index in 0..runs.len() {
        if runs[index].end.is_none() {
            let next = runs[index + 1..].iter().find(|run| run.start.is_some());
            runs[index].closed_at = next.map(|run| run.position.at);
        }
    }
    runs
}

fn outcome(run: &Run) -> Option<Outcome> {
    match (&run.end, run.closed_at) {
        (Some(Mark { what: What::Ended(ending), .. }), _) => Some(ending.outcome),
        (_, Some(_)) => Some(Outcome::Superseded),
        _ => None,
    }
}

fn run_row(run: &Run) -> Option<RunRow> {
    let started_at = run.start.as_ref().map(|start| start.key.at);
    let ended_at = run.end.as_ref().map(|end| end.key.at).or(run.closed_at);
    if started_at.is_none() && ended_at.is_none() {
        return None;
    }
    let (code, message) = match run.end.as_ref().map(|end| &end.what) {
        Some(What::Ended(ending)) => (ending.error_code.clone(), ending.error_message.clone()),
        _ => (None, None),
    };
    Some(RunRow {
        run_id: run.id.clone(),
        started_at,
        ended_at,
        outcome: outcome(run),
        duration_ms: started_at
            .zip(ended_at)
            .map(|(s, e)| u64::try_from((e.micros() - s.micros()) / 1000).unwrap_or(0)),
        error_code: code.map(|text| text.to_string()),
        error_message: message.map(|text| text.to_string()),
    })
}

fn row(marks: &[Mark], runs: &[Run]) -> Row {
    let registrations: Vec<(&Mark, &Attributes)> = marks
        .iter()
        .filter_map(|mark| match &mark.what {
            What::Registered(attributes) => Some((mark, &**attributes)),
            _ => None,
        })
        .collect();
    let shown = runs.last();
    let start = shown.and_then(|run| run.start.as_ref());
    let end = shown.and_then(|run| run.end.as_ref());
    let visible: Vec<&Mark> = shown
        .iter()
        .flat_map(|run| &run.reports)
        .filter(|mark| end.is_none_or(|end| mark.key < end.key))
        .collect();

    // Attributes and metadata: registrations, then the start, then the reports, each over the one before.
    let mut given = Attributes::default();
    let mut metadata = serde_json::Map::new();
    let mut layers: Vec<&Attributes> =
        registrations.iter().map(|(_, attributes)| *attributes).collect();
    if let Some(What::Started(attributes)) = start.map(|start| &start.what) {
        layers.push(attributes);
    }
    for layer in layers {
        let layer = layer.clone();
        given.process_name = layer.process_name.or(given.process_name);
        given.process_type = layer.process_type.or(given.process_type);
        given.package_name = layer.package_name.or(given.package_name);
        given.procedure_name = layer.procedure_name.or(given.procedure_name);
        given.correlation_id = layer.correlation_id.or(given.correlation_id);
        given.expected_duration = layer.expected_duration.or(given.expected_duration);
        given.heartbeat_interval = layer.heartbeat_interval.or(given.heartbeat_interval);
        given.timeout = layer.timeout.or(given.timeout);
        for (name, value) in layer.metadata {
            metadata.insert(name.to_string(), serde_json::from_str(value.as_str()).unwrap());
        }
    }
    let (mut current_step, mut progress_percent) = (None, None);
    for mark in &visible {
        if let What::Progress { step, percent, metadata: members } = &mark.what {
            current_step = step.as_ref().map(ToString::to_string).or(current_step);
            progress_percent = percent.or(progress_percent);
            for (name, value) in members {
                metadata.insert(name.to_string(), serde_json::from_str(value.as_str()).unwrap());
            }
        }
    }

    // Signs of life, of an open run.
    let lives: Vec<&Mark> =
        if end.is_some() { vec![] } else { visible.iter().copied().chain(start).collect() };
    let newest_life = lives.iter().map(|mark| &mark.key).max();
    let judgement = newest_life.and_then(|life| {
        let echo = Key { echo: true, ..life.clone() };
        marks.iter().find(|mark| mark.key == echo)
    });
    let paused = visible
        .iter()
        .rfind(|mark| {
            matches!(mark.what, What::Paused | What::Resumed)
                && (mark.tag.is_some() || start.is_none_or(|start| mark.key > start.key))
        })
        .is_some_and(|mark| mark.what == What::Paused);
    let status = match shown {
        None => Status::Registered,
        Some(run) => match outcome(run) {
            Some(Outcome::Completed) => Status::Completed,
            Some(Outcome::Failed) => Status::Failed,
            Some(Outcome::Superseded) => unreachable!("the newest run has no successor"),
            None if paused => Status::Paused,
            None if judgement.is_some() => Status::Expired,
            None if run.start.is_some() => Status::Running,
            None => Status::Active,
        },
    };
    let last_life_at = match end {
        Some(end) => Some(end.received_at),
        None => lives.iter().map(|mark| mark.received_at).max(),
    };
    let reason = match (status, end.map(|end| &end.what), judgement.map(|mark| &mark.what)) {
        (Status::Failed, Some(What::Ended(ending)), _) => {
            let parts = [&ending.error_code, &ending.error_message];
            let parts: Vec<String> = parts.into_iter().flatten().map(ToString::to_string).collect();
            (!parts.is_empty()).then(|| parts.join(": "))
        }
        (Status::Expired, _, Some(What::Expired(judgement))) => {
            Some(format!("no sign of life since {}", judgement.last_life_at.unwrap()))
        }
        _ => None,
    };

    let listed: Vec<RunRow> = runs.iter().filter_map(run_row).collect();
    let count = |outcome| listed.iter().filter(|run| run.outcome == Some(outcome)).count() as u64;
    let durations: Vec<u64> = listed
        .iter()
        .filter(|run| run.outcome == Some(Outcome::Completed))
        .filter_map(|run| run.duration_ms)
        .collect();
    let updates = registrations
        .last()
        .map(|(mark, _)| mark.key.at)
        .into_iter()
        .chain(start.map(|mark| mark.key.at))
        .chain(end.map(|mark| mark.key.at))
        .chain(lives.iter().map(|mark| mark.key.at));
    let first_seen_at = marks.iter().map(|mark| mark.key.at).min().unwrap();
    Row {
        tenant: tenant(),
        process: process(),
        status,
        reason,
        run_id: shown.and_then(|run| run.id.clone()),
        run_no: runs.len() as u64,
        started_at: start.map(|mark| mark.key.at),
        ended_at: end.map(|mark| mark.key.at),
        current_step,
        progress_percent,
        last_update_at: updates.max().unwrap_or(first_seen_at),
        last_life_at,
        deadline_at: last_life_at
            .filter(|_| matches!(status, Status::Running | Status::Active))
            .map(|life| life.plus(given.timeout.unwrap_or(POLICY.timeout))),
        heartbeat_seen: lives.iter().any(|mark| mark.what == What::Heartbeat),
        heartbeat_interval: given.heartbeat_interval.unwrap_or(POLICY.heartbeat_interval),
        expected_duration: given.expected_duration,
        process_type: given.process_type.map(|text| text.to_string()),
        process_name: given.process_name.map(|text| text.to_string()),
        package_name: given.package_name.map(|text| text.to_string()),
        procedure_name: given.procedure_name.map(|text| text.to_string()),
        correlation_id: given.correlation_id.map(|text| text.to_string()),
        metadata,
        registered_at: first_seen_at,
        total_executions: listed.len() as u64,
        successful_runs: count(Outcome::Completed),
        failed_runs: count(Outcome::Failed),
        avg_duration_ms: durations.iter().sum::<u64>().checked_div(durations.len() as u64),
    }
}

/// The rank of a kind of event, for those who make judgements by hand.
pub(super) fn rank_of(kind: &str) -> Rank {
    match kind {
        "started" => Rank::Start,
        "completed" | "failed" => Rank::End,
        _ => Rank::Report,
    }
}
