//! Decides what a batch of messages changes: pure, and the same whatever way the events are batched (law 2).
//!
//! This module takes the events of a batch to their processes, and sets aside, whole and with a reason, every one
//! that cannot be applied (law 6). A panic is a bug of ours, and its event is set aside like any other: the process
//! stays as it was before that event, and the rest of the batch goes on.

use std::any::Any;
use std::collections::{BTreeMap, HashMap};
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::Arc;

use base64::Engine as _;

use super::dead_letter::{DeadLetter, NO_TENANT, Reason};
use super::event::Accepted;
use super::history::history_key;
use super::ids::{ProcessId, TenantId};
use super::process::mark::{self, Mark};
use super::process::{Policy, Row, RunRow, State};
use super::time::Timestamp;

/// One process after a batch.
#[derive(Debug, Clone, PartialEq)]
pub struct ProcessChange {
    pub state: State,
    pub row: Row,
    /// Runs that are new or different, for the history.
    ///
    /// A run without a name is withdrawn when its start turns up and takes it in: then it stands here with neither
    /// start nor outcome, and is to be deleted.
    pub runs: Vec<RunRow>,
    /// Under which name the durations of its runs are averaged (package.procedure, else name, else process id).
    pub history_key: String,
}

/// Everything that a batch changes.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct Change {
    /// Every event that was applied, in the order of acceptance.
    pub events: Vec<Arc<Accepted>>,
    /// Sorted by (tenant, process) (law 11).
    pub processes: Vec<ProcessChange>,
    pub dead_letters: Vec<DeadLetter>,
}

/// The processes that a message touches, for the store to load.
pub type Touched = Vec<(TenantId, ProcessId)>;

/// One message of a batch.
#[derive(Debug, Clone, Copy)]
pub enum Item<'a> {
    Event(&'a Arc<Accepted>),
    /// It cannot be read.
    Undecodable {
        position: i64,
        bytes: &'a [u8],
        problem: &'a str,
    },
}

/// How a mark is merged into a state, and which runs that settles: [`State::merge`]. Tests pass one that panics.
pub type Merge<'a> = &'a dyn Fn(&mut State, Mark) -> Vec<RunRow>;

/// The processes whose states have to be loaded to apply `items`, sorted, each once.
pub fn touched(items: &[Item<'_>]) -> Touched {
    let mut touched: Touched = items
        .iter()
        .filter_map(|item| match item {
            Item::Event(event) => drives(event).then(|| process_of(event))?,
            Item::Undecodable { .. } => None,
        })
        .collect();
    touched.sort_unstable();
    touched.dedup();
    touched
}

/// What `items`, in the order of acceptance, change. `loaded` holds the states of the processes they touch; one that
/// is missing is new.
pub fn decide(
    items: &[Item<'_>],
    loaded: BTreeMap<(TenantId, ProcessId), State>,
    policy: &Policy,
    now: Timestamp,
    merge: Merge<'_>,
) -> Change {
    let mut refused: Vec<Option<Refusal>> = vec![None; items.len()];
    let mut changes: BTreeMap<(TenantId, ProcessId), ProcessChange> = BTreeMap::new();
    let mut loaded = loaded;
    for (name, members) in by_process(items, &mut refused) {
        let before = loaded.remove(&name).unwrap_or_default();
        let batch = Batch { name: &name, members: &members, policy, merge };
        if let Some(change) = batch.apply(&before, &mut refused) {
            changes.insert(name, change);
        }
    }
    let mut change = Change { processes: changes.into_values().collect(), ..Change::default() };
    for (item, refused) in items.iter().zip(refused) {
        match (item, refused) {
            (Item::Event(event), None) => change.events.push(Arc::clone(event)),
            (Item::Event(event), Some(refusal)) => {
                change.dead_letters.push(set_aside(event, refusal, now));
            }
            (Item::Undecodable { position, bytes, problem }, _) => {
                change.dead_letters.push(unreadable(*position, bytes, problem, now));
            }
        }
    }
    change
}

/// Why an event is not applied.
#[derive(Debug, Clone, PartialEq)]
struct Refusal {
    reason: Reason,
    detail: String,
}

/// An event and its place in the batch.
type Member<'a> = (usize, &'a Accepted);

fn drives(event: &Accepted) -> bool {
    mark::is_process_type(event.envelope.event_type.as_str())
}

fn process_of(event: &Accepted) -> Option<(TenantId, ProcessId)> {
    Some((event.envelope.tenant.clone(), event.envelope.stream.process()?))
}

/// The events that drive processes, by process, in the order of acceptance.
fn by_process<'a>(
    items: &[Item<'a>],
    refused: &mut [Option<Refusal>],
) -> Vec<((TenantId, ProcessId), Vec<Member<'a>>)> {
    let mut groups: Vec<((TenantId, ProcessId), Vec<Member<'a>>)> = Vec::new();
    let mut places: HashMap<(&str, &str), usize> = HashMap::with_capacity(items.len());
    for (index, item) in items.iter().enumerate() {
        let Item::Event(event) = item else { continue };
        if !drives(event) {
            continue;
        }
        let envelope = &event.envelope;
        let name = (envelope.tenant.as_str(), envelope.stream.as_str());
        if let Some(&place) = places.get(&name) {
            groups[place].1.push((index, event));
        } else if let Some(owned) = process_of(event) {
            places.insert(name, groups.len());
            groups.push((owned, vec![(index, event)]));
        } else {
            let detail = format!(
                "the stream key is longer than the {} characters of a process id",
                ProcessId::CHARS_MAX
            );
            refused[index] = Some(Refusal { reason: Reason::InvalidPayload, detail });
        }
    }
    groups
}

/// The events of one process in a batch.
struct Batch<'a> {
    name: &'a (TenantId, ProcessId),
    members: &'a [Member<'a>],
    policy: &'a Policy,
    merge: Merge<'a>,
}

