//! Takes messages off the queue and applies them: the messages and everything they change go in one transaction.
//! This module is the listener session of the Oracle store.
//!
//! # A claim is a transaction
//!
//! A claim dequeues and sets a savepoint; a settle writes and commits. A settle that fails goes back to the savepoint
//! and keeps the messages, so that trying again neither counts as a failed delivery nor lets others overtake. Where a
//! batch is settled message by message, the commit comes with the last one. Only a lost session gives the messages
//! back; after one, a listener writes a probe first and then takes one message at a time until that went well (law 6).
//!
//! # What this module never does
//!
//! * Settle messages that it does not hold: it looks whether they were applied by a commit whose answer was lost, and
//!   else says that they are back in the queue.
//! * Wait long in the database: nothing reliable ends such a wait when it is time to stop.

use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::sync::Arc;
use std::time::{Duration, Instant};

use oracle::{Connection, Row};

use super::bind::{self, Bind, RowError};
use super::database::DEQUEUE_WAIT_MAX;
use super::errors::{self, Class};
use super::health::Health;
use super::message::{self, Raw, Read};
use super::projection::{self, Failure};
use super::session::Session;
use super::sql::{self, fill, statement, text};
use super::{logs, state};
use crate::component::Stop;
use crate::domain::apply::Change;
use crate::domain::dead_letter::NO_TENANT;
use crate::domain::ids::{ProcessId, TenantId};
use crate::domain::process::State;
use crate::domain::time::Timestamp;
use crate::store::{Claim, ListenerSession, Message, Result, StoreError};

/// Messages of one dequeue: their payloads are held in memory, and their rows are locked.
const BATCH_MAX: usize = 1000;
/// Between two looks into the exception queue.
const SWEEP_PAUSE: Duration = Duration::from_secs(60);
/// Messages of one look into it.
const SWEEP_MAX: usize = 100;
/// After a session was lost its messages wait in the queue for their retry delay; meanwhile an empty queue proves
/// nothing about who was silent (law 4).
const SHADOW: Duration = Duration::from_secs(30);

/// A message that this session holds.
#[derive(Debug, Clone)]
struct Held {
    message: Message,
    position: i64,
    msgid: String,
}

/// The listener session.
pub(super) struct Listener {
    session: Session,
    health: Arc<Health>,
    /// How far back an event's own time may lie (law 3).
    retention: Duration,
    /// Which one of this instance, for its probe.
    name: String,
    held: Vec<Held>,
    /// There was nothing more when the messages were taken.
    drained: bool,
    /// The connection that the messages were taken on.
    generation: u64,
    /// A session was lost and nothing has gone well since.
    careful: bool,
    lost_at: Option<Instant>,
    swept_at: Option<Instant>,
}

impl Listener {
    pub(super) fn new(
        session: Session,
        health: Arc<Health>,
        retention: Duration,
        name: String,
    ) -> Self {
        Self {
            session,
            health,
            retention,
            name,
            held: Vec::new(),
            drained: false,
            generation: 0,
            careful: false,
            lost_at: None,
            swept_at: None,
        }
    }

    /// Forgets what the lost session held: it is in the queue again, or was committed.
    fn let_go(&mut self) {
        self.held.clear();
        self.careful = true;
        self.lost_at = Some(Instant::now());
    }

    /// The session still is the one that holds the messages.
    fn holds(&self) -> bool {
        !self.held.is_empty()
            && self.session.is_open()
            && self.generation == self.session.generation()
    }

    /// An error of the driver while nothing is held, or while everything held is lost with it.
    fn lose(&mut self, call: &'static str, error: &oracle::Error) -> StoreError {
        let told = self.session.fail(call, error);
        self.let_go();
        told
    }

