//! What is kept of a process, and how one more event is merged into it. This module is the merge of law 2.
//!
//! A [`State`] is a digest of the set of events seen so far. It never needs an event again, it is bounded, and it
//! does not remember the order in which they came. What it tells, the row and the runs, is computed in `row.rs` and
//! `runs.rs` from the digest alone.
//!
//! **Invariant:** any order, duplication and batching of a set of events gives the same row and the same runs, and
//! they are those of a plain fold over the sorted set, as long as the set stays within the bounds: [`RUNS_KEPT`]
//! starts, [`STUBS_KEPT`] runs known only by reports that name them, [`ENDS_KEPT`] ends that name no run, and for
//! each run the bounds of `strand.rs`. Beyond a bound the oldest gives way, so what is exact still holds for every
//! event that fewer others of its kind have overtaken than the bound says. Events in the order of acceptance give
//! the right row however many they are.
//!
//! One exception is known and left alone: two starts with one id, from two sources, are one run, which begins with
//! the earlier. If a third start lies between them and the earlier comes last, the run in between is shown without
//! what it reported until then. Ids are random, so that takes a caller who sends one start twice, a run apart.

use serde::{Deserialize, Serialize};

use super::key::{self, Key};
use super::mark::{Attributes, Ending, Judgement, Mark, What};
use super::runs;
use super::settled::Settled;
use super::strand::{Strand, Window};
use super::text::Text;
use super::{Outcome, RunRow};
use crate::domain::ids::EventId;
use crate::domain::time::Timestamp;

/// How many started runs can still change. A ninth settles the oldest: it is counted, and leaves.
pub const RUNS_KEPT: usize = 8;
/// How many runs are kept of which only reports that name them have come: their starts are on the way, or never come.
pub const STUBS_KEPT: usize = 8;
/// How many ends are kept that name no run. The first of each run is kept for good; others may turn out to belong to
/// a run whose start is still on the way.
pub const ENDS_KEPT: usize = 16;
/// How many registrations are kept, each of which may fill in what the others leave out.
pub const REGISTRATIONS_KEPT: usize = 8;
/// How many judgements are kept. The newest counts; older ones when its sign of life is unknown.
pub const JUDGEMENTS_KEPT: usize = 4;
/// The form in which [`State::to_bytes`] writes; the first byte says which it is.
const FORMAT: u8 = 1;

/// Why stored bytes are not a state.
#[derive(Debug, thiserror::Error)]
pub enum StateError {
    #[error("the state of a process has format {found}, and this program knows {FORMAT}")]
    Format { found: u8 },
    #[error("the state of a process is damaged")]
    Damaged(#[from] postcard::Error),
}

impl StateError {
    /// Whether a newer program has written it.
    pub fn is_newer(&self) -> bool {
        matches!(self, Self::Format { found } if *found > FORMAT)
    }
}

/// Everything kept of a process from which its row follows; merging events into it in any order gives the same.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
pub struct State {
    /// The time of the oldest event of any kind.
    pub(super) first_seen_at: Option<Timestamp>,
    /// Ascending.
    pub(super) registrations: Vec<Registration>,
    /// Ascending. They name the sign of life they judged, so they need no run.
    pub(super) judgements: Vec<Judged>,
    /// What names no run.
    pub(super) untagged: Strand,
    /// The ends that name no run, ascending.
    pub(super) ends: Vec<End>,
    /// The runs that have a name: that of their start.
    pub(super) entries: Vec<Entry>,
    pub(super) settled: Settled,
}

#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub(super) struct Registration {
    pub(super) key: Key,
    pub(super) attributes: Box<Attributes>,
}

#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub(super) struct Judged {
    /// With the echo: one step after the sign of life it judged.
    pub(super) key: Key,
    pub(super) judgement: Judgement,
}

#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub(super) struct End {
    pub(super) key: Key,
    pub(super) received_at: Timestamp,
    pub(super) outcome: Outcome,
    pub(super) error_code: Option<Text>,
    pub(super) error_message: Option<Text>,
}

#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub(super) struct Start {
    pub(super) key: Key,
    pub(super) received_at: Timestamp,
    pub(super) attributes: Box<Attributes>,
}

/// A run with a name, and what came under that name.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub(super) struct Entry {
    #[serde(serialize_with = "key::serialize_id", deserialize_with = "key::deserialize_id")]
    pub(super) id: EventId,
    /// None: a stub, whose start has not come.
    pub(super) start: Option<Start>,
    /// The first end that names this run.
    pub(super) end: Option<End>,
    pub(super) strand: Strand,
}

