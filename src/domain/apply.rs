//! Decides what a batch of messages changes: pure, and the same whatever way the events are batched (law 2).
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

#[cfg(test)]
mod tests {
    use super::*;
    use crate::domain::event::Envelope;
    use crate::domain::ids::Source;
    use crate::domain::process::Status;
    use std::time::Duration;

    const POLICY: Policy =
        Policy { timeout: Duration::from_secs(3600), heartbeat_interval: Duration::from_secs(30) };
    const NOW: Timestamp = Timestamp::from_micros(1_800_000_000_000_000);

    fn event(
        tenant: &str,
        stream: &str,
        event_type: &str,
        id: &str,
        payload: &str,
    ) -> Arc<Accepted> {
        let second: i64 = id.bytes().map(i64::from).sum();
        let received_at = Timestamp::from_micros(1_770_000_000_000_000 + second * 1_000_000);
        Arc::new(Accepted {
            position: second,
            stream_seq: 7,
            received_at,
            ordered_at: received_at,
            clock_skew: false,
            envelope: Envelope {
                tenant: TenantId::parse(tenant).unwrap(),
                source: Source::parse("billing").unwrap(),
                payload: payload.into(),
                ..Envelope::sample(id, stream, event_type)
            },
        })
    }

    fn run(events: &[Arc<Accepted>], merge: Merge<'_>) -> Change {
        let items: Vec<Item<'_>> = events.iter().map(Item::Event).collect();
        decide(&items, BTreeMap::new(), &POLICY, NOW, merge)
    }

    fn names(change: &Change) -> Vec<(&str, &str, Status)> {
        change
            .processes
            .iter()
            .map(|change| {
                (change.row.tenant.as_str(), change.row.process.as_str(), change.row.status)
            })
            .collect()
    }

    #[test]
    fn processes_are_sorted_and_two_tenants_never_notice_each_other() {
        let events = [
            event("b", "p", "process.started", "1", "{}"),
            event("a", "q", "process.started", "2", "{}"),
            event("a", "p", "process.heartbeat", "3", "{}"),
            event("b", "p", "process.completed", "4", "{}"),
            event("a", "order-1", "OrderCreated", "5", "[1]"),
        ];
        let change = run(&events, &State::merge);
        assert_eq!(
            names(&change),
            [
                ("a", "p", Status::Active),
                ("a", "q", Status::Running),
                ("b", "p", Status::Completed)
            ]
        );
        assert_eq!(change.events, events, "domain events too, in the order of acceptance");
        assert_eq!(change.dead_letters, []);
        let items: Vec<Item<'_>> = events.iter().map(Item::Event).collect();
        let touched: Vec<String> =
            touched(&items).iter().map(|(tenant, process)| format!("{tenant}/{process}")).collect();
        assert_eq!(touched, ["a/p", "a/q", "b/p"]);
    }

    #[test]
    fn poison_goes_aside_whole_and_the_rest_goes_on() {
        let events = [
            event("a", "p", "process.started", "1", "{}"),
            event("a", "p", "process.exploded", "2", "{}"),
            event("a", "p", "process.progress", "3", "not json"),
            event("a", &"p".repeat(101), "process.started", "4", "{}"),
            event("a", "p", "process.completed", "5", "{}"),
            event("a", "lonely", "process.exploded", "6", "{}"),
        ];
        let mut items: Vec<Item<'_>> = events.iter().map(Item::Event).collect();
        items.push(Item::Undecodable { position: 77, bytes: b"\xff\x00", problem: "no frame" });
        let change = decide(&items, BTreeMap::new(), &POLICY, NOW, &State::merge);
        assert_eq!(names(&change), [("a", "p", Status::Completed)]);
        assert_eq!(change.events, [events[0].clone(), events[4].clone()]);
        let reasons: Vec<Reason> = change.dead_letters.iter().map(|dead| dead.reason).collect();
        assert_eq!(
            reasons,
            [
                Reason::UnknownType,
                Reason::InvalidPayload,
                Reason::InvalidPayload,
                Reason::UnknownType,
                Reason::Undecodable
            ]
        );
        let whole: Accepted = serde_json::from_str(&change.dead_letters[1].snapshot).unwrap();
        assert_eq!(whole, *events[2]);
        let unreadable = &change.dead_letters[4];
        assert_eq!((unreadable.id, unreadable.tenant.as_str()), (77, NO_TENANT));
        assert_eq!(unreadable.snapshot, r#"{"bytes_base64":"/wA="}"#);
        assert_eq!(unreadable.detail, "no frame");
    }

    #[test]
    fn a_panic_is_a_dead_letter_and_its_process_is_as_before_that_event() {
        let events = [
            event("a", "p", "process.started", "1", "{}"),
            event("a", "p", "process.progress", "2", r#"{"current_step":"fine"}"#),
            event("a", "p", "process.progress", "3", r#"{"current_step":"cursed"}"#),
            event("a", "p", "process.progress", "4", r#"{"progress_percent":50}"#),
            event("a", "q", "process.started", "5", "{}"),
            event("a", "p", "process.unknown", "6", "{}"),
        ];
        let cursed = |state: &mut State, mark: Mark| {
            let id = mark.key.event_id.as_str().to_string();
            let settled = state.merge(mark);
            assert_ne!(id, "3", "a bug of ours");
            settled
        };
        let change = run(&events, &cursed);
        assert_eq!(names(&change), [("a", "p", Status::Running), ("a", "q", Status::Running)]);
        let row = &change.processes[0].row;
        assert_eq!((row.current_step.as_deref(), row.progress_percent), (Some("fine"), Some(50.0)));
        assert_eq!(change.events.len(), 4);
        let reasons: Vec<(Reason, Option<&str>)> = change
            .dead_letters
            .iter()
            .map(|dead| (dead.reason, dead.event_id.as_deref()))
            .collect();
        assert_eq!(reasons, [(Reason::Panic, Some("3")), (Reason::UnknownType, Some("6"))]);
        assert!(change.dead_letters[0].detail.contains("a bug of ours"));
        // Without the cursed event the batch gives the same.
        let without: Vec<_> = [0, 1, 3, 4].map(|index| events[index].clone()).into();
        assert_eq!(run(&without, &State::merge).processes, change.processes);
    }

    #[test]
    fn a_batch_of_nothing_but_poison_changes_no_process() {
        let events = [event("a", "p", "process.started", "1", "{}")];
        let change = run(&events, &|_, _| panic!("always"));
        assert_eq!((change.processes.len(), change.dead_letters.len()), (0, 1));
    }

    #[test]
    fn loaded_states_go_on_and_only_changed_runs_are_told() {
        let first = run(&[event("a", "p", "process.started", "1", "{}")], &State::merge);
        let before = first.processes[0].clone();
        assert_eq!(before.runs.len(), 1);
        assert_eq!(before.history_key, "p");
        let name = (before.row.tenant.clone(), before.row.process.clone());
        let beat = event("a", "p", "process.heartbeat", "2", "{}");
        let loaded = BTreeMap::from([(name, before.state)]);
        let second = decide(&[Item::Event(&beat)], loaded, &POLICY, NOW, &State::merge);
        assert_eq!(second.processes[0].row.status, Status::Running);
        assert_eq!(second.processes[0].runs, []);
    }
}