    /// Finds out whether writes go through before anything is taken again.
    fn probe(&mut self) -> Result<()> {
        const CALL: &str = "probe";
        let now = self.health.now();
        let name = format!("#probe {}", self.name);
        let connection = self.session.ready(CALL)?;
        let write = || -> oracle::Result<()> {
            let own = [Bind::time(now), Bind::text(NO_TENANT, 50), Bind::text(&name, 200)];
            let renew = text(statement!("probe_write"), &[]);
            if bind::execute(connection, &renew, &own)? == 0 {
                let row = [
                    Bind::Integer(Some(0)),
                    Bind::time(now),
                    Bind::text("#probe", 200),
                    Bind::text(NO_TENANT, 50),
                    Bind::text(&name, 200),
                ];
                let insert = text(statement!("insert_stream_state"), &[]);
                match bind::execute(connection, &insert, &row) {
                    // Another instance on this host has the same name and was quicker: the row is there now.
                    Err(error) if errors::class_of(&error) == Class::Duplicate => {
                        bind::execute(connection, &renew, &own)?;
                    }
                    other => {
                        other?;
                    }
                }
            }
            connection.commit()
        };
        // That a probe goes through says nothing about what could not be settled, so it is not taken for going well.
        write().map_err(|error| self.session.fail(CALL, &error))
    }

    /// Takes messages into `held`, at most `max` of them.
    fn take(&mut self, max: usize, wait: Duration) -> Result<()> {
        const CALL: &str = "claim";
        if self.careful {
            self.probe()?;
        }
        let max = if self.careful { 1 } else { max.clamp(1, BATCH_MAX) };
        let sweeping = self.swept_at.is_none_or(|at| at.elapsed() >= SWEEP_PAUSE);
        if sweeping {
            // Before it, so that one that fails is not tried with each claim.
            self.swept_at = Some(Instant::now());
        }
        let connection = self.session.ready(CALL)?;
        let outcome = dequeue(connection, max, wait).and_then(|found| {
            let drained = found.len() < max;
            if found.is_empty() && sweeping {
                return Ok((sweep(connection, max.min(SWEEP_MAX))?, drained, true));
            }
            Ok((found, drained, false))
        });
        let (found, drained, swept) = match outcome {
            Ok(outcome) => outcome,
            Err(error) => return Err(self.lose(CALL, &error)),
        };
        self.health.note_dequeue();
        if swept && !found.is_empty() {
            log::warn!(messages = found.len(); "taken from the exception queue, to be applied");
        }
        self.drained = drained && self.lost_at.is_none_or(|at| at.elapsed() >= SHADOW);
        if found.is_empty() && self.drained {
            // Whatever failed here was applied by somebody else meanwhile.
            self.session.went_well();
        }
        self.generation = self.session.generation();
        if swept && found.len() == max.min(SWEEP_MAX) {
            // There may be more, which need not wait for another minute.
            self.swept_at = None;
        }
        self.keep(found)
    }

    /// Sorts out what was taken: events are held, lines of logs are written at once in the same transaction.
    fn keep(&mut self, found: Vec<Raw>) -> Result<()> {
        const CALL: &str = "claim";
        let (mut rows, mut said_by) = (Vec::new(), Vec::new());
        let mut held = Vec::with_capacity(found.len());
        for raw in &found {
            let position = message::position(raw.timestamp_utc, &raw.msgid);
            let read = match message::read(raw, self.retention) {
                Read::Event(event) => Message::Event(Arc::new(*event)),
                Read::Logs(lines) => {
                    said_by.extend(std::iter::repeat_n(raw, lines.len()));
                    rows.extend(lines);
                    continue;
                }
                Read::Undecodable(problem) => {
                    Message::Undecodable { position, bytes: message::whole(raw), problem }
                }
            };
            held.push(Held { message: read, position, msgid: raw.msgid.clone() });
        }
        let now = self.health.now();
        let connection = self.session.current(CALL)?;
        let written = match logs::insert(connection, &rows, now) {
            Ok(written) => written,
            Err(error) => return Err(self.lose(CALL, &error)),
        };
        // A database that takes no rows now says nothing about any of them.
        let is_broken = |error: &&RowError| !error.class.is_of_the_row();
        if let Some(RowError { class, text, .. }) = written.errors.iter().find(is_broken) {
            let told = self.session.fail_as(CALL, *class, text);
            self.let_go();
            return Err(told);
        }
        // A line that the schema refuses is set aside with its message, like everything that cannot be read.
        let refused: BTreeMap<&str, (&Raw, &str)> = written
            .errors
            .iter()
            .filter_map(|error| Some((*said_by.get(error.row)?, error.text.as_str())))
            .map(|(raw, problem)| (raw.msgid.as_str(), (raw, problem)))
            .collect();
        held.extend(refused.into_values().map(|(raw, problem)| {
            let position = message::position(raw.timestamp_utc, &raw.msgid);
            let (bytes, problem) = (message::whole(raw), problem.to_string());
            let message = Message::Undecodable { position, bytes, problem };
            Held { message, position, msgid: raw.msgid.clone() }
        }));
        let outcome = if held.is_empty() {
            connection.commit()
        } else {
            bind::run_once(connection, SAVEPOINT)
        };
        if let Err(error) = outcome {
            return Err(self.lose(CALL, &error));
        }
        self.held = held;
        Ok(())
    }