impl Entry {
    fn new(id: EventId) -> Self {
        Self { id, start: None, end: None, strand: Strand::default() }
    }

    /// Where the run stands among the others: at its start, or at the oldest that is known of it.
    pub(super) fn position(&self) -> Option<&Key> {
        self.start.as_ref().map(|start| &start.key).or(self.strand.first.as_ref())
    }
}

/// Under which name a report came.
#[derive(Clone, Copy)]
enum Name {
    Entry(usize),
    None,
}

impl State {
    /// Merges one event. Merging it again changes nothing.
    ///
    /// Returns the runs that it settled, as they will stay: they are not among [`State::runs`] any more.
    #[must_use = "settled runs belong into the history"]
    pub fn merge(&mut self, mark: Mark) -> Vec<RunRow> {
        let Mark { key, tag, received_at, what } = mark;
        self.first_seen_at = Some(self.first_seen_at.map_or(key.at, |first| first.min(key.at)));
        match what {
            What::Registered(attributes) => self.register(key, attributes),
            What::Expired(judgement) => self.judge(key, judgement),
            What::Started(attributes) => {
                return self.start(Start { key, received_at, attributes });
            }
            What::Ended(ending) => {
                if let Some(name) = self.name(&key, tag) {
                    self.end(name, key, received_at, ending);
                }
            }
            What::Progress { step, percent, metadata } => {
                if let Some(name) = self.shown_name(&key, tag) {
                    let strand = self.live(name, &key, received_at);
                    strand.report(&key, step, percent);
                    strand.describe(&key, metadata);
                    if strand.is_overfull() {
                        self.trim(name);
                    }
                }
            }
            What::Heartbeat => {
                if let Some(name) = self.shown_name(&key, tag) {
                    self.live(name, &key, received_at).beat(key.at);
                }
            }
            What::Paused | What::Resumed => {
                if let Some(name) = self.shown_name(&key, tag) {
                    let paused = matches!(what, What::Paused);
                    self.live(name, &key, received_at).turn(&key, paused);
                }
            }
        }
        self.settle_stubs()
    }

    /// The state as it is stored.
    pub fn to_bytes(&self) -> Vec<u8> {
        postcard::to_extend(self, vec![FORMAT])
            .expect("a state has only parts that postcard can write, and a vector grows")
    }

    /// # Errors
    /// [`StateError`] when the bytes are of another format, or of none.
    pub fn from_bytes(bytes: &[u8]) -> Result<Self, StateError> {
        match bytes {
            [FORMAT, state @ ..] => Ok(postcard::from_bytes(state)?),
            [found, ..] => Err(StateError::Format { found: *found }),
            [] => Err(StateError::Damaged(postcard::Error::DeserializeUnexpectedEnd)),
        }
    }

    fn register(&mut self, key: Key, attributes: Box<Attributes>) {
        let place = self.registrations.partition_point(|known| known.key < key);
        if self.registrations.get(place).is_none_or(|known| known.key != key) {
            self.registrations.insert(place, Registration { key, attributes });
            if self.registrations.len() > REGISTRATIONS_KEPT {
                self.registrations.remove(0);
            }
        }
    }

    fn judge(&mut self, key: Key, judgement: Judgement) {
        let place = self.judgements.partition_point(|known| known.key < key);
        match self.judgements.get_mut(place) {
            // Two instances that judge one silence write one event, but should both ever come, order must not decide.
            Some(known) if known.key == key => {
                if judgement < known.judgement {
                    known.judgement = judgement;
                }
            }
            _ => {
                self.judgements.insert(place, Judged { key, judgement });
                if self.judgements.len() > JUDGEMENTS_KEPT {
                    self.judgements.remove(0);
                }
            }
        }
    }

    fn start(&mut self, start: Start) -> Vec<RunRow> {
        let id = start.key.event_id.clone();
        if self.settled.is_past(&start.key) || self.settled.knows(&id) {
            return Vec::new();
        }
        let index = self.entry(id);
        let entry = &mut self.entries[index];
        // One id from two sources is one run, and its first start counts.
        if entry.start.as_ref().is_none_or(|known| start.key < known.key) {
            entry.start = Some(start);
        }
        entry.strand.first = None;
        self.untagged.first = None;
        self.retire();
        if self.entries.iter().filter(|entry| entry.start.is_some()).count() > RUNS_KEPT {
            self.settle_oldest_run()
        } else {
            Vec::new()
        }
    }

