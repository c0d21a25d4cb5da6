//! A process as people see it. This module computes the row, and the list of runs, from what a state keeps.
//!
//! The newest run is shown. Once it has ended, for good, nothing but a new run changes what is shown of it: reports
//! that sort after the end are not looked at, and the last sign of life is the end itself.

use std::fmt::Write as _;

use super::key::Key;
use super::mark::Attributes;
use super::runs::{self, Run};
use super::settled::Tally;
use super::state::{End, Judged, State};
use super::text::Text;
use super::{Outcome, Policy, Row, RunRow, Status};
use crate::domain::ids::{EventId, ProcessId, TenantId};
use crate::domain::time::Timestamp;

/// The newest sign of life of the run that is shown.
#[derive(Debug, Clone, Copy)]
pub(super) struct NewestLife<'a> {
    /// The run it belongs to, if that has a name.
    pub(super) run_id: Option<&'a EventId>,
    /// The newest by key.
    pub(super) key: &'a Key,
    /// The newest receipt of one, which need not be that of `key`.
    pub(super) received_at: Timestamp,
}

impl State {
    /// The process as it stands.
    pub fn row(&self, tenant: &TenantId, process: &ProcessId, policy: &Policy) -> Row {
        let runs = runs::of(self);
        let shown = runs.last();
        let life = shown.and_then(|run| self.life_of(run));
        let judged = life.and_then(|life| self.judgement_of(life.key));
        let status = shown.map_or(Status::Registered, |run| self.status(run, judged.is_some()));
        let end = shown.and_then(|run| run.end);

        let attributes = Choice { state: self, run: shown };
        let text = |pick: fn(&Attributes) -> Option<&Text>| {
            attributes.pick(pick).map(|text| text.as_str().to_string())
        };
        let mut tally = self.settled.tally;
        for run in runs.iter().map(Run::row).filter(runs::counts) {
            tally.count(&run);
        }
        let timeout =
            attributes.pick(|given| given.timeout.as_ref()).copied().unwrap_or(policy.timeout);
        let last_life_at =
            end.map_or_else(|| life.map(|life| life.received_at), |end| Some(end.received_at));
        let waited_for = matches!(status, Status::Running | Status::Active);
        Row {
            tenant: tenant.clone(),
            process: process.clone(),
            status,
            reason: match status {
                Status::Failed => end.and_then(error),
                Status::Expired => judged.map(reason),
                Status::Registered
                | Status::Active
                | Status::Running
                | Status::Paused
                | Status::Completed
                | Status::Archived => None,
            },
            run_id: shown.and_then(|run| run.id.cloned()),
            run_no: run_no(&self.settled.tally, runs.len()),
            started_at: shown.and_then(|run| run.start).map(|start| start.key.at),
            ended_at: end.map(|end| end.key.at),
            current_step: shown
                .and_then(|run| self.newest(run, |strand, window| strand.newest_step(window)))
                .map(|step| step.as_str().to_string()),
            progress_percent: shown
                .and_then(|run| self.newest(run, |strand, window| strand.newest_percent(window))),
            last_update_at: self.last_update_at(shown, life),
            last_life_at,
            deadline_at: last_life_at.filter(|_| waited_for).map(|at| at.plus(timeout)),
            heartbeat_seen: shown.is_some_and(|run| self.heartbeat_seen(run)),
            heartbeat_interval: attributes
                .pick(|given| given.heartbeat_interval.as_ref())
                .copied()
                .unwrap_or(policy.heartbeat_interval),
            expected_duration: attributes.pick(|given| given.expected_duration.as_ref()).copied(),
            process_type: text(|given| given.process_type.as_ref()),
            process_name: text(|given| given.process_name.as_ref()),
            package_name: text(|given| given.package_name.as_ref()),
            procedure_name: text(|given| given.procedure_name.as_ref()),
            correlation_id: text(|given| given.correlation_id.as_ref()),
            metadata: self.metadata(shown),
            registered_at: self.first_seen_at.unwrap_or_default(),
            total_executions: tally.total,
            successful_runs: tally.successful,
            failed_runs: tally.failed,
            avg_duration_ms: tally.timed_ms.checked_div(tally.timed),
        }
    }

    /// The runs that are not settled, the oldest first: those that were opened by a start or are over.
    pub fn runs(&self) -> Vec<RunRow> {
        runs::of(self).iter().map(Run::row).filter(runs::counts).collect()
    }