    /// Writes a change for messages that are held. They stay held when it fails, unless the session is lost.
    fn write(&mut self, change: &Change, last: bool, now: Timestamp) -> Result<()> {
        const CALL: &str = "settle";
        let msgids: HashMap<i64, String> =
            self.held.iter().map(|held| (held.position, held.msgid.clone())).collect();
        let connection = self.session.current(CALL)?;
        let outcome = projection::write(connection, change, &msgids, now).and_then(|()| {
            // The savepoint moves on: what follows must not take this one back.
            if last {
                connection.commit()?;
            } else {
                bind::run_once(connection, SAVEPOINT)?;
            }
            Ok(())
        });
        let failure = match outcome {
            Ok(()) => {
                self.session.went_well();
                return Ok(());
            }
            Err(failure) => failure,
        };
        let (class, words) = match failure {
            Failure::Driver(error) => (errors::class_of(&error), error.to_string()),
            Failure::Row(class, words) => (class, words),
        };
        let kept = !class.loses_session() && bind::run_once(connection, BACK).is_ok();
        if kept {
            self.session.note_fault(&words);
            if class.is_unclear() {
                self.session.note_unclear(class, &words);
            }
            Err(errors::told(CALL, class, &words))
        } else {
            self.session.drop_connection();
            self.let_go();
            // Whatever it was, the messages are in the queue again, or the commit went through.
            Err(errors::told(CALL, Class::SessionLost, &words))
        }
    }

    /// Whether every one of these messages was applied before.
    fn is_applied(&mut self, messages: &[Message]) -> Result<bool> {
        let mut events: BTreeSet<(String, String, u64)> = BTreeSet::new();
        let mut letters = false;
        for message in messages {
            match message {
                Message::Event(event) => {
                    let envelope = &event.envelope;
                    events.insert((
                        envelope.tenant.as_str().to_string(),
                        envelope.stream.as_str().to_string(),
                        event.stream_seq,
                    ));
                }
                Message::Undecodable { .. } => letters = true,
            }
        }
        if letters {
            // They name nothing to look for but the message, which went with the session.
            return Ok(false);
        }
        let asked: Vec<(String, String, u64)> = events.into_iter().collect();
        let found = self.session.ask("settle", |connection| {
            let mut found = known_events(connection, &asked)?;
            let missing: Vec<_> =
                asked.iter().filter(|name| !found.contains(*name)).cloned().collect();
            found.extend(known_tombstones(connection, &missing)?);
            Ok(found)
        })?;
        Ok(asked.iter().all(|name| found.contains(name)))
    }
}

const SAVEPOINT: &str = "SAVEPOINT sentinel_claim";
const BACK: &str = "ROLLBACK TO SAVEPOINT sentinel_claim";

/// The wait of one dequeue in whole seconds, and none where none is wanted.
fn whole_seconds(wait: Duration) -> i64 {
    let wait = wait.min(DEQUEUE_WAIT_MAX);
    i64::try_from(wait.as_millis().div_ceil(1000)).unwrap_or(1)
}

