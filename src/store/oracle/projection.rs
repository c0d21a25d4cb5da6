//! What a batch changes, as rows. This module writes live status, registry, runs, history, events, streams and dead
//! letters of one change into an open transaction, each table with array statements and each in the order of its key.
//!
//! A row that is there is updated, one that is not is inserted; which of the two is decided by what the update
//! touched. Rows of processes were locked when they were loaded, so an insert that meets a row lost a race: the whole
//! batch is run again, and loads what the other one wrote (law 11). An event that is there was applied before.

use std::collections::{BTreeMap, BTreeSet, HashMap};

use oracle::Connection;

use super::bind::{self, Bind, Written};
use super::errors::Class;
use super::message;
use super::sql::{statement, text};
use super::state;
use crate::domain::apply::{Change, ProcessChange};
use crate::domain::dead_letter::DeadLetter;
use crate::domain::door::trace_id_hex;
use crate::domain::event::{Accepted, IdOrigin};
use crate::domain::history;
use crate::domain::process::{Outcome, RunRow};
use crate::domain::time::Timestamp;

/// The `run_id` of a run without a name: no event id can be it, and it is not NULL.
pub(super) const NAMELESS: &str = " ";

/// Why a change was not written.
#[derive(Debug)]
pub(super) enum Failure {
    Driver(oracle::Error),
    /// One row was refused.
    Row(Class, String),
}

impl From<oracle::Error> for Failure {
    fn from(error: oracle::Error) -> Self {
        Self::Driver(error)
    }
}

type Outcomes<T> = Result<T, Failure>;

/// Writes a change. `msgids` names the message of each position.
pub(super) fn write(
    connection: &Connection,
    change: &Change,
    msgids: &HashMap<i64, String>,
    now: Timestamp,
) -> Outcomes<()> {
    write_processes(connection, &change.processes)?;
    let kinds = write_runs(connection, &change.processes)?;
    write_history(connection, &kinds, now)?;
    write_events(connection, change, now)?;
    write_streams(connection, change)?;
    write_dead_letters(connection, &change.dead_letters, msgids)
}

/// Every row must have been written. One that is there already means that another listener was first.
fn whole(written: &Written) -> Outcomes<()> {
    match written.errors.first() {
        None => Ok(()),
        Some(error) => Err(match error.class {
            Class::Duplicate => Failure::Row(
                Class::Contention,
                format!("another instance was first ({}): the batch is run again", error.text),
            ),
            class => Failure::Row(class, error.text.clone()),
        }),
    }
}

/// Updates rows, and inserts those that were not there. Both lists are of the same rows, in the order of their keys.
fn update_or_insert(
    connection: &Connection,
    update: &str,
    updates: &[Vec<Bind<'_>>],
    insert: &str,
    inserts: &[Vec<Bind<'_>>],
) -> Outcomes<()> {
    let written = bind::write_all(connection, update, updates)?;
    whole(&written)?;
    let missing: Vec<Vec<Bind<'_>>> =
        written.untouched().into_iter().map(|row| inserts[row].clone()).collect();
    whole(&bind::write_all(connection, insert, &missing)?)
}

fn write_processes(connection: &Connection, processes: &[ProcessChange]) -> Outcomes<()> {
    let digests: Vec<(Option<String>, String)> = processes
        .iter()
        .map(|change| {
            let members = &change.row.metadata;
            let metadata = (!members.is_empty())
                .then(|| serde_json::Value::Object(members.clone()).to_string());
            (metadata, state::encode(&change.state))
        })
        .collect();
    let names = |change: &'_ ProcessChange| {
        [
            Bind::Owned(Some(change.row.tenant.as_str().to_string()), 50),
            Bind::Owned(Some(change.row.process.as_str().to_string()), 100),
        ]
    };
    let (mut updates, mut inserts) = (Vec::new(), Vec::new());
    for (change, (metadata, digest)) in processes.iter().zip(&digests) {
        let fields = live_fields(change);
        let long = [Bind::Long(metadata.as_deref()), Bind::Long(Some(digest))];
        // In the statement's own order: SET comes before WHERE.
        let mut row = fields.clone();
        row.extend(long.clone());
        row.extend(names(change));
        updates.push(row);
        let mut row = names(change).to_vec();
        row.extend(fields);
        row.extend(long);
        inserts.push(row);
    }
    update_or_insert(
        connection,
        &text(statement!("update_process"), &[]),
        &updates,
        &text(statement!("insert_process"), &[]),
        &inserts,
    )?;
    let (mut updates, mut inserts) = (Vec::new(), Vec::new());
    for (change, (metadata, _)) in processes.iter().zip(&digests) {
        let fields = registry_fields(change);
        let tags = Bind::Long(metadata.as_deref());
        let mut row = fields.clone();
        row.push(tags.clone());
        row.extend(names(change));
        updates.push(row);
        let mut row = names(change).to_vec();
        row.push(Bind::time(change.row.registered_at));
        row.extend(fields);
        row.push(tags);
        inserts.push(row);
    }
    update_or_insert(
        connection,
        &text(statement!("update_registry"), &[]),
        &updates,
        &text(statement!("insert_registry"), &[]),
        &inserts,
    )
}

/// The columns of `update_process` up to `history_key`.
fn live_fields(change: &ProcessChange) -> Vec<Bind<'_>> {
    let row = &change.row;
    vec![
        Bind::Text(row.run_id.as_ref().map(|id| id.as_str()), 100),
        Bind::count(row.run_no),
        Bind::text(row.status.as_str(), 20),
        match &row.reason {
            Some(reason) => Bind::cut(reason, REASON_CHARS_MAX),
            None => Bind::Text(None, REASON_CHARS_MAX),
        },
        Bind::Time(row.started_at),
        Bind::Time(row.ended_at),
        Bind::Text(row.current_step.as_deref(), 200),
        Bind::Number(row.progress_percent),
        Bind::time(row.last_update_at),
        // What the process said itself; a reader that knows the median says better.
        Bind::Time(history::estimated_completion(row, None)),
        Bind::Time(row.last_life_at),
        Bind::Time(row.deadline_at),
        Bind::Text(row.correlation_id.as_deref(), 100),
        Bind::cut(&change.history_key, 300),
    ]
}

