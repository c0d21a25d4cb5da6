//! What a run has said between its start and its end. This module keeps the few reports that can still decide what
//! is shown, for one run whose reports name it, or for all reports that name none.
//!
//! **Invariant:** while a strand holds no more of each kind than its bound, it is the same in whatever order its
//! reports came, however often. A report beyond a bound pushes out the oldest of its kind that is not shown now; so
//! the bounds say by how many others of its kind an event may be overtaken and still count exactly.

use serde::{Deserialize, Serialize};

use super::key::Key;
use super::mark::{METADATA_MEMBERS_MAX, Metadata};
use super::text::Text;
use crate::domain::time::Timestamp;

/// How many candidates are kept for the step shown, and as many for the percentage. Only the newest is shown; the
/// older ones count again when an end or a start turns up late and lies before the newer ones.
pub const REPORTS_KEPT: usize = 16;
/// The same for the values of one member of metadata, which is reported less often and weighs more.
pub const MEMBER_VALUES_KEPT: usize = 4;
/// How many signs of life are kept of which none is both older and received earlier than another. In the order of
/// acceptance there is one.
pub const LIVES_KEPT: usize = 16;

/// A sign of life: where it stands, and when we heard it.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub(super) struct Life {
    pub(super) key: Key,
    pub(super) received_at: Timestamp,
}

/// A report of progress.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub(super) struct Report {
    key: Key,
    step: Option<Text>,
    percent: Option<f64>,
}

/// A member of metadata with its candidates, ascending.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub(super) struct Member {
    pub(super) name: Text,
    values: Vec<(Key, Text)>,
}

/// A pause, or the end of one.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub(super) struct Turn {
    pub(super) key: Key,
    pub(super) paused: bool,
}

/// Which reports of a strand are shown: those strictly between two keys. None is no limit.
#[derive(Debug, Clone, Copy, Default)]
pub(super) struct Window<'a> {
    pub(super) after: Option<&'a Key>,
    pub(super) before: Option<&'a Key>,
}

impl Window<'_> {
    pub(super) fn holds(self, key: &Key) -> bool {
        self.after.is_none_or(|after| key > after) && self.before.is_none_or(|before| key < before)
    }
}

#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
pub(super) struct Strand {
    /// The oldest event of any kind, as long as no start tells where the run begins.
    pub(super) first: Option<Key>,
    /// Ascending by key, and descending by receipt: whatever another one outdoes in both is left out.
    lives: Vec<Life>,
    /// When the newest heartbeat was sent. No start has its rank, so its time alone orders it among them.
    pub(super) heartbeat_at: Option<Timestamp>,
    /// The newest pause or resumption: it alone decides, for an ended run is not paused.
    pub(super) turn: Option<Turn>,
    /// Ascending.
    reports: Vec<Report>,
    members: Vec<Member>,
}

impl Strand {
    pub(super) fn begin(&mut self, key: &Key) {
        if self.first.as_ref().is_none_or(|first| key < first) {
            self.first = Some(key.clone());
        }
    }

    pub(super) fn live(&mut self, key: &Key, received_at: Timestamp) {
        let place = self.lives.partition_point(|life| life.key < *key);
        if self.lives.get(place).is_some_and(|next| next.received_at >= received_at) {
            return;
        }
        let end = place + usize::from(self.lives.get(place).is_some_and(|next| next.key == *key));
        let outdone = self.lives[..place].partition_point(|life| life.received_at > received_at);
        if outdone < end {
            // The usual case, a newer sign in the place of the former one, moves nothing.
            self.lives[outdone] = Life { key: key.clone(), received_at };
            self.lives.drain(outdone + 1..end);
        } else {
            self.lives.insert(place, Life { key: key.clone(), received_at });
        }
        if self.lives.len() > LIVES_KEPT {
            // The newest by key and the newest by receipt must stay; they are at the two ends.
            self.lives.remove(1);
        }
    }

    pub(super) fn beat(&mut self, at: Timestamp) {
        self.heartbeat_at = self.heartbeat_at.max(Some(at));
    }

    pub(super) fn turn(&mut self, key: &Key, paused: bool) {
        if self.turn.as_ref().is_none_or(|turn| *key > turn.key) {
            self.turn = Some(Turn { key: key.clone(), paused });
        }
    }

    pub(super) fn report(&mut self, key: &Key, step: Option<Text>, percent: Option<f64>) {
        if step.is_none() && percent.is_none() {
            return;
        }
        let place = self.reports.partition_point(|report| report.key < *key);
        match self.reports.get_mut(place) {
            Some(known) if known.key == *key => (known.step, known.percent) = (step, percent),
            _ => self.reports.insert(place, Report { key: key.clone(), step, percent }),
        }
    }