fn dequeue(connection: &Connection, max: usize, wait: Duration) -> oracle::Result<Vec<Raw>> {
    let binds = [Bind::size(max), Bind::Integer(Some(whole_seconds(wait))), Bind::Cursor];
    let found =
        bind::call_for_rows(connection, &text(statement!("dequeue_batch"), &[]), &binds, raw);
    nothing_is_nothing(found)
}

fn sweep(connection: &Connection, max: usize) -> oracle::Result<Vec<Raw>> {
    let binds = [Bind::size(max), Bind::Cursor];
    nothing_is_nothing(bind::call_for_rows(
        connection,
        &text(statement!("sweep_exceptions"), &[]),
        &binds,
        raw,
    ))
}

/// An empty queue is no error.
fn nothing_is_nothing(found: oracle::Result<Vec<Raw>>) -> oracle::Result<Vec<Raw>> {
    match found {
        Err(error) if errors::class_of(&error) == Class::QueueEmpty => Ok(Vec::new()),
        other => other,
    }
}

/// A row of the cursor.
fn raw(row: &Row) -> oracle::Result<Raw> {
    Ok(Raw {
        msgid: bind::text(row, "MSGID")?,
        attempts: bind::integer(row, "ATTEMPTS")?,
        event_id: bind::text(row, "EVENT_ID")?,
        event_type: bind::text(row, "EVENT_TYPE")?,
        process_id: bind::text(row, "PROCESS_ID")?,
        tenant_id: bind::text(row, "TENANT_ID")?,
        timestamp_utc: bind::time(row, "TIMESTAMP_UTC")?,
        payload: bind::text(row, "PAYLOAD")?,
    })
}

type EventName = (String, String, u64);

fn known_events(
    connection: &Connection,
    asked: &[EventName],
) -> oracle::Result<BTreeSet<EventName>> {
    let mut known = BTreeSet::new();
    for portion in asked.chunks(sql::LIST_MAX) {
        let length = sql::list_length(portion.len());
        let ask = sql::repeated(
            &text(statement!("known_events"), &[]),
            "(:tenant_id, :stream_key, :stream_seq)",
            length,
        );
        let binds: Vec<Bind<'_>> = fill(portion, length)
            .flat_map(|(tenant, stream, seq)| {
                [Bind::text(tenant, 50), Bind::text(stream, 200), Bind::count(*seq)]
            })
            .collect();
        known.extend(bind::query(connection, &ask, &binds, portion.len(), |row| {
            Ok((
                bind::text(row, "tenant_id")?,
                bind::text(row, "stream_key")?,
                bind::count(row, "stream_seq")?,
            ))
        })?);
    }
    Ok(known)
}

/// Those of `asked` whose numbers dead letters hold. There are few, so they are asked one by one.
fn known_tombstones(
    connection: &Connection,
    asked: &[EventName],
) -> oracle::Result<BTreeSet<EventName>> {
    let mut known = BTreeSet::new();
    let ask = text(statement!("stream_tombstones"), &[]);
    for name in asked {
        let binds = [
            Bind::text(&name.0, 50),
            Bind::text(&name.1, 200),
            Bind::count(name.2.saturating_sub(1)),
            Bind::count(name.2 + 1),
        ];
        let found = bind::query(connection, &ask, &binds, 1, |row| bind::count(row, "stream_seq"))?;
        if !found.is_empty() {
            known.insert(name.clone());
        }
    }
    Ok(known)
}

impl ListenerSession for Listener {
    fn claim(&mut self, max: usize, wait: Duration, stop: &Stop) -> Result<Claim> {
        let deadline = Instant::now() + wait;
        if !self.holds() {
            if !self.held.is_empty() {
                self.let_go();
            }
            // Short waits one after the other, so that a stop is heard soon.
            while !stop.is_set() {
                let left = deadline.saturating_duration_since(Instant::now());
                self.take(max, left)?;
                if !self.held.is_empty() || left.is_zero() || Instant::now() >= deadline {
                    break;
                }
            }
        }
        let taken = self.held.len().min(max);
        let messages = self.held[..taken].iter().map(|held| held.message.clone()).collect();
        // A stop that came first says nothing about the queue.
        let drained = self.drained && taken == self.held.len() && !stop.is_set();
        Ok(Claim { messages, drained })
    }