/// The longest reason in characters: its column holds 4,000 bytes, whatever the script.
const REASON_CHARS_MAX: u32 = 1000;

/// The columns of `update_registry` up to `avg_duration_ms`.
fn registry_fields(change: &ProcessChange) -> Vec<Bind<'_>> {
    let row = &change.row;
    vec![
        Bind::Text(row.process_type.as_deref(), 50),
        Bind::Text(row.process_name.as_deref(), 200),
        Bind::Text(row.package_name.as_deref(), 128),
        Bind::Text(row.procedure_name.as_deref(), 128),
        Bind::text(row.status.as_str(), 20),
        Bind::Time(row.last_life_at),
        Bind::Time(row.deadline_at),
        Bind::count(row.total_executions),
        Bind::count(row.successful_runs),
        Bind::count(row.failed_runs),
        Bind::Integer(row.avg_duration_ms.map(|ms| i64::try_from(ms).unwrap_or(i64::MAX))),
    ]
}

/// Kinds of processes whose history a batch touched: tenant and history key.
type Kinds = BTreeSet<(String, String)>;

fn write_runs(connection: &Connection, processes: &[ProcessChange]) -> Outcomes<Kinds> {
    let mut kinds = Kinds::new();
    // By key, so that rows of one run that changed twice in a batch are one row, the later one.
    let mut rows: BTreeMap<(&str, &str, &str), (&ProcessChange, &RunRow)> = BTreeMap::new();
    let mut withdrawn: BTreeSet<(&str, &str, &str)> = BTreeSet::new();
    for change in processes {
        for run in &change.runs {
            let key = (
                change.row.tenant.as_str(),
                change.row.process.as_str(),
                run.run_id.as_ref().map_or(NAMELESS, |id| id.as_str()),
            );
            let is_withdrawn = run.started_at.is_none() && run.outcome.is_none();
            if is_withdrawn {
                rows.remove(&key);
                withdrawn.insert(key);
            } else {
                withdrawn.remove(&key);
                rows.insert(key, (change, run));
            }
            if is_withdrawn || run.outcome.is_some() {
                kinds.insert((key.0.to_string(), cut_key(&change.history_key)));
            }
        }
    }
    let names = |key: &(&str, &str, &str)| {
        [
            Bind::Owned(Some(key.0.to_string()), 50),
            Bind::Owned(Some(key.1.to_string()), 100),
            Bind::Owned(Some(key.2.to_string()), 100),
        ]
    };
    let deletes: Vec<Vec<Bind<'_>>> = withdrawn.iter().map(|key| names(key).to_vec()).collect();
    whole(&bind::write_all(connection, &text(statement!("delete_run"), &[]), &deletes)?)?;
    let (mut updates, mut inserts) = (Vec::new(), Vec::new());
    for (key, (change, run)) in &rows {
        let fields = run_fields(change, run);
        let mut row = fields.clone();
        row.extend(names(key));
        updates.push(row);
        let mut row = names(key).to_vec();
        row.extend(fields);
        inserts.push(row);
    }
    update_or_insert(
        connection,
        &text(statement!("update_run"), &[]),
        &updates,
        &text(statement!("insert_run"), &[]),
        &inserts,
    )?;
    Ok(kinds)
}