    /// The newest sign of life of the run that is shown, while that is open.
    pub(super) fn newest_life(&self) -> Option<NewestLife<'_>> {
        let runs = runs::of(self);
        let shown = runs.last()?;
        self.life_of(shown)
    }

    fn life_of<'a>(&'a self, run: &Run<'a>) -> Option<NewestLife<'a>> {
        if run.end.is_some() {
            return None;
        }
        let start = run.start.map(|start| (&start.key, start.received_at));
        let tagged = run.strand.and_then(|strand| strand.newest_life(None));
        let untagged = run.untagged().and_then(|window| self.untagged.newest_life(window.after));
        [start, tagged, untagged]
            .into_iter()
            .flatten()
            .reduce(|a, b| (a.0.max(b.0), a.1.max(b.1)))
            .map(|(key, received_at)| NewestLife { run_id: run.id, key, received_at })
    }

    /// The judgement of this very sign of life.
    fn judgement_of(&self, life: &Key) -> Option<&Judged> {
        self.judgements.iter().rev().find(|judged| {
            let Key { at, rank, source, event_id, echo: _ } = &judged.key;
            *at == life.at
                && *rank == life.rank
                && *event_id == life.event_id
                && *source == life.source
        })
    }

    fn status(&self, run: &Run<'_>, judged: bool) -> Status {
        match run.end.map(|end| end.outcome) {
            Some(Outcome::Failed) => Status::Failed,
            Some(Outcome::Completed | Outcome::Superseded) => Status::Completed,
            // A paused process is not waited for, so a judgement that came between says nothing.
            None if self.is_paused(run) => Status::Paused,
            None if judged => Status::Expired,
            None if run.start.is_some() => Status::Running,
            None => Status::Active,
        }
    }

    /// Only a resumption ends a pause, or a start if the pause did not name this run.
    fn is_paused(&self, run: &Run<'_>) -> bool {
        let tagged = run.strand.and_then(|strand| strand.turn.as_ref());
        let untagged = self.untagged.turn.as_ref().filter(|turn| {
            run.untagged().is_some() && run.start.is_none_or(|start| turn.key > start.key)
        });
        let newest = tagged.into_iter().chain(untagged).max_by(|a, b| a.key.cmp(&b.key));
        newest.is_some_and(|turn| turn.paused)
    }

    fn heartbeat_seen(&self, run: &Run<'_>) -> bool {
        let untagged = || {
            let (at, window) = (self.untagged.heartbeat_at?, run.untagged()?);
            Some(window.after.is_none_or(|after| at >= after.at))
        };
        run.end.is_none()
            && (run.strand.is_some_and(|strand| strand.heartbeat_at.is_some())
                || untagged().unwrap_or(false))
    }

    /// The newer of what a run's own strand and the one without names tell of it.
    fn newest<'a, T>(
        &'a self,
        run: &Run<'a>,
        tell: impl Fn(&'a super::strand::Strand, super::strand::Window<'a>) -> Option<(&'a Key, T)>,
    ) -> Option<T> {
        let tagged = run.strand.zip(run.tagged()).and_then(|(strand, window)| tell(strand, window));
        let untagged = run.untagged().and_then(|window| tell(&self.untagged, window));
        match (tagged, untagged) {
            (Some(a), Some(b)) => Some(if a.0 > b.0 { a.1 } else { b.1 }),
            (one, other) => one.or(other).map(|(_, told)| told),
        }
    }

    fn last_update_at(&self, shown: Option<&Run<'_>>, life: Option<NewestLife<'_>>) -> Timestamp {
        let registered_at = self.registrations.last().map(|registration| registration.key.at);
        let started_at = shown.and_then(|run| run.start).map(|start| start.key.at);
        let ended_at = shown.and_then(|run| run.end).map(|end| end.key.at);
        let lived_at = life.map(|life| life.key.at);
        [registered_at, started_at, ended_at, lived_at]
            .into_iter()
            .flatten()
            .max()
            .or(self.first_seen_at)
            .unwrap_or_default()
    }

    /// Member by member the newest: of the registrations, then of the start, then of what the run reported.
    fn metadata(&self, shown: Option<&Run<'_>>) -> serde_json::Map<String, serde_json::Value> {
        let mut members = serde_json::Map::new();
        let mut set = |name: &Text, json: &Text| {
            // It was read as JSON before, so it is.
            if let Ok(value) = serde_json::from_str(json.as_str()) {
                members.insert(name.as_str().to_string(), value);
            }
        };
        for registration in &self.registrations {
            registration.attributes.metadata.iter().for_each(|(name, value)| set(name, value));
        }
        let Some(run) = shown else { return members };
        if let Some(start) = run.start {
            start.attributes.metadata.iter().for_each(|(name, value)| set(name, value));
        }
        let tagged = run.strand.zip(run.tagged());
        let untagged = run.untagged().map(|window| (&self.untagged, window));
        let mut told: Vec<_> = tagged
            .into_iter()
            .chain(untagged)
            .flat_map(|(strand, window)| strand.newest_values(window))
            .collect();
        told.sort_by(|a, b| a.0.cmp(b.0));
        told.into_iter().for_each(|(_, name, value)| set(name, value));
        members
    }
}

/// Where the attributes of a process come from: the start of the run shown, else the newest registration that
/// gives them.
struct Choice<'a> {
    state: &'a State,
    run: Option<&'a Run<'a>>,
}

impl<'a> Choice<'a> {
    fn pick<T>(&self, pick: impl Fn(&'a Attributes) -> Option<&'a T>) -> Option<&'a T> {
        let started = self.run.and_then(|run| run.start).and_then(|start| pick(&start.attributes));
        started.or_else(|| {
            self.state.registrations.iter().rev().find_map(|known| pick(&known.attributes))
        })
    }
}

fn run_no(settled: &Tally, kept: usize) -> u64 {
    settled.total.saturating_add(u64::try_from(kept).unwrap_or(u64::MAX))
}

/// What a failed run said of its failure.
fn error(end: &End) -> Option<String> {
    match (&end.error_code, &end.error_message) {
        (Some(code), Some(message)) => Some(format!("{code}: {message}")),
        (Some(text), None) | (None, Some(text)) => Some(text.to_string()),
        (None, None) => None,
    }
}

/// A judgement in words.
fn reason(judged: &Judged) -> String {
    let judgement = &judged.judgement;
    let mut words = String::new();
    if judgement.deadline_at.is_none() && judgement.watermark.is_some() {
        words.push_str("the database session that started it is gone; ");
    }
    // Writing to a string cannot fail.
    let since = judgement.last_life_at.unwrap_or(judged.key.at);
    let _ = write!(words, "no sign of life since {since}");
    if let Some(deadline) = judgement.deadline_at {
        let _ = write!(words, "; the deadline was {deadline}");
    }
    if let Some(watermark) = judgement.watermark {
        let _ = write!(words, "; everything received until {watermark} had been applied");
    }
    if let Some(instance) = &judgement.instance {
        let _ = write!(words, "; judged by {instance}");
    }
    words
}