    fn end(&mut self, name: Name, key: Key, received_at: Timestamp, ending: Ending) {
        self.begin(name, &key);
        let Ending { outcome, error_code, error_message } = ending;
        let end = End { key, received_at, outcome, error_code, error_message };
        match name {
            Name::Entry(index) => {
                let known = &mut self.entries[index].end;
                if known.as_ref().is_none_or(|known| end.key < known.key) {
                    *known = Some(end);
                }
            }
            Name::None => {
                let place = self.ends.partition_point(|known| known.key < end.key);
                if self.ends.get(place).is_none_or(|known| known.key != end.key) {
                    self.ends.insert(place, end);
                    if self.ends.len() > ENDS_KEPT {
                        self.drop_an_end();
                    }
                }
            }
        }
    }

    /// Drops the oldest end that ends nothing. An end that counts is for good.
    fn drop_an_end(&mut self) {
        let runs = runs::of(self);
        let counts = |end: &End| {
            runs.iter().any(|run| run.end.is_some_and(|counting| counting.key == end.key))
        };
        let surplus = self.ends.iter().position(|end| !counts(end)).unwrap_or(0);
        drop(runs);
        self.ends.remove(surplus);
    }

    /// Where a report belongs. None: to a run that is settled.
    fn name(&mut self, key: &Key, tag: Option<EventId>) -> Option<Name> {
        match tag {
            None if self.settled.is_past(key) => None,
            None => Some(Name::None),
            Some(id) => match self.entries.iter().position(|entry| entry.id == id) {
                Some(index) => Some(Name::Entry(index)),
                None if self.settled.is_past(key) || self.settled.knows(&id) => None,
                None => Some(Name::Entry(self.entry(id))),
            },
        }
    }

    /// The same for a report that is no end: also None when the run it belongs to is not shown any more.
    fn shown_name(&mut self, key: &Key, tag: Option<EventId>) -> Option<Name> {
        let name = self.name(key, tag)?;
        let retired = match name {
            Name::Entry(index) => self.entries[index]
                .start
                .as_ref()
                .is_some_and(|start| self.newest_start().is_some_and(|newest| start.key < *newest)),
            Name::None => self.retired_until().is_some_and(|until| key < until),
        };
        (!retired).then_some(name)
    }

    fn newest_start(&self) -> Option<&Key> {
        self.entries.iter().filter_map(|entry| Some(&entry.start.as_ref()?.key)).max()
    }

    /// The newest start, if there was one before it.
    fn retired_until(&self) -> Option<&Key> {
        let starts = self.entries.iter().filter(|entry| entry.start.is_some()).count();
        self.newest_start().filter(|_| starts > 1)
    }

    /// Drops what only a shown run needs from those that a later start has succeeded: they are never shown again.
    /// Their starts and ends stay, for they tell which run an end belongs to.
    fn retire(&mut self) {
        let Some(until) = self.retired_until().cloned() else { return };
        for entry in &mut self.entries {
            if let Some(start) = entry.start.as_mut().filter(|start| start.key < until) {
                *start.attributes = Attributes::default();
                entry.strand = Strand::default();
            }
        }
        self.untagged.forget_before(&until);
    }

    /// The place of the run with this id, which may be new.
    fn entry(&mut self, id: EventId) -> usize {
        match self.entries.iter().position(|entry| entry.id == id) {
            Some(index) => index,
            None => {
                self.entries.push(Entry::new(id));
                self.entries.len() - 1
            }
        }
    }

    fn begin(&mut self, name: Name, key: &Key) {
        match name {
            Name::Entry(index) if self.entries[index].start.is_none() => {
                self.entries[index].strand.begin(key);
            }
            Name::None if self.entries.iter().all(|entry| entry.start.is_none()) => {
                self.untagged.begin(key);
            }
            Name::Entry(_) | Name::None => {}
        }
    }

    fn live(&mut self, name: Name, key: &Key, received_at: Timestamp) -> &mut Strand {
        self.begin(name, key);
        let strand = self.strand(name);
        strand.live(key, received_at);
        strand
    }

    fn strand(&mut self, name: Name) -> &mut Strand {
        match name {
            Name::Entry(index) => &mut self.entries[index].strand,
            Name::None => &mut self.untagged,
        }
    }

    fn trim(&mut self, name: Name) {
        let runs = runs::of(self);
        let shown = runs.last().and_then(|run| match name {
            Name::Entry(index) => run.tagged().filter(|_| run.id == Some(&self.entries[index].id)),
            Name::None => run.untagged(),
        });
        let shown = shown.map(|window| (window.after.cloned(), window.before.cloned()));
        drop(runs);
        let window = shown
            .as_ref()
            .map(|(after, before)| Window { after: after.as_ref(), before: before.as_ref() });
        self.strand(name).trim(window);
    }
}