/// A history key as its column holds it.
fn cut_key(key: &str) -> String {
    key.chars().take(300).collect()
}

/// The columns of `update_run` up to `error_message`.
fn run_fields<'a>(change: &'a ProcessChange, run: &'a RunRow) -> Vec<Bind<'a>> {
    vec![
        Bind::cut(&change.history_key, 300),
        Bind::time(run.started_at.or(run.ended_at).unwrap_or_default()),
        Bind::Time(run.started_at),
        Bind::Time(run.ended_at),
        Bind::Text(run.outcome.map(Outcome::as_str), 20),
        Bind::Integer(run.duration_ms.map(|ms| i64::try_from(ms).unwrap_or(i64::MAX))),
        Bind::Text(run.error_code.as_deref(), 100),
        match &run.error_message {
            Some(message) => Bind::cut(message, REASON_CHARS_MAX),
            None => Bind::Text(None, REASON_CHARS_MAX),
        },
    ]
}

/// Takes the median of each kind anew, from its newest successes.
fn write_history(connection: &Connection, kinds: &Kinds, now: Timestamp) -> Outcomes<()> {
    let ask = text(statement!("history_durations"), &[]);
    let mut rows = Vec::with_capacity(kinds.len());
    for (tenant, key) in kinds {
        let samples = history::SAMPLES_MAX;
        let binds = [Bind::text(tenant, 50), Bind::text(key, 300), Bind::size(samples)];
        let mut durations =
            bind::query(connection, &ask, &binds, samples, |row| bind::count(row, "duration_ms"))?;
        let count = durations.len();
        let median = history::median(&mut durations);
        rows.push(vec![
            Bind::size(count),
            Bind::Integer(median.map(|ms| i64::try_from(ms).unwrap_or(i64::MAX))),
            Bind::time(now),
            Bind::text(tenant, 50),
            Bind::text(key, 300),
        ]);
    }
    update_or_insert(
        connection,
        &text(statement!("update_history"), &[]),
        &rows,
        &text(statement!("insert_history"), &[]),
        &rows,
    )
}

fn write_events(connection: &Connection, change: &Change, now: Timestamp) -> Outcomes<()> {
    let mut events: Vec<&Accepted> = change.events.iter().map(|event| &**event).collect();
    events.sort_by(|a, b| order_of(a).cmp(&order_of(b)));
    let rows: Vec<Vec<Bind<'_>>> = events.iter().map(|event| event_row(event, now)).collect();
    let mut written = bind::write_all(connection, &text(statement!("insert_event"), &[]), &rows)?;
    // It is there under its number, so it was applied before: merging it again has changed nothing.
    written.errors.retain(|error| error.class != Class::Duplicate);
    whole(&written)
}

fn order_of(event: &Accepted) -> (&str, &str, u64) {
    (event.envelope.tenant.as_str(), event.envelope.stream.as_str(), event.stream_seq)
}

/// The columns of `insert_event`.
fn event_row(event: &Accepted, now: Timestamp) -> Vec<Bind<'_>> {
    let envelope = &event.envelope;
    vec![
        Bind::text(envelope.tenant.as_str(), 50),
        Bind::text(envelope.source.as_str(), 200),
        Bind::text(envelope.event_type.as_str(), 200),
        Bind::text(envelope.stream.as_str(), 200),
        Bind::count(event.stream_seq),
        Bind::text(envelope.event_id.as_str(), 100),
        Bind::text(origin_word(envelope.id_origin), 6),
        Bind::time(event.ordered_at),
        Bind::Time(envelope.occurred_at),
        Bind::Integer(Some(i64::from(event.clock_skew))),
        Bind::time(event.received_at),
        Bind::time(now),
        Bind::Integer(Some(i64::from(envelope.schema_version))),
        Bind::Text(envelope.key.as_ref().map(|key| key.as_str()), 255),
        Bind::Owned(Some(message::hex(&envelope.hash.0)), 64),
        Bind::Owned(Some(trace_id_hex(&envelope.trace)), 32),
        Bind::Owned(Some(message::hex(&envelope.trace.parent_id)), 16),
        Bind::Integer(Some(i64::from(envelope.trace.sampled))),
        Bind::Long(Some(&envelope.payload)),
    ]
}