/// A process while its events are merged.
#[derive(Clone)]
struct Progress {
    state: State,
    settled: Vec<RunRow>,
    merged: usize,
}

impl Batch<'_> {
    /// The process after the batch. None when no event could be applied.
    fn apply(&self, before: &State, refused: &mut [Option<Refusal>]) -> Option<ProcessChange> {
        // A panic leaves nothing behind: all that is worked on is made inside and dropped with it. The refusals that
        // were written by then are written again, or overwritten, by the careful way.
        guarded(|| {
            let mut progress = Progress::from(before);
            for &(index, event) in self.members {
                refused[index] = self.merge_one(&mut progress, event).err();
            }
            self.change(before, progress)
        })
        .unwrap_or_else(|_panic| self.apply_one_by_one(before, refused))
    }

    /// The slow way, after a panic: a copy before each event, to find the one and go on without it.
    fn apply_one_by_one(
        &self,
        before: &State,
        refused: &mut [Option<Refusal>],
    ) -> Option<ProcessChange> {
        let mut progress = Progress::from(before);
        for &(index, event) in self.members {
            let attempt = guarded(|| {
                let mut copy = progress.clone();
                self.merge_one(&mut copy, event)?;
                // What the event leaves behind must be fit to be shown, too.
                self.change(before, copy.clone());
                Ok(copy)
            });
            match attempt {
                Ok(Ok(merged)) => (progress, refused[index]) = (merged, None),
                Ok(Err(refusal)) => refused[index] = Some(refusal),
                Err(detail) => {
                    refused[index] = Some(Refusal { reason: Reason::Panic, detail });
                }
            }
        }
        self.change(before, progress)
    }

    fn merge_one(&self, progress: &mut Progress, event: &Accepted) -> Result<(), Refusal> {
        let mark = mark::read(event).map_err(|(reason, detail)| Refusal { reason, detail })?;
        if let Some(mark) = mark {
            progress.settled.extend((self.merge)(&mut progress.state, mark));
            progress.merged += 1;
        }
        Ok(())
    }

    fn change(&self, before: &State, progress: Progress) -> Option<ProcessChange> {
        if progress.merged == 0 {
            return None;
        }
        let Progress { state, settled, .. } = progress;
        let row = state.row(&self.name.0, &self.name.1, self.policy);
        let runs = changed_runs(&before.runs(), settled, state.runs());
        let history_key = history_key(&row);
        Some(ProcessChange { state, row, runs, history_key })
    }
}

impl From<&State> for Progress {
    fn from(state: &State) -> Self {
        Self { state: state.clone(), settled: Vec::new(), merged: 0 }
    }
}

/// The runs that are not as they were: settled in this batch, new, different or withdrawn.
fn changed_runs(before: &[RunRow], settled: Vec<RunRow>, after: Vec<RunRow>) -> Vec<RunRow> {
    let nameless = |runs: &[RunRow]| runs.iter().any(|run| run.run_id.is_none());
    let withdrawn = nameless(before) && !nameless(&settled) && !nameless(&after);
    let mut changed: Vec<RunRow> =
        settled.into_iter().chain(after).filter(|run| !before.contains(run)).collect();
    if withdrawn {
        changed.push(RunRow {
            run_id: None,
            started_at: None,
            ended_at: None,
            outcome: None,
            duration_ms: None,
            error_code: None,
            error_message: None,
        });
    }
    changed
}

/// Runs `work`, and turns a panic in it into its message.
fn guarded<T>(work: impl FnOnce() -> T) -> Result<T, String> {
    catch_unwind(AssertUnwindSafe(work)).map_err(|panic| message_of(panic.as_ref()))
}

fn message_of(panic: &(dyn Any + Send)) -> String {
    let text = panic.downcast_ref::<&str>().copied();
    let text = text.or_else(|| panic.downcast_ref::<String>().map(String::as_str));
    text.unwrap_or("a panic without a message").to_string()
}

/// The event, whole.
fn set_aside(event: &Accepted, refusal: Refusal, now: Timestamp) -> DeadLetter {
    let envelope = &event.envelope;
    DeadLetter {
        id: event.position,
        tenant: envelope.tenant.as_str().to_string(),
        reason: refusal.reason,
        detail: refusal.detail,
        snapshot: serde_json::to_string(event).expect("an event has only parts that JSON can hold"),
        event_id: Some(envelope.event_id.as_str().to_string()),
        source: Some(envelope.source.as_str().to_string()),
        stream_key: Some(envelope.stream.as_str().to_string()),
        stream_seq: Some(event.stream_seq),
        created_at: now,
    }
}

/// A message that is not even an event, whole.
fn unreadable(position: i64, bytes: &[u8], problem: &str, now: Timestamp) -> DeadLetter {
    let base64 = base64::engine::general_purpose::STANDARD.encode(bytes);
    DeadLetter {
        id: position,
        tenant: NO_TENANT.to_string(),
        reason: Reason::Undecodable,
        detail: problem.to_string(),
        snapshot: serde_json::json!({ "bytes_base64": base64 }).to_string(),
        event_id: None,
        source: None,
        stream_key: None,
        stream_seq: None,
        created_at: now,
    }
}