    fn load(&mut self, processes: &[(TenantId, ProcessId)]) -> Result<Vec<Option<State>>> {
        const CALL: &str = "load";
        if processes.is_empty() {
            return Ok(Vec::new());
        }
        let sorted: BTreeSet<(&str, &str)> =
            processes.iter().map(|(tenant, process)| (tenant.as_str(), process.as_str())).collect();
        let sorted: Vec<(&str, &str)> = sorted.into_iter().collect();
        let holds = self.holds();
        let connection =
            if holds { self.session.current(CALL)? } else { self.session.ready(CALL)? };
        let outcome = locked_states(connection, &sorted).and_then(|found| {
            // Without a claim nobody settles, so nothing may stay locked.
            if !holds {
                connection.rollback()?;
            }
            Ok(found)
        });
        let found = match outcome {
            Ok(found) => found,
            Err(error) => {
                let class = errors::class_of(&error);
                let kept =
                    holds && !class.loses_session() && bind::run_once(connection, BACK).is_ok();
                return Err(if kept {
                    if class.is_unclear() {
                        self.session.note_unclear(class, &error.to_string());
                    }
                    errors::told(CALL, class, &error.to_string())
                } else {
                    self.lose(CALL, &error)
                });
            }
        };
        processes
            .iter()
            .map(|(tenant, process)| {
                let name = (tenant.as_str().to_string(), process.as_str().to_string());
                match found.get(&name).and_then(Option::as_deref) {
                    Some(digest) => state::decode(digest)
                        .map(Some)
                        .map_err(|error| error.into_error(CALL, process.as_str())),
                    None => Ok(None),
                }
            })
            .collect()
    }

    fn settle(&mut self, claim: Claim, change: Change, now: Timestamp) -> Result<()> {
        if claim.messages.is_empty() {
            return Ok(());
        }
        let settled: BTreeSet<i64> = claim.messages.iter().map(Message::position).collect();
        let here: BTreeSet<i64> = self.held.iter().map(|held| held.position).collect();
        if !self.holds() || !settled.is_subset(&here) {
            if !self.held.is_empty() && !self.holds() {
                self.let_go();
            }
            return if self.is_applied(&claim.messages)? {
                Ok(())
            } else {
                Err(StoreError::Released {
                    call: "settle",
                    source: "its session was lost, and the queue has the messages again".into(),
                })
            };
        }
        let last = settled.len() == here.len();
        self.write(&change, last, now)?;
        self.held.retain(|held| !settled.contains(&held.position));
        if last {
            self.careful = false;
        }
        Ok(())
    }

    fn give_back(&mut self) {
        if !self.held.is_empty() {
            self.session.drop_connection();
            self.let_go();
        }
    }
}

/// The digests of processes whose rows are locked now, by (tenant, process).
fn locked_states(
    connection: &Connection,
    sorted: &[(&str, &str)],
) -> oracle::Result<BTreeMap<(String, String), Option<String>>> {
    let mut found = BTreeMap::new();
    for portion in sorted.chunks(sql::LIST_MAX) {
        let length = sql::list_length(portion.len());
        let ask = sql::repeated(
            &text(statement!("load_processes"), &[]),
            "(:tenant_id, :process_id)",
            length,
        );
        let binds: Vec<Bind<'_>> = fill(portion, length)
            .flat_map(|(tenant, process)| [Bind::text(tenant, 50), Bind::text(process, 100)])
            .collect();
        found.extend(bind::query(connection, &ask, &binds, portion.len(), |row| {
            let name = (bind::text(row, "tenant_id")?, bind::text(row, "process_id")?);
            Ok((name, bind::optional_text(row, "state_digest")?))
        })?);
    }
    Ok(found)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_dequeue_waits_whole_seconds_and_never_long() {
        assert_eq!(whole_seconds(Duration::ZERO), 0);
        assert_eq!(whole_seconds(Duration::from_millis(250)), 1, "never a busy loop");
        assert_eq!(whole_seconds(Duration::from_millis(1500)), 2);
        assert_eq!(whole_seconds(Duration::from_secs(3600)), 2);
    }
}