pub(super) fn origin_word(origin: IdOrigin) -> &'static str {
    match origin {
        IdOrigin::Caller => "caller",
        IdOrigin::Door => "door",
    }
}

/// The newest of a batch in a stream.
struct Newest {
    seq: u64,
    seen_at: Timestamp,
    last_type: String,
}

/// The newest of each stream that a change touches, dead letters with their numbers included (law 5).
fn newest_of_streams(change: &Change) -> BTreeMap<(String, String), Newest> {
    let mut newest: BTreeMap<(String, String), Newest> = BTreeMap::new();
    let mut note = |tenant: &str, stream: &str, found: Newest| {
        let name = (tenant.to_string(), stream.to_string());
        match newest.get_mut(&name) {
            Some(known) if known.seq >= found.seq => {}
            Some(known) => *known = found,
            None => {
                newest.insert(name, found);
            }
        }
    };
    for event in &change.events {
        let envelope = &event.envelope;
        let found = Newest {
            seq: event.stream_seq,
            seen_at: event.received_at,
            last_type: envelope.event_type.as_str().to_string(),
        };
        note(envelope.tenant.as_str(), envelope.stream.as_str(), found);
    }
    for letter in &change.dead_letters {
        // The snapshot is the whole event, where there was one.
        let Ok(event) = serde_json::from_str::<Accepted>(&letter.snapshot) else { continue };
        let found = Newest {
            seq: event.stream_seq,
            seen_at: event.received_at,
            last_type: event.envelope.event_type.as_str().to_string(),
        };
        note(event.envelope.tenant.as_str(), event.envelope.stream.as_str(), found);
    }
    newest
}

fn write_streams(connection: &Connection, change: &Change) -> Outcomes<()> {
    let newest = newest_of_streams(change);
    let (mut updates, mut inserts) = (Vec::new(), Vec::new());
    for ((tenant, stream), newest) in &newest {
        let row = vec![
            Bind::count(newest.seq),
            Bind::time(newest.seen_at),
            Bind::text(&newest.last_type, 200),
            Bind::text(tenant, 50),
            Bind::text(stream, 200),
        ];
        let mut update = row.clone();
        update.push(Bind::count(newest.seq));
        updates.push(update);
        inserts.push(row);
    }
    let update = text(statement!("update_stream_state"), &[]);
    let written = bind::write_all(connection, &update, &updates)?;
    whole(&written)?;
    // What was not moved is not there, or is further on already.
    let unmoved = written.untouched();
    let missing: Vec<Vec<Bind<'_>>> = unmoved.iter().map(|row| inserts[*row].clone()).collect();
    let mut written =
        bind::write_all(connection, &text(statement!("insert_stream_state"), &[]), &missing)?;
    let there: Vec<Vec<Bind<'_>>> = written
        .errors
        .iter()
        .filter(|error| error.class == Class::Duplicate)
        .map(|error| updates[unmoved[error.row]].clone())
        .collect();
    written.errors.retain(|error| error.class != Class::Duplicate);
    whole(&written)?;
    // One that somebody else inserted meanwhile may be behind.
    whole(&bind::write_all(connection, &update, &there)?)
}