    pub(super) fn describe(&mut self, key: &Key, metadata: Metadata) {
        for (name, value) in metadata {
            let known = self.members.iter().position(|member| member.name == name);
            let member = match known {
                Some(known) => &mut self.members[known],
                None => {
                    let place = self.members.partition_point(|member| member.name < name);
                    self.members.insert(place, Member { name, values: Vec::new() });
                    &mut self.members[place]
                }
            };
            let place = member.values.partition_point(|(known, _)| known < key);
            match member.values.get_mut(place) {
                Some((known, known_value)) if known == key => *known_value = value,
                _ => member.values.insert(place, (key.clone(), value)),
            }
        }
    }

    /// Whether a bound is passed, so that [`Strand::trim`] has to be called.
    pub(super) fn is_overfull(&self) -> bool {
        self.reports.len() > REPORTS_KEPT
            || self.members.len() > METADATA_MEMBERS_MAX
            || self.members.iter().any(|member| member.values.len() > MEMBER_VALUES_KEPT)
    }

    /// Drops what is beyond the bounds, the oldest first, but nothing that is shown now. `shown` is None when no
    /// report of this strand is.
    pub(super) fn trim(&mut self, shown: Option<Window<'_>>) {
        let is_shown = |key: &Key| shown.is_some_and(|window| window.holds(key));
        drop_oldest(
            &mut self.reports,
            is_shown,
            |report| report.step.is_some(),
            |report| {
                report.step = None;
            },
        );
        drop_oldest(
            &mut self.reports,
            is_shown,
            |report| report.percent.is_some(),
            |report| {
                report.percent = None;
            },
        );
        self.reports.retain(|report| report.step.is_some() || report.percent.is_some());
        for member in &mut self.members {
            while member.values.len() > MEMBER_VALUES_KEPT {
                let winner = member.values.iter().rposition(|(key, _)| is_shown(key));
                member.values.remove(usize::from(winner == Some(0)));
            }
        }
        while self.members.len() > METADATA_MEMBERS_MAX {
            let least = (0..self.members.len()).min_by_key(|&index| {
                let values = &self.members[index].values;
                (values.iter().any(|(key, _)| is_shown(key)), values.last().map(|(key, _)| key))
            });
            let Some(least) = least else { break };
            self.members.remove(least);
        }
    }

    /// Forgets what sorts before `horizon`: it belongs to runs that are settled.
    pub(super) fn forget_before(&mut self, horizon: &Key) {
        self.first = None;
        self.lives.retain(|life| life.key >= *horizon);
        self.heartbeat_at = self.heartbeat_at.filter(|at| *at >= horizon.at);
        self.turn.take_if(|turn| turn.key < *horizon);
        self.reports.retain(|report| report.key >= *horizon);
        for member in &mut self.members {
            member.values.retain(|(key, _)| key >= horizon);
        }
        self.members.retain(|member| !member.values.is_empty());
    }

    /// The newest sign of life by key, and the newest receipt of one, after `after`.
    pub(super) fn newest_life(&self, after: Option<&Key>) -> Option<(&Key, Timestamp)> {
        let from = after.map_or(0, |after| self.lives.partition_point(|life| life.key <= *after));
        let in_reach = &self.lives[from..];
        Some((&in_reach.last()?.key, in_reach.first()?.received_at))
    }

    pub(super) fn newest_step(&self, window: Window<'_>) -> Option<(&Key, &Text)> {
        self.reports
            .iter()
            .rev()
            .filter(|report| window.holds(&report.key))
            .find_map(|report| Some((&report.key, report.step.as_ref()?)))
    }

    pub(super) fn newest_percent(&self, window: Window<'_>) -> Option<(&Key, f64)> {
        self.reports
            .iter()
            .rev()
            .filter(|report| window.holds(&report.key))
            .find_map(|report| Some((&report.key, report.percent?)))
    }

    /// The newest value of each member within the window.
    pub(super) fn newest_values<'a>(
        &'a self,
        window: Window<'a>,
    ) -> impl Iterator<Item = (&'a Key, &'a Text, &'a Text)> {
        self.members.iter().filter_map(move |member| {
            let (key, value) = member.values.iter().rev().find(|(key, _)| window.holds(key))?;
            Some((key, &member.name, value))
        })
    }
}

/// Takes one field from the oldest reports until no more than [`REPORTS_KEPT`] carry it, sparing the one shown.
fn drop_oldest(
    reports: &mut [Report],
    is_shown: impl Fn(&Key) -> bool,
    carries: impl Fn(&Report) -> bool,
    strip: impl Fn(&mut Report),
) {
    let mut surplus =
        reports.iter().filter(|report| carries(report)).count().saturating_sub(REPORTS_KEPT);
    if surplus == 0 {
        return;
    }
    let winner = reports.iter().rposition(|report| carries(report) && is_shown(&report.key));
    for (index, report) in reports.iter_mut().enumerate() {
        if surplus > 0 && Some(index) != winner && carries(report) {
            strip(report);
            surplus -= 1;
        }
    }
}
