//! Which runs a process has had, where each begins and how it ended. This module is law 3, computed anew from a
//! state whenever it is asked.
//!
//! * Each start opens a run. Reports that name a run whose start has not come make a stub of it, which stands at the
//!   oldest of them. A report that names a run belongs to it, and time decides nothing.
//! * What names no run belongs to the newest start before it, and before the first start to the first run.
//! * The first end of a run counts, for good. An end that names no run and falls into a run already ended, or before
//!   any start, belongs to the next run if that starts within [`SKEW`] and has no end of its own: the clocks of two
//!   hosts differ. The latest such end is taken. Ends before any start that find no run this way are the end of a run
//!   whose start was lost: a stub, which then is the first run.
//! * A start closes the run before it, if that is open, as superseded. That is a conclusion, not a report: an end
//!   that names the run still counts, whenever it came.

use smallvec::SmallVec;
use std::time::Duration;

use super::key::Key;
use super::state::{End, Entry, Start, State};
use super::strand::{Strand, Window};
use super::{Outcome, RunRow};
use crate::domain::ids::EventId;
use crate::domain::time::Timestamp;

/// How far the clocks of two hosts that report one run may lie apart (law 3).
pub const SKEW: Duration = Duration::from_secs(5);

/// Which of the reports that name no run belong to this one.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Untagged {
    Nothing,
    Everything,
    FromStart,
}

/// One run, as it follows from a state.
#[derive(Debug, Clone, Copy)]
pub(super) struct Run<'a> {
    pub(super) id: Option<&'a EventId>,
    pub(super) start: Option<&'a Start>,
    /// Where it stands among the others.
    pub(super) position: &'a Key,
    pub(super) end: Option<&'a End>,
    /// When the next start closed it, if it had not ended.
    superseded_at: Option<Timestamp>,
    untagged: Untagged,
    pub(super) strand: Option<&'a Strand>,
}

impl<'a> Run<'a> {
    fn stub(entry: &'a Entry, position: &'a Key) -> Self {
        Self {
            id: Some(&entry.id),
            start: None,
            position,
            end: entry.end.as_ref(),
            superseded_at: None,
            untagged: Untagged::Nothing,
            strand: Some(&entry.strand),
        }
    }

    fn nameless(position: &'a Key, end: Option<&'a End>) -> Self {
        Self {
            id: None,
            start: None,
            position,
            end,
            superseded_at: None,
            untagged: Untagged::Everything,
            strand: None,
        }
    }

    /// Which of the reports that name it are shown: those before its end.
    pub(super) fn tagged(&self) -> Option<Window<'a>> {
        self.id.map(|_| Window { after: None, before: self.end.map(|end| &end.key) })
    }

    /// Which of the reports that name no run are shown of this one.
    pub(super) fn untagged(&self) -> Option<Window<'a>> {
        let before = self.end.map(|end| &end.key);
        match self.untagged {
            Untagged::Nothing => None,
            Untagged::Everything => Some(Window { after: None, before }),
            Untagged::FromStart => {
                Some(Window { after: self.start.map(|start| &start.key), before })
            }
        }
    }

    pub(super) fn row(&self) -> RunRow {
        let started_at = self.start.map(|start| start.key.at);
        let ended_at = self.end.map(|end| end.key.at).or(self.superseded_at);
        let outcome = match (self.end, self.superseded_at) {
            (Some(end), _) => Some(end.outcome),
            (None, Some(_)) => Some(Outcome::Superseded),
            (None, None) => None,
        };
        let duration = started_at.zip(ended_at).map(|(started, ended)| ended.since(started));
        let text = |text: Option<&super::text::Text>| text.map(|text| text.as_str().to_string());
        RunRow {
            run_id: self.id.cloned(),
            started_at,
            ended_at,
            outcome,
            duration_ms: duration.map(|span| u64::try_from(span.as_millis()).unwrap_or(u64::MAX)),
            error_code: text(self.end.and_then(|end| end.error_code.as_ref())),
            error_message: text(self.end.and_then(|end| end.error_message.as_ref())),
        }
    }
}

/// Whether a run is counted and listed: it was opened by a start, or it is over. An open stub is neither.
pub(super) fn counts(run: &RunRow) -> bool {
    run.started_at.is_some() || run.outcome.is_some()
}

/// All runs that are not settled, the oldest first.
pub(super) fn of(state: &State) -> SmallVec<[Run<'_>; 4]> {
    let mut runs = started(state);
    let starts = runs.len();
    for entry in state.entries.iter().filter(|entry| entry.start.is_none()) {
        if let Some(position) = entry.position() {
            runs.push(Run::stub(entry, position));
        }
    }
    match nameless(state, &runs[..starts]) {
        Some(run) => runs.push(run),
        // What sorts before the first start belongs to it, unless it belongs to what was before.
        None if state.settled.horizon.is_none() && starts > 0 => {
            runs[0].untagged = Untagged::Everything;
        }
        None => {}
    }
    if runs.len() > 1 {
        runs.sort_by(|a, b| a.position.cmp(b.position));
        let mut next_start = None;
        for run in runs.iter_mut().rev() {
            if run.end.is_none() {
                run.superseded_at = next_start;
            }
            next_start = run.start.map(|start| start.key.at).or(next_start);
        }
    }
    runs
}

/// The runs that were opened by a start, each with the end that counts for it.
fn started(state: &State) -> SmallVec<[Run<'_>; 4]> {
    let mut runs: SmallVec<[Run<'_>; 4]> = state
        .entries
        .iter()
        .filter_map(|entry| {
            let start = entry.start.as_ref()?;
            let untagged = Untagged::FromStart;
            Some(Run { start: Some(start), untagged, ..Run::stub(entry, &start.key) })
        })
        .collect();
    if runs.len() > 1 {
        runs.sort_by(|a, b| a.position.cmp(b.position));
    }
    if state.ends.is_empty() {
        return runs;
    }
    let before = |ends: &[End], start: Option<&Key>| {
        start.map_or(ends.len(), |start| ends.partition_point(|end| end.key < *start))
    };
    let early = before(&state.ends, runs.first().map(|run| run.position));
    let (mut spare, mut rest) = state.ends.split_at(early);
    for index in 0..runs.len() {
        let inside_count = before(rest, runs.get(index + 1).map(|run| run.position));
        let (mut inside, after) = rest.split_at(inside_count);
        let run = &mut runs[index];
        let tagged = run.end;
        if let Some(first) = inside.first()
            && tagged.is_none_or(|tagged| first.key < tagged.key)
        {
            run.end = Some(first);
            inside = &inside[1..];
        } else if tagged.is_none() {
            run.end = spare.last().filter(|end| run.position.at.since(end.key.at) <= SKEW);
        }
        (spare, rest) = (inside, after);
    }
    runs
}

/// The run that has no name: everything, as long as there is no start; else what ended before the first one.
fn nameless<'a>(state: &'a State, started: &[Run<'a>]) -> Option<Run<'a>> {
    let Some(first) = started.first() else {
        let position = state.untagged.first.as_ref()?;
        return Some(Run::nameless(position, state.ends.first()));
    };
    if state.settled.horizon.is_some() {
        // What is left before the first run that is kept belongs to runs that are settled.
        return None;
    }
    let end = state.ends.first().filter(|end| end.key < *first.position)?;
    let taken = first.end.is_some_and(|taken| taken.key == end.key);
    (!taken).then(|| Run::nameless(&end.key, Some(end)))
}