fn write_dead_letters(
    connection: &Connection,
    letters: &[DeadLetter],
    msgids: &HashMap<i64, String>,
) -> Outcomes<()> {
    let rows: Vec<Vec<Bind<'_>>> = letters
        .iter()
        .map(|letter| {
            vec![
                Bind::text(&letter.tenant, 50),
                Bind::text(letter.reason.as_str(), 50),
                Bind::cut(&letter.detail, REASON_CHARS_MAX),
                Bind::Text(letter.source.as_deref(), 200),
                Bind::Text(letter.event_id.as_deref(), 100),
                Bind::Text(letter.stream_key.as_deref(), 200),
                Bind::Integer(letter.stream_seq.map(|seq| i64::try_from(seq).unwrap_or(i64::MAX))),
                Bind::Text(msgids.get(&letter.id).map(String::as_str), 32),
                Bind::time(letter.created_at),
                Bind::Long(Some(&letter.snapshot)),
            ]
        })
        .collect();
    whole(&bind::write_all(connection, &text(statement!("insert_dead_letter"), &[]), &rows)?)
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;
    use std::time::Duration;

    use super::*;
    use crate::domain::dead_letter::Reason;
    use crate::domain::event::Envelope;
    use crate::domain::ids::{ProcessId, Source, TenantId};
    use crate::domain::process::{Policy, State};

    fn event(stream: &str, seq: u64, event_type: &str) -> Arc<Accepted> {
        let received_at = Timestamp::from_micros(1_000_000 + i64::try_from(seq).unwrap());
        Arc::new(Accepted {
            position: i64::try_from(seq).unwrap(),
            stream_seq: seq,
            received_at,
            ordered_at: received_at,
            clock_skew: false,
            envelope: Envelope {
                id_origin: IdOrigin::Door,
                source: Source::parse("plsql").unwrap(),
                ..Envelope::sample("e1", stream, event_type)
            },
        })
    }

    fn process() -> ProcessChange {
        let policy =
            Policy { timeout: Duration::from_secs(9), heartbeat_interval: Duration::from_secs(3) };
        let state = State::default();
        let row =
            state.row(&TenantId::parse("acme").unwrap(), &ProcessId::parse("p").unwrap(), &policy);
        ProcessChange { state, row, runs: Vec::new(), history_key: "p".into() }
    }

    /// How many parameters a statement has.
    fn parameters(file: &str) -> usize {
        text(file, &[]).matches(':').count()
    }

    #[test]
    fn every_row_has_as_many_parameters_as_its_statement() {
        let change = process();
        assert_eq!(live_fields(&change).len() + 4, parameters(statement!("update_process")));
        assert_eq!(live_fields(&change).len() + 4, parameters(statement!("insert_process")));
        assert_eq!(registry_fields(&change).len() + 3, parameters(statement!("update_registry")));
        assert_eq!(registry_fields(&change).len() + 4, parameters(statement!("insert_registry")));
        let run = RunRow {
            run_id: None,
            started_at: None,
            ended_at: None,
            outcome: Some(Outcome::Failed),
            duration_ms: None,
            error_code: None,
            error_message: None,
        };
        assert_eq!(run_fields(&change, &run).len() + 3, parameters(statement!("update_run")));
        assert_eq!(run_fields(&change, &run).len() + 3, parameters(statement!("insert_run")));
        let event = event("s", 1, "Ordered");
        let row = event_row(&event, Timestamp::default());
        assert_eq!(row.len(), parameters(statement!("insert_event")));
        assert_eq!(row.last(), Some(&Bind::Long(Some("{}"))), "what is long comes last");
    }

    #[test]
    fn the_parameters_stand_in_the_order_of_the_columns() {
        let columns = |file: &str| -> Vec<String> {
            let sql = text(file, &[]);
            sql.split(':')
                .skip(1)
                .map(|part| {
                    part.chars().take_while(|c| c.is_ascii_alphanumeric() || *c == '_').collect()
                })
                .collect()
        };
        let update = columns(statement!("update_process"));
        assert_eq!(update[..4], ["run_id", "run_no", "status", "reason"]);
        assert_eq!(
            update[13..],
            ["history_key", "metadata", "state_digest", "tenant_id", "process_id"]
        );
        let insert = columns(statement!("insert_process"));
        assert_eq!(insert[..3], ["tenant_id", "process_id", "run_id"]);
        assert_eq!(insert[2..16], update[..14]);
        let (update, insert) =
            (columns(statement!("update_registry")), columns(statement!("insert_registry")));
        assert_eq!(insert[3..15], update[..12]);
        assert_eq!(update[5..7], ["last_heartbeat_at", "expires_at"]);
        let (update, insert) =
            (columns(statement!("update_run")), columns(statement!("insert_run")));
        assert_eq!(insert[3..], update[..8]);
    }

    #[test]
    fn a_stream_moves_to_its_newest_number_dead_letters_included() {
        let dead = event("s", 9, "process.bogus");
        let letter = DeadLetter {
            id: 9,
            tenant: "acme".into(),
            reason: Reason::UnknownType,
            detail: "no".into(),
            snapshot: serde_json::to_string(&*dead).unwrap(),
            event_id: None,
            source: None,
            stream_key: Some("s".into()),
            stream_seq: Some(9),
            created_at: Timestamp::default(),
        };
        let unreadable =
            DeadLetter { snapshot: r#"{"bytes_base64":"AA=="}"#.into(), ..letter.clone() };
        let change = Change {
            events: vec![event("s", 8, "Ordered"), event("s", 7, "Shipped"), event("t", 1, "A")],
            dead_letters: vec![letter, unreadable],
            ..Change::default()
        };
        let newest = newest_of_streams(&change);
        let of = |stream: &str| {
            let found = &newest[&("acme".to_string(), stream.to_string())];
            (found.seq, found.last_type.clone())
        };
        assert_eq!(of("s"), (9, "process.bogus".to_string()));
        assert_eq!(of("t"), (1, "A".to_string()));
        assert_eq!(newest.len(), 2);
    }
}
